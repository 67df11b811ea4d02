//! Lines as tables: what each is cut into, or why and at which byte it is refused.
//!
//! A sample reads `type values`, then ` *weight` unless it is 1, ` #tags`, ` c:container`, ` !` for a rate that cannot
//! be read, ` ?letters` for unknown fields. A refusal reads `reason@byte`, a value refused alone its reason.

use super::*;
use crate::config::Config;

fn dialects() -> Parse {
    Config::default_checked().parse
}

fn utf8(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("a line is cut at character boundaries")
}

fn show(sample: &Sample<'_>) -> String {
    let number = |number: Result<Number, (DropReason, &[u8])>| match number {
        Ok(Number { value, signed: true }) => format!("{value:+}"),
        Ok(Number { value, .. }) => value.to_string(),
        Err((reason, _)) => reason.to_string(),
    };
    let values: Vec<String> = sample.values.numbers().map(number).collect();
    let mut text = format!("{} {}", sample.kind, values.join(","));
    if sample.weight != 1.0 {
        text += &format!(" *{}", sample.weight);
    }
    if !sample.tags.is_empty() {
        text += &format!(" #{}", utf8(sample.tags));
    }
    if !sample.container.is_empty() {
        text += &format!(" c:{}", utf8(sample.container));
    }
    if sample.invalid_rate {
        text += " !";
    }
    if sample.unknown_fields != 0 {
        text += " ?";
        text.extend(unknown_letters(sample.unknown_fields).map(char::from));
    }
    text
}

fn refused(refusal: Refusal) -> String {
    format!("{}@{}", refusal.reason, refusal.at)
}

/// The samples of a line, separated by `; `, read as a worker does: a refusal ends it.
fn samples_with(text: &str, dialects: &Parse) -> String {
    let line = match Line::parse(text.as_bytes(), dialects) {
        Ok(line) => line,
        Err(refusal) => return refused(refusal),
    };
    let (mut shown, mut next) = (Vec::new(), Some(line.body));
    while let Some(from) = next {
        match line.sample(from) {
            Ok(sample) => {
                shown.push(show(&sample));
                next = sample.next;
            }
            Err(refusal) => {
                shown.push(refused(refusal));
                next = None;
            }
        }
    }
    shown.join("; ")
}

fn samples(text: &str) -> String {
    samples_with(text, &dialects())
}

/// Name, rest, dialect and tags of a line's name.
fn name_with(text: &str, dialects: &Parse) -> String {
    match Line::parse(text.as_bytes(), dialects) {
        Ok(line) => {
            let bracket = if line.lone_bracket { " lone bracket" } else { "" };
            format!(
                "{} + {} ({}: {}){bracket}",
                utf8(line.name),
                utf8(line.name_rest),
                line.style.name(),
                utf8(line.name_tags)
            )
        }
        Err(refusal) => refused(refusal),
    }
}

#[track_caller]
fn check(cases: &[(&str, &str)]) {
    for (line, expected) in cases {
        assert_eq!(samples(line), *expected, "{line:?}");
    }
}

#[test]
fn each_type_is_told_by_its_letters_and_their_case() {
    check(&[
        ("a:1|c", "counter 1"),
        ("a:2|g", "gauge 2"),
        ("a:3|ms", "timer 3"),
        ("a:4|h", "histogram 4"),
        ("a:5|d", "distribution 5"),
        ("a:alice|s", "set malformed_value"),
        ("a:1|C", "unknown_type@4"),
        ("a:1|m", "unknown_type@4"),
        ("a:1|MS", "unknown_type@4"),
        ("a:1|cc", "unknown_type@4"),
        ("a:1|c ", "unknown_type@4"),
        ("a:1| c", "unknown_type@4"),
        ("a:1|", "unknown_type@4"),
        ("a:1||c", "unknown_type@4"),
        ("a:1|x|#t:u", "unknown_type@4"),
    ]);
}

#[test]
fn a_line_without_name_colon_or_type_is_malformed() {
    check(&[
        ("a", "malformed_line@1"),
        ("a|c", "malformed_line@3"),
        (":1|c", "malformed_line@0"),
        ("a:1", "malformed_line@3"),
        ("a:", "malformed_line@2"),
        ("a,b=c", "malformed_line@5"),
        ("a.long.name.without.a.colon", "malformed_line@27"),
        ("_", "malformed_line@1"),
        ("#k=v:1|c", "empty_name@0"),
        (",k=v:1|c", "empty_name@0"),
        ("[k=v]:1|c", "empty_name@0"),
    ]);
}

#[test]
fn events_and_service_checks_are_no_metrics() {
    check(&[
        ("_e{5,4}:title|text", "unknown_type@0"),
        ("_sc|db|0", "unknown_type@0"),
        ("_sc|db|0|m:a:b", "unknown_type@0"),
        ("_e:1|c", "counter 1"),
        ("_scope:1|c", "counter 1"),
    ]);
}

#[test]
fn values_are_decimal_numbers_from_end_to_end() {
    check(&[
        ("a:1.5|c", "counter 1.5"),
        ("a:1e3|c", "counter 1000"),
        ("a:.5|c", "counter 0.5"),
        ("a:1.|c", "counter 1"),
        ("a:|c", "counter malformed_value"),
        ("a:x|c", "counter malformed_value"),
        ("a:1 |c", "counter malformed_value"),
        ("a: 1|c", "counter malformed_value"),
        ("a:0x1f|c", "counter malformed_value"),
        ("a:1_000|c", "counter malformed_value"),
        ("a:nan|c", "counter not_finite"),
        ("a:+nan|g", "gauge not_finite"),
        ("a:inf|g", "gauge not_finite"),
        ("a:1e400|c", "counter not_finite"),
        ("a:1e-400|c", "counter 0"),
        ("a:9007199254740993|c", "counter 9007199254740992"),
    ]);
}

#[test]
fn a_sign_is_kept_beside_the_value() {
    check(&[
        ("a:+3|g", "gauge +3"),
        ("a:-3|g", "gauge -3"),
        ("a:3|g", "gauge 3"),
        ("a:-0|g", "gauge -0"),
        ("a:--3|g", "gauge malformed_value"),
        ("a:-|g", "gauge malformed_value"),
    ]);
}

#[test]
fn several_samples_on_a_line_keep_their_own_types_rates_and_values() {
    check(&[
        ("a:3|c:2|c", "counter 3; counter 2"),
        ("a:1|c:2|ms", "counter 1; timer 2"),
        ("a:1|c|@0.5:2|ms|@0.25:3|g", "counter 1 *2; timer 2 *4; gauge 3"),
        ("a:1|c|T1700000000:2|c", "counter 1; counter 2"),
        ("a:x|c:2|c", "counter malformed_value; counter 2"),
        ("a:1|c:x|c", "counter 1; counter malformed_value"),
        ("a:1|c:", "counter 1; malformed_line@6"),
        ("a:1|c:2", "counter 1; malformed_line@7"),
        ("a:1|c:2|x:3|c", "counter 1; unknown_type@8"),
        ("a:+1|g:-1|g", "gauge +1; gauge -1"),
    ]);
}

#[test]
fn with_dogstatsd_tags_a_line_is_one_sample() {
    check(&[
        ("a:1|c|#k:v:2|c", "counter 1 #k:v:2 ?c"),
        ("a:1|c:2|c|#k:v", "unknown_type@5"),
        ("a:1|c|#url:http://x:80/", "counter 1 #url:http://x:80/"),
    ]);
}

#[test]
fn packed_values_are_taken_of_every_type_the_peer_refuses_counters_and_gauges() {
    check(&[
        ("a:1:2:3|c|#x:y", "counter 1,2,3 #x:y"),
        ("a:1:2|g", "gauge 1,2"),
        ("a:1:2|ms|@0.5", "timer 1,2 *2"),
        ("a:1:2|h", "histogram 1,2"),
        ("a:1:2|d", "distribution 1,2"),
        ("a:+1:-2:3|g", "gauge +1,-2,3"),
        ("a:1:x:3|c", "counter 1,malformed_value,3"),
        ("a:1:nan|c", "counter 1,not_finite"),
    ]);
}

#[test]
fn empty_pieces_between_packed_values_are_none() {
    check(&[
        ("a:21::22|c", "counter 21,22"),
        ("a::1|c", "counter 1"),
        ("a:1:|c", "counter 1"),
        ("a:1::::2:|ms", "timer 1,2"),
        ("a::|c", "counter malformed_value"),
        ("a:::|c", "counter malformed_value"),
    ]);
}

#[test]
fn packed_values_and_further_samples_do_not_mix() {
    check(&[("a:1:2|c:3|c", "unknown_type@7"), ("a:1|c:2:3|ms:4|g", "counter 1; unknown_type@12")]);
}

#[test]
fn rates_weigh_counters_and_observations_and_nothing_else() {
    check(&[
        ("a:1|c|@0.1", "counter 1 *10"),
        ("a:1|c|@1", "counter 1"),
        ("a:1|ms|@0.5", "timer 1 *2"),
        ("a:1|h|@0.3", "histogram 1 *3.3333333333333335"),
        ("a:1|d|@1e-9", "distribution 1 *999999999.9999999"),
        ("a:1|g|@0.5", "gauge 1"),
        ("a:1|g|@-2", "gauge 1"),
        ("a:1|s|@-2", "set 1"),
    ]);
}

#[test]
fn a_rate_that_cannot_be_read_counts_as_one_and_is_marked() {
    for rate in ["@", "@x", "@0", "@-0", "@0.0", "@nan", "@inf", "@-inf", "@1e400", "@0,5", "@ 0.5", "@1/2", "@@0.5"] {
        for kind in ["c", "ms", "h", "d"] {
            let line = format!("a:1|{kind}|{rate}");
            let shown = samples(&line);
            assert!(shown.ends_with(" 1 !"), "{line:?} is {shown:?}");
        }
    }
}

#[test]
fn rates_above_one_divide_counters_and_refuse_observations() {
    check(&[
        ("a:6|c|@2", "counter 6 *0.5"),
        ("a:6|c|@1.0000000000000002", "counter 6 *0.9999999999999998"),
        ("a:6|ms|@2", "sample_rate@8"),
        ("a:6|h|@1.5", "sample_rate@7"),
        ("a:6|d|@1e9", "sample_rate@7"),
    ]);
}

#[test]
fn negative_rates_are_refused_for_counters_and_observations() {
    check(&[
        ("a:1|c|@-0.5", "sample_rate@7"),
        ("a:1|ms|@-1", "sample_rate@8"),
        ("a:1|h|@-1e-9", "sample_rate@7"),
        ("a:1|d|#k:v|@-1", "sample_rate@12"),
    ]);
}

#[test]
fn two_rates_multiply_on_counters_and_the_last_holds_on_observations() {
    check(&[
        ("a:1|c|@0.5|@0.25", "counter 1 *8"),
        ("a:1|ms|@0.5|@0.25", "timer 1 *4"),
        ("a:1|h|@0.25|@0.5", "histogram 1 *2"),
        ("a:1|c|@0.5|@x", "counter 1 *2 !"),
    ]);
}

#[test]
fn a_rate_next_to_zero_is_one_sample_of_infinite_weight() {
    check(&[("a:1|ms|@1e-320", "timer 1 *inf"), ("a:1|c|@1e-200|@1e-200", "counter 1 *inf")]);
}

#[test]
fn counters_with_a_timestamp_are_not_inflated() {
    check(&[
        ("a:5|c|@0.1|T1700000000", "counter 5"),
        ("a:5|c|T1700000000|@0.1|#k:v", "counter 5 #k:v"),
        ("a:5|c|@0.1|T0", "counter 5 *10"),
        ("a:5|c|@0.1|T", "counter 5 *10"),
        ("a:5|c|@0.1|Tx", "counter 5 *10"),
        ("a:5|ms|@0.1|T1700000000", "timer 5 *10"),
        ("a:5|g|T1700000000", "gauge 5"),
        ("a:5|c|@-1|T1700000000", "sample_rate@7"),
    ]);
}

#[test]
fn fields_of_dogstatsd_1_2_to_1_6_are_accepted_the_peer_loses_the_line() {
    check(&[
        ("a:1|c|c:abc", "counter 1 c:abc"),
        ("a:1|c|c:5", "counter 1 c:5"),
        ("a:1|c|#x:y|c:ci-abc,in-123", "counter 1 #x:y c:ci-abc,in-123"),
        ("a:1|c|c:in-1:2|#x:y", "counter 1 #x:y c:in-1:2"),
        ("a:1|c|c:", "counter 1"),
        ("a:1|c|e:it-false,cn-app,pu-1", "counter 1"),
        ("a:1|c|#x:y|e:it-false", "counter 1 #x:y"),
        ("a:1|c|card:low", "counter 1"),
        ("a:1|c|card:unheard-of|#x:y", "counter 1 #x:y"),
        ("a:1|c|T1700000000", "counter 1"),
    ]);
}

#[test]
fn fields_may_stand_in_any_order_and_number() {
    check(&[
        ("a:1|c|#x:y|@0.5|c:z|T0|e:q|card:low", "counter 1 *2 #x:y c:z"),
        ("a:1|c|card:low|e:q|T0|c:z|@0.5|#x:y", "counter 1 *2 #x:y c:z"),
        ("a:1|c|#x:y|#z:w", "counter 1 #z:w"),
    ]);
}

#[test]
fn unknown_fields_are_passed_over_and_told_by_their_first_byte() {
    check(&[
        ("a:1|c|x", "counter 1 ?x"),
        ("a:1|c|x:1|Z9|x2", "counter 1 ?xZ"),
        ("a:1|c|$|1|\u{e9}", "counter 1 ??"),
        ("a:1|c|c", "counter 1 ?c"),
        ("a:1|c|card", "counter 1 ?c"),
        ("a:1|c|e", "counter 1 ?e"),
        ("a:1|c|t5|#k:v", "counter 1 #k:v ?t"),
    ]);
}

#[test]
fn empty_fields_are_malformed() {
    check(&[
        ("a:1|c|", "malformed_field@6"),
        ("a:1|c||#k:v", "malformed_field@6"),
        ("a:1|c|#k:v|", "malformed_field@11"),
        ("a:1|c|@0.1||", "malformed_field@11"),
        ("a:1|ms|@0.5|:2|ms", "timer 1 *2 ?m?"),
    ]);
}

#[test]
fn in_name_tags_are_read_in_three_dialects() {
    let dialects = dialects();
    for (line, expected) in [
        ("a:1|c", "a +  (DogStatsD: )"),
        ("a,k=v,l=w:1|c", "a +  (InfluxDB: k=v,l=w)"),
        ("a#k=v,l=w:1|c", "a +  (Librato: k=v,l=w)"),
        ("a[k=v,l=w]:1|c", "a +  (SignalFX: k=v,l=w)"),
        ("a[k=v]b:1|c", "a + b (SignalFX: k=v)"),
        ("[k=v]b:1|c", " + b (SignalFX: k=v)"),
        ("a[]b:1|c", "a + b (SignalFX: )"),
        ("a,k=v#l=w:1|c", "a +  (InfluxDB: k=v#l=w)"),
        ("a#k=v,l=w#m=x:1|c", "a +  (Librato: k=v,l=w#m=x)"),
        ("a[k=v]b,l=w:1|c", "a + b,l=w (SignalFX: k=v)"),
        ("a,b[k=v]:1|c", "a,b +  (SignalFX: k=v)"),
        ("a[k=v][l=w]:1|c", "a + [l=w] (SignalFX: k=v)"),
        ("a,:1|c", "a +  (InfluxDB: )"),
        ("a,k:1|c", "a +  (InfluxDB: k)"),
    ] {
        assert_eq!(name_with(line, &dialects), expected, "{line:?}");
    }
}

#[test]
fn a_lone_or_reversed_bracket_turns_tags_in_the_name_off() {
    let dialects = dialects();
    for (line, expected) in [
        ("a[k=v:1|c", "a[k=v +  (DogStatsD: ) lone bracket"),
        ("ak=v]:1|c", "ak=v] +  (DogStatsD: ) lone bracket"),
        ("]a[:1|c", "]a[ +  (DogStatsD: ) lone bracket"),
        ("a]k=v[b]:1|c", "a]k=v[b] +  (DogStatsD: ) lone bracket"),
        ("a[b,k=v:1|c", "a[b,k=v +  (DogStatsD: ) lone bracket"),
        ("a]#k=v:1|c", "a]#k=v +  (DogStatsD: ) lone bracket"),
    ] {
        assert_eq!(name_with(line, &dialects), expected, "{line:?}");
        assert_eq!(samples(line), "counter 1", "{line:?}");
    }
    assert_eq!(samples("]a[:1|c|#k:v"), "counter 1 #k:v");
}

#[test]
fn brackets_behind_the_colon_are_no_tags() {
    assert_eq!(name_with("a:1|c|#k:[v]", &dialects()), "a +  (DogStatsD: )");
    assert_eq!(samples("a:1|c|#k:[v],l:]#,"), "counter 1 #k:[v],l:]#,");
}

#[test]
fn valid_tags_in_the_name_do_not_mix_with_dogstatsd_tags() {
    check(&[
        ("a,k=v:1|c|#l:w", "mixed_tag_styles@10"),
        ("a#k=v:1|c|#l:w", "mixed_tag_styles@10"),
        ("a[k=v]:1|c|#l:w", "mixed_tag_styles@11"),
        ("a,k=v:1|c|#", "mixed_tag_styles@10"),
        ("a,k=v:1|c|@0.5|#l:w", "mixed_tag_styles@15"),
        ("a,k=v,bad:1|c|#l:w", "mixed_tag_styles@14"),
        ("a,bad:1|c|#l:w", "counter 1 #l:w"),
        ("a,bad=,:1|c|#l:w", "counter 1 #l:w"),
        ("a,:1|c|#l:w", "counter 1 #l:w"),
        ("a,k=v:1|c", "counter 1"),
        ("a,k=v:1|c:2|c", "counter 1; counter 2"),
    ]);
}

#[test]
fn dialects_can_be_switched_off_one_by_one() {
    let on = dialects();
    let off = Parse { dogstatsd_tags: false, ..on.clone() };
    assert_eq!(samples_with("a:1|c|#k:v", &off), "counter 1");
    assert_eq!(samples_with("a:1|c|@0.5|#k:v|c:x", &off), "counter 1 *2 c:x");
    assert_eq!(samples_with("a,k=v:1|c|#", &off), "mixed_tag_styles@10");

    let off = Parse { influxdb_tags: false, ..on.clone() };
    assert_eq!(name_with("a,k=v:1|c", &off), "a,k=v +  (DogStatsD: )");
    assert_eq!(name_with("a,k#l=w:1|c", &off), "a,k +  (Librato: l=w)");
    assert_eq!(samples_with("a,k=v:1|c|#l:w", &off), "counter 1 #l:w");

    let off = Parse { librato_tags: false, ..on.clone() };
    assert_eq!(name_with("a#k=v:1|c", &off), "a#k=v +  (DogStatsD: )");
    assert_eq!(name_with("a#k,l=w:1|c", &off), "a#k +  (InfluxDB: l=w)");

    let off = Parse { signalfx_tags: false, ..on };
    assert_eq!(name_with("a[k=v]:1|c", &off), "a[k=v] +  (DogStatsD: )");
    assert_eq!(name_with("]a[:1|c", &off), "]a[ +  (DogStatsD: )");
    assert_eq!(name_with("a[b,k=v]:1|c", &off), "a[b +  (InfluxDB: k=v])");
}

#[test]
fn the_name_ends_at_the_first_colon_wherever_it_stands() {
    for length in 1..40 {
        let name = "n".repeat(length);
        assert_eq!(name_with(&format!("{name}:1|c|#a:b,c:d"), &dialects()), format!("{name} +  (DogStatsD: )"));
        assert_eq!(name_with(&format!("{name},k=v:1|c"), &dialects()), format!("{name} +  (InfluxDB: k=v)"));
        assert_eq!(samples(&name), format!("malformed_line@{length}"));
    }
    // Bytes next to a delimiter's, and those above ASCII, are none.
    assert_eq!(name_with("\"$+-9;Z\\^\u{bb}\u{3a3}:1|c", &dialects()), "\"$+-9;Z\\^\u{bb}\u{3a3} +  (DogStatsD: )");
}

#[test]
fn lines_that_take_the_peer_down_are_cut_or_refused() {
    check(&[
        ("]a[:1|c", "counter 1"),
        ("x:1|ms|@0.000000001", "timer 1 *999999999.9999999"),
        ("x:nan|c", "counter not_finite"),
        ("#k=v:1|c", "empty_name@0"),
        ("x:1|ms|@0.0000005", "timer 1 *2000000"),
    ]);
}

#[test]
fn offsets_are_of_parts_and_zero_for_strangers() {
    let text = b"a:1|c|#k:v";
    assert_eq!([offset(text, &text[7..8]), offset(text, text), offset(text, &text[10..])], [7, 0, 10]);
    assert_eq!(offset(&text[..3], &[1, 2]), 0);
}
