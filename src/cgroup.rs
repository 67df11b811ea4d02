//! The control groups that this process is in.
//!
//! In: the kernel's table of the process's groups, and where groups are mounted. Out: the folders of the process's own
//! group and of those above it, for one controller, in either version.
//! Not here: what the files in them mean for a thread's CPU (`listen::cpu`).
//! Always: what cannot be read is no group, and no limit. Any of the groups may hold the limit, so all are given that
//! can be seen.
//! Follows: Linux `Documentation/admin-guide/cgroup-v2.rst`, `cgroup-v1/cgroups.rst` and `cgroup-v1/memory.rst`.

use std::fs::read_to_string;
use std::path::{Path, PathBuf};

/// Where groups are mounted.
const ROOT: &str = "/sys/fs/cgroup";
/// The process's groups, one line for each hierarchy.
const TABLE: &str = "/proc/self/cgroup";
/// Folders of the second version under [`ROOT`]: alone, and beside the first.
const MOUNTS_OF_TWO: [&str; 2] = ["", "unified"];

/// A control group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// Its folder.
    pub path: PathBuf,
    /// Which of the two versions its files are of.
    pub version: Version,
}

/// The versions of control groups; their files have other names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// One hierarchy for each controller.
    One,
    /// One for all.
    Two,
}

/// What is asked for.
#[derive(Clone, Copy, Debug)]
pub struct Controller {
    /// Its name in the table of the first version.
    pub name: &'static str,
    /// Folders under the mount that hold it there; one of them is often a link to the other.
    pub mounts: &'static [&'static str],
    /// The file that a group of the first, and of the second version has if it may hold a limit.
    pub files: [&'static str; 2],
}

const MEMORY: Controller =
    Controller { name: "memory", mounts: &["memory"], files: ["memory.limit_in_bytes", "memory.max"] };

impl Controller {
    fn file(self, version: Version) -> &'static str {
        match version {
            Version::One => self.files[0],
            Version::Two => self.files[1],
        }
    }
}

impl Group {
    /// A file of it; empty if it cannot be read.
    pub fn read(&self, file: &str) -> String {
        read_to_string(self.path.join(file)).unwrap_or_default()
    }
}

/// The kernel's table of this process's groups; empty if it cannot be read. The process may be moved while it runs.
pub fn table() -> String {
    read_to_string(TABLE).unwrap_or_default()
}

/// The groups of the process that `table` names, and those above them.
pub fn groups(table: &str, controller: Controller) -> Vec<Group> {
    groups_under(Path::new(ROOT), table, controller)
}

/// The same, with groups mounted at `root`.
pub(crate) fn groups_under(root: &Path, table: &str, controller: Controller) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    for line in table.lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(own)) = (parts.next(), parts.next()) else { continue };
        let (version, mounts) = match controllers {
            "" => (Version::Two, &MOUNTS_OF_TWO[..]),
            names if names.split(',').any(|name| name == controller.name) => (Version::One, controller.mounts),
            _ => continue,
        };
        for mount in mounts {
            let mount = root.join(mount);
            // A container may be told of a path that it cannot see; the mount is then its own group.
            for above in Path::new(own.trim_start_matches('/')).ancestors() {
                let group = Group { path: mount.join(above), version };
                if group.path.join(controller.file(version)).exists() {
                    groups.push(group);
                }
            }
            if groups.iter().any(|group| group.version == version) {
                break;
            }
        }
    }
    groups
}

/// The memory that the process may take by its control groups, bytes; `None` without a limit.
pub fn memory_limit() -> Option<u64> {
    memory_limit_under(Path::new(ROOT), &table())
}

fn memory_limit_under(root: &Path, table: &str) -> Option<u64> {
    let groups = groups_under(root, table, MEMORY);
    // The second version says "max" where there is none, the first a number beyond any memory.
    let limits = groups.iter().filter_map(|group| group.read(MEMORY.file(group.version)).trim().parse().ok());
    limits.filter(|limit| *limit < 1 << 60).min()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn write(root: &Path, group: &str, file: &str, text: &str) {
        let folder = root.join(group);
        fs::create_dir_all(&folder).expect("a folder");
        fs::write(folder.join(file), text).expect("a file");
    }

    #[test]
    fn the_smallest_limit_of_memory_of_the_own_group_and_those_above_it_holds() {
        let root = tempfile::tempdir().expect("a temporary directory");
        let root = root.path();
        write(root, "pod", "memory.max", "268435456\n");
        write(root, "pod/bot", "memory.max", "max\n");
        write(root, "pod/small", "memory.max", "1000\n");
        write(root, "free", "memory.max", "max\n");
        for (table, expected) in [
            ("0::/pod/bot\n", Some(268_435_456)),
            ("0::/pod/small\n", Some(1000)),
            ("0::/free\n", None),
            ("0::/\n", None),
            ("4:memory:/pod\n", None),
            ("", None),
        ] {
            assert_eq!(memory_limit_under(root, table), expected, "{table:?}");
        }
    }

    #[test]
    fn the_first_version_says_that_there_is_no_limit_by_a_number() {
        let root = tempfile::tempdir().expect("a temporary directory");
        let root = root.path();
        write(root, "memory", "memory.limit_in_bytes", "9223372036854771712\n");
        write(root, "memory/docker/1", "memory.limit_in_bytes", "134217728\n");
        for (table, expected) in [
            ("4:memory:/docker/1\n0::/\n", Some(134_217_728)),
            ("4:memory:/docker\n", None),
            // Seen from inside a container, whose mount is its own group.
            ("4:memory:/elsewhere/7\n", None),
        ] {
            assert_eq!(memory_limit_under(root, table), expected, "{table:?}");
        }
    }
}
