//! A slow disk, a crowd of silent connections, a tenth of a core: answers take longer, nothing else changes.

use std::net::TcpStream;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Resource, Signal, getrlimit, kill_process};

use crate::client::Client;
use crate::disk::{Disk, SmallVolume};
use crate::load::event;
use crate::relay::{PATIENCE, Relay, Setup, sum};
use crate::upstream::{UNREACHABLE, Upstream};

pub(crate) fn resident_mib(relay: &Relay, name: &str) -> f64 {
    let text = std::fs::read_to_string(format!("/proc/{}/status", relay.pid())).expect("a running process");
    let line = text.lines().find_map(|line| line.strip_prefix(name)).expect("a known field");
    line.trim().trim_end_matches(" kB").parse::<f64>().expect("a number") / 1024.0
}

/// Sorted times, in milliseconds.
pub(crate) fn percentile(times: &mut [Duration], share: f64) -> f64 {
    times.sort_unstable();
    let index = ((times.len() as f64 * share) as usize).min(times.len() - 1);
    times[index].as_secs_f64() * 1e3
}

#[test]
fn a_slow_disk_lengthens_answers_but_takes_no_memory_beyond_those_who_wait() {
    const POSTERS: usize = 64;
    /// Each event is this large: 16 MiB are on their way at any time, 64 MiB in all.
    const BODY_KIB: usize = 250;
    const TURNS: usize = 4;
    /// Twice what waits (the request and the event made of it) and the relay itself; less than all that came.
    const MOST_MIB: f64 = (2 * POSTERS * BODY_KIB / 1024 + 40) as f64;
    let upstream = Upstream::start();
    let disk = Disk::new(&upstream);
    let relay = disk.setup.start();
    upstream.fault(r#"[{"path":"/events","status":503}]"#);
    let padding = "x".repeat(BODY_KIB * 1024);
    let body = |user: &str| event(user, 1).replacen(r#""event":"#, &format!(r#""note":"{padding}","event":"#), 1);
    assert_eq!(relay.client().post("/events", &body("first")).expect("an answer").status, 200);
    disk.fails("slow-sync");
    let ingest = relay.ingest;
    let post = |poster: usize| {
        let mut client = Client::connect(ingest).expect("the ingest listener");
        let post = |turn| {
            let began = Instant::now();
            let answer = client.post("/events", &body(&format!("u-{poster}-{turn}"))).expect("an answer");
            assert_eq!(answer.status, 200, "{}", answer.body);
            began.elapsed()
        };
        (0..TURNS).map(post).collect::<Vec<_>>()
    };
    let mut times: Vec<Duration> = on_threads(POSTERS, post).into_iter().flatten().collect();
    let (peak, median) = (resident_mib(&relay, "VmHWM:"), percentile(&mut times, 0.5));
    println!(
        "a disk that takes 50 ms to sync, {POSTERS} posters of {BODY_KIB} KiB: all {} answered 200, median \
         {median:.0} ms, peak {peak:.1} MiB",
        times.len()
    );
    assert!(median >= 50.0, "the disk was slow, answers were not: {median} ms");
    assert!(peak < MOST_MIB, "{peak} MiB, not {MOST_MIB}");
}

/// Runs it once on each of so many threads.
fn on_threads<T: Send>(threads: usize, run: impl Fn(usize) -> T + Sync) -> Vec<T> {
    std::thread::scope(|scope| {
        let run = &run;
        let threads: Vec<_> = (0..threads).map(|thread| scope.spawn(move || run(thread))).collect();
        threads.into_iter().map(|thread| thread.join().expect("a thread that did not panic")).collect()
    })
}

/// A command whose processes may open so many files.
fn with_files(limit: &str) -> Command {
    let mut limited = Command::new("prlimit");
    limited.arg(format!("--nofile={limit}"));
    limited
}

#[test]
fn connections_that_an_app_never_closes_leave_files_for_the_store_for_probes_and_for_calls_to_cello() {
    const FILES: usize = 400;
    // Others may need more than 300, or half where there are so few.
    const ALLOWED: f64 = 200.0;
    let upstream = Upstream::start();
    let setup = Setup::new(&upstream.base_url());
    let mut relay = setup.start_by(with_files(&FILES.to_string()));
    assert!(relay.has_logged("connections_limited"));
    let mut first = relay.client();
    let _kept: Vec<_> = (0..FILES).map(|_| TcpStream::connect(relay.ingest).expect("the kernel's queue")).collect();
    relay.wait_until("all that it accepts", |metrics| sum(metrics, "cello_relay_ingest_connections", "") >= ALLOWED);
    assert_eq!(first.post("/events", &event("somebody", 1)).expect("an answer").status, 200);
    upstream.wait_until_received(1);
    relay.wait_until_empty(PATIENCE);
    let mut ops = Client::connect(relay.ops).expect("the ops listener");
    assert_eq!(ops.get("/readyz").expect("an answer").status, 200);
    assert_eq!(relay.metric("cello_relay_outbox_errors_total", ""), 0.0);
}

#[test]
fn a_relay_takes_as_many_files_as_it_may_have() {
    let setup = Setup::new(UNREACHABLE);
    let relay = setup.start_by(with_files("256:1100"));
    assert_eq!(relay.metric("process_max_fds", ""), 1_100.0);
}

#[test]
fn ten_thousand_silent_connections_keep_no_new_caller_out() {
    const SILENT: usize = 9_990;
    // Two of HTTP's buffers and what an allocator adds are 9 KiB.
    const KIB_EACH: f64 = 5.0;
    // This process has one end of each connection; other tests run beside.
    if getrlimit(Resource::Nofile).current.is_some_and(|most| most < 12_000) {
        println!("skipped: ten thousand connections: a process may not open so many files here (ulimit -n)");
        return;
    }
    let upstream = Upstream::start();
    let setup = Setup::new(&upstream.base_url());
    let relay = setup.start();
    assert_eq!(relay.client().post("/events", &event("first", 1)).expect("an answer").status, 200);
    let before = resident_mib(&relay, "VmRSS:");
    let connect = |_| TcpStream::connect(relay.ingest).expect("a connection");
    let silent: Vec<TcpStream> = (0..SILENT).map(connect).collect();
    // Behind all others in the kernel's queue: its answer shows that they were accepted.
    let began = Instant::now();
    let answer = relay.client().post("/events", &event("late", 1)).expect("an answer");
    let took = began.elapsed();
    assert_eq!(answer.status, 200, "{}", answer.body);
    let after = resident_mib(&relay, "VmRSS:");
    println!(
        "{} silent connections: a new caller is answered in {:.1} ms, {before:.1} MiB before, {after:.1} MiB with them",
        silent.len(),
        took.as_secs_f64() * 1e3
    );
    let open = relay.metric("process_open_fds", "");
    assert!(open > SILENT as f64, "{open} files open: the connections are not held");
    let each = (after - before) * 1024.0 / SILENT as f64;
    assert!(each < KIB_EACH, "{each:.1} KiB for each: has a buffer been made for what nobody sent?");
}

/// Lets a process run 10 ms of every 100, until it is over.
fn hold_to_a_tenth(process: u32, over: &AtomicBool) {
    let process = i32::try_from(process).ok().and_then(Pid::from_raw).expect("a process id");
    while !over.load(Ordering::SeqCst) {
        kill_process(process, Signal::STOP).expect("a running process");
        std::thread::park_timeout(Duration::from_millis(90));
        kill_process(process, Signal::CONT).expect("a running process");
        std::thread::park_timeout(Duration::from_millis(10));
    }
}

#[test]
fn with_a_tenth_of_a_core_fifty_events_a_second_are_all_answered_and_the_relay_stays_alive() {
    const POSTERS: u32 = 10;
    let every = Duration::from_millis(20);
    let seconds = if crate::long() { 300 } else { 10 };
    let upstream = Upstream::start();
    let setup = Setup::new(&upstream.base_url());
    let relay = setup.start();
    let (over, asked) = (AtomicBool::new(false), AtomicUsize::new(0));
    let (ingest, ops, process) = (relay.ingest, relay.ops, relay.pid());
    let start = Instant::now();
    let end = start + Duration::from_secs(seconds);
    let post = |poster: u32| {
        let mut client = Client::connect(ingest).expect("the ingest listener");
        let mut scheduled = start + every * poster;
        let mut times = Vec::new();
        while scheduled < end {
            std::thread::park_timeout(scheduled.saturating_duration_since(Instant::now()));
            let user = format!("u-{poster}-{}", times.len());
            let answer = client.post("/events", &event(&user, 1)).expect("an answer");
            assert_eq!(answer.status, 200, "{}", answer.body);
            times.push(scheduled.elapsed());
            scheduled += every * POSTERS;
        }
        times
    };
    let ask = || {
        let mut ops = Client::connect(ops).expect("the ops listener");
        while Instant::now() < end {
            assert_eq!(ops.get("/livez").expect("an answer").status, 200);
            asked.fetch_add(1, Ordering::SeqCst);
            std::thread::park_timeout(Duration::from_millis(200));
        }
    };
    let mut times: Vec<Duration> = std::thread::scope(|scope| {
        scope.spawn(|| hold_to_a_tenth(process, &over));
        let asking = scope.spawn(ask);
        let posters: Vec<_> = (0..POSTERS)
            .map(|poster| {
                scope.spawn({
                    let post = &post;
                    move || post(poster)
                })
            })
            .collect();
        let done: Vec<_> = posters.into_iter().map(std::thread::ScopedJoinHandle::join).collect();
        let asked = asking.join();
        // Before anything may panic: the scope waits for the holder.
        over.store(true, Ordering::SeqCst);
        asked.expect("/livez is 200 throughout");
        done.into_iter().flat_map(|times| times.expect("every event is answered 200")).collect()
    });
    let count = times.len();
    println!(
        "{seconds} s with 0.1 of a core and 50 events/s: {count} answered 200, p99 {:.0} ms, peak {:.1} MiB, /livez 200 {} times",
        percentile(&mut times, 0.99),
        resident_mib(&relay, "VmHWM:"),
        asked.load(Ordering::SeqCst),
    );
    assert_eq!(count as u64, seconds * 50, "every event that was due was sent and answered");
    relay.wait_until_empty(PATIENCE);
    assert_eq!(upstream.arrivals().count(), count);
}

#[test]
fn a_log_that_nobody_reads_holds_nothing_up_and_says_later_how_much_of_it_is_missing() {
    let upstream = Upstream::start();
    let mut setup = Setup::new(&upstream.base_url());
    setup.set("LOG__DELIVERIES", "true");
    let mut relay = Relay::start_unread(setup.command(&["run"]));
    // A line each: several times what a pipe holds.
    for number in 0..2_000 {
        let answer = relay.client().post("/events", &event(&format!("u{}", number % 50), number)).expect("an answer");
        assert_eq!(answer.status, 200);
    }
    relay.wait_until_empty(PATIENCE);
    let mut ops = Client::connect(relay.ops).expect("the ops listener");
    assert_eq!(ops.get("/livez").expect("an answer").status, 200);
    let mut delivered = 0;
    let missing = loop {
        relay.client().post("/events", &event("late", delivered)).expect("an answer");
        let line = relay.wait_for_event("delivered");
        if let Some(missing) = line["lines_dropped"].as_u64() {
            break missing;
        }
        delivered += 1;
    };
    assert!(delivered > 0 && missing > 0 && delivered + missing >= 1_900, "{delivered} read, {missing} missing");
    let (code, log) = relay.terminate();
    assert!(code == Some(0) && log.contains("shutdown_summary"), "{log}");
}

#[test]
fn a_full_disk_never_takes_so_many_events_that_no_delivery_can_be_recorded() {
    let upstream = Upstream::start();
    upstream.fault(r#"[{"path":"/events","status":503}]"#);
    let mut setup = Setup::new(&upstream.base_url());
    let Some(_volume) = SmallVolume::under(&mut setup, "events on a full disk") else { return };
    setup.set("OUTBOX__MIN_FREE_BYTES", "0B").set("FORWARD__BACKOFF_MAX", "1s");
    let relay = setup.start();
    let (mut client, filler, mut accepted) = (relay.client(), "y".repeat(3000), 0);
    // Beyond the second for which a full disk is not tried again.
    let mut full_since = None::<Instant>;
    for number in 0.. {
        let body = event(&format!("u{number}"), 1).replacen("\"ucc\":\"", &format!("\"ucc\":\"{filler}"), 1);
        if client.post("/events", &body).expect("an answer").status == 200 {
            accepted += 1;
        } else if full_since.get_or_insert_with(Instant::now).elapsed() > Duration::from_secs(4) {
            break;
        }
    }
    upstream.heal();
    relay.wait_until_empty(PATIENCE);
    assert_eq!(relay.ledger("delivered"), accepted);
}
