//! UDP: one socket and one thread for each worker.
//!
//! In: an address, or sockets that are bound. Out: [`Sockets`], each read in batches by a [`Worker`].
//! Always: a port in use is an error, also when another process holds it with SO_REUSEPORT.

use std::fs::File;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use nix::sys::socket::{setsockopt, sockopt};
use nix::sys::stat::fstat;
use socket2::{Domain, Protocol, SockRef, Socket, Type};

use super::gather::Gather;
use super::kernel::{extend_drops, queues};
use super::worker::Worker;
use crate::clock::Clock;
use crate::pipeline::Pipeline;
use crate::telemetry::{Books, Listener, SocketBooks};

/// The sockets of all workers, bound to one address.
#[derive(Debug)]
pub struct Sockets {
    sockets: Vec<Arc<OwnedFd>>,
    inodes: Vec<u64>,
    books: Vec<Arc<SocketBooks>>,
    /// Each once.
    addresses: Vec<SocketAddr>,
}

impl Sockets {
    /// Binds `count` sockets to `address` and asks for `buffer_bytes` of receive buffer for each.
    ///
    /// The first is bound without SO_REUSEPORT, so that a port in use is found out; the option is set after, and the
    /// others join.
    ///
    /// # Errors
    /// What the kernel says, `AddrInUse` above all.
    pub fn bind(address: SocketAddr, count: usize, buffer_bytes: usize) -> io::Result<Self> {
        let mut sockets = Self { sockets: Vec::new(), inodes: Vec::new(), books: Vec::new(), addresses: Vec::new() };
        for number in 0..count {
            let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
            socket.set_nonblocking(true)?;
            if number == 0 {
                socket.bind(&address.into())?;
                socket.set_reuse_port(count > 1)?;
            } else {
                socket.set_reuse_port(true)?;
                socket.bind(&sockets.addresses[0].into())?;
            }
            set_receive_buffer(&socket, buffer_bytes)?;
            let socket = UdpSocket::from(socket);
            sockets.push(socket)?;
        }
        Ok(sockets)
    }

    /// Takes sockets that are bound already, as they are; there must be one. Drops that the kernel counted before are
    /// counted here: they were between two processes.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn inherit(inherited: Vec<UdpSocket>) -> io::Result<Self> {
        if inherited.is_empty() {
            return Err(io::ErrorKind::NotFound.into());
        }
        let mut sockets = Self { sockets: Vec::new(), inodes: Vec::new(), books: Vec::new(), addresses: Vec::new() };
        for socket in inherited {
            socket.set_nonblocking(true)?;
            sockets.push(socket)?;
        }
        Ok(sockets)
    }

    fn push(&mut self, socket: UdpSocket) -> io::Result<()> {
        setsockopt(&socket, sockopt::ReceiveTimestampns, &true)?;
        setsockopt(&socket, sockopt::RxqOvfl, &1)?;
        let granted = SockRef::from(&socket).recv_buffer_size()? as u64;
        let address = socket.local_addr()?;
        if !self.addresses.contains(&address) {
            self.addresses.push(address);
        }
        self.inodes.push(fstat(&socket)?.st_ino);
        self.sockets.push(Arc::new(socket.into()));
        self.books.push(Arc::new(SocketBooks::new(Listener::Udp, granted)));
        Ok(())
    }

    /// Where they are bound, one address at least; the port is the one given out if 0 was asked for.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// The books of each socket.
    pub fn books(&self) -> &[Arc<SocketBooks>] {
        &self.books
    }

    /// Bytes of receive buffer that the kernel granted each socket, as it charges them (twice what was asked).
    pub fn granted_bytes(&self) -> u64 {
        self.books.iter().map(|books| books.queue_limit_bytes.load(Relaxed)).min().unwrap_or(0)
    }

    /// The worker of socket `number`, which nobody else reads.
    ///
    /// # Errors
    /// If the kernel has no descriptor left.
    pub fn worker(
        &self,
        number: usize,
        coalesce: Duration,
        clock: Clock,
        pipeline: Pipeline,
        books: Arc<Books>,
    ) -> io::Result<Worker> {
        let queue = self.books[number].clone();
        let gather = Gather::new(coalesce, queue.queue_limit_bytes.load(Relaxed));
        let pressure = Some(queue.queue_limit_bytes.load(Relaxed));
        Worker::new(self.sockets[number].clone(), queue, (gather, pressure), clock, pipeline, books)
    }

    /// Asks the kernel for queue and drops of each socket, so that they are right when no datagram follows to tell.
    ///
    /// Where `/proc/self/net` cannot be read, the counts are as the last datagram told them.
    pub fn refresh(&self) {
        let mut left = self.inodes.len();
        for path in ["/proc/self/net/udp", "/proc/self/net/udp6"] {
            // One of an address family that is not spoken here, or that cannot be read on, is as good as empty.
            let Ok(table) = File::open(path) else { continue };
            _ = queues(table, &self.inodes, |place, queue| {
                self.books[place].queue_bytes.store(queue.bytes, Relaxed);
                extend_drops(&self.books[place].kernel_dropped, queue.drops);
                left = left.saturating_sub(1);
            });
            if left == 0 {
                break;
            }
        }
    }
}

/// Asks for a receive buffer, past the system's limit if the process may.
fn set_receive_buffer(socket: &Socket, bytes: usize) -> io::Result<()> {
    if setsockopt(socket, sockopt::RcvBufForce, &bytes).is_err() {
        socket.set_recv_buffer_size(bytes)?;
    }
    Ok(())
}
