//! A control group that allows the process what the formula says and no more, and one that allows less.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;

use statsieve::command::memory::Memory;
use statsieve::config::{Sources, load};

use crate::harness::{Sidecar, get, spawn_after};

/// A control group with a limit of memory, gone at the end; its last process must have ended.
struct Group {
    path: PathBuf,
    version: usize,
}

/// By the version of control groups: the limit, and what counts processes that were killed for it.
const FILES: [(&str, &str); 2] = [("memory.limit_in_bytes", "memory.oom_control"), ("memory.max", "memory.events")];

impl Group {
    /// `None`, and a message, if this process may not make control groups, or none that limit memory.
    fn new(bytes: u64) -> Option<Self> {
        static MADE: AtomicU32 = AtomicU32::new(0);
        let name = format!("statsieve_test_memory_{}_{}", std::process::id(), MADE.fetch_add(1, Relaxed));
        let group = ["memory", ""].into_iter().enumerate().find_map(|(version, mount)| {
            let group = Self { path: Path::new("/sys/fs/cgroup").join(mount).join(&name), version };
            fs::create_dir(&group.path).ok()?;
            fs::write(group.path.join(FILES[version].0), bytes.to_string()).ok()?;
            Some(group)
        });
        if group.is_none() {
            eprintln!("skipped: no control group with a limit of memory can be made here");
        }
        group
    }

    /// Starts a sidecar that is in the group from its first page on.
    fn start(&self, settings: &[&str]) -> Sidecar {
        let enter = format!("echo $$ > {}", self.path.join("cgroup.procs").display());
        Sidecar::of(spawn_after(&enter, settings, &[]))
    }

    /// Processes that the kernel killed since there was no memory left.
    fn killed(&self) -> u64 {
        let text = fs::read_to_string(self.path.join(FILES[self.version].1)).unwrap();
        let killed = text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.parse().ok());
        killed.unwrap_or_else(|| panic!("no count of kills in {text:?}"))
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // The kernel may take a moment to see the last process off.
        for _ in 0..100 {
            if fs::remove_dir(&self.path).is_ok() {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

const SETTINGS: [&str; 8] = [
    "listen.workers=2",
    "cardinality.max_bytes=4194304",
    "cardinality.max_families=300",
    "cardinality.identity_cache_bytes=1048576",
    "cardinality.new_series_per_second=0",
    "cardinality.evict_idle_after=2s",
    "heavy_hitters.capacity=500",
    "http.max_connections=8",
];

/// The bound for these settings, and the least limit that is not under it: limits are whole pages.
fn formula() -> (u64, u64) {
    let set = SETTINGS.iter().map(ToString::to_string).collect();
    let total = Memory::of(&load(&Sources { file: None, set }).unwrap().config).total();
    (total, total.next_multiple_of(4096))
}

#[test]
fn in_the_memory_that_the_formula_asks_for_no_flood_has_it_killed() {
    const DATAGRAMS: u64 = 8000;
    const LINES: u64 = 20;
    let (total, limit) = formula();
    let Some(group) = Group::new(limit) else { return };
    let mut sidecar = group.start(&SETTINGS);
    assert!(!sidecar.log().contains("more memory than the control group allows"), "{}", sidecar.log());
    sidecar.scrape().assert("statsieve_memory_limit_bytes", total as f64);
    let senders: Vec<_> = (0..4).map(|_| sidecar.sender()).collect();
    for number in 0..DATAGRAMS {
        // Names, users, values and types that come once and never again.
        let lines: Vec<String> = (number * LINES..(number + 1) * LINES)
            .map(|n| {
                let kind = ["c", "g", "h", "ms"][n as usize % 4];
                format!("bot.name_{}:{}|{kind}|#user_id:{n},value:{n:0>100},other:{}", n / 40, n % 1000, n % 7)
            })
            .collect();
        senders[number as usize % 4].send(lines.join("\n").as_bytes());
        if number % 200 == 0 {
            assert_eq!(get(sidecar.http, "/metrics", &[("Accept-Encoding", "gzip")]).unwrap().status, 200);
        }
    }
    sidecar.wait_until("read and dropped are what was sent", |it| {
        let scrape = it.scrape();
        let read = scrape.value("statsieve_datagrams_total{listener=\"udp\"}");
        read + scrape.kernel_drops() == DATAGRAMS as f64 && scrape.lines() == read * LINES as f64
    });
    let scrape = sidecar.scrape();
    assert_eq!(scrape.recorded() + scrape.dropped(), scrape.lines(), "{:?}", scrape.dropped_by_reason());
    assert!(scrape.dropped() > 0.0, "no limit was reached: {}", scrape.text);
    assert_eq!(group.killed(), 0);
    assert!(sidecar.is_running());
    let resident = scrape.value("process_resident_memory_bytes");
    assert!(resident <= limit as f64, "{resident} of {limit}");
    sidecar.stop();
}

#[test]
fn a_control_group_that_allows_a_page_less_than_the_formula_asks_for_is_a_warning_at_start() {
    let (_, limit) = formula();
    let Some(group) = Group::new(limit - 4096) else { return };
    let sidecar = group.start(&SETTINGS);
    let log = sidecar.log();
    let told = log.lines().find(|line| line.contains("more memory than the control group allows"));
    let told = told.unwrap_or_else(|| panic!("it is not told: {log}"));
    let (most, allowed) = (limit.div_ceil(1 << 20), (limit - 4096) >> 20);
    for figure in [format!("most_mib={most} "), format!("allowed_mib={allowed}"), "level=warn".to_owned()] {
        assert!(told.contains(&figure), "no {figure} in {told}");
    }
    sidecar.stop();
}
