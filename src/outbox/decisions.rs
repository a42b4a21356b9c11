//! What operators decide about events, and what comes of it.

use super::Attempt;
use crate::clock::Timestamp;
use crate::event::{EventId, UserId};
use crate::reason::Reason;

/// How a replay goes about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// Replays also what Cello may have counted already; otherwise that is passed over.
    pub may_duplicate: bool,
    /// Puts back at most so many, in sequence.
    pub limit: u64,
    /// Looks only at what comes after this event.
    pub after: Option<EventId>,
}

impl Default for Terms {
    fn default() -> Self {
        Self { may_duplicate: false, limit: u64::MAX, after: None }
    }
}

impl Terms {
    /// Everything that is meant, duplicates or not.
    #[must_use]
    pub fn everything() -> Self {
        Self { may_duplicate: true, ..Self::default() }
    }
}

/// What a replay did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Replayed {
    /// So many were put back into the queue.
    pub count: u64,
    /// So many stay dead because Cello may have counted them already.
    pub passed_over: u64,
    /// The last one that was put back, if the limit ended the replay there: go on after it.
    pub next: Option<EventId>,
}

/// What an erasure did, or found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Erased {
    /// Events that waited and had not failed.
    pub pending: u64,
    /// Events that waited for another attempt.
    pub retrying: u64,
    /// Dead letters.
    pub dead: u64,
    /// Remembered idempotency keys that name the person.
    pub keys: u64,
    /// Events in flight that did not end in time; they are still there.
    pub in_flight: u64,
    /// Damaged files that lie aside; they were not searched.
    pub quarantined: Vec<String>,
    /// Nothing is left in free pages and the write-ahead log either. `false`: the next idle moment does that.
    pub is_overwritten: bool,
}

impl Erased {
    /// Events that are gone.
    #[must_use]
    pub fn events(&self) -> u64 {
        self.pending + self.retrying + self.dead
    }

    /// Adds what another pass found; what it says of files and flights stands.
    pub fn add(&mut self, pass: Self) {
        *self = Self {
            pending: self.pending + pass.pending,
            retrying: self.retrying + pass.retrying,
            dead: self.dead + pass.dead,
            keys: self.keys + pass.keys,
            ..pass
        };
    }
}

/// The dead letters of one reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeadGroup {
    /// Why they died; `None` is a reason that a newer release wrote.
    pub reason: Option<Reason>,
    /// How many there are.
    pub count: u64,
    /// When the first of them was accepted.
    pub oldest: Timestamp,
}

/// Whether Cello may have counted an event that is dead for `reason` after these last of `made` attempts: a
/// request was sent, and nobody knows what became of it. What is not kept, as only the last attempts are and
/// none in what a damaged file gave back, may have been such a one. `is_unsure`: one was not burned.
#[must_use]
pub fn may_be_counted(reason: Option<Reason>, attempts: &[Attempt], made: u32, is_unsure: bool) -> bool {
    let is_forgotten = made as usize > attempts.len();
    reason == Some(Reason::Ambiguous) || is_unsure || is_forgotten || attempts.iter().any(is_unknown)
}

/// What is remembered of an event that may have been counted, before its attempts make room for others.
pub(crate) fn unsure_of(attempts: &[Attempt], now: Timestamp) -> Attempt {
    let unknown = attempts.iter().rfind(|attempt| is_unknown(attempt)).cloned();
    let nothing = Attempt { at: now, reason: Reason::Ambiguous, status: None, request_id: None, message: None };
    Attempt { message: None, ..unknown.unwrap_or(nothing) }
}

/// Whether a text names a user: the id stands there as it is, and not as a part of a longer word or number.
pub(crate) fn names_user(text: &str, user: &UserId) -> bool {
    let user = user.as_str();
    let (Some(first), Some(last)) = (user.chars().next(), user.chars().next_back()) else { return false };
    let goes_on =
        |outer: Option<char>, inner: char| outer.is_some_and(char::is_alphanumeric) && inner.is_alphanumeric();
    let mut from = 0;
    while let Some(found) = text[from..].find(user) {
        let (start, end) = (from + found, from + found + user.len());
        let (before, after) = (text[..start].chars().next_back(), text[end..].chars().next());
        if !goes_on(before, first) && !goes_on(after, last) {
            return true;
        }
        from = start + first.len_utf8();
    }
    false
}

fn is_unknown(attempt: &Attempt) -> bool {
    match attempt.reason {
        Reason::Timeout | Reason::Reset | Reason::NotJson | Reason::Ambiguous => true,
        // 501, 503 and 505 say that nothing was done.
        Reason::Http5xx => !matches!(attempt.status, Some(501 | 503 | 505)),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outbox::ATTEMPTS_KEPT;

    fn attempt(reason: Reason, status: Option<u16>) -> Attempt {
        Attempt { at: Timestamp::from_millis(0), reason, status, request_id: None, message: None }
    }

    #[test]
    fn what_cello_may_have_counted_is_told_from_what_it_refused() {
        let counted = |reason, status| may_be_counted(Some(Reason::Exhausted), &[attempt(reason, status)], 1, false);
        assert!([Reason::Timeout, Reason::Reset, Reason::NotJson].iter().all(|reason| counted(*reason, None)));
        assert!(counted(Reason::Http5xx, Some(502)) && counted(Reason::Http5xx, None));
        assert!([501, 503, 505].iter().all(|status| !counted(Reason::Http5xx, Some(*status))));
        assert!(!counted(Reason::Http422, Some(422)) && !counted(Reason::Connect, None));
        assert!(may_be_counted(Some(Reason::Ambiguous), &[], 0, false));
        assert!(may_be_counted(Some(Reason::Http422), &[attempt(Reason::Http422, Some(422))], 1, true));
    }

    #[test]
    fn attempts_that_were_forgotten_may_have_been_counted() {
        let refusals = vec![attempt(Reason::Http422, Some(422)); ATTEMPTS_KEPT];
        assert!(!may_be_counted(Some(Reason::Exhausted), &refusals, ATTEMPTS_KEPT as u32, false));
        assert!(may_be_counted(Some(Reason::Exhausted), &refusals, ATTEMPTS_KEPT as u32 + 1, false));
        assert!(may_be_counted(Some(Reason::Http422), &[], 1, false), "as a damaged file gives it back");
        assert!(!may_be_counted(Some(Reason::Corrupt), &[], 0, false), "it was never sent");
    }

    #[test]
    fn what_is_remembered_of_an_unknown_outcome_is_the_last_one_without_cellos_words() {
        let words = Attempt { message: Some("words".into()), ..attempt(Reason::Timeout, None) };
        let last = unsure_of(&[words, attempt(Reason::Http422, Some(422))], Timestamp::from_millis(9));
        assert_eq!((last.reason, last.message, last.at), (Reason::Timeout, None, Timestamp::from_millis(0)));
        assert_eq!(unsure_of(&[], Timestamp::from_millis(9)).at, Timestamp::from_millis(9));
    }

    #[test]
    fn everything_is_what_may_come_twice_too_without_a_limit() {
        let everything = Terms { may_duplicate: true, limit: u64::MAX, after: None };
        assert_eq!((Terms::everything(), Terms::default().may_duplicate), (everything, false));
    }

    #[test]
    fn an_erasure_in_passes_adds_up_what_is_gone_and_tells_how_things_stand_at_its_end() {
        let pass = |in_flight, is_overwritten| Erased {
            pending: 3,
            retrying: 4,
            dead: 5,
            keys: 7,
            in_flight,
            quarantined: Vec::new(),
            is_overwritten,
        };
        let mut erased = pass(11, false);
        assert_eq!(erased.events(), 12, "keys are no events");
        erased.add(pass(1, true));
        let sum = Erased { pending: 6, retrying: 8, dead: 10, keys: 14, ..pass(1, true) };
        assert_eq!(erased, sum);
    }

    #[test]
    fn a_text_names_a_user_where_the_id_stands_alone_and_not_inside_another() {
        for (text, user) in [
            ("signup-user-1", "user-1"),
            ("signup-user-1", "1"),
            ("1", "1"),
            ("user-10,user-1", "user-1"),
            ("11 1", "1"),
            ("user_1:signup", "user_1"),
            ("a@b.example!", "a@b.example"),
            ("aa-a", "a"),
            ("für ü", "ü"),
            ("x#7#", "#7#"),
        ] {
            assert!(names_user(text, &UserId::new(user)), "{text} names {user}");
        }
        for (text, user) in [
            ("signup-user-10", "user-1"),
            ("signup-user-10", "1"),
            ("superuser-1", "user-1"),
            ("für", "ü"),
            ("a@b.examples", "a@b.example"),
            ("", "1"),
            ("anything", ""),
        ] {
            assert!(!names_user(text, &UserId::new(user)), "{text} does not name {user}");
        }
    }
}
