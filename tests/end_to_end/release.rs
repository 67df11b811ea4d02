//! What a release is made of: `deploy/release` makes its files, and the packages keep to the policy of `.github/deny.toml`.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::tools::{outcome_of, output_of, tool};

fn root(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// A command of the repository that finds a subcommand of cargo where `tests/run` has put it.
fn with_tool(program: impl AsRef<std::ffi::OsStr>, name: &str) -> Command {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = [tool(&format!("{name}/bin"))].into_iter().chain(std::env::split_paths(&path));
    let mut command = Command::new(program);
    command.current_dir(root("")).env("PATH", std::env::join_paths(folders).unwrap()).env_remove("CARGO_TARGET_DIR");
    command
}

/// By the policy of `config`, these parts of it: what cargo-deny says, and whether it is content.
fn deny(config: &Path, parts: &[&str]) -> (bool, String) {
    let mut command = with_tool("cargo", "cargo-deny");
    command.args(["deny", "--offline", "--locked", "--log-level=warn", "--config"]).arg(config).arg("check");
    let (stdout, ok, stderr) = outcome_of(command.args(parts), None);
    (ok, stdout + &stderr)
}

#[test]
#[ignore = "needs cargo-deny: run by tests/run"]
fn packages_keep_to_the_policy_and_it_would_tell_if_they_did_not() {
    let policy = root(".github/deny.toml");
    let (ok, told) = deny(&policy, &["bans", "licenses", "sources"]);
    assert!(ok && !told.contains("warning["), "{told}");
    let text = std::fs::read_to_string(&policy).unwrap();
    let folder = tempfile::tempdir().unwrap();
    for (part, good, bad, code) in [
        ("licenses", "\"ISC\", ", "", "rejected"),
        ("bans", "{ crate = \"getrandom@0.2.17\", reason = \"ring\" },", "", "duplicate"),
        ("bans", "crate = \"libz-sys\"", "crate = \"ring\"", "banned"),
        ("sources", "https://github.com/rust-lang/crates.io-index", "https://example.org/index", "source-not-allowed"),
    ] {
        assert!(text.contains(good), "{good}");
        let file = folder.path().join("deny.toml");
        std::fs::write(&file, text.replacen(good, bad, 1)).unwrap();
        let (ok, told) = deny(&file, &[part]);
        assert!(!ok && told.contains(code), "{good}: {told}");
    }
}

/// Packages that the program is built from, `name@version`, as cargo resolves them here.
fn built_from() -> BTreeSet<String> {
    let mut command = Command::new("cargo");
    command.current_dir(root("")).args(["tree", "--locked", "--offline", "--edges=normal", "--prefix=none"]);
    let tree = output_of(command);
    let packages = tree.lines().filter_map(|line| {
        let mut words = line.split(' ');
        Some(format!("{}@{}", words.next()?, words.next()?.strip_prefix('v')?))
    });
    packages.filter(|package| !package.starts_with("statsieve@")).collect()
}

#[test]
#[ignore = "needs cargo-cyclonedx and the image's program: run by tests/run"]
fn a_release_is_made_twice_alike_its_sums_hold_and_its_bill_names_every_package() {
    let folder = tempfile::tempdir().unwrap();
    let program = tool("image/root/statsieve");
    let make = |name: &str| {
        let out = folder.path().join(name);
        let mut command = with_tool(root("deploy/release"), "cargo-cyclonedx");
        output_of({
            command.arg("--program").arg(&program).arg("--out").arg(&out);
            command
        });
        out
    };
    let (first, second) = (make("first"), make("second"));
    let name = format!("statsieve-{}-{}-linux", env!("CARGO_PKG_VERSION"), std::env::consts::ARCH);
    let mut files: Vec<String> =
        std::fs::read_dir(&first).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    files.sort();
    assert_eq!(files, ["SHA256SUMS".to_owned(), format!("{name}.cdx.json"), format!("{name}.tar.gz")]);
    for file in &files {
        let [one, two] = [&first, &second].map(|folder| std::fs::read(folder.join(file)).unwrap());
        assert!(one == two, "{file} is another the second time");
    }

    let check = || Command::new("sha256sum").args(["--check", "--strict", "SHA256SUMS"]).current_dir(&first).output();
    let good = check().unwrap();
    let said = String::from_utf8(good.stdout).unwrap();
    assert!(good.status.success() && said.matches(": OK").count() == 2, "{said}");

    let unpacked = folder.path().join("unpacked");
    std::fs::create_dir(&unpacked).unwrap();
    let mut tar = Command::new("tar");
    tar.args(["--extract", "--gzip", "--no-same-owner", "--directory"]).arg(&unpacked).arg("--file");
    tar.arg(first.join(format!("{name}.tar.gz")));
    output_of(tar);
    let inside = |path: &str| unpacked.join(&name).join(path);
    for path in
        ["LICENSE", "README.md", "config.toml", "deploy/systemd/statsieve.service", "grafana/dashboards/bot.json"]
    {
        assert!(std::fs::read(inside(path)).unwrap() == std::fs::read(root(path)).unwrap(), "{path}");
    }
    assert_eq!(std::fs::metadata(inside("statsieve")).unwrap().permissions().mode() & 0o777, 0o755);
    let version = output_of({
        let mut command = Command::new(inside("statsieve"));
        command.arg("--version");
        command
    });
    assert!(version.starts_with(concat!("statsieve, version ", env!("CARGO_PKG_VERSION"))), "{version}");

    let bill: Value = serde_json::from_slice(&std::fs::read(first.join(format!("{name}.cdx.json"))).unwrap()).unwrap();
    assert_eq!((bill["bomFormat"].as_str(), bill["specVersion"].as_str()), (Some("CycloneDX"), Some("1.5")));
    let subject = &bill["metadata"]["component"];
    assert_eq!(
        (subject["name"].as_str(), subject["version"].as_str()),
        (Some("statsieve"), Some(env!("CARGO_PKG_VERSION")))
    );
    assert!(!bill.to_string().contains(env!("CARGO_MANIFEST_DIR")), "it tells where it was made");
    let mut named = BTreeSet::new();
    for component in bill["components"].as_array().unwrap() {
        let text = |key: &str| component[key].as_str().unwrap_or_else(|| panic!("{key} of {component}")).to_owned();
        let (name, version) = (text("name"), text("version"));
        assert_eq!(text("purl"), format!("pkg:cargo/{name}@{version}"));
        assert!(component["licenses"][0].is_object(), "{component}");
        assert_eq!(component["hashes"][0]["alg"], "SHA-256", "{component}");
        named.insert(format!("{name}@{version}"));
    }
    let built = built_from();
    assert!(built.len() > 60, "{built:?}");
    let missing: Vec<&String> = built.difference(&named).collect();
    assert!(missing.is_empty(), "not in the bill: {missing:?}");
    // Nothing of the tests is in it.
    assert!(!named.iter().any(|package| package.starts_with("criterion@") || package.starts_with("proptest@")));

    let archive = first.join(format!("{name}.tar.gz"));
    let mut bytes = std::fs::read(&archive).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&archive, bytes).unwrap();
    assert!(!check().unwrap().status.success(), "a bit is another");
}

#[test]
#[ignore = "needs cargo-cyclonedx and the image's program: run by tests/run"]
fn a_release_of_another_version_or_over_other_files_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let other = folder.path().join("other");
    std::fs::write(&other, "#!/bin/sh\necho 'statsieve, version 0.0.9 (revision: x)'\n").unwrap();
    std::fs::set_permissions(&other, std::fs::Permissions::from_mode(0o755)).unwrap();
    let mine = folder.path().join("mine");
    std::fs::create_dir(&mine).unwrap();
    std::fs::write(mine.join("letter"), "dear").unwrap();
    let program = tool("image/root/statsieve");
    for (program, out, why) in
        [(&other, folder.path().join("new"), "is not version"), (&program, mine.clone(), "holds something else")]
    {
        let mut command = with_tool(root("deploy/release"), "cargo-cyclonedx");
        let (_, ok, stderr) = outcome_of(command.arg("--program").arg(program).arg("--out").arg(out), None);
        assert!(!ok && stderr.contains(why), "{stderr}");
    }
    assert_eq!(std::fs::read_to_string(mine.join("letter")).unwrap(), "dear");
}
