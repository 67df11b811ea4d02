//! Brings defaults, a preset, a file and the command line together, and remembers where each value came from.
//!
//! In: texts. Out: one merged table, its raw structs, and a [`Problem`] for each thing that does not fit.
//! Not here: ranges and meanings (`check`).
//! Always: after a type error the key is put back to its default and reading goes on, so that all of them are found;
//! a key put back this way is not complained about a second time.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

use toml::de::{DeArray, DeTable, DeValue};
use toml::{Spanned, Table, Value};

use super::Flag;
use super::file::Known;
use super::problem::{KeyPath, Problem, Problems};
use super::raw::Raw;
use super::{file, keys};

/// The text of `config.toml`: the only source of defaults.
pub(super) const DEFAULTS: &str = include_str!("../../config.toml");

/// Keys that a `[[bucketing]]` element takes from the default element where it does not name them.
const INHERITED: [&str; 5] = ["method", "count", "salt_file", "format", "observers"];

/// Where a value was set.
#[derive(Clone, Debug)]
enum Place {
    /// In the file: the bytes of the key and of the value.
    File { key: Range<usize>, value: Range<usize> },
    /// By the override of this index.
    Override(usize),
    /// By the flag of this index.
    Flag(usize),
}

/// The merged configuration before it is checked.
#[derive(Debug)]
pub(super) struct Merged {
    table: Table,
    defaults: Table,
    places: BTreeMap<KeyPath, Place>,
    file: Option<PathBuf>,
    text: String,
    overrides: Vec<String>,
    /// Flags as they were written.
    flags: Vec<String>,
    /// Keys whose value did not fit their type; they hold a stand-in now.
    broken: Vec<KeyPath>,
}

impl Merged {
    /// The defaults alone.
    pub(super) fn new() -> Self {
        let defaults: Table = toml::from_str(DEFAULTS).expect("the built-in config.toml is TOML; a test loads it");
        Self {
            table: defaults.clone(),
            defaults,
            places: BTreeMap::new(),
            file: None,
            text: String::new(),
            overrides: Vec::new(),
            flags: Vec::new(),
            broken: Vec::new(),
        }
    }

    /// Merges a preset over what is there.
    pub(super) fn add_preset(&mut self, text: &str, problems: &mut Vec<Problem>) {
        let table = toml::from_str(text).expect("a built-in preset is TOML; a test loads it");
        self.merge(table, &KeyPath::default(), problems);
    }

    /// Applies a flag of the program that the preset stands for.
    pub(super) fn add_flag(&mut self, flag: &Flag) {
        let path = KeyPath::parse(flag.key);
        self.places.retain(|place, _| !place.is_within(&path));
        self.places.insert(path.clone(), Place::Flag(self.flags.len()));
        self.flags.push(flag.written.clone());
        put(&mut self.table, &path, flag.value.clone()).expect("a flag stands for a key of the code");
    }

    /// Reads `path` and merges it over what is there. Adds it to `files`.
    ///
    /// # Errors
    /// One problem: the file cannot be read, is no UTF-8, or is no TOML. Nothing else can be said of it then.
    pub(super) fn add_file(
        &mut self,
        path: &Path,
        problems: &mut Vec<Problem>,
        files: &mut Vec<Known>,
    ) -> Result<(), Problems> {
        let name = path.display().to_string();
        let root = KeyPath::default();
        let only = |problem: Problem| Problems::new(vec![problem]);
        let bytes = file::read_noted(path, files)
            .map_err(|cause| only(Problem::bare(&name, &root, format!("cannot be read: {cause}"))))?;
        let text = String::from_utf8(bytes).map_err(|cause| {
            let at = cause.utf8_error().valid_up_to();
            let good = String::from_utf8_lossy(&cause.as_bytes()[..at]).into_owned();
            only(Problem::in_file(&name, &good, &(at..at), &root, format!("not UTF-8 at byte {at}")))
        })?;
        let syntax = |error: &toml::de::Error| {
            let span = error.span().unwrap_or(text.len()..text.len());
            only(Problem::in_file(&name, &text, &span, &root, format!("not TOML: {}", error.message())))
        };
        let spanned = DeTable::parse(&text).map_err(|error| syntax(&error))?;
        let table: Table = toml::from_str(&text).map_err(|error| syntax(&error))?;
        note_table(spanned.get_ref(), &root, &mut self.places);
        drop(spanned);
        self.file = Some(path.to_owned());
        self.text = text;
        self.merge(table, &root, problems);
        Ok(())
    }

    /// Whether there is a file and it holds nothing.
    pub(super) fn is_empty_file(&self) -> bool {
        self.file.is_some() && self.text.is_empty()
    }

    /// Applies the override `KEY=VALUE`; later ones win.
    pub(super) fn add_override(&mut self, argument: &str, problems: &mut Vec<Problem>) {
        let index = self.overrides.len();
        self.overrides.push(argument.to_owned());
        let Some((dotted, text)) = argument.split_once('=') else {
            let message = "found no \"=\", accepted: KEY=VALUE".to_owned();
            problems.push(Problem::in_override(argument, &KeyPath::default(), message, true));
            return;
        };
        let path = KeyPath::parse(dotted.trim());
        if path.segments().any(str::is_empty) {
            let message = format!("found {dotted:?} as the key, accepted: names with a dot between them");
            problems.push(Problem::in_override(argument, &KeyPath::default(), message, true));
            return;
        }
        let value = match self.read_override(&path, text) {
            Ok(value) => value,
            Err(()) => {
                let message = format!("found {}, accepted: {}", shorten(text), keys::accepted(&path));
                problems.push(Problem::in_override(argument, &path, message, false));
                return;
            }
        };
        self.places.retain(|place, _| !place.is_within(&path));
        self.places.insert(path.clone(), Place::Override(index));
        if self.clashes(&path, &value) {
            let message = format!("found {}, accepted: {}", shorten(text), keys::accepted(&path));
            problems.push(Problem::in_override(argument, &path, message, false));
            return;
        }
        let value = match (value, self.get(&path)) {
            (Value::Table(table), Some(Value::Table(_))) => return self.merge(table, &path, problems),
            (value, _) => value,
        };
        if let Err(message) = put(&mut self.table, &path, value) {
            problems.push(Problem::in_override(argument, &path, message, true));
        }
    }

    /// The value of an override: text where the default is text or the key's name is the user's, else TOML.
    fn read_override(&self, path: &KeyPath, text: &str) -> Result<Value, ()> {
        let parsed =
            toml::from_str::<Table>(&format!("value = {text}")).ok().and_then(|mut table| table.remove("value"));
        let free_text = path.is_within(&KeyPath::parse("labels.add")) && path.len() == 3;
        match (self.default_at(path), parsed) {
            (_, Some(Value::String(unquoted))) => Ok(Value::String(unquoted)),
            (Some(Value::String(_)), _) => Ok(Value::String(text.to_owned())),
            (None, _) if free_text => Ok(Value::String(text.to_owned())),
            (_, Some(value)) => Ok(value),
            (None, None) => Ok(Value::String(text.to_owned())),
            (Some(_), None) => Err(()),
        }
    }

    /// Whether a table or list of the defaults would be replaced by something else.
    fn clashes(&self, path: &KeyPath, value: &Value) -> bool {
        match self.default_at(path) {
            Some(Value::Table(_)) => !value.is_table(),
            Some(Value::Array(_)) => !value.is_array(),
            _ => false,
        }
    }

    /// Merges `table` over what is at `path`, key by key.
    fn merge(&mut self, table: Table, path: &KeyPath, problems: &mut Vec<Problem>) {
        for (name, value) in table {
            let inner = path.join(&name);
            if self.clashes(&inner, &value) {
                let message = format!("found {}, accepted: {}", show(&value), keys::accepted(&inner));
                problems.push(self.problem(&inner, message));
                continue;
            }
            match (value, self.get(&inner)) {
                (Value::Table(table), Some(Value::Table(_))) => self.merge(table, &inner, problems),
                (value, _) => put(&mut self.table, &inner, value).expect("its table was met on the way here"),
            }
        }
    }

    /// Reads the merged tables into the raw structs, with a problem for each unknown key and each type that does not
    /// fit.
    pub(super) fn read(&mut self, problems: &mut Vec<Problem>) -> Raw {
        self.inherit();
        loop {
            let mut unknown: Vec<KeyPath> = Vec::new();
            let mut note = |path: serde_ignored::Path<'_>| unknown.push(ignored_path(&path));
            let merged = Value::Table(self.table.clone());
            match serde_path_to_error::deserialize(serde_ignored::Deserializer::new(merged, &mut note)) {
                Ok(raw) => {
                    for path in unknown {
                        let message = keys::suggestion(&path);
                        problems.push(self.problem_at_key(&path, message));
                    }
                    return raw;
                }
                Err(error) => {
                    let path = error_path(error.path());
                    let found = self.get(&path).map_or_else(|| error.inner().message().to_owned(), show);
                    let message = format!("found {found}, accepted: {}", keys::accepted(&path));
                    if !self.is_broken(&path) {
                        problems.push(self.problem(&path, message));
                    }
                    self.put_back(&path);
                    self.broken.push(path);
                }
            }
        }
    }

    /// Gives the `[[bucketing]]` elements what they do not name themselves.
    fn inherit(&mut self) {
        let default = self.defaults.get("bucketing").and_then(|list| list.get(0)).cloned();
        let (Some(default), Some(Value::Array(list))) = (default, self.table.get_mut("bucketing")) else { return };
        for element in list.iter_mut().filter_map(Value::as_table_mut) {
            for name in INHERITED {
                if let (false, Some(value)) = (element.contains_key(name), default.get(name)) {
                    element.insert(name.to_owned(), value.clone());
                }
            }
        }
    }

    /// Makes the value at `path` one that can be read: the default, or nothing, or a neighbour in its list.
    ///
    /// Each call makes the table more like the defaults, which do read, so a loop of them ends.
    fn put_back(&mut self, path: &KeyPath) {
        if path.is_root() {
            self.table = self.defaults.clone();
            return;
        }
        let parent = path.parent();
        let current = self.get(path).cloned();
        let default = self.default_at(path).cloned();
        let stand_in = match (self.get(&parent), &default) {
            (_, Some(default)) if current.as_ref() != Some(default) => Some(default.clone()),
            // A list without a default is most likely one of texts; if it is not, the next round takes the whole list.
            (Some(Value::Array(_)), _) => Some(
                self.default_at(&parent).and_then(|list| list.get(0)).cloned().unwrap_or(Value::String(String::new())),
            ),
            _ => None,
        };
        match stand_in {
            Some(value) if current.is_some() && current.as_ref() != Some(&value) => {
                if put(&mut self.table, path, value).is_err() {
                    self.put_back(&parent);
                }
            }
            _ => {
                let gone = match (self.get_mut(&parent), path.last()) {
                    (Some(Value::Table(table)), Some(name)) if default.is_none() => table.remove(name).is_some(),
                    _ => false,
                };
                if !gone {
                    self.put_back(&parent);
                }
            }
        }
    }

    /// The value at `path` now.
    pub(super) fn get(&self, path: &KeyPath) -> Option<&Value> {
        look_up(&self.table, path.segments())
    }

    fn get_mut(&mut self, path: &KeyPath) -> Option<&mut Value> {
        let mut segments = path.segments();
        let mut at = self.table.get_mut(segments.next()?)?;
        for segment in segments {
            at = match at {
                Value::Table(table) => table.get_mut(segment)?,
                Value::Array(list) => list.get_mut(segment.parse::<usize>().ok()?)?,
                _ => return None,
            };
        }
        Some(at)
    }

    /// What the defaults hold at `path`; every `[[bucketing]]` element has the first one as its default.
    fn default_at(&self, path: &KeyPath) -> Option<&Value> {
        let bucketing = path.segments().next() == Some("bucketing");
        look_up(&self.defaults, path.segments().enumerate().map(|(i, s)| if bucketing && i == 1 { "0" } else { s }))
    }

    /// Whether the file, a flag or an override sets this very key.
    pub(super) fn is_set(&self, path: &KeyPath) -> bool {
        self.places.contains_key(path)
    }

    /// Whether a problem at `path` would follow from a type error already told.
    pub(super) fn is_broken(&self, path: &KeyPath) -> bool {
        self.broken.iter().any(|broken| broken.overlaps(path))
    }

    /// The directory that a relative path set at `path` starts from: that of the file, or none if it came otherwise.
    pub(super) fn directory(&self, path: &KeyPath) -> Option<&Path> {
        match self.places.get(path) {
            Some(Place::File { .. }) => self.file.as_deref().and_then(Path::parent),
            _ => None,
        }
    }

    /// A problem with the value at `path`, shown where it, or else what it is in, was set.
    pub(super) fn problem(&self, path: &KeyPath, message: String) -> Problem {
        self.placed(path, message, false)
    }

    fn problem_at_key(&self, path: &KeyPath, message: String) -> Problem {
        self.placed(path, message, true)
    }

    fn placed(&self, path: &KeyPath, message: String, mark_key: bool) -> Problem {
        let mut set = path.clone();
        while !set.is_root() {
            match self.places.get(&set) {
                Some(Place::Override(index)) => {
                    return Problem::in_override(&self.overrides[*index], path, message, mark_key);
                }
                Some(Place::Flag(index)) => return Problem::in_flag(&self.flags[*index], message),
                Some(Place::File { key, value }) => {
                    let span = if mark_key { key } else { value };
                    let name = self.file.as_deref().unwrap_or(Path::new("")).display().to_string();
                    return Problem::in_file(&name, &self.text, span, path, message);
                }
                None => set = set.parent(),
            }
        }
        // An unknown key of an override stands deeper than the table that is unknown.
        if let Some(Place::Override(index)) =
            self.places.iter().find(|(place, _)| place.is_within(path)).map(|(_, p)| p)
        {
            return Problem::in_override(&self.overrides[*index], path, message, mark_key);
        }
        Problem::bare("the defaults", path, message)
    }
}

fn look_up<'t, 's>(table: &'t Table, mut segments: impl Iterator<Item = &'s str>) -> Option<&'t Value> {
    let mut at = table.get(segments.next()?)?;
    for segment in segments {
        at = match at {
            Value::Table(table) => table.get(segment)?,
            Value::Array(list) => list.get(segment.parse::<usize>().ok()?)?,
            _ => return None,
        };
    }
    Some(at)
}

/// Sets the value at `path`, making tables on the way; the error says why there is no such place.
fn put(table: &mut Table, path: &KeyPath, value: Value) -> Result<(), String> {
    put_in_table(table, &path.segments().collect::<Vec<_>>(), value)
}

fn put_in_table(table: &mut Table, segments: &[&str], value: Value) -> Result<(), String> {
    match segments {
        [] => Err("found no key".to_owned()),
        [last] => {
            table.insert((*last).to_owned(), value);
            Ok(())
        }
        [first, rest @ ..] => {
            put_in_value(table.entry((*first).to_owned()).or_insert_with(|| Value::Table(Table::new())), rest, value)
        }
    }
}

fn put_in_value(at: &mut Value, segments: &[&str], value: Value) -> Result<(), String> {
    match (at, segments) {
        (at, []) => {
            *at = value;
            Ok(())
        }
        (Value::Table(table), segments) => put_in_table(table, segments, value),
        (Value::Array(list), [index, rest @ ..]) => {
            let length = list.len();
            match index.parse::<usize>().ok().and_then(|index| list.get_mut(index)) {
                Some(element) => put_in_value(element, rest, value),
                None => Err(format!("found index {index}, accepted: an index below {length}, the length of the list")),
            }
        }
        _ => Err("found a name inside of a value, accepted: the key of a table".to_owned()),
    }
}

/// Notes where each key of the file and its value stand.
fn note_table(table: &DeTable<'_>, path: &KeyPath, places: &mut BTreeMap<KeyPath, Place>) {
    for (name, value) in table {
        let inner = path.join(name.get_ref());
        places.insert(inner.clone(), Place::File { key: name.span(), value: value.span() });
        note_value(value.get_ref(), &inner, places);
    }
}

fn note_value(value: &DeValue<'_>, path: &KeyPath, places: &mut BTreeMap<KeyPath, Place>) {
    match value {
        DeValue::Table(table) => note_table(table, path, places),
        DeValue::Array(list) => note_list(list, path, places),
        _ => {}
    }
}

fn note_list(list: &DeArray<'_>, path: &KeyPath, places: &mut BTreeMap<KeyPath, Place>) {
    for (index, element) in list.iter().enumerate() {
        let element: &Spanned<DeValue<'_>> = element;
        let inner = path.join(index);
        places.insert(inner.clone(), Place::File { key: element.span(), value: element.span() });
        note_value(element.get_ref(), &inner, places);
    }
}

fn ignored_path(path: &serde_ignored::Path<'_>) -> KeyPath {
    use serde_ignored::Path::{Map, NewtypeStruct, NewtypeVariant, Root, Seq, Some};
    match path {
        Root => KeyPath::default(),
        Seq { parent, index } => ignored_path(parent).join(index),
        Map { parent, key } => ignored_path(parent).join(key),
        Some { parent } | NewtypeStruct { parent } | NewtypeVariant { parent } => ignored_path(parent),
    }
}

fn error_path(path: &serde_path_to_error::Path) -> KeyPath {
    use serde_path_to_error::Segment::{Enum, Map, Seq, Unknown};
    let segments = path.iter().filter_map(|segment| match segment {
        Seq { index } => Some(index.to_string()),
        Map { key } | Enum { variant: key } => Some(key.clone()),
        Unknown => None,
    });
    KeyPath::from(segments.collect::<Vec<_>>())
}

/// A value as a message quotes it: on one line, and not too long.
pub(super) fn show(value: &Value) -> String {
    match value {
        Value::Table(_) => "a table".to_owned(),
        value => shorten(&value.to_string()),
    }
}

/// At most 80 characters, none of them a line break.
pub(super) fn shorten(text: &str) -> String {
    const LONGEST: usize = 80;
    let flat: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    if flat.chars().count() <= LONGEST {
        return flat;
    }
    flat.chars().take(LONGEST - 3).chain("...".chars()).collect()
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    /// What DESIGN promises of the defaults, without the comments.
    const PROMISED: &str = r#"
        [listen]
        udp = "127.0.0.1:8125"
        tcp = ""
        unix_datagram = ""
        unix_stream = ""
        socket_mode = "0660"
        receive_buffer_bytes = 8388608
        max_line_bytes = 8192
        workers = 0
        coalesce = "2ms"
        max_connections = 1024
        idle_timeout = "5m"
        [http]
        listen = "127.0.0.1:9102"
        metrics_path = "/metrics"
        formats = ["openmetrics", "protobuf", "text"]
        lifecycle = false
        debug_api = "loopback"
        web_config_file = ""
        max_connections = 64
        write_timeout = "30s"
        created_lines = false
        drain = "2s"
        [parse]
        dogstatsd_tags = true
        influxdb_tags = true
        librato_tags = true
        signalfx_tags = true
        gauge_sign = "delta"
        ms_unit = "ms"
        bare_tags = "drop"
        container_id_label = ""
        client_telemetry = true
        [naming]
        prefix = ""
        counter_suffix = "_total"
        timer_suffix = "_seconds"
        [observer]
        type = "histogram"
        buckets = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30]
        native_factor = 1.1
        native_max_buckets = 160
        quantiles = [0.5, 0.9, 0.95, 0.99]
        max_age = "10m"
        [reload]
        watch = false
        [mapping]
        file = ""
        [[bucketing]]
        tags = ["user_id"]
        label = "user_bucket"
        method = "hash"
        count = 100
        salt_file = ""
        format = "bucket_{}"
        observers = false
        [labels]
        drop = ["dd.internal.*", "message_id", "update_id"]
        add = {}
        max_count = 32
        max_name_bytes = 256
        max_values = 200
        max_value_bytes = 256
        [cardinality]
        max_series = 10000
        max_series_per_family = 5000
        max_families = 2000
        max_bytes = 67108864
        new_series_per_second = 10000
        simplify_at = 0.8
        keep_labels = []
        idle_ttl = "0s"
        evict_idle_after = "10m"
        zero_first = "0s"
        identity_cache_bytes = 4194304
        [rate_limit]
        samples_per_second = 0
        family_samples_per_second = 0
        [sampling]
        mode = "adaptive"
        rate = 1.0
        min_rate = 0.01
        target_load = 0.5
        interval = "1s"
        [distinct]
        windows = ["5m", "24h"]
        registers = 1024
        export_registers = false
        [heavy_hitters]
        capacity = 100
        [relay]
        targets = []
        packet_bytes = 1400
        [telemetry]
        own_metrics = "full"
        statsd_exporter_metrics = false
        [log]
        level = "info"
        format = "logfmt"
    "#;

    /// `config.toml` with its commented keys turned on.
    fn everything_on() -> String {
        let key = |line: &str| {
            let name = line.split(" = ").next().filter(|name| *name != line);
            line.starts_with("[[") || name.is_some_and(|name| name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'))
        };
        let lines = DEFAULTS.lines().map(|line| line.strip_prefix("# ").filter(|rest| key(rest)).unwrap_or(line));
        lines.collect::<Vec<_>>().join("\n")
    }

    fn read_text(text: &str) -> (Merged, Raw, Vec<Problem>) {
        let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
        file.write_all(text.as_bytes()).expect("it can be written");
        let (mut merged, mut problems) = (Merged::new(), Vec::new());
        merged.add_file(file.path(), &mut problems, &mut Vec::new()).unwrap_or_else(|problems| panic!("{problems}"));
        let raw = merged.read(&mut problems);
        (merged, raw, problems)
    }

    fn nulls(path: &KeyPath, value: &serde_json::Value, found: &mut Vec<String>) {
        match value {
            serde_json::Value::Null => found.push(path.to_string()),
            serde_json::Value::Array(list) => {
                list.iter().enumerate().for_each(|(index, value)| nulls(&path.join(index), value, found));
            }
            serde_json::Value::Object(map) => map.iter().for_each(|(key, value)| nulls(&path.join(key), value, found)),
            _ => {}
        }
    }

    #[test]
    fn the_defaults_are_the_promised_ones() {
        let promised: Table = toml::from_str(PROMISED).expect("it is TOML");
        assert_eq!(Merged::new().defaults, promised);
    }

    #[test]
    fn config_toml_holds_every_key_of_the_code_and_no_other() {
        let (_, raw, problems) = read_text(&everything_on());
        assert_eq!(problems, [], "a key of config.toml that the code does not know");
        let mut absent = Vec::new();
        nulls(&KeyPath::default(), &serde_json::to_value(raw).expect("plain values"), &mut absent);
        assert_eq!(absent, [""; 0], "a key of the code that config.toml does not name");
    }

    #[test]
    fn every_key_has_words_for_what_it_accepts_and_no_other_has() {
        let (merged, ..) = read_text(&everything_on());
        for (pattern, _) in keys::KEYS {
            let labels = if pattern.starts_with("declare") { "kind" } else { "method" };
            let path = pattern.replace("labels.*", &format!("labels.{labels}")).replace('*', "0");
            let open = *pattern == "labels.add.*";
            assert!(open || merged.get(&KeyPath::parse(&path)).is_some(), "{pattern} is no key");
        }
        let leaves = |path: &str, value: &Value| -> Vec<String> {
            value.as_table().map_or(vec![path.to_owned()], |t| t.keys().map(|key| format!("{path}.{key}")).collect())
        };
        for (name, value) in &merged.table {
            let first = value.get(0).unwrap_or(value);
            let path = if value.is_array() { format!("{name}.0") } else { name.clone() };
            for key in leaves(&path, first) {
                assert_ne!(keys::accepted(&KeyPath::parse(&key)), "a table", "{key} has no words");
            }
        }
    }

    #[test]
    fn config_toml_is_no_wider_than_a_terminal() {
        for (place, line) in DEFAULTS.lines().enumerate() {
            assert!(line.chars().count() <= 120, "line {}", place + 1);
        }
    }

    #[test]
    fn every_element_of_a_wrong_type_is_told_once() {
        for (text, paths) in [
            ("[relay]\ntargets = [1, 2]", vec!["relay.targets.0", "relay.targets.1"]),
            ("[[mapping.rules]]\nbuckets = [\"a\", 1]", vec!["mapping.rules.0.buckets.0"]),
            ("bucketing = [1, 2]", vec!["bucketing.0", "bucketing.1"]),
            ("declare = [1]", vec!["declare.0"]),
            ("declare = 1", vec!["declare"]),
            ("listen = [1]\nlog = 1", vec!["listen", "log"]),
            ("[listen]\nworkers = []\nudp = {}\ntcp = 1", vec!["listen.tcp", "listen.udp", "listen.workers"]),
        ] {
            let (_, _, problems) = read_text(text);
            let mut keys: Vec<&str> = problems.iter().map(|problem| problem.key.as_str()).collect();
            keys.sort_unstable();
            assert_eq!(keys, paths, "{text}");
        }
    }
}
