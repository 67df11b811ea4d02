//! What holds for every source of ours: no unsafe code, in the program, what builds it, its tests, and the fuzzer's package.

use std::fs;
use std::path::{Path, PathBuf};

/// Sources below a folder.
fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("it can be listed") {
        let path = entry.expect("it can be listed").path();
        let name = path.file_name().unwrap_or_default();
        if path.is_dir() && name != "target" && name != "corpus" && name != "node_modules" {
            sources(&path, found);
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            found.push(path);
        }
    }
}

/// A line of code without what stands behind `//`, and without texts.
fn code(line: &str) -> String {
    let line = line.trim_start();
    let mut out = String::new();
    let (mut in_text, mut escaped) = (false, false);
    for (at, letter) in line.char_indices() {
        if !in_text && line[at..].starts_with("//") {
            break;
        }
        if letter == '"' && !escaped {
            in_text = !in_text;
        } else if !in_text {
            out.push(letter);
        }
        escaped = letter == '\\' && !escaped;
    }
    out
}

/// Why a line of code is against the rule.
fn offends(line: &str) -> bool {
    let code = code(line);
    let words: Vec<&str> = code.split(|letter: char| !letter.is_alphanumeric() && letter != '_').collect();
    words.contains(&"unsafe") || words.contains(&"unsafe_code") || words.contains(&"no_mangle")
}

#[test]
fn no_source_holds_unsafe_code_or_allows_it() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    ["src", "tests"].iter().for_each(|folder| sources(&root.join(folder), &mut found));
    for part in
        ["src/build.rs", "src/main.rs", "tests/fuzz/bodies.rs", "tests/fuzz/targets/line.rs", "tests/bench/memory.rs"]
    {
        assert!(found.contains(&root.join(part)), "{part} is not looked at");
    }
    assert!(!root.join("build.rs").exists() && found.len() > 200, "{}", found.len());
    for path in found {
        let text = fs::read_to_string(&path).expect("a source is text");
        for (number, line) in text.lines().enumerate() {
            assert!(!offends(line), "{}:{}: {line}", path.display(), number + 1);
        }
    }
    for bad in [
        "unsafe { x() }",
        "pub unsafe fn x() {}",
        "#![allow(unsafe_code)]",
        "#[unsafe(no_mangle)]",
        "let x = \"a\"; unsafe impl Send for X {}",
    ] {
        assert!(offends(bad), "{bad}");
    }
    for good in ["// No unsafe code.", "let text = \"unsafe { }\"; // unsafe", "let is_unsafe = 1;"] {
        assert!(!offends(good), "{good}");
    }
}

#[test]
fn the_package_forbids_unsafe_code_for_all_that_it_builds() {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml")).expect("it is there");
    let package: toml::Value = toml::from_str(&text).expect("it is TOML");
    // `forbid` cannot be taken back by an attribute, in no target of the package.
    assert_eq!(package["lints"]["rust"]["unsafe_code"].as_str(), Some("forbid"));
    assert!(package.get("workspace").is_none() && package["package"]["build"].as_str() == Some("src/build.rs"));
}
