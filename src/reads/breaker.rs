//! The forwarder's breaker, as reads go by it.
//!
//! While it is open Cello is taken to be down, so that no page waits for a timeout: reads are answered at once,
//! but for one at a time that tries all the same, a second after the last one failed. If Cello answers it, all
//! reads go out again, until one fails or the breaker opens anew.
//!
//! The other way round nothing is told: a read that fails does not open the forwarder's breaker. Reads have a
//! shorter deadline and paths of their own, and apps ask what they like, so their failures say little of
//! `POST /events`; and one that Cello answers does not close it, for the same reason.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

/// A read that failed while the breaker is open is followed by the next one that tries after so long.
const TRY_EVERY: Duration = Duration::from_secs(1);

/// Since when the breaker is open, and changes of that.
pub type OpenSince = watch::Receiver<Option<Instant>>;

/// Who may ask Cello now.
pub(super) struct Breaker {
    open_since: OpenSince,
    trial: Mutex<Trial>,
}

/// What reads found out in one opening of the breaker.
#[derive(Default)]
struct Trial {
    /// Which opening.
    opening: Option<Instant>,
    is_under_way: bool,
    /// Cello answered the last read that was sent.
    is_answered: bool,
    not_before: Option<Instant>,
}

impl Trial {
    fn may_start(&self, now: Instant) -> bool {
        !self.is_under_way && self.not_before.is_none_or(|at| now >= at)
    }
}

/// What a read that was let through came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// Cello answered.
    Up,
    /// It did not, or with a fault of its own.
    Down,
    /// It was not asked.
    Unknown,
}

/// The right to ask Cello; given back when it is dropped.
pub(super) struct Pass<'a> {
    breaker: &'a Breaker,
    opening: Option<Instant>,
    is_trial: bool,
    found: Found,
}

impl Breaker {
    pub(super) fn new(open_since: OpenSince) -> Self {
        Self { open_since, trial: Mutex::default() }
    }

    /// Lets a read through, unless Cello is taken to be down and another one is finding out.
    pub(super) fn pass(&self) -> Option<Pass<'_>> {
        let opening = *self.open_since.borrow();
        let pass = |is_trial| Pass { breaker: self, opening, is_trial, found: Found::Unknown };
        if opening.is_none() {
            return Some(pass(false));
        }
        let mut trial = self.trial_of(opening);
        if trial.is_answered {
            return Some(pass(false));
        }
        trial.may_start(Instant::now()).then(|| {
            trial.is_under_way = true;
            pass(true)
        })
    }

    /// Whether Cello is taken to be down.
    pub(super) fn is_in_doubt(&self) -> bool {
        let opening = *self.open_since.borrow();
        opening.is_some() && !self.trial_of(opening).is_answered
    }

    /// Whether a read would be let through to find out.
    pub(super) fn wants_trial(&self) -> bool {
        let opening = *self.open_since.borrow();
        opening.is_some() && self.trial_of(opening).may_start(Instant::now())
    }

    /// What is known in this opening; a new one starts in doubt.
    fn trial_of(&self, opening: Option<Instant>) -> MutexGuard<'_, Trial> {
        let mut trial = self.trial.lock().unwrap_or_else(PoisonError::into_inner);
        if trial.opening != opening {
            *trial = Trial { opening, ..Trial::default() };
        }
        trial
    }
}

impl Pass<'_> {
    /// What came of it.
    pub(super) fn end(mut self, found: Found) {
        self.found = found;
    }
}

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        let mut trial = self.breaker.trial.lock().unwrap_or_else(PoisonError::into_inner);
        if self.opening.is_none() || trial.opening != self.opening {
            return;
        }
        if self.is_trial {
            trial.is_under_way = false;
        }
        match self.found {
            Found::Up => trial.is_answered = true,
            Found::Down => (trial.is_answered, trial.not_before) = (false, Some(Instant::now() + TRY_EVERY)),
            Found::Unknown => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open() -> (watch::Sender<Option<Instant>>, Breaker) {
        let (sender, open_since) = watch::channel(Some(Instant::now()));
        (sender, Breaker::new(open_since))
    }

    #[tokio::test(start_paused = true)]
    async fn while_it_is_open_one_read_at_a_time_finds_out_a_second_after_the_last() {
        let (_sender, breaker) = open();
        let trial = breaker.pass().expect("the first one tries");
        assert!(breaker.pass().is_none() && breaker.is_in_doubt() && !breaker.wants_trial());
        trial.end(Found::Down);
        assert!(breaker.pass().is_none());
        tokio::time::advance(TRY_EVERY).await;
        assert!(breaker.wants_trial());
        drop(breaker.pass().expect("a second later the next one tries"));
        breaker.pass().expect("one that was not sent says nothing").end(Found::Up);
        assert!(!breaker.is_in_doubt());
        let both = (breaker.pass(), breaker.pass());
        assert!(both.0.is_some() && both.1.is_some(), "Cello is back for reads");
    }

    #[tokio::test(start_paused = true)]
    async fn after_cello_was_back_one_failure_brings_the_doubt_back() {
        let (_sender, breaker) = open();
        breaker.pass().expect("tries").end(Found::Up);
        let (first, second) = (breaker.pass().expect("goes"), breaker.pass().expect("goes"));
        first.end(Found::Down);
        assert!(breaker.is_in_doubt() && breaker.pass().is_none());
        drop(second);
        assert!(breaker.is_in_doubt());
    }

    #[tokio::test(start_paused = true)]
    async fn closed_it_lets_all_through_and_a_new_opening_starts_in_doubt() {
        let (sender, breaker) = open();
        let late = breaker.pass().expect("tries");
        sender.send_replace(None);
        assert!(!breaker.is_in_doubt() && !breaker.wants_trial());
        breaker.pass().expect("goes").end(Found::Down);
        tokio::time::advance(Duration::from_millis(1)).await;
        sender.send_replace(Some(Instant::now()));
        let trial = breaker.pass().expect("the first one tries");
        late.end(Found::Up);
        assert!(breaker.is_in_doubt(), "what was found in the last opening is of no more use");
        assert!(breaker.pass().is_none());
        drop(trial);
    }
}
