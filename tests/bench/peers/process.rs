//! A receiver as the kernel sees it: its CPU time, memory, socket and core.
//!
//! Always: times are of one process with all its threads; what could not be read is an error, never a zero.

use std::fs;
use std::io;
use std::time::Duration;

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

/// The cores of the sender and of the receivers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cores {
    pub(crate) sender: usize,
    pub(crate) receiver: usize,
}

impl Cores {
    /// The first two that this process may use.
    ///
    /// # Errors
    /// If there are not two.
    pub(crate) fn choose() -> io::Result<Self> {
        let may = sched_getaffinity(Pid::from_raw(0))?;
        let mut cores = (0..CpuSet::count()).filter(|core| may.is_set(*core).unwrap_or(false));
        match (cores.next(), cores.next()) {
            (Some(sender), Some(receiver)) => Ok(Self { sender, receiver }),
            _ => Err(io::Error::other("needs two cores: one for the sender, one for the receiver")),
        }
    }
}

/// Keeps this thread, and what it starts from now on, on one core.
pub(crate) fn pin(core: usize) -> io::Result<()> {
    let mut set = CpuSet::new();
    set.set(core)?;
    Ok(sched_setaffinity(Pid::from_raw(0), &set)?)
}

/// User and system time so far.
///
/// By nanoseconds of the threads that live; a thread that ended takes its own with it, so that where the process's
/// own count in ticks says clearly more, that is the answer.
pub(crate) fn cpu(pid: u32) -> io::Result<Cpu> {
    let mut threads = Duration::ZERO;
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        // A thread may end between the listing and the look.
        let Ok(text) = fs::read_to_string(task?.path().join("schedstat")) else { continue };
        let ns = text.split_ascii_whitespace().next().and_then(|ns| ns.parse().ok());
        threads += Duration::from_nanos(ns.ok_or_else(|| io::Error::other("schedstat without a time"))?);
    }
    let text = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // Behind the name, which may hold anything; utime and stime are the 14th and 15th fields of all.
    let fields = text.rsplit_once(')').map_or("", |(_, rest)| rest).split_ascii_whitespace();
    let ticks: u64 = fields.skip(11).take(2).filter_map(|ticks| ticks.parse::<u64>().ok()).sum();
    Ok(Cpu { threads, process: TICK * ticks as u32 })
}

/// USER_HZ is 100 on every architecture that has two cores to spare.
const TICK: Duration = Duration::from_millis(10);

#[derive(Clone, Copy, Debug)]
pub(crate) struct Cpu {
    threads: Duration,
    process: Duration,
}

impl Cpu {
    /// What was spent since `before`.
    pub(crate) fn since(self, before: Self) -> Duration {
        let threads = self.threads.saturating_sub(before.threads);
        let process = self.process.saturating_sub(before.process);
        // Each of the two ends is right to a tick.
        if process > threads.mul_f64(1.05) + 2 * TICK { process } else { threads }
    }
}

/// Resident memory, bytes.
pub(crate) fn resident_bytes(pid: u32) -> io::Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let kib =
        status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix("kB")?.trim().parse().ok());
    kib.map(|kib: u64| kib * 1024).ok_or_else(|| io::Error::other("no VmRSS"))
}

/// What waits at a UDP port of this machine, and what its sockets lost.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Port {
    pub(crate) sockets: usize,
    pub(crate) queued_bytes: u64,
    pub(crate) dropped: u64,
}

/// Looks the port up in the kernel's tables of IPv4 and IPv6.
pub(crate) fn port(port: u16) -> Port {
    let wanted = format!(":{port:04X}");
    let mut found = Port::default();
    for table in ["/proc/self/net/udp", "/proc/self/net/udp6"] {
        // A machine without IPv6 has no second one.
        let text = fs::read_to_string(table).unwrap_or_default();
        for line in text.lines().skip(1) {
            let columns: Vec<&str> = line.split_ascii_whitespace().collect();
            let (Some(local), Some(queues), Some(drops)) = (columns.get(1), columns.get(4), columns.last()) else {
                continue;
            };
            // A connected socket of a sender may have the number as well; a receiver's has no peer.
            if local.ends_with(&wanted) {
                found.sockets += 1;
                let waiting = queues.split_once(':').and_then(|(_, bytes)| u64::from_str_radix(bytes, 16).ok());
                found.queued_bytes += waiting.unwrap_or(0);
                found.dropped += drops.parse::<u64>().unwrap_or(0);
            }
        }
    }
    found
}
