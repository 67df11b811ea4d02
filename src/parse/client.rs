//! What a Datadog client tells of itself through the socket that it sends metrics to.
//!
//! In: the name of a counter. Out: which figure it is, if it is one.
//! Not here: adding figures up (`telemetry`); tags, which tell clients apart that are to be summed.
//! Always: a name that is not known is no figure, and stays a metric like any other.
//! Follows: the names that the clients of Datadog share (Go, Java, .NET, Python, Ruby, PHP, Node).

use crate::model::{ClientFigure, DropReason};

/// How every such name begins.
pub const PREFIX: &[u8] = b"datadog.dogstatsd.client.";

/// Figures that are known and in no sum: parts of one that is, or what is counted here by itself.
const IN_NO_SUM: [&[u8]; 9] = [
    b"packets_dropped_queue",
    b"packets_dropped_writer",
    b"bytes_dropped_queue",
    b"bytes_dropped_writer",
    b"metrics_by_type",
    b"aggregated_context",
    b"aggregated_context_by_type",
    b"events",
    b"service_checks",
];

/// The most that one value may add: all integers up to it are exact.
const MOST: f64 = 9_007_199_254_740_992.0;

/// What a client's counter tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// One of the figures that are summed.
    Figure(ClientFigure),
    /// One that is in no sum.
    Part,
}

/// What a counter of this name tells; `None` for names that are no client's.
pub fn told(name: &[u8]) -> Option<Told> {
    let figure = name.strip_prefix(PREFIX)?;
    if let Some(known) = ClientFigure::ALL.iter().find(|known| known.label().as_bytes() == figure) {
        return Some(Told::Figure(*known));
    }
    IN_NO_SUM.contains(&figure).then_some(Told::Part)
}

/// What a value adds to its figure, a whole number.
///
/// # Errors
/// `NegativeCounter` below 0, `NotFinite` above 2^53.
pub fn weighed(value: f64, weight: f64) -> Result<u64, DropReason> {
    if value < 0.0 {
        return Err(DropReason::NegativeCounter);
    }
    let sum = (value * weight).round();
    if sum <= MOST { Ok(sum as u64) } else { Err(DropReason::NotFinite) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_told_by_their_whole_name() {
        for (name, found) in [
            ("datadog.dogstatsd.client.packets_dropped", Some(Told::Figure(ClientFigure::Dropped))),
            ("datadog.dogstatsd.client.metric_dropped_on_receive", Some(Told::Figure(ClientFigure::DroppedMetrics))),
            ("datadog.dogstatsd.client.packets_dropped_queue", Some(Told::Part)),
            ("datadog.dogstatsd.client.events", Some(Told::Part)),
            ("datadog.dogstatsd.client.", None),
            ("datadog.dogstatsd.client", None),
            ("datadog.dogstatsd.client.packets_drop", None),
            ("datadog.dogstatsd.client.packets_dropped.x", None),
            ("bot.datadog.dogstatsd.client.packets_dropped", None),
        ] {
            assert_eq!(told(name.as_bytes()), found, "{name}");
        }
        assert_eq!(told(b""), None);
    }

    #[test]
    fn what_a_value_adds_is_whole_and_not_below_zero() {
        for (value, weight, sum) in [
            (3.0, 1.0, Ok(3)),
            (0.0, 1.0, Ok(0)),
            (3.0, 10.0, Ok(30)),
            (1.0, 1.25, Ok(1)),
            (MOST, 1.0, Ok(1 << 53)),
            (MOST, 2.0, Err(DropReason::NotFinite)),
            (1.0, f64::INFINITY, Err(DropReason::NotFinite)),
            (0.0, f64::INFINITY, Err(DropReason::NotFinite)),
            (-1.0, 1.0, Err(DropReason::NegativeCounter)),
        ] {
            assert_eq!(weighed(value, weight), sum, "{value} {weight}");
        }
    }
}
