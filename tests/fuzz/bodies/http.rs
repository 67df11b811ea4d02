//! What a client may get out of the HTTP service: negotiation by itself, and requests through the whole of it.
//!
//! In: bytes; the first chooses settings, the others are two header values, or all that a client sends. Out: nothing,
//! or a panic that says what did not hold.
//! Not here: TLS and HTTP/2, connections and their limits.
//! Always: the service is the program's own, over a pipe in memory in place of a socket.

use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use statsieve::clock::Clock;
use statsieve::config::{Config, Format, Loaded, OwnMetrics, Sources, load};
use statsieve::expose::Exposer;
use statsieve::expose::http::{Admin, State, converse};
use statsieve::expose::lifecycle::Lifecycle;
use statsieve::expose::negotiate::{Coding, coding, format};
use statsieve::expose::report::Report;
use statsieve::expose::web::Followed;
use statsieve::insight::Insight;
use statsieve::model::DropReason;
use statsieve::telemetry::Telemetry;
use statsieve::telemetry::refusals::Refusals;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::runtime::{Builder, Runtime};

use super::rig::Rig;

/// How long a conversation may take at most.
const PATIENCE: Duration = Duration::from_secs(5);
/// What the service answers with, hyper's own answers included.
const STATUSES: [u16; 13] = [100, 200, 400, 401, 403, 404, 405, 406, 413, 414, 431, 500, 503];
/// `u:p`, as a client writes it.
const CREDENTIALS: &str = "dTpw";
/// The same as the file of users has it; the cheapest hash there is.
const USERS: &str = "basic_auth_users:\n  u: $2b$04$abcdefghijklmnopqrstuudMegMbPN37MbpdEfAtP66w1z0RBCtLG\n";
/// A client of another machine.
const STRANGER: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 7));

/// A service under one of some settings.
struct Service {
    state: Arc<State>,
    formats: Vec<Format>,
    asks_users: bool,
    debug: bool,
    acts: bool,
    /// Reloads and ends that were asked for.
    acted: Arc<AtomicUsize>,
}

thread_local! {
    static RUNTIME: Runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
}

static SERVICES: LazyLock<Vec<Service>> = LazyLock::new(|| {
    vec![
        service(&[], false),
        service(
            &["http.formats=[\"text\"]", "http.metrics_path=/m", "http.debug_api=all", "http.lifecycle=true"],
            false,
        ),
        service(&["http.lifecycle=true"], true),
        service(&["http.formats=[\"protobuf\",\"text\"]", "http.debug_api=off"], false),
    ]
});

fn service(set: &[&str], asks_users: bool) -> Service {
    let mut set: Vec<String> = set.iter().map(ToString::to_string).collect();
    let web = asks_users.then(|| super::written("web.yml", USERS.as_bytes()));
    set.extend(web.as_ref().map(|path| format!("http.web_config_file={}", path.display())));
    let loaded = load(&Sources { file: None, set }).unwrap_or_else(|problems| panic!("{problems}"));
    let config = loaded.config.clone();
    let mut rig = Rig::of(&config, 1);
    rig.send(0, b"a:1|c|#k:v,user_id:7\nb:2|ms\nc:3|g\nd:x|s\nbad");
    let acted = Arc::<AtomicUsize>::default();
    let lifecycle = Arc::<Lifecycle>::default();
    lifecycle.set_ready();
    let state = State::new(&config.http, web.map(followed), exposer(&rig), lifecycle.clone());
    let state = state
        .with_admin(admin(&acted, &loaded))
        .with_insight(insight(&config))
        .with_report(report(&rig, lifecycle, loaded));
    Service {
        state: Arc::new(state),
        formats: config.http.formats,
        asks_users,
        debug: config.http.debug_api == statsieve::config::DebugApi::All,
        acts: config.http.lifecycle,
        acted,
    }
}

fn followed(path: std::path::PathBuf) -> Followed {
    let followed = Followed::new(&path).unwrap_or_else(|problems| panic!("{problems}"));
    assert!(fs::exists(&path).is_ok_and(|there| there), "it is looked at again");
    followed
}

fn telemetry(rig: &Rig) -> Arc<Telemetry> {
    Arc::new(Telemetry::new(Vec::new(), Vec::new(), rig.books.clone(), "x", OwnMetrics::Core))
}

fn exposer(rig: &Rig) -> Exposer {
    Exposer::new(Box::new(rig.store.clone()), telemetry(rig), Box::new(|| {}))
}

fn admin(acted: &Arc<AtomicUsize>, loaded: &Loaded) -> Admin {
    let (reloads, ends, text) = (acted.clone(), acted.clone(), loaded.text.clone());
    Admin {
        reload: Box::new(move || match reloads.fetch_add(1, Relaxed) % 2 {
            0 => Ok("reloaded\n".to_owned()),
            _ => Err("a problem\n".to_owned()),
        }),
        quit: Box::new(move || _ = ends.fetch_add(1, Relaxed)),
        config: Box::new(move || text.clone()),
    }
}

fn insight(config: &Config) -> Box<dyn Fn() -> Arc<Insight> + Send + Sync> {
    let insight = Arc::new(Insight::new(config));
    Box::new(move || insight.clone())
}

fn report(rig: &Rig, lifecycle: Arc<Lifecycle>, loaded: Loaded) -> Report {
    let (loaded, refusals) = (Arc::new(loaded), Arc::<Refusals>::default());
    refusals.note(1, DropReason::MalformedValue, "bad <b>\"&\\".to_owned());
    Report {
        telemetry: telemetry(rig),
        store: rig.store.clone(),
        refusals,
        lifecycle,
        clock: Clock::default(),
        loaded: Box::new(move || loaded.clone()),
        listeners: Vec::new(),
        http: ([127, 0, 0, 1], 9102).into(),
    }
}

/// The first byte chooses formats, a line of `Accept` and one of `Accept-Encoding` follow. The same bytes are sent as
/// headers of a scrape, and as they are.
pub(super) fn http(data: &[u8]) {
    let [choice, bytes @ ..] = data else { return };
    let service = &SERVICES[usize::from(*choice) % SERVICES.len()];
    // What is no request costs a stranger nothing, so all bytes are tried as one.
    ask(service, bytes, STRANGER);
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let (accept, accept_encoding) = text.split_once('\n').unwrap_or((text, ""));
    negotiated(*choice, accept, accept_encoding);
    if [accept, accept_encoding].iter().all(|value| value.bytes().all(|byte| (b' '..=b'~').contains(&byte))) {
        scraped(service, accept.trim(), accept_encoding.trim());
    }
}

fn negotiated(choice: u8, accept: &str, accept_encoding: &str) {
    let all = [Format::Text, Format::OpenMetrics, Format::Protobuf];
    let mut formats: Vec<Format> =
        (0..3).filter(|at| choice >> at & 1 == 1).map(|at| all[(at + usize::from(choice >> 3)) % 3]).collect();
    if choice & 128 != 0 {
        formats.reverse();
    }
    // Blanks around an equals sign are passed over, as a client may have put them there.
    let asked: String = accept.to_ascii_lowercase().split_whitespace().collect();
    let chosen = format(accept, &formats);
    assert!(chosen.format == Format::Text || formats.contains(&chosen.format), "{chosen:?} of {formats:?}");
    let offers_text = formats.contains(&Format::Text);
    match chosen.format {
        Format::Protobuf => assert!(asked.contains("application/vnd.google.protobuf"), "{accept:?}"),
        // A quality of zero may rule text out.
        Format::OpenMetrics if offers_text && !asked.contains("q=0") => {
            assert!(asked.contains("application/openmetrics-text"), "{accept:?}");
        }
        _ => {}
    }
    assert!(chosen.content_type().bytes().all(|byte| (b' '..=b'~').contains(&byte)), "a legal header");
    let asked = accept_encoding.to_ascii_lowercase();
    match coding(accept_encoding) {
        Some(Coding::Identity) => {}
        Some(Coding::Gzip | Coding::GzipOnly) => assert!(asked.contains("gzip") || asked.contains('*'), "{asked:?}"),
        None => assert!(asked.contains("identity") || asked.contains('*'), "{asked:?}"),
    }
}

/// A scrape by the loopback says over the wire what negotiation says.
fn scraped(service: &Service, accept: &str, accept_encoding: &str) {
    let path = if service.formats == [Format::Text] { "/m" } else { "/metrics" };
    let user = if service.asks_users { format!("Authorization: Basic {CREDENTIALS}\r\n") } else { String::new() };
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: a\r\n{user}Accept: {accept}\r\nAccept-Encoding: {accept_encoding}\r\n\r\n"
    );
    let answers = ask(service, request.as_bytes(), Ipv4Addr::LOCALHOST.into());
    let [answer] = &answers[..] else { panic!("{} answers to one request", answers.len()) };
    // Longer than the head of a request may be.
    if [400, 431].contains(&answer.status) {
        assert!(request.len() > 8192, "{request:?}");
        return;
    }
    let Some(coded) = coding(accept_encoding) else {
        assert_eq!(answer.status, 406, "{request:?}");
        return;
    };
    assert_eq!(answer.status, 200, "{request:?}");
    let chosen = format(accept, &service.formats);
    assert_eq!(answer.header("content-type"), Some(&*chosen.content_type()), "{request:?}");
    let gzip = answer.header("content-encoding") == Some("gzip");
    assert!(!gzip || coded != Coding::Identity, "{request:?}");
    assert_eq!(gzip, answer.body.starts_with(&[0x1F, 0x8B]), "{request:?}");
    if !gzip && chosen.format != Format::Protobuf {
        let text = String::from_utf8_lossy(&answer.body);
        assert!(text.contains("statsieve_build") && text.ends_with('\n'), "{text}");
        assert_eq!(text.ends_with("# EOF\n"), chosen.format == Format::OpenMetrics);
    }
}

/// Sends bytes and then nothing more, and checks what holds for every answer.
fn ask(service: &Service, bytes: &[u8], peer: IpAddr) -> Vec<Answer> {
    let before = service.acted.load(Relaxed);
    let said = RUNTIME.with(|runtime| {
        runtime.block_on(async {
            let (client, server) = tokio::io::duplex(64 * 1024);
            let (mut from, mut to) = tokio::io::split(client);
            let speak = async {
                // One that was answered and cut off may not want the rest.
                _ = to.write_all(bytes).await;
                _ = to.shutdown().await;
            };
            let listen = async {
                let mut said = Vec::new();
                _ = from.read_to_end(&mut said).await;
                said
            };
            let all = async { tokio::join!(speak, listen, converse(server, service.state.clone(), Some(peer))).1 };
            tokio::time::timeout(PATIENCE, all).await.expect("a conversation ends")
        })
    });
    let answers = read(&said);
    let begun = bytes.iter().position(|byte| !b"\r\n".contains(byte)).map_or(&[][..], |at| &bytes[at..]);
    let is_whole = begun.windows(2).any(|end| end == b"\n\n") || begun.windows(3).any(|end| end == b"\n\r\n");
    // The preface of HTTP/2 is what nobody answers in HTTP/1.
    assert!(!answers.is_empty() || !is_whole || begun.starts_with(b"PRI "), "no answer to {begun:?}");
    let text = String::from_utf8_lossy(bytes);
    for answer in &answers {
        assert!(STATUSES.contains(&answer.status), "{answer:?} to {text:?}");
        let is_ours = answer.header("x-content-type-options").is_some();
        assert!(is_ours || answer.status != 200, "{answer:?} lacks what keeps a browser from harm");
        if service.asks_users && !text.contains(CREDENTIALS) {
            assert!(!is_ours || answer.status == 401, "{answer:?} to nobody: {text:?}");
        }
        let is_secret = answer.header("content-type").is_some_and(|kind| kind.starts_with("application/toml"));
        assert!(!is_secret || service.debug || service.asks_users, "the configuration went to a stranger: {text:?}");
    }
    let acted = service.acted.load(Relaxed) - before;
    assert!(acted == 0 || service.acts, "nobody may do that: {text:?}");
    assert!(acted <= text.matches("POST").count() + text.matches("PUT").count(), "reading does nothing: {text:?}");
    answers
}

/// An answer, taken apart.
#[derive(Debug)]
struct Answer {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Answer {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| &**value)
    }
}

/// All that was said, as answers one behind another; each is whole.
fn read(mut said: &[u8]) -> Vec<Answer> {
    let mut answers = Vec::new();
    while !said.is_empty() {
        let end = said.windows(4).position(|end| end == b"\r\n\r\n").expect("a head ends");
        let head = std::str::from_utf8(&said[..end]).expect("a head is text");
        said = &said[end + 4..];
        let mut lines = head.split("\r\n");
        let first = lines.next().unwrap_or_default();
        let version = first.strip_prefix("HTTP/1.1 ").or(first.strip_prefix("HTTP/1.0 "));
        let code = version.and_then(|rest| rest.get(..3)).unwrap_or_else(|| panic!("no status: {first:?}"));
        let header = |line: &str| {
            let (name, value) = line.split_once(": ").unwrap_or_else(|| panic!("no header: {line:?}"));
            (name.to_ascii_lowercase(), value.to_owned())
        };
        let headers: Vec<_> = lines.map(header).collect();
        let mut answer = Answer { status: code.parse().expect("a number"), headers, body: Vec::new() };
        for (name, _) in &answer.headers {
            assert_eq!(answer.headers.iter().filter(|(other, _)| other == name).count(), 1, "{name} twice: {answer:?}");
        }
        let length: Option<usize> = answer.header("content-length").map(|length| length.parse().expect("a length"));
        let chunked = answer.header("transfer-encoding") == Some("chunked");
        assert!(length.is_none() || !chunked, "one length: {answer:?}");
        // To `HEAD` a head alone; no body of ours begins as a head does.
        if said.is_empty() || said.starts_with(b"HTTP/1.") {
        } else if let Some(length) = length {
            assert!(said.len() >= length, "a body of {} bytes: {answer:?}", said.len());
            answer.body = said[..length].to_vec();
            said = &said[length..];
        } else if chunked {
            loop {
                let end = said.windows(2).position(|end| end == b"\r\n").expect("a length ends");
                let length =
                    std::str::from_utf8(&said[..end]).ok().and_then(|text| usize::from_str_radix(text, 16).ok());
                let length = length.unwrap_or_else(|| panic!("no length of a chunk: {:?}", &said[..end]));
                answer.body.extend_from_slice(&said[end + 2..][..length]);
                assert_eq!(&said[end + 2 + length..][..2], b"\r\n", "a chunk ends");
                said = &said[end + length + 4..];
                if length == 0 {
                    break;
                }
            }
        } else {
            // To the end, as HTTP/1.0 has it.
            answer.body = std::mem::take(&mut said).to_vec();
        }
        answers.push(answer);
    }
    answers
}
