//! Users' lines: a user that waits has a gate, and all its events that were read are parked behind it.

use std::time::Duration;

use super::env::Env;
use super::fault::Fault;
use super::row::Gate;
use super::sql::contradiction;
use super::store::Store;
use crate::event::UserId;

impl Store {
    /// Whether a user has a gate.
    pub(super) fn is_gated(&self, user: &UserId) -> Result<bool, Fault> {
        Ok(self.books.gates > 0 && self.gates.may_hold(user) && self.sql.gate(user)?.is_some())
    }

    /// Gates a user for `wait` from now, parking all of it that is only in memory. With `None` a gate
    /// that is there stays as it is, and a new one is due at once.
    pub(super) fn gate(&mut self, env: &Env, user: &UserId, wait: Option<Duration>) -> Result<(), Fault> {
        let is_gated = self.is_gated(user)?;
        if is_gated && wait.is_none() {
            return Ok(());
        }
        let wait = wait.unwrap_or_default();
        let due = self.pace.now(env.clock.now(), env.clock.instant()).plus(wait);
        self.sql.set_gate(user, Gate { due, wait })?;
        if is_gated {
            return Ok(());
        }
        self.books.gates += 1;
        self.gates.add(user);
        for seq in self.queue.unparked(user) {
            if !self.landed.contains(&seq) && !self.landing.contains(&seq) {
                self.sql.park(user, seq)?;
            }
        }
        self.newly_gated.push(user.clone());
        Ok(())
    }

    /// An event ended: the next one of its user is due, or the gate goes.
    pub(super) fn leave_line(&mut self, env: &Env, user: &UserId, seq: u64) -> Result<(), Fault> {
        if !self.is_gated(user)? || !self.sql.unpark(user, seq)? {
            return Ok(());
        }
        self.let_go_on(env, user)
    }

    /// What is left of a gated user's line is due, or the gate goes.
    pub(super) fn let_go_on(&mut self, env: &Env, user: &UserId) -> Result<(), Fault> {
        if self.sql.first_parked(user)?.is_some() {
            // Behind the other users that are due: they take turns.
            let due = self.pace.now(env.clock.now(), env.clock.instant());
            return Ok(self.sql.set_gate(user, Gate { due, wait: Duration::ZERO })?);
        }
        self.sql.delete_gate(user)?;
        self.books.gates = self.books.gates.saturating_sub(1);
        // While none is counted none is looked for.
        if self.books.gates == 0 && self.sql.has_gates()? {
            return Err(contradiction().into());
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "lines/tests.rs"]
mod tests;
