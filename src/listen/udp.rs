//! UDP: one socket and one thread for each worker.
//!
//! In: an address. Out: [`Sockets`] bound to it, each read in batches by a [`Worker`].
//! Always: a port in use is an error, also when another process holds it with SO_REUSEPORT; each datagram is read once,
//! by one worker; the counts of a batch are published before the worker sleeps.

use std::io::{self, IoSliceMut};
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::{AsFd, AsRawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering::Acquire, Ordering::Relaxed, Ordering::Release};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, MultiHeaders, recvmmsg, setsockopt, sockopt};
use nix::sys::stat::fstat;
use nix::sys::time::TimeSpec;
use socket2::{Domain, Protocol, Socket, Type};
use tracing::warn;

use super::gather::{Gather, Wait};
use super::kernel::{extend_drops, queue_in};
use super::pressure::Pressure;
use crate::clock::Clock;
use crate::pipeline::Pipeline;
use crate::telemetry::{Books, Listener, SocketBooks};

/// Datagrams in one read, at most; and at least, while few arrive.
const BATCH: usize = 64;
const SMALL_BATCH: usize = 8;
/// Room for one datagram: more than UDP can carry, so none is ever cut. The odd 2,112 bytes keep the beginnings of
/// buffers, which are the only parts that most datagrams fill, from competing for the same lines of the CPU's cache.
const STRIDE: usize = 65_536 + 2_112;
/// Bytes of a worker's buffers, of which those are memory that a datagram reached.
pub const BUFFER_BYTES: usize = BATCH * STRIDE;
/// How long to wait after a read failed for a reason that is no fault of a datagram.
const RETRY: Duration = Duration::from_millis(100);

/// The sockets of all workers, bound to one address.
#[derive(Debug)]
pub struct Sockets {
    sockets: Vec<Arc<UdpSocket>>,
    inodes: Vec<u64>,
    books: Vec<Arc<SocketBooks>>,
    address: SocketAddr,
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
        let mut sockets = Self { sockets: Vec::new(), inodes: Vec::new(), books: Vec::new(), address };
        for number in 0..count {
            let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
            socket.set_nonblocking(true)?;
            if number == 0 {
                socket.bind(&address.into())?;
                socket.set_reuse_port(count > 1)?;
            } else {
                socket.set_reuse_port(true)?;
                socket.bind(&sockets.address.into())?;
            }
            let granted = set_receive_buffer(&socket, buffer_bytes)?;
            setsockopt(&socket, sockopt::ReceiveTimestampns, &true)?;
            setsockopt(&socket, sockopt::RxqOvfl, &1)?;
            let socket = UdpSocket::from(socket);
            sockets.address = socket.local_addr()?;
            sockets.inodes.push(fstat(&socket)?.st_ino);
            sockets.sockets.push(Arc::new(socket));
            sockets.books.push(Arc::new(SocketBooks::new(Listener::Udp, granted)));
        }
        Ok(sockets)
    }

    /// Where they are bound; the port is the one given out if 0 was asked for.
    pub fn address(&self) -> SocketAddr {
        self.address
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
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        Ok(Worker {
            socket: self.sockets[number].clone(),
            gather: Gather::new(coalesce, queue.queue_limit_bytes.load(Relaxed)),
            queue,
            pipeline,
            books,
            control: Arc::new(Control {
                asked: AtomicU8::new(NOTHING),
                emptied: AtomicBool::new(false),
                wake: EventFd::from_flags(flags)?,
            }),
            buffers: vec![0; BUFFER_BYTES].into_boxed_slice(),
            clock,
        })
    }

    /// Asks the kernel for queue and drops of each socket, so that they are right when no datagram follows to tell.
    ///
    /// Where `/proc/self/net` cannot be read, the counts are as the last datagram told them.
    pub fn refresh(&self) {
        let path = if self.address.is_ipv6() { "/proc/self/net/udp6" } else { "/proc/self/net/udp" };
        let Ok(table) = std::fs::read_to_string(path) else { return };
        for (books, inode) in self.books.iter().zip(&self.inodes) {
            if let Some(queue) = queue_in(&table, *inode) {
                books.queue_bytes.store(queue.bytes, Relaxed);
                extend_drops(&books.kernel_dropped, queue.drops);
            }
        }
    }
}

/// Asks for a receive buffer, past the system's limit if the process may, and returns what was granted.
fn set_receive_buffer(socket: &Socket, bytes: usize) -> io::Result<u64> {
    if setsockopt(socket, sockopt::RcvBufForce, &bytes).is_err() {
        socket.set_recv_buffer_size(bytes)?;
    }
    Ok(socket.recv_buffer_size()? as u64)
}

/// Tells a worker to take all that its socket holds, and whether to go on then.
#[derive(Debug)]
pub struct Control {
    asked: AtomicU8,
    emptied: AtomicBool,
    wake: EventFd,
}

/// What a worker is asked for.
const NOTHING: u8 = 0;
const EMPTY: u8 = 1;
const STOP: u8 = 2;

impl Control {
    /// Asks it to take what its socket holds now, and to go on; [`Control::has_emptied`] tells when it has.
    pub fn empty(&self) {
        self.ask(EMPTY);
    }

    /// Asks it to take what its socket holds now, and to end.
    pub fn stop(&self) {
        self.ask(STOP);
    }

    /// Whether all that the socket held when [`Control::empty`] was called is in the books.
    pub fn has_emptied(&self) -> bool {
        // Pairs with the worker's `Release`: who sees it set sees what was recorded before.
        self.emptied.load(Acquire)
    }

    fn ask(&self, what: u8) {
        self.asked.fetch_max(what, Relaxed);
        // It can fail only if it was asked 2^64 times before; the worker is awake then.
        let _ = self.wake.write(1);
    }
}

/// Reads one socket, batch by batch, until asked to stop.
pub struct Worker {
    socket: Arc<UdpSocket>,
    queue: Arc<SocketBooks>,
    gather: Gather,
    pipeline: Pipeline,
    books: Arc<Books>,
    control: Arc<Control>,
    buffers: Box<[u8]>,
    clock: Clock,
}

/// What one read took.
struct Batch {
    datagrams: usize,
    bytes: usize,
    full: bool,
}

impl Worker {
    /// What this worker is told by.
    pub fn control(&self) -> Arc<Control> {
        self.control.clone()
    }

    /// Reads until asked to stop, then what the socket holds, and returns.
    pub fn run(mut self) {
        let mut last_read = self.clock.now();
        let mut pressure = Pressure::new(self.queue.queue_limit_bytes.load(Relaxed), last_read);
        let mut room = SMALL_BATCH;
        let mut failing = false;
        self.wait(Wait::Kernel, last_read);
        loop {
            match self.control.asked.load(Relaxed) {
                STOP => break,
                EMPTY => self.obey(&mut pressure),
                _ => {}
            }
            let started = self.clock.now();
            if pressure.tell(&mut self.pipeline, started) {
                self.pipeline.end(&self.books);
            }
            let wait = match self.read(room, &mut pressure) {
                Ok(batch) => {
                    failing = false;
                    let wait =
                        self.gather.after(batch.datagrams, batch.bytes, started.saturating_sub(last_read), batch.full);
                    room = if batch.datagrams < SMALL_BATCH { SMALL_BATCH } else { BATCH };
                    wait
                }
                Err(error) => {
                    if !failing {
                        warn!(listener = "udp", %error, "reading failed, trying again");
                    }
                    failing = true;
                    self.sleep(None, Some(RETRY));
                    Wait::None
                }
            };
            last_read = started;
            self.wait(wait, started);
        }
        self.drain(&mut pressure);
    }

    /// Takes what the socket holds and goes on, unless it was asked to stop meanwhile.
    fn obey(&mut self, pressure: &mut Pressure) {
        let _ = self.control.wake.read();
        self.drain(pressure);
        let _ = self.control.asked.compare_exchange(EMPTY, NOTHING, Relaxed, Relaxed);
        self.control.emptied.store(true, Release);
    }

    /// Takes what the socket holds, and no more than its buffer's worth: a sender may go on for ever.
    fn drain(&mut self, pressure: &mut Pressure) {
        let mut left = self.queue.queue_limit_bytes.load(Relaxed);
        while let Ok(batch) = self.read(BATCH, pressure) {
            left = left.saturating_sub(batch.bytes as u64);
            if batch.datagrams == 0 || left == 0 {
                break;
            }
        }
    }

    /// Reads up to `room` datagrams, takes them through the pipeline, and publishes the counts.
    fn read(&mut self, room: usize, pressure: &mut Pressure) -> io::Result<Batch> {
        let Self { socket, queue, pipeline, buffers, .. } = self;
        let mut slices: Vec<[IoSliceMut<'_>; 1]> =
            buffers.chunks_exact_mut(STRIDE).take(room).map(|buffer| [IoSliceMut::new(buffer)]).collect();
        // Made anew for each read: the call does not restore the length of a header's control space, so that after a
        // batch without drops a reused one has no room for the drop count, and both it and the stamp would be lost.
        let control = nix::cmsg_space!(TimeSpec, u32);
        let mut headers = MultiHeaders::<()>::preallocate(room, Some(control));
        let flags = MsgFlags::MSG_DONTWAIT;
        let messages = match recvmmsg(socket.as_raw_fd(), &mut headers, slices.iter_mut(), flags, None) {
            Ok(messages) => messages,
            Err(Errno::EAGAIN | Errno::EINTR) => return Ok(Batch { datagrams: 0, bytes: 0, full: false }),
            Err(errno) => return Err(errno.into()),
        };
        pipeline.begin(self.clock.now());
        let mut batch = Batch { datagrams: 0, bytes: 0, full: false };
        let mut arrivals = [0u64; BATCH];
        let mut drops = None;
        for message in messages {
            for control in message.cmsgs().into_iter().flatten() {
                match control {
                    ControlMessageOwned::ScmTimestampns(stamp) => {
                        arrivals[batch.datagrams] = stamp.tv_sec() as u64 * 1_000_000_000 + stamp.tv_nsec() as u64;
                    }
                    ControlMessageOwned::RxqOvfl(count) => drops = Some(count),
                    _ => {}
                }
            }
            if let Some(datagram) = message.iovs().next() {
                pipeline.datagram(datagram);
            }
            pressure.took(arrivals[batch.datagrams], message.bytes);
            batch.bytes += message.bytes;
            batch.datagrams += 1;
        }
        batch.full = batch.datagrams == room;
        if let Some(drops) = drops {
            extend_drops(&queue.kernel_dropped, drops);
            pressure.dropped(drops);
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_nanos() as u64);
        for arrival in arrivals.iter().take(batch.datagrams).filter(|arrival| **arrival > 0) {
            pipeline.tally().latency(now.saturating_sub(*arrival));
        }
        pressure.ended(batch.full, now);
        pipeline.end(&self.books);
        // This thread alone writes these two, so a load and a store will do.
        queue.datagrams.store(queue.datagrams.load(Relaxed) + batch.datagrams as u64, Relaxed);
        queue.bytes.store(queue.bytes.load(Relaxed) + batch.bytes as u64, Relaxed);
        Ok(batch)
    }

    /// Waits as decided; `started` is when the last read began.
    fn wait(&self, wait: Wait, started: Duration) {
        match wait {
            Wait::None => {}
            Wait::Kernel => {
                let restless = self.pipeline.is_restless();
                self.sleep(Some(&self.socket), restless.then(|| self.pipeline.sampling_interval()));
            }
            Wait::Timer(until) => {
                let spent = self.clock.now().saturating_sub(started);
                if spent < until {
                    self.sleep(None, Some(until - spent));
                }
            }
        }
    }

    /// Sleeps until `socket` has something, the time is up, or the worker is asked to stop.
    fn sleep(&self, socket: Option<&UdpSocket>, time: Option<Duration>) {
        let time = time.map(TimeSpec::from_duration);
        let stop = PollFd::new(self.control.wake.as_fd(), PollFlags::POLLIN);
        // A failure means a signal, or no memory for the kernel's list: the next read tells more.
        let _ = match socket {
            Some(socket) => ppoll(&mut [stop, PollFd::new(socket.as_fd(), PollFlags::POLLIN)], time, None),
            None => ppoll(&mut [stop], time, None),
        };
    }
}
