//! How rules are found, and what becomes of names, labels and values.

use statsieve::config::{Observation, Sources, load};
use statsieve::model::DropReason;
use statsieve::telemetry::Count;

use crate::rig::{Rig, check, with_yaml};

/// Rules as `match -> name`, one a line.
fn globs(head: &str, rules: &[&str]) -> String {
    let mut yaml = format!("{head}\nmappings:\n");
    for rule in rules {
        let (pattern, name) = rule.split_once(" -> ").unwrap();
        yaml += &format!("- {{ match: '{pattern}', name: '{name}' }}\n");
    }
    yaml
}

#[test]
fn globs_come_before_regexes_and_the_earliest_of_each_wins() {
    let regex = "- { match: 'b', match_type: regex, name: regex_one }\n\
                 - { match: 'a\\.(.*)', match_type: regex, name: regex_two, labels: { rest: '$1' } }\n";
    let yaml = format!("mappings:\n{regex}- {{ match: 'a.*', name: glob, labels: {{ part: '$1' }} }}\n");
    check("all globs before any regex", &yaml, &["a.b:1|c"], &[r#"glob{part="b"} 1"#]);
    check("regexes in file order, unanchored", &yaml, &["a.x.b:1|c"], &["regex_one 1"]);
    check("the next regex if the first does not match", &yaml, &["x.a.c.d:1|c"], &[r#"regex_two{rest="c.d"} 1"#]);
    check("no rule: the escaped name", &yaml, &["c.d-e:1|c"], &["c_d_e 1"]);
    check(
        "the earliest glob that matches wins, found by going back",
        &globs("", &["a.b.c -> narrow", "*.b.d -> wide", "a.*.d -> late"]),
        &["a.b.d:1|c", "a.b.c:1|c", "a.x.d:1|c"],
        &["late 1", "narrow 1", "wide 1"],
    );
    check(
        "a more general glob before a specific one wins",
        &globs("", &["a.* -> general", "a.b -> specific"]),
        &["a.b:1|c"],
        &["general 1"],
    );
}

#[test]
fn without_ordering_the_most_specific_from_the_left_wins() {
    let head = "defaults: { glob_disable_ordering: true }";
    let rules = ["*.*.c -> wide", "*.b.* -> middle", "a.*.* -> left", "a.b.c -> all"];
    check(
        "glob_disable_ordering",
        &globs(head, &rules),
        &["a.b.c:1|c", "a.x.c:1|c", "x.b.c:1|c", "x.y.c:1|c"],
        &["all 1", "left 1", "middle 1", "wide 1"],
    );
    check(
        "mended: a wide rule is not lost where a narrower branch ends",
        &globs(head, &["a.b.c -> narrow", "*.*.d -> wide"]),
        &["a.b.d:1|c"],
        &["wide 1"],
    );
}

#[test]
fn accidents_of_the_matcher_are_not_copied() {
    check(
        "mended: a glob that begins an earlier, longer one",
        &globs("", &["a.b.c -> long", "a.b -> short"]),
        &["a.b:1|c", "a.b.c:1|c"],
        &["long 1", "short 1"],
    );
    check(
        "mended: a repeated rule keeps its priority",
        &globs("", &["a.* -> first", "*.b -> second", "a.* -> third"]),
        &["a.b:1|c"],
        &["first 1"],
    );
}

#[test]
fn a_star_is_one_whole_part_of_the_raw_name() {
    let yaml = globs("", &["a.*.c -> hit"]);
    check("one part, an empty one too", &yaml, &["a.b.c:1|c", "a..c:1|c"], &["hit 2"]);
    check("never two", &yaml, &["a.b.b.c:1|c"], &["a_b_b_c 1"]);
    check("never none", &yaml, &["a.c:1|c"], &["a_c 1"]);
    check(
        "the name without its tags, not yet escaped",
        &globs("", &["a.b-c -> hit"]),
        &["a.b-c,x=y:1|c", "a.b_c:1|c"],
        &["a_b_c 1", r#"hit{x="y"} 1"#],
    );
}

#[test]
fn templates_of_globs() {
    let yaml = |name: &str, label: &str| {
        format!("mappings:\n- {{ match: 'a.*.*', name: '{name}', labels: {{ label: '{label}' }} }}\n")
    };
    for (behaviour, name, label, series) in [
        ("references by number", "${2}_$1", "$1", r#"y_x{label="x"} 1"#),
        ("a variable ends where ${ begins the next", "n", "$2_${1}", r#"n{label="x"} 1"#),
        ("$2_ reads as the variable 2_, which is empty", "n_$2_", "v", r#"n_{label="v"} 1"#),
        ("braces end a reference", "n_${2}_z", "${1}_t", r#"n_y_z{label="x_t"} 1"#),
        ("out of range is empty", "n_$9", "$9", r#"n_{label=""} 1"#),
        ("$0 is empty in globs", "n", "$0", r#"n{label=""} 1"#),
        ("two in a row without braces are one variable", "n", "$1$2", r#"n{label=""} 1"#),
        ("with braces they are two", "n", "${1}${2}", r#"n{label="xy"} 1"#),
        ("mended: $1 and $10 do not get in each other's way", "n", "$1-$10-$2", r#"n{label="x--y"} 1"#),
        ("mended: a percent sign is a percent sign", "n", "100%s $1", r#"n{label="100%s x"} 1"#),
        ("names mean nothing", "n", "$part", r#"n{label=""} 1"#),
    ] {
        check(behaviour, &yaml(name, label), &["a.x.y:1|c"], &[series]);
    }
}

#[test]
fn templates_of_regexes_expand_as_in_go() {
    let yaml = |name: &str, label: &str| {
        format!(
            "mappings:\n- {{ match: '^a\\.(?P<first>\\w+)\\.(\\w+)(z)?$', match_type: regex, name: '{name}', labels: \
             {{ label: '{label}' }} }}\n"
        )
    };
    for (behaviour, name, label, series) in [
        ("references by number", "n_${2}_t", "$1", r#"n_y_t{label="x"} 1"#),
        ("$1_t is the variable 1_t", "n$1_t", "v", r#"n{label="v"} 1"#),
        ("$0 is all of the match", "n", "$0", r#"n{label="a.x.y"} 1"#),
        ("named groups, in labels", "n", "${first}", r#"n{label="x"} 1"#),
        ("a group that took no part is empty", "n", "<$3>", r#"n{label="<>"} 1"#),
        ("two dollars are one", "n", "$$1", r#"n{label="$1"} 1"#),
        ("two in a row are two", "n", "$1$2", r#"n{label="xy"} 1"#),
    ] {
        check(behaviour, &yaml(name, label), &["a.x.y:1|c"], &[series]);
    }
}

#[test]
fn the_type_of_a_metric_is_part_of_the_match() {
    let yaml = "mappings:\n\
                - { match: 'a.*', name: counters, match_metric_type: counter }\n\
                - { match: 'a.*', name: gauges, match_metric_type: gauge }\n\
                - { match: 'a.*', name: times, match_metric_type: observer }\n\
                - { match: 'a', match_type: regex, name: other, match_metric_type: gauge }\n\
                - { match: 'b', match_type: regex, name: more }\n";
    check(
        "match_metric_type",
        yaml,
        &["a.x:1|c", "a.x:2|g", "a.x:1000|ms", "a.x:3|h", "a.b.c:1|c"],
        &["counters 1", "gauges 2", "more 1", "times_count 2", "times_sum 4"],
    );
}

#[test]
fn drops_are_matches_like_any_other() {
    let yaml = "mappings:\n\
                - { match: 'noise.keep', name: kept }\n\
                - { match: 'noise.*', name: x, action: drop }\n\
                - { match: 'noise.late', name: late }\n\
                - { match: '.', match_type: regex, name: x, action: drop, match_metric_type: gauge }\n";
    let mut rig = Rig::new(&with_yaml(yaml));
    rig.send(&["noise.keep:1|c", "noise.x:1|c", "noise.late:1|c", "any:1|g", "any:1:2|ms", "any.other:1|c"]);
    assert_eq!(rig.series(), ["any_count 2", "any_other 1", "any_sum 0.003", "kept 1"]);
    assert_eq!(rig.dropped(DropReason::MappingDrop), 3);
    assert_eq!((rig.tally().get(Count::Mapped), rig.tally().get(Count::Unmapped)), (1, 3));
}

#[test]
fn labels_of_rules_against_tags() {
    let rule = |honor: &str| {
        format!(
            "mappings:\n- {{ match: 'a.*', name: hit, honor_labels: {honor}, labels: {{ kind: '$1', job: bot }} }}\n"
        )
    };
    let lines = ["a.x:1|c|#kind:tag,other:o"];
    check("a mapping label wins", &rule("no"), &lines, &[r#"hit{job="bot",kind="x",other="o"} 1"#]);
    check("honor_labels: the tag wins", &rule("yes"), &lines, &[r#"hit{job="bot",kind="tag",other="o"} 1"#]);
    check(
        "mended: labels of one sample are not seen by the next of its line",
        &rule("no"),
        &["a.x:1|c:2|g"],
        // The name belongs to the counter; the gauge is refused and leaves nothing behind.
        &[r#"hit{job="bot",kind="x"} 1"#],
    );
    let yaml = "mappings:\n- { match: 'a', name: hit, labels: { version: 1.10, on: yes, nothing: } }\n";
    check("numbers and booleans keep their text", yaml, &["a:1|c"], &[r#"hit{nothing="",on="yes",version="1.10"} 1"#]);
}

#[test]
fn scale_comes_after_seconds_and_before_the_check_of_counters() {
    let yaml = "mappings:\n\
                - { match: 'rise.*', name: rise, scale: 1000 }\n\
                - { match: 'neg.*', name: neg, scale: -1 }\n\
                - { match: 'zero.*', name: zero, scale: 0 }\n\
                - { match: 'g.*', name: level, scale: 2 }\n";
    check(
        "scale",
        yaml,
        &["rise.x:5|ms", "neg.x:-3|c", "neg.x:3|c", "zero.x:7|c", "g.x:4|g", "g.x:-1|g"],
        &["level 6", "neg 3", "rise_count 1", "rise_sum 5", "zero 0"],
    );
    let mut rig = Rig::new(&with_yaml(yaml));
    rig.send(&["neg.x:3|c", "neg.x:3|c", "neg.x:3|c"]);
    assert_eq!((rig.series(), rig.dropped(DropReason::NegativeCounter)), (Vec::new(), 3));
}

#[test]
fn help_and_bounds_are_those_of_the_first_rule_of_a_name() {
    let yaml = "mappings:\n\
                - { match: 'a', name: hit, observer_type: histogram, help: 'the first', histogram_options: { buckets: [1] } }\n\
                - { match: 'b', name: hit, observer_type: histogram, help: 'the second', histogram_options: { buckets: [2] } }\n";
    let mut rig = Rig::new(&with_yaml(yaml));
    rig.send(&["a:500|ms", "b:1500|ms"]);
    let text = rig.text();
    for line in ["# HELP hit the first", "hit_bucket{le=\"1.0\"} 1", "hit_bucket{le=\"+Inf\"} 2"] {
        assert!(text.lines().any(|found| found == line), "{line} in\n{text}");
    }
    assert!(!text.contains("second") && !text.contains("le=\"2.0\""), "{text}");
}

#[test]
fn defaults_of_the_file_hold_for_names_without_a_rule_too() {
    let yaml = "defaults: { observer_type: histogram, ttl: 1m, histogram_options: { buckets: [1, 2] } }\n\
                mappings: [{ match: 'a', name: a }]\n";
    let mut rig = Rig::new(&with_yaml(yaml));
    rig.send(&["a:500|ms", "b:1500|ms"]);
    let text = rig.text();
    for line in ["a_bucket{le=\"2.0\"} 1", "b_bucket{le=\"1.0\"} 0", "b_bucket{le=\"2.0\"} 1"] {
        assert!(text.lines().any(|found| found == line), "{line} in\n{text}");
    }
    assert_eq!(text.matches("le=").count(), 6, "{text}");
}

#[test]
fn how_a_rule_keeps_observations() {
    let kept = |defaults: &str, rule: &str| {
        let yaml = format!("defaults: {{ {defaults} }}\nmappings: [{{ match: 'a', name: a, {rule} }}]\n");
        let mapping = with_yaml(&yaml).mapping;
        let kept = mapping.rules[0].observation.clone().unwrap_or(mapping.observation);
        match kept {
            Observation::Histogram { bounds, .. } => format!("histogram {bounds:?}"),
            Observation::Summary { quantiles, max_age } => format!("summary {quantiles:?} {max_age:?}"),
        }
    };
    for (behaviour, defaults, rule, expected) in [
        ("summaries unless something else is said", "", "", "summary [0.5, 0.9, 0.99] 600s"),
        (
            "the default of the file",
            "observer_type: histogram, histogram_options: { buckets: [1] }",
            "",
            "histogram [1.0]",
        ),
        (
            "options that are left out come from the defaults",
            "summary_options: { max_age: 5s }",
            "observer_type: summary, summary_options: { quantiles: [{ quantile: 1 }] }",
            "summary [1.0] 5s",
        ),
        (
            "mended: an empty type is the default of the file",
            "observer_type: histogram, histogram_options: { buckets: [1] }",
            "observer_type: ''",
            "histogram [1.0]",
        ),
        (
            "mended: options without a type are not ignored",
            "",
            "histogram_options: { buckets: [3] }",
            "histogram [3.0]",
        ),
    ] {
        assert_eq!(kept(defaults, rule), expected, "{behaviour}");
    }
}

#[test]
fn a_name_that_comes_to_nothing_is_refused_and_counted() {
    let mut rig = Rig::new(&with_yaml("mappings: [{ match: 'a.*', name: '$2' }]"));
    rig.send(&["a.x:1|c"]);
    assert_eq!((rig.series(), rig.dropped(DropReason::EmptyName)), (Vec::new(), 1));
}

#[test]
fn the_first_type_of_a_name_keeps_it_whatever_rule_gave_it() {
    let mut rig = Rig::new(&with_yaml("mappings: [{ match: 'a.*', name: shared, labels: { part: '$1' } }]"));
    rig.send(&["a.x:1|c", "a.y:1|g", "a.x:1|ms"]);
    assert_eq!(rig.series(), [r#"shared{part="x"} 1"#]);
    assert_eq!(rig.dropped(DropReason::TypeConflict), 2);
}

#[test]
fn one_line_that_stops_the_peer_spoils_nothing() {
    let yaml = "defaults: { observer_type: histogram }\n\
                mappings:\n\
                - { match: 'a.*', name: hit, labels: { le: '$1' } }\n\
                - { match: 'b.*', name: 'up' }\n\
                - { match: 'c.*', name: 'statsieve_$1' }\n";
    let mut rig = Rig::new(&with_yaml(yaml));
    rig.send(&["a.1:1|ms", "b.x:1|g", "c.series:1|g", "d:1|c"]);
    assert_eq!(rig.series(), ["d 1"]);
    assert_eq!((rig.dropped(DropReason::ReservedLabel), rig.dropped(DropReason::TypeConflict)), (1, 2));
}

#[test]
fn the_same_rules_in_toml_do_the_same() {
    let set = [
        r#"mapping.rules=[{match="a.*",name="hit",labels={kind="$1"},scale=2},{match="^b",match_type="regex",name="x",action="drop"}]"#,
        "naming.counter_suffix=",
    ];
    let config = load(&Sources { file: None, set: set.map(str::to_owned).to_vec() }).unwrap().config;
    let mut rig = Rig::new(&config);
    rig.send(&["a.x:1|c", "b:1|c", "c:1|c"]);
    assert_eq!(rig.series(), ["c 1", r#"hit{kind="x"} 2"#]);
}
