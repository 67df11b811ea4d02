//! File descriptors: as many as the process may have, and streams only as far as they last.
//!
//! In: the checked configuration, the limit of the process. Out: a limit raised to what is allowed, and how many
//! streams may be open at a time under it.
//! Not here: what happens when there are none left all the same (`listen::Backoff`).
//! Always: streams leave enough for scrapes, so that who is connected never hides what goes on; nothing of this ends
//! the start.

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tracing::warn;

use crate::config::Config;

/// Open whatever is configured: standard streams, two runtimes with their signals, sockets that listen, one for a
/// relay; and files of the kernel or the configuration while they are read.
const OTHERS: u64 = 40;
/// A worker's socket, and what wakes it.
const WORKER: u64 = 2;

/// What a configuration needs at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Need {
    /// Without connections.
    fixed: u64,
    http: u64,
    streams: u64,
}

impl Need {
    fn of(config: &Config, workers: usize, has_streams: bool) -> Self {
        Self {
            fixed: OTHERS + WORKER * workers as u64,
            // Of either kind one more is accepted before it is known that it is one too many.
            http: config.http.max_connections as u64 + 1,
            streams: if has_streams { config.listen.max_connections as u64 + 1 } else { 0 },
        }
    }

    fn all(self) -> u64 {
        self.fixed.saturating_add(self.http).saturating_add(self.streams)
    }

    /// How many streams may be open at a time under `limit`: what HTTP leaves, which keeps half at most; one at least.
    fn streams_under(self, limit: u64) -> u64 {
        let free = limit.saturating_sub(self.fixed);
        (free - self.http.min(free / 2)).min(self.streams).saturating_sub(1).max(1)
    }
}

/// Raises the limit that holds for the process to the one it may not pass. The low one that is usual, 1,024, is there
/// for programs that cannot count further (`select`), and as many streams as may be open by default would use it up.
pub(super) fn raise() {
    let raised = getrlimit(Resource::RLIMIT_NOFILE).and_then(|(soft, hard)| match soft < hard {
        true => setrlimit(Resource::RLIMIT_NOFILE, hard, hard),
        false => Ok(()),
    });
    if let Err(error) = raised {
        warn!(%error, "the limit on file descriptors stays as it is");
    }
}

/// How many streams may be open at a time: as configured, or fewer if the limit on descriptors is too low for that,
/// which the log tells then.
pub(super) fn streams(config: &Config, workers: usize, has_streams: bool) -> usize {
    let wanted = config.listen.max_connections;
    let need = Need::of(config, workers, has_streams);
    let Some((limit, _)) = getrlimit(Resource::RLIMIT_NOFILE).ok().filter(|(limit, _)| *limit < need.all()) else {
        return wanted;
    };
    let streams = usize::try_from(need.streams_under(limit)).map_or(wanted, |most| most.min(wanted));
    let needed = need.all();
    if has_streams && streams < wanted {
        warn!(
            limit,
            needed,
            streams,
            "the limit on file descriptors is too low for this configuration: fewer streams than \
             listen.max_connections are served at a time; raise that limit (ulimit -n, LimitNOFILE=), or lower what is \
             configured"
        );
    } else {
        warn!(
            limit,
            needed,
            "the limit on file descriptors is too low for this configuration, and HTTP connections may have to wait: \
             raise that limit (ulimit -n, LimitNOFILE=), or lower http.max_connections"
        );
    }
    streams
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Sources, load};

    fn need(settings: &[&str], has_streams: bool) -> Need {
        let set = settings.iter().map(ToString::to_string).collect();
        let config = load(&Sources { file: None, set }).expect("good settings").config;
        Need::of(&config, 3, has_streams)
    }

    #[test]
    fn streams_get_what_http_leaves_and_half_and_one_at_least() {
        let need = need(&["http.max_connections=9", "listen.max_connections=100"], true);
        assert_eq!(need, Need { fixed: 40 + 3 * 2, http: 10, streams: 101 });
        for (limit, streams) in
            [(0, 1), (46, 1), (56, 4), (66, 9), (67, 10), (156, 99), (157, 100), (158, 100), (u64::MAX, 100)]
        {
            assert_eq!(need.streams_under(limit), streams, "{limit}");
        }
    }

    #[test]
    fn without_streams_nothing_is_kept_for_them() {
        assert_eq!(need(&["http.max_connections=9"], false), Need { fixed: 46, http: 10, streams: 0 });
    }
}
