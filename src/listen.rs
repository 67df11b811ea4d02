//! Takes datagrams from sockets, in threads of their own.
//!
//! In: an address and what the kernel queues there. Out: each datagram through a `Pipeline`, its counts in the books.
//! Not here: lines and samples.
//! Always: what a socket takes in or the kernel drops for it is counted; a worker that has nothing to do sleeps in the
//! kernel and costs nothing.

mod gather;
mod kernel;
pub mod udp;

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};

use nix::time::{ClockId, clock_gettime};

/// Milliseconds since the machine started, sleep included: the time that workers tell a pipeline, and readers use with
/// what it wrote. It never goes back. Costs some 30 ns.
pub fn uptime_ms() -> u64 {
    clock_gettime(ClockId::CLOCK_BOOTTIME)
        .map_or(0, |now| now.tv_sec() as u64 * 1000 + now.tv_nsec() as u64 / 1_000_000)
}

/// The first address that `host:port` resolves to.
///
/// # Errors
/// What the resolver says, or `NotFound` if it knows the name but no address.
pub fn resolve(address: &str) -> io::Result<SocketAddr> {
    let none = || io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    address.to_socket_addrs()?.next().ok_or_else(none)
}
