//! Listing, showing and exporting events.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt;
use http_body_util::channel::Channel;
use hyper::{Response, StatusCode};
use percent_encoding::percent_decode_str;
use serde_json::{Value, json};

use super::reply::{self, Body, Refusal};
use super::{Parts, fields, view};
use crate::clock::Timestamp;
use crate::event::{EventId, UserId};
use crate::outbox::{DeadLetters, Filter, ReadError, State};
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
    older_than: Option<Duration>,
    newer_than: Option<Duration>,
}

impl Query {
    /// Ages are told from now on back.
    fn filter(&self, now: Timestamp) -> Filter {
        let (until, since) = (self.older_than.map(|age| now.minus(age)), self.newer_than.map(|age| now.minus(age)));
        Filter { until, since, ..self.filter.clone() }
    }

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

    #[cfg(fuzzing)]
    pub(super) fn taken_apart(&self, now: Timestamp) -> (Filter, Option<EventId>, Option<usize>, bool) {
        (self.filter(now), self.after, self.limit, self.reveal)
    }

    fn set(&mut self, name: &str, value: &str) -> Result<(), Refusal> {
        match name {
            "state" => self.filter.state = Some(state(value)?),
            "user" => self.filter.user = Some(UserId::new(value)),
            "reason" => self.filter.reason = Some(reason(value)?),
            "older_than" => self.older_than = Some(age(name, value)?),
            "newer_than" => self.newer_than = Some(age(name, value)?),
            "after" => self.after = Some(event_id(value)?),
            "reveal" => {
                let known = matches!(value, "true" | "false");
                self.reveal =
                    known.then_some(value == "true").ok_or_else(|| Refusal::bad("reveal must be true or false"))?;
            }
            "limit" => {
                let limit = value.parse().ok().filter(|limit| (1..=MAX_LIMIT).contains(limit));
                self.limit = Some(limit.ok_or_else(|| Refusal::bad(format!("limit must be 1 to {MAX_LIMIT}")))?);
            }
            _ => {
                return Err(Refusal::bad(format!(
                    "unknown parameter {name}; known: state, user, reason, older_than, newer_than, after, limit, reveal"
                )));
            }
        }
        Ok(())
    }
}

/// Seconds of age.
fn age(name: &str, value: &str) -> Result<Duration, Refusal> {
    let seconds = value.parse::<u64>().ok().filter(|seconds| *seconds <= fields::MAX_NUMBER);
    let seconds = seconds.ok_or_else(|| Refusal::bad(format!("{name} must be whole seconds")))?;
    Ok(Duration::from_secs(seconds))
}

fn state(name: &str) -> Result<State, Refusal> {
    let states = [State::Pending, State::InFlight, State::Retrying, State::Dead];
    let found = states.into_iter().find(|state| state.as_str() == name);
    found.ok_or_else(|| Refusal::bad("state must be pending, in_flight, retrying or dead"))
}

pub(super) fn reason(name: &str) -> Result<Reason, Refusal> {
    let names = || Reason::ALL.iter().map(|reason| reason.as_str()).collect::<Vec<_>>().join(", ");
    name.parse().map_err(|_| Refusal::bad(format!("reason must be one of {}", names())))
}

pub(super) fn event_id(text: &str) -> Result<EventId, Refusal> {
    text.parse().map_err(|_| Refusal::bad("not an event id: a UUID as `POST /events` answers it"))
}

/// A page of events.
pub(super) async fn list(parts: &Parts, query: &Query) -> Result<Response<Body>, Refusal> {
    let limit = query.limit.unwrap_or(DEFAULT_LIMIT);
    let page = parts.dead.list(query.filter(parts.clock.now()), query.after, limit).await?;
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
    let filter = query.filter(parts.clock.now());
    tokio::spawn(async move {
        let mut after = query.after;
        loop {
            // A client must be able to tell an export that broke off from one that ended.
            let (chunk, next) = match export_page(&*dead, &filter, query.reveal, after).await {
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

/// One page as NDJSON, and where the next one starts. What the disk damaged is no event any more and left out; it is
/// listed as `corrupt`.
async fn export_page(
    dead: &dyn DeadLetters,
    filter: &Filter,
    reveal: bool,
    after: Option<EventId>,
) -> Result<(String, Option<EventId>), ReadError> {
    let page = dead.list(filter.clone(), after, EXPORT_PAGE).await?;
    let mut chunk = String::new();
    for listed in &page {
        if !reveal {
            chunk.push_str(&view::listed(listed, false).to_string());
        } else if let Some(detail) = dead.show(listed.id).await?.filter(|detail| detail.is_intact) {
            chunk.push_str(&String::from_utf8_lossy(&detail.body));
        } else {
            continue;
        }
        chunk.push('\n');
    }
    let more = page.len() == EXPORT_PAGE;
    Ok((chunk, page.last().filter(|_| more).map(|listed| listed.id)))
}
