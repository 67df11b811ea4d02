//! DogStatsD 1.0 to 1.6: what its clients may send is taken.

use crate::rig::{check_cases, check_cases_under, like_the_peer};

#[test]
fn kinds_of_messages() {
    check_cases(&[
        ("3.1 kinds", "an event", &["_e{1,1}:a|b"], &["statsd_events_total{alert_type=\"info\"} 1"], ""),
        ("3.1 kinds", "a service check", &["_sc|a|1"], &["statsd_service_check_status{check=\"a\"} 1"], ""),
        (
            "3.1 kinds",
            "names that begin alike",
            &["_e:1|c", "_events:1|c", "_scope:1|c"],
            &["_e 1", "_events 1", "_scope 1"],
            "",
        ),
        ("3.1 kinds", "a prefix and nothing", &["_e{", "_sc|", "_sc"], &[], "malformed_line*3"),
        (
            "3.1 pieces",
            "all kinds in one datagram, the last without a newline",
            &["a:1|c\n\n_e{1,1}:a|b\n_sc|a|0\n\nb:2|g"],
            &["a 1", "b 2", "statsd_events_total{alert_type=\"info\"} 1", "statsd_service_check_status{check=\"a\"} 0"],
            "",
        ),
    ]);
}

#[test]
fn each_version_of_the_grammar() {
    let id = "83c0a99c0a54c0c187f461c7980e9b57f3f6a8b0c918c8d93df19a9de6f3fe1d";
    let container = format!("a:1|c|#k:v|c:{id}");
    let with_container = format!("a{{container_id=\"{id}\",k=\"v\"}} 1");
    check_cases(&[
        ("3.2 v1.0", "a counter", &["page.views:1|c"], &["page_views 1"], ""),
        ("3.2 v1.0", "a gauge", &["fuel.level:0.5|g"], &["fuel_level 0.5"], ""),
        (
            "3.2 v1.0",
            "a sampled histogram",
            &["song.length:240|h|@0.5"],
            &["song_length_count 2", "song_length_sum 480"],
            "",
        ),
        ("3.2 v1.0", "a timer", &["wait:250|ms"], &["wait_count 1", "wait_sum 0.25"], ""),
        ("3.2 v1.0", "a distribution", &["size:3|d|#k:v"], &["size_count{k=\"v\"} 1", "size_sum{k=\"v\"} 3"], ""),
        ("3.2 v1.0", "rate and tags", &["a:3|c|@0.1|#country:china"], &["a{country=\"china\"} 30"], ""),
        ("3.2 v1.1", "packed counters", &["a:1:2:3|c|@0.5|#k:v"], &["a{k=\"v\"} 12"], ""),
        ("3.2 v1.1", "packed histograms", &["a:1:2:3|h|#k:v"], &["a_count{k=\"v\"} 3", "a_sum{k=\"v\"} 6"], ""),
        ("3.2 v1.1", "packed gauges, the last holds", &["a:1:2:3|g|#k:v"], &["a{k=\"v\"} 3"], ""),
        ("3.2 packing", "empty values are none", &["a:21::22|d", "b::1:|c"], &["a_count 2", "a_sum 43", "b 1"], ""),
        ("3.2 packing", "nothing but empty ones", &["a:::|c"], &[], "malformed_value"),
        ("3.2 v1.2", "a container", &[&container], &[&with_container], ""),
        ("3.2 v1.3", "a gauge of a second", &["a:15|g|#k:v|T1656581400"], &["a{k=\"v\"} 15"], ""),
        ("3.2 v1.3", "a count of a second", &["a:15|c|#k:v|T1656581400"], &["a{k=\"v\"} 15"], ""),
        ("3.2 v1.3", "its rate is not applied", &["a:15|c|@0.1|T1656581400"], &["a 15"], ""),
        ("3.2 v1.4", "ci-", &["a:1|c|c:ci-83c0"], &["a{container_id=\"ci-83c0\"} 1"], ""),
        ("3.2 v1.4", "in-", &["a:1|c|c:in-4026"], &["a{container_id=\"in-4026\"} 1"], ""),
        ("3.2 v1.4", "both", &["a:1|c|c:ci-83c0,in-4026"], &["a{container_id=\"ci-83c0,in-4026\"} 1"], ""),
        (
            "3.2 v1.5",
            "external data",
            &["a:1|g|#k:v|c:ci-x|e:it-false,cn-app,pu-81"],
            &["a{container_id=\"ci-x\",k=\"v\"} 1"],
            "",
        ),
        ("3.2 v1.6", "each level", &["a:1|c|card:none", "a:1|c|card:low", "a:1|c|card:HIGH"], &["a 3"], ""),
        ("3.2 v1.6", "an unknown level", &["a:1|c|card:enormous"], &["a 1"], ""),
        (
            "3.2 fields",
            "any order",
            &["a:1|h|card:low|T1|e:x|c:y|#k:v|@0.5"],
            &["a_count{container_id=\"y\",k=\"v\"} 2", "a_sum{container_id=\"y\",k=\"v\"} 2"],
            "",
        ),
        ("3.2 fields", "unknown ones", &["a:1|c|x:1|#k:v|y"], &["a{k=\"v\"} 1"], "field:x field:y"),
        (
            "3.2 units",
            "ms is milliseconds, h has no unit",
            &["a:5|ms", "b:5|h"],
            &["a_count 1", "a_sum 0.005", "b_count 1", "b_sum 5"],
            "",
        ),
        ("3.2 not finite", "dropped", &["a:nan|g", "a:inf|d"], &[], "not_finite*2"),
        (
            "3.2 not finite",
            "a tiny rate",
            &["a:1|h|@0.000000003845"],
            &["a_count 260078023.40702212", "a_sum 260078023.40702212"],
            "",
        ),
        ("3.2 tags", "values with colons", &["a:1|c|#url:http://x:80/y"], &["a{url=\"http://x:80/y\"} 1"], ""),
        ("3.2 tags", "empty ones", &["a:1|c|#,,k:v,"], &["a{k=\"v\"} 1"], "tag:malformed*3"),
        ("3.2 tags", "keys that repeat", &["a:1|c|#k:1,k:2"], &["a{k=\"2\"} 1"], ""),
    ]);
}

#[test]
fn mended_what_clients_tell_of_themselves_is_summed_unless_it_is_wanted_as_it_is() {
    const LINES: &[&str] = &["datadog.dogstatsd.client.packets_dropped:3|c|#client:py", "a:1|c"];
    let summed = like_the_peer(&["parse.client_telemetry=true"]);
    check_cases_under(&summed, &[("3.2 client figures", "no series", LINES, &["a 1"], "")]);
    let series = "datadog_dogstatsd_client_packets_dropped{client=\"py\"} 3";
    check_cases(&[("3.2 client figures", "as it is sent", LINES, &["a 1", series], "")]);
}

/// The grammar alone: what becomes of them is for others to say.
#[test]
fn the_value_of_a_set_is_its_whole_text() {
    use statsieve::config::Config;
    use statsieve::model::SampleType;
    use statsieve::parse::{Line, Values};

    let dialects = Config::default_checked().parse;
    for (line, value, tags) in [
        ("u:alice|s", "alice", ""),
        ("u:a:b::c|s|#k:v", "a:b::c", "k:v"),
        ("u:|s", "", ""),
        ("u:12|s|@0.5|c:x", "12", ""),
        ("u:x y,z=#[]|s", "x y,z=#[]", ""),
    ] {
        let read = Line::parse(line.as_bytes(), &dialects).unwrap();
        let sample = read.sample(read.body).unwrap();
        assert_eq!((sample.kind, sample.next, sample.tags), (SampleType::Set, None, tags.as_bytes()), "{line}");
        let whole = &line.as_bytes()[read.body..sample.type_at - 1];
        assert_eq!(whole, value.as_bytes(), "3.2 sets");
        match sample.values {
            Values::One(number) => assert_eq!(value.parse(), Ok(number), "{line}"),
            Values::Text(text) => assert_eq!(text, value.as_bytes(), "{line}"),
        }
    }
}

#[test]
fn mended_what_the_agent_does_and_prometheus_cannot() {
    check_cases(&[
        ("3.2 negative counts", "a counter cannot go down", &["a:-1|c"], &[], "negative_counter"),
        ("3.2 gauge sign", "a change, unless told otherwise", &["a:5|g", "a:-1|g"], &["a 4"], ""),
        ("3.2 tags", "a tag without a value", &["a:1|c|#urgent,k:v"], &["a{k=\"v\"} 1"], "tag:bare"),
    ]);
    let set = ["parse.bare_tags=true", "parse.gauge_sign=absolute", r#"labels.drop=["host","dd.internal.*"]"#];
    check_cases_under(
        &like_the_peer(&set),
        &[
            ("3.2 tags", "kept if asked for", &["a:1|c|#urgent,k:v"], &["a{k=\"v\",urgent=\"true\"} 1"], ""),
            ("3.2 gauge sign", "as the Agent reads it", &["a:5|g", "a:-1|g"], &["a -1"], ""),
            (
                "3.2 server tags",
                "taken out if named",
                &["a:1|c|#host:h,dd.internal.entity_id:uid,dd.internal.card:low,k:v"],
                &["a{k=\"v\"} 1"],
                "tag:dropped*3",
            ),
        ],
    );
}

#[test]
fn events() {
    let count = |alert: &str, n: u64| format!("statsd_events_total{{alert_type=\"{alert}\"}} {n}");
    let (info, error, two) = (count("info", 1), count("error", 1), count("error", 2));
    let [warning, success] = ["warning", "success"].map(|alert| count(alert, 1));
    check_cases(&[
        ("3.3 lengths", "title and text", &["_e{5,4}:title|text"], &[&info], ""),
        ("3.3 lengths", "they may hold separators", &["_e{7,11}:a|b:c#d|t:error\nx"], &[], "malformed_line*2"),
        ("3.3 lengths", "and all but newlines", &["_e{7,10}:a|b:c#d|t:error|#x|t:error"], &[&error], ""),
        ("3.3 lengths", "a newline is two characters", &[r"_e{1,4}:t|a\nb|t:error"], &[&error], ""),
        ("3.3 lengths", "bytes, not characters", &["_e{2,3}:\u{fc}|\u{20ac}|t:error"], &[&error], ""),
        ("3.3 lengths", "characters, by mistake", &["_e{1,1}:\u{fc}|\u{fc}"], &[], "malformed_line"),
        ("3.3 lengths", "a text may be empty", &["_e{5,0}:title||t:error"], &[&error], ""),
        ("3.3 lengths", "a title may not", &["_e{0,4}:|text"], &[], "malformed_line"),
        ("3.3 lengths", "too short, too long", &["_e{5,4}:title|tex", "_e{5,4}:title|texts"], &[], "malformed_line*2"),
        (
            "3.3 lengths",
            "no numbers",
            &["_e{a,4}:title|text", "_e{5}:title|text", "_e{-5,4}:title|text"],
            &[],
            "malformed_line*3",
        ),
        ("3.3 lengths", "numbers beyond any line", &["_e{99999999999999999999,1}:a|b"], &[], "malformed_line"),
        (
            "3.3 fields",
            "every one of them",
            &["_e{5,4}:title|text|d:1700000000|h:host|k:key|p:low|s:source|t:error|#k:v|c:id|e:it-x|card:low"],
            &[&error],
            "",
        ),
        (
            "3.3 fields",
            "the other way round",
            &["_e{5,4}:title|text|card:low|e:it-x|c:id|#k:v|t:error|s:source|p:low|k:key|h:host|d:1700000000"],
            &[&error],
            "",
        ),
        ("3.3 fields", "alert types", &["_e{1,1}:a|b|t:warning", "_e{1,1}:a|b|t:success"], &[&success, &warning], ""),
        ("3.3 fields", "info unless it says otherwise", &["_e{1,1}:a|b|p:normal"], &[&info], ""),
        ("3.3 fields", "a bad one is passed over", &["_e{1,1}:a|b|t:loud"], &[&info], ""),
        (
            "3.3 fields",
            "and the others stand",
            &["_e{1,1}:a|b|d:x|p:urgent|t:error", "_e{1,1}:a|b|#|t:error"],
            &[&two],
            "",
        ),
        ("3.3 fields", "an unknown one", &["_e{1,1}:a|b|x:1|t:error"], &[&error], "field:x"),
    ]);
}

#[test]
fn service_checks() {
    check_cases(&[
        (
            "3.4 status",
            "each of them",
            &["_sc|a|0", "_sc|b|1", "_sc|c|2", "_sc|d|3"],
            &[
                "statsd_service_check_status{check=\"a\"} 0",
                "statsd_service_check_status{check=\"b\"} 1",
                "statsd_service_check_status{check=\"c\"} 2",
                "statsd_service_check_status{check=\"d\"} 3",
            ],
            "",
        ),
        ("3.4 status", "the last holds", &["_sc|a|2", "_sc|a|0"], &["statsd_service_check_status{check=\"a\"} 0"], ""),
        ("3.4 status", "no other", &["_sc|a|4", "_sc|a|-1", "_sc|a|ok", "_sc|a|"], &[], "malformed_value*4"),
        ("3.4 status", "name and status must be there", &["_sc|a", "_sc||0", "_sc|"], &[], "malformed_line*3"),
        (
            "3.4 fields",
            "every one of them",
            &["_sc|my db|1|d:1700000000|h:host|#k:v|m:slow|c:id|e:it-x|card:low"],
            &["statsd_service_check_status{check=\"my db\",container_id=\"id\",k=\"v\"} 1"],
            "",
        ),
        (
            "3.4 fields",
            "the message need not be last",
            &[r"_sc|db|2|m:it is\n down: m\:x|#k:v|h:host"],
            &["statsd_service_check_status{check=\"db\",k=\"v\"} 2"],
            "",
        ),
        (
            "3.4 fields",
            "an unknown one",
            &["_sc|db|0|x:1"],
            &["statsd_service_check_status{check=\"db\"} 0"],
            "field:x",
        ),
        (
            "3.4 fields",
            "tags are labels like any other",
            &["_sc|db|0|#check:mine,k", "_sc|db|0|#__x:1"],
            &["statsd_service_check_status{check=\"db\"} 0"],
            "reserved_label tag:bare",
        ),
    ]);
}
