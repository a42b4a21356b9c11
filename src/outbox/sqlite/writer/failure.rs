//! When the file fails: what is on disk is not known any more, so everything in memory is forgotten and
//! the file opened anew, with growing waits. The process stays.

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::Writer;
use crate::event::Trigger;
use crate::metrics::{Discarded, Metrics, StoreError};
use crate::outbox::Ledger;
use crate::outbox::sqlite::env::Env;
use crate::outbox::sqlite::fault::Fault;
use crate::outbox::sqlite::place::Orphan;
use crate::outbox::sqlite::recovery;
use crate::outbox::sqlite::row::Books;
use crate::outbox::sqlite::store::{Failure, Store};
use crate::outbox::sqlite::unread::was_unread;
use crate::outbox::sqlite::wal;

/// The waits between attempts to open the file again.
const REOPEN_MIN: Duration = Duration::from_millis(100);
const REOPEN_MAX: Duration = Duration::from_secs(10);

/// When the file is opened again after a failure.
pub(super) struct Reopen {
    pub(super) at: Instant,
    wait: Duration,
    /// The counts that callers were answered by; the file that is opened may know less.
    books: Option<Books>,
}

impl Reopen {
    pub(super) fn starting(now: Instant) -> Self {
        Self { at: now, wait: REOPEN_MIN, books: None }
    }

    /// The file works: something was committed.
    pub(super) fn is_over(&mut self) {
        self.wait = REOPEN_MIN;
    }

    fn put_off(&mut self, now: Instant) {
        self.at = now + self.wait;
        self.wait = (self.wait * 2).min(REOPEN_MAX);
    }
}

impl Writer {
    pub(super) fn count(&self, fault: &Fault) {
        self.env.metrics.outbox_errors.with(fault.label()).inc();
        tracing::error!(event = "outbox_error", reason = fault.text(), "the outbox failed");
    }

    /// What is on disk is not known any more: forgets everything and opens the file anew.
    pub(super) fn fail(&mut self, fault: &Fault) {
        self.count(fault);
        // What was committed before may be synced yet: then it is answered. The rest is not.
        if let Err(other) = self.land_synced(true) {
            self.count(&other);
        }
        self.landing = None;
        // If the file lost its name, only what was committed is copied. Callers are answered by the drop of these.
        let undone = self.undo_open().unwrap_or_default();
        let unanswered = std::mem::take(&mut self.unanswered);
        let former = self.store.take();
        if let Some(store) = &former {
            let (flying, _) = store.queue.flying(|_| false);
            self.env.astray.lose(&flying, store.epoch, self.env.clock.instant());
            self.note_ends(&undone);
        }
        self.reopen.books = former.as_ref().map(|store| store.durable).or(self.reopen.books);
        match (fault, former) {
            (Fault::Gone, Some(store)) => self.env.orphans.push(Orphan { name: None, sql: store.sql }),
            (_, former) => drop(former),
        }
        self.shared.generation.fetch_add(1, Ordering::AcqRel);
        self.refuse();
        match fault {
            // A read that failed passes for damage: the file is sound, and is opened anew.
            Fault::Damaged(_) if was_unread(self.env.home.database()) => self.reopen(),
            Fault::Damaged(_) => {
                self.open_anew(|writer| recovery::quarantine(&mut writer.env, writer.epoch, writer.reopen.books));
            }
            Fault::Gone => self.reopen(),
            Fault::Full(_) | Fault::Broken(_) => self.reopen.put_off(self.env.clock.instant()),
        }
        // Without an answer callers know that nothing could be written; whoever then looks sees that too.
        self.publish();
        drop((undone, unanswered));
    }

    pub(super) fn reopen(&mut self) {
        self.open_anew(|writer| {
            writer.come_home()?;
            open_or_quarantine(&mut writer.env, writer.epoch, writer.reopen.books)
        });
    }

    /// The reader lets go of the file first: all connections of a process share what SQLite knows of the WAL, and one
    /// that was opened while nothing could be written lets none of them write any more.
    fn open_anew(&mut self, open: impl FnOnce(&mut Self) -> Result<Store, Failure>) {
        let shared = Arc::clone(&self.shared);
        let mut looks = shared.looks.lock().unwrap_or_else(PoisonError::into_inner);
        *looks = None;
        self.epoch += 1;
        let opened = open(self);
        self.opened(opened);
    }

    /// The directory may be gone, and with it the file that keeps others out.
    fn come_home(&mut self) -> Result<(), Failure> {
        self.env.home.create()?;
        if !self.env.home.is_locked_by(&self.lock) {
            self.lock = self.env.home.lock()?;
        }
        Ok(())
    }

    fn opened(&mut self, opened: Result<Store, Failure>) {
        self.shared.generation.fetch_add(1, Ordering::AcqRel);
        let known = self.reopen.books;
        let opened = opened.and_then(|mut store| {
            store.admit_loss(&self.env, known)?;
            if let Some(known) = known {
                count_unanswered(&self.env.metrics, &store.books.ledger, &known.ledger);
            }
            Ok(store)
        });
        match opened {
            Ok(store) => {
                tracing::info!(event = "outbox_reopened", "the outbox works again");
                if !self.was_open {
                    self.was_open = true;
                    self.stats.recovered = store.books.ledger.undelivered();
                }
                self.store = Some(store);
                self.reopen.books = None;
                self.is_oldest_known = false;
            }
            Err(failure) => {
                match failure {
                    Failure::Fault(fault) => self.count(&fault),
                    Failure::Refused(error) => tracing::error!(event = "outbox_error", %error, "the outbox failed"),
                }
                self.reopen.put_off(self.env.clock.instant());
            }
        }
    }
}

/// What was committed though nobody was told: whoever asked for it has not counted it, and never will.
fn count_unanswered(metrics: &Metrics, ledger: &Ledger, known: &Ledger) {
    metrics.accepted.with(Trigger::None).inc_by(ledger.accepted.saturating_sub(known.accepted));
    metrics.delivered.with(Trigger::None).inc_by(ledger.delivered.saturating_sub(known.delivered));
    metrics.discarded.with(Discarded::Erased).inc_by(ledger.erased.saturating_sub(known.erased));
}

/// Opens the file; a damaged one is moved aside. `known`: the counts, if the process has them.
pub(in crate::outbox::sqlite) fn open_or_quarantine(
    env: &mut Env,
    epoch: u64,
    known: Option<Books>,
) -> Result<Store, Failure> {
    match open_once(env, epoch, known) {
        // On a full disk not even the WAL's index can be made, or a name written down; the reserve makes room for it.
        Err(Failure::Fault(_)) if env.disk_is_full() => open_once(env, epoch, known),
        other => other,
    }
}

fn open_once(env: &mut Env, epoch: u64, known: Option<Books>) -> Result<Store, Failure> {
    if env.home.quarantine().is_some() || env.waiting_orphan().is_some() {
        return recovery::quarantine(env, epoch, known);
    }
    tell_of_damaged_wal(env);
    match Store::open(env, epoch, recovery::first_seq(env)) {
        Err(Failure::Fault(Fault::Damaged(_))) if was_unread(env.home.database()) => {
            Store::open(env, epoch, recovery::first_seq(env))
        }
        Err(Failure::Fault(fault @ Fault::Damaged(_))) => {
            env.metrics.outbox_errors.with(fault.label()).inc();
            recovery::quarantine(env, epoch, known)
        }
        other => other,
    }
}

/// SQLite passes over what lies behind a wrong byte of the WAL in silence; nothing more than telling can be done.
fn tell_of_damaged_wal(env: &Env) {
    let transactions = wal::transactions_behind_damage(env.home.wal());
    if transactions > 0 {
        env.metrics.outbox_errors.with(StoreError::Corrupt).inc();
        tracing::error!(
            event = "outbox_wal_damaged",
            transactions,
            "the write-ahead log is damaged: what was stored by its last transactions is lost"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outbox::Outcome;
    use crate::outbox::sqlite::testing::Bench;
    use crate::outbox::sqlite::writer::testing::Rig;

    #[test]
    fn an_opening_that_fails_is_tried_again_in_the_room_of_the_reserve() {
        let mut bench = Bench::with(&[], 0);
        let open = |bench: &mut Bench| open_or_quarantine(&mut bench.env, 2, None).is_ok();
        bench.env.home.make_reserve(1 << 20).unwrap();
        assert!(open(&mut bench) && bench.env.home.reserve_bytes() > 0, "it is not touched without need");
        // It cannot be written, for a reason that need not be known.
        bench.store.sql.begin().unwrap();
        assert!(!open(&mut bench) && bench.env.home.reserve_bytes() == 0);
    }

    #[test]
    fn of_a_wal_nothing_is_told_unless_it_is_damaged() {
        let mut bench = Bench::with(&["a"], 10);
        for user in ["b", "c", "d"] {
            bench.gate(user);
        }
        let wal = std::fs::read(bench.env.home.wal()).unwrap();
        let told = |bench: &Bench| {
            tell_of_damaged_wal(&bench.env);
            bench.env.metrics.outbox_errors.with(StoreError::Corrupt).get()
        };
        assert_eq!(told(&bench), 0);
        let mut wrong = wal.clone();
        wrong[100] ^= 1;
        std::fs::write(bench.env.home.wal(), wrong).unwrap();
        assert_eq!(told(&bench), 1);
    }

    #[test]
    fn what_was_committed_though_its_sync_failed_is_counted_once_when_the_file_is_opened_again() {
        let mut bench = Bench::with(&["a"], 10);
        bench.store.books.ledger.accepted = 1;
        bench.store.durable = bench.store.books;
        let mut rig = Rig::new(bench);
        let (claim, mut claimed) = Rig::claim(1);
        rig.turn([claim]);
        let claimed = claimed.try_recv().unwrap().remove(0);
        rig.knock();
        let (settle, _settled) = Rig::settle(claimed, Outcome::Delivered { request_id: None });
        let (append, appended) = rig.append(&["b", "c"], 10);
        rig.turn([settle, append]);
        // It waits for the commit's sync, and goes with it.
        let (behind, not_appended) = rig.append(&["d"], 10);
        rig.turn([behind]);
        assert!(rig.syncs.end(false));
        rig.turn([]);
        assert!(appended.blocking_recv().is_err() && not_appended.blocking_recv().is_err());
        let counted = |rig: &Rig| {
            let metrics = &rig.writer.env.metrics;
            (metrics.accepted.with(Trigger::None).get(), metrics.delivered.with(Trigger::None).get())
        };
        assert_eq!(counted(&rig), (0, 0));
        for _ in 0..2 {
            rig.writer.reopen.at = rig.writer.env.clock.instant();
            rig.turn([]);
            assert_eq!((rig.stats().refusing, counted(&rig)), (None, (2, 1)));
            assert_eq!((rig.stats().ledger.accepted, rig.stats().ledger.delivered), (3, 1));
            rig.writer.fail(&Fault::Gone);
            assert_eq!(counted(&rig), (2, 1), "nobody was answered by more since");
        }
    }

    #[test]
    fn of_what_was_in_flight_when_the_file_failed_only_what_nobody_settled_may_be_being_sent() {
        let mut bench = Bench::with(&["a", "b", "c", "d"], 10);
        bench.store.books.ledger.accepted = 4;
        bench.store.durable = bench.store.books;
        let mut rig = Rig::new(bench);
        let (claim, mut claimed) = Rig::claim(4);
        rig.turn([claim]);
        let [a, b, c, d]: [_; 4] = claimed.try_recv().unwrap().try_into().unwrap();
        rig.knock();
        let settles = [(a, Outcome::Delivered { request_id: None }), (b, Outcome::Release)];
        let synced = settles.map(|(claimed, outcome)| Rig::settle(claimed, outcome).0);
        rig.turn(synced);
        rig.turn([Rig::settle(c, Outcome::Release).0]);
        assert!(rig.syncs.end(false));
        rig.turn([]);
        let astray = |rig: &Rig| {
            let env = &rig.writer.env;
            [1, 2, 3, 4].map(|seq| env.astray.holds(seq, env.clock.instant()))
        };
        assert_eq!(astray(&rig), [false, false, false, true]);
        rig.turn([Rig::settle(d, Outcome::Release).0]);
        assert_eq!(astray(&rig), [false; 4], "though that cannot be recorded");
    }

    #[test]
    fn a_file_that_does_not_open_is_tried_again_after_waits_that_double_up_to_ten_seconds() {
        let now = Instant::now();
        let mut reopen = Reopen::starting(now);
        assert_eq!(reopen.at, now);
        for millis in [100, 200, 400, 800, 1600, 3200, 6400, 10_000, 10_000] {
            reopen.put_off(now);
            assert_eq!(reopen.at - now, Duration::from_millis(millis));
        }
    }
}
