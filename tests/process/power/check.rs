//! What must hold after a power cut, whatever the disk made of it.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use cello_relay::clock::SystemClock;
use cello_relay::event::EventId;
use cello_relay::metrics::{Metrics, StoreError};
use cello_relay::outbox::sqlite::{OpenError, Settings, Sqlite, offline};
use cello_relay::outbox::{Filter, Ledger, Outbox};

use super::log::Record;
use crate::relay::PATIENCE;

/// What apps and upstream knew at the time of the cut.
#[derive(Default)]
pub(crate) struct Known {
    /// Answered 2xx.
    pub(crate) told: BTreeSet<EventId>,
    /// Those that came in one batch, each batch under a key.
    pub(crate) batches: Vec<Vec<EventId>>,
    /// Answered 2xx by upstream.
    pub(crate) heard: BTreeSet<EventId>,
}

impl Known {
    pub(crate) fn note(&mut self, record: &Record) {
        match record {
            Record::Told { ids } => {
                self.told.extend(ids);
                self.batches.extend((ids.len() > 1).then(|| ids.clone()));
            }
            Record::Heard { id } => drop(self.heard.insert(*id)),
            _ => {}
        }
    }
}

/// Opens what is left in `dir`, first only looking, then as a relay does. `ever`: all that will be known.
pub(crate) fn check(dir: &Path, upstream: &str, known: &Known, ever: &Known) -> Result<(), String> {
    let ledger = look(dir, known, ever)?;
    let metrics: Arc<Metrics> = Arc::default();
    let store =
        unlocked(|| Sqlite::open(Settings::keeping_all(dir, upstream), Arc::new(SystemClock), Arc::clone(&metrics)));
    let stats = store.map_err(|error| format!("does not open: {error}"))?.stats();
    if stats.quarantined_files > 0 || metrics.outbox_errors.with(StoreError::Corrupt).get() > 0 {
        return Err("a power cut passes for damage".to_owned());
    }
    if stats.ledger != ledger {
        return Err(format!("the ledger changes by opening: {ledger:?} {:?}", stats.ledger));
    }
    check_keys(dir, known)
}

/// Opens, in spite of what other tests start at this moment: until it becomes another program, a child holds the locks
/// that its parent held when it was made.
fn unlocked<T>(open: impl Fn() -> Result<T, OpenError>) -> Result<T, OpenError> {
    let give_up_at = Instant::now() + PATIENCE;
    loop {
        match open() {
            Err(OpenError::Locked { .. }) if Instant::now() < give_up_at => std::thread::yield_now(),
            opened => return opened,
        }
    }
}

/// A batch that is posted again under its key is answered as it was.
fn check_keys(dir: &Path, known: &Known) -> Result<(), String> {
    let file = rusqlite::Connection::open(dir.join("outbox.db")).map_err(|error| error.to_string())?;
    for batch in &known.batches {
        let remembered = file.query_row(
            "SELECT count(*) FROM idempotency WHERE first_seq = ? AND count = ?",
            [batch[0].seq() as i64, batch.len() as i64],
            |row| row.get::<_, i64>(0),
        );
        if remembered != Ok(1) {
            return Err(format!("the key of an answered batch is not remembered: {remembered:?}"));
        }
    }
    Ok(())
}

fn look(dir: &Path, known: &Known, ever: &Known) -> Result<Ledger, String> {
    let outbox = match unlocked(|| offline(dir)) {
        Err(OpenError::Missing { .. }) if known.told.is_empty() => return Ok(Ledger::default()),
        opened => opened.map_err(|error| format!("of {} answered events: {error}", known.told.len()))?,
    };
    let findings = outbox.check().map_err(|error| error.to_string())?;
    if !findings.is_empty() {
        return Err(findings.join("; "));
    }
    let listed = outbox.list(&Filter::default(), None, usize::MAX).map_err(|error| error.to_string())?;
    let found: BTreeSet<EventId> = listed.iter().map(|listed| listed.id).collect();
    let lost = known.told.iter().filter(|id| !found.contains(id) && !known.heard.contains(id)).count();
    let invented = found.difference(&ever.told).count();
    // Of a batch all or nothing is there; once upstream has one of its events, what is left of it may be less.
    let waits = |batch: &&Vec<EventId>| !batch.iter().any(|id| known.heard.contains(id));
    for batch in ever.batches.iter().filter(waits) {
        let count = batch.iter().filter(|id| found.contains(id)).count();
        if count > 0 && count < batch.len() {
            return Err(format!("{count} of {} events of a batch are there", batch.len()));
        }
    }
    if lost + invented > 0 {
        return Err(format!("of {} answered events {lost} are lost; {invented} were never posted", known.told.len()));
    }
    let ledger = outbox.ledger().map_err(|error| error.to_string())?;
    let (told, heard, ever) = (known.told.len() as u64, known.heard.len() as u64, ever.told.len() as u64);
    let (dead, waiting) = (ledger.dead, ledger.undelivered());
    let adds_up = ledger.accepted == ledger.delivered + dead + waiting && dead + waiting == found.len() as u64;
    if !adds_up || !(told..=ever).contains(&ledger.accepted) || ledger.delivered > heard {
        return Err(format!("{told} answered, {heard} delivered, {} found, but {ledger:?}", found.len()));
    }
    Ok(ledger)
}
