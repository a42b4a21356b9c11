//! A disk that cannot be read for a moment, while what was written last is in memory.

use std::time::{Duration, Instant};

use crate::disk::Disk;
use crate::load::event;
use crate::relay::{PATIENCE, Relay};
use crate::upstream::Upstream;

/// Together several megabytes, most of which nothing has in memory after a start.
const BATCHES: usize = 20;
const BATCH: usize = 1000;

/// A relay that is paused, with all of these in its database.
fn with_a_backlog(disk: &Disk) -> Relay {
    let relay = disk.setup.start();
    assert_eq!(disk.setup.call(&["pause"]).0, 0);
    for batch in 0..BATCHES {
        let events: Vec<String> = (0..BATCH).map(|number| event(&format!("user-{batch}-{number}"), 1)).collect();
        let answer = relay.client().post("/events/batch", &format!("[{}]", events.join(",")));
        assert_eq!(answer.expect("an answer").status, 200);
    }
    relay.terminate();
    disk.setup.start()
}

/// So that not only a statement has failed, which is the end of it, but also the look whether the file can be read.
fn until_reads_failed(disk: &Disk, count: u64) {
    let deadline = Instant::now() + PATIENCE;
    while disk.failed_reads() < count {
        assert!(Instant::now() < deadline, "nothing is read");
        std::thread::park_timeout(Duration::from_millis(5));
    }
}

#[test]
fn reads_that_fail_for_a_moment_are_no_damage_whoever_meets_them() {
    for is_met_by_a_listing in [false, true] {
        let upstream = Upstream::start();
        let mut disk = Disk::new(&upstream);
        disk.setup.set("SHUTDOWN__DEADLINE", "0s");
        let relay = with_a_backlog(&disk);
        let before = disk.failed_reads();
        disk.fails("eio-far");
        if is_met_by_a_listing {
            assert_ne!(disk.setup.call(&["outbox", "export"]).0, 0);
            until_reads_failed(&disk, before + 2);
        } else {
            assert_eq!(disk.setup.call(&["resume"]).0, 0);
            until_reads_failed(&disk, before + 10);
        }
        disk.fails("");
        disk.setup.call(&["resume"]);
        relay.wait_until_empty(PATIENCE);
        assert_eq!(
            relay.metric("cello_relay_outbox_quarantined_files", ""),
            0.0,
            "by a listing: {is_met_by_a_listing}"
        );
        assert_eq!((relay.ledger("lost"), upstream.received()), (0, (BATCHES * BATCH) as u64));
    }
}
