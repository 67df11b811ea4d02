use rcgen::{CertificateParams, KeyPair};

use super::*;

/// A folder with a certificate `s.pem`, its key `s.key`, another's key `other.key`, and `bad.pem`, which is none.
struct Folder(tempfile::TempDir, String, String);

impl Folder {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(vec!["localhost".to_owned()]).unwrap().self_signed(&key).unwrap();
        let (certificate, key) = (certificate.pem(), key.serialize_pem());
        let files = [
            ("s.pem", certificate.clone()),
            ("s.key", key.clone()),
            ("other.key", KeyPair::generate().unwrap().serialize_pem()),
            ("bad.pem", "no certificate".to_owned()),
            ("cut.pem", certificate[..certificate.len() - 40].to_owned()),
            ("locked.key", "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n".to_owned()),
        ];
        for (name, text) in files {
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        Self(folder, certificate, key)
    }

    fn load(&self, text: &str) -> Result<Web, String> {
        let path = self.0.path().join("web.yml");
        std::fs::write(&path, text).unwrap();
        let folder = format!("{}/", self.0.path().display());
        load(&path).0.map_err(|problems| {
            // What a log or a terminal shows.
            assert_eq!(problems.render_with_carets().lines().count(), 2 * problems.count() - 1, "no line of the file");
            problems.to_string().replace(&folder, "")
        })
    }

    fn good(&self, text: &str) -> Web {
        self.load(text).unwrap_or_else(|problems| panic!("{text}\n{problems}"))
    }

    fn bad(&self, text: &str) -> String {
        self.load(text).err().unwrap_or_else(|| panic!("{text}\nis no fault"))
    }
}

const PAIR: &str = "tls_server_config:\n  cert_file: s.pem\n  key_file: s.key\n";

fn hash() -> String {
    bcrypt::hash("a password", 4).unwrap()
}

#[test]
fn a_file_without_anything_is_plain_http_for_everyone() {
    let folder = Folder::new();
    for text in ["", "# nothing\n", "tls_server_config:\nbasic_auth_users: {}\nrate_limit:\nhttp_server_config:\n"] {
        let web = folder.good(text);
        assert!(web.tls.is_none() && web.users.is_empty() && web.headers.is_empty() && web.rate_limit.is_none());
    }
}

#[test]
fn every_key_is_read() {
    let folder = Folder::new();
    let web = folder.good(&format!(
        "{PAIR}  client_auth_type: RequireAndVerifyClientCert\n  client_ca_file: s.pem\n  \
         client_allowed_sans: [a.example]\n  \
         min_version: TLS12\n  max_version: TLS13\n  cipher_suites: [TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256]\n  \
         curve_preferences: [CurveP256, X25519]\n  prefer_server_cipher_suites: yes\n\
         http_server_config:\n  http2: true\n  \
         headers:\n    Strict-Transport-Security: max-age=1\n    X-Content-Type-Options: nosniff\n    \
         X-Frame-Options: sameorigin\n    X-XSS-Protection: \"1\"\n    Content-Security-Policy: ''\n\
         basic_auth_users:\n  alice: {}\nrate_limit:\n  interval: 250ms\n  burst: 20\n",
        hash()
    ));
    let tls = web.tls.unwrap();
    assert!(web.verifies_clients);
    assert_eq!(tls.alpn_protocols, [b"h2".to_vec(), b"http/1.1".to_vec()]);
    let provider = tls.crypto_provider();
    assert_eq!(
        provider.kx_groups.iter().map(|group| format!("{:?}", group.name())).collect::<Vec<_>>(),
        ["secp256r1", "X25519"]
    );
    assert_eq!(provider.cipher_suites.len(), 3 + 1, "those of TLS 1.3 are always there");
    assert_eq!(
        web.headers.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>(),
        [
            "Strict-Transport-Security=max-age=1",
            "X-Content-Type-Options=nosniff",
            "X-Frame-Options=sameorigin",
            "X-XSS-Protection=1",
            "Content-Security-Policy="
        ]
    );
    assert_eq!(web.users.into_keys().collect::<Vec<_>>(), ["alice"]);
    assert_eq!(web.rate_limit, Some((Duration::from_millis(250), NonZeroU32::new(20).unwrap())));
    assert_eq!(web.remarks, [""; 0]);
}

#[test]
fn certificates_and_keys_may_stand_in_the_file_itself() {
    let folder = Folder::new();
    let indented = |pem: &str| pem.trim_end().replace('\n', "\n    ");
    let (certificate, key) = (indented(&folder.1), indented(&folder.2));
    let web = folder.good(&format!(
        "tls_server_config:\n  cert: |\n    {certificate}\n  key: |\n    {key}\n  client_ca: |\n    {certificate}\n  \
         client_auth_type: VerifyClientCertIfGiven\nhttp_server_config: {{http2: false}}\n"
    ));
    assert_eq!(web.tls.unwrap().alpn_protocols, [b"http/1.1".to_vec()]);
    assert!(web.verifies_clients);
}

#[test]
fn all_five_ways_to_ask_clients_are_known_and_one_old_name() {
    let folder = Folder::new();
    let ca = "  client_ca_file: s.pem\n";
    for (name, verifies, ca) in [
        ("NoClientCert", false, ""),
        ("RequestClientCert", false, ca),
        ("RequestClientCert", false, ""),
        ("RequireAnyClientCert", false, ""),
        ("RequireClientCert", false, ""),
        ("VerifyClientCertIfGiven", true, ca),
        ("RequireAndVerifyClientCert", true, ca),
    ] {
        assert_eq!(
            folder.good(&format!("{PAIR}{ca}  client_auth_type: {name}\n")).verifies_clients,
            verifies,
            "{name}"
        );
    }
}

#[test]
fn what_is_not_spoken_here_is_passed_over_with_a_remark() {
    let folder = Folder::new();
    let suites = "[TLS_RSA_WITH_AES_128_CBC_SHA, TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384]";
    let web = folder.good(&format!(
        "{PAIR}  min_version: TLS11\n  cipher_suites: {suites}\n  curve_preferences: [CurveP521, X25519]\n"
    ));
    let remarks: Vec<&str> = web.remarks.iter().map(|remark| remark.rsplit_once("web.yml: ").unwrap().1).collect();
    assert_eq!(
        remarks,
        [
            "tls_server_config.min_version: TLS 1.0 and 1.1 are not spoken, TLS 1.2 is the least",
            "tls_server_config.cipher_suites: passed over, there is none here: TLS_RSA_WITH_AES_128_CBC_SHA",
            "tls_server_config.curve_preferences: passed over, there is none here: CurveP521",
        ]
    );
    // As in Go, suites of TLS 1.3 alone leave none for 1.2.
    folder.good(&format!("{PAIR}  cipher_suites: [TLS_AES_128_GCM_SHA256]\n"));
    // In Go interval 0 turns the quota off, whatever the burst; and a bare number is in nanoseconds.
    assert_eq!(folder.good("rate_limit: {interval: 0s, burst: 0}").rate_limit, None);
    assert_eq!(folder.good("rate_limit: {interval: 1000, burst: 1}").rate_limit.unwrap().0, Duration::from_micros(1));
}

#[test]
fn every_fault_is_told_with_its_place_and_what_is_accepted() {
    let folder = Folder::new();
    for case in include_str!("faults.txt").split("\n\n").filter(|case| !case.trim().is_empty()) {
        let (text, expected): (Vec<&str>, Vec<&str>) = case.lines().partition(|line| !line.starts_with("=> "));
        let expected: Vec<String> = expected.iter().map(|line| line.replacen("=> ", "web.yml:", 1)).collect();
        assert!(!expected.is_empty(), "{case}");
        assert_eq!(folder.bad(&(text.join("\n") + "\n")), expected.join("\n"), "{case}");
    }
    let users = "a password hashed by bcrypt at a cost of 4 to 18, as htpasswd -B makes it";
    for (name, hash, expected) in [
        ("alice", hash().replace("$04$", "$19$"), format!("alice: found a text, accepted: {users}")),
        ("\"a:b\"", hash(), "\"a:b\": found as name, accepted: a name without a colon".to_owned()),
    ] {
        let text = format!("basic_auth_users:\n  {name}: {hash}\n");
        assert_eq!(folder.bad(&text), format!("web.yml:2: basic_auth_users.{expected}"));
    }
}

#[test]
fn all_faults_are_told_at_once() {
    let folder = Folder::new();
    let found =
        folder.bad("tls_server_config:\n  cert_file: none.pem\n  key_file: s.key\nbasic_auth_users:\n  a: b\nrates:\n");
    assert_eq!(found.lines().count(), 3, "{found}");
}

#[test]
fn no_fault_holds_a_secret() {
    let folder = Folder::new();
    let key = folder.2.trim_end().replace('\n', "\n    ");
    let body = folder.2.lines().nth(1).unwrap();
    let flat = folder.2.replace('\n', " ");
    let hash = hash();
    for text in [
        format!("tls_server_config:\n  cert_file: s.pem\n  key: |\n    {}\n", &key[..key.len() - 50]),
        format!("tls_server_config:\n  cert_file: s.pem\n  key: |\n  {key}\n"),
        format!("tls_server_config:\n  cert_file: s.pem\n  key_file: {body}\n  key: '{flat}'\n"),
        format!("tls_server_config:\n  cert_file: s.pem\n  key_file: '{flat}'\n"),
        format!("tls_server_config: '{flat}'\n"),
        format!("basic_auth_users: [{hash}]\n"),
        format!("basic_auth_users:\n  alice {hash}\n"),
        format!("basic_auth_users:\n  alice: [{hash}]\n"),
        format!("basic_auth_users:\n alice: {hash}x\n"),
        format!("basic_auth_users:\n  alice: {hash}\n bob: {hash}\n"),
        format!("http_server_config: {hash}\n"),
    ] {
        let found = folder.bad(&text);
        let shown = found.replace(&format!("found {body:?}"), "");
        // A file's name is shown, and this one is the operator's slip: its text is no key that can be used.
        let secrets = [&hash[7..], &body[..20]];
        let is_name = text.contains(&format!("key_file: {body}"));
        assert!(is_name || secrets.iter().all(|secret| !shown.contains(secret)), "{text}\n{found}");
    }
}

#[test]
fn a_file_that_cannot_be_read_is_a_fault() {
    let (web, seen) = load(Path::new("/no/such/web.yml"));
    assert_eq!(
        web.err().unwrap().to_string(),
        "/no/such/web.yml: cannot be read: No such file or directory (os error 2)"
    );
    assert_eq!(seen.len(), 1);
}

#[test]
fn every_file_that_was_looked_at_is_known_in_the_end_even_of_a_bad_one() {
    let folder = Folder::new();
    let path = folder.0.path().join("web.yml");
    std::fs::write(&path, format!("{PAIR}  client_ca_file: none.pem\n")).unwrap();
    let (web, seen) = load(&path);
    assert!(web.is_err());
    let names: Vec<_> = seen.iter().map(|seen| seen.file.path().file_name().unwrap().to_str().unwrap()).collect();
    assert_eq!(names, ["web.yml", "s.pem", "s.key", "none.pem"]);
    assert!(seen.iter().all(|seen| Stamp::of(seen.file.path()) == seen.stamp));
}
