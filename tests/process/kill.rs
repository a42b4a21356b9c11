//! kill -9 at named points. A preloaded library (`tests/support/record.c`) kills the relay at the n-th call of a kind
//! on a file of a name; nothing in the relay knows of it.

use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::load::{Book, write};
use crate::power::record_library;
use crate::relay::{PATIENCE, Relay, Setup};
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
    /// The same, and its rows are being copied.
    Copying,
    /// A start on an outbox of the first schema.
    Migration,
    /// All was delivered, and the space is given back.
    Rest,
    /// SIGTERM under load.
    Drain,
}

/// Its name; where: "CALL FILE", see the library; between which and which call of that kind; and when.
type Point = (&'static str, &'static str, (u64, u64), While);
const POINTS: &[Point] = &[
    ("after append, before its WAL is written whole", "write outbox.db-wal", (1, 200), While::Traffic),
    ("after append, before the commit's sync", "sync outbox.db-wal", (1, 60), While::Traffic),
    ("after the commit, before the answer", "told answer", (1, 60), While::Traffic),
    ("after the send, before upstream's answer", "sent event", (1, 60), While::Traffic),
    ("after upstream's answer, before the settle", "heard answer", (1, 60), While::Traffic),
    ("while the directory is made", "mkdir outbox", (1, 1), While::FirstStart),
    ("while the database is made", "create outbox.db", (1, 1), While::FirstStart),
    ("while the tables are made", "write outbox.db-wal", (1, 12), While::FirstStart),
    ("while the file becomes one with a WAL", "write outbox.db", (1, 3), While::FirstStart),
    ("while the WAL of a crash is taken over", "write outbox.db", (1, 6), While::Start),
    ("before that is synced", "sync outbox.db", (1, 2), While::Start),
    ("while a damaged file is announced", "write quarantine", (1, 1), While::Recovery),
    ("while a damaged file is moved", "rename outbox.db", (1, 1), While::Recovery),
    ("before its companions have moved", "rename outbox.db-wal", (1, 1), While::Recovery),
    ("while events are recovered", "write outbox.db-wal", (60, 250), While::Copying),
    ("before the recovery is struck out", "unlink quarantine", (1, 1), While::Recovery),
    ("while a file takes the steps to the next schema", "write outbox.db-wal", (1, 10), While::Migration),
    ("while space is given back", "write outbox.db-wal", (1, 3), While::Rest),
    ("before the database is cut", "truncate outbox.db", (1, 1), While::Rest),
    ("while it drains", "sync outbox.db-wal", (1, 6), While::Drain),
    ("in the checkpoint of a stop", "write outbox.db", (1, 4), While::Drain),
    ("before the WAL of a stop is emptied", "truncate outbox.db-wal", (1, 1), While::Drain),
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
    let deadline = Instant::now() + Duration::from_secs(10);
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
fn load(setup: &Setup, upstream: &Upstream, book: &Book, then: impl FnOnce(&Relay)) -> Option<i32> {
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

/// A fact that the file which a kill left behind tells of itself; looks at a copy.
fn told_by_file(setup: &Setup, question: &str) -> Option<String> {
    let copy = tempfile::tempdir().expect("a folder");
    for name in ["outbox.db", "outbox.db-wal"] {
        std::fs::copy(setup.outbox().join(name), copy.path().join(name)).expect("a file");
    }
    let file = rusqlite::Connection::open(copy.path().join("outbox.db")).expect("a database");
    file.query_row(question, [], |row| row.get::<_, String>(0)).ok()
}

/// The kill itself; says whether it happened.
fn kill(point: &Point, setup: &Setup, upstream: &Upstream, book: &Book) -> bool {
    let (what, _, _, when) = *point;
    match when {
        While::Traffic => load(setup, upstream, book, |_| arm(setup, true)).is_none(),
        While::Drain => {
            let ended = load(setup, upstream, book, |relay| {
                arm(setup, true);
                relay.signal("TERM");
            });
            ended.is_none()
        }
        While::FirstStart => {
            arm(setup, true);
            dies_while_starting(setup)
        }
        While::Rest => {
            let mut relay = backlog(setup, upstream, book, "KILL").start();
            relay.wait_until_empty(PATIENCE);
            // Space is given back some seconds after the last delivery.
            arm(setup, true);
            relay.ends_within(Duration::from_secs(30)) == Some(None)
        }
        While::Start => {
            backlog(setup, upstream, book, "KILL");
            arm(setup, true);
            dies_while_starting(setup)
        }
        While::Recovery | While::Copying => {
            backlog(setup, upstream, book, "TERM");
            damage(setup);
            arm(setup, true);
            let died = dies_while_starting(setup);
            if died && when == While::Copying {
                let recovering = told_by_file(setup, "SELECT value FROM meta WHERE key = 'recovering'");
                assert!(recovering.is_some(), "{what}: all was copied before the kill");
            }
            died
        }
        While::Migration => {
            std::fs::create_dir(setup.outbox()).expect("a folder");
            std::fs::copy("tests/files/outbox-v1.db", setup.outbox().join("outbox.db")).expect("a file");
            assert_eq!(setup.call(&["outbox", "rebind", "--yes"]).0, 0);
            arm(setup, true);
            let died = dies_while_starting(setup);
            let version = told_by_file(setup, "SELECT CAST(user_version AS TEXT) FROM pragma_user_version");
            assert!(!died || version.as_deref() == Some("1"), "{what}: it is of version {version:?}");
            died
        }
    }
}

/// One kill and a start after it; says whether the kill happened.
fn kill_once(point: &Point, nth: u64) -> bool {
    let (what, at, _, when) = *point;
    let upstream = Upstream::start();
    upstream.fault(r#"[{"path":"/events","latency":"5ms"}]"#);
    let setup = setup(&upstream, &format!("{at} {nth}"));
    let book = Book::default();
    let died = kill(point, &setup, &upstream, &book);
    arm(&setup, false);
    let relay = setup.start();
    if when == While::Migration {
        relay.wait_until_empty(PATIENCE);
        // Upstream refuses what is in that file; it got each of the three that wait in it.
        let counts = ["accepted", "delivered", "dead", "lost"].map(|count| relay.ledger(count));
        assert_eq!((counts, upstream.received()), ([5, 1, 4, 0], 3), "{what}");
    } else {
        write(&book, relay.ingest, 0, 3, 6);
        relay.wait_until_empty(PATIENCE);
        check(point, &relay, &upstream, &book);
    }
    relay.terminate();
    let (code, findings, _) = setup.call(&["outbox", "check"]);
    assert_eq!(code, 0, "{what}: {findings}");
    died
}

/// Nothing is lost but what was damaged, and that is booked; order is kept; no more comes twice than was on its way.
fn check(point: &Point, relay: &Relay, upstream: &Upstream, book: &Book) {
    let (what, _, _, when) = *point;
    let (arrivals, lost) = (upstream.arrivals(), relay.ledger("lost") as usize);
    let (missing, duplicates) = (arrivals.missing(&book.acked()), arrivals.duplicates());
    arrivals.assert_in_order();
    let is_damaged = matches!(when, While::Recovery | While::Copying);
    // What a caller was not answered may have been stored, and was then damaged like the rest.
    let is_booked = missing <= lost && lost <= missing + book.cut_off();
    assert!(is_booked && (lost == 0 || is_damaged), "{what}: {missing} are missing, {lost} booked as lost");
    assert_eq!(relay.ledger("delivered") + relay.ledger("lost"), relay.ledger("accepted"), "{what}");
    // Eight senders, and what waits for its commit.
    assert!(duplicates <= 8 + 64, "{what}: {duplicates} duplicates of sends whose outcome was not known");
    let sent = matches!(when, While::Traffic | While::Drain | While::Start | While::Rest);
    assert!(sent || duplicates == 0, "{what}: {duplicates} duplicates, but nothing was sent");
}

#[test]
fn a_kill_at_any_named_point_loses_nothing_keeps_order_and_the_ledger() {
    let rounds = crate::rounds(1, 40);
    let mut random = fastrand::Rng::with_seed(20_261_124);
    let mut kills = 0;
    for point in POINTS {
        let (_, _, (first, last), _) = *point;
        let mut hits = 0;
        for _ in 0..rounds {
            hits += usize::from(kill_once(point, random.u64(first..=last)));
        }
        // Which call is the last of its kind differs from run to run; the first always comes.
        let hit = hits > 0 || kill_once(point, first);
        println!("{}: {hits} of {rounds}", point.0);
        assert!(hit, "{}: never reached", point.0);
        kills += hits.max(1);
    }
    println!("killed {kills} times at {} named points: lost 0, out of order 0", POINTS.len());
}
