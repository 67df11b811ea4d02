//! Unique users and heavy hitters: of one sidecar, of several, and of several by recording rules alone.

use std::fmt::Write as _;
use std::net::{SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use statsieve::insight::distinct::{estimate, place};
use xxhash_rust::xxh64::xxh64;

use crate::harness::{Scrape, Sidecar, assert_within, get, wait_until};
use crate::prometheus::Prometheus;
use crate::tools::{output_of, tool};

/// Registers of an estimate by default.
const REGISTERS: usize = 1024;
/// Datagrams sent before the sidecar is given time to take them: fewer than half a small receive buffer holds.
const AT_ONCE: usize = 50;

/// What an estimate for `users` may be: three standard errors around them.
fn three_errors(users: u64) -> std::ops::RangeInclusive<f64> {
    let error = 3.0 * 1.04 / (REGISTERS as f64).sqrt();
    users as f64 * (1.0 - error)..=users as f64 * (1.0 + error)
}

/// Sends a line for each user, over several flows, and waits until all are in the books.
fn send_users(sidecar: &Sidecar, users: impl Iterator<Item = u64>) -> Scrape {
    let senders: Vec<_> = (0..4).map(|_| sidecar.sender()).collect();
    let users: Vec<u64> = users.collect();
    let mut taken = 0;
    for (number, chunk) in users.chunks(30).enumerate() {
        let lines: Vec<String> = chunk.iter().map(|user| format!("bot.messages:1|c|#user_id:{user}")).collect();
        senders[number % senders.len()].send(lines.join("\n").as_bytes());
        taken += chunk.len() as u64;
        if number % AT_ONCE == AT_ONCE - 1 {
            sidecar.settled(taken);
        }
    }
    sidecar.settled(taken)
}

/// The registers of a scrape for one window, in their order.
fn registers(scrape: &Scrape, window: &str) -> Vec<u8> {
    let series = |register| {
        format!("statsieve_distinct_register{{register=\"{register}\",tag=\"user_id\",window=\"{window}\"}}")
    };
    (0..REGISTERS).map(|register| scrape.value(&series(register)) as u8).collect()
}

#[test]
fn fifty_thousand_users_of_two_workers_are_estimated_within_three_standard_errors() {
    let sidecar = Sidecar::start(&["listen.workers=2"]);
    for window in ["5m", "24h"] {
        sidecar.scrape().assert(&format!("statsieve_distinct{{tag=\"user_id\",window=\"{window}\"}}"), 0.0);
    }
    // Every user twice, and some of them on both workers.
    let scrape = send_users(&sidecar, (0..100_000).map(|number| number * 7 % 50_000));
    for window in ["5m", "24h"] {
        let found = scrape.value(&format!("statsieve_distinct{{tag=\"user_id\",window=\"{window}\"}}"));
        assert_within("the estimate", found, three_errors(50_000));
    }
    assert_eq!(scrape.of("statsieve_distinct_register").count(), 0, "registers are not exposed unasked");
    sidecar.stop();
}

#[test]
fn users_of_timings_and_of_every_dialect_and_method_count() {
    let rules =
        r#"bucketing=[{tags=["user_id"],label="u"},{tags=["chat_id","room"],label="c",method="range",size=10}]"#;
    let sidecar = Sidecar::start(&[rules]);
    let scrape = sidecar.take(&[
        "a:1|c|#user_id:1",
        "b:1|ms|#user_id:2",
        "c,user_id=3:1|c",
        "d#user_id=4:1|g",
        "e[user_id=5]:1|h",
        "f:1:2:3|c|#user_id:5",
        "g:1|c|#chat_id:100",
        "g:1|c|#room:101",
    ]);
    let users = scrape.value("statsieve_distinct{tag=\"user_id\",window=\"5m\"}");
    assert_within("users", users, 4.9..=5.1);
    // One bucket, and two values.
    let chats = scrape.value("statsieve_distinct{tag=\"chat_id\",window=\"24h\"}");
    assert_within("chats", chats, 1.9..=2.1);
    assert_eq!(scrape.of("statsieve_distinct").count(), 4);
    sidecar.stop();
}

#[test]
fn users_leave_a_window_of_seconds_while_no_line_comes() {
    let sidecar = Sidecar::start(&["distinct.windows=[\"2s\",\"1h\"]"]);
    sidecar.take(&["a:1|c|#user_id:1"]);
    sidecar.wait_until("the user is gone from the short window", |it| {
        it.scrape().value("statsieve_distinct{tag=\"user_id\",window=\"2s\"}") == 0.0
    });
    let left = sidecar.scrape().value("statsieve_distinct{tag=\"user_id\",window=\"1h\"}");
    assert_within("the long window", left, 0.99..=1.01);
    sidecar.stop();
}

/// Users of three sidecars that share most of them: 45,000 in all, 60,000 by addition.
const SHARED: [std::ops::Range<u64>; 3] = [0..20_000, 10_000..30_000, 25_000..45_000];

#[test]
fn registers_of_three_sidecars_merge_into_the_users_of_all() {
    let mut merged = vec![0; REGISTERS];
    for users in SHARED {
        let sidecar = Sidecar::start(&["distinct.export_registers=true"]);
        let scrape = send_users(&sidecar, users);
        let own = registers(&scrape, "24h");
        assert_within("one sidecar", estimate(&own), three_errors(20_000));
        let exposed = scrape.value("statsieve_distinct{tag=\"user_id\",window=\"24h\"}");
        assert!((exposed / estimate(&own) - 1.0).abs() < 1e-9, "{exposed}");
        merged.iter_mut().zip(own).for_each(|(all, one)| *all = one.max(*all));
        sidecar.stop();
    }
    assert_within("all of them", estimate(&merged), three_errors(45_000));
}

#[test]
#[ignore = "needs a Prometheus server, run by tests/run"]
fn a_real_prometheus_counts_the_users_of_three_sidecars_by_recording_rules() {
    let sidecars = SHARED.map(|users| {
        let sidecar = Sidecar::start(&["distinct.export_registers=true"]);
        send_users(&sidecar, users);
        sidecar
    });
    let mut merged = vec![0; REGISTERS];
    for sidecar in &sidecars {
        let own = registers(&sidecar.scrape(), "24h");
        merged.iter_mut().zip(own).for_each(|(all, one)| *all = one.max(*all));
    }
    let expected = estimate(&merged);
    assert_within("the estimate", expected, three_errors(45_000));
    let targets = sidecars.each_ref().map(|sidecar| sidecar.http);
    let prometheus = Prometheus::start_with(&targets, Some(&rules().join("distinct.yml")), &[]);
    prometheus.wait_for("sum(up{job=\"sidecar\"})", 3.0);
    let query = "statsieve:distinct{tag=\"user_id\",window=\"24h\"}";
    wait_until("the rule gives what the registers do", || {
        prometheus.one(query).is_some_and(|found| (found / expected - 1.0).abs() < 1e-9)
    });
    sidecars.into_iter().for_each(Sidecar::stop);
}

fn rules() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/prometheus/rules")
}

/// A test file for promtool: for each number of users the registers of two instances that share half of them, and the
/// estimate of all, rounded.
fn rule_test(rules: &str, registers: usize, cases: &[u64]) -> String {
    let mut text = format!(
        "# Registers of two instances that share half of their users, and what the rules make of them. Written by the test\n\
         # the_test_of_the_rules_is_what_the_sidecar_computes, with UPDATE_EXPECTED=1.\n\
         rule_files: [{rules}]\nevaluation_interval: 1m\ntests:\n"
    );
    for users in cases {
        let mut merged = vec![0; registers];
        write!(text, "  - name: {users} users\n    interval: 1m\n    input_series:\n").unwrap();
        // The first two thirds, and the last two.
        for (instance, part) in [0..users * 2 / 3, users / 3..*users].into_iter().enumerate() {
            let mut own = vec![0; registers];
            for user in part {
                let (register, rank) = place(xxh64(user.to_string().as_bytes(), 0), registers);
                own[register] = rank.max(own[register]);
                merged[register] = rank.max(merged[register]);
            }
            for (register, rank) in own.into_iter().enumerate() {
                let labels = format!("instance=\"{instance}\",tag=\"user_id\",window=\"5m\",register=\"{register}\"");
                writeln!(
                    text,
                    "      - {{series: 'statsieve_distinct_register{{{labels}}}', values: '{rank} {rank}'}}"
                )
                .unwrap();
            }
        }
        let zeros = merged.iter().filter(|rank| **rank == 0).count() as f64;
        let inverse_sum: f64 = merged.iter().map(|rank| 0.5_f64.powi(i32::from(*rank))).sum();
        let labels = "{tag=\"user_id\",window=\"5m\"}";
        text.push_str("    promql_expr_test:\n");
        for (query, expected) in [
            ("round(statsieve:distinct * 1000) / 1000", (estimate(&merged) * 1000.0).round() / 1000.0),
            // Sums of powers of two, so exact; a mean is nearly so.
            ("statsieve:distinct_registers + 0", registers as f64),
            ("round(statsieve:distinct_zero_ratio * 1024) / 1024", zeros / registers as f64),
            ("statsieve:distinct_inverse_sum + 0", inverse_sum),
        ] {
            write!(
                text,
                "      - expr: {query}\n        eval_time: 1m\n        \
                 exp_samples: [{{labels: '{labels}', value: {expected}}}]\n"
            )
            .unwrap();
        }
    }
    text
}

#[test]
fn the_test_of_the_rules_is_what_the_sidecar_computes() {
    let path = rules().join("distinct.test.yml");
    let expected = rule_test("distinct.yml", 64, &[0, 3, 1000, 300_000]);
    if std::env::var_os("UPDATE_EXPECTED").is_some() {
        std::fs::write(&path, &expected).unwrap();
    }
    assert!(std::fs::read_to_string(&path).unwrap() == expected, "{} is to be written anew", path.display());
}

#[test]
#[ignore = "needs promtool, run by tests/run"]
fn promtool_accepts_the_rules_and_they_compute_what_the_sidecar_does() {
    let promtool = |arguments: &[&Path]| {
        let mut command = Command::new(tool("prometheus/promtool"));
        command.args(arguments);
        output_of(command)
    };
    let (check, test, rules_word) = (Path::new("check"), Path::new("test"), Path::new("rules"));
    promtool(&[check, rules_word, &rules().join("distinct.yml")]);
    promtool(&[test, rules_word, &rules().join("distinct.test.yml")]);
    // The default number of registers: too large to be kept, and near the most samples that promtool holds.
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("distinct.test.yml");
    let rules = rules().join("distinct.yml");
    std::fs::write(&path, rule_test(rules.to_str().unwrap(), REGISTERS, &[0, 1, 10, 1000, 300_000])).unwrap();
    promtool(&[test, rules_word, &path]);
}

#[test]
fn the_loudest_users_are_found_among_many() {
    let sidecar = Sidecar::start(&["listen.workers=2"]);
    // Of 60,000 lines a third are from five users, in shares of 5 to 1; the others come once each.
    let loud = [(11, 15), (12, 12), (13, 9), (14, 6), (15, 3)];
    let shares: Vec<u64> = loud.iter().flat_map(|(user, share)| vec![*user; *share]).collect();
    let users = (0..60_000_u64).map(|n| if n % 3 == 0 { shares[(n / 3 % 45) as usize] } else { 1_000_000 + n });
    send_users(&sidecar, users);
    let reply = sidecar.get("/api/v1/top?tag=user_id", &[]);
    assert_eq!((reply.status, reply.header("content-type")), (200, Some("application/json")));
    let top: Value = serde_json::from_slice(&reply.body).unwrap();
    assert_eq!(top["tag"], "user_id");
    assert_within("observed", top["observed"].as_f64().unwrap(), 60_000.0 - 2.0 * 127.0..=60_000.0);
    let bound = top["error_bound"].as_f64().unwrap();
    assert_within("the error bound", bound, 0.0..=60_000.0 * 1.1 / 100.0);
    let values = top["values"].as_array().unwrap();
    assert_eq!(values.len(), 100);
    for (user, share) in loud {
        let found = values[..7].iter().find(|heavy| heavy["value"] == user.to_string().as_str());
        let found = found.unwrap_or_else(|| panic!("{user} is not among the first: {:#?}", &values[..7]));
        let sent = f64::from(share as u32) / 45.0 * 20_000.0;
        let sampling = 4.0 * 8.0 * sent.sqrt();
        let (count, error) = (found["count"].as_f64().unwrap(), found["error"].as_f64().unwrap());
        assert!(error <= bound);
        assert_within(&format!("the count of {user}"), count, sent - sampling..=sent + sampling + bound);
    }
    let tags: Value = serde_json::from_slice(&sidecar.get("/api/v1/top", &[]).body).unwrap();
    assert_eq!(tags["tags"][0]["tag"], "user_id");
    assert_eq!(sidecar.get("/api/v1/top?tag=nobody", &[]).status, 404);
    let text = sidecar.scrape().text;
    assert!(!text.contains("\"11\""), "values never become series");
    sidecar.stop();
}

/// The address of this machine on a network, if it has one.
fn own_address() -> Option<SocketAddr> {
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    // Nothing is sent; the kernel chooses the way.
    socket.connect("198.51.100.1:9").ok()?;
    socket.local_addr().ok().filter(|address| !address.ip().is_loopback() && !address.ip().is_unspecified())
}

#[test]
fn the_loudest_are_told_to_this_machine_unless_all_may_ask() {
    for (api, from_here, from_afar) in [("loopback", 200, 403), ("all", 200, 200), ("off", 404, 404)] {
        let sidecar = Sidecar::start(&["http.listen=0.0.0.0:0", &format!("http.debug_api={api}")]);
        let status = |address: SocketAddr| get(address, "/api/v1/top?tag=user_id", &[]).unwrap().status;
        let port = sidecar.http.port();
        assert_eq!(status(SocketAddr::from(([127, 0, 0, 1], port))), from_here, "{api}");
        // A machine without a network has no other address to ask from; the rule itself has a unit test.
        if let Some(mut address) = own_address() {
            address.set_port(port);
            assert_eq!(status(address), from_afar, "{api}");
            assert_eq!(get(address, "/metrics", &[]).unwrap().status, 200, "{api}");
        }
        sidecar.stop();
    }
}

#[test]
fn heavy_hitters_can_be_turned_off() {
    let sidecar = Sidecar::start(&["heavy_hitters.capacity=0"]);
    sidecar.take(&["a:1|c|#user_id:1"]);
    let reply = sidecar.get("/api/v1/top?tag=user_id", &[]);
    assert_eq!(reply.status, 404, "{}", reply.text());
    assert_eq!(sidecar.get("/api/v1/top", &[]).text(), "{\"tags\":[]}\n");
    sidecar.stop();
}
