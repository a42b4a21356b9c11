//! Decisions about events: replay, discard, erase. Every one of them leaves a line in the log, without
//! personal data.

use std::time::Duration;

use hyper::{Response, StatusCode};
use serde_json::{Map, Value, json};

use super::events::{event_id, reason};
use super::reply::{self, Body, Refusal};
use super::{Parts, fields};
use crate::clock::Timestamp;
use crate::event::{EventId, UserId};
use crate::outbox::{Filter, Replayed, Selection, State, Terms};

/// Events read at once while they are counted.
const PAGE: usize = 1000;
/// A canary is given so long to be delivered.
const CANARY_PATIENCE: Duration = Duration::from_secs(60);
/// It is looked at so often.
const CANARY_LOOK: Duration = Duration::from_millis(100);
/// Why dead letters are passed over.
const PASSED_OVER: &str = "Cello may have counted them already (sent, outcome unknown); may_duplicate replays them too";
/// What a body may hold.
const KNOWN: [&str; 6] = ["ids", "filter", "dry_run", "canary", "per_second", "may_duplicate"];

/// Dead letters that an operator selects, and how they are replayed.
#[derive(Debug)]
pub(super) struct Order {
    selection: Selection,
    dry_run: bool,
    canary: bool,
    per_second: Option<u64>,
    may_duplicate: bool,
}

impl Order {
    pub(super) fn parse(body: &Value, now: Timestamp) -> Result<Self, Refusal> {
        fields::only(body, &KNOWN)?;
        let selection = match (body.get("ids"), body.get("filter")) {
            (Some(Value::Array(ids)), None) => {
                let ids = ids.iter().map(|id| event_id(id.as_str().unwrap_or_default()));
                Selection::Ids(ids.collect::<Result<_, _>>()?)
            }
            (None, Some(Value::Object(fields))) => Selection::Matching(filter(fields, now)?),
            _ => {
                return Err(Refusal::bad(
                    "give either ids (a list) or filter (an object with user, reason, olderThan, newerThan; {} is all)",
                ));
            }
        };
        let per_second = fields::whole(body, "per_second")?;
        let flag = |name| fields::flag(body, name);
        let (dry_run, canary, may_duplicate) = (flag("dry_run")?, flag("canary")?, flag("may_duplicate")?);
        Ok(Self { selection, dry_run, canary, per_second, may_duplicate })
    }

    #[cfg(fuzzing)]
    pub(super) fn taken_apart(self) -> (Selection, Option<u64>) {
        (self.selection, self.per_second)
    }
}

fn filter(fields: &Map<String, Value>, now: Timestamp) -> Result<Filter, Refusal> {
    let mut filter = Filter { state: Some(State::Dead), ..Filter::default() };
    for (name, value) in fields {
        let text = || value.as_str().ok_or_else(|| Refusal::bad(format!("filter.{name} must be a string")));
        let age = || {
            let age =
                fields::number_of(value).ok_or_else(|| Refusal::bad(format!("filter.{name} must be whole seconds")))?;
            Ok::<_, Refusal>(now.minus(Duration::from_secs(age)))
        };
        match name.as_str() {
            "state" if value == "dead" => {}
            "state" => return Err(Refusal::bad("only dead letters can be replayed or discarded: state must be dead")),
            "user" => filter.user = Some(UserId::new(text()?)),
            "reason" => filter.reason = Some(reason(text()?)?),
            "olderThan" | "older_than" => filter.until = Some(age()?),
            "newerThan" | "newer_than" => filter.since = Some(age()?),
            _ => return Err(Refusal::bad("filter knows state, user, reason, olderThan, newerThan")),
        }
    }
    Ok(filter)
}

/// One dead letter by its id.
pub(super) async fn act_on(parts: &Parts, via: &str, action: &str, id: &str) -> Result<Response<Body>, Refusal> {
    if parts.outbox.lookup(event_id(id)?).await?.is_none() {
        return Err(Refusal::not_found("no such event: ended, forgotten or never known"));
    }
    // Whoever names one event has seen it.
    act(parts, via, action, &json!({"ids": [id], "may_duplicate": true})).await
}

/// Replays or discards.
pub(super) async fn act(parts: &Parts, via: &str, action: &str, body: &Value) -> Result<Response<Body>, Refusal> {
    let order = Order::parse(body, parts.clock.now())?;
    let is_replay = action == "replay";
    let (done, canary) = if order.dry_run {
        (count(parts, &order, is_replay).await?, None)
    } else if is_replay {
        replay(parts, &order).await?
    } else {
        let count = parts.dead.discard(order.selection).await?;
        (Replayed { count, ..Replayed::default() }, None)
    };
    let Replayed { count, passed_over, .. } = done;
    if !order.dry_run {
        tracing::info!(event = "operator_action", action, via, count, passed_over, "an operator changed dead letters");
    }
    let why = (passed_over > 0).then_some(PASSED_OVER);
    let mut answer = json!({"count": count, "passedOver": passed_over, "why": why, "dryRun": order.dry_run});
    if let Some((id, outcome)) = canary {
        answer["canary"] = json!({"id": id.to_string(), "outcome": outcome});
    }
    Ok(reply::json(StatusCode::OK, &answer))
}

/// What an order would do.
async fn count(parts: &Parts, order: &Order, is_replay: bool) -> Result<Replayed, Refusal> {
    let mut found = Replayed::default();
    let mut tally = |may_be_counted: bool| {
        let passes = is_replay && may_be_counted && !order.may_duplicate;
        *(if passes { &mut found.passed_over } else { &mut found.count }) += 1;
    };
    match &order.selection {
        Selection::Ids(ids) => {
            for id in ids {
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

/// Replays at the pace that was asked for, after the canary. Whatever breaks this off leaves the rest dead.
async fn replay(parts: &Parts, order: &Order) -> Result<(Replayed, Option<(EventId, &'static str)>), Refusal> {
    let mut terms = Terms { may_duplicate: order.may_duplicate, ..Terms::default() };
    let (mut done, mut canary) = (Replayed::default(), None);
    if order.canary {
        done = parts.dead.replay(order.selection.clone(), Terms { limit: 1, ..terms }).await?;
        let Some(id) = done.next else { return Ok((done, None)) };
        let outcome = watch(parts, id).await?;
        canary = Some((id, outcome));
        if outcome != "delivered" {
            return Ok((done, canary));
        }
        terms.after = Some(id);
    }
    terms.limit = order.per_second.unwrap_or(u64::MAX);
    loop {
        let slice = parts.dead.replay(order.selection.clone(), terms).await?;
        done.count += slice.count;
        done.passed_over += slice.passed_over;
        let Some(last) = slice.next else { return Ok((done, canary)) };
        terms.after = Some(last);
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

/// What becomes of a canary, as far as it is known in time.
async fn watch(parts: &Parts, id: EventId) -> Result<&'static str, Refusal> {
    let looks = CANARY_PATIENCE.as_millis() / CANARY_LOOK.as_millis();
    for _ in 0..looks {
        match parts.outbox.lookup(id).await?.map(|report| report.state) {
            Some(State::Delivered) => return Ok("delivered"),
            Some(State::Dead) => return Ok("dead"),
            Some(_) => tokio::time::sleep(CANARY_LOOK).await,
            None => return Ok("forgotten"),
        }
    }
    Ok("waiting")
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
    let count = erased.events();
    tracing::info!(event = "operator_action", action = "erase", via, count, "an operator erased a person");
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
