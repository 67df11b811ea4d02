//! `statsieve top`: once as text, and on a real terminal.

use std::io::{Read, Write};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::harness::{KillOnDrop, Sidecar, run, wait_until};

#[test]
fn once_prints_the_state_as_text_and_obeys_no_value_that_was_sent() {
    let sidecar = Sidecar::start(&["listen.workers=1"]);
    let url = format!("http://{}", sidecar.http);
    let empty = run(&["top", "--once", "--url", &url]);
    let text = String::from_utf8(empty.stdout).unwrap();
    assert!(empty.status.success() && text.contains("warning: Nothing was received yet"), "{text}");
    sidecar.take(&["hits:1|c|#user_id:4\u{1b}[2J2,kind:a", "hits:1|c|#kind:b", "hits:-1|c", "depth:3|g"]);
    let shown = run(&["top", "--once", "--url", &url]);
    let text = String::from_utf8(shown.stdout).unwrap();
    for part in [
        "critical: 25.0 % of the samples were refused",
        "\n\nTraffic\nlines      ",
        "1  negative_counter  use a gauge for what can go down",
        "\n\nFamilies by cost\nname        type           lines    growth  labels\nhits_total  counter            2         -  ",
        "kind 2",
        "depth       gauge              1         -",
        "\n\nHeavy hitters of user_id, about\n           1  4\\u{1b}[2J2",
    ] {
        assert!(text.contains(part), "{part} in\n{text}");
    }
    assert!(!text.contains('\u{1b}'));
    sidecar.stop();
    let gone = run(&["top", "--once", "--url", &url]);
    assert_eq!(gone.status.code(), Some(1));
    let none = run(&["top", "--url", &url]);
    assert_eq!(none.status.code(), Some(2), "there is no terminal");
    assert!(String::from_utf8(none.stdout).unwrap().contains("--once"));
}

/// A `top` on a terminal of its own, and all that it writes there, the settings of the terminal at the end included.
struct Top {
    child: KillOnDrop,
    shown: Arc<Mutex<Vec<u8>>>,
}

impl Top {
    fn start(url: &str) -> Self {
        let top =
            format!("stty cols 120 rows 40; {} top --interval 100ms --url {url}", env!("CARGO_BIN_EXE_statsieve"));
        let told = format!("echo before $(stty -g); {top}; echo code $?; echo after $(stty -g)");
        let mut child = Command::new("script")
            .args(["-qec", &told, "/dev/null"])
            .env("TERM", "xterm")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("script of util-linux starts");
        let shown = Arc::new(Mutex::new(Vec::new()));
        let (mut out, all) = (child.stdout.take().unwrap(), shown.clone());
        std::thread::spawn(move || {
            let mut piece = [0; 4096];
            while let Ok(n @ 1..) = out.read(&mut piece) {
                all.lock().unwrap().extend_from_slice(&piece[..n]);
            }
        });
        Self { child: KillOnDrop(Some(child)), shown }
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.shown.lock().unwrap()).into_owned()
    }

    fn press(&mut self, keys: &[u8]) {
        self.child.0.as_mut().unwrap().stdin.as_mut().unwrap().write_all(keys).unwrap();
    }

    fn wait_for(&self, text: &str) {
        wait_until(&format!("{text} is shown"), || self.text().contains(text));
    }

    /// Waits for the end, with this exit code and the terminal as it was.
    fn ends(mut self, code: &str) {
        wait_until("top ends", || self.child.0.as_mut().unwrap().try_wait().unwrap().is_some());
        self.wait_for("after ");
        let shown = self.text();
        assert!(
            shown.contains("\u{1b}[?1049h") && shown.contains("\u{1b}[?1049l"),
            "the other screen, and back: {shown}"
        );
        let of = |name: &str| {
            let rest = shown.rsplit_once(name).unwrap_or_else(|| panic!("{name} in {shown}")).1;
            rest.split_whitespace().next().unwrap().to_owned()
        };
        assert_eq!((of("before "), of("code ")), (of("after "), code.to_owned()));
    }
}

#[test]
#[ignore = "needs script of util-linux: run by tests/run"]
fn on_a_terminal_it_draws_waits_and_gives_the_terminal_back() {
    let sidecar = Sidecar::start(&["listen.workers=1"]);
    sidecar.take(&["hits:1|c|#kind:a"]);
    let url = format!("http://{}", sidecar.http);
    let mut by_key = Top::start(&url);
    let by_signal = Top::start(&url);
    let mut by_control = Top::start(&url);
    for top in [&by_key, &by_signal, &by_control] {
        top.wait_for("hits_total");
    }
    by_key.press(b"s");
    by_key.wait_for("growth)");
    sidecar.stop();
    by_key.wait_for("no answer");
    by_key.press(b"q");
    by_key.ends("0");
    by_control.press(b"\x03");
    by_control.ends("0");
    // The program is the child of the shell that `script` started.
    let shell = child_of(by_signal.child.0.as_ref().unwrap().id());
    let top = child_of(shell);
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(top as i32), nix::sys::signal::Signal::SIGTERM).unwrap();
    by_signal.ends("0");
}

/// The one child of a process.
fn child_of(pid: u32) -> u32 {
    let mut found = None;
    wait_until("it has a child", || {
        let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
        found = children.split_whitespace().next().and_then(|pid| pid.parse().ok());
        std::thread::sleep(Duration::from_millis(1));
        found.is_some()
    });
    found.unwrap()
}
