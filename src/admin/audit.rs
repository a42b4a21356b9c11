//! The log lines that say which operator's order was carried out: at every log level, without personal data.

use super::order::Order;
use crate::outbox::{Filter, Replayed, Selection};
use crate::telemetry::AUDIT;

/// So many ids of an order are named.
const IDS: usize = 10;

/// Which events an order meant: that a user was named, but not who.
fn selector(order: &Order) -> String {
    let Filter { user, reason, since, until, .. } = match &order.selection {
        Selection::Ids(ids) => {
            let named: Vec<String> = ids.iter().take(IDS).map(ToString::to_string).collect();
            let more = ids.len().saturating_sub(IDS);
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            return format!("ids {}{more}", named.join(" "));
        }
        Selection::Matching(filter) => filter,
    };
    let parts = [
        reason.map(|reason| format!("reason {reason}")),
        user.as_ref().map(|_| "user".to_owned()),
        since.map(|since| format!("accepted since {since}")),
        until.map(|until| format!("accepted until {until}")),
    ];
    let parts: Vec<String> = parts.into_iter().flatten().collect();
    if parts.is_empty() { "all".to_owned() } else { parts.join(", ") }
}

/// Dead letters were changed.
pub(super) fn decided(via: &str, order: &Order, done: &Replayed) {
    let (action, count, passed_over) = (order.action.as_str(), done.count, done.passed_over);
    let selector = selector(order);
    tracing::info!(target: AUDIT, event = "operator_action", action, via, count, passed_over, selector, "an operator changed dead letters");
}

/// An order that takes its time was begun.
pub(super) fn begun(via: &str, order: &Order) {
    let (action, canary, per_second) = (order.action.as_str(), order.canary, order.per_second);
    let selector = selector(order);
    tracing::info!(target: AUDIT, event = "operator_action", action, via, step = "begun", canary, per_second, selector, "an operator began to change dead letters");
}

/// Such an order came to its end, or was ended.
pub(super) fn ended(via: &str, order: &Order, done: &Replayed, outcome: &str) {
    let (action, count, passed_over) = (order.action.as_str(), done.count, done.passed_over);
    let selector = selector(order);
    tracing::info!(target: AUDIT, event = "operator_action", action, via, step = "ended", outcome, count, passed_over, selector, "an operator's order ended");
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::admin::order::Action;
    use crate::clock::Timestamp;

    #[test]
    fn the_line_says_which_events_were_meant_and_names_no_user() {
        let now = Timestamp::from_millis(1_664_979_274_007);
        let said = |body| selector(&Order::parse(Action::Discard, &body, now).expect("an order"));
        let id = "0199f0a4-6b1c-7c3e-8d21-5a4b3c2d1e0f";
        assert_eq!(said(json!({"filter": {}})), "all");
        assert_eq!(said(json!({"filter": {"reason": "http_400"}})), "reason http_400");
        let of_a_user = said(json!({"filter": {"user": "somebody", "olderThan": 60, "newerThan": 120}}));
        assert_eq!(of_a_user, "user, accepted since 2022-10-05T14:12:34.007Z, accepted until 2022-10-05T14:13:34.007Z");
        assert_eq!(said(json!({"ids": [id, id]})), format!("ids {id} {id}"));
        let many = said(json!({"ids": vec![id; 12]}));
        assert!(many.ends_with("and 2 more") && many.matches(id).count() == 10, "{many}");
    }
}
