//! What the sidecar tells a person, or a program that shows it to one: its state, what it holds, what to change.
//!
//! In: the books, the store, the configuration in force. Out: JSON for `/api/v1/status` and `/api/v1/cardinality`,
//! and the page that shows it.
//! Not here: metrics for Prometheus (`telemetry`), who may ask (`http`).
//! Always: made when it is asked for, and costs nothing before, but for a few counts kept every five seconds; no value
//! of a bucketed tag is in it.

mod cardinality;
mod hints;
pub(crate) mod page;
mod status;

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use super::lifecycle::Lifecycle;
use crate::aggregate::Store;
use crate::aggregate::census::LimitHits;
use crate::clock::{Clock, Tick};
use crate::config::Loaded;
use crate::telemetry::refusals::{self, Refusals};
use crate::telemetry::{Listener, Telemetry};

/// What reports are made from.
pub struct Report {
    /// The books.
    pub telemetry: Arc<Telemetry>,
    /// The series.
    pub store: Arc<Store>,
    /// The last refused lines.
    pub refusals: Arc<Refusals>,
    /// Whether lines are taken.
    pub lifecycle: Arc<Lifecycle>,
    /// The clock that the workers go by.
    pub clock: Clock,
    /// Gives the configuration in force.
    pub loaded: Box<dyn Fn() -> Arc<Loaded> + Send + Sync>,
    /// Where lines are taken.
    pub listeners: Vec<(Listener, String)>,
    /// Where HTTP is served.
    pub http: SocketAddr,
}

impl fmt::Debug for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Report").field("http", &self.http).finish_non_exhaustive()
    }
}

/// Rows of a list at most, whatever is asked for.
pub const MOST_ROWS: usize = 50;
/// What hit a limit, on the page.
const PAGE_LIMITED: usize = 10;

/// The longest answer, if names are up to `name` bytes long and a piece of TOML up to `toml`.
///
/// A row of a family holds its name and eight labels, one of a label or a limit a name; figures and words around them
/// are 60 bytes each.
pub const fn answer_bytes(name: usize, toml: usize) -> usize {
    MOST_ROWS * (11 * (name + 60) + 800) + 16 * (toml + 6 * name + 512) + 20 * (6 * refusals::MAX_BYTES + 100) + 16_384
}

/// What making one takes at most beside the census: a tree of small allocations, and its text as it grows.
pub const fn answering_bytes(name: usize, toml: usize) -> usize {
    8 * answer_bytes(name, toml)
}

impl Report {
    /// The state of everything, as the status page shows it.
    pub fn status(&self) -> Value {
        status::status(self, &self.store.census())
    }

    /// The status page, as HTML; a browser is to hold it to [`page::POLICY`].
    pub fn page(&self) -> String {
        let census = self.store.census();
        let limited = cardinality::limited(self, &census, PAGE_LIMITED);
        page::page(&status::status(self, &census), &limited, &self.loaded().config.http.metrics_path)
    }

    /// What costs how many series, what hit which limit, and what to do about it; `rows` of each list, [`MOST_ROWS`] at
    /// most.
    pub fn cardinality(&self, rows: usize) -> Value {
        cardinality::cardinality(self, rows.min(MOST_ROWS))
    }

    fn loaded(&self) -> Arc<Loaded> {
        (self.loaded)()
    }

    /// What is used of each limit that fills up.
    fn limits(&self) -> Vec<Value> {
        let series = self.telemetry.series();
        let loaded = self.loaded();
        let limits = &loaded.config.cardinality;
        let limit = |limit: &str, used: &AtomicU64, most: u64| {
            let used = used.load(Relaxed);
            json!({ "limit": limit, "used": used, "most": most, "share": used as f64 / most.max(1) as f64 })
        };
        vec![
            limit("max_series", &series.sample_lines, limits.max_series),
            limit("max_families", &series.families, limits.max_families as u64),
            limit("max_bytes", &series.bytes, limits.max_bytes),
        ]
    }

    /// The time of a tick, in whole seconds since 1970.
    fn unix(&self, tick: Tick) -> u64 {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        now.saturating_sub(self.clock.tick().saturating_sub(tick))
    }

    fn limit_hits(&self, hits: &LimitHits) -> Value {
        json!({ "limit": hits.limit.label(), "first": self.unix(hits.first), "last": self.unix(hits.last) })
    }
}
