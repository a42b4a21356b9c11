//! What an operator orders about dead letters, taken strictly.

use std::time::Duration;

use serde_json::{Map, Value};

use super::events::{event_id, reason};
use super::fields;
use super::reply::Refusal;
use crate::clock::Timestamp;
use crate::event::UserId;
use crate::outbox::{Filter, Selection, State};

/// What is done to dead letters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    Replay,
    Discard,
}

impl Action {
    /// The name in paths and in the log.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Action::Replay => "replay",
            Action::Discard => "discard",
        }
    }

    pub(super) fn from_name(name: &str) -> Option<Self> {
        [Action::Replay, Action::Discard].into_iter().find(|action| action.as_str() == name)
    }

    /// What a body may say beside which events are meant.
    fn terms(self) -> &'static [&'static str] {
        match self {
            Action::Replay => &["dry_run", "canary", "per_second", "may_duplicate"],
            Action::Discard => &["dry_run"],
        }
    }
}

/// Dead letters that an operator selects, and what is done to them.
#[derive(Clone, Debug)]
pub(super) struct Order {
    pub(super) action: Action,
    pub(super) selection: Selection,
    pub(super) dry_run: bool,
    /// One first, and the rest only once that is delivered.
    pub(super) canary: bool,
    pub(super) per_second: Option<u64>,
    pub(super) may_duplicate: bool,
}

impl Order {
    pub(super) fn parse(action: Action, body: &Value, now: Timestamp) -> Result<Self, Refusal> {
        fields::only(body, &[&["ids", "filter"], action.terms()].concat())?;
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
        Ok(Self { action, selection, dry_run, canary, per_second, may_duplicate })
    }

    /// About the event that the path names; the body holds nothing but terms.
    pub(super) fn of_one(action: Action, id: &str, body: &Value, now: Timestamp) -> Result<Self, Refusal> {
        let known: Vec<_> = action.terms().iter().copied().filter(|name| *name != "per_second").collect();
        fields::only(body, &known)?;
        let mut body = body.clone();
        body["ids"] = Value::Array(vec![id.into()]);
        Self::parse(action, &body, now)
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
