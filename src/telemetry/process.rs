//! CPU, memory and descriptors of the process.
//!
//! In: `/proc/self`, limits. Out: [`Process`], read from the kernel each time; `None` for what it does not tell.
//! Always: three system calls for a file and two or three more. A crate that reads the same files and a few others took
//! a tenth of the time of a small scrape.
//! Follows: Linux `proc_pid_stat(5)`.

use std::fs;
use std::sync::OnceLock;

use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit};
use nix::unistd::{SysconfVar, sysconf};

/// What the kernel tells of the process now.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Process {
    /// User and system time of all threads so far, in the kernel's ticks of 10 ms.
    pub(super) cpu_seconds: Option<f64>,
    pub(super) open_fds: Option<u64>,
    /// 0 for no limit, as below.
    pub(super) max_fds: Option<u64>,
    pub(super) virtual_bytes: Option<u64>,
    pub(super) virtual_max_bytes: Option<u64>,
    pub(super) resident_bytes: Option<u64>,
    /// Since 1970.
    pub(super) start_seconds: Option<u64>,
    pub(super) threads: Option<u64>,
}

/// What stays as it is.
#[derive(Debug)]
struct Constants {
    ticks_per_second: f64,
    page_bytes: u64,
    /// Since 1970; `None` if the kernel hides it.
    booted_seconds: Option<u64>,
}

impl Process {
    /// Asks the kernel.
    pub(super) fn read() -> Self {
        let of_stat = fs::read_to_string("/proc/self/stat").ok().and_then(|stat| Self::of_stat(&stat, constants()));
        Self {
            open_fds: open_fds(),
            max_fds: limit(Resource::RLIMIT_NOFILE),
            virtual_max_bytes: limit(Resource::RLIMIT_AS),
            ..of_stat.unwrap_or_default()
        }
    }

    /// What `/proc/self/stat` says; `None` if it is not as it is known.
    fn of_stat(stat: &str, constants: &Constants) -> Option<Self> {
        // The name of the process stands in parentheses, and may hold any characters. The state behind it is field 3.
        let (_, fields) = stat.rsplit_once(')')?;
        let fields: Vec<&str> = fields.split_ascii_whitespace().collect();
        let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
        let ticks = |number: usize| field(number).map(|ticks| ticks as f64 / constants.ticks_per_second);
        Some(Self {
            cpu_seconds: ticks(14).zip(ticks(15)).map(|(user, system)| user + system),
            virtual_bytes: field(23),
            resident_bytes: field(24).map(|pages| pages * constants.page_bytes),
            start_seconds: constants.booted_seconds.zip(ticks(22)).map(|(booted, after)| booted + after as u64),
            threads: field(20),
            ..Self::default()
        })
    }
}

fn constants() -> &'static Constants {
    static CONSTANTS: OnceLock<Constants> = OnceLock::new();
    let ask = |what, usual: u64| sysconf(what).ok().flatten().and_then(|n| u64::try_from(n).ok()).unwrap_or(usual);
    CONSTANTS.get_or_init(|| {
        let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
        Constants {
            ticks_per_second: ask(SysconfVar::CLK_TCK, 100) as f64,
            page_bytes: ask(SysconfVar::PAGE_SIZE, 4096),
            booted_seconds: stat.lines().find_map(|line| line.strip_prefix("btime ")?.trim().parse().ok()),
        }
    })
}

/// Linux 6.2 and later tell how many there are as the size of the folder; before that they are counted.
fn open_fds() -> Option<u64> {
    const FOLDER: &str = "/proc/self/fd";
    match fs::metadata(FOLDER).ok()?.len() {
        // The one that the folder is read through is not counted.
        0 => Some((fs::read_dir(FOLDER).ok()?.count() as u64).saturating_sub(1)),
        found => Some(found),
    }
}

fn limit(resource: Resource) -> Option<u64> {
    let (soft, _) = getrlimit(resource).ok()?;
    Some(if soft == RLIM_INFINITY { 0 } else { soft })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_counted_from_behind_the_name_whatever_that_is() {
        let constants = Constants { ticks_per_second: 100.0, page_bytes: 4096, booted_seconds: Some(1_700_000_000) };
        let stat = "42 (a) b (c) S 1 42 42 0 -1 4194560 100 0 0 0 150 25 0 0 20 0 4 0 12345 99999744 512 1844674407\n";
        let expected = Process {
            cpu_seconds: Some(1.75),
            virtual_bytes: Some(99_999_744),
            resident_bytes: Some(2_097_152),
            start_seconds: Some(1_700_000_123),
            threads: Some(4),
            ..Process::default()
        };
        assert_eq!(Process::of_stat(stat, &constants), Some(expected));
        assert_eq!(Process::of_stat("", &constants), None);
        assert_eq!(Process::of_stat("1 (a) S 1", &constants), Some(Process::default()));
    }

    #[test]
    fn everything_is_told_of_this_process() {
        let file = fs::File::open("/proc/self/stat").expect("it is there");
        let now = Process::read();
        drop(file);
        assert!(now.cpu_seconds.is_some_and(|seconds| seconds >= 0.0), "{now:?}");
        assert!(now.open_fds.is_some_and(|fds| (4..100_000).contains(&fds)), "{now:?}");
        assert!(now.resident_bytes < now.virtual_bytes && now.resident_bytes > Some(1 << 20), "{now:?}");
        assert!(now.threads >= Some(2), "the test has its own: {now:?}");
        let since_1970 = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("later").as_secs();
        assert!(now.start_seconds.is_some_and(|start| start <= since_1970 + 1), "{now:?}");
        assert!(now.max_fds.is_some() && now.virtual_max_bytes.is_some(), "{now:?}");
    }
}
