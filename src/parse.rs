//! Cuts a line into its samples.
//!
//! In: one line without its newline, valid UTF-8. Out: a [`Line`] with its name and tags in the name, then a
//! [`Sample`] for each sample on it; all of them borrow the line, and a refusal names the byte where it shows.
//! Not here: splitting datagrams into lines (`pipeline`), the meaning of a tag (`tags` lists them, `identity` and
//! `map` decide), limits.
//! Always: no allocation, no panic, whatever the bytes are.
//! Follows: the StatsD metric types; DogStatsD 1.0 to 1.6; InfluxDB, Librato and SignalFX tags as `statsd_exporter`
//! reads them, less its faults.

pub mod client;
pub mod glance;
pub mod message;
pub mod number;
pub mod scan;
pub mod tags;

use memchr::{memchr, memmem};

use crate::config::Parse;
use crate::model::{DropReason, Refusal, SampleType};
use number::Number;
use tags::TagStyle;

/// The name part of a line, and where its first sample starts.
#[derive(Clone, Copy, Debug)]
pub struct Line<'a> {
    text: &'a [u8],
    /// The line and all behind it in its datagram: what may be read, though it means nothing here.
    pub rest: &'a [u8],
    /// The name before any tags in it.
    pub name: &'a [u8],
    /// What follows the closing bracket of SignalFX tags; belongs to the name.
    pub name_rest: &'a [u8],
    /// Text of the tags in the name, `key=value,...`; empty if there are none.
    pub name_tags: &'a [u8],
    /// The dialect of `name_tags`; [`TagStyle::DogStatsd`] where the name has no tags.
    pub style: TagStyle,
    /// The name has a bracket without its partner, which counts as one malformed tag.
    pub lone_bracket: bool,
    /// The byte behind the first colon.
    pub body: usize,
    /// Whether `|#` starts tags; with the dialect switched off they are read over.
    dogstatsd: bool,
}

/// One sample of a line: one or several values that share all the rest.
#[derive(Clone, Copy, Debug)]
pub struct Sample<'a> {
    /// What the values are.
    pub kind: SampleType,
    /// The byte of the line where the type stands.
    pub type_at: usize,
    /// One number, or the text of several.
    pub values: Values<'a>,
    /// How many events each value stands for, 1/rate; not negative, infinite for a rate next to zero, and zero for
    /// rates whose product is no number any more.
    pub weight: f64,
    /// The client's rate as written, for `explain`; empty if there is none.
    pub rate: &'a [u8],
    /// Text of the DogStatsD tags, `key:value,...`.
    pub tags: &'a [u8],
    /// Text of the `c:` field behind its colon.
    pub container: &'a [u8],
    /// A rate was there that cannot be read; it counted as 1.
    pub invalid_rate: bool,
    /// Unknown fields by first byte, see [`unknown_letters`].
    pub unknown_fields: u64,
    /// Where the value of the next sample on this line starts, if there is one.
    pub next: Option<usize>,
}

/// The value part of a sample.
#[derive(Clone, Copy, Debug)]
pub enum Values<'a> {
    /// One plain decimal number, read in passing.
    One(f64),
    /// Anything else: signed, exponential, packed with colons, or no number at all.
    Text(&'a [u8]),
}

impl<'a> Line<'a> {
    /// A line whose name is not read yet; see [`Line::read_name`].
    #[inline(always)]
    pub fn new(text: &'a [u8], dialects: &Parse) -> Self {
        Self {
            text,
            rest: text,
            name: &[],
            name_rest: &[],
            name_tags: &[],
            style: TagStyle::DogStatsd,
            lone_bracket: false,
            body: 0,
            dogstatsd: dialects.dogstatsd_tags,
        }
    }

    /// Makes a line of `text` and reads its name.
    ///
    /// # Errors
    /// As [`Line::read_name`].
    pub fn parse(text: &'a [u8], dialects: &Parse) -> Result<Self, Refusal> {
        let mut line = Self::new(text, dialects);
        line.read_name(dialects)?;
        Ok(line)
    }

    /// Cuts the name off, and the tags off the name. In place: what is made for every line must not be copied about.
    ///
    /// # Errors
    /// `MalformedLine` without a colon or name, `EmptyName` if only tags stand before the colon, `MixedTagStyles` for
    /// valid tags in the name beside `|#`, `UnknownType` for events and service checks, which [`message`] reads.
    #[inline(always)]
    pub fn read_name(&mut self, dialects: &Parse) -> Result<(), Refusal> {
        let end = scan::find_any(self.text, 0, [b':', b'#', b',', b'[', b']']);
        if self.text.get(end) != Some(&b':') || end == 0 || self.text[0] == b'_' {
            return self.read_rare_name(dialects);
        }
        self.name = &self.text[..end];
        self.body = end + 1;
        Ok(())
    }

    /// The same where the name is missing, holds a byte that starts tags in some dialect, or begins as an event or
    /// service check does.
    #[cold]
    fn read_rare_name(&mut self, dialects: &Parse) -> Result<(), Refusal> {
        let text = self.text;
        if message::is_message(text) {
            return Err(Refusal::new(DropReason::UnknownType, 0));
        }
        let end = match memchr(b':', text) {
            Some(end) if end > 0 => end,
            other => return Err(Refusal::new(DropReason::MalformedLine, other.unwrap_or(text.len()))),
        };
        let head = &text[..end];
        self.name = head;
        self.body = end + 1;
        let (open, close) = (memchr(b'[', head), memchr(b']', head));
        match (open, close) {
            (Some(open), Some(close)) if dialects.signalfx_tags && open < close => {
                self.name = &head[..open];
                self.name_tags = &head[open + 1..close];
                self.name_rest = &head[close + 1..];
                self.style = TagStyle::SignalFx;
            }
            (Some(_), _) | (_, Some(_)) if dialects.signalfx_tags => self.lone_bracket = true,
            _ => {
                let starts =
                    |byte: &u8| (*byte == b'#' && dialects.librato_tags) || (*byte == b',' && dialects.influxdb_tags);
                if let Some(cut) = head.iter().position(starts) {
                    self.style = if head[cut] == b'#' { TagStyle::Librato } else { TagStyle::InfluxDb };
                    self.name = &head[..cut];
                    self.name_tags = &head[cut + 1..];
                }
            }
        }
        if self.name.is_empty() && self.name_rest.is_empty() {
            return Err(Refusal::new(DropReason::EmptyName, 0));
        }
        if self.style != TagStyle::DogStatsd
            && tags::any_valid(self.name_tags, self.style)
            && let Some(at) = memmem::find(&text[end..], b"|#")
        {
            return Err(Refusal::new(DropReason::MixedTagStyles, end + at + 1));
        }
        Ok(())
    }

    /// Cuts out the sample whose value starts at byte `from`: [`Line::body`] first, then each [`Sample::next`].
    ///
    /// # Errors
    /// `MalformedLine` without a type, `UnknownType`, `MalformedField` for an empty part, `SampleRate` for a rate
    /// that cannot be applied. What follows a refused sample on the same line is refused with it.
    pub fn sample(&self, from: usize) -> Result<Sample<'a>, Refusal> {
        let mut sample = Sample::default();
        self.read_sample(from, &mut sample)?;
        Ok(sample)
    }

    /// The same in place, whatever `sample` held before.
    ///
    /// # Errors
    /// As [`Line::sample`].
    #[inline(always)]
    pub fn read_sample(&self, from: usize, sample: &mut Sample<'a>) -> Result<(), Refusal> {
        let text = self.text;
        *sample = Sample::default();
        let pipe = match number::plain(&text[from..]) {
            Some((value, length)) if text.get(from + length) == Some(&b'|') => {
                sample.values = Values::One(value);
                from + length
            }
            _ => {
                let pipe = scan::find(text, from, b'|');
                if pipe == text.len() {
                    return Err(Refusal::new(DropReason::MalformedLine, pipe));
                }
                sample.values = Values::Text(&text[from..pipe]);
                pipe
            }
        };
        let Some((kind, length)) = sample_type(&text[pipe + 1..]) else {
            return Err(Refusal::new(DropReason::UnknownType, pipe + 1));
        };
        let end = pipe + 1 + length;
        sample.kind = kind;
        sample.type_at = pipe + 1;
        if kind == SampleType::Set {
            // A member is its text, also where that looks like a number.
            sample.values = Values::Text(&text[from..pipe]);
        }
        // The commonest line ends with its tags; everything else goes through the loop over fields.
        match &text[end..] {
            [] => Ok(()),
            [b'|', b'#', tags @ ..] if scan::find(text, end + 2, b'|') == text.len() => {
                sample.tags = if self.dogstatsd { tags } else { &[] };
                Ok(())
            }
            _ => self.fields(end, from == self.body, sample),
        }
    }

    /// Reads everything behind the type, starting at the `|` or `:` at byte `at`; `first` if it is the line's first
    /// sample.
    fn fields(&self, mut at: usize, first: bool, sample: &mut Sample<'a>) -> Result<(), Refusal> {
        let text = self.text;
        let (mut stamped, mut tagged) = (false, false);
        loop {
            if text[at] == b':' {
                // A further sample on the line. With `|#` there are none: a tag's value may hold anything. Behind the
                // first sample this was looked at for all of the line.
                let packed = matches!(sample.values, Values::Text(values) if memchr(b':', values).is_some());
                if packed || tagged || (first && memmem::find(&text[at..], b"|#").is_some()) {
                    return Err(Refusal::new(DropReason::UnknownType, at));
                }
                sample.next = Some(at + 1);
                break;
            }
            let start = at + 1;
            let mut end = scan::find(text, start, b'|');
            let field = &text[start..end];
            match field {
                [] => return Err(Refusal::new(DropReason::MalformedField, start)),
                [b'#', tags @ ..] => {
                    tagged = true;
                    sample.tags = if self.dogstatsd { tags } else { &[] };
                }
                [b'@', rate @ ..] => {
                    let length = memchr(b':', rate).unwrap_or(rate.len());
                    end = start + 1 + length;
                    sample.rate = &rate[..length];
                    apply_rate(sample).map_err(|reason| Refusal::new(reason, start + 1))?;
                }
                [b'c', b':', container @ ..] => sample.container = container,
                [b'T', stamp @ ..] => {
                    let digits = stamp.iter().take_while(|byte| byte.is_ascii_digit()).count();
                    stamped = stamp[..digits].iter().any(|digit| *digit != b'0');
                    if stamp.get(digits) == Some(&b':') {
                        end = start + 1 + digits;
                    }
                }
                [b'e', b':', ..] | [b'c', b'a', b'r', b'd', b':', ..] => {}
                [letter, ..] => sample.unknown_fields |= 1 << letter_place(*letter),
            }
            at = end;
            if at == text.len() {
                break;
            }
        }
        // DogStatsD 1.3: a count with a timestamp is final, its rate says only how it was made.
        if stamped && sample.kind == SampleType::Counter {
            sample.weight = 1.0;
        }
        Ok(())
    }
}

impl Default for Sample<'_> {
    fn default() -> Self {
        Self {
            kind: SampleType::Counter,
            type_at: 0,
            values: Values::One(0.0),
            weight: 1.0,
            rate: &[],
            tags: &[],
            container: &[],
            invalid_rate: false,
            unknown_fields: 0,
            next: None,
        }
    }
}

impl Sample<'_> {
    /// Whether the `c:` field stands before the tags: a label that both name is then the tag's, which comes later.
    #[inline]
    pub fn container_is_first(&self) -> bool {
        // Both borrow the same line.
        !self.container.is_empty() && !self.tags.is_empty() && self.container.as_ptr() < self.tags.as_ptr()
    }
}

impl<'a> Values<'a> {
    /// The numbers in order; an empty piece between packed values is none. At least one item, even if a refusal.
    ///
    /// Each refusal is for one value alone and comes with the text it is about.
    #[inline]
    pub fn numbers(self) -> Numbers<'a> {
        Numbers { rest: Some(self), any: false }
    }
}

/// Iterates over the numbers of a sample.
#[derive(Clone, Debug)]
pub struct Numbers<'a> {
    rest: Option<Values<'a>>,
    any: bool,
}

impl<'a> Iterator for Numbers<'a> {
    type Item = Result<Number, (DropReason, &'a [u8])>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let text = match self.rest.take()? {
                Values::One(value) => return Some(Ok(Number { value, signed: false })),
                Values::Text(text) => text,
            };
            let piece = match memchr(b':', text) {
                Some(length) => {
                    self.rest = Some(Values::Text(&text[length + 1..]));
                    &text[..length]
                }
                None => text,
            };
            if piece.is_empty() && (self.any || self.rest.is_some()) {
                continue;
            }
            self.any = true;
            return Some(number::parse(piece).map_err(|reason| (reason, piece)));
        }
    }
}

/// The type that `text` begins with, and its length; behind it the line ends, or a field or a further sample begins.
///
/// By a table, since which type comes next is anybody's guess.
#[inline(always)]
fn sample_type(text: &[u8]) -> Option<(SampleType, usize)> {
    const TYPES: [Option<SampleType>; 256] = {
        let mut types = [None; 256];
        types[b'c' as usize] = Some(SampleType::Counter);
        types[b'g' as usize] = Some(SampleType::Gauge);
        types[b'm' as usize] = Some(SampleType::Timer);
        types[b'h' as usize] = Some(SampleType::Histogram);
        types[b'd' as usize] = Some(SampleType::Distribution);
        types[b's' as usize] = Some(SampleType::Set);
        types
    };
    let letter = *text.first()?;
    let kind = TYPES[usize::from(letter)]?;
    // Of the letters above, only `m` has a second.
    let timer = letter == b'm';
    let second = text.get(1).copied().unwrap_or(b'|');
    let behind = text.get(1 + usize::from(timer)).copied().unwrap_or(b'|');
    let fits = (!timer | (second == b's')) & ((behind == b'|') | (behind == b':'));
    fits.then_some((kind, 1 + usize::from(timer)))
}

/// Applies `sample.rate` to its weight.
///
/// On counters several rates multiply, on observations the last holds, as in `statsd_exporter`; other types have no
/// use for a rate. A rate that is no number, zero or not finite counts as 1 and is marked.
fn apply_rate(sample: &mut Sample<'_>) -> Result<(), DropReason> {
    let rate = match number::parse(sample.rate) {
        Ok(number) if number.value != 0.0 => number.value,
        _ => {
            sample.invalid_rate = true;
            return Ok(());
        }
    };
    match sample.kind {
        SampleType::Counter if rate > 0.0 => sample.weight /= rate,
        kind if kind.is_observer() && rate > 0.0 && rate <= 1.0 => sample.weight = 1.0 / rate,
        kind if kind.is_observer() || kind == SampleType::Counter => return Err(DropReason::SampleRate),
        _ => {}
    }
    Ok(())
}

/// The bit of [`Sample::unknown_fields`] for a first byte.
fn letter_place(letter: u8) -> u32 {
    match letter {
        b'a'..=b'z' => u32::from(letter - b'a'),
        b'A'..=b'Z' => u32::from(letter - b'A') + 26,
        _ => 52,
    }
}

/// The first bytes that are set in [`Sample::unknown_fields`]; anything but a letter comes back as `?`.
pub fn unknown_letters(set: u64) -> impl Iterator<Item = u8> {
    (0..53u8).filter(move |place| set >> place & 1 == 1).map(|place| match place {
        0..26 => b'a' + place,
        26..52 => b'A' + place - 26,
        _ => b'?',
    })
}

/// At which byte of `text` its part `part` begins; 0 for a part of something else.
pub fn offset(text: &[u8], part: &[u8]) -> usize {
    let at = (part.as_ptr() as usize).wrapping_sub(text.as_ptr() as usize);
    if at <= text.len() { at } else { 0 }
}

#[cfg(test)]
mod tests;
