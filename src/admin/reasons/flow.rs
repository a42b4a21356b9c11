//! Why events do not go out, or go out late.

use std::time::Duration;

use super::words::{capital, count_of, span, time, waiting};
use super::{Finding, Severity, Snapshot};
use crate::admin::Auth;
use crate::forwarder::{Breaker, Pause};
use crate::outbox::Flow;
use crate::reason::Reason;

/// Events that wait so long are late: the service level of delivery.
const LATE: Duration = Duration::from_secs(300);

const CHECK: &str = "cello-relay check-config --online";
/// Shows what still waits, until nothing does.
const WAIT: &str = "cello-relay wait --empty";

pub(super) fn look(snapshot: &Snapshot, found: &mut Vec<Finding>) {
    let before = found.len();
    hold(snapshot, found);
    breaker(snapshot, found);
    if let Some(pause) = snapshot.forwarder.paused {
        found.push(paused(snapshot, pause));
    }
    if snapshot.forwarder.flow == Flow::Draining {
        found.push(draining(snapshot));
    }
    paced(snapshot, found);
    blocked(snapshot, found);
    // Said only where nothing said before why they wait.
    let explained = found.len() > before || found.iter().any(|finding| finding.severity == Severity::Critical);
    if !explained && snapshot.stats.oldest_age(snapshot.now) >= LATE {
        found.push(Finding {
            code: "backlog",
            severity: Severity::Warning,
            sentence: format!(
                "Delivery is behind though Cello takes events: {}. It catches up by itself if less comes in than \
                 goes out; if not, raise forward.concurrency or forward.max_per_second.",
                waiting(snapshot)
            ),
            since: snapshot.stats.oldest,
            count: snapshot.stats.ledger.undelivered(),
            command: WAIT,
        });
    }
}

fn draining(snapshot: &Snapshot) -> Finding {
    let waiting = waiting(snapshot);
    // An ending relay answers no more questions at its door.
    let (sentence, command) = if snapshot.is_ending {
        let said = format!(
            "The relay is ending and empties its outbox first, for shutdown.deadline at most; {waiting}. What is left \
             waits for the next start. No new events are taken once shutdown.linger is over."
        );
        (said, "")
    } else {
        let said = format!(
            "The outbox is being emptied before an end: retry times are dropped, events are still taken; {waiting}. \
             Only a restart of the relay ends it."
        );
        (said, WAIT)
    };
    let count = snapshot.stats.ledger.undelivered();
    Finding { code: "draining", severity: Severity::Info, sentence, since: None, count, command }
}

fn hold(snapshot: &Snapshot, found: &mut Vec<Finding>) {
    let Some((reason, since)) = snapshot.forwarder.hold else { return };
    let (at, waiting) = (time(since, snapshot.now), capital(&waiting(snapshot)));
    let environment = &snapshot.about.environment;
    let (code, said) = match reason {
        // Told by the keys' own sentence, unless it is the token alone that is not taken.
        Reason::Credentials if super::sides::keys_stop_delivery(snapshot) => return,
        Reason::Credentials if snapshot.about.auth == Auth::Bearer => (
            "held_credentials",
            "The upstream refuses the token in cello.bearer_token_file with 401. Put the one there that it expects; \
             a changed file is read by itself",
        ),
        Reason::Credentials if snapshot.about.auth == Auth::None => (
            "held_credentials",
            "The upstream wants a token, but cello.auth is \"none\" and none is sent (401). Set cello.auth to \"keys\" for \
             Cello or to \"bearer\" for another relay; a restart reads it",
        ),
        Reason::Credentials => (
            "held_credentials",
            "Cello gives access tokens and then refuses them with 401. Check that the keys belong to this \
             environment",
        ),
        Reason::MassRefusal => (
            "held_mass_refusal",
            "Cello refuses the events of many users in a row, as after a bad release, so no more are given up. \
             Look at what was refused and ask Cello",
        ),
        Reason::Http403 => (
            "held_http_403",
            "Cello, or a gateway or proxy before it, answers 403. Check that this address may call Cello",
        ),
        Reason::Http404 | Reason::Http405 | Reason::Http410 => (
            "held_no_such_api",
            "The upstream does not know the path for events (404, 405 or 410). Check cello.base_url",
        ),
        Reason::Http3xx => {
            ("held_redirect", "The upstream answers with a redirect, which is never followed. Check cello.base_url")
        }
        _ => (
            "held_http_4xx",
            "The upstream refuses calls with a 4xx that does not read like Cello's own words. Check cello.base_url \
             and what is between here and Cello (407: a proxy wants a password)",
        ),
    };
    // Where no token is asked for, it is told who wants another, and there is nothing to try online.
    let (whose, command) = match reason {
        Reason::MassRefusal => (environment, "cello-relay outbox list --state dead"),
        Reason::Credentials if snapshot.about.auth != Auth::Keys => {
            (&snapshot.about.base_url, "cello-relay check-config")
        }
        _ => (environment, CHECK),
    };
    found.push(Finding {
        code,
        severity: Severity::Critical,
        sentence: format!(
            "Delivery is held since {at} ({whose}, {reason}): {said}. {waiting}; a probe goes out every 30 s at \
             most, and delivery resumes by itself with the first one that is taken."
        ),
        since: Some(since),
        count: snapshot.stats.ledger.undelivered(),
        command,
    });
}

fn breaker(snapshot: &Snapshot, found: &mut Vec<Finding>) {
    let forwarder = &snapshot.forwarder;
    let since = forwarder.breaker_since;
    let at = since.map_or_else(String::new, |since| format!(" since {}", time(since, snapshot.now)));
    let (code, severity, sentence) = match forwarder.breaker {
        Breaker::Closed => return,
        Breaker::SlowStart => (
            "slow_start",
            Severity::Info,
            format!("Cello takes events again{at}; delivery speeds up step by step. {}.", capital(&waiting(snapshot))),
        ),
        Breaker::Open | Breaker::HalfOpen => {
            let last = forwarder.last_failure.as_ref();
            let cause = last.map_or_else(String::new, |last| format!(" (last: {})", last.reason));
            let next = forwarder.next_probe_at.map_or_else(
                || "a probe is under way".to_owned(),
                |at| format!("the next probe goes out in {}", span(at.since(snapshot.now))),
            );
            let sentence = format!(
                "Cello fails{cause}: the breaker is open{at}. {}; {next}, and delivery resumes by itself with the \
                 first one that is taken.",
                capital(&waiting(snapshot))
            );
            ("breaker_open", Severity::Warning, sentence)
        }
    };
    found.push(Finding { code, severity, sentence, since, count: snapshot.stats.ledger.undelivered(), command: CHECK });
}

fn paused(snapshot: &Snapshot, pause: Pause) -> Finding {
    let end = match pause.until {
        Some(until) => format!(
            "It ends by itself at {}, in {}; `cello-relay resume` ends it now",
            time(until, snapshot.now),
            span(until.since(snapshot.now))
        ),
        None => "It lasts, also over a restart, until someone runs `cello-relay resume`".to_owned(),
    };
    Finding {
        code: "paused",
        severity: Severity::Warning,
        sentence: format!(
            "An operator paused delivery at {}; events are taken and kept, {}. {end}.",
            time(pause.since, snapshot.now),
            waiting(snapshot)
        ),
        since: Some(pause.since),
        count: snapshot.stats.ledger.undelivered(),
        command: "cello-relay resume",
    }
}

fn paced(snapshot: &Snapshot, found: &mut Vec<Finding>) {
    let Some(until) = snapshot.forwarder.paced_until else { return };
    found.push(Finding {
        code: "paced",
        severity: Severity::Info,
        sentence: format!(
            "Cello asked for a rest (Retry-After): nothing is sent for {} more; {}. It resumes by itself.",
            span(until.since(snapshot.now)),
            waiting(snapshot)
        ),
        since: None,
        count: snapshot.stats.ledger.undelivered(),
        command: "",
    });
}

/// Users whose head is retried while others' events go through.
fn blocked(snapshot: &Snapshot, found: &mut Vec<Finding>) {
    let (stats, forwarder) = (&snapshot.stats, &snapshot.forwarder);
    let stopped = forwarder.hold.is_some()
        || forwarder.paused.is_some()
        || matches!(forwarder.breaker, Breaker::Open | Breaker::HalfOpen);
    if stats.retrying == 0 || stopped {
        return;
    }
    let late = stats.oldest_age(snapshot.now) >= LATE;
    let last = forwarder.last_failure.as_ref();
    let cause = last.map_or_else(String::new, |last| format!(" (last failure: {})", last.reason));
    found.push(Finding {
        code: "user_blocked",
        severity: if late { Severity::Warning } else { Severity::Info },
        sentence: format!(
            "The first event of {} failed and is tried again{cause}; later events of the same users wait behind it, \
             those of others do not. {}. It is retried by itself, at least every 5 min, until it is delivered or \
             given up.",
            count_of(stats.retrying, "user"),
            capital(&waiting(snapshot))
        ),
        since: if late { stats.oldest } else { None },
        count: stats.retrying,
        command: "cello-relay outbox list --state retrying",
    });
}
