//! The log lines that say which operator's order was carried out: at every log level, without personal data.

use super::order::Order;
use crate::outbox::Replayed;
use crate::telemetry::AUDIT;

/// Dead letters were changed.
pub(super) fn decided(via: &str, order: &Order, done: &Replayed) {
    let (action, count, passed_over) = (order.action.as_str(), done.count, done.passed_over);
    tracing::info!(target: AUDIT, event = "operator_action", action, via, count, passed_over, "an operator changed dead letters");
}

/// An order that takes its time was begun.
pub(super) fn begun(via: &str, order: &Order) {
    let (action, canary, per_second) = (order.action.as_str(), order.canary, order.per_second);
    tracing::info!(target: AUDIT, event = "operator_action", action, via, step = "begun", canary, per_second, "an operator began to change dead letters");
}

/// Such an order came to its end, or was ended.
pub(super) fn ended(via: &str, order: &Order, done: &Replayed, outcome: &str) {
    let (action, count, passed_over) = (order.action.as_str(), done.count, done.passed_over);
    tracing::info!(target: AUDIT, event = "operator_action", action, via, step = "ended", outcome, count, passed_over, "an operator's order ended");
}

/// A person was erased.
pub fn erased(via: &str, count: u64) {
    tracing::info!(target: AUDIT, event = "operator_action", action = "erase", via, count, "an operator erased a person");
}

/// A stopped relay's events were given to another upstream.
pub fn rebound(via: &str, undelivered: u64, dead: u64) {
    tracing::info!(target: AUDIT, event = "operator_action", action = "rebind", via, undelivered, dead, "an operator gave the events to another upstream");
}

/// The queue was steered; `seconds` and `until` say how long that holds, if it is for a while.
pub(super) fn steered(via: &str, action: &str, seconds: Option<u64>, until: Option<String>) {
    tracing::info!(target: AUDIT, event = "operator_action", action, via, seconds, until, "an operator steered the queue");
}

/// More or less is logged.
pub(super) fn leveled(via: &str, log_level: &str, seconds: Option<u64>) {
    tracing::info!(target: AUDIT, event = "operator_action", action = "log-level", via, log_level, seconds, "an operator set the log level");
}
