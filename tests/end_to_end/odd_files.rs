//! Files of the configuration that are no longer what they were when it is read again: what is in force stays, is
//! shown to be old, and the next good file is taken.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::sys::stat::Mode;
use nix::unistd::mkfifo;

use crate::harness::{Sidecar, request};

/// A configuration file, and the mapping file and web configuration file that it names.
struct Files {
    folder: tempfile::TempDir,
}

const NAMES: [&str; 3] = ["statsieve.toml", "mapping.yml", "web.yml"];
const GOOD: [&str; 3] = [
    "[http]\nlifecycle = true\nweb_config_file = \"web.yml\"\n[labels]\ndrop = [\"secret\"]\n[mapping]\nfile = \
     \"mapping.yml\"\n",
    "mappings:\n- match: a.b\n  name: c\n",
    "http_server_config:\n  headers:\n    X-Frame-Options: deny\n",
];

impl Files {
    fn new() -> Self {
        let files = Self { folder: tempfile::tempdir().unwrap() };
        NAMES.iter().zip(GOOD).for_each(|(name, text)| fs::write(files.path(name), text).unwrap());
        files
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Takes away whatever is there.
    fn remove(path: &Path) {
        let found = fs::symlink_metadata(path).unwrap();
        if found.is_dir() { fs::remove_dir(path).unwrap() } else { fs::remove_file(path).unwrap() }
    }
}

fn is_root() -> bool {
    fs::metadata("/proc/self").unwrap().uid() == 0
}

/// Sends one line of each kind, and sees that they are booked as under the good files.
fn assert_as_before(sidecar: &Sidecar, rounds: &mut f64, of: &str) {
    *rounds += 1.0;
    sidecar.send(&["a.b:1|c|#secret:1", "hits:1|c|#secret:1"]);
    let scrape = sidecar.settled(2 * *rounds as u64);
    scrape.assert("c", *rounds);
    scrape.assert("hits_total", *rounds);
    assert_eq!((scrape.recorded(), scrape.dropped()), (2.0 * *rounds, 0.0), "{of}");
}

fn reloads(sidecar: &Sidecar, outcome: &str) -> f64 {
    sidecar.scrape().value(&format!("statsieve_config_reloads_total{{outcome=\"{outcome}\"}}"))
}

/// What may come in the place of a file, and a word that the answer has for it.
type Fault = (&'static str, fn(&Path), &'static str);

const FAULTS: [Fault; 7] = [
    ("nothing", |_| (), "No such file"),
    ("a link to nothing", |path| symlink("nowhere", path).unwrap(), "No such file"),
    ("a link to itself", |path| symlink(path, path).unwrap(), "symbolic links"),
    ("a folder", |path| fs::create_dir(path).unwrap(), "directory"),
    ("a pipe that nobody writes into", |path| mkfifo(path, Mode::S_IRWXU).unwrap(), ""),
    ("a device without an end", |path| symlink("/dev/zero", path).unwrap(), "longer than 16 MiB"),
    ("bytes that are no text", |path| fs::write(path, b"\xff\xfe = 1\n").unwrap(), "UTF-8"),
];

#[test]
fn whatever_comes_in_the_place_of_a_file_changes_nothing_until_it_is_good_again() {
    let files = Files::new();
    let sidecar = Sidecar::start_with(&[], &["--config", files.path(NAMES[0]).to_str().unwrap()]);
    let (mut rounds, mut failures, mut successes) = (0.0, 0.0, 0.0);
    assert_as_before(&sidecar, &mut rounds, "nothing yet");
    for (name, good) in NAMES.iter().zip(GOOD) {
        let path = files.path(name);
        // Written in pieces: cut in the middle of a line.
        let cut = |path: &Path| {
            let name = path.file_name().unwrap().to_str().unwrap();
            let text = GOOD[NAMES.iter().position(|it| *it == name).unwrap()];
            let end = text.rfind([':', '"']).unwrap();
            fs::write(path, format!("{}: [", &text[..end])).unwrap();
        };
        let mut faults = FAULTS.to_vec();
        faults.push(("half of it", cut, ""));
        for (what, make, said) in faults {
            let of = format!("{what} in place of {name}");
            Files::remove(&path);
            make(&path);
            let reply = request(sidecar.http, "POST", "/-/reload", &[]).unwrap();
            failures += 1.0;
            assert_eq!(reply.status, 500, "{of}: {}", reply.text());
            assert!(reply.text().contains(name) && reply.text().contains(said), "{of}: {}", reply.text());
            assert_as_before(&sidecar, &mut rounds, &of);
            sidecar.scrape().assert("statsieve_config_last_reload_successful", 0.0);
            assert_eq!((reloads(&sidecar, "failure"), reloads(&sidecar, "success")), (failures, successes), "{of}");
            assert_eq!(sidecar.get("/-/ready", &[]).status, 200);
            if fs::symlink_metadata(&path).is_ok() {
                Files::remove(&path);
            }
            fs::write(&path, good).unwrap();
        }
        let reply = request(sidecar.http, "POST", "/-/reload", &[]).unwrap();
        assert_eq!((reply.status, reply.text().as_str()), (200, "reloaded\n"));
        successes += 1.0;
        sidecar.scrape().assert("statsieve_config_last_reload_successful", 1.0);
        assert_as_before(&sidecar, &mut rounds, name);
    }
    sidecar.stop();
}

#[test]
fn files_that_it_may_not_read_any_more_change_nothing() {
    if is_root() {
        eprintln!("skipped: root may read every file");
        return;
    }
    let files = Files::new();
    let sidecar = Sidecar::start_with(&[], &["--config", files.path(NAMES[0]).to_str().unwrap()]);
    let mut rounds = 0.0;
    for name in NAMES {
        fs::set_permissions(files.path(name), fs::Permissions::from_mode(0o000)).unwrap();
        let reply = request(sidecar.http, "POST", "/-/reload", &[]).unwrap();
        assert!(reply.status == 500 && reply.text().contains("Permission denied"), "{name}: {}", reply.text());
        assert_as_before(&sidecar, &mut rounds, name);
        fs::set_permissions(files.path(name), fs::Permissions::from_mode(0o600)).unwrap();
        assert_eq!(request(sidecar.http, "POST", "/-/reload", &[]).unwrap().status, 200);
    }
    assert_eq!((reloads(&sidecar, "failure"), reloads(&sidecar, "success")), (3.0, 3.0));
    sidecar.stop();
}

#[test]
fn a_watched_file_that_is_written_in_pieces_is_read_when_it_is_whole() {
    const ON: &str = "[reload]\nwatch = true\n";
    let files = Files::new();
    let path = files.path("watched.toml");
    fs::write(&path, ON).unwrap();
    let sidecar = Sidecar::start_with(&[], &["--config", path.to_str().unwrap()]);
    // Each piece alone is a good file.
    let mut text = ON.to_owned();
    let started = std::time::Instant::now();
    for key in ["max_values = 7\n", "max_count = 9\n", "drop = [\"secret\"]\n"].iter().cycle() {
        if started.elapsed() > Duration::from_secs(6) {
            break;
        }
        if text.contains("drop") {
            text.push_str("# more\n");
        } else {
            text.push_str(if text == ON { "[labels]\n" } else { "" });
            text.push_str(key);
        }
        fs::write(&path, &text).unwrap();
        std::thread::sleep(Duration::from_millis(300));
    }
    assert_eq!(reloads(&sidecar, "success") + reloads(&sidecar, "failure"), 0.0, "{}", sidecar.log());
    sidecar.wait_until("it is read", |it| reloads(it, "success") == 1.0);
    sidecar.take(&["hits:1|c|#secret:1"]).assert("hits_total", 1.0);
    assert_eq!(reloads(&sidecar, "failure"), 0.0);
    sidecar.stop();
}

/// A file system of 64 KiB in a mount namespace of its own, which is gone with the process.
#[test]
fn a_file_that_a_full_file_system_has_emptied_or_cut_changes_nothing() {
    let files = Files::new();
    let mount = files.path("small");
    fs::create_dir(&mount).unwrap();
    let good = "[http]\nlifecycle = true\n[labels]\ndrop = [\"secret\"]\n";
    fs::write(files.path("good.toml"), good).unwrap();
    let config = mount.join("statsieve.toml");
    let become_user: &[&str] = if is_root() { &[] } else { &["--map-root-user"] };
    let make = format!("mount -t tmpfs -o size=64k tmpfs {}", mount.display());
    let in_namespace = |script: &str| {
        let mut command = Command::new("unshare");
        command.arg("--mount").args(become_user).args(["sh", "-c", script]);
        command
    };
    if !in_namespace(&make).output().is_ok_and(|output| output.status.success()) {
        eprintln!("skipped: no file system can be mounted in a namespace of its own here");
        return;
    }
    let copy = format!("cp {} {}", files.path("good.toml").display(), config.display());
    let mut command = in_namespace(&format!("{make} && {copy} && exec \"$0\" \"$@\""));
    command.arg(env!("CARGO_BIN_EXE_statsieve")).arg("--config").arg(&config);
    for setting in ["listen.udp=127.0.0.1:0", "http.listen=127.0.0.1:0", "sampling.mode=off", "http.drain=100ms"] {
        command.args(["--set", setting]);
    }
    command.env_remove("STATSIEVE_CONFIG").stdin(Stdio::null()).stderr(Stdio::piped());
    let sidecar = Sidecar::of(command.spawn().unwrap());
    // The same files as the process sees them.
    let seen = |path: &Path| PathBuf::from(format!("/proc/{}/root{}", sidecar.pid(), path.display()));
    let (config, other) = (seen(&config), seen(&mount.join("other")));
    let fill_up = || {
        let mut other = fs::File::options().create(true).append(true).open(&other).unwrap();
        while other.write_all(&[b'x'; 4096]).is_ok() {}
    };
    // The first page, which is all that has room, ends within a word.
    let long = format!("[http]\nlifecycle = true\n[labels]\ndrop = [\"{}\"]\n", "word".repeat(2000));
    for room in [0, 1] {
        fs::write(&config, good).unwrap();
        fill_up();
        // A page is free again once the file is cut to nothing, unless somebody else is faster.
        let mut file = fs::File::create(&config).unwrap();
        if room == 0 {
            fill_up();
        }
        assert!(file.write_all(long.as_bytes()).is_err(), "there is room left");
        assert_eq!(fs::metadata(&config).unwrap().len(), 4096 * room);
        let reply = request(sidecar.http, "POST", "/-/reload", &[]).unwrap();
        let said = if room == 0 { "is empty, and was not before" } else { "not TOML" };
        assert!(reply.status == 500 && reply.text().contains(said), "{}", reply.text());
        assert_eq!(reloads(&sidecar, "failure"), (room + 1) as f64);
        sidecar.send(&["hits:1|c|#secret:1"]);
        sidecar.settled(room + 1).assert("hits_total", (room + 1) as f64);
        fs::remove_file(&other).unwrap();
    }
    fs::write(&config, &long).unwrap();
    assert_eq!(request(sidecar.http, "POST", "/-/reload", &[]).unwrap().status, 200);
    sidecar.scrape().assert("statsieve_config_last_reload_successful", 1.0);
    sidecar.send(&["hits:1|c|#secret:1"]);
    let scrape = sidecar.settled(3);
    scrape.assert("hits_total{secret=\"1\"}", 1.0);
    assert_eq!((scrape.recorded(), scrape.dropped()), (3.0, 0.0));
    sidecar.stop();
}
