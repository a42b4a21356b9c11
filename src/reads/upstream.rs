//! One read's request to Cello: its turn, its deadline, and what can go wrong.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use hyper::{Method, StatusCode};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};

use super::breaker::{Breaker, Found, OpenSince};
use super::target::Target;
use crate::cello::{Access, Answer, Call, CallError, Cello, Courier, Fault};
use crate::metrics::Operation;
use crate::reason::Reason;

/// Reads under way or waiting for their turn; more are refused at once. A few KiB each.
const MAX_WAITING: usize = 1024;
/// The call's own limit comes first, because it is counted; this one cuts what waits for a token.
const SLACK: Duration = Duration::from_millis(20);

/// A flood of reads gets so many answers a second, if Cello is fast; those of a slow one are bounded by
/// `reads.concurrency` alone.
const ENOUGH_A_SECOND: u64 = 2_000;
/// What Cello is taken to need before its first answers: slow enough for all turns.
const UNKNOWN_MICROS: u64 = 10_000_000;
/// So many reads may be under way however fast Cello is.
const FEWEST_TURNS: u64 = 2;

/// Where reads go.
pub(super) struct Upstream {
    cello: Arc<Cello>,
    pub(super) breaker: Breaker,
    places: Semaphore,
    turns: Semaphore,
    concurrency: u32,
    pace: Pace,
    timeout: Duration,
}

/// How long Cello takes. The faster it is, the fewer reads at a time are enough, and the more they would take
/// from deliveries: then all of it is a matter of CPU, and whoever has more under way gets more of it.
struct Pace {
    /// The longest of late.
    micros: AtomicU64,
}

impl Pace {
    /// How many of all turns one read takes.
    fn share(&self, turns: u32) -> u32 {
        let micros = self.micros.load(Ordering::Relaxed);
        let needed = (micros.saturating_mul(ENOUGH_A_SECOND) / 1_000_000).max(FEWEST_TURNS);
        u32::try_from(u64::from(turns) / needed).unwrap_or(1).max(1)
    }

    /// A slow answer counts at once; fast ones bit by bit.
    fn note(&self, took: Duration) {
        let took = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let before = self.micros.load(Ordering::Relaxed);
        self.micros.store(took.max(before - before / 8), Ordering::Relaxed);
    }
}

/// Why no answer of Cello's can be given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// Too many reads at the same time.
    Busy,
    /// Cello is taken to be down: it was not asked.
    BreakerOpen,
    /// No token could be had, or none in time, for that reason.
    NoAccess(Reason),
    /// A token that Cello refuses, also a fresh one.
    Unauthorized,
    /// More than the relay reads.
    TooLarge,
    /// The call failed on its way.
    Lost(Fault),
}

impl Failure {
    /// What the app gets.
    pub(super) fn status(self) -> StatusCode {
        match self {
            Self::Busy | Self::BreakerOpen | Self::NoAccess(_) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Lost(Fault::Timeout) => StatusCode::GATEWAY_TIMEOUT,
            Self::Unauthorized | Self::TooLarge | Self::Lost(_) => StatusCode::BAD_GATEWAY,
        }
    }

    /// The stable name.
    pub(super) fn reason(self) -> &'static str {
        match self {
            Self::Busy => "busy",
            Self::BreakerOpen => "breaker_open",
            Self::NoAccess(reason) => reason.as_str(),
            Self::Unauthorized => "http_401",
            Self::TooLarge => "too_large",
            Self::Lost(Fault::Dns) => "dns",
            Self::Lost(Fault::Connect) => "connect",
            Self::Lost(Fault::Tls) => "tls",
            Self::Lost(Fault::Timeout) => "timeout",
            Self::Lost(Fault::Reset) => "reset",
        }
    }

    /// For people.
    pub(super) fn message(self) -> &'static str {
        match self {
            Self::Busy => "too many reads at the same time (reads.concurrency)",
            Self::BreakerOpen => "Cello is down; the relay asks it again by itself",
            Self::NoAccess(_) => "the relay has no access token for Cello",
            Self::Unauthorized => "Cello refuses the relay's access token",
            Self::TooLarge => "Cello's answer is larger than 64 KiB",
            Self::Lost(Fault::Timeout) => "Cello did not answer in time (reads.timeout)",
            Self::Lost(_) => "Cello cannot be reached",
        }
    }
}

impl Upstream {
    pub(super) fn new(cello: Arc<Cello>, open_since: OpenSince, concurrency: usize, timeout: Duration) -> Self {
        let concurrency = u32::try_from(concurrency).unwrap_or(u32::MAX);
        let (places, turns) = (Semaphore::new(MAX_WAITING), Semaphore::new(concurrency as usize));
        // Until it is known, Cello is taken to be slow.
        let pace = Pace { micros: AtomicU64::new(UNKNOWN_MICROS) };
        Self { cello, breaker: Breaker::new(open_since), places, turns, concurrency, pace, timeout }
    }

    /// Asks Cello; once more with a newer token after a 401.
    pub(super) async fn get(&self, target: &Target) -> Result<Answer, Failure> {
        self.send(Call::new(Operation::Read, Method::GET, target.path(), self.timeout)).await
    }

    /// Sends what cannot be undone: once, whatever comes.
    pub(super) async fn post_once(&self, target: &Target) -> Result<Answer, Failure> {
        self.send(Call::new(Operation::Read, Method::POST, target.path(), self.timeout).once()).await
    }

    async fn send(&self, call: Call) -> Result<Answer, Failure> {
        let pass = self.breaker.pass().ok_or(Failure::BreakerOpen)?;
        let result = self.send_in_turn(call).await;
        pass.end(found(&result));
        result
    }

    async fn send_in_turn(&self, mut call: Call) -> Result<Answer, Failure> {
        let deadline = Instant::now() + self.timeout;
        let _place = self.places.try_acquire().map_err(|_| Failure::Busy)?;
        let Ok(turn) = timeout_at(deadline, self.turns.acquire_many(self.pace.share(self.concurrency))).await else {
            return Err(Failure::Busy);
        };
        let _turn = turn.expect("the semaphore is never closed");
        let sent = Instant::now();
        call.timeout = deadline.saturating_duration_since(sent);
        let called = timeout_at(deadline + SLACK, self.cello.call(call)).await;
        self.pace.note(sent.elapsed());
        let answer = match called {
            Ok(Ok(answer)) => answer,
            Ok(Err(CallError::NoAccess)) => return Err(self.no_access()),
            Ok(Err(CallError::Transport(error))) => return Err(Failure::Lost(error.fault)),
            Err(_) if *self.cello.access().borrow() == Access::Granted => return Err(Failure::Lost(Fault::Timeout)),
            Err(_) => return Err(self.no_access()),
        };
        match answer.status {
            StatusCode::UNAUTHORIZED => Err(Failure::Unauthorized),
            // The connection speaks something else from here on (101): that is no answer to a read.
            status if status.is_informational() => Err(Failure::Lost(Fault::Reset)),
            _ if answer.cut => Err(Failure::TooLarge),
            _ => Ok(answer),
        }
    }

    /// Whether the keys are at fault, or Cello does not give a token.
    fn no_access(&self) -> Failure {
        let token = self.cello.token_status();
        Failure::NoAccess(match token.access {
            Access::Refused(_) | Access::Missing(_) => Reason::Credentials,
            // One is asked for, and neither came nor failed so far.
            Access::Waiting | Access::Granted => token.failure.unwrap_or(Reason::Timeout),
        })
    }
}

/// What an answer, or none, says of Cello.
fn found(result: &Result<Answer, Failure>) -> Found {
    match result {
        Ok(answer) if answer.status.is_server_error() => Found::Down,
        Ok(_) | Err(Failure::Unauthorized | Failure::TooLarge) => Found::Up,
        Err(Failure::Lost(_)) => Found::Down,
        Err(Failure::Busy | Failure::BreakerOpen | Failure::NoAccess(_)) => Found::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_faster_cello_is_the_fewer_reads_are_under_way() {
        let pace = Pace { micros: AtomicU64::new(UNKNOWN_MICROS) };
        assert_eq!(pace.share(16), 1, "nothing is known yet");
        let answers = |micros, count| (0..count).for_each(|_| pace.note(Duration::from_micros(micros)));
        answers(200, 400);
        assert_eq!(pace.share(16), 8, "two at a time");
        answers(100_000, 1);
        assert_eq!(pace.share(16), 1, "one slow answer opens the way");
        answers(2_500, 100);
        assert_eq!(pace.share(16), 3);
        for turns in 1..4 {
            answers(1, 200);
            assert!(pace.share(turns) <= turns.max(1));
        }
    }
}
