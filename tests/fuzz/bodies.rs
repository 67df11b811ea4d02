//! What each fuzz target does with its bytes: the fuzzer and the replay test run the same functions.
//!
//! In: any bytes. Out: nothing, or a panic that says what did not hold.
//! Not here: which bytes (`seeds`, `corpus`, `regressions`, the fuzzer).
//! Always: the same bytes take the same way, but for the seeds of hashes, which decide no answer.
//!
//! What was broken in one line, and how many inputs of a target said so in the replay, within seconds:
//!
//! - `config`: in `config::source`, tables of a file in the place of the defaults and not over them (27), a list of a
//!   file left out (13), rules for users overwritten by the defaults (7), the first override for the last (2), unknown
//!   keys taken (9); in `config::check` and `syntax`, a limit read from the key of another (38), a label that is no
//!   name (2), `le` as one, a label twice, a prefix that is no name, bounds that do not rise, a quantile twice, no
//!   buckets, registers that are no power of two (1 each, a seed); one hash for all texts (37).
//! - `exposition`: a quote left as it is in `map::labels::escape` (37).
//! - `framing`: in `listen::frame`, a length told by its fourth byte alone (5), a payload that does not end its last
//!   line (16), half a payload taken for whole (6), the end of a line that is passed over missed (52), a line noted as
//!   too long again and again (58), nothing said of a line cut short (11), a payload that is too long read (9), lines
//!   held behind the first newline (64), one byte less held (8), one more (4), no limit (15), the longest payload
//!   refused (1, a seed).
//! - `http`: every peer taken for the loopback in `expose::http` (1).
//! - `line`: a count of two for one value in `parse::glance` (83).
//! - `mapping`: in `map`, a special glob before an earlier general one (2), a glob for all types for one alone (38), a
//!   regular expression for any type (9), stars told from behind (16), a name not escaped (16), `honor_labels` the
//!   other way round (27), no scale (13), samples recorded that a rule drops (14), `le` from a rule (4); in
//!   `config::yaml`, rules not put in order (5), the least specific first (5), a label that is no name (4), a scale
//!   without end (1, a seed), a key unknown (the list of good seeds); in `config::convert`, no scale (13), no type
//!   (18), no ttl (12), no bounds (13), no native histogram (17), the rules from behind (34).
//! - `message`: lengths of three digits refused in `parse::message` (26).
//! - `pipeline`: in `aggregate`, a series removed though it was used since (14), a family kept from a reload by a
//!   refused sample (16); what `config` and `mapping` see of rules, too (180 and more each).
//!
//! Not seen: a sample at a limit that is refused for good, though there is room by now (`pipeline`; the model says
//! which samples may be refused, and not for how long; a unit test does).

#[path = "bodies/config.rs"]
mod config;
#[path = "bodies/http.rs"]
mod http;
#[path = "bodies/mapping.rs"]
mod mapping;
#[path = "bodies/model.rs"]
mod model;
#[path = "bodies/pipeline.rs"]
mod pipeline;
#[allow(dead_code, reason = "the property tests use more of it")]
#[path = "../properties/reader.rs"]
mod reader;
#[allow(dead_code, reason = "the property tests use more of it")]
#[path = "../properties/rig.rs"]
mod rig;
#[path = "bodies/terms.rs"]
mod terms;

use std::fs;
use std::path::PathBuf;
use std::sync::LazyLock;

use arbitrary::Unstructured;
use statsieve::config::{Config, Format};
use statsieve::listen::frame::{Framing, MOST_FRAME_BYTES, Piece};
use statsieve::model::{DropReason, SampleType};
use statsieve::parse::message::{is_message, message as read_message};
use statsieve::parse::{Line, Sample, Values, glance};

use rig::{Rig, SETTINGS, all_formats, dropped, lines, recorded};

/// What a target does with its bytes.
pub type Body = fn(&[u8]);

/// Every target by its name.
pub const TARGETS: [(&str, Body); 8] = [
    ("config", config),
    ("exposition", exposition),
    ("framing", framing),
    ("http", http),
    ("line", line),
    ("mapping", mapping),
    ("message", message),
    ("pipeline", pipeline),
];

/// The settings of the property tests, checked once.
static CONFIGS: LazyLock<Vec<Config>> = LazyLock::new(|| SETTINGS.iter().map(|set| rig::config(set)).collect());

fn choose(choice: u8) -> &'static Config {
    &CONFIGS[usize::from(choice) % CONFIGS.len()]
}

/// The first byte chooses settings, a line follows.
pub fn line(data: &[u8]) {
    let [choice, text @ ..] = data else { return };
    let config = choose(*choice);
    let text = text.split(|byte| *byte == b'\n').next().unwrap_or_default();
    if std::str::from_utf8(text).is_ok() {
        let answer = parsed(text, config);
        let around = [b"x:1|c|#", text, b"|#y:z\n"].concat();
        assert_eq!(parsed(&around[7..7 + text.len()], config), answer, "what surrounds a line changes nothing");
    }
    let (alone, between) = (counts(text, config), counts(&[b"x:1|g\n", text, b"\nx:1|g"].concat(), config));
    let blank = matches!(text, [] | b"\r");
    assert_eq!(alone[0], u64::from(!blank), "one line");
    assert!(blank || alone[1..].iter().sum::<u64>() >= 1, "a line ends in a count at least");
    assert_eq!(between[0], alone[0] + 2);
    // Where lines are thinned out or have a quota, neighbours count.
    if usize::from(*choice) % CONFIGS.len() < 6 && !is_name_x(text) {
        let others = between[1..].iter().sum::<u64>() - alone[1..].iter().sum::<u64>();
        assert_eq!(others, 2, "neighbours are counted as ever");
    }
}

/// Whether a line may be of the family that its neighbours are of.
fn is_name_x(text: &[u8]) -> bool {
    text.first() == Some(&b'x')
}

/// Lines, recorded samples, and dropped ones by reason, of one datagram to a new pipeline.
fn counts(datagram: &[u8], config: &Config) -> Vec<u64> {
    let mut rig = Rig::of(config, 1);
    rig.send(0, datagram);
    let tally = rig.tally();
    let reasons = DropReason::ALL.iter().map(|reason| tally.dropped_for(*reason));
    [lines(&tally), recorded(&tally)].into_iter().chain(reasons).collect()
}

/// What the parser says of a line, in words.
fn parsed(text: &[u8], config: &Config) -> String {
    let line = match Line::parse(text, &config.parse) {
        Ok(line) => line,
        Err(refusal) => return format!("{refusal:?}"),
    };
    for part in [line.name, line.name_rest, line.name_tags] {
        inside(text, part);
    }
    assert!(line.body <= text.len());
    let mut said = format!("{:?} {:?} {:?} {}", line.name, line.name_rest, line.name_tags, line.lone_bracket);
    let (mut from, mut values, mut samples, mut whole) = (line.body, 0, 0, false);
    loop {
        match line.sample(from) {
            Err(refusal) => {
                said += &format!(" {refusal:?}");
                break;
            }
            Ok(sample) => {
                samples += 1;
                values += sample.values.numbers().count() as u64;
                said += &described(text, &sample);
                let Some(next) = sample.next else {
                    whole = true;
                    break;
                };
                assert!(next > from && next <= text.len(), "{next} after {from}");
                from = next;
            }
        }
    }
    if whole && let Some(glanced) = glance::thinnable(text) {
        assert_eq!((samples, values), (1, glanced), "a glance tells the values");
    }
    said
}

fn described(text: &[u8], sample: &Sample<'_>) -> String {
    for part in [sample.rate, sample.tags, sample.container] {
        inside(text, part);
    }
    if let Values::Text(part) = sample.values {
        inside(text, part);
    }
    assert!(sample.type_at < text.len() && sample.weight >= 0.0, "{sample:?}");
    let numbers: Vec<_> = sample.values.numbers().map(|number| number.map(|it| it.value.to_bits())).collect();
    format!(" {:?} {numbers:?} {:?} {:?} {:?}", sample.kind, sample.weight, sample.tags, sample.container)
}

/// A part of a text lies in it.
fn inside(text: &[u8], part: &[u8]) {
    let (all, part) = (text.as_ptr_range(), part.as_ptr_range());
    assert!(part.is_empty() || (all.start <= part.start && part.end <= all.end), "a part lies outside");
}

/// An event or a service check as it comes, and an event made of a title and a text that hold anything.
pub fn message(data: &[u8]) {
    let [choice, rest @ ..] = data else { return };
    let config = choose(*choice);
    let text = rest.split(|byte| *byte == b'\n').next().unwrap_or_default();
    if is_message(text) {
        if let Ok((line, sample)) = read_message(text, &config.parse) {
            assert!(!line.name.is_empty() && matches!(sample.kind, SampleType::Event | SampleType::ServiceCheck));
            described(text, &sample);
        }
        let counts = counts(text, config);
        assert_eq!(counts[0], 1);
        assert_eq!(counts[1..].iter().sum::<u64>(), 1, "a message ends in exactly one count");
    }
    let (title, body) = rest.split_at(rest.len() / 2);
    let lengths = format!("_e{{{},{}}}:", title.len(), body.len());
    let event = [lengths.as_bytes(), title, b"|", body, b"|t:error"].concat();
    match read_message(&event, &config.parse) {
        Ok((line, sample)) => assert!(sample.kind == SampleType::Event && line.name == b"error"),
        Err(refusal) => assert!(title.is_empty() || rest.len() > 99_999, "{refusal:?}"),
    }
}

/// The first byte chooses frames or text and how the stream is over, the second the longest line, eight the sizes of
/// pieces; a stream follows.
pub fn framing(data: &[u8]) {
    let Some(([mode, most, sizes @ ..], stream)) = data.split_first_chunk::<10>() else { return };
    let (frames, ended, most) = (mode & 1 == 1, mode & 2 == 0, usize::from(*most));
    let begin = || if frames { Framing::told_apart(most) } else { Framing::newlines(most) };
    let expected = cut(stream, frames, ended, most);
    let mut whole = Taken::new(begin(), most);
    whole.feed(stream);
    assert_eq!(whole.finish(ended), expected, "in one piece");
    let (mut pieces, mut rest) = (Taken::new(begin(), most), stream);
    for size in sizes.iter().cycle() {
        let (piece, behind) = rest.split_at(rest.len().min(usize::from(*size).max(1)));
        pieces.feed(piece);
        rest = behind;
        if rest.is_empty() {
            break;
        }
    }
    assert_eq!(pieces.finish(ended), expected, "in pieces");
}

/// What becomes of a line of a stream.
#[derive(Debug, PartialEq, Eq)]
enum Fate {
    Line(Vec<u8>),
    TooLong,
    CutShort,
}

/// The lines of a stream that was cut in some way.
struct Taken {
    framing: Framing,
    most: usize,
    lines: Vec<Fate>,
}

impl Taken {
    fn new(framing: Framing, most: usize) -> Self {
        Self { framing, most, lines: Vec::new() }
    }

    fn feed(&mut self, bytes: &[u8]) {
        let Self { framing, most, lines } = self;
        framing.feed(bytes, &mut |piece| take(piece, *most, lines));
    }

    fn finish(mut self, ended: bool) -> Vec<Fate> {
        self.framing.finish(ended, &mut |piece| take(piece, self.most, &mut self.lines));
        self.lines
    }
}

fn take(piece: Piece<'_>, most: usize, lines: &mut Vec<Fate>) {
    match piece {
        Piece::TooLong => lines.push(Fate::TooLong),
        Piece::CutShort => lines.push(Fate::CutShort),
        Piece::Lines(text) => add_lines(text, true, most, lines),
    }
}

/// A line that came whole is not looked at by the framing, so whoever reads lines has the same limit. Of a text that is
/// not whole, the line without a newline behind it is cut short.
fn add_lines(text: &[u8], is_whole: bool, most: usize, lines: &mut Vec<Fate>) {
    let mut left = text.len();
    for line in text.split_inclusive(|byte| *byte == b'\n') {
        left -= line.len();
        let (line, is_ended) = line.strip_suffix(b"\n").map_or((line, is_whole), |line| (line, true));
        match line.len() {
            0 => {}
            length if length > most + 1 => lines.push(Fate::TooLong),
            _ if !is_ended && left == 0 => lines.push(Fate::CutShort),
            _ => lines.push(Fate::Line(line.to_vec())),
        }
    }
}

/// The same by the words of the formats: text, or payloads behind their lengths.
fn cut(mut stream: &[u8], told_apart: bool, ended: bool, most: usize) -> Vec<Fate> {
    let mut lines = Vec::new();
    if !told_apart || !matches!(stream, [_, _, 0, 0, ..]) {
        // Before the fourth byte nobody knows what it will be, so nothing of it is whole.
        match told_apart && !ended && (1..4).contains(&stream.len()) {
            true => lines.push(Fate::CutShort),
            false => add_lines(stream, ended, most, &mut lines),
        }
        return lines;
    }
    while let Some((length, rest)) = stream.split_first_chunk::<4>() {
        let length = u32::from_le_bytes(*length) as usize;
        let (payload, behind) = rest.split_at(rest.len().min(length));
        if length > MOST_FRAME_BYTES {
            lines.push(Fate::TooLong);
        } else {
            add_lines(payload, payload.len() == length, most, &mut lines);
        }
        stream = behind;
    }
    lines
}

/// A place for the files of this process, in memory where the system has such a place.
static FOLDER: LazyLock<PathBuf> = LazyLock::new(|| {
    let base = PathBuf::from("/dev/shm");
    let base = if base.is_dir() { base } else { std::env::temp_dir() };
    let folder = base.join(format!("statsieve-fuzz-{}", std::process::id()));
    fs::create_dir_all(&folder).expect("a temporary folder");
    folder
});

fn written(name: &str, bytes: &[u8]) -> PathBuf {
    let path = FOLDER.join(name);
    fs::write(&path, bytes).expect("it can be written");
    path
}

/// Removes what the targets wrote; for tests, which end.
pub fn clean_up() {
    _ = fs::remove_dir_all(&*FOLDER);
}

/// A mapping file: what is accepted maps names by plain words, can be scraped, and is written as TOML that means the
/// same.
pub fn mapping(data: &[u8]) {
    is_good_mapping(data);
}

/// What [`mapping`] does, and whether the file was accepted.
pub fn is_good_mapping(data: &[u8]) -> bool {
    mapping::mapping(data)
}

/// A configuration file, and behind a zero byte overrides, one a line: what is printed is what was said, and it runs.
pub fn config(data: &[u8]) {
    is_good_config(data);
}

/// What [`config`] does, and whether the configuration was accepted.
pub fn is_good_config(data: &[u8]) -> bool {
    config::config(data)
}

/// The first byte chooses settings; a line of `Accept` and one of `Accept-Encoding` follow, or what a client sends.
pub fn http(data: &[u8]) {
    http::http(data);
}

/// The first byte chooses settings, datagrams follow with a zero byte between them: all formats say the same.
pub fn exposition(data: &[u8]) {
    let [choice, rest @ ..] = data else { return };
    let mut rig = Rig::of(choose(*choice), 2);
    let expected: usize = rest
        .split(|byte| *byte == 0)
        .map(|datagram| datagram.split(|byte| *byte == b'\n').filter(|line| !matches!(line, [] | [b'\r'])).count())
        .sum();
    // Three times: unknown, known, remembered.
    for turn in 0..3 {
        rest.split(|byte| *byte == 0).for_each(|datagram| rig.send(turn, datagram));
    }
    let tally = rig.tally();
    assert_eq!(lines(&tally), 3 * expected as u64);
    assert!(recorded(&tally) + dropped(&tally) >= 3 * expected as u64, "{tally:?}");
    all_formats(&rig);
}

/// What [`exposition`] makes of its bytes, in both text formats.
pub fn scrapes(data: &[u8]) -> [String; 2] {
    let [choice, rest @ ..] = data else { return Default::default() };
    let mut rig = Rig::of(choose(*choice), 2);
    rest.split(|byte| *byte == 0).for_each(|datagram| rig.send(0, datagram));
    [Format::Text, Format::OpenMetrics]
        .map(|format| rig.text(format) + if format == Format::Text { "" } else { "# EOF\n" })
}

/// Several workers, sweeps, reloads and scrapes in any order, against a model of plain maps.
pub fn pipeline(data: &[u8]) {
    // Bytes that end in the middle of a step end the play there.
    _ = pipeline::play(&mut Unstructured::new(data));
}
