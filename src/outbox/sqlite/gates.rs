//! Who may have a gate, from memory: nearly nobody has one, and asking the file for each event costs as
//! much as storing it.

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};

use crate::event::UserId;

/// With more gated users than this the file is asked about each: 64 KiB, whatever waits.
const USERS: usize = 4096;

/// Holds every user that has a gate, and perhaps some that have none any more: what a transaction took away may
/// come back when it is undone.
#[derive(Debug, Default)]
pub(super) struct Gates {
    /// By their hashes; `None`: there are too many.
    users: Option<HashSet<u64>>,
    hasher: RandomState,
}

impl Gates {
    /// How many users [`Gates::of`] has to be given, to see that there are too many.
    pub(super) const ENOUGH: u64 = USERS as u64 + 1;

    /// Holds these.
    pub(super) fn of(users: impl IntoIterator<Item = UserId>) -> Self {
        let mut gates = Self { users: Some(HashSet::new()), hasher: RandomState::new() };
        users.into_iter().for_each(|user| gates.add(&user));
        gates
    }

    /// A user gets a gate.
    pub(super) fn add(&mut self, user: &UserId) {
        let hash = self.hasher.hash_one(user.as_str());
        if let Some(users) = &mut self.users {
            users.insert(hash);
            if users.len() > USERS {
                self.users = None;
            }
        }
    }

    /// Whether the user may have a gate; if not, it has none.
    pub(super) fn may_hold(&self, user: &UserId) -> bool {
        self.users.as_ref().is_none_or(|users| users.contains(&self.hasher.hash_one(user.as_str())))
    }

    /// Whether it should be made anew, now that there are so many gates.
    pub(super) fn is_stale(&self, gates: u64) -> bool {
        match &self.users {
            None => gates <= USERS as u64 / 2,
            Some(users) => users.len() as u64 > 2 * gates + 64,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(n: usize) -> UserId {
        UserId::new(&format!("user-{n}"))
    }

    #[test]
    fn who_got_a_gate_may_have_one_and_who_did_not_has_none() {
        let mut gates = Gates::of([user(1)]);
        gates.add(&user(2));
        assert!(gates.may_hold(&user(1)) && gates.may_hold(&user(2)));
        assert!(!gates.may_hold(&user(3)));
    }

    #[test]
    fn with_too_many_gates_anyone_may_have_one() {
        let few_enough = Gates::of((0..USERS).map(user));
        assert!(!few_enough.may_hold(&user(USERS + 100)));
        let gates = Gates::of((0..Gates::ENOUGH as usize).map(user));
        assert!(gates.may_hold(&user(USERS + 100)));
        assert!(gates.is_stale(10) && !gates.is_stale(USERS as u64));
    }

    #[test]
    fn what_was_left_behind_by_gates_that_went_is_stale() {
        let gates = Gates::of((0..100).map(user));
        assert!(gates.is_stale(0) && gates.is_stale(17) && !gates.is_stale(18) && !gates.is_stale(100));
    }
}
