//! What is seen of events, and how those that are meant are named.

use bytes::Bytes;

use super::Attempt;
use crate::clock::Timestamp;
use crate::event::{EventId, Trigger, UserId};
use crate::reason::Reason;

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

/// So many of an undelivered event's attempts are kept.
pub const ATTEMPTS_KEPT: usize = 20;

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_state_has_a_name() {
        let states = [State::Pending, State::InFlight, State::Retrying, State::Delivered, State::Dead];
        assert_eq!(states.map(State::as_str), ["pending", "in_flight", "retrying", "delivered", "dead"]);
    }

    #[test]
    fn the_time_that_is_meant_has_both_its_ends() {
        let at = Timestamp::from_millis;
        let meant = |since: Option<i64>, until: Option<i64>| {
            let filter = Filter { since: since.map(at), until: until.map(at), ..Filter::default() };
            [1000, 2000, 3000, 4000].map(|ms| filter.is_in_time(EventId::new(at(ms), 1, 0)))
        };
        assert_eq!(meant(None, None), [true; 4]);
        assert_eq!(meant(Some(2000), None), [false, true, true, true]);
        assert_eq!(meant(None, Some(3000)), [true, true, true, false]);
        assert_eq!(meant(Some(2000), Some(3000)), [false, true, true, false]);
    }
}
