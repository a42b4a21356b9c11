//! What no outbox could be asked for.

use super::*;

#[test]
fn who_waits_for_nobody_else_is_woken_when_the_next_one_is_due() {
    let mut inner = Inner::default();
    let at = Timestamp::from_millis;
    assert_eq!(inner.next_due(at(5)), None);
    for (user, due) in [("past", 4), ("now", 5), ("later", 9), ("next", 7)] {
        inner.gates.insert(UserId::new(user), at(due));
    }
    assert_eq!([at(5), at(7), at(9)].map(|now| inner.next_due(now)), [Some(at(7)), Some(at(9)), None]);
}
