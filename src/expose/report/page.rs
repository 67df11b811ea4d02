//! The status page: what `/api/v1/status` tells, in the order in which somebody on call asks.
//!
//! In: the answer of `/api/v1/status`, and what hit a limit. Out: HTML, and the policy a browser is to hold it to.
//! Always: whole without script; script only asks for the same page again and shows what has changed. Every text from
//! outside goes through [`escape`], and nothing is loaded from anywhere.

use std::fmt::Write as _;
use std::sync::LazyLock;

use rustls::crypto::ring::cipher_suite::TLS13_AES_128_GCM_SHA256;
use serde_json::Value;

use crate::expose::web::basic;
use crate::model::DropReason;

/// Style and script, around marks for what is shown.
const FRAME: &str = include_str!("page.html");

/// What the page may do: run the one style and the one script that are in it, and ask where it came from.
pub(crate) static POLICY: LazyLock<String> = LazyLock::new(|| {
    let (style, script) = (hash(inside("style")), hash(inside("script")));
    format!(
        "default-src 'none'; style-src 'sha256-{style}'; script-src 'sha256-{script}'; connect-src 'self'; \
         img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
});

/// The text of the one element of this name in [`FRAME`].
fn inside(element: &str) -> &'static str {
    let (_, rest) = FRAME.split_once(&format!("<{element}>")).expect("the frame has it");
    rest.split_once(&format!("</{element}>")).expect("it ends").0
}

/// SHA-256 in base64, as a policy names a script.
fn hash(text: &str) -> String {
    let suite = TLS13_AES_128_GCM_SHA256.tls13().expect("it is one of TLS 1.3");
    basic(suite.common.hash_provider.hash(text.as_bytes()).as_ref()).split_off("Basic ".len())
}

/// The page of a status and the latest hits of limits.
pub(super) fn page(status: &Value, limited: &[Value], metrics_path: &str) -> String {
    let mut main = String::with_capacity(16 * 1024);
    verdict(&mut main, &status["verdict"]);
    first_line(&mut main, status);
    scrapes(&mut main, &status["scrapes"], metrics_path);
    way(&mut main, status);
    limits(&mut main, status, limited);
    families(&mut main, status);
    hints(&mut main, &status["hints"]);
    refused(&mut main, &status["refused"]);
    configuration(&mut main, &status["configuration"]);
    let about = format!(
        "version {}, up {}",
        escape(text(&status["version"])),
        span(status["uptime_seconds"].as_f64().unwrap_or_default())
    );
    let footer = format!(
        "<a href=\"{}\">metrics</a>, as JSON: <a href=\"api/v1/status\">status</a>, \
         <a href=\"api/v1/cardinality\">cardinality</a>, <a href=\"api/v1/top\">heavy hitters</a>, \
         <a href=\"api/v1/config\">configuration</a>; <a href=\"-/healthy\">health</a>, \
         <a href=\"-/ready\">readiness</a>",
        // Not from the root, which a proxy may have moved.
        escape(metrics_path.trim_start_matches('/'))
    );
    let mut rest = FRAME;
    let mut page = String::with_capacity(FRAME.len() + main.len() + 1024);
    let icon = icon(text(&status["verdict"]["level"]));
    for (mark, part) in [("icon", &icon), ("about", &about), ("main", &main), ("footer", &footer)] {
        let (before, after) = rest.split_once(&format!("<!--{mark}-->")).expect("the frame has every mark");
        page.push_str(before);
        page.push_str(part);
        rest = after;
    }
    page + rest
}

/// A dot in the colour of the verdict, for the tab.
fn icon(level: &str) -> String {
    let colour = match level {
        "ok" => "2da44e",
        "warning" => "d4a017",
        _ => "d1242f",
    };
    format!(
        "<link id=\"icon\" rel=\"icon\" href=\"data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' \
         viewBox='0 0 8 8'%3E%3Ccircle cx='4' cy='4' r='3.5' fill='%23{colour}'/%3E%3C/svg%3E\">"
    )
}

/// Writes a section; formatting into a `String` cannot fail.
macro_rules! put {
    ($out:expr, $($part:tt)*) => { _ = write!($out, $($part)*) };
}

fn verdict(out: &mut String, verdict: &Value) {
    let level = escape(text(&verdict["level"]));
    let text = escape(text(&verdict["text"]));
    put!(out, "<section id=\"verdict\" class=\"{level}\"><p><b>{level}</b> {text}</p></section>\n");
}

/// Where it waits, until something came.
fn first_line(out: &mut String, status: &Value) {
    let ledger = &status["ledger"];
    let waits = count(&ledger["bytes"]) + count(&ledger["kernel_dropped_datagrams"]) == 0;
    put!(out, "<section id=\"first\"{}><h2>Send it a first line</h2>", hidden(!waits));
    put!(out, "<p>Nothing was received yet. It waits on ");
    for (number, listener) in rows(&status["listeners"]).enumerate() {
        let and = if number > 0 { " and on " } else { "" };
        let kind = escape(text(&listener["listener"]));
        put!(out, "{and}{kind} <code>{}</code>", escape(text(&listener["address"])));
    }
    put!(out, ".</p>");
    if let Some(line) = status["test_line"].as_str() {
        put!(out, "<p>Paste this on the same machine; a second later it is counted below:</p>");
        put!(out, "<pre>{}</pre>", escape(line));
    }
    out.push_str("</section>\n");
}

fn scrapes(out: &mut String, scrapes: &Value, metrics_path: &str) {
    put!(out, "<section id=\"scrapes\"><h2>Scrapes</h2>");
    match scrapes["last_seconds_ago"].as_f64() {
        Some(ago) => {
            let formats = ["protobuf", "openmetrics", "text"].map(|format| (format, count(&scrapes[format])));
            let formats: Vec<String> = formats
                .iter()
                .filter(|(_, n)| *n > 0)
                .map(|(format, n)| format!("{} as {format}", whole(*n)))
                .collect();
            let of = bytes(count(&scrapes["last_bytes"]));
            put!(out, "<p>Last scraped {} ago, {of}; in all {}.</p>", span(ago), formats.join(", "));
        }
        None => {
            put!(out, "<p>Nobody has scraped <code>{}</code> yet. For Prometheus:</p>", escape(metrics_path));
            put!(out, "<pre>{}</pre>", escape(text(&scrapes["scrape_configs"]).trim_end()));
        }
    }
    out.push_str("</section>\n");
}

/// From the socket to the series, with what was lost where.
fn way(out: &mut String, status: &Value) {
    let (ledger, rates) = (&status["ledger"], &status["rates"]);
    let per_second = |key: &str| rate(rates[key].as_f64().unwrap_or_default());
    put!(out, "<section id=\"way\"><h2>The way of a sample</h2><ol class=\"way\">");
    let kernel = count(&ledger["kernel_dropped_datagrams"]);
    put!(out, "<li><span>datagrams and reads</span><strong>{}</strong>", whole(count(&ledger["datagrams"])));
    put!(out, "<span>{}, {} in all</span>", per_second("datagrams"), bytes(count(&ledger["bytes"])));
    let bad = if kernel > 0 { " class=\"bad\"" } else { "" };
    put!(out, "<span{bad}>{} dropped by the kernel</span></li>", whole(kernel));
    put!(out, "<li><span>lines</span><strong>{}</strong>", whole(count(&ledger["lines"])));
    put!(out, "<span>{}</span></li>", per_second("lines"));
    put!(out, "<li><span>samples recorded</span><strong>{}</strong>", whole(count(&ledger["recorded"])));
    put!(out, "<span>{}</span>", per_second("recorded"));
    let overflow = count(&ledger["recorded_in_overflow"]);
    if overflow > 0 {
        put!(out, "<span class=\"care\">{} of them in overflow series</span>", whole(overflow));
    }
    for (kind, n) in entries(&ledger["recorded_by_type"]) {
        put!(out, "<span>{} {}</span>", whole(count(n)), escape(kind));
    }
    let (dropped, lost) = (count(&ledger["dropped"]), count(&ledger["lost"]));
    let bad = if lost > 0 { " class=\"bad\"" } else { "" };
    put!(out, "</li><li><span>samples not recorded</span><strong>{}</strong>", whole(dropped));
    put!(out, "<span{bad}>{} lost, {}</span>", whole(lost), per_second("lost"));
    put!(out, "<span>{} left out on purpose</span></li></ol>", whole(dropped.saturating_sub(lost)));
    why(out, ledger, dropped);
    figures(out, status);
    listeners(out, &status["listeners"]);
    out.push_str("</section>\n");
}

/// Why samples were not recorded, and tags not taken over.
fn why(out: &mut String, ledger: &Value, dropped: u64) {
    let mut reasons: Vec<(&str, u64)> =
        entries(&ledger["dropped_by_reason"]).map(|(reason, n)| (reason, count(n))).collect();
    if !reasons.is_empty() {
        reasons.sort_by_key(|(_, n)| std::cmp::Reverse(*n));
        put!(out, "<h3>Not recorded, by reason</h3>");
        head(out, &["reason", "#samples", "#share", "what to do"]);
        for (reason, n) in reasons {
            let advice = DropReason::ALL.iter().find(|it| it.label() == reason).map_or("", |it| advice(*it));
            put!(
                out,
                "<tr><th scope=\"row\"><code>{}</code></th><td class=\"n\" data-of=\"samples\">{}</td>",
                escape(reason),
                whole(n)
            );
            put!(
                out,
                "<td class=\"n\" data-of=\"share\">{}</td><td>{}</td></tr>",
                percent(n as f64 / dropped.max(1) as f64),
                escape(advice)
            );
        }
        out.push_str("</tbody></table>");
    }
    for (heading, key) in [
        ("Tags left out or cut, their samples recorded", "tags_dropped_by_reason"),
        ("What Datadog clients tell of themselves", "told_by_clients"),
    ] {
        let parts: Vec<String> = entries(&ledger[key])
            .map(|(what, n)| format!("{} <code>{}</code>", whole(count(n)), escape(what)))
            .collect();
        if !parts.is_empty() {
            put!(out, "<h3>{heading}</h3><p>{}</p>", parts.join(", "));
        }
    }
}

/// How well it keeps up.
fn figures(out: &mut String, status: &Value) {
    out.push_str("<dl>");
    let mut figure = |name: &str, text: String| put!(out, "<div><dt>{name}</dt><dd>{text}</dd></div>");
    let rates: Vec<f64> = rows(&status["sampling"]["rates"]).filter_map(Value::as_f64).collect();
    let least = rates.iter().copied().fold(1.0, f64::min);
    let mode = escape(text(&status["sampling"]["mode"]));
    figure(
        "Sampling",
        if least < 1.0 {
            format!(
                "<span class=\"care\">keeps {} of the lines at least, each weighted ({mode})</span>",
                percent(least)
            )
        } else {
            format!("every line is kept ({mode})")
        },
    );
    let loads: Vec<String> = rows(&status["cpu"]["load"]).filter_map(Value::as_f64).map(percent).collect();
    if !loads.is_empty() {
        figure("Load of each worker", loads.join(", "));
    }
    let queue = &status["queue"];
    if let Some(fill) = queue["fill"].as_f64() {
        figure("Receive buffer", format!("{} of {} full", percent(fill), bytes(count(&queue["limit_bytes"]))));
    }
    let latency = match &status["latency"]["last_minute"] {
        Value::Null => ("since the start", &status["latency"]["since_start"]),
        minute => ("last minute", minute),
    };
    if let (when, Some(of)) = (latency.0, latency.1.as_object()) {
        let part = |key: &str| seconds(of[key].as_f64().unwrap_or_default());
        let text = format!("P50 {}, P95 {}, P99 {} ({when})", part("p50"), part("p95"), part("p99"));
        figure("From arrival to recorded", text);
    }
    if let Some(hits) = status["cache"]["hit_rate"].as_f64() {
        figure("Known identities", format!("{} of the look-ups", percent(hits)));
    }
    let memory = &status["memory"];
    let series = bytes(count(&memory["series_bytes"]));
    figure("Memory", format!("{}, of which series {series}", bytes(count(&memory["resident_bytes"]))));
    let new = status["rates"]["new_series"].as_f64().unwrap_or_default();
    figure("New series", rate(new));
    out.push_str("</dl>");
}

fn listeners(out: &mut String, listeners: &Value) {
    put!(out, "<h3>Listeners</h3>");
    head(out, &["listener", "address", "state", "#datagrams or reads", "#bytes"]);
    for it in rows(listeners) {
        let connections = count(&it["connections"]);
        let state = match (it["up"].as_bool(), connections) {
            (Some(false), _) => "<span class=\"bad\">failing, and tried again</span>".to_owned(),
            (_, 0) => "listening".to_owned(),
            (_, n) => format!("{} connected", whole(n)),
        };
        put!(out, "<tr><th scope=\"row\">{}</th>", escape(text(&it["listener"])));
        put!(out, "<td class=\"any\"><code>{}</code></td><td>{state}</td>", escape(text(&it["address"])));
        put!(out, "<td class=\"n\" data-of=\"datagrams or reads\">{}</td>", whole(count(&it["datagrams"])));
        put!(out, "<td class=\"n\" data-of=\"received\">{}</td></tr>", bytes(count(&it["bytes"])));
    }
    out.push_str("</tbody></table>");
}

fn limits(out: &mut String, status: &Value, limited: &[Value]) {
    put!(out, "<section id=\"limits\"><h2>Limits</h2>");
    head(out, &["limit", "#used", "#of", "share"]);
    for limit in rows(&status["limits"]) {
        let name = text(&limit["limit"]);
        let figure = |n: u64| if name == "max_bytes" { bytes(n) } else { whole(n) };
        let share = limit["share"].as_f64().unwrap_or_default();
        put!(out, "<tr><th scope=\"row\"><code>{}</code></th>", escape(name));
        put!(out, "<td class=\"n\" data-of=\"used\">{}</td>", figure(count(&limit["used"])));
        put!(out, "<td class=\"n\" data-of=\"of\">{}</td>", figure(count(&limit["most"])));
        put!(out, "<td class=\"wide\">{}{}</td></tr>", percent(share), bar(share));
    }
    out.push_str("</tbody></table>");
    if limited.is_empty() {
        put!(out, "<p class=\"soft\">Nothing has run into a limit.</p>");
    } else {
        let now = now();
        put!(out, "<h3>What ran into a limit, the latest first</h3>");
        head(out, &["family", "limit", "first", "last"]);
        for hit in limited {
            put!(out, "<tr><th scope=\"row\" class=\"line\">{}</th>", escape(text(&hit["family"])));
            put!(out, "<td><code>{}</code></td>", escape(text(&hit["limit"])));
            put!(out, "<td data-of=\"first\">{} ago</td>", since(now, &hit["first"]));
            put!(out, "<td data-of=\"last\">{} ago</td></tr>", since(now, &hit["last"]));
        }
        out.push_str("</tbody></table>");
    }
    out.push_str("</section>\n");
}

fn families(out: &mut String, status: &Value) {
    let in_all = count(&status["families_in_all"]);
    put!(out, "<section id=\"families\"><h2>Families by cost</h2>");
    if in_all == 0 {
        put!(out, "<p class=\"soft\">There are none yet.</p></section>\n");
        return;
    }
    head(out, &["name", "type", "#series", "#sample lines", "share", "labels, with their values"]);
    for family in rows(&status["families"]) {
        put!(out, "<tr><th scope=\"row\" class=\"line\">{}</th>", escape(text(&family["name"])));
        put!(out, "<td>{}", escape(text(&family["type"])));
        if family["overflow"].as_bool() == Some(true) {
            out.push_str(", <span class=\"care\">overflows</span>");
        }
        put!(out, "</td><td class=\"n\" data-of=\"series\">{}</td>", whole(count(&family["series"])));
        put!(out, "<td class=\"n\" data-of=\"sample lines\">{}</td>", whole(count(&family["sample_lines"])));
        let share = family["share"].as_f64().unwrap_or_default();
        put!(out, "<td>{}{}</td><td class=\"any\">", percent(share), plain_bar(share));
        for (number, label) in rows(&family["labels"]).enumerate() {
            let comma = if number > 0 { ", " } else { "" };
            let name = escape(text(&label["name"]));
            put!(out, "{comma}<code>{name}</code>&nbsp;{}", whole(count(&label["values"])));
        }
        out.push_str("</td></tr>");
    }
    out.push_str("</tbody></table>");
    let shown = rows(&status["families"]).count() as u64;
    if in_all > shown {
        put!(out, "<p class=\"soft\">The first {shown} of {}.</p>", whole(in_all));
    }
    out.push_str("</section>\n");
}

fn hints(out: &mut String, hints: &Value) {
    let none = rows(hints).next().is_none();
    put!(out, "<section id=\"hints\"{}><h2>Hints</h2>", hidden(none));
    for hint in rows(hints) {
        put!(out, "<p>{}</p><pre>{}</pre>", escape(text(&hint["text"])), escape(text(&hint["toml"]).trim_end()));
    }
    out.push_str("</section>\n");
}

fn refused(out: &mut String, refused: &Value) {
    put!(out, "<section id=\"refused\"><h2>The last refused lines</h2>");
    if rows(refused).next().is_none() {
        put!(out, "<p class=\"soft\">None was refused.</p></section>\n");
        return;
    }
    put!(out, "<p class=\"soft\">At most one a second for each reason; values of bucketed tags are struck out. ");
    put!(out, "<code>statsieve explain</code> shows what would be right.</p>");
    head(out, &["#when", "reason", "line"]);
    let now = now();
    for line in rows(refused) {
        put!(out, "<tr><td class=\"n\">{} ago</td>", since(now, &line["at"]));
        put!(out, "<td><code>{}</code></td>", escape(text(&line["reason"])));
        put!(out, "<td class=\"line\">{}</td></tr>", escape(text(&line["line"])));
    }
    out.push_str("</tbody></table></section>\n");
}

fn configuration(out: &mut String, configuration: &Value) {
    put!(out, "<section id=\"configuration\"><h2>Configuration</h2>");
    if configuration["in_force"].as_bool() == Some(false) {
        put!(out, "<p class=\"bad\">The last one that was read is refused; the log has all problems, and so has ");
        put!(out, "<code>statsieve check</code>. What is in force came from:</p>");
    }
    match configuration["file"].as_str() {
        Some(file) => put!(out, "<p><code>{}</code>, over the built-in defaults", escape(file)),
        None => put!(out, "<p>The built-in defaults, with no file over them"),
    }
    match count(&configuration["overrides"]) {
        0 => {}
        1 => put!(out, ", under 1 override"),
        several => put!(out, ", under {several} overrides"),
    }
    let read = configuration["read_at"].as_f64().map(|at| span((now() as f64 - at).max(0.0)));
    let read = read.map(|ago| format!(", read {ago} ago")).unwrap_or_default();
    put!(out, ". Hash <code>{}</code>{read}.</p></section>\n", escape(text(&configuration["hash"])));
}

/// What to do about samples that are not recorded for a reason.
pub(crate) const fn advice(reason: DropReason) -> &'static str {
    match reason {
        DropReason::MalformedLine => "send name:value|type; is something else using the port?",
        DropReason::MalformedValue => "send a number, such as 1, 8.25 or 1e3",
        DropReason::MalformedField => "no | without a field behind it",
        DropReason::SampleRate => "a rate above 0 and at most 1",
        DropReason::UnknownType => "send c, g, ms, h, d or s",
        DropReason::MixedTagStyles => "one way of writing tags on a line",
        DropReason::InvalidUtf8 => "send UTF-8",
        DropReason::LineTooLong => "shorter lines, and a newline between them",
        DropReason::NegativeCounter => "use a gauge for what can go down",
        DropReason::NotFinite => "look for NaN or infinity in the bot's arithmetic",
        DropReason::TypeConflict => "another name: the first type seen for a name wins",
        DropReason::ReservedLabel => "rename the tag, or take it out by labels.drop",
        DropReason::EmptyName => "a name in front of the tags",
        DropReason::NameTooLong => "a shorter name; look for an id in it",
        DropReason::MappingDrop => "nothing: a mapping rule says so",
        DropReason::Sampled => "nothing at once: what was kept counts for it; else more CPU or workers",
        DropReason::RateLimited => "fewer samples, or a higher quota in [rate_limit]",
        DropReason::Cardinality => "bucket or drop the label that grows, or raise the limit",
    }
}

/// The head of a table; a column of figures begins with `#`.
fn head(out: &mut String, columns: &[&str]) {
    out.push_str("<table><thead><tr>");
    for column in columns {
        match column.strip_prefix('#') {
            Some(figures) => put!(out, "<th scope=\"col\" class=\"n\">{figures}</th>"),
            None => put!(out, "<th scope=\"col\">{column}</th>"),
        }
    }
    out.push_str("</tr></thead><tbody>");
}

/// A bar that turns with what it fills.
fn bar(share: f64) -> String {
    let class = match share {
        full if full >= 0.99 => " full",
        near if near >= 0.8 => " near",
        _ => "",
    };
    drawn_bar(share, class)
}

fn plain_bar(share: f64) -> String {
    drawn_bar(share, "")
}

fn drawn_bar(share: f64, class: &str) -> String {
    let width = 100.0 * share.clamp(0.0, 1.0);
    format!("<svg class=\"bar{class}\" aria-hidden=\"true\"><rect width=\"{width:.1}%\" height=\"100%\"/></svg>")
}

fn hidden(is_hidden: bool) -> &'static str {
    if is_hidden { " hidden" } else { "" }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn count(value: &Value) -> u64 {
    value.as_u64().unwrap_or_default()
}

fn rows(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn entries(value: &Value) -> impl Iterator<Item = (&str, &Value)> {
    value.as_object().into_iter().flatten().map(|(key, value)| (key.as_str(), value))
}

/// Whole seconds since 1970.
fn now() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

fn since(now: u64, at: &Value) -> String {
    span(now.saturating_sub(count(at)) as f64)
}

/// Text as it may stand in HTML, attributes included. What cannot be seen, or turns the direction of writing, is spelt.
pub(crate) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            '\n' => out.push('\n'),
            hidden if is_unseen(hidden) => put!(out, "\\u{{{:x}}}", u32::from(hidden)),
            seen => out.push(seen),
        }
    }
    out
}

/// Whether a character shows nothing, or changes how its neighbours are shown.
pub(crate) fn is_unseen(letter: char) -> bool {
    letter.is_control()
        || matches!(letter, '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}')
        || matches!(letter, '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e0fff}')
}

/// 1234567 as 1,234,567.
pub(crate) fn whole(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// Of one second.
pub(crate) fn rate(per_second: f64) -> String {
    match per_second {
        few if few > 0.0 && few < 10.0 => format!("{few:.1}/s"),
        many => format!("{}/s", whole(many.round() as u64)),
    }
}

pub(crate) fn percent(share: f64) -> String {
    let percent = 100.0 * share;
    match percent {
        none if none <= 0.0 => "0 %".to_owned(),
        tiny if tiny < 0.1 => "<0.1 %".to_owned(),
        // Never said to be all of it if it is not.
        almost if (99.9..100.0).contains(&almost) => "99.9 %".to_owned(),
        part if part < 10.0 || (90.0..100.0).contains(&part) => format!("{part:.1} %"),
        most => format!("{most:.0} %"),
    }
}

pub(crate) fn bytes(n: u64) -> String {
    let (kib, mib, gib) = (1u64 << 10, 1u64 << 20, 1u64 << 30);
    match n {
        n if n < kib => format!("{n} B"),
        n if n < mib => format!("{:.1} KiB", n as f64 / kib as f64),
        n if n < gib => format!("{:.1} MiB", n as f64 / mib as f64),
        n => format!("{:.1} GiB", n as f64 / gib as f64),
    }
}

fn seconds(seconds: f64) -> String {
    match seconds {
        short if short < 1e-3 => format!("{:.0} \u{b5}s", 1e6 * short),
        short if short < 1.0 => format!("{:.1} ms", 1e3 * short),
        long => format!("{long:.1} s"),
    }
}

/// A length of time, to the two largest units.
pub(crate) fn span(seconds: f64) -> String {
    let seconds = seconds.max(0.0) as u64;
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, _) => format!("{minutes} min {} s", seconds % 60),
        (0, ..) => format!("{hours} h {} min", minutes % 60),
        _ => format!("{days} d {} h", hours % 24),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_from_outside_stays_text_and_what_cannot_be_seen_is_spelt() {
        assert_eq!(escape("/<a href=\"'&"), "/&lt;a href=&quot;&#39;&amp;");
        assert_eq!(escape("a\u{202e}b\u{200f}\t\u{7f}c\nd\u{e4}"), "a\\u{202e}b\\u{200f}\\u{9}\\u{7f}c\nd\u{e4}");
    }

    #[test]
    fn figures_are_written_for_a_person() {
        let whole =
            [(0, "0"), (999, "999"), (1000, "1,000"), (1_234_567, "1,234,567")].map(|(n, text)| (whole(n), text));
        whole.iter().for_each(|(found, text)| assert_eq!(found, text));
        for (share, text) in
            [(0.0, "0 %"), (0.0001, "<0.1 %"), (0.05, "5.0 %"), (0.5, "50 %"), (0.99999, "99.9 %"), (1.0, "100 %")]
        {
            assert_eq!(percent(share), text);
        }
        for (seconds, text) in
            [(0.4, "0 s"), (59.0, "59 s"), (61.0, "1 min 1 s"), (3660.0, "1 h 1 min"), (90_000.0, "1 d 1 h")]
        {
            assert_eq!(span(seconds), text);
        }
        for (n, text) in [(10, "10 B"), (1536, "1.5 KiB"), (64 << 20, "64.0 MiB"), (3 << 30, "3.0 GiB")] {
            assert_eq!(bytes(n), text);
        }
        assert_eq!([rate(0.0), rate(0.25), rate(1234.4)], ["0/s", "0.2/s", "1,234/s"]);
        assert_eq!([seconds(0.0000421), seconds(0.0123), seconds(2.0)], ["42 \u{b5}s", "12.3 ms", "2.0 s"]);
    }

    #[test]
    fn a_page_of_nothing_is_whole() {
        let page = page(&Value::Null, &[], "/m\"x");
        assert!(page.contains("href=\"m&quot;x\"") && !page.contains("<!--"));
        assert!(POLICY.contains("script-src 'sha256-"), "{}", *POLICY);
    }

    #[test]
    fn a_hash_is_that_of_the_published_vector() {
        assert_eq!(hash("abc"), "ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0=");
    }
}
