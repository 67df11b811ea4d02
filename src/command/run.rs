//! `statsieve`: binds, serves, and ends when asked to.
//!
//! In: where the configuration is. Out: a running sidecar, and its exit code.
//! Always: everything is bound before readiness says so; a signal to stop lets the sockets empty and one more scrape
//! see the result; a worker that fails ends the process with an error, so that a supervisor starts it anew.

use std::io;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use nix::sys::signal::{SigSet, Signal};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Notify, mpsc};
use tokio::time::MissedTickBehavior;
use tracing::{error, info, warn};

use super::memory::Memory;
use super::{BAD_CONFIGURATION, FAILED, OK, descriptors, log, service};
use crate::aggregate::Store;
use crate::cgroup;
use crate::clock::{Clock, Tick};
use crate::config::{self, Config, Known, Loaded, Observation, Preset, Sources};
use crate::expose::http::Admin;
use crate::expose::lifecycle::Lifecycle;
use crate::expose::report::Report;
use crate::expose::web::Followed;
use crate::expose::{Exposer, http};
use crate::listen::inherited::Inherited;
use crate::listen::stream::{self, Incoming};
use crate::listen::udp::Sockets;
use crate::listen::unix::OwnFile;
use crate::listen::unix::watch::{self, Files, Watched};
use crate::listen::worker::Control;
use crate::listen::{bind_tcp, first_that_works, resolve, unix};
use crate::pipeline::{Pipeline, Rules};
use crate::reload::{self, InForce};
use crate::telemetry::changes::Changes;
use crate::telemetry::refusals::Refusals;
use crate::telemetry::{Books, Listener, SeriesBooks, SocketBooks, Telemetry};

/// Most workers that `listen.workers = 0` starts: one takes millions of lines a second.
pub(super) const MOST_WORKERS: usize = 2;
/// How long workers may take to empty their sockets.
const DRAIN_GRACE: Duration = Duration::from_secs(2);
/// How often to look whether files have changed.
const WATCH: Duration = Duration::from_secs(2);
/// Seconds without a datagram after which nothing is done each second any more. One that comes ends that, at the price
/// of a wake-up.
const QUIET: u32 = 3;
/// Seconds from one look to the next, in place of one, after which the process counts as having been stopped. It is the
/// thread that answers scrapes which did not run.
const STOPPED: Tick = 5;
/// How often to look whether they have.
const EMPTIED_POLL: Duration = Duration::from_millis(2);

/// Runs the sidecar until a signal ends it.
///
/// With `fallback`, a bad file means running on the defaults under the overrides, or on the bare defaults if the
/// overrides are bad as well: a faulty configuration then costs its settings, but no metrics.
/// Problems of the configuration go to `problems`, everything else to the log. Returns the exit code.
pub fn run(sources: &Sources, fallback: bool, problems: &mut dyn io::Write) -> u8 {
    hold_hangups();
    let (loaded, refused) = match config::load(sources) {
        Ok(loaded) => (loaded, None),
        Err(found) => {
            // If stderr is gone, the exit code still tells.
            let _ = write!(problems, "{}", found.render_with_carets());
            let overrides = Sources { file: None, set: sources.set.clone() };
            match config::load(&overrides).or_else(|_| config::load(&Sources::default())) {
                Ok(defaults) if fallback => (defaults, Some(found)),
                _ => return BAD_CONFIGURATION,
            }
        }
    };
    let overrides = sources.set.len();
    let introduce = |loaded: &Loaded| {
        match &sources.file {
            Some(file) if refused.is_none() => {
                info!(file = %file.display(), overrides, hash = loaded.hash, "configuration read");
            }
            _ => info!(overrides, hash = loaded.hash, "the built-in defaults are in force, with no file over them"),
        }
        if let Some(found) = &refused {
            error!(
                problems = found.count(),
                "configuration refused, running on the defaults: bucketing and labels.drop of the file are not in force"
            );
        }
    };
    let files = refused.as_ref().map(|found| found.files().to_vec());
    run_loaded(loaded, sources, None, files, introduce)
}

/// Runs by what was read until a signal ends it. With `refused`, the configuration that was asked for is another one,
/// which was read from these files.
///
/// `sources` over `preset` is what a reload reads; `introduce` says in the log where the configuration came from.
/// Returns the exit code.
pub(super) fn run_loaded(
    loaded: Loaded,
    sources: &Sources,
    preset: Option<Preset>,
    refused: Option<Vec<Known>>,
    introduce: impl FnOnce(&Loaded),
) -> u8 {
    let follow = log::start(&loaded.config);
    introduce(&loaded);
    tell(&loaded);
    descriptors::raise();
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            error!(%error, "no runtime");
            log::flush();
            return FAILED;
        }
    };
    let outcome = runtime.block_on(serve(loaded, sources.clone(), preset, refused, follow));
    // A password that is being checked keeps nobody waiting.
    runtime.shutdown_background();
    log::flush();
    match outcome {
        Ok(()) => OK,
        Err(_) => FAILED,
    }
}

/// Has a SIGHUP wait until there is something to read again, in place of ending a process that has just begun.
pub(super) fn hold_hangups() {
    // It fails for no set of real signals.
    let _ = hangups().thread_block();
}

fn hangups() -> SigSet {
    SigSet::from(Signal::SIGHUP)
}

/// Logs what is worth knowing of a configuration before anything runs by it.
pub(super) fn tell(loaded: &Loaded) {
    let mapping = &loaded.config.mapping;
    if let Some(file) = &mapping.file {
        let observers = match &mapping.observation {
            Observation::Histogram { .. } => "histogram",
            Observation::Summary { .. } => "summary",
        };
        let ttl = mapping.ttl.unwrap_or_default();
        let (file, rules) = (file.display(), mapping.rules.len());
        info!(%file, rules, observers, ?ttl, "mapping file read; its defaults hold for observers and ttl, not [observer]");
    }
    for remark in loaded.config.remarks() {
        warn!("{remark}");
    }
}

/// Warns of what is bound where other machines reach it, whoever has bound it.
fn tell_of_open(config: &Config, addresses: &[(Listener, String)], http: SocketAddr) {
    let lines = addresses.iter().filter_map(|(kind, address)| match kind {
        Listener::Udp => config.exposure("listen.udp", address),
        Listener::Tcp => config.exposure("listen.tcp", address),
        Listener::UnixDatagram | Listener::UnixStream => None,
    });
    lines.chain(config.exposure("http.listen", &http.to_string())).for_each(|open| warn!("{open}"));
}

/// Tells the own metrics what memory `config` can lead to, and the log if the process may not have that much.
fn limit_memory(config: &Config, telemetry: &Telemetry) {
    let most = Memory::of(config).total();
    telemetry.set_memory_limit(most);
    if let Some(allowed) = cgroup::memory_limit().filter(|allowed| *allowed < most) {
        let (most, allowed) = (most.div_ceil(1 << 20), allowed >> 20);
        warn!(
            most_mib = most,
            allowed_mib = allowed,
            "this configuration can take more memory than the control group allows, and is killed then: raise that limit, \
             or lower cardinality.max_bytes; `statsieve check` tells what takes it"
        );
    }
}

/// What was logged as an error already and ends the process.
struct Failed;

async fn serve(
    loaded: Loaded,
    sources: Sources,
    preset: Option<Preset>,
    refused: Option<Vec<Known>>,
    follow: impl Fn(&Config) + Send + Sync + 'static,
) -> Result<(), Failed> {
    let config = loaded.config.clone();
    let config = &config;
    // Asked for first: a signal that comes while we bind must not be lost.
    let listen = |kind| signal(kind).map_err(|error| failed("no signals", &error));
    let mut terminate = listen(SignalKind::terminate())?;
    let mut interrupt = listen(SignalKind::interrupt())?;
    let mut hangup = listen(SignalKind::hangup())?;
    let _ = hangups().thread_unblock();

    let mut inherited =
        Inherited::take().map_err(|error| failed("cannot use what the service manager handed over", &error))?;
    let listener = match inherited.http.take() {
        Some(listener) => listener,
        None => bind_tcp(&config.http.listen).map_err(|error| {
            failed(&format!("http.listen: cannot listen for HTTP on {}", config.http.listen), &error)
        })?,
    };
    let bound = Bound::new(config, inherited)?;
    let sockets = bound.books();
    let workers = bound.workers();

    let web = config.http.web_config_file.as_deref().map(Followed::new).transpose().map_err(|problems| {
        error!("web configuration refused: {problems}");
        Failed
    })?;

    let clock = Clock::default();
    let series = Arc::new(SeriesBooks::default());
    let store = Arc::new(Store::new(workers, series.clone()).started_at(clock.started_at()));
    let books: Vec<Arc<Books>> = (0..workers).map(|_| Arc::default()).collect();
    let level = config.telemetry.own_metrics;
    let telemetry = Telemetry::new(books.clone(), sockets, series, &loaded.hash, level);
    let udp_addresses = bound.udp.as_ref().map_or_else(Vec::new, |udp| udp.addresses().to_vec());
    let first = reload::rules(config, None, &udp_addresses, telemetry.relay())
        .map_err(|error| failed("cannot relay", &error))?;
    let rules = Arc::new(ArcSwap::from_pointee(first));
    let estimates = {
        let (rules, clock) = (rules.clone(), clock.clone());
        move || {
            let rules = rules.load();
            (rules.insight.estimates(clock.now().as_millis() as u64), rules.exports_registers)
        }
    };
    let mut telemetry = telemetry.with_distinct(estimates);
    if config.telemetry.statsd_exporter_metrics {
        telemetry = telemetry.with_statsd_exporter();
    }
    telemetry.set_relay_targets(&config.relay.targets);
    limit_memory(config, &telemetry);
    let telemetry = Arc::new(telemetry);
    if refused.is_some() {
        telemetry.config_refused();
    }
    // What another program leaves open as well, whoever runs it knows.
    let tells_of_open = preset.is_none();
    let in_force = InForce::new(sources, loaded, rules.clone(), store.clone(), telemetry.clone());
    let mut in_force = in_force.over(preset).in_place_of(refused).from_udp(udp_addresses);

    let refusals = Arc::new(Refusals::default());
    let (ended, mut worker_ended) = mpsc::unbounded_channel();
    let stages = (0..workers)
        .map(|number| Pipeline::new(rules.clone(), store.clone(), number).with_refusals(refusals.clone()))
        .zip(books);
    let addresses = bound.addresses();
    let udp = bound.udp.clone();
    // The files of unix sockets go with this.
    let (workers_told, files) = bound.start(config, &clock, stages, &ended)?;
    if !files.lock().unwrap_or_else(PoisonError::into_inner).is_empty() {
        spawn(watch::watch(Arc::downgrade(&files)), &ended);
    }
    let stop_all = |inherited: bool| {
        let told = workers_told.iter().filter(|told: &&Told| !inherited || told.inherited);
        told.for_each(|told| told.control.stop());
    };

    let lifecycle = Arc::new(Lifecycle::default());
    let refresh = {
        let (udp, store, rules, clock) = (udp.clone(), store.clone(), rules.clone(), clock.clone());
        Box::new(move || {
            udp.iter().for_each(|udp| udp.refresh());
            store.show(clock.tick(), &rules.load().gate.limits);
        })
    };
    let http = listener.local_addr().map_err(|error| failed("the HTTP listener has no address", &error))?;
    let exposer = Exposer::new(Box::new(store.clone()), telemetry.clone(), refresh).started_at(clock.started_at());
    let insight = {
        let rules = rules.clone();
        Box::new(move || rules.load().insight.clone())
    };
    let reloaded = Arc::new(Notify::new());
    // The server tells of the configuration, and the configuration is told to the server.
    let state_told = Arc::new(OnceLock::<Arc<http::State>>::new());
    in_force.tell({
        let (state, telemetry, reloaded) = (state_told.clone(), telemetry.clone(), reloaded.clone());
        let addresses = addresses.clone();
        move |config| {
            follow(config);
            if tells_of_open {
                tell_of_open(config, &addresses, http);
            }
            reloaded.notify_one();
            telemetry.set_level(config.telemetry.own_metrics);
            telemetry.set_relay_targets(&config.relay.targets);
            limit_memory(config, &telemetry);
            state.get().into_iter().for_each(|state| state.set(&config.http));
        }
    });
    let in_force = Arc::new(in_force);
    let loaded = {
        let in_force = in_force.clone();
        move || in_force.loaded()
    };
    spawn(each_second(store.clone(), rules.clone(), telemetry.clone(), clock.clone(), loaded), &ended);
    let quit = Arc::new(Notify::new());
    let report = Report {
        telemetry,
        store,
        refusals,
        lifecycle: lifecycle.clone(),
        clock,
        loaded: Box::new({
            let in_force = in_force.clone();
            move || in_force.loaded()
        }),
        listeners: addresses.clone(),
        http,
    };
    let state = http::State::new(&config.http, web, exposer, lifecycle.clone())
        .with_insight(insight)
        .with_report(report)
        .with_admin(admin(&in_force, &quit));
    let state = Arc::new(state);
    let _ = state_told.set(state.clone());
    spawn(watch(in_force.clone(), reloaded), &ended);
    for (kind, address) in &addresses {
        match &udp {
            Some(udp) if *kind == Listener::Udp => {
                let (workers, receive_buffer_bytes) = (udp.books().len(), udp.granted_bytes());
                info!(listener = "udp", address, workers, receive_buffer_bytes, "listening");
            }
            _ => info!(listener = kind.label(), address, "listening"),
        }
    }
    if tells_of_open {
        tell_of_open(config, &addresses, http);
    }
    info!(listener = "http", address = %http, "listening");
    let mut server = tokio::spawn(http::serve(listener, state));
    lifecycle.set_ready();
    service::ready();
    spawn(service::watchdog(), &ended);

    let reason = loop {
        tokio::select! {
            _ = terminate.recv() => break "SIGTERM",
            _ = interrupt.recv() => break "SIGINT",
            () = quit.notified() => break "/-/quit",
            // What came of it is in the log.
            _ = hangup.recv() => {
                service::reloading();
                let _ = in_force.reload();
                service::ready();
            }
            _ = worker_ended.recv() => {
                error!("a worker ended");
                return Err(Failed);
            }
            outcome = &mut server => {
                error!(?outcome, "the HTTP server ended");
                return Err(Failed);
            }
        }
    };
    info!(reason, "draining");
    // Asked twice, whoever asks is in a hurry.
    let mut again = pin!(async {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    });
    let mut hurries = false;
    service::stopping();
    // What sockets that outlive the process hold is left to the next one: whether this one is scraped again, nobody knows.
    stop_all(true);
    // What was sent before the signal is in the books before readiness turns, so that whoever sees it turn finds all of
    // it in the next scrape. The workers go on until then: the bot may have more to say while it stops.
    workers_told.iter().filter(|told| !told.inherited).for_each(|told| told.control.empty());
    let emptied = async {
        while !workers_told.iter().all(|told| told.control.has_emptied()) {
            tokio::time::sleep(EMPTIED_POLL).await;
        }
    };
    tokio::select! {
        emptied = tokio::time::timeout(DRAIN_GRACE, emptied) => if emptied.is_err() {
            warn!("a socket was not emptied in time");
        },
        () = &mut again => hurries = true,
    }
    lifecycle.begin_drain();
    let (mut outcome, mut scraped) = (Ok(()), false);
    if !hurries {
        tokio::select! {
            in_time = lifecycle.drained(in_force.loaded().config.http.drain) => scraped = in_time,
            () = &mut again => hurries = true,
            _ = worker_ended.recv() => {
                error!("a worker ended");
                outcome = Err(Failed);
            }
        }
    }
    stop_all(false);
    lifecycle.stop();
    if !hurries {
        // The server ends once its last answers are out; how it ended changes nothing any more.
        tokio::select! {
            _ = &mut server => {}
            () = &mut again => {}
        }
    }
    info!(scraped, "stopped");
    outcome
}

/// Runs a task that nothing goes on without: `ended` hears if it panics, which the log has told then.
fn spawn(task: impl Future<Output = ()> + Send + 'static, ended: &mpsc::UnboundedSender<()>) {
    let (task, ended) = (tokio::spawn(task), ended.clone());
    tokio::spawn(async move {
        if task.await.is_err_and(|error| error.is_panic()) {
            let _ = ended.send(());
        }
    });
}

/// What HTTP may ask the process to do.
fn admin(in_force: &Arc<InForce>, quit: &Arc<Notify>) -> Admin {
    let (reloads, tells, quit) = (in_force.clone(), in_force.clone(), quit.clone());
    Admin {
        reload: Box::new(move || match reloads.reload() {
            Ok(restart) if restart.is_empty() => Ok("reloaded\n".to_owned()),
            Ok(restart) => Ok(format!("reloaded; a change of these needs a restart: {}\n", restart.join(", "))),
            Err(problems) => Err(format!("{}\n", problems.render_with_carets())),
        }),
        quit: Box::new(move || quit.notify_one()),
        config: Box::new(move || tells.loaded().annotated()),
    }
}

/// Reloads when a file of the configuration changes, if that is wished; `changed` tells that it may be.
async fn watch(in_force: Arc<InForce>, changed: Arc<Notify>) {
    let mut seconds = tokio::time::interval(WATCH);
    seconds.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // Another content, and who knows whether that is all of it: it is read once it is the same at the next look.
    let mut seen = None;
    loop {
        if !in_force.watches() {
            seen = None;
            changed.notified().await;
        }
        seconds.tick().await;
        if !in_force.watches() {
            continue;
        }
        // A bad file is not tried again until it changes; what came of it is in the log.
        let found = in_force.changed();
        if std::mem::replace(&mut seen, found) == found && found.is_some() {
            seen = None;
            let _ = in_force.reload();
        }
    }
}

/// Lets idle series give way, keeps counts for those who ask for rates, and logs what begins and ends; once nothing was
/// received for a while and nothing is left to do, not before something is: an idle process does not even wake up.
async fn each_second(
    store: Arc<Store>,
    rules: Arc<ArcSwap<Rules>>,
    telemetry: Arc<Telemetry>,
    clock: Clock,
    loaded: impl Fn() -> Arc<Loaded>,
) {
    let mut seconds = tokio::time::interval(Duration::from_secs(1));
    seconds.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut quiet = 0;
    let mut changes = Changes::default();
    let mut looked = clock.tick();
    loop {
        seconds.tick().await;
        let now = clock.tick();
        let since = now.saturating_sub(std::mem::replace(&mut looked, now));
        if since >= STOPPED {
            warn!(seconds = since, "the process did not run for a while; for idle series that time does not count");
            store.resumed(now);
        }
        store.sweep(now, &rules.load().gate.limits);
        telemetry.remember(clock.now());
        changes.look(clock.now(), &telemetry, &loaded().config);
        // Whether nothing was received since it last looked; asked first, since it looks anew below.
        let is_quiet = store.is_watched();
        if !store.rests(&rules.load().gate.limits) || !is_quiet || changes.is_waiting() {
            quiet = 0;
            continue;
        }
        quiet += 1;
        if quiet >= QUIET {
            let figures = telemetry.figures();
            store.stirred().await;
            telemetry.rested(clock.now(), &figures);
            looked = clock.tick();
            quiet = 0;
        }
    }
}

fn failed(what: &str, error: &io::Error) -> Failed {
    error!(%error, "{what}");
    Failed
}

/// Binds a UDP socket for each worker.
fn bind_udp(config: &Config, address: &str) -> Result<Sockets, Failed> {
    let listen = &config.listen;
    let automatic = || std::thread::available_parallelism().map_or(1, |cores| cores.get().min(MOST_WORKERS));
    let workers = listen.workers.unwrap_or_else(automatic);
    let sockets = resolve(address)
        .and_then(|addresses| {
            first_that_works(addresses, |address| Sockets::bind(address, workers, listen.receive_buffer_bytes))
        })
        .map_err(|error| failed(&format!("listen.udp: cannot receive UDP on {address}"), &error))?;
    // The kernel reports twice what it was asked for, since it counts its own overhead.
    let granted = sockets.granted_bytes() / 2;
    if listen.receive_buffer_asked && granted < listen.receive_buffer_bytes as u64 {
        let asked = listen.receive_buffer_bytes;
        warn!(asked, granted, "the kernel granted a smaller receive buffer; raise net.core.rmem_max");
    }
    Ok(sockets)
}

/// All sockets that lines come from, bound.
struct Bound {
    udp: Option<Arc<Sockets>>,
    datagrams: Option<(unix::Bound, Arc<SocketBooks>)>,
    streams: Vec<(Incoming, Arc<SocketBooks>)>,
    /// Which of these outlive the process.
    inherited: InheritedKinds,
    /// What each of the others is bound to.
    addresses: Vec<(Listener, String)>,
    /// The file of a unix socket of streams.
    stream_file: Option<OwnFile>,
}

/// Which sockets were handed over, and go on without this process.
#[derive(Clone, Copy, Debug)]
struct InheritedKinds {
    udp: bool,
    datagrams: bool,
    streams: bool,
}

/// A worker, and whether its sockets outlive the process.
struct Told {
    control: Arc<Control>,
    inherited: bool,
}

impl Bound {
    /// What was handed over, and for each kind that was not, what the configuration names.
    fn new(config: &Config, inherited: Inherited) -> Result<Self, Failed> {
        let listen = &config.listen;
        let kinds = InheritedKinds {
            udp: !inherited.udp.is_empty(),
            datagrams: inherited.unix_datagram.is_some(),
            // Known once those of its own are bound.
            streams: false,
        };
        let handed_over = |error| failed("cannot use what the service manager handed over", &error);
        let udp = match &listen.udp {
            _ if kinds.udp => Some(Sockets::inherit(inherited.udp).map_err(handed_over)?),
            Some(address) => Some(bind_udp(config, address)?),
            None => None,
        };
        let mut bound = Self {
            udp: udp.map(Arc::new),
            datagrams: None,
            streams: Vec::new(),
            inherited: kinds,
            addresses: Vec::new(),
            stream_file: None,
        };
        let streams_handed_over = inherited.streams.len();
        for incoming in inherited.streams {
            let (kind, address) = incoming.address().map_err(handed_over)?;
            bound.addresses.push((kind, address));
            bound.streams.push((incoming, Arc::new(SocketBooks::new(kind, 0))));
        }
        let has = |bound: &Self, kind| bound.addresses.iter().any(|(other, _)| *other == kind);
        if let Some(address) = &listen.tcp
            && !has(&bound, Listener::Tcp)
        {
            let refused = |error| failed(&format!("listen.tcp: cannot take connections on {address}"), &error);
            let listener = bind_tcp(address).map_err(refused)?;
            let address = listener.local_addr().map_err(refused)?;
            bound.addresses.push((Listener::Tcp, address.to_string()));
            bound.streams.push((Incoming::Tcp(listener), Arc::new(SocketBooks::new(Listener::Tcp, 0))));
        }
        let refused = |key: &str, path: &str, error| failed(&format!("{key}: cannot listen at {path}"), &error);
        let datagrams = match (inherited.unix_datagram, &listen.unix_datagram) {
            (Some(socket), _) => {
                let address = socket.local_addr().map_err(handed_over)?;
                Some((unix::Bound::inherit(socket).map_err(handed_over)?, unix::written(&address)))
            }
            (None, Some(path)) => {
                let socket = unix::Bound::datagrams(path, listen.socket_mode)
                    .map_err(|error| refused("listen.unix_datagram", path, error))?;
                Some((socket, path.clone()))
            }
            (None, None) => None,
        };
        if let Some((socket, address)) = datagrams {
            bound.addresses.push((Listener::UnixDatagram, address));
            bound.datagrams = Some((socket, Arc::new(SocketBooks::new(Listener::UnixDatagram, 0))));
        }
        if let Some(path) = &listen.unix_stream
            && !has(&bound, Listener::UnixStream)
        {
            let socket = unix::Bound::streams(path, listen.socket_mode)
                .map_err(|error| refused("listen.unix_stream", path, error))?;
            let (listener, file) = socket.into_listener();
            bound.addresses.push((Listener::UnixStream, path.clone()));
            bound.streams.push((Incoming::Unix(listener), Arc::new(SocketBooks::new(Listener::UnixStream, 0))));
            bound.stream_file = file;
        }
        // All streams have one worker, which goes on as long as one of them is its own.
        bound.inherited.streams = bound.streams.len() == streams_handed_over;
        Ok(bound)
    }

    /// How many workers they take: one for each UDP socket, one for datagrams of a unix socket, one for all streams.
    fn workers(&self) -> usize {
        self.udp.as_ref().map_or(0, |udp| udp.books().len())
            + usize::from(self.datagrams.is_some())
            + usize::from(!self.streams.is_empty())
    }

    fn books(&self) -> Vec<Arc<SocketBooks>> {
        let udp = self.udp.iter().flat_map(|udp| udp.books());
        let others = self.datagrams.iter().map(|(_, books)| books).chain(self.streams.iter().map(|(_, books)| books));
        udp.chain(others).cloned().collect()
    }

    fn addresses(&self) -> Vec<(Listener, String)> {
        let udp = self.udp.iter().flat_map(|udp| udp.addresses()).map(|udp| (Listener::Udp, udp.to_string()));
        udp.chain(self.addresses.iter().cloned()).collect()
    }

    /// Starts a thread for each worker; `ended` hears of the end of any. Gives what each is told by.
    fn start(
        self,
        config: &Config,
        clock: &Clock,
        mut stages: impl Iterator<Item = (Pipeline, Arc<Books>)>,
        ended: &mpsc::UnboundedSender<()>,
    ) -> Result<(Vec<Told>, Files), Failed> {
        let max_connections = descriptors::streams(config, self.workers(), !self.streams.is_empty());
        let Self { udp, datagrams, streams, inherited, stream_file, .. } = self;
        let mode = config.listen.socket_mode;
        let mut files = Vec::new();
        let coalesce = config.listen.coalesce;
        let mut told = Vec::new();
        let mut next = || stages.next().expect("there are stages for each worker");
        let no_worker = |error| failed("cannot start a worker", &error);
        for (udp, number) in udp.iter().flat_map(|udp| (0..udp.books().len()).map(move |number| (udp, number))) {
            let (pipeline, books) = next();
            let worker = udp.worker(number, coalesce, clock.clone(), pipeline, books).map_err(no_worker)?;
            let control = worker.control();
            told.push(Told { control: control.clone(), inherited: inherited.udp });
            start_thread(&format!("udp-{number}"), control, ended.clone(), move || worker.run(inherited.udp))?;
        }
        if let Some((socket, socket_books)) = datagrams {
            let (pipeline, books) = next();
            let (worker, file) =
                socket.worker(socket_books.clone(), coalesce, clock.clone(), pipeline, books).map_err(no_worker)?;
            let control = worker.control();
            if let (Some(file), Some(path)) = (file, &config.listen.unix_datagram) {
                let control = control.clone();
                files.push(Watched::new((path, mode), file, socket_books, move |socket| control.change_to(socket)));
            }
            told.push(Told { control: control.clone(), inherited: inherited.datagrams });
            start_thread("unix-datagram", control, ended.clone(), move || worker.run(inherited.datagrams))?;
        }
        if !streams.is_empty() {
            let (pipeline, books) = next();
            let control = Arc::new(Control::of_tasks());
            told.push(Told { control: control.clone(), inherited: inherited.streams });
            let limits = stream::Limits {
                max_connections,
                idle_timeout: config.listen.idle_timeout,
                max_line_bytes: config.listen.max_line_bytes,
            };
            let (hand_over, anew) = mpsc::unbounded_channel();
            let of_unix = streams.iter().find(|(_, books)| books.listener == Listener::UnixStream);
            if let (Some(file), Some(path), Some((_, books))) = (stream_file, &config.listen.unix_stream, of_unix) {
                let socket_books = books.clone();
                files.push(Watched::new((path, mode), file, books.clone(), move |socket| {
                    let _ = hand_over.send((Incoming::Unix(socket.into()), socket_books.clone()));
                }));
            }
            let worker = stream::Worker {
                anew,
                listeners: streams,
                limits,
                clock: clock.clone(),
                pipeline: pipeline.exact(),
                books,
                control: control.clone(),
            };
            start_thread("streams", control, ended.clone(), || {
                if let Err(error) = worker.run() {
                    error!(%error, "streams cannot be served");
                }
            })?;
        }
        Ok((told, Arc::new(Mutex::new(files))))
    }
}

/// Starts a worker's thread; `ended` hears of its end, however it comes, unless that was asked for.
fn start_thread(
    name: &str,
    control: Arc<Control>,
    ended: mpsc::UnboundedSender<()>,
    run: impl FnOnce() + Send + 'static,
) -> Result<(), Failed> {
    let body = move || {
        // The panic's message is in the log already; all that is left is to tell.
        let panicked = catch_unwind(AssertUnwindSafe(run)).is_err();
        if panicked || !control.is_stopping() {
            let _ = ended.send(());
        }
    };
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(body)
        .map(drop)
        .map_err(|error| failed("cannot start a worker", &error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_that_panics_is_told() {
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
            let (ended, mut heard) = mpsc::unbounded_channel();
            spawn(async { panic!("a panic for the test") }, &ended);
            assert_eq!(heard.recv().await, Some(()));
        });
    }
}
