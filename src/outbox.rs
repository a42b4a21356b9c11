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
//! * Disk: about 1.15 times the bytes of an event while it waits, 50 bytes for each delivered event that
//!   is remembered (100,000: 5 MB), a WAL of at most 4 MiB, the reserve. A delivered event of 480 bytes
//!   writes about 3,000 bytes in all: itself to the WAL and to the database, its deletion, and its share
//!   of the pages that each commit touches.
//! * Dead letters may take half of `max_bytes`; what dies beyond that waits and is tried every 5 minutes.
//! * A lost lease, a crash between Cello's 2xx and the commit of its settle, or a damaged file can hand
//!   an event out again: at least once.
//! * Recovery from a damaged file keeps events and dead letters; failed attempts, remembered deliveries
//!   and idempotency keys of that file are forgotten.
//!
//! The traits speak of append, claim, lease and settle, never of rows or locks, so that a replicated
//! store can stand behind them too. [`sqlite`] is the embedded store, [`memory`] the reference model;
//! one conformance suite (`tests/it/conformance.rs`) runs against both.

mod decisions;
pub mod lease;
pub mod memory;
pub mod sqlite;

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;

use crate::clock::Timestamp;
use crate::event::{Event, EventId, Trigger, UserId};
use crate::reason::Reason;
pub use decisions::{DeadGroup, Erased, Replayed, Terms, may_be_counted};
pub(crate) use decisions::{names_user, unsure_of};
pub use lease::Lease;

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
    /// See [`SettleError`]; the event is then handed out again later.
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

/// Events to be stored together.
#[derive(Clone, Debug)]
pub struct Batch {
    /// At least one.
    pub events: Vec<Event>,
    /// Remembered with the batch, so that a repeated request is answered and not stored again.
    pub key: Option<Key>,
}

/// An idempotency key and what it stands for.
#[derive(Clone, PartialEq, Eq)]
pub struct Key {
    /// Keys of different routes do not meet.
    pub route: Route,
    /// The `Idempotency-Key` header, 1–255 characters.
    pub key: Box<str>,
    /// SHA-256 of the decompressed request body.
    pub body: [u8; 32],
    /// Whatever the caller needs to give the first answer again (without the ids).
    pub notes: Box<str>,
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Key").field("route", &self.route).finish_non_exhaustive()
    }
}

/// The two ways in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Route {
    /// `POST /events`
    Events,
    /// `POST /events/batch`
    Batch,
}

/// Proof of a durable append.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// One per event, in the batch's order.
    pub ids: Vec<EventId>,
    /// Set if the key was known: the ids are the first append's and these are its notes.
    pub replayed: Option<Box<str>>,
}

/// Why a batch was not stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// A bound is reached; deliveries go on and make room.
    #[error("the outbox is full ({0})")]
    Full(Bound),
    /// The disk failed; the store heals by itself when it can.
    #[error("the outbox cannot write")]
    Unavailable,
    /// The idempotency key was used with another body.
    #[error("the idempotency key was used with another body")]
    KeyReused,
    /// The store is closing.
    #[error("the outbox is closed")]
    Closed,
}

/// Which bound a full outbox has reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bound {
    /// `outbox.max_bytes`
    Bytes,
    /// `outbox.max_events`
    Events,
    /// `outbox.min_free_bytes`, or the disk itself
    Disk,
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Bound::Bytes => "max_bytes",
            Bound::Events => "max_events",
            Bound::Disk => "disk",
        })
    }
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
    /// The lease is not known (any more): the event will be handed out again.
    #[error("the lease was lost")]
    LeaseLost,
    /// The disk failed; the event will be handed out again.
    #[error("the outbox cannot write")]
    Unavailable,
}

/// A look into the store failed.
#[derive(Clone, Debug, thiserror::Error)]
#[error("the outbox cannot be read: {0}")]
pub struct ReadError(pub String);

/// Where an event is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum State {
    /// Waits for its turn.
    Pending,
    /// Handed out to be sent.
    InFlight,
    /// Failed; waits for its next attempt.
    Retrying,
    /// Delivered, and still remembered.
    Delivered,
    /// Waits for an operator.
    Dead,
}

impl State {
    /// The name in API, metrics and CLI.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            State::Pending => "pending",
            State::InFlight => "in_flight",
            State::Retrying => "retrying",
            State::Delivered => "delivered",
            State::Dead => "dead",
        }
    }
}

/// What `GET /events/{id}` tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Where it is.
    pub state: State,
    /// Failed attempts so far.
    pub attempts: u32,
    /// When it is due, if retrying.
    pub next_attempt_at: Option<Timestamp>,
    /// When it was delivered.
    pub delivered_at: Option<Timestamp>,
    /// Why it is dead, or what the last attempt came to.
    pub reason: Option<Reason>,
    /// Cello's own words to the last attempt.
    pub message: Option<Box<str>>,
    /// Cello's `apigw-requestid` of the delivery or the last attempt.
    pub request_id: Option<Box<str>>,
}

/// Which events a listing or a bulk action means. All conditions hold together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// In this state only; the delivered are never listed.
    pub state: Option<State>,
    /// Of this user only.
    pub user: Option<UserId>,
    /// Dead for this reason, or last failed with it.
    pub reason: Option<Reason>,
    /// Accepted at this time or later.
    pub since: Option<Timestamp>,
    /// Accepted at this time or earlier.
    pub until: Option<Timestamp>,
}

impl Filter {
    /// Whether an event of that id was accepted in the time that is meant.
    #[must_use]
    pub fn is_in_time(&self, id: EventId) -> bool {
        let at = id.accepted_at();
        self.since.is_none_or(|since| at >= since) && self.until.is_none_or(|until| at <= until)
    }
}

/// Which dead letters an operator means.
#[derive(Clone, Debug)]
pub enum Selection {
    /// These; unknown ones and those that are not dead are passed over.
    Ids(Vec<EventId>),
    /// All that the filter lets through.
    Matching(Filter),
}

/// A line of a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Its id.
    pub id: EventId,
    /// Whose it is; to be redacted unless asked for.
    pub user: UserId,
    /// What happened.
    pub trigger: Trigger,
    /// The size of its body.
    pub body_bytes: usize,
    /// Where it is, and why.
    pub report: Report,
    /// It is dead, and Cello may have counted it already.
    pub may_be_counted: bool,
}

/// All that is kept of an event that waits or is dead.
#[derive(Clone, Debug)]
pub struct Detail {
    /// The line of the listing.
    pub listed: Listed,
    /// The body; to be shown only if asked for.
    pub body: Bytes,
    /// It is what was stored; `false`: the disk damaged it.
    pub is_intact: bool,
    /// Its last attempts, oldest first, at most [`ATTEMPTS_KEPT`].
    pub attempts: Vec<Attempt>,
    /// It is dead, and since this time at the latest a later event of its user is delivered.
    pub overtaken_at: Option<Timestamp>,
    /// Cello may have it, though no attempt says so: what is known of when it was sent.
    pub unsure: Option<Attempt>,
}

/// So many of an undelivered event's attempts are kept.
pub const ATTEMPTS_KEPT: usize = 20;

/// What has ever happened to the events of this outbox; kept with them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ledger {
    /// Stored.
    pub accepted: u64,
    /// Delivered.
    pub delivered: u64,
    /// Now dead.
    pub dead: u64,
    /// Ended by an operator.
    pub discarded: u64,
    /// Ended because a person asked to be forgotten.
    pub erased: u64,
    /// Taken by a damaged disk.
    pub lost: u64,
}

impl Ledger {
    /// Stored and not yet at an end: pending, in flight or retrying.
    #[must_use]
    pub fn undelivered(&self) -> u64 {
        self.accepted.saturating_sub(self.delivered + self.dead + self.discarded + self.erased + self.lost)
    }
}

/// Counts and sizes of an outbox.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// What ever happened.
    pub ledger: Ledger,
    /// Handed out now.
    pub in_flight: u64,
    /// Waiting for a retry (heads of users; what waits behind one is pending).
    pub retrying: u64,
    /// When the oldest undelivered event was accepted.
    pub oldest: Option<Timestamp>,
    /// Undelivered events found when the outbox was opened.
    pub recovered: u64,
    /// Whether appends would be refused now, and why.
    pub refusing: Option<AppendError>,
    /// Bytes used of `capacity_bytes`: live pages, WAL and reserve.
    pub size_bytes: u64,
    /// `outbox.max_bytes`.
    pub capacity_bytes: u64,
    /// Bytes of the WAL file.
    pub wal_bytes: u64,
    /// Size of the volume.
    pub volume_bytes: u64,
    /// Free bytes of the volume.
    pub volume_free_bytes: u64,
    /// Dead letters take their share: another one would be held back.
    pub dead_letters_full: bool,
    /// Damaged files moved aside in the outbox directory.
    pub quarantined_files: u64,
    /// When the last checkpoint succeeded.
    pub checkpointed_at: Option<Timestamp>,
}

impl Stats {
    /// Waiting for their turn: neither in flight nor retrying.
    #[must_use]
    pub fn pending(&self) -> u64 {
        self.ledger.undelivered().saturating_sub(self.in_flight + self.retrying)
    }

    /// How long the oldest undelivered event has waited.
    #[must_use]
    pub fn oldest_age(&self, now: Timestamp) -> Duration {
        self.oldest.map_or(Duration::ZERO, |oldest| now.since(oldest))
    }
}

/// How the queue moves: told by the forwarder, read by whoever reports it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Flow {
    /// Events go out as they come.
    #[default]
    Ok,
    /// Cello fails; events are retried, or wait for the breaker to close.
    Retrying,
    /// Nothing goes out but probes: the fault is ours or on the way.
    Held(Reason),
    /// An operator stopped it.
    Paused,
    /// Emptying before an end.
    Draining,
}

impl fmt::Display for Flow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Flow::Ok => f.write_str("ok"),
            Flow::Retrying => f.write_str("retrying"),
            Flow::Held(reason) => write!(f, "held:{reason}"),
            Flow::Paused => f.write_str("paused"),
            Flow::Draining => f.write_str("draining"),
        }
    }
}
