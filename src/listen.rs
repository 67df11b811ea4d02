//! Takes datagrams from sockets, in threads of their own.
//!
//! In: an address and what the kernel queues there. Out: each datagram through a `Pipeline`, its counts in the books.
//! Not here: lines and samples.
//! Always: what a socket takes in or the kernel drops for it is counted; a worker that has nothing to do sleeps in the
//! kernel and costs nothing.

mod cpu;
mod gather;
mod kernel;
mod pressure;
pub mod udp;

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};

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
