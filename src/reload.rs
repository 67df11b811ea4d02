//! Puts a configuration into force, at start and whenever it is read again.
//!
//! In: where the configuration is. Out: the rules that the workers go by, swapped as a whole, and everything else that
//! follows from it.
//! Not here: reading and checking (`config`), when to (`command::run`).
//! Always: a configuration that is refused changes nothing but a metric and a log line; a worker sees the old rules or
//! the new ones for a whole datagram; what needs a restart is told and goes on as it is.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use tracing::{error, info, warn};

use crate::aggregate::{Declaration, Sight, Store, Wanted};
use crate::clock::Tick;
use crate::config::{self, Config, DeclaredKind, Known, Loaded, Preset, Problems, Sources};
use crate::map::Kind;
use crate::map::labels::{LabelSet, Origin};
use crate::model::SampleType;
use crate::pipeline::Rules;
use crate::relay::Relay;
use crate::telemetry::{RelayBooks, Telemetry};

/// Hears of each configuration that comes into force.
type Listener = Box<dyn Fn(&Config) + Send + Sync>;

/// The configuration in force, and what goes by it.
pub struct InForce {
    sources: Sources,
    preset: Option<Preset>,
    loaded: ArcSwap<Loaded>,
    /// The files that were read last, of a configuration that was refused as well.
    files: ArcSwap<Vec<Known>>,
    /// It stands in for one that was refused at the start.
    is_fallback: AtomicBool,
    rules: Arc<ArcSwap<Rules>>,
    store: Arc<Store>,
    telemetry: Arc<Telemetry>,
    listeners: Vec<Listener>,
    /// Where lines come in over UDP.
    udp: Vec<SocketAddr>,
    /// One reload at a time.
    turn: Mutex<()>,
}

impl InForce {
    /// Goes by `loaded`, which `rules` were made from, and reads `sources` again when asked to. Makes declared series.
    pub fn new(
        sources: Sources,
        loaded: Loaded,
        rules: Arc<ArcSwap<Rules>>,
        store: Arc<Store>,
        telemetry: Arc<Telemetry>,
    ) -> Self {
        declare(&loaded.config, &rules.load(), &store);
        store.show_created(loaded.config.http.created_lines);
        telemetry.series().limit.store(loaded.config.cardinality.max_series, Relaxed);
        telemetry.set_mapping_rules(loaded.config.mapping.rules.len());
        Self {
            sources,
            preset: None,
            udp: Vec::new(),
            files: ArcSwap::from_pointee(loaded.files.clone()),
            is_fallback: AtomicBool::new(false),
            loaded: ArcSwap::from_pointee(loaded),
            rules,
            store,
            telemetry,
            listeners: Vec::new(),
            turn: Mutex::default(),
        }
    }

    /// Reads its sources over this preset.
    pub fn over(mut self, preset: Option<Preset>) -> Self {
        self.preset = preset;
        self
    }

    /// Stands in for a configuration that was refused, if there is one, and was read from `files`.
    pub fn in_place_of(mut self, files: Option<Vec<Known>>) -> Self {
        if let Some(files) = files {
            self.is_fallback = AtomicBool::new(!files.is_empty());
            self.files = ArcSwap::from_pointee(files);
        }
        self
    }

    /// Relays nothing to these addresses, where lines come in.
    pub fn from_udp(mut self, udp: Vec<SocketAddr>) -> Self {
        self.udp = udp;
        self
    }

    /// Has `listener` hear of each configuration that comes into force from now on.
    pub fn tell(&mut self, listener: impl Fn(&Config) + Send + Sync + 'static) {
        self.listeners.push(Box::new(listener));
    }

    /// What was read last and accepted.
    pub fn loaded(&self) -> Arc<Loaded> {
        self.loaded.load_full()
    }

    /// Reads the configuration again and puts it into force; returns the keys whose change needs a restart.
    ///
    /// # Errors
    /// All problems of a configuration that is refused; the one before stays in force then.
    pub fn reload(&self) -> Result<Vec<&'static str>, Problems> {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let before = self.loaded.load_full();
        let read = config::load_over(self.preset.as_ref(), &self.sources);
        let mut loaded = read.and_then(|loaded| loaded.not_emptied_since(&before)).inspect_err(|problems| {
            self.files.store(Arc::new(problems.files().to_vec()));
            self.telemetry.reload_failed();
            error!(problems = problems.count(), "configuration refused, the one before stays: {problems}");
        })?;
        // Of what is open already hears who listens to this.
        let mut open = loaded.config.exposures();
        let restart = keep_what_needs_a_restart(&mut loaded.config, &before.config);
        open.retain(|line| restart.iter().any(|key| line.starts_with(key)));
        loaded.hold_back(&before, &restart);
        let old = self.rules.load_full();
        let old = Some((&before.config, &*old));
        let relay = relay(&loaded.config, old, &self.udp, self.telemetry.relay()).unwrap_or_else(|error| {
            warn!(%error, "nothing is relayed");
            None
        });
        let rules = with_relay(&loaded.config, old, relay);
        declare(&loaded.config, &rules, &self.store);
        self.store.show_created(loaded.config.http.created_lines);
        self.rules.store(Arc::new(rules));
        // Families may have been replaced, and series may expire now.
        self.store.stir();
        self.telemetry.series().limit.store(loaded.config.cardinality.max_series, Relaxed);
        self.telemetry.set_mapping_rules(loaded.config.mapping.rules.len());
        self.listeners.iter().for_each(|listener| listener(&loaded.config));
        self.telemetry.reload_succeeded(&loaded.hash);
        info!(hash = loaded.hash, "configuration read again and in force");
        if !restart.is_empty() {
            warn!(keys = restart.join(" "), "a change of these keys needs a restart");
        }
        if self.preset.is_none() {
            open.iter().for_each(|line| warn!("after a restart {line}"));
        }
        self.files.store(Arc::new(loaded.files.clone()));
        self.is_fallback.store(false, Relaxed);
        self.loaded.store(Arc::new(loaded));
        Ok(restart)
    }

    /// Whether a change of a file is to be read without being asked to: if the configuration in force says so, or if it
    /// only stands in for another, whose own word nobody could read.
    pub fn watches(&self) -> bool {
        self.loaded.load().config.reload.watch || self.is_fallback.load(Relaxed)
    }

    /// Tells what the files of the configuration hold now, whatever links lead to them, from what else they may hold, if
    /// it is not what was read last. If that was refused, they are the files that it was refused for.
    pub fn changed(&self) -> Option<u64> {
        let now: Vec<Option<u64>> = self.files.load().iter().map(Known::changed).collect();
        let mut hasher = DefaultHasher::new();
        now.hash(&mut hasher);
        now.iter().any(Option::is_some).then(|| hasher.finish())
    }
}

/// The rules of a configuration, with what goes on from those before: estimates and lists of users stay, and so do quotas,
/// if nothing of theirs has changed. Nothing is relayed to `udp`, where lines come in.
///
/// # Errors
/// If there can be no relay.
pub fn rules(
    config: &Config,
    before: Option<(&Config, &Rules)>,
    udp: &[SocketAddr],
    relay: &Arc<RelayBooks>,
) -> io::Result<Rules> {
    let relay = self::relay(config, before, udp, relay)?;
    Ok(with_relay(config, before, relay))
}

/// The relay of a configuration: that of `before` if it is to do the same.
fn relay(
    config: &Config,
    before: Option<(&Config, &Rules)>,
    udp: &[SocketAddr],
    books: &Arc<RelayBooks>,
) -> io::Result<Option<Arc<Relay>>> {
    match before {
        // A target that could not be found is looked for again.
        Some((old, rules)) if old.relay == config.relay && rules.relay.as_ref().is_some_and(|it| it.is_whole()) => {
            Ok(rules.relay.clone())
        }
        _ => Ok(Relay::start(&config.relay, udp, books.clone())?.map(Arc::new)),
    }
}

fn with_relay(config: &Config, before: Option<(&Config, &Rules)>, relay: Option<Arc<Relay>>) -> Rules {
    let mut rules = Rules::new(config);
    rules.relay = relay;
    let Some((old, before)) = before else { return rules };
    rules.generation = before.generation + 1;
    if old.rate_limit == config.rate_limit {
        rules.quotas.clone_from(&before.quotas);
    }
    if old.bucketing == config.bucketing
        && old.heavy_hitters == config.heavy_hitters
        && (&old.distinct.windows, old.distinct.registers) == (&config.distinct.windows, config.distinct.registers)
    {
        rules.insight = before.insight.clone();
    }
    rules
}

/// Puts back what is set up once; returns the keys that had changed.
fn keep_what_needs_a_restart(config: &mut Config, before: &Config) -> Vec<&'static str> {
    let mut changed = Vec::new();
    if config.listen != before.listen {
        config.listen = before.listen.clone();
        changed.push("listen");
    }
    if config.http.listen != before.http.listen {
        config.http.listen.clone_from(&before.http.listen);
        changed.push("http.listen");
    }
    // Turned on, it would take names that the bot's series may have.
    if config.telemetry.statsd_exporter_metrics != before.telemetry.statsd_exporter_metrics {
        config.telemetry.statsd_exporter_metrics = before.telemetry.statsd_exporter_metrics;
        changed.push("telemetry.statsd_exporter_metrics");
    }
    changed
}

/// Makes the series of `[[declare]]` that are not there, at 0 and inside the limits. No limit folds or simplifies them:
/// they are the operator's own, and never give way for being idle, as long as they are declared. One that finds no place
/// is logged.
fn declare(config: &Config, rules: &Rules, store: &Store) {
    let (mut labels, mut text, mut declaration) = (LabelSet::default(), Vec::new(), Declaration::default());
    for declared in &config.declare {
        let kind = match declared.kind {
            DeclaredKind::Counter => Kind::Counter,
            DeclaredKind::Gauge => Kind::Gauge,
            DeclaredKind::Observer => Kind::of(SampleType::Histogram, &config.mapping.observation),
        };
        let wanted = Wanted {
            name: &declared.name,
            written: &declared.name,
            help: None,
            shape: rules.shape(kind, None),
            sample: None,
            ttl: None,
            generation: rules.generation,
            overflow_labels: &rules.overflow_labels,
            sight: Sight::First,
            // Made at no moment in particular: it is as if it had been there from the start.
            now: Tick::MAX,
        };
        let mut homeless = 0;
        let mut refused = None;
        for combination in declared.combinations() {
            labels.clear();
            for (name, value) in &config.labels.add {
                labels.add_constant(name.as_bytes(), value.as_bytes());
            }
            for (name, value) in combination {
                // A constant label of that name stays what it is.
                let _ = labels.set(name.as_bytes(), value.as_bytes(), Origin::Rule, usize::MAX);
            }
            labels.sort();
            match store.declare(wanted, &mut labels, &mut text, &rules.gate, &mut declaration) {
                Ok(placed) => homeless += u64::from(placed.overflow),
                Err(reason) => {
                    homeless += 1;
                    refused = Some(reason.label());
                }
            }
        }
        if homeless > 0 {
            let (name, reason) = (&declared.name, refused.unwrap_or("cardinality"));
            warn!(name, series = homeless, reason, "declared series find no place");
        }
    }
    store.keep(declaration);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(set: &[&str]) -> Config {
        let set = set.iter().map(ToString::to_string).collect();
        config::load(&Sources { file: None, set }).expect("it loads").config
    }

    #[test]
    fn what_has_not_changed_goes_on_and_a_relay_that_cannot_start_takes_nothing_else_along() {
        let old = config(&["rate_limit.samples_per_second=5"]);
        let before = Rules::new(&old);
        let users = ["bucketing=[{tags=['chat_id'],label='chat_bucket',count=7}]"];
        for (set, keeps_quotas, keeps_insight) in [
            (&["rate_limit.samples_per_second=5", "relay.targets=['127.0.0.1:9']"][..], true, true),
            (&["rate_limit.samples_per_second=6"], false, true),
            (&["rate_limit.samples_per_second=5", users[0]], true, false),
        ] {
            let after = with_relay(&config(set), Some((&old, &before)), None);
            let quotas = |rules: &Rules| rules.quotas.as_ref().map(Arc::as_ptr);
            assert_eq!(quotas(&after) == quotas(&before), keeps_quotas, "{set:?}");
            assert_eq!(Arc::ptr_eq(&after.insight, &before.insight), keeps_insight, "{set:?}");
            assert_eq!((after.generation, after.relay.is_some()), (before.generation + 1, false));
        }
    }
}
