//! What the writer holds in memory of the queue: a window onto it, who is in flight, who is next.
//!
//! Of every user at most one event is in flight and the rest of the window waits behind it. A user
//! with a gate (a row on disk) has nothing here but the event in flight: all else that was read of
//! that user is parked on disk. So memory is bounded by the window and the leases, whatever waits.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use crate::clock::Timestamp;
use crate::event::{Event, EventId, UserId};
use crate::outbox::Progress;

/// The window holds at most so many events …
const WINDOW_EVENTS: usize = 1024;
/// … and at most so many bytes of bodies (one event may exceed it).
const WINDOW_BYTES: usize = 1 << 20;
/// So many users are remembered as released lately.
const RELEASED_USERS: usize = 64;

/// An event in the window.
#[derive(Clone, Debug)]
pub(super) struct Waiting {
    pub(super) id: EventId,
    pub(super) event: Event,
    /// It was dead once; its history goes when it does.
    pub(super) again: bool,
}

/// An event in flight.
#[derive(Clone, Debug)]
pub(super) struct Flight {
    pub(super) waiting: Waiting,
    pub(super) progress: Progress,
    /// It has a row in `parked`: its user is gated.
    pub(super) parked: bool,
    /// The intent to send it is committed.
    pub(super) intended: bool,
}

/// Something that was seen while reading and is to be written with the next transaction.
#[derive(Clone, Debug)]
pub(super) enum Deferred {
    /// An event behind a gated user.
    Park(UserId, u64),
    /// A row that is not what was stored; the user if it was parked.
    Corrupt(Option<UserId>, u64),
}

impl Deferred {
    fn seq(&self) -> u64 {
        match self {
            Deferred::Park(_, seq) | Deferred::Corrupt(_, seq) => *seq,
        }
    }
}

/// What the window holds of one user.
#[derive(Debug, Default)]
struct Line {
    flying: bool,
    waiting: BTreeSet<u64>,
}

/// The queue as far as it is in memory.
#[derive(Debug, Default)]
pub(super) struct Queue {
    window: BTreeMap<u64, Waiting>,
    window_bytes: usize,
    /// Heads of users of whom nothing is in flight.
    free: BTreeSet<u64>,
    lines: HashMap<UserId, Line>,
    flights: BTreeMap<u64, Flight>,
    released: VecDeque<UserId>,
    deferred: Vec<Deferred>,
    /// Everything below was read.
    pub(super) cursor: u64,
}

impl Queue {
    /// A queue that is read from `mark` on.
    pub(super) fn starting_at(mark: u64) -> Self {
        Self { cursor: mark, ..Self::default() }
    }

    /// Whether the window takes more.
    pub(super) fn has_room(&self) -> bool {
        self.window.len() < WINDOW_EVENTS && self.window_bytes < WINDOW_BYTES && self.deferred.len() < WINDOW_EVENTS
    }

    /// Whether more than half of the window waits behind events in flight, so that reading on would
    /// find too little: then they are parked.
    pub(super) fn is_clogged(&self) -> bool {
        let blocked = self.window.len() - self.free.len();
        blocked > WINDOW_EVENTS / 2 || (self.free.is_empty() && self.window_bytes >= WINDOW_BYTES / 2)
    }

    /// Whether an event in the window waits for nothing but a claim.
    pub(super) fn has_free(&self) -> bool {
        !self.free.is_empty()
    }

    /// Whether an event in the window waits behind another of its user, in flight or not.
    pub(super) fn has_blocked(&self) -> bool {
        self.window.len() > self.free.len()
    }

    /// Takes an event into the window. Its user must not be gated.
    pub(super) fn offer(&mut self, waiting: Waiting) {
        let seq = waiting.id.seq();
        self.window_bytes += waiting.event.body.len();
        let line = self.lines.entry(waiting.event.user.clone()).or_default();
        let former_head = line.waiting.first().copied();
        line.waiting.insert(seq);
        if !line.flying && former_head.is_none_or(|head| seq < head) {
            former_head.map(|head| self.free.remove(&head));
            self.free.insert(seq);
        }
        self.window.insert(seq, waiting);
    }

    /// The first event whose user is free; with `rotate` of a user that was not released lately.
    pub(super) fn take_free(&mut self, rotate: bool) -> Option<Waiting> {
        let seq = if rotate {
            let was_released = |seq: &&u64| self.released.contains(&self.window[*seq].event.user);
            self.free.iter().find(|seq| !was_released(seq)).copied()?
        } else {
            self.free.first().copied()?
        };
        Some(self.take(seq))
    }

    /// That user's first event in the window, if nothing of the user is in flight.
    pub(super) fn take_of(&mut self, user: &UserId) -> Option<Waiting> {
        let line = self.lines.get(user)?;
        let seq = *line.waiting.first().filter(|_| !line.flying)?;
        Some(self.take(seq))
    }

    fn take(&mut self, seq: u64) -> Waiting {
        self.free.remove(&seq);
        let waiting = self.window.remove(&seq).expect("a head is in the window");
        self.window_bytes -= waiting.event.body.len();
        if let Some(line) = self.lines.get_mut(&waiting.event.user) {
            line.waiting.remove(&seq);
        }
        waiting
    }

    /// Puts an event in flight.
    pub(super) fn fly(&mut self, flight: Flight) {
        self.lines.entry(flight.waiting.event.user.clone()).or_default().flying = true;
        self.flights.insert(flight.waiting.id.seq(), flight);
    }

    /// The event in flight with that sequence.
    pub(super) fn flight(&self, seq: u64) -> Option<&Flight> {
        self.flights.get(&seq)
    }

    /// Whether an event in flight has a gated user, of whom more may be parked behind it.
    pub(super) fn has_parked_flight(&self) -> bool {
        self.flights.values().any(|flight| flight.parked)
    }

    /// Remembers that the intent to send it is committed.
    pub(super) fn intended(&mut self, seq: u64) {
        if let Some(flight) = self.flights.get_mut(&seq) {
            flight.intended = true;
        }
    }

    /// An event is not in flight any more; the next of its user may be.
    pub(super) fn land(&mut self, seq: u64) -> Option<Flight> {
        let flight = self.flights.remove(&seq)?;
        let user = &flight.waiting.event.user;
        if let Some(line) = self.lines.get_mut(user) {
            line.flying = false;
            match line.waiting.first() {
                Some(head) => drop(self.free.insert(*head)),
                None => drop(self.lines.remove(user)),
            }
        }
        Some(flight)
    }

    /// An event was given back: it goes where it was, and its user is remembered as released.
    pub(super) fn release(&mut self, seq: u64) {
        let Some(flight) = self.land(seq) else { return };
        let user = flight.waiting.event.user.clone();
        self.released.retain(|other| *other != user);
        if self.released.len() == RELEASED_USERS {
            self.released.pop_front();
        }
        self.released.push_back(user);
        if !flight.parked {
            self.offer(flight.waiting);
        }
    }

    /// Users that were released lately, longest ago first.
    pub(super) fn released(&self) -> Vec<UserId> {
        self.released.iter().cloned().collect()
    }

    /// Whether that user was released lately.
    pub(super) fn was_released(&self, user: &str) -> bool {
        self.released.iter().any(|other| other.as_str() == user)
    }

    /// The user's events get through (or are given up): it is as good as any other.
    pub(super) fn forget_release(&mut self, user: &UserId) {
        if !self.released.is_empty() {
            self.released.retain(|other| other != user);
        }
    }

    /// Whether an event of that user is in flight.
    pub(super) fn is_flying(&self, user: &UserId) -> bool {
        self.lines.get(user).is_some_and(|line| line.flying)
    }

    /// What is here of a user and has to be parked when the user gets a gate.
    pub(super) fn unparked(&self, user: &UserId) -> Vec<u64> {
        let Some(line) = self.lines.get(user) else { return Vec::new() };
        let mut seqs: Vec<u64> = line.waiting.iter().copied().collect();
        if line.flying {
            let flying = self.flights.iter().filter(|(_, flight)| !flight.parked && flight.waiting.event.user == *user);
            seqs.extend(flying.map(|(seq, _)| *seq));
        }
        seqs
    }

    /// The user got a gate, and all its events are parked.
    pub(super) fn gated(&mut self, user: &UserId) {
        let Some(line) = self.lines.get_mut(user) else { return };
        for seq in std::mem::take(&mut line.waiting) {
            self.free.remove(&seq);
            if let Some(waiting) = self.window.remove(&seq) {
                self.window_bytes -= waiting.event.body.len();
            }
        }
        if line.flying {
            let flights = self.flights.values_mut();
            flights.filter(|flight| flight.waiting.event.user == *user).for_each(|flight| flight.parked = true);
        } else {
            self.lines.remove(user);
        }
    }

    /// Users with events in the window that wait behind one in flight.
    pub(super) fn blocked_users(&self) -> Vec<UserId> {
        let blocked = self.lines.iter().filter(|(_, line)| line.waiting.len() > usize::from(!line.flying));
        blocked.map(|(user, _)| user.clone()).collect()
    }

    /// Notes what is to be written with the next transaction.
    pub(super) fn defer(&mut self, found: Deferred) {
        let is_known = || self.deferred.iter().any(|other| other.seq() == found.seq());
        if !matches!(found, Deferred::Corrupt(..)) || !is_known() {
            self.deferred.push(found);
        }
    }

    /// What is to be written with the next transaction.
    pub(super) fn deferred(&self) -> &[Deferred] {
        &self.deferred
    }

    /// The first `count` of it were written.
    pub(super) fn forget_deferred(&mut self, count: usize) {
        self.deferred.drain(..count);
    }

    /// Whether the next transaction should not wait for company.
    pub(super) fn is_urgent(&self) -> bool {
        self.deferred.len() >= WINDOW_EVENTS
            || self.deferred.iter().any(|deferred| matches!(deferred, Deferred::Corrupt(..)))
            || self.is_clogged()
    }

    /// Every event below is parked (or ended): where an opening has to read from. Of what is to be written the first
    /// `written` are in the same transaction as the mark.
    pub(super) fn mark(&self, written: usize) -> u64 {
        let window = self.window.keys().next().copied();
        let flying = self.flights.iter().find(|(_, flight)| !flight.parked).map(|(seq, _)| *seq);
        let unwritten = self.deferred[written..].iter().map(Deferred::seq).min();
        [window, flying, unwritten].into_iter().flatten().fold(self.cursor, u64::min)
    }

    /// Sequences in flight, ascending, and how many of them failed before; without those that `left`.
    pub(super) fn flying(&self, left: impl Fn(u64) -> bool) -> (Vec<u64>, u64) {
        let flying = || self.flights.iter().filter(|(seq, _)| !left(**seq));
        let failed = flying().filter(|(_, flight)| flight.progress.attempts > 0).count();
        (flying().map(|(seq, _)| *seq).collect(), failed as u64)
    }
}

/// Time for the queue: wall time that is never set back while the store is open, so that a gate is not
/// delayed when the machine's clock is.
#[derive(Debug)]
pub(super) struct Pace {
    last: Timestamp,
    last_instant: tokio::time::Instant,
}

impl Pace {
    pub(super) fn starting(now: Timestamp, instant: tokio::time::Instant) -> Self {
        Self { last: now, last_instant: instant }
    }

    /// Now: the wall clock, or what has run since if that is ahead of it.
    pub(super) fn now(&mut self, wall: Timestamp, instant: tokio::time::Instant) -> Timestamp {
        let run = self.last.plus(instant.saturating_duration_since(self.last_instant));
        if wall > run {
            (self.last, self.last_instant) = (wall, instant);
        }
        run.max(wall)
    }
}

#[cfg(test)]
#[path = "queue/tests.rs"]
mod tests;
