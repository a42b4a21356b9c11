//! kill -9 at named points. A preloaded library (`tests/support/record.c`) kills the relay at the n-th call of a kind
//! on a file of a name; nothing in the relay knows of it.

use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::load::{Book, write};
use crate::power::record_library;
use crate::relay::{PATIENCE, Setup};
use crate::upstream::Upstream;

/// What is done to the relay before the kill is armed, and then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum While {
    /// Writers post, upstream answers.
    Traffic,
    /// The first start ever.
    FirstStart,
    /// A start on an outbox that a kill left behind.
    Start,
    /// A start on a damaged outbox, and traffic.
    Recovery,
    /// All was delivered, and the space is given back.
    Rest,
    /// SIGTERM under load.
    Drain,
}

/// Where: "CALL FILE", see the library; at which call of that kind at most; and when.
const POINTS: &[(&str, &str, u64, While)] = &[
    ("after append, before its WAL is written whole", "write outbox.db-wal", 200, While::Traffic),
    ("after append, before the commit's sync", "sync outbox.db-wal", 60, While::Traffic),
    ("after the commit, before the answer", "told answer", 60, While::Traffic),
    ("after the send, before upstream's answer", "sent event", 60, While::Traffic),
    ("after upstream's answer, before the settle", "heard answer", 60, While::Traffic),
    ("while the directory is made", "mkdir outbox", 1, While::FirstStart),
    ("while the database is made", "create outbox.db", 1, While::FirstStart),
    ("while the tables are made", "write outbox.db-wal", 12, While::FirstStart),
    ("while the file becomes one with a WAL", "write outbox.db", 3, While::FirstStart),
    ("while the WAL of a crash is taken over", "write outbox.db", 6, While::Start),
    ("before that is synced", "sync outbox.db", 2, While::Start),
    ("while a damaged file is announced", "write quarantine", 1, While::Recovery),
    ("while a damaged file is moved", "rename outbox.db", 1, While::Recovery),
    ("before its companions have moved", "rename outbox.db-wal", 1, While::Recovery),
    ("while events are recovered", "write outbox.db-wal", 40, While::Recovery),
    ("before the recovery is struck out", "unlink quarantine", 1, While::Recovery),
    ("while space is given back", "write outbox.db-wal", 3, While::Rest),
    ("before the database is cut", "truncate outbox.db", 1, While::Rest),
    ("while it drains", "sync outbox.db-wal", 6, While::Drain),
    ("in the checkpoint of a stop", "write outbox.db", 4, While::Drain),
    ("before the WAL of a stop is emptied", "truncate outbox.db-wal", 1, While::Drain),
];

/// Events that are left behind, at least: many more pages than the empty tables have.
const BACKLOG: usize = 400;

/// A relay whose kill is armed by a file.
fn setup(upstream: &Upstream, at: &str) -> Setup {
    let mut setup = Setup::new(&upstream.base_url());
    let plain = |path: &Path| path.to_str().expect("a plain path").to_owned();
    let (dir, armed) = (setup.dir().to_path_buf(), setup.dir().join("armed"));
    setup
        .set("SHUTDOWN__DEADLINE", "2s")
        .raw("LD_PRELOAD", &plain(record_library()))
        .raw("RECORD_DIR", &plain(&dir))
        .raw("KILL_AT", at)
        .raw("KILL_ARMED", &plain(&armed));
    setup
}

fn arm(setup: &Setup, armed: bool) {
    let path = setup.dir().join("armed");
    let changed = if armed { std::fs::write(path, "") } else { std::fs::remove_file(path) };
    changed.expect("a file");
}

/// Starts a relay that is to die before it listens, or soon after; says whether it did.
fn dies_while_starting(setup: &Setup) -> bool {
    let mut child = setup.command(&["run"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it runs");
    let deadline = Instant::now() + Duration::from_secs(5);
    while Instant::now() < deadline {
        if let Some(status) = child.try_wait().expect("a status") {
            assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(9), "{status}");
            return true;
        }
        std::thread::park_timeout(Duration::from_millis(5));
    }
    child.kill().expect("a running process");
    child.wait().expect("a status");
    false
}

/// Writers post to a relay until it is gone; `then` runs once it has delivered something.
fn load(setup: &Setup, upstream: &Upstream, book: &Book, then: impl FnOnce(&crate::relay::Relay)) -> Option<i32> {
    let relay = setup.start();
    let ingest = relay.ingest;
    std::thread::scope(|scope| {
        for writer in 0..4 {
            scope.spawn(move || write(book, ingest, writer, 3, usize::MAX));
        }
        upstream.wait_for_arrival();
        then(&relay);
        relay.wait().0
    })
}

/// Overwrites pages behind the middle of the database, where events are; it is met when the queue is read.
fn damage(setup: &Setup) {
    let path = setup.outbox().join("outbox.db");
    let mut bytes = std::fs::read(&path).expect("a database");
    let behind = bytes.len() / 4096 * 3 / 4 * 4096;
    bytes[behind..behind + 2 * 4096].fill(0xee);
    std::fs::write(&path, bytes).expect("a database");
}

/// Leaves a backlog behind, for an upstream that works again.
fn backlog<'a>(setup: &'a Setup, upstream: &Upstream, book: &Book, signal: &str) -> &'a Setup {
    upstream.fault(r#"[{"path":"/events","status":503}]"#);
    load(setup, upstream, book, |relay| {
        let deadline = Instant::now() + PATIENCE;
        while book.count() < BACKLOG {
            assert!(Instant::now() < deadline, "{} events", book.count());
            std::thread::park_timeout(Duration::from_millis(5));
        }
        relay.signal(signal);
    });
    upstream.fault(r#"[{"path":"/events","latency":"5ms"}]"#);
    setup
}

/// One kill; says whether it happened.
fn kill_once(point: &(&str, &str, u64, While), nth: u64) -> bool {
    let (what, at, _, when) = *point;
    let upstream = Upstream::start();
    upstream.fault(r#"[{"path":"/events","latency":"5ms"}]"#);
    let setup = setup(&upstream, &format!("{at} {nth}"));
    let book = Book::default();
    let died = match when {
        While::Traffic => load(&setup, &upstream, &book, |_| arm(&setup, true)).is_none(),
        While::Drain => {
            let ended = load(&setup, &upstream, &book, |relay| {
                arm(&setup, true);
                relay.signal("TERM");
            });
            ended.is_none()
        }
        While::FirstStart => {
            arm(&setup, true);
            dies_while_starting(&setup)
        }
        While::Rest => {
            let relay = backlog(&setup, &upstream, &book, "KILL").start();
            relay.wait_until_empty(PATIENCE);
            arm(&setup, true);
            relay.wait().0.is_none()
        }
        While::Start | While::Recovery => {
            backlog(&setup, &upstream, &book, if when == While::Recovery { "TERM" } else { "KILL" });
            if when == While::Recovery {
                damage(&setup);
            }
            arm(&setup, true);
            dies_while_starting(&setup)
        }
    };
    arm(&setup, false);
    let relay = setup.start();
    write(&book, relay.ingest, 0, 3, 6);
    relay.wait_until_empty(PATIENCE);
    let arrivals = upstream.arrivals();
    let lost = relay.metric("cello_relay_events_lost_total", "");
    if when == While::Recovery {
        arrivals.assert_in_order();
        let missing = arrivals.missing(&book.acked());
        assert!(missing as f64 <= lost, "{what}: {missing} are missing, {lost} booked as lost");
    } else {
        let duplicates = arrivals.assert_complete_and_in_order(&book.acked());
        assert_eq!(lost, 0.0, "{what}");
        // Eight senders, and what waits for its commit.
        assert!(duplicates <= 8 + 64, "{what}: {duplicates} duplicates of sends whose outcome was not known");
        let sent = matches!(when, While::Traffic | While::Drain | While::Start | While::Rest);
        assert!(sent || duplicates == 0, "{what}: {duplicates} duplicates, but nothing was sent");
    }
    relay.terminate();
    let (code, findings, _) = setup.call(&["outbox", "check"]);
    assert_eq!(code, 0, "{what}: {findings}");
    died
}

#[test]
fn a_kill_at_any_named_point_loses_nothing_keeps_order_and_the_ledger() {
    let rounds = if crate::long() { 40 } else { 1 };
    let mut random = fastrand::Rng::with_seed(20_261_124);
    let mut kills = 0;
    for point in POINTS {
        let mut hits = 0;
        for _ in 0..rounds {
            hits += usize::from(kill_once(point, random.u64(1..=point.2)));
        }
        // Which call is the last of its kind differs from run to run; the first always comes.
        let hit = hits > 0 || kill_once(point, 1);
        println!("{}: {hits} of {rounds}", point.0);
        assert!(hit, "{}: never reached", point.0);
        kills += hits.max(1);
    }
    println!("killed {kills} times at {} named points: lost 0, out of order 0", POINTS.len());
}
