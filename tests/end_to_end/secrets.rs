//! Secrets are planted wherever one is taken, and looked for in all that comes out: the log, every path, commands, and
//! what other users of the machine see of the process.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use nix::sys::signal::Signal;
use rcgen::{CertificateParams, KeyPair};

use crate::harness::{Sidecar, get, request, run, spawn, start_in_vain};

const PATHS: [&str; 10] = [
    "/",
    "/metrics",
    "/-/healthy",
    "/-/ready",
    "/api/v1/status",
    "/api/v1/cardinality",
    "/api/v1/config",
    "/api/v1/top",
    "/api/v1/top?tag=user_id",
    "/no/such/path",
];
const PASSWORD: &str = "PlantedPassword:0123456789";
/// `planted-user:PlantedPassword:0123456789` as a header has it.
const BASIC: &str = "cGxhbnRlZC11c2VyOlBsYW50ZWRQYXNzd29yZDowMTIzNDU2Nzg5";
const TOKEN: &str = "PlantedTokenOfABearer";
const SALT: &str = "PlantedSaltOfBuckets";
/// Words that are no key, in the places of keys.
const NO_KEY: &str = "PlantedLettersOfAKeyThatIsNone";

struct Folder(tempfile::TempDir);

impl Folder {
    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path("new"), text).unwrap();
        std::fs::rename(self.path("new"), self.path(name)).unwrap();
    }
}

fn no_key() -> String {
    format!("-----BEGIN PRIVATE KEY-----\n{NO_KEY}\n-----END PRIVATE KEY-----\n")
}

/// What anyone may see of a process.
fn seen_of(sidecar: &Sidecar) -> String {
    let read = |name: &str| std::fs::read(format!("/proc/{}/{name}", sidecar.pid())).unwrap_or_default();
    ["cmdline", "comm", "environ"].map(|name| String::from_utf8_lossy(&read(name)).into_owned()).join("\n")
}

#[test]
fn no_secret_is_in_what_the_program_says_or_shows() {
    let folder = Folder(tempfile::tempdir().unwrap());
    let hash = bcrypt::hash(PASSWORD, 4).unwrap();
    let users = format!("basic_auth_users:\n  planted-user: {hash}\n");
    folder.write("salt", SALT);
    folder.write("web.yml", &users);
    folder.write("user", &format!("planted-user:{PASSWORD}\n"));
    let toml = format!(
        "[http]\nweb_config_file = \"web.yml\"\nlifecycle = true\n[log]\nlevel = \"debug\"\n\
         [[bucketing]]\ntags = [\"user_id\"]\nlabel = \"user_bucket\"\nsalt_file = \"{}\"\n",
        folder.text("salt")
    );
    folder.write("statsieve.toml", &toml);
    let (file, user) = (folder.text("statsieve.toml"), folder.text("user"));
    let sidecar = Sidecar::unasked(spawn(&["listen.workers=1"], &["--config", &file]));
    let mut said = String::new();
    let basic = format!("Basic {BASIC}");
    let headers = ["", &basic, &format!("Bearer {TOKEN}"), "Basic cGxhbnRlZC11c2VyOlBsYW50ZWRXcm9uZw=="];
    let ask_all = |said: &mut String| {
        for path in PATHS {
            for header in headers {
                for accept in ["text/plain", "application/openmetrics-text", crate::protobuf::PROTOBUF] {
                    let reply = get(sidecar.http, path, &[("Authorization", header), ("Accept", accept)]).unwrap();
                    write!(said, "{reply:?}\n{}", reply.text()).unwrap();
                }
            }
        }
    };
    sidecar.send(&["hits:1|c|#user_id:42"]);
    ask_all(&mut said);
    assert!(said.contains("statsieve_lines_total") && said.contains("salt_file"), "it was let in:\n{said}");

    // Reloads that are right, and that are refused for each place that takes a secret.
    let reload = |said: &mut String, expected: u16| {
        let reply = request(sidecar.http, "POST", "/-/reload", &[("Authorization", &basic)]).unwrap();
        assert_eq!(reply.status, expected, "{}", reply.text());
        said.push_str(&reply.text());
    };
    reload(&mut said, 200);
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap().self_signed(&key).unwrap();
    folder.write("server.pem", &certificate.pem());
    folder.write("server.key", &no_key());
    let inline = no_key().replace('\n', "\n    ");
    let good = key.serialize_pem().replace('\n', "\n    ");
    let cut: String = hash.chars().take(40).collect();
    for bad in [
        format!("{users}tls_server_config:\n  cert_file: server.pem\n  key_file: server.key\n"),
        format!("{users}tls_server_config:\n  cert_file: server.pem\n  key: |\n    {inline}\n"),
        format!("{users}tls_server_config:\n  cert_file: nothing.pem\n  key: |\n    {good}\n"),
        format!("{users}tls_server_config:\n  cert_file: server.pem\n  key: [{NO_KEY}]\n"),
        format!("basic_auth_users:\n  planted-user: {cut}\n"),
        format!("basic_auth_users:\n  planted-user: [{hash}]\n"),
        format!("basic_auth_users: {hash}\n"),
        format!("basic_auth_users:\n  planted-user: {PASSWORD}\n"),
        format!("{users}no_such_key: {PASSWORD}\n"),
        format!("{users}rate_limit: {{ interval: {hash} }}\n"),
        format!("{users}  planted-user: {hash}\n"),
        format!("{users}\tthis is: no {hash} YAML: [\n"),
    ] {
        folder.write("web.yml", &bad);
        reload(&mut said, 500);
        let output = run(&["check", "--config", &file]);
        assert_eq!(output.status.code(), Some(2), "{bad}");
        said.push_str(&String::from_utf8_lossy(&[output.stdout, output.stderr].concat()));
        let arguments = ["--config", &file, "healthcheck", "--user-file", &user];
        let output = run(&arguments);
        assert_eq!(output.status.code(), Some(2), "{bad}");
        said.push_str(&String::from_utf8_lossy(&[output.stdout, output.stderr].concat()));
    }
    let setting = format!("http.web_config_file={}", folder.text("web.yml"));
    said.push_str(&start_in_vain(&[&setting]).1);
    sidecar.signal(Signal::SIGHUP);
    folder.write("web.yml", &users);
    // A salt that cannot be used, and one in the place of its file.
    folder.write("statsieve.toml", &toml.replace(&folder.text("salt"), &folder.text("nothing")));
    reload(&mut said, 500);
    folder.write("statsieve.toml", &toml);
    reload(&mut said, 200);
    ask_all(&mut said);

    let url = format!("http://{}", sidecar.http);
    for (arguments, code) in [
        (vec!["healthcheck", "--url", &url, "--user-file", &user], 0),
        (vec!["top", "--once", "--url", &url, "--user-file", &user], 0),
        (vec!["healthcheck", "--url", &url], 1),
        (vec!["check", "--config", &file], 0),
        (vec!["explain", "--config", &file, "hits:1|c|#user_id:42"], 0),
        (vec!["explain", "--json", "--config", &file, "hits:1|c|#user_id:42"], 0),
    ] {
        let output = run(&arguments);
        let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert_eq!(output.status.code(), Some(code), "{arguments:?}\n{text}");
        said.push_str(&text);
    }
    said.push_str(&seen_of(&sidecar));
    said.push_str(&sidecar.log());
    let letters = key.serialize_pem().lines().nth(1).unwrap().to_owned();
    for secret in [PASSWORD, BASIC, TOKEN, "PlantedWrong", SALT, NO_KEY, &hash, &hash[7..29], &hash[29..], &letters] {
        assert!(!said.contains(secret), "{secret} in\n{}", around(&said, secret));
    }
    sidecar.stop();
}

fn around<'a>(text: &'a str, part: &str) -> &'a str {
    let at = text.find(part).unwrap_or_default();
    let start = text[..at].rfind('\n').map_or(0, |newline| newline + 1);
    let end = text[at..].find('\n').map_or(text.len(), |newline| at + newline);
    &text[start..end]
}

#[test]
fn a_password_on_the_command_line_is_refused_and_not_repeated() {
    for command in ["healthcheck", "top"] {
        for url in
            ["http://planted-user:PlantedPassword@127.0.0.1:1", "https://planted-user:Planted/Password@127.0.0.1:1"]
        {
            let output = run(&[command, "--url", url]);
            let said = String::from_utf8(output.stdout).unwrap();
            assert_eq!(output.status.code(), Some(2), "{said}");
            assert!(said.contains("--user-file") && !said.contains("Planted"), "{said}");
        }
    }
}

#[test]
fn what_deploy_says_of_passwords_names_files() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for file in ["README.md", "deploy/container/Containerfile", "deploy/kubernetes/sidecar/pod.yaml"] {
        let text = std::fs::read_to_string(root.join(file)).unwrap();
        let lines = text.lines().filter(|line| line.contains("--url") && line.contains('@'));
        assert_eq!(lines.collect::<Vec<_>>(), Vec::<&str>::new(), "{file}");
    }
}
