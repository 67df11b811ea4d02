//! The messages of user series, read back by the types that prometheus-client generates from `metrics.proto`.

use arc_swap::ArcSwap;
use prometheus_client::encoding::prometheus_protobuf::prometheus_data_model::{
    Bucket, BucketSpan, Counter, Gauge, Histogram, LabelPair, Metric, MetricFamily, MetricType,
};
use prost::Message;

use super::*;
use crate::config::{Format, Sources, load};
use crate::expose::{PIECE_BYTES, SeriesSource};
use crate::pipeline::{Pipeline, Rules};

/// When ticks began, for series that are made here.
const STARTED: Duration = Duration::new(1_700_000_000, 250_000_000);

fn store(set: &[&str]) -> (Arc<Store>, Pipeline) {
    let set = set.iter().map(ToString::to_string).collect();
    let config = load(&Sources { file: None, set }).unwrap_or_else(|problems| panic!("{problems}")).config;
    let store = Arc::new(Store::new(1, Arc::default()).started_at(STARTED));
    let pipeline = Pipeline::new(Arc::new(ArcSwap::from_pointee(Rules::new(&config))), store.clone(), 0);
    (store, pipeline)
}

/// The pieces of an exposition, each read by itself.
fn pieces(store: &Arc<Store>) -> Vec<Vec<MetricFamily>> {
    let (mut walk, mut read, mut more) = (store.begin(Format::Protobuf), Vec::new(), true);
    while more {
        let mut piece = Vec::new();
        more = walk.next(&mut piece);
        assert!(piece.len() <= PIECE_BYTES + 64 * 1024, "{}", piece.len());
        read.push(decode(&piece));
    }
    read
}

fn decode(mut bytes: &[u8]) -> Vec<MetricFamily> {
    let mut families = Vec::new();
    while !bytes.is_empty() {
        families.push(MetricFamily::decode_length_delimited(&mut bytes).expect("a whole message"));
    }
    families
}

fn families(set: &[&str], lines: &[&str]) -> Vec<MetricFamily> {
    let (store, mut pipeline) = store(set);
    lines.iter().for_each(|line| pipeline.datagram(line.as_bytes()));
    pieces(&store).concat()
}

fn family(name: &str, help: &str, kind: MetricType, metric: Vec<Metric>) -> MetricFamily {
    let (name, help) = (name.to_owned(), help.to_owned());
    MetricFamily { name, help, r#type: kind.into(), metric, unit: String::new() }
}

fn labels(pairs: &[(&str, &str)]) -> Vec<LabelPair> {
    let pair = |(name, value): &(&str, &str)| LabelPair { name: (*name).to_owned(), value: (*value).to_owned() };
    pairs.iter().map(pair).collect()
}

/// A counter since [`STARTED`]: a pipeline that was never told the time makes its series in the first second.
fn counter(value: f64) -> Option<Counter> {
    let mut counter = Counter { value, ..Counter::default() };
    let start = counter.start_timestamp.get_or_insert_default();
    (start.seconds, start.nanos) = (1_700_000_000, 250_000_000);
    Some(counter)
}

/// A histogram since then: bounds with rounded counts, and the float beside each that is not whole.
fn histogram(count: (u64, f64), sum: f64, buckets: &[(f64, u64, f64)]) -> Option<Histogram> {
    let bucket = |(upper_bound, cumulative_count, cumulative_count_float): &(f64, u64, f64)| Bucket {
        upper_bound: *upper_bound,
        cumulative_count: *cumulative_count,
        cumulative_count_float: *cumulative_count_float,
        ..Bucket::default()
    };
    let start_timestamp = counter(0.0).and_then(|counter| counter.start_timestamp);
    let (sample_count, sample_count_float) = count;
    let bucket = buckets.iter().map(bucket).collect();
    Some(Histogram {
        sample_count,
        sample_count_float,
        sample_sum: sum,
        bucket,
        start_timestamp,
        ..Histogram::default()
    })
}

fn gauge(label: &[(&str, &str)], value: f64) -> Metric {
    Metric { label: labels(label), gauge: Some(Gauge { value }), ..Metric::default() }
}

/// The values of gauges by the value of their only label, whatever message they came in.
fn by_label(messages: &[MetricFamily]) -> Vec<(&str, f64)> {
    let metrics = messages.iter().flat_map(|family| &family.metric);
    metrics.map(|metric| (metric.label[0].value.as_str(), metric.gauge.as_ref().expect("a gauge").value)).collect()
}

#[test]
fn an_empty_store_is_no_bytes() {
    assert_eq!(families(&[], &[]), []);
}

#[test]
fn a_counter_keeps_its_full_name_and_says_since_when_it_counts() {
    for (set, name) in [(&[][..], "bot_errors_total"), (&["naming.counter_suffix="], "bot_errors")] {
        let found = families(set, &["bot.errors:1|c|#kind:timeout", "bot.errors:2.5|c"]);
        let metrics = [
            Metric { label: labels(&[("kind", "timeout")]), counter: counter(1.0), ..Metric::default() },
            Metric { counter: counter(2.5), ..Metric::default() },
        ];
        let help = "Received as bot.errors (counter).";
        assert_eq!(found, [family(name, help, MetricType::Counter, metrics.into())]);
    }
}

#[test]
fn a_gauge_has_a_value_and_no_start() {
    let found = families(&[], &["bot.queue.size:-3.5|g|#queue:outbox,b:1", "bot.queue.size:0|g"]);
    let metrics = vec![gauge(&[("b", "1"), ("queue", "outbox")], -3.5), gauge(&[], 0.0)];
    assert_eq!(found, [family("bot_queue_size", "Received as bot.queue.size (gauge).", MetricType::Gauge, metrics)]);
}

#[test]
fn whole_counts_of_a_histogram_are_whole_numbers_alone() {
    let set = ["observer.buckets=[0.1, 1]", "observer.native_factor=1"];
    let found = families(&set, &["reply:50:50:50|ms|#k:v", "reply:1000|ms|#k:v"]);
    let histogram = histogram((4, 0.0), 1.15, &[(0.1, 3, 0.0), (1.0, 4, 0.0), (f64::INFINITY, 4, 0.0)]);
    let metric = Metric { label: labels(&[("k", "v")]), histogram, ..Metric::default() };
    let help = "Received as reply (histogram).";
    assert_eq!(found, [family("reply_seconds", help, MetricType::Histogram, vec![metric])]);
}

#[test]
fn counts_that_are_not_whole_are_rounded_and_stand_beside_it_as_they_are() {
    // 3, then 1.25 and 2.5 more.
    let lines = ["a:1:1:1|h", "a:5|h|@0.8", "a:9|h|@0.4"];
    let found = families(&["observer.buckets=[1, 5]", "observer.native_factor=1"], &lines);
    let buckets = [(1.0, 3, 0.0), (5.0, 4, 4.25), (f64::INFINITY, 7, 6.75)];
    assert_eq!(found[0].metric[0].histogram, histogram((7, 6.75), 31.75, &buckets));
    // More than a whole number can say.
    let found = families(&["observer.buckets=[1]"], &["a:0|h|@1e-30"]);
    let many = found[0].metric[0].histogram.as_ref().expect("a histogram");
    assert_eq!((many.sample_count, many.sample_count_float), (u64::MAX, 1.0 / 1e-30));
}

#[test]
fn labels_are_as_they_were_sent_and_help_is_too() {
    let found = families(&[], &["a\"b\\c:1|g|#k:q\" b\\ {x} é,l:\\,m:\\n,n:\\\\\"", "b:1|g|#k:"]);
    let pairs = [("k", "q\" b\\ {x} é"), ("l", "\\"), ("m", "\\n"), ("n", "\\\\\"")];
    assert_eq!(found[0], family("a_b_c", "Received as a\"b\\c (gauge).", MetricType::Gauge, vec![gauge(&pairs, 1.0)]));
    for (escaped, value) in [("", ""), ("a\\nb", "a\nb"), ("\\\\n", "\\n"), ("\\\"\\\\\\n", "\"\\\n"), ("é\\\\", "é\\")]
    {
        let mut out = Vec::new();
        unescape(escaped.as_bytes(), &mut out);
        assert_eq!(String::from_utf8(out).as_deref(), Ok(value), "{escaped}");
    }
}

#[test]
fn a_series_that_was_made_later_starts_later_and_the_overflow_series_with_the_process() {
    let (store, mut pipeline) = store(&["cardinality.max_series_per_family=3", "cardinality.simplify_at=1"]);
    pipeline.begin(Duration::from_millis(90_999));
    (0..5).for_each(|n| pipeline.datagram(format!("a:1|c|#k:{n}").as_bytes()));
    let found = pieces(&store).concat();
    let starts: Vec<_> = found[0]
        .metric
        .iter()
        .map(|metric| {
            let start = metric.counter.as_ref().and_then(|counter| counter.start_timestamp).expect("a start");
            (metric.label[0].value.as_str(), start.seconds, start.nanos)
        })
        .collect();
    let later = 1_700_000_090;
    let expected = [("true", 1_700_000_000), ("0", later), ("1", later), ("2", later)];
    assert_eq!(starts, expected.map(|(value, seconds)| (value, seconds, 250_000_000)));
}

#[test]
fn the_cardinality_ladder_loses_no_count() {
    let set = ["cardinality.max_series=50", "cardinality.max_series_per_family=20", "labels.max_values=1000"];
    let lines: Vec<String> = (0..500).map(|n| format!("a:1|c|#k:{n}\nb:1|h|#k:{n}")).collect();
    let found = families(&set, &lines.iter().map(String::as_str).collect::<Vec<_>>());
    let counted: f64 = found[0].metric.iter().map(|metric| metric.counter.as_ref().expect("a counter").value).sum();
    let observed: u64 =
        found[1].metric.iter().map(|metric| metric.histogram.as_ref().expect("a histogram").sample_count).sum();
    assert_eq!((counted, observed), (500.0, 500));
    for family in &found {
        let overflow = |metric: &&Metric| metric.label == labels(&[("overflow", "true")]);
        assert_eq!(family.metric.iter().filter(overflow).count(), 1, "{}", family.name);
    }
}

#[test]
fn a_large_family_is_several_messages_without_a_series_lost_or_twice() {
    let set = ["labels.max_values=100000", "cardinality.max_series=100000", "cardinality.max_series_per_family=100000"];
    let (store, mut pipeline) = store(&[&set[..], &["cardinality.new_series_per_second=0"]].concat());
    let expected: Vec<String> = (0..12_000).map(|n| format!("{n:05}")).collect();
    expected.iter().for_each(|n| pipeline.datagram(format!("a:{n}|g|#k:{n}").as_bytes()));
    pipeline.datagram(b"b:1|g");
    let found = pieces(&store);
    assert!(found.len() >= 5 && found.iter().all(|piece| piece.len() <= 2), "{}", found.len());
    let mut messages = found.concat();
    assert_eq!(messages.pop().map(|family| family.name).as_deref(), Some("b"));
    for family in &messages {
        let head = (family.name.as_str(), family.help.as_str(), family.r#type());
        assert_eq!(head, ("a", "Received as a (gauge).", MetricType::Gauge));
        assert!((1..10_000).contains(&family.metric.len()), "{}", family.metric.len());
    }
    let read = by_label(&messages);
    assert_eq!(read.iter().map(|(label, _)| *label).collect::<Vec<_>>(), expected);
    assert!(read.iter().all(|(label, value)| label.parse() == Ok(*value)));
}

/// Families that end shortly before, at and behind the end of a piece, and one whose head is all that fits.
#[test]
fn a_piece_may_end_anywhere() {
    let value = "x".repeat(200);
    for head in (1..251).step_by(2) {
        let (store, mut pipeline) = store(&["labels.max_values=1000", "cardinality.new_series_per_second=0"]);
        pipeline.datagram(format!("first:1|g|#k:{}", "y".repeat(head)).as_bytes());
        // 227 bytes each.
        (0..290).for_each(|n| pipeline.datagram(format!("second:1|g|#k:{value}{n:03}").as_bytes()));
        pipeline.datagram(b"third:1|g|#k:v\nfourth:1|g|#k:v");
        let found = pieces(&store).concat();
        assert!(found.iter().all(|family| !family.metric.is_empty()), "{head}");
        let read = by_label(&found);
        assert_eq!(read.len(), 293, "{head}");
        let seconds: Vec<String> = (0..290).map(|n| format!("{value}{n:03}")).collect();
        assert!(read[1..291].iter().map(|(label, _)| *label).eq(seconds.iter().map(String::as_str)), "{head}");
    }
}

#[test]
fn series_that_come_between_two_pieces_are_in_the_next_and_spoil_neither() {
    let (store, mut pipeline) = store(&["labels.max_values=2000", "cardinality.new_series_per_second=0"]);
    let send = |pipeline: &mut Pipeline, n: u32| pipeline.datagram(format!("a:{n}|g|#k:{n:0100}").as_bytes());
    (0..1000).for_each(|n| send(&mut pipeline, n));
    let (mut walk, mut bytes) = (store.begin(Format::Protobuf), Vec::new());
    assert!(walk.next(&mut bytes));
    (1000..1500).for_each(|n| send(&mut pipeline, n));
    while walk.next(&mut bytes) {}
    let found = decode(&bytes);
    let read = by_label(&found);
    assert_eq!(read.len(), 1500);
    assert!(read.iter().enumerate().all(|(n, (_, value))| *value == n as f64));
}

/// A histogram of the most bounds with the longest labels is whole in one message, and no longer than is said.
#[test]
fn the_longest_series_takes_no_more_than_its_bound() {
    let bounds: Vec<String> = (0..1000).map(|n| n.to_string()).collect();
    let bounds = format!("observer.buckets=[{}]", bounds.join(","));
    let set =
        [&bounds, "listen.max_line_bytes=65536", "observer.native_factor=1.001", "observer.native_max_buckets=1600"];
    let (store, mut pipeline) = store(&set);
    let observation =
        Observation::Histogram { bounds: vec![0.0; 1000], native_factor: 1.001, native_max_buckets: 1600 };
    let tags: Vec<String> = (0..32).map(|n| format!("{n:k>250}:{}", "\\".repeat(256))).collect();
    let tags = tags.join(",").replace("0", "a").replace("1", "b").replace("2", "c");
    let name = "n".repeat(256);
    // No two buckets in a row, and no count that is whole.
    for n in 0..1600 {
        let value = (f64::from(n) / 50.0 - 10.0).exp2();
        pipeline.datagram(format!("{name}:{value}|h|@0.{}|#{tags}", 123 + n).as_bytes());
    }
    let (mut walk, mut bytes) = (store.begin(Format::Protobuf), Vec::new());
    while walk.next(&mut bytes) {}
    let found = decode(&bytes);
    assert_eq!(found[0].metric[0].histogram.as_ref().map(|histogram| histogram.bucket.len()), Some(1001));
    let native = found[0].metric[0].histogram.as_ref().map(|histogram| histogram.positive_span.len());
    assert_eq!(native, Some(1600));
    let count = found[0].metric[0].label.len();
    let text: usize = found[0].metric[0].label.iter().map(|label| label.name.len() + 2 * label.value.len() + 4).sum();
    assert!(count > 20, "{count}");
    let most = most_metric_bytes(256, crate::aggregate::HELP_BYTES, text, count, most_observer_bytes(&observation));
    assert!(bytes.len() <= most && bytes.len() * 2 > most, "{} of {most}", bytes.len());
}

#[test]
fn native_buckets_stand_beside_classic_ones_by_spans_and_differences() {
    let set = ["observer.buckets=[1, 5]", "observer.native_factor=2"];
    // At schema 0 bucket n ends at 2^n.
    let found = families(&set, &["a:1:1:1:2:7:8:-3:0|h", "a:100|h"]);
    let Histogram { schema, zero_threshold, zero_count, zero_count_float, .. } =
        found[0].metric[0].histogram.clone().expect("a histogram");
    let native = found[0].metric[0].histogram.as_ref().expect("a histogram");
    assert_eq!((schema, zero_threshold, zero_count, zero_count_float), (0, 2.0_f64.powi(-128), 1, 0.0));
    let spans = |spans: &[BucketSpan]| spans.iter().map(|span| (span.offset, span.length)).collect::<Vec<_>>();
    // (0.5, 1] three, (1, 2] one, none, (4, 8] two, then none for three, (64, 128] one.
    assert_eq!(spans(&native.positive_span), [(0, 2), (1, 1), (3, 1)]);
    assert_eq!(native.positive_delta, [3, -2, 1, -1]);
    assert_eq!((spans(&native.negative_span), &native.negative_delta[..]), (vec![(2, 1)], &[1][..]));
    assert_eq!((native.sample_count, native.sample_count_float, native.bucket.len()), (9, 0.0, 3));
    assert!(native.positive_count.is_empty() && native.negative_count.is_empty());
}

#[test]
fn native_buckets_are_doubles_as_soon_as_one_is_not_whole() {
    let set = ["observer.buckets=[1]", "observer.native_factor=2"];
    // 1 / 0.4 is 2.5; twice that is whole, and so is the count of all.
    let found = families(&set, &["a:1|h|@0.4", "a:4|h|@0.4", "a:-1|h", "a:0|h"]);
    let native = found[0].metric[0].histogram.as_ref().expect("a histogram");
    assert_eq!((native.sample_count, native.sample_count_float), (7, 7.0));
    assert_eq!((native.zero_count, native.zero_count_float), (0, 1.0));
    assert_eq!((&native.positive_count[..], &native.negative_count[..]), (&[2.5, 2.5][..], &[1.0][..]));
    assert!(native.positive_delta.is_empty() && native.negative_delta.is_empty());
    let found = families(&set, &["a:1|h|@0.4"]);
    let native = found[0].metric[0].histogram.as_ref().expect("a histogram");
    assert_eq!((native.sample_count, native.sample_count_float, native.zero_count_float), (3, 2.5, 0.0));
}

#[test]
fn a_histogram_without_observations_is_native_by_its_zero_threshold() {
    let (store, _pipeline) = store(&[]);
    let config = load(&Sources { file: None, set: Vec::new() }).expect("good").config;
    let rules = Rules::new(&config);
    let wanted = crate::aggregate::Wanted {
        name: "declared",
        written: "declared",
        help: None,
        shape: rules.shape(Kind::Histogram, None),
        sample: None,
        ttl: None,
        generation: 0,
        overflow_labels: "",
        sight: crate::aggregate::Sight::First,
        now: 1,
    };
    let mut labels = crate::map::labels::LabelSet::default();
    store.place(wanted, &mut labels, &mut Vec::new(), &rules.gate).expect("a place");
    let found = pieces(&store).concat();
    let native = found[0].metric[0].histogram.as_ref().expect("a histogram");
    assert!(native.zero_threshold > 0.0 && native.positive_span.is_empty() && native.sample_count == 0);
}

#[test]
fn a_summary_says_since_when_it_counts_and_a_set_is_a_gauge() {
    let set = ["observer.type=summary", "observer.quantiles=[0.5, 0.9]"];
    let found = families(&set, &["a:1:2:3|h|#k:v", "u:x|s", "u:y|s"]);
    assert_eq!((found[0].r#type(), found[1].r#type()), (MetricType::Summary, MetricType::Gauge));
    let summary = found[0].metric[0].summary.as_ref().expect("a summary");
    let start = summary.start_timestamp.as_ref().map(|start| (start.seconds, start.nanos));
    assert_eq!(start, Some((1_700_000_000, 250_000_000)));
    let quantiles: Vec<_> = summary.quantile.iter().map(|quantile| (quantile.quantile, quantile.value)).collect();
    assert_eq!((summary.sample_count, summary.sample_sum, quantiles), (3, 6.0, vec![(0.5, 2.0), (0.9, 3.0)]));
    assert_eq!(found[1].metric, [gauge(&[], 2.0)]);
}
