//! Starts the contenders and reads what they use from `/proc`.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;
use tokio::time::Instant;

/// What is measured.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Contender {
    /// A hyper server that reads and answers, nothing else.
    Bare,
    /// Parse, insert, group commit, answer.
    Simple,
    /// The relay, with an upstream that cannot be reached: ingest alone.
    Ingest,
    /// The relay, delivering as it takes.
    InAndOut,
}

impl Contender {
    pub(crate) const ALL: &[Contender] = &[Self::Bare, Self::Simple, Self::Ingest, Self::InAndOut];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Bare => "bare hyper",
            Self::Simple => "simplest honest",
            Self::Ingest => "relay, ingest",
            Self::InAndOut => "relay, in and out",
        }
    }

    pub(crate) fn start(self, upstream: &Upstream) -> Server {
        let dir = TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder on the disk");
        match self {
            Self::Bare => Server::role("bare", dir),
            Self::Simple => Server::role(&format!("simple={}", dir.path().display()), dir),
            Self::Ingest => Server::relay(dir, "http://127.0.0.1:9", false),
            Self::InAndOut => Server::relay(dir, &format!("http://{}", upstream.0.address), true),
        }
    }
}

/// The stand-in for Cello: as cheap as can be.
pub(crate) struct Upstream(Server);

impl Upstream {
    pub(crate) fn start() -> Self {
        Self(Server::role("bare", TempDir::new().expect("a folder")))
    }
}

/// A running process.
pub(crate) struct Server {
    child: Child,
    pub(crate) address: SocketAddr,
    ops: Option<SocketAddr>,
    delivers: bool,
    _dir: TempDir,
}

/// What a process has used so far.
#[derive(Clone, Copy, Default)]
pub(crate) struct Usage {
    pub(crate) cpu_seconds: f64,
    pub(crate) resident_bytes: u64,
    pub(crate) written_bytes: u64,
}

impl Server {
    fn role(role: &str, dir: TempDir) -> Self {
        let mut command = Command::new(std::env::current_exe().expect("this program"));
        let mut child = command.args(["--role", role]).stdout(Stdio::piped()).spawn().expect("a server");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("a pipe")).read_line(&mut line).expect("an address");
        Self { child, address: line.trim().parse().expect("an address"), ops: None, delivers: false, _dir: dir }
    }

    fn relay(dir: TempDir, upstream: &str, delivers: bool) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cello-relay"));
        command.env_clear().arg("run").stdout(Stdio::piped());
        for (key, value) in [
            ("INGEST__LISTEN", "127.0.0.1:0"),
            ("OPS__LISTEN", "127.0.0.1:0"),
            ("ADMIN__LISTEN", "127.0.0.1:0"),
            ("OUTBOX__DIR", dir.path().to_str().expect("a plain path")),
            ("OUTBOX__MAX_BYTES", "20GiB"),
            ("CELLO__BASE_URL", upstream),
            ("CELLO__AUTH", "none"),
            ("LOG__FORMAT", "json"),
        ] {
            command.env(format!("CELLO_RELAY_{key}"), value);
        }
        let mut child = command.spawn().expect("a relay");
        let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
        let started = lines.find_map(|line| line.ok().filter(|line| line.contains("\"started\""))).expect("a start");
        std::thread::spawn(move || lines.for_each(drop));
        let started: serde_json::Value = serde_json::from_str(&started).expect("a JSON line");
        let address = |field: &str| {
            let text = started[field].as_str().expect("addresses").trim_matches(['[', ']']).to_owned();
            text.parse::<SocketAddr>().expect("one address")
        };
        Self { child, address: address("ingest"), ops: Some(address("ops")), delivers, _dir: dir }
    }

    pub(crate) fn usage(&self) -> Usage {
        let proc = format!("/proc/{}", self.child.id());
        let stat = fs::read_to_string(format!("{proc}/stat")).expect("a running process");
        let fields: Vec<&str> = stat.rsplit(')').next().expect("fields").split_whitespace().collect();
        let ticks: f64 = [11, 12].map(|index| fields[index].parse::<f64>().expect("ticks")).iter().sum();
        let value = |file: &str, name: &str| {
            let text = fs::read_to_string(format!("{proc}/{file}")).expect("a running process");
            let line = text.lines().find_map(|line| line.strip_prefix(name)).expect("a known field").to_owned();
            line.split_whitespace().next().expect("a number").parse::<u64>().expect("a number")
        };
        Usage {
            cpu_seconds: ticks / 100.0,
            resident_bytes: value("status", "VmRSS:") * 1024,
            written_bytes: value("io", "write_bytes:"),
        }
    }

    /// Waits until all that was taken is delivered, where it is; tells how long that took after the load's end.
    pub(crate) fn wait_until_forwarded(&self) -> Duration {
        let start = Instant::now();
        while self.delivers && self.waiting() > 0.0 && start.elapsed() < Duration::from_secs(120) {
            std::thread::park_timeout(Duration::from_millis(5));
        }
        start.elapsed()
    }

    fn waiting(&self) -> f64 {
        let metrics = get(self.ops.expect("a relay"), "/metrics");
        let waiting =
            metrics.lines().filter(|line| line.starts_with("cello_relay_outbox_events{") && !line.contains("dead"));
        waiting.map(|line| line.rsplit(' ').next().expect("a value").parse::<f64>().expect("a number")).sum()
    }
}

fn get(address: SocketAddr, path: &str) -> String {
    use std::io::{Read, Write};
    let mut stream = std::net::TcpStream::connect(address).expect("the ops listener");
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").expect("a request");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    answer
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
