//! What outsiders send is shown as what it is: it drives no terminal, is no markup, and begins no line of its own.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Stdio;

use nix::sys::signal::Signal;

use crate::harness::{Sidecar, program, run};

/// Clears a screen, moves a cursor, sets a title; the single byte that begins such in some terminals; turns writing round.
const EVIL: &str = "\u{1b}[2J\u{1b}]0;taken\u{7}\u{9b}31m\u{202e}";
const MARKUP: &str = "<script>taken()</script>\"'><img src=x onerror=taken()>";

fn assert_harmless(what: &str, text: &str) {
    let bad = |letter: char| letter.is_control() && !matches!(letter, '\n' | '\t') || letter == '\u{202e}';
    let at = text.char_indices().find(|(_, letter)| bad(*letter));
    assert!(at.is_none(), "{what}: {at:?} in\n{text:?}");
}

/// A request as it stands; all of the answer.
fn raw(sidecar: &Sidecar, request: &[u8]) -> String {
    let mut stream = TcpStream::connect(sidecar.http).unwrap();
    stream.set_read_timeout(Some(crate::harness::PATIENCE)).unwrap();
    stream.write_all(request).unwrap();
    let mut answer = Vec::new();
    // One that is refused may be reset.
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

#[test]
fn what_is_sent_is_escaped_on_every_way_out() {
    let sidecar = Sidecar::start(&["listen.workers=1", "log.level=debug", "cardinality.max_families=6"]);
    let lines = [
        format!("hits:1|c|#k:{EVIL}{MARKUP}"),
        format!("hits:1|c|#{EVIL}{MARKUP}:v"),
        format!("hits:1|c|#user_id:{EVIL}{MARKUP}"),
        format!("{EVIL}{MARKUP}:1|c"),
        format!("{EVIL}{MARKUP}:1|g|#:x"),
        format!("bad{EVIL}{MARKUP}:x|c"),
        format!("bad{EVIL}{MARKUP}"),
        format!("_sc|{EVIL}{MARKUP}|0|#a:b"),
        format!("_sc|{EVIL}{MARKUP}|7|#a:b"),
        format!("type{EVIL}:1|{MARKUP}"),
    ];
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    sidecar.take(&lines);
    sidecar.send(&["line:1|c\u{b}\u{c}\r"]);

    let page = sidecar.get("/", &[]).text();
    assert_harmless("the status page", &page);
    for markup in ["<script>taken", "<img", "'><"] {
        assert!(!page.contains(markup), "{markup} in\n{page}");
    }
    assert!(page.contains("&lt;script&gt;taken()"), "it is shown as text:\n{page}");
    for path in ["/api/v1/status", "/api/v1/cardinality", "/api/v1/top?tag=user_id", "/api/v1/top"] {
        let reply = sidecar.get(path, &[]);
        assert_eq!(reply.header("content-type"), Some("application/json"));
        let value: serde_json::Value = serde_json::from_str(&reply.text()).unwrap();
        assert!(value.is_object());
        // JSON needs no more; the direction of writing is up to who shows it.
        assert_harmless(path, &reply.text().replace(['\u{202e}', '\u{9b}'], ""));
    }
    // An exposition holds values as they are but for newlines, quotes and backslashes; a line is a sample or a comment.
    let scrape = sidecar.scrape();
    for line in scrape.text.lines() {
        let name = line.trim_start_matches("# HELP ").trim_start_matches("# TYPE ");
        assert!(name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_'), "{line:?}");
    }
    let url = format!("http://{}", sidecar.http);
    let top = run(&["top", "--once", "--url", &url]);
    assert_harmless("top", &String::from_utf8(top.stdout).unwrap());

    // By HTTP: paths, parameters, headers, users.
    let user = "Basic G1sySmludHJ1ZGVyCmxldmVsPWVycm9yIG1zZz1tYWRlOng="; // ESC[2Jintruder, a newline, level=error ..:x
    for request in [
        format!("GET /{MARKUP} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"),
        format!("GET /%1b[2J%0alevel=error%3Cscript%3E HTTP/1.1\r\nHost: {MARKUP}\r\nConnection: close\r\n\r\n"),
        "GET /api/v1/top?tag=%1b[2J%3Cscript%3Etaken()%0a HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
            .to_owned(),
        "GET /api/v1/cardinality?limit=%1b[2J%3Cscript%3Etaken() HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
            .to_owned(),
        format!(
            "GET /metrics HTTP/1.1\r\nHost: x\r\nAccept: {MARKUP}\r\nConnection: close\r\nAuthorization: {user}\r\n\r\n"
        ),
        format!("{EVIL} /{EVIL} HTTP/1.1\r\n{EVIL}: {EVIL}\r\n\r\n"),
        format!("GET /{EVIL} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nX: {EVIL}\r\n\r\n"),
    ] {
        let answer = raw(&sidecar, request.as_bytes());
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
        assert_harmless("an answer", &head.replace('\r', ""));
        let is_json = head.contains("application/json");
        assert!(is_json || head.contains("version=0.0.4") || !body.contains("taken"), "{request:?}: {answer}");
        assert!(!head.contains("text/html"), "{request:?}: {answer}");
        if is_json {
            serde_json::from_str::<serde_json::Value>(body).unwrap();
            assert_harmless("JSON", body);
        }
    }
    let log = sidecar.log();
    assert_harmless("the log", &log);
    for part in ["taken", "intruder", "level=error"] {
        assert!(!log.contains(part), "{part} in\n{log}");
    }
    sidecar.stop();
}

#[test]
fn a_user_that_is_nobody_is_not_in_the_log() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("web.yml");
    std::fs::write(&file, format!("basic_auth_users:\n  alice: {}\n", bcrypt::hash("wonder:land", 4).unwrap()))
        .unwrap();
    let setting = format!("http.web_config_file={}", file.display());
    let sidecar = Sidecar::unasked(crate::harness::spawn(&[&setting, "log.level=debug"], &[]));
    let user = "Basic G1sySmludHJ1ZGVyCmxldmVsPWVycm9yIG1zZz1tYWRlOng=";
    for _ in 0..3 {
        let reply = crate::harness::get(sidecar.http, "/", &[("Authorization", user)]).unwrap();
        assert_eq!(reply.status, 401);
    }
    // What was logged of it would stand before this.
    sidecar.signal(Signal::SIGHUP);
    sidecar.wait_until("a line is logged", |it| it.log().contains("configuration read again and in force"));
    let log = sidecar.log();
    assert!(!log.contains("ntruder") && !log.contains("msg=made"), "the name of who failed to log in: {log}");
    sidecar.stop();
}

#[test]
fn commands_drive_no_terminal_with_what_they_are_given() {
    for arguments in [&["explain"][..], &["explain", "--json"]] {
        let mut child = program().args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let text = format!("hits:1|c|#k:{EVIL},user_id:{EVIL}\n{EVIL}:1|c\n{EVIL}\nhits{EVIL}:1|{EVIL}\nx:{EVIL}|s\n");
        child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        let found = String::from_utf8(output.stdout).unwrap();
        // In JSON that is for programs.
        let found = if arguments.len() > 1 { found.replace(['\u{202e}', '\u{9b}'], "") } else { found };
        assert_harmless("explain", &found);
    }
    let folder = tempfile::tempdir().unwrap();
    let evil: String = EVIL.chars().filter(|letter| *letter != '\u{202e}').collect();
    for (name, text) in [
        ("a.toml", format!("{evil} = 1\n[listen]\nworkers = \"{evil}\"\n")),
        ("b.toml", format!("[listen]\n\"no{}\" = 1\n", evil.escape_default())),
        ("c.toml", format!("[mapping]\nfile = \"{}\"\n", evil.escape_unicode())),
    ] {
        let file = folder.path().join(format!("{evil}{name}"));
        std::fs::write(&file, text).unwrap();
        let output = run(&["check", "--config", file.to_str().unwrap()]);
        assert_eq!(output.status.code(), Some(2), "{name}");
        assert_harmless(name, &String::from_utf8(output.stdout).unwrap());
    }
    let mapping = folder.path().join("mapping.yml");
    std::fs::write(&mapping, format!("mappings:\n- match: \"a.{evil}\"\n  name: [x]\n  {evil}: 1\n")).unwrap();
    let output = run(&["convert", mapping.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(2));
    assert_harmless("convert", &String::from_utf8(output.stdout).unwrap());
}

#[test]
fn a_server_that_is_asked_for_its_health_does_not_drive_the_terminal() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut request = [0; 4096];
        let _ = stream.read(&mut request).unwrap();
        stream.write_all(format!("HTTP/1.1 503 No\r\nConnection: close\r\n\r\n{EVIL}").as_bytes()).unwrap();
    });
    let output = run(&["healthcheck", "--url", &url]);
    server.join().unwrap();
    let found = String::from_utf8(output.stdout).unwrap();
    assert!(found.contains("503"), "{found:?}");
    assert_harmless("healthcheck", &found);
}
