//! Which reason is expected under which metric: one table, so that a new reason is decided about once.

use crate::reason::Reason;

/// A metric with a `reason` label.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Of {
    /// What a request to Cello fails with.
    Failure,
    /// What makes an attempt fail and be repeated; refusals are, while delivery is held.
    Retry,
    /// What holds delivery.
    Hold,
    /// What an event can die of.
    Death,
    /// What leaves open whether Cello counted the event.
    Unknown,
}

use Of::{Death, Failure, Hold, Retry, Unknown};

/// Where a reason is expected. It is counted elsewhere too, but has no series before it occurs.
const fn expected_under(reason: Reason) -> &'static [Of] {
    match reason {
        Reason::Http400 | Reason::Http409 | Reason::Http413 | Reason::Http422 | Reason::Http4xx => {
            &[Failure, Retry, Hold, Death]
        }
        Reason::Http403 | Reason::Http404 | Reason::Http405 | Reason::Http410 | Reason::Http3xx => {
            &[Failure, Retry, Hold]
        }
        Reason::Http401 | Reason::Http408 | Reason::Http425 | Reason::Http429 => &[Failure, Retry],
        Reason::Dns | Reason::Connect | Reason::Tls => &[Failure, Retry],
        Reason::Http5xx | Reason::NotJson | Reason::Timeout | Reason::Reset => &[Failure, Retry, Unknown],
        Reason::SuccessFalse => &[Failure, Retry, Death],
        Reason::Credentials | Reason::MassRefusal => &[Hold],
        Reason::Exhausted | Reason::Ambiguous | Reason::Corrupt => &[Death],
        Reason::DeadLettersFull => &[Retry],
    }
}

/// The reasons that have a series under that metric from the start.
pub(super) fn expected(of: Of) -> Vec<Reason> {
    Reason::ALL.iter().copied().filter(|reason| expected_under(*reason).contains(&of)).collect()
}
