//! What is measured, and how each is started: the least configuration with which it does the work.
//!
//! In: ports and a folder. Out: a command. Always: each listens on the loopback only, and on the ports given.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Receive buffer that each is told to ask for, where it can be told: statsieve's default.
pub(crate) const BUFFER_BYTES: usize = 8 << 20;

/// A receiver of StatsD lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Program {
    Empty,
    Statsieve,
    StatsdExporter,
    Netdata,
    Collectd,
    Vector,
    Gostatsd,
    Brubeck,
}

/// How many series it may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Limits {
    Default,
    /// As many as are sent, where it has limits at all.
    Raised,
}

/// statsieve's limits out of the way.
const RAISED: [&str; 5] = [
    "cardinality.max_series=1000000000",
    "cardinality.max_series_per_family=1000000000",
    "cardinality.max_bytes=8589934592",
    "cardinality.new_series_per_second=0",
    "labels.max_values=1000000",
];

/// A program ready to start; `http` is where it serves what it collected, if it does.
pub(crate) struct Launch {
    pub(crate) command: Command,
    pub(crate) http: Option<u16>,
}

/// Where the number of lines taken stands.
pub(crate) enum Counts {
    /// It answers questions on its standard input.
    Answers,
    /// A counter of its own, of all samples whose labels hold `label`.
    Metric { path: &'static str, name: &'static str, label: &'static str },
    /// Nowhere. What was sent and not dropped by the kernel counts as taken, whatever is lost inside.
    KernelDrops,
}

impl Program {
    pub(crate) const ALL: [Self; 8] = [
        Self::Empty,
        Self::Statsieve,
        Self::StatsdExporter,
        Self::Netdata,
        Self::Collectd,
        Self::Vector,
        Self::Gostatsd,
        Self::Brubeck,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Empty => "empty receiver",
            Self::Statsieve => "statsieve",
            Self::StatsdExporter => "statsd_exporter",
            Self::Netdata => "netdata",
            Self::Collectd => "collectd",
            Self::Vector => "vector",
            Self::Gostatsd => "gostatsd",
            Self::Brubeck => "brubeck",
        }
    }

    /// The file of it, if it is there to be measured.
    pub(crate) fn find(self) -> Option<PathBuf> {
        match self {
            Self::Empty => std::env::current_exe().ok(),
            Self::Statsieve => Some(PathBuf::from(env!("CARGO_BIN_EXE_statsieve"))),
            _ => on_path(self.name()),
        }
    }

    /// What it says of its version; brubeck says nothing.
    pub(crate) fn version(self) -> Option<String> {
        let ask = match self {
            Self::Empty | Self::Brubeck => return None,
            Self::Netdata => "-v",
            Self::Collectd => "-h",
            _ => "--version",
        };
        let output = Command::new(self.find()?).arg(ask).output().ok()?;
        let said = String::from_utf8_lossy(if output.stdout.is_empty() { &output.stderr } else { &output.stdout })
            .into_owned();
        // The first word with a number and a dot in it: "statsd_exporter, version 0.30.0 (branch: ...)".
        let is_version =
            |word: &&str| word.contains('.') && word.trim_start_matches('v').starts_with(|c: char| c.is_ascii_digit());
        let version = said.split_ascii_whitespace().find(is_version)?.trim_end_matches(',');
        Some(format!("{} {version}", self.name()))
    }

    pub(crate) fn counts(self) -> Counts {
        let metric = |name| Counts::Metric { path: "/metrics", name, label: "" };
        match self {
            Self::Empty => Counts::Answers,
            Self::Statsieve => metric("statsieve_lines_total"),
            Self::StatsdExporter => metric("statsd_exporter_lines_total"),
            Self::Vector => Counts::Metric {
                path: "/metrics",
                name: "vector_component_received_events_total",
                label: "component_id=\"lines\"",
            },
            Self::Netdata | Self::Collectd | Self::Gostatsd | Self::Brubeck => Counts::KernelDrops,
        }
    }

    /// Whether it reads DogStatsD's tags; the others get plain names only.
    pub(crate) fn reads_tags(self) -> bool {
        !matches!(self, Self::Collectd | Self::Netdata | Self::Brubeck)
    }

    /// Where it serves Prometheus text of what it collected, if it does.
    pub(crate) fn scrape_path(self) -> Option<&'static str> {
        match self {
            Self::Statsieve | Self::StatsdExporter | Self::Vector => Some("/metrics"),
            _ => None,
        }
    }

    /// Writes what configuration it needs into `folder`.
    ///
    /// # Errors
    /// If it is not there, or the folder cannot be written.
    pub(crate) fn launch(self, limits: Limits, udp: u16, http: u16, folder: &Path) -> io::Result<Launch> {
        let file = self.find().ok_or_else(|| io::Error::other("not on PATH"))?;
        let mut command = Command::new(&file);
        command.current_dir(folder);
        match self {
            Self::Empty => {
                command.args(["--empty-receiver", &udp.to_string()]);
                return Ok(Launch { command, http: None });
            }
            Self::Statsieve => {
                command.env_remove("STATSIEVE_CONFIG");
                // Everything else by default. Without sampling, since it is to count every line as the others are.
                for setting in [
                    format!("listen.udp=127.0.0.1:{udp}"),
                    format!("http.listen=127.0.0.1:{http}"),
                    "listen.workers=1".to_owned(),
                    "sampling.mode=off".to_owned(),
                    "http.drain=0s".to_owned(),
                ] {
                    command.args(["--set", &setting]);
                }
                if limits == Limits::Raised {
                    RAISED.iter().for_each(|setting| _ = command.args(["--set", setting]));
                }
            }
            Self::StatsdExporter => {
                command.args([
                    format!("--statsd.listen-udp=127.0.0.1:{udp}"),
                    "--statsd.listen-tcp=".to_owned(),
                    format!("--web.listen-address=127.0.0.1:{http}"),
                    format!("--statsd.read-buffer={BUFFER_BYTES}"),
                    "--log.level=error".to_owned(),
                ]);
            }
            Self::Vector => {
                let path = folder.join("vector.toml");
                fs::write(&path, vector(udp, http, folder))?;
                command.arg("--quiet").arg("--config").arg(path);
            }
            Self::Gostatsd => {
                command.args([
                    format!("--metrics-addr=127.0.0.1:{udp}"),
                    "--backends=null".to_owned(),
                    "--statser-type=null".to_owned(),
                ]);
                return Ok(Launch { command, http: None });
            }
            Self::Collectd => {
                let path = folder.join("collectd.conf");
                fs::write(&path, collectd(udp, &file, folder))?;
                command.arg("-f").arg("-C").arg(path);
                return Ok(Launch { command, http: None });
            }
            Self::Netdata => {
                let path = folder.join("netdata.conf");
                fs::write(&path, netdata(udp, http, folder))?;
                command.arg("-D").arg("-c").arg(path);
            }
            Self::Brubeck => {
                let path = folder.join("brubeck.json");
                fs::write(&path, brubeck(udp))?;
                command.arg("--config").arg(path);
                return Ok(Launch { command, http: None });
            }
        }
        Ok(Launch { command, http: Some(http) })
    }
}

/// Own metrics are in the same exposition, for their count of events.
fn vector(udp: u16, http: u16, folder: &Path) -> String {
    format!(
        r#"data_dir = "{folder}"

[sources.lines]
type = "statsd"
mode = "udp"
address = "127.0.0.1:{udp}"
receive_buffer_bytes = {BUFFER_BYTES}

[sources.own]
type = "internal_metrics"

[sinks.out]
type = "prometheus_exporter"
inputs = ["lines", "own"]
address = "127.0.0.1:{http}"
"#,
        folder = folder.display()
    )
}

/// Plugins and types are looked for beside the program, so that one unpacked into any folder runs.
fn collectd(udp: u16, file: &Path, folder: &Path) -> String {
    let file = file.canonicalize().unwrap_or_else(|_| file.to_owned());
    let prefix = file.parent().and_then(Path::parent).unwrap_or(Path::new("/usr"));
    format!(
        r#"BaseDir "{folder}"
PIDFile "{folder}/collectd.pid"
PluginDir "{prefix}/lib/collectd"
TypesDB "{prefix}/share/collectd/types.db"
LoadPlugin statsd
<Plugin statsd>
  Host "127.0.0.1"
  Port "{udp}"
</Plugin>
"#,
        folder = folder.display(),
        prefix = prefix.display()
    )
}

/// Everything off that is not for StatsD; series in memory only.
fn netdata(udp: u16, http: u16, folder: &Path) -> String {
    let folder = folder.display();
    let off = ["proc", "diskspace", "cgroups", "tc", "idlejitter", "timex", "slabinfo", "go.d", "apps", "checks"];
    let off: String = off.iter().map(|plugin| format!("    {plugin} = no\n")).collect();
    format!(
        "[global]
    run as user = root
[directories]
    config = {folder}
    cache = {folder}
    lib = {folder}
    log = {folder}
    plugins = {folder}
[db]
    mode = ram
[ml]
    enabled = no
[health]
    enabled = no
[plugins]
    statsd = yes
    enable running new plugins = no
{off}[web]
    bind to = 127.0.0.1:{http}
[statsd]
    enabled = yes
    bind to = udp:127.0.0.1:{udp}
"
    )
}

/// Its defaults, with one worker, since it has one core. Nobody takes what it sends on, and it goes on trying.
fn brubeck(udp: u16) -> String {
    format!(
        r#"{{
  "server_name": "bench",
  "dumpfile": "./brubeck.dump",
  "backends": [{{"type": "carbon", "address": "127.0.0.1", "port": 9, "frequency": 10}}],
  "samplers": [
    {{"type": "statsd", "address": "127.0.0.1", "port": {udp}, "workers": 1, "multisock": true, "multimsg": 8}}
  ]
}}
"#
    )
}

/// The first file of this name in a folder of PATH.
fn on_path(name: &str) -> Option<PathBuf> {
    std::env::split_paths(&std::env::var_os("PATH")?).map(|folder| folder.join(name)).find(|file| file.is_file())
}
