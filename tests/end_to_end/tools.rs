//! Programs from outside Rust that the ignored tests need, where `tests/run` puts them.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::harness::{KillOnDrop, Log, wait_for};

/// A file below the folder that `STATSIEVE_TEST_TOOLS` names.
pub(crate) fn tool(path: &str) -> PathBuf {
    let Some(folder) = std::env::var_os("STATSIEVE_TEST_TOOLS") else {
        panic!(
            "STATSIEVE_TEST_TOOLS is not set: run this test by tests/run, which installs {path} and names the folder"
        )
    };
    let tool = Path::new(&folder).join(path);
    assert!(tool.exists(), "{} is missing: tests/run installs it", tool.display());
    tool
}

/// A script of `tests/end_to_end/clients`.
fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/end_to_end/clients").join(name)
}

/// Runs a Python script with the pinned packages; gives what it prints.
pub(crate) fn python(name: &str, arguments: &[&str]) -> String {
    python_with(&[], name, arguments)
}

/// The same with these variables in its environment.
pub(crate) fn python_with(variables: &[(&str, &str)], name: &str, arguments: &[&str]) -> String {
    let mut command = without_datadog(Command::new(tool("venv/bin/python")));
    command.env("PYTHONDONTWRITEBYTECODE", "1").envs(variables.iter().copied()).arg(script(name)).args(arguments);
    output_of(command)
}

/// Runs a Node script with the pinned packages; gives what it prints.
pub(crate) fn node(name: &str, arguments: &[&str]) -> String {
    let mut command = without_datadog(Command::new("node"));
    command.env("NODE_PATH", tool("node/node_modules")).arg(script(name)).args(arguments);
    output_of(command)
}

/// Takes the variables out that a Datadog client goes by: they would add tags.
fn without_datadog(mut command: Command) -> Command {
    for (name, _) in std::env::vars_os() {
        if ["DD_", "DATADOG_"].iter().any(|start| name.to_string_lossy().starts_with(start)) {
            command.env_remove(name);
        }
    }
    command
}

/// Runs a command to its end, which must be a success; gives what it prints.
pub(crate) fn output_of(mut command: Command) -> String {
    let (stdout, ok, stderr) = outcome_of(&mut command, None);
    assert!(ok, "{command:?} failed\n{stdout}\n{stderr}");
    stdout
}

/// Runs a command on `input` to its end: what it printed, whether it succeeded, its errors.
pub(crate) fn outcome_of(command: &mut Command, input: Option<Vec<u8>>) -> (String, bool, String) {
    let stdin = if input.is_some() { Stdio::piped() } else { Stdio::null() };
    let mut child = command
        .stdin(stdin)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{command:?}: {error}; tests/run installs what the tests need"));
    let writer = input.map(|input| {
        let mut stdin = child.stdin.take().unwrap();
        std::thread::spawn(move || std::io::Write::write_all(&mut stdin, &input))
    });
    let (stdout, stderr) = (Log::default(), Log::default());
    let readers = [stdout.follow(child.stdout.take().unwrap()), stderr.follow(child.stderr.take().unwrap())];
    let mut child = KillOnDrop(Some(child));
    let status = wait_for(&format!("{command:?} ends"), || child.0.as_mut().unwrap().try_wait().unwrap());
    for reader in readers {
        reader.join().unwrap();
    }
    if let Some(writer) = writer {
        // A program that ends before it has read everything says why on stderr.
        let _ = writer.join().unwrap();
    }
    (stdout.text(), status.success(), stderr.text())
}

/// Host and port as two arguments.
pub(crate) fn host_and_port(address: SocketAddr) -> [String; 2] {
    [address.ip().to_string(), address.port().to_string()]
}

/// A port on the loopback that was free a moment ago, for programs that cannot say which one they were given.
pub(crate) fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Text as an argument of a query string.
pub(crate) fn percent_encoded(text: &str) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}
