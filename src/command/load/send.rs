//! Sends traffic at the pace of a scenario.
//!
//! In: traffic, connected sockets, steps. Out: what was sent, exactly.
//! Always: datagrams leave in their order, each sender's by its own socket; a datagram that the kernel took is counted,
//! and no other.

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::socket::{ControlMessage, MsgFlags, MultiHeaders, sendmmsg};

use super::scenario::{Pace, Step};
use super::target::Sockets;
use super::traffic::{Datagram, Traffic};

/// Most datagrams of one call.
const BATCH: usize = 64;

/// Shortest rest between two looks at the clock.
const REST: Duration = Duration::from_millis(1);

/// Longest, so that an end is not missed by much.
const LONG_REST: Duration = Duration::from_millis(50);

/// Rest while a queue is full.
const FULL_REST: Duration = Duration::from_micros(200);

/// What left.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Sent {
    pub(super) datagrams: u64,
    pub(super) lines: u64,
    pub(super) bytes: u64,
}

/// The receiver's queue of UDP, on this machine.
#[derive(Clone, Copy, Debug)]
pub(super) struct Watch {
    pub(super) address: SocketAddr,
    /// Of each socket, in bytes, as the kernel charges them.
    pub(super) most_bytes: u64,
}

/// Sends, from the first datagram on and over again.
pub(super) struct Sender<'a> {
    traffic: &'a Traffic,
    sockets: Sockets,
    headers: MultiHeaders<()>,
    watch: Option<Watch>,
    stop: &'a AtomicBool,
    next: usize,
    sent: Sent,
}

impl<'a> Sender<'a> {
    /// One that has sent nothing; `watch` is what it waits for when it sends flat out, and it fails once `stop` is set.
    pub(super) fn new(traffic: &'a Traffic, sockets: Sockets, watch: Option<Watch>, stop: &'a AtomicBool) -> Self {
        let headers = MultiHeaders::preallocate(BATCH, None);
        Self { traffic, sockets, headers, watch, stop, next: 0, sent: Sent::default() }
    }

    /// Goes through `steps`; `tell` hears now and then of the lines sent so far.
    ///
    /// # Errors
    /// If the receiver is gone, or the kernel will not send; `Interrupted` if it was told to stop.
    pub(super) fn run(&mut self, steps: &[Step], tell: &dyn Fn(u64)) -> io::Result<Sent> {
        for step in steps {
            let start = Instant::now();
            let before = self.sent.lines;
            match step.pace {
                Pace::Rate(rate) => {
                    let most = (rate * step.length.as_secs_f64()).ceil() as u64;
                    loop {
                        self.go_on()?;
                        let due = ((rate * start.elapsed().as_secs_f64()).ceil() as u64).min(most);
                        self.send_until(before + due, tell)?;
                        if start.elapsed() >= step.length {
                            break;
                        }
                        let ahead = (self.sent.lines - before) as f64 / rate;
                        let rest = Duration::from_secs_f64(ahead).saturating_sub(start.elapsed());
                        let left = step.length.saturating_sub(start.elapsed());
                        std::thread::sleep(rest.clamp(REST, LONG_REST).min(left));
                    }
                }
                Pace::FlatOut => {
                    let mut looked_at = None;
                    while start.elapsed() < step.length {
                        self.go_on()?;
                        // A look costs as much as some datagrams do.
                        let due = looked_at.is_none_or(|then| self.sent.datagrams - then >= BATCH as u64);
                        if due && self.is_full() {
                            std::thread::sleep(FULL_REST);
                            continue;
                        }
                        if due {
                            looked_at = Some(self.sent.datagrams);
                        }
                        self.send_batch(usize::MAX)?;
                        tell(self.sent.lines);
                    }
                }
                Pace::Burst(samples, every) => {
                    for number in 0..step.bursts(every) {
                        self.send_until(before + (number + 1) * samples, tell)?;
                        let next = every * (number as u32 + 1);
                        while start.elapsed() < next.min(step.length) {
                            self.go_on()?;
                            let left = next.min(step.length).saturating_sub(start.elapsed());
                            std::thread::sleep(left.min(LONG_REST));
                        }
                    }
                }
            }
        }
        Ok(self.sent)
    }

    fn go_on(&self) -> io::Result<()> {
        if self.stop.load(Relaxed) {
            return Err(io::Error::new(io::ErrorKind::Interrupted, "stopped by a signal"));
        }
        Ok(())
    }

    /// Sends until `lines` lines are out, and those of the last datagram.
    fn send_until(&mut self, lines: u64, tell: &dyn Fn(u64)) -> io::Result<()> {
        while self.sent.lines < lines {
            self.send_batch((lines - self.sent.lines) as usize)?;
            tell(self.sent.lines);
        }
        Ok(())
    }

    /// Sends datagrams of one sender, until `lines` lines are out at the latest.
    fn send_batch(&mut self, lines: usize) -> io::Result<()> {
        let all = &self.traffic.datagrams[self.next..];
        let sender = all[0].sender;
        let mut count = 0;
        let mut taken = 0;
        while count < all.len().min(BATCH) && taken < lines && all[count].sender == sender {
            taken += all[count].lines as usize;
            count += 1;
        }
        let batch = &all[..count];
        match (&mut self.sockets, sender as usize) {
            (Sockets::Streams(streams), number) => {
                streams[number].write_all(&self.traffic.bytes[batch[0].start..batch[count - 1].end])?;
            }
            (sockets, number) => {
                let socket = sockets.datagram_socket(number).unwrap_or(-1);
                send_datagrams(socket, &mut self.headers, &self.traffic.bytes, batch)?;
            }
        }
        self.sent.datagrams += count as u64;
        self.sent.lines += taken as u64;
        self.sent.bytes += (batch[count - 1].end - batch[0].start) as u64;
        self.next = (self.next + count) % self.traffic.datagrams.len();
        Ok(())
    }

    /// Whether the receiver should be left to catch up first.
    fn is_full(&self) -> bool {
        let Some(watch) = self.watch else { return false };
        let path = if watch.address.is_ipv6() { "/proc/self/net/udp6" } else { "/proc/self/net/udp" };
        let table = std::fs::read_to_string(path).unwrap_or_default();
        queues(&table, watch.address.port()).any(|bytes| bytes > watch.most_bytes)
    }
}

/// Sends all of `batch`, in as many calls as the kernel makes of it.
fn send_datagrams(
    socket: RawFd,
    headers: &mut MultiHeaders<()>,
    bytes: &[u8],
    mut batch: &[Datagram],
) -> io::Result<()> {
    while !batch.is_empty() {
        let slices: Vec<[IoSlice<'_>; 1]> =
            batch.iter().map(|datagram| [IoSlice::new(&bytes[datagram.start..datagram.end])]).collect();
        let nowhere = vec![None::<()>; slices.len()];
        let no_messages: [ControlMessage<'_>; 0] = [];
        match sendmmsg(socket, headers, &slices, nowhere, no_messages, MsgFlags::empty()) {
            Ok(results) => batch = &batch[results.count()..],
            Err(Errno::EINTR) => {}
            Err(Errno::ENOBUFS) => std::thread::sleep(REST),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// How many sockets of this machine are bound to a port, and take datagrams from anyone.
pub(super) fn sockets_bound(address: SocketAddr) -> usize {
    let path = if address.is_ipv6() { "/proc/self/net/udp6" } else { "/proc/self/net/udp" };
    queues(&std::fs::read_to_string(path).unwrap_or_default(), address.port()).count()
}

/// Bytes waiting in each socket that is bound to a port, by the text of `/proc/self/net/udp`.
fn queues(table: &str, port: u16) -> impl Iterator<Item = u64> {
    let wanted = format!(":{port:04X}");
    table.lines().skip(1).filter_map(move |line| {
        let columns: Vec<&str> = line.split_ascii_whitespace().take(5).collect();
        let (local, queued) = (columns.get(1)?, columns.get(4)?);
        let waiting = queued.split_once(':')?.1;
        local.ends_with(&wanted).then(|| u64::from_str_radix(waiting, 16).ok()).flatten()
    })
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use super::super::scenario::Scenario;
    use super::super::target::Target;
    use super::*;

    #[test]
    fn queues_are_those_of_the_port() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   1: 0100007F:1FBD 00000000:0000 07 00000000:00000A00 00:00000000 00000000     0        0 77 2 0000000000000000 5
   2: 0100007F:1FBD 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 79 2 0000000000000000 5
   3: 0100007F:9000 0100007F:1FBD 01 00000000:00000001 00:00000000 00000000     0        0 78 2 0000000000000000 0
";
        assert_eq!(queues(table, 8125).collect::<Vec<_>>(), [2560, 0]);
        assert_eq!(queues(table, 8126).count(), 0);
    }

    #[test]
    fn every_datagram_arrives_in_order_and_is_counted() {
        let receiver = UdpSocket::bind("127.0.0.1:0").unwrap();
        receiver.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let mut scenario = Scenario::named("low").unwrap();
        scenario.lines = 300;
        let traffic = Traffic::new(&scenario, 5);
        let sockets = Target::Udp(receiver.local_addr().unwrap()).connect(1).unwrap();
        let stop = AtomicBool::new(false);
        let mut sender = Sender::new(&traffic, sockets, None, &stop);
        // Twice all of it, little enough for any receive buffer.
        let step = Step { pace: Pace::Burst(600, Duration::ZERO), length: Duration::ZERO };
        let sent = sender.run(&[step], &|_| ()).unwrap();
        let datagrams = traffic.datagrams.len() as u64;
        assert_eq!(sent, Sent { datagrams: 2 * datagrams, lines: 600, bytes: 2 * traffic.bytes.len() as u64 });
        let mut buffer = [0; 2048];
        let mut received = Vec::new();
        for _ in 0..sent.datagrams {
            let length = receiver.recv(&mut buffer).unwrap();
            received.extend_from_slice(&buffer[..length]);
        }
        stop.store(true, Relaxed);
        let stopped = sender.run(&[Step { pace: Pace::Rate(1.0), ..step }], &|_| ());
        assert_eq!(stopped.unwrap_err().kind(), io::ErrorKind::Interrupted);
        assert!(received == [&traffic.bytes[..], &traffic.bytes[..]].concat());
    }
}
