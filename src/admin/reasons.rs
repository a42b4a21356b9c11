//! Why the relay is not as it should be: one pure function from a [`Snapshot`] to sentences that someone who
//! was just woken up understands. API, page, CLI and log show the same ones.
//!
//! A sentence says what is wrong, since when and how much, and what resumes by itself; `command` is what to
//! type next, if a command leads on. None holds personal data: nothing that an app or Cello worded goes in.

mod flow;
mod sides;
mod store;
mod words;

use serde_json::{Value, json};

use super::snapshot::Snapshot;
use crate::clock::Timestamp;
use crate::forwarder::Pause;
use crate::outbox::Stats;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Worth knowing; nothing to do.
    Info,
    /// Delivery is late or something needs a look in working hours.
    Warning,
    /// Events are refused, stuck or gone until someone acts.
    Critical,
}

impl Severity {
    /// The name in the API.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Severity::Info => "info",
            Severity::Warning => "warning",
            Severity::Critical => "critical",
        }
    }
}

/// One thing that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Its stable name.
    pub code: &'static str,
    /// How bad it is.
    pub severity: Severity,
    /// What is wrong, in numbers and times, and what to do.
    pub sentence: String,
    /// Since when; `None` if only whoever looks repeatedly can tell.
    pub since: Option<Timestamp>,
    /// How many events or things it is about; 0 where that means nothing.
    pub count: u64,
    /// What to type next; empty if no command leads on.
    pub command: &'static str,
}

impl Finding {
    /// As the API shows it.
    pub(super) fn json(&self) -> Value {
        json!({
            "code": self.code, "severity": self.severity.as_str(), "sentence": self.sentence,
            "since": self.since.map(|since| since.to_string()), "count": self.count, "command": self.command,
        })
    }
}

/// Everything that is not as it should be, worst first.
#[must_use]
pub fn reasons(snapshot: &Snapshot) -> Vec<Finding> {
    let mut found = Vec::new();
    for look in [sides::keys, flow::look, store::look, sides::look] {
        look(snapshot, &mut found);
    }
    // Stable: of two that are as bad, the one that stops more comes first.
    found.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
    found
}

/// The same of a relay that does not run, as the API shows them: what lies in its outbox and on what disk
/// (`outbox.durability`), and a pause that the next start keeps.
#[must_use]
pub fn of_a_stopped(stats: Stats, durability: &str, pause: Option<Pause>, now: Timestamp) -> Value {
    let mut snapshot = Snapshot { now, stats, ..Snapshot::default() };
    durability.clone_into(&mut snapshot.about.durability);
    snapshot.forwarder.paused = pause.filter(|pause| pause.left(now).is_some());
    // What a loop or a listener would know is not known here.
    let told = ["paused", "backlog_on_pod_disk", "dead_letters", "lost_events", "quarantined"];
    reasons(&snapshot).iter().filter(|finding| told.contains(&finding.code)).map(Finding::json).collect()
}

/// Whether nobody needs to look.
#[must_use]
pub fn is_healthy(findings: &[Finding]) -> bool {
    findings.iter().all(|finding| finding.severity == Severity::Info)
}

#[cfg(test)]
mod tests;
