//! A mapping file and the TOML that it is converted to map every line alike.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use proptest::test_runner::Config as Cases;
use statsieve::config::convert::to_toml;
use statsieve::config::{Config, Sources, load};
use statsieve::model::DropReason;
use tempfile::TempDir;

use crate::rig::{LIKE_THE_PEER, Rig, with_yaml};

/// A file of the TOML that a mapping file is converted to, and the folder that it is gone with.
pub(crate) fn to_toml_file(from: &Path) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let to = folder.path().join("mapping.toml");
    fs::write(&to, to_toml(from).unwrap_or_else(|problems| panic!("{problems}"))).unwrap();
    (folder, to)
}

/// The configuration that a mapping file of this text is converted to.
fn converted(yaml: &str) -> Config {
    let folder = tempfile::tempdir().unwrap();
    let from = folder.path().join("mapping.yml");
    fs::write(&from, yaml).unwrap();
    let (_folder, to) = to_toml_file(&from);
    let set = LIKE_THE_PEER.iter().map(ToString::to_string).collect();
    load(&Sources { file: Some(to), set }).unwrap_or_else(|problems| panic!("{problems}\n{yaml}")).config
}

/// A rule in the words of the file.
fn rule() -> impl Strategy<Value = String> {
    let glob = "([ab*]\\.){0,3}[ab*]".prop_map(|glob| format!("match: '{glob}'"));
    let regex = prop::sample::select(vec![r"a", r"^b\.(\w+)", r"(?P<first>[ab]+)\.(c)?", r"\d+$", r"(?i)B\.A"])
        .prop_map(|regex| format!("match: '{regex}', match_type: regex"));
    let name = prop::sample::select(vec!["one", "two_$1", "${1}_${2}", "$1", "n$9"]);
    let label = prop::sample::select(vec!["", "$1", "${2}-x", "$0", "${first}", "50% $1", "$$1"]);
    let more = prop::sample::select(vec![
        "",
        ", action: drop",
        ", honor_labels: yes",
        ", match_metric_type: counter",
        ", match_metric_type: observer, observer_type: histogram, histogram_options: { buckets: [1, 2] }",
        ", match_metric_type: gauge, scale: 0.5",
        ", scale: -1, help: 'it''s \"quoted\" \\ and # marked'",
        ", ttl: 1h30m",
    ]);
    (prop_oneof![4 => glob, 1 => regex], name, label, more).prop_map(|(pattern, name, label, more)| {
        format!("- {{ {pattern}, name: '{name}', labels: {{ tag: '{label}' }}{more} }}")
    })
}

proptest! {
    #![proptest_config(Cases { cases: 96, failure_persistence: None, ..Cases::default() })]

    #[test]
    fn the_file_and_its_toml_map_every_line_alike(
        unordered in any::<bool>(),
        histograms in any::<bool>(),
        rules in prop::collection::vec(rule(), 0..25),
        names in prop::collection::vec("([abc1-]{1,2}\\.){0,3}[ab]{0,2}1?", 1..40),
    ) {
        let kind = if histograms { "histogram" } else { "summary" };
        let mut yaml = format!(
            "defaults:\n  glob_disable_ordering: {unordered}\n  observer_type: {kind}\n  ttl: 90s\nmappings:\n"
        );
        rules.iter().for_each(|rule| writeln!(yaml, "{rule}").unwrap());
        let (from, to) = (with_yaml(&yaml), converted(&yaml));
        prop_assert_eq!(&from.mapping.observation, &to.mapping.observation);
        prop_assert_eq!(from.mapping.rules.len(), to.mapping.rules.len());
        for (one, other) in from.mapping.rules.iter().zip(&to.mapping.rules) {
            prop_assert_eq!(&one.observation, &other.observation);
            prop_assert_eq!((one.ttl, one.scale, &one.help), (other.ttl, other.scale, &other.help));
        }
        let (mut by_file, mut by_toml) = (Rig::new(&from), Rig::new(&to));
        for (at, name) in names.iter().enumerate() {
            let value = ["1|c", "-1|c", "5|g", "7|ms", "3|h|#tag:sent"][at % 5];
            let line = format!("{name}:{value}");
            by_file.send(&[&line]);
            by_toml.send(&[&line]);
        }
        prop_assert_eq!(by_file.series(), by_toml.series(), "{}", yaml);
        for reason in DropReason::ALL {
            prop_assert_eq!(by_file.dropped(*reason), by_toml.dropped(*reason), "{} under {}", reason, yaml);
        }
        let help = |text: String| text.lines().filter(|line| line.starts_with("# HELP")).map(str::to_owned).collect::<Vec<_>>();
        prop_assert_eq!(help(by_file.text()), help(by_toml.text()));
    }
}
