//! `statsd_exporter`: this program in place of that one.
//!
//! In: a command line as that program takes it. Out: a sidecar that does what it does: its ports, names, formats and
//! exit codes; what it checks and writes before it runs.
//! Not here: how its command line is read (`flags`), its metrics (`telemetry::statsd_exporter`), running (`run`).
//! Always: the configuration stays the one way to set anything: the flags are a preset with values for some of its
//! keys, and a problem with one of those is told by the flag.
//! Follows: `statsd_exporter` 0.30.

mod flags;

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::{Path, absolute};

use toml::Value;
use tracing::{error, info, warn};

use self::flags::{FLAGS, Given, Means, Takes};
use super::{FAILED, OK, log, print_version, run};
use crate::config::{self, Flag, Loaded, Preset, Sources};
use crate::map::rules;
use crate::telemetry::statsd_exporter::VERSION;

/// The name by which this program is that one.
const NAME: &str = "statsd_exporter";
/// What it does where no flag says otherwise.
const DEFAULTS: &str = include_str!("statsd_exporter/preset.toml");
/// The least receive buffer that our key takes, bytes; the kernel grants no less than half of it anyway.
const LEAST_BUFFER: i64 = 4096;

/// Whether a command line, the program's name at its head, asks for that program: by its name, or by any of its flags.
pub fn is_meant(arguments: &[OsString]) -> bool {
    let is_flag = |argument: &OsString| argument.to_str().is_some_and(flags::is_one);
    let by_name = !arguments.is_empty() && name(arguments) == NAME;
    by_name || arguments.iter().skip(1).take_while(|argument| *argument != "--").any(is_flag)
}

/// The file name that the program was started by.
fn name(arguments: &[OsString]) -> String {
    let program = arguments.first().and_then(|program| Path::new(program).file_name());
    program.map_or_else(|| NAME.to_owned(), |name| name.to_string_lossy().into_owned())
}

/// Does what such a command line asks for; runs until a signal ends it, if that is it. Returns the exit code, which is
/// 1 for whatever is wrong.
pub fn statsd_exporter(arguments: &[OsString]) -> u8 {
    let program = name(arguments);
    // If stderr is gone, the exit code still tells; the same holds below.
    let refuse = |why: &str| {
        let _ = writeln!(io::stderr(), "{program}: error: {why}, try --help");
        FAILED
    };
    let texts: Result<Vec<String>, OsString> =
        arguments.iter().skip(1).map(|argument| argument.clone().into_string()).collect();
    let given = match texts {
        Ok(texts) => flags::parse(&texts),
        Err(argument) => Err(format!("'{}' is no UTF-8", argument.display())),
    };
    let given = match given {
        Ok(given) => given,
        Err(why) => return refuse(&why),
    };
    if given.help {
        let _ = flags::help(&program, &mut io::stdout());
        return OK;
    }
    if given.version {
        let _ = writeln!(io::stdout(), "{NAME}, version {VERSION}").and_then(|()| print_version(&mut io::stdout()));
        return OK;
    }
    run::hold_hangups();
    let (preset, unclear) = preset(&given);
    let sources = Sources { file: given.config.clone(), set: given.set.clone() };
    let loaded = match config::load_over(Some(&preset), &sources) {
        Ok(loaded) => loaded,
        Err(problems) => {
            let _ = write!(io::stderr(), "{}", problems.render_with_carets());
            return FAILED;
        }
    };
    let introduce = |loaded: &Loaded| {
        introduce(loaded, &given);
        unclear.iter().for_each(|why| warn!("{why}"));
        if let Some(file) = given.get("debug.dump-fsm").filter(|file| !file.is_empty()) {
            match std::fs::write(file, rules::graph(&loaded.config.mapping.rules)) {
                Ok(()) => info!(file, "the globs of the mapping are written"),
                Err(error) => error!(file, %error, "the globs of the mapping cannot be written"),
            }
        }
    };
    if given.is_on("check-config") {
        let _ = log::start(&loaded.config);
        introduce(&loaded);
        run::tell(&loaded);
        info!("the configuration is good");
        log::flush();
        return OK;
    }
    if let Some(path) = taken(&loaded, &given) {
        return refuse(&format!("--statsd.listen-unixgram: {path} is there already"));
    }
    run::run_loaded(loaded, &sources, Some(preset), None, introduce)
}

/// Says in the log what stands in whose place, and how far.
fn introduce(loaded: &Loaded, given: &Given) {
    let (overrides, hash) = (loaded.overrides, &loaded.hash);
    info!(overrides, hash, "in place of statsd_exporter: its defaults are in force, under its flags");
    if let Some(file) = &loaded.file {
        info!(file = %file.display(), "configuration read, over its defaults and under its flags");
    }
    let limits = &loaded.config.cardinality;
    info!(
        max_series = limits.max_series,
        max_series_per_family = limits.max_series_per_family,
        max_families = limits.max_families,
        max_bytes = limits.max_bytes,
        new_series_per_second = limits.new_series_per_second,
        "statsd_exporter has no limits on series; these are a hundred times the usual ones, where nothing else was set"
    );
    for flag in FLAGS.iter().filter(|flag| given.get(flag.name).is_some()) {
        if let Means::Nothing(why) = flag.means {
            info!(flag = flag.name, why, "this flag has no effect here");
        }
    }
}

/// The preset that the flags make, and what of them was unclear and left out.
fn preset(given: &Given) -> (Preset, Vec<String>) {
    let mut preset = Preset { defaults: DEFAULTS, flags: Vec::new() };
    let mut unclear = Vec::new();
    let listeners = ["statsd.listen-udp", "statsd.listen-tcp", "statsd.listen-unixgram"];
    let is_off = |name: &&str| given.get(name).map_or(*name == "statsd.listen-unixgram", str::is_empty);
    // A mapping may be checked without a listener; else that is a problem like any other.
    let unheard = given.is_on("check-config") && listeners.iter().all(is_off);
    for flag in FLAGS {
        let (Means::Key(key), Some(text)) = (flag.means, given.get(flag.name)) else { continue };
        if unheard && listeners.contains(&flag.name) {
            continue;
        }
        match value(flag.name, flag.takes, text) {
            Ok(Some(value)) => preset.flags.push(Flag { written: format!("--{}={text}", flag.name), key, value }),
            Ok(None) => {}
            Err(why) => unclear.push(why),
        }
    }
    (preset, unclear)
}

/// What a flag sets its key to; `None` if it leaves it as it is.
///
/// # Errors
/// Why the flag is left out, where that program leaves it out as well.
fn value(flag: &str, takes: Takes, text: &str) -> Result<Option<Value>, String> {
    let is_port = |text: &str| text.strip_prefix(':').is_some_and(|port| port.parse::<u16>().is_ok());
    let number = || text.parse::<i64>().unwrap_or(i64::MAX);
    let value = match flag {
        // There an address without a host is all of IPv4 for lines, and all of IPv6 as well for HTTP.
        "web.listen-address" if is_port(text) => format!("[::]{text}").into(),
        // And here the machine itself.
        "statsd.relay.address" if is_port(text) => Value::Array(vec![format!("127.0.0.1{text}").into()]),
        "statsd.relay.address" if text.is_empty() => Value::Array(Vec::new()),
        "statsd.relay.address" => Value::Array(vec![text.into()]),
        "statsd.listen-unixgram" if !text.is_empty() && !text.starts_with('@') => match absolute(text) {
            Ok(path) => path.to_string_lossy().into_owned().into(),
            Err(_) => text.into(),
        },
        "statsd.unixsocket-mode" => match u32::from_str_radix(text, 8) {
            // Other bits are none that a file could have there.
            Ok(mode) if text.bytes().all(|digit| digit.is_ascii_digit()) => format!("{:04o}", mode & 0o777).into(),
            _ => return Err(format!("--{flag}={text}: no octal number, the socket's permissions are 755")),
        },
        "statsd.read-buffer" if number() == 0 => return Ok(None),
        "statsd.read-buffer" => number().max(LEAST_BUFFER).into(),
        _ => match takes {
            Takes::Switch => (text == "true").into(),
            Takes::Whole => number().into(),
            Takes::Text | Takes::Duration | Takes::OneOf(_) => text.into(),
        },
    };
    Ok(Some(value))
}

/// The path of `--statsd.listen-unixgram` if something is there: that program does not take it away, whatever it is.
fn taken<'a>(loaded: &'a Loaded, given: &Given) -> Option<&'a str> {
    let flag = given.get("statsd.listen-unixgram").filter(|path| !path.is_empty())?;
    let path = loaded.config.listen.unix_datagram.as_deref()?;
    // Set over the flag, it is ours to handle as we do.
    let by_flag = absolute(flag).is_ok_and(|absolute| absolute == Path::new(path));
    (by_flag && std::fs::symlink_metadata(path).is_ok()).then_some(path)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config::{Config, Format, LogFormat, LogLevel, SamplingMode};

    fn loaded(arguments: &[&str]) -> Result<Loaded, String> {
        let texts: Vec<String> = arguments.iter().map(ToString::to_string).collect();
        let given = flags::parse(&texts)?;
        let sources = Sources { file: given.config.clone(), set: given.set.clone() };
        config::load_over(Some(&preset(&given).0), &sources).map_err(|problems| problems.to_string())
    }

    fn config(arguments: &[&str]) -> Config {
        loaded(arguments).unwrap_or_else(|problems| panic!("{arguments:?}: {problems}")).config
    }

    #[test]
    fn its_defaults_are_those_of_that_program() {
        let config = config(&[]);
        assert_eq!(config.listen.udp.as_deref(), Some("0.0.0.0:9125"));
        assert_eq!(config.listen.tcp.as_deref(), Some("0.0.0.0:9125"));
        assert_eq!((&config.listen.unix_datagram, &config.listen.unix_stream), (&None, &None));
        assert_eq!((config.listen.socket_mode, config.listen.workers), (0o755, Some(1)));
        assert_eq!((config.listen.idle_timeout, config.http.drain), (Duration::ZERO, Duration::ZERO));
        assert_eq!((config.http.listen.as_str(), config.http.metrics_path.as_str()), ("[::]:9102", "/metrics"));
        assert_eq!(config.http.formats, [Format::Protobuf, Format::Text]);
        assert!(!config.http.lifecycle);
        assert_eq!((config.naming.counter_suffix.as_str(), config.naming.timer_suffix.as_str()), ("", ""));
        assert_eq!(config.parse.container_id_label.as_deref(), Some("container_id"));
        assert_eq!((config.bucketing.len(), config.labels.drop.len()), (0, 0));
        assert_eq!(config.sampling.mode, SamplingMode::Off);
        assert!(config.mapping.file.is_none() && config.relay.targets.is_empty());
        assert!(config.telemetry.statsd_exporter_metrics);
        assert_eq!((config.log.level, config.log.format), (LogLevel::Info, LogFormat::Logfmt));
        let config::Observation::Summary { quantiles, max_age, .. } = &config.mapping.observation else {
            panic!("{:?}", config.mapping.observation);
        };
        assert_eq!((&quantiles[..], *max_age), (&[0.5, 0.9, 0.99][..], Duration::from_secs(600)));
    }

    #[test]
    fn limits_are_a_hundred_times_the_usual_ones() {
        let (ours, usual) = (config(&[]).cardinality, Config::default_checked().cardinality);
        assert_eq!(ours.max_series, 100 * usual.max_series);
        assert_eq!(ours.max_series_per_family, 100 * usual.max_series_per_family);
        assert_eq!(ours.max_families, 100 * usual.max_families);
        assert_eq!(ours.max_bytes, 100 * usual.max_bytes);
        assert_eq!(ours.new_series_per_second, 100 * usual.new_series_per_second);
        assert_eq!(ours.simplify_at, 1.0);
    }

    #[test]
    fn every_flag_with_a_key_given_its_own_default_changes_nothing() {
        let without = config(&[]);
        for flag in FLAGS.iter().filter(|flag| matches!(flag.means, Means::Key(_))) {
            let argument = format!("--{}={}", flag.name, flag.default);
            assert_eq!(config(&[&argument]), without, "{argument}");
        }
        let all: Vec<String> = FLAGS.iter().map(|flag| format!("--{}={}", flag.name, flag.default)).collect();
        assert_eq!(config(&all.iter().map(String::as_str).collect::<Vec<_>>()), without);
    }

    #[test]
    fn every_flag_of_that_program_sets_its_key() {
        let yaml = tempfile::NamedTempFile::new().expect("a temporary file");
        let path = yaml.path().to_str().expect("UTF-8");
        let (mapping, here) =
            (format!("--statsd.mapping-config={path}"), std::env::current_dir().expect("it is somewhere"));
        type Check<'a> = Box<dyn Fn(&Config) -> bool + 'a>;
        let cases: Vec<(&str, Check<'_>)> = vec![
            ("--web.listen-address=:1", Box::new(|it| it.http.listen == "[::]:1")),
            ("--web.listen-address=127.0.0.1:1", Box::new(|it| it.http.listen == "127.0.0.1:1")),
            ("--web.enable-lifecycle", Box::new(|it| it.http.lifecycle)),
            ("--web.telemetry-path=/x", Box::new(|it| it.http.metrics_path == "/x")),
            ("--web.telemetry-path=/", Box::new(|it| it.http.metrics_path == "/")),
            ("--statsd.listen-udp=:1", Box::new(|it| it.listen.udp.as_deref() == Some("0.0.0.0:1"))),
            ("--statsd.listen-udp=", Box::new(|it| it.listen.udp.is_none())),
            ("--statsd.listen-tcp=[::1]:1", Box::new(|it| it.listen.tcp.as_deref() == Some("[::1]:1"))),
            ("--statsd.listen-tcp=", Box::new(|it| it.listen.tcp.is_none())),
            ("--statsd.listen-unixgram=/a", Box::new(|it| it.listen.unix_datagram.as_deref() == Some("/a"))),
            ("--statsd.listen-unixgram=@a", Box::new(|it| it.listen.unix_datagram.as_deref() == Some("@a"))),
            (
                "--statsd.listen-unixgram=a.sock",
                Box::new(|it| it.listen.unix_datagram.as_deref() == here.join("a.sock").to_str()),
            ),
            ("--statsd.unixsocket-mode=777", Box::new(|it| it.listen.socket_mode == 0o777)),
            ("--statsd.unixsocket-mode=rwx", Box::new(|it| it.listen.socket_mode == 0o755)),
            (&mapping, Box::new(|it| it.mapping.file.as_deref() == Some(yaml.path()))),
            (
                "--statsd.read-buffer=65536",
                Box::new(|it| it.listen.receive_buffer_bytes == 65536 && it.listen.receive_buffer_asked),
            ),
            ("--statsd.read-buffer=10", Box::new(|it| it.listen.receive_buffer_bytes == 4096)),
            ("--statsd.read-buffer=0", Box::new(|it| !it.listen.receive_buffer_asked)),
            ("--no-statsd.parse-dogstatsd-tags", Box::new(|it| !it.parse.dogstatsd_tags)),
            ("--no-statsd.parse-influxdb-tags", Box::new(|it| !it.parse.influxdb_tags)),
            ("--no-statsd.parse-librato-tags", Box::new(|it| !it.parse.librato_tags)),
            ("--no-statsd.parse-signalfx-tags", Box::new(|it| !it.parse.signalfx_tags)),
            ("--statsd.relay.address=h:1", Box::new(|it| it.relay.targets == ["h:1"])),
            ("--statsd.relay.address=:1", Box::new(|it| it.relay.targets == ["127.0.0.1:1"])),
            ("--statsd.relay.packet-length=500", Box::new(|it| it.relay.packet_bytes == 500)),
            ("--log.level=debug", Box::new(|it| it.log.level == LogLevel::Debug)),
            ("--log.format=json", Box::new(|it| it.log.format == LogFormat::Json)),
        ];
        for (argument, holds) in &cases {
            assert!(holds(&config(&[argument])), "{argument}");
        }
        for flag in FLAGS.iter().filter(|flag| matches!(flag.means, Means::Key(_))) {
            assert!(cases.iter().any(|(argument, _)| argument.contains(flag.name)), "{} is not looked at", flag.name);
        }
    }

    #[test]
    fn flags_without_an_effect_leave_the_configuration_as_it_is_and_say_why() {
        let without = config(&[]);
        let mut none = Vec::new();
        for flag in FLAGS {
            if let Means::Nothing(why) = flag.means {
                none.push(flag.name);
                assert!(!why.is_empty());
            }
        }
        let arguments = [
            "--statsd.cache-size=5",
            "--statsd.cache-type=random",
            "--statsd.event-queue-size=5",
            "--statsd.event-flush-threshold=5",
            "--statsd.event-flush-interval=5s",
            "--statsd.udp-packet-queue-size=5",
        ];
        assert_eq!(none.len(), arguments.len());
        assert!(none.iter().all(|name| arguments.iter().any(|argument| argument.contains(name))), "{none:?}");
        assert_eq!(config(&arguments), without);
    }

    #[test]
    fn a_problem_is_told_by_the_flag_and_not_by_a_key() {
        for (arguments, problem) in [
            (
                &["--statsd.listen-udp=nowhere"][..],
                "--statsd.listen-udp=nowhere: found \"nowhere\", \
                 accepted: \"host:port\", \":port\", \"[::1]:port\", or \"\" for off",
            ),
            (
                &["--web.listen-address=:x"],
                "--web.listen-address=:x: found \":x\", accepted: \"host:port\", \":port\" or \"[::1]:port\"",
            ),
            (
                &["--statsd.listen-udp", "", "--statsd.listen-tcp", ""],
                "--statsd.listen-udp=: found \"\", accepted: an address, unless another listener is on",
            ),
            (&["--statsd.relay.address=x"], "--statsd.relay.address=x: found \"x\", accepted: a list of \"host:port\""),
            (
                &["--statsd.relay.packet-length=9e9"],
                "--statsd.relay.packet-length=9000000000: found 9000000000, accepted: 64 to 65507",
            ),
        ] {
            let found = loaded(arguments).map(drop).expect_err("it is refused");
            assert_eq!(found, problem, "{arguments:?}");
        }
    }

    #[test]
    fn overrides_win_over_flags_and_flags_over_the_file() {
        let file = tempfile::NamedTempFile::new().expect("a temporary file");
        std::fs::write(file.path(), "[listen]\nudp = \":1\"\ntcp = \":2\"\n[parse]\ncontainer_id_label = \"pod\"\n")
            .expect("written");
        let path = file.path().to_str().expect("UTF-8");
        let found = config(&["--config", path, "--statsd.listen-tcp=:3", "--set", "listen.tcp=:4", "--log.level=warn"]);
        assert_eq!(found.listen.udp.as_deref(), Some("0.0.0.0:1"), "the file wins over a default");
        assert_eq!(found.listen.tcp.as_deref(), Some("0.0.0.0:4"));
        assert_eq!(found.parse.container_id_label.as_deref(), Some("pod"));
        let found = config(&["--config", path, "--statsd.listen-tcp=:3"]);
        assert_eq!(found.listen.tcp.as_deref(), Some("0.0.0.0:3"), "a flag wins over the file");
        let rule = "bucketing=[{ tags = [\"user_id\"], label = \"user_bucket\" }]";
        let found = config(&["--log.level=warn", "--set", rule]).bucketing;
        assert_eq!((found.len(), found[0].count), (1, 100), "what a rule does not name is as usual");
    }

    #[test]
    fn the_readme_tells_what_becomes_of_every_flag_and_metric() {
        const README: &str = include_str!("../../README.md");
        for flag in FLAGS {
            assert!(README.contains(&format!("`--{}`", flag.name)), "{}", flag.name);
        }
        for family in crate::telemetry::statsd_exporter::FAMILIES {
            let name = family.name();
            assert!(README.contains(&format!("`{name}`")) || README.contains(&format!("`{name}{{")), "{name}");
        }
    }

    proptest::proptest! {
        /// Whatever is typed, the answer is a configuration, problems, or what is wrong with an argument.
        #[test]
        fn no_command_line_is_a_panic(
            arguments in proptest::collection::vec(
                (
                    proptest::sample::select(FLAGS.iter().map(|flag| flag.name).collect::<Vec<_>>()),
                    "(|no-)",
                    "(|=|=.{0,8}|=:?-?[0-9.e]{1,12}|=true|=false)",
                ),
                0..5,
            ),
            more in proptest::collection::vec("(--?|)(set|config|help|.{0,4})=?[a-z.=]{0,5}", 0..3),
        ) {
            let flags = arguments.iter().map(|(flag, no, value)| format!("--{no}{flag}{value}"));
            let texts: Vec<String> = flags.chain(more).collect();
            if let Err(why) = loaded(&texts.iter().map(String::as_str).collect::<Vec<_>>()) {
                proptest::prop_assert!(!why.is_empty());
            }
        }
    }

    #[test]
    fn a_mapping_is_checked_without_a_listener() {
        let off = ["--statsd.listen-udp=", "--statsd.listen-tcp="];
        assert!(loaded(&off).is_err());
        assert!(loaded(&[&off[..], &["--check-config"]].concat()).is_ok());
    }

    #[test]
    fn it_is_meant_by_name_or_by_flag() {
        let meant = |arguments: &[&str]| is_meant(&arguments.iter().map(OsString::from).collect::<Vec<_>>());
        for arguments in [
            &["statsd_exporter"][..],
            &["/bin/statsd_exporter", "--version"],
            &["statsieve", "--statsd.mapping-config=x"],
            &["./statsieve", "--set", "a=b", "--check-config"],
        ] {
            assert!(meant(arguments), "{arguments:?}");
        }
        for arguments in [&["statsieve"][..], &["statsieve", "check"], &["statsieve", "explain", "--", "--web.x"], &[]]
        {
            assert!(!meant(arguments), "{arguments:?}");
        }
    }
}
