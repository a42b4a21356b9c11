//! Files whose bytes are not what was written, wherever they are wrong.

#![allow(clippy::unwrap_used, reason = "a test that fails there says where")]
#![expect(clippy::print_stdout, reason = "figures and seeds are told")]

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::path::Path;

use bytes::Bytes;
use cello_relay::event::{EventId, UserId};
use cello_relay::metrics::StoreError;
use cello_relay::outbox::sqlite::{Offline, OpenError, Sqlite, aside, offline};
use cello_relay::outbox::{AppendError, Batch, DeadLetters, Filter, Ledger, Outbox, State};
use cello_relay::reason::Reason;

use crate::outbox_support::{Fixture, PATIENCE, batch, claim, dead, deliver_what_is_left, delivered, event};

// --- bytes that are not what was written

/// An outbox as a crash left it, and what was in it.
pub(crate) struct Sample {
    pub(crate) files: BTreeMap<String, Vec<u8>>,
    pub(crate) bodies: HashMap<EventId, Bytes>,
    pub(crate) waiting: BTreeSet<EventId>,
    pub(crate) dead: BTreeSet<EventId>,
    pub(crate) ledger: Ledger,
}

/// Many small syncs are not what is tried here.
fn fixture_in_memory() -> Fixture {
    let mut fixture = Fixture::new();
    if let Ok(dir) = tempfile::tempdir_in("/dev/shm") {
        fixture.settings.dir = dir.path().join("outbox");
        fixture.dir = dir;
    }
    fixture
}

/// `is_checkpointed`: all is in the database; else much is only in the WAL.
async fn sample(is_checkpointed: bool) -> Sample {
    let fixture = Fixture::new();
    let store = fixture.open();
    let mut bodies = HashMap::new();
    for round in 0..40 {
        let events: Vec<_> = (0..10).map(|n| event(&format!("user-{}", n % 7), round * 10 + n)).collect();
        let sent: Vec<Bytes> = events.iter().map(|event| event.body.clone()).collect();
        bodies.extend(store.append(Batch { events, key: None }).await.unwrap().ids.into_iter().zip(sent));
    }
    let mut waiting: BTreeSet<EventId> = bodies.keys().copied().collect();
    let mut dead_ids = BTreeSet::new();
    for claimed in claim(&store, 7).await {
        waiting.remove(&claimed.id);
        let is_dead = dead_ids.len() < 3 && dead_ids.insert(claimed.id);
        let outcome = if is_dead { dead(Reason::Http400) } else { delivered() };
        store.settle(claimed.lease, outcome).await.unwrap();
    }
    let ledger = store.stats().ledger;
    if is_checkpointed {
        store.close().await;
    }
    drop(store);
    let names = ["outbox.db", "outbox.db-wal"].into_iter().filter(|name| fixture.path(name).exists());
    let files = names.map(|name| (name.to_owned(), fs::read(fixture.path(name)).unwrap())).collect();
    Sample { files, bodies, waiting, dead: dead_ids, ledger }
}

fn put(dir: &Path, files: &BTreeMap<String, Vec<u8>>) {
    fs::create_dir_all(dir).unwrap();
    for (name, bytes) in files {
        fs::write(dir.join(name), bytes).unwrap();
    }
}

/// Flips bits, overwrites a stretch, or cuts the file; says whether it was cut.
fn damage(bytes: &mut Vec<u8>, random: &mut fastrand::Rng) -> bool {
    let how = random.u32(..8);
    match how {
        0 => bytes.truncate(random.usize(..bytes.len())),
        1 => {
            let from = random.usize(..bytes.len());
            let to = (from + random.usize(1..9000)).min(bytes.len());
            bytes[from..to].fill(random.u8(..));
        }
        _ => {
            for _ in 0..random.usize(1..12) {
                let at = random.usize(..bytes.len());
                bytes[at] ^= random.u8(1..);
            }
        }
    }
    how == 0
}

/// What came of a damaged outbox.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub(crate) served: usize,
    pub(crate) quarantined: usize,
    pub(crate) dead_as_corrupt: usize,
    told: usize,
    lost: u64,
}

/// Appends as apps do: when the outbox fails in that moment, once more.
async fn append_again(store: &Sqlite) -> EventId {
    loop {
        match store.append(batch(&["user-0"])).await {
            Ok(receipt) => break receipt.ids[0],
            Err(error) => assert_eq!(error, AppendError::Unavailable),
        }
        tokio::task::yield_now().await;
    }
}

/// Opens damaged files, works through them, and holds what must hold.
pub(crate) async fn survive(sample: &Sample, files: &BTreeMap<String, Vec<u8>>, seen: &mut Seen, may_forget: bool) {
    let fixture = fixture_in_memory();
    put(&fixture.settings.dir, files);
    let store = fixture.open();
    let new = append_again(&store).await;
    let mut sent = tokio::time::timeout(PATIENCE, deliver_what_is_left(&store)).await.expect("it comes to an end");
    let filter = Filter { state: Some(State::Dead), ..Filter::default() };
    // Damage that is met by looking makes the store move the file aside.
    let dead_now = async {
        loop {
            match store.list(filter.clone(), None, 1000).await {
                Ok(dead) => break dead,
                Err(_) => sent.extend(deliver_what_is_left(&store).await),
            }
        }
    };
    let dead_now = tokio::time::timeout(PATIENCE, dead_now).await.expect("what is dead can be seen");
    // A copy that goes on ends before anything new is handed out.
    let end = append_again(&store).await;
    sent.extend(tokio::time::timeout(PATIENCE, deliver_what_is_left(&store)).await.expect("it comes to an end"));
    let mut last: HashMap<String, u64> = HashMap::new();
    for (id, user, body) in &sent {
        assert!(
            [new, end].contains(id) || sample.bodies.get(id) == Some(body),
            "a body that nobody posted: {id} {body:?}"
        );
        assert!(last.insert(user.clone(), id.seq()).is_none_or(|before| before < id.seq()), "{user}: out of order");
    }
    let sent: BTreeSet<EventId> = sent.into_iter().map(|(id, ..)| id).collect();
    assert!(sent.contains(&new) && sent.contains(&end), "new events are taken");
    let stats = store.stats();
    let ledger = stats.ledger;
    let corrupt = dead_now.iter().filter(|dead| dead.report.reason == Some(Reason::Corrupt)).count();
    // The rest of an id may be what is damaged.
    let dead_now: BTreeSet<u64> = dead_now.iter().map(|dead| dead.id.seq()).collect();
    let is_kept = |id: &&EventId| sent.contains(*id) || dead_now.contains(&id.seq());
    let missing = sample.waiting.iter().chain(&sample.dead).filter(|id| !is_kept(id));
    let missing = missing.count() as u64;
    let is_wal_told_of = fixture.metrics.outbox_errors.with(StoreError::Corrupt).get() > 0;
    let is_noticed = stats.quarantined_files > 0 || corrupt > 0 || is_wal_told_of;
    seen.told += usize::from(is_wal_told_of);
    seen.served += usize::from(missing == 0 && !is_noticed);
    seen.quarantined += usize::from(stats.quarantined_files > 0);
    seen.dead_as_corrupt += usize::from(corrupt > 0);
    seen.lost += ledger.lost;
    drop(store);
    // A page that became an empty one is no error to SQLite; a check compares the ledger with the rows.
    let is_found = || offline(&fixture.settings.dir).unwrap().check().map_or(true, |findings| !findings.is_empty());
    let is_told = is_noticed || may_forget || is_found();
    assert!(missing == 0 || is_told, "{missing} events are gone and nobody noticed: {ledger:?}");
    let again = fixture.open().stats();
    // What only another opening meets is mended by that one.
    let is_met_now = again.quarantined_files > stats.quarantined_files;
    assert!(again.ledger == ledger || is_met_now, "and it opens again: {:?}", again.ledger);
    assert_eq!(fixture.open().stats().quarantined_files, again.quarantined_files, "and again");
}

/// `may_be_cut`: a file that is cut may be taken for a shorter one.
async fn flip(is_checkpointed: bool, name: &str, may_be_cut: bool) -> Seen {
    let rounds: u64 =
        if std::env::vars().any(|(key, value)| key == "CELLO_RELAY_TEST_LONG" && value == "1") { 3000 } else { 60 };
    let sample = sample(is_checkpointed).await;
    assert_eq!(sample.ledger.undelivered() as usize, sample.waiting.len());
    let mut seen = Seen::default();
    // In the last ones the search for where a step of reading begins ends beyond rows that are there, and the base URL that
    // the file is bound to becomes another one.
    for seed in (0..rounds).chain([381, 1361]) {
        let mut files = sample.files.clone();
        let is_cut = damage(files.get_mut(name).unwrap(), &mut fastrand::Rng::with_seed(seed));
        println!("{name}: seed {seed}");
        survive(&sample, &files, &mut seen, may_be_cut && is_cut).await;
    }
    println!("{rounds} damaged {name}: {seen:?}");
    seen
}

#[tokio::test]
async fn whatever_byte_of_the_database_is_wrong_nothing_wrong_is_sent_and_what_is_gone_is_noticed() {
    let seen = flip(true, "outbox.db", false).await;
    assert!(seen.quarantined > 0 && seen.served > 0 && seen.dead_as_corrupt > 0 && seen.lost > 0, "{seen:?}");
}

#[tokio::test]
async fn whatever_byte_of_the_wal_is_wrong_nothing_wrong_is_sent_and_what_is_gone_is_told_of() {
    let seen = flip(false, "outbox.db-wal", true).await;
    assert!(seen.told > 0 && seen.served > 0, "{seen:?}");
}

// --- a stopped relay's outbox, as the command line reads it

/// All that a listing shows of a file, page by page, in order.
fn list_all(outbox: &Offline, filter: &Filter) -> Vec<EventId> {
    let mut listed: Vec<EventId> = Vec::new();
    loop {
        let page = outbox.list(filter, listed.last().copied(), 64).unwrap();
        let is_last = page.len() < 64;
        listed.extend(page.iter().map(|line| line.id));
        if is_last {
            assert!(listed.windows(2).all(|pair| pair[0].seq() < pair[1].seq()), "in order, each once");
            return listed;
        }
    }
}

/// What is shown of a damaged file is what was stored, or said to be damaged; says how much that is.
fn assert_readable(sample: &Sample, outbox: &Offline, what: &str) -> u64 {
    let listed = list_all(outbox, &Filter::default());
    let mut intact = 0;
    for id in &listed {
        let Some(detail) = outbox.show(*id).unwrap().filter(|detail| detail.is_intact) else { continue };
        assert_eq!(sample.bodies.get(id), Some(&detail.body), "{what}: a body that nobody posted");
        intact += 1;
    }
    let of_user = Filter { user: Some(UserId::new("user-3")), ..Filter::default() };
    let dead = Filter { state: Some(State::Dead), ..Filter::default() };
    for filter in [of_user, dead] {
        assert!(list_all(outbox, &filter).iter().all(|id| listed.contains(id)), "{what}");
    }
    if let Some(damage) = outbox.damage() {
        assert_eq!(damage.readable, intact, "{what}");
        let all = (sample.waiting.len() + sample.dead.len()) as u64;
        assert!(damage.expected.is_none_or(|expected| expected == all), "{what}: {damage:?}");
    }
    intact
}

#[tokio::test]
async fn of_a_stopped_outbox_all_is_read_but_what_lies_on_a_damaged_page() {
    let sample = sample(true).await;
    let all = (sample.waiting.len() + sample.dead.len()) as u64;
    let pages = sample.files["outbox.db"].len() / 4096;
    let (mut whole, mut partly, mut told) = (0, 0, 0);
    for page in 1..pages {
        let fixture = fixture_in_memory();
        let mut files = sample.files.clone();
        files.get_mut("outbox.db").unwrap()[page * 4096..page * 4096 + 8].fill(0xff);
        put(&fixture.settings.dir, &files);
        let outbox = offline(&fixture.settings.dir).unwrap();
        let intact = assert_readable(&sample, &outbox, &format!("page {page}"));
        assert!(intact == all || outbox.damage().is_some(), "page {page}: {intact} of {all} and nothing is said");
        whole += usize::from(intact == all);
        partly += usize::from(intact < all && intact > all / 2);
        told += usize::from(outbox.damage().is_some_and(|damage| damage.expected == Some(all)));
    }
    println!("{pages} pages: {whole} without a loss, {partly} with most, {told} told of");
    assert!(partly > 3 && whole + partly > pages / 2 && told > 3, "{whole} and {partly} of {pages}, {told}");
}

#[tokio::test]
async fn whatever_bytes_of_a_stopped_outbox_are_wrong_nothing_wrong_is_shown_as_right() {
    let sample = sample(true).await;
    let mut random = fastrand::Rng::with_seed(11);
    for round in 0..60 {
        let fixture = fixture_in_memory();
        let mut files = sample.files.clone();
        damage(files.get_mut("outbox.db").unwrap(), &mut random);
        put(&fixture.settings.dir, &files);
        // A damaged head leaves nothing to read.
        if let Ok(outbox) = offline(&fixture.settings.dir) {
            assert_readable(&sample, &outbox, &format!("round {round}"));
        }
    }
}

#[tokio::test]
async fn a_damaged_file_that_was_moved_aside_can_be_read_by_its_name_while_the_relay_runs() {
    let sample = sample(true).await;
    let mut fixture = fixture_in_memory();
    fixture.settings.upstream = "https://other.example".to_owned();
    let mut files = sample.files.clone();
    // The page of the first events, and the schema's version is kept.
    let bytes = files.get_mut("outbox.db").unwrap();
    let len = bytes.len();
    bytes[len / 2..len / 2 + 4096].fill(0xff);
    put(&fixture.settings.dir, &files);
    let name = "outbox-20260101T000000000Z.damaged.db";
    fs::rename(fixture.path("outbox.db"), fixture.path(name)).unwrap();
    let _running = fixture.open();
    for path in [Path::new(name), &fixture.path(name)] {
        let outbox = aside(&fixture.settings.dir, path).unwrap();
        assert!(assert_readable(&sample, &outbox, name) > 0);
    }
    assert!(matches!(aside(&fixture.settings.dir, Path::new("other.db")), Err(OpenError::Missing { .. })));
}
