//! Listing and showing events.

use std::time::Duration;

use hyper::{Response, StatusCode};
use percent_encoding::percent_decode_str;
use serde_json::{Value, json};

use super::reply::{self, Body, Refusal};
use super::{Parts, fields, view};
use crate::clock::Timestamp;
use crate::event::{EventId, UserId};
use crate::outbox::{Filter, State};
use crate::reason::Reason;

/// A page if the caller names no limit.
const DEFAULT_LIMIT: usize = 50;
/// A page at most.
const MAX_LIMIT: usize = 1000;

/// What a query string is for, and so what it may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Call {
    List,
    Show,
    Export,
    /// Everything that takes no parameter.
    Other,
}

impl Call {
    fn knows(self) -> &'static [&'static str] {
        match self {
            Call::List => &["state", "user", "reason", "older_than", "newer_than", "after", "limit", "reveal"],
            Call::Show => &["reveal"],
            Call::Export => &["ids", "state", "user", "reason", "older_than", "newer_than", "after", "limit", "reveal"],
            Call::Other => &[],
        }
    }
}

/// The query string of a read.
#[derive(Debug, Default)]
pub(super) struct Query {
    pub(super) reveal: bool,
    filter: Filter,
    pub(super) ids: Vec<EventId>,
    pub(super) after: Option<EventId>,
    pub(super) limit: Option<usize>,
    older_than: Option<Duration>,
    newer_than: Option<Duration>,
}

impl Query {
    /// Ages are told from now on back.
    pub(super) fn filter(&self, now: Timestamp) -> Filter {
        let (until, since) = (self.older_than.map(|age| now.minus(age)), self.newer_than.map(|age| now.minus(age)));
        Filter { until, since, ..self.filter.clone() }
    }

    pub(super) fn parse(query: &str, call: Call) -> Result<Self, Refusal> {
        let mut parsed = Self::default();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let value =
                percent_decode_str(value).decode_utf8().map_err(|_| Refusal::bad(format!("{name}: not UTF-8")))?;
            match call.knows() {
                [] => return Err(Refusal::bad(format!("unknown parameter {name}; this call has none"))),
                known if !known.contains(&name) => {
                    return Err(Refusal::bad(format!("unknown parameter {name}; known: {}", known.join(", "))));
                }
                _ => parsed.set(name, &value, call)?,
            }
        }
        Ok(parsed)
    }

    #[cfg(fuzzing)]
    pub(super) fn taken_apart(&self, now: Timestamp) -> (Filter, Option<EventId>, Option<usize>, bool) {
        (self.filter(now), self.after, self.limit, self.reveal)
    }

    fn set(&mut self, name: &str, value: &str, call: Call) -> Result<(), Refusal> {
        match name {
            "state" => self.filter.state = Some(state(value)?),
            "user" => self.filter.user = Some(UserId::new(value)),
            "reason" => self.filter.reason = Some(reason(value)?),
            "older_than" => self.older_than = Some(age(name, value)?),
            "newer_than" => self.newer_than = Some(age(name, value)?),
            "after" => self.after = Some(event_id(value)?),
            "ids" => self.ids = value.split(',').map(event_id).collect::<Result<_, _>>()?,
            "reveal" => {
                let known = matches!(value, "true" | "false");
                self.reveal =
                    known.then_some(value == "true").ok_or_else(|| Refusal::bad("reveal must be true or false"))?;
            }
            _ => {
                let most = if call == Call::Export { fields::MAX_NUMBER as usize } else { MAX_LIMIT };
                let limit = value.parse().ok().filter(|limit| (1..=most).contains(limit));
                self.limit = Some(limit.ok_or_else(|| Refusal::bad(format!("limit must be 1 to {most}")))?);
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
    // One more than asked for, to see whether there are more.
    let mut page = parts.dead.list(query.filter(parts.clock.now()), query.after, limit + 1).await?;
    let more = page.len() > limit;
    page.truncate(limit);
    let next = page.last().filter(|_| more).map(|listed| listed.id.to_string());
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
