//! Reads one datagram socket in batches, in a thread of its own.
//!
//! In: a socket that is bound. Out: each datagram through the pipeline, its counts in the books.
//! Not here: binding (`udp`, `unix`), when to read (`gather`), how hard pressed it is (`pressure`).
//! Always: each datagram is read once; the counts of a batch are published before the worker sleeps; a failure is
//! waited out, told once, and shown until it is over.

use std::io::{self, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, MultiHeaders, Shutdown, recvmmsg, shutdown};
use nix::sys::time::TimeSpec;
use tokio::sync::Notify;
use tracing::{info, warn};

use super::asked::{Asked, CHANGE, EMPTY, STOP};
use super::gather::{Gather, Wait};
use super::kernel::extend_drops;
use super::pressure::Pressure;
use crate::clock::Clock;
use crate::pipeline::Pipeline;
use crate::telemetry::{Books, SocketBooks};

/// Datagrams in one read, at most and at least. In between there is room for twice as many as came last: to make ready
/// for more costs time in each read, and whatever is left is read at once.
const BATCH: usize = 64;
const SMALL_BATCH: usize = 8;
/// Room for one datagram: more than UDP can carry, so none is ever cut. The odd 2,112 bytes keep the beginnings of
/// buffers, which are the only parts that most datagrams fill, from competing for the same lines of the CPU's cache.
const STRIDE: usize = 65_536 + 2_112;
/// Bytes of a worker's buffers, of which those are memory that a datagram reached.
pub const BUFFER_BYTES: usize = BATCH * STRIDE;
/// How long to wait after a read failed for a reason that is no fault of a datagram.
const RETRY: Duration = Duration::from_millis(100);

/// What is read of a unix socket at most once it is to be emptied: more than its queue can hold.
const UNIX_DRAIN_BYTES: u64 = 64 << 20;

/// Tells a worker to take all that its socket holds, and whether to go on then.
#[derive(Debug)]
pub struct Control {
    asked: Asked<OwnedFd>,
    wake: Wake,
}

/// How a worker is woken: by a descriptor if it sleeps in the kernel, else by its runtime.
#[derive(Debug)]
enum Wake {
    Event(EventFd),
    Task(Notify),
}

impl Control {
    /// Asks it to take what its socket holds now, and to go on; [`Control::has_emptied`] tells when it has.
    pub fn empty(&self) {
        self.ask(EMPTY);
    }

    /// Asks it to take what its socket holds now, and to end.
    pub fn stop(&self) {
        self.ask(STOP);
    }

    /// Asks it to read `socket` from now on. What its old one holds is taken, and what is sent to that fails from then
    /// on, so that senders look for it anew. For a worker of datagrams of a unix socket.
    pub fn change_to(&self, socket: OwnedFd) {
        self.asked.change_to(socket);
        self.wake();
    }

    /// Whether it was asked to end.
    pub fn is_stopping(&self) -> bool {
        self.asked.is_stopping()
    }

    /// Whether all that the socket held when [`Control::empty`] or [`Control::stop`] was called is in the books.
    pub fn has_emptied(&self) -> bool {
        self.asked.has_emptied()
    }

    fn ask(&self, wish: u8) {
        self.asked.ask(wish);
        self.wake();
    }

    fn wake(&self) {
        match &self.wake {
            // It can fail only if it was asked 2^64 times before; the worker is awake then.
            Wake::Event(event) => _ = event.write(1),
            Wake::Task(notify) => notify.notify_one(),
        }
    }

    /// For a worker that runs as tasks.
    pub fn of_tasks() -> Self {
        Self::new(Wake::Task(Notify::new()))
    }

    fn new(wake: Wake) -> Self {
        Self { asked: Asked::default(), wake }
    }

    /// Waits until something is asked for: [`EMPTY`] or [`STOP`]. For a worker that runs as tasks.
    pub(super) async fn heard(&self) -> u8 {
        if let Wake::Task(notify) = &self.wake {
            notify.notified().await;
        }
        self.asked.take()
    }

    /// All that the socket held is in the books.
    pub(super) fn emptied(&self) {
        self.asked.emptied();
    }

    /// Takes the call to wake up.
    fn hear(&self) {
        if let Wake::Event(event) = &self.wake {
            let _ = event.read();
        }
    }
}

/// Reads one socket, batch by batch, until asked to stop.
pub struct Worker {
    socket: Arc<OwnedFd>,
    queue: Arc<SocketBooks>,
    gather: Gather,
    /// Bytes of buffer that fill up; `None` where a full queue makes senders wait, and nothing is lost.
    fills: Option<u64>,
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
    /// The worker of `socket`, which nobody else reads.
    ///
    /// # Errors
    /// If the kernel has no descriptor left.
    pub(super) fn new(
        socket: Arc<OwnedFd>,
        queue: Arc<SocketBooks>,
        (gather, fills): (Gather, Option<u64>),
        clock: Clock,
        pipeline: Pipeline,
        books: Arc<Books>,
    ) -> io::Result<Self> {
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        Ok(Self {
            socket,
            gather,
            fills,
            queue,
            pipeline,
            books,
            control: Arc::new(Control::new(Wake::Event(EventFd::from_flags(flags)?))),
            buffers: vec![0; BUFFER_BYTES].into_boxed_slice(),
            clock,
        })
    }

    /// What this worker is told by.
    pub fn control(&self) -> Arc<Control> {
        self.control.clone()
    }

    /// Reads until asked to stop, then what the socket holds, unless it `leaves_rest` to another process, and returns.
    pub fn run(mut self, leaves_rest: bool) {
        let mut last_read = self.clock.now();
        let mut pressure = Pressure::new(self.fills, last_read);
        let mut room = SMALL_BATCH;
        let mut failing = false;
        self.wait(Wait::Kernel, last_read);
        loop {
            match self.control.asked.take() {
                STOP => break,
                wish @ (CHANGE | EMPTY) => self.obey(wish, &mut pressure),
                _ => {}
            }
            let started = self.clock.now();
            if pressure.tell(&mut self.pipeline, started) {
                self.pipeline.end(&self.books);
            }
            let wait = match self.read(room, &mut pressure) {
                Ok(batch) => {
                    if std::mem::take(&mut failing) {
                        info!(listener = %self.queue.listener, "reading works again");
                        self.queue.failing.store(false, Relaxed);
                    }
                    let wait =
                        self.gather.after(batch.datagrams, batch.bytes, started.saturating_sub(last_read), batch.full);
                    room = (2 * batch.datagrams).clamp(SMALL_BATCH, BATCH);
                    wait
                }
                Err(error) => {
                    self.queue.errors.fetch_add(1, Relaxed);
                    if !std::mem::replace(&mut failing, true) {
                        warn!(listener = %self.queue.listener, %error, "reading failed, trying again");
                        self.queue.failing.store(true, Relaxed);
                    }
                    self.sleep(None, Some(RETRY));
                    Wait::None
                }
            };
            last_read = started;
            self.wait(wait, started);
        }
        match leaves_rest {
            true => self.control.emptied(),
            false => self.obey(EMPTY, &mut pressure),
        }
    }

    /// Goes over to another socket if it is to, and if asked to takes what it holds.
    fn obey(&mut self, wish: u8, pressure: &mut Pressure) {
        self.change(pressure);
        if wish == EMPTY {
            self.drain(pressure);
            self.control.emptied();
        }
    }

    /// Goes over to another socket, if there is one to go over to.
    fn change(&mut self, pressure: &mut Pressure) {
        let Some(next) = self.control.asked.next() else { return };
        // Whoever is connected to the old one gets an error from now on, and what has arrived is read yet.
        let _ = shutdown(self.socket.as_raw_fd(), Shutdown::Read);
        self.drain(pressure);
        self.socket = Arc::new(next);
    }

    /// Takes what the socket holds, and no more than its buffer's worth: a sender may go on for ever.
    fn drain(&mut self, pressure: &mut Pressure) {
        let mut left = self.fills.unwrap_or(UNIX_DRAIN_BYTES);
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
        let mut cut = 0;
        let datagrams = messages.map(|message| {
            for control in message.cmsgs().into_iter().flatten() {
                match control {
                    ControlMessageOwned::ScmTimestampns(stamp) => {
                        arrivals[batch.datagrams] = stamp.tv_sec() as u64 * 1_000_000_000 + stamp.tv_nsec() as u64;
                    }
                    ControlMessageOwned::RxqOvfl(count) => drops = Some(count),
                    _ => {}
                }
            }
            pressure.took(arrivals[batch.datagrams], message.bytes);
            batch.bytes += message.bytes;
            batch.datagrams += 1;
            let datagram = message.iovs().next().unwrap_or_default();
            if !message.flags.contains(MsgFlags::MSG_TRUNC) {
                return datagram;
            }
            // Its last line was cut; only a unix socket takes datagrams of more than 64 KiB.
            cut += 1;
            &datagram[..memchr::memrchr(b'\n', datagram).map_or(0, |end| end + 1)]
        });
        pipeline.datagrams(datagrams);
        (0..cut).for_each(|_| pipeline.too_long());
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

    /// Sleeps until `socket` has something, the time is up, or the worker is asked for something.
    fn sleep(&self, socket: Option<&OwnedFd>, time: Option<Duration>) {
        let time = time.map(TimeSpec::from_duration);
        let Wake::Event(event) = &self.control.wake else { return };
        let mut watched = [event.as_fd(), socket.unwrap_or(&self.socket).as_fd()]
            .map(|descriptor| PollFd::new(descriptor, PollFlags::POLLIN));
        let watched = &mut watched[..1 + usize::from(socket.is_some())];
        // A failure means a signal, or no memory for the kernel's list: the next read tells more.
        let _ = ppoll(watched, time, None);
        // Taken whenever it is there, and before the wish is: the call may come a moment behind a wish that an awake
        // worker has obeyed already, and one that stayed would end each further sleep at once.
        if watched[0].any() == Some(true) {
            self.control.hear();
        }
    }
}
