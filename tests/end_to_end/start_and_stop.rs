//! Starting, being ready, refusing a taken port, draining.

use std::net::{TcpListener, UdpSocket};
use std::os::unix::net::UnixDatagram;

use nix::sys::signal::Signal;

use crate::harness::{Sidecar, start_in_vain};

#[test]
fn a_port_in_use_is_an_error_that_names_key_and_address_and_once_it_is_free_the_start_works() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s.sock").display().to_string();
    let (udp, tcp) = (UdpSocket::bind("127.0.0.1:0").unwrap(), TcpListener::bind("127.0.0.1:0").unwrap());
    let (datagrams, streams) = (UnixDatagram::bind(&path).unwrap(), path.clone());
    let (of_udp, of_tcp) = (udp.local_addr().unwrap().to_string(), tcp.local_addr().unwrap().to_string());
    let taken = [
        ("listen.udp", &of_udp),
        ("listen.tcp", &of_tcp),
        ("http.listen", &of_tcp),
        ("listen.unix_stream", &streams),
        ("listen.unix_datagram", &streams),
    ];
    for (key, address) in taken {
        let (status, log) = start_in_vain(&[&format!("{key}={address}")]);
        assert_eq!(status.code(), Some(1), "{key}: {status}\n{log}");
        let told = log.lines().any(|line| line.contains("level=error") && line.contains(key) && line.contains(address));
        assert!(told, "no {key} and {address} in\n{log}");
    }
    drop((udp, tcp, datagrams));
    for (key, address) in taken {
        let sidecar = Sidecar::start(&[&format!("{key}={address}")]);
        sidecar.take(&["hits:1|c"]).assert("hits_total", 1.0);
        sidecar.stop();
    }
}

#[test]
fn a_second_instance_cannot_join_the_port_of_the_first() {
    // Two workers: the first instance's sockets have SO_REUSEPORT by now.
    for workers in ["1", "2"] {
        let first = Sidecar::start(&[&format!("listen.workers={workers}")]);
        let address = first.udp.to_string();
        let (status, log) = start_in_vain(&[&format!("listen.udp={address}"), &format!("listen.workers={workers}")]);
        assert!(!status.success() && status.code().is_some(), "{status}\n{log}");
        assert!(log.contains(&address), "no {address} in\n{log}");
        // And the first one has lost nothing by it.
        first.take(&["hits:1|c", "hits:1|c", "hits:1|c"]).assert("hits_total", 3.0);
        first.stop();
    }
}

#[test]
fn an_idle_sidecar_ends_with_0_on_sigterm_and_on_sigint() {
    Sidecar::start(&[]).stop();
    let sidecar = Sidecar::start(&[]);
    sidecar.signal(Signal::SIGINT);
    assert_eq!(sidecar.wait().code(), Some(0));
}

#[test]
fn a_last_scrape_ends_the_drain_and_holds_every_line() {
    // Ten times what any wait here lasts: the test can pass only if the scrape ends the drain.
    let sidecar = Sidecar::start(&["http.drain=300s"]);
    let sender = sidecar.sender();
    for _ in 0..100 {
        sender.send(b"hits:1|c");
    }
    sidecar.signal(Signal::SIGTERM);
    sidecar.wait_until("it is no longer ready", |it| it.get("/-/ready", &[]).status == 503);
    sidecar.scrape().assert("hits_total", 100.0);
    assert_eq!(sidecar.wait().code(), Some(0));
}

#[test]
fn what_the_bot_sends_while_it_drains_is_in_the_last_scrape() {
    let sidecar = Sidecar::start(&["http.drain=300s"]);
    sidecar.send(&["before:1|c"]);
    sidecar.signal(Signal::SIGTERM);
    sidecar.wait_until("it is no longer ready", |it| it.get("/-/ready", &[]).status == 503);
    let sender = sidecar.sender();
    (0..50).for_each(|_| sender.send(b"goodbye:1|c"));
    // Nothing but a scrape shows what it has taken, and the first one ends it. So ask the kernel: the queue is empty,
    // and then the worker sleeps, which it does only once a batch is recorded.
    let port = format!(":{:04X} ", sidecar.udp.port());
    sidecar.wait_until("its queue is empty", |_| {
        let table = std::fs::read_to_string("/proc/self/net/udp").unwrap();
        let line = table.lines().find(|line| line.contains(&port) && line.contains(" 00000000:0000 ")).unwrap();
        line.split_whitespace().nth(4).unwrap().ends_with(":00000000")
    });
    let tasks = format!("/proc/{}/task", sidecar.pid());
    sidecar.wait_until("its worker sleeps", |_| {
        let mut stats = std::fs::read_dir(&tasks).unwrap().filter_map(|task| {
            std::fs::read_to_string(task.unwrap().path().join("stat")).ok().filter(|stat| stat.contains("(udp-"))
        });
        stats.all(|stat| stat.contains("(udp-0) S ") || stat.contains("(udp-1) S "))
    });
    let scrape = sidecar.scrape();
    scrape.assert("before_total", 1.0);
    scrape.assert("goodbye_total", 50.0);
    assert_eq!(sidecar.wait().code(), Some(0));
}

#[test]
fn a_second_signal_ends_the_drain_at_once() {
    // The drain lasts ten times as long as any wait here.
    let sidecar = Sidecar::start(&["http.drain=300s"]);
    sidecar.signal(Signal::SIGTERM);
    sidecar.wait_until("it is no longer ready", |it| it.get("/-/ready", &[]).status == 503);
    sidecar.signal(Signal::SIGTERM);
    assert_eq!(sidecar.wait().code(), Some(0));
}

#[test]
fn a_sidecar_that_runs_is_healthy_and_ready_and_knows_no_other_paths() {
    let sidecar = Sidecar::start(&[]);
    assert_eq!(sidecar.get("/-/healthy", &[]).status, 200);
    assert_eq!(sidecar.get("/-/ready", &[]).status, 200);
    assert_eq!(sidecar.get("/no/such/path", &[]).status, 404);
    sidecar.stop();
}

#[test]
fn a_configuration_file_is_merged_over_the_defaults_and_settings_over_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("statsieve.toml");
    let text = "[naming]\nprefix = \"fleet_\"\ncounter_suffix = \"_sum_total\"\n\n[observer]\nbuckets = [1, 2]\n";
    std::fs::write(&file, text).unwrap();
    let sidecar = Sidecar::start_with(&["naming.counter_suffix=_count_total"], &["--config", file.to_str().unwrap()]);
    let scrape = sidecar.take(&["hits:1|c", "size:1.5|h"]);
    scrape.assert("fleet_hits_count_total", 1.0);
    assert_eq!(scrape.buckets("fleet_size", ""), [(1.0, 0.0), (2.0, 1.0), (f64::INFINITY, 1.0)]);
    sidecar.stop();
}

#[test]
fn a_bad_file_at_start_is_an_error_that_names_file_line_and_key() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("statsieve.toml");
    std::fs::write(&file, "[listen]\nworkers = 2\nmax_line_bytes = \"long\"\n").unwrap();
    let output = crate::harness::run(&["--config", file.to_str().unwrap()]);
    let log = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && output.status.code().is_some(), "{log}");
    for part in ["statsieve.toml", "max_line_bytes", "3"] {
        assert!(log.contains(part), "no {part:?} in\n{log}");
    }
}

#[test]
fn with_fallback_a_bad_file_costs_its_settings_but_no_metrics() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("statsieve.toml");
    std::fs::write(&file, "[naming]\nprefix = \"bad-\"\n").unwrap();
    let sidecar = Sidecar::start_with(&[], &["--fallback", "--config", file.to_str().unwrap()]);
    let scrape = sidecar.take(&["hits:1|c"]);
    scrape.assert("hits_total", 1.0);
    scrape.assert("statsieve_config_last_reload_successful", 0.0);
    let log = sidecar.log();
    assert!(log.contains("naming.prefix") && log.contains("level=error"), "{log}");
    sidecar.stop();
}

#[test]
fn with_fallback_the_refused_file_is_read_once_it_is_mended_whatever_the_defaults_say_of_watching() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("statsieve.toml");
    std::fs::write(&file, "[reload]\nwatch = true\n[naming]\nprefix = \"bad-\"\n").unwrap();
    let sidecar = Sidecar::start_with(&[], &["--fallback", "--config", file.to_str().unwrap()]);
    sidecar.scrape().assert("statsieve_config_last_reload_successful", 0.0);
    // Broken in another way, it is still what it goes by.
    std::fs::write(&file, "[reload]\nwatch = maybe\n").unwrap();
    let reloads = |it: &Sidecar, outcome: &str| {
        it.scrape().value(&format!("statsieve_config_reloads_total{{outcome=\"{outcome}\"}}"))
    };
    sidecar.wait_until("the next fault is told", |it| reloads(it, "failure") == 1.0);
    std::fs::write(&file, "[naming]\nprefix = \"good_\"\n").unwrap();
    sidecar.wait_until("the mended file is in force", |it| reloads(it, "success") == 1.0);
    let scrape = sidecar.take(&["hits:1|c"]);
    scrape.assert("good_hits_total", 1.0);
    scrape.assert("statsieve_config_last_reload_successful", 1.0);
    sidecar.stop();
}

#[test]
fn the_log_is_one_json_object_a_line_if_asked() {
    let sidecar = Sidecar::start(&["log.format=json"]);
    let log = sidecar.log();
    sidecar.stop();
    let listening: Vec<serde_json::Value> = log
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .filter(|it: &serde_json::Value| it["message"] == "listening")
        .collect();
    assert_eq!(listening.len(), 2, "{log}");
    assert!(listening.iter().all(|it| it["address"].as_str().unwrap().starts_with("127.0.0.1:")), "{log}");
}
