//! Keys whose change waits for a restart, in the text of the configuration in force.
//!
//! In: what was read, what was in force before, and the keys that go on as they were. Out: the text in force, and for
//! people the same with a remark on each line that waits.
//! Not here: which keys those are (`reload`).

use std::collections::HashMap;

use xxhash_rust::xxh64::xxh64;

use super::Loaded;

/// The hash of a configuration by its text, and by the rules of a mapping file.
pub(super) fn hash(text: &str, mapping: u64) -> String {
    format!("{:016x}", xxh64(text.as_bytes(), mapping))
}

impl Loaded {
    /// Shows `keys`, each a table or a key of one, as `before` has them: a change of theirs waits for a restart.
    pub fn hold_back(&mut self, before: &Self, keys: &[&str]) {
        let old: HashMap<_, _> = by_key(&before.text).collect();
        let mut text = String::new();
        for (at, ((table, key), line)) in by_key(&self.text).enumerate() {
            let waits = || keys.iter().any(|it| it.split_once('.').map_or(*it == table, |it| it == (table, key)));
            let held = old.get(&(table, key)).filter(|held| !key.is_empty() && **held != line && waits());
            if held.is_some() {
                self.waiting.push((at, line.to_owned()));
            }
            text.push_str(held.unwrap_or(&line));
            text.push('\n');
        }
        self.hash = hash(&text, self.config.mapping.file_hash);
        self.text = text;
    }

    /// The text in force, with what waits for a restart behind each line that it would change.
    pub fn annotated(&self) -> String {
        let mut waiting = self.waiting.iter().peekable();
        let mut text = String::new();
        for (at, line) in self.text.lines().enumerate() {
            text.push_str(line);
            if let Some((_, new)) = waiting.next_if(|(place, _)| *place == at) {
                text.push_str("  # waits for a restart: ");
                text.push_str(new);
            }
            text.push('\n');
        }
        text
    }
}

/// Each line with its table and key; the key is empty for what sets none.
fn by_key(text: &str) -> impl Iterator<Item = ((&str, &str), &str)> {
    let mut table = "";
    text.lines().map(move |line| {
        if let Some(name) = line.strip_prefix('[') {
            table = name.strip_suffix(']').unwrap_or(name);
            return ((table, ""), line);
        }
        ((table, line.split_once(" = ").map_or("", |(key, _)| key)), line)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Sources, load};

    fn loaded(set: &[&str]) -> Loaded {
        load(&Sources { file: None, set: set.iter().map(ToString::to_string).collect() }).expect("it loads")
    }

    #[test]
    fn what_waits_is_shown_as_it_was_with_a_remark_and_hashed_as_it_is_in_force() {
        let first = loaded(&[]);
        let mut second = loaded(&["listen.udp=127.0.0.1:9125", "http.listen=:1", "http.drain=5s", "log.level=warn"]);
        second.hold_back(&first, &["listen", "http.listen"]);
        let in_force = loaded(&["http.drain=5s", "log.level=warn"]);
        assert_eq!((&second.text, &second.hash), (&in_force.text, &in_force.hash));
        let shown = second.annotated();
        for line in [
            "udp = \"127.0.0.1:8125\"  # waits for a restart: udp = \"127.0.0.1:9125\"",
            "listen = \"127.0.0.1:9102\"  # waits for a restart: listen = \":1\"",
            "drain = \"5s\"",
        ] {
            assert!(shown.lines().any(|it| it == line), "{line} in\n{shown}");
        }
        assert_eq!(shown.matches('#').count(), 2, "{shown}");
        let read = toml::from_str::<toml::Table>(&shown).expect("it can be read");
        assert_eq!(read, toml::from_str(&in_force.text).expect("it can be read"));
        // It goes on to wait, and once it is taken back it does not.
        let mut third = loaded(&["listen.udp=127.0.0.1:9125"]);
        third.hold_back(&second, &["listen"]);
        assert_eq!(third.annotated().matches("waits for a restart: udp = \"127.0.0.1:9125\"").count(), 1);
        let mut fourth = loaded(&[]);
        fourth.hold_back(&third, &[]);
        assert_eq!((fourth.annotated(), fourth.hash), (first.text, first.hash));
    }
}
