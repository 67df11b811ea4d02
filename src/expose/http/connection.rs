//! Takes one connection from its first byte to its last: TLS if that is wished, then HTTP/1.1, or HTTP/2 if the client
//! chose that while TLS was negotiated.
//!
//! In: an accepted connection. Out: its requests, one after another, for `http` to answer.
//! Not here: what TLS is made of (`web`), what is answered (`http`).
//! Always: a client that does not finish its handshake or its request, that asks for nothing, or that takes nothing of
//! its answer, is cut off in time, by either version of HTTP; a connection has one answer in the making at a time, so
//! that connections bound the memory.
//! Follows: RFC 9112, RFC 9113 (over TLS alone), RFC 7301.

use std::convert::Infallible;
use std::io;
use std::net::IpAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use hyper::header::{self, HeaderValue};
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_io_timeout::TimeoutStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::places::{Busy, Place};
use super::{MAX_BUFFER_BYTES, MAX_HEADER_BYTES, MAX_HEADERS, STOP_GRACE, State, answer};
use crate::telemetry::HttpRefusal;

/// What HTTP/2 may send before we read it, bytes of a stream and of a connection; no request has a body that is read.
const WINDOW_BYTES: u32 = 65_535;
/// What a client gets that speaks plainly to a port of TLS.
const NOT_PLAIN: &[u8] =
    b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\n\
    Content-Length: 39\r\n\r\nthis port is for HTTPS: ask by https://\n";

/// What is known of the client at the other end.
#[derive(Clone, Copy, Debug)]
pub(super) struct Client {
    /// Its address.
    pub(super) peer: Option<IpAddr>,
    /// Whether the connection is encrypted.
    pub(super) is_encrypted: bool,
    /// Whether it has shown who it is: by a certificate that was checked, or as a user.
    pub(super) is_known: bool,
}

type Plain = Pin<Box<TimeoutStream<TcpStream>>>;

/// Serves a connection to its end, whatever that is: it concerns the client alone.
pub(super) async fn serve(stream: TcpStream, state: Arc<State>, place: &Arc<Place>) {
    // Without it a short answer waits for an acknowledgement; a socket that refuses it works all the same.
    _ = stream.set_nodelay(true);
    let peer = stream.peer_addr().ok().map(|peer| peer.ip());
    let client = Client { peer, is_encrypted: false, is_known: false };
    let settings = state.settings.load_full();
    let stalled = settings.write_timeout;
    let web = settings.web.as_ref().map(|followed| (followed, followed.now()));
    let secured = web.and_then(|(followed, in_force)| Some((followed, in_force.tls()?, in_force.verifies_clients())));
    let Some((followed, config, verifies)) = secured else {
        return over_http1(limited(stream, stalled), state, client, place).await;
    };
    let shaken = tokio::select! {
        biased;
        () = state.lifecycle.stopped() => return,
        shaken = timeout(state.header_timeout, shake_hands(stream, stalled, config)) => shaken,
    };
    let stream = match shaken.unwrap_or_else(|_| Err(io::Error::other("it was not finished in time"))) {
        Ok(stream) => stream,
        Err(error) => {
            state.refused(HttpRefusal::Handshake);
            return followed.failed(peer, &error);
        }
    };
    let (_, session) = stream.get_ref();
    let is_known = verifies && session.peer_certificates().is_some();
    let client = Client { is_encrypted: true, is_known, ..client };
    match session.alpn_protocol() {
        Some(b"h2") => over_http2(stream, state, client, stalled, place).await,
        _ => over_http1(stream, state, client, place).await,
    }
}

/// A stream whose writer is cut off if its reader takes nothing for so long.
fn limited(stream: TcpStream, stalled: Duration) -> Plain {
    let mut stream = TimeoutStream::new(stream);
    stream.set_write_timeout((!stalled.is_zero()).then_some(stalled));
    Box::pin(stream)
}

/// Negotiates TLS.
async fn shake_hands(stream: TcpStream, stalled: Duration, config: Arc<ServerConfig>) -> io::Result<TlsStream<Plain>> {
    let mut first = [0];
    // A handshake begins with a byte that is no letter, a request with one.
    if stream.peek(&mut first).await? == 1 && first[0].is_ascii_alphabetic() {
        stream.writable().await?;
        _ = stream.try_write(NOT_PLAIN);
        // What is left unread would have the answer thrown away.
        _ = stream.try_read(&mut [0; MAX_HEADER_BYTES]);
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the client speaks plain HTTP"));
    }
    TlsAcceptor::from(config).accept(limited(stream, stalled)).await
}

/// Serves HTTP/1.1 over a stream, whatever that is.
pub(super) async fn over_http1(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    state: Arc<State>,
    client: Client,
    place: &Arc<Place>,
) {
    let service = service_fn(|request| {
        let (state, busy) = (&state, Busy::new(place));
        async move {
            let mut response = answer(state, request, client).await;
            if place.is_wanted() {
                response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
            }
            response.body_mut().keeps(busy);
            Ok::<_, Infallible>(response)
        }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(state.header_timeout)
        .max_header_size(MAX_HEADER_BYTES)
        .max_headers(MAX_HEADERS)
        .max_buf_size(MAX_BUFFER_BYTES)
        .half_close(true)
        .serve_connection(TokioIo::new(stream), service);
    let mut served = pin!(served);
    let ended = tokio::select! {
        ended = served.as_mut() => ended,
        () = state.lifecycle.stopped() => {
            served.as_mut().graceful_shutdown();
            served.await
        }
    };
    if ended.is_err_and(|error| error.is_parse()) {
        state.refused(HttpRefusal::Malformed);
    }
}

async fn over_http2(
    stream: TlsStream<Plain>,
    state: Arc<State>,
    client: Client,
    stalled: Duration,
    place: &Arc<Place>,
) {
    let service = service_fn({
        let (state, place) = (state.clone(), place.clone());
        move |request| {
            let (state, busy) = (state.clone(), Busy::new(&place));
            async move {
                let mut response = answer(&state, request, client).await;
                response.body_mut().keeps(busy);
                Ok::<_, Infallible>(response)
            }
        }
    });
    let served = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .max_concurrent_streams(1)
        .max_header_list_size(MAX_HEADER_BYTES as u32)
        .max_send_buf_size(MAX_BUFFER_BYTES)
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES)
        .serve_connection(TokioIo::new(stream), service);
    let mut served = pin!(served);
    tokio::select! {
        _ = served.as_mut() => return,
        () = state.lifecycle.stopped() => {}
        () = place.asked_its_last() => {}
        is_busy = place.ceases(state.header_timeout, stalled) => {
            if is_busy {
                return;
            }
        }
    }
    served.as_mut().graceful_shutdown();
    _ = timeout(STOP_GRACE, served).await;
}
