//! Lists the tags of a line.
//!
//! In: the text between the first tag and the end of the tags. Out: one [`Tag`] for each piece between commas.
//! Not here: which tags are kept, renamed or bucketed (`identity`, `map`).

use super::scan;

/// How the tags of a line are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TagStyle {
    /// `|#key:value,...` behind the type.
    DogStatsd,
    /// `name,key=value,...`
    InfluxDb,
    /// `name#key=value,...`
    Librato,
    /// `name[key=value,...]`
    SignalFx,
}

impl TagStyle {
    /// The byte between key and value.
    #[inline]
    pub const fn separator(self) -> u8 {
        match self {
            Self::DogStatsd => b':',
            Self::InfluxDb | Self::Librato | Self::SignalFx => b'=',
        }
    }

    /// The name of the dialect.
    pub const fn name(self) -> &'static str {
        match self {
            Self::DogStatsd => "DogStatsD",
            Self::InfluxDb => "InfluxDB",
            Self::Librato => "Librato",
            Self::SignalFx => "SignalFX",
        }
    }
}

/// One piece between commas.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tag<'a> {
    /// A key and its value; the key may be empty, the value is not.
    Pair(&'a [u8], &'a [u8]),
    /// A word without a separator.
    Bare(&'a [u8]),
    /// Nothing, or a key without a value.
    Malformed(&'a [u8]),
}

/// Reads one piece between commas; a DogStatsD tag may carry its own leading `#`.
#[inline]
pub fn tag(piece: &[u8], style: TagStyle) -> Tag<'_> {
    let piece = match piece {
        [b'#', rest @ ..] if style == TagStyle::DogStatsd => rest,
        _ => piece,
    };
    match scan::find(piece, 0, style.separator()) {
        at if at + 1 < piece.len() => Tag::Pair(&piece[..at], &piece[at + 1..]),
        at if at == piece.len() && at > 0 => Tag::Bare(piece),
        _ => Tag::Malformed(piece),
    }
}

/// All tags of `text`; none if it is empty.
pub fn list(text: &[u8], style: TagStyle) -> impl Iterator<Item = Tag<'_>> {
    // Where the next piece starts; past the end behind the last.
    let mut start = usize::from(text.is_empty());
    std::iter::from_fn(move || {
        let end = (start <= text.len()).then(|| scan::find(text, start, b','))?;
        let piece = &text[start..end];
        start = end + 1;
        Some(tag(piece, style))
    })
}

/// Whether at least one tag has a key and a value.
pub fn any_valid(text: &[u8], style: TagStyle) -> bool {
    list(text, style).any(|tag| matches!(tag, Tag::Pair(key, _) if !key.is_empty()))
}

#[cfg(test)]
mod tests;
