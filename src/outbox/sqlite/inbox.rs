//! The way from async callers to the writer's thread: a list that the writer takes as a whole.
//!
//! Deliveries wait there a moment for company, so that a page from which several events go is written
//! once; nobody waits for them but the same users' next events. Where there is none, they wait somewhat longer
//! for whatever comes next, and go with its commit.
//!
//! Bounded: appends hold room (bytes) while they wait; settles and claims are bounded by the leases
//! and callers there are. Its tests are in `tests/interleavings/inbox_models.rs`.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use super::row;
use crate::event::{EventId, UserId};
use crate::outbox::{
    AppendError, Batch, Claimed, Erased, Outcome, ReadError, Receipt, Replayed, Selection, SettleError, Settled, Terms,
    Want,
};
use crate::sync::{Condvar, Instant, Mutex, MutexGuard};

/// Room for appends that wait for the writer, in units of 1 KiB.
const ROOM_KIB: u32 = 2048;

/// Deliveries are taken when there are so many …
pub(super) const GATHER: usize = 48;
/// … or the first has waited so long and something else comes, or a user's next event waits …
pub(super) const GATHER_FOR: Duration = Duration::from_millis(2);
/// … or so long in any case: what was delivered and is not recorded when the process is killed goes out again.
pub(super) const LINGER_FOR: Duration = Duration::from_millis(15);

/// What the writer waits for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted {
    /// So many commands that are no deliveries.
    pub(super) commands: usize,
    /// Claims count as commands, as one might get something; else they wait until there is another reason.
    pub(super) claims: bool,
    /// Deliveries wait so long for company …
    pub(super) company: Duration,
    /// … or until there are so many: no more than can come, if a user's next event waits.
    pub(super) gather: usize,
    /// Deliveries may come soon: it looks once by itself after the time of their company, so that one that comes before
    /// wakes nobody.
    pub(super) expects: bool,
    /// It looks around at the latest after so long.
    pub(super) within: Duration,
}

/// What the writer is asked to do.
pub(super) enum Command {
    /// `_room` is given back when the command is done with.
    Append {
        batch: Batch,
        _room: OwnedSemaphorePermit,
        reply: oneshot::Sender<Result<Receipt, AppendError>>,
    },
    Claim {
        want: Want,
        reply: oneshot::Sender<Vec<Claimed>>,
    },
    Intend {
        seq: u64,
        epoch: u64,
        reply: oneshot::Sender<Result<(), SettleError>>,
    },
    Settle {
        seq: u64,
        epoch: u64,
        outcome: Outcome,
        reply: oneshot::Sender<Result<Settled, SettleError>>,
    },
    Decide {
        decision: Decision,
        which: Selection,
        reply: oneshot::Sender<Result<Decided, ReadError>>,
    },
    Close {
        reply: oneshot::Sender<()>,
    },
}

/// Answers a caller. One that left does not want to know.
pub(super) fn answer<T>(reply: oneshot::Sender<T>, answer: T) {
    if reply.send(answer).is_err() {
        tracing::trace!("a caller left before its answer");
    }
}

/// What an operator does with events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Decision {
    /// Of dead letters.
    Replay(Terms),
    /// Of dead letters.
    Discard,
    /// Of all that is kept of a user.
    Erase(UserId),
}

/// What has come of a decision.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Decided {
    /// Dead letters put back or discarded, and those passed over.
    pub(super) replayed: Replayed,
    /// What was erased.
    pub(super) erased: Erased,
    /// Events of the user that are in flight: to be erased when they have landed.
    pub(super) flying: Vec<EventId>,
}

impl Decided {
    /// Adds what a slice came to.
    pub(super) fn add(&mut self, slice: Self) {
        self.replayed.count += slice.replayed.count;
        self.replayed.passed_over += slice.replayed.passed_over;
        self.replayed.next = slice.replayed.next;
        self.erased.add(slice.erased);
        self.flying.extend(slice.flying);
    }
}

/// The list and its bell.
pub(super) struct Inbox {
    state: Mutex<State>,
    bell: Condvar,
    room: Arc<Semaphore>,
}

#[derive(Default)]
struct State {
    commands: Vec<Command>,
    claims: Vec<Command>,
    deliveries: Vec<Command>,
    /// Since when the first delivery waits for company. Real time, as is the wait for commands.
    gathering: Option<Instant>,
    /// Someone wants the writer to look around, though there is no command.
    nudged: bool,
    /// What the writer waits for and until when, while it does and nobody has rung.
    waiting: Option<(Wanted, Instant)>,
    end: End,
}

impl State {
    /// Whether the writer has a reason to go on.
    fn has(&self, wanted: Wanted) -> bool {
        let claims = if wanted.claims { self.claims.len() } else { 0 };
        self.nudged
            || self.end == End::Abandoned
            || self.commands.len() + claims >= wanted.commands
            || self.are_ripe(wanted.gather, wanted.company)
    }

    /// Whether deliveries have waited long enough.
    fn are_ripe(&self, gather: usize, company: Duration) -> bool {
        let are_late = || self.gathering.is_some_and(|since| since.elapsed() >= company);
        !self.deliveries.is_empty() && (self.deliveries.len() >= gather || are_late())
    }

    /// How long until there is a reason to look again.
    fn patience(&self, wanted: Wanted, until: Instant) -> Duration {
        let ripe = self.gathering.map(|since| since + wanted.company);
        ripe.map_or(until, |ripe| ripe.min(until)).saturating_duration_since(Instant::now())
    }
}

/// Whether the writer goes on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum End {
    #[default]
    Open,
    /// Nothing is taken any more.
    Closed,
    /// The store was dropped: stop as if the process had been killed.
    Abandoned,
}

impl Inbox {
    pub(super) fn new() -> Self {
        Self { state: Mutex::default(), bell: Condvar::new(), room: Arc::new(Semaphore::new(ROOM_KIB as usize)) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The room a batch takes while it waits; one that is larger than all room takes all of it.
    fn room_of(batch: &Batch) -> u32 {
        let bytes: u64 = batch.events.iter().map(row::event_bytes).sum();
        u32::try_from(bytes / 1024 + 1).unwrap_or(ROOM_KIB).min(ROOM_KIB)
    }

    /// Room for a batch, if there is some now.
    pub(super) fn try_room(&self, batch: &Batch) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.room).try_acquire_many_owned(Self::room_of(batch)).ok()
    }

    /// Waits for room for a batch; `None` once closed.
    pub(super) async fn wait_for_room(&self, batch: &Batch) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.room).acquire_many_owned(Self::room_of(batch)).await.ok()
    }

    /// Hands a command to the writer; gives it back once closed.
    pub(super) fn push(&self, command: Command) -> Result<(), Command> {
        let mut state = self.state();
        if state.end != End::Open {
            return Err(command);
        }
        if matches!(command, Command::Close { .. }) {
            state.end = End::Closed;
            self.room.close();
        }
        let is_first_delivery = match command {
            Command::Settle { outcome: Outcome::Delivered { .. }, .. } => {
                state.deliveries.push(command);
                state.gathering.is_none()
            }
            Command::Claim { .. } => {
                state.claims.push(command);
                false
            }
            _ => {
                state.commands.push(command);
                false
            }
        };
        if is_first_delivery {
            state.gathering = Some(Instant::now());
        }
        let rings = state.waiting.is_some_and(|(wanted, until)| {
            // The first delivery ends a longer wait: from now on there is a time to keep.
            let is_late = || until > Instant::now() + wanted.company;
            state.has(wanted) || is_first_delivery && is_late()
        });
        if rings {
            state.waiting = None;
        }
        drop(state);
        if rings {
            self.bell.notify_one();
        }
        Ok(())
    }

    /// Makes the writer look around. Never blocks for long.
    pub(super) fn nudge(&self) {
        self.state().nudged = true;
        self.bell.notify_one();
    }

    /// Makes the writer stop where it is.
    pub(super) fn abandon(&self) {
        let mut state = self.state();
        state.end = End::Abandoned;
        let State { commands, claims, deliveries, .. } = &mut *state;
        let unanswered = [commands, claims, deliveries].map(std::mem::take);
        drop(state);
        drop(unanswered);
        self.room.close();
        self.bell.notify_one();
    }

    /// Whether nothing is taken any more.
    pub(super) fn is_closed(&self) -> bool {
        self.state().end != End::Open
    }

    /// Whether the store was dropped.
    pub(super) fn is_abandoned(&self) -> bool {
        self.state().end == End::Abandoned
    }

    /// Whether nothing waits but deliveries and claims.
    pub(super) fn is_quiet(&self) -> bool {
        self.state().commands.is_empty()
    }

    /// Takes all commands into `into`, waiting for what is wanted; deliveries only when they have waited
    /// long enough.
    pub(super) fn take(&self, wanted: Wanted, into: &mut Vec<Command>) {
        let mut state = self.state();
        if !wanted.within.is_zero() {
            let until = Instant::now() + wanted.within;
            let mut look = wanted.expects.then_some(wanted.company);
            while !state.has(wanted) {
                let patience = state.patience(wanted, until);
                if patience.is_zero() && Instant::now() >= until {
                    break;
                }
                let patience = look.take().map_or(patience, |look| look.min(patience));
                state.waiting = Some((wanted, Instant::now() + patience));
                (state, _) = self.bell.wait_timeout(state, patience).unwrap_or_else(PoisonError::into_inner);
                state.waiting = None;
            }
        }
        state.nudged = false;
        // A commit that is due anyway takes them along, and the last one all.
        let company = match state.end {
            End::Open if state.commands.is_empty() => wanted.company,
            End::Open => wanted.company.min(GATHER_FOR),
            _ => Duration::ZERO,
        };
        into.append(&mut state.commands);
        into.append(&mut state.claims);
        if state.are_ripe(wanted.gather, company) {
            into.append(&mut state.deliveries);
            state.gathering = None;
        }
    }
}
