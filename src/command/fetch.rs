//! A GET over a connection of its own, for commands that ask a running sidecar.
//!
//! In: an address and a path, and for TLS what to trust. Out: status and body.
//! Not here: redirects, and what the answer means.
//! Always: a body that was cut off is an error, never a short answer.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, RootCertStore, SignatureScheme, StreamOwned};

use crate::expose::web::{basic, tls};

use crate::listen::{first_that_works, resolve};

/// What to ask, and how long to wait.
#[derive(Clone)]
pub(super) struct Get<'a> {
    /// `host:port`.
    pub(super) address: &'a str,
    pub(super) path: &'a str,
    /// Content types that are welcome; "" for any.
    pub(super) accept: &'a str,
    /// `name:password`; "" for none.
    pub(super) credentials: &'a str,
    /// How to speak TLS; `None` is plain HTTP.
    pub(super) tls: Option<Arc<ClientConfig>>,
    /// Longest wait for the connection, and for each part of the answer.
    pub(super) timeout: Duration,
    /// Longest answer taken, in bytes.
    pub(super) most_bytes: u64,
}

impl Get<'_> {
    /// Status and body.
    ///
    /// # Errors
    /// Those of the network; `InvalidData` if the answer is no HTTP, or is not whole.
    pub(super) fn send(self) -> io::Result<(u16, Vec<u8>)> {
        let connect = |address| TcpStream::connect_timeout(&address, self.timeout);
        let stream = first_that_works(resolve(self.address)?, connect)?;
        stream.set_read_timeout(Some(self.timeout))?;
        stream.set_write_timeout(Some(self.timeout))?;
        let Some(config) = &self.tls else { return self.ask(stream) };
        let host = self.address.rsplit_once(':').map_or(self.address, |(host, _)| host);
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let name = ServerName::try_from(host).map_err(io::Error::other)?;
        let session = ClientConnection::new(config.clone(), name).map_err(io::Error::other)?;
        self.ask(StreamOwned::new(session, stream))
    }

    fn ask(&self, mut stream: impl Read + Write) -> io::Result<(u16, Vec<u8>)> {
        let mut headers = if self.accept.is_empty() { String::new() } else { format!("Accept: {}\r\n", self.accept) };
        if !self.credentials.is_empty() {
            headers += &format!("Authorization: {}\r\n", basic(self.credentials.as_bytes()));
        }
        let (path, address) = (self.path, self.address);
        // In one piece, so that the other side need not wait for the rest.
        let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\n{headers}Connection: close\r\n\r\n");
        stream.write_all(request.as_bytes())?;
        let mut answer = Vec::new();
        stream.take(self.most_bytes).read_to_end(&mut answer)?;
        read_answer(answer)
    }
}

/// How to speak TLS: `ca` is the PEM file that the server's certificate has to lead to, `None` takes any; `identity`
/// is a client's certificate and its key.
///
/// # Errors
/// What is wrong with a file, with its name.
pub(super) fn client_tls(ca: Option<&Path>, identity: Option<(&Path, &Path)>) -> Result<Arc<ClientConfig>, String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let read = |path: &Path| std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()));
    fn told(path: &Path) -> impl Fn(String) -> String {
        move |why| format!("{}: {why}", path.display())
    }
    let builder = ClientConfig::builder_with_provider(provider.clone());
    let builder = builder.with_safe_default_protocol_versions().map_err(|error| error.to_string())?;
    let builder = match ca {
        None => builder.dangerous().with_custom_certificate_verifier(Arc::new(AnyServer(provider))),
        Some(path) => {
            let mut roots = RootCertStore::empty();
            for certificate in tls::certificates(&read(path)?).map_err(told(path))? {
                roots.add(certificate).map_err(|error| told(path)(error.to_string()))?;
            }
            builder.with_root_certificates(roots)
        }
    };
    let config = match identity {
        None => builder.with_no_client_auth(),
        Some((certificate, key)) => {
            let certificates = tls::certificates(&read(certificate)?).map_err(told(certificate))?;
            let private = tls::private_key(&read(key)?).map_err(told(key))?;
            let config = builder.with_client_auth_cert(certificates, private);
            config.map_err(|error| told(key)(error.to_string()))?
        }
    };
    Ok(Arc::new(config))
}

/// Takes any server for the right one: this machine's own, or one that somebody said need not be checked.
#[derive(Debug)]
struct AnyServer(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyServer {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// Status and body of all that came over a connection until it closed.
fn read_answer(mut answer: Vec<u8>) -> io::Result<(u16, Vec<u8>)> {
    let invalid = |what| io::Error::new(io::ErrorKind::InvalidData, what);
    let end = memchr::memmem::find(&answer, b"\r\n\r\n").ok_or_else(|| invalid("the answer is no HTTP"))?;
    let body = answer.split_off(end + 4);
    let head = String::from_utf8_lossy(&answer).to_ascii_lowercase();
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    let status = status.ok_or_else(|| invalid("the answer is no HTTP"))?;
    let header = |name: &str| {
        head.lines()
            .filter_map(|line| line.split_once(':'))
            .find(|(key, _)| *key == name)
            .map(|(_, value)| value.trim())
    };
    if header("transfer-encoding") == Some("chunked") {
        return Ok((status, join_chunks(&body).ok_or_else(|| invalid("the answer is cut off"))?));
    }
    match header("content-length").and_then(|length| length.parse::<usize>().ok()) {
        Some(length) if body.len() < length => Err(invalid("the answer is cut off")),
        _ => Ok((status, body)),
    }
}

/// The body of a chunked answer; `None` unless the closing chunk is there.
fn join_chunks(mut rest: &[u8]) -> Option<Vec<u8>> {
    let mut body = Vec::with_capacity(rest.len());
    loop {
        let end = memchr::memmem::find(rest, b"\r\n")?;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_read_whole_or_not_at_all() {
        let plain = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 8\r\n\r\ndraining";
        assert_eq!(read_answer(plain.to_vec()).unwrap(), (503, b"draining".to_vec()));
        assert!(read_answer(plain[..plain.len() - 1].to_vec()).is_err());
        let chunked =
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nab\n\r\nA;x=y\r\n0123456789\r\n0\r\n\r\n";
        assert_eq!(read_answer(chunked.to_vec()).unwrap(), (200, b"ab\n0123456789".to_vec()));
        assert!(read_answer(chunked[..chunked.len() - 5].to_vec()).is_err());
        assert!(read_answer(b"220 mail.example ESMTP\r\n".to_vec()).is_err());
    }
}
