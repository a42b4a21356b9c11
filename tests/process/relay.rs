//! Starts the real binary and listens to it.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use crate::client::Client;

/// A start, a stop or a line of the log may take so long on a busy machine; reaching it is a failure.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A relay's directory and environment, before it runs and between runs.
pub(crate) struct Setup {
    dir: TempDir,
    environment: BTreeMap<String, String>,
}

impl Setup {
    /// A relay that forwards to `base_url` with made-up keys, on free ports.
    pub(crate) fn new(base_url: &str) -> Self {
        let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
        let mut setup = Self { dir, environment: BTreeMap::new() };
        for (key, value) in [
            ("INGEST__LISTEN", "127.0.0.1:0"),
            ("OPS__LISTEN", "127.0.0.1:0"),
            ("ADMIN__LISTEN", "127.0.0.1:0"),
            ("CELLO__BASE_URL", base_url),
            ("CELLO__ACCESS_KEY_ID", "key-id"),
            ("CELLO__SECRET_ACCESS_KEY", "secret-key"),
            ("OUTBOX__MIN_FREE_BYTES", "1MiB"),
            ("LOG__FORMAT", "json"),
        ] {
            setup.set(key, value);
        }
        let outbox = setup.outbox();
        setup.set("OUTBOX__DIR", outbox.to_str().expect("a plain path"));
        setup
    }

    pub(crate) fn set(&mut self, key: &str, value: &str) -> &mut Self {
        self.raw(&format!("CELLO_RELAY_{key}"), value)
    }

    pub(crate) fn raw(&mut self, name: &str, value: &str) -> &mut Self {
        self.environment.insert(name.to_owned(), value.to_owned());
        self
    }

    pub(crate) fn unset(&mut self, key: &str) -> &mut Self {
        self.environment.remove(&format!("CELLO_RELAY_{key}"));
        self
    }

    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn outbox(&self) -> PathBuf {
        self.dir.path().join("outbox")
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.outbox().join("control.sock")
    }

    /// The binary with this environment and nothing else.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cello-relay"));
        command.env_clear().envs(&self.environment).args(arguments).stdin(Stdio::null());
        command.current_dir(self.dir.path()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Runs a subcommand to its end; gives exit code, stdout and stderr.
    pub(crate) fn call(&self, arguments: &[&str]) -> (i32, String, String) {
        let output = self.command(arguments).output().expect("the binary runs");
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        (output.status.code().unwrap_or(-1), text(output.stdout), text(output.stderr))
    }

    /// Starts `run` and waits until it takes events.
    pub(crate) fn start(&self) -> Relay {
        Relay::start(self.command(&["run"]))
    }

    /// The same under `strace`, which writes what concerns disk and sockets to `trace`. The relay is the child,
    /// the tracer stands aside (`-D`): signals reach the relay.
    pub(crate) fn start_traced(&self, trace: &Path) -> Relay {
        let mut strace = Command::new("strace");
        strace.args(["-D", "-f", "-y", "-s", "65536", "-o"]).arg(trace);
        strace.args(["-e", "trace=pwrite64,pwritev,fsync,fdatasync,write,writev,sendto,sendmsg", "--"]);
        self.start_by(strace)
    }

    /// The same on the first processor alone.
    pub(crate) fn start_on_one_processor(&self) -> Relay {
        let mut taskset = Command::new("taskset");
        taskset.args(["--cpu-list", "0"]);
        self.start_by(taskset)
    }

    /// `run`, started by a command that becomes what is behind its own arguments.
    pub(crate) fn start_by(&self, starter: Command) -> Relay {
        Relay::start(self.command_by(starter, &["run"]))
    }

    /// A subcommand run by another user, begun by `starter`; the relay's directory and what is in it belong to them from
    /// now on. Nothing if no other user can run it here.
    pub(crate) fn command_as(&self, user: u32, starter: &[&str], arguments: &[&str]) -> Option<Command> {
        let binary = env!("CARGO_BIN_EXE_cello-relay");
        if !by_user(user, &["test", "-x", binary]).status().is_ok_and(|status| status.success()) {
            return None;
        }
        for entry in std::fs::read_dir(self.dir()).expect("a folder") {
            chown(entry.expect("a file").path(), Some(user), None).expect("root may");
        }
        chown(self.dir(), Some(user), None).expect("root may");
        Some(self.command_by(by_user(user, starter), arguments))
    }

    /// A subcommand as it is started by a command that becomes, or runs, what is behind its own arguments.
    pub(crate) fn command_by(&self, mut starter: Command, arguments: &[&str]) -> Command {
        let relay = self.command(arguments);
        starter.arg(relay.get_program()).args(relay.get_args()).env_clear().envs(&self.environment);
        starter.current_dir(self.dir.path()).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        starter
    }
}

/// A command as another user runs it; only root may.
pub(crate) fn by_user(user: u32, command: &[&str]) -> Command {
    let mut other = Command::new("setpriv");
    other.args(["--reuid", &user.to_string(), "--regid", &user.to_string(), "--clear-groups"]).args(command);
    other
}

/// A running relay; killed when dropped.
pub(crate) struct Relay {
    child: Child,
    log: Receiver<String>,
    seen: Vec<String>,
    pub(crate) ingest: SocketAddr,
    pub(crate) ops: SocketAddr,
    pub(crate) admin: SocketAddr,
}

impl Relay {
    /// Starts `command`, which is or becomes a `run`, and waits until it takes events.
    pub(crate) fn start(mut command: Command) -> Self {
        Self::announced(Self::spawn(&mut command, 100_000))
    }

    /// The same with a log of which nobody reads more than is waited for.
    pub(crate) fn start_unread(mut command: Command) -> Self {
        Self::announced(Self::spawn(&mut command, 0))
    }

    /// The same, of which nothing but that it started is known; or how it ended instead: exit code and stderr.
    pub(crate) fn try_start(mut command: Command) -> Result<Self, (Option<i32>, String)> {
        let mut relay = Self::spawn(&mut command, 100_000);
        let deadline = Instant::now() + PATIENCE;
        while let Ok(line) = relay.log.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            if line.contains("\"event\":\"started\"") {
                return Ok(relay);
            }
            relay.seen.push(line);
        }
        let Some(code) = relay.ends_within(PATIENCE) else { panic!("it neither starts nor ends") };
        Err((code, relay.complaints()))
    }

    fn announced(mut relay: Self) -> Self {
        let started = relay.wait_for_event("started");
        let address = |field: &str| {
            let text = started[field].as_str().expect("addresses").trim_matches(['[', ']']).to_owned();
            text.parse().expect("one address")
        };
        (relay.ingest, relay.ops, relay.admin) = (address("ingest"), address("ops"), address("admin"));
        relay
    }

    /// A thread reads at most `lines` of the log ahead.
    fn spawn(command: &mut Command, lines: usize) -> Self {
        let mut child = command.spawn().expect("the binary runs");
        let stdout = BufReader::new(child.stdout.take().expect("a pipe"));
        let (lines, log) = sync_channel(lines);
        std::thread::spawn(move || stdout.lines().map_while(Result::ok).try_for_each(|line| lines.send(line)));
        let unknown = SocketAddr::from(([0, 0, 0, 0], 0));
        Self { child, log, seen: Vec::new(), ingest: unknown, ops: unknown, admin: unknown }
    }

    /// Starts a `run` whose log does not tell that it did; it can be steered when this returns.
    pub(crate) fn start_quiet(mut command: Command, socket: &Path) -> Self {
        let mut relay = Self::spawn(&mut command, 100_000);
        let deadline = Instant::now() + PATIENCE;
        while Client::socket(socket).is_err() {
            assert!(Instant::now() < deadline, "no control socket: {}", relay.complaints());
            std::thread::park_timeout(Duration::from_millis(10));
        }
        relay
    }

    /// The next log line with `"event": name`.
    pub(crate) fn wait_for_event(&mut self, name: &str) -> Value {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.log.recv_timeout(left) {
                Ok(line) => {
                    let parsed: Value = serde_json::from_str(&line).unwrap_or_default();
                    self.seen.push(line);
                    if parsed["event"] == name {
                        return parsed;
                    }
                }
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                    panic!("no {name} in the log:\n{}\n{}", self.seen.join("\n"), self.complaints())
                }
            }
        }
    }

    /// Whether there was a log line with `"event": name` so far.
    pub(crate) fn has_logged(&mut self, name: &str) -> bool {
        self.seen.extend(self.log.try_iter());
        self.seen.iter().any(|line| line.contains(&format!("\"event\":\"{name}\"")))
    }

    fn complaints(&mut self) -> String {
        let mut text = String::new();
        drop(self.child.kill());
        if let Some(mut stderr) = self.child.stderr.take() {
            drop(stderr.read_to_string(&mut text));
        }
        text
    }

    pub(crate) fn client(&self) -> Client<TcpStream> {
        Client::connect(self.ingest).expect("the ingest listener")
    }

    pub(crate) fn metrics(&self) -> String {
        Client::connect(self.ops).and_then(|mut client| client.get("/metrics")).expect("metrics").body
    }

    /// The sum of all series of one metric whose line contains `part`.
    pub(crate) fn metric(&self, name: &str, part: &str) -> f64 {
        sum(&self.metrics(), name, part)
    }

    /// Waits until nothing waits to be delivered.
    pub(crate) fn wait_until_empty(&self, patience: Duration) {
        let events = |metrics: &str, state| sum(metrics, "cello_relay_outbox_events", state);
        self.wait_until_within(patience, "events still wait", |metrics| {
            events(metrics, "") - events(metrics, "dead") == 0.0
        });
    }

    /// Waits until the metrics say so.
    pub(crate) fn wait_until(&self, what: &str, said: impl Fn(&str) -> bool) {
        self.wait_until_within(PATIENCE, what, said);
    }

    fn wait_until_within(&self, patience: Duration, what: &str, said: impl Fn(&str) -> bool) {
        let deadline = Instant::now() + patience;
        loop {
            let metrics = self.metrics();
            if said(&metrics) {
                return;
            }
            assert!(Instant::now() < deadline, "{what}:\n{metrics}");
            std::thread::park_timeout(Duration::from_millis(20));
        }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([format!("-{name}"), self.pid().to_string()]).status();
        assert!(sent.expect("kill runs").success());
    }

    /// Waits for the end; gives the exit code, `None` if a signal ended it, and the whole log. Without an end it
    /// is killed, and the test fails.
    pub(crate) fn wait(mut self) -> (Option<i32>, String) {
        let Some(code) = self.ends_within(PATIENCE) else {
            panic!("it does not end:\n{}\n{}", self.seen.join("\n"), self.complaints())
        };
        (code, std::mem::take(&mut self.seen).join("\n"))
    }

    /// The exit code, `Some(None)` if a signal ended it, `None` if nothing did in that time.
    pub(crate) fn ends_within(&mut self, patience: Duration) -> Option<Option<i32>> {
        let deadline = Instant::now() + patience;
        while let Ok(line) = self.log.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            self.seen.push(line);
        }
        loop {
            if let Some(status) = self.child.try_wait().expect("a status") {
                return Some(status.code());
            }
            if Instant::now() >= deadline {
                return None;
            }
            std::thread::park_timeout(Duration::from_millis(2));
        }
    }

    /// What `GET /api/status` says.
    pub(crate) fn status(&self) -> Value {
        Client::connect(self.admin).and_then(|mut client| client.get("/api/status")).expect("a status").json()
    }

    /// One of the ledger's counts, over all restarts.
    pub(crate) fn ledger(&self, count: &str) -> u64 {
        self.status()["ledger"][count].as_u64().expect("a count")
    }

    /// SIGTERM, and the end of it.
    pub(crate) fn terminate(self) -> (Option<i32>, String) {
        self.signal("TERM");
        self.wait()
    }

    /// SIGABRT, as from a crash.
    pub(crate) fn abort(mut self) -> ExitStatus {
        self.signal("ABRT");
        self.child.wait().expect("a status")
    }

    /// SIGKILL; everything that is not on the disk is gone.
    pub(crate) fn kill(mut self) {
        self.child.kill().expect("a running process");
        self.child.wait().expect("a status");
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// The sum of all series of `name` whose line contains `part`.
pub(crate) fn sum(metrics: &str, name: &str, part: &str) -> f64 {
    let own = |line: &&str| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']));
    let lines = metrics.lines().filter(own).filter(|line| line.contains(part));
    lines.map(|line| line.rsplit(' ').next().and_then(|value| value.parse::<f64>().ok()).expect("a number")).sum()
}
