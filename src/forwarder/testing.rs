//! What the unit tests of this module share.

use std::time::Duration;

use bytes::Bytes;
use tokio::sync::watch;

use super::{Ambiguous, Judgement, Settings};
use crate::cello::{Access, Courier, Delivery, Departed, Verdict};
use crate::event::EventId;
use crate::reason::Reason;

/// Has the access that it is told, and never answers.
pub(super) struct Idle(pub(super) watch::Sender<Access>);

impl Courier for Idle {
    fn deliver(&self, _: EventId, _: Bytes, _: Departed) -> Delivery<'_> {
        Box::pin(std::future::pending())
    }

    fn access(&self) -> watch::Receiver<Access> {
        self.0.subscribe()
    }
}

/// The defaults.
pub(super) fn settings() -> Settings {
    Settings {
        concurrency: 8,
        max_per_second: 0,
        backoff_min: Duration::from_secs(1),
        backoff_max: Duration::from_secs(300),
        max_strikes: 20,
        give_up_after: Duration::from_secs(86_400),
        refusals_in_a_row: 20,
        ambiguous: Ambiguous::Retry,
    }
}

/// What Cello's answer of that status is judged to be.
pub(super) fn failure(status: u16) -> Judgement {
    let (verdict, reason) = match status {
        400 => (Verdict::Refused, Reason::Http400),
        401 => (Verdict::Hold, Reason::Http401),
        403 => (Verdict::Hold, Reason::Http403),
        404 => (Verdict::Hold, Reason::Http404),
        408 => (Verdict::Retry, Reason::Http408),
        425 => (Verdict::Retry, Reason::Http425),
        429 => (Verdict::Retry, Reason::Http429),
        _ => (Verdict::Retry, Reason::Http5xx),
    };
    Judgement { verdict, reason: Some(reason), status: Some(status), ..delivered() }
}

/// A plain 200.
pub(super) fn delivered() -> Judgement {
    Judgement {
        verdict: Verdict::Delivered,
        reason: None,
        status: Some(200),
        request_id: None,
        message: None,
        retry_after: None,
        outcome_unknown: false,
    }
}
