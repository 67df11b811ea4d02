//! Pieces of configuration for a person to paste.
//!
//! In: a dotted key and its value. Out: TOML that sets it, and nothing else.
//! Always: what comes out can be read again; a list replaces the one in force, so one that grows is written out whole.

use toml::Table;
pub use toml::Value;

use super::Loaded;

/// TOML that sets `key` (dotted, of two parts or one) to `value`.
pub fn set(key: &str, value: impl Into<Value>) -> String {
    let mut table = Table::new();
    match key.split_once('.') {
        Some((outer, inner)) => {
            let inner = Table::from_iter([(inner.to_owned(), value.into())]);
            table.insert(outer.to_owned(), Value::Table(inner));
        }
        None => _ = table.insert(key.to_owned(), value.into()),
    }
    toml::to_string(&table).expect("tables of plain values and lists can be written as TOML")
}

/// TOML that adds `item` to the list at `key`, which holds what it holds in `loaded`.
pub fn add(loaded: &Loaded, key: &str, item: impl Into<Value>) -> String {
    let in_force: Table = toml::from_str(&loaded.text).expect("the text in force is TOML; it was written as such");
    let found = match key.split_once('.') {
        Some((outer, inner)) => in_force.get(outer).and_then(|outer| outer.get(inner)),
        None => in_force.get(key),
    };
    let mut list = found.and_then(Value::as_array).cloned().unwrap_or_default();
    list.push(item.into());
    set(key, list)
}

/// A table of `pairs`, as a list holds it.
pub fn table<const N: usize>(pairs: [(&str, Value); N]) -> Value {
    Value::Table(pairs.into_iter().map(|(key, value)| (key.to_owned(), value)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Sources, load};

    #[test]
    fn a_key_is_set_in_its_table_and_a_list_keeps_what_it_has() {
        let loaded = load(&Sources::default()).expect("the defaults load");
        assert_eq!(set("labels.max_values", 500), "[labels]\nmax_values = 500\n");
        assert_eq!(
            add(&loaded, "labels.drop", "request_id"),
            "[labels]\ndrop = [\"dd.internal.*\", \"message_id\", \"update_id\", \"request_id\"]\n"
        );
        let rule = table([("tags", vec!["chat_id"].into()), ("label", "chat_bucket".into())]);
        let text = add(&loaded, "bucketing", rule);
        assert_eq!(text.matches("[[bucketing]]").count(), 2, "{text}");
        assert!(text.contains("tags = [\"user_id\"]") && text.contains("label = \"chat_bucket\""), "{text}");
    }
}
