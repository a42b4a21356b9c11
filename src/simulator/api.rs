//! One request's way: read, recognise, ask the faults, do Cello's work, answer.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::header::AUTHORIZATION;
use hyper::http::request::Parts;
use hyper::{Method, Request, StatusCode};
use tokio::sync::watch;

use super::answer::{Answer, RequestIds, Response};
use super::control;
use super::envelope::Envelope;
use super::faults::{Ending, Fate, FaultBoard, Faults};
use super::journal::{Arrival, Headers, IDEMPOTENCY_KEY, Journal, Seen};
use super::reads::Read;
use super::tokens::{Grant, Tokens};
use crate::clock::Clock;

/// What the gateway in front of Cello lets through.
const MAX_BODY_BYTES: usize = 10 << 20;

/// The stand-in itself; shared by all connections.
pub(super) struct Cello {
    pub(super) clock: Arc<dyn Clock>,
    pub(super) tokens: Tokens,
    pub(super) faults: FaultBoard,
    pub(super) journal: Journal,
    pub(super) ids: RequestIds,
    /// `true`, or no sender any more: requests that wait end now.
    pub(super) stopping: watch::Receiver<bool>,
}

/// The request gets no answer: its connection is to be reset.
#[derive(Debug)]
pub(super) struct NoAnswer;

impl fmt::Display for NoAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no answer, by a fault or because the client left")
    }
}

impl std::error::Error for NoAnswer {}

/// A request that was read, by route.
enum Call {
    Token(Grant),
    /// With its number in the journal.
    Event(Envelope, u64),
    Read(Read),
    Unknown,
}

impl Call {
    fn user(&self) -> Option<&str> {
        match self {
            Call::Event(envelope, _) => envelope.user.as_deref(),
            Call::Read(read) => read.user(),
            Call::Token(_) | Call::Unknown => None,
        }
    }
}

impl Cello {
    /// Answers one request, or does not.
    pub(super) async fn call(&self, request: Request<Incoming>) -> Result<Response, NoAnswer> {
        let request_id = self.ids.next();
        let (head, body) = request.into_parts();
        let body = match read(body).await {
            Ok(body) => body,
            Err(Some(too_long)) => return Ok(too_long.into_response(&request_id)),
            Err(None) => return Err(NoAnswer),
        };
        if head.uri.path().starts_with("/_sim") {
            return Ok(control::answer(self, &head, &body).into_response(&request_id));
        }
        let mut entry = Entry::open(&self.journal, || self.see(&head, &request_id));
        let call = self.recognise(&head, &body, &request_id);
        let fate = self.faults.decide(head.uri.path(), call.user(), self.clock.now());
        let answer = self.live_out(fate, &call, &head).await.ok_or(NoAnswer)?;
        entry.answered(answer.status);
        if let Call::Event(_, seq) = call {
            self.journal.answered(seq, answer.status.as_u16());
        }
        Ok(answer.into_response(&request_id))
    }

    /// Puts faults in place of all others.
    pub(super) fn set_faults(&self, faults: Faults) {
        if faults.revokes_tokens() {
            self.tokens.revoke_all();
        }
        self.faults.replace(faults, self.clock.now());
    }

    fn see(&self, head: &Parts, request_id: &str) -> Seen {
        Seen {
            at: self.clock.now(),
            method: head.method.as_str().into(),
            path: head.uri.path_and_query().map_or("", |path| path.as_str()).into(),
            status: None,
            request_id: request_id.into(),
        }
    }

    /// Finds out what is asked and takes it down.
    fn recognise(&self, head: &Parts, body: &Bytes, request_id: &str) -> Call {
        match (&head.method, head.uri.path()) {
            (&Method::POST, "/events") => {
                let envelope = Envelope::read(body);
                let arrival = self.journal.keeps_events().then(|| Arrival {
                    seq: 0,
                    at: self.clock.now(),
                    user: envelope.user.clone(),
                    trigger: envelope.trigger.clone(),
                    headers: Headers::read(&head.headers),
                    unknown: envelope.unknown.clone(),
                    counts: false,
                    status: None,
                    request_id: request_id.into(),
                    // A copy: the original would keep the connection's whole read buffer alive.
                    body: Bytes::copy_from_slice(body),
                });
                let seq = self.journal.arrived(arrival, envelope.unknown_count);
                Call::Event(envelope, seq)
            }
            (&Method::POST, "/token") => {
                let grant = Grant::read(body);
                self.journal.count(|stats| match grant {
                    Grant::AccessKey { .. } => stats.token_calls.access_key += 1,
                    Grant::RefreshToken(_) => stats.token_calls.refresh_token += 1,
                    Grant::Malformed => stats.token_calls.malformed += 1,
                });
                Call::Token(grant)
            }
            (method, path) => match Read::route(method, path) {
                Some(read) => {
                    self.journal.count(|stats| stats.reads += 1);
                    Call::Read(read)
                }
                None => Call::Unknown,
            },
        }
    }

    /// Lets the faults have their way; `None`: no answer.
    async fn live_out(&self, fate: Fate, call: &Call, head: &Parts) -> Option<Answer> {
        let early = fate.counts.then(|| self.work(call, head));
        self.pause(fate.delay).await;
        match fate.ending {
            Ending::Honest => Some(early.unwrap_or_else(|| self.work(call, head))),
            Ending::Answer(answer) => Some(answer),
            Ending::Reset => None,
            Ending::Hang => {
                self.stopped().await;
                None
            }
        }
    }

    /// What Cello does with a request, and says.
    fn work(&self, call: &Call, head: &Parts) -> Answer {
        let now = self.clock.now();
        if let Call::Token(grant) = call {
            let answer = self.tokens.exchange(grant, self.faults.refuses_keys(), now);
            if answer.status != StatusCode::CREATED {
                self.journal.count(|stats| stats.token_calls.refused += 1);
            }
            return answer;
        }
        if matches!(call, Call::Unknown) {
            return Answer::not_found();
        }
        let authorization = head.headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
        if !self.tokens.admits(authorization, now) {
            return Answer::unauthorized();
        }
        match call {
            Call::Event(Envelope { refusal: Some(message), .. }, _) => {
                Answer::message(StatusCode::BAD_REQUEST, message)
            }
            Call::Event(envelope, seq) => {
                let key = head.headers.get(IDEMPOTENCY_KEY).map(|key| key.as_bytes());
                self.journal.counted(*seq, envelope, key);
                Answer::success()
            }
            Call::Read(read) => read.answer(),
            Call::Token(_) | Call::Unknown => Answer::not_found(),
        }
    }

    /// Waits, but not longer than the stand-in lives.
    async fn pause(&self, delay: Duration) {
        if delay > Duration::ZERO {
            tokio::select! {
                () = tokio::time::sleep(delay) => {}
                () = self.stopped() => {}
            }
        }
    }

    /// Waits for the end of the stand-in.
    pub(super) async fn stopped(&self) {
        // An error means that the sender is gone: stopped too.
        drop(self.stopping.clone().wait_for(|stopping| *stopping).await);
    }
}

/// Reads a body; `Err(None)` if the client broke off.
async fn read(body: Incoming) -> Result<Bytes, Option<Answer>> {
    #[expect(clippy::disallowed_methods, reason = "Limited bounds it")]
    let read = Limited::new(body, MAX_BODY_BYTES).collect().await;
    let too_long = || Answer::message(StatusCode::PAYLOAD_TOO_LARGE, "Request Too Long");
    read.map(|body| body.to_bytes()).map_err(|error| error.is::<http_body_util::LengthLimitError>().then(too_long))
}

/// A line in the list of requests, written when the request ends, be it because the client left.
struct Entry<'a> {
    journal: &'a Journal,
    seen: Option<Seen>,
}

impl<'a> Entry<'a> {
    /// Opens a line, unless requests are only counted.
    fn open(journal: &'a Journal, see: impl FnOnce() -> Seen) -> Self {
        Self { journal, seen: journal.keeps_events().then(see) }
    }

    fn answered(&mut self, status: StatusCode) {
        if let Some(seen) = &mut self.seen {
            seen.status = Some(status.as_u16());
        }
    }
}

impl Drop for Entry<'_> {
    fn drop(&mut self) {
        if let Some(seen) = self.seen.take() {
            self.journal.seen(seen);
        }
    }
}
