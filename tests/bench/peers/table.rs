//! Writes what was measured as a Markdown table.
//!
//! In: rows of figures, one for each receiver. Out: text. Always: what was not measured is a dash, never a zero.

use std::fmt::Write as _;

/// What was measured of all receivers.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) says: &'static str,
    pub(crate) unit: Unit,
    pub(crate) target: Target,
    pub(crate) figures: Vec<Figure>,
}

/// What a row should come to for statsieve, and what the empty receiver took on the machine that it was set on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Target {
    pub(crate) figure: f64,
    pub(crate) empty: Option<f64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unit {
    Nanoseconds,
    LinesPerSecond,
    Microseconds,
    Milliseconds,
    Bytes,
    Mebibytes,
}

impl Unit {
    fn name(self) -> &'static str {
        match self {
            Self::Nanoseconds => "ns a line",
            Self::LinesPerSecond => "lines/s",
            Self::Microseconds => "µs",
            Self::Milliseconds => "ms",
            Self::Bytes => "bytes",
            Self::Mebibytes => "MiB",
        }
    }

    fn more_is_better(self) -> bool {
        self == Self::LinesPerSecond
    }
}

/// One cell.
#[derive(Clone, Debug, Default)]
pub(crate) struct Figure {
    pub(crate) value: Option<f64>,
    /// Whether there may be more: the sender could not send faster.
    pub(crate) at_least: bool,
    /// Share of the lines sent that the receiver did not take.
    pub(crate) lost: f64,
}

impl Figure {
    pub(crate) fn text(&self) -> String {
        let Some(value) = self.value else { return "–".to_owned() };
        let least = if self.at_least { "≥ " } else { "" };
        let lost = if self.lost > 0.0005 { format!(", lost {:.1} %", self.lost * 100.0) } else { String::new() };
        format!("{least}{}{lost}", short(value))
    }
}

/// `names` are the receivers of the columns; `empty` and `statsieve` are the places among them that others are compared
/// with.
pub(crate) fn markdown(names: &[&str], rows: &[Row], empty: Option<usize>, statsieve: Option<usize>) -> String {
    let mut text = format!("| | unit | {} | target |\n|---|---|", names.join(" | "));
    text.push_str(&"---:|".repeat(names.len() + 1));
    text.push('\n');
    for row in rows {
        let value = |place: Option<usize>| place.and_then(|place| row.figures.get(place)?.value);
        let (least, own) = (value(empty), value(statsieve));
        let cells: Vec<String> = (0..names.len())
            .map(|place| {
                let figure = &row.figures[place];
                let Some(value) = figure.value else { return "–".to_owned() };
                let to_own = own.filter(|_| Some(place) != statsieve && Some(place) != empty);
                let to_empty = least.filter(|_| Some(place) != empty);
                let others = [to_own, to_empty].into_iter().flatten().filter(|other| *other > 0.0);
                let ratios: Vec<String> = others.map(|other| format!("{}×", short(value / other))).collect();
                let mut cell = figure.text();
                if !ratios.is_empty() {
                    write!(cell, " ({})", ratios.join(", ")).expect("text");
                }
                cell
            })
            .collect();
        let target = target(row, statsieve, empty);
        writeln!(text, "| {} | {} | {} | {target} |", row.says, row.unit.name(), cells.join(" | ")).expect("text");
    }
    text
}

/// The target (none is not a number), and whether it is met: outright, or as a multiple of the empty receiver, which
/// allows for the machine.
fn target(row: &Row, statsieve: Option<usize>, empty: Option<usize>) -> String {
    let target = row.target;
    if target.figure.is_nan() {
        return "–".to_owned();
    }
    let mut text = short(target.figure);
    if let Some(empty) = target.empty {
        write!(text, " ({}×)", short(target.figure / empty)).expect("text");
    }
    let figure = |place: Option<usize>| row.figures.get(place?);
    let value = |place| figure(place).and_then(|figure| figure.value);
    let Some(own) = value(statsieve) else { return text };
    let meets = |value: f64, target: f64| if row.unit.more_is_better() { value >= target } else { value <= target };
    // No multiple of what might have been more.
    let least = value(empty).filter(|_| figure(empty).is_some_and(|figure| !figure.at_least));
    let by_ratio = least.zip(target.empty).is_some_and(|(now, then)| meets(own / now, target.figure / then));
    let verdict = match (meets(own, target.figure), by_ratio) {
        (true, _) => "met",
        (false, true) => "met as a multiple",
        _ if figure(statsieve).is_some_and(|figure| figure.at_least) => "the sender is too slow to tell",
        _ => "missed",
    };
    format!("{text}, {verdict}")
}

/// About three digits, thousands apart.
pub(crate) fn short(value: f64) -> String {
    match value {
        v if v >= 999_500.0 => format!("{} M", short(v / 1e6)),
        v if v >= 99.95 => {
            let whole = format!("{v:.0}");
            match whole.len() {
                0..=3 => whole,
                length => format!("{},{}", &whole[..length - 3], &whole[length - 3..]),
            }
        }
        v if v >= 9.995 => format!("{v:.1}"),
        v if v >= 0.0995 => format!("{v:.2}"),
        0.0 => "0".to_owned(),
        v => format!("{v:.3}"),
    }
}
