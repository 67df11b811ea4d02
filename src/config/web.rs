//! Reads a web configuration file, in the format that Prometheus exporters share.
//!
//! In: the path of a YAML file, and the PEM files it names. Out: a [`Web`] to serve by, or every problem at once with
//! file, line and key.
//! Not here: what TLS is made of (`expose::web::tls`), when the file is read again (`expose::web`).
//! Always: no problem and no remark holds a key, a password's hash or any line of the file; paths are relative to it.
//! Follows: Prometheus exporter-toolkit 0.17, `docs/web-configuration.md`. Refused beyond that: what would leave a
//! door open that somebody believes shut.

use std::collections::BTreeMap;
use std::io;
use std::num::NonZeroU32;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use rustls::ServerConfig;

use super::file::Known;
use super::problem::{KeyPath, Problem, Problems};
use super::yaml::{Content, Fields, Node, Reader, get};
use crate::expose::web::tls::{self, Blame, ClientAuth, Settings, Version};

/// What a web configuration file says, ready to serve by.
pub struct Web {
    /// How connections are encrypted; `None` is plain HTTP.
    pub tls: Option<Arc<ServerConfig>>,
    /// Whether a client's certificate, if it has one, was checked against the CA.
    pub verifies_clients: bool,
    /// Headers by their names, each with its value or "" to leave it out; legal values.
    pub headers: Vec<(&'static str, String)>,
    /// Hashes of passwords by names; empty lets everyone in.
    pub users: BTreeMap<String, String>,
    /// Time between two requests, and how many may come at once.
    pub rate_limit: Option<(Duration, NonZeroU32)>,
    /// What is in the file and has no effect here.
    pub remarks: Vec<String>,
}

/// A file that was read.
pub struct Seen {
    /// Where it is, and what it held.
    pub file: Known,
    /// What tells the state it was in from another one, without reading it.
    pub stamp: Stamp,
}

/// Device, inode, size, and the times of its change and of that of its content; `None` if it cannot be looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp(Option<[i64; 7]>);

impl Stamp {
    /// That of no state at all: whatever is found is another one.
    const UNKNOWN: Self = Self(Some([i64::MIN; 7]));

    /// That of the file behind all links.
    pub fn of(path: &Path) -> Self {
        Self(std::fs::metadata(path).ok().map(|it| {
            [
                it.dev().cast_signed(),
                it.ino().cast_signed(),
                it.size().cast_signed(),
                it.mtime(),
                it.mtime_nsec(),
                it.ctime(),
                it.ctime_nsec(),
            ]
        }))
    }

    /// When the content was written, as time since 1970.
    pub fn written(self) -> Option<Duration> {
        let [.., seconds, nanoseconds, _, _] = self.0?;
        Some(Duration::new(seconds.try_into().ok()?, nanoseconds.try_into().ok()?))
    }
}

/// The least and the most work that checking a password may be, 2^cost rounds: 10 is some 55 ms, 18 a quarter of a
/// minute.
const COSTS: std::ops::RangeInclusive<u32> = 4..=18;
/// Longest time between two requests.
const LONGEST_INTERVAL: Duration = Duration::from_secs(3600);
const MOST_BURST: i64 = 1_000_000;

const CLIENT_AUTH: [(&str, ClientAuth); 6] = [
    ("NoClientCert", ClientAuth::None),
    ("RequestClientCert", ClientAuth::Request),
    // An old name of the next one.
    ("RequireClientCert", ClientAuth::RequireAny),
    ("RequireAnyClientCert", ClientAuth::RequireAny),
    ("VerifyClientCertIfGiven", ClientAuth::VerifyIfGiven),
    ("RequireAndVerifyClientCert", ClientAuth::RequireAndVerify),
];
const VERSIONS: [(&str, Version); 4] =
    [("TLS10", Version::Old), ("TLS11", Version::Old), ("TLS12", Version::Tls12), ("TLS13", Version::Tls13)];
/// Headers that may be set, each with the values it takes; any, if there are none.
const HEADERS: [(&str, &[&str]); 5] = [
    ("Strict-Transport-Security", &[]),
    ("X-Content-Type-Options", &["nosniff"]),
    ("X-Frame-Options", &["deny", "sameorigin"]),
    ("X-XSS-Protection", &[]),
    ("Content-Security-Policy", &[]),
];

/// Reads a web configuration file and what it names; the files come with it, whatever came of them.
pub fn load(path: &Path) -> (Result<Web, Problems>, Vec<Seen>) {
    let (mut problems, mut seen) = (Vec::new(), Vec::new());
    let web = read(path, &mut problems, &mut seen);
    let web = web.map_err(|cause| {
        let message = format!("cannot be read: {cause}");
        problems.push(Problem::bare(path.display().to_string(), &KeyPath::default(), message));
    });
    let web = match web {
        Ok(web) if problems.is_empty() => Ok(web),
        _ => Err(Problems::new(problems)),
    };
    (web, seen)
}

/// The same; what comes out is only good if `problems` has got no longer.
///
/// # Errors
/// If the file itself cannot be read.
pub(super) fn read(path: &Path, problems: &mut Vec<Problem>, seen: &mut Vec<Seen>) -> io::Result<Web> {
    let text = read_file(path, seen)?;
    let text = String::from_utf8(text)
        .map_err(|cause| io::Error::new(io::ErrorKind::InvalidData, format!("no UTF-8: {}", cause.utf8_error())))?;
    let name = path.display().to_string();
    let mut reader = Reader::secret(&name, &text, problems);
    let root = reader.root();
    let directory = path.parent().unwrap_or(Path::new(""));
    let mut file = File { name: &name, directory, reader, seen, remarks: Vec::new() };
    Ok(file.web(root.as_ref()))
}

/// What a file holds; its state is looked at first, so that a change in between is seen later.
fn read_file(path: &Path, seen: &mut Vec<Seen>) -> io::Result<Vec<u8>> {
    let stamp = Stamp::of(path);
    let (found, file) = Known::read(path);
    let stamp = if found.as_ref().is_err_and(may_pass) { Stamp::UNKNOWN } else { stamp };
    seen.push(Seen { file, stamp });
    found
}

/// Whether a file may be read later though nobody changes it: there were no descriptors, say.
fn may_pass(error: &io::Error) -> bool {
    use io::ErrorKind::{FileTooLarge, IsADirectory, NotFound, PermissionDenied, TimedOut};
    // To wait for the writer of a pipe again each second would leave no time for anything else.
    !matches!(error.kind(), NotFound | PermissionDenied | IsADirectory | FileTooLarge | TimedOut)
}

struct File<'a> {
    name: &'a str,
    directory: &'a Path,
    reader: Reader<'a>,
    seen: &'a mut Vec<Seen>,
    remarks: Vec<String>,
}

/// PEM from the file itself or from another, with the place to blame for it.
struct Pem<'n> {
    bytes: Vec<u8>,
    node: &'n Node,
    path: KeyPath,
}

impl File<'_> {
    fn web(&mut self, root: Option<&Node>) -> Web {
        let path = KeyPath::default();
        let known = ["tls_server_config", "http_server_config", "basic_auth_users", "rate_limit"];
        let fields = root.map(|root| self.reader.table(root, &path, &known)).unwrap_or_default();
        let (http2, headers) = self.http(&fields);
        let tls = get(&fields, "tls_server_config").and_then(|node| self.tls(node, http2));
        let users = self.users(&fields);
        let rate_limit = self.rate_limit(&fields);
        let (tls, verifies_clients) = tls.unzip();
        Web {
            tls: tls.map(Arc::new),
            verifies_clients: verifies_clients.unwrap_or(false),
            headers,
            users,
            rate_limit,
            remarks: std::mem::take(&mut self.remarks),
        }
    }

    /// The configuration of TLS, and whether certificates of clients are checked.
    fn tls(&mut self, node: &Node, http2: bool) -> Option<(ServerConfig, bool)> {
        let path = KeyPath::parse("tls_server_config");
        let known = [
            "cert_file",
            "key_file",
            "cert",
            "key",
            "client_auth_type",
            "client_ca_file",
            "client_ca",
            "client_allowed_sans",
            "min_version",
            "max_version",
            "cipher_suites",
            "prefer_server_cipher_suites",
            "curve_preferences",
        ];
        let before = self.reader.problems();
        let fields = self.reader.table(node, &path, &known);
        if fields.is_empty() {
            return None;
        }
        let certificate = self.pem(&fields, &path, "cert_file", "cert");
        let key = self.pem(&fields, &path, "key_file", "key");
        let client_ca = self.pem(&fields, &path, "client_ca_file", "client_ca");
        for (given, file, inline) in [(&certificate, "cert_file", "cert"), (&key, "key_file", "key")] {
            let named = [file, inline].iter().any(|key| get(&fields, key).is_some_and(|node| !is_empty(node)));
            if given.is_none() && !named {
                self.reader.refuse_missing(
                    node,
                    &path.join(file),
                    &format!("{file} or {inline}: there is no TLS without"),
                );
            }
        }
        let (client_auth, allowed_sans) = self.clients(&fields, &path, node, client_ca.is_some());
        let versions = self.versions(&fields, &path);
        // It chooses the order of suites, which clients have long chosen.
        self.reader.boolean(&fields, &path, "prefer_server_cipher_suites");
        let suites = self.choices(&fields, &path, "cipher_suites", tls::SUITES);
        let curves = self.choices(&fields, &path, "curve_preferences", tls::CURVES);
        if self.reader.problems() > before {
            return None;
        }
        let (certificate, key) = (certificate?, key?);
        let settings = Settings {
            certificate: &certificate.bytes,
            key: &key.bytes,
            client_ca: client_ca.as_ref().map(|pem| pem.bytes.as_slice()),
            client_auth,
            allowed_sans,
            versions,
            suites,
            curves,
            http2,
        };
        let fault = match tls::server_config(settings) {
            Ok(config) => return Some((config, client_auth.verifies())),
            Err(fault) => fault,
        };
        let (blamed, accepted) = match (fault.blame, &client_ca) {
            (Blame::Certificate, _) => (&certificate, "certificates in PEM, the server's own first"),
            (Blame::Key, _) => (&key, "the private key of the certificate, in PEM and without a password"),
            (Blame::ClientCa, Some(client_ca)) => (client_ca, "certificates in PEM"),
            (Blame::ClientCa, None) => (&certificate, "certificates in PEM"),
            (Blame::Suites, _) => {
                let at = get(&fields, "cipher_suites").unwrap_or(node);
                self.reader.refuse(at, &path.join("cipher_suites"), &fault.why);
                return None;
            }
        };
        self.reader.refuse(blamed.node, &blamed.path, &format!("{accepted} ({})", fault.why));
        None
    }

    /// The bytes of a PEM that stands in one of two keys.
    fn pem<'n>(&mut self, fields: &Fields<'n>, path: &KeyPath, file: &str, inline: &str) -> Option<Pem<'n>> {
        let given = |key: &str| get(fields, key).filter(|node| !is_empty(node));
        match (given(file), given(inline)) {
            (Some(_), Some(node)) => {
                self.reader.refuse(node, &path.join(inline), &format!("one of {file} and {inline}"));
                None
            }
            (Some(node), None) => {
                let name = self.reader.string(fields, path, file)?;
                let found = self.directory.join(&name);
                let path = path.join(file);
                match read_file(&found, self.seen) {
                    Ok(bytes) => Some(Pem { bytes, node, path }),
                    Err(cause) => {
                        self.reader.refuse(node, &path, &format!("the path of a file that can be read ({cause})"));
                        None
                    }
                }
            }
            (None, Some(node)) => {
                let bytes = self.reader.string(fields, path, inline)?.into_bytes();
                Some(Pem { bytes, node, path: path.join(inline) })
            }
            (None, None) => None,
        }
    }

    /// How far clients are asked for certificates, and the names that one of theirs has to hold.
    fn clients(
        &mut self,
        fields: &Fields<'_>,
        path: &KeyPath,
        table: &Node,
        has_ca: bool,
    ) -> (ClientAuth, Option<Vec<String>>) {
        let before = self.reader.problems();
        let auth = self.reader.one_of(fields, path, "client_auth_type", &CLIENT_AUTH).unwrap_or(ClientAuth::None);
        let known = self.reader.problems() == before;
        let at = get(fields, "client_auth_type").unwrap_or(table);
        let ca_is_named = ["client_ca_file", "client_ca"].iter().any(|key| get(fields, key).is_some());
        if known && has_ca && auth == ClientAuth::None {
            let accepted = "RequireAndVerifyClientCert, since there is a CA for clients";
            self.reader.refuse(at, &path.join("client_auth_type"), accepted);
        }
        if auth.verifies() && !ca_is_named {
            let accepted = "client_ca_file or client_ca, against which certificates of clients are checked";
            self.reader.refuse_missing(at, &path.join("client_ca_file"), accepted);
        }
        let before = self.reader.problems();
        let list = self.texts(fields, path, "client_allowed_sans");
        let (Some(sans), Some(node)) = (list, get(fields, "client_allowed_sans")) else { return (auth, None) };
        let path = path.join("client_allowed_sans");
        if sans.is_empty() && self.reader.problems() == before {
            self.reader.refuse(node, &path, "at least one name, or no list");
        }
        if known && !auth.requires() {
            let accepted = "none, unless client_auth_type is RequireAndVerifyClientCert or RequireAnyClientCert";
            self.reader.refuse(node, &path, accepted);
        }
        (auth, Some(sans.into_iter().map(|(name, _)| name).collect()))
    }

    /// Whether TLS 1.2 is spoken, and whether 1.3 is.
    fn versions(&mut self, fields: &Fields<'_>, path: &KeyPath) -> (bool, bool) {
        let least = self.reader.one_of(fields, path, "min_version", &VERSIONS).unwrap_or(Version::Tls12);
        let most = self.reader.one_of(fields, path, "max_version", &VERSIONS).unwrap_or(Version::Tls13);
        if let (true, Some(node)) = (most == Version::Old, get(fields, "max_version")) {
            self.reader.refuse(node, &path.join("max_version"), "TLS12 or TLS13: older ones are not spoken");
        } else if let (true, Some(node)) = (least > most, get(fields, "min_version")) {
            self.reader.refuse(node, &path.join("min_version"), "no later version than max_version");
        }
        if least == Version::Old {
            self.remark("tls_server_config.min_version", "TLS 1.0 and 1.1 are not spoken, TLS 1.2 is the least");
        }
        (least <= Version::Tls12, most == Version::Tls13)
    }

    /// What each name in a list stands for; `None` without a list. Names without a meaning here are remarked.
    fn choices<T: Copy>(
        &mut self,
        fields: &Fields<'_>,
        path: &KeyPath,
        key: &str,
        known: &[(&str, Option<T>)],
    ) -> Option<Vec<T>> {
        let names = self.texts(fields, path, key)?;
        if names.is_empty() {
            return None;
        }
        let (path, mut found) = (path.join(key), Vec::new());
        let (mut unknown, mut passed_over) = (false, Vec::new());
        for (index, (name, node)) in names.iter().enumerate() {
            match known.iter().find(|(known, _)| known == name) {
                Some((_, Some(choice))) => found.push(*choice),
                Some((known, None)) => passed_over.push(*known),
                None => {
                    unknown = true;
                    let words: Vec<&str> = known.iter().map(|(name, _)| *name).collect();
                    self.reader.refuse(node, &path.join(index), &words.join(", "));
                }
            }
        }
        if let (true, false, Some(node)) = (found.is_empty(), unknown, get(fields, key)) {
            let there: Vec<&str> = known.iter().filter(|(_, choice)| choice.is_some()).map(|(name, _)| *name).collect();
            self.reader.refuse(node, &path, &format!("at least one of {}", there.join(", ")));
        } else if !passed_over.is_empty() {
            self.remark(&path.to_string(), &format!("passed over, there is none here: {}", passed_over.join(", ")));
        }
        Some(found)
    }

    fn remark(&mut self, key: &str, words: &str) {
        self.remarks.push(format!("{}: {key}: {words}", self.name));
    }

    /// A list of texts, each with its place; `None` without one.
    fn texts<'n>(&mut self, fields: &Fields<'n>, path: &KeyPath, key: &str) -> Option<Vec<(String, &'n Node)>> {
        let list = self.reader.list(fields, path, key)?;
        let path = path.join(key);
        let mut texts = Vec::with_capacity(list.len());
        for (index, node) in list.iter().enumerate() {
            match self.reader.text_of(node) {
                Some(text) if !text.is_empty() => texts.push((text, node)),
                _ => self.reader.refuse(node, &path.join(index), "a text"),
            }
        }
        Some(texts)
    }

    /// Whether HTTP/2 is offered, and headers.
    fn http(&mut self, fields: &Fields<'_>) -> (bool, Vec<(&'static str, String)>) {
        let path = KeyPath::parse("http_server_config");
        let Some(node) = get(fields, "http_server_config") else { return (true, Vec::new()) };
        let fields = self.reader.table(node, &path, &["http2", "headers"]);
        let http2 = self.reader.boolean(&fields, &path, "http2").unwrap_or(true);
        let Some(node) = get(&fields, "headers") else { return (http2, Vec::new()) };
        let path = path.join("headers");
        let fields = self.reader.table(node, &path, &HEADERS.map(|(name, _)| name));
        let mut headers = Vec::new();
        for (name, values) in HEADERS {
            let Some(value) = self.reader.string(&fields, &path, name) else { continue };
            let value = value.trim().to_owned();
            let is_legal = value.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic());
            let is_known = values.is_empty() || value.is_empty() || values.contains(&value.as_str());
            if let (false, Some(node)) = (is_legal && is_known, get(&fields, name)) {
                let accepted = match values {
                    [] => "visible ASCII on one line, or \"\" to leave the header out".to_owned(),
                    _ => format!("{}, or \"\" to leave the header out", values.join(" or ")),
                };
                self.reader.refuse(node, &path.join(name), &accepted);
            }
            headers.push((name, value));
        }
        (http2, headers)
    }

    fn users(&mut self, fields: &Fields<'_>) -> BTreeMap<String, String> {
        let path = KeyPath::parse("basic_auth_users");
        let mut users = BTreeMap::new();
        let Some(node) = get(fields, "basic_auth_users") else { return users };
        for (name, value) in self.reader.pairs(node, &path) {
            let path = path.join(&name.value);
            if name.value.is_empty() || name.value.contains(':') {
                self.reader.push(&name.referenced, &path, "found as name, accepted: a name without a colon".to_owned());
            }
            let hash = self.reader.text_of(value).unwrap_or_default();
            if !bcrypt::HashParts::from_str(&hash).is_ok_and(|parts| COSTS.contains(&parts.get_cost())) {
                let (least, most) = (COSTS.start(), COSTS.end());
                let accepted =
                    format!("a password hashed by bcrypt at a cost of {least} to {most}, as htpasswd -B makes it");
                self.reader.refuse(value, &path, &accepted);
            }
            users.insert(name.value.clone(), hash);
        }
        users
    }

    fn rate_limit(&mut self, fields: &Fields<'_>) -> Option<(Duration, NonZeroU32)> {
        let path = KeyPath::parse("rate_limit");
        let node = get(fields, "rate_limit")?;
        let fields = self.reader.table(node, &path, &["interval", "burst"]);
        let interval = self.reader.duration(&fields, &path, "interval").unwrap_or_default();
        let burst = match get(&fields, "burst").map(|node| (node, &node.value)) {
            None | Some((_, Content::Null)) => 0,
            Some((_, Content::Integer(burst @ 0..=MOST_BURST))) => u32::try_from(*burst).unwrap_or(0),
            Some((node, _)) => {
                self.reader.refuse(node, &path.join("burst"), &format!("1 to {MOST_BURST}"));
                1
            }
        };
        if interval > LONGEST_INTERVAL {
            let at = get(&fields, "interval").unwrap_or(node);
            self.reader.refuse(at, &path.join("interval"), "at most 1h");
        }
        let burst = NonZeroU32::new(burst);
        if !interval.is_zero() && burst.is_none() {
            let at = get(&fields, "burst").unwrap_or(node);
            self.reader.refuse_missing(at, &path.join("burst"), "1 or more: with none every request is refused");
        }
        (!interval.is_zero()).then_some((interval, burst?))
    }
}

fn is_empty(node: &Node) -> bool {
    match &node.value {
        Content::Null => true,
        Content::Text(text) => text.is_empty(),
        _ => false,
    }
}

#[cfg(test)]
mod tests;
