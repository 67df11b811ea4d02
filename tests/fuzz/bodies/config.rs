//! A configuration file and overrides, and what is printed of them and run by.
//!
//! In: bytes. Out: nothing, or a panic that says what did not hold.
//! Not here: which values are good (the tests of `config`); here those that are taken must be of use.
//! Always: what is printed is the defaults with what was set over them, and no less.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use statsieve::command::memory::Memory;
use statsieve::config::{Config, Format, Loaded, Sources, load};
use toml::{Table, Value};

use super::rig::{Rig, all_formats, dropped, lines, recorded};
use super::written;

/// Memory that a fuzzed configuration may ask for at start, bytes; more is not tried out.
const MOST_CACHE_BYTES: usize = 1 << 24;
/// Buckets of all histograms; to write and read back more takes too long.
const MOST_BOUNDS: usize = 100;

/// What a rule for user buckets has from the defaults, by the words of `config.toml`.
const INHERITED: [&str; 5] = ["method", "count", "salt_file", "format", "observers"];

/// The defaults, checked and as they are written.
static DEFAULTS: LazyLock<(Loaded, Table)> = LazyLock::new(|| {
    let text = include_str!("../../../config.toml").parse().expect("it is TOML");
    (load(&Sources::default()).unwrap_or_else(|problems| panic!("{problems}")), text)
});

/// Whether it was taken.
pub(super) fn config(data: &[u8]) -> bool {
    let mut parts = data.splitn(2, |byte| *byte == 0);
    let (text, set) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    // Devices could be read without end: a mapping or salt file is whatever the operator names.
    if data.windows(4).any(|part| part == b"/dev" || part == b"/pro" || part == b"/sys") {
        return false;
    }
    let file = Some(written("config.toml", text));
    let set: Vec<String> = String::from_utf8_lossy(set).lines().map(str::to_owned).collect();
    let loaded = match load(&Sources { file, set: set.clone() }) {
        Ok(loaded) => loaded,
        Err(problems) => {
            assert!(problems.count() > 0 && !problems.to_string().is_empty());
            problems.render_with_carets();
            return false;
        }
    };
    let printed: Table = loaded.text.parse().expect("what was printed is TOML");
    let expected = merged(std::str::from_utf8(text).expect("what was read is UTF-8"), &set);
    is_same(&Value::Table(printed.clone()), &Value::Table(expected), "");
    numbers_are_those_printed(&loaded.config, &printed);
    prints_the_same(&loaded, &loaded.text, "what was printed");
    // A file need not say what the defaults say.
    let usual = DEFAULTS.0.text.parse().expect("what was printed is TOML");
    let brief = beside(&printed, &usual).to_string();
    prints_the_same(&loaded, &brief, "what differs from the defaults");
    keeps_its_word(&loaded.config);
    assert_eq!(loaded.annotated(), loaded.text);
    let (is_default, has_its_hash) = (loaded.text == DEFAULTS.0.text, loaded.hash == DEFAULTS.0.hash);
    assert!(loaded.config.mapping.file.is_some() || is_default == has_its_hash, "the hash is that of the text");
    loaded.config.remarks();
    loaded.config.exposures();
    let memory = Memory::of(&loaded.config);
    assert!(memory.total() >= loaded.config.cardinality.max_bytes, "series alone may take that");
    if loaded.config.cardinality.identity_cache_bytes <= MOST_CACHE_BYTES {
        runs(&loaded.config);
    }
    true
}

/// A text loads to what `loaded` is.
fn prints_the_same(loaded: &Loaded, text: &str, what: &str) {
    let has_files = !loaded.files.is_empty() || loaded.config.http.web_config_file.is_some();
    // Those that an override names are looked for elsewhere.
    if has_files && loaded.overrides > 0 {
        return;
    }
    let again = load(&Sources { file: Some(written("again.toml", text.as_bytes())), set: Vec::new() });
    let mut again = again.unwrap_or_else(|problems| panic!("{what} loads: {problems}\n{text}"));
    assert_eq!(again.text, loaded.text, "{what} reads back the same");
    // A file may name itself, and is called otherwise now.
    if !has_files {
        again.config.listen.receive_buffer_asked = loaded.config.listen.receive_buffer_asked;
        assert_eq!(again.config, loaded.config, "{what} means the same");
        assert_eq!(again.hash, loaded.hash);
    }
}

/// The defaults, what a file says over them, and overrides over both, none of which has a problem.
fn merged(file: &str, set: &[String]) -> Table {
    let defaults = &DEFAULTS.1;
    let known = Value::Table(defaults.clone());
    let mut all = known.clone();
    lay(&mut all, Value::Table(file.parse().expect("it was read")));
    for argument in set {
        let (key, text) = argument.split_once('=').expect("it was taken");
        let path: Vec<&str> = key.trim().split('.').collect();
        let value = format!("value = {text}").parse().ok().and_then(|mut it: Table| it.remove("value"));
        // The first rule for user buckets is the default of all.
        let default = path.iter().enumerate().try_fold(&known, |at, (place, name)| match at {
            Value::Array(list) if place == 1 && path[0] == "bucketing" => list.first(),
            at => inside(at, name),
        });
        let is_text = matches!(default, Some(Value::String(_))) || path[..path.len() - 1] == ["labels", "add"];
        let value = match value {
            Some(value) if !is_text || value.is_str() => value,
            _ => Value::String(text.to_owned()),
        };
        put(&mut all, &path, value);
    }
    let Value::Table(mut all) = all else { unreachable!("it was one") };
    let first = &defaults["bucketing"][0];
    for rule in all["bucketing"].as_array_mut().into_iter().flatten().filter_map(Value::as_table_mut) {
        for key in INHERITED {
            rule.entry(key).or_insert_with(|| first[key].clone());
        }
    }
    all
}

fn inside<'v>(at: &'v Value, name: &str) -> Option<&'v Value> {
    match at {
        Value::Table(table) => table.get(name),
        Value::Array(list) => list.get(name.parse::<usize>().ok()?),
        _ => None,
    }
}

/// Tables key by key, all else as a whole.
fn lay(at: &mut Value, value: Value) {
    match (at, value) {
        (Value::Table(below), Value::Table(above)) => {
            for (name, value) in above {
                match below.get_mut(&name) {
                    Some(below) => lay(below, value),
                    None => _ = below.insert(name, value),
                }
            }
        }
        (at, value) => *at = value,
    }
}

fn put(at: &mut Value, path: &[&str], value: Value) {
    match (at, path) {
        (at, []) => lay(at, value),
        (Value::Array(list), [index, rest @ ..]) => {
            put(&mut list[index.parse::<usize>().expect("it was taken")], rest, value);
        }
        (Value::Table(table), [name, rest @ ..]) => {
            put(table.entry(*name).or_insert_with(|| Value::Table(Table::new())), rest, value);
        }
        (at, _) => panic!("{path:?} in {at}"),
    }
}

/// Two values are the same but for how a number is written.
fn is_same(printed: &Value, expected: &Value, at: &str) {
    match (printed, expected) {
        (Value::Table(one), Value::Table(other)) => {
            assert!(one.keys().eq(other.keys()), "{at}: {one}, not {other}");
            one.iter().for_each(|(name, value)| is_same(value, &other[name], &format!("{at}.{name}")));
        }
        (Value::Array(one), Value::Array(other)) => {
            assert_eq!(one.len(), other.len(), "{at}");
            one.iter().zip(other).for_each(|(one, other)| is_same(one, other, at));
        }
        (Value::Float(one), Value::Integer(other)) => assert_eq!(*one, *other as f64, "{at}"),
        (one, other) => assert_eq!(one, other, "{at}"),
    }
}

/// What of a table is not in another of its kind.
fn beside(table: &Table, other: &Table) -> Table {
    let differ = |(name, value): (&String, &Value)| match (value, other.get(name)) {
        (value, Some(known)) if value == known => None,
        (Value::Table(table), Some(Value::Table(known))) => Some((name.clone(), Value::Table(beside(table, known)))),
        (value, _) => Some((name.clone(), value.clone())),
    };
    table.iter().filter_map(differ).collect()
}

/// Limits are those of their own keys.
fn numbers_are_those_printed(config: &Config, printed: &Table) {
    let Config { listen, http, labels, cardinality, distinct, heavy_hitters, relay, .. } = config;
    for (table, key, value) in [
        ("listen", "max_connections", listen.max_connections as u64),
        ("listen", "max_line_bytes", listen.max_line_bytes as u64),
        ("listen", "receive_buffer_bytes", listen.receive_buffer_bytes as u64),
        ("http", "max_connections", http.max_connections as u64),
        ("labels", "max_count", labels.max_count as u64),
        ("labels", "max_name_bytes", labels.max_name_bytes as u64),
        ("labels", "max_value_bytes", labels.max_value_bytes as u64),
        ("labels", "max_values", labels.max_values as u64),
        ("cardinality", "max_series", cardinality.max_series),
        ("cardinality", "max_series_per_family", cardinality.max_series_per_family),
        ("cardinality", "max_families", cardinality.max_families as u64),
        ("cardinality", "max_bytes", cardinality.max_bytes),
        ("cardinality", "new_series_per_second", cardinality.new_series_per_second.into()),
        ("cardinality", "identity_cache_bytes", cardinality.identity_cache_bytes as u64),
        ("distinct", "registers", distinct.registers as u64),
        ("heavy_hitters", "capacity", heavy_hitters.capacity as u64),
        ("relay", "packet_bytes", relay.packet_bytes as u64),
    ] {
        assert_eq!(printed[table][key].as_integer().map(i64::unsigned_abs), Some(value), "{table}.{key}");
    }
}

/// What is said of a checked configuration, and nothing that runs would show.
fn keeps_its_word(config: &Config) {
    let bounds = &config.observer.bounds;
    assert!(bounds.is_sorted_by(|one, next| one < next) && bounds.iter().all(|bound| bound.is_finite()), "{bounds:?}");
    assert!(config.distinct.registers.is_power_of_two(), "{}", config.distinct.registers);
    let added = config.labels.add.iter().map(|(name, _)| name);
    let labels: Vec<_> = config.bucketing.iter().map(|rule| &rule.label).chain(added).collect();
    assert_eq!(labels.iter().collect::<BTreeSet<_>>().len(), labels.len(), "a label twice: {labels:?}");
    let tags: Vec<_> = config.bucketing.iter().flat_map(|rule| &rule.tags).collect();
    assert_eq!(tags.iter().collect::<BTreeSet<_>>().len(), tags.len(), "a tag twice: {tags:?}");
}

/// Lines of every type, with a tag that becomes a bucket, are counted and can be read back.
fn runs(config: &Config) {
    let mut rig = Rig::of(config, 1);
    rig.send(0, b"a.b:1|c|#user_id:7,k:v\na.d:2|ms\na.e:3|g\na.f:x|s\na.g:1|h");
    let tags: Vec<&str> = config.bucketing.iter().flat_map(|rule| &rule.tags).take(20).map(String::as_str).collect();
    for tag in &tags {
        rig.send(0, format!("a.c:1|c|#{tag}:7,k:v").as_bytes());
    }
    let (tally, sent) = (rig.tally(), 5 + tags.len() as u64);
    assert_eq!(lines(&tally), sent);
    assert_eq!(recorded(&tally) + dropped(&tally), sent);
    let bounds = config.observer.bounds.len() + config.mapping.rules.len();
    if bounds <= MOST_BOUNDS {
        all_formats(&rig);
    } else {
        rig.text(Format::Text);
    }
}
