//! What is wrong with a configuration, in words for whoever wrote it.
//!
//! In: places in a file or an override, and messages. Out: one line for each problem, or the source line with a caret.
//! Always: lower case, no full stop; the key path, the value found and what is accepted are in the message.

use std::fmt;
use std::ops::Range;

use super::file::Known;

/// The way to a key: names of tables and indices of lists.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct KeyPath(Vec<String>);

impl KeyPath {
    /// A path written with dots, none of its names holding one.
    pub(super) fn parse(dotted: &str) -> Self {
        Self(dotted.split('.').map(str::to_owned).collect())
    }

    pub(super) fn join(&self, segment: impl ToString) -> Self {
        let mut longer = self.clone();
        longer.0.push(segment.to_string());
        longer
    }

    /// The table or list it is in; the root is its own.
    pub(super) fn parent(&self) -> Self {
        Self(self.0[..self.0.len().saturating_sub(1)].to_vec())
    }

    pub(super) fn last(&self) -> Option<&str> {
        self.0.last().map(String::as_str)
    }

    pub(super) fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn segments(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }

    /// Whether one of the two is inside the other, or they are the same.
    pub(super) fn overlaps(&self, other: &Self) -> bool {
        self.0.iter().zip(&other.0).all(|(mine, theirs)| mine == theirs)
    }

    /// Whether it is `outer`, or inside of it.
    pub(super) fn is_within(&self, outer: &Self) -> bool {
        self.0.starts_with(&outer.0)
    }
}

impl From<Vec<String>> for KeyPath {
    fn from(segments: Vec<String>) -> Self {
        Self(segments)
    }
}

impl fmt::Display for KeyPath {
    /// Joined by dots; a name that TOML would not take bare is quoted.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, segment) in self.0.iter().enumerate() {
            if place > 0 {
                f.write_str(".")?;
            }
            let bare = !segment.is_empty() && segment.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-".contains(&b));
            if bare { f.write_str(segment)? } else { write!(f, "{segment:?}")? }
        }
        Ok(())
    }
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Where: `bot.toml:12`, `--set listen.workers=-1`, or the file that cannot be read.
    pub place: String,
    /// The dotted key, or empty if it is not about one.
    pub key: String,
    /// What was found and what is accepted.
    pub message: String,
    excerpt: Option<Excerpt>,
    /// Whether it is in the mapping file.
    mapping: bool,
}

/// The line a problem shows on.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Excerpt {
    /// Its number in the file, from 1; `None` on the command line.
    line: Option<usize>,
    text: String,
    /// The part of `text` to underline, in bytes.
    marked: Range<usize>,
}

impl Problem {
    /// A problem that no line can be shown for.
    pub(super) fn bare(place: impl Into<String>, key: &KeyPath, message: impl Into<String>) -> Self {
        Self { place: place.into(), key: key.to_string(), message: message.into(), excerpt: None, mapping: false }
    }

    /// A problem at the bytes `span` of the file `name`.
    pub(super) fn in_file(name: &str, text: &str, span: &Range<usize>, key: &KeyPath, message: String) -> Self {
        let at = floor(text, span.start);
        let start = text[..at].rfind('\n').map_or(0, |newline| newline + 1);
        let end = text[at..].find('\n').map_or(text.len(), |newline| at + newline);
        let line = text[..start].matches('\n').count() + 1;
        let marked = at - start..floor(text, span.end).clamp(at, end) - start;
        let excerpt = Excerpt { line: Some(line), text: text[start..end].trim_end_matches('\r').to_owned(), marked };
        Self { place: format!("{name}:{line}"), key: key.to_string(), message, excerpt: Some(excerpt), mapping: false }
    }

    /// The same, of a mapping file: those come behind the problems of the file that names it.
    pub(super) fn of_mapping_file(self) -> Self {
        Self { mapping: true, ..self }
    }

    /// A problem of the override `KEY=VALUE`.
    pub(super) fn in_override(argument: &str, key: &KeyPath, message: String, mark_key: bool) -> Self {
        let text = format!("--set {argument}");
        let equals = text.find('=').unwrap_or(text.len());
        let marked = if mark_key { "--set ".len()..equals } else { (equals + 1).min(text.len())..text.len() };
        let excerpt = Excerpt { line: None, text: text.clone(), marked };
        Self { place: text, key: key.to_string(), message, excerpt: Some(excerpt), mapping: false }
    }

    /// A problem of another program's flag, written `--flag=value`: whoever wrote it knows the flag and not our key.
    pub(super) fn in_flag(written: &str, message: String) -> Self {
        let value = written.find('=').map_or(0, |equals| equals + 1);
        let excerpt = Excerpt { line: None, text: written.to_owned(), marked: value..written.len() };
        Self { place: written.to_owned(), key: String::new(), message, excerpt: Some(excerpt), mapping: false }
    }

    /// Where it comes in a list: by line of the file, then of the mapping file, then the command line.
    pub(super) fn order(&self) -> (bool, bool, usize) {
        let line = self.excerpt.as_ref().and_then(|excerpt| excerpt.line);
        (line.is_none(), self.mapping, line.unwrap_or(0))
    }
}

/// The character boundary at or before `at`.
fn floor(text: &str, at: usize) -> usize {
    let at = at.min(text.len());
    (0..=at).rev().find(|place| text.is_char_boundary(*place)).unwrap_or(0)
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.key.is_empty() {
            write!(f, "{}: {}", self.place, self.message)
        } else {
            write!(f, "{}: {}: {}", self.place, self.key, self.message)
        }
    }
}

/// Everything that is wrong, in the order of the file and then of the overrides; at least one thing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problems {
    list: Vec<Problem>,
    files: Vec<Known>,
}

impl Problems {
    pub(super) fn new(mut problems: Vec<Problem>) -> Self {
        problems.sort_by_key(Problem::order);
        Self { list: problems, files: Vec::new() }
    }

    /// The same, found in these files, or for want of them.
    pub(super) fn of(self, files: Vec<Known>) -> Self {
        Self { files, ..self }
    }

    /// The files that were read: unless one of them changes, there is no other outcome.
    pub fn files(&self) -> &[Known] {
        &self.files
    }

    /// The problems one by one.
    pub fn iter(&self) -> impl Iterator<Item = &Problem> {
        self.list.iter()
    }

    /// How many there are; at least one.
    pub fn count(&self) -> usize {
        self.list.len()
    }

    /// Each problem with the line it shows on and a caret under what is meant, a blank line between two.
    pub fn render_with_carets(&self) -> String {
        let each: Vec<String> = self.list.iter().map(render).collect();
        each.join("\n")
    }
}

fn render(problem: &Problem) -> String {
    // Whoever reads it may have got the file from elsewhere, and it must not drive their terminal. A tab and a newline
    // stay; all others are a character each, so that the caret stays in its place.
    let shown = |letter: char| match letter {
        '\t' | '\n' => letter,
        hidden if hidden.is_control() => '\u{fffd}',
        seen => seen,
    };
    drawn(problem).chars().map(shown).collect()
}

fn drawn(problem: &Problem) -> String {
    let Some(excerpt) = &problem.excerpt else { return format!("{problem}\n") };
    let number = excerpt.line.map(|line| line.to_string()).unwrap_or_default();
    let gutter = " ".repeat(number.len());
    let start = floor(&excerpt.text, excerpt.marked.start);
    let end = floor(&excerpt.text, excerpt.marked.end).max(start);
    // Tabs stay tabs, so that the caret stands below its character however wide they are shown.
    let indent: String = excerpt.text[..start].chars().map(|c| if c == '\t' { '\t' } else { ' ' }).collect();
    let carets = "^".repeat(excerpt.text[start..end].trim_end().chars().count().max(1));
    format!("{problem}\n{gutter} |\n{number} | {}\n{gutter} | {indent}{carets}\n", excerpt.text)
}

impl fmt::Display for Problems {
    /// One line each, without a newline at the end.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, problem) in self.list.iter().enumerate() {
            if place > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_caret_stands_under_the_value_behind_tabs_and_wide_letters() {
        let text = "[listen]\n\tworkers = -1 # é\n";
        let problem = Problem::in_file("a.toml", text, &(20..22), &KeyPath::parse("listen.workers"), "found -1".into());
        assert_eq!(
            Problems::new(vec![problem]).render_with_carets(),
            "a.toml:2: listen.workers: found -1\n  |\n2 | \tworkers = -1 # é\n  | \t          ^^\n"
        );
    }

    #[test]
    fn a_span_outside_the_text_or_inside_a_letter_is_no_panic() {
        for span in [0..0, 3..4, 4..99, 99..120] {
            let problem = Problem::in_file("a.toml", "aéé\n", &span, &KeyPath::default(), "x".into());
            assert!(render(&problem).contains('^'));
        }
    }

    #[test]
    fn a_file_does_not_drive_the_terminal_and_the_caret_stays_in_its_place() {
        let text = "\u{1b}[2J = \u{9b}1\n";
        let problem = Problem::in_file("a\u{7}.toml", text, &(8..10), &KeyPath::default(), "found \u{1b}[m".into());
        let found = Problems::new(vec![problem]).render_with_carets();
        assert_eq!(found, "a\u{fffd}.toml:1: found \u{fffd}[m\n  |\n1 | \u{fffd}[2J = \u{fffd}1\n  |        ^^\n");
    }

    #[test]
    fn odd_names_are_quoted() {
        assert_eq!(KeyPath::parse("labels.add").join("a.b").to_string(), "labels.add.\"a.b\"");
    }
}
