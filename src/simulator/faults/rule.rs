//! One rule: its JSON form, whom it concerns, what it does.

use std::collections::BTreeMap;
use std::fmt;
use std::num::NonZeroU32;
use std::time::Duration;

use hyper::StatusCode;
use hyper::header::{HeaderName, HeaderValue, RETRY_AFTER};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{BadFaults, Ending};
use crate::simulator::answer::Answer;

const HTML: HeaderValue = HeaderValue::from_static("text/html");
const GARBAGE: &str = "<!DOCTYPE html><html><body><h1>An unexpected error occurred</h1></body></html>";

/// A rule as it is written; see [`super::Faults`].
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Rule {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) path: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) user: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) every: Option<NonZeroU32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) times: Option<u64>,
    /// From when the faults were set.
    #[serde(rename = "for", skip_serializing_if = "Option::is_none")]
    pub(super) lasts: Option<Span>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) latency: Option<Span>,
    /// Added to the latency: evenly between nothing and this.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) jitter: Option<Span>,
    #[serde(skip_serializing_if = "Option::is_none")]
    counts: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<u16>,
    /// Seconds, or any text.
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after: Option<Value>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    headers: BTreeMap<String, String>,
    /// A text is sent as it is, anything else as JSON.
    #[serde(skip_serializing_if = "Option::is_none")]
    body: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reset: Option<When>,
    #[serde(skip_serializing_if = "is_false")]
    hang: bool,
    #[serde(skip_serializing_if = "is_false")]
    garbage: bool,
    #[serde(skip_serializing_if = "is_false")]
    empty: bool,
    #[serde(skip_serializing_if = "is_false")]
    success_false: bool,
}

/// When a connection is reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
enum When {
    /// Cello has done nothing.
    Before,
    /// Cello has done its work; only the answer is lost.
    After,
}

/// What a rule does, besides taking time.
#[derive(Clone, Debug)]
pub(super) struct Effect {
    pub(super) ending: Ending,
    pub(super) counts: bool,
}

impl Rule {
    /// Reads rules, naming the position of a bad one.
    pub(super) fn list(json: Value) -> Result<Vec<Self>, BadFaults> {
        let Value::Array(rules) = json else { return Err(BadFaults("rules must be a list".into())) };
        let read = |(position, rule)| {
            serde_json::from_value(rule).map_err(|error| BadFaults(format!("rule {position}: {error}")))
        };
        rules.into_iter().enumerate().map(read).collect()
    }

    /// Whether the rule is about such a request.
    pub(super) fn matches(&self, path: &str, user: Option<&str>) -> bool {
        let on_path = self.path.as_deref().is_none_or(|wanted| match wanted.strip_suffix('*') {
            Some(prefix) => path.starts_with(prefix),
            None => path == wanted,
        });
        on_path && self.user.as_deref().is_none_or(|wanted| user == Some(wanted))
    }

    /// Works out the effect, or why there is none.
    pub(super) fn effect(&self) -> Result<Effect, String> {
        let bodies = [self.body.is_some(), self.message.is_some(), self.garbage, self.empty, self.success_false];
        let bodies = bodies.iter().filter(|given| **given).count();
        let has_head = self.status.is_some() || self.retry_after.is_some() || !self.headers.is_empty();
        let answers = bodies > 0 || has_head;
        if bodies > 1 || usize::from(self.reset.is_some()) + usize::from(self.hang) + usize::from(answers) > 1 {
            return Err("effects exclude each other: one of reset, hang or an answer, and one body".into());
        }
        let ending = match (self.reset, self.hang, answers) {
            (Some(_), ..) => Ending::Reset,
            (_, true, _) => Ending::Hang,
            (.., true) => Ending::Answer(self.answer()?),
            _ if self.latency.is_some() || self.jitter.is_some() => Ending::Honest,
            _ => return Err("does nothing: give status, latency, reset, hang, garbage, …".into()),
        };
        let by_default = match &ending {
            Ending::Answer(answer) => answer.status.is_success() && !self.success_false,
            _ => self.reset == Some(When::After),
        };
        Ok(Effect { ending, counts: self.counts.unwrap_or(by_default) })
    }

    fn answer(&self) -> Result<Answer, String> {
        let status = self.status.unwrap_or(if self.message.is_some() { 400 } else { 200 });
        let status = StatusCode::from_u16(status).ok().filter(|status| (200..600).contains(&status.as_u16()));
        let status = status.ok_or("status must be 200 to 599")?;
        let mut answer = match (&self.body, &self.message) {
            (Some(Value::String(body)), _) => Answer::new(status, HeaderValue::from_static("text/plain"), body.clone()),
            (Some(body), _) => Answer::json(status, body),
            (_, Some(message)) => Answer::message(status, message),
            _ if self.garbage => Answer::new(status, HTML, GARBAGE),
            _ if self.empty => Answer::empty(status),
            _ if self.success_false => Answer::json(status, &json!({ "success": false })),
            _ if status.is_success() => Answer { status, ..Answer::success() },
            _ if status.is_redirection() => Answer::empty(status),
            _ => Answer::message(status, status.canonical_reason().unwrap_or("Error")),
        };
        if matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED) {
            answer = Answer::empty(status);
        }
        for (name, value) in &self.headers {
            let name: HeaderName = name.parse().map_err(|_| format!("{name:?} is no header name"))?;
            answer.headers.insert(name, header_value(value)?);
        }
        if let Some(wait) = &self.retry_after {
            let wait = wait.as_str().map_or_else(|| wait.to_string(), str::to_owned);
            answer.headers.insert(RETRY_AFTER, header_value(&wait)?);
        }
        Ok(answer)
    }
}

fn header_value(text: &str) -> Result<HeaderValue, String> {
    HeaderValue::from_str(text).map_err(|_| format!("{text:?} is no header value"))
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
fn is_false(flag: &bool) -> bool {
    !*flag
}

/// A duration as people write it: `200ms`, `10s`, `5h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(try_from = "Value", into = "String")]
pub(super) struct Span(pub(super) Duration);

impl TryFrom<Value> for Span {
    type Error = NotASpan;

    fn try_from(value: Value) -> Result<Self, NotASpan> {
        let text = value.as_str().ok_or(NotASpan)?;
        let span: jiff::SignedDuration = text.parse().map_err(|_| NotASpan)?;
        span.try_into().map(Self).map_err(|_| NotASpan)
    }
}

impl From<Span> for String {
    fn from(span: Span) -> Self {
        format!("{}ms", span.0.as_millis())
    }
}

/// The value is no duration.
pub(super) struct NotASpan;

impl fmt::Display for NotASpan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a duration is a text with its unit, such as \"200ms\" or \"10s\"")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn effect(rule: Value) -> Effect {
        let rule: Rule = serde_json::from_value(rule).expect("a rule");
        rule.effect().expect("an effect")
    }

    #[test]
    fn an_event_counts_by_default_where_cello_would_have_taken_it() {
        let counted = [json!({"reset": "after"}), json!({"garbage": true}), json!({"empty": true})];
        assert!(counted.into_iter().all(|rule| effect(rule).counts));
        let not_counted = [
            json!({"reset": "before"}),
            json!({"status": 503}),
            json!({"successFalse": true}),
            json!({"hang": true}),
            json!({"latency": "1s"}),
            json!({"status": 502, "garbage": true}),
        ];
        assert!(not_counted.into_iter().all(|rule| !effect(rule).counts));
        assert!(effect(json!({"status": 502, "counts": true})).counts);
        assert!(!effect(json!({"empty": true, "counts": false})).counts);
    }

    #[test]
    fn answers_are_what_the_rule_says() {
        let answer = |rule| match effect(rule).ending {
            Ending::Answer(answer) => (answer.status.as_u16(), String::from_utf8_lossy(&answer.body).into_owned()),
            other => panic!("{other:?}"),
        };
        assert_eq!(answer(json!({"status": 503})), (503, r#"{"message":"Service Unavailable"}"#.into()));
        assert_eq!(answer(json!({"message": "no"})), (400, r#"{"message":"no"}"#.into()));
        assert_eq!(answer(json!({"status": 422, "body": {"a": 1}})), (422, r#"{"a":1}"#.into()));
        assert_eq!(answer(json!({"status": 500, "body": "oops"})), (500, "oops".into()));
        assert_eq!(answer(json!({"status": 204})), (204, String::new()));
        let Ending::Answer(answer) = effect(json!({"status": 429, "retryAfter": 2})).ending else { panic!() };
        assert_eq!(answer.headers[RETRY_AFTER], "2");
    }
}
