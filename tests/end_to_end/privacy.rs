//! The id of a user is sent in every way there is, and looked for in all that comes out. It may be in the lines that are
//! relayed, and in `/api/v1/top` where `http.debug_api` allows that.

use std::io::Write;
use std::net::{TcpStream, UdpSocket};

use crate::harness::{PATIENCE, Sidecar, get, run};
use crate::protobuf::PROTOBUF;

const ID: &str = "zz4711zz";

/// Lines with the id, each in another way; recorded and refused.
fn lines() -> Vec<Vec<u8>> {
    let long = "x".repeat(9000);
    let many = ID.repeat(1200);
    let mut lines: Vec<Vec<u8>> = [
        // Tags of every dialect.
        format!("hits:1|c|#user_id:{ID},kind:a"),
        format!("hits,user_id={ID}:1|c"),
        format!("hits#user_id={ID}:1|c"),
        format!("hits[user_id={ID}]:1|c"),
        format!("wait:12|ms|#user_id:{ID}"),
        format!("depth:3|g|#user_id:{ID}"),
        // A set, whose members may be users.
        format!("users:{ID}|s"),
        format!("users:{ID}|s|#:x"),
        format!("hits:1|c:{ID}|s"),
        // Refused for what is in them, in every dialect.
        format!("visits:-1|c|#user_id:{ID}"),
        format!("visits:x|c|#user_id:{ID}"),
        format!("visits,user_id={ID}:1|q"),
        format!("visits#user_id={ID}:nan|g"),
        format!("visits[user_id={ID}]:1|c|#a:b"),
        format!("hits:1|g|#user_id:{ID}"),
        format!("what is user_id={ID}"),
        format!("statsieve_x:1|c|#user_id:{ID}"),
        format!("hits:1|c|#__name__:y,user_id:{ID}"),
        format!("hits:1|ms|@-1|#user_id:{ID}"),
        format!("hits:1|c||#user_id:{ID}"),
        // Too long.
        format!("a:1|c|#user_id:{ID},k:{long}"),
        format!("a:1|c|#user_id:{many}"),
        format!("users:{many}"),
        format!("users:{many}|s"),
        // Events and service checks.
        format!("_e{{{},{}}}:{ID}|{ID}|#user_id:{ID}", ID.len(), ID.len()),
        format!("_e{{99,1}}:{ID}|{ID}|#user_id:{ID}"),
        format!("_e{{{ID}"),
        format!("_sc|db|0|#user_id:{ID}|m:{ID}"),
        format!("_sc|db|9|#user_id:{ID}|m:{ID}"),
        // In names, for a rule that takes it out of them.
        format!("bot.user.{ID}.hits:1|c"),
        format!("bot.user.{ID}.hits:x|c"),
        format!("bot.user.{ID}.hits:1|q"),
        format!("bot.user.{ID}.hits"),
        format!("bot.user.{ID}.wait:nan|ms"),
    ]
    .map(String::into_bytes)
    .into();
    lines.push([b"a\xff:1|c|#user_id:", ID.as_bytes()].concat());
    lines
}

const RULES: &str = "mapping.rules=[{match=\"bot.user.*.hits\",name=\"bot_user_hits\",labels={user_id=\"$1\"}},\
                     {match=\"^bot\\\\.user\\\\.(.*)\\\\.wait$\",match_type=\"regex\",name=\"bot_user_wait\",\
                     labels={user_id=\"$1\"}}]";

/// Everything that comes out of one, but for `/api/v1/top`.
fn said(sidecar: &Sidecar) -> Vec<(String, String)> {
    let mut said = Vec::new();
    for accept in ["text/plain", "application/openmetrics-text;version=1.0.0", PROTOBUF] {
        let reply = get(sidecar.http, "/metrics", &[("Accept", accept)]).unwrap();
        said.push((accept.to_owned(), reply.text()));
    }
    for path in ["/", "/-/ready", "/api/v1/status", "/api/v1/cardinality?limit=50", "/api/v1/config", "/api/v1/top"] {
        said.push((path.to_owned(), sidecar.get(path, &[]).text()));
    }
    said.push(("the log".to_owned(), sidecar.log()));
    said
}

/// Sends all lines by every listener, each refused kind at a moment of its own, since one a second is noted.
fn send(sidecar: &Sidecar) {
    let sender = sidecar.sender();
    let lines = lines();
    let mut tcp = TcpStream::connect(sidecar.address_of("tcp")).unwrap();
    let mut sent = 0;
    for line in &lines {
        sender.send(line);
        tcp.write_all(&[line.as_slice(), b"\n"].concat()).unwrap();
        sent += 2;
    }
    drop(tcp);
    sidecar.settled(sent);
}

#[test]
fn the_id_of_a_user_is_in_nothing_that_comes_out_but_what_is_relayed() {
    let relayed = UdpSocket::bind("127.0.0.1:0").unwrap();
    relayed.set_read_timeout(Some(PATIENCE)).unwrap();
    let target = format!("relay.targets=[\"{}\"]", relayed.local_addr().unwrap());
    for level in ["debug", "error"] {
        let log = format!("log.level={level}");
        let common = ["listen.workers=1", "listen.tcp=127.0.0.1:0", "listen.coalesce=0s", RULES, &target];
        let settings = [&common[..], &["http.debug_api=off"]].concat();
        // The addresses are logged as information, so the level is set by a file that is read again.
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("statsieve.toml");
        std::fs::write(&file, "[http]\nlifecycle = true\n").unwrap();
        let sidecar = Sidecar::start_with(&settings, &["--config", file.to_str().unwrap()]);
        std::fs::write(
            &file,
            format!("[http]\nlifecycle = true\n[log]\n{}\n", log.replace("log.", "").replace('=', "=\"") + "\""),
        )
        .unwrap();
        let reloaded = crate::harness::request(sidecar.http, "POST", "/-/reload", &[]).unwrap();
        assert_eq!(reloaded.status, 200, "{}", reloaded.text());
        send(&sidecar);
        let said = said(&sidecar);
        let status = &said.iter().find(|(what, _)| what == "/api/v1/status").unwrap().1;
        assert!(status.matches("\"reason\"").count() > 5, "some were noted: {status}");
        assert!(said[0].1.contains("Received as bot.user.*.hits (counter)."), "{}", said[0].1);
        assert!(said[0].1.contains("bot_user_hits{user_bucket="), "{}", said[0].1);
        let url = format!("http://{}", sidecar.http);
        let top = run(&["top", "--once", "--url", &url]);
        let top = ("top".to_owned(), String::from_utf8_lossy(&[top.stdout, top.stderr].concat()).into_owned());
        for (what, text) in said.iter().chain([&top]) {
            assert!(!text.contains(ID), "{what}:\n{text}");
        }
        assert_eq!(sidecar.get("/api/v1/top?tag=user_id", &[]).status, 404);
        let mut buffer = vec![0; 65_536];
        let length = relayed.recv(&mut buffer).unwrap();
        assert!(String::from_utf8_lossy(&buffer[..length]).contains(ID));
        sidecar.stop();
        while relayed.set_nonblocking(true).is_ok() && relayed.recv(&mut buffer).is_ok() {}
        relayed.set_nonblocking(false).unwrap();
    }
}

#[test]
fn where_the_debug_api_is_on_top_alone_shows_the_id() {
    let sidecar = Sidecar::start(&["listen.workers=1", "listen.tcp=127.0.0.1:0", "listen.coalesce=0s", RULES]);
    send(&sidecar);
    assert!(sidecar.get("/api/v1/top?tag=user_id", &[]).text().contains(ID));
    for (what, text) in said(&sidecar) {
        assert!(!text.contains(ID), "{what}:\n{text}");
    }
    sidecar.stop();
}
