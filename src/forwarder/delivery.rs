//! One event's way: send, learn what the answer means, settle; or only settle what was sent before.

use std::sync::{Arc, PoisonError};

use tracing::{debug, info};

use super::flights::Answer;
use super::governor::{Case, Fate, Ticket, reason_of};
use super::shared::Shared;
use super::{Ambiguous, Judgement};
use crate::cello::{Departed, Verdict};
use crate::event::{Event, EventId, Trigger, UserId};
use crate::outbox::{Attempt, Claimed, Lease, Outcome, Progress, Settled};
use crate::reason::Reason;

/// What a settled event is counted and logged by.
struct Subject {
    id: EventId,
    trigger: Trigger,
    progress: Progress,
    trace: Option<Box<str>>,
}

/// How a send ended.
enum Sent {
    /// Cello answered, or the attempt failed.
    Answered(Judgement),
    /// The end came first; Cello may have the event.
    CutOff(Judgement),
    /// The end came before anything was sent.
    Nothing,
}

/// Delivers one event. The slot is free as soon as the answer is there; the task ends when its
/// outcome is durable.
pub(super) async fn deliver(shared: Arc<Shared>, claimed: Claimed, ticket: Ticket) {
    let _unsettled = Unsettled { shared: &shared, sender: Some(claimed.event.user.clone()) };
    let slot = Slot { shared: &shared, ticket: Some(ticket) };
    let Claimed { lease, id, event, progress } = claimed;
    let Event { user, trigger, body, trace } = event;
    let subject = Subject { id, trigger, progress, trace };

    if shared.ambiguous == Ambiguous::Dead
        && let Err(error) = shared.deps.outbox.intend(&lease).await
    {
        return shared.not_recorded(error);
    }
    let (fate, judgement) = match send(&shared, id, body).await {
        Sent::Answered(judgement) => {
            // Only here does it matter, and counting is not free.
            let alone = judgement.verdict == Verdict::Hold && shared.deps.outbox.stats().ledger.undelivered() <= 1;
            let now = shared.deps.clock.now();
            let case = Case { user: &user, progress: &subject.progress, judgement: &judgement, alone, now };
            (slot.answered(&case), judgement)
        }
        Sent::CutOff(judgement) => (slot.cut_off(&judgement), judgement),
        Sent::Nothing => {
            drop(slot);
            // After an intent, only a settle says that nothing was sent.
            return match shared.deps.outbox.settle(lease, Outcome::Release).await {
                Ok(_) => (),
                Err(error) => shared.not_recorded(error),
            };
        }
    };
    if fate != Fate::Delivered {
        subject.log_failure(&judgement);
    }
    let answer = Answer { fate, judgement, at: shared.deps.clock.now() };
    if answer.judgement.outcome_unknown {
        shared.deps.metrics.delivery_ambiguous.with(reason_of(&answer.judgement)).inc();
    }
    if !settle(&shared, lease, &subject, &answer).await {
        shared.remember(id, answer);
    }
}

/// Waits until nothing of the event's user is under way, then records what came of it before, or gives it back to be
/// sent. A store that was opened anew hands such events out, and one whose answer to the former settle is still on its way.
pub(super) async fn settle_again(shared: Arc<Shared>, claimed: Claimed) {
    let _unsettled = Unsettled { shared: &shared, sender: None };
    let Claimed { lease, id, event, progress } = claimed;
    // A lease that is dropped gives the event back.
    let Some(answer) = shared.landed(id, &event.user).await else { return };
    let subject = Subject { id, trigger: event.trigger, progress, trace: event.trace };
    if settle(&shared, lease, &subject, &answer).await {
        shared.forget(id);
    }
}

async fn send(shared: &Shared, id: EventId, body: bytes::Bytes) -> Sent {
    let (aborted, departed) = (shared.aborted(), Departed::default());
    if shared.is_stopped() {
        return Sent::Nothing;
    }
    let answered = tokio::select! {
        biased;
        judgement = shared.deps.courier.deliver(id, body, departed.clone()) => Some(judgement),
        () = aborted => None,
    };
    match answered {
        Some(judgement) => Sent::Answered(judgement),
        // It waited for a token, or for a connection.
        None if !departed.is_noted() => Sent::Nothing,
        None => Sent::CutOff(Judgement {
            verdict: Verdict::Retry,
            reason: Some(Reason::Timeout),
            status: None,
            request_id: None,
            message: None,
            retry_after: None,
            outcome_unknown: true,
        }),
    }
}

/// Records what came of an event; `false` if that was not stored.
async fn settle(shared: &Shared, lease: Lease, subject: &Subject, answer: &Answer) -> bool {
    let outcome = outcome(shared, &subject.progress, answer);
    match shared.deps.outbox.settle(lease, outcome).await {
        Ok(settled) => tell(shared, subject, answer, settled),
        Err(error) => {
            shared.not_recorded(error);
            return false;
        }
    }
    true
}

/// Counts and logs what is recorded.
fn tell(shared: &Shared, subject: &Subject, answer: &Answer, settled: Settled) {
    let (metrics, Answer { fate, judgement, at }) = (&shared.deps.metrics, answer);
    let log = |event, reason: Option<Reason>| {
        if shared.log_deliveries {
            subject.log(event, judgement.status, judgement.request_id.as_deref(), reason);
        }
    };
    let was_sent = judgement.verdict != Verdict::NoAccess;
    match (*fate, settled) {
        (Fate::Delivered, _) => {
            metrics.delivered.with(subject.trigger).inc();
            metrics.delivery_latency.observe(at.since(subject.id.accepted_at()).as_secs_f64());
            metrics.delivery_last_success.set(at.as_seconds());
            log("delivered", None);
        }
        (Fate::Dead(reason), Settled::Done) => {
            metrics.dead_lettered.with(reason).inc();
            log("dead_lettered", Some(reason));
        }
        (Fate::Dead(_), Settled::HeldBack) => metrics.delivery_retries.with(Reason::DeadLettersFull).inc(),
        (Fate::Retry { .. } | Fate::Release, _) if was_sent => {
            metrics.delivery_retries.with(reason_of(judgement)).inc();
        }
        (Fate::Retry { .. } | Fate::Release, _) => (),
    }
}

/// The fate in the outbox's words.
fn outcome(shared: &Shared, progress: &Progress, answer: &Answer) -> Outcome {
    let (judgement, reason) = (&answer.judgement, reason_of(&answer.judgement));
    let (status, request_id) = (judgement.status, judgement.request_id.clone());
    let attempt = |message| Attempt { at: answer.at, reason, status, request_id: request_id.clone(), message };
    match answer.fate {
        Fate::Delivered => Outcome::Delivered { request_id },
        Fate::Release if judgement.outcome_unknown => Outcome::Unsure { attempt: attempt(None) },
        Fate::Release => Outcome::Release,
        Fate::Retry { strike } => {
            let mut backoff = shared.backoff.lock().unwrap_or_else(PoisonError::into_inner);
            let wait = backoff.wait(progress.attempts).max(judgement.retry_after.unwrap_or_default());
            Outcome::Retry { at: answer.at.plus(wait), strike, attempt: attempt(judgement.message.clone()) }
        }
        Fate::Dead(reason) => Outcome::Dead { reason, attempt: attempt(judgement.message.clone()) },
    }
}

impl Subject {
    fn trace_id(&self) -> Option<&str> {
        self.trace.as_deref().and_then(|trace| trace.split('-').nth(1))
    }

    /// One attempt, for whoever looks into why some events are late.
    fn log_failure(&self, judgement: &Judgement) {
        debug!(
            event = "delivery_failed",
            event_id = %self.id,
            attempt = self.progress.attempts + 1,
            status = judgement.status,
            reason = reason_of(judgement).as_str(),
            upstream_request_id = judgement.request_id.as_deref(),
            trace_id = self.trace_id(),
            "an attempt to deliver an event failed"
        );
    }

    /// One line for support cases; ids only, no personal data.
    fn log(&self, event: &str, status: Option<u16>, request_id: Option<&str>, reason: Option<Reason>) {
        info!(
            event,
            event_id = %self.id,
            upstream_request_id = request_id,
            status,
            reason = reason.map(Reason::as_str),
            attempts = self.progress.attempts + 1,
            trace_id = self.trace_id(),
            "an event reached its end"
        );
    }
}

/// The right to have one send under way; given back when the answer is there, or on the way out.
struct Slot<'a> {
    shared: &'a Shared,
    ticket: Option<Ticket>,
}

impl Slot<'_> {
    fn answered(mut self, case: &Case<'_>) -> Fate {
        let ticket = self.ticket.take().expect("a slot is answered once, by value");
        let now = self.shared.deps.clock.instant();
        let fate = self.shared.govern(|governor| governor.answered(&ticket, case, now));
        self.shared.wake();
        fate
    }

    fn cut_off(mut self, judgement: &Judgement) -> Fate {
        self.ticket = None;
        self.shared.govern(|governor| governor.cut_off(judgement))
    }
}

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket.take() {
            let now = self.shared.deps.clock.instant();
            self.shared.govern(|governor| governor.unanswered(&ticket, now));
            self.shared.wake();
        }
    }
}

/// Counts an event as not durably settled until it is dropped.
struct Unsettled<'a> {
    shared: &'a Shared,
    /// Whose event is being sent.
    sender: Option<UserId>,
}

impl Drop for Unsettled<'_> {
    fn drop(&mut self) {
        self.shared.settled(self.sender.as_ref());
    }
}
