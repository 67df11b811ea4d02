//! The rules that the cases are about, and that none of them is without a case.
//!
//! The numbers are this list's own: 2 is what statsd_exporter does, 3 is DogStatsD, 7 is what runs of statsd_exporter
//! 0.30 have shown, which counts where it disagrees with 2. A case names its rule by the text in front.

/// Each rule in our words.
const RULES: &[(&str, &str)] = &[
    ("2.3.1", "a datagram is cut at newlines; a blank piece is nothing; the carriage return of TCP goes"),
    ("2.3.2", "the name ends at the first colon; no colon, no name, or bytes that are no UTF-8 cost the line"),
    (
        "2.3.3",
        "tags in the name: SignalFX if both brackets are there, else Librato or InfluxDB; a lone bracket is none",
    ),
    ("2.3.4", "tags in the name and |# behind the value do not mix"),
    ("2.3.5", "a line needs a type behind its value"),
    ("2.3.6", "timers, histograms and distributions may pack values, which share all that follows"),
    ("2.3.7", "without |# a line may hold several samples, with it one"),
    ("2.3.8", "a value is a number from end to end, its sign makes a gauge relative; at most six parts"),
    ("2.3.9 empty", "an empty part costs the sample"),
    ("2.3.9 rate", "a rate divides counters and repeats observations; one that cannot be read counts as 1"),
    ("2.3.9 tags", "DogStatsD tags: a bad one costs itself; the last of a key wins; switched off they are passed over"),
    ("2.3.9 container", "c: becomes the label container_id; another field with c costs the sample"),
    ("2.3.9 timestamp", "T is passed over"),
    ("2.3.9 other", "any other field costs the sample"),
    ("2.3.10", "types are c, g, ms (in seconds from there), h and d (as they are); any other costs the sample"),
    ("2.3.11", "what is counted as tags are samples that have one"),
    ("2.3.12", "labels of one sample are seen by the next of its line"),
    ("2.3 examples", "lines of modern clients, and what became of them"),
    ("2.4 names", "what is no ASCII letter, digit or _ becomes _, a run of dashes one; a leading digit gets one"),
    ("2.4 values", "values of labels stay as they are"),
    ("2.5 actions", "samples are counted by whether a rule maps or drops them, or none does"),
    ("2.5 counters", "a counter below zero, once scaled, is refused"),
    ("2.5 gauges", "a signed value changes a gauge, which begins at 0; a rate means nothing"),
    ("2.5 identity", "a name may have different sets of labels; their order does not matter"),
    ("2.5 first type", "the first type of a name keeps it; observers also keep _sum, _count and _bucket"),
    ("2.5 ttl", "a series nobody wrote to for its time to live goes; a write renews it; it comes back at 0"),
    ("2.5 limits", "there is no limit on names, labels, values or series"),
    ("2.7", "one packet takes it down"),
    ("3.1 kinds", "_e{ is an event, _sc a service check, all else a metric"),
    ("3.1 pieces", "messages are split by newlines; the last may lack one; empty ones are none"),
    ("3.2 packing", "values of every type but sets may be packed; an empty one is none"),
    ("3.2 fields", "fields come in any order, and an unknown one is ignored"),
    ("3.2 v1.0", "c, g, ms, h, d, s, rates, tags"),
    ("3.2 v1.1", "packed values share type, rate and tags"),
    ("3.2 v1.2", "|c: with the id of a container"),
    ("3.2 v1.3", "|T with seconds, on counters and gauges; a count with one is not multiplied by its rate"),
    ("3.2 v1.4", "|c: with ci-<id>, in-<inode> or both"),
    ("3.2 v1.5", "|e: with data from outside"),
    ("3.2 v1.6", "|card: with a wish for cardinality"),
    ("3.2 gauge sign", "a signed gauge is a plain value to the Datadog Agent"),
    ("3.2 negative counts", "counts may be negative there"),
    ("3.2 sets", "a set's value is its whole text"),
    ("3.2 units", "ms and h are the same there, and not converted"),
    ("3.2 tags", "a value may hold colons; keys may repeat; a tag may have no value; empty ones are none"),
    ("3.2 server tags", "tags that are meant for the server alone are taken out"),
    ("3.2 client figures", "clients send figures of their own through the same socket"),
    ("3.2 not finite", "values that are not finite are dropped, and a tiny rate explodes nothing"),
    ("3.3 lengths", "title and text are cut by their lengths in bytes, whatever they hold"),
    ("3.3 fields", "optional fields in any order; a bad one costs itself"),
    ("3.4 status", "a name and a status from 0 to 3"),
    ("3.4 fields", "optional fields in any order, and a message that may hold escapes"),
    ("3.5 udp", "messages in a datagram"),
    ("3.5 unixgram", "the same on a path, whose stale file is replaced"),
    ("3.5 unix", "a length of four bytes before each payload, or newlines, told apart"),
    ("3.5 tcp", "newlines"),
    ("7 crash", "one line takes it down, or its /metrics"),
    ("7 mappings", "mappings that it accepts, and falls over later"),
    ("7 lines", "what is a rate, a value, a field, a sample"),
    ("7 tags", "how tags mix, and what they become"),
    ("7 names", "dashes, other characters, leading digits"),
    ("7 mapping", "how rules match, and accidents"),
    ("7 conflicts", "which names a family keeps others from, and for how long"),
    ("7 transport", "long lines, relay, reload"),
];

/// Rules that other tests are for, since they need a socket, a clock or a whole process: the file and its test.
const ELSEWHERE: &[(&str, &str, &str)] = &[
    ("2.3.1", TRANSPORTS, "lines_over_tcp_arrive_however_they_are_cut"),
    ("2.3.1", RELAY, "raw_lines_reach_every_target_good_or_bad"),
    ("2.5 ttl", LIMITS, "idle_series_go_after_their_time_and_return_from_zero"),
    ("2.5 limits", LIMITS, "a_tag_that_never_repeats_costs_detail_but_no_total"),
    ("2.7", HOSTILE, "what_takes_the_peer_down_costs_itself_and_is_counted"),
    ("2.7", RELAY, "a_target_that_is_gone_costs_no_line_of_ours"),
    ("3.5 udp", CLIENTS, "the_python_datadog_client_arrives_over_udp_unix_datagrams_and_unix_streams"),
    ("3.5 unixgram", TRANSPORTS, "unix_datagrams_arrive_over_a_file_with_its_mode_and_a_stale_one_is_replaced"),
    ("3.5 unix", TRANSPORTS, "a_unix_stream_takes_lengths_and_newlines_from_different_clients"),
    ("3.5 tcp", TRANSPORTS, "lines_over_tcp_arrive_however_they_are_cut"),
    ("7 crash", HOSTILE, "what_takes_the_peer_down_costs_itself_and_is_counted"),
    ("7 mappings", FILES, "bad_files_are_told_everything_that_is_wrong_with_them"),
    ("7 mapping", MAPPING, "accidents_of_the_matcher_are_not_copied"),
    ("7 transport", RELAY, "raw_lines_reach_every_target_good_or_bad"),
    ("7 transport", TRANSPORTS, "lines_over_tcp_arrive_however_they_are_cut"),
];

const CLIENTS: &str = include_str!("../end_to_end/clients.rs");
const FILES: &str = include_str!("../files/mapping.rs");
const HOSTILE: &str = include_str!("../end_to_end/hostile.rs");
const LIMITS: &str = include_str!("../end_to_end/limits.rs");
const MAPPING: &str = include_str!("mapping.rs");
const RELAY: &str = include_str!("../end_to_end/relay.rs");
const TRANSPORTS: &str = include_str!("../end_to_end/transports.rs");

/// Where cases name their rule.
const CASES: [&str; 4] =
    [include_str!("lines.rs"), include_str!("escaping.rs"), include_str!("series.rs"), include_str!("dogstatsd.rs")];

#[test]
fn every_rule_has_a_case_and_every_case_a_rule() {
    // Between quotes, and beginning as a rule does.
    let named: Vec<&str> = CASES.iter().flat_map(|source| source.split('"')).filter(|text| is_rule(text)).collect();
    for rule in &named {
        assert!(RULES.iter().any(|(known, _)| known == rule), "{rule} is no rule");
    }
    for (rule, file, test) in ELSEWHERE {
        assert!(RULES.iter().any(|(known, _)| known == rule), "{rule} is no rule");
        assert!(file.contains(&format!("fn {test}()")), "{rule}: there is no test {test}");
    }
    for (rule, says) in RULES {
        let has_case = named.contains(rule) || ELSEWHERE.iter().any(|(other, ..)| other == rule);
        assert!(has_case, "{rule} has no case: {says}");
    }
}

/// Whether a text is a number with dots and perhaps a word behind a blank, as `2.3.9 rate`.
fn is_rule(text: &str) -> bool {
    let (number, word) = text.split_once(' ').unwrap_or((text, "a"));
    let known = ["2.", "3.", "7"].iter().any(|first| number.starts_with(first));
    let dotted = number.contains('.') || text.contains(' ');
    known && dotted && number.bytes().all(|b| b.is_ascii_digit() || b == b'.') && word.starts_with(char::is_alphabetic)
}
