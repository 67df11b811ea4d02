//! How names and tag keys are made legal, with and without a rule.

use crate::rig::{check, check_cases};

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

#[test]
fn names_without_a_rule() {
    check_cases(&[
        ("2.4 names", "letters, digits and _ stay", &["aZ_09:1|g"], &["aZ_09 1"], ""),
        ("2.4 names", "a run of dashes is one", &["a---x:1|g"], &["a_x 1"], ""),
        ("7 names", "dashes apart from others", &["a-.-b:1|g"], &["a___b 1"], ""),
        ("2.4 names", "dashes at the ends", &["--a--:1|g"], &["_a_ 1"], ""),
        ("2.4 names", "one for each other character", &["a..b c/d:1|g"], &["a__b_c_d 1"], ""),
        ("2.4 names", "a digit in front", &["1a:1|g", "9:1|g"], &["_1a 1", "_9 1"], ""),
        ("2.4 names", "one for a character of several bytes", &["\u{e9}x\u{1f600}:1|g"], &["_x_ 1"], ""),
        ("7 names", "two spellings of one name are one", &["a.b:1|c", "a-b:2|c", "a_b:4|c"], &["a_b 7"], ""),
        (
            "2.4 names",
            "keys of tags too",
            &["a:1|g|#my.key:v,1k:w,k--x:u"],
            &[r#"a{_1k="w",k_x="u",my_key="v"} 1"#],
            "",
        ),
        ("2.4 names", "and of tags in the name", &["a,my.key=v:1|g"], &[r#"a{my_key="v"} 1"#], ""),
    ]);
}

#[test]
fn values_of_labels() {
    check_cases(&[
        ("2.4 values", "dots, blanks, dashes", &["a:1|g|#k:a.b c--d"], &[r#"a{k="a.b c--d"} 1"#], ""),
        (
            "2.4 values",
            "quotes and backslashes, as text has them",
            &[r#"a:1|g|#k:x"y\z"#],
            &[r#"a{k="x\"y\\z"} 1"#],
            "",
        ),
        ("2.4 values", "any UTF-8", &["a:1|g|#k:\u{fc}\u{1f600}"], &["a{k=\"\u{fc}\u{1f600}\"} 1"], ""),
        ("2.4 values", "what looks like a label", &["a:1|g|#k:} 1 x{y="], &[r#"a{k="} 1 x{y="} 1"#], ""),
    ]);
}
