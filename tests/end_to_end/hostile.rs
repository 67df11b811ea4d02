//! What one packet does to statsd_exporter, sent here: each costs itself, is counted, and leaves all else as it was.
//!
//! The inputs are those of the rules 2.7 and "7 crash" in `tests/conformance/rules.rs`. The relay's target that refuses
//! is in `relay.rs`, mappings that fail at the first sample are in `tests/files`.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use crate::harness::{Scrape, Sidecar};
use crate::lint;
use crate::protobuf::PROTOBUF;
use crate::tools::{outcome_of, tool};

const OPEN_METRICS: &str = "application/openmetrics-text;version=1.0.0";

/// What becomes of an input: the series that has this value then, or the reason that it is dropped for.
enum Outcome {
    Series(&'static str, f64),
    Dropped(&'static str),
}
use Outcome::{Dropped, Series};

/// Inputs, and what each does there.
const INPUTS: &[(&str, &str, Outcome)] = &[
    ("it panics over the brackets", "]a[:1|c", Series("_a__total", 1.0)),
    ("it panics over a reserved label", "x.le:1|h|#le:1", Dropped("reserved_label")),
    ("the same of a timer", "x.le:1|ms|#le:+Inf", Dropped("reserved_label")),
    ("the same in the name", "x.le,le=1:1|d", Dropped("reserved_label")),
    // The same with summaries has a test of its own below.
    (
        "it panics, with summaries",
        "x.quantile:1|ms|#quantile:0.5",
        Series("x_quantile_seconds_count{quantile=\"0.5\"}", 1.0),
    ),
    ("it makes a billion events", "x.many:1|ms|@0.000000001", Series("x_many_seconds_count", 999_999_999.999_999_9)),
    ("it takes 180 MiB", "x.some:1|ms|@0.0000005", Series("x_some_seconds_count", 2_000_000.0)),
    ("its counter is NaN from then on", "x.sum:1|c\nx.sum:nan|c\nx.sum:1|c", Series("x_sum_total", 2.0)),
    ("infinite from then on", "x.sum:inf|c", Dropped("not_finite")),
    ("its scrape fails over its own name", "go_goroutines:1|g", Series("go_goroutines", 1.0)),
    ("another of them", "process_open_fds:1|g", Dropped("type_conflict")),
    ("one of ours", "statsieve_lines_total:1|c", Dropped("type_conflict")),
    ("one that Prometheus makes", "up:0|g", Dropped("type_conflict")),
    ("its scrape fails over a label", "x.label:1|c|#__name__:y", Dropped("reserved_label")),
    ("the same, once it is escaped", "x.label:1|c|#..k:v", Dropped("reserved_label")),
    ("the same in the name", "x.label,__k=v:1|c", Dropped("reserved_label")),
    ("its scrape fails over a tag without a name", "#k=v:1|c", Dropped("empty_name")),
    ("the same behind a name", "x.label#=v:1|c", Dropped("reserved_label")),
    ("the same in DogStatsD", "x.label:1|c|#:v", Dropped("reserved_label")),
    (
        "an empty key, where another was left out before",
        "x.key:1|c|#a:1,b:2,c:3,user_id:1,l:w\nx.key:1|c|#a:1,b:2,c:3,:v,l:w",
        Series("x_key_total{a=\"1\",b=\"2\",c=\"3\",l=\"w\",user_bucket=\"bucket_20\"}", 1.0),
    ),
    ("its scrape fails over a pair of names", "x.pair:1|h\nx.pair.count:1|h", Series("x_pair_count", 1.0)),
    ("and the other way round", "y.pair.sum:1|h\ny.pair:1|h", Series("y_pair_sum_count", 1.0)),
    ("different sets of labels", "x.sets:1|c\nx.sets:1|c|#k:v", Series("x_sets_total{k=\"v\"}", 1.0)),
];

/// Drops of those inputs that have several lines, of which some are good.
const BESIDE: &[(&str, &str)] = &[
    ("x.sum:1|c\n", "not_finite"),
    ("x.key:", "reserved_label"),
    ("x.pair:", "type_conflict"),
    ("y.pair", "type_conflict"),
];

/// All formats, each valid, with the same series.
fn scrape_all(sidecar: &Sidecar, after: &str) -> Scrape {
    let (text, open, protobuf) = (sidecar.scrape(), sidecar.scrape_as(OPEN_METRICS), sidecar.scrape_as(PROTOBUF));
    lint::check(&text.text, false);
    lint::check(&open.text, true);
    assert_eq!(text.user_series(), open.user_series(), "after {after}");
    let (series, of_protobuf) = (text.user_series(), protobuf.user_series());
    assert!(series.keys().eq(of_protobuf.keys()), "after {after}: {series:?} {of_protobuf:?}");
    for (series, value) in &series {
        // The count of a summary is a whole number there.
        assert!((of_protobuf[series] / value - 1.0).abs() < 1e-9 || of_protobuf[series] == *value, "{series}: {value}");
    }
    text
}

/// The same, read by promtool where it is installed.
fn ask_promtool(scrape: &Scrape) {
    if std::env::var_os("STATSIEVE_TEST_TOOLS").is_none() {
        return;
    }
    let mut command = Command::new(tool("prometheus/promtool"));
    let text = scrape.text.clone().into_bytes();
    let (stdout, _, stderr) = outcome_of(command.args(["check", "metrics"]), Some(text));
    // It has opinions on names, which here are hostile; what it cannot read is an error.
    assert!(!format!("{stdout}{stderr}").contains("error while linting"), "{stdout}\n{stderr}\n{}", scrape.text);
}

#[test]
fn what_takes_the_peer_down_costs_itself_and_is_counted() {
    let mut sidecar = Sidecar::start(&[]);
    let scrape = sidecar.take(&["good:1|c|#kind:before"]);
    let memory = scrape.value("process_resident_memory_bytes");
    let (mut lines, mut dropped, mut rounds) = (1, BTreeMap::<String, u64>::new(), 0.0);
    for (what, input, outcome) in INPUTS {
        sidecar.send(&["good:1|c|#kind:before", input, "good:1|c|#kind:after"]);
        lines += 2 + input.lines().count() as u64;
        rounds += 1.0;
        sidecar.settled(lines);
        let scrape = scrape_all(&sidecar, what);
        match outcome {
            Series(series, value) => scrape.assert(series, *value),
            Dropped(reason) => *dropped.entry((*reason).to_owned()).or_default() += 1,
        }
        for (_, reason) in BESIDE.iter().filter(|(start, _)| input.starts_with(start)) {
            *dropped.entry((*reason).to_owned()).or_default() += 1;
        }
        assert_eq!(scrape.dropped_by_reason(), dropped, "{what}: {input}");
        scrape.assert("good_total{kind=\"before\"}", rounds + 1.0);
        scrape.assert("good_total{kind=\"after\"}", rounds);
        assert_eq!(scrape.recorded() + scrape.dropped(), lines as f64, "{what}: {input}");
        assert!(sidecar.is_running(), "{what}: {input}");
    }
    let scrape = sidecar.scrape();
    ask_promtool(&scrape);
    // The sampled timers alone would be gigabytes, if each event were made.
    let grown = scrape.value("process_resident_memory_bytes") - memory;
    assert!(grown < 64e6, "{grown} bytes more");
    assert_eq!(sidecar.get("/-/healthy", &[]).status, 200);
    sidecar.stop();
}

/// As that program keeps them: summaries, and names without suffixes.
#[test]
fn what_takes_the_peer_down_costs_itself_with_its_own_settings_too() {
    let settings = ["observer.type=summary", "naming.counter_suffix=", "naming.timer_suffix=", "bucketing=[]"];
    let mut sidecar = Sidecar::start(&settings);
    let mut lines = 0;
    for (rounds, (what, input, _)) in INPUTS.iter().enumerate() {
        sidecar.send(&["good:1|c|#kind:before", input, "good:1|c|#kind:after", "wait:5|ms"]);
        lines += 3 + input.lines().count() as u64;
        sidecar.settled(lines);
        let (scrape, sent) = (scrape_all(&sidecar, what), rounds as f64 + 1.0);
        scrape.assert("good{kind=\"before\"}", sent);
        scrape.assert("good{kind=\"after\"}", sent);
        scrape.assert("wait_count", sent);
        scrape.assert("wait{quantile=\"0.99\"}", 0.005);
        assert_eq!(scrape.recorded() + scrape.dropped(), lines as f64, "{what}: {input}");
        assert!(sidecar.is_running(), "{what}: {input}");
    }
    ask_promtool(&sidecar.scrape());
    sidecar.stop();
}

#[test]
fn a_tag_named_quantile_beside_summaries_is_one_sample_that_spoils_nothing() {
    let mut sidecar = Sidecar::start(&["observer.type=summary"]);
    // In one datagram, so that a worker has met the tag on a counter, where it means nothing, before it does.
    sidecar.send(&["q:1|c|#quantile:0.5\nx:1|ms|#quantile:0.5\nx,quantile=0.5:1|h\nx:2|ms"]);
    sidecar.settled(4);
    let scrape = scrape_all(&sidecar, "quantile");
    ask_promtool(&scrape);
    scrape.assert("x_seconds_sum", 0.002);
    scrape.assert("q_total{quantile=\"0.5\"}", 1.0);
    // Recorded where it means nothing, refused where it does.
    scrape.assert("statsieve_samples_dropped_total{reason=\"reserved_label\"}", 2.0);
    assert_eq!((scrape.recorded(), scrape.dropped()), (2.0, 2.0), "{}", scrape.text);
    assert!(sidecar.is_running());
    sidecar.stop();
}

/// Two helps of one name, labels of rules that mean something, and names that a rule takes from what was sent.
const RULES: &str = "defaults: { observer_type: histogram }
mappings:
- { match: 'two.a', name: two, help: 'the first', labels: { kind_a: x } }
- { match: 'two.b', name: two, help: 'the second', labels: { kind_b: x } }
- { match: 'own.*', name: 'process_$1' }
- { match: 'none.*', name: '$2' }
- { match: 'bound.*', name: bound, labels: { le: '$1' } }
- { match: 'quant.*', name: quant, labels: { quantile: '$1' } }
- { match: 'summed.*', name: summed, observer_type: summary, labels: { quantile: '$1' } }
";

#[test]
fn rules_that_end_its_scrapes_cost_samples_and_no_scrape() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("mapping.yml");
    std::fs::write(&path, RULES).unwrap();
    let setting = |path: &Path| format!("mapping.file={}", path.display());
    let mut sidecar = Sidecar::start(&[&setting(&path), "naming.counter_suffix="]);
    sidecar.send(&[
        "good:1|c",
        "two.a:1|c",
        "two.b:2|c",
        "own.open_fds:1|g",
        "own.threads:1|c",
        "none.x:1|c",
        "good:1|c",
    ]);
    sidecar.send(&["bound.1:1|h", "bound.1:1|c", "quant.0_5:1|h"]);
    sidecar.settled(10);
    let scrape = scrape_all(&sidecar, "rules");
    ask_promtool(&scrape);
    for (series, value) in [
        ("good", 2.0),
        ("two{kind_a=\"x\"}", 1.0),
        ("two{kind_b=\"x\"}", 2.0),
        ("bound{le=\"1\"}", 1.0),
        ("quant_count{quantile=\"0_5\"}", 1.0),
    ] {
        scrape.assert(series, value);
    }
    assert!(scrape.text.contains("# HELP two the first\n") && !scrape.text.contains("the second"), "{}", scrape.text);
    let expected = [("empty_name", 1), ("reserved_label", 1), ("type_conflict", 2)];
    assert_eq!(scrape.dropped_by_reason(), expected.map(|(reason, n)| (reason.to_owned(), n)).into());
    // Recorded where the label means nothing, refused where it does.
    sidecar.send(&["summed.0_5:1|h", "summed.0_9:1|h"]);
    sidecar.settled(12);
    let scrape = scrape_all(&sidecar, "a quantile of a rule");
    ask_promtool(&scrape);
    scrape.assert("statsieve_samples_dropped_total{reason=\"reserved_label\"}", 3.0);
    assert!(sidecar.is_running());
    sidecar.stop();
}
