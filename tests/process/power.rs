//! Power cuts. The real binary works on a directory while every call that changes it is recorded; the directory is
//! then rebuilt as a disk may hold it after a cut at any of these calls, and opened.

#[path = "power/check.rs"]
mod check;
#[path = "power/disk.rs"]
mod disk;
#[path = "power/log.rs"]
mod log;
#[path = "power/takeover.rs"]
mod takeover;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use fastrand::Rng;

use self::check::{Known, check};
use self::disk::{Cut, Disk};
use self::log::Record;
use crate::load::{Book, event, write};
use crate::relay::{PATIENCE, Relay, Setup};
use crate::upstream::Upstream;

/// The outbox below the recorded directory; neither part of the path is there before the first start.
pub(crate) const OUTBOX: &str = "data/outbox";
/// Cuts at random points, besides those at each sync.
const CUTS: usize = 300;
const CUTS_LONG: usize = 6000;

/// Builds the preloaded library that records and kills.
pub(crate) fn record_library() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let library = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("record-{}.so", std::process::id()));
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/record.c");
        let mut compiler = Command::new("cc");
        compiler.args(["-shared", "-fPIC", "-O1", "-o"]).arg(&library).args([source, "-ldl", "-lpthread"]);
        assert!(compiler.status().expect("a C compiler").success());
        library
    })
}

/// What happened to the directory, and for whom the relay forwarded.
struct Recording {
    records: Vec<Record>,
    upstream: String,
}

/// A relay's life: first start, traffic, batches under keys, dead letters and their replay, a backlog that makes the WAL overflow, its
/// delivery, the space given back, a kill, a second start, a drain.
fn record() -> Recording {
    let upstream = Upstream::start();
    let mut setup = Setup::new(&upstream.base_url());
    let volume = setup.dir().join("volume");
    std::fs::create_dir(&volume).expect("a folder");
    let (outbox, log, armed) = (volume.join(OUTBOX), setup.dir().join("log"), setup.dir().join("armed"));
    let plain = |path: &Path| path.to_str().expect("a plain path").to_owned();
    setup
        .set("OUTBOX__DIR", &plain(&outbox))
        .set("OUTBOX__RESERVE", "1MiB")
        .raw("LD_PRELOAD", &plain(record_library()))
        .raw("RECORD_DIR", &plain(&volume))
        .raw("RECORD_LOG", &plain(&log))
        .raw("KILL_AT", "sync outbox.db-wal 1")
        .raw("KILL_ARMED", &plain(&armed));
    let mut relay = setup.start();
    let book = Book::default();
    post(&relay, &book, 40);
    let mut batched = post_batches(&relay, 0..6);
    upstream.fault(r#"[{"path":"/events","status":400,"every":3,"message":"no"}]"#);
    post(&relay, &book, 20);
    relay.wait_until_empty(PATIENCE);
    upstream.fault(r#"[{"path":"/events","status":503}]"#);
    post(&relay, &book, 10);
    post_large(&relay, 70);
    batched += post_batches(&relay, 6..12);
    assert_eq!(setup.call(&["outbox", "replay", "--reason", "http_400"]).0, 0);
    let size = || std::fs::metadata(outbox.join("outbox.db")).expect("a database").len();
    let largest = size();
    assert!(largest > 2 << 20, "a checkpoint has moved the backlog to the database: {largest}");
    upstream.heal();
    relay.wait_until_empty(PATIENCE);
    relay.wait_until("space is given back", |_| size() < largest / 2);
    post(&relay, &book, 10);
    // It kills itself before a sync: another's kill could cut a call off that is not in the log yet.
    std::fs::write(&armed, "").expect("a file");
    assert_eq!(relay.ends_within(PATIENCE), Some(None), "killed by a signal");
    std::fs::remove_file(&armed).expect("a file");
    let relay = setup.start();
    post(&relay, &book, 20);
    batched += post_batches(&relay, 11..14);
    assert_eq!(relay.terminate().0, Some(0));
    let records = log::parse(&std::fs::read(&log).expect("a log"));
    let told: usize = records.iter().map(|record| if let Record::Told { ids } = record { ids.len() } else { 0 }).sum();
    assert_eq!(told, book.count() + 70 + batched, "every answer is in the log");
    Recording { records, upstream: upstream.base_url() }
}

fn post(relay: &Relay, book: &Book, count: usize) {
    let ingest = relay.ingest;
    std::thread::scope(|scope| {
        for writer in 0..4 {
            scope.spawn(move || write(book, ingest, writer, 3, count));
        }
    });
}

/// Posts batches of twenty, each under a key; how many events were answered.
fn post_batches(relay: &Relay, numbers: std::ops::Range<u64>) -> usize {
    let mut client = relay.client();
    let mut answered = 0;
    for number in numbers {
        let events: Vec<String> = (0..20).map(|user| event(&format!("batched-{user}"), number)).collect();
        let (key, body) = (format!("batch-{number}"), format!("[{}]", events.join(",")));
        let headers = [("Content-Type", "application/json"), ("Idempotency-Key", &key)];
        let answer = client.request("POST", "/events/batch", &headers, &body).expect("an answer");
        assert_eq!(answer.status, 200, "{}", answer.body);
        answered += events.len();
    }
    answered
}

fn post_large(relay: &Relay, count: u64) {
    let mut client = relay.client();
    for number in 0..count {
        let body =
            event("large", number).replace("\"sequence\"", &format!("\"x\":\"{}\",\"sequence\"", "x".repeat(60_000)));
        assert_eq!(client.post("/events", &body).expect("an answer").status, 200);
    }
}

/// What came of many cuts.
#[derive(Default)]
struct Tried {
    cuts: usize,
    failures: Vec<String>,
}

/// Cuts the power right before and after each sync, and at random records; as many as `most`.
fn cut_everywhere(recording: &Recording, random: &mut Rng, most: usize) -> Tried {
    let records = &recording.records;
    let mut ever = Known::default();
    records.iter().for_each(|record| ever.note(record));
    let is_sync = |at: &usize| matches!(records[*at], Record::Sync { .. } | Record::SyncDir { .. });
    let mut syncs: Vec<usize> = (0..records.len()).filter(is_sync).collect();
    random.shuffle(&mut syncs);
    let mut points: BTreeMap<usize, Vec<Cut>> = BTreeMap::new();
    for sync in syncs.into_iter().take(most) {
        points.entry(sync).or_default().push(Cut::Torn);
        points.entry(sync + 1).or_default().push([Cut::Lost, Cut::Torn, Cut::Kept][random.usize(..3)]);
    }
    for _ in 0..most {
        points.entry(random.usize(..=records.len())).or_default().push([Cut::Lost, Cut::Torn][random.usize(..2)]);
    }
    points.entry(records.len()).or_default().push(Cut::Lost);
    let (mut disk, mut known, mut tried) = (Disk::default(), Known::default(), Tried::default());
    for at in 0..=records.len() {
        for how in points.remove(&at).unwrap_or_default() {
            tried.cuts += 1;
            if let Err(failure) = cut(&disk, how, random, &recording.upstream, &known, &ever) {
                tried.failures.push(format!("cut at record {at} of {} ({how:?}): {failure}", records.len()));
            }
        }
        if let Some(record) = records.get(at) {
            disk.apply(record);
            known.note(record);
        }
    }
    tried
}

/// Where trees are rebuilt: in memory, as their many small files are no disk's trial.
fn place() -> &'static Path {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { memory } else { Path::new(env!("CARGO_TARGET_TMPDIR")) }
}

fn cut(disk: &Disk, how: Cut, random: &mut Rng, upstream: &str, known: &Known, ever: &Known) -> Result<(), String> {
    let dir = tempfile::tempdir_in(place()).expect("a folder");
    disk::write(&disk.cut(how, random), dir.path());
    check(&dir.path().join(OUTBOX), upstream, known, ever)
}

#[test]
fn after_a_power_cut_at_any_point_every_event_answered_2xx_is_there() {
    let seed = if crate::long() { fastrand::u64(..) } else { 20_261_123 };
    let most = if crate::long() { CUTS_LONG } else { CUTS };
    let mut recording = record();
    let syncs = |recording: &Recording| recording.records.iter().filter(|r| matches!(r, Record::Sync { .. })).count();
    let tried = cut_everywhere(&recording, &mut Rng::with_seed(seed), most);
    println!(
        "{} power cuts over {} recorded calls with {} syncs of files (seed {seed}): {} failures",
        tried.cuts,
        recording.records.len(),
        syncs(&recording),
        tried.failures.len(),
    );
    assert!(tried.failures.is_empty(), "{:#?}", tried.failures);

    // The same life with its syncs struck out must not pass, or this test proves nothing.
    let whole = recording.records.clone();
    recording.records.retain(|record| !matches!(record, Record::SyncDir { .. }));
    let tried = cut_everywhere(&recording, &mut Rng::with_seed(seed), 20);
    assert!(tried.failures.len() > 20, "without syncs of directories nothing is safe");
    recording.records = whole;
    let mut number = 0;
    recording.records.retain(|record| {
        number += usize::from(matches!(record, Record::Sync { .. }));
        !matches!(record, Record::Sync { .. }) || !number.is_multiple_of(4)
    });
    let tried = cut_everywhere(&recording, &mut Rng::with_seed(seed), 40);
    assert!(!tried.failures.is_empty(), "a sync in four left out is noticed");
}
