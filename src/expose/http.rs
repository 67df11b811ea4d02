//! Serves expositions over HTTP.
//!
//! In: connections on one listener. Out: answers on a handful of paths, of which only the exposition is long.
//! Not here: what an exposition holds (`expose`), which format it takes (`negotiate`), TLS and users (`web`).
//! Always: connections stay under `http.max_connections`, and a further one takes the place of who asks for nothing,
//! takes an answer too slowly or has had one; a client that sends no whole request, or takes nothing of its answer, is
//! cut off in time; no error of a connection reaches the listener.
//! Follows: RFC 9110, RFC 9112.

mod body;
mod connection;
mod places;
mod top;

use std::borrow::Cow;
use std::fmt;
use std::io;
use std::net::{IpAddr, TcpListener};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use hyper::body::Incoming;
use hyper::header::{self, HeaderName, HeaderValue};
use hyper::http::uri::Authority;
use hyper::{HeaderMap, Method, Request, Response, StatusCode};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

pub use self::body::connection_bytes;
use self::body::{Reply, Ticket};
use self::connection::Client;
use self::places::Places;
pub use self::top::InsightSource;
use super::lifecycle::{Lifecycle, Phase};
use super::report::Report;
use super::report::page::POLICY;
use super::web::{Followed, InForce, Verdict};
use super::{Exposer, negotiate};
use crate::config::{DebugApi, Format, Http};
use crate::insight::Insight;
use crate::listen::Backoff;
use crate::telemetry::HttpRefusal;

/// How long a request may take to arrive, and a connection to lie idle between two.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// How long an answer may take before its connection gives way to another, if all are taken. Prometheus waits 10 seconds
/// for the whole of its own, unless told otherwise.
const ANSWER_GRACE: Duration = Duration::from_secs(5);
/// A request's head, bytes; Prometheus sends about 600.
const MAX_HEADER_BYTES: usize = 16 * 1024;
/// Lines of a request's head.
const MAX_HEADERS: usize = 64;
/// What a connection gathers before it waits for its reader, bytes.
const MAX_BUFFER_BYTES: usize = 64 * 1024;
/// How long the answers under way may take once the server was told to stop.
const STOP_GRACE: Duration = Duration::from_secs(5);

/// What `http.debug_api` guards.
const DEBUG_PATHS: [&str; 2] = [top::PATH, CONFIG_PATH];
const CONFIG_PATH: &str = "/api/v1/config";
/// Families and labels that `/api/v1/cardinality` lists unless `limit` says otherwise.
const CARDINALITY_ROWS: usize = 20;

const PLAIN: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";
const TOML: &str = "application/toml; charset=utf-8";
const HTML: &str = "text/html; charset=utf-8";

/// What every connection shares.
pub struct State {
    settings: ArcSwap<Settings>,
    places: Places,
    /// How long a request may take to arrive, and a connection to lie idle between two; 10 seconds unless changed.
    pub header_timeout: Duration,
    /// How long an answer may take though others wait for its connection; 5 seconds unless changed.
    pub answer_grace: Duration,
    exposer: Exposer,
    insight: Option<InsightSource>,
    report: Option<Report>,
    admin: Option<Admin>,
    lifecycle: Arc<Lifecycle>,
}

/// What a reload may change.
struct Settings {
    metrics_path: String,
    formats: Vec<Format>,
    max_connections: usize,
    write_timeout: Duration,
    debug_api: DebugApi,
    admin: bool,
    web: Option<Arc<Followed>>,
}

/// What `/-/reload`, `/-/quit` and `/api/v1/config` do.
pub struct Admin {
    /// Reads the configuration again; says what came of it, or all problems.
    pub reload: Box<dyn Fn() -> Result<String, String> + Send + Sync>,
    /// Ends the process as a signal would.
    pub quit: Box<dyn Fn() + Send + Sync>,
    /// The configuration in force, as TOML.
    pub config: Box<dyn Fn() -> String + Send + Sync>,
}

impl Settings {
    fn new(http: &Http, web: Option<Arc<Followed>>) -> Self {
        Self {
            web,
            metrics_path: http.metrics_path.clone(),
            formats: http.formats.clone(),
            max_connections: http.max_connections.max(1),
            write_timeout: http.write_timeout,
            debug_api: http.debug_api,
            admin: http.lifecycle,
        }
    }
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("State").field("exposer", &self.exposer).finish_non_exhaustive()
    }
}

impl State {
    /// A server as configured; the web configuration file was read by who calls.
    pub fn new(http: &Http, web: Option<Followed>, exposer: Exposer, lifecycle: Arc<Lifecycle>) -> Self {
        let settings = Settings::new(http, web.map(Arc::new));
        Self {
            places: Places::new(),
            settings: ArcSwap::from_pointee(settings),
            header_timeout: HEADER_TIMEOUT,
            answer_grace: ANSWER_GRACE,
            exposer,
            insight: None,
            report: None,
            admin: None,
            lifecycle,
        }
    }

    /// Goes by other settings from the next request on; but for the address, which is bound. A web configuration file
    /// is read anew; one that has become bad since it was checked leaves what was in force.
    pub fn set(&self, http: &Http) {
        let before = self.settings.load().web.clone();
        let read = |file| before.as_ref().map_or_else(|| Followed::new(file), |before| before.anew(file));
        let web = match http.web_config_file.as_deref().map(read) {
            None => None,
            Some(Ok(followed)) => Some(Arc::new(followed)),
            Some(Err(problems)) => {
                tracing::error!("web configuration refused, what was in force stays: {problems}");
                before
            }
        };
        self.settings.store(Arc::new(Settings::new(http, web)));
        self.places.changed();
    }

    /// Serves `/-/reload`, `/-/quit` and `/api/v1/config`.
    pub fn with_admin(mut self, admin: Admin) -> Self {
        self.admin = Some(admin);
        self
    }

    /// Serves `/api/v1/top` from what `insight` gives, which is asked at each request.
    pub fn with_insight(mut self, insight: Box<dyn Fn() -> Arc<Insight> + Send + Sync>) -> Self {
        self.insight = Some(InsightSource(insight));
        self
    }

    /// Serves `/api/v1/status` and `/api/v1/cardinality`.
    pub fn with_report(mut self, report: Report) -> Self {
        self.report = Some(report);
        self
    }

    fn refused(&self, why: HttpRefusal) {
        self.exposer.telemetry().refused_http(why);
    }
}

/// Whether a client at `peer` that asks for `host` may see one of [`DEBUG_PATHS`].
///
/// A name other than `localhost` is refused on the loopback: a web page can have its own name resolve to this machine
/// and read what a browser here gets (DNS rebinding). It cannot do so with an address.
fn may_debug(api: DebugApi, peer: Option<IpAddr>, host: Option<&str>) -> bool {
    match api {
        DebugApi::Loopback => {
            peer.is_some_and(|peer| peer.to_canonical().is_loopback()) && host.is_none_or(is_no_foreign_name)
        }
        DebugApi::All => true,
        DebugApi::Off => false,
    }
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
    let mut stopped = pin!(state.lifecycle.stopped());
    let mut backoff = Backoff::default();
    loop {
        // One more than may be served is accepted: only now that it is here does somebody have to leave for it.
        let next = async {
            let stream = accept(&listener, &state, &mut backoff).await;
            let limit = || state.settings.load().max_connections;
            let ousted = || state.exposer.telemetry().gave_way();
            (stream, state.places.take(limit, state.answer_grace, ousted).await)
        };
        let (stream, place) = tokio::select! {
            biased;
            () = &mut stopped => break,
            next = next => next,
        };
        let state = Arc::clone(&state);
        tokio::spawn(async move {
            let _held = state.places.hold(place.clone());
            tokio::select! {
                () = connection::serve(stream, Arc::clone(&state), &place) => {}
                () = place.must_leave() => {}
            }
        });
    }
    drop(listener);
    // Those that outlast the grace are cut off with the runtime.
    _ = tokio::time::timeout(STOP_GRACE, state.places.emptied()).await;
    Ok(())
}

/// Serves what comes over `stream`, in place of a connection from `peer` that was accepted, to its end: for who has no
/// socket, as tests have none. HTTP/1.1 without TLS, and never told to leave for another.
pub async fn converse(stream: impl AsyncRead + AsyncWrite + Unpin, state: Arc<State>, peer: Option<IpAddr>) {
    let place = state.places.take(|| usize::MAX, state.answer_grace, || ()).await;
    let _held = state.places.hold(place.clone());
    let client = Client { peer, is_encrypted: false, is_known: false };
    connection::over_http1(stream, Arc::clone(&state), client, &place).await;
}

/// The next connection. Failures are counted and waited out, since without descriptors each try fails at once.
async fn accept(listener: &tokio::net::TcpListener, state: &State, backoff: &mut Backoff) -> TcpStream {
    loop {
        let outcome = backoff.accept(listener.accept()).await;
        if !matches!(outcome, Some(Err(_))) && backoff.succeeded() {
            tracing::info!("HTTP connections are accepted again");
        }
        match outcome {
            Some(Ok((stream, _))) => return stream,
            None => {}
            Some(Err(error)) if Backoff::is_no_fault(&error) => {}
            Some(Err(error)) => {
                state.exposer.telemetry().accept_failed();
                if !backoff.is_failing() {
                    tracing::warn!(%error, "cannot accept HTTP connections");
                }
                tokio::time::sleep(backoff.failed()).await;
            }
        }
    }
}

/// Answers a request, if the web configuration lets its sender in.
async fn answer(state: &State, request: Request<Incoming>, client: Client) -> Response<Reply> {
    let settings = state.settings.load_full();
    let Some(web) = &settings.web else {
        let mut response = respond(state, &request, client);
        secure(response.headers_mut());
        return response;
    };
    let in_force = web.now();
    let mut response = admitted(state, web, &in_force, request, client).await;
    secure(response.headers_mut());
    in_force.dress(response.headers_mut());
    response
}

/// The same less the headers that any answer has. The order is that of Prometheus exporters: the quota comes first.
async fn admitted(
    state: &State,
    web: &Followed,
    in_force: &InForce,
    request: Request<Incoming>,
    mut client: Client,
) -> Response<Reply> {
    // Of a connection from before TLS was turned on.
    if in_force.tls().is_some() && !client.is_encrypted {
        state.refused(HttpRefusal::Handshake);
        let mut response = page(StatusCode::BAD_REQUEST, PLAIN, "this port is for HTTPS\n", &request);
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        return response;
    }
    if let Err(wait) = in_force.admit() {
        return too_many(state, wait, &request);
    }
    let credentials = request.headers().get(header::AUTHORIZATION).cloned();
    match web.sender(in_force, credentials, client.peer).await {
        None => {}
        Some(Verdict::User) => client.is_known = true,
        Some(Verdict::Stranger) => {
            state.refused(HttpRefusal::Unauthorized);
            let mut response = page(StatusCode::UNAUTHORIZED, PLAIN, "Unauthorized\n", &request);
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Basic"));
            return response;
        }
        Some(Verdict::TooMany) => return too_many(state, Duration::from_secs(1), &request),
    }
    respond(state, &request, client)
}

/// What a request gets that is one too many, until so much time has passed.
fn too_many(state: &State, wait: Duration, request: &Request<Incoming>) -> Response<Reply> {
    state.refused(HttpRefusal::RateLimited);
    let mut response = page(StatusCode::TOO_MANY_REQUESTS, PLAIN, "Too Many Requests\n", request);
    let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    response
}

/// Sets what keeps a browser from harm, unless the answer says it already.
fn secure(headers: &mut HeaderMap) {
    for (name, value) in [
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "deny"),
        (header::REFERRER_POLICY, "no-referrer"),
    ] {
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    }
}

/// What answers a path, and to which methods.
type Answer = (&'static [Method], fn(&State, &Request<Incoming>) -> Response<Reply>);

const READ: &[Method] = &[Method::GET, Method::HEAD];
const ACT: &[Method] = &[Method::POST, Method::PUT];

fn respond(state: &State, request: &Request<Incoming>, client: Client) -> Response<Reply> {
    let settings = state.settings.load();
    let debug = settings.debug_api != DebugApi::Off;
    let (methods, answer): Answer = match request.uri().path() {
        path if path == settings.metrics_path => (READ, metrics),
        "/" if state.report.is_some() => (READ, status_page),
        top::PATH if debug && state.insight.is_some() => (READ, top::answer),
        CONFIG_PATH if debug && state.admin.is_some() => (READ, config),
        "/api/v1/status" if state.report.is_some() => (READ, |state, request| report(state, request, Report::status)),
        "/api/v1/cardinality" if state.report.is_some() => (READ, cardinality),
        "/-/healthy" => (READ, |_, request| page(StatusCode::OK, PLAIN, "healthy\n", request)),
        "/-/ready" => (READ, ready),
        "/-/reload" if state.admin.is_some() => (ACT, reload),
        "/-/quit" if state.admin.is_some() => (ACT, quit),
        _ => return page(StatusCode::NOT_FOUND, PLAIN, "not found\n", request),
    };
    if !methods.contains(request.method()) {
        let mut response = page(StatusCode::METHOD_NOT_ALLOWED, PLAIN, "method not allowed\n", request);
        let allowed = if methods == READ { "GET, HEAD" } else { "POST, PUT" };
        response.headers_mut().insert(header::ALLOW, HeaderValue::from_static(allowed));
        return response;
    }
    // HTTP/2 has it in the address.
    let asked = request.headers().get(header::HOST).map(|host| host.to_str().unwrap_or("?"));
    let host = asked.or_else(|| request.uri().authority().map(Authority::as_str));
    let may_debug = client.is_known || may_debug(settings.debug_api, client.peer, host);
    if DEBUG_PATHS.contains(&request.uri().path()) && !may_debug {
        let text = "for clients on this machine, and those that authenticate; http.debug_api = \"all\" opens it\n";
        return page(StatusCode::FORBIDDEN, PLAIN, text, request);
    }
    if methods == ACT && !settings.admin {
        return page(StatusCode::FORBIDDEN, PLAIN, "http.lifecycle = true allows this\n", request);
    }
    answer(state, request)
}

/// The page that shows the state of everything.
fn status_page(state: &State, request: &Request<Incoming>) -> Response<Reply> {
    state.exposer.refresh();
    let text = state.report.as_ref().map(Report::page).unwrap_or_default();
    let mut response = page(StatusCode::OK, HTML, &text, request);
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    let policy = HeaderValue::from_str(&POLICY).expect("it is made of letters");
    headers.insert(header::CONTENT_SECURITY_POLICY, policy);
    response
}

/// Whether lines are taken, or why not.
fn ready(state: &State, request: &Request<Incoming>) -> Response<Reply> {
    let phase = state.lifecycle.phase();
    let failing: Vec<&str> = state.exposer.telemetry().failing().iter().map(|kind| kind.label()).collect();
    match (phase, failing.as_slice()) {
        (Phase::Ready, []) => page(StatusCode::OK, PLAIN, phase.text(), request),
        (Phase::Ready, _) => {
            let text = format!("failing, and tried again: {}\n", failing.join(", "));
            page(StatusCode::SERVICE_UNAVAILABLE, PLAIN, &text, request)
        }
        _ => page(StatusCode::SERVICE_UNAVAILABLE, PLAIN, phase.text(), request),
    }
}

/// Reads the configuration again; 500 with all problems if it is refused.
fn reload(state: &State, request: &Request<Incoming>) -> Response<Reply> {
    match state.admin.as_ref().map(|admin| (admin.reload)()) {
        Some(Ok(text)) => page(StatusCode::OK, PLAIN, &text, request),
        Some(Err(problems)) => page(StatusCode::INTERNAL_SERVER_ERROR, PLAIN, &problems, request),
        None => page(StatusCode::NOT_FOUND, PLAIN, "not found\n", request),
    }
}

fn quit(state: &State, request: &Request<Incoming>) -> Response<Reply> {
    state.admin.iter().for_each(|admin| (admin.quit)());
    page(StatusCode::OK, PLAIN, "draining\n", request)
}

/// The configuration in force. Secrets stand in it as paths of files only.
fn config(state: &State, request: &Request<Incoming>) -> Response<Reply> {
    let text = state.admin.as_ref().map(|admin| (admin.config)()).unwrap_or_default();
    page(StatusCode::OK, TOML, &text, request)
}

/// A report, with the kernel's own figures brought up to date first.
fn report(state: &State, request: &Request<Incoming>, write: impl FnOnce(&Report) -> Value) -> Response<Reply> {
    state.exposer.refresh();
    let value = state.report.as_ref().map_or(Value::Null, write);
    json_page(StatusCode::OK, &value, request)
}

fn cardinality(state: &State, request: &Request<Incoming>) -> Response<Reply> {
    let rows = match parameter(request, "limit").map(|limit| limit.parse()) {
        None => CARDINALITY_ROWS,
        Some(Ok(rows)) => rows,
        Some(Err(_)) => {
            let error = json!({ "error": "limit is a whole number" });
            return json_page(StatusCode::BAD_REQUEST, &error, request);
        }
    };
    report(state, request, |report| report.cardinality(rows))
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
    let choice = negotiate::format(&joined(request.headers(), header::ACCEPT), &state.settings.load().formats);
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
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(text.len()));
    response
}

/// The same of JSON, made for this request alone.
fn json_page(status: StatusCode, value: &Value, request: &Request<Incoming>) -> Response<Reply> {
    let mut response = page(status, JSON, &format!("{value}\n"), request);
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// The value of a parameter of the request's query.
fn parameter(request: &Request<Incoming>, name: &str) -> Option<String> {
    in_query(request.uri().query().unwrap_or_default(), name)
}

fn in_query(query: &str, name: &str) -> Option<String> {
    let value = query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))?;
    Some(decoded(value).into_owned())
}

/// Undoes percent-encoding; what is none stays as it is, and a plus is a space.
pub(crate) fn decoded(text: &str) -> Cow<'_, str> {
    if !text.contains(['%', '+']) {
        return Cow::Borrowed(text);
    }
    let digit = |byte: Option<&u8>| char::from(*byte?).to_digit(16);
    let mut bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    while let [first, rest @ ..] = bytes {
        bytes = rest;
        out.push(match (first, digit(rest.first()), digit(rest.get(1))) {
            (b'%', Some(high), Some(low)) => {
                bytes = &rest[2..];
                (high * 16 + low) as u8
            }
            (b'+', ..) => b' ',
            _ => *first,
        });
    }
    Cow::Owned(String::from_utf8_lossy(&out).into_owned())
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
    fn a_parameter_is_found_and_decoded() {
        for (query, expected) in [
            ("", None),
            ("tag=user_id", Some("user_id")),
            ("x=1&tag=user%5Fid&tag=other", Some("user_id")),
            ("tag=", Some("")),
            ("tags=a", None),
            ("tag=a+b%20c%", Some("a b c%")),
            ("tag=%zz%C3%A4%ff", Some("%zzä\u{fffd}")),
        ] {
            assert_eq!(in_query(query, "tag").as_deref(), expected, "{query:?}");
        }
    }
}
