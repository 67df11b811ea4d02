//! Keeps what a web configuration file says, and reads it again when it or a file it names has changed.
//!
//! In: the path of the file. Out: for each connection and each request what is in force by now ([`InForce`]).
//! Not here: the format (`config::web`), connections and answers (`http`).
//! Always: files are looked at when somebody asks, once a second at most; what is broken changes nothing but a line in
//! the log, once; TLS and passwords are never given up by a file that changes, only by a reload of the configuration,
//! so that a file that is half written opens nothing.

mod auth;
pub mod tls;

use std::fmt::Display;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use governor::clock::{Clock, DefaultClock};
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use hyper::HeaderMap;
use hyper::header::{HeaderName, HeaderValue};
use rustls::ServerConfig;
use tracing::{info, warn};

use self::auth::Checker;
pub(super) use self::auth::Verdict;
pub use self::auth::basic;
use crate::config::{Problems, Seen, Stamp, Web, load_web};

/// How often files are looked at.
const LOOK: Duration = Duration::from_secs(1);
/// How long a file must have been left alone before it is read: whoever writes it may not be done.
const SETTLED: Duration = Duration::from_secs(1);
/// How often it is told that handshakes fail: anyone can have them fail.
const TELL: Duration = Duration::from_secs(60);
/// What a connection keeps for TLS and HTTP/2 beside the rest: records on both ways, windows, tables of headers.
pub const TLS_CONNECTION_BYTES: usize = 384 * 1024;

/// What holds for a connection or a request.
pub(super) struct InForce {
    web: Web,
    limiter: Option<Arc<DefaultDirectRateLimiter>>,
    /// What is set on each answer, or taken from it.
    headers: Vec<(HeaderName, Option<HeaderValue>)>,
}

impl InForce {
    /// Goes on with the quota of `before` if it is the same.
    fn new(web: Web, before: Option<&Self>) -> Self {
        let same = before.filter(|before| before.web.rate_limit == web.rate_limit);
        let limiter = match same {
            Some(before) => before.limiter.clone(),
            None => web.rate_limit.and_then(|(interval, burst)| {
                Some(Arc::new(RateLimiter::direct(Quota::with_period(interval)?.allow_burst(burst))))
            }),
        };
        let header = |(name, value): &(&str, String)| {
            let value = (!value.is_empty()).then(|| HeaderValue::from_str(value));
            Some((HeaderName::from_bytes(name.as_bytes()).ok()?, value.transpose().ok()?))
        };
        let headers = web.headers.iter().filter_map(header).collect();
        Self { web, limiter, headers }
    }

    /// How connections are encrypted, if they are.
    pub(super) fn tls(&self) -> Option<Arc<ServerConfig>> {
        self.web.tls.clone()
    }

    /// Whether a certificate that a client has shown is one that the CA answers for.
    pub(super) fn verifies_clients(&self) -> bool {
        self.web.verifies_clients
    }

    /// Counts a request.
    ///
    /// # Errors
    /// If it is one too many: how long to wait.
    pub(super) fn admit(&self) -> Result<(), Duration> {
        let Some(limiter) = &self.limiter else { return Ok(()) };
        limiter.check().map_err(|refused| refused.wait_time_from(DefaultClock::default().now()))
    }

    /// Sets the headers of the file over those of an answer.
    pub(super) fn dress(&self, headers: &mut HeaderMap) {
        for (name, value) in &self.headers {
            match value {
                Some(value) => _ = headers.insert(name.clone(), value.clone()),
                None => _ = headers.remove(name),
            }
        }
    }

    fn tell(&self, file: &Path, what: &str) {
        let Web { tls, users, verifies_clients, rate_limit, remarks, .. } = &self.web;
        let http2 = tls.as_ref().is_some_and(|tls| tls.alpn_protocols.len() > 1);
        let (file, tls, users, rate_limit) = (file.display(), tls.is_some(), users.len(), rate_limit.is_some());
        info!(%file, tls, http2, verifies_clients, users, rate_limit, "{what}");
        remarks.iter().for_each(|remark| warn!("{remark}"));
    }
}

/// A web configuration file that is followed.
pub struct Followed {
    path: PathBuf,
    looked: Mutex<Looked>,
    checker: Arc<Checker>,
    failures: Arc<DefaultDirectRateLimiter>,
}

struct Looked {
    at: Instant,
    seen: Vec<Seen>,
    in_force: Arc<InForce>,
    /// What was wrong when it was read last.
    refused: Option<String>,
}

impl Followed {
    /// Reads the file.
    ///
    /// # Errors
    /// All that is wrong with it.
    pub fn new(path: &Path) -> Result<Self, Problems> {
        Self::read(path, None)
    }

    /// Reads the file at `path` in place of this one, and goes by it whatever it takes away. Its quota goes on if it is
    /// the same, and what came of passwords stays known.
    ///
    /// # Errors
    /// All that is wrong with it.
    pub fn anew(&self, path: &Path) -> Result<Self, Problems> {
        Self::read(path, Some(self))
    }

    fn read(path: &Path, before: Option<&Self>) -> Result<Self, Problems> {
        let (web, seen) = load_web(path);
        let looked = before.map(|before| before.looked.lock().unwrap_or_else(PoisonError::into_inner));
        let in_force = Arc::new(InForce::new(web?, looked.as_ref().map(|looked| &*looked.in_force)));
        in_force.tell(path, "web configuration read");
        Ok(Self {
            path: path.to_owned(),
            looked: Mutex::new(Looked { at: Instant::now(), seen, in_force, refused: None }),
            checker: before.map_or_else(|| Arc::new(Checker::new()), |before| Arc::clone(&before.checker)),
            failures: before.map_or_else(
                || Arc::new(RateLimiter::direct(Quota::with_period(TELL).expect("it is no zero"))),
                |before| Arc::clone(&before.failures),
            ),
        })
    }

    /// The file that is followed.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What holds by now. Looks at the files if the last look is long enough ago: some microseconds, or some hundred
    /// when they have changed.
    pub(super) fn now(&self) -> Arc<InForce> {
        let mut looked = self.looked.lock().unwrap_or_else(PoisonError::into_inner);
        if looked.at.elapsed() >= LOOK {
            looked.at = Instant::now();
            let clock = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
            if has_changed(&looked.seen, clock) {
                self.read_again(&mut looked);
            }
        }
        Arc::clone(&looked.in_force)
    }

    fn read_again(&self, looked: &mut Looked) {
        let (web, seen) = load_web(&self.path);
        looked.seen = seen;
        let file = self.path.display();
        let refused = match web {
            Ok(web) if looked.in_force.web.tls.is_some() && web.tls.is_none() => "TLS is not in it any more".to_owned(),
            Ok(web) if !looked.in_force.web.users.is_empty() && web.users.is_empty() => {
                "basic_auth_users are not in it any more".to_owned()
            }
            Ok(web) => {
                let new = InForce::new(web, Some(&looked.in_force));
                new.tell(&self.path, "web configuration read again and in force");
                looked.in_force = Arc::new(new);
                looked.refused = None;
                return;
            }
            Err(problems) => problems.to_string(),
        };
        if looked.refused.as_ref() != Some(&refused) {
            warn!(
                %file,
                "web configuration refused, what was in force stays: {refused}; it is read again once a file changes, \
                 and SIGHUP puts into force what takes TLS or users away"
            );
        }
        looked.refused = Some(refused);
    }

    /// Who sent a request with this `Authorization` from `peer`; `None` if there are no users, and everyone may go on.
    pub(super) async fn sender(
        &self,
        in_force: &InForce,
        authorization: Option<HeaderValue>,
        peer: Option<IpAddr>,
    ) -> Option<Verdict> {
        let users = &in_force.web.users;
        if users.is_empty() {
            return None;
        }
        Some(self.checker.judge(users, authorization.as_ref(), peer).await)
    }

    /// Tells that a handshake failed, now and then.
    pub(super) fn failed(&self, peer: Option<IpAddr>, error: &dyn Display) {
        if self.failures.check().is_ok() {
            let peer = peer.map(|peer| peer.to_string()).unwrap_or_default();
            warn!(peer, %error, "a TLS handshake failed; others are not told for a minute");
        }
    }
}

/// Whether a file is another than it was, and each that is has been left alone for a while. `clock` is the time since
/// 1970.
fn has_changed(seen: &[Seen], clock: Duration) -> bool {
    let mut changed = false;
    for Seen { file, stamp } in seen {
        let now = Stamp::of(file.path());
        if now == *stamp {
            continue;
        }
        // One from the future was written elsewhere.
        if now.written().is_some_and(|written| written <= clock && clock - written < SETTLED) {
            return false;
        }
        changed = true;
    }
    changed
}

#[cfg(test)]
mod tests;
