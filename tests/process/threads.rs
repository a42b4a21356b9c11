//! Threads: those that block are there when needed and never waited for, and without the store's there is no relay.

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::disk::preload_library;
use crate::load::event;
use crate::relay::{PATIENCE, Relay, Setup};
use crate::upstream::Upstream;

/// A user whose threads nobody else's are counted with.
const USER: u32 = 54_321;
/// More than a relay has.
const ENOUGH: usize = 50;

/// A relay that looks up its upstream's name, and never gets to the end of it; a file that is there once it does so.
fn that_looks_up_for_ever() -> (Setup, PathBuf) {
    let mut setup = Setup::new("https://cello.example");
    let began = setup.dir().join("lookups");
    setup.raw("LD_PRELOAD", preload_library("lookup").to_str().expect("a plain path"));
    setup.raw("LOOKUP_FILE", began.to_str().expect("a plain path")).set("SHUTDOWN__LINGER", "0s");
    (setup, began)
}

#[test]
fn a_name_that_is_being_looked_up_keeps_nothing_from_ending() {
    let (setup, began) = that_looks_up_for_ever();
    let relay = setup.start();
    let deadline = Instant::now() + PATIENCE;
    while !began.exists() {
        assert!(Instant::now() < deadline, "no name is looked up");
        std::thread::park_timeout(Duration::from_millis(5));
    }
    let (code, log) = relay.terminate();
    assert_eq!(code, Some(0), "{log}");

    let (mut setup, _) = that_looks_up_for_ever();
    setup.set("FORWARD__CONNECT_TIMEOUT", "1s");
    let mut timeout = Command::new("timeout");
    timeout.arg(PATIENCE.as_secs().to_string());
    let asked = setup.command_by(timeout, &["check-config", "--online"]).output().expect("it runs");
    let told = String::from_utf8_lossy(&[asked.stdout, asked.stderr].concat()).into_owned();
    assert_eq!(asked.status.code(), Some(69), "{told}");
    assert!(told.contains("dns"), "{told}");
}

#[test]
fn where_threads_are_lacking_it_does_not_start_and_once_it_has_started_none_are_lacking() {
    let upstream = Upstream::start();
    // A name that is looked up, and keys that are read: what blocks has a thread of its own.
    let mut setup = Setup::new(&upstream.base_url().replace("127.0.0.1", "localhost"));
    let keys = setup.dir().join("keys");
    std::fs::create_dir(&keys).expect("a folder");
    for name in ["access-key-id", "secret-access-key"] {
        std::fs::write(keys.join(name), "any").expect("a file");
    }
    setup.unset("CELLO__ACCESS_KEY_ID").unset("CELLO__SECRET_ACCESS_KEY");
    setup.set("CELLO__CREDENTIALS_DIR", keys.to_str().expect("a plain path"));
    let with = |threads: usize| setup.command_as(USER, &["prlimit", &format!("--nproc={threads}")], &["run"]);
    if with(ENOUGH).is_none() {
        println!("skipped: what a full limit of processes does: another user cannot run it here");
        return;
    }

    let starts = |threads: &usize| {
        let Err((code, stderr)) = Relay::try_start(with(*threads).expect("as before")) else { return true };
        assert_eq!(code, Some(74), "{threads} threads: {stderr}");
        assert!(
            stderr.contains("cannot start a thread: ") && !stderr.contains("panicked"),
            "{threads} threads: {stderr}"
        );
        false
    };
    let fewest = (1..ENOUGH).find(starts).expect("so many are enough");

    let relay = Relay::start(with(fewest).expect("as before"));
    assert_eq!(relay.client().post("/events", &event("somebody", 1)).expect("an answer").status, 200);
    upstream.wait_until_received(1);
    relay.wait_until_empty(PATIENCE);
    let (code, _, stderr) = setup.call(&["pause"]);
    assert_eq!(code, 0, "{stderr}");
    assert_eq!(relay.metric("cello_relay_panics_total", ""), 0.0);
    println!("{fewest} threads are enough for all");
}

#[test]
fn a_relay_whose_outbox_is_broken_off_by_a_bug_ends_with_70_and_the_next_start_delivers_what_was_answered() {
    let upstream = Upstream::start();
    let mut setup = Setup::new(&upstream.base_url());
    let trigger = setup.dir().join("panic");
    setup.raw("LD_PRELOAD", preload_library("panic").to_str().expect("a plain path"));
    setup.raw("PANIC_FILE", trigger.to_str().expect("a plain path"));
    let relay = setup.start();
    // Paused, so that it is the next start which delivers.
    assert_eq!(setup.call(&["pause"]).0, 0);
    assert_eq!(relay.client().post("/events", &event("somebody", 1)).expect("an answer").status, 200);
    std::fs::write(&trigger, "outbox-writer").expect("a file");
    let (code, log) = relay.wait();
    assert_eq!(code, Some(70), "{log}");
    assert!(log.contains("\"event\":\"panic\"") && log.contains("outbox-writer"), "{log}");

    std::fs::remove_file(&trigger).expect("as before");
    let relay = setup.start();
    assert_eq!(setup.call(&["resume"]).0, 0);
    relay.wait_until_empty(PATIENCE);
    assert_eq!(upstream.arrivals().count(), 1);
}
