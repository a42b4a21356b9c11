//! Posts one event until the relay has it or refuses it.

use std::time::Duration;

use hyper::{Method, StatusCode, header};
use serde::Deserialize;
use tokio::time::Instant;

use super::input::Item;
use crate::cli::client::{Answer, CallError, Client};
use crate::cli::exit::{Exit, Failure};
use crate::cli::output;
use crate::event::EventId;

/// How long to wait before another try, if the relay does not say.
const PAUSE: Duration = Duration::from_secs(1);
/// The longest wait that the relay may ask for.
const MAX_PAUSE: Duration = Duration::from_secs(60);

/// What the relay said to an event.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Posted {
    /// It is durable.
    Stored {
        id: Option<EventId>,
        /// From an earlier run.
        known: bool,
    },
    /// It never will be.
    Refused { status: u16, reason: String },
}

pub(super) struct Poster {
    client: Client,
    patience: Duration,
    /// Once it has, a silent relay is one that restarts.
    has_answered: bool,
}

impl Poster {
    pub(super) fn new(client: Client, patience: Duration) -> Self {
        Self { client, patience, has_answered: false }
    }

    pub(super) fn into_client(self) -> Client {
        self.client
    }

    /// Tries until there is an answer that counts. Trying again is safe: the key is the same.
    pub(super) async fn post(&mut self, item: &Item, key: &str) -> Result<Posted, Failure> {
        let headers = [(header::CONTENT_TYPE.as_str(), "application/json"), ("idempotency-key", key)];
        let began = Instant::now();
        let mut told = false;
        loop {
            let result = self.client.call(Method::POST, "/events", &headers, item.body.clone().into()).await;
            let (pause, said) = match self.judge(result)? {
                Next::Done(posted) => return Ok(posted),
                Next::Again(pause, said) => (pause, said),
            };
            if began.elapsed() + pause > self.patience {
                let message = format!("event {} could not be stored in {:?}: {said}", item.number, self.patience);
                return Err(Failure::new(Exit::Unavailable, message).hint("run it again later: nothing is doubled"));
            }
            if !told {
                output::note(&format!("waiting for the relay: {said}"));
                told = true;
            }
            tokio::time::sleep(pause).await;
        }
    }

    fn judge(&mut self, result: Result<Answer, CallError>) -> Result<Next, Failure> {
        let answer = match result {
            Ok(answer) => answer,
            Err(error @ CallError::NoRelay(_)) if !self.has_answered => {
                let message = format!("no relay at {}: {error}", self.client.endpoint());
                return Err(Failure::new(Exit::Unavailable, message).hint("start one with `cello-relay run`"));
            }
            Err(error) => return Ok(Next::Again(PAUSE, error.to_string())),
        };
        self.has_answered = true;
        let said = || answer.message();
        match answer.status {
            StatusCode::OK => stored(&answer).map(Next::Done),
            StatusCode::BAD_REQUEST
            | StatusCode::PAYLOAD_TOO_LARGE
            | StatusCode::UNSUPPORTED_MEDIA_TYPE
            | StatusCode::UNPROCESSABLE_ENTITY => {
                let reason = without_place(&said()).to_owned();
                Ok(Next::Done(Posted::Refused { status: answer.status.as_u16(), reason }))
            }
            StatusCode::UNAUTHORIZED => Err(super::asks_for_token(&said())),
            StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS => Ok(Next::Again(pause(&answer), said())),
            status if status.is_server_error() => Ok(Next::Again(pause(&answer), said())),
            status => {
                let message = format!("{} does not take events ({status}): {}", self.client.endpoint(), said());
                Err(Failure::new(Exit::Unavailable, message).hint("is that a cello-relay? check ingest.listen"))
            }
        }
    }
}

/// Without line and column at the end: they count from the event's own start, not from the file's.
fn without_place(said: &str) -> &str {
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    match said.rsplit_once(" at line ") {
        Some((what, place)) => match place.split_once(" column ") {
            Some((line, column)) if is_number(line) && is_number(column) => what,
            _ => said,
        },
        None => said,
    }
}

enum Next {
    Done(Posted),
    Again(Duration, String),
}

fn stored(answer: &Answer) -> Result<Posted, Failure> {
    #[derive(Deserialize)]
    struct Stored {
        id: Option<String>,
    }
    let Stored { id } = answer.json()?;
    let known = answer.headers.get("idempotent-replayed").is_some_and(|value| value == "true");
    Ok(Posted::Stored { id: id.and_then(|id| id.parse().ok()), known })
}

/// `Retry-After` in seconds, within reason.
fn pause(answer: &Answer) -> Duration {
    let seconds = answer.headers.get(header::RETRY_AFTER).and_then(|value| value.to_str().ok()?.trim().parse().ok());
    seconds.map_or(PAUSE, Duration::from_secs).min(MAX_PAUSE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_relay_says_how_long_to_wait_within_a_minute() {
        let after = |value: &'static str| {
            let headers = [(header::RETRY_AFTER, value.parse().unwrap())].into_iter().collect();
            pause(&Answer { status: StatusCode::SERVICE_UNAVAILABLE, headers, body: bytes::Bytes::new() }).as_secs()
        };
        assert_eq!([after("2"), after("0"), after("3600"), after("soon")], [2, 0, 60, 1]);
    }
}
