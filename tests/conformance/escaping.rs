//! How names and tag keys are made legal, with and without a rule.

use crate::rig::check;

#[test]
fn names_and_tag_keys_are_escaped_alike() {
    let yaml = "mappings: [{ match: 'm.*', name: '$1', labels: { raw: '$1' } }]";
    for (behaviour, line, series) in [
        ("a run of dashes becomes one _", "a---x:1|g", "a_x 1"),
        ("other runs do not", "a..b:1|g", "a__b 1"),
        ("a digit in front gets a _", "1a:1|g", "_1a 1"),
        ("a character of several bytes becomes one _", "\u{e9}x:1|g", "_x 1"),
        ("keys of tags too", "a:1|g|#my.key:v,1k:w", r#"a{_1k="w",my_key="v"} 1"#),
        ("values are kept", "a:1|g|#k:a.b c", r#"a{k="a.b c"} 1"#),
        ("names by a rule too, and labels are not", "m.1a-b:1|g", r#"_1a_b{raw="1a-b"} 1"#),
    ] {
        check(behaviour, yaml, &[line], &[series]);
    }
}
