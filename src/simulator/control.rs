//! `/_sim/*`: what arrived, and the faults, while it runs. Needs no token.

use hyper::header::{ALLOW, HeaderValue};
use hyper::http::request::Parts;
use hyper::{Method, StatusCode};
use serde_json::json;

use super::answer::Answer;
use super::api::Cello;
use super::faults::Faults;
use super::reads::decode;

/// Events in one answer, unless the caller says otherwise; and at most.
const PAGE: usize = 1_000;
const MAX_PAGE: usize = 10_000;

/// Answers a control request.
pub(super) fn answer(cello: &Cello, head: &Parts, body: &[u8]) -> Answer {
    match (head.uri.path(), &head.method) {
        ("/_sim/faults", &Method::GET) => Answer::json(StatusCode::OK, &cello.faults.show()),
        ("/_sim/faults", &Method::PUT) => put_faults(cello, body),
        ("/_sim/faults", &Method::DELETE) => {
            cello.set_faults(Faults::default());
            Answer::empty(StatusCode::NO_CONTENT)
        }
        ("/_sim/events", &Method::GET) => match Query::read(head.uri.query().unwrap_or("")) {
            Ok(query) => events(cello, &query),
            Err(message) => Answer::message(StatusCode::BAD_REQUEST, &message),
        },
        ("/_sim/events", &Method::DELETE) => {
            cello.journal.forget();
            Answer::empty(StatusCode::NO_CONTENT)
        }
        ("/_sim/stats", &Method::GET) => Answer::json(StatusCode::OK, &cello.journal.stats()),
        ("/_sim/requests", &Method::GET) => {
            Answer::json(StatusCode::OK, &json!({ "requests": cello.journal.requests() }))
        }
        ("/_sim/faults", _) => wrong_method("GET, PUT, DELETE"),
        ("/_sim/events", _) => wrong_method("GET, DELETE"),
        ("/_sim/stats" | "/_sim/requests", _) => wrong_method("GET"),
        _ => Answer::message(StatusCode::NOT_FOUND, "there are /_sim/faults, events, stats and requests"),
    }
}

fn put_faults(cello: &Cello, body: &[u8]) -> Answer {
    let faults = str::from_utf8(body).map_err(|error| error.to_string());
    match faults.and_then(|text| text.parse::<Faults>().map_err(|error| error.to_string())) {
        Ok(faults) => {
            cello.set_faults(faults);
            Answer::json(StatusCode::OK, &cello.faults.show())
        }
        Err(message) => Answer::message(StatusCode::BAD_REQUEST, &message),
    }
}

/// A page of events, with the number to go on after if there may be more.
fn events(cello: &Cello, query: &Query) -> Answer {
    let events = cello.journal.events(query.user.as_deref(), query.after, query.limit);
    let next = events.last().filter(|_| events.len() == query.limit).map(|last| last.seq);
    Answer::json(StatusCode::OK, &json!({ "events": events, "next": next }))
}

fn wrong_method(allowed: &'static str) -> Answer {
    let mut answer = Answer::message(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed");
    answer.headers.insert(ALLOW, HeaderValue::from_static(allowed));
    answer
}

/// `?user=&after=&limit=`; a `+` is a plus, as in e-mail addresses.
struct Query {
    user: Option<String>,
    after: u64,
    limit: usize,
}

impl Query {
    fn read(query: &str) -> Result<Self, String> {
        let mut read = Self { user: None, after: 0, limit: PAGE };
        for (name, value) in query.split('&').filter(|pair| !pair.is_empty()).map(split) {
            let number = || value.parse::<u64>().map_err(|_| format!("{name} must be a number"));
            match name {
                "user" => read.user = Some(decode(value)),
                "after" => read.after = number()?,
                "limit" => read.limit = usize::try_from(number()?).unwrap_or(MAX_PAGE).clamp(1, MAX_PAGE),
                _ => return Err(format!("unknown parameter {name:?}: there are user, after and limit")),
            }
        }
        Ok(read)
    }
}

fn split(pair: &str) -> (&str, &str) {
    pair.split_once('=').unwrap_or((pair, ""))
}
