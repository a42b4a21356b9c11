//! A writer without its thread: it takes a turn when it is told to.

use std::time::Duration;

use tempfile::TempDir;
use tokio::sync::oneshot::{Receiver, channel};

use super::Writer;
use super::syncer::{Held, Syncer};
use crate::event::{Event, Trigger, UserId};
use crate::outbox::sqlite::inbox::{Command, Decided, Decision, GATHER, Wanted};
use crate::outbox::sqlite::store::Store;
use crate::outbox::sqlite::testing::Bench;
use crate::outbox::{
    AppendError, Batch, Claimed, Filter, Outcome, ReadError, Receipt, Selection, SettleError, Settled, Stats, Want,
};

/// See the module. A sync has a thread of its own (that of the test) while somebody waits for the writer.
pub(super) struct Rig {
    pub(super) writer: Writer,
    pub(super) syncs: Held,
    _dir: TempDir,
}

impl Rig {
    pub(super) fn new(bench: Bench) -> Self {
        let (mut writer, dir) = bench.into_writer();
        let (syncer, syncs) = Syncer::held();
        writer.syncer = syncer;
        writer.env.seams.worth_a_thread = Duration::ZERO;
        Self { writer, syncs, _dir: dir }
    }

    /// A turn with these commands.
    pub(super) fn turn(&mut self, commands: impl IntoIterator<Item = Command>) {
        self.writer.inbox.extend(commands);
        let work = self.writer.sort();
        self.writer.turn(work);
    }

    /// An append of one event for each of these users, with bodies of that size.
    pub(super) fn append(&self, users: &[&str], bytes: usize) -> (Command, Receiver<Result<Receipt, AppendError>>) {
        let events = users.iter().map(|user| {
            let body = vec![b'x'; bytes].into();
            Event { user: UserId::new(user), trigger: Trigger::None, body, trace: None }
        });
        let batch = Batch { events: events.collect(), key: None };
        let room = self.writer.shared.inbox.try_room(&batch).unwrap();
        let (reply, answer) = channel();
        (Command::Append { batch, _room: room, reply }, answer)
    }

    /// A claim of at most so many events.
    pub(super) fn claim(max: usize) -> (Command, Receiver<Vec<Claimed>>) {
        let (reply, answer) = channel();
        (Command::Claim { want: Want { max, rotate: false }, reply }, answer)
    }

    /// The end of an event in flight.
    pub(super) fn settle(claimed: Claimed, outcome: Outcome) -> (Command, Receiver<Result<Settled, SettleError>>) {
        let (seq, epoch) = claimed.lease.end();
        let (reply, answer) = channel();
        (Command::Settle { seq, epoch, outcome, reply }, answer)
    }

    /// Somebody waits for the writer from now on.
    pub(super) fn knock(&self) {
        let (command, _) = self.append(&[], 0);
        assert!(self.writer.shared.inbox.push(command).is_ok());
    }

    /// Nobody waits any more.
    pub(super) fn hush(&self) {
        let (commands, company, within) = (1, Duration::ZERO, Duration::ZERO);
        let wanted = Wanted { commands, claims: false, company, gather: GATHER, expects: false, within };
        self.writer.shared.inbox.take(wanted, &mut Vec::new());
    }

    /// A decision about all dead letters, or all that is kept of a user.
    pub(super) fn decide(decision: Decision) -> (Command, Receiver<Result<Decided, ReadError>>) {
        let (reply, answer) = channel();
        (Command::Decide { decision, which: Selection::Matching(Filter::default()), reply }, answer)
    }

    /// What others see of it.
    pub(super) fn stats(&self) -> Stats {
        self.writer.shared.snapshot.lock().unwrap().stats.clone()
    }

    pub(super) fn store(&mut self) -> &mut Store {
        self.writer.store.as_mut().unwrap()
    }
}
