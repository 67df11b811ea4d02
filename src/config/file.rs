//! Reads a file that somebody names, whatever it turns out to be.
//!
//! In: a path. Out: its bytes, or why there are none; and what tells them from others ([`Known`]).
//! Not here: what they mean.
//! Always: it ends, and takes no more memory than [`MOST_BYTES`]. A pipe into which nobody writes, or a device without
//! an end, would else stop the thread that answers scrapes, when a reload comes upon it.

use std::collections::hash_map::RandomState;
use std::fs::{File, OpenOptions};
use std::hash::BuildHasher;
use std::io::{self, ErrorKind, Read};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// The longest file that is read: a hundred thousand mapping rules.
const MOST_BYTES: u64 = 16 << 20;
/// How long the writer of a pipe may take in all, as of `--config <(...)`.
const PATIENCE: Duration = Duration::from_secs(5);

/// A file that was read, and what tells its content of then, or why there was none, from another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    path: PathBuf,
    content: u64,
}

impl Known {
    /// Reads a file as [`read`] does.
    pub(crate) fn read(path: &Path) -> (io::Result<Vec<u8>>, Self) {
        let found = read(path);
        let known = Self { path: path.to_owned(), content: content(&found) };
        (found, known)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What tells its content of now from others, if it is another than it was. Reads the file. One that is gone for a
    /// moment is another, and so is one that comes back.
    pub fn changed(&self) -> Option<u64> {
        let now = content(&read(&self.path));
        (now != self.content).then_some(now)
    }
}

/// A hash by a key of this process, so that what is kept of a salt tells nothing of it.
fn content(found: &io::Result<Vec<u8>>) -> u64 {
    static HASHER: LazyLock<RandomState> = LazyLock::new(RandomState::new);
    HASHER.hash_one(found.as_ref().map_err(io::Error::kind))
}

/// Reads a file as [`read`] does, and adds it to `files`, whatever came of it.
pub(super) fn read_noted(path: &Path, files: &mut Vec<Known>) -> io::Result<Vec<u8>> {
    let (found, known) = Known::read(path);
    files.push(known);
    found
}

/// The bytes of a file, or of what is written into a pipe until its end.
///
/// # Errors
/// What the kernel says, for a folder as well; `FileTooLarge`; `TimedOut` for a pipe that is not written in time.
pub(crate) fn read(path: &Path) -> io::Result<Vec<u8>> {
    read_within(path, PATIENCE)
}

fn read_within(path: &Path, patience: Duration) -> io::Result<Vec<u8>> {
    // Without it, to open a pipe waits for a writer. Of a file it changes nothing.
    let mut file = OpenOptions::new().read(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(path)?;
    let mut bytes = Vec::new();
    let until = Instant::now() + patience;
    loop {
        // What was read is in `bytes` also if an error ends it.
        let left = MOST_BYTES + 1 - bytes.len() as u64;
        match (&mut file).take(left).read_to_end(&mut bytes) {
            Ok(_) if bytes.len() as u64 > MOST_BYTES => {
                return Err(io::Error::new(ErrorKind::FileTooLarge, format!("longer than {} MiB", MOST_BYTES >> 20)));
            }
            Ok(_) => return Ok(bytes),
            Err(error) if error.kind() == ErrorKind::WouldBlock => wait(&file, until)?,
            Err(error) => return Err(error),
        }
    }
}

/// Waits until there is more to read.
fn wait(pipe: &File, until: Instant) -> io::Result<()> {
    let left = until.saturating_duration_since(Instant::now());
    let ready = PollFd::new(pipe.as_fd(), PollFlags::POLLIN);
    match poll(&mut [ready], PollTimeout::try_from(left).unwrap_or(PollTimeout::ZERO)) {
        Ok(0) => Err(io::Error::new(ErrorKind::TimedOut, "a pipe that is not written to its end")),
        Ok(_) | Err(nix::errno::Errno::EINTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::fd::AsRawFd;

    use super::*;

    #[test]
    fn files_are_read_whole_and_what_is_none_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        std::fs::write(&file, "text").unwrap();
        assert_eq!(read(&file).unwrap(), b"text");
        assert_eq!(read(Path::new("/dev/null")).unwrap(), b"");
        for (path, expected) in [
            (folder.path(), ErrorKind::IsADirectory),
            (&folder.path().join("none"), ErrorKind::NotFound),
            (Path::new("/dev/zero"), ErrorKind::FileTooLarge),
        ] {
            assert_eq!(read(path).unwrap_err().kind(), expected, "{}", path.display());
        }
    }

    #[test]
    fn a_pipe_is_read_to_its_end_and_waited_for_no_longer_than_said() {
        let of_pipe = |pipe: &io::PipeReader| read(Path::new(&format!("/proc/self/fd/{}", pipe.as_raw_fd())));
        let (reader, mut writer) = io::pipe().unwrap();
        writer.write_all(b"te").unwrap();
        let writing = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(20));
            writer.write_all(b"xt").unwrap();
        });
        assert_eq!(of_pipe(&reader).unwrap(), b"text");
        writing.join().unwrap();
        let (reader, _writer) = io::pipe().unwrap();
        let unwritten = format!("/proc/self/fd/{}", reader.as_raw_fd());
        let error = read_within(Path::new(&unwritten), Duration::from_millis(20)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pipe");
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert_eq!(read(&path).unwrap(), b"", "nobody writes into it");
    }
}
