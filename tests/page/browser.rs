//! A browser, driven over WebDriver's plain HTTP.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::client::Client;
use crate::relay::PATIENCE;

/// Keys that have no character, as WebDriver names them.
pub(crate) const ENTER: &str = "\u{e007}";
pub(crate) const ESCAPE: &str = "\u{e00c}";
pub(crate) const TAB: &str = "\u{e004}";

/// So often a driver is started that finds its port taken.
const STARTS: usize = 5;

/// A headless Chromium with a profile of its own; ends when dropped.
pub(crate) struct Browser {
    driver: Child,
    at: SocketAddr,
    session: String,
    profile: TempDir,
}

/// A driver and its port; `None` if there is no such program.
///
/// It takes a port that is free on `::1` and ends if something else, say a relay of another test, has the same one on
/// 127.0.0.1: then it is started again.
fn start_driver() -> Option<(Child, u16)> {
    for _ in 0..STARTS {
        let mut command = Command::new("chromedriver");
        let mut driver = command.arg("--port=0").stdout(Stdio::piped()).stderr(Stdio::null()).spawn().ok()?;
        let mut lines = BufReader::new(driver.stdout.take().expect("a pipe")).lines().map_while(Result::ok);
        // The first line repeats the 0 that was asked for.
        let port = lines.by_ref().find_map(|line| {
            let port: u16 = line.rsplit_once("on port ")?.1.trim_end_matches('.').parse().ok()?;
            (port != 0).then_some(port)
        });
        if let Some(port) = port {
            std::thread::spawn(move || lines.for_each(drop));
            return Some((driver, port));
        }
        let status = driver.wait().expect("a driver that closed its output ends");
        println!("chromedriver told no port: {status}");
    }
    panic!("chromedriver tells its port in none of {STARTS} starts");
}

impl Browser {
    /// Starts one; says why not where Debian's packages are missing.
    pub(crate) fn start() -> Option<Self> {
        let Some((driver, port)) = start_driver() else {
            println!("\nskipped: no chromedriver (Debian: chromium chromium-driver)");
            return None;
        };
        let at = SocketAddr::from(([127, 0, 0, 1], port));
        let profile = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
        let mut browser = Self { driver, at, session: String::new(), profile };
        let wanted = browser.capabilities();
        let session = browser.call("POST", "/session", &wanted);
        browser.session = format!("/session/{}", session["sessionId"].as_str().expect("a session"));
        Some(browser)
    }

    fn capabilities(&self) -> Value {
        let profile = format!("--user-data-dir={}", self.profile.path().display());
        let flags = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-dev-shm-usage \
                     --disable-background-networking --disable-component-update --disable-sync";
        let flags: Vec<&str> = flags.split_whitespace().chain([profile.as_str()]).collect();
        json!({"capabilities": {"alwaysMatch": {
            "browserName": "chrome",
            "goog:chromeOptions": {"args": flags},
            "goog:loggingPrefs": {"browser": "ALL", "performance": "ALL"},
        }}})
    }

    /// Shows what a relay serves at `/`.
    pub(crate) fn open(&self, relay: SocketAddr) {
        self.ask("/url", &json!({"url": format!("http://{relay}/")}));
    }

    /// The value of an expression in the page.
    pub(crate) fn value(&self, expression: &str) -> Value {
        self.ask("/execute/sync", &json!({"script": format!("return {expression};"), "args": []}))
    }

    /// The text of the first element that matches; empty if none does.
    pub(crate) fn text(&self, selector: &str) -> String {
        let found = self.value(&format!("document.querySelector({})?.textContent ?? ''", json!(selector)));
        found.as_str().unwrap_or_default().to_owned()
    }

    /// Waits until an expression in the page is true.
    pub(crate) fn until(&self, expression: &str) {
        let deadline = Instant::now() + PATIENCE;
        while self.value(&format!("Boolean({expression})")) != true {
            let seen = || self.text("body > header") + &self.text("main") + &self.text("dialog[open]");
            assert!(Instant::now() < deadline, "never: {expression}\n{}\n{:#?}", seen(), self.console());
            std::thread::park_timeout(Duration::from_millis(50));
        }
    }

    /// Waits until the first element that matches contains a text.
    pub(crate) fn until_says(&self, selector: &str, text: &str) {
        self.until(&format!("document.querySelector({})?.textContent.includes({})", json!(selector), json!(text)));
    }

    /// Waits until so many elements match.
    pub(crate) fn until_count(&self, selector: &str, count: usize) {
        self.until(&format!("document.querySelectorAll({}).length === {count}", json!(selector)));
    }

    /// Clicks as a mouse does: the element must be visible and on top.
    pub(crate) fn click(&self, selector: &str) {
        let element = self.element(selector);
        self.ask(&format!("/element/{element}/click"), &json!({}));
    }

    /// Types into an element.
    pub(crate) fn write(&self, selector: &str, text: &str) {
        let element = self.element(selector);
        self.ask(&format!("/element/{element}/value"), &json!({"text": text}));
    }

    fn element(&self, selector: &str) -> String {
        let found = self.ask("/element", &json!({"using": "css selector", "value": selector}));
        let id = found.as_object().and_then(|found| found.values().next()).and_then(Value::as_str);
        id.expect("an element").to_owned()
    }

    /// Presses keys, one after the other, wherever the focus is.
    pub(crate) fn press(&self, keys: &str) {
        let pressed: Vec<Value> = keys
            .chars()
            .flat_map(|key| [json!({"type": "keyDown", "value": key}), json!({"type": "keyUp", "value": key})])
            .collect();
        self.ask("/actions", &json!({"actions": [{"type": "key", "id": "keyboard", "actions": pressed}]}));
    }

    /// What the console says since it was asked last, but for refused or failed requests: errors of
    /// scripts, violations of the policy.
    pub(crate) fn console(&self) -> Vec<String> {
        let log = self.ask("/se/log", &json!({"type": "browser"}));
        let lines = log.as_array().expect("a log").iter().filter(|line| line["source"] != "network");
        lines.map(ToString::to_string).collect()
    }

    /// Where the browser sent requests since it was asked last.
    pub(crate) fn requests(&self) -> Vec<String> {
        let log = self.ask("/se/log", &json!({"type": "performance"}));
        let messages = log.as_array().expect("a log").iter().filter_map(|line| line["message"].as_str());
        let messages = messages.filter_map(|message| serde_json::from_str::<Value>(message).ok());
        let sent = messages.filter(|message| message["message"]["method"] == "Network.requestWillBeSent");
        sent.filter_map(|sent| sent["message"]["params"]["request"]["url"].as_str().map(str::to_owned)).collect()
    }

    /// Shows the page as in the evening.
    pub(crate) fn scheme(&self, name: &str) {
        let media = json!({"features": [{"name": "prefers-color-scheme", "value": name}]});
        self.ask("/goog/cdp/execute", &json!({"cmd": "Emulation.setEmulatedMedia", "params": media}));
    }

    /// Leaves a picture to look at, below the target folder; of the whole page unless a dialog is open.
    pub(crate) fn picture(&self, name: &str) {
        let whole = self.value("document.querySelector('dialog[open]') === null");
        let params = json!({"format": "png", "captureBeyondViewport": whole});
        let taken = self.ask("/goog/cdp/execute", &json!({"cmd": "Page.captureScreenshot", "params": params}));
        let bytes = STANDARD.decode(taken["data"].as_str().expect("a picture")).expect("base64");
        let folder = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("page");
        std::fs::create_dir_all(&folder).expect("a folder");
        std::fs::write(folder.join(format!("{name}.png")), bytes).expect("a file");
    }

    /// The width of the window in CSS pixels, as on a phone.
    pub(crate) fn width(&self, pixels: u32) {
        let metrics = json!({"width": pixels, "height": 800, "deviceScaleFactor": 1, "mobile": pixels < 500});
        self.ask("/goog/cdp/execute", &json!({"cmd": "Emulation.setDeviceMetricsOverride", "params": metrics}));
    }

    fn ask(&self, path: &str, body: &Value) -> Value {
        self.call("POST", &format!("{}{path}", self.session), body)
    }

    fn call(&self, method: &str, path: &str, body: &Value) -> Value {
        let answer = Client::connect(self.at)
            .and_then(|mut driver| {
                driver.request(method, path, &[("Content-Type", "application/json")], &body.to_string())
            })
            .expect("chromedriver answers");
        assert_eq!(answer.status, 200, "{method} {path} {body}: {}", answer.body);
        answer.json()["value"].take()
    }
}

/// Whatever a test was about: no script failed and nothing offended the page's policy.
impl Drop for Browser {
    fn drop(&mut self) {
        let complaints = if std::thread::panicking() { Vec::new() } else { self.console() };
        // Ends Chromium; chromedriver itself is ended by its id, whatever became of the session.
        drop(Client::connect(self.at).and_then(|mut driver| driver.request("DELETE", &self.session, &[], "")));
        drop(self.driver.kill());
        drop(self.driver.wait());
        assert!(complaints.is_empty(), "the console says {complaints:#?}");
    }
}
