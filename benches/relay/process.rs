//! Starts processes and reads what they use from `/proc`.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;
use tokio::time::Instant;

/// Nothing listens there: what is taken stays.
pub(crate) const UNREACHABLE: &str = "http://127.0.0.1:9";

/// What has not ended by then is taken as it is.
const PATIENCE: Duration = Duration::from_secs(300);

/// A running process; killed when dropped.
pub(crate) struct Server {
    child: Child,
    pub(crate) address: SocketAddr,
    /// The relay's probes and metrics.
    ops: Option<SocketAddr>,
    /// Outlives the process.
    dir: Option<Arc<TempDir>>,
}

/// What a process has used so far.
#[derive(Clone, Copy, Default)]
pub(crate) struct Usage {
    pub(crate) cpu_seconds: f64,
    pub(crate) resident_mib: f64,
    /// The most it ever was.
    pub(crate) peak_mib: f64,
    pub(crate) written_bytes: f64,
    /// How often its threads went to sleep, each time after having been woken.
    pub(crate) sleeps: f64,
}

/// A folder on the disk that the bench is about.
pub(crate) fn folder() -> Arc<TempDir> {
    Arc::new(TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder on the disk"))
}

impl Server {
    /// One of the bench's own servers, in a process of its own.
    pub(crate) fn role(role: &str, dir: Option<Arc<TempDir>>) -> Self {
        let mut child = role_command(role).spawn().expect("a server");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("a pipe")).read_line(&mut line).expect("an address");
        Self { child, address: line.trim().parse().expect("an address"), ops: None, dir }
    }

    /// A process of somebody else, once its port is open.
    pub(crate) fn foreign(mut command: Command, address: SocketAddr, dir: Arc<TempDir>) -> Option<Self> {
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().ok()?;
        let deadline = Instant::now() + Duration::from_secs(20);
        while TcpStream::connect(address).is_err() {
            let has_ended = child.try_wait().is_ok_and(|status| status.is_some());
            if has_ended || Instant::now() > deadline {
                drop(child.kill());
                drop(child.wait());
                return None;
            }
            std::thread::park_timeout(Duration::from_millis(20));
        }
        Some(Self { child, address, ops: None, dir: Some(dir) })
    }

    /// The relay on that folder.
    pub(crate) fn relay(dir: &Arc<TempDir>, upstream: &str, more: &[(&str, &str)]) -> Self {
        let mut command = Command::new(relay_binary());
        command.env_clear().arg("run").stdout(Stdio::piped());
        let settings = [
            ("INGEST__LISTEN", "127.0.0.1:0"),
            ("OPS__LISTEN", "127.0.0.1:0"),
            ("ADMIN__LISTEN", "127.0.0.1:0"),
            ("OUTBOX__DIR", dir.path().to_str().expect("a plain path")),
            ("OUTBOX__MAX_BYTES", "20GiB"),
            ("CELLO__BASE_URL", upstream),
            ("CELLO__AUTH", "none"),
            ("LOG__FORMAT", "json"),
        ];
        for (key, value) in settings.iter().chain(more) {
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
        Self { child, address: address("ingest"), ops: Some(address("ops")), dir: Some(Arc::clone(dir)) }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn base_url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn usage(&self) -> Usage {
        usage(&self.pid().to_string())
    }

    /// Waits until `/readyz` says 200.
    pub(crate) fn wait_until_ready(&self) {
        let deadline = Instant::now() + PATIENCE;
        while !get(self.ops.expect("a relay"), "/readyz").starts_with("HTTP/1.1 200") && Instant::now() < deadline {
            std::thread::park_timeout(Duration::from_micros(500));
        }
    }

    /// Stops or resumes deliveries.
    pub(crate) fn steer(&self, action: &str) {
        let socket = self.dir.as_ref().expect("a relay").path().join("control.sock");
        let mut stream = UnixStream::connect(socket).expect("the control socket");
        let head = format!("POST /api/{action} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n");
        write!(stream, "{head}Content-Length: 2\r\nConnection: close\r\n\r\n{{}}").expect("a request");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        assert!(answer.starts_with("HTTP/1.1 2"), "{answer}");
    }

    /// Waits until all that was taken is delivered; tells how long that took.
    pub(crate) fn wait_until_forwarded(&self) -> Duration {
        let start = Instant::now();
        while self.waiting() > 0.0 && start.elapsed() < PATIENCE {
            std::thread::park_timeout(Duration::from_millis(10));
        }
        start.elapsed()
    }

    /// Events that are not delivered yet.
    pub(crate) fn waiting(&self) -> f64 {
        self.metric("cello_relay_outbox_events{", |line| !line.contains("dead"))
    }

    /// The sum of a metric's series whose line is wanted.
    pub(crate) fn metric(&self, name: &str, wanted: impl Fn(&str) -> bool) -> f64 {
        let metrics = get(self.ops.expect("a relay"), "/metrics");
        let lines = metrics.lines().filter(|line| line.starts_with(name) && wanted(line));
        lines.map(|line| line.rsplit(' ').next().expect("a value").parse::<f64>().expect("a number")).sum()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// This program in another role.
pub(crate) fn role_command(role: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("this program"));
    command.args(["--role", role]).stdout(Stdio::piped());
    command
}

/// The program that is measured: the one built with the bench, or another one (`--relay PATH`).
pub(crate) fn relay_binary() -> PathBuf {
    let mut arguments = std::env::args().skip_while(|argument| argument != "--relay");
    arguments.nth(1).unwrap_or_else(|| env!("CARGO_BIN_EXE_cello-relay").to_owned()).into()
}

/// A program on the PATH.
pub(crate) fn on_path(name: &str) -> Option<PathBuf> {
    let path = std::env::vars_os().find(|(key, _)| key == "PATH")?.1;
    std::env::split_paths(&path).map(|folder| folder.join(name)).find(|file| file.is_file())
}

/// CPU time of this process, children not included.
pub(crate) fn own_cpu_seconds() -> f64 {
    usage("self").cpu_seconds
}

fn usage(pid: &str) -> Usage {
    let read = |file: &str| fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default();
    let number = |text: &str, name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok()).unwrap_or_default()
    };
    let stat = read("stat");
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks: f64 = [11, 12].iter().filter_map(|index| fields.get(*index)?.parse::<f64>().ok()).sum();
    let status = read("status");
    let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let (mut nanoseconds, mut sleeps) = (0.0, 0.0);
    for thread in threads.map(|entry| entry.path()) {
        let own = |file: &str| fs::read_to_string(thread.join(file)).unwrap_or_default();
        nanoseconds += number(&own("schedstat"), "");
        sleeps += number(&own("status"), "voluntary_ctxt_switches:");
    }
    Usage {
        // Ticks are a hundredth of a second: too coarse for a process that does nothing. Threads that ended
        // are in the ticks alone.
        cpu_seconds: if nanoseconds / 1e9 + 0.02 < ticks / 100.0 { ticks / 100.0 } else { nanoseconds / 1e9 },
        resident_mib: number(&status, "VmRSS:") / 1024.0,
        peak_mib: number(&status, "VmHWM:") / 1024.0,
        // The relay's own memory and files in /proc are private: only root sees what it writes.
        written_bytes: Some(read("io")).filter(|io| !io.is_empty()).map_or(f64::NAN, |io| number(&io, "write_bytes:")),
        sleeps,
    }
}

fn get(address: SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(address).expect("the ops listener");
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").expect("a request");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    answer
}
