//! The text of user series, byte for byte, in both formats.

use arc_swap::ArcSwap;

use super::*;
use crate::config::{Sources, load};
use crate::expose::{PIECE_BYTES, SeriesSource};
use crate::pipeline::{Pipeline, Rules};

/// The exposition after `lines`, one of user series alone.
fn exposition(set: &[&str], lines: &[&str], format: Format) -> String {
    let set = set.iter().map(ToString::to_string).collect();
    let config = load(&Sources { file: None, set }).unwrap_or_else(|problems| panic!("{problems}")).config;
    let store = Arc::new(Store::new(1, Arc::default()));
    let mut pipeline = Pipeline::new(Arc::new(ArcSwap::from_pointee(Rules::new(&config))), store.clone(), 0);
    lines.iter().for_each(|line| pipeline.datagram(line.as_bytes()));
    let (mut pieces, mut out) = (store.begin(format), Vec::new());
    while pieces.next(&mut out) {}
    String::from_utf8(out).expect("labels were UTF-8")
}

#[track_caller]
fn check(set: &[&str], lines: &[&str], text: &str, open_metrics: &str) {
    assert_eq!(exposition(set, lines, Format::Text), text);
    assert_eq!(exposition(set, lines, Format::OpenMetrics), open_metrics);
}

/// Name and type of each family in OpenMetrics.
fn types(lines: &[&str]) -> Vec<String> {
    let text = exposition(&["naming.counter_suffix="], lines, Format::OpenMetrics);
    text.lines().filter_map(|line| line.strip_prefix("# TYPE ")).map(str::to_owned).collect()
}

#[test]
fn an_empty_store_is_empty_text() {
    check(&[], &[], "", "");
}

#[test]
fn a_counter_is_named_without_total_in_the_metadata_of_open_metrics_alone() {
    check(
        &[],
        &["bot.errors:1|c|#kind:timeout", "bot.errors:2.5|c"],
        "# HELP bot_errors_total Received as bot.errors (counter).\n# TYPE bot_errors_total counter\n\
         bot_errors_total{kind=\"timeout\"} 1\nbot_errors_total 2.5\n",
        "# HELP bot_errors Received as bot.errors (counter).\n# TYPE bot_errors counter\n\
         bot_errors_total{kind=\"timeout\"} 1\nbot_errors_total 2.5\n",
    );
}

#[test]
fn a_counter_without_total_is_unknown_in_open_metrics() {
    check(
        &["naming.counter_suffix="],
        &["hits:1|c"],
        "# HELP hits Received as hits (counter).\n# TYPE hits counter\nhits 1\n",
        "# HELP hits Received as hits (counter).\n# TYPE hits unknown\nhits 1\n",
    );
}

#[test]
fn a_gauge_is_the_same_in_both_formats() {
    let text = "# HELP bot_queue_size Received as bot.queue.size (gauge).\n# TYPE bot_queue_size gauge\n\
                bot_queue_size{queue=\"outbox\"} -3\n";
    check(&[], &["bot.queue.size:-3|g|#queue:outbox"], text, text);
}

#[test]
fn a_histogram_has_cumulative_buckets_then_sum_and_count() {
    let text = "# HELP reply_seconds Received as reply (histogram).\n# TYPE reply_seconds histogram\n\
                reply_seconds_bucket{k=\"v\",le=\"0.1\"} 3\nreply_seconds_bucket{k=\"v\",le=\"1.0\"} 4\n\
                reply_seconds_bucket{k=\"v\",le=\"+Inf\"} 5.25\nreply_seconds_sum{k=\"v\"} 4.4\n\
                reply_seconds_count{k=\"v\"} 5.25\n";
    // 3 x 0.05 + 1 x 1 + 1.25 x 2.6
    check(
        &["observer.buckets=[0.1, 1]"],
        &["reply:50:50:50|ms|#k:v", "reply:1000|ms|#k:v", "reply:2600|ms|@0.8|#k:v"],
        text,
        text,
    );
    let text = "# HELP size Received as size (histogram).\n# TYPE size histogram\n\
                size_bucket{le=\"1.0\"} 1\nsize_bucket{le=\"+Inf\"} 1\nsize_sum -1\nsize_count 1\n";
    check(&["observer.buckets=[1]"], &["size:-1|h"], text, text);
}

#[test]
fn families_stand_together_in_the_order_they_came() {
    let text = exposition(&[], &["b:1|g", "a:1|g", "b:2|g|#k:v", "c:1|g", "a:2|g|#k:v"], Format::Text);
    let samples: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
    assert_eq!(samples, ["b 1", "b{k=\"v\"} 2", "a 1", "a{k=\"v\"} 2", "c 1"]);
}

#[test]
fn labels_and_help_are_escaped() {
    check(
        &[],
        &["a\"b\\c:1|g|#k:q\" b\\ {x} é"],
        "# HELP a_b_c Received as a\"b\\\\c (gauge).\n# TYPE a_b_c gauge\na_b_c{k=\"q\\\" b\\\\ {x} é\"} 1\n",
        "# HELP a_b_c Received as a\\\"b\\\\c (gauge).\n# TYPE a_b_c gauge\na_b_c{k=\"q\\\" b\\\\ {x} é\"} 1\n",
    );
}

#[test]
fn help_is_bounded_however_long_a_name_was_written() {
    let text = exposition(&[], &[&format!("a{}b:1|g", "-".repeat(8000))], Format::Text);
    let help = text.lines().next().expect("a line");
    assert_eq!(help, format!("# HELP a_b Received as a{} (gauge).", "-".repeat(255)));
}

#[test]
fn a_counter_whose_base_is_taken_is_unknown_under_its_full_name() {
    for (lines, expected) in [
        (&["a_total:1|c"][..], &["a counter"][..]),
        (&["a_total:1|c", "a:1|g"], &["a_total unknown", "a gauge"]),
        (&["a_total:1|c", "a:1|h"], &["a_total unknown", "a histogram"]),
        (&["a_total:1|c", "a:1|c"], &["a_total unknown", "a unknown"]),
        (&["a_sum_total:1|c", "a:1|h"], &["a_sum_total unknown", "a histogram"]),
        (&["a_total:1|c", "a_created:1|g"], &["a_total unknown", "a_created gauge"]),
        (&["a_total:1|c", "a_created_total:1|c"], &["a_total unknown", "a_created counter"]),
        (&["a_created_total:1|c", "a:1|h"], &["a_created_total unknown", "a histogram"]),
        (&["up_total:1|c"], &["up_total unknown"]),
        (&["_total:1|c"], &["_total unknown"]),
    ] {
        assert_eq!(types(lines), expected, "{lines:?}");
    }
}

#[test]
fn a_large_family_goes_out_in_pieces_without_a_line_lost_or_twice() {
    let lines: Vec<String> = (0..3000).map(|n| format!("a:1|g|#k:{n:040}")).collect();
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    let text = exposition(&["labels.max_values=3000"], &lines, Format::Text);
    assert!(text.len() > 2 * PIECE_BYTES);
    assert_eq!(text.lines().filter(|line| line.starts_with('#')).count(), 2);
    let samples: Vec<String> = (0..3000).map(|n| format!("a{{k=\"{n:040}\"}} 1")).collect();
    assert_eq!(text.lines().skip(2).collect::<Vec<_>>(), samples);
}

#[test]
fn numbers_are_written_so_that_they_read_back_equal() {
    for (value, text) in [
        (0.0, "0"),
        (-0.0, "0"),
        (1.0, "1"),
        (-42.0, "-42"),
        (9_007_199_254_740_992.0, "9007199254740992"),
        (0.1, "0.1"),
        (8.25e-3, "0.00825"),
        (f64::INFINITY, "+Inf"),
        (f64::NEG_INFINITY, "-Inf"),
        (f64::NAN, "NaN"),
    ] {
        let mut out = Vec::new();
        write_number(value, &mut out);
        assert_eq!(String::from_utf8_lossy(&out), text);
    }
    for value in [1e300, 1.5e-300, 1e22, 123_456_789.125, 0.1 + 0.2, f64::MIN_POSITIVE] {
        let mut out = Vec::new();
        write_number(value, &mut out);
        assert_eq!(String::from_utf8_lossy(&out).parse::<f64>(), Ok(value));
    }
}

/// Whatever a series is like, a piece costs a connection about as much.
#[test]
fn a_histogram_goes_on_in_the_next_piece_as_it_was_when_it_began() {
    let bounds: Vec<String> = (0..1000).map(|n| n.to_string()).collect();
    let set = [format!("observer.buckets=[{}]", bounds.join(",")), "bucketing=[]".to_owned()];
    let config = load(&Sources { file: None, set: set.into() }).unwrap_or_else(|problems| panic!("{problems}")).config;
    let store = Arc::new(Store::new(1, Arc::default()));
    let mut pipeline = Pipeline::new(Arc::new(ArcSwap::from_pointee(Rules::new(&config))), store.clone(), 0);
    let long = "x".repeat(200);
    let lines = [format!("a:5|h|#k:{long},l:{long}"), format!("a:7|h|#k:{long}"), "b:1|c".to_owned()];
    lines.iter().for_each(|line| pipeline.datagram(line.as_bytes()));
    let mut whole = Vec::new();
    let mut pieces = store.begin(Format::Text);
    while pieces.next(&mut whole) {}
    let mut pieces = store.begin(Format::Text);
    let (mut joined, mut more) = (Vec::new(), true);
    while more {
        let mut piece = Vec::new();
        more = pieces.next(&mut piece);
        assert!(piece.len() <= PIECE_BYTES + 3 * 600, "{}", piece.len());
        joined.push(String::from_utf8(piece).expect("labels were UTF-8"));
        // What comes meanwhile is in series that are yet to be read, and in none that was begun.
        lines.iter().for_each(|line| pipeline.datagram(line.as_bytes()));
    }
    assert!(joined.len() > 8, "{}", joined.len());
    let (joined, whole) = (joined.concat(), String::from_utf8(whole).expect("labels were UTF-8"));
    let without_numbers = |text: &str| -> Vec<String> {
        text.lines().map(|line| line.rsplit_once(' ').expect("a line has a value").0.to_owned()).collect()
    };
    assert_eq!(without_numbers(&joined), without_numbers(&whole));
    let of_first: Vec<&str> = joined.lines().filter(|line| line.contains(",l=\"")).collect();
    assert!(of_first[5..].iter().all(|line| line.ends_with(if line.contains("_sum") { " 5" } else { " 1" })));
}

#[test]
fn a_summary_has_its_quantiles_then_sum_and_count() {
    let set = ["observer.type=summary", "observer.quantiles=[0.5, 1]"];
    check(
        &set,
        &["reply:250:750|ms|#k:v", "reply:750|ms|@0.4|#k:v"],
        "# HELP reply_seconds Received as reply (summary).\n# TYPE reply_seconds summary\n\
         reply_seconds{k=\"v\",quantile=\"0.5\"} 0.75\nreply_seconds{k=\"v\",quantile=\"1.0\"} 0.75\n\
         reply_seconds_sum{k=\"v\"} 2.875\nreply_seconds_count{k=\"v\"} 4.5\n",
        "# HELP reply_seconds Received as reply (summary).\n# TYPE reply_seconds summary\n\
         reply_seconds{k=\"v\",quantile=\"0.5\"} 0.75\nreply_seconds{k=\"v\",quantile=\"1.0\"} 0.75\n\
         reply_seconds_sum{k=\"v\"} 2.875\nreply_seconds_count{k=\"v\"} 4.5\n",
    );
}

#[test]
fn a_set_is_a_gauge_of_how_many_members_it_had() {
    let text = "# HELP bot_users Received as bot.users (gauge).\n# TYPE bot_users gauge\nbot_users{k=\"v\"} 3\n";
    // A member is its text: 1 and 01 are two, and one that was sent twice is one.
    check(
        &[],
        &["bot.users:1|s|#k:v", "bot.users:01|s|#k:v", "bot.users:a:b|s|#k:v", "bot.users:1|s|#k:v"],
        text,
        text,
    );
}

#[test]
fn created_lines_are_beside_what_counts_in_open_metrics_alone() {
    let set = ["observer.buckets=[1]", "mapping.rules=[{match='s',name='s',observer_type='summary',quantiles=[0.5]}]"];
    let config = load(&Sources { file: None, set: set.map(str::to_owned).into() }).expect("good").config;
    let store = Arc::new(Store::new(1, Arc::default()).started_at(std::time::Duration::from_millis(1_700_000_000_250)));
    store.show_created(true);
    let mut pipeline = Pipeline::new(Arc::new(ArcSwap::from_pointee(Rules::new(&config))), store.clone(), 0);
    pipeline.begin(std::time::Duration::from_secs(9));
    for line in ["c:1|c|#k:v", "h:1|h|#k:v", "s:2|h", "g:1|g", "u:1|s", "taken.created:1|g", "taken:1|h"] {
        pipeline.datagram(line.as_bytes());
    }
    let text = |format| {
        let (mut pieces, mut out) = (store.begin(format), Vec::new());
        while pieces.next(&mut out) {}
        String::from_utf8(out).expect("UTF-8")
    };
    let found = text(Format::OpenMetrics);
    let created: Vec<&str> = found.lines().filter(|line| line.contains("_created")).collect();
    assert_eq!(
        created,
        [
            "c_created{k=\"v\"} 1700000009.25",
            "h_created{k=\"v\"} 1700000009.25",
            "s_created 1700000009.25",
            "# HELP taken_created Received as taken.created (gauge).",
            "# TYPE taken_created gauge",
            "taken_created 1",
        ]
    );
    assert!(found.contains("c_total{k=\"v\"} 1\nc_created{k=\"v\"} "), "{found}");
    assert!(found.contains("h_count{k=\"v\"} 1\nh_created{k=\"v\"} "), "{found}");
    assert!(!text(Format::Text).contains("s_created"));
}
