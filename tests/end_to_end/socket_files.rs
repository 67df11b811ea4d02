//! The file of a unix socket goes while it is in use: it is made anew where that may be, and nothing is lost on the way.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::Path;
use std::process::Command;

use crate::descriptors::Kept;
use crate::harness::{Scrape, Sidecar};

fn start(folder: &Path) -> Sidecar {
    let path = |name: &str| folder.join(name).display().to_string();
    Sidecar::start(&[
        "listen.udp=",
        &format!("listen.unix_datagram={}", path("d.sock")),
        &format!("listen.unix_stream={}", path("s.sock")),
        "listen.socket_mode=0640",
    ])
}

fn is_up(scrape: &Scrape, listener: &str) -> bool {
    scrape.value(&format!("statsieve_listener_up{{listener=\"{listener}\"}}")) == 1.0
}

/// Waits until the log says so this often, and no more often.
fn told(sidecar: &Sidecar, text: &str, times: usize) {
    let count = || sidecar.log().lines().filter(|line| line.contains(text)).count();
    sidecar.wait_until(&format!("{text:?} is in the log"), |_| count() >= times);
    assert_eq!(count(), times, "{}", sidecar.log());
}

/// Sends a datagram to the path, as soon as something listens there.
fn send_by_path(sidecar: &Sidecar, path: &Path) {
    let sender = UnixDatagram::unbound().unwrap();
    sidecar.wait_until("the path takes datagrams", |_| sender.send_to(b"hits:1|c", path).is_ok());
}

#[test]
fn files_that_are_deleted_are_made_anew_and_nothing_is_lost() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path().join("run");
    fs::create_dir(&folder).unwrap();
    let sidecar = start(&folder);
    let (datagrams, streams) = (folder.join("d.sock"), folder.join("s.sock"));
    let sender = UnixDatagram::unbound().unwrap();
    sender.connect(&datagrams).unwrap();
    let mut stream = UnixStream::connect(&streams).unwrap();
    let mut sent = 0;
    for round in 1..=2 {
        sender.connect(&datagrams).unwrap();
        // The second time the folder goes as well, and comes back.
        if round == 1 {
            fs::remove_file(&datagrams).unwrap();
            fs::remove_file(&streams).unwrap();
        } else {
            fs::remove_dir_all(&folder).unwrap();
            sidecar.wait_until("it cannot be bound", |it| {
                let scrape = it.scrape();
                !is_up(&scrape, "unix_datagram") && !is_up(&scrape, "unix_stream")
            });
            let ready = sidecar.get("/-/ready", &[]);
            assert_eq!(ready.status, 503);
            assert_eq!(ready.text(), "failing, and tried again: unix_datagram, unix_stream\n");
            // Whoever is connected is served meanwhile.
            sender.send(b"hits:1|c").unwrap();
            sent += 1;
            sidecar.settled(sent);
            fs::create_dir(&folder).unwrap();
        }
        // A connected sender gets through, or is told that it does not.
        sidecar.wait_until("a connected sender is told", |_| {
            let taken = sender.send(b"hits:1|c");
            sent += u64::from(taken.is_ok());
            taken.is_err()
        });
        stream.write_all(b"hits:1|c\n").unwrap();
        sent += 1;
        send_by_path(&sidecar, &datagrams);
        sidecar.wait_until("the path takes streams", |_| UnixStream::connect(&streams).is_ok());
        UnixStream::connect(&streams).unwrap().write_all(b"hits:1|c\n").unwrap();
        sent += 2;
        sidecar.wait_until("it is ready", |it| it.get("/-/ready", &[]).status == 200);
        let scrape = sidecar.settled(sent);
        scrape.assert("hits_total", sent as f64);
        assert_eq!((scrape.lines(), scrape.dropped()), (sent as f64, 0.0));
        for file in [&datagrams, &streams] {
            assert_eq!(fs::metadata(file).unwrap().permissions().mode() & 0o777, 0o640);
        }
        told(&sidecar, "was gone: it is bound anew", 2 * round);
    }
    told(&sidecar, "cannot be made anew", 2);
    sidecar.stop();
    assert!(!datagrams.exists() && !streams.exists(), "its files go with it");
}

#[test]
fn a_path_that_is_another_programs_now_stays_its_own_until_it_is_gone() {
    let folder = tempfile::tempdir().unwrap();
    let sidecar = start(folder.path());
    let (datagrams, streams) = (folder.path().join("d.sock"), folder.path().join("s.sock"));
    // Put in the place of its own in one step, so that it finds no moment without a file.
    let aside = folder.path().join("aside");
    let other = UnixDatagram::bind(&aside).unwrap();
    fs::rename(&aside, &datagrams).unwrap();
    fs::write(&aside, "a file").unwrap();
    fs::rename(&aside, &streams).unwrap();
    sidecar.wait_until("both are lost", |it| {
        let scrape = it.scrape();
        !is_up(&scrape, "unix_datagram") && !is_up(&scrape, "unix_stream")
    });
    let sender = UnixDatagram::unbound().unwrap();
    sender.send_to(b"theirs:1|c", &datagrams).unwrap();
    let mut buffer = [0; 100];
    assert_eq!(other.recv(&mut buffer).unwrap(), 10);
    assert_eq!(fs::read_to_string(&streams).unwrap(), "a file");
    told(&sidecar, "cannot be made anew", 2);
    // Of the other program only the file is left, as after a crash; nobody's file is gone.
    drop(other);
    fs::remove_file(&streams).unwrap();
    send_by_path(&sidecar, &datagrams);
    sidecar.wait_until("the path takes streams", |_| UnixStream::connect(&streams).is_ok());
    sidecar.wait_until("it is ready", |it| it.get("/-/ready", &[]).status == 200);
    let scrape = sidecar.settled(1);
    scrape.assert("hits_total", 1.0);
    assert_eq!(scrape.dropped(), 0.0);
    sidecar.stop();
}

/// What accepts for the old file is in the middle of waiting then, in most rounds, and somebody waits for it.
#[test]
fn a_listener_that_had_no_descriptor_and_then_no_file_is_up_once_it_has_both() {
    let folder = tempfile::tempdir().unwrap();
    let sidecar = start(folder.path());
    let path = folder.path().join("s.sock");
    let mut kept = Kept::connect(&sidecar);
    let hard = kept.scrape().value("process_max_fds");
    let limit = |most: f64| {
        let arguments = [format!("--pid={}", sidecar.pid()), format!("--nofile={most}:{hard}")];
        Command::new("prlimit").args(arguments).status().is_ok_and(|status| status.success())
    };
    let mut sent = 0;
    for _ in 0..4 {
        if !limit(3.0) {
            eprintln!("skipped: there is no prlimit here that can limit a process");
            return;
        }
        let failed = |it: &Scrape| it.value("statsieve_listener_errors_total{listener=\"unix_stream\"}");
        let before = failed(&kept.scrape());
        let mut stream = UnixStream::connect(&path).unwrap();
        stream.write_all(b"hits:1|c\n").unwrap();
        // The eighth failure in a row is waited out for a second.
        sidecar.wait_until("it is tried once a second", |_| failed(&kept.scrape()) >= before + 8.0);
        fs::remove_file(&path).unwrap();
        assert!(limit(hard));
        sent += 1;
        sidecar.wait_until("it is ready", |it| it.get("/-/ready", &[]).status == 200 && path.exists());
        assert!(is_up(&sidecar.settled(sent), "unix_stream"));
    }
    sidecar.stop();
}
