//! In place of `statsd_exporter`: started by its name or its flags, the program does what that one does.

use std::fs;
use std::io::Write;
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use nix::sys::signal::Signal;

use crate::harness::{KillOnDrop, PATIENCE, Reply, Scrape, Sidecar, get, request, run, wait_until};
use crate::prometheus::Prometheus;

/// Ports that the kernel picks, as flags: the real ones may be taken on this machine.
const PORTS: [&str; 3] =
    ["--statsd.listen-udp=127.0.0.1:0", "--statsd.listen-tcp=127.0.0.1:0", "--web.listen-address=127.0.0.1:0"];

const MAPPING: &str = "mappings:
- match: shop.*.orders
  name: shop_orders
  help: Orders of a shop.
  labels: { shop: $1 }
- match: shop.noise.*
  name: noise
  action: drop
";

/// The program under the name of the other one, in a folder for what a test makes.
struct Exporter {
    folder: tempfile::TempDir,
}

impl Exporter {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        symlink(env!("CARGO_BIN_EXE_statsieve"), folder.path().join("statsd_exporter")).unwrap();
        Self { folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes a file; gives its path as text.
    fn write(&self, name: &str, text: &str) -> String {
        fs::write(self.path(name), text).unwrap();
        self.path(name).to_str().unwrap().to_owned()
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(self.path("statsd_exporter"));
        command.args(arguments).current_dir(self.folder.path()).stdin(Stdio::null()).stderr(Stdio::piped());
        command
    }

    /// Starts it with [`PORTS`] under `arguments`.
    fn start(&self, arguments: &[&str]) -> Sidecar {
        let mut command = self.command(&[&PORTS, arguments].concat());
        Sidecar::of(command.stdout(Stdio::null()).spawn().unwrap())
    }

    /// Runs it to its end.
    fn run(&self, arguments: &[&str]) -> Output {
        let mut child = KillOnDrop(Some(self.command(arguments).stdout(Stdio::piped()).spawn().unwrap()));
        wait_until("it ends", || child.0.as_mut().unwrap().try_wait().unwrap().is_some());
        child.0.take().unwrap().wait_with_output().unwrap()
    }

    /// Runs it to its end; gives what it wrote.
    fn ends(&self, arguments: &[&str], code: i32) -> String {
        let Output { status, stdout, stderr } = self.run(arguments);
        let text = String::from_utf8([stdout, stderr].concat()).unwrap();
        assert_eq!(status.code(), Some(code), "{arguments:?}\n{text}");
        text
    }
}

/// What is exposed of users and of the process, as far as it depends on nothing but what was sent.
fn assert_all(scrape: &Scrape, expected: &[(&str, f64)]) {
    for (series, value) in expected {
        scrape.assert(series, *value);
    }
}

fn act(sidecar: &Sidecar, path: &str) -> Reply {
    request(sidecar.http, "POST", path, &[]).unwrap()
}

#[test]
fn a_pod_goes_on_with_nothing_changed_but_the_image() {
    let exporter = Exporter::new();
    let mapping = exporter.write("mapping.yml", MAPPING);
    let socket = exporter.path("statsd.sock");
    let flag = |name: &str, value: &str| format!("--{name}={value}");
    // As the args of a container stand in a pod's specification, but for the ports.
    let arguments = [
        flag("statsd.mapping-config", &mapping),
        flag("statsd.listen-unixgram", socket.to_str().unwrap()),
        "--statsd.unixsocket-mode".to_owned(),
        "777".to_owned(),
        flag("statsd.cache-size", "2000"),
        flag("statsd.event-queue-size", "20000"),
        flag("statsd.event-flush-interval", "100ms"),
        flag("statsd.read-buffer", "65536"),
        flag("web.telemetry-path", "/metrics"),
        flag("log.level", "info"),
        flag("log.format", "json"),
        "--no-statsd.parse-librato-tags".to_owned(),
    ];
    let sidecar = exporter.start(&arguments.each_ref().map(String::as_str));
    let mut tcp = TcpStream::connect(sidecar.address_of("tcp")).unwrap();
    let unix = UnixDatagram::unbound().unwrap();
    assert_eq!(fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o777);

    sidecar.sender().send(b"shop.north.orders:2|c\nshop.noise.x:1|c\nhits:1|c|#user_id:7,message_id:9\ndepth:+3|g");
    // Its own worker reads each socket, and the first type of a name wins.
    sidecar.settled(4);
    tcp.write_all(b"shop.south.orders:3|c\nhits:2|c|#user_id:7,message_id:9\nbroken\nwait.ms:8|ms\n").unwrap();
    unix.send_to(b"depth:-1|g\nsize:5|h\nhits:-1|c\nhits:1|g\nwork:1|c|#a:b|c:abc", &socket).unwrap();
    let scrape = sidecar.settled(13);
    assert_all(
        &scrape,
        &[
            ("shop_orders{shop=\"north\"}", 2.0),
            ("shop_orders{shop=\"south\"}", 3.0),
            ("hits{message_id=\"9\",user_id=\"7\"}", 3.0),
            ("depth", 2.0),
            ("wait_ms{quantile=\"0.5\"}", 0.008),
            ("wait_ms{quantile=\"0.99\"}", 0.008),
            ("wait_ms_count", 1.0),
            ("wait_ms_sum", 0.008),
            ("size_count", 1.0),
            ("size_sum", 5.0),
            ("work{a=\"b\",container_id=\"abc\"}", 1.0),
            ("statsd_exporter_lines_total", 13.0),
            ("statsd_exporter_samples_total", 12.0),
            ("statsd_exporter_events_total{type=\"counter\"}", 5.0),
            ("statsd_exporter_events_total{type=\"gauge\"}", 2.0),
            ("statsd_exporter_events_total{type=\"observer\"}", 2.0),
            ("statsd_exporter_events_actions_total{action=\"map\"}", 2.0),
            ("statsd_exporter_events_actions_total{action=\"drop\"}", 1.0),
            ("statsd_exporter_events_error_total{reason=\"illegal_negative_counter\"}", 1.0),
            ("statsd_exporter_events_conflict_total", 1.0),
            ("statsd_exporter_sample_errors_total{reason=\"malformed_line\"}", 1.0),
            ("statsd_exporter_sample_errors_total{reason=\"malformed_value\"}", 0.0),
            ("statsd_exporter_tag_errors_total", 0.0),
            ("statsd_exporter_udp_packets_total", 1.0),
            ("statsd_exporter_udp_packet_drops_total", 0.0),
            ("statsd_exporter_tcp_connections_total", 1.0),
            ("statsd_exporter_tcp_connection_errors_total", 0.0),
            ("statsd_exporter_tcp_too_long_lines_total", 0.0),
            ("statsd_exporter_unixgram_packets_total", 1.0),
            ("statsd_exporter_loaded_mappings", 2.0),
            ("statsd_exporter_config_reloads_total{outcome=\"success\"}", 0.0),
            ("statsd_exporter_config_reloads_total{outcome=\"failure\"}", 0.0),
            ("promhttp_metric_handler_requests_in_flight", 1.0),
            ("promhttp_metric_handler_requests_total{code=\"500\"}", 0.0),
        ],
    );
    // Names held: shop_orders, hits, depth, wait_ms, size, work.
    scrape.assert("statsd_exporter_metrics_total", 6.0);
    assert!(scrape.value("statsd_exporter_events_unmapped_total") >= 8.0);
    let gets = scrape.value("statsd_metric_mapper_cache_gets_total");
    assert!(gets >= scrape.value("statsd_metric_mapper_cache_hits_total") && gets > 0.0);
    let scrapes = scrape.value("promhttp_metric_handler_requests_total{code=\"200\"}");
    assert_eq!(scrapes, scrape.value("statsieve_scrapes_total{format=\"text\"}"));
    assert!(scrape.sum("statsd_exporter_build_info") == 1.0 && !scrape.text.contains("go_"), "{}", scrape.text);
    assert!(scrape.text.contains("# HELP shop_orders Orders of a shop.\n# TYPE shop_orders counter\n"));

    for path in ["/-/healthy", "/-/ready", "/"] {
        assert_eq!(sidecar.get(path, &[]).status, 200, "{path}");
    }
    assert_eq!(act(&sidecar, "/-/reload").status, 403, "not without its flag");
    let log = sidecar.log();
    for flag in ["statsd.cache-size", "statsd.event-queue-size", "statsd.event-flush-interval"] {
        let told =
            log.lines().filter(|line| line.contains(&format!("\"flag\":\"{flag}\"")) && line.contains("no effect"));
        assert_eq!(told.count(), 1, "{flag}\n{log}");
    }
    assert!(log.contains("\"max_series\":1000000,") && log.contains("a hundred times"), "{log}");
    sidecar.stop();
    assert!(!socket.exists(), "the socket goes with the process");
}

#[test]
fn each_fault_of_a_line_is_counted_under_its_old_reason() {
    let sidecar = Exporter::new().start(&[]);
    let sample = |reason: &str| format!("statsd_exporter_sample_errors_total{{reason=\"{reason}\"}}");
    let event = |reason: &str| format!("statsd_exporter_events_error_total{{reason=\"{reason}\"}}");
    // The line, where it counts as an error, and whether it is recorded all the same.
    let cases = [
        ("broken", sample("malformed_line"), 0.0),
        ("a:1", sample("malformed_line"), 0.0),
        ("a,k=v:1|c|#x:y", sample("mixed_tagging_styles"), 0.0),
        ("a:1|c|", sample("malformed_component"), 0.0),
        ("a:x|c", sample("malformed_value"), 0.0),
        ("a:nan|c", sample("malformed_value"), 0.0),
        ("a:1|q", sample("illegal_event"), 0.0),
        ("a:1|c|@x", sample("invalid_sample_factor"), 1.0),
        ("a:1|ms|@-1", sample("invalid_sample_factor"), 0.0),
        ("a:-1|c", event("illegal_negative_counter"), 0.0),
        ("a:1|c|#__k:v", event("reserved_label"), 0.0),
        ("a:1|g", "statsd_exporter_events_conflict_total".to_owned(), 0.0),
        ("a:1|c|#k:", "statsd_exporter_tag_errors_total".to_owned(), 1.0),
    ];
    let names = ["sample_errors_total", "events_error_total", "events_conflict_total", "tag_errors_total"];
    let errors = |scrape: &Scrape| names.iter().map(|name| scrape.sum(&format!("statsd_exporter_{name}"))).sum::<f64>();
    let recorded = |scrape: &Scrape| scrape.sum("statsd_exporter_events_total");
    let mut before = sidecar.take(&["a:1|c"]);
    for (sent, (line, series, kept)) in (2..).zip(cases) {
        sidecar.send(&[line]);
        let scrape = sidecar.settled(sent);
        assert_eq!(scrape.value(&series) - before.value(&series), 1.0, "{line}: {series}");
        assert_eq!(errors(&scrape) - errors(&before), 1.0, "{line} is one error");
        assert_eq!(recorded(&scrape) - recorded(&before), kept, "{line}");
        before = scrape;
    }
    sidecar.stop();
}

#[test]
fn nothing_is_bucketed_folded_or_left_out() {
    let sidecar = Exporter::new().start(&[]);
    let sender = sidecar.sender();
    for n in 0..300 {
        sender.send(format!("hits:1|c|#user_id:{n}").as_bytes());
    }
    let long = "v".repeat(2000);
    sender.send(format!("long:1|c|#k:{long}").as_bytes());
    let labels: Vec<String> = (0..100).map(|n| format!("k{n}:v")).collect();
    sender.send(format!("wide:1|c|#{}", labels.join(",")).as_bytes());
    let scrape = sidecar.settled(302);
    assert_eq!(scrape.of("hits").count(), 300);
    scrape.assert("hits{user_id=\"299\"}", 1.0);
    scrape.assert(&format!("long{{k=\"{long}\"}}"), 1.0);
    let (wide, _) = scrape.of("wide").next().unwrap();
    assert_eq!(wide.matches('=').count(), 100);
    scrape.assert("statsieve_overflow_samples_total", 0.0);
    assert_eq!(scrape.dropped(), 0.0);
    sidecar.stop();
}

#[test]
fn any_of_its_flags_is_enough_and_an_override_wins_over_all() {
    let arguments = [&PORTS[..], &["--set", "naming.counter_suffix=_total", "--set", "http.lifecycle=true"]].concat();
    let mut command = crate::harness::program();
    // A file that only our own command line would read.
    command.args(arguments).env("STATSIEVE_CONFIG", "/no/such/file").stdout(Stdio::null()).stderr(Stdio::piped());
    let sidecar = Sidecar::of(command.spawn().unwrap());
    let scrape = sidecar.take(&["hits:1|c"]);
    scrape.assert("hits_total", 1.0);
    scrape.assert("statsd_exporter_lines_total", 1.0);
    assert_eq!(act(&sidecar, "/-/quit").status, 200);
    assert_eq!(sidecar.wait().code(), Some(0));
}

#[test]
fn a_signal_or_a_request_reads_the_mapping_again_and_a_bad_one_changes_nothing() {
    let exporter = Exporter::new();
    let mapping = exporter.write("mapping.yml", MAPPING);
    let sidecar = exporter.start(&["--statsd.mapping-config", &mapping, "--web.enable-lifecycle"]);
    let reloads = |outcome: &str| {
        let series = format!("statsd_exporter_config_reloads_total{{outcome=\"{outcome}\"}}");
        sidecar.scrape().value(&series)
    };
    sidecar.take(&["shop.a.orders:1|c"]).assert("shop_orders{shop=\"a\"}", 1.0);
    exporter.write("mapping.yml", &MAPPING.replace("shop_orders", "orders_of_shops"));
    sidecar.signal(Signal::SIGHUP);
    sidecar.wait_until("it is read again", |_| reloads("success") == 1.0);
    sidecar.send(&["shop.a.orders:1|c"]);
    let scrape = sidecar.settled(2);
    scrape.assert("orders_of_shops{shop=\"a\"}", 1.0);
    scrape.assert("shop_orders{shop=\"a\"}", 1.0);

    exporter.write("mapping.yml", "mappings: [{ match: a..b, name: x }]");
    sidecar.signal(Signal::SIGHUP);
    sidecar.wait_until("it is refused", |_| reloads("failure") == 1.0);
    let reply = act(&sidecar, "/-/reload");
    assert_eq!(reply.status, 500, "{}", reply.text());
    assert!(reply.text().contains("mapping.yml:1: mappings.0.match: found \"a..b\""), "{}", reply.text());
    sidecar.send(&["shop.a.orders:1|c"]);
    sidecar.settled(3).assert("orders_of_shops{shop=\"a\"}", 2.0);

    exporter.write("mapping.yml", MAPPING);
    assert_eq!(act(&sidecar, "/-/reload").status, 200);
    assert_eq!((reloads("success"), reloads("failure")), (2.0, 2.0));
    sidecar.stop();
}

#[test]
fn sigterm_ends_it_without_waiting_for_a_scrape() {
    let exporter = Exporter::new();
    let sidecar = exporter.start(&[]);
    sidecar.take(&["hits:1|c"]);
    sidecar.signal(Signal::SIGTERM);
    // No scrape comes: it would wait for ever if it waited for one, and the configuration says that it waits no time.
    assert_eq!(sidecar.wait().code(), Some(0));
    let sidecar = exporter.start(&[]);
    let config = sidecar.get("/api/v1/config", &[]).text();
    assert!(config.contains("drain = \"0s\""), "{config}");
    sidecar.stop();
}

#[test]
fn check_config_tells_by_its_exit_code_and_opens_nothing() {
    let exporter = Exporter::new();
    let good = exporter.write("good.yml", MAPPING);
    let bad = exporter.write("bad.yml", "mappings:\n- match: shop.*\n  nmae: x\n");
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    let http = format!("--web.listen-address={taken}");
    let mapping = format!("--statsd.mapping-config={good}");
    let text = exporter.ends(&["--check-config", &mapping, &http], 0);
    assert!(text.contains("the configuration is good") && !text.contains("listening"), "{text}");
    // A mapping is checked without a listener as well.
    exporter.ends(&["--check-config", &mapping, "--statsd.listen-udp=", "--statsd.listen-tcp="], 0);
    let text = exporter.ends(&["--check-config", "--statsd.mapping-config", &bad], 1);
    for part in ["bad.yml:3: mappings.0.nmae: unknown key", "bad.yml:2: mappings.0.name"] {
        assert!(text.contains(part), "no {part:?} in\n{text}");
    }
}

#[test]
fn what_it_cannot_start_with_is_exit_code_1_and_told_by_the_flag() {
    let exporter = Exporter::new();
    let bad = exporter.write("bad.yml", "mappings: 5");
    let socket = exporter.path("stale.sock");
    drop(UnixDatagram::bind(&socket).unwrap());
    let (udp, tcp) = (UdpSocket::bind("127.0.0.1:0").unwrap(), TcpListener::bind("127.0.0.1:0").unwrap());
    let udp = format!("--statsd.listen-udp={}", udp.local_addr().unwrap());
    let (http, tcp) = (
        format!("--web.listen-address={}", tcp.local_addr().unwrap()),
        format!("--statsd.listen-tcp={}", tcp.local_addr().unwrap()),
    );
    let unix = format!("--statsd.listen-unixgram={}", socket.display());
    let [free_udp, free_tcp, free_http] = PORTS;
    for (arguments, part) in [
        (&["--statsd.no-such-flag"][..], "error: unknown flag '--statsd.no-such-flag', try --help"),
        (&["surplus"], "error: unexpected 'surplus'"),
        (&["--statsd.listen-udp", "", "--statsd.listen-tcp", ""], "--statsd.listen-udp=: found \"\""),
        (&["--statsd.mapping-config=no/such.yml"], "--statsd.mapping-config=no/such.yml: found \"no/such.yml\""),
        (&["--statsd.mapping-config", &bad], "bad.yml:1"),
        (&[&unix, free_udp, free_tcp, free_http], "stale.sock is there already"),
        (&[&udp, free_tcp, free_http], "cannot receive UDP on 127.0.0.1"),
        (&[free_udp, &tcp, free_http], "cannot take connections on 127.0.0.1"),
        (&[free_udp, free_tcp, &http], "cannot listen for HTTP on 127.0.0.1"),
        (&["--set", "listen.udp=nowhere"], "--set listen.udp=nowhere: listen.udp: found \"nowhere\""),
    ] {
        let text = exporter.ends(arguments, 1);
        assert!(text.contains(part), "{arguments:?}: no {part:?} in\n{text}");
    }
    assert!(socket.exists(), "what is not ours stays");
    // Without the name, by flags alone.
    assert_eq!(run(&["--statsd.no-such-flag"]).status.code(), Some(1));
    assert_eq!(run(&["--check-config", "--log.level=loud"]).status.code(), Some(1));
}

#[test]
fn version_and_help_are_those_of_a_program_of_that_name() {
    let exporter = Exporter::new();
    let text = exporter.ends(&["--version"], 0);
    let expected = concat!("statsd_exporter, version ", env!("CARGO_PKG_VERSION"), "-statsieve\nstatsieve, version ");
    assert!(text.starts_with(expected), "{text}");
    for arguments in [["-h"], ["--help"]] {
        let text = exporter.ends(&arguments, 0);
        assert!(
            text.starts_with("usage: statsd_exporter [<flags>]\n") && text.contains("--statsd.listen-udp=\":9125\"")
        );
    }
    let ours = String::from_utf8(run(&["--version"]).stdout).unwrap();
    assert!(ours.starts_with("statsieve, version "), "{ours}");
}

#[test]
fn the_globs_of_the_mapping_are_written_for_graphviz_and_a_failure_to_is_told_alone() {
    let exporter = Exporter::new();
    let mapping = exporter.write("mapping.yml", MAPPING);
    let graph = exporter.path("fsm.dot");
    let arguments =
        ["--statsd.mapping-config", &mapping, "--debug.dump-fsm", graph.to_str().unwrap(), "--check-config"];
    exporter.ends(&arguments, 0);
    let text = fs::read_to_string(&graph).unwrap();
    assert!(text.starts_with("digraph ") && text.ends_with("}\n"), "{text}");
    for part in ["label=\"shop\"", "label=\"noise\"", "shop_orders", "dropped", " -> "] {
        assert!(text.contains(part), "no {part:?} in\n{text}");
    }
    let sidecar = exporter.start(&["--debug.dump-fsm=/no/such/folder/fsm.dot"]);
    assert!(sidecar.log().contains("the globs of the mapping cannot be written"), "{}", sidecar.log());
    sidecar.stop();
}

#[test]
fn lines_are_sent_on_and_counted_by_target() {
    let target = UdpSocket::bind("127.0.0.1:0").unwrap();
    target.set_read_timeout(Some(PATIENCE)).unwrap();
    let address = target.local_addr().unwrap();
    let sidecar =
        Exporter::new().start(&["--statsd.relay.address", &address.to_string(), "--statsd.relay.packet-length=100"]);
    sidecar.send(&["hits:1|c", &format!("long:1|c|#k:{}", "x".repeat(100))]);
    let mut buffer = [0; 200];
    let length = target.recv(&mut buffer).unwrap();
    assert_eq!(&buffer[..length], b"hits:1|c\n");
    let of = |name: &str| format!("statsd_exporter_relay_{name}_total{{target=\"{address}\"}}");
    sidecar.settled(2);
    sidecar.wait_until("it is counted", |it| it.scrape().value(&of("packets")) == 1.0);
    let scrape = sidecar.scrape();
    assert_all(&scrape, &[(&of("lines_relayed"), 1.0), (&of("long_lines"), 1.0)]);
    sidecar.stop();
}

#[test]
fn the_exposition_may_take_the_place_of_the_landing_page() {
    let sidecar = Exporter::new().start(&["--web.telemetry-path=/"]);
    let reply = sidecar.get("/", &[]);
    assert!(reply.status == 200 && reply.text().contains("statsd_exporter_lines_total 0\n"), "{}", reply.text());
    assert_eq!(sidecar.get("/metrics", &[]).status, 404);
    sidecar.stop();
}

/// Names of the other program's own metrics, and one that only looks so.
const TAKEN: [&str; 4] = [
    "statsd_exporter_lines_total:5|c",
    "statsd.exporter.of.mine:5|g",
    "promhttp_metric_handler_requests_total:5|c",
    "statsd_metric_mapper_cache_length:5|g",
];

#[test]
fn its_own_names_are_refused_from_users_and_no_scrape_fails_for_them() {
    let sidecar = Exporter::new().start(&[]);
    sidecar.send(&["statsd_exporter:5|g", "statsd_export:5|g"]);
    let scrape = sidecar.take(&TAKEN);
    let scrape = if scrape.lines() < 6.0 { sidecar.settled(6) } else { scrape };
    assert_all(&scrape, &[("statsd_exporter", 5.0), ("statsd_export", 5.0), ("statsd_exporter_lines_total", 6.0)]);
    scrape.assert("statsd_exporter_events_conflict_total", 4.0);
    assert_eq!(scrape.get("statsd_exporter_of_mine"), None);
    sidecar.stop();
    // Without them the names are free.
    let sidecar = Sidecar::start(&["naming.counter_suffix="]);
    let scrape = sidecar.take(&TAKEN);
    assert_all(&scrape, &[("statsd_exporter_lines_total", 5.0), ("statsd_exporter_of_mine", 5.0)]);
    assert_eq!(scrape.of("statsd_exporter_samples_total").count(), 0);
    sidecar.stop();
}

#[test]
fn its_metrics_are_the_same_in_every_format_and_may_be_had_by_their_key_alone() {
    let sidecar = Sidecar::start(&["telemetry.statsd_exporter_metrics=true"]);
    sidecar.take(&["hits:1|c", "broken", "depth:1|g|#empty"]);
    let old = |accept: &str| -> Vec<(String, f64)> {
        let scrape = sidecar.scrape_as(accept);
        let starts = ["statsd_exporter_", "statsd_metric_mapper_cache_", "promhttp_metric_handler_"];
        let of_old = scrape.samples.iter().filter(|(series, _)| starts.iter().any(|start| series.starts_with(start)));
        // This one counts the scrapes themselves.
        of_old.filter(|(series, _)| !series.contains("code=\"200\"")).map(|(s, v)| (s.clone(), *v)).collect()
    };
    let text = old("text/plain;version=0.0.4");
    assert_eq!(text, old("application/openmetrics-text;version=1.0.0"));
    let protobuf = "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited";
    assert_eq!(text, old(protobuf));
    assert!(text.len() > 35, "{text:?}");
    let checked = String::from_utf8(run(&["check", "--set", "telemetry.statsd_exporter_metrics=true"]).stdout).unwrap();
    assert!(checked.contains("own metrics"), "{checked}");
    sidecar.stop();
}

#[test]
fn turning_its_metrics_on_needs_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("statsieve.toml");
    fs::write(&file, "[http]\nlifecycle = true\n").unwrap();
    let sidecar = Sidecar::start_with(&[], &["--config", file.to_str().unwrap()]);
    sidecar.take(&["statsd.exporter.samples:5|c"]).assert("statsd_exporter_samples_total", 5.0);
    fs::write(&file, "[http]\nlifecycle = true\n[telemetry]\nstatsd_exporter_metrics = true\n").unwrap();
    let reply = act(&sidecar, "/-/reload");
    assert_eq!(reply.text(), "reloaded; a change of these needs a restart: telemetry.statsd_exporter_metrics\n");
    sidecar.scrape().assert("statsd_exporter_samples_total", 5.0);
    sidecar.stop();
}

#[test]
#[ignore = "needs a Prometheus server, run by tests/run"]
fn a_real_prometheus_reads_what_it_read_before() {
    let exporter = Exporter::new();
    let mapping = exporter.write("mapping.yml", MAPPING);
    let sidecar = exporter.start(&["--statsd.mapping-config", &mapping]);
    sidecar.take(&["shop.north.orders:2|c", "hits.total:4|c", "depth:7|g", "wait:5|ms"]);
    for arguments in [&[][..], &["--enable-feature=native-histograms"]] {
        let prometheus = Prometheus::start_with(&[sidecar.http], None, arguments);
        prometheus.wait_for("up{job=\"sidecar\"}", 1.0);
        prometheus.wait_for("shop_orders{shop=\"north\"}", 2.0);
        prometheus.wait_for("hits_total", 4.0);
        prometheus.wait_for("depth", 7.0);
        prometheus.wait_for("statsd_exporter_lines_total", 4.0);
        prometheus.wait_for("sum(statsd_exporter_events_total)", 4.0);
        prometheus.wait_for("sum(statsd_exporter_build_info)", 1.0);
        prometheus.wait_for("statsd_exporter_loaded_mappings", 2.0);
        prometheus.wait_for("sum(promhttp_metric_handler_requests_total{code=~\"5..\"})", 0.0);
    }
    sidecar.stop();
    // By their key alone OpenMetrics is offered too, whose parser is stricter with names.
    let sidecar = Sidecar::start(&["telemetry.statsd_exporter_metrics=true"]);
    sidecar.take(&["hits:4|c"]);
    let prometheus = Prometheus::start_with(&[sidecar.http], None, &[]);
    prometheus.wait_for("statsd_exporter_lines_total", 1.0);
    prometheus.wait_for("statsd_exporter_metrics_total", 1.0);
    prometheus.wait_for("statsieve_scrapes_total{format=\"openmetrics\"} > bool 0", 1.0);
    sidecar.stop();
}

#[test]
fn all_addresses_are_served_by_default_over_ipv4_and_ipv6() {
    // The default port may be taken, so the kernel picks one; what stands for no host is the same.
    let exporter = Exporter::new();
    let mut command = exporter.command(&[PORTS[0], "--statsd.listen-tcp=:0", "--web.listen-address=:0"]);
    let sidecar = Sidecar::of(command.stdout(Stdio::null()).spawn().unwrap());
    let tcp = sidecar.address_of("tcp");
    assert!(tcp.is_ipv4() && tcp.ip().is_unspecified(), "{tcp}");
    let port = sidecar.http.port();
    assert_eq!(get(([127, 0, 0, 1], port).into(), "/-/ready", &[]).unwrap().status, 200);
    if Path::new("/proc/sys/net/ipv6").exists() && TcpListener::bind("[::1]:0").is_ok() {
        assert_eq!(get(format!("[::1]:{port}").parse().unwrap(), "/-/ready", &[]).unwrap().status, 200);
    }
    sidecar.stop();
}
