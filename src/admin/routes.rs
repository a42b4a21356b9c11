//! Which call does what.

use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::header::{ACCEPT, HeaderMap};
use hyper::{Method, Request, Response, StatusCode};
use serde_json::{Value, json};

use super::access::{Access, Asks};
use super::decide::Asked;
use super::events::{Call, Query};
use super::order::Action;
use super::reply::{self, Body, Refusal};
use super::status::status;
use super::{Parts, PauseFile, audit, dead, decide, events, export, fields, page};
use crate::clock::Timestamp;
use crate::forwarder::Pause;
use crate::telemetry::Level;

/// Control requests are small.
const MAX_BODY_BYTES: usize = 1024 * 1024;

/// Every call there is, as the OpenAPI document lists them.
pub const ROUTES: &[(&str, &str)] = &[
    ("GET", "/api/status"),
    ("GET", "/api/dead"),
    ("GET", "/api/events"),
    ("GET", "/api/events/{id}"),
    ("GET", "/api/export"),
    ("POST", "/api/events/{id}/replay"),
    ("POST", "/api/events/{id}/discard"),
    ("POST", "/api/replay"),
    ("POST", "/api/discard"),
    ("POST", "/api/erase"),
    ("POST", "/api/pause"),
    ("POST", "/api/resume"),
    ("POST", "/api/drain"),
    ("POST", "/api/quit"),
    ("PUT", "/api/log-level"),
    ("GET", "/openapi.json"),
];

/// Answers one request. HEAD is GET without the body, which hyper leaves out.
pub(super) async fn answer(
    parts: &Arc<Parts>,
    access: &Access,
    request: Request<Incoming>,
) -> Result<Response<Body>, Refusal> {
    let method = if request.method() == Method::HEAD { Method::GET } else { request.method().clone() };
    let path = request.uri().path().to_owned();
    if path == "/" {
        return show_page(access, &method, request.headers());
    }
    let segments: Vec<&str> = path.trim_start_matches('/').split('/').collect();
    let read_or_power = if method == Method::GET { Asks::Read } else { Asks::Power };
    if !ROUTES.iter().any(|(known, template)| method == *known && fits(template, &segments)) {
        access.check(request.headers(), read_or_power)?;
        return Err(unknown(&segments));
    }
    let query = Query::parse(request.uri().query().unwrap_or_default(), call(&method, &segments));
    let reveals = query.as_ref().is_ok_and(|query| query.reveal);
    access.check(request.headers(), if reveals { Asks::Power } else { read_or_power })?;
    let query = query?;
    let takes_trailers = export::takes_trailers(request.headers());
    if method != Method::GET {
        let asked = Asked { via: access.name(), lines: wants_lines(request.headers()) };
        let body = read_json(access, request).await?;
        return change(parts, asked, &segments, &body).await;
    }
    match segments.as_slice() {
        ["api", "status"] => Ok(reply::json(StatusCode::OK, &status(parts))),
        ["api", "dead"] => dead::groups(parts).await,
        ["api", "events"] => events::list(parts, &query).await,
        ["api", "events", id] => events::show(parts, id, query.reveal).await,
        ["api", "export"] => export::export(parts, query, takes_trailers).await,
        ["openapi.json"] => Ok(reply::document(super::OPENAPI)),
        segments => Err(unknown(segments)),
    }
}

/// Changes state.
async fn change(parts: &Arc<Parts>, asked: Asked, segments: &[&str], body: &Value) -> Result<Response<Body>, Refusal> {
    let no_call = || unknown(segments);
    match segments {
        ["api", "events", id, action] => {
            decide::act_on(parts, asked, Action::from_name(action).ok_or_else(no_call)?, id, body).await
        }
        ["api", "erase"] => decide::erase(parts, asked.via, body).await,
        ["api", "log-level"] => set_log_level(parts, asked.via, body),
        ["api", "pause" | "resume" | "drain" | "quit"] => steer(parts, asked.via, segments[1], body).await,
        ["api", action] => decide::act(parts, asked, Action::from_name(action).ok_or_else(no_call)?, body).await,
        _ => Err(no_call()),
    }
}

/// What a query string may hold here.
fn call(method: &Method, segments: &[&str]) -> Call {
    match (method, segments) {
        (&Method::GET, ["api", "events"]) => Call::List,
        (&Method::GET, ["api", "events", _]) => Call::Show,
        (&Method::GET, ["api", "export"]) => Call::Export,
        _ => Call::Other,
    }
}

/// Whether the client wants to hear how it goes on.
fn wants_lines(headers: &HeaderMap) -> bool {
    headers.get(ACCEPT).and_then(|accept| accept.to_str().ok()).is_some_and(|accept| accept.contains("x-ndjson"))
}

/// The operator's page, which may be fetched by whoever reaches this listener: it holds no data.
fn show_page(access: &Access, method: &Method, headers: &HeaderMap) -> Result<Response<Body>, Refusal> {
    access.check(headers, Asks::Page)?;
    match *method {
        Method::GET => Ok(page::answer()),
        _ => Err(Refusal::method("GET")),
    }
}

/// 405 for a path that has another method, 404 for the rest.
fn unknown(segments: &[&str]) -> Refusal {
    match ROUTES.iter().find(|(_, template)| fits(template, segments)) {
        Some((method, _)) => Refusal::method(method),
        None => Refusal::not_found("no such call"),
    }
}

fn fits(template: &str, segments: &[&str]) -> bool {
    let mut parts = template.trim_start_matches('/').split('/');
    let all = segments.iter().all(|segment| parts.next().is_some_and(|part| part == "{id}" || part == *segment));
    all && parts.next().is_none()
}

/// Changes how the queue flows.
async fn steer(parts: &Parts, via: &str, action: &str, body: &Value) -> Result<Response<Body>, Refusal> {
    fields::only(body, if action == "pause" { &["seconds"] } else { &[] })?;
    let wait = seconds(body)?;
    let mut until = None;
    match action {
        "pause" => until = pause(parts, wait).await?,
        "resume" => resume(parts).await?,
        "drain" => (parts.drain)(),
        _ if parts.quit.is_none() => {
            return Err(Refusal::new(StatusCode::FORBIDDEN, "quit is off: set admin.allow_quit".to_owned()));
        }
        _ => {}
    }
    audit::steered(via, action, wait.map(|wait| wait.as_secs()), until.map(|until| until.to_string()));
    if action == "quit" {
        parts.quit.as_ref().map(|quit| quit.send_replace(true));
    }
    Ok(reply::json(StatusCode::OK, &json!({"state": parts.forwarder.flow().borrow().to_string()})))
}

/// Pauses; kept over restarts before it is answered. Gives the end, if there is one.
async fn pause(parts: &Parts, wait: Option<Duration>) -> Result<Option<Timestamp>, Refusal> {
    let since = parts.clock.now();
    let pause = Pause { since, until: wait.map(|wait| since.plus(wait)) };
    let _one = parts.steering.lock().await;
    keep(parts, move |file| file.write(pause)).await?;
    parts.forwarder.pause_as(pause);
    Ok(pause.until)
}

/// Ends a pause, also for later starts.
async fn resume(parts: &Parts) -> Result<(), Refusal> {
    let _one = parts.steering.lock().await;
    keep(parts, |file| file.remove()).await?;
    parts.forwarder.resume();
    Ok(())
}

/// Changes the file off the runtime's threads, as a sync takes its time.
async fn keep(
    parts: &Parts,
    change: impl FnOnce(&PauseFile) -> std::io::Result<()> + Send + 'static,
) -> Result<(), Refusal> {
    let file = parts.pause_file.clone();
    let done = tokio::task::spawn_blocking(move || change(&file)).await;
    done.unwrap_or_else(|error| Err(std::io::Error::other(error))).map_err(|error| {
        let message = format!("the pause cannot be kept in outbox.dir ({error}); nothing was changed");
        Refusal::new(StatusCode::SERVICE_UNAVAILABLE, message)
    })
}

/// Changes how much is logged.
fn set_log_level(parts: &Parts, via: &str, body: &Value) -> Result<Response<Body>, Refusal> {
    fields::only(body, &["level", "seconds"])?;
    let level = body.get("level").and_then(Value::as_str).and_then(Level::from_name);
    let names = || Level::ALL.map(Level::as_str).join(", ");
    let level = level.ok_or_else(|| Refusal::bad(format!("level must be one of {}", names())))?;
    let wait = seconds(body)?;
    parts.log_level.set(level, wait);
    let seconds = wait.map(|wait| wait.as_secs());
    audit::leveled(via, level.as_str(), seconds);
    Ok(reply::json(StatusCode::OK, &json!({"level": level.as_str(), "seconds": seconds})))
}

/// How long a change holds, if it is for a while.
fn seconds(body: &Value) -> Result<Option<Duration>, Refusal> {
    Ok(fields::whole(body, "seconds")?.map(Duration::from_secs))
}

/// The request's JSON object; an empty body counts as `{}`.
async fn read_json(access: &Access, request: Request<Incoming>) -> Result<Value, Refusal> {
    access.check_is_json(request.headers())?;
    #[expect(clippy::disallowed_methods, reason = "bounded by Limited")]
    let body = Limited::new(request.into_body(), MAX_BODY_BYTES).collect().await;
    let body = body.map_err(|_| Refusal::bad("the body is over 1 MiB or broke off"))?.to_bytes();
    if body.is_empty() {
        return Ok(json!({}));
    }
    let body: Value = serde_json::from_slice(&body)
        .map_err(|error| Refusal::bad(format!("not JSON: line {}, column {}", error.line(), error.column())))?;
    if body.is_object() { Ok(body) } else { Err(Refusal::bad("the body must be a JSON object")) }
}
