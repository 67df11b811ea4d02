//! What other machines can reach is a warning, at start and at each reload; what they cannot is none.

use std::net::UdpSocket;

use nix::sys::signal::Signal;

use crate::harness::Sidecar;
use crate::service::handed_over;

const OPEN: &str = "can be reached from other machines";

fn warnings(sidecar: &Sidecar) -> Vec<String> {
    sidecar.log().lines().filter(|line| line.contains(OPEN)).map(str::to_owned).collect()
}

#[test]
fn the_defaults_are_open_to_nobody_and_say_nothing() {
    // Those of the harness change the ports alone.
    let sidecar = Sidecar::start(&["listen.tcp=127.0.0.1:0", "listen.unix_datagram=@statsieve-exposure"]);
    assert!(sidecar.udp.ip().is_loopback() && sidecar.http.ip().is_loopback());
    sidecar.signal(Signal::SIGHUP);
    sidecar.wait_until("it is told", |it| it.log().contains("configuration read again"));
    assert_eq!(warnings(&sidecar), Vec::<String>::new());
    sidecar.stop();
    let defaults = statsieve::config::Config::default_checked();
    assert_eq!(defaults.exposures(), Vec::<String>::new());
}

#[test]
fn each_open_address_is_a_warning_with_what_to_do_at_start_and_at_reload() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("statsieve.toml");
    std::fs::write(&file, "").unwrap();
    let settings = ["listen.udp=0.0.0.0:0", "listen.tcp=:0", "http.listen=0.0.0.0:0", "log.level=warn"];
    let file = file.to_str().unwrap();
    // The addresses are logged as information.
    let sidecar = Sidecar::start_with(&settings[..3], &["--config", file]);
    let advice = [
        ("listen.udp: 0.0.0.0:", "take the loopback or a unix socket, or let only the bot through"),
        ("listen.tcp: 0.0.0.0:", "StatsD has no passwords"),
        ("http.listen: 0.0.0.0:", "http.web_config_file"),
    ];
    let assert_told = |times: usize| {
        let found = warnings(&sidecar);
        for (start, advice) in advice {
            let told = found.iter().filter(|line| line.contains(start) && line.contains(advice)).count();
            assert_eq!(told, times, "{start}\n{}", sidecar.log());
        }
        assert!(found.iter().all(|line| line.contains("level=warn")), "{found:?}");
    };
    assert_told(1);
    std::fs::write(file, "[log]\nlevel = \"info\"\n").unwrap();
    sidecar.signal(Signal::SIGHUP);
    sidecar.wait_until("it is told", |it| it.log().contains("configuration read again"));
    assert_told(2);
    sidecar.stop();
}

#[test]
fn an_address_that_waits_for_a_restart_is_told_and_so_is_one_that_was_handed_over() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("statsieve.toml");
    std::fs::write(&file, "# nothing yet\n").unwrap();
    let handed = UdpSocket::bind("0.0.0.0:0").unwrap();
    let mut command = handed_over(vec![(handed.into(), "udp")], &["http.drain=100ms"]);
    command.args(["--config", file.to_str().unwrap()]);
    std::fs::write(&file, "[http]\nlisten = \"127.0.0.1:0\"\n").unwrap();
    let sidecar = Sidecar::of(command.spawn().unwrap());
    let found = warnings(&sidecar);
    assert!(found.len() == 1 && found[0].contains("listen.udp: 0.0.0.0:"), "{found:?}");
    std::fs::write(&file, "[http]\nlisten = \":0\"\n").unwrap();
    sidecar.signal(Signal::SIGHUP);
    let told = "after a restart http.listen: 0.0.0.0:0 can be reached from other machines";
    sidecar.wait_until("it is told", |it| it.log().contains(told));
    sidecar.stop();
}
