//! How a line is read: what statsd_exporter takes is taken, and what it loses for no good reason is not lost.

use statsieve::model::DropReason;
use statsieve::telemetry::Count;

use crate::rig::{Rig, check_cases, check_cases_under, like_the_peer};

#[test]
fn datagrams_lines_and_names() {
    check_cases(&[
        ("2.3.1", "cut at newlines", &["a:1|c\nb:2|c"], &["a 1", "b 2"], ""),
        ("2.3.1", "a newline at the end, or at the beginning", &["\na:1|c\n"], &["a 1"], ""),
        ("2.3.1", "blank pieces between", &["a:1|c\n\n\na:1|c"], &["a 2"], ""),
        ("2.3.2", "the first colon ends the name", &["a.b:1|c"], &["a_b 1"], ""),
        ("2.3.2", "no colon", &["a"], &[], "malformed_line"),
        ("2.3.2", "no colon before the end", &["a|1|c"], &[], "malformed_line"),
        ("2.3.2", "no name", &[":1|c"], &[], "malformed_line"),
        ("2.3.2", "nothing but a colon", &[":"], &[], "malformed_line"),
        ("2.3.2", "the lines around it", &["a:1|c\n:1|c\na:1|c"], &["a 2"], "malformed_line"),
        ("2.3.2", "UTF-8 is fine", &["a:1|c|#k:\u{fc}"], &["a{k=\"\u{fc}\"} 1"], ""),
        ("2.3.5", "no type", &["a:1"], &[], "malformed_line"),
        ("2.3.5", "nothing behind the colon", &["a:"], &[], "malformed_line"),
        ("2.3.5", "tags in the name, no type", &["a,k=v:1"], &[], "malformed_line"),
        ("2.3.10", "an empty type", &["a:1|"], &[], "unknown_type"),
    ]);
}

#[test]
fn bytes_that_are_no_utf8_cost_their_line_alone() {
    let mut rig = Rig::new(&like_the_peer(&[]));
    // Rule 2.3.2: in the name, in a tag, and cut at the end; a long way, an overlong one, a surrogate.
    for bad in [&b"\xff:1|c"[..], b"a:1|c|#k:\xc3", b"a:1|c|#k:\xc3(", b"a\xc0\xaf:1|c", b"\xed\xa0\x80:1|c"] {
        rig.send_bytes(&[b"a:1|c\n", bad, b"\nb:1|c\n"].concat());
    }
    assert_eq!(rig.series(), ["a 5", "b 5"]);
    assert_eq!((rig.dropped(DropReason::InvalidUtf8), rig.tally().get(Count::Lines)), (5, 15));
}

#[test]
fn mended_blank_pieces_are_no_lines() {
    // Rule 2.3.1: there, each piece is counted, the one behind the last newline too.
    let mut rig = Rig::new(&like_the_peer(&[]));
    rig.send(&["\n\n\na:1|c\n\n", "\n", "\r\n\r\n"]);
    assert_eq!((rig.tally().get(Count::Lines), rig.series()), (1, vec!["a 1".to_owned()]));
}

#[test]
fn mended_a_carriage_return_at_the_end_goes_on_every_transport() {
    check_cases(&[
        ("2.3.1", "behind a type", &["a:1|c\r\na:1|c\r"], &["a 2"], ""),
        ("2.3.1", "behind a tag", &["a:1|c|#k:v\r\n"], &["a{k=\"v\"} 1"], ""),
        ("2.3.1", "one in the middle stays", &["a:1|c|#k:v\rw"], &["a{k=\"v\rw\"} 1"], ""),
        ("7 transport", "a second one stays", &["a:1|c\r\r\n"], &[], "unknown_type"),
    ]);
}

#[test]
fn tags_in_the_name() {
    check_cases(&[
        ("2.3.3", "InfluxDB", &["a,k=v,l=w:1|c"], &["a{k=\"v\",l=\"w\"} 1"], ""),
        ("2.3.3", "Librato", &["a#k=v,l=w:1|c"], &["a{k=\"v\",l=\"w\"} 1"], ""),
        ("2.3.3", "SignalFX", &["a[k=v,l=w]:1|c"], &["a{k=\"v\",l=\"w\"} 1"], ""),
        ("2.3.3", "what follows the brackets is name", &["a[k=v].b:1|c"], &["a_b{k=\"v\"} 1"], ""),
        ("2.3.3", "what precedes them may be nothing", &["[k=v]a:1|c"], &["a{k=\"v\"} 1"], ""),
        ("2.3.3", "the first of each bracket", &["a[k=v]b[l=w]:1|c"], &["ab_l_w_{k=\"v\"} 1"], ""),
        ("2.3.3", "the first of # and , decides", &["a#k=v,l=w#m:1|c"], &["a{k=\"v\",l=\"w#m\"} 1"], ""),
        ("2.3.3", "the same the other way round", &["a,k=v#l=w:1|c"], &["a{k=\"v#l=w\"} 1"], ""),
        ("2.3.3", "a lone bracket: no tags, and one error", &["a[k=v:1|c"], &["a_k_v 1"], "tag:malformed"),
        ("2.3.3", "the other bracket", &["a,k=v]:1|c"], &["a_k_v_ 1"], "tag:malformed"),
        ("7 tags", "a lone bracket, and InfluxDB tags", &["a],k=v:1|c"], &["a__k_v 1"], "tag:malformed"),
        ("7 tags", "behind a pair nothing is looked for", &["a[k=v]b,l=w#m=x:1|c"], &["ab_l_w_m_x{k=\"v\"} 1"], ""),
        ("2.3.3", "an equals sign in a value", &["a,k=v=w:1|c"], &["a{k=\"v=w\"} 1"], ""),
        ("2.3.3", "empty brackets", &["a[]b:1|c"], &["ab 1"], ""),
        ("2.3.3", "a comma and nothing", &["a,:1|c"], &["a 1"], ""),
        ("2.3.3", "a bad tag costs itself", &["a,k=v,=x,l=,m:1|c|@1"], &[], "reserved_label"),
        (
            "2.3.3",
            "a key without a value, and a word",
            &["a,k=v,l=,m:1|c"],
            &["a{k=\"v\"} 1"],
            "tag:malformed tag:bare",
        ),
        ("2.3.3", "of a key sent twice the last value", &["a,k=v,k=w:1|c"], &["a{k=\"w\"} 1"], ""),
        ("2.3.4", "InfluxDB and DogStatsD", &["a,k=v:1|c|#l:w"], &[], "mixed_tag_styles"),
        ("2.3.4", "Librato and DogStatsD", &["a#k=v:1|c|#l:w"], &[], "mixed_tag_styles"),
        ("2.3.4", "SignalFX and DogStatsD", &["a[k=v]:1|c|#l:w"], &[], "mixed_tag_styles"),
        ("7 tags", "an empty |# too", &["a,k=v:1|c|#"], &[], "mixed_tag_styles"),
        ("7 tags", "not if those in the name were bad", &["a,k:1|c|#l:w"], &["a{l=\"w\"} 1"], "tag:bare"),
    ]);
    for (dialect, line, series) in [
        ("influxdb", "a,k=v:1|c", "a_k_v 1"),
        ("librato", "a#k=v:1|c", "a_k_v 1"),
        ("signalfx", "a[k=v]:1|c", "a_k_v_ 1"),
        ("signalfx", "a[:1|c", "a_ 1"),
        ("signalfx", "a[b,k=v]:1|c", "a_b{k=\"v]\"} 1"),
        ("influxdb", "a,b#k=v:1|c", "a_b{k=\"v\"} 1"),
        ("dogstatsd", "a:1|c|#k:v", "a 1"),
    ] {
        let config = like_the_peer(&[&format!("parse.{dialect}_tags=false")]);
        check_cases_under(&config, &[("2.3.3", dialect, &[line], &[series], "")]);
    }
    let config = like_the_peer(&["parse.dogstatsd_tags=false"]);
    check_cases_under(&config, &[("7 tags", "with |# off too", &["a,k=v:1|c|#l:w"], &[], "mixed_tag_styles")]);
}

#[test]
fn mended_a_closing_bracket_before_an_opening_one_ends_nothing_but_the_search_for_tags() {
    check_cases(&[
        ("7 crash", "it panics", &["]a[:1|c", "a:1|c"], &["_a_ 1", "a 1"], "tag:malformed"),
        ("7 crash", "with tags behind", &["]a[k=v]:1|c|#l:w"], &["_a_k_v_{l=\"w\"} 1"], "tag:malformed"),
    ]);
}

#[test]
fn packed_values() {
    check_cases(&[
        ("2.3.6", "timers", &["a:1:2:3|ms"], &["a_count 3", "a_sum 0.006"], ""),
        ("2.3.6", "histograms", &["a:1:2|h"], &["a_count 2", "a_sum 3"], ""),
        ("2.3.6", "distributions", &["a:1:2|d"], &["a_count 2", "a_sum 3"], ""),
        ("2.3.6", "tags are for each", &["a:1:2|h|#k:v"], &["a_count{k=\"v\"} 2", "a_sum{k=\"v\"} 3"], ""),
        ("2.3.6", "and so is the rate", &["a:1:2|h|@0.5"], &["a_count 4", "a_sum 6"], ""),
        ("7 lines", "a bad value costs itself", &["a:1:x:3|h"], &["a_count 2", "a_sum 4"], "malformed_value"),
        ("7 lines", "no further samples behind packed ones", &["a:1:2|h:3|h"], &[], "unknown_type"),
    ]);
}

#[test]
fn mended_counters_and_gauges_pack_values_too() {
    check_cases(&[
        ("2.3.6", "counters", &["a:1:2:3|c"], &["a 6"], ""),
        ("2.3.6", "with tags and a rate", &["a:1:2|c|@0.5|#k:v"], &["a{k=\"v\"} 6"], ""),
        ("2.3.6", "gauges, one after the other", &["a:5:+2:-1|g"], &["a 6"], ""),
        ("2.3.6", "values as the last sample of a line", &["a:1|h:2:3|h"], &["a_count 3", "a_sum 6"], ""),
    ]);
}

#[test]
fn several_samples_on_a_line() {
    check_cases(&[
        ("2.3.7", "each with its own value", &["a:3|c:2|c"], &["a 5"], ""),
        ("2.3.7", "and its own rate", &["a:3|c|@0.5:2|c"], &["a 8"], ""),
        ("2.3.7", "and type, as far as the name allows", &["a:3|g:2|c"], &["a 3"], "type_conflict"),
        ("2.3.7", "tags in the name are for all of them", &["a,k=v:3|c:2|c"], &["a{k=\"v\"} 5"], ""),
        ("2.3.7", "a bad one costs itself", &["a:1|c:x|c:2|c"], &["a 3"], "malformed_value"),
        ("2.3.7", "with |# there is one sample", &["a:1|c:2|c|#k:v"], &[], "unknown_type"),
        ("7 lines", "colons in tags end nothing", &["a:1|c|#k:v:2"], &["a{k=\"v:2\"} 1"], ""),
    ]);
}

#[test]
fn mended_a_container_field_needs_no_tags_beside_it() {
    check_cases(&[
        ("2.3.7", "cut in two there", &["a:1|c|c:abc"], &["a{container_id=\"abc\"} 1"], ""),
        ("2.3.7", "an id like a number", &["a:1|c|c:5"], &["a{container_id=\"5\"} 1"], ""),
        ("2.3.7", "an id with a colon", &["a:1|g|c:in-1:2"], &["a{container_id=\"in-1:2\"} 1"], ""),
    ]);
}

#[test]
fn values() {
    check_cases(&[
        ("2.3.8", "whole numbers and fractions", &["a:1|g", "b:1.5|g", "c:.5|g"], &["a 1", "b 1.5", "c 0.5"], ""),
        ("2.3.8", "exponents", &["a:1e3|g", "b:1E-2|g", "c:2e+1|g"], &["a 1000", "b 0.01", "c 20"], ""),
        ("2.3.8", "a point at the end", &["a:1.|g"], &["a 1"], ""),
        ("2.3.8", "no number", &["a:x|c", "a:|c", "a:1x|c", "a:1,5|c"], &[], "malformed_value*4"),
        ("7 lines", "no blanks", &["a: 1|c", "a:1 |c", "a:1| c"], &[], "malformed_value*2 unknown_type"),
        ("7 lines", "too large", &["a:1e400|g", "a:-1e400|g"], &[], "not_finite*2"),
        ("2.3.8", "too small is nothing", &["a:1e-400|g"], &["a 0"], ""),
        ("2.3.8", "signs", &["a:+3|c", "b:+3|ms"], &["a 3", "b_count 1", "b_sum 0.003"], ""),
        ("2.3.8", "more signs", &["a:--3|g", "a:+-3|g", "a:-|g"], &[], "malformed_value*3"),
        ("2.3.8", "a negative gauge by way of 0", &["a:0|g", "a:-3|g"], &["a -3"], ""),
        ("7 lines", "a signed gauge is a change", &["a:5|g", "a:+3|g", "a:-2|g"], &["a 6"], ""),
        ("7 lines", "up to six parts", &["a:1|c|@1|#k:v|c:x|T1"], &["a{container_id=\"x\",k=\"v\"} 1"], ""),
    ]);
}

#[test]
fn mended_only_finite_decimal_numbers_are_values() {
    check_cases(&[
        ("2.3.8", "NaN spoils a counter there", &["a:1|c", "a:nan|c", "a:NaN|c", "a:1|c"], &["a 2"], "not_finite*2"),
        ("2.3.8", "infinities", &["a:inf|g", "a:-Inf|ms", "a:infinity|h"], &[], "not_finite*3"),
        ("7 lines", "+nan is refused there too", &["a:+nan|g"], &[], "not_finite"),
        ("7 lines", "hexadecimal", &["a:0x1p-2|g", "a:0x10|c"], &[], "malformed_value*2"),
        ("7 lines", "digits in groups", &["a:1_000|c"], &[], "malformed_value"),
        ("2.3.8", "sums that could become infinite", &["a:7e300|c", "a:7e300|c"], &["a 7e+300"], "not_finite"),
    ]);
}

#[test]
fn mended_a_line_may_have_as_many_parts_as_dogstatsd_has_fields() {
    check_cases(&[(
        "7 lines",
        "eight parts",
        &["a:1|c|@0.5|#k:v|c:x|T1700000000|e:it-false|card:low", "b:1|g|#k:v|c:x|T1|e:x|card:low"],
        &["a{container_id=\"x\",k=\"v\"} 1", "b{container_id=\"x\",k=\"v\"} 1"],
        "",
    )]);
}

#[test]
fn rates() {
    check_cases(&[
        ("2.3.9 rate", "counters are divided", &["a:1|c|@0.1"], &["a 10"], ""),
        ("2.3.9 rate", "observations are repeated", &["a:4|h|@0.5"], &["a_count 2", "a_sum 8"], ""),
        ("2.3.9 rate", "gauges do not mind", &["a:4|g|@0.5"], &["a 4"], ""),
        ("2.3.9 rate", "0 is 1", &["a:1|c|@0", "b:1|h|@0"], &["a 1", "b_count 1", "b_sum 1"], "rate*2"),
        ("7 lines", "unreadable, and the sample stays", &["a:1|c|@x", "a:1|c|@"], &["a 2"], "rate*2"),
        ("7 lines", "of timers too", &["a:1000|ms|@x"], &["a_count 1", "a_sum 1"], "rate"),
        ("7 lines", "two both divide a counter", &["a:1|c|@0.5|@0.5"], &["a 4"], ""),
        ("7 lines", "of two the last is for observations", &["a:1|h|@0.25|@0.5"], &["a_count 2", "a_sum 2"], ""),
        ("2.3.9 rate", "above 1 a counter shrinks", &["a:6|c|@2"], &["a 3"], ""),
        ("2.3.9 empty", "no part may be empty", &["a:1|c|", "a:1|c||@1", "a:1|c|#k:v|"], &[], "malformed_field*3"),
    ]);
}

#[test]
fn mended_a_sampled_observation_is_one_of_more_weight() {
    check_cases(&[
        ("2.3.9 rate", "not cut to whole repeats", &["a:1|h|@0.4"], &["a_count 2.5", "a_sum 2.5"], ""),
        ("7 crash", "a million of them", &["a:1|ms|@0.000001"], &["a_count 1000000", "a_sum 1000"], ""),
        (
            "2.7",
            "a billion of them",
            &["a:1|h|@0.000000001"],
            &["a_count 999999999.9999999", "a_sum 999999999.9999999"],
            "",
        ),
        ("2.7", "more than there are", &["a:1|h|@1e-320", "a:1|c|@1e-320"], &[], "not_finite*2"),
    ]);
}

#[test]
fn mended_rates_that_mean_nothing_are_counted() {
    check_cases(&[
        ("7 lines", "above 1, timers vanish there", &["a:6|ms|@2", "a:6|h|@1.5"], &[], "sample_rate*2"),
        ("7 lines", "below 0, timers vanish there", &["a:6|ms|@-1"], &[], "sample_rate"),
        ("2.3.9 rate", "below 0, counters", &["a:6|c|@-0.5"], &[], "sample_rate"),
        ("2.3.9 rate", "no number at all", &["a:6|c|@nan", "a:6|h|@inf"], &["a 6"], "type_conflict rate*2"),
    ]);
}

#[test]
fn dogstatsd_tags() {
    check_cases(&[
        ("2.3.9 tags", "a list", &["a:1|c|#k:v,l:w"], &["a{k=\"v\",l=\"w\"} 1"], ""),
        ("2.3.9 tags", "each with a # of its own", &["a:1|c|##k:v,#l:w"], &["a{k=\"v\",l=\"w\"} 1"], ""),
        ("2.3.9 tags", "cut at the first colon", &["a:1|c|#k:v:w"], &["a{k=\"v:w\"} 1"], ""),
        ("2.3.9 tags", "a tag without a colon", &["a:1|c|#k,l:w"], &["a{l=\"w\"} 1"], "tag:bare"),
        ("2.3.9 tags", "a tag without a value", &["a:1|c|#k:,l:w"], &["a{l=\"w\"} 1"], "tag:malformed"),
        ("2.3.9 tags", "an empty tag", &["a:1|c|#,l:w"], &["a{l=\"w\"} 1"], "tag:malformed"),
        ("2.3.9 tags", "no tags behind |#", &["a:1|c|#"], &["a 1"], ""),
        ("2.3.9 tags", "the last value of a key", &["a:1|c|#k:v,k:w"], &["a{k=\"w\"} 1"], ""),
        ("7 tags", "of keys that escaping makes one, too", &["a:1|c|#k.x:v,k-x:w"], &["a{k_x=\"w\"} 1"], ""),
        ("7 tags", "blanks stay", &["a:1|c|#k: v ,l:w"], &["a{k=\" v \",l=\"w\"} 1"], ""),
        ("7 tags", "in keys they are escaped", &["a:1|c|#k:v, l:w"], &["a{_l=\"w\",k=\"v\"} 1"], ""),
        ("2.3.9 tags", "fields in any order", &["a:1|c|#k:v|@0.5"], &["a{k=\"v\"} 2"], ""),
    ]);
    let off = like_the_peer(&["parse.dogstatsd_tags=false"]);
    check_cases_under(&off, &[("2.3.9 tags", "passed over", &["a:1|c|#k:v,,x|@0.5"], &["a 2"], "")]);
}

#[test]
fn mended_a_key_that_is_no_label_costs_the_sample_and_not_the_scrape() {
    check_cases(&[
        ("7 crash", "an empty key", &["a#=v:1|c", "a:1|c|#:v"], &[], "reserved_label*2"),
        (
            "7 crash",
            "in a place where no key is known",
            &["a:1|c|#x:,l:w", "a:1|c|#:v,l:w"],
            &["a{l=\"w\"} 1"],
            "reserved_label tag:malformed",
        ),
        ("7 crash", "two underscores", &["a:1|c|#__name__:b", "a,__k=v:1|c"], &[], "reserved_label*2"),
        ("7 crash", "two underscores by escaping", &["a:1|c|#..k:v"], &[], "reserved_label"),
        (
            "7 crash",
            "le on observations, not elsewhere",
            &["a:1|h|#le:1", "b:1|c|#le:1"],
            &["b{le=\"1\"} 1"],
            "reserved_label",
        ),
        ("7 crash", "quantile is a label of counters", &["b:1|c|#quantile:1"], &["b{quantile=\"1\"} 1"], ""),
    ]);
}

#[test]
fn containers() {
    check_cases(&[
        ("2.3.9 container", "a label", &["a:1|c|#k:v|c:abc"], &["a{container_id=\"abc\",k=\"v\"} 1"], ""),
        ("2.3.9 container", "before the tags", &["a:1|c|c:abc|#k:v"], &["a{container_id=\"abc\",k=\"v\"} 1"], ""),
        ("7 tags", "it comes later than the tag", &["a:1|c|#container_id:t|c:abc"], &["a{container_id=\"abc\"} 1"], ""),
        ("7 tags", "the tag comes later", &["a:1|c|c:abc|#container_id:t"], &["a{container_id=\"t\"} 1"], ""),
        (
            "7 tags",
            "and later than one in the name",
            &["a,container_id=t:1|c|c:abc"],
            &["a{container_id=\"abc\"} 1"],
            "",
        ),
        (
            "7 tags",
            "both orders are told apart",
            &["a:1|c|c:x|#container_id:t", "a:1|c|#container_id:t|c:x", "a:1|c|c:x|#container_id:t"],
            &["a{container_id=\"t\"} 2", "a{container_id=\"x\"} 1"],
            "",
        ),
    ]);
}

#[test]
fn mended_fields_that_are_not_known_cost_nothing() {
    check_cases(&[
        ("2.3.9 container", "another c", &["a:1|c|cx", "a:1|c|#k:v|c"], &["a 1", "a{k=\"v\"} 1"], "field:c*2"),
        ("2.3.9 timestamp", "refused by 0.30", &["a:1|c|T1700000000"], &["a 1"], ""),
        ("2.3.9 other", "external data", &["a:1|c|e:it-false,cn-app", "a:1|c|#k:v|e:x"], &["a 1", "a{k=\"v\"} 1"], ""),
        ("2.3.9 other", "cardinality", &["a:1|c|#k:v|card:low"], &["a{k=\"v\"} 1"], ""),
        ("2.3.9 other", "whatever comes next", &["a:1|c|Z9|#k:v|$"], &["a{k=\"v\"} 1"], "field:Z field:other"),
    ]);
}

#[test]
fn types() {
    check_cases(&[
        ("2.3.10", "seconds from milliseconds", &["a:1500|ms"], &["a_count 1", "a_sum 1.5"], ""),
        (
            "2.3.10",
            "the others as they are",
            &["a:1500|h", "b:3|d"],
            &["a_count 1", "a_sum 1500", "b_count 1", "b_sum 3"],
            "",
        ),
        ("2.3.10", "unknown", &["a:1|x", "a:1|cc", "a:1|m"], &[], "unknown_type*3"),
        ("7 lines", "in small letters only", &["a:1|C", "a:1|MS"], &[], "unknown_type*2"),
    ]);
}

#[test]
fn mended_a_sample_of_unknown_type_is_counted_once() {
    // There it is once for each repeat of its rate.
    check_cases(&[("2.3.10", "with a rate", &["a:1|x|@0.01"], &[], "unknown_type")]);
}

#[test]
fn mended_tags_are_counted_where_they_are_lost() {
    // There, samples that have tags are counted; here, tags that became no label.
    check_cases(&[("2.3.11", "two of three", &["a:1|c|#k,l,m:x"], &["a{m=\"x\"} 1"], "tag:bare*2")]);
}

#[test]
fn mended_each_sample_of_a_line_has_labels_of_its_own() {
    check_cases(&[(
        "2.3.12",
        "the container of the first is not that of the second",
        &["a:1|c|c:abc|@1:2|c"],
        &["a 2", "a{container_id=\"abc\"} 1"],
        "",
    )]);
}

#[test]
fn the_examples() {
    check_cases(&[
        ("2.3 examples", "sampled", &["a:1|c|@0.1"], &["a 10"], ""),
        ("2.3 examples", "two samples", &["a:3|c:2|c"], &["a 5"], ""),
        ("2.3 examples", "packed timers with a rate", &["a:1:2|ms|@0.5"], &["a_count 4", "a_sum 0.006"], ""),
        ("2.3 examples", "changes of a gauge", &["a:+3|g", "a:-1|g"], &["a 2"], ""),
        ("2.3 examples", "a container", &["a:1|c|#x:y|c:abc"], &["a{container_id=\"abc\",x=\"y\"} 1"], ""),
    ]);
}

#[test]
fn mended_the_examples_that_are_refused_there() {
    check_cases(&[
        ("2.3 examples", "packed counters", &["a:1:2:3|c|#x:y"], &["a{x=\"y\"} 6"], ""),
        ("2.3 examples", "a container alone", &["a:1|c|c:abc"], &["a{container_id=\"abc\"} 1"], ""),
        ("2.3 examples", "external data", &["a:1|c|#x:y|e:it-false,cn-app"], &["a{x=\"y\"} 1"], ""),
        ("2.3 examples", "cardinality", &["a:1|c|#x:y|card:low"], &["a{x=\"y\"} 1"], ""),
        ("2.3 examples", "a timestamp", &["a:1|c|T1700000000"], &["a 1"], ""),
        ("2.3 examples", "an event", &["_e{5,4}:title|text"], &["statsd_events_total{alert_type=\"info\"} 1"], ""),
        ("2.3 examples", "a check", &["_sc|db|0"], &["statsd_service_check_status{check=\"db\"} 0"], ""),
    ]);
}
