//! What became of an event, and of all of them: `GET /events/{id}`, `GET /outbox`.

use serde::Serialize;

use super::Shared;
use super::answer::{self, Answer, Refusal};
use crate::event::EventId;
use crate::metrics::Rejection;
use crate::outbox::{Flow, Report, State};

/// `GET /events/{id}`
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct EventState<'r> {
    id: String,
    state: &'r str,
    attempts: u32,
    accepted_at: String,
    next_attempt_at: Option<String>,
    delivered_at: Option<String>,
    reason: Option<&'static str>,
    message: Option<&'r str>,
    request_id: Option<&'r str>,
}

/// `GET /outbox`
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct OutboxState {
    /// All that is not at an end yet, so that 0 means gone.
    pending: u64,
    dead: u64,
    oldest_seconds: u64,
    state: String,
}

impl Shared {
    pub(super) async fn event(&self, id: &str) -> Result<Answer, Box<Refusal>> {
        let unknown = || answer::not_found("no such event, or it is forgotten");
        let id: EventId = id.parse().map_err(|_| unknown())?;
        match self.outbox.lookup(id).await {
            Ok(Some(report)) => Ok(event_state(id, &report, *self.flow.borrow())),
            Ok(None) => Err(unknown()),
            Err(error) => {
                tracing::error!(event = "lookup_failed", %error, "cannot look up an event");
                Err(answer::unavailable(Rejection::Disk, "the outbox cannot be read", 5, 0))
            }
        }
    }

    pub(super) fn outbox_state(&self) -> Answer {
        let stats = self.outbox.stats();
        let flow = *self.flow.borrow();
        json(&OutboxState {
            pending: stats.ledger.undelivered(),
            dead: stats.ledger.dead,
            oldest_seconds: stats.oldest_age(self.clock.now()).as_secs(),
            state: flow.to_string(),
        })
    }
}

/// While delivery is held, what waits is `held`, for the hold's reason unless it has its own.
fn event_state(id: EventId, report: &Report, flow: Flow) -> Answer {
    let held = match flow {
        Flow::Held(reason) if matches!(report.state, State::Pending | State::Retrying) => Some(reason),
        _ => None,
    };
    json(&EventState {
        id: id.to_string(),
        state: held.map_or(report.state.as_str(), |_| "held"),
        attempts: report.attempts,
        accepted_at: id.accepted_at().to_string(),
        next_attempt_at: report.next_attempt_at.map(|at| at.to_string()),
        delivered_at: report.delivered_at.map(|at| at.to_string()),
        reason: report.reason.or(held).map(crate::reason::Reason::as_str),
        message: report.message.as_deref(),
        request_id: report.request_id.as_deref(),
    })
}

fn json(value: &impl Serialize) -> Answer {
    answer::json(serde_json::to_vec(value).expect("strings and numbers are always JSON"))
}
