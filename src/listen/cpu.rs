//! What a worker's thread uses of the CPU, and what it may use.
//!
//! In: the kernel's clock of the calling thread; the files of its control groups. Out: load as a share of a core, or of
//! the CPU quota where that is less than a core, and whether the kernel held the group back.
//! Not here: what load leads to (`admit::sampling`), which control groups there are (`cgroup`).
//! Always: what cannot be read is a whole core without a quota.
//! Follows: Linux `Documentation/admin-guide/cgroup-v2.rst` (`cpu.max`, `cpu.stat`), `scheduler/sched-bwc.rst` (v1).

use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

use crate::cgroup::{self, Controller, Group, Version};

const CPU: Controller =
    Controller { name: "cpu", mounts: &["cpu", "cpu,cpuacct"], files: ["cpu.cfs_quota_us", "cpu.max"] };

/// CPU of one thread, measured from look to look. Made and used on that thread.
#[derive(Debug)]
pub(super) struct Cpu {
    /// The process's `/proc/self/cgroup` that `groups` was found by; it may be moved while it runs.
    table: String,
    groups: Vec<Group>,
    spent: Duration,
    throttled: u64,
}

impl Cpu {
    /// Begins to measure the calling thread. Reads some files of the kernel.
    pub(super) fn of_this_thread() -> Self {
        let mut cpu = Self { table: String::new(), groups: Vec::new(), spent: spent(), throttled: 0 };
        cpu.find_groups();
        cpu
    }

    /// The load over the `elapsed` time since the last look, and whether the kernel held the group back in it.
    ///
    /// Reads a small file, and two for each group with a quota, some 10 us in all; for once an interval.
    pub(super) fn look(&mut self, elapsed: Duration) -> (f64, bool) {
        self.find_groups();
        let spent = spent();
        let (cores, throttled) = limits(&self.groups);
        let load = spent.saturating_sub(self.spent).as_secs_f64() / elapsed.as_secs_f64().max(1e-9) / cores;
        let held_back = throttled > self.throttled;
        (self.spent, self.throttled) = (spent, throttled);
        (load, held_back)
    }

    /// Finds the groups of the process, if they are others than before.
    fn find_groups(&mut self) {
        let table = cgroup::table();
        if table != self.table {
            self.groups = cgroup::groups(&table, CPU);
            (_, self.throttled) = limits(&self.groups);
            self.table = table;
        }
    }
}

/// CPU time of the calling thread so far; nothing if the kernel does not tell.
fn spent() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map_or(Duration::ZERO, Duration::from)
}

/// Cores that the groups may use, at most 1, and how often those with a quota were held back.
fn limits(groups: &[Group]) -> (f64, u64) {
    let (mut cores, mut throttled) = (1.0_f64, 0);
    for group in groups {
        let quota = match group.version {
            Version::Two => group.read("cpu.max"),
            Version::One => format!("{} {}", group.read("cpu.cfs_quota_us"), group.read("cpu.cfs_period_us")),
        };
        if let Some(quota) = quota_cores(&quota) {
            cores = cores.min(quota);
            throttled += times_throttled(&group.read("cpu.stat"));
        }
    }
    (cores, throttled)
}

/// Cores by "quota period"; `None` for "max", for -1, and for what is none.
fn quota_cores(text: &str) -> Option<f64> {
    let mut parts = text.split_ascii_whitespace().map(|part| part.parse::<f64>().ok().filter(|part| *part > 0.0));
    Some(parts.next()?? / parts.next()??)
}

/// The `nr_throttled` of a `cpu.stat`; 0 if there is none.
fn times_throttled(stat: &str) -> u64 {
    stat.lines().find_map(|line| line.strip_prefix("nr_throttled ")?.trim().parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;
    use crate::cgroup::groups_under;

    #[test]
    fn quotas_are_read_as_cores() {
        for (text, cores) in [
            ("50000 100000\n", Some(0.5)),
            ("200000 100000", Some(2.0)),
            ("max 100000", None),
            ("-1\n 100000\n", None),
            ("25000\n 50000\n", Some(0.5)),
            ("5000", None),
            ("5000 0", None),
            ("", None),
        ] {
            assert_eq!(quota_cores(text), cores, "{text:?}");
        }
    }

    #[test]
    fn the_count_of_throttling_is_found_among_others() {
        let stat = "usage_usec 5\nnr_periods 9\nnr_throttled 7\nthrottled_usec 123\n";
        assert_eq!((times_throttled(stat), times_throttled("usage_usec 5\n")), (7, 0));
    }

    /// Writes a group's files; gives its folder.
    fn write(root: &Path, group: &str, files: &[(&str, &str)]) {
        let folder = root.join(group);
        fs::create_dir_all(&folder).expect("a folder");
        files.iter().for_each(|(file, text)| fs::write(folder.join(file), text).expect("a file"));
    }

    #[test]
    fn the_smallest_quota_of_the_own_group_and_those_above_it_holds() {
        let root = tempfile::tempdir().expect("a temporary directory");
        let root = root.path();
        write(root, "pod", &[("cpu.max", "40000 100000"), ("cpu.stat", "nr_throttled 3\n")]);
        write(root, "pod/bot", &[("cpu.max", "150000 100000"), ("cpu.stat", "nr_throttled 4\n")]);
        write(root, "pod/free", &[("cpu.max", "max 100000"), ("cpu.stat", "nr_throttled 100\n")]);
        write(root, "other", &[("cpu.max", "1000 100000"), ("cpu.stat", "nr_throttled 5\n")]);
        for (table, expected) in [
            ("0::/pod/bot\n", (0.4, 7)),
            ("0::/pod/free\n", (0.4, 3)),
            ("0::/pod/gone/further\n", (0.4, 3)),
            ("0::/\n", (1.0, 0)),
            ("1:name=systemd:/other\n", (1.0, 0)),
            ("", (1.0, 0)),
        ] {
            assert_eq!(limits(&groups_under(root, table, CPU)), expected, "{table:?}");
        }
    }

    #[test]
    fn the_first_version_of_control_groups_is_read_as_well() {
        let root = tempfile::tempdir().expect("a temporary directory");
        let root = root.path();
        let files =
            [("cpu.cfs_quota_us", "25000\n"), ("cpu.cfs_period_us", "100000\n"), ("cpu.stat", "nr_throttled 2\n")];
        write(root, "cpu,cpuacct", &files);
        for table in ["4:cpu,cpuacct:/docker/1234\n0::/x\n", "1:cpu:/\n"] {
            assert_eq!(limits(&groups_under(root, table, CPU)), (0.25, 2), "{table:?}");
        }
        write(root, "cpu,cpuacct", &[("cpu.cfs_quota_us", "-1\n")]);
        assert_eq!(limits(&groups_under(root, "1:cpu:/\n", CPU)), (1.0, 0));
    }

    #[test]
    fn a_thread_that_computes_is_seen_to() {
        let mut cpu = Cpu::of_this_thread();
        let before = spent();
        let mut sum = 0_u64;
        while spent() - before < Duration::from_millis(5) {
            sum = std::hint::black_box(sum.wrapping_mul(31).wrapping_add(1));
        }
        let (load, _) = cpu.look(Duration::from_millis(10));
        assert!(load >= 0.5, "{load}");
    }
}
