//! TLS, client certificates, passwords and quotas of the HTTP side, with real certificates and a real Prometheus.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use nix::sys::signal::Signal;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned, SupportedProtocolVersion};
use socket2::{Domain, Socket, Type};
use statsieve::expose::web::basic;

use crate::harness::{PATIENCE, Reply, Sidecar, read_reply, read_samples, run, spawn, start_in_vain, wait_for};
use crate::prometheus::Prometheus;
use crate::tools::{outcome_of, tool};

/// Certificates in a folder: `server.pem` for 127.0.0.1 and `client.pem` of one CA (`ca.pem`), `stranger.pem` of
/// another, each with its `.key`; and `web.yml`.
pub(crate) struct Folder(tempfile::TempDir);

type Ca = CertifiedIssuer<'static, KeyPair>;

fn new_ca() -> Ca {
    let mut params = CertificateParams::new(vec![]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

impl Folder {
    /// With this text as `web.yml`.
    pub(crate) fn new(text: &str) -> Self {
        let folder = Self(tempfile::tempdir().unwrap());
        let (ca, other) = (new_ca(), new_ca());
        folder.write("ca.pem", &ca.pem());
        folder.write("client_ca.pem", &ca.pem());
        folder.issue(&ca, "server", "127.0.0.1");
        folder.issue(&ca, "next", "127.0.0.1");
        folder.issue(&ca, "client", "prometheus.example");
        folder.issue(&ca, "guest", "guest.example");
        folder.issue(&other, "stranger", "prometheus.example");
        folder.write("web.yml", text);
        folder
    }

    fn issue(&self, ca: &Ca, name: &str, san: &str) {
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(vec![san.to_owned()]).unwrap().signed_by(&key, ca).unwrap();
        self.write(&format!("{name}.pem"), &certificate.pem());
        self.write(&format!("{name}.key"), &key.serialize_pem());
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// By a new file in the place of the old one, as programs do that renew certificates.
    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path("new"), text).unwrap();
        std::fs::rename(self.path("new"), self.path(name)).unwrap();
    }

    fn read(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.path(name)).unwrap()
    }

    fn setting(&self) -> String {
        format!("http.web_config_file={}", self.path("web.yml").display())
    }

    pub(crate) fn start(&self, settings: &[&str]) -> Sidecar {
        let setting = self.setting();
        Sidecar::unasked(spawn(&[&[setting.as_str()], settings].concat(), &[]))
    }

    /// What a client speaks that trusts our CA; with the certificate of this name, and offering these protocols.
    pub(crate) fn client(
        &self,
        identity: Option<&str>,
        alpn: &[&str],
        versions: &[&'static SupportedProtocolVersion],
    ) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(&self.read("ca.pem")).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_protocol_versions(versions).unwrap();
        let builder = builder.with_root_certificates(roots);
        let mut config = match identity {
            None => builder.with_no_client_auth(),
            Some(name) => {
                let certificate = CertificateDer::from_pem_slice(&self.read(&format!("{name}.pem"))).unwrap();
                let key = PrivateKeyDer::from_pem_slice(&self.read(&format!("{name}.key"))).unwrap();
                builder.with_client_auth_cert(vec![certificate], key).unwrap()
            }
        };
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        Arc::new(config)
    }

    pub(crate) fn any_client(&self, identity: Option<&str>) -> Arc<ClientConfig> {
        self.client(identity, &[], rustls::ALL_VERSIONS)
    }

    /// One GET over TLS, as a client with the certificate of this name.
    pub(crate) fn get(
        &self,
        sidecar: &Sidecar,
        identity: Option<&str>,
        path: &str,
        headers: &str,
    ) -> io::Result<Reply> {
        get(connect(sidecar.http, self.any_client(identity))?, path, headers)
    }

    /// The certificate that is served.
    fn served(&self, sidecar: &Sidecar) -> Vec<u8> {
        let mut stream = connect(sidecar.http, self.any_client(None)).unwrap();
        stream.conn.complete_io(&mut stream.sock).unwrap();
        stream.conn.peer_certificates().unwrap()[0].to_vec()
    }
}

pub(crate) type Stream = StreamOwned<ClientConnection, TcpStream>;

pub(crate) fn connect(address: SocketAddr, config: Arc<ClientConfig>) -> io::Result<Stream> {
    let stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let session = ClientConnection::new(config, "127.0.0.1".try_into().unwrap()).map_err(io::Error::other)?;
    Ok(StreamOwned::new(session, stream))
}

/// One request over a connection that ends with it.
pub(crate) fn get(mut stream: impl Read + Write, path: &str, headers: &str) -> io::Result<Reply> {
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{headers}\r\n").as_bytes())?;
    let mut bytes = Vec::new();
    // An end without a farewell is an error here.
    stream.read_to_end(&mut bytes)?;
    read_reply(&bytes).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, String::from_utf8_lossy(&bytes)))
}

pub(crate) const TLS: &str = "tls_server_config:\n  cert_file: server.pem\n  key_file: server.key\n";
const MUTUAL: &str = "  client_auth_type: RequireAndVerifyClientCert\n  client_ca_file: client_ca.pem\n";

/// Users `alice` with the password `wonder:land` and `bob` with `bob`, at the least cost.
fn users() -> String {
    let hash = |password| bcrypt::hash(password, 4).unwrap();
    format!("basic_auth_users:\n  alice: {}\n  bob: {}\n", hash("wonder:land"), hash("bob"))
}

const ALICE: &str = "Authorization: Basic YWxpY2U6d29uZGVyOmxhbmQ=\r\n";

/// What a scrape says of clients that were not let in.
fn not_let_in(scrape: &Reply, reason: &str) -> f64 {
    read_samples(&scrape.text())[&format!("statsieve_http_refused_total{{reason=\"{reason}\"}}")]
}

#[test]
fn both_versions_of_tls_are_spoken_and_neither_older_ones_nor_plain_http() {
    let folder = Folder::new(TLS);
    let sidecar = folder.start(&[]);
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let stream = connect(sidecar.http, folder.client(None, &[], &[version])).unwrap();
        let reply = get(stream, "/metrics", "").unwrap();
        assert_eq!(reply.status, 200, "{version:?}");
        assert!(reply.text().contains("statsieve_lines_total"), "{}", reply.text());
    }
    // A client that speaks TLS 1.1 at most: a record of a hello, with two suites, and RSA with SHA-256 for signatures.
    let mut hello = b"\x16\x03\x01\x00\x39\x01\x00\x00\x35\x03\x02".to_vec();
    hello.extend([7; 32]);
    hello.extend(b"\x00\x00\x04\xc0\x13\x00\x2f\x01\x00\x00\x08\x00\x0d\x00\x04\x00\x02\x04\x01");
    let mut stream = TcpStream::connect(sidecar.http).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(&hello).unwrap();
    let mut answer = Vec::new();
    // It may be reset behind the alert.
    let _ = stream.read_to_end(&mut answer);
    let alert = (answer[0], answer[5], answer[6]);
    assert!([(0x15, 2, 40), (0x15, 2, 70)].contains(&alert), "handshake_failure or protocol_version: {answer:?}");

    let reply = crate::harness::get(sidecar.http, "/metrics", &[]).unwrap();
    assert_eq!(reply.status, 400);
    assert!(reply.text().contains("https://"), "{}", reply.text());
    sidecar.wait_until("it is told", |it| it.log().contains("a TLS handshake failed"));
    sidecar.wait_until("both are counted", |_| {
        let stream = connect(sidecar.http, folder.client(None, &[], &[&rustls::version::TLS13])).unwrap();
        not_let_in(&get(stream, "/metrics", "").unwrap(), "handshake") == 2.0
    });
    sidecar.stop();
}

#[test]
fn only_versions_that_the_file_allows_are_spoken() {
    let folder = Folder::new(&format!("{TLS}  min_version: TLS13\n"));
    let sidecar = folder.start(&[]);
    let ask = |version| {
        get(connect(sidecar.http, folder.client(None, &[], &[version])).unwrap(), "/-/ready", "").map(|it| it.status)
    };
    assert_eq!(ask(&rustls::version::TLS13).unwrap(), 200);
    ask(&rustls::version::TLS12).unwrap_err();
    sidecar.stop();
}

/// The kind of a frame of HTTP/2 that is sent back.
const PING: u8 = 6;

/// A request and its answer by HTTP/2, in frames: the bytes of the answer's headers, and its body.
fn ask_by_http2(stream: &mut Stream, path: &str) -> (Vec<u8>, Vec<u8>) {
    let frame = |kind: u8, flags: u8, stream: u8, payload: &[u8]| {
        let mut frame = vec![0, 0, payload.len() as u8, kind, flags, 0, 0, 0, stream];
        frame.extend(payload);
        frame
    };
    // GET and https out of the static table, the path and the authority as they are.
    let mut block = vec![0x82, 0x87, 0x04, path.len() as u8];
    block.extend(path.as_bytes());
    block.extend(b"\x01\x04bots");
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").unwrap();
    stream.write_all(&frame(4, 0, 0, &[])).unwrap();
    stream.write_all(&frame(1, 0x5, 1, &block)).unwrap();
    let (mut headers, mut body) = (Vec::new(), Vec::new());
    loop {
        let mut head = [0; 9];
        stream.read_exact(&mut head).unwrap();
        let mut payload = vec![0; usize::from(head[1]) << 8 | usize::from(head[2])];
        stream.read_exact(&mut payload).unwrap();
        match (head[3], head[8]) {
            (0, 1) => body.extend(payload),
            (1, 1) => headers.extend(payload),
            _ => continue,
        }
        if head[4] & 1 != 0 {
            return (headers, body);
        }
    }
}

#[test]
fn http_2_is_spoken_to_whom_it_is_offered_and_chosen_by() {
    let folder = Folder::new(TLS);
    let sidecar = folder.start(&[]);
    let mut stream = connect(sidecar.http, folder.client(None, &["h2", "http/1.1"], rustls::ALL_VERSIONS)).unwrap();
    let (headers, body) = ask_by_http2(&mut stream, "/-/ready");
    assert_eq!(stream.conn.alpn_protocol(), Some(&b"h2"[..]));
    assert_eq!((headers[0], String::from_utf8(body).unwrap().as_str()), (0x88, "ready\n"), ":status 200");
    let mut stream = connect(sidecar.http, folder.client(None, &["h2"], rustls::ALL_VERSIONS)).unwrap();
    let (_, body) = ask_by_http2(&mut stream, "/metrics");
    assert!(String::from_utf8(body).unwrap().contains("statsieve_lines_total"));
    let reply = get(connect(sidecar.http, folder.client(None, &["http/1.1"], rustls::ALL_VERSIONS)).unwrap(), "/", "");
    assert_eq!(reply.unwrap().status, 200);
    sidecar.stop();

    folder.write("web.yml", &format!("{TLS}http_server_config: {{ http2: false }}\n"));
    let sidecar = folder.start(&[]);
    let mut stream = connect(sidecar.http, folder.client(None, &["h2", "http/1.1"], rustls::ALL_VERSIONS)).unwrap();
    stream.conn.complete_io(&mut stream.sock).unwrap();
    assert_eq!(stream.conn.alpn_protocol(), Some(&b"http/1.1"[..]));
    sidecar.stop();
}

#[test]
fn who_shows_the_right_certificate_is_let_in_and_nobody_else() {
    let folder = Folder::new(&format!("{TLS}{MUTUAL}  client_allowed_sans: [prometheus.example, 10.0.0.1]\n"));
    let sidecar = folder.start(&[]);
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        for (identity, is_right) in
            [(Some("client"), true), (None, false), (Some("guest"), false), (Some("stranger"), false)]
        {
            let config = folder.client(identity, &[], &[version]);
            let reply = get(connect(sidecar.http, config).unwrap(), "/-/healthy", "");
            assert_eq!(reply.is_ok_and(|reply| reply.status == 200), is_right, "{identity:?} {version:?}");
        }
    }
    sidecar.stop();
}

#[test]
fn certificates_that_are_only_asked_for_keep_nobody_out_and_prove_nothing() {
    for (kind, ca, admitted, known) in [
        ("RequestClientCert", "", vec![None, Some("client"), Some("stranger")], vec![]),
        ("RequireAnyClientCert", "", vec![Some("client"), Some("stranger")], vec![]),
        (
            "VerifyClientCertIfGiven",
            "  client_ca_file: client_ca.pem\n",
            vec![None, Some("client")],
            vec![Some("client")],
        ),
    ] {
        let folder = Folder::new(&format!("{TLS}  client_auth_type: {kind}\n{ca}"));
        let sidecar = folder.start(&[]);
        for identity in [None, Some("client"), Some("stranger")] {
            let reply = folder.get(&sidecar, identity, "/-/healthy", "");
            assert_eq!(
                reply.is_ok_and(|reply| reply.status == 200),
                admitted.contains(&identity),
                "{kind} {identity:?}"
            );
            // The name that is asked for, "x", is none of this machine's, so that only who is known may see it.
            let reply = folder.get(&sidecar, identity, "/api/v1/config", "");
            assert_eq!(reply.is_ok_and(|reply| reply.status == 200), known.contains(&identity), "{kind} {identity:?}");
        }
        sidecar.stop();
    }
}

#[test]
fn all_who_are_not_let_in_get_the_same_answer_on_every_path() {
    let folder = Folder::new(&users());
    let sidecar = folder.start(&["http.lifecycle=true"]);
    let ask = |path: &str, headers: &str| get(TcpStream::connect(sidecar.http).unwrap(), path, headers).unwrap();
    let of = |text: &str| match text {
        "" => String::new(),
        text => format!("Authorization: {text}\r\n"),
    };
    let undated = |reply: &Reply| {
        let mut headers = format!("{reply:?}");
        let date = reply.header("date").unwrap().to_owned();
        headers = headers.replace(&date, "");
        headers
    };
    let first = ask("/metrics", "");
    assert_eq!(
        (first.status, first.header("www-authenticate"), first.text().as_str()),
        (401, Some("Basic"), "Unauthorized\n")
    );
    for path in ["/metrics", "/", "/-/healthy", "/-/ready", "/api/v1/config", "/api/v1/status", "/no/such/path"] {
        // alice:wonderland, nobody:wonder:land, bob: , alice without a password, garbage
        for text in [
            "",
            "Basic YWxpY2U6d29uZGVybGFuZA==",
            "Basic bm9ib2R5OndvbmRlcjpsYW5k",
            "Basic Ym9iOg==",
            "Basic YWxpY2U=",
            "Basic !",
            "Bearer x",
        ] {
            let reply = ask(path, &of(text));
            assert_eq!(undated(&reply), undated(&first), "{path} {text}");
        }
        let expected = if path == "/no/such/path" { 404 } else { 200 };
        for _ in 0..2 {
            assert_eq!(ask(path, ALICE).status, expected, "{path}: who has authenticated may see it");
        }
        assert_eq!(ask(path, &of("basic Ym9iOmJvYg==")).status, expected, "{path}");
    }
    assert_eq!(not_let_in(&ask("/metrics", ALICE), "unauthorized"), 1.0 + 7.0 * 7.0);
    let log = sidecar.log();
    let config = ask("/api/v1/config", ALICE).text();
    assert!(config.contains("web.yml"), "{config}");
    for secret in ["$2b$", "wonder", "alice"] {
        assert!(!log.contains(secret) && !config.contains(secret), "{secret}\n{log}\n{config}");
    }
    sidecar.stop();
}

#[test]
fn who_asks_with_many_wrong_passwords_at_once_keeps_no_other_address_out() {
    // Long enough that all of them are there before the first is checked, and short enough for a scrape.
    let folder = Folder::new(&format!("basic_auth_users:\n  alice: {}\n", bcrypt::hash("wonder:land", 12).unwrap()));
    let sidecar = folder.start(&["http.max_connections=8"]);
    let mut connections: Vec<TcpStream> = (0..8).map(|_| TcpStream::connect(sidecar.http).unwrap()).collect();
    for (n, connection) in connections.iter_mut().enumerate() {
        connection.set_read_timeout(Some(PATIENCE)).unwrap();
        let wrong = basic(format!("alice:{n}").as_bytes());
        let request =
            format!("GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: {wrong}\r\n\r\n");
        connection.write_all(request.as_bytes()).unwrap();
    }
    let other = {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.bind(&"127.0.0.2:0".parse::<SocketAddr>().unwrap().into()).unwrap();
        socket.connect(&sidecar.http.into()).unwrap();
        get(TcpStream::from(socket), "/metrics", ALICE).unwrap()
    };
    assert_eq!(other.status, 200);
    let mut answers = [0.0; 2];
    for mut connection in connections {
        let mut bytes = Vec::new();
        connection.read_to_end(&mut bytes).unwrap();
        let reply = read_reply(&bytes).unwrap();
        match (reply.status, reply.header("retry-after")) {
            (401, None) => answers[0] += 1.0,
            (429, Some("1")) => answers[1] += 1.0,
            _ => panic!("{reply:?}"),
        }
    }
    // As many as wait; on a busy machine one may come only when another has left.
    assert!(answers[0] >= 4.0 && answers[1] >= 1.0, "{answers:?}");
    let scrape = get(TcpStream::connect(sidecar.http).unwrap(), "/metrics", ALICE).unwrap();
    assert_eq!([not_let_in(&scrape, "unauthorized"), not_let_in(&scrape, "rate_limited")], answers);
    sidecar.stop();
}

#[test]
fn a_reload_neither_refills_the_quota_nor_forgets_a_password() {
    let folder = Folder::new(&format!("{}rate_limit: {{ interval: 1h, burst: 4 }}\n", users()));
    let sidecar = folder.start(&[]);
    let ask = || get(TcpStream::connect(sidecar.http).unwrap(), "/-/healthy", ALICE).unwrap().status;
    assert_eq!((ask(), ask(), ask()), (200, 200, 200));
    sidecar.signal(Signal::SIGHUP);
    sidecar.wait_until("it is reloaded", |it| it.log().contains("configuration read again and in force"));
    assert_eq!((ask(), ask()), (200, 429));
    sidecar.stop();
}

#[test]
fn requests_over_the_quota_are_answered_with_429() {
    let folder = Folder::new("rate_limit: { interval: 1h, burst: 3 }\n");
    let sidecar = folder.start(&[]);
    let ask = || get(TcpStream::connect(sidecar.http).unwrap(), "/-/healthy", "").unwrap();
    for _ in 0..3 {
        assert_eq!(ask().status, 200);
    }
    let refused = ask();
    assert_eq!((refused.status, refused.text().as_str()), (429, "Too Many Requests\n"));
    let wait: u64 = refused.header("retry-after").unwrap().parse().unwrap();
    assert!((3000..=3600).contains(&wait), "{wait}");
    // With a quota that lets all through it can be read.
    folder.write("web.yml", "rate_limit: { interval: 1ms, burst: 1000 }\n");
    sidecar.signal(Signal::SIGHUP);
    sidecar.wait_until("the new quota is in force", |_| ask().status == 200);
    let scrape = get(TcpStream::connect(sidecar.http).unwrap(), "/metrics", "").unwrap();
    assert!(not_let_in(&scrape, "rate_limited") >= 1.0, "{}", scrape.text());
    sidecar.stop();
}

#[test]
fn pages_have_security_headers_and_the_file_has_the_last_word() {
    let folder = Folder::new("");
    let sidecar = folder.start(&[]);
    for path in ["/", "/metrics", "/-/ready", "/api/v1/status", "/no/such/path"] {
        let reply = sidecar.get(path, &[]);
        assert_eq!(reply.header("x-content-type-options"), Some("nosniff"), "{path}");
        assert_eq!(reply.header("x-frame-options"), Some("deny"), "{path}");
        assert_eq!(reply.header("referrer-policy"), Some("no-referrer"), "{path}");
        let policy = reply.header("content-security-policy").is_some_and(|it| it.contains("default-src 'none'"));
        assert_eq!(policy, path == "/", "{path}");
        assert_eq!(reply.header("strict-transport-security"), None);
    }
    let headers = "Strict-Transport-Security: max-age=60\n    X-Frame-Options: sameorigin\n    X-XSS-Protection: \"0\"\n    \
                   Content-Security-Policy: ''";
    folder.write("web.yml", &format!("http_server_config:\n  headers:\n    {headers}\n"));
    sidecar.wait_until("the file is read again", |it| it.get("/", &[]).header("x-xss-protection") == Some("0"));
    let reply = sidecar.get("/", &[]);
    assert_eq!(reply.header("strict-transport-security"), Some("max-age=60"));
    assert_eq!(reply.header("x-frame-options"), Some("sameorigin"));
    assert_eq!(reply.header("content-security-policy"), None);
    sidecar.stop();
}

#[test]
fn a_renewed_certificate_is_served_without_a_restart_and_a_broken_one_is_not() {
    let folder = Folder::new(TLS);
    let sidecar = folder.start(&[]);
    let der = |name: &str| CertificateDer::from_pem_slice(&folder.read(name)).unwrap().to_vec();
    let first = der("server.pem");
    assert_eq!(folder.served(&sidecar), first);
    // The key is not there yet.
    folder.write("server.pem", &String::from_utf8(folder.read("next.pem")).unwrap());
    let refusals = || sidecar.log().matches("web configuration refused").count();
    sidecar.wait_until("the broken pair is told", |_| {
        assert_eq!(folder.served(&sidecar), first);
        refusals() == 1
    });
    let log = sidecar.log();
    assert!(log.contains("server.key") && log.contains("it belongs to another certificate"), "{log}");
    folder.write("server.key", &String::from_utf8(folder.read("next.key")).unwrap());
    sidecar.wait_until("the new certificate is served", |_| folder.served(&sidecar) == der("next.pem"));
    assert_eq!(refusals(), 1);
    // TLS is not turned off by a file that is gone, or empty for a while.
    folder.write("web.yml", "");
    sidecar.wait_until("the empty file is told", |_| {
        assert_eq!(folder.served(&sidecar), der("next.pem"));
        refusals() == 2
    });
    // But by a reload it is, which somebody asked for, with a file that was not just cut off.
    folder.write("web.yml", "# open to all\n");
    sidecar.signal(Signal::SIGHUP);
    sidecar.wait_until("it speaks plain HTTP", |it| it.try_get("/-/ready", &[]).is_some_and(|it| it.status == 200));
    sidecar.stop();
}

#[test]
fn a_certificate_that_was_renewed_while_there_were_no_descriptors_is_served_once_there_are_some() {
    let folder = Folder::new(TLS);
    let sidecar = folder.start(&[]);
    let mut kept = connect(sidecar.http, folder.any_client(None)).unwrap();
    let mut ask = || {
        kept.write_all(b"HEAD /-/healthy HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            kept.read_exact(&mut byte).unwrap();
            answer.extend(byte);
        }
    };
    ask();
    let limit = |limit: &str| {
        let arguments = [format!("--pid={}", sidecar.pid()), format!("--nofile={limit}:")];
        Command::new("prlimit").args(arguments).status().is_ok_and(|status| status.success())
    };
    if !limit("1") {
        eprintln!("skipped: there is no prlimit here that can limit a process");
        return;
    }
    for kind in ["pem", "key"] {
        folder.write(&format!("server.{kind}"), &String::from_utf8(folder.read(&format!("next.{kind}"))).unwrap());
    }
    sidecar.wait_until("they cannot be read", |it| {
        ask();
        it.log().contains("Too many open files")
    });
    assert!(limit("1024"));
    let next = CertificateDer::from_pem_slice(&folder.read("next.pem")).unwrap().to_vec();
    sidecar.wait_until("the new certificate is served", |it| folder.served(it) == next);
    assert_eq!(sidecar.log().matches("web configuration refused").count(), 1, "{}", sidecar.log());
    sidecar.stop();
}

#[test]
fn a_bad_web_configuration_is_refused_at_start_by_check_and_at_reload() {
    let folder = Folder::new("basic_auth_users:\n  alice: wonderland\ntls_server_confg: {}\n");
    let (status, log) = start_in_vain(&[&folder.setting()]);
    assert_eq!(status.code(), Some(2), "{log}");
    let output = run(&["check", "--set", &folder.setting()]);
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8(output.stdout).unwrap();
    for text in [&log, &said] {
        assert!(text.contains("web.yml:2: basic_auth_users.alice: found a text, accepted: a password"), "{text}");
        assert!(text.contains("web.yml:3: tls_server_confg: unknown key, did you mean tls_server_config?"), "{text}");
        assert!(!text.contains("wonderland"), "{text}");
    }
    folder.write("web.yml", "");
    let sidecar = folder.start(&[]);
    folder.write("web.yml", "tls_server_config: { cert_file: server.pem }\n");
    sidecar.signal(Signal::SIGHUP);
    sidecar.wait_until("the reload is refused", |it| it.log().contains("configuration refused, the one before stays"));
    sidecar.scrape().assert("statsieve_config_last_reload_successful", 0.0);
    sidecar.stop();
}

#[test]
fn a_reload_turns_tls_on_and_nobody_goes_on_in_the_clear() {
    let folder = Folder::new(TLS);
    let config = folder.path("statsieve.toml");
    std::fs::write(&config, "").unwrap();
    let sidecar = Sidecar::start_with(&[], &["--config", config.to_str().unwrap()]);
    let mut kept = TcpStream::connect(sidecar.http).unwrap();
    kept.set_read_timeout(Some(PATIENCE)).unwrap();
    kept.write_all(b"GET /-/ready HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    let mut answer = [0; 15];
    kept.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"HTTP/1.1 200 OK");
    // The path is relative to the file that names it.
    std::fs::write(&config, "[http]\nweb_config_file = \"web.yml\"\n").unwrap();
    sidecar.signal(Signal::SIGHUP);
    sidecar.wait_until("it speaks TLS", |it| folder.get(it, None, "/-/ready", "").is_ok_and(|it| it.status == 200));
    kept.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    let mut rest = String::new();
    kept.read_to_string(&mut rest).unwrap();
    assert!(rest.contains("HTTP/1.1 400 Bad Request") && !rest.contains("statsieve_"), "{rest}");
    sidecar.stop();
}

#[test]
fn a_drain_ends_with_a_scrape_over_tls_and_connections_end_in_order() {
    let folder = Folder::new(TLS);
    // Ten times what any wait here lasts: the test can pass only if the scrape ends the drain.
    let sidecar = folder.start(&["http.drain=300s"]);
    sidecar.send(&["hits:1|c"]);
    let keep = |alpn: &[&str]| {
        let mut stream = connect(sidecar.http, folder.client(None, alpn, rustls::ALL_VERSIONS)).unwrap();
        stream.conn.complete_io(&mut stream.sock).unwrap();
        stream
    };
    sidecar.signal(Signal::SIGTERM);
    sidecar.wait_until("it is no longer ready", |it| {
        folder.get(it, None, "/-/ready", "").is_ok_and(|reply| reply.status == 503)
    });
    // Opened now, since one that lies idle for ten seconds ends anyhow; neither has asked for anything yet.
    let (mut kept, mut second) = (keep(&[]), keep(&["h2"]));
    ask_by_http2(&mut second, "/-/healthy");
    kept.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    kept.read_to_end(&mut answer).expect("the connection ends with a farewell, behind a whole answer");
    assert!(String::from_utf8_lossy(&read_reply(&answer).unwrap().body).contains("hits_total 1"));
    // The server asks whether all that was sent has arrived before it says farewell here.
    let mut frame = [0; 17];
    while second.read(&mut frame[..9]).expect("so does one of HTTP/2") > 0 {
        let length = usize::from(frame[2]);
        second.read_exact(&mut frame[9..9 + length]).unwrap();
        if (frame[3], frame[4]) == (PING, 0) {
            frame[4] = 1;
            second.write_all(&frame).unwrap();
        }
    }
    assert_eq!(sidecar.wait().code(), Some(0));
}

#[test]
fn who_never_finishes_holds_no_place_for_ever() {
    let folder = Folder::new(TLS);
    let sidecar = folder.start(&["http.max_connections=1"]);
    // It says nothing, and has the only place: it has to leave for the next one.
    let silent = TcpStream::connect(sidecar.http).unwrap();
    assert_eq!(folder.get(&sidecar, None, "/-/ready", "").unwrap().status, 200);
    // The same of one that chose HTTP/2 and then asks for nothing.
    let mut idle = connect(sidecar.http, folder.client(None, &["h2"], rustls::ALL_VERSIONS)).unwrap();
    idle.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").unwrap();
    assert_eq!(folder.get(&sidecar, None, "/-/ready", "").unwrap().status, 200);
    drop((silent, idle));
    sidecar.stop();
}

#[test]
fn healthcheck_asks_over_tls_as_whom_it_is_told() {
    let folder = Folder::new(&format!("{TLS}{MUTUAL}{}", users()));
    let sidecar = folder.start(&[]);
    let path = |name: &str| folder.path(name).to_str().unwrap().to_owned();
    folder.write("user", "alice:wonder:land\n");
    let (url, with) = (format!("https://{}", sidecar.http), format!("https://alice:wonder%3Aland@{}", sidecar.http));
    let (ca, cert, key, user, other) =
        (path("ca.pem"), path("client.pem"), path("client.key"), path("user"), path("stranger.pem"));
    let listen = format!("http.listen={}", sidecar.http);
    let setting = folder.setting();
    let own = ["--set", setting.as_str(), "--set", listen.as_str()];
    let identity = ["--cert", cert.as_str(), "--key", key.as_str()];
    for (arguments, code, said) in [
        (vec!["--url", &with, "--ca", &ca, identity[0], identity[1], identity[2], identity[3]], 2, "--user-file"),
        (vec!["--url", &url, "--ca", &ca, "--user-file", &user, "--cert", &cert, "--key", &key], 0, "ready"),
        (vec!["--url", &url, "--insecure", "--user-file", &user, "--cert", &cert, "--key", &key], 0, "ready"),
        (vec!["--user-file", &user, "--cert", &cert, "--key", &key], 0, "ready"),
        (vec!["--cert", &cert, "--key", &key], 1, "401, it wants a name and a password"),
        (vec!["--url", &url, "--ca", &other, "--user-file", &user, "--cert", &cert, "--key", &key], 1, "certificate"),
        (vec!["--url", &url, "--ca", &ca, "--user-file", &user], 1, "ertificate"),
        (vec!["--url", &url, "--user-file", &user], 2, "https needs --ca FILE, or --insecure"),
        (vec!["--url", &url, "--ca", "/no/such/file"], 2, "/no/such/file: "),
        (vec!["--url", &url, "--cert", &cert], 2, ""),
    ] {
        let all: Vec<&str> = own.into_iter().chain(["healthcheck"]).chain(arguments.iter().copied()).collect();
        let output = run(&all);
        let found = String::from_utf8_lossy(&output.stdout);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}\n{found}\n{}", sidecar.log());
        assert!(found.contains(said), "{arguments:?}\n{found}");
    }
    sidecar.stop();
}

/// The example, with every key that stands there in a comment if `all`.
fn example(all: bool) -> String {
    let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/web-config.yml")).unwrap();
    let is_key = |line: &str| {
        line.split_once(": ").is_some_and(|(key, _)| key.trim().bytes().all(|b| b.is_ascii_lowercase() || b == b'_'))
            || line == "rate_limit:"
    };
    let uncomment = |line: &str| {
        let bare = line.trim_start();
        let indent = &line[..line.len() - bare.len()];
        let key = bare
            .strip_prefix("# ")
            .filter(|rest| all && is_key(rest) && !rest.contains("https") && !rest.contains(" { "));
        key.map_or(line.to_owned(), |key| format!("{indent}{key}"))
    };
    let mut lines: Vec<String> = text.lines().map(uncomment).collect();
    // The comments at the top are about another file.
    lines.drain(..lines.iter().position(|line| line == "tls_server_config:").unwrap());
    lines.join("\n") + "\n"
}

#[test]
fn the_example_is_accepted_with_every_key_and_its_password_lets_in() {
    let folder = Folder::new(&example(true));
    let output = run(&["check", "--set", &folder.setting()]);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stdout));
    for key in ["client_allowed_sans:", "cipher_suites:", "curve_preferences:", "rate_limit:", "interval:"] {
        assert!(example(true).lines().any(|line| line.trim_start().starts_with(key)), "{key}\n{}", example(true));
    }
    folder.write("web.yml", &example(false));
    let sidecar = folder.start(&[]);
    let password = "Authorization: Basic cHJvbWV0aGV1czpjaGFuZ2UtbWU=\r\n";
    let reply = folder.get(&sidecar, Some("client"), "/metrics", password).unwrap();
    assert_eq!(reply.status, 200);
    assert_eq!(reply.header("strict-transport-security"), Some("max-age=31536000"));
    sidecar.stop();
}

#[test]
#[ignore = "needs promtool, run by tests/run"]
fn promtool_accepts_the_example_too() {
    let text = example(true);
    // Its toolkit is older than these keys.
    let (known, _) = text.split_once("rate_limit:").unwrap();
    let known: Vec<&str> = known.lines().filter(|line| !line.contains("client_allowed_sans")).collect();
    let folder = Folder::new(&known.join("\n"));
    let mut command = Command::new(tool("prometheus/promtool"));
    let (stdout, ok, stderr) = outcome_of(command.args(["check", "web-config"]).arg(folder.path("web.yml")), None);
    assert!(ok, "{stdout}\n{stderr}");
}

#[test]
#[ignore = "needs a Prometheus server, run by tests/run"]
fn a_real_prometheus_scrapes_over_mutual_tls_with_a_password() {
    let folder = Folder::new(&example(false));
    let sidecar = folder.start(&[]);
    sidecar.send(&["hits:1|c", "hits:1|c"]);
    folder.write("password", "change-me");
    let path = |name: &str| folder.path(name).to_str().unwrap().to_owned();
    let job = |password: &str| {
        format!(
            "    scheme: https\n    tls_config: {{ ca_file: {}, cert_file: {}, key_file: {} }}\n    \
             basic_auth: {{ username: prometheus, password_file: {} }}\n",
            path("ca.pem"),
            path("client.pem"),
            path("client.key"),
            path(password)
        )
    };
    let server = Prometheus::start_by(&job("password"), &[sidecar.http], None, &[]);
    server.wait_for("up{job=\"sidecar\"}", 1.0);
    server.wait_for("hits_total", 2.0);
    folder.write("wrong", "change-you");
    let server = Prometheus::start_by(&job("wrong"), &[sidecar.http], None, &[]);
    wait_for("the scrape fails", || server.one("up{job=\"sidecar\"}").filter(|up| *up == 0.0));
    assert_eq!(server.one("hits_total"), None);
    sidecar.stop();
}
