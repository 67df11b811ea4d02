//! Texts with `$1` in them, filled in from what a pattern found.
//!
//! In: a template as it stands in a rule, and what its pattern captured. Out: bytes.
//! Always: a reference to what is not there is empty; a template is cut into pieces once, when the rules are compiled.
//! Follows: `statsd_exporter`, which takes `$1` and `${1}` for globs, and what Go's `regexp.Expand` takes for regular
//! expressions.

use std::ops::Range;

use regex::CaptureLocations;

use super::regex::Regex;

/// A text and the captures in it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Template(Vec<Piece>);

#[derive(Clone, Debug, PartialEq)]
enum Piece {
    Text(String),
    /// What was captured at this place: of a glob from 0 the stars, of a regex the groups, 0 being all of it.
    Capture(usize),
}

/// What a pattern captured of a name.
pub(super) enum Captures<'a> {
    /// Parts of the name, and which of them stars stood for.
    Parts { name: &'a [u8], parts: &'a [Range<usize>], stars: &'a [usize] },
    /// Groups.
    Groups { name: &'a [u8], groups: CaptureLocations },
}

impl Captures<'_> {
    fn get(&self, place: usize) -> &[u8] {
        match self {
            Self::Parts { name, parts, stars } => &name[parts[stars[place]].clone()],
            Self::Groups { name, groups } => groups.get(place).map_or(&[], |(start, end)| &name[start..end]),
        }
    }
}

fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

impl Template {
    /// A template behind a glob of so many stars: a reference is `$` and a run of letters, digits, `_` and `$`, in
    /// braces or not. Only numbers from 1 to `stars` mean something, anything else is empty.
    pub(super) fn for_glob(text: &str, stars: usize) -> Self {
        let mut template = Self(Vec::new());
        let mut rest = text;
        while let Some((before, behind)) = rest.split_once('$') {
            let inner = behind.strip_prefix('{').unwrap_or(behind);
            // `${` begins a reference of its own.
            let ends = |(at, c): (usize, char)| !is_word(c) && (c != '$' || inner[at + 1..].starts_with('{'));
            let length = inner.char_indices().find(|c| ends(*c)).map_or(inner.len(), |(at, _)| at);
            template.text(before);
            if length == 0 {
                template.text("$");
                rest = behind;
                continue;
            }
            let (name, behind) = inner.split_at(length);
            rest = behind.strip_prefix('}').unwrap_or(behind);
            let digits = name.bytes().all(|digit| digit.is_ascii_digit());
            let place = name.parse().ok().filter(|place| digits && (1..=stars).contains(place));
            template.0.extend(place.map(|place: usize| Piece::Capture(place - 1)));
        }
        template.text(rest);
        template
    }

    /// A template behind a regular expression: `$1`, `${1}`, `$name`, `${name}`, and `$$` for a dollar. A name takes
    /// all letters, digits and `_` that follow. A `$` that begins none of these stands for itself.
    pub(super) fn for_regex(text: &str, regex: &Regex) -> Self {
        let mut template = Self(Vec::new());
        let mut rest = text;
        while let Some((before, behind)) = rest.split_once('$') {
            template.text(before);
            rest = behind;
            if let Some(behind) = behind.strip_prefix('$') {
                template.text("$");
                rest = behind;
                continue;
            }
            let inner = behind.strip_prefix('{');
            let run = inner.unwrap_or(behind);
            let length = run.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(run.len());
            let (name, after) = run.split_at(length);
            let after = if inner.is_some() { after.strip_prefix('}') } else { Some(after) };
            let (false, Some(after)) = (name.is_empty(), after) else {
                template.text("$");
                continue;
            };
            rest = after;
            let is_number = name.bytes().all(|digit| digit.is_ascii_digit()) && (name == "0" || !name.starts_with('0'));
            let place = if is_number { name.parse().ok() } else { regex.group(name) };
            template.0.extend(place.filter(|place| *place < regex.groups()).map(Piece::Capture));
        }
        template.text(rest);
        template
    }

    fn text(&mut self, text: &str) {
        match self.0.last_mut() {
            _ if text.is_empty() => {}
            Some(Piece::Text(last)) => last.push_str(text),
            _ => self.0.push(Piece::Text(text.to_owned())),
        }
    }

    /// Whether it is the same whatever was captured.
    pub(super) fn is_constant(&self) -> bool {
        !self.0.iter().any(|piece| matches!(piece, Piece::Capture(_)))
    }

    /// Appends the text with what was captured filled in.
    pub(super) fn write(&self, captures: &Captures<'_>, out: &mut Vec<u8>) {
        for piece in &self.0 {
            out.extend_from_slice(match piece {
                Piece::Text(text) => text.as_bytes(),
                Piece::Capture(place) => captures.get(*place),
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn glob_templates_know_numbers_and_nothing_else() {
        // PEERS: `$1_x` is the variable `1_x`; `$1$1`, `$$1` and `$0` are empty; `$1-$10` and `%` are taken as written.
        for (template, filled) in [
            ("$1", "one"),
            ("${1}_total", "one_total"),
            ("a_$1", "a_one"),
            ("$1_x", ""),
            ("$1-$2", "one-two"),
            ("$1-$10", "one-"),
            ("$1$1", ""),
            ("$$1", ""),
            ("$0", ""),
            ("$3", ""),
            ("$name.x", ".x"),
            ("$2_${1}", "one"),
            ("100% $1", "100% one"),
            ("$", "$"),
            ("cost: $", "cost: $"),
            ("$-1", "$-1"),
            ("${}", "${}"),
            ("plain", "plain"),
            ("", ""),
        ] {
            let captures = Captures::Parts { name: b"a.one.two", parts: &[0..1, 2..5, 6..9], stars: &[1, 2] };
            let mut out = Vec::new();
            let compiled = Template::for_glob(template, 2);
            compiled.write(&captures, &mut out);
            assert_eq!(String::from_utf8_lossy(&out), filled, "{template}");
        }
        assert!(Template::for_glob("a$9b", 2).is_constant() && !Template::for_glob("a$1", 2).is_constant());
    }

    #[test]
    fn regex_templates_expand_as_go_does() {
        let regex = Regex::new(r"(?P<first>\w+)\.(\w+)(x)?").expect("it compiles");
        for (template, filled) in [
            ("$1", "one"),
            ("$0", "one.two"),
            ("${1}_x", "one_x"),
            ("$1_x", ""),
            ("$2$1", "twoone"),
            ("$$1", "$1"),
            ("$first", "one"),
            ("${first}_x", "one_x"),
            ("$3", ""),
            ("$4", ""),
            ("$01", ""),
            ("$1-$10", "one-"),
            ("100% $1", "100% one"),
            ("$", "$"),
            ("${1", "${1"),
            ("${}", "${}"),
            ("$-", "$-"),
        ] {
            let name = "one.two";
            let captures =
                Captures::Groups { name: name.as_bytes(), groups: regex.captures(name).expect("it matches") };
            let mut out = Vec::new();
            Template::for_regex(template, &regex).write(&captures, &mut out);
            assert_eq!(String::from_utf8_lossy(&out), filled, "{template}");
        }
    }
}
