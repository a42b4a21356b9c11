//! Decisions about events: replay, discard, erase. Every one of them leaves a line in the log, without
//! personal data.

use std::collections::HashSet;
use std::sync::Arc;

use hyper::{Response, StatusCode};
use serde_json::{Value, json};

use super::order::{Action, Order};
use super::reply::{self, Body, Refusal};
use super::{Parts, audit, fields, stepwise};
use crate::event::{EventId, UserId};
use crate::outbox::{Filter, Replayed, Selection, State, Terms};

/// Events read at once while they are counted.
const PAGE: usize = 1000;
/// Why dead letters are passed over.
const PASSED_OVER: &str = "Cello may have counted them already (sent, outcome unknown); may_duplicate replays them too";

/// How a request came in and wants its answer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked {
    /// The listener's kind, for the log.
    pub(super) via: &'static str,
    /// Progress is wanted, line by line.
    pub(super) lines: bool,
}

/// The ids of an order that it does nothing about.
#[derive(Clone, Debug, Default)]
pub(super) struct Left {
    /// Ended, forgotten or never known.
    unknown: Vec<EventId>,
    /// Waiting, or delivered.
    not_dead: Vec<EventId>,
}

/// One dead letter by its id.
pub(super) async fn act_on(
    parts: &Arc<Parts>,
    asked: Asked,
    action: Action,
    id: &str,
    body: &Value,
) -> Result<Response<Body>, Refusal> {
    let order = Order::of_one(action, id, body, parts.clock.now())?;
    let left = left(parts, &order).await?;
    if !left.unknown.is_empty() {
        return Err(Refusal::not_found("no such event: ended, forgotten or never known"));
    }
    carry_out(parts, asked, order, left).await
}

/// Replays or discards.
pub(super) async fn act(
    parts: &Arc<Parts>,
    asked: Asked,
    action: Action,
    body: &Value,
) -> Result<Response<Body>, Refusal> {
    let order = Order::parse(action, body, parts.clock.now())?;
    let left = left(parts, &order).await?;
    carry_out(parts, asked, order, left).await
}

async fn carry_out(parts: &Arc<Parts>, asked: Asked, order: Order, left: Left) -> Result<Response<Body>, Refusal> {
    if order.dry_run {
        let found = count(parts, &order).await?;
        return Ok(reply::json(StatusCode::OK, &answer(&order, &left, &found)));
    }
    if asked.lines || order.canary || order.per_second.is_some() {
        return Ok(stepwise::start(parts.clone(), asked.via, order, left));
    }
    let done = match order.action {
        Action::Replay => {
            let terms = Terms { may_duplicate: order.may_duplicate, ..Terms::default() };
            parts.dead.replay(order.selection.clone(), terms).await?
        }
        Action::Discard => {
            Replayed { count: parts.dead.discard(order.selection.clone()).await?, ..Replayed::default() }
        }
    };
    audit::decided(asked.via, &order, &done);
    Ok(reply::json(StatusCode::OK, &answer(&order, &left, &done)))
}

/// What an order did, or would do.
pub(super) fn answer(order: &Order, left: &Left, done: &Replayed) -> Value {
    let texts = |ids: &[EventId]| ids.iter().map(ToString::to_string).collect::<Vec<_>>();
    json!({
        "count": done.count,
        "passedOver": done.passed_over,
        "why": (done.passed_over > 0).then_some(PASSED_OVER),
        "unknown": texts(&left.unknown),
        "notDead": texts(&left.not_dead),
        "dryRun": order.dry_run,
    })
}

/// The ids that there is nothing to do about, as things are now.
async fn left(parts: &Parts, order: &Order) -> Result<Left, Refusal> {
    let (mut left, mut seen) = (Left::default(), HashSet::new());
    let Selection::Ids(ids) = &order.selection else { return Ok(left) };
    for id in ids.iter().filter(|id| seen.insert(**id)) {
        match parts.outbox.lookup(*id).await?.map(|report| report.state) {
            Some(State::Dead) => {}
            Some(_) => left.not_dead.push(*id),
            None => left.unknown.push(*id),
        }
    }
    Ok(left)
}

/// What an order would do.
async fn count(parts: &Parts, order: &Order) -> Result<Replayed, Refusal> {
    let mut found = Replayed::default();
    let mut tally = |may_be_counted: bool| {
        let passes = order.action == Action::Replay && may_be_counted && !order.may_duplicate;
        *(if passes { &mut found.passed_over } else { &mut found.count }) += 1;
    };
    match &order.selection {
        Selection::Ids(ids) => {
            let mut seen = HashSet::new();
            for id in ids.iter().filter(|id| seen.insert(**id)) {
                let detail = parts.dead.show(*id).await?.filter(|detail| detail.listed.report.state == State::Dead);
                detail.iter().for_each(|detail| tally(detail.listed.may_be_counted));
            }
        }
        Selection::Matching(filter) => {
            let mut after = None;
            loop {
                let page = parts.dead.list(filter.clone(), after, PAGE).await?;
                page.iter().for_each(|line| tally(line.may_be_counted));
                after = page.last().map(|line| line.id);
                if page.len() < PAGE {
                    break;
                }
            }
        }
    }
    Ok(found)
}

/// Erases a person. What waits may be worth a reward: that needs `"yes": true`.
pub(super) async fn erase(parts: &Parts, via: &str, body: &Value) -> Result<Response<Body>, Refusal> {
    fields::only(body, &["user", "dry_run", "yes"])?;
    let user = body.get("user").and_then(Value::as_str).filter(|user| !user.is_empty());
    let user = UserId::new(user.ok_or_else(|| Refusal::bad("user must be the newUserId of the person"))?);
    let (dry_run, yes) = (fields::flag(body, "dry_run")?, fields::flag(body, "yes")?);
    let found = found_of(parts, &user).await?;
    let waits = found["pending"] != 0 || found["retrying"] != 0 || found["in_flight"] != 0;
    if dry_run {
        return Ok(reply::json(StatusCode::OK, &found));
    }
    if waits && !yes {
        let mut answer = found;
        answer["message"] = "some of these events wait to be delivered: erased, a reward may go unpaid; \
                             say \"yes\": true if that is meant"
            .into();
        return Ok(reply::json(StatusCode::CONFLICT, &answer));
    }
    let erased = parts.dead.erase(user).await?;
    audit::erased(via, erased.events());
    Ok(reply::json(StatusCode::OK, &super::view::erased(&erased)))
}

/// What is kept of a person, by state.
async fn found_of(parts: &Parts, user: &UserId) -> Result<Value, Refusal> {
    let filter = Filter { user: Some(user.clone()), ..Filter::default() };
    let (mut counts, mut after, mut total) = ([0_u64; 4], None, 0_u64);
    const STATES: [State; 4] = [State::Pending, State::Retrying, State::InFlight, State::Dead];
    loop {
        let page = parts.dead.list(filter.clone(), after, PAGE).await?;
        for line in &page {
            total += 1;
            for (count, state) in counts.iter_mut().zip(STATES) {
                *count += u64::from(line.report.state == state);
            }
        }
        after = page.last().map(|line| line.id);
        if page.len() < PAGE {
            break;
        }
    }
    let [pending, retrying, in_flight, dead] = counts;
    Ok(json!({
        "count": total, "pending": pending, "retrying": retrying, "in_flight": in_flight, "dead": dead, "dryRun": true,
    }))
}
