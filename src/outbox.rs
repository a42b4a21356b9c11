//! The outbox: where an accepted event waits, durably, until Cello has it.
//!
//! ```text
//! append ─▶ pending ─claim▶ in flight ─settle▶ delivered (payload erased; id remembered for a while)
//!              ▲              ├─ retry at t ─▶ retrying (attempts + 1)
//!              │              ├─ release ────▶ pending (nothing burned)
//!              └── replay ────└─ dead(reason) ▶ dead ─▶ replay | export | discard | erase
//! ```
//!
//! # What every implementation promises
//!
//! * **Append**: when [`Outbox::append`] resolves to `Ok`, the batch is on stable storage, whole. Once
//!   it was enqueued (at the call, if there is room) it is committed even if the caller stops waiting.
//! * **Order**: events of one user are handed out in append sequence, at most one at a time; the next
//!   one only after the former's settle is durable. Sequence, never time, decides. Dead letters leave
//!   the order; a replayed one takes its old place among what still waits.
//! * **No head-of-line blocking**: a user whose head waits for a retry delays nobody else.
//! * **Leases**: a claimed event belongs to its [`Lease`]. Dropping the lease gives the event back,
//!   unburned; so does a crash. A lease can be lost (the store was reopened); then settling says so.
//! * **Conservation**: `accepted = delivered + undelivered + dead + discarded + erased + lost`, kept
//!   in a [`Ledger`] that changes in the same transaction as the event.
//! * **Bounds**: a full outbox refuses appends and nothing else.
//! * **Memory** does not grow with the backlog.
//!
//! # Limits of the embedded store
//!
//! * A sequence number has 48 bits and starts below 2^40; a file that takes a damaged one's place starts
//!   2^32 above it, or at 2^41 a damaged file. At 100,000 events a second 2^47 numbers last 44 years.
//! * Memory: a window of 1,024 events or 1 MiB onto the queue, 2 MiB of appends that wait for a commit,
//!   2 MiB of page cache, and the events in flight; the same for ten pending events as for ten million.
//! * Disk: about 0.6 times the bytes of an event while it waits, as its most usual words take a byte each; 1.15
//!   times for a dead letter; 50 bytes for each delivered event that is remembered (100,000: 5 MB), a WAL of at most
//!   4 MiB, the reserve. A delivered event of 480 bytes writes about 2,800 bytes in all under load: itself to the
//!   WAL and to the database, its deletion, and its share of the pages that each commit touches.
//! * Dead letters may take half of `max_bytes`; what dies beyond that waits and is tried every 5 minutes.
//! * A lost lease, a crash between Cello's 2xx and the commit of its settle, or a damaged file hands an
//!   event out again: at least once. While the process lives, `forwarder::flights` keeps such an event
//!   from being sent again if Cello has it, and from being sent beside itself.
//! * Recovery from a damaged file keeps events and dead letters; failed attempts, remembered deliveries
//!   and idempotency keys of that file are forgotten. The intents to send of `forward.ambiguous = "dead"` are
//!   kept as far as they can be read: where they cannot, what was being sent is handed out again.
//!
//! The traits speak of append, claim, lease and settle, never of rows or locks, so that a replicated
//! store can stand behind them too. [`sqlite`] is the embedded store, [`memory`] the reference model;
//! one conformance suite (`tests/it/conformance.rs`) runs against both.

mod append;
mod decisions;
pub mod lease;
pub mod memory;
pub mod sqlite;
mod stats;
mod views;

use std::future::Future;
use std::pin::Pin;

use crate::clock::Timestamp;
use crate::event::{Event, EventId, UserId};
use crate::reason::Reason;
pub use append::{AppendError, Batch, Bound, Key, Receipt, Route};
pub use decisions::{DeadGroup, Erased, Replayed, Terms, may_be_counted};
pub(crate) use decisions::{names_user, unsure_of};
pub use lease::Lease;
pub use stats::{Flow, Ledger, Stats};
pub use views::{ATTEMPTS_KEPT, Detail, Filter, Listed, Report, Selection, State};

/// An answer of the store that is waited for.
pub type Wait<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Where events wait. Ingress appends and looks up; the forwarder claims and settles.
pub trait Outbox: Send + Sync + 'static {
    /// Stores a batch in one transaction; resolves when it is durable.
    ///
    /// # Errors
    /// Whatever the error, nothing of the batch will be delivered because of this call, except after
    /// [`AppendError::Unavailable`], where the disk may or may not have kept it.
    fn append(&self, batch: Batch) -> Wait<'_, Result<Receipt, AppendError>>;

    /// Waits for work and hands out up to `want.max` events of different users, in sequence.
    ///
    /// Never resolves to an empty list before [`Outbox::close`].
    fn claim(&self, want: Want) -> Wait<'_, Vec<Claimed>>;

    /// Commits the intent to send: after a crash this event is dead (`ambiguous`) and not sent again.
    /// Used only with `forward.ambiguous = "dead"`.
    ///
    /// # Errors
    /// See [`SettleError`].
    fn intend<'a>(&'a self, lease: &'a Lease) -> Wait<'a, Result<(), SettleError>>;

    /// Ends a lease; resolves when the outcome is durable.
    ///
    /// # Errors
    /// See [`SettleError`]; the event is then handed out again later, unless it has ended all the same.
    fn settle(&self, lease: Lease, outcome: Outcome) -> Wait<'_, Result<Settled, SettleError>>;

    /// What is known of an event; `None` once forgotten. May lag behind the latest commit.
    fn lookup(&self, id: EventId) -> Wait<'_, Result<Option<Report>, ReadError>>;

    /// Counts and sizes as of the last commit. Never waits for a disk.
    fn stats(&self) -> Stats;

    /// While `true`, retry times are ignored: every event counts as due (`drain` before a pod goes).
    fn ignore_backoff(&self, ignore: bool);

    /// Finishes queued work, checkpoints and closes. Waiting claims resolve to an empty list; appends
    /// are refused with [`AppendError::Closed`].
    fn close(&self) -> Wait<'_, ()>;
}

/// What operators do with events that wait or were given up.
pub trait DeadLetters: Send + Sync + 'static {
    /// A page of events, by sequence.
    fn list(&self, filter: Filter, after: Option<EventId>, limit: usize) -> Wait<'_, Result<Vec<Listed>, ReadError>>;

    /// One event with its last attempts and its body; `None` if it is neither waiting nor dead.
    fn show(&self, id: EventId) -> Wait<'_, Result<Option<Detail>, ReadError>>;

    /// The dead letters by reason, most first.
    fn dead_groups(&self) -> Wait<'_, Result<Vec<DeadGroup>, ReadError>>;

    /// Puts dead letters back into the queue, in their old sequence. Two at the same time put each back once.
    fn replay(&self, which: Selection, terms: Terms) -> Wait<'_, Result<Replayed, ReadError>>;

    /// Ends dead letters for good; says how many were dead.
    fn discard(&self, which: Selection) -> Wait<'_, Result<u64, ReadError>>;

    /// Erases all that was accepted of a user until now and is still kept: events that wait or are dead, and
    /// idempotency keys that name the user. Waits, for a while, for what is in flight.
    fn erase(&self, user: UserId) -> Wait<'_, Result<Erased, ReadError>>;
}

/// How much a claim takes, and from where.
#[derive(Clone, Copy, Debug)]
pub struct Want {
    /// At most so many events.
    pub max: usize,
    /// `false`: released events first, in sequence. `true`: users that were released lately last, so
    /// that probes rotate over users.
    pub rotate: bool,
}

/// An event handed out to be sent.
#[derive(Debug)]
pub struct Claimed {
    /// The right to settle it.
    pub lease: Lease,
    /// Its id.
    pub id: EventId,
    /// What to send, and whose it is.
    pub event: Event,
    /// What happened to it before.
    pub progress: Progress,
}

/// The failed attempts of an event so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// How many attempts were burned.
    pub attempts: u32,
    /// How many of them count towards giving up.
    pub strikes: u32,
    /// When the first of them failed.
    pub first_failed_at: Option<Timestamp>,
    /// Another user's event was delivered since this one's last attempt: the next failure is a strike.
    pub overtaken: bool,
}

/// One try at delivering an event, kept for the operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// When it ended.
    pub at: Timestamp,
    /// What came of it.
    pub reason: Reason,
    /// Cello's status, if it answered.
    pub status: Option<u16>,
    /// Cello's `apigw-requestid`.
    pub request_id: Option<Box<str>>,
    /// Cello's own words, capped. May hold personal data.
    pub message: Option<Box<str>>,
}

/// How an event in flight ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Cello has it.
    Delivered {
        /// Cello's `apigw-requestid`.
        request_id: Option<Box<str>>,
    },
    /// A failed attempt: burned, and due again at `at`.
    Retry {
        /// When it is due.
        at: Timestamp,
        /// Whether it counts towards giving up.
        strike: bool,
        /// What happened.
        attempt: Attempt,
    },
    /// Nothing burned: back to where it was.
    Release,
    /// The same, but it was sent, and nobody knows what became of it: Cello may have it.
    Unsure {
        /// What is known.
        attempt: Attempt,
    },
    /// Given up or refused; waits for an operator. `attempt.reason` may differ from `reason`
    /// (`exhausted` after an `http_5xx`, say).
    Dead {
        /// Why.
        reason: Reason,
        /// The last attempt.
        attempt: Attempt,
    },
}

/// What a settle did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settled {
    /// What was asked.
    Done,
    /// Dead letters already take their share: the event waits instead, its user held for
    /// `dead_letters_full`.
    HeldBack,
}

/// Why a settle was not recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SettleError {
    /// The lease is not known (any more): the event will be handed out again, or has ended meanwhile (its
    /// settle was committed, it was erased, or it is dead because of an intent).
    #[error("the lease was lost")]
    LeaseLost,
    /// The disk failed: the event will be handed out again, unless the outcome was committed all the same.
    #[error("the outbox cannot write")]
    Unavailable,
}

/// A look into the store failed.
#[derive(Clone, Debug, thiserror::Error)]
#[error("the outbox cannot be read: {0}")]
pub struct ReadError(pub String);
