//! Takes datagrams and streams from sockets, in threads of their own.
//!
//! In: an address and what the kernel queues there. Out: each datagram, and each line of a stream, through a
//! `Pipeline`, its counts in the books.
//! Not here: lines and samples.
//! Always: what a socket takes in or the kernel drops for it is counted; a worker that has nothing to do sleeps in the
//! kernel and costs nothing; a socket that fails is tried again, and takes no other along.

#[allow(unreachable_pub, reason = "tests/races builds it as part of a library")]
mod asked;
mod cpu;
pub mod frame;
mod gather;
pub mod inherited;
mod kernel;
mod pressure;
pub mod stream;
pub mod udp;
pub mod unix;
pub mod worker;

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, ToSocketAddrs};
use std::time::Duration;

use nix::errno::Errno;
use socket2::{Domain, Protocol, Socket, Type};

/// Connections the kernel may complete before they are accepted.
const BACKLOG: i32 = 128;

/// The addresses that `host:port` resolves to.
///
/// # Errors
/// What the resolver says.
pub fn resolve(address: &str) -> io::Result<impl Iterator<Item = SocketAddr>> {
    address.to_socket_addrs()
}

/// Tries addresses in turn until one works; a name may stand for some that this machine does not have.
///
/// # Errors
/// That of the last address, or `NotFound` if there is none.
pub fn first_that_works<T>(
    addresses: impl Iterator<Item = SocketAddr>,
    mut attempt: impl FnMut(SocketAddr) -> io::Result<T>,
) -> io::Result<T> {
    let mut outcome = Err(io::Error::new(io::ErrorKind::NotFound, "the name has no address"));
    for address in addresses {
        outcome = attempt(address);
        if outcome.is_ok() {
            break;
        }
    }
    outcome
}

/// Binds `address` (`host:port`, resolved here; port 0 lets the kernel choose) for connections, so that they may come.
///
/// `[::]` takes those of IPv4 too, and those alone on a machine that has no IPv6.
///
/// # Errors
/// What resolving it or the last of the addresses it stands for failed with.
pub fn bind_tcp(address: &str) -> io::Result<TcpListener> {
    first_that_works(resolve(address)?, |address| match bind_connections(address) {
        Err(error) if address.ip() == Ipv6Addr::UNSPECIFIED && has_no_ipv6(&error) => {
            bind_connections((Ipv4Addr::UNSPECIFIED, address.port()).into())
        }
        bound => bound,
    })
}

fn bind_connections(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.ip() == Ipv6Addr::UNSPECIFIED {
        // Whatever net.ipv6.bindv6only says.
        socket.set_only_v6(false)?;
    }
    // A restart need not wait until the connections of the process before have timed out.
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

/// Whether an error says that the machine does not speak IPv6.
fn has_no_ipv6(error: &io::Error) -> bool {
    let code = error.raw_os_error();
    code == Some(Errno::EAFNOSUPPORT as i32) || code == Some(Errno::EADDRNOTAVAIL as i32)
}

/// How long to wait before the next try: 10 ms, doubled by each failure in a row, up to a second.
#[derive(Debug, Default)]
pub struct Backoff {
    wait: Option<Duration>,
}

impl Backoff {
    const FIRST: Duration = Duration::from_millis(10);
    const LONGEST: Duration = Duration::from_secs(1);

    /// Whether the last attempt failed.
    pub fn is_failing(&self) -> bool {
        self.wait.is_some()
    }

    /// An attempt failed: how long to wait before the next.
    pub fn failed(&mut self) -> Duration {
        let wait = self.wait.map_or(Self::FIRST, |wait| (wait * 2).min(Self::LONGEST));
        self.wait = Some(wait);
        wait
    }

    /// Accepts by `attempt`; `None` says that a run of failures is over though nobody has come. The kernel takes a
    /// descriptor before it looks who is there (`accept4` in `net/socket.c`), so an attempt that waits has got one.
    pub async fn accept<T>(&self, attempt: impl Future<Output = io::Result<T>>) -> Option<io::Result<T>> {
        tokio::select! {
            biased;
            outcome = attempt => Some(outcome),
            () = std::future::ready(()), if self.is_failing() => None,
        }
    }

    /// Whether an error of accepting says no more than that the client went away before.
    pub fn is_no_fault(error: &io::Error) -> bool {
        use io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted};
        matches!(error.kind(), ConnectionAborted | ConnectionReset | Interrupted)
    }

    /// An attempt succeeded: whether this ends a run of failures.
    pub fn succeeded(&mut self) -> bool {
        self.wait.take().is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_in_a_row_are_waited_out_ever_longer_up_to_a_second() {
        let mut backoff = Backoff::default();
        let waits: Vec<u128> = (0..9).map(|_| backoff.failed().as_millis()).collect();
        assert_eq!(waits, [10, 20, 40, 80, 160, 320, 640, 1000, 1000]);
        assert!(backoff.succeeded());
        assert!(!backoff.succeeded(), "only the first success ends it");
        assert_eq!(backoff.failed(), Backoff::FIRST);
    }

    #[test]
    fn failures_are_over_once_a_connection_is_waited_for() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let mut backoff = Backoff::default();
        let come = |backoff: &Backoff| runtime.block_on(backoff.accept(async { Ok(1) }));
        assert_eq!(come(&backoff).unwrap().unwrap(), 1);
        backoff.failed();
        assert_eq!(come(&backoff).unwrap().unwrap(), 1);
        let failed = runtime.block_on(backoff.accept(async { Err::<u8, _>(io::ErrorKind::OutOfMemory.into()) }));
        assert!(failed.is_some_and(|outcome| outcome.is_err()));
        assert!(runtime.block_on(backoff.accept(std::future::pending::<io::Result<u8>>())).is_none());
    }

    #[test]
    fn every_address_means_those_of_ipv4_too() {
        let listener = bind_tcp("[::]:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        std::net::TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
    }

    #[test]
    fn binding_resolves_names_and_a_port_in_use_is_an_error() {
        let first = bind_tcp("localhost:0").unwrap();
        let address = first.local_addr().unwrap();
        assert_eq!(bind_tcp(&address.to_string()).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        assert!(bind_tcp("no port here").is_err());
    }
}
