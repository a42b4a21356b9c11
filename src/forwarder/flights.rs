//! What was sent and is not recorded yet. Pure.
//!
//! A store that failed and was opened anew hands out again what was in flight, or another event of that user. Sent at
//! once, it would go out beside the first send, or after Cello had it, and later events of the user could overtake. So
//! nothing is sent of a user who has something under way, and what Cello is known to have is only settled. A crash
//! forgets this.

use std::collections::{BTreeMap, HashSet};

use crate::cello::Judgement;
use crate::clock::Timestamp;
use crate::event::{EventId, UserId};

/// So many deliveries are kept in mind, the latest accepted: some times what one failure leaves unrecorded. What is
/// forgotten may be sent again.
const DELIVERIES_KEPT: usize = 1_024;

/// Cello's 2xx, and when it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Delivery {
    pub(super) at: Timestamp,
    pub(super) judgement: Judgement,
}

/// How an event that is handed out stands.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// To be sent.
    Free,
    /// It, or another event of its user, is being sent.
    UnderWay,
    /// Cello has it, and the outbox does not know.
    Delivered(Delivery),
}

#[derive(Debug, Default)]
pub(super) struct Flights {
    /// Whose events are sent and not settled; one of each user at most.
    under_way: HashSet<UserId>,
    unrecorded: BTreeMap<EventId, Delivery>,
}

impl Flights {
    /// How that event stands.
    pub(super) fn standing(&self, id: EventId, user: &UserId) -> Standing {
        if self.under_way.contains(user) {
            return Standing::UnderWay;
        }
        self.unrecorded.get(&id).map_or(Standing::Free, |delivery| Standing::Delivered(delivery.clone()))
    }

    /// An event of that user is being sent.
    pub(super) fn begin(&mut self, user: &UserId) {
        self.under_way.insert(user.clone());
    }

    /// It is settled, or never will be by this sending.
    pub(super) fn end(&mut self, user: &UserId) {
        self.under_way.remove(user);
    }

    /// Cello has it, and that could not be recorded.
    pub(super) fn remember(&mut self, id: EventId, delivery: Delivery) {
        self.unrecorded.insert(id, delivery);
        if self.unrecorded.len() > DELIVERIES_KEPT {
            self.unrecorded.pop_first();
        }
    }

    /// That Cello has it is recorded now.
    pub(super) fn forget(&mut self, id: EventId) {
        self.unrecorded.remove(&id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::forwarder::testing::delivered;

    fn id(seq: u64) -> EventId {
        EventId::new(Timestamp::from_millis(1_700_000_000_000), seq, 0)
    }

    fn delivery() -> Delivery {
        Delivery { at: Timestamp::default(), judgement: delivered() }
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
        assert_eq!(flights.standing(id(1), &jane), Standing::Delivered(delivery()));
        assert_eq!(flights.standing(id(2), &jane), Standing::Free);
        flights.forget(id(1));
        assert_eq!(flights.standing(id(1), &jane), Standing::Free);
    }

    #[test]
    fn of_too_many_unrecorded_deliveries_the_latest_accepted_are_kept() {
        let (mut flights, user) = (Flights::default(), UserId::new("jane"));
        let all = 1..=DELIVERIES_KEPT as u64 + 2;
        all.clone().for_each(|seq| flights.remember(id(seq), delivery()));
        let known = all.filter(|seq| flights.standing(id(*seq), &user) != Standing::Free);
        assert!(known.eq(3..=DELIVERIES_KEPT as u64 + 2));
    }
}
