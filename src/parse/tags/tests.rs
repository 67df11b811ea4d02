//! Tags of every dialect, piece by piece.

use super::*;

/// Each tag as `key=value`, `(bare)` or `!malformed`, separated by blanks.
fn show(text: &str, style: TagStyle) -> String {
    let utf8 = |bytes| std::str::from_utf8(bytes).expect("cut at ASCII bytes");
    let shown = list(text.as_bytes(), style).map(|tag| match tag {
        Tag::Pair(key, value) => format!("{}={}", utf8(key), utf8(value)),
        Tag::Bare(word) => format!("({})", utf8(word)),
        Tag::Malformed(piece) => format!("!{}", utf8(piece)),
    });
    shown.collect::<Vec<_>>().join(" ")
}

#[test]
fn dogstatsd_tags_are_split_at_the_first_colon() {
    for (text, tags) in [
        ("", ""),
        ("a:1", "a=1"),
        ("a:1,b:2", "a=1 b=2"),
        ("a:1:2", "a=1:2"),
        ("a:1=2", "a=1=2"),
        ("a=1", "(a=1)"),
        ("word", "(word)"),
        ("a:", "!a:"),
        (":", "!:"),
        (":v", "=v"),
        ("a:1,", "a=1 !"),
        (",a:1", "! a=1"),
        (",", "! !"),
        ("a: ", "a= "),
        ("a::", "a=:"),
    ] {
        assert_eq!(show(text, TagStyle::DogStatsd), tags, "{text:?}");
    }
}

#[test]
fn each_dogstatsd_tag_may_carry_its_own_leading_hash() {
    for (text, tags) in [
        ("#a:1,#b:2", "a=1 b=2"),
        ("##a:1", "#a=1"),
        ("#", "!"),
        ("#word", "(word)"),
        ("#:v", "=v"),
        ("a#b:1", "a#b=1"),
    ] {
        assert_eq!(show(text, TagStyle::DogStatsd), tags, "{text:?}");
    }
}

#[test]
fn tags_in_names_are_split_at_the_first_equals_sign_and_keep_their_hash() {
    for style in [TagStyle::InfluxDb, TagStyle::Librato, TagStyle::SignalFx] {
        for (text, tags) in [
            ("", ""),
            ("a=1,b=2", "a=1 b=2"),
            ("a=1=2", "a=1=2"),
            ("#a=1", "#a=1"),
            ("word", "(word)"),
            ("a=", "!a="),
            ("=v", "=v"),
            (",", "! !"),
        ] {
            assert_eq!(show(text, style), tags, "{text:?} in {}", style.name());
        }
    }
}

#[test]
fn a_tag_is_valid_with_a_key_and_a_value() {
    for (text, valid) in [("a=1", true), ("x,a=1", true), ("a=", false), ("=v", false), ("x", false), ("", false)] {
        assert_eq!(any_valid(text.as_bytes(), TagStyle::InfluxDb), valid, "{text:?}");
    }
}
