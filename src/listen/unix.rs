//! Unix sockets: bound by path, or by an abstract name.
//!
//! In: a path, or `@name`. Out: a bound socket, its file watched over ([`watch`]) and taken away at the end.
//! Always: a file that no process listens at any more is replaced, any other is an error and stays as it is; a file is
//! removed only while it is the one that was made.
//! Follows: unix(7).

pub mod watch;

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{SocketAddr, UnixDatagram, UnixListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use nix::sys::socket::{setsockopt, sockopt};
use socket2::{Domain, SockAddr, Socket, Type};

use super::gather::Gather;
use super::worker::Worker;
use crate::clock::Clock;
use crate::pipeline::Pipeline;
use crate::telemetry::{Books, SocketBooks};

/// Connections the kernel may complete before they are accepted.
const BACKLOG: i32 = 128;
/// What `net.unix.max_dgram_qlen` is unless it was changed.
const USUAL_QUEUE: u64 = 10;

/// A file that goes with its owner.
#[derive(Debug)]
pub struct OwnFile {
    path: PathBuf,
    inode: u64,
}

impl OwnFile {
    /// Whether its path leads to it yet. The number of a file is not given anew while its socket is open.
    fn is_there(&self) -> bool {
        fs::symlink_metadata(&self.path).is_ok_and(|found| found.ino() == self.inode)
    }
}

impl Drop for OwnFile {
    fn drop(&mut self) {
        // Whoever replaced it owns what is there now.
        if self.is_there() {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// A bound socket, and its file unless its name is abstract.
#[derive(Debug)]
pub struct Bound {
    socket: Socket,
    file: Option<OwnFile>,
}

impl Bound {
    /// Binds a socket of datagrams. Its file gets the permissions `mode`.
    ///
    /// # Errors
    /// `AddrInUse` if a process listens there, `AlreadyExists` if something else is there, or what the kernel says.
    pub fn datagrams(path: &str, mode: u32) -> io::Result<Self> {
        let bound = Self::bind(path, Type::DGRAM, mode)?;
        // For the latency from arrival to recorded; without, that stays unknown.
        let _ = setsockopt(&bound.socket, sockopt::ReceiveTimestampns, &true);
        Ok(bound)
    }

    /// Binds a socket of streams, and listens.
    ///
    /// # Errors
    /// As [`Bound::datagrams`].
    pub fn streams(path: &str, mode: u32) -> io::Result<Self> {
        let bound = Self::bind(path, Type::STREAM, mode)?;
        bound.socket.listen(BACKLOG)?;
        Ok(bound)
    }

    /// A socket of datagrams that is bound already. Its file is another's to remove.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn inherit(socket: UnixDatagram) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        let _ = setsockopt(&socket, sockopt::ReceiveTimestampns, &true);
        Ok(Self { socket: socket.into(), file: None })
    }

    fn bind(path: &str, kind: Type, mode: u32) -> io::Result<Self> {
        let socket = Socket::new(Domain::UNIX, kind, None)?;
        socket.set_nonblocking(true)?;
        if let Some(name) = path.strip_prefix('@') {
            socket.bind(&SockAddr::unix(format!("\0{name}"))?)?;
            return Ok(Self { socket, file: None });
        }
        let (path, address) = (Path::new(path), SockAddr::unix(path)?);
        make_way(path, &address)?;
        socket.bind(&address)?;
        let inode = fs::symlink_metadata(path)?.ino();
        let file = OwnFile { path: path.to_owned(), inode };
        fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
        Ok(Self { socket, file: Some(file) })
    }

    /// The listener of streams, and what removes its file when dropped.
    pub fn into_listener(self) -> (UnixListener, Option<OwnFile>) {
        (OwnedFd::from(self.socket).into(), self.file)
    }

    /// The worker of a socket of datagrams, and what removes its file when dropped.
    ///
    /// # Errors
    /// If the kernel has no descriptor left.
    pub fn worker(
        self,
        socket: Arc<SocketBooks>,
        coalesce: Duration,
        clock: Clock,
        pipeline: Pipeline,
        books: Arc<Books>,
    ) -> io::Result<(Worker, Option<OwnFile>)> {
        let gather = Gather::of_few(coalesce, longest_queue());
        let worker = Worker::new(Arc::new(self.socket.into()), socket, (gather, None), clock, pipeline, books)?;
        Ok((worker, self.file))
    }
}

/// How an address is written in a configuration.
pub fn written(address: &SocketAddr) -> String {
    match (address.as_pathname(), address.as_abstract_name()) {
        (Some(path), _) => path.display().to_string(),
        (_, Some(name)) => format!("@{}", name.escape_ascii()),
        _ => "a unix socket without a name".to_owned(),
    }
}

/// Removes a socket's file that nobody has open any more.
fn make_way(path: &Path, address: &SockAddr) -> io::Result<()> {
    let found = match fs::symlink_metadata(path) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    if !found.file_type().is_socket() {
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, "a file is there that is no socket"));
    }
    // A socket of datagrams, whatever is there: to one of streams this is an error, where a stream would be a connection
    // that its owner had to accept, and be waited for as long as he accepts none.
    let probe = Socket::new(Domain::UNIX, Type::DGRAM, None)?;
    match probe.connect(address) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path),
        // One of datagrams, one of streams, or one that may not be asked: it is somebody's.
        _ => Err(io::Error::new(io::ErrorKind::AddrInUse, "another process listens there")),
    }
}

/// Datagrams that the kernel queues for one socket.
fn longest_queue() -> u64 {
    let text = fs::read_to_string("/proc/sys/net/unix/max_dgram_qlen").unwrap_or_default();
    text.trim().parse().unwrap_or(USUAL_QUEUE)
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixDatagram;

    use super::*;

    #[test]
    fn a_stale_socket_is_replaced_and_anything_else_is_an_error() {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let path = folder.path().join("s.sock");
        let text = path.to_str().expect("UTF-8");
        drop(UnixListener::bind(&path).expect("bound"));
        assert!(path.exists(), "its file outlives it");
        let bound = Bound::streams(text, 0o600).expect("a stale one gives way");
        assert_eq!(fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o600);
        assert_eq!(Bound::streams(text, 0o600).expect_err("in use").kind(), io::ErrorKind::AddrInUse);
        assert_eq!(Bound::datagrams(text, 0o600).expect_err("in use").kind(), io::ErrorKind::AddrInUse);
        drop(bound);
        assert!(!path.exists(), "it takes its file along");
        fs::write(&path, "text").expect("written");
        assert_eq!(Bound::datagrams(text, 0o600).expect_err("a file").kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read_to_string(&path).expect("there"), "text");
    }

    #[test]
    fn whoever_listens_and_accepts_nobody_is_neither_waited_for_nor_connected_to() {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let path = folder.path().join("s.sock");
        let other = Socket::new(Domain::UNIX, Type::STREAM, None).expect("a socket");
        other.bind(&SockAddr::unix(&path).expect("an address")).expect("bound");
        let text = path.to_str().expect("UTF-8");
        let tried = |text| Bound::streams(text, 0o600).expect_err("in use").kind();
        assert_eq!(tried(text), io::ErrorKind::AddrInUse, "bound, and not listening yet");
        other.listen(0).expect("listening");
        for _ in 0..5 {
            assert_eq!(tried(text), io::ErrorKind::AddrInUse);
        }
        other.set_nonblocking(true).expect("set");
        assert_eq!(other.accept().expect_err("nobody came").kind(), io::ErrorKind::WouldBlock);
    }

    #[test]
    fn a_file_that_somebody_else_made_meanwhile_stays() {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let path = folder.path().join("s.sock");
        let bound = Bound::datagrams(path.to_str().expect("UTF-8"), 0o660).expect("bound");
        fs::rename(&path, folder.path().join("old")).expect("moved");
        let other = UnixDatagram::bind(&path).expect("bound");
        drop(bound);
        assert!(path.exists());
        drop(other);
    }

    #[test]
    fn an_abstract_name_has_no_file() {
        let name = format!("@statsieve-test-{}", std::process::id());
        let bound = Bound::datagrams(&name, 0o660).expect("bound");
        assert!(bound.file.is_none());
        assert!(Bound::datagrams(&name, 0o660).is_err(), "in use");
    }
}
