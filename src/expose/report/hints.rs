//! What an operator should change, with the words to change it by.
//!
//! In: figures of families, labels and counts. Out: hints, each with TOML that can be pasted into a configuration file.
//! Always: a hint is given for what was seen, never for what might be; its TOML passes `check`; lists in it are whole,
//! since a list in a file replaces the default.

use serde_json::{Value, json};

use crate::aggregate::census::{Census, FamilyFigures, LabelFigures, Observed};
use crate::config::{GaugeSign, Loaded, MsUnit, paste};
use crate::model::{ClientFigure, DropReason};
use crate::telemetry::refusals::Refused;
use crate::telemetry::{Count, Tally};

/// A label with this many times `labels.max_values` values has no bound; with fewer the limit may be too low for it.
const UNBOUNDED: f64 = 5.0;
/// Estimates are this far off at most, three standard errors: below it a limit may not have been passed at all.
const CERTAIN: f64 = 1.2;
/// Observations from which a histogram tells anything.
const ENOUGH: f64 = 100.0;
/// Share of observations beyond the last bound that spoils quantiles.
const BEYOND: f64 = 0.01;
/// Mean of a timer below which its values were seconds, in seconds: half of what the least bound by default can tell.
const TOO_SHORT: f64 = 0.0005;
/// Hints of one kind; whoever has more begins with these.
const MOST: usize = 5;
/// Words in tags that name somebody, whose values a bucket should stand for rather than nothing.
const SOMEBODY: [&str; 8] = ["user", "chat", "member", "guild", "channel", "peer", "customer", "account"];

/// Something to change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Hint {
    /// What it is about.
    pub(super) kind: &'static str,
    /// What was seen, and what follows from it.
    pub(super) text: String,
    /// What to put into the configuration file.
    pub(super) toml: String,
}

impl Hint {
    pub(super) fn json(&self) -> Value {
        json!({ "kind": self.kind, "text": self.text, "toml": self.toml })
    }
}

/// Everything worth changing, by kind.
pub(super) fn hints(census: &Census, tally: &Tally, refused: &[Refused], loaded: &Loaded) -> Vec<Hint> {
    let mut all = labels(census, loaded);
    all.extend(beyond_the_last_bound(census));
    all.extend(timers_that_look_like_seconds(census, loaded));
    all.extend(refused_decrements(tally, refused, loaded));
    all.extend(signed_gauges(census, tally, loaded));
    all
}

/// Labels that had more values than `labels.max_values` lets them have.
fn labels(census: &Census, loaded: &Loaded) -> Vec<Hint> {
    let most = loaded.config.labels.max_values;
    let full = census.labels.iter().filter(|label| label.most >= most as u64 && label.seen > most as f64 * CERTAIN);
    let hint = |label: &LabelFigures| {
        let (name, seen) = (&label.name, label.seen.round());
        let bucketed = loaded.config.bucketing.iter().find(|rule| *rule.label == **name);
        if bucketed.is_some() || seen < UNBOUNDED * most as f64 {
            let enough = bucketed.map_or(seen * CERTAIN, |rule| f64::from(rule.count));
            let enough = ((enough / 100.0).ceil() * 100.0) as i64;
            return Hint {
                kind: "label_past_max_values",
                text: format!(
                    "The label {name} had about {seen} values, and labels.max_values is {most}: the later ones became \
                     \"other\". If they are all wanted, and no more will come, raise the limit."
                ),
                toml: paste::set("labels.max_values", enough),
            };
        }
        let text = format!(
            "The tag {name} had about {seen} different values, most of them folded into \"other\". It looks like an id: "
        );
        let lower = name.to_ascii_lowercase();
        if SOMEBODY.iter().any(|word| lower.contains(word)) {
            let stem = lower.strip_suffix("id").unwrap_or(&lower).trim_end_matches('_');
            let mut label = format!("{}_bucket", if stem.is_empty() { "id" } else { stem });
            while loaded.config.bucketing.iter().any(|rule| rule.label == label) {
                label.push('_');
            }
            let rule = paste::table([("tags", vec![&**name].into()), ("label", label.into())]);
            Hint {
                kind: "unbounded_tag",
                text: text + "let a bucket stand for it, or take it out by labels.drop.",
                toml: paste::add(loaded, "bucketing", rule),
            }
        } else {
            Hint {
                kind: "unbounded_tag",
                text: text + "take it out, or let a bucket stand for it by [[bucketing]].",
                toml: paste::add(loaded, "labels.drop", &**name),
            }
        }
    };
    full.take(MOST).map(hint).collect()
}

/// Histograms whose quantiles the last bound cuts off.
fn beyond_the_last_bound(census: &Census) -> Vec<Hint> {
    let hint = |family: &FamilyFigures| {
        let observed = family.observed.as_ref()?;
        let before = observed.bounds.upper();
        let last = *before.last()?;
        if observed.count < ENOUGH || observed.beyond < BEYOND * observed.count {
            return None;
        }
        // What lies within the bounds sums up to no more than each bucket's bound allows, so this is the least mean.
        let mean = ((observed.sum - (observed.count - observed.beyond) * last) / observed.beyond).max(last);
        let mut bounds = before.to_vec();
        let mut next = if last > 0.0 { last * 2.0 } else { 1.0 };
        while bounds.len() < before.len() + 2 || (next <= mean * 4.0 && bounds.len() < before.len() + 6) {
            bounds.push(next);
            next *= 2.0;
        }
        let share = 100.0 * observed.beyond / observed.count;
        Some(Hint {
            kind: "observations_beyond_last_bound",
            text: format!(
                "{share:.1} % of the observations of {} lie beyond its last bound, {last}: quantiles that fall there \
                 cannot be told. Add bounds; each costs a sample line for every series.",
                family.name,
            ),
            toml: paste::set("observer.buckets", bounds),
        })
    };
    census.families.iter().filter_map(hint).take(MOST).collect()
}

/// Timers whose values are so small that they were sent in seconds.
fn timers_that_look_like_seconds(census: &Census, loaded: &Loaded) -> Option<Hint> {
    if loaded.config.parse.ms_unit == MsUnit::Seconds {
        return None;
    }
    let looks = |observed: &Observed| {
        observed.count >= ENOUGH && observed.sum > 0.0 && observed.sum / observed.count < TOO_SHORT
    };
    let timers: Vec<&str> = census
        .families
        .iter()
        .filter(|family| family.timed && family.observed.as_ref().is_some_and(looks))
        .map(|family| family.name.as_str())
        .collect();
    let names = match timers.as_slice() {
        [] => return None,
        some => some[..some.len().min(MOST)].join(", "),
    };
    Some(Hint {
        kind: "timers_look_like_seconds",
        text: format!(
            "The mean of {names} is below half a millisecond. A client that sends seconds as ms, as timed() of datadogpy \
             does, looks like that: have it send milliseconds, or set this if all clients send seconds."
        ),
        toml: paste::set("parse.ms_unit", "s"),
    })
}

/// Counters that somebody wants to go down.
fn refused_decrements(tally: &Tally, refused: &[Refused], loaded: &Loaded) -> Option<Hint> {
    let count = tally.dropped_for(DropReason::NegativeCounter);
    if count == 0 {
        return None;
    }
    let name = refused
        .iter()
        .find(|line| line.reason == DropReason::NegativeCounter)
        .and_then(|line| line.text.split([':', ',', '#', '[']).next())
        .filter(|name| !name.is_empty())
        .unwrap_or("bot.sessions");
    let exposed: String = format!("{}{name}", loaded.config.naming.prefix)
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || c == '_' { c } else { '_' })
        .collect();
    let exposed = if exposed.starts_with(|c: char| c.is_ascii_digit()) { format!("_{exposed}") } else { exposed };
    Some(Hint {
        kind: "refused_decrements",
        text: format!(
            "{count} decrements of counters were refused, of {name} among others: a counter of Prometheus cannot go down. \
             Send changes of a gauge, {name}:+1|g and {name}:-1|g, which this lets begin at 0."
        ),
        toml: if loaded.config.declare.iter().any(|declared| declared.name == exposed) {
            paste::set("parse.gauge_sign", "delta")
        } else {
            paste::add(loaded, "declare", paste::table([("name", exposed.into()), ("type", "gauge".into())]))
        },
    })
}

/// Gauges below zero from a client that does not mean changes.
fn signed_gauges(census: &Census, tally: &Tally, loaded: &Loaded) -> Option<Hint> {
    let (lowered, raised) = (tally.get(Count::GaugesLowered), tally.get(Count::GaugesRaised));
    // What it sends is never nothing, and is a family of its own where the configuration says so.
    let datadog = ClientFigure::ALL.iter().any(|figure| tally.client_of(*figure) > 0)
        || census.families.iter().any(|family| family.name.starts_with("datadog_dogstatsd_client_"));
    if loaded.config.parse.gauge_sign == GaugeSign::Absolute || raised > 0 || lowered == 0 {
        return None;
    }
    let evidence =
        if datadog { "and the client's own figures say that it is Datadog's" } else { "none with a plus did" };
    Some(Hint {
        kind: "signed_gauges",
        text: format!(
            "{lowered} gauge values with a minus came with DogStatsD tags, {evidence}. Such a client means values below \
             zero, and they were read as changes."
        ),
        toml: paste::set("parse.gauge_sign", "absolute"),
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::aggregate::bounds::Bounds;
    use crate::config::{Sources, load};
    use crate::map::Kind;

    fn loaded(set: &[&str]) -> Loaded {
        let set = set.iter().map(ToString::to_string).collect();
        load(&Sources { file: None, set }).unwrap_or_else(|problems| panic!("{problems}"))
    }

    /// The configuration once a piece of TOML was pasted into an empty file.
    fn pasted(toml: &str) -> Loaded {
        let file = tempfile::NamedTempFile::new().expect("a temporary file");
        std::fs::write(file.path(), toml).expect("it is written");
        let sources = Sources { file: Some(file.path().to_owned()), set: Vec::new() };
        load(&sources).unwrap_or_else(|problems| panic!("{problems}\n{toml}"))
    }

    fn label(name: &str, seen: f64, most: u64) -> LabelFigures {
        LabelFigures { name: name.into(), seen, most, families: 1 }
    }

    fn histogram(name: &str, timed: bool, [count, sum, first, beyond]: [f64; 4], bounds: &[f64]) -> FamilyFigures {
        FamilyFigures {
            name: name.to_owned(),
            kind: Kind::Histogram,
            timed,
            series: 1,
            lines: bounds.len() as u64 + 3,
            overflows: false,
            limits: Vec::new(),
            observed: Some(Observed { count, sum, first, beyond, bounds: Arc::new(Bounds::new(bounds)) }),
            labels: Vec::new(),
        }
    }

    fn census(families: Vec<FamilyFigures>, labels: Vec<LabelFigures>) -> Census {
        Census { families, labels, turned_away: None }
    }

    fn of(census: &Census, loaded: &Loaded) -> Vec<Hint> {
        hints(census, &Tally::default(), &[], loaded)
    }

    fn kinds(hints: &[Hint]) -> Vec<&str> {
        hints.iter().map(|hint| hint.kind).collect()
    }

    #[test]
    fn a_healthy_sidecar_gets_no_hint() {
        let families = vec![histogram("a_seconds", true, [1000.0, 50.0, 10.0, 9.0], &[0.005, 1.0, 30.0])];
        let labels = vec![label("command", 150.0, 150), label("many", 1e6, 199), label("nearly", 210.0, 200)];
        assert_eq!(of(&census(families, labels), &loaded(&[])), []);
    }

    #[test]
    fn an_id_is_dropped_and_somebody_s_id_is_bucketed() {
        let labels = vec![label("request", 9e5, 201), label("chat_id", 5e5, 201), label("userid", 4e5, 200)];
        let found = of(&census(vec![], labels), &loaded(&["labels.drop=['x*']"]));
        assert_eq!(kinds(&found), ["unbounded_tag"; 3]);
        assert_eq!(pasted(&found[0].toml).config.labels.drop, ["x*", "request"]);
        let rules = pasted(&found[1].toml).config.bucketing;
        let rules: Vec<(&str, &str)> = rules.iter().map(|rule| (rule.tags[0].as_str(), rule.label.as_str())).collect();
        assert_eq!(rules, [("user_id", "user_bucket"), ("chat_id", "chat_bucket")]);
        // The label of the first rule is taken.
        assert_eq!(pasted(&found[2].toml).config.bucketing[1].label, "user_bucket_");
        assert!(found[1].text.contains("chat_id had about 500000 different values"), "{}", found[1].text);
    }

    #[test]
    fn a_label_a_little_past_the_limit_and_buckets_past_it_get_a_higher_limit() {
        let few = of(&census(vec![], vec![label("command", 420.0, 201)]), &loaded(&[]));
        assert_eq!(kinds(&few), ["label_past_max_values"]);
        assert_eq!(pasted(&few[0].toml).config.labels.max_values, 600);
        let buckets =
            of(&census(vec![], vec![label("user_bucket", 1900.0, 201)]), &loaded(&["bucketing.0.count=2000"]));
        assert_eq!(kinds(&buckets), ["label_past_max_values"]);
        assert_eq!(pasted(&buckets[0].toml).config.labels.max_values, 2000);
    }

    #[test]
    fn bounds_are_added_up_to_what_was_observed_beyond_the_last() {
        // A tenth of 1,000 observations took 200 s each, the rest 1 s.
        let family = || histogram("a_seconds", false, [1000.0, 20_900.0, 0.0, 100.0], &[0.5, 1.0, 30.0]);
        let found = of(&census(vec![family()], vec![]), &loaded(&[]));
        assert_eq!(kinds(&found), ["observations_beyond_last_bound"]);
        assert!(found[0].text.starts_with("10.0 % of the observations of a_seconds"), "{}", found[0].text);
        assert_eq!(pasted(&found[0].toml).config.observer.bounds, [0.5, 1.0, 30.0, 60.0, 120.0]);
        let mut rare = family();
        rare.observed.as_mut().expect("a histogram").beyond = 9.0;
        assert_eq!(of(&census(vec![rare], vec![]), &loaded(&[])), []);
        let few = histogram("a_seconds", false, [50.0, 5000.0, 0.0, 50.0], &[1.0]);
        assert_eq!(of(&census(vec![few], vec![]), &loaded(&[])), []);
    }

    #[test]
    fn timers_with_a_mean_of_microseconds_look_like_seconds() {
        let timer = |name, timed| histogram(name, timed, [1000.0, 0.05, 1000.0, 0.0], &[0.005, 1.0]);
        let families = vec![timer("a_seconds", true), timer("sizes", false), timer("b_seconds", true)];
        let census = census(families, vec![]);
        let found = of(&census, &loaded(&[]));
        assert_eq!(kinds(&found), ["timers_look_like_seconds"]);
        assert!(found[0].text.starts_with("The mean of a_seconds, b_seconds is"), "{}", found[0].text);
        assert_eq!(pasted(&found[0].toml).config.parse.ms_unit, MsUnit::Seconds);
        assert_eq!(of(&census, &loaded(&["parse.ms_unit=s"])), []);
    }

    #[test]
    fn a_refused_decrement_is_offered_a_gauge_of_its_name() {
        let mut tally = Tally::default();
        (0..3).for_each(|_| tally.dropped(DropReason::NegativeCounter));
        let line = |reason, text: &str| Refused { tick: 1, reason, text: text.to_owned() };
        let refused = [
            line(DropReason::MalformedLine, "what.is.this"),
            line(DropReason::NegativeCounter, "7.bot-sessions#k=v:-1|c"),
        ];
        let none = census(vec![], vec![]);
        let found = hints(&none, &tally, &refused, &loaded(&[]));
        assert_eq!(kinds(&found), ["refused_decrements"]);
        assert!(found[0].text.contains("7.bot-sessions:-1|g"), "{}", found[0].text);
        let declared = pasted(&found[0].toml).config.declare;
        assert_eq!((declared.len(), declared[0].name.as_str()), (1, "_7_bot_sessions"));
        // Without an example, and where the name is declared already.
        pasted(&hints(&none, &tally, &[], &loaded(&[]))[0].toml);
        let again = loaded(&["declare=[{name='_7_bot_sessions',type='counter'}]"]);
        pasted(&hints(&none, &tally, &refused, &again)[0].toml);
    }

    #[test]
    fn values_below_zero_from_a_client_that_never_raises_are_values() {
        let with = |lowered, raised| {
            let mut tally = Tally::default();
            tally.add(Count::GaugesLowered, lowered);
            tally.add(Count::GaugesRaised, raised);
            tally
        };
        let none = census(vec![], vec![]);
        let found = hints(&none, &with(5, 0), &[], &loaded(&[]));
        assert_eq!(kinds(&found), ["signed_gauges"]);
        assert_eq!(pasted(&found[0].toml).config.parse.gauge_sign, GaugeSign::Absolute);
        assert!(found[0].text.contains("none with a plus did"), "{}", found[0].text);
        let mut datadog = with(5, 0);
        datadog.client(ClientFigure::Packets, 1);
        let found = hints(&none, &datadog, &[], &loaded(&[]));
        assert!(found[0].text.contains("say that it is Datadog's"), "{}", found[0].text);
        assert_eq!(hints(&none, &with(5, 1), &[], &loaded(&[])), []);
        assert_eq!(hints(&none, &with(0, 0), &[], &loaded(&[])), []);
        assert_eq!(hints(&none, &with(5, 0), &[], &loaded(&["parse.gauge_sign=absolute"])), []);
    }
}
