//! Starts a sidecar, talks to it, reads its exposition, stops it.
//!
//! In: settings as `KEY=VALUE`. Out: [`Sidecar`] and what it exposes as [`Scrape`].
//! Always: nothing waits for a fixed time; every wait has a condition and ends at [`PATIENCE`], and a failure shows the
//! sidecar's whole log. A dropped [`Sidecar`] leaves no process behind.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::ops::RangeInclusive;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::protobuf;

/// How long any wait may last. Far above what a healthy run needs: the machine may be busy.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Tells other threads of a test that it is over, also when it fails.
pub(crate) struct SetOnDrop<'a>(pub(crate) &'a AtomicBool);

impl Drop for SetOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

/// Held by a test that is about how much a sidecar can take, and by those that leave no core free for long.
static FLOODING: Mutex<()> = Mutex::new(());

/// Waits until no other test floods; the next may when the result is dropped.
pub(crate) fn flood_alone() -> MutexGuard<'static, ()> {
    FLOODING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How long a waiting loop rests between two looks at its condition.
const BETWEEN_LOOKS: Duration = Duration::from_millis(2);

/// What every sidecar here is started with: ports the kernel picks, no sampling, so that sums are exact whatever else
/// runs on the machine, and a short drain. Later settings override these.
const SETTINGS: [&str; 4] =
    ["listen.udp=127.0.0.1:0", "http.listen=127.0.0.1:0", "sampling.mode=off", "http.drain=100ms"];

/// The program under test: the one built with the tests, or `STATSIEVE_TEST_PROGRAM`.
pub(crate) fn program() -> Command {
    let built = || env!("CARGO_BIN_EXE_statsieve").into();
    let mut command = Command::new(std::env::var_os("STATSIEVE_TEST_PROGRAM").unwrap_or_else(built));
    command.env_remove("STATSIEVE_CONFIG").stdin(Stdio::null());
    command
}

/// Runs the program with `arguments` to its end.
pub(crate) fn run(arguments: &[&str]) -> Output {
    let child =
        program().args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("statsieve starts");
    let mut child = KillOnDrop(Some(child));
    // The pipes hold 64 KiB each, more than any one-shot command prints.
    wait_until("the command ends", || child.0.as_mut().unwrap().try_wait().unwrap().is_some());
    child.0.take().unwrap().wait_with_output().unwrap()
}

/// Looks at `condition` until it holds.
pub(crate) fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    wait_for(what, || condition().then_some(()));
}

/// Looks at `condition` until it gives something.
pub(crate) fn wait_for<T>(what: &str, condition: impl FnMut() -> Option<T>) -> T {
    wait_for_or_explain(what, condition, String::new)
}

/// The same; a failure shows an explanation.
pub(crate) fn wait_for_or_explain<T>(
    what: &str,
    mut condition: impl FnMut() -> Option<T>,
    explain: impl FnOnce() -> String,
) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = condition() {
            return found;
        }
        if Instant::now() >= deadline {
            panic!("after {PATIENCE:?} still waiting until {what}\n{}", explain());
        }
        std::thread::sleep(BETWEEN_LOOKS);
    }
}

/// A child that does not outlive the test.
pub(crate) struct KillOnDrop(pub(crate) Option<Child>);

impl Drop for KillOnDrop {
    fn drop(&mut self) {
        if let Some(mut child) = self.0.take() {
            // Both fail only if it is gone already.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Keeps every line a child writes, for addresses and failure messages.
#[derive(Clone, Default)]
pub(crate) struct Log(Arc<Mutex<String>>);

impl Log {
    /// Reads `source` to its end on a thread of its own, so that the child never blocks on a full pipe.
    pub(crate) fn follow(&self, source: impl Read + Send + 'static) -> JoinHandle<()> {
        let log = self.clone();
        std::thread::spawn(move || {
            for line in BufReader::new(source).split(b'\n') {
                let Ok(line) = line else { return };
                let mut text = log.0.lock().unwrap();
                text.push_str(&String::from_utf8_lossy(&line));
                text.push('\n');
            }
        })
    }

    pub(crate) fn text(&self) -> String {
        self.0.lock().unwrap().clone()
    }

    /// The address in the line that says `listener=<listener>`, wherever its keys stand.
    fn address_of(&self, listener: &str) -> Option<SocketAddr> {
        let wanted = format!("listener={listener}");
        self.text().lines().find_map(|line| {
            // JSON is brought into the shape of logfmt.
            let line = line.replace("\":\"", "=").replace(['"', '{', '}'], "").replace(',', " ");
            let pairs: Vec<&str> = line.split_ascii_whitespace().collect();
            let address = pairs.iter().find_map(|pair| pair.strip_prefix("address="));
            address.filter(|_| pairs.contains(&wanted.as_str()))?.parse().ok()
        })
    }
}

/// A running sidecar.
pub(crate) struct Sidecar {
    child: KillOnDrop,
    log: Log,
    reader: Option<JoinHandle<()>>,
    pub(crate) udp: SocketAddr,
    pub(crate) http: SocketAddr,
}

impl Sidecar {
    /// Starts one with `settings` (`KEY=VALUE`) over [`SETTINGS`] and waits until it is ready.
    pub(crate) fn start(settings: &[&str]) -> Self {
        Self::start_with(settings, &[])
    }

    /// As [`Sidecar::start`], with further arguments.
    pub(crate) fn start_with(settings: &[&str], arguments: &[&str]) -> Self {
        Self::of(spawn(settings, arguments))
    }

    /// One that was started by a command of its own, its log piped; waits until it is ready.
    pub(crate) fn of(child: Child) -> Self {
        let sidecar = Self::unasked(child);
        sidecar.wait_until("it is ready", |it| it.try_get("/-/ready", &[]).is_some_and(|reply| reply.status == 200));
        sidecar
    }

    /// The same, not asked yet whether it is ready: it may not speak plain HTTP.
    pub(crate) fn unasked(mut child: Child) -> Self {
        let log = Log::default();
        let reader = log.follow(child.stderr.take().unwrap());
        let mut child = KillOnDrop(Some(child));
        let (udp, http) = wait_for_or_explain(
            "the log names its addresses",
            || {
                if let Some(status) = child.0.as_mut().unwrap().try_wait().unwrap() {
                    panic!("the sidecar ended with {status} before it listened; its log:\n{}", log.text());
                }
                // HTTP is logged last. Without UDP there is nothing to send to by default.
                let http = log.address_of("http")?;
                Some((log.address_of("udp").unwrap_or(([0, 0, 0, 0], 0).into()), http))
            },
            || format!("its log:\n{}", log.text()),
        );
        Self { child, log, reader: Some(reader), udp, http }
    }

    /// A socket of its own to send from, connected to the sidecar.
    pub(crate) fn sender(&self) -> Sender {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.connect(self.udp).unwrap();
        Sender(socket)
    }

    /// Sends each line as a datagram of its own, from one new socket. For few lines: nothing here watches the queue.
    pub(crate) fn send(&self, lines: &[&str]) {
        let sender = self.sender();
        for line in lines {
            sender.send(line.as_bytes());
        }
    }

    /// Sends `lines` and waits until all of them are in the books.
    pub(crate) fn take(&self, lines: &[&str]) -> Scrape {
        self.send(lines);
        self.settled(lines.len() as u64)
    }

    /// Waits until `lines` lines in all are taken up and their samples booked, then scrapes once more.
    ///
    /// The last scrape is a new one because the own metrics of a scrape may be read later than its user series.
    pub(crate) fn settled(&self, lines: u64) -> Scrape {
        let expected = lines as f64;
        let seen = RefCell::new(Scrape::default());
        wait_for_or_explain(
            &format!("{lines} lines are taken up and booked"),
            || {
                let scrape = self.scrape();
                let booked = scrape.lines() >= expected && scrape.recorded() + scrape.dropped() >= expected;
                seen.replace(scrape);
                booked.then_some(())
            },
            || {
                let seen = seen.borrow();
                let (taken, recorded, dropped) = (seen.lines(), seen.recorded(), seen.dropped());
                format!("lines {taken} recorded {recorded} dropped {dropped}\n{}\nits log:\n{}", seen.text, self.log())
            },
        );
        self.scrape()
    }

    /// Looks at `condition` until it holds; a failure shows the log.
    pub(crate) fn wait_until(&self, what: &str, mut condition: impl FnMut(&Self) -> bool) {
        wait_for_or_explain(what, || condition(self).then_some(()), || format!("its log:\n{}", self.log.text()));
    }

    /// The exposition in text 0.0.4.
    pub(crate) fn scrape(&self) -> Scrape {
        self.scrape_as("text/plain;version=0.0.4")
    }

    /// The exposition for an `Accept` header.
    pub(crate) fn scrape_as(&self, accept: &str) -> Scrape {
        let reply = self.get("/metrics", &[("Accept", accept)]);
        assert_eq!(reply.status, 200, "GET /metrics: {reply:?}\nits log:\n{}", self.log.text());
        let content_type = reply.header("content-type").unwrap_or_default().to_owned();
        if content_type.starts_with("application/vnd.google.protobuf") {
            let families = protobuf::decode(&reply.body);
            return Scrape { content_type, text: format!("{families:#?}"), samples: protobuf::samples(&families) };
        }
        let text = String::from_utf8(reply.body).expect("an exposition is UTF-8");
        let samples = read_samples(&text);
        Scrape { content_type, text, samples }
    }

    /// A GET that must get an answer.
    pub(crate) fn get(&self, path: &str, headers: &[(&str, &str)]) -> Reply {
        get(self.http, path, headers)
            .unwrap_or_else(|error| panic!("GET {path}: {error}; its log:\n{}", self.log.text()))
    }

    /// A GET, `None` if there is no answer.
    pub(crate) fn try_get(&self, path: &str, headers: &[(&str, &str)]) -> Option<Reply> {
        get(self.http, path, headers).ok()
    }

    /// Where a listener is bound, as the log says.
    pub(crate) fn address_of(&self, listener: &str) -> SocketAddr {
        self.log.address_of(listener).unwrap_or_else(|| panic!("no {listener} in\n{}", self.log.text()))
    }

    pub(crate) fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.0.as_ref().unwrap().id()).unwrap())
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill(self.pid(), signal).unwrap();
    }

    pub(crate) fn log(&self) -> String {
        self.log.text()
    }

    /// Whether the process is still there.
    pub(crate) fn is_running(&mut self) -> bool {
        self.child.0.as_mut().unwrap().try_wait().unwrap().is_none()
    }

    /// Sends SIGTERM and waits for the end; anything but exit code 0 is a failure.
    pub(crate) fn stop(self) {
        self.signal(Signal::SIGTERM);
        let log = self.log.clone();
        let status = self.wait();
        assert_eq!(status.code(), Some(0), "SIGTERM ends it with 0; its log:\n{}", log.text());
    }

    /// Waits for the end.
    pub(crate) fn wait(mut self) -> ExitStatus {
        let log = self.log.clone();
        let status = wait_for_or_explain(
            "the sidecar ends",
            || self.child.0.as_mut().unwrap().try_wait().unwrap(),
            || format!("its log:\n{}", log.text()),
        );
        self.reader.take().unwrap().join().unwrap();
        status
    }
}

/// Starts a sidecar whose start is expected to fail; gives its exit status and log.
pub(crate) fn start_in_vain(settings: &[&str]) -> (ExitStatus, String) {
    end_of_start(spawn(settings, &[]))
}

/// The same for one that was started by a command of its own, its log piped.
pub(crate) fn end_of_start(mut child: Child) -> (ExitStatus, String) {
    let log = Log::default();
    let reader = log.follow(child.stderr.take().unwrap());
    let mut child = KillOnDrop(Some(child));
    let status = wait_for_or_explain(
        "a sidecar that cannot start ends",
        || child.0.as_mut().unwrap().try_wait().unwrap(),
        || format!("its log:\n{}", log.text()),
    );
    reader.join().unwrap();
    (status, log.text())
}

/// Starts a sidecar, with `settings` over those that all have.
pub(crate) fn spawn(settings: &[&str], arguments: &[&str]) -> Child {
    spawn_by(program(), settings, arguments)
}

/// The same by a shell, which does `first` and then becomes the program.
pub(crate) fn spawn_after(first: &str, settings: &[&str], arguments: &[&str]) -> Child {
    let mut shell = Command::new("sh");
    shell.args(["-c", &format!("{first} && exec \"$0\" \"$@\""), env!("CARGO_BIN_EXE_statsieve")]);
    shell.env_remove("STATSIEVE_CONFIG").stdin(Stdio::null());
    spawn_by(shell, settings, arguments)
}

fn spawn_by(mut command: Command, settings: &[&str], arguments: &[&str]) -> Child {
    for setting in SETTINGS.iter().chain(settings) {
        command.args(["--set", setting]);
    }
    command.args(arguments).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("statsieve starts")
}

/// A socket that sends datagrams to one sidecar.
pub(crate) struct Sender(UdpSocket);

impl Sender {
    pub(crate) fn send(&self, datagram: &[u8]) {
        let sent = self.0.send(datagram).expect("loopback takes a datagram");
        assert_eq!(sent, datagram.len());
    }
}

/// An HTTP reply.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Reply {
    /// A header by its name in lower case.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// One GET over a connection of its own.
pub(crate) fn get(address: SocketAddr, path: &str, headers: &[(&str, &str)]) -> std::io::Result<Reply> {
    request(address, "GET", path, headers)
}

/// One request without a body over a connection of its own.
pub(crate) fn request(
    address: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
) -> std::io::Result<Reply> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut request =
        format!("{method} {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nContent-Length: 0\r\n");
    for (name, value) in headers {
        write!(request, "{name}: {value}\r\n").unwrap();
    }
    request.push_str("\r\n");
    stream.write_all(request.as_bytes())?;
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes)?;
    read_reply(&bytes).ok_or_else(|| {
        std::io::Error::new(std::io::ErrorKind::InvalidData, format!("no whole reply in {:?}", show(&bytes)))
    })
}

fn show(bytes: &[u8]) -> String {
    String::from_utf8_lossy(&bytes[..bytes.len().min(300)]).into_owned()
}

/// A reply from all the bytes of a closed connection; `None` if a part is missing.
pub(crate) fn read_reply(bytes: &[u8]) -> Option<Reply> {
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n")?;
    let head = std::str::from_utf8(&bytes[..end]).ok()?;
    let mut lines = head.split("\r\n");
    let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
    let headers: Vec<(String, String)> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    let mut reply = Reply { status, headers, body: bytes[end + 4..].to_vec() };
    if reply.header("transfer-encoding").is_some_and(|coding| coding.eq_ignore_ascii_case("chunked")) {
        reply.body = join_chunks(&reply.body)?;
    } else if let Some(length) = reply.header("content-length") {
        let length: usize = length.parse().ok()?;
        reply.body.get(..length)?;
        reply.body.truncate(length);
    }
    Some(reply)
}

/// The body of a chunked reply; `None` unless the closing chunk is there.
fn join_chunks(mut rest: &[u8]) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let end = rest.windows(2).position(|window| window == b"\r\n")?;
        let size = std::str::from_utf8(&rest[..end]).ok()?.split(';').next()?;
        let size = usize::from_str_radix(size.trim(), 16).ok()?;
        rest = &rest[end + 2..];
        if size == 0 {
            return Some(body);
        }
        body.extend_from_slice(rest.get(..size)?);
        rest = rest.get(size + 2..)?;
    }
}

/// One exposition: its text (of protobuf the messages as Rust shows them), and its samples by `name{label="value",...}`
/// with the labels in order of their names.
#[derive(Default)]
pub(crate) struct Scrape {
    pub(crate) content_type: String,
    pub(crate) text: String,
    pub(crate) samples: BTreeMap<String, f64>,
}

impl Scrape {
    /// The value of a series, written with its labels in order of their names.
    pub(crate) fn get(&self, series: &str) -> Option<f64> {
        self.samples.get(series).copied()
    }

    /// The same; a missing series is a failure that shows the exposition.
    pub(crate) fn value(&self, series: &str) -> f64 {
        self.get(series).unwrap_or_else(|| panic!("no series {series} in\n{}", self.text))
    }

    /// Asserts one value, exactly.
    pub(crate) fn assert(&self, series: &str, expected: f64) {
        assert_eq!(self.value(series), expected, "{series} in\n{}", self.text);
    }

    /// Asserts one value that is the result of divisions, to 12 digits.
    pub(crate) fn assert_near(&self, series: &str, expected: f64) {
        let found = self.value(series);
        let tolerance = expected.abs().max(1e-9) * 1e-12;
        assert!((found - expected).abs() <= tolerance, "{series}: {found}, not {expected}, in\n{}", self.text);
    }

    /// Every sample of one name: its labels as text (`""` or `{...}`) and its value.
    pub(crate) fn of<'a>(&'a self, name: &'a str) -> impl Iterator<Item = (&'a str, f64)> {
        self.samples.iter().filter_map(move |(series, value)| {
            let labels = series.strip_prefix(name)?;
            (labels.is_empty() || labels.starts_with('{')).then_some((labels, *value))
        })
    }

    /// The sum over all samples of one name; 0 if there is none.
    pub(crate) fn sum(&self, name: &str) -> f64 {
        self.of(name).map(|(_, value)| value).sum()
    }

    pub(crate) fn lines(&self) -> f64 {
        self.sum("statsieve_lines_total")
    }

    pub(crate) fn recorded(&self) -> f64 {
        self.sum("statsieve_samples_recorded_total")
    }

    pub(crate) fn dropped(&self) -> f64 {
        self.sum("statsieve_samples_dropped_total")
    }

    /// Drops by reason, those above 0.
    pub(crate) fn dropped_by_reason(&self) -> BTreeMap<String, u64> {
        self.of("statsieve_samples_dropped_total")
            .filter(|(_, count)| *count > 0.0)
            .map(|(labels, count)| (labels.split('"').nth(1).unwrap().to_owned(), count as u64))
            .collect()
    }

    /// Datagrams the kernel dropped, over all UDP sockets.
    pub(crate) fn kernel_drops(&self) -> f64 {
        self.value("statsieve_kernel_dropped_datagrams_total{listener=\"udp\"}")
    }

    /// Cumulative buckets of a histogram as (upper bound, count), ascending; `labels` without `le`, e.g. `type="x"`.
    pub(crate) fn buckets(&self, name: &str, labels: &str) -> Vec<(f64, f64)> {
        let mut buckets: Vec<(f64, f64)> = self
            .of(&format!("{name}_bucket"))
            .filter_map(|(text, count)| {
                let mut pairs = read_labels(text);
                let place = pairs.iter().position(|(key, _)| key == "le")?;
                let (_, bound) = pairs.remove(place);
                (write_labels(&pairs).trim_matches(['{', '}']) == labels)
                    .then(|| (bound.parse().expect("le is a number"), count))
            })
            .collect();
        buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
        buckets
    }

    /// Every series but the sidecar's own, and those of its process.
    pub(crate) fn user_series(&self) -> BTreeMap<&str, f64> {
        self.samples
            .iter()
            .filter(|(series, _)| !["statsieve_", "process_"].iter().any(|own| series.starts_with(own)))
            .map(|(series, value)| (series.as_str(), *value))
            .collect()
    }
}

/// The samples of a text exposition (0.0.4 or OpenMetrics).
pub(crate) fn read_samples(text: &str) -> BTreeMap<String, f64> {
    let mut samples = BTreeMap::new();
    for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let (series, rest) = split_sample(line);
        let value = rest.split_ascii_whitespace().next().unwrap_or_default();
        let value = value.parse().unwrap_or_else(|_| panic!("no value in {line:?}"));
        let before = samples.insert(series, value);
        assert_eq!(before, None, "one series twice: {line:?}");
    }
    samples
}

/// Cuts a sample line behind its labels; gives the series with its labels in order, and the rest.
fn split_sample(line: &str) -> (String, &str) {
    let name_end = line.find(['{', ' ']).unwrap_or_else(|| panic!("no sample: {line:?}"));
    let (name, rest) = line.split_at(name_end);
    if !rest.starts_with('{') {
        return (name.to_owned(), rest);
    }
    let mut quoted = false;
    let mut escaped = false;
    let end = rest
        .char_indices()
        .find(|(_, letter)| {
            let ends = *letter == '}' && !quoted;
            if *letter == '"' && !escaped {
                quoted = !quoted;
            }
            escaped = *letter == '\\' && !escaped;
            ends
        })
        .unwrap_or_else(|| panic!("labels without an end: {line:?}"))
        .0;
    let labels = read_labels(&rest[..=end]);
    (format!("{name}{}", write_labels(&labels)), &rest[end + 1..])
}

/// `{a="1",b="2"}` as pairs in order of their names; values stay escaped.
fn read_labels(text: &str) -> Vec<(String, String)> {
    let mut pairs = Vec::new();
    let mut rest = text.trim_start_matches('{');
    while let Some((name, after)) = rest.split_once("=\"") {
        let mut escaped = false;
        let end = after
            .char_indices()
            .find(|(_, letter)| {
                let ends = *letter == '"' && !escaped;
                escaped = *letter == '\\' && !escaped;
                ends
            })
            .unwrap_or_else(|| panic!("label value without an end: {text:?}"))
            .0;
        pairs.push((name.to_owned(), after[..end].to_owned()));
        rest = after[end + 1..].trim_start_matches(',');
    }
    pairs.sort();
    pairs
}

fn write_labels(pairs: &[(String, String)]) -> String {
    if pairs.is_empty() {
        return String::new();
    }
    let pairs: Vec<String> = pairs.iter().map(|(name, value)| format!("{name}=\"{value}\"")).collect();
    format!("{{{}}}", pairs.join(","))
}

/// The bucket label of a user id under the default configuration.
pub(crate) fn user_bucket(id: &str) -> String {
    format!("bucket_{}", xxhash_rust::xxh64::xxh64(id.as_bytes(), 0) % 100)
}

/// Asserts that a number lies in a range, with a message that says which number it is.
pub(crate) fn assert_within(what: &str, found: f64, range: RangeInclusive<f64>) {
    assert!(range.contains(&found), "{what} is {found}, not within {range:?}");
}

#[test]
fn a_chunked_reply_is_read_whole_and_a_cut_one_is_none() {
    let whole = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nab\n\r\nA;x=y\r\n0123456789\r\n0\r\n\r\n";
    let reply = read_reply(whole).unwrap();
    assert_eq!((reply.status, reply.text().as_str()), (200, "ab\n0123456789"));
    assert!(read_reply(&whole[..whole.len() - 5]).is_none());
    assert!(read_reply(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n1234").is_none());
}

#[test]
fn samples_are_keyed_by_name_and_labels_in_order() {
    let text = "# TYPE a counter\na_total 3\na{z=\"1\",b=\"q\\\"}, \\\\\"} 1e3 17\nh_bucket{le=\"+Inf\"} 2 # {x=\"y\"} 1\n# EOF\n";
    let samples = read_samples(text);
    let expected = [("a_total", 3.0), ("a{b=\"q\\\"}, \\\\\",z=\"1\"}", 1000.0), ("h_bucket{le=\"+Inf\"}", 2.0)];
    assert_eq!(samples, expected.map(|(series, value)| (series.to_owned(), value)).into());
}

#[test]
fn addresses_are_found_in_the_log_whatever_the_order_of_keys() {
    let log = Log::default();
    let lines = "level=info address=127.0.0.1:4 msg=listening listener=http\nlistener=udp address=\"127.0.0.1:5\"\n";
    log.follow(lines.as_bytes()).join().unwrap();
    assert_eq!(log.address_of("http"), Some("127.0.0.1:4".parse().unwrap()));
    assert_eq!(log.address_of("udp"), Some("127.0.0.1:5".parse().unwrap()));
    assert_eq!(log.address_of("tcp"), None);
}
