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

/// The first address that `host:port` resolves to.
///
/// # Errors
/// What the resolver says, or `NotFound` if it knows the name but no address.
pub fn resolve(address: &str) -> io::Result<SocketAddr> {
    let none = || io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    address.to_socket_addrs()?.next().ok_or_else(none)
}
