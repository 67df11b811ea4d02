//! Writes the README's section "Performance" from what the benches left behind.
//!
//! In: `target/performance/NAME.md`, the Markdown that a bench printed, and criterion's estimates. Out: the README,
//! with what stands between two marks replaced. Always: what was not run is not mentioned, and nothing else changes.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde_json::Value;

use crate::machine;
use crate::table::short;

const BEGIN: &str = "<!-- performance: what stands up to the end mark is written by tests/bench/run -->\n";
const END: &str = "<!-- performance: end -->\n";

/// Older results of criterion are those of another run.
const OLDEST: Duration = Duration::from_secs(3600);

/// Groups of criterion, in their order: the bench, the group, what its table is about, what an element is.
const GROUPS: [(&str, &str, &str, &str); 7] = [
    ("ingest", "ingest", "From parsing a line to the number it changes, on one core and without a socket", "line"),
    (
        "ingest",
        "stages",
        "The stages of that: a bot's lines read, their identities found, values recorded",
        "line or value",
    ),
    (
        "mapping",
        "mapping",
        "Names never seen before, under so many mapping rules; of `compile`, reading the file",
        "line or rule",
    ),
    ("expose", "encode", "Writing the exposition from series that exist", "series"),
    ("expose", "scrape", "A whole scrape over HTTP, by number of series", "series"),
    ("expose", "record", "Recording lines while someone scrapes", "line"),
    ("expose", "new_series", "Making series while someone scrapes", "series"),
];

/// Words for what the names of `ingest` measure; the others speak for themselves.
const WORDS: [(&str, &str); 16] = [
    ("hot_without_tags", "a known series without tags, `bot.messages.photo:1\\|c`"),
    ("hot_with_tags", "with two tags"),
    ("hot_bucketed_user", "with a user id of 100,000 and a tag"),
    ("bot_profile", "the bot profile, all its lines in turn"),
    ("hot_sampled", "a sampled counter, `\\|@0.1`"),
    ("hot_gauge", "a gauge"),
    ("hot_timer", "a timer with decimals, into native buckets as well"),
    ("hot_timer_without_native", "the same without them, `observer.native_factor = 1`"),
    ("hot_timer_in_summary", "the same in a summary"),
    ("hot_set", "a member of a set"),
    ("under_both_quotas", "two tags, under both quotas"),
    ("sampled_by_half", "two tags, half of the lines thinned out"),
    ("sampled_out", "thinned out under load"),
    ("refused", "refused for its value"),
    ("new_identity", "a label set never seen before, its values past the 200th folded"),
    ("one_off_at_limit", "a label set never seen before, at a limit"),
];

/// Rewrites the README of this package.
///
/// # Errors
/// If there are no results, if a mark is missing, or if a file cannot be read or written.
pub(crate) fn write() -> io::Result<()> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md");
    let readme = fs::read_to_string(&path)?;
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap_or(Path::new("target"));
    let section = section(target)?;
    let new = replace(&readme, &section).ok_or_else(|| io::Error::other("README.md has not both marks"))?;
    fs::write(path, new)
}

/// The README with another section.
fn replace(readme: &str, section: &str) -> Option<String> {
    let begin = readme.find(BEGIN)? + BEGIN.len();
    let end = begin + readme[begin..].find(END)?;
    Some(format!("{}{section}{}", &readme[..begin], &readme[end..]))
}

fn section(target: &Path) -> io::Result<String> {
    let mut text = format!(
        "\nMeasured by `tests/bench/run`, which measures the same on your machine and writes it here, on\n{}.\nTrust \
         ratios more than figures where the machine is virtual or shared.\n",
        machine::describe()
    );
    let mut parts = 0;
    for (file, heading) in [("peers", "Receivers under the same load"), ("memory", "Memory")] {
        let path = target.join("performance").join(file).with_extension("md");
        let Ok(printed) = fs::read_to_string(&path) else { continue };
        if printed.trim().is_empty() {
            continue;
        }
        write!(text, "\n### {heading}\n\n{}\n", printed.trim()).expect("text");
        parts += 1;
    }
    let mut groups: BTreeMap<String, Vec<(String, f64)>> = BTreeMap::new();
    for benchmark in benchmarks(&target.join("criterion")) {
        if let Some((group, name, ns)) = estimate(&benchmark) {
            groups.entry(group).or_default().push((name, ns));
        }
    }
    if !groups.is_empty() {
        text.push_str("\n### Single steps\n");
    }
    for (bench, group, about, element) in GROUPS {
        let Some(mut results) = groups.remove(group) else { continue };
        parts += 1;
        let place = |name: &str| WORDS.iter().position(|(known, _)| *known == name).unwrap_or(WORDS.len());
        results.sort_by(|a, b| place(&a.0).cmp(&place(&b.0)).then_with(|| natural(&a.0).cmp(&natural(&b.0))));
        write!(text, "\n{about} (`cargo bench --bench {bench}`, median):\n\n| | ns a {element} |\n|---|---:|\n")
            .expect("text");
        for (name, ns) in results {
            let words = WORDS
                .iter()
                .find(|(known, _)| *known == name)
                .map_or_else(|| format!("`{name}`"), |(_, w)| (*w).to_owned());
            writeln!(text, "| {words} | {} |", short(ns)).expect("text");
        }
    }
    if parts == 0 {
        return Err(io::Error::other("no results; run tests/bench/run"));
    }
    text.push('\n');
    Ok(text)
}

/// Numbers within a name by their value.
fn natural(name: &str) -> Vec<(u64, String)> {
    name.split('/').map(|part| (part.parse().unwrap_or(0), part.to_owned())).collect()
}

/// Folders of criterion's latest results, at any depth.
fn benchmarks(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.ends_with("new") && path.join("estimates.json").is_file() {
            found.push(path);
        } else if path.is_dir() {
            found.extend(benchmarks(&path));
        }
    }
    found.sort();
    found
}

/// Group, name and ns of one element.
fn estimate(folder: &Path) -> Option<(String, String, f64)> {
    let file = folder.join("estimates.json");
    let written = fs::metadata(&file).ok()?.modified().ok()?;
    if SystemTime::now().duration_since(written).is_ok_and(|age| age > OLDEST) {
        return None;
    }
    let read = |file: &Path| -> Option<Value> { serde_json::from_str(&fs::read_to_string(file).ok()?).ok() };
    let (estimates, benchmark) = (read(&file)?, read(&folder.join("benchmark.json"))?);
    let ns = estimates.pointer("/median/point_estimate")?.as_f64()?;
    let elements = benchmark.pointer("/throughput/Elements").and_then(Value::as_f64).unwrap_or(1.0);
    let group = benchmark.get("group_id")?.as_str()?.to_owned();
    let full = benchmark.get("full_id")?.as_str()?;
    let name = full.strip_prefix(&group).map_or(full, |name| name.trim_start_matches('/')).to_owned();
    Some((group, name, ns / elements))
}
