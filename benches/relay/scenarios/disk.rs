//! The disk itself, and how often the relay asks it to sync.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::time::Duration;

use tokio::time::Instant;

use super::Bench;
use crate::load;
use crate::process::{Server, folder, on_path};
use crate::requests::Template;

/// How long so many bytes take to be appended and synced, again and again; sorted. Also the time in all.
pub(super) fn appends(bytes: usize, time: Duration) -> (Vec<Duration>, Duration) {
    let start = Instant::now();
    let mut probe = Probe::new(bytes);
    let mut times = Vec::new();
    while start.elapsed() < time {
        times.push(probe.append());
    }
    times.sort_unstable();
    (times, start.elapsed())
}

/// The same with pauses, as a disk is met by one event now and then.
pub(super) fn paced_appends(bytes: usize, count: usize, pause: Duration) -> (Vec<Duration>, Duration) {
    let start = Instant::now();
    let mut probe = Probe::new(bytes);
    let mut times = Vec::new();
    for _ in 0..count {
        std::thread::park_timeout(pause);
        times.push(probe.append());
    }
    (times, start.elapsed())
}

struct Probe {
    file: File,
    line: Vec<u8>,
    _dir: std::sync::Arc<tempfile::TempDir>,
}

impl Probe {
    fn new(bytes: usize) -> Self {
        let dir = folder();
        let file = File::create(dir.path().join("appended")).expect("a file");
        Self { file, line: vec![b'x'; bytes], _dir: dir }
    }

    fn append(&mut self) -> Duration {
        let start = Instant::now();
        self.file.write_all(&self.line).expect("room on the disk");
        self.file.sync_data().expect("a sync");
        start.elapsed()
    }
}

/// Syncs per event, in a pass of its own: counting them slows the relay down.
pub(super) fn syncs(bench: &mut Bench) {
    if on_path("strace").is_none() {
        return bench.results.note("skipped: syncs: strace is not installed".to_owned());
    }
    let upstream = Server::role("bare", None);
    for connections in [1, 64] {
        let relay = Server::relay(&folder(), &upstream.base_url(), &[]);
        let template = Template::event();
        load::run(relay.address, connections, bench.plan.warm_up, &template);
        relay.wait_until_forwarded();
        let commits = || relay.metric("cello_relay_outbox_commit_duration_seconds_count", |line| !line.is_empty());
        let commits_before = commits();
        let Some(mut counted) = Counted::attach(relay.pid()) else {
            return bench.results.note("skipped: syncs: the relay cannot be traced here".to_owned());
        };
        let load = load::run(relay.address, connections, bench.plan.measured, &template);
        relay.wait_until_forwarded();
        let events = load.answered as f64;
        let figures = [
            ("syncs/event", counted.count() / events),
            ("commits/ev.", (commits() - commits_before) / events),
            ("events/s", load.per_second()),
        ];
        bench.results.add("syncs", &format!("relay, traced, {connections} conn"), &figures);
    }
}

/// `strace -c` on a running process.
struct Counted(std::process::Child);

impl Counted {
    fn attach(pid: u32) -> Option<Self> {
        let mut command = Command::new("strace");
        command.args(["-f", "-c", "-e", "trace=fsync,fdatasync", "-p", &pid.to_string()]).stderr(Stdio::piped());
        let mut counted = Self(command.spawn().ok()?);
        let mut said = BufReader::new(counted.0.stderr.take()?);
        let mut line = String::new();
        said.read_line(&mut line).ok()?;
        counted.0.stderr = Some(said.into_inner());
        line.contains("attached").then_some(counted)
    }

    /// Detaches; gives the number of calls.
    fn count(&mut self) -> f64 {
        let interrupted = Command::new("kill").args(["-INT", &self.0.id().to_string()]).status();
        assert!(interrupted.expect("kill runs").success());
        let said = BufReader::new(self.0.stderr.take().expect("a pipe"));
        let lines = said.lines().map_while(Result::ok).filter(|line| line.ends_with("sync"));
        let calls = lines.filter_map(|line| line.split_whitespace().nth(3)?.parse::<f64>().ok()).sum();
        self.0.wait().expect("a status");
        calls
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}
