//! Configuration files as their writers see them: good ones load, bad ones are told all that is wrong with them.
//!
//! Each `tests/data/config/<case>.bad.toml` stands beside `<case>.expected`, the lines of its problems, and so does
//! each mapping file `tests/data/mapping/<case>.bad.yml`. With
//! `UPDATE_EXPECTED=1` the expected files are written anew, to be read over before they are committed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use statsieve::command::{BAD_CONFIGURATION, check};
use statsieve::config::{self, BucketMethod, Loaded, Problems, Sources};

mod dashboards;
mod deploy;
mod interface;
mod mapping;
mod policy;
mod promise;
mod rules;

fn data() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/config")
}

fn cases(ending: &str) -> Vec<PathBuf> {
    cases_in(&data(), ending)
}

fn cases_in(folder: &Path, ending: &str) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = fs::read_dir(folder)
        .expect("the folder is there")
        .map(|entry| entry.expect("it can be listed").path())
        .filter(|path| path.to_string_lossy().ends_with(ending))
        .collect();
    found.sort();
    assert!(!found.is_empty(), "no {ending} files");
    found
}

/// The file's name stands in messages as it was given; the tests leave out the directory.
fn without_directory(text: &str) -> String {
    text.replace(&format!("{}/", data().display()), "")
}

fn load_good(name: &str) -> Loaded {
    let sources = Sources { file: Some(data().join(name)), set: Vec::new() };
    config::load(&sources).unwrap_or_else(|problems| panic!("{problems}"))
}

#[test]
fn bad_files_are_told_everything_that_is_wrong_with_them() {
    let read = |case: &Path| config::load(&Sources { file: Some(case.to_owned()), set: Vec::new() });
    compare(&data(), ".bad.toml", read);
}

/// Compares the problems of each file whose name has this ending with those expected.
fn compare(folder: &Path, ending: &str, read: impl Fn(&Path) -> Result<Loaded, Problems>) {
    let update = std::env::var_os("UPDATE_EXPECTED").is_some();
    let mut differing = Vec::new();
    for case in cases_in(folder, ending) {
        let problems = read(&case).expect_err(&format!("{} has problems", case.display()));
        let found = format!("{problems}\n").replace(&format!("{}/", folder.display()), "");
        let expected_path = PathBuf::from(case.to_string_lossy().replace(ending, ".expected"));
        if update {
            fs::write(&expected_path, &found).expect("the expected file can be written");
        }
        let expected = fs::read_to_string(&expected_path).expect("each bad file has its expected messages");
        if found != expected {
            differing.push(format!("{}\n--- expected\n{expected}--- found\n{found}", case.display()));
        }
    }
    assert!(differing.is_empty(), "{}", differing.join("\n"));
}

#[test]
fn every_problem_has_a_line_that_the_caret_is_drawn_under() {
    for case in cases(".bad.toml") {
        let problems = config::load(&Sources { file: Some(case), set: Vec::new() }).expect_err("it has problems");
        let drawn = problems.render_with_carets();
        assert_eq!(drawn.lines().filter(|line| line.ends_with('^')).count(), problems.count(), "{drawn}");
    }
}

#[test]
fn carets_stand_under_the_values_of_the_file() {
    let sources = Sources { file: Some(data().join("three_tables.bad.toml")), set: Vec::new() };
    let mut out = Vec::new();
    assert_eq!(check::check(&sources, None, &mut out).expect("a Vec takes everything"), BAD_CONFIGURATION);
    let text = without_directory(&String::from_utf8(out).expect("check writes text"));
    let first = text.split("\n\n").next().expect("a blank line stands between two problems");
    assert_eq!(
        first,
        "three_tables.bad.toml:4: listen.workers: found -1, accepted: 0 (one per core, at most 2) to 256\n\
         \x20 |\n\
         4 | workers = -1\n\
         \x20 |           ^^"
    );
    assert!(text.ends_with("\n3 problems\n"), "{text}");
}

#[test]
fn good_files_load() {
    for case in cases(".good.toml") {
        let sources = Sources { file: Some(case), set: Vec::new() };
        config::load(&sources).unwrap_or_else(|problems| panic!("{problems}"));
    }
}

#[test]
fn a_file_holds_only_what_differs() {
    let loaded = load_good("bot.good.toml");
    let defaults = config::load(&Sources::default()).expect("the defaults load");
    assert_eq!(loaded.config.listen.udp.as_deref(), Some("0.0.0.0:8125"));
    assert_eq!(loaded.config.listen.max_line_bytes, defaults.config.listen.max_line_bytes);
    assert!(loaded.config.listen.receive_buffer_asked && !defaults.config.listen.receive_buffer_asked);
    assert_eq!(loaded.config.labels.drop, ["trace_id"], "a list replaces the default list");
    assert_eq!(loaded.config.labels.add, [("bot".to_owned(), "support".to_owned())]);
    let [users, chats] = &loaded.config.bucketing[..] else { panic!("two rules") };
    assert_eq!((users.method, users.count, users.format.as_str()), (BucketMethod::Hash, 16, "bucket_{}"));
    assert_eq!((chats.method, chats.count), (BucketMethod::Range { size: 1000 }, 100));
    assert_eq!(users.salt, b"pepper", "one line ending is cut off, and the path starts at the file");
    assert_eq!(chats.salt, b"");
    assert_ne!(loaded.hash, defaults.hash);
}

#[test]
fn overrides_win_over_the_file_and_only_where_they_speak() {
    let set = vec!["bucketing.0.count=32".to_owned(), "labels.add.region=eu".to_owned()];
    let sources = Sources { file: Some(data().join("bot.good.toml")), set };
    let config = config::load(&sources).unwrap_or_else(|problems| panic!("{problems}")).config;
    assert_eq!((config.bucketing[0].count, config.bucketing[0].salt.as_slice()), (32, &b"pepper"[..]));
    assert_eq!(config.bucketing[1].count, 100);
    let labels: Vec<&str> = config.labels.add.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(labels, ["bot", "region"]);
}

#[test]
fn the_text_in_force_loads_to_the_same_configuration() {
    let loaded = load_good("bot.good.toml");
    let directory = tempfile::tempdir().expect("a temporary directory");
    fs::copy(data().join("salt.txt"), directory.path().join("salt.txt")).expect("the salt can be copied");
    let path = directory.path().join("again.toml");
    fs::write(&path, &loaded.text).expect("it can be written");
    let again = config::load(&Sources { file: Some(path), set: Vec::new() }).expect("it loads");
    assert_eq!(again.text, loaded.text);
    assert_eq!(again.config, loaded.config);
}

#[test]
fn a_file_that_is_not_there_is_one_problem_with_the_cause() {
    let sources = Sources { file: Some(PathBuf::from("no/such/bot.toml")), set: vec!["listen.workers=-1".to_owned()] };
    let problems = config::load(&sources).expect_err("there is no such file");
    assert_eq!(problems.to_string(), "no/such/bot.toml: cannot be read: No such file or directory (os error 2)");
    assert_eq!(problems.render_with_carets(), format!("{problems}\n"));
}

#[test]
fn bytes_that_are_not_text_are_placed() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("bot.toml");
    fs::write(&path, b"[log]\nlevel = \"\xff\"\n").expect("it can be written");
    let problems = config::load(&Sources { file: Some(path.clone()), set: Vec::new() }).expect_err("no text");
    assert_eq!(problems.to_string(), format!("{}:2: not UTF-8 at byte 15", path.display()));
}

#[test]
fn a_build_for_another_system_stops_with_a_message_that_says_so() {
    let folder = tempfile::tempdir().expect("a folder for the build script");
    let program = folder.path().join("build");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/build.rs");
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let compiled = Command::new(rustc).args(["--edition", "2024", "-o"]).args([&program, &source]).status();
    assert!(compiled.expect("rustc runs").success());
    for (system, stops) in [("linux", false), ("macos", true), ("windows", true)] {
        let output = Command::new(&program).env("CARGO_CFG_TARGET_OS", system).output().expect("it runs");
        let text = String::from_utf8_lossy(&output.stdout);
        assert_eq!(text.contains("cargo::error=statsieve runs on Linux only"), stops, "{system}: {text}");
    }
}
