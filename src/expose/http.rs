//! Serves expositions over HTTP/1.1.
//!
//! In: connections on one listener. Out: answers on a handful of paths, of which only the exposition is long.
//! Not here: what an exposition holds (`expose`), which format it takes (`negotiate`).
//! Always: connections stay under `http.max_connections`, further ones wait in the kernel; a client that sends no whole
//! request, or takes nothing of its answer, is cut off in time; no error of a connection reaches the listener.
//! Follows: RFC 9110, RFC 9112.

mod body;
mod top;

use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, TcpListener, ToSocketAddrs};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::header::{self, HeaderName, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{HeaderMap, Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio_io_timeout::TimeoutStream;

pub use self::body::connection_bytes;
use self::body::{Reply, Ticket};
pub use self::top::InsightSource;
use super::lifecycle::{Lifecycle, Phase};
use super::{Exposer, negotiate};
use crate::config::{DebugApi, Format, Http};
use crate::insight::Insight;

/// How long a request may take to arrive, and a connection to lie idle between two.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// A request's head, bytes; Prometheus sends about 600.
const MAX_HEADER_BYTES: usize = 16 * 1024;
/// Lines of a request's head.
const MAX_HEADERS: usize = 64;
/// What a connection gathers before it waits for its reader, bytes.
const MAX_BUFFER_BYTES: usize = 64 * 1024;
/// Connections the kernel may complete before they are accepted.
const BACKLOG: i32 = 128;
/// How long the answers under way may take once the server was told to stop.
const STOP_GRACE: Duration = Duration::from_secs(5);

/// What `http.debug_api` guards.
const DEBUG_PATHS: &str = "/api/v1/";

const PLAIN: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";
const HTML: &str = "text/html; charset=utf-8";
const LANDING: &str = include_str!("http/landing.html");

/// What every connection shares.
#[derive(Debug)]
pub struct State {
    metrics_path: String,
    formats: Vec<Format>,
    max_connections: usize,
    write_timeout: Duration,
    /// How long a request may take to arrive, and a connection to lie idle between two; 10 seconds unless changed.
    pub header_timeout: Duration,
    debug_api: DebugApi,
    exposer: Exposer,
    insight: Option<InsightSource>,
    lifecycle: Arc<Lifecycle>,
    landing: String,
}

impl State {
    /// A server as configured.
    pub fn new(http: &Http, exposer: Exposer, lifecycle: Arc<Lifecycle>) -> Self {
        Self {
            metrics_path: http.metrics_path.clone(),
            formats: http.formats.clone(),
            max_connections: http.max_connections,
            write_timeout: http.write_timeout,
            header_timeout: HEADER_TIMEOUT,
            debug_api: http.debug_api,
            exposer,
            insight: None,
            lifecycle,
            landing: LANDING
                .replace("{version}", env!("CARGO_PKG_VERSION"))
                .replace("{metrics_path}", &escape(&http.metrics_path)),
        }
    }

    /// Serves `/api/v1/top` from what `insight` gives, which is asked at each request.
    pub fn with_insight(mut self, insight: Box<dyn Fn() -> Arc<Insight> + Send + Sync>) -> Self {
        self.insight = Some(InsightSource(insight));
        self
    }
}

/// Whether a client at `peer` that asks for `host` may see what is under `/api/v1/`.
///
/// A name other than `localhost` is refused on the loopback: a web page can have its own name resolve to this machine and
/// read what a browser here gets (DNS rebinding). It cannot do so with an address.
fn may_debug(api: DebugApi, peer: Option<IpAddr>, host: Option<&str>) -> bool {
    match api {
        DebugApi::Loopback => {
            peer.is_some_and(|peer| peer.to_canonical().is_loopback()) && host.is_none_or(is_no_foreign_name)
        }
        DebugApi::All => true,
        DebugApi::Off => false,
    }
}

/// Text as it may stand in HTML, attributes included.
fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;").replace('\'', "&#39;")
}

/// Binds `address` (`host:port`, resolved here; port 0 lets the kernel choose), so that connections may come.
///
/// # Errors
/// What resolving it or the last of the addresses it stands for failed with.
pub fn bind(address: &str) -> io::Result<TcpListener> {
    let mut failure = io::Error::new(io::ErrorKind::NotFound, "the name stands for no address");
    for address in address.to_socket_addrs()? {
        let bound = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP)).and_then(|socket| {
            // A restart need not wait until the connections of the process before have timed out.
            socket.set_reuse_address(true)?;
            socket.bind(&address.into())?;
            socket.listen(BACKLOG)?;
            socket.set_nonblocking(true)?;
            Ok(socket)
        });
        match bound {
            Ok(socket) => return Ok(socket.into()),
            Err(error) => failure = error,
        }
    }
    Err(failure)
}

/// Accepts connections until [`Lifecycle::stop`], then waits for the answers under way, 5 seconds at most.
///
/// Needs a tokio runtime with I/O and time; one thread is enough.
///
/// # Errors
/// If the runtime cannot take the listener. Nothing that happens to a connection is an error here.
pub async fn serve(listener: TcpListener, state: Arc<State>) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let connections = u32::try_from(state.max_connections).unwrap_or(u32::MAX).max(1);
    let permits = Arc::new(Semaphore::new(connections as usize));
    let mut stopped = pin!(state.lifecycle.stopped());
    let mut backoff = Backoff::default();
    loop {
        // The permit comes first: over the limit a connection stays in the kernel's backlog.
        let next = async {
            let permit = Arc::clone(&permits).acquire_owned().await.expect("the semaphore is never closed");
            (permit, accept(&listener, &state, &mut backoff).await)
        };
        let (permit, stream) = tokio::select! {
            biased;
            () = &mut stopped => break,
            next = next => next,
        };
        let state = Arc::clone(&state);
        tokio::spawn(async move {
            connection(stream, state).await;
            drop(permit);
        });
    }
    drop(listener);
    // All permits back means all connections gone; those that outlast the grace are cut off with the runtime.
    _ = tokio::time::timeout(STOP_GRACE, permits.acquire_many(connections)).await;
    Ok(())
}

/// The next connection. Failures are counted and waited out, since without descriptors each try fails at once.
async fn accept(listener: &tokio::net::TcpListener, state: &State, backoff: &mut Backoff) -> TcpStream {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                if backoff.succeeded() {
                    tracing::info!("HTTP connections are accepted again");
                }
                return stream;
            }
            // The client went away before it was accepted.
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::Interrupted
                ) => {}
            Err(error) => {
                state.exposer.telemetry().accept_failed();
                if !backoff.is_failing() {
                    tracing::warn!(%error, "cannot accept HTTP connections");
                }
                tokio::time::sleep(backoff.failed()).await;
            }
        }
    }
}

/// How long to wait before the next try: 10 ms, doubled by each failure in a row, up to a second.
#[derive(Debug, Default)]
struct Backoff {
    wait: Option<Duration>,
}

impl Backoff {
    const FIRST: Duration = Duration::from_millis(10);
    const LONGEST: Duration = Duration::from_secs(1);

    fn is_failing(&self) -> bool {
        self.wait.is_some()
    }

    fn failed(&mut self) -> Duration {
        let wait = self.wait.map_or(Self::FIRST, |wait| (wait * 2).min(Self::LONGEST));
        self.wait = Some(wait);
        wait
    }

    /// Whether this ends a run of failures.
    fn succeeded(&mut self) -> bool {
        self.wait.take().is_some()
    }
}

/// Answers the requests of one connection, one after another.
async fn connection(stream: TcpStream, state: Arc<State>) {
    // Without it a short answer waits for an acknowledgement; a socket that refuses it works all the same.
    _ = stream.set_nodelay(true);
    let peer = stream.peer_addr().ok().map(|peer| peer.ip());
    let mut stream = TimeoutStream::new(stream);
    stream.set_write_timeout((!state.write_timeout.is_zero()).then_some(state.write_timeout));
    let service = service_fn(|request| {
        let response = respond(&state, &request, peer);
        async { Ok::<_, Infallible>(response) }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(state.header_timeout)
        .max_header_size(MAX_HEADER_BYTES)
        .max_headers(MAX_HEADERS)
        .max_buf_size(MAX_BUFFER_BYTES)
        .half_close(true)
        .serve_connection(TokioIo::new(Box::pin(stream)), service);
    let mut served = pin!(served);
    // Whatever a connection ends with concerns its client alone.
    _ = tokio::select! {
        ended = served.as_mut() => ended,
        () = state.lifecycle.stopped() => {
            served.as_mut().graceful_shutdown();
            served.await
        }
    };
}

fn respond(state: &State, request: &Request<Incoming>, peer: Option<IpAddr>) -> Response<Reply> {
    type Answer = fn(&State, &Request<Incoming>) -> Response<Reply>;
    let answer: Answer = match request.uri().path() {
        path if path == state.metrics_path => metrics,
        "/" => |state, request| {
            let mut response = page(StatusCode::OK, HTML, &state.landing, request);
            let policy =
                HeaderValue::from_static("default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'");
            response.headers_mut().insert(header::CONTENT_SECURITY_POLICY, policy);
            response
        },
        top::PATH if state.debug_api != DebugApi::Off && state.insight.is_some() => top::answer,
        "/-/healthy" => |_, request| page(StatusCode::OK, PLAIN, "healthy\n", request),
        "/-/ready" => |state, request| {
            let phase = state.lifecycle.phase();
            let status = if phase == Phase::Ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
            page(status, PLAIN, phase.text(), request)
        },
        _ => return page(StatusCode::NOT_FOUND, PLAIN, "not found\n", request),
    };
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut response = page(StatusCode::METHOD_NOT_ALLOWED, PLAIN, "method not allowed\n", request);
        response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
        return response;
    }
    let host = request.headers().get(header::HOST).map(|host| host.to_str().unwrap_or("?"));
    if request.uri().path().starts_with(DEBUG_PATHS) && !may_debug(state.debug_api, peer, host) {
        let text = "for clients on this machine only; http.debug_api = \"all\" opens it\n";
        return page(StatusCode::FORBIDDEN, PLAIN, text, request);
    }
    answer(state, request)
}

/// Whether a `Host` is an address or `localhost`, with or without a port.
fn is_no_foreign_name(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    name == "localhost" || name.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>().is_ok()
}

/// The exposition, in the format and coding asked for. `HEAD` gets the same headers, as far as they are known without
/// making it.
fn metrics(state: &State, request: &Request<Incoming>) -> Response<Reply> {
    let vary = (header::VARY, HeaderValue::from_static("Accept, Accept-Encoding"));
    let Some(coding) = negotiate::coding(&joined(request.headers(), header::ACCEPT_ENCODING)) else {
        let text = "this resource comes as it is or with gzip, and the request excludes both\n";
        let mut response = page(StatusCode::NOT_ACCEPTABLE, PLAIN, text, request);
        response.headers_mut().insert(vary.0, vary.1);
        return response;
    };
    let choice = negotiate::format(&joined(request.headers(), header::ACCEPT), &state.formats);
    let (reply, compressed) = if request.method() == Method::HEAD {
        (Reply::default(), coding != negotiate::Coding::Identity)
    } else {
        let ticket = Ticket::take(&state.lifecycle);
        Reply::scrape(state.exposer.begin(choice.format), coding, ticket)
    };
    let mut response = Response::new(reply);
    let headers = response.headers_mut();
    let content_type = HeaderValue::try_from(choice.content_type()).expect("it is made of constants");
    headers.insert(header::CONTENT_TYPE, content_type);
    headers.insert(vary.0, vary.1);
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if compressed {
        headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    response
}

/// A short answer; for `HEAD` its headers only.
fn page(status: StatusCode, kind: &'static str, text: &str, request: &Request<Incoming>) -> Response<Reply> {
    let head = request.method() == Method::HEAD;
    let mut response = Response::new(if head { Reply::default() } else { Reply::whole(text.to_owned()) });
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(text.len()));
    response
}

/// All lines of a header as one list; lines that are no visible ASCII are passed over.
fn joined(headers: &HeaderMap, name: HeaderName) -> String {
    let mut list = String::new();
    for line in headers.get_all(name).iter().filter_map(|line| line.to_str().ok()) {
        if !list.is_empty() {
            list.push(',');
        }
        list.push_str(line);
    }
    list
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_in_a_row_are_waited_out_ever_longer_up_to_a_second() {
        let mut backoff = Backoff::default();
        let waits: Vec<u128> = (0..9).map(|_| backoff.failed().as_millis()).collect();
        assert_eq!(waits, [10, 20, 40, 80, 160, 320, 640, 1000, 1000]);
        assert!(backoff.succeeded());
        assert!(!backoff.succeeded(), "only the first success ends it");
        assert_eq!(backoff.failed(), Backoff::FIRST);
    }

    #[test]
    fn loopback_is_this_machine_in_either_family_and_nobody_else() {
        for (peer, expected) in [
            (Some("127.0.0.1"), true),
            (Some("127.8.9.10"), true),
            (Some("::1"), true),
            (Some("::ffff:127.0.0.1"), true),
            (Some("10.0.0.1"), false),
            (Some("::ffff:10.0.0.1"), false),
            (Some("fe80::1"), false),
            (None, false),
        ] {
            let peer = peer.map(|peer| peer.parse().unwrap());
            assert_eq!(may_debug(DebugApi::Loopback, peer, None), expected, "{peer:?}");
            assert!(may_debug(DebugApi::All, peer, None) && !may_debug(DebugApi::Off, peer, None));
        }
    }

    #[test]
    fn a_page_that_has_its_name_resolve_to_this_machine_sees_nothing() {
        let peer = Some("127.0.0.1".parse().unwrap());
        for (host, expected) in [
            ("127.0.0.1:9102", true),
            ("127.0.0.1", true),
            ("[::1]:9102", true),
            ("localhost:9102", true),
            ("localhost", true),
            ("evil.example", false),
            ("evil.example:9102", false),
            ("localhost.evil.example", false),
            ("?", false),
            ("", false),
        ] {
            assert_eq!(may_debug(DebugApi::Loopback, peer, Some(host)), expected, "{host}");
            assert!(may_debug(DebugApi::All, peer, Some(host)));
        }
    }

    #[test]
    fn binding_resolves_names_and_a_port_in_use_is_an_error() {
        let first = bind("localhost:0").unwrap();
        let address = first.local_addr().unwrap();
        assert_eq!(bind(&address.to_string()).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        assert!(bind("no port here").is_err());
    }

    #[test]
    fn a_path_cannot_break_out_of_the_landing_page() {
        assert_eq!(escape("/<a href=\"'&"), "/&lt;a href=&quot;&#39;&amp;");
        assert!(LANDING.contains("{version}") && LANDING.contains("\"{metrics_path}\""));
    }
}
