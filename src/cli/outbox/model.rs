//! The control API's answers, and how people read them.

use std::time::Duration;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::cli::output::{self, Table, age};

/// `GET /api/status`, as far as it is shown.
#[derive(Debug, Deserialize)]
pub(in crate::cli) struct Status {
    #[serde(default)]
    pub(super) state: String,
    #[serde(default)]
    pub(super) version: String,
    pub(in crate::cli) queue: Queue,
    #[serde(default)]
    pub(super) ledger: Ledger,
    #[serde(default)]
    reasons: Vec<Reason>,
}

/// Why it is not as it should be.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Reason {
    severity: String,
    sentence: String,
    command: String,
}

impl Reason {
    /// What is wrong, and on a second line what to type, if that leads on.
    fn render(&self) -> String {
        let severity = output::printable(&self.severity.to_uppercase());
        let (sentence, command) = (output::printable(&self.sentence), output::printable(&self.command));
        let next = if command.is_empty() { String::new() } else { format!("          next: {command}\n") };
        format!("{severity:<8}  {sentence}\n{next}")
    }
}

/// What waits now.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(in crate::cli) struct Queue {
    pending: u64,
    #[serde(alias = "in_flight")]
    in_flight: u64,
    retrying: u64,
    dead: u64,
    #[serde(alias = "oldest_seconds")]
    oldest_seconds: f64,
}

impl Queue {
    /// Not delivered and not dead.
    pub(in crate::cli) fn waiting(&self) -> u64 {
        self.pending + self.in_flight + self.retrying
    }
}

/// What has ever happened.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Ledger {
    accepted: u64,
    delivered: u64,
    dead: u64,
    discarded: u64,
    erased: u64,
    lost: u64,
}

impl Status {
    pub(super) fn render(&self) -> String {
        let (queue, ledger) = (&self.queue, &self.ledger);
        let mut now = Table::new(["NOW", ""]);
        now.row(["state".to_owned(), self.state.clone()]);
        for (name, count) in [
            ("pending", queue.pending),
            ("in flight", queue.in_flight),
            ("retrying", queue.retrying),
            ("dead", queue.dead),
        ] {
            now.row([name.to_owned(), count.to_string()]);
        }
        let oldest = Duration::try_from_secs_f64(queue.oldest_seconds).unwrap_or_default();
        now.row(["oldest".to_owned(), if queue.waiting() == 0 { "-".to_owned() } else { age(oldest) }]);
        let mut ever = Table::new(["EVER", ""]);
        for (name, count) in [
            ("accepted", ledger.accepted),
            ("delivered", ledger.delivered),
            ("dead", ledger.dead),
            ("discarded", ledger.discarded),
            ("erased", ledger.erased),
            ("lost", ledger.lost),
        ] {
            ever.row([name.to_owned(), count.to_string()]);
        }
        let version = if self.version.is_empty() { "" } else { &format!("\nversion {}\n", self.version) };
        let mut reasons: String = self.reasons.iter().map(Reason::render).collect();
        if !reasons.is_empty() {
            reasons.push('\n');
        }
        format!("{reasons}{}\n{}{version}", now.render(), ever.render())
    }
}

/// `GET /api/events`
#[derive(Debug, Deserialize)]
pub(super) struct Page {
    pub(super) events: Vec<Row>,
    #[serde(default)]
    pub(super) next: Option<String>,
}

/// A line of a listing; more of it is set by `GET /api/events/{id}`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[derive(Default)]
pub(super) struct Row {
    id: String,
    state: String,
    user: Option<String>,
    trigger: Option<String>,
    bytes: Option<u64>,
    attempts: u64,
    accepted_at: Option<String>,
    next_attempt_at: Option<String>,
    reason: Option<String>,
    message: Option<String>,
    request_id: Option<String>,
    history: Vec<Attempt>,
    warnings: Vec<String>,
    support: Option<String>,
    /// As it is: a number keeps its digits.
    body: Option<Box<RawValue>>,
}

/// One attempt.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Attempt {
    at: String,
    reason: Option<String>,
    status: Option<u16>,
    request_id: Option<String>,
    message: Option<String>,
}

fn or_dash<T: ToString>(value: &Option<T>) -> String {
    value.as_ref().map_or_else(|| "-".to_owned(), T::to_string)
}

impl Page {
    pub(super) fn render(&self) -> String {
        let mut table = Table::new(["ID", "STATE", "REASON", "TRIES", "ACCEPTED", "TRIGGER", "USER"]);
        for row in &self.events {
            table.row([
                row.id.clone(),
                row.state.clone(),
                or_dash(&row.reason),
                row.attempts.to_string(),
                or_dash(&row.accepted_at),
                or_dash(&row.trigger),
                or_dash(&row.user),
            ]);
        }
        table.render()
    }
}

impl Row {
    pub(super) fn render(&self) -> String {
        let mut text = String::new();
        for (name, value) in [
            ("id", self.id.clone()),
            ("state", self.state.clone()),
            ("user", or_dash(&self.user)),
            ("trigger", or_dash(&self.trigger)),
            ("bytes", or_dash(&self.bytes)),
            ("accepted", or_dash(&self.accepted_at)),
            ("tries", self.attempts.to_string()),
            ("next try", or_dash(&self.next_attempt_at)),
            ("reason", or_dash(&self.reason)),
            ("message", or_dash(&self.message)),
            ("request id", or_dash(&self.request_id)),
        ] {
            text.push_str(&format!("{name:<12}{}\n", output::printable(&value)));
        }
        if !self.history.is_empty() {
            let mut table = Table::new(["TRIED", "REASON", "STATUS", "REQUEST ID", "MESSAGE"]);
            for attempt in &self.history {
                table.row([
                    attempt.at.clone(),
                    or_dash(&attempt.reason),
                    or_dash(&attempt.status),
                    or_dash(&attempt.request_id),
                    or_dash(&attempt.message),
                ]);
            }
            text.push_str(&format!("\n{}", table.render()));
        }
        for warning in &self.warnings {
            text.push_str(&format!("\nwarning: {}\n", output::printable(warning)));
        }
        if let Some(support) = &self.support {
            text.push_str("\nfor Cello's support:\n");
            support.lines().for_each(|line| text.push_str(&format!("  {}\n", output::printable(line))));
        }
        if let Some(body) = &self.body {
            text.push_str(&format!("\n{}\n", output::laid_out(body.get())));
        }
        text
    }
}
