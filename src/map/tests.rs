//! Names and labels from lines, as the slow way makes them for a new identity.

use super::*;
use crate::config::{Sources, load};

fn config(set: &[&str]) -> Config {
    let set = set.iter().map(ToString::to_string).collect();
    load(&Sources { file: None, set }).unwrap_or_else(|problems| panic!("{problems}")).config
}

/// `name{labels}` of the first sample, then ` -reason` (` -reason*n` for several) for each tag dropped; or
/// `reason@byte`.
fn resolve(set: &[&str], text: &str) -> String {
    let config = config(set);
    let rules = TagRules::new(&config.bucketing, &config.labels, config.parse.container_id_label.is_some());
    let line = Line::parse(text.as_bytes(), &config.parse).expect(text);
    let sample = line.sample(line.body).expect(text);
    let mut out = Resolved::default();
    match Mapper::new(&config).resolve(&rules, text.as_bytes(), &line, &sample, &mut out) {
        Ok(_) => {
            let mut labels = Vec::new();
            out.labels.render(&mut labels);
            let utf8 = |bytes| String::from_utf8(bytes).expect("cut at character boundaries");
            let mut shown = format!("{}{{{}}}", utf8(out.name), utf8(labels));
            for (reason, n) in TagDropReason::ALL.iter().zip(out.tag_drops) {
                match n {
                    0 => {}
                    1 => shown += &format!(" -{reason}"),
                    n => shown += &format!(" -{reason}*{n}"),
                }
            }
            shown
        }
        Err(refusal) => format!("{}@{}", refusal.reason, refusal.at),
    }
}

/// What a buffer that resolved other lines remembers of them changes nothing.
#[test]
fn lines_resolved_in_turns_are_what_they_are_alone() {
    let lines = [
        "a.b:1|c|#k-1:v,le:1",
        "a.b:1|ms|#k-1:v",
        "a.b:1|ms|#k-1:v,le:1",
        "a.b:1|h|#le:1,k-1:v",
        "a.b:1|c|#user_id:7,k-1:v",
        "a.b:1|c|#k-1:v,user_id:7",
        "a.b:1|ms|#user_id:7,k-1:w",
        "a.b:1|c|#k_1:x,k-1:\"y\"",
        "a.b:1|c|#k-1,k-1:,:v,k-1:v",
        "a.b:1|c|#message_id:5,k-1:v",
        "a.b:1|c|#__k:v",
        "a.b,k-1=v:1|c",
        "a[k-1=v]b:1|c",
        "ab:1|c|#region:us",
        "a[region=us]b:1|g",
        "a.b:1|c",
        "a.b:1|c|#a_key_longer_than_16:v",
        "a.b:1|c|#k-1:a_value_longer_than_8",
    ];
    for set in [&[][..], &["labels.add.region=eu", "labels.max_name_bytes=16", "labels.max_value_bytes=8"]] {
        let config = config(set);
        let rules = TagRules::new(&config.bucketing, &config.labels, false);
        let mapper = Mapper::new(&config);
        let mut together = Resolved::default();
        let look = |text: &str, out: &mut Resolved| {
            let line = Line::parse(text.as_bytes(), &config.parse).expect(text);
            let sample = line.sample(line.body).expect(text);
            let kind = mapper.resolve(&rules, text.as_bytes(), &line, &sample, out);
            let mut labels = Vec::new();
            out.labels.render(&mut labels);
            kind.map(|kind| (kind, out.name.clone(), labels, out.tag_drops))
        };
        for first in lines {
            for second in lines {
                look(first, &mut together).ok();
                let alone = look(second, &mut Resolved::default());
                assert_eq!(look(second, &mut together), alone, "{second:?} behind {first:?} under {set:?}");
            }
        }
    }
}

#[track_caller]
fn check(set: &[&str], cases: &[(&str, &str)]) {
    for (line, expected) in cases {
        assert_eq!(resolve(set, line), *expected, "{line:?} under {set:?}");
    }
}

#[test]
fn names_and_labels_follow_the_table_of_what_a_bot_sends() {
    check(
        &[],
        &[
            ("bot.updates:1|c|#type:message,result:ok", r#"bot_updates_total{result="ok",type="message"}"#),
            ("bot.update.duration:8.1|ms|#type:message", r#"bot_update_duration_seconds{type="message"}"#),
            ("bot.queue.size:12|g|#queue:outbox", r#"bot_queue_size{queue="outbox"}"#),
            ("bot.errors:1|c", "bot_errors_total{}"),
        ],
    );
}

#[test]
fn a_set_is_named_as_it_is_sent_and_mapped_as_a_gauge_is() {
    check(&[], &[("bot.users:alice|s", "bot_users{}"), ("users:s|s|#tags:yes,le:1", r#"users{le="1",tags="yes"}"#)]);
    check_rules(
        r#"{match="*.c",match_metric_type="counter",name="c"},{match="*.c",match_metric_type="gauge",name="g"}"#,
        &[],
        &[("a.c:alice|s", "g{}")],
    );
}

#[test]
fn a_label_that_tells_lines_of_a_series_apart_is_refused_where_it_does() {
    let summary = ["observer.type=summary"];
    check(&[], &[("a:1|h|#le:1", "reserved_label@7"), ("a:1|h|#quantile:1", r#"a{quantile="1"}"#)]);
    check(&summary, &[("a:1|h|#quantile:1", "reserved_label@7"), ("a:1|h|#le:1", r#"a{le="1"}"#)]);
    check(&summary, &[("a:1|g|#quantile:1", r#"a{quantile="1"}"#), ("a:1|c|#le:1", r#"a_total{le="1"}"#)]);
    check_rules(
        r#"{match="*.s",name="s",observer_type="summary"},{match="*.h",name="h"}"#,
        &[],
        &[
            ("a.s:1|ms|#quantile:1", "reserved_label@10"),
            ("a.s:1|ms|#le:1", r#"s{le="1"}"#),
            ("a.h:1|ms|#le:1", "reserved_label@10"),
            ("a.h:1|ms|#quantile:1", r#"h{quantile="1"}"#),
        ],
    );
}

#[test]
fn labels_are_the_same_from_every_dialect() {
    for line in ["a:1|g|#k:v,l:w", "a,k=v,l=w:1|g", "a#k=v,l=w:1|g", "a[k=v,l=w]:1|g", "a:1|g|#l:w,#k:v"] {
        assert_eq!(resolve(&[], line), r#"a{k="v",l="w"}"#, "{line:?}");
    }
    check(&[], &[("ab-[k=v]-7:1|g", r#"ab_7{k="v"}"#), ("[k=v]7up:1|g", r#"_7up{k="v"}"#)]);
}

#[test]
fn tag_keys_are_escaped_as_names_and_the_last_of_equal_keys_holds() {
    check(
        &[],
        &[
            ("a:1|g|#my.key:1,my-key:2", r#"a{my_key="2"}"#),
            ("a:1|g|#k:1,l:x,k:2", r#"a{k="2",l="x"}"#),
            ("a:1|g|#7up:1", r#"a{_7up="1"}"#),
            ("a:1|g|#k--y:1", r#"a{k_y="1"}"#),
            ("a:1|g|# k:1", r#"a{_k="1"}"#),
            ("a:1|g|#schlüssel:ö", r#"a{schl_ssel="ö"}"#),
        ],
    );
}

#[test]
fn label_values_stay_as_they_are_but_for_escaping() {
    check(
        &[],
        &[
            ("a:1|g|#k: v ", r#"a{k=" v "}"#),
            ("a:1|g|#k:a\\b\"c", r#"a{k="a\\b\"c"}"#),
            ("a:1|g|#k:{x=y}", r#"a{k="{x=y}"}"#),
            ("a:1|g|#k:a:b", r#"a{k="a:b"}"#),
        ],
    );
}

#[test]
fn malformed_tags_are_left_out_one_by_one() {
    check(
        &[],
        &[
            ("a:1|g|#k:,l:w", r#"a{l="w"} -malformed"#),
            ("a:1|g|#,,l:w", r#"a{l="w"} -malformed*2"#),
            ("a,k=,l=w:1|g", r#"a{l="w"} -malformed"#),
            ("a[b:1|g", "a_b{} -malformed"),
            ("]a[:1|g|#k:v", r#"_a_{k="v"} -malformed"#),
        ],
    );
}

#[test]
fn bare_tags_are_dropped_or_true_as_configured() {
    check(&[], &[("a:1|g|#word,k:v", r#"a{k="v"} -bare"#), ("a,word:1|g", "a{} -bare")]);
    check(
        &["parse.bare_tags=true"],
        &[
            ("a:1|g|#word,k:v", r#"a{k="v",word="true"}"#),
            ("a,word:1|g", r#"a{word="true"}"#),
            ("a:1|g|#__word", "reserved_label@7"),
            ("a:1|g|#k:", "a{} -malformed"),
        ],
    );
}

#[test]
fn reserved_tag_keys_refuse_the_sample_where_they_stand() {
    check(
        &[],
        &[
            ("a:1|g|#k:v,__x:1", "reserved_label@11"),
            ("a:1|g|#__name__:b", "reserved_label@7"),
            ("a:1|g|#_-x:b", "reserved_label@7"),
            ("a:1|g|#_x:b", r#"a{_x="b"}"#),
            ("a:1|g|#:v", "reserved_label@7"),
            ("a,=v:1|g", "reserved_label@2"),
            ("a,__x=v:1|g", "reserved_label@2"),
            ("a:1|ms|#le:1", "reserved_label@8"),
            ("a:1|h|#k:v,le:1", "reserved_label@11"),
            ("a:1|d|#le:1", "reserved_label@7"),
            ("a:1|c|#le:1", r#"a_total{le="1"}"#),
            ("a:1|g|#le:1", r#"a{le="1"}"#),
            ("a:1|c|#quantile:0.5", r#"a_total{quantile="0.5"}"#),
            // On a histogram `quantile` means nothing; only a summary reserves it.
            ("a:1|ms|#quantile:0.5", r#"a_seconds{quantile="0.5"}"#),
        ],
    );
}

#[test]
fn the_container_id_is_a_label_only_where_it_is_given_a_name() {
    check(&[], &[("a:1|g|c:abc", "a{}"), ("a:1|g|#k:v|c:abc", r#"a{k="v"}"#)]);
    check(
        &["parse.container_id_label=container_id"],
        &[
            ("a:1|g|c:abc", r#"a{container_id="abc"}"#),
            ("a:1|g|#container_id:tag|c:field", r#"a{container_id="field"}"#),
            ("a:1|g|c:", "a{}"),
            ("a:1|g", "a{}"),
        ],
    );
}

#[test]
fn constant_labels_are_on_every_series_and_no_tag_changes_them() {
    let set = ["labels.add.bot=support", "labels.add.zone=b"];
    check(
        &set,
        &[
            ("a:1|g", r#"a{bot="support",zone="b"}"#),
            ("a:1|g|#k:v", r#"a{bot="support",k="v",zone="b"}"#),
            ("a:1|g|#bot:evil,k:v", r#"a{bot="support",k="v",zone="b"} -dropped"#),
        ],
    );
}

#[test]
fn labels_past_the_limit_are_left_out_and_counted() {
    check(
        &["labels.max_count=2"],
        &[("a:1|g|#k:1,l:2,m:3,n:4", r#"a{k="1",l="2"} -too_many*2"#), ("a:1|g|#k:1,l:2,k:3", r#"a{k="3",l="2"}"#)],
    );
    check(&["labels.max_count=2", "labels.add.bot=b"], &[("a:1|g|#k:1,l:2", r#"a{bot="b",k="1"} -too_many"#)]);
}

#[test]
fn long_names_refuse_the_sample_and_long_keys_the_tag() {
    let set = ["labels.max_name_bytes=8"];
    check(
        &set,
        &[
            ("abcdefgh:1|g", "abcdefgh{}"),
            ("abcdefghi:1|g", "name_too_long@0"),
            ("abc:1|c", "name_too_long@0"),
            ("ab:1|c", "ab_total{}"),
            ("a:1|g|#abcdefgh:1", r#"a{abcdefgh="1"}"#),
            ("a:1|g|#abcdefghi:1,k:v", r#"a{k="v"} -name_too_long"#),
        ],
    );
}

#[test]
fn long_values_are_cut_at_a_character_boundary_and_counted() {
    let set = ["labels.max_value_bytes=8"];
    check(
        &set,
        &[
            ("a:1|g|#k:12345678", r#"a{k="12345678"}"#),
            ("a:1|g|#k:123456789", r#"a{k="12345678"} -truncated"#),
            ("a:1|g|#k:1234567é", r#"a{k="1234567"} -truncated"#),
            ("a:1|g|#k:123456é", r#"a{k="123456é"}"#),
            ("a:1|g|#k:12345😀", r#"a{k="12345"} -truncated"#),
            ("a:1|g|#k:1234😀x", r#"a{k="1234😀"} -truncated"#),
            ("a:1|g|#k:12345678\"", r#"a{k="12345678"} -truncated"#),
        ],
    );
}

#[test]
fn bucketed_tags_become_their_bucket_and_observations_lose_them() {
    check(
        &[],
        &[
            ("a:1|g|#user_id:42,k:v", r#"a{k="v",user_bucket="bucket_1"}"#),
            ("a,user_id=42:1|g", r#"a{user_bucket="bucket_1"}"#),
            ("a:1|g|##user_id:42", r#"a{user_bucket="bucket_1"}"#),
            ("a:1|g|#user-id:42", r#"a{user_bucket="bucket_1"}"#),
            ("a:1|g|#user_id:", "a{} -malformed"),
            ("a:1|g|#user_id", "a{} -bare"),
            ("a:1|ms|#user_id:42,k:v", r#"a_seconds{k="v"}"#),
            ("a:1|h|#user-id:42,k:v", r#"a{k="v"}"#),
            // A tag that is named like the label of a rule is a tag as any other.
            ("a:1|g|#user_bucket:x,user_id:42", r#"a{user_bucket="bucket_1"}"#),
        ],
    );
    check(&["bucketing.0.observers=true"], &[("a:1|ms|#user_id:42", r#"a_seconds{user_bucket="bucket_1"}"#)]);
}

#[test]
fn dropped_tags_are_no_labels_in_any_spelling() {
    check(
        &[],
        &[
            ("a:1|g|#dd.internal.entity_id:x,k:v,message_id:5", r#"a{k="v"}"#),
            ("a,update_id=7:1|g", "a{}"),
            ("a:1|g|#message_id:", "a{}"),
            ("a:1|g|#message_id", "a{}"),
            ("a:1|g|#message-id:5", "a{} -dropped"),
        ],
    );
}

#[test]
fn a_prefix_goes_in_front_and_suffixes_can_be_switched_off() {
    check(
        &["naming.prefix=bot_", "naming.counter_suffix=", "naming.timer_suffix="],
        &[
            ("a.b:1|c", "bot_a_b{}"),
            ("7:1|g", "bot__7{}"),
            ("a_ms:1|ms", "bot_a_ms{}"),
            ("a[k=v]b:1|c", r#"bot_ab{k="v"}"#),
        ],
    );
}

#[test]
fn only_timers_are_divided_and_only_where_they_are_in_milliseconds() {
    for (set, values) in [(&[][..], [8.0, 8.0, 0.008, 8.0, 8.0]), (&["parse.ms_unit=s"], [8.0; 5])] {
        let mapper = Mapper::new(&config(set));
        use SampleType::{Counter, Distribution, Gauge, Histogram, Timer};
        let types = [Counter, Gauge, Timer, Histogram, Distribution];
        assert_eq!(types.map(|kind| mapper.in_base_unit(kind, 8.0)), values);
    }
}

/// The overrides for rules in TOML notation.
fn with_rules(rules: &str, more: &[&str]) -> Vec<String> {
    std::iter::once(format!("mapping.rules=[{rules}]")).chain(more.iter().map(ToString::to_string)).collect()
}

#[track_caller]
fn check_rules(rules: &str, more: &[&str], cases: &[(&str, &str)]) {
    let set = with_rules(rules, more);
    check(&set.iter().map(String::as_str).collect::<Vec<_>>(), cases);
}

#[test]
fn names_of_rules_are_final_and_unmapped_ones_get_their_suffix() {
    check_rules(
        r#"{match="bot.*.calls",name="bot_calls",labels={method="$1"}},{match="*.wait",name="${1}_wait"}"#,
        &["naming.prefix=p_"],
        &[
            ("bot.send.calls:1|c", r#"bot_calls{method="send"}"#),
            ("bot.wait:1|ms", "bot_wait{}"),
            ("7up-x.wait:1|g", "_7up_x_wait{}"),
            ("bot.other:1|c", "p_bot_other_total{}"),
        ],
    );
}

#[test]
fn rules_see_the_raw_name_without_its_tags() {
    check_rules(
        r#"{match="bot.a-b.*",name="hit",labels={part="$1"}}"#,
        &[],
        &[
            ("bot.a-b.x,k=v:1|g", r#"hit{k="v",part="x"}"#),
            ("bot.a-b.x#k=v:1|g", r#"hit{k="v",part="x"}"#),
            ("bot.a-[k=v]b.x:1|g", r#"hit{k="v",part="x"}"#),
            ("bot.a_b.x:1|g", "bot_a_b_x{}"),
        ],
    );
}

#[test]
fn a_label_of_a_rule_wins_over_a_tag_unless_it_honors_tags() {
    check_rules(
        r#"{match="a.*",name="a",labels={k="$1"}},{match="b.*",name="b",labels={k="$1"},honor_labels=true}"#,
        &["parse.container_id_label=k"],
        &[
            ("a.x:1|g|#k:v,l:w", r#"a{k="x",l="w"} -dropped"#),
            ("a.x:1|g|#l:w", r#"a{k="x",l="w"}"#),
            ("a.x:1|g|c:id", r#"a{k="x"} -dropped"#),
            ("b.x:1|g|#k:v", r#"b{k="v"}"#),
            ("b.x:1|g|#l:w", r#"b{k="x",l="w"}"#),
            ("b.x:1|g|c:id", r#"b{k="id"}"#),
        ],
    );
}

#[test]
fn constant_labels_and_limits_hold_for_rules_too() {
    let rules = r#"{match="a.*",name="a",labels={bot="$1",k="$1"}}"#;
    check_rules(rules, &["labels.add.bot=b"], &[("a.x:1|g", r#"a{bot="b",k="x"} -dropped"#)]);
    check_rules(rules, &["labels.max_count=1"], &[("a.x:1|g|#l:w", r#"a{bot="x"} -too_many*2"#)]);
    check_rules(
        rules,
        &["labels.max_value_bytes=8"],
        &[("a.123456789:1|g", r#"a{bot="12345678",k="12345678"} -truncated*2"#)],
    );
    check_rules(r#"{match="a.*",name="$1"}"#, &["labels.max_name_bytes=8"], &[("a.123456789:1|g", "name_too_long@0")]);
}

#[test]
fn drops_and_names_that_come_to_nothing_are_refused() {
    check_rules(
        r#"{match="drop.*",name="x",action="drop"},{match="*.none",name="$9"},{match="*.empty",name="$1"}"#,
        &[],
        &[
            ("drop.none:1|g", "mapping_drop@0"),
            ("drop.x:1|g|#__bad:1", "mapping_drop@0"),
            ("a.none:1|g", "empty_name@0"),
            (".empty:1|g", "empty_name@0"),
            ("drop.x:a|s", "mapping_drop@0"),
        ],
    );
}

#[test]
fn the_value_of_a_bucketed_tag_becomes_no_label_by_a_rule_either() {
    let rules = r#"{match="user.*.hits",name="hits",labels={user_id="$1"}}"#;
    check_rules(
        rules,
        &[],
        &[
            ("user.42.hits:1|c", r#"hits{user_bucket="bucket_1"}"#),
            ("user.42.hits:1|c|#user_id:7", r#"hits{user_bucket="bucket_1"} -dropped"#),
            ("user.42.hits:1|ms", "hits{}"),
        ],
    );
    check_rules(rules, &["bucketing=[]"], &[("user.42.hits:1|c", r#"hits{user_id="42"}"#)]);
}

#[test]
fn le_from_a_rule_refuses_observations_and_nothing_else() {
    check_rules(
        r#"{match="a.*",name="a",labels={le="$1"}}"#,
        &[],
        &[("a.x:1|ms", "reserved_label@0"), ("a.x:1|g", r#"a{le="x"}"#)],
    );
}

#[test]
fn what_a_rule_does_not_decide_is_decided_as_without_one() {
    let set = with_rules(
        r#"{match="a",name="a",help="h",ttl="0s",scale=2,observer_type="summary",quantiles=[1]},{match="b",name="b"}"#,
        &[],
    );
    let mapper = Mapper::new(&config(&set.iter().map(String::as_str).collect::<Vec<_>>()));
    let (a, b, none) = (mapper.terms(Some(0)), mapper.terms(Some(1)), mapper.terms(None));
    assert_eq!((a.help.as_deref(), a.ttl, a.scale), (Some("h"), None, 2.0));
    assert!(matches!(&a.observation, Observation::Summary { quantiles, .. } if *quantiles == [1.0]));
    assert_eq!(b, none);
    assert!(mapper.scales());
}
