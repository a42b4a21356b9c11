//! When an event is given up (`exhausted`): only for a fault that is provably its own.
//!
//! A *strike* is a failure of an event between whose attempts another user's event was delivered. It
//! takes both many strikes and a long time, and a strike to end it, so no outage gives up anything,
//! and neither is a lone event.

use crate::clock::Timestamp;
use crate::outbox::Progress;
use crate::reason::Reason;

use super::{Judgement, Settings};

/// Whether this failure counts against the event itself.
pub(super) fn is_strike(progress: &Progress, judgement: &Judgement) -> bool {
    progress.overtaken && !comes_and_goes(judgement)
}

/// Whether a strike now is the last one.
pub(super) fn is_exhausted(progress: &Progress, now: Timestamp, settings: &Settings) -> bool {
    let failing_for = progress.first_failed_at.map_or_else(Default::default, |first| now.since(first));
    progress.strikes.saturating_add(1) >= settings.max_strikes && failing_for >= settings.give_up_after
}

/// Failures that hit one event and spare the next by chance: load, network, tokens.
fn comes_and_goes(judgement: &Judgement) -> bool {
    let by_reason = matches!(
        judgement.reason,
        Some(
            Reason::Http401
                | Reason::Http408
                | Reason::Http425
                | Reason::Http429
                | Reason::Dns
                | Reason::Connect
                | Reason::Tls
                | Reason::Timeout
                | Reason::Reset
        )
    );
    by_reason || judgement.status == Some(503)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::testing::{failure, settings};
    use super::*;

    const DAY: Duration = Duration::from_secs(86_400);

    fn overtaken(strikes: u32) -> Progress {
        let first_failed_at = Some(Timestamp::from_millis(0));
        Progress { attempts: strikes, strikes, first_failed_at, overtaken: true }
    }

    #[test]
    fn a_failure_that_no_delivery_overtook_is_no_strike() {
        assert!(!is_strike(&Progress { overtaken: false, ..overtaken(3) }, &failure(500)));
        assert!(is_strike(&overtaken(3), &failure(500)));
        assert!(is_strike(&overtaken(3), &failure(403)));
    }

    #[test]
    fn load_network_and_tokens_never_strike() {
        for status in [401, 408, 425, 429, 503] {
            assert!(!is_strike(&overtaken(3), &failure(status)), "{status}");
        }
        for reason in [Reason::Dns, Reason::Connect, Reason::Tls, Reason::Timeout, Reason::Reset] {
            let judgement = Judgement { reason: Some(reason), status: None, ..failure(500) };
            assert!(!is_strike(&overtaken(3), &judgement), "{reason}");
        }
    }

    #[test]
    fn giving_up_takes_both_strikes_and_time() {
        let at = |time: Duration| Timestamp::from_millis(0).plus(time);
        let settings = settings();
        assert!(!is_exhausted(&overtaken(18), at(30 * DAY), &settings));
        assert!(!is_exhausted(&overtaken(500), at(DAY - Duration::from_secs(1)), &settings));
        assert!(is_exhausted(&overtaken(19), at(DAY), &settings));
    }
}
