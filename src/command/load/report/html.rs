//! The report as one HTML file: styles and plots are inside, nothing is fetched.
//!
//! In: a [`Report`]. Out: HTML with SVG drawn by hand.

use std::fmt::Write as _;

use super::super::measure::{Latency, Point};
use super::{COLUMNS, LEGEND, Outcome, Report, grouped};

const STYLE: &str = include_str!("style.css");

/// Of a plot, and of the room around what is drawn in it.
const WIDTH: f64 = 520.0;
const HEIGHT: f64 = 190.0;
const LEFT: f64 = 52.0;
const RIGHT: f64 = 18.0;
const TOP: f64 = 30.0;
const BOTTOM: f64 = 30.0;

/// The whole page.
pub(super) fn render(report: &Report) -> String {
    let state = if report.verified() { "good" } else { "bad" };
    let mut page = format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>statsieve load: {title}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n\
         <h1>statsieve load</h1>\n<p class=\"verdict {state}\">{title}</p>\n<p class=\"quiet\">{circumstances}</p>\n",
        title = report.title(),
        circumstances = escaped(&report.circumstances()),
    );
    page.push_str(&table(report));
    page.push_str(&ceilings(report));
    for outcome in &report.outcomes {
        page.push_str(&section(outcome));
    }
    page.push_str("<h2>How to read it</h2>\n<ul class=\"quiet\">\n");
    for sentence in LEGEND {
        // Writing to memory does not fail.
        let _ = writeln!(page, "<li>{}</li>", escaped(sentence));
    }
    page.push_str("</ul>\n</main>\n</body>\n</html>\n");
    page
}

fn table(report: &Report) -> String {
    let mut text = "<div class=\"wide\"><table>\n<thead><tr>".to_owned();
    for column in COLUMNS {
        let _ = write!(text, "<th>{column}</th>");
    }
    text.push_str("</tr></thead>\n<tbody>\n");
    for outcome in &report.outcomes {
        let state = if outcome.verification.verified { "good" } else { "bad" };
        let [name, numbers @ .., verdict] = outcome.row();
        let _ = write!(text, "<tr><td><a href=\"#{name}\">{name}</a></td>");
        for number in numbers {
            let _ = write!(text, "<td>{number}</td>");
        }
        let _ = writeln!(text, "<td class=\"{state}\">{verdict}</td></tr>");
    }
    text.push_str("</tbody>\n</table></div>\n");
    text
}

/// What was measured beside what operators put up with.
fn ceilings(report: &Report) -> String {
    let with: Vec<_> = report
        .outcomes
        .iter()
        .filter_map(|outcome| Some((outcome, outcome.ceiling?, outcome.latency.as_ref()?)))
        .collect();
    if with.is_empty() {
        return String::new();
    }
    let latency: Vec<_> =
        with.iter().map(|(outcome, ceiling, latency)| (outcome.scenario, latency.p95 * 1e3, ceiling.p95_ms)).collect();
    let memory: Vec<_> = with
        .iter()
        .map(|(outcome, ceiling, _)| (outcome.scenario, outcome.peak_memory_bytes as f64 / 1e6, ceiling.memory_mb))
        .collect();
    format!(
        "<h2>Against the ceilings</h2>\n<div class=\"plots\">\n{}{}</div>\n",
        against("P95, arrival to recorded", "ms", &latency),
        against("Peak memory", "MB", &memory)
    )
}

fn section(outcome: &Outcome) -> String {
    let state = if outcome.verification.verified { "good" } else { "bad" };
    let mut text = format!(
        "<section id=\"{name}\">\n<h2>{name} <span class=\"{state}\">{verdict}</span></h2>\n\
         <p>{about}. {seconds:.1} s, {samples} samples in {datagrams} datagrams from {senders}, to {target}.</p>\n",
        name = outcome.scenario,
        verdict = outcome.verdict(),
        about = escaped(outcome.about),
        seconds = outcome.seconds,
        samples = grouped(outcome.samples),
        datagrams = grouped(outcome.datagrams),
        senders = if outcome.senders == 1 { "1 sender".to_owned() } else { format!("{} senders", outcome.senders) },
        target = escaped(&outcome.target),
    );
    if !outcome.settings.is_empty() {
        let _ = writeln!(
            text,
            "<p class=\"quiet\">Settings: <code>{}</code></p>",
            outcome.settings.join("</code>, <code>")
        );
    }
    text.push_str("<ul>\n");
    for remark in outcome.remarks() {
        let _ = writeln!(text, "<li>{}</li>", escaped(&remark));
    }
    text.push_str("</ul>\n");
    let differences = outcome.differences();
    if !differences.is_empty() {
        let _ = writeln!(text, "<pre class=\"bad\">{}</pre>", escaped(&differences.join("\n")));
    }
    text.push_str("<div class=\"plots\">\n");
    let points = &outcome.points;
    let sent = rates(points, |point| point.sent);
    let taken = rates(points, |point| point.taken);
    text.push_str(&lines("Samples a second", &[("sent", "first", sent), ("taken", "second", taken)], None));
    if let Some(latency) = &outcome.latency {
        text.push_str(&shares(latency));
    }
    let fill = points.iter().map(|point| (point.seconds, point.queue_fill * 100.0)).collect();
    let rate = points.iter().map(|point| (point.seconds, point.sampling_rate * 100.0)).collect();
    let series = [("queue fill", "first", fill), ("sampling rate", "second", rate)];
    text.push_str(&lines("Queue fill and sampling rate, %", &series, Some(100.0)));
    let memory = points.iter().map(|point| (point.seconds, point.resident_bytes as f64 / 1e6)).collect();
    text.push_str(&lines("Resident memory, MB", &[("resident", "first", memory)], None));
    text.push_str("</div>\n</section>\n");
    text
}

/// Changes a second between two looks.
fn rates(points: &[Point], of: fn(&Point) -> u64) -> Vec<(f64, f64)> {
    let pairs = points.windows(2).filter(|pair| pair[1].seconds - pair[0].seconds > 0.02);
    pairs
        .map(|pair| {
            let grown = of(&pair[1]).saturating_sub(of(&pair[0])) as f64;
            (pair[1].seconds, grown / (pair[1].seconds - pair[0].seconds))
        })
        .collect()
}

/// A step of an axis: 1, 2 or 5 of some power of ten, so that five or fewer reach `most`.
fn step(most: f64) -> f64 {
    let rough = (most / 5.0).max(1e-9);
    let power = 10f64.powf(rough.log10().floor());
    [1.0, 2.0, 5.0, 10.0].map(|factor| factor * power).into_iter().find(|step| *step >= rough).unwrap_or(rough)
}

/// A number that fits beside an axis.
fn short(number: f64) -> String {
    let (scaled, unit) = match number.abs() {
        large if large >= 1e6 => (number / 1e6, "M"),
        large if large >= 1e4 => (number / 1e3, "k"),
        _ => (number, ""),
    };
    let text = format!("{scaled:.2}");
    format!("{}{unit}", text.trim_end_matches('0').trim_end_matches('.'))
}

/// Opens a plot with its title and the lines of its vertical axis, which reaches from 0 to what is returned.
fn open(title: &str, most: f64) -> (String, f64) {
    let step = step(if most > 0.0 { most } else { 1.0 });
    let top = (most / step).ceil().max(1.0) * step;
    let mut svg = format!(
        "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{title}\">\n\
         <text class=\"title\" x=\"{LEFT}\" y=\"14\">{title}</text>\n"
    );
    let mut value = 0.0;
    while value <= top * 1.001 {
        let y = height(value, top);
        let _ = writeln!(
            svg,
            "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>\
             <text class=\"y\" x=\"{}\" y=\"{:.1}\">{}</text>",
            WIDTH - RIGHT,
            LEFT - 6.0,
            y + 3.5,
            short(value)
        );
        value += step;
    }
    (svg, top)
}

fn height(value: f64, top: f64) -> f64 {
    HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (value / top).clamp(0.0, 1.0)
}

/// What the colours stand for, at the right of the title.
fn legend(svg: &mut String, names: &[(&str, &str)]) {
    let mut x = WIDTH - RIGHT;
    for (name, class) in names.iter().rev() {
        let _ = writeln!(svg, "<text class=\"legend {class}\" x=\"{x}\" y=\"14\">{name}</text>");
        x -= name.len() as f64 * 5.6 + 12.0;
    }
}

/// A line of a plot: its name, its class, and values by seconds.
type Curve<'a> = (&'a str, &'a str, Vec<(f64, f64)>);

/// Values over time.
fn lines(title: &str, series: &[Curve<'_>], most: Option<f64>) -> String {
    let all = || series.iter().flat_map(|(_, _, points)| points);
    let last = all().map(|(seconds, _)| *seconds).fold(0.0, f64::max);
    if last == 0.0 {
        return String::new();
    }
    let (mut svg, top) = open(title, most.unwrap_or_else(|| all().map(|(_, value)| *value).fold(0.0, f64::max)));
    let place = |seconds: f64| LEFT + (WIDTH - LEFT - RIGHT) * seconds / last;
    let step = step(last);
    let mut seconds = 0.0;
    while seconds <= last * 1.001 {
        let x = place(seconds);
        let _ = writeln!(svg, "<text class=\"x\" x=\"{x:.1}\" y=\"{}\">{} s</text>", HEIGHT - 12.0, short(seconds));
        seconds += step;
    }
    for (_, class, points) in series {
        let path: Vec<String> = points
            .iter()
            .map(|(seconds, value)| format!("{:.1},{:.1}", place(*seconds), height(*value, top)))
            .collect();
        let _ = writeln!(svg, "<polyline class=\"{class}\" points=\"{}\"/>", path.join(" "));
    }
    if series.len() > 1 {
        let names: Vec<_> = series.iter().map(|(name, class, _)| (*name, *class)).collect();
        legend(&mut svg, &names);
    }
    svg.push_str("</svg>\n");
    svg
}

/// The share of datagrams in each bucket of latency.
fn shares(latency: &Latency) -> String {
    let mut before = 0;
    let mut bars = Vec::new();
    for (bound, up_to) in &latency.buckets {
        bars.push((short(bound * 1e3), (up_to - before) as f64 / latency.count as f64 * 100.0));
        before = *up_to;
    }
    bars.push(("more".to_owned(), (latency.count - before) as f64 / latency.count as f64 * 100.0));
    let most = bars.iter().map(|(_, share)| *share).fold(0.0, f64::max);
    let (mut svg, top) = open("Arrival to recorded: % of datagrams up to ms", most);
    let room = (WIDTH - LEFT - RIGHT) / bars.len() as f64;
    for (place, (label, share)) in bars.iter().enumerate() {
        let (x, y) = (LEFT + room * place as f64, height(*share, top));
        let _ = writeln!(
            svg,
            "<rect class=\"first\" x=\"{:.1}\" y=\"{y:.1}\" width=\"{:.1}\" height=\"{:.1}\">\
             <title>up to {label} ms: {share:.2} %</title></rect>\
             <text class=\"x small\" x=\"{:.1}\" y=\"{}\">{label}</text>",
            x + 1.5,
            room - 3.0,
            HEIGHT - BOTTOM - y,
            x + room / 2.0,
            HEIGHT - 14.0
        );
    }
    svg.push_str("</svg>\n");
    svg
}

/// Bars beside their ceilings; each ceiling is as high as any other, so that what counts can be seen: the share of it.
fn against(title: &str, unit: &str, bars: &[(&str, f64, f64)]) -> String {
    let most = bars.iter().map(|(_, value, ceiling)| value / ceiling * 100.0).fold(100.0, f64::max);
    let (mut svg, top) = open(&format!("{title}: % of the ceiling in {unit}"), most.min(200.0));
    let room = (WIDTH - LEFT - RIGHT) / bars.len() as f64;
    for (place, (name, value, ceiling)) in bars.iter().enumerate() {
        let share = value / ceiling * 100.0;
        let (x, y) = (LEFT + room * place as f64, height(share, top));
        let class = if share <= 100.0 { "first" } else { "over" };
        let _ = writeln!(
            svg,
            "<rect class=\"{class}\" x=\"{:.1}\" y=\"{y:.1}\" width=\"{:.1}\" height=\"{:.1}\">\
             <title>{name}: {value:.2} of {ceiling} {unit}</title></rect>\
             <text class=\"x\" x=\"{middle:.1}\" y=\"{}\">{name}</text>\
             <text class=\"x value\" x=\"{middle:.1}\" y=\"{:.1}\">{} of {}</text>",
            x + 8.0,
            room - 16.0,
            HEIGHT - BOTTOM - y,
            HEIGHT - 14.0,
            y - 4.0,
            short(*value),
            short(*ceiling),
            middle = x + room / 2.0,
        );
    }
    let y = height(100.0, top);
    let _ =
        writeln!(svg, "<line class=\"ceiling\" x1=\"{LEFT}\" x2=\"{}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>", WIDTH - RIGHT);
    svg.push_str("</svg>\n");
    svg
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::super::tests::example;
    use super::*;

    #[test]
    fn the_page_is_whole_escaped_and_fetches_nothing() {
        let page = render(&example());
        assert!(page.starts_with("<!DOCTYPE html>") && page.ends_with("</html>\n"));
        assert!(page.contains("a{b=&quot;&lt;c&gt;&quot;}: expected 1, found 2"), "{page}");
        for outside in ["http://", "https://", "src=", "url(", "@import", "<link", "<script"] {
            assert!(!page.contains(outside), "{outside}");
        }
        // Two of ceilings (low has one), four for each scenario.
        assert_eq!(page.matches("<svg ").count(), 2 + 2 * 4);
        assert_eq!(page.matches("<svg ").count(), page.matches("</svg>").count());
        assert!(!page.contains("NaN") && !page.contains("inf"), "{page}");
    }

    #[test]
    fn axes_have_few_round_steps() {
        for (most, expected) in [(1.0, 0.2), (101.0, 50.0), (8.0, 2.0), (500_000.0, 100_000.0)] {
            assert_eq!(step(most), expected, "{most}");
        }
        for (number, text) in [(0.0, "0"), (0.25, "0.25"), (9000.0, "9000"), (200_000.0, "200k"), (1.5e6, "1.5M")] {
            assert_eq!(short(number), text);
        }
    }
}
