//! Cuts the bytes of a stream into lines, however they arrive.
//!
//! In: what one connection sent, in pieces of any size. Out: whole lines, many in one text where they lie together, and
//! a note for each that was too long, or is known to lack its end.
//! Not here: reading (`stream`), what a line says (`parse`).
//! Always: cutting the same bytes differently gives the same lines; memory is at most one line's; a line that is too
//! long costs itself and nothing behind it.
//! Follows: newline-framed StatsD; DogStatsD over unix streams, where each payload of lines comes behind its length as
//! four bytes, the least first.

/// The longest payload behind a length; four times what clients of DogStatsD send at most.
pub const MOST_FRAME_BYTES: usize = 32_768;

/// What comes out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece<'a> {
    /// One line or several, newlines between them.
    Lines(&'a [u8]),
    /// A line, or a payload behind its length, that is too long.
    TooLong,
    /// The beginning of a line whose end never came: what it says could be another number, or another series.
    CutShort,
}

/// The state of one connection.
#[derive(Debug)]
pub struct Framing {
    mode: Mode,
    max_line_bytes: usize,
    /// The beginning of a line, or of the first four bytes.
    held: Vec<u8>,
    /// The line is too long already: what is left of it is passed over.
    passing_over: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    /// Fewer than four bytes have come.
    Unknown,
    /// A newline ends each line.
    Newlines,
    /// So many bytes of the length have come, and what they say so far.
    Length(u8, u32),
    /// So many bytes of the payload are still to come.
    Payload(usize),
    /// The same of a payload that is passed over.
    Excess(usize),
}

impl Framing {
    /// For a stream of newlines alone, lines up to `max_line_bytes`.
    pub fn newlines(max_line_bytes: usize) -> Self {
        Self { mode: Mode::Newlines, max_line_bytes, held: Vec::new(), passing_over: false }
    }

    /// For a stream whose first four bytes tell: a length ends in two zeros, and no text begins so.
    pub fn told_apart(max_line_bytes: usize) -> Self {
        Self { mode: Mode::Unknown, ..Self::newlines(max_line_bytes) }
    }

    /// Takes in what came next.
    pub fn feed(&mut self, mut bytes: &[u8], out: &mut dyn FnMut(Piece<'_>)) {
        while !bytes.is_empty() {
            match self.mode {
                Mode::Unknown => {
                    let (head, rest) = bytes.split_at(bytes.len().min(4 - self.held.len()));
                    self.held.extend_from_slice(head);
                    bytes = rest;
                    if let [_, _, third, fourth] = *self.held {
                        let is_length = third == 0 && fourth == 0;
                        self.mode = if is_length { Mode::Length(0, 0) } else { Mode::Newlines };
                        let head = std::mem::take(&mut self.held);
                        self.feed(&head, out);
                    }
                }
                Mode::Newlines => {
                    self.text(bytes, out);
                    return;
                }
                Mode::Length(have, so_far) => {
                    let length = so_far | u32::from(bytes[0]) << (8 * have);
                    bytes = &bytes[1..];
                    self.mode = match (have, length as usize) {
                        (0..3, _) => Mode::Length(have + 1, length),
                        (_, 0) => Mode::Length(0, 0),
                        (_, length) if length > MOST_FRAME_BYTES => {
                            out(Piece::TooLong);
                            Mode::Excess(length)
                        }
                        (_, length) => Mode::Payload(length),
                    };
                }
                Mode::Payload(left) | Mode::Excess(left) => {
                    let (part, rest) = bytes.split_at(bytes.len().min(left));
                    bytes = rest;
                    let (left, excess) = (left - part.len(), matches!(self.mode, Mode::Excess(_)));
                    if !excess {
                        self.text(part, out);
                    }
                    self.mode = match left {
                        0 => {
                            // A payload ends its last line.
                            self.end_line(out);
                            Mode::Length(0, 0)
                        }
                        left if excess => Mode::Excess(left),
                        left => Mode::Payload(left),
                    };
                }
            }
        }
    }

    /// The stream is over. If its sender has `ended` it, what is left is a line, but for a payload that lacks its end.
    pub fn finish(&mut self, ended: bool, out: &mut dyn FnMut(Piece<'_>)) {
        if ended && !matches!(self.mode, Mode::Payload(_)) {
            self.end_line(out);
        } else if !self.held.is_empty() {
            self.held = Vec::new();
            out(Piece::CutShort);
        }
    }

    /// Takes in text, in which newlines end lines.
    fn text(&mut self, mut bytes: &[u8], out: &mut dyn FnMut(Piece<'_>)) {
        if self.passing_over || !self.held.is_empty() {
            let Some(end) = memchr::memchr(b'\n', bytes) else { return self.hold(bytes, out) };
            self.hold(&bytes[..end], out);
            self.end_line(out);
            bytes = &bytes[end + 1..];
        }
        let whole = memchr::memrchr(b'\n', bytes).map_or(0, |end| end + 1);
        if whole > 0 {
            out(Piece::Lines(&bytes[..whole]));
        }
        self.hold(&bytes[whole..], out);
    }

    /// Keeps the beginning of a line; one that is too long is noted once.
    fn hold(&mut self, bytes: &[u8], out: &mut dyn FnMut(Piece<'_>)) {
        if self.passing_over || bytes.is_empty() {
            return;
        }
        // One more for the carriage return that may end it.
        if self.held.len() + bytes.len() > self.max_line_bytes + 1 {
            out(Piece::TooLong);
            self.passing_over = true;
            self.held = Vec::new();
        } else {
            self.held.extend_from_slice(bytes);
        }
    }

    fn end_line(&mut self, out: &mut dyn FnMut(Piece<'_>)) {
        if !self.held.is_empty() {
            out(Piece::Lines(&self.held));
            // What a connection needs once it may never need again.
            self.held = Vec::new();
        }
        self.passing_over = false;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The lines of a stream that comes in pieces of `size` bytes, "too long" for each that was.
    fn lines(framing: Framing, bytes: &[u8], size: usize) -> Vec<String> {
        lines_until(framing, bytes, size, true)
    }

    /// The same of one that its sender has `ended`, or not.
    fn lines_until(mut framing: Framing, bytes: &[u8], size: usize, ended: bool) -> Vec<String> {
        let mut lines = Vec::new();
        let mut take = |piece: Piece<'_>| match piece {
            Piece::TooLong => lines.push("too long".to_owned()),
            Piece::CutShort => lines.push("cut short".to_owned()),
            Piece::Lines(text) => {
                let text = String::from_utf8_lossy(text).into_owned();
                lines.extend(text.split('\n').filter(|line| !line.is_empty()).map(str::to_owned));
            }
        };
        bytes.chunks(size.max(1)).for_each(|chunk| framing.feed(chunk, &mut take));
        framing.finish(ended, &mut take);
        lines
    }

    fn frame(payload: &[u8]) -> Vec<u8> {
        [&(payload.len() as u32).to_le_bytes()[..], payload].concat()
    }

    #[test]
    fn lines_end_at_newlines_and_at_the_end_whatever_the_pieces() {
        for size in 1..20 {
            let found = lines(Framing::newlines(100), b"a:1|c\nb:2|c\r\n\n\nc:3|c", size);
            assert_eq!(found, ["a:1|c", "b:2|c\r", "c:3|c"], "{size}");
        }
    }

    #[test]
    fn a_line_that_is_too_long_costs_itself_alone() {
        let text = format!("a:1|c\n{}\nb:1|c\n{}", "x".repeat(500), "y".repeat(500));
        for size in [1, 7, 64, 100] {
            assert_eq!(lines(Framing::newlines(99), text.as_bytes(), size), ["a:1|c", "too long", "b:1|c", "too long"]);
        }
        // One that came whole is not looked at: whoever reads lines has the same limit.
        assert_eq!(lines(Framing::newlines(99), text.as_bytes(), 2000)[1].len(), 500);
        let edge = format!("{}\r\n", "x".repeat(100));
        assert_eq!(lines(Framing::newlines(100), edge.as_bytes(), 9), [format!("{}\r", "x".repeat(100))]);
    }

    #[test]
    fn payloads_behind_lengths_are_told_from_text() {
        let stream = [frame(b"a:1|c\nb:2|c"), frame(b""), frame(b"c:3|c\n")].concat();
        for size in 1..30 {
            assert_eq!(lines(Framing::told_apart(100), &stream, size), ["a:1|c", "b:2|c", "c:3|c"], "{size}");
            assert_eq!(lines(Framing::told_apart(100), b"a:1|c\nb:1|c\n", size), ["a:1|c", "b:1|c"], "{size}");
        }
        // Fewer than four bytes are text.
        assert_eq!(lines(Framing::told_apart(100), b"a:1", 1), ["a:1"]);
    }

    #[test]
    fn a_payload_that_is_too_long_is_passed_over_and_the_next_is_read() {
        let stream = [frame(b"a:1|c"), frame(&[b'x'; MOST_FRAME_BYTES + 1]), frame(b"b:1|c")].concat();
        for size in [1, 1000, 100_000] {
            assert_eq!(lines(Framing::told_apart(100), &stream, size), ["a:1|c", "too long", "b:1|c"]);
        }
        let longest = [frame(&[b'\n'; MOST_FRAME_BYTES]), frame(b"b:1|c")].concat();
        assert_eq!(lines(Framing::told_apart(100), &longest, 1000), ["b:1|c"]);
    }

    #[test]
    fn a_line_without_its_end_is_said_to_be_cut_short_and_those_before_it_are_read() {
        let stream = frame(b"a:1|c\nb:1|c|@0.5");
        for size in 1..20 {
            for (end, expected) in
                [(4, vec!["a:1|c", "cut short"]), (10, vec!["a:1|c"]), (0, vec!["a:1|c", "b:1|c|@0.5"])]
            {
                let bytes = &stream[..stream.len() - end];
                assert_eq!(lines(Framing::told_apart(100), bytes, size), expected, "{size} {end}");
            }
            for framing in [Framing::newlines(100), Framing::told_apart(100)] {
                let found = lines_until(framing, b"a:1|c\nb:1|c", size, false);
                assert_eq!(found, ["a:1|c", "cut short"], "{size}");
            }
            // What was too long is counted already, and nothing is left behind a newline.
            assert_eq!(lines_until(Framing::newlines(9), b"a:1|c|#k:v|x", size, false), ["too long"]);
            assert_eq!(lines_until(Framing::newlines(9), b"a:1|c\n", size, false), ["a:1|c"]);
        }
        assert_eq!(lines_until(Framing::told_apart(100), b"a:1", 1, false), ["cut short"]);
    }

    proptest! {
        #[test]
        fn cutting_differently_gives_the_same_lines(
            text in proptest::collection::vec(proptest::sample::select(b"ab:|\n\r\0\x05".to_vec()), 0..200),
            size in 1usize..40,
        ) {
            let at_once = |framing| lines(framing, &text, 1);
            prop_assert_eq!(lines(Framing::newlines(300), &text, size), at_once(Framing::newlines(300)));
            prop_assert_eq!(lines(Framing::told_apart(300), &text, size), at_once(Framing::told_apart(300)));
        }
    }
}
