//! What samples do to series: which one they change, how, and when it is refused.

use statsieve::config::Config;
use statsieve::model::DropReason;
use statsieve::telemetry::Count;

use crate::rig::{Rig, check_cases, check_cases_under, like_the_peer, with_yaml};

#[test]
fn actions_are_counted() {
    let mut rig = Rig::new(&with_yaml("mappings: [{ match: 'a.*', name: a }, { match: b, name: x, action: drop }]"));
    rig.send(&["a.x:1|c", "a.y:1:2|c", "b:1|c", "c.d:1|c", "c.d:x|c"]);
    let tally = rig.tally();
    // For each sample whose rule was looked for.
    assert_eq!((tally.get(Count::Mapped), tally.get(Count::Unmapped)), (3, 1), "2.5 actions");
    assert_eq!((rig.dropped(DropReason::MappingDrop), rig.series()), (1, vec!["a 4".to_owned(), "c_d 1".to_owned()]));
    check_cases(&[("2.5 actions", "what no rule names has its escaped name", &["x.y-z:1|c"], &["x_y_z 1"], "")]);
}

#[test]
fn counters_and_gauges() {
    check_cases(&[
        ("2.5 counters", "below zero", &["a:5|c", "a:-1|c"], &["a 5"], "negative_counter"),
        ("2.5 counters", "nothing is not below it", &["a:0|c", "b:-0|c"], &["a 0", "b 0"], ""),
        ("2.5 counters", "a series is not made for it", &["a:-1|c", "a:1|g"], &["a 1"], "negative_counter"),
        ("2.5 gauges", "a plain value sets", &["a:5|g", "a:3|g"], &["a 3"], ""),
        ("2.5 gauges", "a signed one changes", &["a:5|g", "a:+3|g", "a:-10|g"], &["a -2"], ""),
        ("2.5 gauges", "a new one begins at 0", &["a:-4|g", "b:+4|g"], &["a -4", "b 4"], ""),
        ("2.5 gauges", "a rate means nothing", &["a:4|g|@0.1", "a:+4|g|@0.1"], &["a 8"], ""),
    ]);
    let scaled = with_yaml("mappings: [{ match: down, name: down, scale: -1 }]");
    check_cases_under(
        &scaled,
        &[("2.5 counters", "once scaled", &["down:1|c", "down:-2|c"], &["down 2"], "negative_counter")],
    );
}

#[test]
fn mended_a_gauge_may_be_set_below_zero() {
    let absolute = like_the_peer(&["parse.gauge_sign=absolute"]);
    check_cases_under(
        &absolute,
        &[
            (
                "3.2 gauge sign",
                "as the Datadog Agent reads it",
                &["a:5|g", "a:-3|g", "b:+2|g", "b:+2|g"],
                &["a -3", "b 2"],
                "",
            ),
            ("2.3.8", "no detour by 0", &["a:-3|g"], &["a -3"], ""),
        ],
    );
}

#[test]
fn a_series_is_its_name_and_labels() {
    check_cases(&[
        (
            "2.5 identity",
            "different sets of labels under one name",
            &["a:1|c", "a:2|c|#k:v", "a:4|c|#k:v,l:w"],
            &["a 1", "a{k=\"v\",l=\"w\"} 4", "a{k=\"v\"} 2"],
            "",
        ),
        ("2.5 identity", "in any order", &["a:1|c|#k:v,l:w", "a:2|c|#l:w,k:v"], &["a{k=\"v\",l=\"w\"} 3"], ""),
        (
            "2.5 identity",
            "in any dialect",
            &["a:1|c|#k:v", "a,k=v:2|c", "a#k=v:4|c", "a[k=v]:8|c"],
            &["a{k=\"v\"} 15"],
            "",
        ),
        ("2.5 identity", "h and d are one type", &["a:1|h", "a:2|d"], &["a_count 2", "a_sum 3"], ""),
    ]);
}

#[test]
fn the_first_type_of_a_name_keeps_it() {
    check_cases(&[
        ("2.5 first type", "a counter", &["a:1|c", "a:1|g", "a:1|h", "a:2|c"], &["a 3"], "type_conflict*2"),
        ("2.5 first type", "a gauge", &["a:1|g", "a:1|c"], &["a 1"], "type_conflict"),
        ("2.5 first type", "whatever the labels", &["a:1|c|#k:v", "a:1|g|#l:w"], &["a{k=\"v\"} 1"], "type_conflict"),
        (
            "7 conflicts",
            "observers keep their parts",
            &["x:1|h", "x_sum:1|c", "x_count:1|g", "x_bucket:1|c", "x_total:1|c"],
            &["x_count 1", "x_sum 1", "x_total 1"],
            "type_conflict*3",
        ),
        ("2.5 first type", "the other way round", &["x_sum:1|c", "x:1|h"], &["x_sum 1"], "type_conflict"),
        ("2.5 first type", "a gauge named as a part", &["x_bucket:1|g", "x:1|ms"], &["x_bucket 1"], "type_conflict"),
        ("2.5 first type", "a bad value decides nothing", &["a:x|c", "a:1|g"], &["a 1"], "malformed_value"),
    ]);
}

#[test]
fn mended_a_gauge_keeps_no_names_but_its_own() {
    check_cases(&[(
        "7 conflicts",
        "counters and gauges beside it",
        &["x:1|g", "x_sum:2|c", "x_count:3|g"],
        &["x 1", "x_count 3", "x_sum 2"],
        "",
    )]);
}

#[test]
fn mended_names_of_others_are_refused_and_those_of_go_are_free() {
    check_cases(&[
        ("2.7", "go_ is nobody's here", &["go_goroutines:1|g"], &["go_goroutines 1"], ""),
        (
            "7 crash",
            "what this program, its process or Prometheus says",
            &[
                "process_open_fds:1|g",
                "statsieve_lines_total:1|c",
                "scrape_duration_seconds:1|g",
                "up:1|g",
                "ALERTS:1|g",
            ],
            &[],
            "type_conflict*5",
        ),
        ("7 crash", "what events and checks are called", &["statsd.events.total:1|c"], &[], "type_conflict"),
    ]);
}

#[test]
fn mended_one_name_has_one_help_whatever_its_labels() {
    // 7 crash: two help texts on different sets of labels end its /metrics.
    let yaml = "mappings:\n\
                - { match: 'a.one', name: a, help: 'the first', labels: { k1: v } }\n\
                - { match: 'a.two', name: a, help: 'the second', labels: { k2: v } }\n";
    let mut rig = Rig::new(&with_yaml(yaml));
    rig.send(&["a.one:1|c", "a.two:2|c"]);
    assert_eq!(rig.series(), [r#"a{k1="v"} 1"#, r#"a{k2="v"} 2"#], "7 crash");
    assert_eq!(rig.text().matches("# HELP a ").count(), 1);
}

/// Takes time on by seconds, and sweeps each.
fn pass(rig: &mut Rig, config: &Config, seconds: u64) {
    for _ in 0..seconds {
        rig.pass_second(config);
    }
}

#[test]
fn mended_a_name_is_free_again_once_its_series_are_gone() {
    // Rules 2.5 ttl and 7 conflicts: there the first type holds until a restart.
    let config = like_the_peer(&["cardinality.idle_ttl=5s"]);
    let mut rig = Rig::new(&config);
    rig.send(&["a:5|c", "b:1|c"]);
    for _ in 0..10 {
        pass(&mut rig, &config, 1);
        // A write renews.
        rig.send(&["b:1|c"]);
    }
    assert_eq!(rig.series(), ["b 11"]);
    rig.send(&["a:7|g"]);
    assert_eq!((rig.series(), rig.counted()), (vec!["a 7".to_owned(), "b 11".to_owned()], String::new()));
    pass(&mut rig, &config, 10);
    rig.send(&["b:1|c"]);
    assert_eq!(rig.series(), ["b 1"], "from nothing");
}

#[test]
fn a_ttl_of_a_mapping_file_takes_idle_series_and_that_of_a_rule_goes_first() {
    // 2.5 ttl: a rule inherits that of the defaults, and a ttl of 0 in it switches nothing off.
    let config = with_yaml(
        "defaults: { ttl: 5s }\n\
         mappings:\n\
         - { match: 'long.*', name: long, ttl: 1h }\n\
         - { match: 'same.*', name: same }\n\
         - { match: 'nought.*', name: nought, ttl: 0 }\n",
    );
    let mut rig = Rig::new(&config);
    rig.send(&["long.x:1|c", "same.x:1|c", "nought.x:1|c", "unmapped:1|g"]);
    pass(&mut rig, &config, 3);
    assert_eq!(rig.series(), ["long 1", "nought 1", "same 1", "unmapped 1"], "2.5 ttl");
    pass(&mut rig, &config, 8);
    assert_eq!(rig.series(), ["long 1"], "2.5 ttl");
    rig.send(&["same.x:2|c"]);
    assert_eq!(rig.series(), ["long 1", "same 2"], "from nothing");
}

#[test]
fn mended_limits_hold_for_what_one_sender_can_make() {
    let config = like_the_peer(&["labels.max_values=2", "labels.max_count=2", "labels.max_name_bytes=8"]);
    check_cases_under(
        &config,
        &[
            (
                "2.5 limits",
                "different values of a label",
                &["a:1|c|#k:1", "a:1|c|#k:2", "a:1|c|#k:3", "a:1|c|#k:4"],
                &["a{k=\"1\"} 1", "a{k=\"2\"} 1", "a{k=\"other\"} 2"],
                "",
            ),
            ("2.5 limits", "labels of a series", &["a:1|c|#k:1,l:2,m:3"], &["a{k=\"1\",l=\"2\"} 1"], "tag:too_many"),
            (
                "2.5 limits",
                "long names",
                &["a23456789:1|c", "a:1|c|#k23456789:v"],
                &["a 1"],
                "name_too_long tag:name_too_long",
            ),
        ],
    );
}
