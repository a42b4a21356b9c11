//! Which call does what.

use std::time::Duration;

use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderMap};
use hyper::{Method, Request, Response, StatusCode};
use serde_json::{Value, json};

use super::access::{Access, Asks};
use super::reply::{self, Body, Refusal};
use super::status::status;
use super::{Parts, PauseFile, dead, decide, events, fields, page};
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

/// Answers one request.
pub(super) async fn answer(
    parts: &Parts,
    access: &Access,
    request: Request<Incoming>,
) -> Result<Response<Body>, Refusal> {
    let method = request.method().clone();
    let path = request.uri().path().to_owned();
    if path == "/" {
        return show_page(access, &method, request.headers());
    }
    let segments: Vec<&str> = path.trim_start_matches('/').split('/').collect();
    if !ROUTES.iter().any(|(known, template)| method == *known && fits(template, &segments)) {
        let is_read = matches!(method, Method::GET | Method::HEAD);
        access.check(request.headers(), if is_read { Asks::Read } else { Asks::Power })?;
        return Err(unknown(&segments));
    }
    let query = events::Query::parse(request.uri().query().unwrap_or_default())?;
    let asks = if matches!(method, Method::GET | Method::HEAD) && !query.reveal { Asks::Read } else { Asks::Power };
    access.check(request.headers(), asks)?;
    match (&method, segments.as_slice()) {
        (&Method::GET, ["api", "status"]) => Ok(reply::json(StatusCode::OK, &status(parts))),
        (&Method::GET, ["api", "dead"]) => dead::groups(parts).await,
        (&Method::GET, ["api", "events"]) => events::list(parts, &query).await,
        (&Method::GET, ["api", "events", id]) => events::show(parts, id, query.reveal).await,
        (&Method::GET, ["api", "export"]) => Ok(events::export(parts, query)),
        (&Method::POST, ["api", "events", id, action @ ("replay" | "discard")]) => {
            decide::act_on(parts, access.name(), action, id).await
        }
        (&Method::POST, ["api", action @ ("replay" | "discard")]) => {
            decide::act(parts, access.name(), action, &read_json(request).await?).await
        }
        (&Method::POST, ["api", "erase"]) => decide::erase(parts, access.name(), &read_json(request).await?).await,
        (&Method::POST, ["api", action @ ("pause" | "resume" | "drain" | "quit")]) => {
            let action = (*action).to_owned();
            let body = read_json(request).await?;
            steer(parts, &action, &body).await
        }
        (&Method::PUT, ["api", "log-level"]) => set_log_level(parts, &read_json(request).await?),
        (&Method::GET, ["openapi.json"]) => Ok(reply::document(super::OPENAPI)),
        (_, segments) => Err(unknown(segments)),
    }
}

/// The operator's page, which may be fetched by whoever reaches this listener: it holds no data.
fn show_page(access: &Access, method: &Method, headers: &HeaderMap) -> Result<Response<Body>, Refusal> {
    access.check(headers, Asks::Page)?;
    match *method {
        Method::GET | Method::HEAD => Ok(page::answer()),
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
async fn steer(parts: &Parts, action: &str, body: &Value) -> Result<Response<Body>, Refusal> {
    fields::only(body, if action == "pause" { &["seconds"] } else { &[] })?;
    match action {
        "pause" => pause(parts, seconds(body)?).await?,
        "resume" => resume(parts).await?,
        "drain" => (parts.drain)(),
        _ => {
            let Some(quit) = &parts.quit else {
                return Err(Refusal::new(StatusCode::FORBIDDEN, "quit is off: set admin.allow_quit".to_owned()));
            };
            quit.send_replace(true);
        }
    }
    tracing::info!(event = "operator_action", action, "an operator steered the queue");
    Ok(reply::json(StatusCode::OK, &json!({"state": parts.forwarder.flow().borrow().to_string()})))
}

/// Pauses; kept over restarts before it is answered.
async fn pause(parts: &Parts, wait: Option<Duration>) -> Result<(), Refusal> {
    let since = parts.clock.now();
    let pause = Pause { since, until: wait.map(|wait| since.plus(wait)) };
    let _one = parts.steering.lock().await;
    keep(parts, move |file| file.write(pause)).await?;
    parts.forwarder.pause_as(pause);
    Ok(())
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
fn set_log_level(parts: &Parts, body: &Value) -> Result<Response<Body>, Refusal> {
    fields::only(body, &["level", "seconds"])?;
    let level = body.get("level").and_then(Value::as_str).and_then(Level::from_name);
    let names = || Level::ALL.map(Level::as_str).join(", ");
    let level = level.ok_or_else(|| Refusal::bad(format!("level must be one of {}", names())))?;
    let wait = seconds(body)?;
    parts.log_level.set(level, wait);
    tracing::info!(
        event = "operator_action",
        action = "log-level",
        log_level = level.as_str(),
        "an operator set the log level"
    );
    Ok(reply::json(StatusCode::OK, &json!({"level": level.as_str(), "seconds": wait.map(|wait| wait.as_secs())})))
}

/// How long a change holds, if it is for a while.
fn seconds(body: &Value) -> Result<Option<Duration>, Refusal> {
    Ok(fields::whole(body, "seconds")?.map(Duration::from_secs))
}

/// The request's JSON object; an empty body counts as `{}`.
async fn read_json(request: Request<Incoming>) -> Result<Value, Refusal> {
    let is_json = |value: &hyper::header::HeaderValue| value.as_bytes().starts_with(b"application/json");
    if !request.headers().get(CONTENT_TYPE).is_none_or(is_json) {
        return Err(Refusal::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "send application/json".to_owned()));
    }
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
