//! A configuration that is read again: in force at once or not at all, and nothing that has not changed is lost.

use std::fs;
use std::net::{TcpStream, UdpSocket};
use std::path::{Path, PathBuf};

use nix::sys::signal::Signal;

use crate::harness::{Reply, Sidecar, request};

/// A configuration file in a folder of its own.
struct File {
    folder: tempfile::TempDir,
    path: PathBuf,
}

impl File {
    fn new(text: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("statsieve.toml");
        fs::write(&path, text).unwrap();
        Self { folder, path }
    }

    fn write(&self, text: &str) {
        fs::write(&self.path, text).unwrap();
    }

    fn sidecar(&self, settings: &[&str]) -> Sidecar {
        Sidecar::start_with(settings, &["--config", self.path.to_str().unwrap()])
    }
}

fn act(sidecar: &Sidecar, method: &str, path: &str) -> Reply {
    request(sidecar.http, method, path, &[]).unwrap()
}

fn reloads(sidecar: &Sidecar, outcome: &str) -> f64 {
    sidecar.scrape().value(&format!("statsieve_config_reloads_total{{outcome=\"{outcome}\"}}"))
}

const ON: &str = "[http]\nlifecycle = true\n";

#[test]
fn a_reload_takes_effect_on_the_next_line_and_keeps_what_it_does_not_change() {
    let file = File::new(ON);
    let sidecar = file.sidecar(&["listen.workers=2"]);
    sidecar.take(&["hits:1|c|#k:a,secret:1", "depth:5|g", "wait:5|ms", "visits:1|c|#user_id:42"]);
    let before = sidecar.scrape();
    file.write(&format!("{ON}[labels]\ndrop = [\"secret\"]\n[naming]\nprefix = \"x_\"\n"));
    let reply = act(&sidecar, "POST", "/-/reload");
    assert_eq!((reply.status, reply.text().as_str()), (200, "reloaded\n"));
    sidecar.take(&["hits:1|c|#k:a,secret:1"]);
    let scrape = sidecar.settled(5);
    for (series, value) in [
        ("x_hits_total{k=\"a\"}", 1.0),
        ("hits_total{k=\"a\",secret=\"1\"}", 1.0),
        ("depth", 5.0),
        ("wait_seconds_count", 1.0),
        ("visits_total{user_bucket=\"bucket_1\"}", 1.0),
        ("statsieve_config_reloads_total{outcome=\"success\"}", 1.0),
        ("statsieve_config_last_reload_successful", 1.0),
    ] {
        scrape.assert(series, value);
    }
    let hash = |scrape: &crate::harness::Scrape| scrape.of("statsieve_config_info").next().unwrap().0.to_owned();
    assert_ne!(hash(&before), hash(&scrape));
    // Unique users go on.
    let users = "statsieve_distinct{tag=\"user_id\",window=\"5m\"}";
    assert_eq!((before.value(users).round(), scrape.value(users).round()), (1.0, 1.0));
    sidecar.stop();
}

#[test]
fn a_bad_file_changes_nothing_and_says_everything_that_is_wrong() {
    let file = File::new(ON);
    let sidecar = file.sidecar(&[]);
    file.write("[listen]\nworkers = -1\n[labels]\nmax_values = 0\nnew = 1\n");
    let reply = act(&sidecar, "PUT", "/-/reload");
    assert_eq!(reply.status, 500);
    for problem in ["listen.workers: found -1", "labels.max_values: found 0", "labels.new: unknown key"] {
        assert!(reply.text().contains(problem), "{}", reply.text());
    }
    let scrape = sidecar.take(&["hits:1|c"]);
    scrape.assert("hits_total", 1.0);
    scrape.assert("statsieve_config_last_reload_successful", 0.0);
    scrape.assert("statsieve_config_reloads_total{outcome=\"failure\"}", 1.0);
    assert!(sidecar.log().contains("the one before stays"), "{}", sidecar.log());
    // It still obeys, so the old configuration is in force; a good one ends it.
    file.write(ON);
    assert_eq!(act(&sidecar, "POST", "/-/reload").status, 200);
    sidecar.scrape().assert("statsieve_config_last_reload_successful", 1.0);
    sidecar.stop();
}

#[test]
fn sighup_reloads_and_what_needs_a_restart_is_told_and_stays() {
    let file = File::new("[sampling]\nmode = \"off\"\n");
    let sidecar = file.sidecar(&["cardinality.max_series=10"]);
    file.write("[listen]\nmax_line_bytes = 100\n[http]\nmetrics_path = \"/m\"\n[cardinality]\nmax_series = 50\n");
    sidecar.signal(Signal::SIGHUP);
    sidecar.wait_until("the path has changed", |it| it.get("/m", &[]).status == 200);
    assert_eq!(sidecar.get("/metrics", &[]).status, 404);
    sidecar.wait_until("it is told", |it| it.log().contains("a change of these keys needs a restart"));
    let line = sidecar.log().lines().find(|line| line.contains("needs a restart")).unwrap().to_owned();
    assert!(line.contains("keys=listen"), "{line}");
    sidecar.send(&[&format!("hits:1|c|#k:{}", "v".repeat(200))]);
    sidecar.wait_until("the long line is taken", |it| it.get("/m", &[]).text().contains("hits_total"));
    // `--set` outlives reloads.
    assert!(sidecar.get("/m", &[]).text().contains("\nstatsieve_series_limit 10\n"));
    sidecar.stop();
}

#[test]
fn without_lifecycle_nobody_reloads_or_ends_it_over_http_and_get_never_does() {
    let sidecar = Sidecar::start(&[]);
    for path in ["/-/reload", "/-/quit"] {
        assert_eq!(act(&sidecar, "POST", path).status, 403);
        let get = sidecar.get(path, &[]);
        assert_eq!((get.status, get.header("allow")), (405, Some("POST, PUT")));
    }
    assert_eq!(reloads(&sidecar, "success"), 0.0);
    sidecar.stop();
}

#[test]
fn quit_drains_as_a_signal_does() {
    let sidecar = Sidecar::start(&["http.lifecycle=true", "http.drain=30s"]);
    sidecar.take(&["hits:1|c"]);
    assert_eq!(act(&sidecar, "PUT", "/-/quit").status, 200);
    sidecar.wait_until("it drains", |it| it.try_get("/-/ready", &[]).is_some_and(|reply| reply.status == 503));
    sidecar.scrape().assert("hits_total", 1.0);
    assert_eq!(sidecar.wait().code(), Some(0));
}

#[test]
fn the_configuration_in_force_is_shown_without_secrets() {
    let file = File::new("");
    fs::write(file.folder.path().join("salt.txt"), "pepper-of-ours").unwrap();
    file.write("[[bucketing]]\ntags = [\"user_id\"]\nlabel = \"user_bucket\"\nsalt_file = \"salt.txt\"\n");
    let sidecar = file.sidecar(&["labels.max_values=7"]);
    let reply = sidecar.get("/api/v1/config", &[]);
    assert_eq!((reply.status, reply.header("content-type")), (200, Some("application/toml; charset=utf-8")));
    let text = reply.text();
    assert!(text.contains("max_values = 7\n") && text.contains("salt.txt"), "{text}");
    assert!(!text.contains("pepper-of-ours"));
    sidecar.stop();
    let sidecar = Sidecar::start(&["http.debug_api=off"]);
    assert_eq!(sidecar.get("/api/v1/config", &[]).status, 404);
    sidecar.stop();
}

#[test]
fn what_waits_for_a_restart_is_shown_as_it_is_in_force_and_as_it_will_be() {
    let file = File::new(ON);
    let sidecar = file.sidecar(&["listen.max_line_bytes=500"]);
    let info = |sidecar: &Sidecar| sidecar.scrape().of("statsieve_config_info").next().unwrap().0.to_owned();
    let shown = || sidecar.get("/api/v1/config", &[]).text();
    let (before, at_first) = (shown(), info(&sidecar));
    assert!(!before.contains('#'), "{before}");
    file.write("[http]\nlifecycle = true\n[listen]\ntcp = \"127.0.0.1:0\"\n");
    let reply = act(&sidecar, "POST", "/-/reload");
    assert_eq!(reply.text(), "reloaded; a change of these needs a restart: listen\n");
    // Nothing that is in force has changed, and so neither has the hash.
    let waits = |text: &str| format!("{text}  # waits for a restart: tcp = \"127.0.0.1:0\"");
    assert_eq!(shown(), before.replace("\ntcp = \"\"\n", &format!("\n{}\n", waits("tcp = \"\""))));
    assert_eq!(info(&sidecar), at_first);
    // It goes on to wait while something else comes into force, and not once it is taken back.
    file.write("[http]\nlifecycle = true\n[listen]\ntcp = \"127.0.0.1:0\"\n[labels]\nmax_values = 7\n");
    assert_eq!(act(&sidecar, "POST", "/-/reload").status, 200);
    let text = shown();
    assert!(text.lines().any(|line| line == waits("tcp = \"\"")) && text.contains("\nmax_values = 7\n"), "{text}");
    assert!(text.contains("\nmax_line_bytes = 500\n"), "{text}");
    assert_ne!(info(&sidecar), at_first);
    file.write(ON);
    assert_eq!(act(&sidecar, "POST", "/-/reload").text(), "reloaded\n");
    assert_eq!((shown(), info(&sidecar)), (before, at_first));
    sidecar.stop();
}

/// As Kubernetes does it: the file is a link through a link to a folder, and that link is replaced.
#[test]
fn a_swapped_config_map_is_noticed() {
    let folder = tempfile::tempdir().unwrap();
    let version = |number: u32, text: &str| {
        let version = folder.path().join(format!("..v{number}"));
        fs::create_dir(&version).unwrap();
        fs::write(version.join("statsieve.toml"), text).unwrap();
        let new = folder.path().join("..data_tmp");
        std::os::unix::fs::symlink(&version, &new).unwrap();
        fs::rename(&new, folder.path().join("..data")).unwrap();
    };
    version(1, "[reload]\nwatch = true\n");
    let path = folder.path().join("statsieve.toml");
    std::os::unix::fs::symlink(Path::new("..data/statsieve.toml"), &path).unwrap();
    let sidecar = Sidecar::start_with(&[], &["--config", path.to_str().unwrap()]);
    version(2, "[reload]\nwatch = true\n[naming]\nprefix = \"two_\"\n");
    sidecar.wait_until("the swap is noticed", |it| reloads(it, "success") == 1.0);
    sidecar.take(&["hits:1|c"]).assert("two_hits_total", 1.0);
    version(3, "[reload]\nwatch = maybe\n");
    sidecar.wait_until("the bad one is refused", |it| reloads(it, "failure") == 1.0);
    version(4, "[reload]\nwatch = true\n[naming]\nprefix = \"four_\"\n");
    sidecar.wait_until("the next one is taken", |it| reloads(it, "success") == 2.0);
    assert_eq!(reloads(&sidecar, "failure"), 1.0, "a bad file is not tried again and again");
    sidecar.stop();
}

#[test]
fn connections_relays_and_own_metrics_follow_a_reload() {
    let target = UdpSocket::bind("127.0.0.1:0").unwrap();
    target.set_read_timeout(Some(crate::harness::PATIENCE)).unwrap();
    let file = File::new(ON);
    let sidecar = file.sidecar(&["listen.workers=1"]);
    assert!(sidecar.scrape().get("statsieve_lines_total").is_some());
    let address = target.local_addr().unwrap();
    file.write(&format!(
        "[http]\nlifecycle = true\nmax_connections = 1\n[telemetry]\nown_metrics = \"core\"\n[relay]\ntargets = [\"{address}\"]\n"
    ));
    assert_eq!(act(&sidecar, "POST", "/-/reload").status, 200);
    sidecar.send(&["hits:1|c"]);
    let mut buffer = [0; 100];
    let length = target.recv(&mut buffer).unwrap();
    assert_eq!(&buffer[..length], b"hits:1|c\n");
    let scrape = sidecar.scrape();
    assert!(scrape.get("statsieve_lines_total").is_none() && scrape.value("hits_total") == 1.0);
    // One connection is served; the next waits until it is gone.
    let first = TcpStream::connect(sidecar.http).unwrap();
    let waiting = std::thread::spawn({
        let http = sidecar.http;
        move || crate::harness::get(http, "/-/healthy", &[]).unwrap().status
    });
    std::thread::yield_now();
    drop(first);
    assert_eq!(waiting.join().unwrap(), 200);
    sidecar.stop();
}

#[test]
fn histograms_start_anew_with_other_bounds_and_all_others_go_on() {
    let file = File::new(ON);
    let sidecar = file.sidecar(&["listen.workers=1"]);
    sidecar.take(&["wait:5|h", "size:5|h|#k:v", "hits:1|c"]);
    file.write(&format!("{ON}[observer]\nbuckets = [1, 10]\n"));
    assert_eq!(act(&sidecar, "POST", "/-/reload").status, 200);
    let scrape = sidecar.scrape();
    assert_eq!(scrape.value("wait_count"), 1.0, "until it is sent again");
    sidecar.send(&["wait:7|h", "hits:1|c"]);
    let scrape = sidecar.settled(5);
    for (series, value) in [
        ("wait_bucket{le=\"10.0\"}", 1.0),
        ("wait_sum", 7.0),
        ("size_bucket{k=\"v\",le=\"30.0\"}", 1.0),
        ("hits_total", 2.0),
    ] {
        scrape.assert(series, value);
    }
    assert!(scrape.get("wait_bucket{le=\"30.0\"}").is_none(), "{}", scrape.text);
    sidecar.wait_until("the old series is gone", |it| {
        it.scrape().value("statsieve_series_expired_total{cause=\"reload\"}") == 1.0
    });
    sidecar.stop();
}

#[test]
fn a_file_that_is_empty_where_it_was_not_is_refused_until_it_says_something() {
    let mapping = File::new("mappings:\n- match: a.b\n  name: c\n");
    let text = format!("{ON}[labels]\ndrop = [\"secret\"]\n[mapping]\nfile = \"{}\"\n", mapping.path.display());
    let file = File::new(&text);
    let sidecar = file.sidecar(&[]);
    for emptied in [&file, &mapping] {
        let before = fs::read_to_string(&emptied.path).unwrap();
        emptied.write("");
        let reply = act(&sidecar, "POST", "/-/reload");
        assert_eq!(reply.status, 500, "{}", reply.text());
        let path = emptied.path.display().to_string();
        assert!(reply.text().contains(&path) && reply.text().contains("is empty, and was not before"), "{reply:?}");
        emptied.write(&before);
    }
    sidecar.take(&["a.b:1|c|#secret:1"]).assert("c", 1.0);
    assert_eq!((reloads(&sidecar, "failure"), reloads(&sidecar, "success")), (2.0, 0.0));
    // Meant so, as a comment says; what it turned on is off with it.
    file.write("# nothing\n");
    assert_eq!(act(&sidecar, "POST", "/-/reload").status, 200);
    sidecar.send(&["a.b:1|c|#secret:1"]);
    sidecar.settled(2).assert("a_b_total{secret=\"1\"}", 1.0);
}

#[test]
fn a_reload_to_addresses_that_are_taken_keeps_the_old_ones_and_says_that_it_takes_a_restart() {
    let listener = || std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let (udp, tcp, http) = (UdpSocket::bind("127.0.0.1:0").unwrap(), listener(), listener());
    let taken = format!(
        "[listen]\nudp = \"{}\"\ntcp = \"{}\"\n[http]\nlifecycle = true\nlisten = \"{}\"\n",
        udp.local_addr().unwrap(),
        tcp.local_addr().unwrap(),
        http.local_addr().unwrap()
    );
    let file = File::new("[listen]\nudp = \"127.0.0.1:0\"\n[http]\nlifecycle = true\nlisten = \"127.0.0.1:0\"\n");
    let path = file.path.to_str().unwrap();
    let mut command = crate::harness::program();
    command.args(["--config", path, "--set", "sampling.mode=off", "--set", "http.drain=100ms"]);
    let sidecar = Sidecar::of(command.stderr(std::process::Stdio::piped()).spawn().unwrap());
    sidecar.take(&["hits:1|c"]);
    file.write(&format!("{taken}[labels]\nmax_values = 7\n"));
    let reply = act(&sidecar, "POST", "/-/reload");
    let told = "reloaded; a change of these needs a restart: listen, http.listen\n";
    assert_eq!((reply.status, reply.text().as_str()), (200, told));
    // All else of it is in force, and lines are taken where they were.
    let shown = sidecar.get("/api/v1/config", &[]).text();
    assert!(shown.contains("\nmax_values = 7\n") && shown.contains("waits for a restart: udp = "), "{shown}");
    sidecar.send(&["hits:1|c"]);
    let scrape = sidecar.settled(2);
    scrape.assert("hits_total", 2.0);
    assert_eq!((scrape.recorded(), scrape.dropped(), scrape.kernel_drops()), (2.0, 0.0, 0.0));
    udp.set_nonblocking(true).unwrap();
    assert!(udp.recv(&mut [0]).is_err(), "nothing was sent to the address that is another's");
    // Free or not, it is the same; and a restart finds it so.
    drop((udp, tcp, http));
    assert_eq!(act(&sidecar, "POST", "/-/reload").text(), told);
    assert_eq!((reloads(&sidecar, "success"), reloads(&sidecar, "failure")), (2.0, 0.0));
    sidecar.send(&["hits:1|c"]);
    sidecar.settled(3).assert("hits_total", 3.0);
    sidecar.stop();
}

#[test]
fn a_watched_configuration_that_was_refused_for_another_file_is_read_once_that_one_is_mended() {
    const WATCH: &str = "[reload]\nwatch = true\n";
    let file = File::new(WATCH);
    let other = |name: &str, text: &str| fs::write(file.folder.path().join(name), text).unwrap();
    let sidecar = file.sidecar(&[]);
    let expect = |what: &str, expected: (f64, f64)| {
        sidecar.wait_until(what, |it| (reloads(it, "success"), reloads(it, "failure")) == expected);
    };
    // It is written before the mapping file that it names.
    let mapped = format!("{WATCH}[mapping]\nfile = \"m.yml\"\n");
    file.write(&mapped);
    expect("it is refused for want of a mapping file", (0.0, 1.0));
    other("m.yml", "mappings:\n- match: a.*\n  name: a\n  labels: {kind: $1}\n");
    expect("the mapping file is read", (1.0, 1.0));
    sidecar.take(&["a.b:1|c"]).assert("a{kind=\"b\"}", 1.0);

    // The web configuration is bad just when the rest is read again.
    let headers = |of: &str| format!("http_server_config: {{headers: {{X-Frame-Options: {of}}}}}\n");
    other("web.yml", &headers("never"));
    file.write(&format!("{mapped}[http]\nweb_config_file = \"web.yml\"\n"));
    expect("it is refused for the web configuration", (1.0, 2.0));
    other("web.yml", &headers("sameorigin"));
    expect("the web configuration is in force", (2.0, 2.0));
    assert_eq!(sidecar.get("/", &[]).header("x-frame-options"), Some("sameorigin"));
    // In force it is followed by itself, and a change of it is no reload.
    other("web.yml", &headers("deny"));
    sidecar.wait_until("it is followed", |it| it.get("/", &[]).header("x-frame-options") == Some("deny"));
    file.write(&format!("{mapped}[http]\nweb_config_file = \"web.yml\"\nlifecycle = true\n"));
    expect("the next change is read", (3.0, 2.0));
    sidecar.stop();
}

#[test]
fn series_stay_as_long_as_they_are_declared() {
    const BASE: &str = "[http]\nlifecycle = true\n[cardinality]\nidle_ttl = \"2s\"\n";
    let declare = |name: &str| format!("[[declare]]\nname = \"{name}\"\ntype = \"counter\"\n");
    let file = File::new(BASE);
    let sidecar = file.sidecar(&[]);
    sidecar.take(&["old:5|c"]);
    file.write(&format!("{BASE}{}{}", declare("old_total"), declare("new_total")));
    assert_eq!(act(&sidecar, "POST", "/-/reload").status, 200);
    let outlive = |name: &str| {
        sidecar.send(&[&format!("{name}:1|c")]);
        let series = format!("{name}_total");
        sidecar.wait_until("a series is there", |it| it.scrape().get(&series).is_some());
        sidecar.wait_until("its time is up", |it| it.scrape().get(&series).is_none());
        let scrape = sidecar.scrape();
        (scrape.get("old_total"), scrape.get("new_total"))
    };
    // The second, so that all that was idle as long as the first is gone for sure.
    outlive("a");
    assert_eq!(outlive("b"), (Some(5.0), Some(0.0)));
    file.write(BASE);
    assert_eq!(act(&sidecar, "POST", "/-/reload").status, 200);
    outlive("c");
    assert_eq!(outlive("d"), (None, None));
    sidecar.stop();
}

#[test]
fn reloads_refill_no_quota() {
    const QUOTA: f64 = 100.0;
    let file = File::new(ON);
    let sidecar = file.sidecar(&[&format!("rate_limit.samples_per_second={QUOTA}"), "listen.workers=1"]);
    let started = std::time::Instant::now();
    for round in 1..=10 {
        sidecar.send(&["hits:1|c"; 100]);
        let scrape = sidecar.settled(round * 100);
        let most = QUOTA * (1.0 + started.elapsed().as_secs_f64());
        assert!(scrape.value("hits_total") <= most, "round {round}: {} of {most}", scrape.value("hits_total"));
        assert_eq!(act(&sidecar, "POST", "/-/reload").status, 200);
    }
    sidecar.stop();
}
