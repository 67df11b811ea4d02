//! What a service manager is told: ready, reloading, stopping, alive.
//!
//! In: where the process stands. Out: messages to systemd, if it started the process and asked for them.
//! Always: nothing depends on them; the watchdog hears only while the runtime turns, and costs no wake-up where
//! nobody asked for it.
//! Follows: `sd_notify(3)`, `sd_watchdog_enabled(3)`.

use sd_notify::NotifyState;
use tokio::time::MissedTickBehavior;
use tracing::{debug, warn};

/// All is bound, or a reload is over.
pub(super) fn ready() {
    tell(&[NotifyState::Ready]);
}

/// The configuration is being read again.
pub(super) fn reloading() {
    let now = NotifyState::monotonic_usec_now();
    tell(&[NotifyState::Reloading].into_iter().chain(now).collect::<Vec<_>>());
}

/// The process is about to end.
pub(super) fn stopping() {
    tell(&[NotifyState::Stopping]);
}

/// Tells that the runtime turns, twice in the time after which systemd takes it for dead; returns at once if it does
/// not watch.
pub(super) async fn watchdog() {
    let Some(patience) = sd_notify::watchdog_enabled() else { return };
    debug!(?patience, "watched");
    let mut turns = tokio::time::interval(patience / 2);
    turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        turns.tick().await;
        tell(&[NotifyState::Watchdog]);
    }
}

fn tell(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        warn!(%error, "the service manager does not hear");
    }
}
