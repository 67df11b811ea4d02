//! The program: reads its arguments and runs a command of the library.

use std::ffi::OsString;
use std::io;
use std::num::NonZeroU64;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use statsieve::command;
use statsieve::config::Sources;

/// StatsD and DogStatsD in over a local socket, a bounded number of Prometheus series out.
///
/// Without a command it runs the sidecar; without a file, on the built-in defaults.
#[derive(Parser)]
#[command(
    name = "statsieve",
    disable_version_flag = true,
    after_help = "Given any flag of statsd_exporter, or started under that name, it takes that program's place; \
                  its flags: statsieve --check-config --help"
)]
struct Arguments {
    #[command(flatten)]
    configuration: Configuration,
    /// Run on the built-in defaults if the configuration is refused, and say so in log and metrics
    #[arg(long)]
    fallback: bool,
    /// Print version, revision and compiler
    #[arg(long, short = 'V')]
    version: bool,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Args)]
struct Configuration {
    /// Read this file over the defaults
    #[arg(long, value_name = "FILE", env = "STATSIEVE_CONFIG", global = true)]
    config: Option<PathBuf>,
    /// Set one key over the file, such as listen.udp=0.0.0.0:8125 or bucketing.0.count=16
    #[arg(long, value_name = "KEY=VALUE", global = true)]
    set: Vec<String>,
}

#[derive(Subcommand)]
enum Command {
    /// Check the configuration: every problem with its place, or the worst case in sample lines
    Check {
        /// Also show the worst case of this many instances together
        #[arg(long, value_name = "N")]
        instances: Option<NonZeroU64>,
    },
    /// Show how lines parse, map and bucket, the series they become and what these cost, or why not
    Explain {
        /// Lines as a client sends them; without any, or for "-", they are read from standard input
        #[arg(value_name = "LINE", allow_hyphen_values = true)]
        lines: Vec<String>,
        /// One JSON object for each line
        #[arg(long)]
        json: bool,
    },
    /// Write a statsd_exporter mapping file (YAML) as TOML for this program
    Convert {
        /// The mapping file
        #[arg(value_name = "MAPPING.yml")]
        file: PathBuf,
    },
    /// Send traffic and check every number that comes out against it: exit 0 if all is right
    Load(Load),
    /// Show what a running sidecar does, live in a terminal
    Top(Top),
    /// Ask a sidecar whether it is ready: exit 0 if so, else 1
    Healthcheck(Healthcheck),
}

#[derive(Args)]
struct Healthcheck {
    /// Where it serves HTTP, http://host:port or https://host:port; by default where the configuration says, on this
    /// machine, whose certificate is then not checked
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    /// PEM file of the CA that its certificate has to lead to
    #[arg(long, value_name = "FILE", conflicts_with = "insecure")]
    ca: Option<PathBuf>,
    /// Take any certificate
    #[arg(long)]
    insecure: bool,
    /// File with user:password in it
    #[arg(long, value_name = "FILE")]
    user_file: Option<PathBuf>,
    /// PEM file of a client's certificate to show
    #[arg(long, value_name = "FILE", requires = "key")]
    cert: Option<PathBuf>,
    /// PEM file of its key
    #[arg(long, value_name = "FILE", requires = "cert")]
    key: Option<PathBuf>,
}

#[derive(Args)]
struct Top {
    #[command(flatten)]
    endpoint: Healthcheck,
    /// How often to look
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = humantime::parse_duration)]
    interval: Duration,
    /// Print it once, as plain text
    #[arg(long)]
    once: bool,
}

#[derive(Args)]
struct Load {
    /// Listener of a running sidecar that nobody else sends to: udp://host:port, tcp://host:port, unix:///path,
    /// unix-stream:///path. Without it, a sidecar is started for each scenario
    #[arg(long, value_name = "URL")]
    target: Option<String>,
    /// Where that sidecar exposes metrics; by default where the configuration says
    #[arg(long, value_name = "URL")]
    metrics: Option<String>,
    /// Allow a target that is not this machine
    #[arg(long, requires = "target")]
    anywhere: bool,
    /// low, medium, high, peak, extreme, million, concurrent, burst, memory, cardinality, broadcast, mixed, or all
    #[arg(long, value_name = "NAME", default_value = "mixed")]
    scenario: String,
    /// How long each scenario lasts, such as 30s
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    duration: Option<Duration>,
    /// Samples a second in place of the scenario's; 0 is as fast as they are taken
    #[arg(long, value_name = "RATE")]
    rate: Option<f64>,
    /// Same seed, same lines
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Write a report: Markdown, HTML or JSON by the ending .md, .html or .json
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
}

fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    if command::statsd_exporter::is_meant(&arguments) {
        return ExitCode::from(command::statsd_exporter::statsd_exporter(&arguments));
    }
    let Arguments { configuration, fallback, version, command } = Arguments::parse_from(arguments);
    let sources = Sources { file: configuration.config, set: configuration.set };
    let mut out = io::stdout().lock();
    let code = match command {
        _ if version => command::print_version(&mut out),
        None => {
            drop(out);
            Ok(command::run::run(&sources, fallback, &mut io::stderr()))
        }
        Some(Command::Check { instances }) => command::check::check(&sources, instances, &mut out),
        Some(Command::Explain { lines, json }) => {
            command::explain::explain(&sources, &lines, json, &mut io::stdin().lock(), &mut out)
        }
        Some(Command::Convert { file }) => command::convert::convert(&file, &mut out),
        Some(Command::Load(options)) => command::load::load(&options.into(), &sources, &mut out),
        Some(Command::Top(options)) => command::top::top(&options.into(), &sources, &mut out),
        Some(Command::Healthcheck(options)) => command::healthcheck::healthcheck(&options.into(), &sources, &mut out),
    };
    match code {
        Ok(code) => ExitCode::from(code),
        // A reader that went away, as `head` does, is no failure of ours.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

impl From<Healthcheck> for command::healthcheck::Options {
    fn from(options: Healthcheck) -> Self {
        let Healthcheck { url, ca, insecure, user_file, cert, key } = options;
        Self { url, ca, insecure, user_file, cert, key }
    }
}

impl From<Top> for command::top::Options {
    fn from(Top { endpoint, interval, once }: Top) -> Self {
        Self { endpoint: endpoint.into(), interval, once }
    }
}

impl From<Load> for command::load::Options {
    fn from(load: Load) -> Self {
        let Load { target, metrics, anywhere, scenario, duration, rate, seed, report } = load;
        Self { target, metrics, anywhere, scenario, duration, rate, seed, report }
    }
}
