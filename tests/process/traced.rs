//! The order of system calls: no 2xx leaves before the sync of its event's commit returned.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::client::Client;
use crate::load::event;
use crate::relay::{PATIENCE, Setup};
use crate::upstream::Upstream;

/// Threads that post at the same time, so that commits are shared and overlap with answers.
const WRITERS: usize = 8;
/// Events of each.
const EACH: u64 = 25;

/// A system call: the lines on which it was entered and left.
struct Call {
    name: String,
    /// What was passed, as strace prints it.
    arguments: String,
    entered: usize,
    left: usize,
    succeeded: bool,
}

impl Call {
    fn is_on_the_wal(&self) -> bool {
        self.arguments.split(',').next().is_some_and(|file| file.contains("-wal"))
    }

    fn is_sync(&self) -> bool {
        matches!(self.name.as_str(), "fsync" | "fdatasync") && self.is_on_the_wal() && self.succeeded
    }

    fn is_wal_write(&self) -> bool {
        self.name.starts_with("pwrite") && self.is_on_the_wal()
    }

    fn is_ok_answer(&self) -> bool {
        matches!(self.name.as_str(), "write" | "writev" | "sendto" | "sendmsg")
            && self.arguments.contains("HTTP/1.1 200")
    }
}

/// The calls of a trace. Lines are in the order in which the tracer let the calls go on, so that a call
/// entered on a later line began after one left on an earlier line had returned.
fn calls(trace: &str) -> Vec<Call> {
    let mut calls: Vec<Call> = Vec::new();
    let mut unfinished: HashMap<(&str, &str), usize> = HashMap::new();
    for (number, line) in trace.lines().enumerate() {
        let Some((thread, rest)) = line.split_once(' ') else { continue };
        let rest = rest.trim_start();
        // Errors are " = -1 E…".
        let succeeded = !rest.contains(" = -1 E");
        if let Some(resumed) = rest.strip_prefix("<... ") {
            let name = resumed.split(' ').next().unwrap_or_default();
            if let Some(index) = unfinished.remove(&(thread, name)) {
                (calls[index].left, calls[index].succeeded) = (number, succeeded);
            }
        } else if let Some((name, arguments)) = rest.split_once('(') {
            let is_over = !rest.ends_with("<unfinished ...>");
            if !is_over {
                unfinished.insert((thread, name), calls.len());
            }
            let left = if is_over { number } else { usize::MAX };
            calls.push(Call {
                name: name.to_owned(),
                arguments: arguments.to_owned(),
                entered: number,
                left,
                succeeded: succeeded && is_over,
            });
        }
    }
    calls
}

/// Whether this machine lets a process be traced.
fn can_trace() -> bool {
    let mut command = Command::new("strace");
    command.args(["-f", "-o", "/dev/null", "true"]).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

/// Waits until the tracer has written the end of the process.
fn whole(trace: &Path, process: u32) -> String {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let text = String::from_utf8_lossy(&std::fs::read(trace).unwrap_or_default()).into_owned();
        let is_end = |line: &str| line.starts_with(&process.to_string()) && line.contains("+++ exited");
        if text.lines().any(is_end) {
            return text;
        }
        assert!(Instant::now() < deadline, "the trace has no end");
        std::thread::park_timeout(Duration::from_millis(20));
    }
}

/// Posts numbered events; gives the id that each event's user was answered with.
fn post_all(ingest: SocketAddr) -> Vec<(String, String)> {
    std::thread::scope(|scope| {
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| {
                scope.spawn(move || {
                    let mut client = Client::connect(ingest).expect("the ingest listener");
                    let post = |number| {
                        let user = format!("traced-{writer}-{number}-user");
                        let answer = client.post("/events", &event(&user, number)).expect("an answer");
                        assert_eq!(answer.status, 200, "{}", answer.body);
                        (user, answer.json()["id"].as_str().expect("an id").to_owned())
                    };
                    (0..EACH).map(post).collect::<Vec<_>>()
                })
            })
            .collect();
        writers.into_iter().flat_map(|writer| writer.join().expect("a writer that did not panic")).collect()
    })
}

#[test]
fn no_2xx_leaves_before_the_sync_of_its_commit_returned() {
    if !can_trace() {
        println!("skipped: the order of system calls: strace is not installed or tracing is forbidden here");
        return;
    }
    let upstream = Upstream::start();
    let setup = Setup::new(&upstream.base_url());
    let trace = setup.dir().join("trace");
    let relay = setup.start_traced(&trace);
    let process = relay.pid();
    let answered = post_all(relay.ingest);
    relay.wait_until_empty(PATIENCE);
    relay.terminate();
    let calls = calls(&whole(&trace, process));
    let syncs: Vec<&Call> = calls.iter().filter(|call| call.is_sync()).collect();
    let mut used = HashSet::new();
    for (user, id) in &answered {
        // Later commits write the page again; the first time is the event's own.
        let stored = calls.iter().find(|call| call.is_wal_write() && call.arguments.contains(user.as_str()));
        let stored = stored.unwrap_or_else(|| panic!("{user} was not written to the WAL"));
        let answer = calls.iter().find(|call| call.is_ok_answer() && call.arguments.contains(id.as_str()));
        let answer = answer.unwrap_or_else(|| panic!("{user}'s answer was not seen"));
        let sync = syncs.iter().find(|sync| sync.entered > stored.left && sync.left < answer.entered);
        let sync = sync.unwrap_or_else(|| {
            panic!("{user}: stored on line {}, answered on line {}, no sync between", stored.left, answer.entered)
        });
        used.insert(sync.entered);
    }
    println!(
        "{} answers, each after one of {} syncs that began after its event was written",
        answered.len(),
        used.len()
    );
    assert!(used.len() < answered.len(), "commits are shared, or this shows less than it says");
}
