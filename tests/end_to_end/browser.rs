//! A real browser, spoken to over two pipes in its debugging protocol.
//!
//! In: an address, a size, light or dark. Out: what a script in the page tells, what was asked of the network, what
//! the browser complained of, pictures.
//! Follows: the Chrome DevTools Protocol, messages of JSON that end in a zero byte (`--remote-debugging-pipe`).

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};

use serde_json::{Value, json};

use crate::harness::{KillOnDrop, PATIENCE, wait_for};

/// One page of a browser of its own.
pub(crate) struct Browser {
    _child: KillOnDrop,
    _profile: tempfile::TempDir,
    to: ChildStdin,
    from: Receiver<Value>,
    session: String,
    id: u64,
    /// What came beside answers.
    events: Vec<Value>,
}

impl Browser {
    pub(crate) fn start() -> Self {
        let profile = tempfile::tempdir().unwrap();
        // The browser reads at 3 and writes at 4.
        let mut child = Command::new("sh")
            .args(["-c", "exec \"$@\" 3<&0 4>&1 </dev/null >/dev/null 2>&1", "sh"])
            .arg("chromium")
            .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"])
            .args(["--disable-background-networking", "--disable-component-update", "--disable-sync"])
            .args(["--disable-dev-shm-usage", "--hide-scrollbars", "--lang=en", "--remote-debugging-pipe"])
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("sh starts");
        let (to, out) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let (send, from) = channel();
        std::thread::spawn(move || {
            for message in BufReader::new(out).split(0) {
                let Ok(message) = message else { return };
                let Ok(value) = serde_json::from_slice(&message) else { continue };
                if send.send(value).is_err() {
                    return;
                }
            }
        });
        let mut browser = Self {
            _child: KillOnDrop(Some(child)),
            _profile: profile,
            to,
            from,
            session: String::new(),
            id: 0,
            events: Vec::new(),
        };
        let target = browser.ask("Target.createTarget", json!({ "url": "about:blank" }))["targetId"].clone();
        let session = browser.ask("Target.attachToTarget", json!({ "targetId": target, "flatten": true }));
        browser.session = session["sessionId"].as_str().unwrap().to_owned();
        for domain in ["Page", "Runtime", "Network", "Log"] {
            browser.ask(&format!("{domain}.enable"), json!({}));
        }
        browser
    }

    /// Asks and waits for the answer; an error fails the test.
    pub(crate) fn ask(&mut self, method: &str, parameters: Value) -> Value {
        self.id += 1;
        let id = self.id;
        let mut message = json!({ "id": id, "method": method, "params": parameters });
        if !self.session.is_empty() {
            message["sessionId"] = self.session.as_str().into();
        }
        self.to.write_all(message.to_string().as_bytes()).unwrap();
        self.to.write_all(&[0]).unwrap();
        self.to.flush().unwrap();
        loop {
            let came = self.from.recv_timeout(PATIENCE).unwrap_or_else(|error| panic!("{method}: {error}"));
            if came["id"] == id {
                assert_eq!(came["error"], Value::Null, "{method}");
                return came["result"].clone();
            }
            self.events.push(came);
        }
    }

    /// Shows a page as a screen of this size would, and waits until it is loaded.
    pub(crate) fn open(&mut self, url: &str, width: u32, height: u32, scheme: &str) {
        let mobile = width < 600;
        let metrics = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": mobile });
        self.ask("Emulation.setDeviceMetricsOverride", metrics);
        let scheme = json!({ "features": [{ "name": "prefers-color-scheme", "value": scheme }] });
        self.ask("Emulation.setEmulatedMedia", scheme);
        self.ask("Page.navigate", json!({ "url": url }));
        self.wait_until("the page is loaded", "document.readyState === 'complete' && location.href !== 'about:blank'");
    }

    /// What an expression is in the page.
    pub(crate) fn tell(&mut self, expression: &str) -> Value {
        let asked = json!({ "expression": expression, "returnByValue": true, "awaitPromise": true });
        let answer = self.ask("Runtime.evaluate", asked);
        assert_eq!(answer["exceptionDetails"], Value::Null, "{expression}");
        answer["result"]["value"].clone()
    }

    /// Looks at a condition in the page until it holds.
    pub(crate) fn wait_until(&mut self, what: &str, condition: &str) {
        wait_for(what, || (self.tell(condition) == true).then_some(()));
    }

    /// Addresses that the page asked the network for.
    pub(crate) fn asked_for(&self) -> Vec<String> {
        let requests = self.events.iter().filter(|event| event["method"] == "Network.requestWillBeSent");
        requests.map(|event| event["params"]["request"]["url"].as_str().unwrap().to_owned()).collect()
    }

    /// What the browser complained of: a policy that was broken, a script that failed, something not to be had.
    pub(crate) fn complaints(&self) -> Vec<&Value> {
        let is_complaint =
            |event: &&Value| event["method"] == "Log.entryAdded" || event["method"] == "Runtime.exceptionThrown";
        self.events.iter().filter(is_complaint).collect()
    }

    /// A picture of the page, the whole of it or its beginning, in a folder if the environment names one: for somebody
    /// to look at.
    pub(crate) fn picture(&mut self, name: &str, is_whole: bool) {
        let Some(folder) = std::env::var_os("STATSIEVE_PICTURES") else { return };
        let shown = self.ask("Page.captureScreenshot", json!({ "format": "png", "captureBeyondViewport": is_whole }));
        let path = Path::new(&folder).join(name);
        let mut decoder =
            Command::new("base64").arg("-d").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let data = shown["data"].as_str().unwrap().to_owned();
        let mut to = decoder.stdin.take().unwrap();
        let writer = std::thread::spawn(move || to.write_all(data.as_bytes()).unwrap());
        let picture = decoder.wait_with_output().unwrap().stdout;
        writer.join().unwrap();
        std::fs::write(path, picture).unwrap();
    }
}
