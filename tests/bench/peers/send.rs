//! Sends traffic over the loopback, at an even rate or as fast as the kernel takes it.
//!
//! In: traffic, an address, a rate, a time. Out: what was sent, exactly.
//! Always: a datagram that the kernel took is counted, and no other. At a rate it waits busily, on a core of its own,
//! and sends what is due: one datagram after another, evenly spaced, as long as the clock can be read between two.

use std::io::{self, IoSlice};
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::socket::{ControlMessage, MsgFlags, MultiHeaders, sendmmsg};

use crate::traffic::Traffic;

/// Most datagrams of one call.
const BATCH: usize = 64;

/// Between two looks at the clock by a gentle sender.
const NAP: Duration = Duration::from_micros(500);

/// How fast.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Pace {
    /// As fast as the kernel takes it.
    FlatOut,
    /// Lines a second, evenly spaced.
    Rate(f64),
    /// Lines a second with naps between, for a sender that shares its core.
    Gentle(f64),
}

/// What left, and in what time.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sent {
    pub(crate) datagrams: u64,
    pub(crate) lines: u64,
    pub(crate) time: Duration,
}

impl Sent {
    pub(crate) fn lines_per_second(&self) -> f64 {
        self.lines as f64 / self.time.as_secs_f64()
    }
}

/// Sends from where the last call left off.
pub(crate) struct Sender<'a> {
    traffic: &'a Traffic,
    /// Each datagram, as the kernel takes it.
    slices: Vec<[IoSlice<'a>; 1]>,
    next: usize,
    headers: MultiHeaders<()>,
}

impl<'a> Sender<'a> {
    pub(crate) fn new(traffic: &'a Traffic) -> Self {
        let slices = traffic.datagrams.iter().map(|d| [IoSlice::new(&traffic.bytes[d.start..d.end])]).collect();
        Self { traffic, slices, next: 0, headers: MultiHeaders::preallocate(BATCH, None) }
    }

    /// Sends for `time`.
    ///
    /// # Errors
    /// If nobody listens, or the kernel does not send.
    pub(crate) fn send(&mut self, to: SocketAddr, pace: Pace, time: Duration) -> io::Result<Sent> {
        self.send_while(to, pace, |sent| sent.time < time)
    }

    /// Sends everything `times` times.
    ///
    /// # Errors
    /// As [`Sender::send`].
    pub(crate) fn send_all(&mut self, to: SocketAddr, pace: Pace, times: u64) -> io::Result<Sent> {
        let most = self.slices.len() as u64 * times;
        self.send_while(to, pace, |sent| sent.datagrams < most)
    }

    fn send_while(&mut self, to: SocketAddr, pace: Pace, go_on: impl Fn(&Sent) -> bool) -> io::Result<Sent> {
        let socket = UdpSocket::bind("127.0.0.1:0")?;
        socket.connect(to)?;
        let rate = match pace {
            Pace::FlatOut => None,
            Pace::Rate(lines) | Pace::Gentle(lines) => Some(lines / self.traffic.lines_a_datagram()),
        };
        let start = Instant::now();
        let mut sent = Sent::default();
        loop {
            sent.time = start.elapsed();
            if !go_on(&sent) {
                return Ok(sent);
            }
            let due = rate.map_or(u64::MAX, |rate| (sent.time.as_secs_f64() * rate) as u64);
            let due = due.saturating_sub(sent.datagrams).min(BATCH as u64) as usize;
            if due == 0 {
                match pace {
                    Pace::Gentle(_) => std::thread::sleep(NAP),
                    _ => std::hint::spin_loop(),
                }
                continue;
            }
            let end = self.slices.len().min(self.next + due);
            let slices = &self.slices[self.next..end];
            let no_messages: [ControlMessage<'_>; 0] = [];
            let nowhere = [None::<()>; BATCH];
            let (socket, flags) = (socket.as_raw_fd(), MsgFlags::empty());
            let count = match sendmmsg(socket, &mut self.headers, slices, nowhere, no_messages, flags) {
                Ok(results) => results.count(),
                Err(Errno::EINTR | Errno::ENOBUFS) => 0,
                Err(error) => return Err(error.into()),
            };
            sent.datagrams += count as u64;
            sent.lines += self.traffic.datagrams[self.next..self.next + count].iter().map(|d| d.lines).sum::<u64>();
            self.next = (self.next + count) % self.slices.len();
        }
    }
}
