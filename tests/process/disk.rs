//! A disk that fails or fills while the relay runs.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::load::{Book, event, write};
use crate::relay::{PATIENCE, Relay, Setup, sum};
use crate::upstream::{Upstream, numbered};

/// Builds a library to preload, of `tests/support/<name>.c`; once, as a relay that starts while it is written anew
/// would go without it.
pub(crate) fn preload_library(name: &str) -> PathBuf {
    static BUILT: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());
    let library = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{}.so", std::process::id()));
    let mut built = BUILT.lock().unwrap_or_else(PoisonError::into_inner);
    if built.insert(library.clone()) {
        let source = format!("{}/tests/support/{name}.c", env!("CARGO_MANIFEST_DIR"));
        let mut compiler = Command::new("cc");
        compiler.args(["-shared", "-fPIC", "-O1", "-o"]).arg(&library).args([&source, "-ldl"]);
        assert!(compiler.status().expect("a C compiler").success());
    }
    library
}

/// A relay whose disk fails on demand.
pub(crate) struct Disk {
    pub(crate) setup: Setup,
    switch: PathBuf,
}

impl Disk {
    pub(crate) fn new(upstream: &Upstream) -> Self {
        let mut setup = Setup::new(&upstream.base_url());
        let switch = setup.dir().join("fault");
        std::fs::write(&switch, "").expect("a file");
        let outbox = setup.outbox();
        setup
            .raw("LD_PRELOAD", preload_library("fault").to_str().expect("a plain path"))
            .raw("FAULT_FILE", switch.to_str().expect("a plain path"))
            .raw("FAULT_DIR", outbox.to_str().expect("a plain path"));
        Self { setup, switch }
    }

    /// From now on: a word that `tests/support/fault.c` knows; none heals.
    pub(crate) fn fails(&self, how: &str) {
        std::fs::write(&self.switch, how).expect("a file");
    }

    /// How many reads have failed.
    pub(crate) fn failed_reads(&self) -> u64 {
        std::fs::metadata(self.switch.with_extension("reads")).map_or(0, |file| file.len())
    }
}

/// Posts until an answer has that status; gives what came before it.
fn post_until(relay: &Relay, status: u16) -> Vec<u16> {
    let mut client = relay.client();
    let deadline = Instant::now() + PATIENCE;
    let mut before = Vec::new();
    for number in 0.. {
        let answer = client.post("/events", &event("u", number)).expect("an answer");
        if answer.status == status {
            break;
        }
        before.push(answer.status);
        assert!(Instant::now() < deadline, "never {status}: {before:?}");
        std::thread::park_timeout(Duration::from_millis(50));
    }
    before
}

#[test]
fn a_failed_sync_is_never_followed_by_a_2xx_and_heals_by_itself() {
    let upstream = Upstream::start();
    let disk = Disk::new(&upstream);
    let relay = disk.setup.start();
    assert!(post_until(&relay, 200).is_empty());
    disk.fails("eio-sync");
    let first = relay.client().post("/events", &event("v", 1)).expect("an answer");
    assert_eq!(first.status, 503, "{}", first.body);
    assert!(first.header("retry-after").is_some());
    assert_eq!(first.json()["reason"], "disk", "{}", first.body);
    for _ in 0..5 {
        assert_eq!(relay.client().post("/events", &event("v", 2)).expect("an answer").status, 503);
    }
    let mut ops = crate::client::Client::connect(relay.ops).expect("the ops listener");
    assert_eq!(ops.get("/readyz").expect("an answer").status, 503);
    assert_eq!(ops.get("/livez").expect("an answer").status, 200);
    assert!(relay.metric("cello_relay_outbox_errors_total", "") > 0.0);
    disk.fails("");
    assert!(post_until(&relay, 200).iter().all(|status| *status == 503));
    relay.wait_until_empty(PATIENCE);
    assert_eq!(ops.get("/readyz").expect("an answer").status, 200);
}

/// Posts while the disk fails like that, heals it, and looks at what came of it.
fn break_and_heal(how: &str) {
    let upstream = Upstream::start();
    let disk = Disk::new(&upstream);
    let relay = disk.setup.start();
    let (ingest, book) = (relay.ingest, Book::default());
    write(&book, ingest, 0, 3, 10);
    disk.fails(how);
    // What was read before needs no reading; what cannot be written is not answered 2xx.
    let refuses = !matches!(how, "eio-read" | "slow-sync");
    let before = book.count();
    if refuses {
        post_until(&relay, 503);
        let while_broken = relay.client().post("/events", &event("w", 1)).expect("an answer");
        assert_eq!(while_broken.status, 503, "{how}: {}", while_broken.body);
        assert!(while_broken.header("retry-after").is_some(), "{how}");
    }
    write(&book, ingest, 1, 3, 10);
    assert_eq!(book.count() == before, refuses, "{how}");
    // Somebody else's look has to read what was written since.
    let (listed, _, _) = disk.setup.call(&["outbox", "list"]);
    assert!(how != "eio-read" || listed != 0, "{how}: a listing ends with {listed}");
    assert_eq!(disk.failed_reads() > 0, how == "eio-read", "{how}: the fault is met");
    let mut ops = crate::client::Client::connect(relay.ops).expect("the ops listener");
    assert_eq!(ops.get("/livez").expect("an answer").status, 200, "{how}: the process stays");
    disk.fails("");
    post_until(&relay, 200);
    write(&book, ingest, 2, 3, 10);
    relay.wait_until_empty(PATIENCE);
    assert_eq!(upstream.arrivals().duplicates(), 0, "{how}: what could not be recorded is not sent again");
    relay.kill();
    let relay = disk.setup.start();
    relay.wait_until_empty(PATIENCE);
    upstream.arrivals().assert_complete(&book.acked());
    assert_eq!(relay.metric("cello_relay_outbox_quarantined_files", ""), 0.0, "{how}: a failing disk is no damage");
    relay.terminate();
    assert_eq!(disk.setup.call(&["outbox", "check"]).0, 0, "{how}");
}

#[test]
fn what_is_being_sent_when_the_disk_fails_is_not_sent_beside_itself_and_no_later_event_overtakes_it() {
    let upstream = Upstream::start();
    let disk = Disk::new(&upstream);
    upstream.fault(r#"[{"path":"/events","user":"slow","times":1,"latency":"5s"}]"#);
    let relay = disk.setup.start();
    for number in 0..3 {
        assert_eq!(relay.client().post("/events", &event("slow", number)).expect("an answer").status, 200);
    }
    relay.wait_until("it is being sent", |metrics| sum(metrics, "cello_relay_upstream_requests_in_flight", "") == 1.0);
    disk.fails("eio-sync");
    post_until(&relay, 503);
    disk.fails("");
    post_until(&relay, 200);
    assert!(relay.metric("cello_relay_upstream_requests_in_flight", "") >= 1.0, "still at it");
    relay.wait_until_empty(PATIENCE);
    let sent = upstream.events();
    let sent: Vec<u64> =
        sent.iter().map(numbered).filter(|(user, _)| user == "slow").map(|(_, number)| number).collect();
    assert_eq!(sent, [0, 1, 2]);
    assert_eq!(relay.metric("cello_relay_delivery_ambiguous_total", ""), 0.0);
}

#[test]
fn a_disk_that_fails_reads_writes_or_all_changes_or_is_slow_loses_nothing_and_heals_by_itself() {
    for how in ["eio-write", "enospc", "erofs", "eio-read", "slow-sync"] {
        break_and_heal(how);
    }
}

#[test]
fn an_outbox_directory_removed_under_a_running_relay_is_made_again_and_loses_nothing() {
    let upstream = Upstream::start();
    upstream.fault(r#"[{"path":"/events","status":503}]"#);
    let setup = Setup::new(&upstream.base_url());
    let relay = setup.start();
    let (ingest, book) = (relay.ingest, Book::default());
    write(&book, ingest, 0, 3, 50);
    std::fs::remove_dir_all(setup.outbox()).expect("the outbox");
    write(&book, ingest, 0, 3, 50);
    assert_eq!(book.count(), 100, "it is made again at the first event");
    relay.wait_until("all was copied", |metrics| crate::relay::sum(metrics, "cello_relay_outbox_events", "") == 100.0);
    relay.wait_until("a try", |_| upstream.received() > 0);
    relay.kill();
    upstream.heal();
    let relay = setup.start();
    relay.wait_until_empty(PATIENCE);
    upstream.arrivals().assert_complete_and_in_order(&book.acked());
    assert_eq!(relay.metric("cello_relay_events_lost_total", ""), 0.0);
}

#[test]
fn neither_probes_nor_posts_wait_for_a_long_recovery_at_a_start() {
    let upstream = Upstream::start();
    upstream.fault(r#"[{"path":"/events","status":503}]"#);
    let mut disk = Disk::new(&upstream);
    disk.setup.set("SHUTDOWN__DEADLINE", "0s");
    let relay = disk.setup.start();
    for batch in 0..2 {
        let events: Vec<String> =
            (0..1000).map(|number| event(&format!("user-{batch}-{}", number % 9), number)).collect();
        let answer = relay.client().post("/events/batch", &format!("[{}]", events.join(",")));
        assert_eq!(answer.expect("an answer").status, 200);
    }
    relay.terminate();
    let path = disk.setup.outbox().join("outbox.db");
    let mut bytes = std::fs::read(&path).expect("a database");
    // What lies behind is copied a few rows at a time.
    let quarter = bytes.len() / 4096 / 4 * 4096;
    bytes[quarter..quarter + 2 * 4096].fill(0xee);
    std::fs::write(&path, bytes).expect("a database");
    disk.fails("slow-sync");
    let mut relay = disk.setup.start();
    // Whoever looks at all that waits meets it.
    disk.setup.call(&["outbox", "export", "--state", "pending"]);
    relay.wait_for_event("outbox_quarantined");
    relay.wait_for_event("outbox_reopened");
    relay.kill();
    for command in [&["list"][..], &["export"], &["check"], &["stats"], &["erase", "--user", "user-0-0"]] {
        let (code, stdout, stderr) = disk.setup.call(&[&["outbox"], command].concat());
        assert!(code == 65 && (stdout + &stderr).contains("come over yet"), "{command:?}: {code} {stderr}");
    }

    upstream.heal();
    let mut relay = disk.setup.start();
    let (code, _, stderr) = disk.setup.call(&["outbox", "list"]);
    assert!(code != 0 && stderr.contains("still coming over"), "{code} {stderr}");
    let mut ops = crate::client::Client::connect(relay.ops).expect("the ops listener");
    for probe in ["/startupz", "/readyz", "/livez"] {
        assert_eq!(ops.get(probe).expect("an answer").status, 200, "{probe}");
    }
    assert_eq!(relay.client().post("/events", &event("user-0-0", 5000)).expect("an answer").status, 200);
    assert!(!relay.has_logged("outbox_recovered") && upstream.arrivals().count() == 0, "it still copies");
    disk.fails("");
    let recovered = relay.wait_for_event("outbox_recovered");
    relay.wait_until_empty(PATIENCE);
    upstream.arrivals().assert_in_order();
    let lost = recovered["lost"].as_u64().expect("a count");
    assert_eq!((relay.ledger("lost"), upstream.arrivals().count() as u64), (lost, 2001 - lost));
}

#[test]
fn a_start_on_a_disk_that_cannot_be_read_or_written_says_so_and_changes_nothing() {
    let upstream = Upstream::start();
    upstream.fault(r#"[{"path":"/events","status":503}]"#);
    let disk = Disk::new(&upstream);
    let (relay, book) = (disk.setup.start(), Book::default());
    write(&book, relay.ingest, 0, 3, 30);
    relay.kill();
    upstream.heal();
    for (how, code, says) in [
        ("eio-read", 74, "cannot open the outbox: "),
        ("eio-write", 73, "Input/output error"),
        ("eio-sync", 73, "Input/output error"),
        ("erofs", 73, "is read-only"),
    ] {
        disk.fails(how);
        let (ended, _, stderr) = disk.setup.call(&["run"]);
        assert!(ended == code && stderr.contains(says), "{how}: {ended} {stderr}");
    }
    assert!(disk.failed_reads() > 0);
    disk.fails("");
    let relay = disk.setup.start();
    relay.wait_until_empty(PATIENCE);
    upstream.arrivals().assert_complete_and_in_order(&book.acked());
    assert_eq!(relay.metric("cello_relay_outbox_quarantined_files", ""), 0.0, "a failing disk is no damage");
}

/// A small file system of its own; needs root.
pub(crate) struct SmallVolume(PathBuf);

impl SmallVolume {
    /// With the outbox of `setup` on it; without root there is none, which is told.
    pub(crate) fn under(setup: &mut Setup, what: &str) -> Option<Self> {
        let volume = Self::mount(setup.dir().join("volume"));
        match &volume {
            Some(volume) => drop(setup.set("OUTBOX__DIR", volume.outbox().to_str().expect("a plain path"))),
            None => println!("skipped: {what}: a small file system can only be mounted by root"),
        }
        volume
    }

    fn outbox(&self) -> PathBuf {
        self.0.join("outbox")
    }

    fn mount(at: PathBuf) -> Option<Self> {
        std::fs::create_dir(&at).expect("a folder");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=24m", "tmpfs"]).arg(&at).stderr(std::process::Stdio::null());
        mount.status().is_ok_and(|status| status.success()).then_some(Self(at))
    }

    /// Fills the volume to the last block.
    fn fill(&self) {
        let mut file = std::fs::File::create(self.0.join("filler")).expect("a file");
        let block = vec![0_u8; 64 * 1024];
        while std::io::Write::write_all(&mut file, &block).is_ok() {}
    }

    fn make_room(&self) {
        std::fs::remove_file(self.0.join("filler")).expect("the filler");
    }
}

impl Drop for SmallVolume {
    fn drop(&mut self) {
        // Lazily: the relay may not have let go yet.
        drop(Command::new("umount").arg("-l").arg(&self.0).status());
    }
}

#[test]
fn a_full_disk_refuses_new_events_while_deliveries_go_on_and_heals_by_itself() {
    let upstream = Upstream::start();
    upstream.fault(r#"[{"path":"/events","status":503}]"#);
    let mut setup = Setup::new(&upstream.base_url());
    let Some(volume) = SmallVolume::under(&mut setup, "a full disk") else { return };
    setup.set("OUTBOX__RESERVE", "2MiB");
    let relay = setup.start();
    let mut client = relay.client();
    for number in 0..200 {
        assert_eq!(client.post("/events", &event(&format!("u{number}"), 1)).expect("an answer").status, 200);
    }
    volume.fill();
    let accepted = post_until(&relay, 503);
    assert!(accepted.iter().all(|status| *status == 200), "{accepted:?}");
    let refused = relay.client().post("/events", &event("late", 1)).expect("an answer");
    assert_eq!((refused.status, refused.json()["reason"].as_str()), (503, Some("disk")), "{}", refused.body);
    upstream.heal();
    relay.wait_until_empty(PATIENCE);
    assert_eq!(upstream.arrivals().count(), 200 + accepted.len());
    let restarted = {
        relay.kill();
        // Also the room that the relay has left free since.
        volume.fill();
        setup.start()
    };
    assert_eq!(
        restarted.client().post("/events", &event("late", 1)).expect("an answer").status,
        503,
        "starts on a full disk"
    );
    volume.make_room();
    post_until(&restarted, 200);
    restarted.wait_until_empty(PATIENCE);
}

#[test]
fn on_a_full_disk_that_can_record_no_delivery_nothing_is_sent_again_and_again() {
    let upstream = Upstream::start();
    let mut setup = Setup::new(&upstream.base_url());
    let Some(volume) = SmallVolume::under(&mut setup, "a full disk") else { return };
    setup.set("OUTBOX__RESERVE", "0B").set("OUTBOX__MIN_FREE_BYTES", "0B");
    let relay = setup.start();
    assert_eq!(setup.call(&["pause"]).0, 0);
    let mut client = relay.client();
    for number in 0..30 {
        assert_eq!(client.post("/events", &event(&format!("u{number}"), 1)).expect("an answer").status, 200);
    }
    // An idle relay gives the blocks of its log back while there is room; then there is none.
    relay.wait_until("the log is empty", |_| {
        std::fs::metadata(volume.outbox().join("outbox.db-wal")).is_ok_and(|log| log.len() == 0)
    });
    volume.fill();
    assert_eq!(setup.call(&["resume"]).0, 0);
    relay.wait_until("it was tried", |metrics| sum(metrics, "cello_relay_outbox_errors_total", "full") >= 6.0);
    assert!(upstream.events().len() <= 30, "{} sends of 30 events", upstream.events().len());
    volume.make_room();
    relay.wait_until_empty(PATIENCE);
    assert_eq!(upstream.events().len(), 30, "each was sent once, though what came of the first was not recorded");
}

#[test]
fn a_damaged_outbox_on_a_full_disk_is_moved_aside_in_the_room_of_the_reserve_and_without_one_when_there_is_room() {
    for (reserve, at_once) in [("2MiB", true), ("0B", false)] {
        let upstream = Upstream::start();
        let mut setup = Setup::new(&upstream.base_url());
        let Some(volume) = SmallVolume::under(&mut setup, "damage on a full disk") else { return };
        setup.set("OUTBOX__RESERVE", reserve).set("OUTBOX__MIN_FREE_BYTES", "0B");
        let relay = setup.start();
        assert_eq!(setup.call(&["pause"]).0, 0);
        assert_eq!(relay.client().post("/events", &event("u", 1)).expect("an answer").status, 200);
        assert_eq!(relay.terminate().0, Some(0));
        let mut database =
            std::fs::OpenOptions::new().write(true).open(volume.outbox().join("outbox.db")).expect("a database");
        std::io::Write::write_all(&mut database, &[0xee; 16]).expect("damage");
        volume.fill();

        let mut relay = setup.start();
        assert_eq!(relay.has_logged("outbox_quarantined"), at_once, "with a reserve of {reserve}");
        assert_eq!(relay.client().post("/events", &event("u", 2)).expect("an answer").status, 503);
        volume.make_room();
        if !at_once {
            relay.wait_for_event("outbox_quarantined");
        }
        post_until(&relay, 200);
        assert_eq!(setup.call(&["resume"]).0, 0);
        relay.wait_until_empty(PATIENCE);
    }
}
