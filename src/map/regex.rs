//! Regular expressions as `statsd_exporter` takes them.
//!
//! In: a pattern in the syntax of RE2. Out: a [`Regex`] that finds what RE2 would, anywhere in a text.
//! Not here: what is done with what was found (`template`).
//! Always: a search takes time linear to the text, whatever the pattern.
//! Follows: the syntax of RE2 as Go has it. Where the two notations differ (Perl classes are ASCII only, `[` and `&&`
//! mean nothing inside of a class, `\<` is a letter, a lone `{` stands for itself, `\Q...\E` quotes), the pattern is
//! written anew.

use std::fmt::Write as _;

use regex::{CaptureLocations, RegexBuilder};

/// The most a count may ask for, `a{1000}`; RE2 refuses more.
const MOST_REPEATS: u32 = 1000;
/// Bytes that a compiled pattern may take.
const MOST_BYTES: usize = 10 << 20;
/// What a regex remembers of names for each thread, bytes; with less it looks at each byte anew, as it does when that
/// is full.
pub const CACHE_BYTES: usize = 64 << 10;

/// A pattern, compiled. Two are equal if they are written the same.
#[derive(Clone, Debug)]
pub struct Regex {
    written: String,
    compiled: regex::Regex,
}

impl PartialEq for Regex {
    fn eq(&self, other: &Self) -> bool {
        self.written == other.written
    }
}

impl Regex {
    /// Compiles a pattern. Costs some tens of microseconds.
    ///
    /// # Errors
    /// What is wrong with it, in words.
    pub fn new(written: &str) -> Result<Self, String> {
        let translated = Translator::new(written).translate()?;
        let compiled =
            RegexBuilder::new(&translated).size_limit(MOST_BYTES).dfa_size_limit(CACHE_BYTES).build().map_err(
                |error| match error {
                    regex::Error::Syntax(text) => {
                        // The last line of a drawing says what is wrong.
                        let last = text.lines().last().unwrap_or_default();
                        last.strip_prefix("error: ").unwrap_or(last).to_owned()
                    }
                    regex::Error::CompiledTooBig(_) => "it is too large".to_owned(),
                    other => other.to_string(),
                },
            )?;
        Ok(Self { written: written.to_owned(), compiled })
    }

    /// The pattern as it was written.
    pub fn as_str(&self) -> &str {
        &self.written
    }

    /// The place of a group by its name.
    pub(super) fn group(&self, name: &str) -> Option<usize> {
        self.compiled.capture_names().position(|other| other == Some(name))
    }

    /// How many groups there are, the whole match among them.
    pub(super) fn groups(&self) -> usize {
        self.compiled.captures_len()
    }

    /// Whether it matches somewhere in `text`.
    pub(super) fn is_match(&self, text: &str) -> bool {
        self.compiled.is_match(text)
    }

    /// The groups of the first match in `text`. Allocates.
    pub(super) fn captures(&self, text: &str) -> Option<CaptureLocations> {
        let mut locations = self.compiled.capture_locations();
        self.compiled.captures_read(&mut locations, text).map(|_| locations)
    }
}

/// Writes a pattern of RE2 in the notation of the `regex` crate.
struct Translator<'a> {
    rest: &'a str,
    out: String,
}

impl<'a> Translator<'a> {
    fn new(pattern: &'a str) -> Self {
        Self { rest: pattern, out: String::with_capacity(pattern.len() + 16) }
    }

    fn take(&mut self) -> Option<char> {
        let first = self.rest.chars().next()?;
        self.rest = &self.rest[first.len_utf8()..];
        Some(first)
    }

    fn translate(mut self) -> Result<String, String> {
        while let Some(c) = self.take() {
            match c {
                '\\' => self.escape()?,
                '[' => self.class()?,
                '(' if self.rest.starts_with('?') => self.group()?,
                '{' => self.repeat()?,
                '}' | ']' => self.literal(c),
                _ => self.out.push(c),
            }
        }
        Ok(self.out)
    }

    fn literal(&mut self, c: char) {
        if c.is_ascii_alphanumeric() || !c.is_ascii() {
            self.out.push(c);
        } else {
            // A String takes everything.
            let _ = write!(self.out, "\\x{{{:X}}}", u32::from(c));
        }
    }

    /// Behind a backslash, outside of a class.
    fn escape(&mut self) -> Result<(), String> {
        if let Some(quoted) = self.rest.strip_prefix('Q') {
            let (text, rest) = quoted.split_once("\\E").unwrap_or((quoted, ""));
            self.rest = rest;
            text.chars().for_each(|c| self.literal(c));
            return Ok(());
        }
        if let Some(inner) = self.perl_class() {
            let _ = write!(self.out, "[{inner}]");
            return Ok(());
        }
        match self.rest.chars().next() {
            Some('b') => self.out.push_str("(?-u:\\b)"),
            Some(c @ ('A' | 'B' | 'z')) => {
                self.out.push('\\');
                self.out.push(c);
            }
            Some('p' | 'P') => return self.unicode_class(),
            _ => {
                let c = self.escaped_char()?;
                self.literal(c);
                return Ok(());
            }
        }
        self.take();
        Ok(())
    }

    /// What `\d` and its like stand for inside of a class.
    fn perl_class(&mut self) -> Option<&'static str> {
        let inner = match self.rest.chars().next()? {
            'd' => "0-9",
            'D' => "[^0-9]",
            'w' => "0-9A-Za-z_",
            'W' => "[^0-9A-Za-z_]",
            's' => "\\t\\n\\x0C\\r\\x20",
            'S' => "[^\\t\\n\\x0C\\r\\x20]",
            _ => return None,
        };
        self.take();
        Some(inner)
    }

    /// `\pN` or `\p{Greek}`, which both notations share; the backslash is taken already.
    fn unicode_class(&mut self) -> Result<(), String> {
        self.out.push('\\');
        let kind = self.take();
        self.out.extend(kind);
        match self.take() {
            Some('{') => {
                let (name, rest) = self.rest.split_once('}').ok_or("no } behind \\p{")?;
                let _ = write!(self.out, "{{{name}}}");
                self.rest = rest;
            }
            Some(c) => self.out.push(c),
            None => return Err("nothing behind \\p".to_owned()),
        }
        Ok(())
    }

    /// The character that an escape stands for.
    fn escaped_char(&mut self) -> Result<char, String> {
        let c = self.take().ok_or("a backslash at the end")?;
        let code = match c {
            'a' => 0x07,
            'f' => 0x0C,
            't' => 0x09,
            'n' => 0x0A,
            'r' => 0x0D,
            'v' => 0x0B,
            '0'..='7' => {
                let digits = self.rest.bytes().take(2).take_while(|digit| (b'0'..=b'7').contains(digit)).count();
                if c != '0' && digits == 0 {
                    return Err(format!("\\{c} refers back, which is not supported"));
                }
                let (more, rest) = self.rest.split_at(digits);
                self.rest = rest;
                u32::from_str_radix(&format!("{c}{more}"), 8).unwrap_or(0)
            }
            'x' => {
                let (digits, rest) = match self.rest.strip_prefix('{') {
                    Some(inner) => inner.split_once('}').ok_or("no } behind \\x{")?,
                    None => self.rest.split_at_checked(2).ok_or("\\x without two digits")?,
                };
                self.rest = rest;
                let hexadecimal = digits.bytes().all(|digit| digit.is_ascii_hexdigit());
                let code = u32::from_str_radix(digits, 16).ok().filter(|_| hexadecimal);
                code.ok_or_else(|| format!("\\x{{{digits}}} is no character"))?
            }
            c if c.is_ascii_punctuation() => u32::from(c),
            c => return Err(format!("\\{c} is not known")),
        };
        char::from_u32(code).ok_or_else(|| format!("{code:X} is no character"))
    }

    /// Behind `[`. Each character is written as its number, so that none means more than in RE2.
    fn class(&mut self) -> Result<(), String> {
        self.out.push('[');
        if let Some(rest) = self.rest.strip_prefix('^') {
            self.rest = rest;
            self.out.push('^');
        }
        let mut first = true;
        loop {
            if self.rest.starts_with("[:")
                && let Some((name, rest)) = self.rest[2..].split_once(":]")
            {
                let _ = write!(self.out, "[:{name}:]");
                self.rest = rest;
                first = false;
                continue;
            }
            let c = match self.take().ok_or("no ] behind [")? {
                ']' if !first => break,
                '\\' => {
                    if let Some(inner) = self.perl_class() {
                        self.out.push_str(inner);
                        first = false;
                        continue;
                    }
                    if self.rest.starts_with(['p', 'P']) {
                        self.unicode_class()?;
                        first = false;
                        continue;
                    }
                    self.escaped_char()?
                }
                c => c,
            };
            first = false;
            let _ = write!(self.out, "\\x{{{:X}}}", u32::from(c));
            if let Some(rest) = self.rest.strip_prefix('-')
                && !rest.starts_with(']')
            {
                self.rest = rest;
                let end = match self.take().ok_or("no ] behind [")? {
                    '\\' => self.escaped_char()?,
                    c => c,
                };
                let _ = write!(self.out, "-\\x{{{:X}}}", u32::from(end));
            }
        }
        self.out.push(']');
        Ok(())
    }

    /// `(?` and what follows: a name, or flags.
    fn group(&mut self) -> Result<(), String> {
        let head = self.rest;
        if head.starts_with("?P<") || (head.starts_with("?<") && !head.starts_with("?<=") && !head.starts_with("?<!")) {
            self.out.push('(');
            return Ok(());
        }
        let end = head.find([':', ')']).unwrap_or(head.len());
        let flags = &head[1..end];
        if !flags.chars().all(|flag| "imsU-".contains(flag)) {
            return Err(format!("(?{flags} is not known"));
        }
        self.out.push('(');
        Ok(())
    }

    /// Behind `{`: a count, or the letter itself.
    fn repeat(&mut self) -> Result<(), String> {
        let count = self.rest.split_once('}').map(|(count, _)| count);
        let number = |text: &str| !text.is_empty() && text.bytes().all(|digit| digit.is_ascii_digit());
        let is_count = count.is_some_and(|count| match count.split_once(',') {
            None => number(count),
            Some((least, most)) => number(least) && (most.is_empty() || number(most)),
        });
        match count.filter(|_| is_count) {
            Some(count) => {
                let fits = |text: &str| text.is_empty() || text.parse().is_ok_and(|n: u32| n <= MOST_REPEATS);
                if !count.split(',').all(fits) {
                    return Err(format!("{{{count}}} repeats more than {MOST_REPEATS} times"));
                }
                let _ = write!(self.out, "{{{count}}}");
                self.rest = &self.rest[count.len() + 1..];
            }
            None => self.literal('{'),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_find_what_re2_finds() {
        for (pattern, text, found) in [
            ("b.", "abc", Some("bc")),
            (r"^\d+$", "12", Some("12")),
            // Perl classes are ASCII only.
            (r"\d", "\u{663}", None),
            (r"\w+", "\u{e9}ab", Some("ab")),
            (r"[\w\-]+", "a-b.c", Some("a-b")),
            (r"[^\d]+", "12ab", Some("ab")),
            (r"[\D]+", "12ab", Some("ab")),
            (r"\bb\b", "a b c", Some("b")),
            (r"\Qa.b\E.", "a.bc", Some("a.bc")),
            (r"\Qa.b", "a.b", Some("a.b")),
            ("[[a]", "[", Some("[")),
            ("[a&&b]+", "a&b", Some("a&b")),
            ("[]a]+", "]a", Some("]a")),
            ("[a-]+", "-a", Some("-a")),
            ("[[:alpha:]_]+", "1a_", Some("a_")),
            ("a{,2}", "a{,2}", Some("a{,2}")),
            ("a{2}", "aaa", Some("aa")),
            ("{a}", "{a}", Some("{a}")),
            (r"\<\>", "<>", Some("<>")),
            (r"\x41\x{42}\103", "ABC", Some("ABC")),
            (r"(?i)AB", "ab", Some("ab")),
            (r"\pL+", "1\u{e9}", Some("\u{e9}")),
            (r"[\p{Greek}]", "\u{3b1}", Some("\u{3b1}")),
            ("a.c", "a\nc", None),
            ("a|ab", "ab", Some("a")),
            ("(?U)a+", "aaa", Some("a")),
            ("", "x", Some("")),
        ] {
            let regex = Regex::new(pattern).unwrap_or_else(|error| panic!("{pattern}: {error}"));
            let place = regex.captures(text).and_then(|locations| locations.get(0));
            assert_eq!(place.map(|(start, end)| &text[start..end]), found, "{pattern} on {text:?}");
            assert_eq!(regex.is_match(text), found.is_some(), "{pattern}");
        }
    }

    #[test]
    fn patterns_that_re2_refuses_are_refused_in_words() {
        for (pattern, said) in [
            ("(", "unclosed group"),
            ("a**[", "no ] behind ["),
            ("a{1001}", "{1001} repeats more than 1000 times"),
            (r"(a)\1", r"\1 refers back, which is not supported"),
            ("(?=a)", "(?=a is not known"),
            ("(?<!a)", "(?<!a is not known"),
            ("(?x)a", "(?x is not known"),
            (r"\", "a backslash at the end"),
            (r"\y", r"\y is not known"),
            (r"\p{Klingon}", "Unicode property not found"),
            ("[b-a]", "invalid character class range, the start must be <= the end"),
            ("*a", "repetition operator missing expression"),
        ] {
            assert_eq!(Regex::new(pattern).err().as_deref(), Some(said), "{pattern}");
        }
    }
}
