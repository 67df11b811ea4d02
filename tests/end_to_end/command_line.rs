//! The commands that run and end: `check`, `explain`, `healthcheck`, `--version`.

use crate::harness::{Sidecar, run};

const README_LINE: &str = "bot.messages:1|c|#user_id:42,activity_type:message";

fn stdout(arguments: &[&str], code: i32) -> String {
    let output = run(arguments);
    let stdout = String::from_utf8(output.stdout).unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{arguments:?}\n{stdout}\n{stderr}");
    stdout
}

#[test]
fn version_is_that_of_the_package() {
    let expected = concat!("statsieve, version ", env!("CARGO_PKG_VERSION"));
    let found = stdout(&["--version"], 0);
    assert!(found.starts_with(expected), "{found:?} does not start with {expected:?}");
}

#[test]
fn check_accepts_the_defaults_and_refuses_a_bad_file_with_2() {
    stdout(&["check"], 0);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("statsieve.toml");
    std::fs::write(&file, "[labels]\nmax_count = -1\n\n[listen]\nworkers = \"many\"\n").unwrap();
    let output = run(&["check", "--config", file.to_str().unwrap()]);
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    assert_eq!(output.status.code(), Some(2), "{text}");
    // Both problems at once, not the first alone.
    for part in ["statsieve.toml", "max_count", "workers"] {
        assert!(text.contains(part), "no {part:?} in\n{text}");
    }
}

#[test]
fn explain_names_the_series_and_the_bucket_that_the_sidecar_then_exposes() {
    let found = stdout(&["explain", README_LINE], 0);
    for part in ["bot_messages_total", "bucket_1", "activity_type", "counter"] {
        assert!(found.contains(part), "no {part:?} in\n{found}");
    }
    let sidecar = Sidecar::start(&[]);
    let series = "bot_messages_total{activity_type=\"message\",user_bucket=\"bucket_1\"}";
    sidecar.take(&[README_LINE]).assert(series, 1.0);
    assert!(found.contains(series), "no {series} in\n{found}");
    sidecar.stop();
}

#[test]
fn explain_as_json_is_json_and_says_why_a_line_is_refused() {
    let found = stdout(&["explain", "--json", README_LINE], 0);
    let value: serde_json::Value = serde_json::from_str(&found).unwrap_or_else(|error| panic!("{error} in {found}"));
    assert!(value.to_string().contains("bot_messages_total"), "{found}");
    let output = run(&["explain", "--json", "hits:-1|c"]);
    let found = String::from_utf8(output.stdout).unwrap();
    serde_json::from_str::<serde_json::Value>(&found).unwrap_or_else(|error| panic!("{error} in {found}"));
    assert!(found.contains("negative_counter"), "{found}");
}

#[test]
fn healthcheck_is_0_only_while_the_sidecar_runs() {
    let sidecar = Sidecar::start(&[]);
    let url = format!("http://{}", sidecar.http);
    stdout(&["healthcheck", "--url", &url], 0);
    sidecar.stop();
    let output = run(&["healthcheck", "--url", &url]);
    assert!(!output.status.success() && output.status.code().is_some(), "{:?}", output.status);
}

#[test]
fn an_unknown_argument_is_refused_with_2() {
    assert_eq!(run(&["--no-such-flag"]).status.code(), Some(2));
}
