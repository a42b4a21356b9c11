//! Orders about dead letters as the relay carries them out, line by line.

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::header::{ACCEPT, CONTENT_TYPE};
use hyper::{Method, Response};
use indicatif::ProgressBar;
use serde::Deserialize;
use serde_json::Value;

use crate::cli::client::Client;
use crate::cli::exit::{Exit, Failure};
use crate::cli::{flow, output};

/// What an order did, as far as it went.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Done {
    pub(super) count: u64,
    #[serde(default)]
    pub(super) passed_over: u64,
    #[serde(default)]
    pub(super) unknown: Vec<String>,
    #[serde(default)]
    pub(super) not_dead: Vec<String>,
    pub(super) canary: Option<Canary>,
    /// Of an answer in lines: whether this is the last.
    #[serde(default)]
    done: bool,
}

#[derive(Debug, Deserialize)]
pub(super) struct Canary {
    pub(super) id: String,
    pub(super) outcome: String,
}

/// Orders, and hears how it goes on. Whoever ends this ends the order.
pub(super) async fn order(
    client: &mut Client,
    path: &str,
    order: &Value,
    bar: &ProgressBar,
) -> Result<(Done, Value), Failure> {
    let headers =
        [(CONTENT_TYPE.as_str(), "application/json"), (ACCEPT.as_str(), "application/x-ndjson, application/json")];
    let started = client.start(Method::POST, path, &headers, Bytes::from(order.to_string())).await;
    let answer = started.map_err(|error| flow::unreachable(client, &error))?;
    let in_lines = answer.headers().get(CONTENT_TYPE).is_some_and(|value| value.as_bytes().ends_with(b"x-ndjson"));
    let result = match in_lines {
        true => last_line(answer, bar).await,
        false => {
            let answer = flow::answered(client, Client::whole(answer).await)?;
            answer.json::<Value>().and_then(read)
        }
    };
    bar.finish_and_clear();
    result
}

/// Follows the lines up to the last one.
async fn last_line(answer: Response<Incoming>, bar: &ProgressBar) -> Result<(Done, Value), Failure> {
    let mut body = answer.into_body();
    let (mut begun, mut so_far) = (Vec::new(), 0);
    let broke_off = |so_far: u64| {
        let so_far = output::counted(so_far, "dead letter");
        let message = format!("the relay broke off after {so_far}; the rest stays dead");
        Failure::new(Exit::Unavailable, message).hint("the same command goes on with the rest")
    };
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(|_| broke_off(so_far))?.into_data() else { continue };
        begun.extend_from_slice(&data);
        while let Some(end) = begun.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = begun.drain(..=end).collect();
            let line: Value = serde_json::from_slice(&line).unwrap_or_default();
            if let Some(message) = line["message"].as_str() {
                return Err(Failure::new(Exit::Unavailable, format!("the relay broke off: {message}")));
            }
            let (done, line) = read(line)?;
            if done.done {
                return Ok((done, line));
            }
            so_far = done.count;
            bar.set_position(so_far);
        }
    }
    Err(broke_off(so_far))
}

fn read(answer: Value) -> Result<(Done, Value), Failure> {
    match Done::deserialize(&answer) {
        Ok(done) => Ok((done, answer)),
        Err(error) => Err(Failure::new(Exit::Unavailable, format!("the relay's answer is not understood: {error}"))),
    }
}
