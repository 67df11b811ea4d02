//! What a service manager is told: ready, reloading, stopping, alive.
//!
//! In: where the process stands. Out: messages to systemd, if it started the process and asked for them.
//! Always: nothing depends on them; the watchdog hears only while the runtime turns, and costs no wake-up where
//! nobody asked for it.
//! Follows: `sd_notify(3)`, `sd_watchdog_enabled(3)`.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use sd_notify::NotifyState;
use tokio::time::MissedTickBehavior;
use tracing::{debug, info, warn};

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

/// The way to the service manager, from the first message on: later there may be no descriptor left, and who is silent
/// then is taken for dead. `None` if there is none, or not yet.
static MANAGER: LazyLock<Option<UnixDatagram>> = LazyLock::new(|| {
    let address = std::env::var_os("NOTIFY_SOCKET")?;
    let socket = UnixDatagram::unbound().ok()?;
    match address.as_bytes().strip_prefix(b"@") {
        Some(name) => socket.connect_addr(&SocketAddr::from_abstract_name(name).ok()?),
        None => socket.connect(address),
    }
    .ok()?;
    socket.set_nonblocking(true).ok()?;
    Some(socket)
});

/// Whether the last message was heard.
static HEARD: AtomicBool = AtomicBool::new(true);

fn tell(state: &[NotifyState<'_>]) {
    let text: String = state.iter().map(|state| format!("{state}\n")).collect();
    // One that listens anew by now is found by its name.
    let outcome = match &*MANAGER {
        Some(manager) if manager.send(text.as_bytes()).is_ok() => Ok(()),
        _ => sd_notify::notify(state),
    };
    let heard = HEARD.swap(outcome.is_ok(), Relaxed);
    match outcome {
        Err(error) if heard => warn!(%error, "the service manager does not hear"),
        Ok(()) if !heard => info!("the service manager hears again"),
        _ => {}
    }
}
