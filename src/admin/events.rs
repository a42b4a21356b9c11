//! Listing, showing, exporting and selecting events.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::BodyExt;
use http_body_util::channel::Channel;
use hyper::{Response, StatusCode};
use percent_encoding::percent_decode_str;
use serde_json::{Value, json};

use super::Parts;
use super::reply::{self, Body, Refusal};
use super::view;
use crate::event::{EventId, UserId};
use crate::outbox::{DeadLetters, Filter, ReadError, Selection, State};
use crate::reason::Reason;

/// A page if the caller names no limit.
const DEFAULT_LIMIT: usize = 50;
/// A page at most.
const MAX_LIMIT: usize = 1000;
/// Events read at once while exporting; this many bodies are in memory.
const EXPORT_PAGE: usize = 100;

/// The query string of a read.
#[derive(Debug, Default)]
pub(super) struct Query {
    pub(super) reveal: bool,
    filter: Filter,
    after: Option<EventId>,
    limit: Option<usize>,
}

impl Query {
    pub(super) fn parse(query: &str) -> Result<Self, Refusal> {
        let mut parsed = Self::default();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let value =
                percent_decode_str(value).decode_utf8().map_err(|_| Refusal::bad(format!("{name}: not UTF-8")))?;
            parsed.set(name, &value)?;
        }
        Ok(parsed)
    }

    fn set(&mut self, name: &str, value: &str) -> Result<(), Refusal> {
        match name {
            "state" => self.filter.state = Some(state(value)?),
            "user" => self.filter.user = Some(UserId::new(value)),
            "reason" => self.filter.reason = Some(reason(value)?),
            "after" => self.after = Some(event_id(value)?),
            "reveal" => self.reveal = value == "true",
            "limit" => {
                let limit = value.parse().ok().filter(|limit| (1..=MAX_LIMIT).contains(limit));
                self.limit = Some(limit.ok_or_else(|| Refusal::bad(format!("limit must be 1 to {MAX_LIMIT}")))?);
            }
            _ => {
                return Err(Refusal::bad(format!(
                    "unknown parameter; known: state, user, reason, after, limit, reveal (got {name})"
                )));
            }
        }
        Ok(())
    }
}

fn state(name: &str) -> Result<State, Refusal> {
    let states = [State::Pending, State::InFlight, State::Retrying, State::Dead];
    let found = states.into_iter().find(|state| state.as_str() == name);
    found.ok_or_else(|| Refusal::bad("state must be pending, in_flight, retrying or dead"))
}

fn reason(name: &str) -> Result<Reason, Refusal> {
    let names = || Reason::ALL.iter().map(|reason| reason.as_str()).collect::<Vec<_>>().join(", ");
    name.parse().map_err(|_| Refusal::bad(format!("reason must be one of {}", names())))
}

fn event_id(text: &str) -> Result<EventId, Refusal> {
    text.parse().map_err(|_| Refusal::bad("not an event id"))
}

/// Dead letters that an operator selects.
pub(super) struct Order {
    pub(super) selection: Selection,
    pub(super) dry_run: bool,
}

impl Order {
    pub(super) fn parse(body: &Value) -> Result<Self, Refusal> {
        let dry_run = body.get("dry_run").and_then(Value::as_bool).unwrap_or(false);
        let selection = match (body.get("ids"), body.get("filter")) {
            (Some(Value::Array(ids)), None) => {
                let ids = ids.iter().map(|id| event_id(id.as_str().unwrap_or_default()));
                Selection::Ids(ids.collect::<Result<_, _>>()?)
            }
            (None, Some(Value::Object(fields))) => Selection::Matching(filter(fields)?),
            _ => {
                return Err(Refusal::bad(
                    "give either ids (a list) or filter (an object with user or reason; {} is all)",
                ));
            }
        };
        Ok(Self { selection, dry_run })
    }
}

fn filter(fields: &serde_json::Map<String, Value>) -> Result<Filter, Refusal> {
    let mut filter = Filter { state: Some(State::Dead), ..Filter::default() };
    for (name, value) in fields {
        let value = value.as_str().ok_or_else(|| Refusal::bad(format!("filter.{name} must be a string")))?;
        match name.as_str() {
            "user" => filter.user = Some(UserId::new(value)),
            "reason" => filter.reason = Some(reason(value)?),
            _ => return Err(Refusal::bad("filter knows user and reason")),
        }
    }
    Ok(filter)
}

/// How many dead letters a selection means.
pub(super) async fn count(parts: &Parts, selection: &Selection) -> Result<u64, Refusal> {
    let mut count = 0;
    match selection {
        Selection::Ids(ids) => {
            for id in ids {
                let dead = parts.outbox.lookup(*id).await?.is_some_and(|report| report.state == State::Dead);
                count += u64::from(dead);
            }
        }
        Selection::Matching(filter) => {
            let mut after = None;
            loop {
                let page = parts.dead.list(filter.clone(), after, MAX_LIMIT).await?;
                count += page.len() as u64;
                after = page.last().map(|listed| listed.id);
                if page.len() < MAX_LIMIT {
                    break;
                }
            }
        }
    }
    Ok(count)
}

/// A page of events.
pub(super) async fn list(parts: &Parts, query: &Query) -> Result<Response<Body>, Refusal> {
    let limit = query.limit.unwrap_or(DEFAULT_LIMIT);
    let page = parts.dead.list(query.filter.clone(), query.after, limit).await?;
    let next = (page.len() == limit).then(|| page.last().map(|listed| listed.id.to_string())).flatten();
    let events: Vec<Value> = page.iter().map(|listed| view::listed(listed, query.reveal)).collect();
    Ok(reply::json(StatusCode::OK, &json!({"events": events, "next": next})))
}

/// One event with its attempts.
pub(super) async fn show(parts: &Parts, id: &str, reveal: bool) -> Result<Response<Body>, Refusal> {
    let detail = parts.dead.show(event_id(id)?).await?;
    let detail =
        detail.ok_or_else(|| Refusal::not_found("not waiting and not dead: delivered, ended or never known"))?;
    Ok(reply::json(StatusCode::OK, &view::detail(&detail, reveal)))
}

/// All events that the filter lets through, one JSON document a line, read page by page as the client takes
/// them: event bodies if revealed, listing lines otherwise.
pub(super) fn export(parts: &Parts, query: Query) -> Response<Body> {
    let (mut out, body) = Channel::<Bytes, io::Error>::new(1);
    let dead: Arc<dyn DeadLetters> = parts.dead.clone();
    tokio::spawn(async move {
        let mut after = query.after;
        loop {
            // A client must be able to tell an export that broke off from one that ended.
            let (chunk, next) = match export_page(&*dead, &query, after).await {
                Ok(page) => page,
                Err(error) => return out.abort(io::Error::other(error)),
            };
            if !chunk.is_empty() && out.send_data(Bytes::from(chunk)).await.is_err() {
                return;
            }
            match next {
                Some(next) => after = Some(next),
                None => return,
            }
        }
    });
    reply::with_type(StatusCode::OK, "application/x-ndjson", body.boxed_unsync())
}

/// One page as NDJSON, and where the next one starts.
async fn export_page(
    dead: &dyn DeadLetters,
    query: &Query,
    after: Option<EventId>,
) -> Result<(String, Option<EventId>), ReadError> {
    let page = dead.list(query.filter.clone(), after, EXPORT_PAGE).await?;
    let mut chunk = String::new();
    for listed in &page {
        if !query.reveal {
            chunk.push_str(&view::listed(listed, false).to_string());
        } else if let Some(detail) = dead.show(listed.id).await? {
            chunk.push_str(&String::from_utf8_lossy(&detail.body));
        } else {
            continue;
        }
        chunk.push('\n');
    }
    let more = page.len() == EXPORT_PAGE;
    Ok((chunk, page.last().filter(|_| more).map(|listed| listed.id)))
}
