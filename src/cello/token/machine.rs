//! Which token to ask for, and when: pure, time and randomness passed in.
//!
//! ```text
//! credentials ─▶ ask by keys ──granted──▶ held ──70 % of its life──▶ ask by refresh token ─┐
//!                  ▲   │ 400/401/403: refused, again in 5 min          │ 400/401/403, or 3 failures
//!                  │   │ or at once when they change                   ▼
//!                  │   └ other failures: 1 s × 2 to 60 s           ask by keys
//!                  └──────────────── 401 on a call: forgotten, at once (but see below)
//! ```
//!
//! * A token is used until it ends, whatever becomes of the attempts to replace it.
//! * Changed keys are tried at once. Until they have given a token, the keys that gave the last one are
//!   kept beside them.
//! * A 401 on a call forgets the token and asks at once, but not again before a growing pause is over:
//!   a token that is refused within it stays in use (its 401 *stands*: an answer, not a reason to wait)
//!   and is replaced when the pause ends. Refused fresh tokens make no storm. It stands too while nothing can be
//!   asked, as Cello wants time or refuses the keys: one stray 401 must not take away the only token.

use std::sync::Arc;
use std::time::Duration;

use secrecy::SecretString;
use tokio::time::Instant;

use super::Token;
use crate::cello::credentials::Secrets;

/// Refused keys are tried again so often, in case Cello was wrong.
const REFUSED_AGAIN: Duration = Duration::from_secs(300);
/// A refresh token that failed so often in a row gives way to the keys.
const REFRESH_TRIES: u32 = 3;
/// Without a 401 for so long after the pause, the next 401 is the first again.
const QUIET: Duration = Duration::from_secs(120);

/// A token that Cello gave.
pub(in crate::cello) struct Granted {
    pub(super) value: SecretString,
    pub(in crate::cello) life: Duration,
    pub(super) refresh: Option<SecretString>,
    /// `None`: not said, so it is tried until it is refused.
    pub(super) refresh_life: Option<Duration>,
}

/// Why no token came, as far as it matters here.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// 400, 401 or 403: what was shown is not accepted.
    Rejected,
    /// Anything else; with Cello's `Retry-After`.
    Failed(Option<Duration>),
}

/// What to do now.
#[derive(Debug)]
pub(super) enum Next {
    Ask(Ask),
    /// Nothing before that moment, or before something changes.
    Wait(Option<Instant>),
}

/// What to show to get a token.
#[derive(Clone, Debug)]
pub(in crate::cello) enum Ask {
    Keys(Arc<Secrets>),
    Refresh(SecretString),
}

/// What a 401 on a call leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rejected {
    /// The token is thrown away; a new one is asked for.
    Forgotten,
    /// The token stays for now: the 401 is the answer.
    Stands,
    /// The token was another one; a newer is there or on its way.
    Superseded,
}

/// How things stand with access.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    Waiting,
    Granted,
    Refused,
    Missing,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Machine {
    held: Option<Held>,
    /// Of the last token given; the first is 1.
    generation: u64,
    refresh: Option<Refresh>,
    /// The keys as configured now.
    newest: Option<Pair>,
    /// The configured keys cannot be read now; none are used meanwhile.
    missing: bool,
    /// Older keys that gave a token, while the newest have not.
    proven: Option<Arc<Secrets>>,
    /// After a failure nothing is asked before.
    pause: Option<Instant>,
    failures: u32,
    forced: Forced,
}

#[derive(Debug)]
struct Held {
    token: Token,
    ends: Instant,
    renew_at: Instant,
    /// It was answered 401 and is kept for want of a better one.
    suspect: bool,
}

#[derive(Debug)]
struct Refresh {
    value: SecretString,
    ends: Option<Instant>,
    failures: u32,
}

#[derive(Debug)]
struct Pair {
    keys: Arc<Secrets>,
    state: PairState,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PairState {
    Untried,
    Good,
    Refused { again_at: Instant },
}

/// The pause between tokens that a 401 asked for.
#[derive(Debug, Default)]
struct Forced {
    count: u32,
    not_before: Option<Instant>,
}

impl Forced {
    fn allowed(&self, now: Instant) -> bool {
        self.not_before.is_none_or(|at| now >= at)
    }

    fn book(&mut self, now: Instant, rng: &mut fastrand::Rng) {
        if self.not_before.is_some_and(|at| now >= at + QUIET) {
            self.count = 0;
        }
        self.count += 1;
        self.not_before = Some(now + pause(self.count, rng));
    }
}

/// 1 s × 2 to 60 s, of which a random half is left out so that pods do not ask together.
fn pause(count: u32, rng: &mut fastrand::Rng) -> Duration {
    let full = Duration::from_secs(1 << count.saturating_sub(1).min(6)).min(Duration::from_secs(60));
    full.mul_f64(0.5 + rng.f64() / 2.0)
}

impl Machine {
    /// Without a token; `generation` is that of the last one that there was.
    pub(super) fn after(generation: u64) -> Self {
        Self { generation, ..Self::default() }
    }

    /// What to do now.
    pub(super) fn next(&mut self, now: Instant) -> Next {
        self.held.take_if(|held| held.ends <= now);
        self.refresh.take_if(|refresh| refresh.ends.is_some_and(|ends| ends <= now));
        let paused = self.pause.filter(|until| *until > now);
        if paused.is_none()
            && let Some(ask) = self.ask(now)
        {
            return Next::Ask(ask);
        }
        let ends = self.held.as_ref().map(|held| held.ends);
        let renew_at = self.held.as_ref().map(|held| held.renew_at);
        let again_at = match self.newest.as_ref().map(|pair| pair.state) {
            Some(PairState::Refused { again_at }) if !self.missing => Some(again_at),
            _ => None,
        };
        // During a pause the other moments must wait for it; the end of the token must not.
        let due = paused.or_else(|| renew_at.into_iter().chain(again_at).filter(|at| *at > now).min());
        Next::Wait(due.into_iter().chain(ends).min())
    }

    fn ask(&self, now: Instant) -> Option<Ask> {
        let newest = self.newest.as_ref().filter(|_| !self.missing);
        if let Some(pair) = newest {
            let untried = match pair.state {
                PairState::Untried => true,
                PairState::Refused { again_at } => again_at <= now,
                PairState::Good => false,
            };
            if untried {
                return Some(Ask::Keys(pair.keys.clone()));
            }
        }
        if self.held.as_ref().is_some_and(|held| now < held.renew_at) {
            return None;
        }
        let keys = match newest {
            Some(Pair { keys, state: PairState::Good }) => Some(keys),
            _ => self.proven.as_ref().filter(|_| !self.missing),
        };
        match &self.refresh {
            Some(refresh) if refresh.failures < REFRESH_TRIES || keys.is_none() => {
                Some(Ask::Refresh(refresh.value.clone()))
            }
            _ => keys.cloned().map(Ask::Keys),
        }
    }

    /// The keys as read now; `None`: they cannot be.
    pub(super) fn credentials(&mut self, keys: Option<Arc<Secrets>>) {
        let Some(keys) = keys else {
            self.missing = true;
            return;
        };
        self.missing = false;
        if self.newest.as_ref().is_some_and(|pair| pair.keys == keys) {
            return;
        }
        if let Some(Pair { keys, state: PairState::Good }) = self.newest.take() {
            self.proven = Some(keys);
        }
        self.newest = Some(Pair { keys, state: PairState::Untried });
        self.pause = None;
        self.failures = 0;
    }

    /// A token came, asked for at `asked`. Says whether it replaced a live one because the keys changed.
    pub(super) fn granted(&mut self, asked: Instant, ask: &Ask, granted: Granted, rng: &mut fastrand::Rng) -> bool {
        let mut rotated = false;
        let refresh_ends = granted.refresh_life.map(|life| asked + life);
        let fresh = granted.refresh.map(|value| Refresh { value, ends: refresh_ends, failures: 0 });
        match ask {
            Ask::Keys(keys) => {
                if let Some(pair) = self.newest.as_mut().filter(|pair| pair.keys == *keys) {
                    rotated = self.held.is_some() && pair.state != PairState::Good;
                    pair.state = PairState::Good;
                    self.proven = None;
                }
                self.refresh = fresh;
            }
            Ask::Refresh(_) if fresh.is_some() => self.refresh = fresh,
            Ask::Refresh(_) => self.refresh.iter_mut().for_each(|refresh| refresh.failures = 0),
        }
        if self.held.as_ref().is_some_and(|held| held.suspect) {
            self.forced.book(asked, rng);
        }
        self.generation += 1;
        let token = Token { generation: self.generation, value: granted.value };
        let (ends, renew_at) = (asked + granted.life, asked + granted.life.mul_f64(0.7));
        self.held = Some(Held { token, ends, renew_at, suspect: false });
        self.failures = 0;
        self.pause = None;
        rotated
    }

    /// No token came.
    pub(super) fn refused(&mut self, now: Instant, ask: &Ask, refusal: Refusal, rng: &mut fastrand::Rng) {
        match (ask, refusal) {
            (Ask::Refresh(_), Refusal::Rejected) => self.refresh = None,
            (Ask::Keys(keys), Refusal::Rejected) => {
                self.failures = 0;
                self.proven.take_if(|proven| proven == keys);
                if let Some(pair) = self.newest.as_mut().filter(|pair| pair.keys == *keys) {
                    pair.state = PairState::Refused { again_at: now + REFUSED_AGAIN };
                }
            }
            (_, Refusal::Failed(wish)) => {
                self.failures += 1;
                self.pause = Some(now + pause(self.failures, rng).max(wish.unwrap_or_default()));
                if let (Ask::Refresh(_), Some(refresh)) = (ask, &mut self.refresh) {
                    refresh.failures += 1;
                }
            }
        }
    }

    /// A call with that generation was answered 401.
    pub(super) fn rejected(&mut self, now: Instant, generation: u64, rng: &mut fastrand::Rng) -> Rejected {
        let Some(mut held) = self.held.take_if(|held| held.token.generation == generation) else {
            return Rejected::Superseded;
        };
        let is_paused = self.pause.is_some_and(|until| now < until);
        if self.forced.allowed(now) && !is_paused && self.ask(now).is_some() {
            self.forced.book(now, rng);
            return Rejected::Forgotten;
        }
        held.suspect = true;
        held.renew_at = held.renew_at.min(self.forced.not_before.unwrap_or(now));
        self.held = Some(held);
        if self.newest.as_ref().is_some_and(|pair| pair.state == PairState::Good) && !self.missing {
            // What the refresh token gives is refused: the keys know better.
            self.refresh = None;
        }
        Rejected::Stands
    }

    /// The token in use, and its end.
    pub(super) fn token(&self) -> Option<(&Token, Instant)> {
        self.held.as_ref().map(|held| (&held.token, held.ends))
    }

    /// When the token in use is to be replaced.
    pub(super) fn renew_at(&self) -> Option<Instant> {
        self.held.as_ref().map(|held| held.renew_at)
    }

    /// There is no token, and the last attempt to get one failed: another is made when the pause is over.
    pub(super) fn is_failing(&self) -> bool {
        self.held.is_none() && self.pause.is_some()
    }

    /// How things stand with access.
    pub(super) fn standing(&self) -> Standing {
        if self.held.is_some() {
            return Standing::Granted;
        }
        let newest = self.newest.as_ref().filter(|_| !self.missing);
        match newest.map(|pair| pair.state) {
            _ if self.refresh.is_some() => Standing::Waiting,
            _ if self.missing => Standing::Missing,
            Some(PairState::Refused { .. }) if self.proven.is_none() => Standing::Refused,
            _ => Standing::Waiting,
        }
    }

    /// How things stand with the configured keys, whatever token is still in use.
    pub(super) fn keys(&self) -> Standing {
        match self.newest.as_ref().map(|pair| pair.state) {
            _ if self.missing => Standing::Missing,
            None | Some(PairState::Untried) => Standing::Waiting,
            Some(PairState::Good) => Standing::Granted,
            Some(PairState::Refused { .. }) => Standing::Refused,
        }
    }
}

#[cfg(test)]
#[path = "machine/tests.rs"]
mod tests;
