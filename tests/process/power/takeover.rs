//! Power cuts while an outbox of before is taken over: a damaged one is moved aside and copied from, one of the first
//! schema takes the steps to the next.

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use cello_relay::clock::SystemClock;
use cello_relay::event::EventId;
use cello_relay::outbox::sqlite::{Settings, Sqlite};
use cello_relay::outbox::{Ledger, Outbox, Outcome, Want};
use fastrand::Rng;

use super::disk::{Cut, Disk, write};
use super::log::{Record, parse};
use super::{OUTBOX, place, record_library};
use crate::load::event;
use crate::relay::{PATIENCE, Relay, Setup};
use crate::upstream::Upstream;

/// A relay's directory below a volume that can be recorded.
fn setup(upstream: &Upstream) -> (Setup, PathBuf) {
    let mut setup = Setup::new(&upstream.base_url());
    let volume = setup.dir().join("volume");
    std::fs::create_dir(&volume).expect("a folder");
    let outbox = volume.join(OUTBOX);
    setup.set("OUTBOX__DIR", outbox.to_str().expect("a plain path")).set("SHUTDOWN__DEADLINE", "0s");
    (setup, volume)
}

/// What is there before the recording begins, as if it had been synced long ago.
fn standing(volume: &Path) -> Vec<Record> {
    let (data, _) = OUTBOX.split_once('/').expect("two parts");
    let mut records = Vec::new();
    for (path, parent) in [(data, "."), (OUTBOX, data)] {
        records.extend([Record::Mkdir { path: path.to_owned() }, Record::SyncDir { path: parent.to_owned() }]);
    }
    for file in std::fs::read_dir(volume.join(OUTBOX)).expect("the outbox").map(|file| file.expect("an entry").path()) {
        let name = file.file_name().and_then(|name| name.to_str()).expect("a plain name");
        if file.is_file() {
            let (ino, data) = (file.metadata().expect("a file").ino(), std::fs::read(&file).expect("a file"));
            let path = format!("{OUTBOX}/{name}");
            records.extend([Record::Create { ino, path }, Record::Write { ino, offset: 0, data: data.into() }]);
            records.push(Record::Sync { ino });
        }
    }
    records.push(Record::SyncDir { path: OUTBOX.to_owned() });
    records
}

/// Records a relay from its start on what stands there to its end.
fn record(setup: &mut Setup, volume: &Path, life: impl FnOnce(&Setup, &mut Relay)) -> Vec<Record> {
    let (before, log) = (standing(volume), setup.dir().join("log"));
    let plain = |path: &Path| path.to_str().expect("a plain path").to_owned();
    setup.raw("LD_PRELOAD", &plain(record_library())).raw("RECORD_DIR", &plain(volume)).raw("RECORD_LOG", &plain(&log));
    let mut relay = setup.start();
    life(setup, &mut relay);
    assert_eq!(relay.terminate().0, Some(0));
    [before, parse(&std::fs::read(&log).expect("a log"))].concat()
}

/// Opens what a cut has left as a relay does, and delivers all of it; what was sent, and the ledger at the end.
async fn work_through(dir: &Path, upstream: &str) -> (BTreeSet<EventId>, Ledger) {
    let store =
        Sqlite::open(Settings::keeping_all(dir, upstream), Arc::new(SystemClock), Arc::default()).expect("it opens");
    store.ignore_backoff(true);
    let mut sent = BTreeSet::new();
    while store.stats().ledger.undelivered() > 0 {
        // Only what was damaged may be booked in the end, and nothing be left to hand out.
        let claim = tokio::time::timeout(Duration::from_secs(1), store.claim(Want { max: 64, rotate: false }));
        let mut settles = Vec::new();
        for claimed in claim.await.unwrap_or_default() {
            sent.insert(claimed.id);
            settles.push(store.settle(claimed.lease, Outcome::Delivered { request_id: None }));
        }
        for settle in settles {
            // What is not settled is handed out again.
            settle.await.ok();
        }
    }
    (sent, store.stats().ledger)
}

/// Cuts the power right before each sync after the start; `check` looks at what is left.
fn cut_around_syncs(records: &[Record], from: usize, check: impl Fn(&Path, &str)) -> usize {
    let mut random = Rng::with_seed(20_261_125);
    let (mut disk, mut cuts) = (Disk::default(), 0);
    let ways: &[Cut] =
        if crate::long() { &[Cut::Lost, Cut::Torn, Cut::Torn, Cut::Kept] } else { &[Cut::Lost, Cut::Torn] };
    for (at, record) in records.iter().enumerate() {
        let is_sync = matches!(record, Record::Sync { .. } | Record::SyncDir { .. });
        if is_sync && at >= from {
            for how in ways.iter().copied() {
                let dir = tempfile::tempdir_in(place()).expect("a folder");
                write(&disk.cut(how, &mut random), dir.path());
                check(&dir.path().join(OUTBOX), &format!("a cut at record {at} of {} ({how:?})", records.len()));
                cuts += 1;
            }
        }
        disk.apply(record);
    }
    cuts
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}

#[test]
fn a_power_cut_while_a_damaged_outbox_is_taken_over_loses_no_more_than_was_damaged() {
    let upstream = Upstream::start();
    upstream.fault(r#"[{"path":"/events","status":503}]"#);
    let (mut setup, volume) = setup(&upstream);
    let relay = setup.start();
    let mut told = BTreeSet::new();
    for batch in 0..4 {
        let events: Vec<String> =
            (0..150).map(|number| event(&format!("user-{batch}-{}", number % 7), number)).collect();
        let answer = relay.client().post("/events/batch", &format!("[{}]", events.join(","))).expect("an answer");
        let ids = answer.json()["ids"].as_array().expect("ids").clone();
        told.extend(ids.iter().map(|id| id.as_str().expect("an id").parse::<EventId>().expect("an id")));
    }
    relay.terminate();
    let path = volume.join(OUTBOX).join("outbox.db");
    let mut bytes = std::fs::read(&path).expect("a database");
    let behind = bytes.len() / 4096 * 3 / 4 * 4096;
    bytes[behind..behind + 2 * 4096].fill(0xee);
    std::fs::write(&path, bytes).expect("a database");
    let mut damaged = 0;
    let records = record(&mut setup, &volume, |setup, relay| {
        setup.call(&["outbox", "export", "--state", "pending"]);
        damaged = relay.wait_for_event("outbox_recovered")["lost"].as_u64().expect("a count");
    });
    assert!((1..100).contains(&damaged), "{damaged} of {} are damaged", told.len());
    let from = records.iter().position(|record| matches!(record, Record::Rename { .. })).expect("it is moved");
    let runtime = runtime();
    let cuts = cut_around_syncs(&records, from.saturating_sub(10), |dir, what| {
        let (sent, ledger) = runtime.block_on(async {
            tokio::time::timeout(PATIENCE, work_through(dir, &upstream.base_url())).await.expect("an end")
        });
        let missing = told.difference(&sent).count() as u64;
        assert!(missing <= damaged, "{what}: {missing} are missing, {damaged} were damaged");
        let booked = (ledger.lost + ledger.dead, ledger.accepted);
        assert_eq!(booked, (missing, told.len() as u64), "{what}: {ledger:?}");
    });
    println!(
        "{cuts} power cuts while a damaged outbox is taken over: no more is lost than the {damaged} that were damaged"
    );
    assert!(cuts > 20, "{cuts} cuts");
}

#[test]
fn a_power_cut_while_an_outbox_of_the_first_schema_is_taken_over_loses_nothing() {
    let upstream = Upstream::start();
    upstream.fault(r#"[{"path":"/events","status":503}]"#);
    let (mut setup, volume) = setup(&upstream);
    std::fs::create_dir_all(volume.join(OUTBOX)).expect("folders");
    std::fs::copy("tests/files/outbox-v1.db", volume.join(OUTBOX).join("outbox.db")).expect("a file");
    assert_eq!(setup.call(&["outbox", "rebind", "--yes"]).0, 0);
    let records = record(&mut setup, &volume, |_, _| {});
    let from = standing_count(&records);
    let runtime = runtime();
    let cuts = cut_around_syncs(&records, from, |dir, what| {
        let (sent, ledger) = runtime.block_on(async {
            tokio::time::timeout(PATIENCE, work_through(dir, &upstream.base_url())).await.expect("an end")
        });
        // Three wait in that file, one was delivered, one is dead.
        let expected = Ledger { accepted: 5, delivered: 4, dead: 1, ..Ledger::default() };
        assert_eq!((sent.len(), ledger), (3, expected), "{what}");
    });
    println!("{cuts} power cuts while an outbox of the first schema is taken over: lost 0");
    assert!(cuts > 10, "{cuts} cuts");
}

/// The records of what stood there end with the first sync of the outbox directory.
fn standing_count(records: &[Record]) -> usize {
    let is_end = |record: &Record| matches!(record, Record::SyncDir { path } if path == OUTBOX);
    records.iter().position(is_end).expect("a sync") + 1
}
