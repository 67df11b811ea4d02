//! Sends raw lines on over UDP, for moving from one collector to another.
//!
//! In: each line as it came, good or bad, from the workers. Out: datagrams of lines, at each target.
//! Not here: what a line says.
//! Always: a worker copies its lines and goes on: it never waits for a target, a resolver or the network. What cannot
//! be sent, or queued, is counted and gone. A target that refuses is sent to again with the next datagram; one whose name
//! stands for another address now, or for one at last, is followed there. Nothing is sent to the socket that the lines
//! came from.

use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, channel, sync_channel};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use tracing::{info, warn};

use crate::config;
use crate::listen::resolve;
use crate::telemetry::{RelayBooks, RelayOutcome};

/// Datagrams that wait to be sent at most, of all workers together: 1.4 MB of the usual size.
pub const QUEUE: usize = 1024;

/// What goes through the queue: a datagram, and how many lines are in it.
type Packet = (Box<[u8]>, u64);

/// How long from one look at what the names of targets stand for to the next.
const BETWEEN_LOOKS: Duration = Duration::from_secs(30);
/// How long a start or a reload waits for the first.
const FIRST_LOOK: Duration = Duration::from_millis(250);

/// The way to the targets of one configuration; its threads end with it.
#[derive(Debug)]
pub struct Relay {
    queue: SyncSender<Packet>,
    targets: Arc<[Target]>,
    packet_bytes: usize,
    books: Arc<RelayBooks>,
    /// That it is dropped ends the thread that looks names up.
    _looks: Sender<()>,
}

impl Relay {
    /// Starts the thread that sends; `None` without targets. A target whose name stands for nothing now, or that is
    /// `own`, where lines come in over UDP, is sent nothing: the log says so, its lines are counted as dropped, and it is looked
    /// for again every 30 seconds, as is what other names stand for. The first look at names is waited for for a
    /// quarter of a second.
    ///
    /// # Errors
    /// If there can be no thread.
    pub fn start(config: &config::Relay, own: &[SocketAddr], books: Arc<RelayBooks>) -> io::Result<Option<Self>> {
        Self::looking(config, own, books, resolve_all, BETWEEN_LOOKS)
    }

    fn looking(
        config: &config::Relay,
        own: &[SocketAddr],
        books: Arc<RelayBooks>,
        look_up: impl Fn(&str) -> io::Result<Vec<SocketAddr>> + Send + 'static,
        between: Duration,
    ) -> io::Result<Option<Self>> {
        if config.targets.is_empty() {
            return Ok(None);
        }
        let own = own.to_vec();
        let targets: Arc<[Target]> = config.targets.iter().map(|name| Target::new(name)).collect();
        // Addresses at once, names where a resolver that does not answer holds nothing up.
        let tell = |target: &Target, error: io::Error| {
            warn!(target = target.name, %error, "nothing is relayed to this target for now");
        };
        for target in targets.iter().filter(|it| !it.is_named) {
            target.look(resolve_all, &own).unwrap_or_else(|error| tell(target, error));
        }
        let (queue, packets) = sync_channel(QUEUE);
        let (looks, ended) = channel();
        if targets.iter().any(Target::may_move) {
            let targets = targets.clone();
            let (looked, first_look) = channel();
            let look = move || {
                for target in targets.iter().filter(|it| it.is_named) {
                    target.look(&look_up, &own).unwrap_or_else(|error| tell(target, error));
                }
                _ = looked.send(());
                while ended.recv_timeout(between) == Err(RecvTimeoutError::Timeout) {
                    // What cannot be looked up stays as it is, which was told when it was new.
                    targets.iter().filter(|it| it.may_move()).for_each(|it| _ = it.look(&look_up, &own));
                }
            };
            std::thread::Builder::new().name("relay-names".to_owned()).spawn(look)?;
            // The usual resolver takes no time, and no line is lost then.
            _ = first_look.recv_timeout(FIRST_LOOK);
        }
        let relay = Self {
            queue,
            targets: targets.clone(),
            packet_bytes: config.packet_bytes,
            books: books.clone(),
            _looks: looks,
        };
        std::thread::Builder::new().name("relay".to_owned()).spawn(move || send(&packets, &targets, &books))?;
        Ok(Some(relay))
    }

    /// Whether lines are sent to every target. A reload looks for those that are left.
    pub fn is_whole(&self) -> bool {
        self.targets.iter().all(|target| target.way.load().is_some())
    }

    fn count(&self, outcome: RelayOutcome, lines: u64) {
        self.books.lines[outcome.index()].fetch_add(lines * self.targets.len() as u64, Relaxed);
    }
}

/// Where lines are sent.
#[derive(Debug)]
struct Target {
    /// `host:port`, as configured.
    name: String,
    /// Whether the host is a name, which may stand for another address later.
    is_named: bool,
    way: ArcSwapOption<Way>,
}

/// A socket that sends to one address alone and never waits.
#[derive(Debug)]
struct Way {
    to: SocketAddr,
    socket: UdpSocket,
}

impl Target {
    fn new(name: &str) -> Self {
        let is_named = name.parse::<SocketAddr>().is_err();
        Self { name: name.to_owned(), is_named, way: ArcSwapOption::empty() }
    }

    /// Whether a look may find something new.
    fn may_move(&self) -> bool {
        self.is_named || self.way.load().is_none()
    }

    /// Finds the address that the name stands for now; of several the first, or the one that lines go to already.
    fn look(&self, look_up: impl Fn(&str) -> io::Result<Vec<SocketAddr>>, own: &[SocketAddr]) -> io::Result<()> {
        let addresses = look_up(&self.name)?;
        let before = self.way.load();
        if before.as_ref().is_some_and(|before| addresses.contains(&before.to)) {
            return Ok(());
        }
        let way = Way::to(*addresses.first().ok_or(io::ErrorKind::NotFound)?, own)?;
        info!(target = self.name, address = %way.to, "lines are relayed to this target");
        self.way.store(Some(Arc::new(way)));
        Ok(())
    }
}

impl Way {
    fn to(address: SocketAddr, own: &[SocketAddr]) -> io::Result<Self> {
        if own.iter().any(|own| leads_to(address, *own)) {
            return Err(io::Error::other("it is where lines come in: each line would come back for ever"));
        }
        let any: SocketAddr =
            if address.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { (Ipv6Addr::UNSPECIFIED, 0).into() };
        let socket = UdpSocket::bind(any)?;
        socket.connect(address)?;
        socket.set_nonblocking(true)?;
        Ok(Self { to: address, socket })
    }

    /// Whether the kernel took all of it.
    fn send(&self, packet: &[u8]) -> bool {
        self.socket.send(packet).is_ok_and(|length| length == packet.len())
    }
}

fn resolve_all(name: &str) -> io::Result<Vec<SocketAddr>> {
    Ok(resolve(name)?.collect())
}

/// Whether what is sent to `address` from here arrives at the socket that is bound to `own`, or can.
fn leads_to(address: SocketAddr, own: SocketAddr) -> bool {
    let (ip, own_ip) = (address.ip().to_canonical(), own.ip().to_canonical());
    // An address of this machine is one that can be bound.
    let is_here = |ip: IpAddr| UdpSocket::bind((ip, 0)).is_ok();
    address.port() == own.port() && (ip == own_ip || ip.is_unspecified() || (own_ip.is_unspecified() && is_here(ip)))
}

/// Sends until the queue is closed.
fn send(packets: &Receiver<Packet>, targets: &[Target], books: &RelayBooks) {
    while let Ok((packet, lines)) = packets.recv() {
        for target in targets {
            // An error is often about the datagram before, which nobody took; this one was not sent either.
            let sent = target.way.load().as_ref().is_some_and(|way| way.send(&packet));
            let outcome = if sent { RelayOutcome::Sent } else { RelayOutcome::Dropped };
            books.lines[outcome.index()].fetch_add(lines, Relaxed);
            books.packets.fetch_add(u64::from(sent), Relaxed);
        }
    }
}

/// Packs the lines of one worker into datagrams.
#[derive(Debug)]
pub struct Packer {
    relay: Arc<Relay>,
    packet: Vec<u8>,
    lines: u64,
}

impl Packer {
    /// Packs for this relay.
    pub fn new(relay: Arc<Relay>) -> Self {
        let packet = Vec::with_capacity(relay.packet_bytes);
        Self { relay, packet, lines: 0 }
    }

    /// Takes the lines of a datagram, blank ones left out.
    pub fn datagram(&mut self, datagram: &[u8]) {
        for line in datagram.split(|byte| *byte == b'\n') {
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            if !line.is_empty() {
                self.line(line);
            }
        }
    }

    /// A line came that was too long to be kept.
    pub fn too_long(&self) {
        self.relay.count(RelayOutcome::TooLong, 1);
    }

    /// The beginning of a line came, and not its end.
    pub fn cut_short(&self) {
        self.relay.count(RelayOutcome::Dropped, 1);
    }

    fn line(&mut self, line: &[u8]) {
        if line.len() >= self.relay.packet_bytes {
            return self.too_long();
        }
        if self.packet.len() + line.len() >= self.relay.packet_bytes {
            self.flush();
        }
        self.packet.extend_from_slice(line);
        self.packet.push(b'\n');
        self.lines += 1;
    }

    /// Hands over what is packed; to be called at the end of each batch.
    pub fn flush(&mut self) {
        if self.lines == 0 {
            return;
        }
        let lines = std::mem::take(&mut self.lines);
        let packet = Box::from(self.packet.as_slice());
        self.packet.clear();
        if self.relay.queue.try_send((packet, lines)).is_err() {
            self.relay.count(RelayOutcome::Dropped, lines);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::atomic::AtomicU64;

    use super::*;

    fn relay(targets: &[&UdpSocket], packet_bytes: usize) -> (Arc<RelayBooks>, Arc<Relay>) {
        let books = Arc::new(RelayBooks::default());
        let targets = targets.iter().map(|target| target.local_addr().expect("bound").to_string()).collect();
        let config = config::Relay { targets, packet_bytes };
        let relay = Relay::start(&config, &[], books.clone()).expect("started").expect("there is a target");
        (books, Arc::new(relay))
    }

    fn target() -> UdpSocket {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("bound");
        socket.set_read_timeout(Some(Duration::from_secs(30))).expect("set");
        socket
    }

    fn received(target: &UdpSocket) -> String {
        let mut buffer = [0; 2000];
        let length = target.recv(&mut buffer).expect("a datagram");
        String::from_utf8_lossy(&buffer[..length]).into_owned()
    }

    fn counts(books: &RelayBooks) -> [u64; 3] {
        std::array::from_fn(|place| books.lines[place].load(Relaxed))
    }

    #[test]
    fn lines_are_packed_up_to_the_size_and_each_target_gets_them() {
        let (one, two) = (target(), target());
        let (books, relay) = relay(&[&one, &two], 20);
        let mut packer = Packer::new(relay);
        packer.datagram(b"a:1|c\r\n\nb:1|c\nc:1|c\nd:1|c\n0123456789012345678\n01234567890123456789\nbad");
        packer.flush();
        packer.flush();
        for target in [&one, &two] {
            let found = [(); 4].map(|()| received(target));
            assert_eq!(found, ["a:1|c\nb:1|c\nc:1|c\n", "d:1|c\n", "0123456789012345678\n", "bad\n"]);
        }
        // The thread counts once it has sent; the last one may be a moment late.
        while counts(&books)[0] < 12 {
            std::thread::yield_now();
        }
        assert_eq!(counts(&books), [12, 0, 2]);
    }

    #[test]
    fn a_target_that_refuses_costs_its_own_lines_and_others_get_theirs() {
        let (gone, there) = (target(), target());
        let (books, relay) = relay(&[&gone, &there], 1400);
        drop(gone);
        let mut packer = Packer::new(relay);
        for _ in 0..50 {
            packer.datagram(b"a:1|c");
            packer.flush();
            assert_eq!(received(&there), "a:1|c\n");
        }
        while counts(&books).iter().sum::<u64>() < 100 {
            std::thread::yield_now();
        }
        let [sent, dropped, too_long] = counts(&books);
        assert!(dropped > 0 && sent >= 50 && too_long == 0, "{sent} {dropped}");
    }

    #[test]
    fn a_target_is_the_sidecar_itself_if_its_address_is_or_stands_for_it() {
        for (target, own, expected) in [
            ("127.0.0.1:8125", "127.0.0.1:8125", true),
            ("127.0.0.1:9125", "127.0.0.1:8125", false),
            ("127.0.0.2:8125", "127.0.0.1:8125", false),
            ("127.0.0.2:8125", "0.0.0.0:8125", true),
            ("127.0.0.1:8125", "[::]:8125", true),
            ("[::ffff:127.0.0.1]:8125", "127.0.0.1:8125", true),
            ("0.0.0.0:8125", "127.0.0.1:8125", true),
            // Of a net that is for examples, and of nobody.
            ("192.0.2.1:8125", "0.0.0.0:8125", false),
        ] {
            let [address, of_own] = [target, own].map(|text| text.parse().expect("an address"));
            assert_eq!(leads_to(address, of_own), expected, "{target} {own}");
        }
    }

    #[test]
    fn a_name_that_stands_for_nothing_yet_or_for_another_address_later_is_followed() {
        let [one, two] = [target(), target()];
        let [first, second] = [&one, &two].map(|target| target.local_addr().expect("bound"));
        let names: Arc<(Mutex<Vec<SocketAddr>>, AtomicU64)> = Arc::default();
        let seen = names.clone();
        let look_up = move |_: &str| {
            let found = seen.0.lock().expect("no panic").clone();
            seen.1.fetch_add(1, Relaxed);
            Ok(found)
        };
        let books = Arc::new(RelayBooks::default());
        let config = config::Relay { targets: vec!["target.example:8125".to_owned()], packet_bytes: 1400 };
        let relay = Relay::looking(&config, &[], books.clone(), look_up, Duration::from_millis(1));
        let relay = Arc::new(relay.expect("started").expect("there is a target"));
        let mut packer = Packer::new(relay.clone());
        let mut send = |expected: [u64; 3]| {
            packer.datagram(b"a:1|c");
            packer.flush();
            while counts(&books) != expected {
                std::thread::yield_now();
            }
        };
        assert!(!relay.is_whole());
        send([0, 1, 0]);

        let now_stands_for = |addresses: &[SocketAddr]| {
            *names.0.lock().expect("no panic") = addresses.to_vec();
            let looks = names.1.load(Relaxed);
            // One may have read what was before, the next has not, and the third begins once that has been heeded.
            while names.1.load(Relaxed) < looks + 3 {
                std::thread::yield_now();
            }
            assert!(relay.is_whole());
        };
        now_stands_for(&[first]);
        send([1, 1, 0]);
        assert_eq!(received(&one), "a:1|c\n");
        // It stays where it is as long as that is one of its addresses, or if it has none.
        now_stands_for(&[second, first]);
        now_stands_for(&[]);
        send([2, 1, 0]);
        assert_eq!(received(&one), "a:1|c\n");
        now_stands_for(&[second]);
        send([3, 1, 0]);
        assert_eq!(received(&two), "a:1|c\n");

        drop((packer, relay));
        while Arc::strong_count(&names) > 1 {
            std::thread::yield_now();
        }
    }

    #[test]
    fn a_resolver_that_does_not_answer_holds_up_neither_the_start_nor_what_goes_to_other_targets() {
        let there = target();
        let address = there.local_addr().expect("bound");
        let (answer, hangs) = channel::<()>();
        let look_up = move |_: &str| {
            _ = hangs.recv();
            Ok(vec![address])
        };
        let books = Arc::new(RelayBooks::default());
        let targets = vec!["target.example:8125".to_owned(), address.to_string()];
        let config = config::Relay { targets, packet_bytes: 1400 };
        let relay = Relay::looking(&config, &[], books.clone(), look_up, Duration::from_millis(1));
        let relay = Arc::new(relay.expect("started").expect("there are targets"));
        let mut packer = Packer::new(relay.clone());
        packer.datagram(b"a:1|c");
        packer.flush();
        assert_eq!(received(&there), "a:1|c\n");
        drop(answer);
        while !relay.is_whole() {
            std::thread::yield_now();
        }
        packer.datagram(b"b:1|c");
        packer.flush();
        assert_eq!([received(&there), received(&there)], ["b:1|c\n", "b:1|c\n"]);
    }

    #[test]
    fn a_full_queue_is_not_waited_for() {
        let books = Arc::new(RelayBooks::default());
        let (queue, packets) = sync_channel(2);
        let targets = ["a", "b", "c"].map(Target::new).into();
        let relay = Relay { queue, targets, packet_bytes: 100, books: books.clone(), _looks: channel().0 };
        let mut packer = Packer::new(Arc::new(relay));
        for _ in 0..5 {
            packer.datagram(b"a:1|c\nb:1|c");
            packer.flush();
        }
        assert_eq!(counts(&books), [0, 3 * 2 * 3, 0]);
        assert_eq!(packets.try_iter().count(), 2);
    }
}
