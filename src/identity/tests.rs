//! Which lines are the same to the identity cache, and what becomes of tags before it.

use super::*;
use crate::config::{Config, Sources, load};

fn config(set: &[&str]) -> Config {
    let set = set.iter().map(ToString::to_string).collect();
    load(&Sources { file: None, set }).unwrap_or_else(|problems| panic!("{problems}")).config
}

/// The identity of a line's first sample and the number of tags left out.
fn identify(set: &[&str], text: &str) -> (Vec<u8>, u64) {
    let config = config(set);
    let rules = TagRules::new(&config.bucketing, &config.labels, config.parse.container_id_label.is_some());
    let line = Line::parse(text.as_bytes(), &config.parse).expect(text);
    let sample = line.sample(line.body).expect(text);
    let mut out = Keys::default();
    let (_, dropped) = rules.identify(&line, &sample, &mut out, &RandomState::default(), &mut ());
    (out.words(0..out.end()).iter().flat_map(|word| word.to_le_bytes()).collect(), dropped)
}

fn rules(set: &[&str]) -> TagRules {
    let config = config(set);
    TagRules::new(&config.bucketing, &config.labels, false)
}

const TWO_RULES: &str = r#"bucketing=[{tags=["user_id","uid"],label="user_bucket"},{tags=["chat_id"],label="chat_bucket",count=10,observers=true}]"#;

#[test]
fn values_rates_and_bucketed_ids_do_not_tell_lines_apart() {
    let bucket = |id: &u32| rules(&[]).buckets()[0].number(id.to_string().as_bytes());
    let twin = (43..).find(|id| bucket(id) == bucket(&42)).expect("one in a hundred");
    for (a, b) in [
        ("a:1|c|#k:v", "a:2|c|@0.5|#k:v"),
        ("a:1|c", "a:1|c|c:abc|T5|card:low|x"),
        ("a,k=v:1|c", "a#k=v:1|c"),
        ("a:1|c|#user_id:42,k:v", &format!("a:1|c|#user_id:{twin},k:v")),
        ("a,user_id=42:1|c", &format!("a,user_id={twin}:1|c")),
        ("a:1|ms|#user_id:1,k:v", "a:1|ms|#user_id:2,k:v"),
        ("a:1|c|#message_id:1", "a:1|c|#message_id:2"),
    ] {
        assert_eq!(identify(&[], a).0, identify(&[], b).0, "{a:?} and {b:?}");
    }
}

#[test]
fn whatever_changes_the_result_tells_lines_apart() {
    let bucket = |id: &u32| rules(&[]).buckets()[0].number(id.to_string().as_bytes());
    let other = (43..).find(|id| bucket(id) != bucket(&42)).expect("most are");
    for (a, b) in [
        ("a:1|c", "a:1|g"),
        ("a:1|h", "a:1|d"),
        ("a:1|c", "b:1|c"),
        ("a:1|c|#k:v", "a:1|c|#k:w"),
        ("a:1|c|#k:v", "a,k=v:1|c"),
        ("a[k=v]b:1|c", "ab[k=v]:1|c"),
        ("a[k=v]:1|c", "a[k=v]b:1|c"),
        ("a:1|c|#user_id:42", &format!("a:1|c|#user_id:{other}")),
        ("a:1|c|#user_id:42", "a:1|c|#user_bucket:bucket_1"),
        ("a:1|c|#user_id:42", "a:1|c|#user_id"),
        // An empty piece counts as malformed; a tag left out does not.
        ("a:1|c|#k:v,message_id:1,l:w", "a:1|c|#k:v,,l:w"),
        ("a:1|ms|#k:v,user_id:1", "a:1|ms|#k:v,"),
    ] {
        assert_ne!(identify(&[], a).0, identify(&[], b).0, "{a:?} and {b:?}");
    }
}

#[test]
fn the_container_is_part_of_an_identity_only_if_it_is_a_label() {
    let lines = ["a:1|c|#k:v|c:one", "a:1|c|#k:v|c:two"];
    let [a, b] = lines.map(|line| identify(&[], line));
    assert_eq!(a, b);
    let [a, b] = lines.map(|line| identify(&["parse.container_id_label=container_id"], line));
    assert_ne!(a, b);
}

#[test]
fn tags_left_out_are_counted_in_every_place_and_spelling() {
    for (line, dropped) in [
        ("a:1|c|#message_id:1", 1),
        ("a:1|c|##message_id:1", 1),
        ("a:1|c|#k:v,message_id:1,dd.internal.entity_id:x,update_id:2,l:w", 3),
        ("a,message_id=1,k=v,update_id=2:1|c", 2),
        ("a:1|c|#message_id", 1),
        ("a:1|c|#message_id:", 1),
        ("a:1|c|#message_ids:1,xmessage_id:1,dd.internal:1,message-id:1", 0),
        ("a:1|c", 0),
    ] {
        let (identity, counted) = identify(&[], line);
        assert_eq!(counted, dropped, "{line:?}");
        assert!(dropped == 0 || !identity.windows(3).any(|part| part == b"_id"), "{line:?}");
    }
}

#[test]
fn a_raw_user_id_is_in_no_identity_that_rules_name() {
    for line in
        ["a:1|c|#user_id:424242", "a:1|c|##user_id:424242", "a,user_id=424242:1|g", "a:1|ms|#k:v,user_id:424242,l:w"]
    {
        let identity = identify(&[], line).0;
        assert!(!identity.windows(6).any(|part| part == b"424242"), "{line:?}");
    }
}

#[test]
fn several_rules_each_take_their_own_tags() {
    let rules = rules(&[TWO_RULES]);
    for (tag, action) in [
        ("user_id", TagAction::Bucket(0)),
        ("uid", TagAction::Bucket(0)),
        ("chat_id", TagAction::Bucket(1)),
        ("message_id", TagAction::Drop),
        ("dd.internal.", TagAction::Drop),
        ("user", TagAction::Keep),
        ("", TagAction::Keep),
    ] {
        assert_eq!(rules.action(tag.as_bytes()), action, "{tag:?}");
    }
    for (tag, action) in [("chat-id", TagAction::Bucket(1)), ("message.id", TagAction::Drop), ("a.b", TagAction::Keep)]
    {
        assert_eq!(rules.action(tag.as_bytes()), TagAction::Keep, "{tag:?}");
        assert_eq!(rules.action_as_exposed(tag.as_bytes()), action, "{tag:?}");
    }
    assert_eq!(identify(&[TWO_RULES], "a:1|c|#user_id:42").0, identify(&[TWO_RULES], "a:1|c|#uid:42").0);
    assert_ne!(identify(&[TWO_RULES], "a:1|c|#user_id:42").0, identify(&[TWO_RULES], "a:1|c|#chat_id:42").0);
    // The second rule keeps its label on observations, the first does not.
    assert_eq!(identify(&[TWO_RULES], "a:1|h|#uid:1").0, identify(&[TWO_RULES], "a:1|h|#uid:2").0);
    assert_ne!(identify(&[TWO_RULES], "a:1|h|#chat_id:1").0, identify(&[TWO_RULES], "a:1|h|#chat_id:2").0);
}

#[test]
fn more_patterns_than_a_mask_has_bits_are_all_looked_at() {
    let globs: Vec<String> = (0..100).map(|n| format!("\"t{n}{}\"", if n % 2 == 0 { "" } else { ".*" })).collect();
    let set = format!("labels.drop=[{}]", globs.join(","));
    for n in 0..100 {
        let key = if n % 2 == 0 { format!("t{n}") } else { format!("t{n}.x") };
        assert_eq!(identify(&[&set], &format!("a:1|c|#{key}:1")).1, 1, "{key}");
        assert_eq!(identify(&[&set], &format!("a:1|c|##{key}:1")).1, 1, "#{key}");
    }
    assert_eq!(identify(&[&set], "a:1|c|#t100:1,t1:1,t:1,user_id:4").1, 0);
}

#[test]
fn blanks_around_a_key_do_not_carry_an_id_past_the_rules() {
    let rules = rules(&[]);
    for key in [" user_id", "user_id ", " user-id "] {
        assert_eq!(rules.action_as_exposed(key.as_bytes()), TagAction::Bucket(0), "{key:?}");
    }
    assert_eq!(rules.action_as_exposed(b" message_id"), TagAction::Drop);
}

#[test]
fn what_a_person_sees_of_a_line_holds_no_value_of_a_bucketed_tag() {
    let rules = rules(&[TWO_RULES]);
    for (line, shown) in [
        ("a:x|c|#user_id:42,k:v", "a:x|c|#user_id:\u{2026},k:v"),
        ("a:x|c|#k:v,uid:42,chat_id:-7", "a:x|c|#k:v,uid:\u{2026},chat_id:\u{2026}"),
        ("a:1|c|#user_id:4:2]x|@0.1", "a:1|c|#user_id:\u{2026}|@0.1"),
        ("a,user_id=4|2,k=v:x|c", "a,user_id=\u{2026},k=v:x|c"),
        ("a#uid=42:x|c", "a#uid=\u{2026}:x|c"),
        ("a[uid=42]b:x|c", "a[uid=\u{2026}:x|c"),
        ("a:x|c|##user_id:42, user-id:43", "a:x|c|##user_id:\u{2026}, user-id:\u{2026}"),
        ("a|#user_id:42", "a|#user_id:\u{2026}"),
        ("hello user_id=42", "hello user_id=\u{2026}"),
        ("a:1|c|#user_id:", "a:1|c|#user_id:\u{2026}"),
        ("user:42|c|#my_user_id:1", "user:42|c|#my_user_id:1"),
        ("users:42|s|#le:1", "users:\u{2026}|s|#le:1"),
        ("users,k=v:4:2|s", "users,k=v:\u{2026}|s"),
        ("a:1|c:42|s", "a:1|c:\u{2026}|s"),
        ("a:1|s:2|c", "a:\u{2026}|s:2|c"),
        ("_e{5,4}:user 42|left|#k:v", "_e{5,4}:\u{2026}"),
        ("_e{user 42", "_e{\u{2026}"),
        ("_sc|db|9|#user_id:42|m:of user 42", "_sc|db|9|#user_id:\u{2026}|m:\u{2026}"),
        ("", ""),
    ] {
        assert_eq!(rules.struck(line.as_bytes(), 512), shown, "{line:?}");
    }
    assert_eq!(rules.struck(b"a\xff:1|c|#user_id:42", 512), "a\u{fffd}:1|c|#user_id:\u{2026}");
    assert_eq!(rules.struck(b"a:1|c|#user_id:42", 16), "a:1|c|#user_id:\u{2026}");
    let long = format!("users:{}", "42".repeat(400));
    assert_eq!(rules.struck(long.as_bytes(), 512), "users:\u{2026}");
    assert_eq!(rules.struck(format!("{long}|s").as_bytes(), 512), "users:\u{2026}|s");
}
