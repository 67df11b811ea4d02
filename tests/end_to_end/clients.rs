//! Real clients: what applications send, not what a test author thinks they send.

use std::fs;
use std::net::UdpSocket;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use cadence::prelude::*;
use cadence::{StatsdClient, UdpMetricSink, UnixMetricSink};
use serde_json::Value;

use crate::harness::{Sidecar, assert_within};
use crate::tools::{host_and_port, node, python, python_with};

#[test]
fn cadence_counters_gauges_timers_histograms_and_distributions_arrive() {
    let sidecar = Sidecar::start(&[]);
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let sink = UdpMetricSink::from(sidecar.udp, socket).unwrap();
    let client = StatsdClient::builder("bot", sink)
        .with_error_handler(|error| panic!("cadence: {error}"))
        .with_tag("instance_kind", "worker")
        .build();
    for _ in 0..3 {
        client.count_with_tags("messages", 2).with_tag("user_id", "42").with_tag("activity_type", "message").send();
    }
    client.gauge_with_tags("queue.size", 12).with_tag("queue", "outbox").send();
    client.gauge_with_tags("queue.size", 7.5).with_tag("queue", "outbox").send();
    client.time_with_tags("update.duration", Duration::from_millis(40)).with_tag("type", "message").send();
    client.time_with_tags("update.duration", vec![100, 300]).with_tag("type", "message").send();
    client.histogram_with_tags("reply.bytes", 2048).send();
    client.distribution_with_tags("batch.length", 3.5).with_tag("queue", "outbox").send();
    let scrape = sidecar.settled(9);
    let worker = "instance_kind=\"worker\"";
    let labels = format!("activity_type=\"message\",{worker},user_bucket=\"bucket_1\"");
    scrape.assert(&format!("bot_messages_total{{{labels}}}"), 6.0);
    scrape.assert(&format!("bot_queue_size{{{worker},queue=\"outbox\"}}"), 7.5);
    scrape.assert(&format!("bot_update_duration_seconds_count{{{worker},type=\"message\"}}"), 3.0);
    scrape.assert_near(&format!("bot_update_duration_seconds_sum{{{worker},type=\"message\"}}"), 0.44);
    scrape.assert(&format!("bot_reply_bytes_sum{{{worker}}}"), 2048.0);
    scrape.assert(&format!("bot_batch_length_sum{{{worker},queue=\"outbox\"}}"), 3.5);
    // Eight calls with one value, one that packs two.
    assert_eq!((scrape.lines(), scrape.recorded(), scrape.dropped()), (9.0, 10.0, 0.0), "{}", scrape.text);
    sidecar.stop();
}

/// A sidecar on every transport, and the paths of its unix sockets, datagrams first.
fn on_all_transports() -> (Sidecar, tempfile::TempDir, [String; 2]) {
    let folder = tempfile::tempdir().unwrap();
    let paths = ["datagram", "stream"].map(|name| folder.path().join(name).to_str().unwrap().to_owned());
    let sidecar = Sidecar::start(&[
        "listen.tcp=127.0.0.1:0",
        &format!("listen.unix_datagram={}", paths[0]),
        &format!("listen.unix_stream={}", paths[1]),
    ]);
    (sidecar, folder, paths)
}

#[test]
fn cadence_arrives_over_unix_datagrams() {
    let (sidecar, _folder, [datagram, _]) = on_all_transports();
    let sink = UnixMetricSink::from(&datagram, UnixDatagram::unbound().unwrap());
    let client = StatsdClient::from_sink("bot", sink);
    for _ in 0..500 {
        client.count_with_tags("messages", 2).with_tag("user_id", "42").send();
    }
    let scrape = sidecar.settled(500);
    scrape.assert("bot_messages_total{user_bucket=\"bucket_1\"}", 1000.0);
    assert_eq!((scrape.lines(), scrape.dropped()), (500.0, 0.0), "{}", scrape.text);
    sidecar.stop();
}

#[test]
#[ignore = "needs the PyPI package statsd, run by tests/run"]
fn the_python_statsd_client_arrives_over_udp_tcp_and_unix_streams() {
    let (sidecar, _folder, [_, stream]) = on_all_transports();
    let [host, port] = host_and_port(sidecar.udp);
    let [_, tcp] = host_and_port(sidecar.address_of("tcp"));
    let mut lines = 0;
    for (round, arguments) in [&[host.as_str(), &port][..], &[&host, &tcp, "tcp"], &[&stream]].into_iter().enumerate() {
        let times = round as f64 + 1.0;
        lines += python("send_statsd.py", arguments).trim().parse::<u64>().unwrap();
        let scrape = sidecar.settled(lines);
        scrape.assert("py_requests_total", 8.0 * times);
        scrape.assert("py_hits_total{region=\"eu\",user_bucket=\"bucket_1\"}", 2.0 * times);
        scrape.assert("py_queue", 6.0);
        scrape.assert("py_level", -7.0);
        scrape.assert("py_latency_seconds_count", 2.0 * times);
        scrape.assert_near("py_latency_seconds_sum", (0.25 + 1.5) * times);
        assert_eq!((scrape.lines(), scrape.dropped()), (lines as f64, 0.0), "{}", scrape.text);
    }
    sidecar.stop();
}

#[test]
#[ignore = "needs the PyPI package datadog, run by tests/run"]
fn the_python_datadog_client_arrives_over_udp_unix_datagrams_and_unix_streams() {
    let (sidecar, _folder, [datagram, stream]) = on_all_transports();
    let [host, port] = host_and_port(sidecar.udp);
    let (datagram, stream) = (format!("unixgram://{datagram}"), format!("unixstream://{stream}"));
    let mut lines = 0;
    for (round, arguments) in [&[host.as_str(), &port][..], &[&datagram], &[&stream]].into_iter().enumerate() {
        let times = round as f64 + 1.0;
        lines += python("send_datadog.py", arguments).trim().parse::<u64>().unwrap();
        let scrape = sidecar.settled(lines);
        scrape.assert("bot_messages_total{activity_type=\"message\",user_bucket=\"bucket_1\"}", 5.0 * times);
        scrape.assert("bot_queue_size{queue=\"outbox\"}", 12.5);
        scrape.assert("bot_update_duration_seconds_count{type=\"message\"}", times);
        scrape.assert_near("bot_update_duration_seconds_sum{type=\"message\"}", 0.12 * times);
        scrape.assert("bot_reply_bytes_sum{command=\"help\"}", 2048.0 * times);
        scrape.assert("bot_batch_length_sum", 3.5 * times);
        scrape.assert("statsd_events_total{alert_type=\"error\"}", times);
        scrape.assert("statsd_service_check_status{check=\"bot.db\",shard=\"1\"}", 2.0);
        assert_eq!((scrape.lines(), scrape.dropped()), (lines as f64, 0.0), "{}", scrape.text);
    }
    sidecar.stop();
}

/// What the client of Datadog looks at to find its container, in a folder: control groups, and whether it is in the
/// namespace of the host.
fn container(groups: &str, of_host: bool) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let files = |name: &str| folder.path().join(name);
    fs::create_dir_all(files("mount/memory/own")).unwrap();
    fs::write(files("cgroup"), groups).unwrap();
    fs::write(files("namespace"), "").unwrap();
    if of_host {
        fs::write(files("host"), "").unwrap();
    }
    folder
}

/// The client finds its container's id where it sees the control groups of the host, and where it has a namespace of
/// its own the inode of its control group; and what there is where this test runs, if anything.
#[test]
#[ignore = "needs the PyPI package datadog, run by tests/run"]
fn container_ids_and_tags_of_the_environment_are_labels_as_the_python_datadog_client_sends_them() {
    const ENTITY: &str = "1f4c5a0e-5d2c-4a6a-9d0c-2d5e0f1b7a11";
    let environment = [
        ("DD_ENTITY_ID", ENTITY),
        ("DD_ENV", "prod"),
        ("DD_SERVICE", "chat-bot"),
        ("DD_VERSION", "1.2.3"),
        ("DATADOG_TAGS", "team:bots,on.call:yes"),
        ("DD_EXTERNAL_ENV", "it-false,cn-bot,pu-810fe89d"),
    ];
    let id = "34dc0b5e626f2c5c4c5170e34b10e7654ce36f0fcd532739f4445baabea03376";
    let by_id = container(&format!("2:cpu:/\n1:memory:/kubepods.slice/cri-containerd-{id}.scope\n"), true);
    let by_inode = container("2:cpu:/own\n1:memory:own\n", false);
    let inode = fs::metadata(by_inode.path().join("mount/memory/own")).unwrap().ino();
    let looks = [
        (by_id.path().to_str().unwrap(), Some(format!("ci-{id}"))),
        (by_inode.path().to_str().unwrap(), Some(format!("in-{inode}"))),
        ("", None),
    ];
    for (label, (look, expected)) in
        ["container_id", ""].iter().flat_map(|label| looks.iter().map(move |it| (*label, it)))
    {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket").to_str().unwrap().to_owned();
        let settings = [format!("listen.unix_datagram={path}"), format!("parse.container_id_label={label}")];
        let sidecar = Sidecar::start(&settings.each_ref().map(String::as_str));
        let ([host, port], path) = (host_and_port(sidecar.udp), format!("unixgram://{path}"));
        let mut lines = 0;
        for (round, address) in [&[host.as_str(), &port][..], &[&path]].into_iter().enumerate() {
            let times = round as f64 + 1.0;
            let printed = python_with(&environment, "send_from_container.py", &[&[*look], address].concat());
            let (sent, found) = printed.trim_end_matches('\n').split_once(' ').unwrap();
            assert_eq!(found, expected.as_deref().unwrap_or(found));
            lines += sent.parse::<u64>().unwrap();
            let scrape = sidecar.settled(lines);
            let container = match [label, found] {
                ["", _] | [_, ""] => String::new(),
                [label, found] => format!("{label}=\"{found}\","),
            };
            let of_all = |queue: &str| {
                let head = format!("{container}env=\"prod\",on_call=\"yes\",{queue}");
                format!("{head}service=\"chat-bot\",team=\"bots\",version=\"1.2.3\"")
            };
            let messages = format!("activity_type=\"message\",{}", of_all(""));
            let messages = messages.replace("version", "user_bucket=\"bucket_1\",version");
            scrape.assert(&format!("bot_messages_total{{{messages}}}"), 2.0 * times);
            scrape.assert(&format!("bot_queue_size{{{}}}", of_all("queue=\"outbox\",")), 12.5);
            scrape.assert(&format!("bot_update_duration_seconds_count{{{}}}", of_all("")), times);
            scrape.assert(&format!("statsd_service_check_status{{check=\"bot.db\",{}}}", of_all("")), 1.0);
            scrape.assert("statsd_events_total{alert_type=\"info\"}", times);
            // The entity's id is dropped, of all but the event, which has no tags.
            scrape.assert("statsieve_tags_dropped_total{reason=\"dropped\"}", 4.0 * times);
            assert!(!scrape.text.contains(ENTITY), "{}", scrape.text);
            assert_eq!((scrape.lines(), scrape.dropped()), (lines as f64, 0.0), "{}", scrape.text);
            assert_eq!(scrape.sum("statsieve_unknown_fields_total"), 0.0, "{}", scrape.text);
        }
        sidecar.stop();
    }
}

#[test]
#[ignore = "needs the PyPI package datadog, run by tests/run"]
fn the_seconds_that_datadog_timed_sends_as_ms_are_seconds_where_ms_unit_is_s() {
    // The body that is timed sleeps 50 ms; 20 s is far above what a busy machine adds.
    for (unit, shortest, longest) in [("s", 0.045, 20.0), ("ms", 0.000_045, 0.02)] {
        let sidecar = Sidecar::start(&[&format!("parse.ms_unit={unit}")]);
        let [host, port] = host_and_port(sidecar.udp);
        let lines: u64 = python("send_timed.py", &[&host, &port]).trim().parse().unwrap();
        let scrape = sidecar.settled(lines);
        scrape.assert("bot_block_seconds_count", 1.0);
        let sum = scrape.value("bot_block_seconds_sum");
        assert_within(&format!("the sum with ms_unit = {unit:?}"), sum, shortest..=longest);
        sidecar.stop();
    }
}

#[test]
#[ignore = "needs the npm package hot-shots, run by tests/run"]
fn the_node_hot_shots_client_arrives_over_udp_tcp_and_unix_streams() {
    let (sidecar, _folder, [_, stream]) = on_all_transports();
    let [host, port] = host_and_port(sidecar.udp);
    let [_, tcp] = host_and_port(sidecar.address_of("tcp"));
    let mut lines = 0;
    for (round, arguments) in [&[host.as_str(), &port][..], &[&host, &tcp, "tcp"], &[&stream]].into_iter().enumerate() {
        let times = round as f64 + 1.0;
        lines += node("send_hot_shots.js", arguments).trim().parse::<u64>().unwrap();
        let scrape = sidecar.settled(lines);
        let labels = "activity_type=\"message\",fleet=\"eu\",user_bucket=\"bucket_1\"";
        scrape.assert(&format!("bot_messages_total{{{labels}}}"), 5.0 * times);
        scrape.assert("bot_queue_size{fleet=\"eu\",queue=\"outbox\"}", 9.0);
        scrape.assert("bot_update_duration_seconds_count{fleet=\"eu\",type=\"message\"}", times);
        scrape.assert_near("bot_update_duration_seconds_sum{fleet=\"eu\",type=\"message\"}", 0.12 * times);
        scrape.assert("bot_reply_bytes_sum{fleet=\"eu\"}", 2048.0 * times);
        scrape.assert("bot_batch_length_sum{fleet=\"eu\"}", 3.5 * times);
        assert_eq!((scrape.lines(), scrape.dropped()), (lines as f64, 0.0), "{}", scrape.text);
    }
    sidecar.stop();
}

#[test]
#[ignore = "needs the PyPI package datadog, run by tests/run"]
fn what_the_python_datadog_client_tells_of_itself_is_one_series_for_each_figure() {
    let folder = tempfile::tempdir().unwrap();
    let lost = folder.path().join("nobody-listens");
    let tell = |sidecar: &Sidecar| -> Value {
        let [host, port] = host_and_port(sidecar.udp);
        serde_json::from_str(&python("tell_datadog.py", &[&host, &port, lost.to_str().unwrap()])).unwrap()
    };
    let sidecar = Sidecar::start(&[]);
    let told = tell(&sidecar);
    let scrape = sidecar.settled(told["lines"].as_u64().unwrap());
    for (figure, series) in [
        ("metrics", "statsieve_client_metrics_total"),
        ("packets_sent", "statsieve_client_packets_total"),
        ("bytes_sent", "statsieve_client_bytes_total"),
        ("packets_dropped", "statsieve_client_dropped_total"),
        ("bytes_dropped", "statsieve_client_dropped_bytes_total"),
    ] {
        scrape.assert(series, told[figure].as_f64().unwrap());
    }
    // Thirteen counters, of which three found no socket.
    scrape.assert("statsieve_client_metrics_total", 13.0);
    scrape.assert("statsieve_client_dropped_total", 3.0);
    scrape.assert("statsieve_client_dropped_metrics_total", 0.0);
    let status: Value = serde_json::from_slice(&sidecar.get("/api/v1/status", &[]).body).unwrap();
    assert_eq!(status["ledger"]["told_by_clients"]["packets_dropped"], told["packets_dropped"], "{status:#}");
    let users = scrape.user_series().into_keys().map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(users, ["bot_messages_total{worker=\"1\"}", "bot_messages_total{worker=\"2\"}"]);
    assert_eq!((scrape.lines(), scrape.recorded(), scrape.dropped()), (153.0, 153.0, 0.0), "{}", scrape.text);
    sidecar.stop();

    let sidecar = Sidecar::start(&["parse.client_telemetry=false"]);
    let told = tell(&sidecar);
    let scrape = sidecar.settled(told["lines"].as_u64().unwrap());
    scrape.assert("statsieve_client_dropped_total", 0.0);
    assert_eq!(scrape.sum("datadog_dogstatsd_client_packets_dropped_total"), 3.0, "{}", scrape.text);
    assert_eq!(scrape.of("datadog_dogstatsd_client_packets_dropped_total").count(), 3, "{}", scrape.text);
    sidecar.stop();
}

#[test]
#[ignore = "needs the npm package hot-shots, run by tests/run"]
fn what_hot_shots_tells_of_itself_makes_no_series_of_the_bots() {
    let sidecar = Sidecar::start(&[]);
    let [host, port] = host_and_port(sidecar.udp);
    let given: f64 = node("tell_hot_shots.js", &[&host, &port]).trim().parse().unwrap();
    sidecar.wait_until("it has told", |it| it.scrape().sum("statsieve_client_metrics_total") == given);
    let scrape = sidecar.scrape();
    assert!(!scrape.text.contains("datadog"), "{}", scrape.text);
    scrape.assert("bot_messages_total{worker=\"1\"}", 2.0);
    assert_eq!(scrape.dropped(), 0.0, "{}", scrape.text);
    sidecar.stop();
}
