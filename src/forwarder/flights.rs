//! What was sent and is not recorded yet. Pure.
//!
//! A store that failed and was opened anew hands out again what was in flight, or another event of that user; and a
//! sound one may hand out a user's next event before its answer to the last settle is heard. Sent at once, it would go out
//! beside the first send, or after Cello had it, and later events of the user could overtake. So nothing is sent of a user
//! who has something under way, and what is known of an event is recorded before it is sent again, if Cello does not have
//! it. The end of the process forgets this.

use std::collections::{HashSet, VecDeque};

use super::governor::Fate;
use crate::cello::Judgement;
use crate::clock::Timestamp;
use crate::event::{EventId, UserId};

/// The last so many answers are kept in mind: a few times what one failure leaves unrecorded. One whose event was recorded
/// after all is never asked for, and ages out.
const ANSWERS_KEPT: usize = 1_024;

/// What came of a send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) fate: Fate,
    pub(super) judgement: Judgement,
    pub(super) at: Timestamp,
}

/// How an event that is handed out stands.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// To be sent.
    Free,
    /// It, or another event of its user, is being sent.
    UnderWay,
    /// It was sent, and what came of it is not recorded.
    Sent(Answer),
}

#[derive(Debug, Default)]
pub(super) struct Flights {
    /// Whose events are sent and not settled; one of each user at most.
    under_way: HashSet<UserId>,
    /// Longest ago first.
    unrecorded: VecDeque<(EventId, Answer)>,
}

impl Flights {
    /// How that event stands.
    pub(super) fn standing(&self, id: EventId, user: &UserId) -> Standing {
        if self.under_way.contains(user) {
            return Standing::UnderWay;
        }
        let known = self.unrecorded.iter().find(|(known, _)| *known == id);
        known.map_or(Standing::Free, |(_, answer)| Standing::Sent(answer.clone()))
    }

    /// An event of that user is being sent.
    pub(super) fn begin(&mut self, user: &UserId) {
        self.under_way.insert(user.clone());
    }

    /// It is settled, or never will be by this sending.
    pub(super) fn end(&mut self, user: &UserId) {
        self.under_way.remove(user);
    }

    /// Keeps in mind that Cello has an event, or may have it. Of any other answer nothing is lost: the event is sent
    /// again, which is what it waits for.
    pub(super) fn remember(&mut self, id: EventId, answer: Answer) {
        let fate = match answer.fate {
            Fate::Delivered => Fate::Delivered,
            Fate::Retry { .. } | Fate::Release if answer.judgement.outcome_unknown => Fate::Release,
            _ => return,
        };
        self.forget(id);
        self.unrecorded.push_back((id, Answer { fate, ..answer }));
        if self.unrecorded.len() > ANSWERS_KEPT {
            self.unrecorded.pop_front();
        }
    }

    /// It is recorded now.
    pub(super) fn forget(&mut self, id: EventId) {
        self.unrecorded.retain(|(known, _)| *known != id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::forwarder::testing::{delivered, failure};
    use crate::reason::Reason;

    fn id(seq: u64) -> EventId {
        EventId::new(Timestamp::from_millis(1_700_000_000_000), seq, 0)
    }

    fn delivery() -> Answer {
        Answer { fate: Fate::Delivered, judgement: delivered(), at: Timestamp::default() }
    }

    #[test]
    fn a_users_events_are_under_way_until_the_end_whatever_is_known_of_them() {
        let (mut flights, jane, joe) = (Flights::default(), UserId::new("jane"), UserId::new("joe"));
        flights.begin(&jane);
        assert_eq!(flights.standing(id(1), &jane), Standing::UnderWay);
        assert_eq!(flights.standing(id(2), &jane), Standing::UnderWay);
        assert_eq!(flights.standing(id(3), &joe), Standing::Free);
        flights.remember(id(1), delivery());
        assert_eq!(flights.standing(id(1), &jane), Standing::UnderWay);
        flights.end(&jane);
        assert_eq!(flights.standing(id(1), &jane), Standing::Sent(delivery()));
        assert_eq!(flights.standing(id(2), &jane), Standing::Free);
        flights.forget(id(1));
        assert_eq!(flights.standing(id(1), &jane), Standing::Free);
    }

    #[test]
    fn only_what_cello_has_or_may_have_is_kept_in_mind_and_only_as_that() {
        let user = UserId::new("jane");
        let kept = |fate, outcome_unknown| {
            let mut flights = Flights::default();
            let judgement = Judgement { outcome_unknown, ..failure(500) };
            flights.remember(id(1), Answer { fate, judgement, at: Timestamp::default() });
            match flights.standing(id(1), &user) {
                Standing::Sent(answer) => Some(answer.fate),
                _ => None,
            }
        };
        assert_eq!(kept(Fate::Delivered, false), Some(Fate::Delivered));
        for failed in [Fate::Retry { strike: true }, Fate::Release] {
            assert_eq!((kept(failed, true), kept(failed, false)), (Some(Fate::Release), None), "{failed:?}");
        }
        assert_eq!(kept(Fate::Dead(Reason::Http400), false), None);
    }

    #[test]
    fn of_too_many_unrecorded_answers_the_latest_are_kept_each_once() {
        let (mut flights, user) = (Flights::default(), UserId::new("jane"));
        // An event may be told of late though it was accepted early.
        let all = || (1..=ANSWERS_KEPT as u64 + 2).rev();
        all().for_each(|seq| flights.remember(id(seq), delivery()));
        flights.remember(id(1), delivery());
        let known: Vec<u64> = all().filter(|seq| flights.standing(id(*seq), &user) != Standing::Free).collect();
        assert!(known.iter().copied().eq((1..=ANSWERS_KEPT as u64).rev()));
    }
}
