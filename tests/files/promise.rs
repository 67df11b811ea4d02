//! Keeps a promise: facts that users build on, one a line, compared with those of the file that holds them.
//!
//! In: the name of a file in `tests/data/interface/`, and the facts as they are. Out: a failure that says which are gone
//! and which are new. `UPDATE_EXPECTED=1` takes up what is new; only `UPDATE_EXPECTED=breaking` lets something go.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use serde_json::Value;

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/interface").join(name)
}

/// The facts of a file.
pub(crate) fn promised(name: &str) -> Vec<String> {
    let text = std::fs::read_to_string(file(name)).unwrap_or_default();
    text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).map(str::to_owned).collect()
}

/// Holds `facts`, in the order that they are to stand in, against the file.
pub(crate) fn keep(name: &str, facts: Vec<String>) {
    let before = promised(name);
    let update = std::env::var("UPDATE_EXPECTED").unwrap_or_default();
    if let Err(why) = compare(name, &before, &facts, &update) {
        panic!("{why}");
    }
    if !update.is_empty() {
        let head = "# What users build on, as tests/files/promise.rs explains. A line that goes is a breaking change.";
        std::fs::write(file(name), format!("{head}\n{}\n", facts.join("\n"))).expect("the file can be written");
    }
}

/// The paths of all values in JSON, `[]` for elements of lists, and `*` for the fields of a field in `by_word`.
pub(crate) fn paths(value: &Value, path: &str, by_word: &[&str], found: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) => fields.iter().for_each(|(name, value)| {
            let name = if by_word.iter().any(|word| path.ends_with(word)) { "*" } else { name };
            paths(value, &if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }, by_word, found);
        }),
        Value::Array(values) => values.iter().for_each(|value| paths(value, &format!("{path}[]"), by_word, found)),
        Value::Null => {}
        Value::String(_) => _ = found.insert(format!("{path}: text")),
        Value::Number(_) => _ = found.insert(format!("{path}: number")),
        Value::Bool(_) => _ = found.insert(format!("{path}: true or false")),
    }
}

/// What has changed against `before`, in words, unless `update` allows it.
fn compare(name: &str, before: &[String], facts: &[String], update: &str) -> Result<(), String> {
    let set = |lines: &[String]| -> BTreeSet<String> { lines.iter().cloned().collect() };
    assert_eq!(set(facts).len(), facts.len(), "{name}: a fact stands there twice");
    let (old, new) = (set(before), set(facts));
    let mut told = String::new();
    if update != "breaking" {
        for gone in old.difference(&new) {
            writeln!(told, "{gone}: was removed or changed: that is a breaking change (major version)")
                .expect("a String");
        }
        if !told.is_empty() {
            told += "If it is meant: CHANGELOG.md, and UPDATE_EXPECTED=breaking. Else keep it.\n";
        }
    }
    if update.is_empty() {
        let added: Vec<&String> = new.difference(&old).collect();
        for fact in &added {
            writeln!(told, "{fact}: is new, and from the next release on a promise").expect("a String");
        }
        if !added.is_empty() {
            told += "If it is meant: UPDATE_EXPECTED=1.\n";
        }
    }
    if told.is_empty() { Ok(()) } else { Err(format!("tests/data/interface/{name}:\n{told}")) }
}

#[test]
fn what_is_gone_is_told_as_breaking_and_only_breaking_lets_it_go() {
    let lines = |text: &str| -> Vec<String> { text.split(' ').map(str::to_owned).collect() };
    let (before, after) = (lines("a b"), lines("b c"));
    let told = compare("x.txt", &before, &after, "").unwrap_err();
    assert!(told.contains("a: was removed or changed: that is a breaking change (major version)"), "{told}");
    assert!(told.contains("c: is new"), "{told}");
    assert!(compare("x.txt", &before, &after, "1").unwrap_err().contains("breaking"));
    assert_eq!(compare("x.txt", &before, &after, "breaking"), Ok(()));
    assert_eq!(compare("x.txt", &before, &lines("a b c"), "1"), Ok(()));
    assert_eq!(compare("x.txt", &before, &before, ""), Ok(()));
}
