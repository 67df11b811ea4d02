//! The matcher against one that tries the rules one by one, and the words of the rules.

use proptest::prelude::*;

use super::*;
use crate::config::{Sources, load};

/// Rules as TOML has them, such as `{match="a.*",name="a_$1"}`.
fn checked(rules: &[String]) -> Vec<Rule> {
    let set = vec![format!("mapping.rules=[{}]", rules.join(","))];
    load(&Sources { file: None, set }).unwrap_or_else(|problems| panic!("{problems}")).config.mapping.rules
}

fn globs(all: &[(&str, &str)]) -> Vec<Rule> {
    let rule = |(glob, kind): &(&str, &str)| match *kind {
        "" => format!("{{match=\"{glob}\",name=\"x\"}}"),
        kind => format!("{{match=\"{glob}\",name=\"x\",match_metric_type=\"{kind}\"}}"),
    };
    checked(&all.iter().map(rule).collect::<Vec<_>>())
}

fn found(rules: &[Rule], kind: MetricType, name: &str) -> Option<u32> {
    Rules::new(rules).find(kind, name.as_bytes(), &mut Scratch::default()).map(|found| found.rule)
}

/// Tries one glob after the other, as the documentation describes it.
fn naive(rules: &[Rule], kind: MetricType, name: &str) -> Option<u32> {
    let parts: Vec<&str> = name.split('.').collect();
    let matches = |rule: &Rule| {
        let Pattern::Glob(glob) = &rule.pattern else { return false };
        let glob: Vec<&str> = glob.split('.').collect();
        rule.metric_type.is_none_or(|only| only == kind)
            && glob.len() == parts.len()
            && glob.iter().zip(&parts).all(|(glob, part)| *glob == "*" || glob == part)
    };
    rules.iter().position(matches).map(|place| place as u32)
}

#[test]
fn the_earliest_glob_that_matches_wins_whatever_its_specificity() {
    for (all, name, wins) in [
        (&["a.*", "a.b"][..], "a.b", Some(0)),
        (&["a.b", "a.*"], "a.b", Some(0)),
        (&["a.b", "a.*"], "a.c", Some(1)),
        // A narrow branch that dead-ends gives way to a wide one.
        (&["a.b.c", "*.b.d", "a.*.d"], "a.b.d", Some(1)),
        // A glob that is the beginning of an earlier, longer one.
        (&["a.b.c", "a.b"], "a.b", Some(1)),
        // A rule that stands twice.
        (&["a.*", "*.b", "a.*"], "a.b", Some(0)),
        (&["*"], "a", Some(0)),
        (&["*"], "a.b", None),
        (&["a.*.c"], "a..c", Some(0)),
        (&["a.*"], "a.", Some(0)),
        (&["a.*"], "a", None),
        (&["a.*"], "a.b c:d", Some(0)),
        (&["a"], "A", None),
        (&[], "a", None),
    ] {
        let rules = globs(&all.iter().map(|glob| (*glob, "")).collect::<Vec<_>>());
        assert_eq!(found(&rules, MetricType::Counter, name), wins, "{all:?} on {name}");
    }
}

#[test]
fn the_type_of_a_metric_is_part_of_matching() {
    let rules = globs(&[("a.b", "gauge"), ("a.*", "counter"), ("*.b", "")]);
    let wins = MetricType::ALL.iter().map(|kind| found(&rules, *kind, "a.b")).collect::<Vec<_>>();
    assert_eq!(wins, [Some(1), Some(0), Some(2)], "counter, gauge, observer");
}

#[test]
fn regexes_come_after_all_globs_unanchored_and_in_order() {
    let rule = |rest: &str| format!("{{name=\"x\",{rest}}}");
    let rules = checked(&[
        rule(r#"match="b.d",match_type="regex",match_metric_type="gauge""#),
        rule(r#"match="b.d",match_type="regex""#),
        rule(r#"match="b",match_type="regex""#),
        rule(r#"match="a.*.d""#),
    ]);
    for (kind, name, wins) in [
        (MetricType::Counter, "a.b.d", Some(3)),
        (MetricType::Counter, "xbxdx", Some(1)),
        (MetricType::Gauge, "xbxdx", Some(0)),
        (MetricType::Counter, "xb", Some(2)),
        (MetricType::Counter, "x", None),
    ] {
        assert_eq!(found(&rules, kind, name), wins, "{kind} {name}");
    }
}

#[test]
fn ten_thousand_rules_do_not_make_a_name_of_ten_thousand_parts_expensive() {
    let all: Vec<String> = (0..10_000).map(|n| format!("{{match=\"a.{n}.*\",name=\"x\"}}")).collect();
    let rules = Rules::new(&checked(&all));
    let mut scratch = Scratch::default();
    let long = vec!["a"; 10_000].join(".");
    assert!(rules.find(MetricType::Counter, long.as_bytes(), &mut scratch).is_none());
    assert!(scratch.parts.len() <= 3, "cut no further than the longest glob");
    let last = rules.find(MetricType::Counter, b"a.9999.x", &mut scratch);
    assert_eq!(last.map(|found| found.rule), Some(9_999));
}

#[test]
fn rules_that_never_match_are_found() {
    for (all, expected) in [
        (&[("a.*", ""), ("a.b", "")][..], &[(1, 0)][..]),
        (&[("a.b", ""), ("a.*", "")], &[]),
        (&[("a.*", ""), ("a.*", "")], &[(1, 0)]),
        (&[("a.*", "counter"), ("a.b", "")], &[]),
        (&[("a.*", ""), ("a.b", "gauge")], &[(1, 0)]),
        (&[("a.*", "counter"), ("*.b", "gauge"), ("a.*", "observer"), ("a.b", "")], &[(3, 2)]),
        (&[("*.b", ""), ("a.*", "")], &[]),
        (&[("*", ""), ("a.b", "")], &[]),
    ] {
        assert_eq!(shadowed(&globs(all)), expected, "{all:?}");
    }
    let regex = |kind: &str| format!("{{match=\"^a\",match_type=\"regex\",name=\"x\"{kind}}}");
    let rules = checked(&[regex(",match_metric_type=\"counter\""), regex(""), regex("")]);
    assert_eq!(shadowed(&rules), [(2, 1)]);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    /// Few words and many overlaps, so that nearly every search has several ways to go.
    #[test]
    fn the_tree_finds_what_trying_one_by_one_finds(
        all in prop::collection::vec(("([ab*]\\.){0,4}[ab*]", "(|counter|gauge|observer)"), 0..40),
        names in prop::collection::vec("([abc]?\\.){0,5}[abc]?", 1..20),
    ) {
        let all: Vec<(&str, &str)> = all.iter().map(|(glob, kind)| (glob.as_str(), kind.as_str())).collect();
        let rules = globs(&all);
        let compiled = Rules::new(&rules);
        let mut scratch = Scratch::default();
        for name in &names {
            for kind in MetricType::ALL {
                let by_tree = compiled.find(*kind, name.as_bytes(), &mut scratch).map(|found| found.rule);
                prop_assert_eq!(by_tree, naive(&rules, *kind, name), "{} on {} of {:?}", kind, name, all);
            }
        }
        for (later, earlier) in shadowed(&rules) {
            for kind in MetricType::ALL {
                for name in &names {
                    prop_assert_ne!(naive(&rules, *kind, name), Some(later as u32), "behind {}", earlier);
                }
            }
        }
    }
}
