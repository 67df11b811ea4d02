//! Lines one after another: what one leaves behind in a worker is nothing to the next, and the order of fields is
//! nothing to a line.

use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use proptest::test_runner::Config as Cases;
use statsieve::config::Config;

use crate::rig::{Rig, like_the_peer};

/// Tags as DogStatsD writes them, good and bad, some that other settings treat apart.
const TAGS: [&str; 18] = [
    "k:v",
    "k:w",
    "l:w",
    ":v",
    "k:",
    "bare",
    "",
    "__x:1",
    "le:1",
    "quantile:0.5",
    "user_id:7",
    "user-id:7",
    "message_id:9",
    "#k:u",
    "k.x:v",
    "k-x:w",
    "container_id:t",
    "\u{e9}:1",
];
const VALUES: [&str; 9] = ["1", "2.5", "-1", "+3", "x", "1:2", "", "nan", "0"];
const FIELDS: [&str; 7] = ["@0.5", "c:x", "T1700000000", "e:it-false", "card:low", "x:1", "@x"];

/// A line but for its name: what goes into the name behind it, and what comes behind the colon.
fn line() -> impl Strategy<Value = (String, String)> {
    let tags = prop::collection::vec(select(TAGS.to_vec()), 0..5);
    let kind = select(vec!["c", "g", "ms", "h", "d", "q"]);
    let fields = subsequence(FIELDS.to_vec(), 0..4).prop_shuffle();
    (tags, select(VALUES.to_vec()), kind, fields, 0..6usize).prop_map(|(tags, value, kind, fields, style)| {
        let (dogstatsd, named) = (tags.join(","), tags.join(",").replace(':', "="));
        let (name, tags) = match style {
            0 => (format!(",{named}"), String::new()),
            1 => (format!("#{named}"), String::new()),
            2 => (format!("[{named}]z"), String::new()),
            _ if dogstatsd.is_empty() => (String::new(), String::new()),
            _ => (String::new(), format!("|#{dogstatsd}")),
        };
        let fields: String = fields.iter().map(|field| format!("|{field}")).collect();
        // Tags before the fields as often as behind them.
        let behind = if style == 3 { format!("{fields}{tags}") } else { format!("{tags}{fields}") };
        (name, format!("{value}|{kind}{behind}"))
    })
}

/// The series of lines, and what was counted beside them.
fn outcome(config: &Config, lines: &[String]) -> (Vec<String>, Vec<String>) {
    let mut rig = Rig::new(config);
    lines.iter().for_each(|line| rig.send(&[line]));
    (rig.series(), rig.counts())
}

proptest! {
    #![proptest_config(Cases { cases: 400, failure_persistence: None, ..Cases::default() })]

    #[test]
    fn no_line_sees_anything_of_those_before_it(lines in prop::collection::vec(line(), 1..12), peer in any::<bool>()) {
        let config = if peer { like_the_peer(&[]) } else { Config::default_checked() };
        // Each under a name of its own, and half of them twice, so that they are known identities the second time.
        let times = |at: usize| 1 + (at + 1) % 2;
        let named = lines.iter().enumerate().map(|(at, (name, rest))| format!("n{at}{name}:{rest}"));
        let named: Vec<(String, usize)> = named.enumerate().map(|(at, line)| (line, times(at))).collect();
        let together: Vec<String> = named.iter().flat_map(|(line, times)| vec![line.clone(); *times]).collect();
        let (series, counts) = outcome(&config, &together);
        let (mut alone, mut counted) = (Vec::new(), Vec::new());
        for (line, times) in &named {
            let (series, counts) = outcome(&config, &vec![line.clone(); *times]);
            alone.extend(series);
            counted.extend(counts);
        }
        alone.sort();
        counted.sort();
        prop_assert_eq!(series, alone, "{:#?}", together);
        prop_assert_eq!(counts, counted, "{:#?}", together);
    }

    #[test]
    fn fields_mean_the_same_in_any_order(
        fields in subsequence(vec!["@0.5", "#k:v,l:w", "c:x", "T1700000000", "e:it-false", "card:low", "x:1"], 0..8).prop_shuffle(),
        kind in select(vec!["c", "g", "ms", "h", "d"]),
    ) {
        let config = like_the_peer(&[]);
        let of = |fields: &[&str]| {
            let fields: String = fields.iter().map(|field| format!("|{field}")).collect();
            outcome(&config, &[format!("a:4|{kind}{fields}")])
        };
        let mut sorted = fields.clone();
        sorted.sort_unstable();
        prop_assert_eq!(of(&fields), of(&sorted), "{:?}", fields);
    }
}
