//! The flags of `statsd_exporter`, and how its command line is read.
//!
//! In: arguments. Out: the value of each flag that was given, checked to be of its type.
//! Not here: what a value makes of the configuration (`statsd_exporter`).
//! Follows: the command line of `statsd_exporter` 0.30, which is that of `kingpin`: `--flag=value`, `--flag value`,
//! `--switch`, `--no-switch`, no flag twice, and no argument that is no flag. `--switch=true` is taken as well.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::PathBuf;

use crate::config::go_duration;

/// What a flag takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Takes {
    /// Nothing: it turns something on, and with `no-` in front off.
    Switch,
    /// Any text.
    Text,
    /// A whole number of 0 or more.
    Whole,
    /// A duration as Go writes it.
    Duration,
    /// One of these words.
    OneOf(&'static [&'static str]),
}

/// What becomes of a flag's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Means {
    /// It sets this key.
    Key(&'static str),
    /// It has no effect, for this reason.
    Nothing(&'static str),
    /// It says what to do at start.
    Start,
}

/// One flag.
#[derive(Debug)]
pub(super) struct Flag {
    /// Without the dashes in front.
    pub(super) name: &'static str,
    /// What holds when it is not given.
    pub(super) default: &'static str,
    pub(super) takes: Takes,
    pub(super) means: Means,
    help: &'static str,
}

const fn flag(name: &'static str, default: &'static str, takes: Takes, means: Means, help: &'static str) -> Flag {
    Flag { name, default, takes, means, help }
}

const NO_QUEUE: &str = "the kernel's receive buffer is the only queue, see --statsd.read-buffer";
const NO_EVENTS: &str = "a line is taken to its series at once, there is no queue of events";
const OWN_CACHE: &str = "what mapping made of a sample is remembered in a cache bounded in bytes, \
                         cardinality.identity_cache_bytes";

/// Every flag, in the order of its documentation.
pub(super) const FLAGS: &[Flag] = {
    use Means::{Key, Nothing, Start};
    use Takes::{Duration, OneOf, Switch, Text, Whole};
    &[
        flag("web.listen-address", ":9102", Text, Key("http.listen"), "Address to serve HTTP on."),
        flag(
            "web.enable-lifecycle",
            "false",
            Switch,
            Key("http.lifecycle"),
            "Obey POST and PUT to /-/reload, /-/quit.",
        ),
        flag("web.telemetry-path", "/metrics", Text, Key("http.metrics_path"), "Path of the exposition."),
        flag("statsd.listen-udp", ":9125", Text, Key("listen.udp"), "UDP address for lines; \"\" is off."),
        flag("statsd.listen-tcp", ":9125", Text, Key("listen.tcp"), "TCP address for lines; \"\" is off."),
        flag(
            "statsd.listen-unixgram",
            "",
            Text,
            Key("listen.unix_datagram"),
            "Path of a unix datagram socket for lines.",
        ),
        flag("statsd.unixsocket-mode", "755", Text, Key("listen.socket_mode"), "Permissions of that socket, octal."),
        flag("statsd.mapping-config", "", Text, Key("mapping.file"), "Mapping file."),
        flag(
            "statsd.read-buffer",
            "0",
            Whole,
            Key("listen.receive_buffer_bytes"),
            "Receive buffer of the UDP socket, bytes; 0 asks for 8 MiB.",
        ),
        flag("statsd.cache-size", "1000", Whole, Nothing(OWN_CACHE), "Entries of the mapping cache."),
        flag("statsd.cache-type", "lru", OneOf(&["lru", "random"]), Nothing(OWN_CACHE), "Kind of the mapping cache."),
        flag("statsd.event-queue-size", "10000", Whole, Nothing(NO_EVENTS), "Batches of events that may wait."),
        flag("statsd.event-flush-threshold", "1000", Whole, Nothing(NO_EVENTS), "Events of a batch."),
        flag("statsd.event-flush-interval", "200ms", Duration, Nothing(NO_EVENTS), "Longest time between batches."),
        flag("statsd.udp-packet-queue-size", "10000", Whole, Nothing(NO_QUEUE), "Datagrams that may wait."),
        flag("statsd.parse-dogstatsd-tags", "true", Switch, Key("parse.dogstatsd_tags"), "Read tags of DogStatsD."),
        flag("statsd.parse-influxdb-tags", "true", Switch, Key("parse.influxdb_tags"), "Read tags of InfluxDB."),
        flag("statsd.parse-librato-tags", "true", Switch, Key("parse.librato_tags"), "Read tags of Librato."),
        flag("statsd.parse-signalfx-tags", "true", Switch, Key("parse.signalfx_tags"), "Read tags of SignalFX."),
        flag("statsd.relay.address", "", Text, Key("relay.targets"), "Address to send raw lines on to, over UDP."),
        flag(
            "statsd.relay.packet-length",
            "1400",
            Whole,
            Key("relay.packet_bytes"),
            "Longest datagram sent on, bytes.",
        ),
        flag("check-config", "false", Switch, Start, "Check the configuration, and exit: 0 if it is good, else 1."),
        flag("debug.dump-fsm", "", Text, Start, "File to write the globs of the mapping to, for graphviz."),
        flag(
            "log.level",
            "info",
            OneOf(&["debug", "info", "warn", "error"]),
            Key("log.level"),
            "Least level of the log.",
        ),
        flag("log.format", "logfmt", OneOf(&["logfmt", "json"]), Key("log.format"), "Format of the log."),
    ]
};

/// What the command line said.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Given {
    /// By the name of the flag; a switch is `true` or `false`.
    values: BTreeMap<&'static str, String>,
    /// Our own `--config`.
    pub(super) config: Option<PathBuf>,
    /// Our own `--set`, in order.
    pub(super) set: Vec<String>,
    pub(super) help: bool,
    pub(super) version: bool,
}

impl Given {
    /// The value of a flag that was given.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(String::as_str)
    }

    /// Whether a switch is on, given or by default.
    pub(super) fn is_on(&self, name: &str) -> bool {
        self.get(name).or_else(|| find(name).map(|flag| flag.default)) == Some("true")
    }
}

/// Whether an argument is a flag of `statsd_exporter`, or could only be meant as one.
pub(super) fn is_one(argument: &str) -> bool {
    let Some(flag) = argument.strip_prefix("--") else { return false };
    let name = flag.split_once('=').map_or(flag, |(name, _)| name);
    let name = name.strip_prefix("no-").unwrap_or(name);
    find(name).is_some() || name.starts_with("statsd.") || name.starts_with("web.")
}

fn find(name: &str) -> Option<&'static Flag> {
    FLAGS.iter().find(|flag| flag.name == name)
}

/// Reads arguments, the program's name not among them.
///
/// # Errors
/// What is wrong with the first one that is, for a person.
pub(super) fn parse(arguments: &[String]) -> Result<Given, String> {
    let mut given = Given::default();
    let mut arguments = arguments.iter().peekable();
    while let Some(argument) = arguments.next() {
        let Some(flag) = argument.strip_prefix("--").filter(|flag| !flag.is_empty()) else {
            match argument.as_str() {
                "-h" => given.help = true,
                // What follows is no flag, and there are no other arguments.
                "--" if arguments.peek().is_none() => {}
                "--" => return Err(format!("unexpected '{}'", arguments.next().expect("it was there"))),
                short if short.starts_with('-') && short.len() > 1 => return Err(format!("unknown flag '{short}'")),
                other => return Err(format!("unexpected '{other}'")),
            }
            continue;
        };
        let (name, value) = match flag.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (flag, None),
        };
        let mut needed = |value: Option<String>| {
            // What looks like a flag is no value, unless it stands behind an equals sign.
            let next = || arguments.next_if(|next| !next.starts_with('-')).cloned();
            value.or_else(next).ok_or_else(|| format!("flag '--{name}' needs a value"))
        };
        match name {
            "config" => {
                if given.config.replace(needed(value)?.into()).is_some() {
                    return Err(twice(name));
                }
            }
            "set" => given.set.push(needed(value)?),
            "help" => given.help = true,
            "version" => given.version = true,
            _ => {
                let off = name.strip_prefix("no-").and_then(find).filter(|flag| flag.takes == Takes::Switch);
                let flag = find(name).or(off).ok_or_else(|| format!("unknown flag '--{name}'"))?;
                let value = match flag.takes {
                    Takes::Switch if off.is_some() && value.is_some() => {
                        return Err(format!("flag '--{name}' takes no value"));
                    }
                    Takes::Switch => value.unwrap_or_else(|| off.is_none().to_string()),
                    _ => needed(value)?,
                };
                if given.values.insert(flag.name, checked(flag, value)?).is_some() {
                    return Err(twice(flag.name));
                }
            }
        }
    }
    Ok(given)
}

fn twice(name: &str) -> String {
    format!("flag '--{name}' stands there twice")
}

/// A value in the form that its type is read in later.
fn checked(flag: &Flag, value: String) -> Result<String, String> {
    let accepted = match flag.takes {
        Takes::Text => return Ok(value),
        Takes::Switch if ["true", "false"].contains(&value.as_str()) => return Ok(value),
        Takes::Switch => "true or false".to_owned(),
        // That program reads whole numbers as it reads others, and leaves out what stands behind the point.
        Takes::Whole => match value.parse::<f64>() {
            Ok(number) if number >= 0.0 && number < i64::MAX as f64 => return Ok((number as i64).to_string()),
            _ => "a whole number of 0 or more".to_owned(),
        },
        Takes::Duration if go_duration(&value).is_some() => return Ok(value),
        Takes::Duration => "a duration such as 200ms or 1h30m".to_owned(),
        Takes::OneOf(words) if words.contains(&value.as_str()) => return Ok(value),
        Takes::OneOf(words) => words.join(" or "),
    };
    Err(format!("flag '--{}': found '{value}', accepted: {accepted}", flag.name))
}

/// Writes what the flags are.
///
/// # Errors
/// Those of `out`.
pub(super) fn help(program: &str, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "usage: {program} [<flags>]\n")?;
    writeln!(out, "Statsieve in place of statsd_exporter: its flags, ports, names and metrics.\n\nFlags:")?;
    let mut row = |flag: &str, help: &str| writeln!(out, "  {flag}\n        {help}");
    row("-h, --help", "Show this.")?;
    row("--version", "Show the version.")?;
    for flag in FLAGS {
        let name = match flag.takes {
            Takes::Switch => format!("--[no-]{}", flag.name),
            _ => format!("--{}=\"{}\"", flag.name, flag.default),
        };
        let help = match flag.means {
            Means::Nothing(why) => format!("{} No effect here: {why}.", flag.help),
            _ => flag.help.to_owned(),
        };
        row(&name, &help)?;
    }
    row("--config=FILE", "A configuration file of Statsieve: over that program's defaults, under its flags.")?;
    row("--set KEY=VALUE", "One key of such a file, over everything; as often as wanted.")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(arguments: &[&str]) -> Result<Given, String> {
        parse(&arguments.iter().map(ToString::to_string).collect::<Vec<_>>())
    }

    fn value(arguments: &[&str], name: &str) -> Option<String> {
        let given = read(arguments).unwrap_or_else(|error| panic!("{arguments:?}: {error}"));
        given.get(name).map(str::to_owned)
    }

    #[test]
    fn a_value_stands_behind_an_equals_sign_or_next() {
        for arguments in [&["--statsd.listen-udp=:1"][..], &["--statsd.listen-udp", ":1"]] {
            assert_eq!(value(arguments, "statsd.listen-udp").as_deref(), Some(":1"), "{arguments:?}");
        }
        for arguments in [&["--statsd.listen-udp="][..], &["--statsd.listen-udp", ""]] {
            assert_eq!(value(arguments, "statsd.listen-udp").as_deref(), Some(""), "{arguments:?}");
        }
        assert_eq!(value(&["--web.telemetry-path=/a=b"], "web.telemetry-path").as_deref(), Some("/a=b"));
        assert_eq!(value(&["--check-config"], "statsd.listen-udp"), None);
    }

    #[test]
    fn a_switch_is_turned_on_and_off() {
        for (argument, expected) in [
            ("--statsd.parse-influxdb-tags", "true"),
            ("--no-statsd.parse-influxdb-tags", "false"),
            ("--statsd.parse-influxdb-tags=true", "true"),
            ("--statsd.parse-influxdb-tags=false", "false"),
        ] {
            let found = value(&[argument], "statsd.parse-influxdb-tags");
            assert_eq!(found.as_deref(), Some(expected), "{argument}");
        }
        assert!(read(&[]).unwrap().is_on("statsd.parse-influxdb-tags"));
        assert!(!read(&[]).unwrap().is_on("check-config"));
    }

    #[test]
    fn numbers_are_read_as_that_program_reads_them() {
        for (text, expected) in [("5000", "5000"), ("1e4", "10000"), ("7.9", "7"), ("0", "0")] {
            let argument = format!("--statsd.cache-size={text}");
            assert_eq!(value(&[&argument], "statsd.cache-size").as_deref(), Some(expected));
        }
    }

    #[test]
    fn what_is_wrong_is_told_by_the_flag() {
        for (arguments, error) in [
            (&["--statsd.listen-upd=:1"][..], "unknown flag '--statsd.listen-upd'"),
            (&["--no-statsd.listen-udp"], "unknown flag '--no-statsd.listen-udp'"),
            (&["--fallback"], "unknown flag '--fallback'"),
            (&["-x"], "unknown flag '-x'"),
            (&["check"], "unexpected 'check'"),
            (&["--check-config", "true"], "unexpected 'true'"),
            (&["--", "--check-config"], "unexpected '--check-config'"),
            (&["--statsd.listen-udp"], "flag '--statsd.listen-udp' needs a value"),
            (&["--statsd.listen-udp", "--check-config"], "flag '--statsd.listen-udp' needs a value"),
            (&["--no-check-config=true"], "flag '--no-check-config' takes no value"),
            (&["--check-config", "--no-check-config"], "flag '--check-config' stands there twice"),
            (&["--log.level=info", "--log.level=warn"], "flag '--log.level' stands there twice"),
            (&["--config=a", "--config=b"], "flag '--config' stands there twice"),
            (&["--check-config=yes"], "flag '--check-config': found 'yes', accepted: true or false"),
            (
                &["--statsd.event-queue-size=many"],
                "flag '--statsd.event-queue-size': found 'many', accepted: a whole number of 0 or more",
            ),
            (
                &["--statsd.read-buffer=-1"],
                "flag '--statsd.read-buffer': found '-1', accepted: a whole number of 0 or more",
            ),
            (
                &["--statsd.event-flush-interval=200"],
                "flag '--statsd.event-flush-interval': found '200', accepted: a duration such as 200ms or 1h30m",
            ),
            (&["--statsd.cache-type=lfu"], "flag '--statsd.cache-type': found 'lfu', accepted: lru or random"),
            (&["--log.format=xml"], "flag '--log.format': found 'xml', accepted: logfmt or json"),
        ] {
            assert_eq!(read(arguments).map(drop), Err(error.to_owned()), "{arguments:?}");
        }
    }

    #[test]
    fn our_own_overrides_are_read_beside_the_flags() {
        let given = read(&["--set", "a=b", "--config", "x.toml", "--set=c=d", "-h", "--version", "--"]).unwrap();
        assert_eq!((given.set, given.config), (vec!["a=b".to_owned(), "c=d".to_owned()], Some("x.toml".into())));
        assert!(given.help && given.version);
    }

    #[test]
    fn every_default_is_a_value_that_its_flag_takes() {
        for flag in FLAGS {
            assert_eq!(checked(flag, flag.default.to_owned()).as_deref(), Ok(flag.default), "{}", flag.name);
        }
    }

    #[test]
    fn flags_are_told_from_arguments_of_ours() {
        for (argument, theirs) in [
            ("--statsd.listen-udp=:1", true),
            ("--no-statsd.parse-librato-tags", true),
            ("--web.config.file=x", true),
            ("--log.level", true),
            ("--check-config", true),
            ("--debug.dump-fsm", true),
            ("--config", false),
            ("--set", false),
            ("--version", false),
            ("--help", false),
            ("check", false),
            ("listen.udp=:1", false),
        ] {
            assert_eq!(is_one(argument), theirs, "{argument}");
        }
    }

    #[test]
    fn the_help_names_every_flag() {
        let mut out = Vec::new();
        help("statsd_exporter", &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        for flag in FLAGS {
            assert!(text.contains(flag.name), "{}", flag.name);
        }
    }
}
