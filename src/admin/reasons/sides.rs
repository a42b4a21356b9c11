//! What is wrong on either side: keys and token towards Cello, the clock, the apps at the door.

use std::time::Duration;

use super::words::{count_of, span, time, waiting};
use super::{Finding, Severity, Snapshot};
use crate::admin::Auth;
use crate::cello::{Access, TokenState};
use crate::ingress::door::Kind;

/// A clock so wrong spoils TLS, dates and waits.
const SKEW: u64 = 60;
/// What happened at the door within this time is news.
const LATELY: Duration = Duration::from_secs(900);

const CHECK: &str = "cello-relay check-config --online";
const LOG: &str = "cello-relay log-level debug --for 10m";

/// The keys are refused or missing and no token is left.
pub(super) fn keys_stop_delivery(snapshot: &Snapshot) -> bool {
    matches!(snapshot.token.access, Access::Refused(_) | Access::Missing(_))
}

pub(super) fn keys(snapshot: &Snapshot, found: &mut Vec<Finding>) {
    let (token, now) = (&snapshot.token, snapshot.now);
    let environment = &snapshot.about.environment;
    let status = || token.last_error.as_ref().map(|(_, said)| format!(" ({said})")).unwrap_or_default();
    let until = || token.expires_at.map_or_else(String::new, |at| format!(", until {}", time(at, now)));
    let (code, severity, since, sentence) = match (token.access, token.state(now)) {
        (Access::Refused(since), _) => {
            let sentence = format!(
                "Cello refuses the access key since {} ({environment}); {}. Check the Secret, then nothing more: it \
                 resumes by itself. Keys are made in the Cello Portal, Access Keys, per environment.",
                time(since, now),
                waiting(snapshot)
            );
            ("token_refused", Severity::Critical, Some(since), sentence)
        }
        (Access::Missing(since), _) => {
            let at = format!("since {}{}; {}", time(since, now), status(), waiting(snapshot));
            let sentence = if snapshot.about.auth == Auth::Bearer {
                let upstream = &snapshot.about.base_url;
                format!(
                    "The token for {upstream} (cello.bearer_token_file) cannot be read {at}. Mend the file or its mount: \
                     it resumes by itself when it can be read."
                )
            } else {
                format!(
                    "The access key cannot be read {at}. Mend the Secret or its mount: it resumes by itself when the \
                     files are there."
                )
            };
            ("token_missing", Severity::Critical, Some(since), sentence)
        }
        (_, TokenState::Valid | TokenState::Ageing) if token.keys_refused => {
            let sentence = format!(
                "Cello refuses the configured access key ({environment}); the token in use still works{}. Check the \
                 Secret before then: a mended one is taken by itself.",
                until()
            );
            ("keys_refused", Severity::Warning, token.last_error.as_ref().map(|(at, _)| *at), sentence)
        }
        (_, TokenState::Ageing) => {
            let sentence = format!(
                "The access token could not be replaced{}; it still works{}. It is asked for again by itself.",
                status(),
                until()
            );
            ("token_ageing", Severity::Warning, token.refresh_at, sentence)
        }
        (_, state @ (TokenState::Expired | TokenState::BackingOff)) => {
            let none = if state == TokenState::Expired { "has ended and no new one came" } else { "has not come yet" };
            let sentence = format!(
                "The access token {none}{}; {}. It is asked for again by itself, every minute at least.",
                status(),
                waiting(snapshot)
            );
            let since = token.expires_at.or(token.last_error.as_ref().map(|(at, _)| *at));
            ("token_unavailable", Severity::Warning, since, sentence)
        }
        _ => return,
    };
    let count = snapshot.stats.ledger.undelivered();
    found.push(Finding { code, severity, sentence, since, count, command: CHECK });
}

pub(super) fn look(snapshot: &Snapshot, found: &mut Vec<Finding>) {
    if let Some(skew) = snapshot.clock_skew.filter(|skew| skew.unsigned_abs() >= SKEW) {
        let way = if skew > 0 { "ahead of" } else { "behind" };
        found.push(Finding {
            code: "clock_skew",
            severity: Severity::Warning,
            sentence: format!(
                "This machine's clock is {} {way} Cello's (by the Date of its answers). Events without a timestamp get \
                 wrong dates and TLS may fail: mend the node's time synchronisation.",
                span(Duration::from_secs(skew.unsigned_abs()))
            ),
            since: None,
            count: 0,
            command: "timedatectl status",
        });
    }
    door(snapshot, Kind::Refusal, found);
    door(snapshot, Kind::Warning, found);
}

/// What happened lately at the door, as one sentence for each kind.
fn door(snapshot: &Snapshot, kind: Kind, found: &mut Vec<Finding>) {
    let lately = |at| snapshot.now.since(at) < LATELY;
    let notes: Vec<_> = snapshot.door.iter().filter(|note| note.kind == kind && lately(note.at)).collect();
    let Some(newest) = notes.first() else { return };
    let count = notes.iter().map(|note| note.count).sum();
    let fields = if newest.fields.is_empty() { String::new() } else { format!(" ({})", newest.fields.join(", ")) };
    let last = format!("last {}{fields} at {}", newest.what, time(newest.at, snapshot.now));
    let (code, severity, sentence) = match kind {
        Kind::Refusal => (
            "door_refusals",
            Severity::Warning,
            format!(
                "{} refused at the door lately, {last}. Nothing of them is kept: the app that sends them must be mended \
                 or try again.",
                count_of(count, "request") + if count == 1 { " was" } else { " were" }
            ),
        ),
        Kind::Warning => (
            "door_warnings",
            Severity::Info,
            format!(
                "{} given at the door lately, {last}. The events are delivered as they are; Cello may read them \
                 otherwise than meant.",
                count_of(count, "warning") + if count == 1 { " was" } else { " were" }
            ),
        ),
    };
    found.push(Finding { code, severity, sentence, since: None, count, command: LOG });
}
