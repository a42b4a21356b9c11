//! Commands on the control socket, and `pause` and `resume`, which are nothing more than that.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use hyper::{Method, header};
use serde_json::{Value, json};

use super::Context;
use super::client::{Answer, CallError, Client, Endpoint};
use super::exit::{Exit, Failure};
use super::output;
use crate::config::{self, Whereabouts};

/// `pause`
#[derive(Debug, clap::Args)]
pub(super) struct PauseArgs {
    /// Only for so long; the end is kept over restarts [default: until `resume`]
    #[arg(long = "for", value_name = "DURATION", value_parser = config::duration)]
    wait: Option<Duration>,
}

pub(super) async fn pause(args: &PauseArgs, context: &Context) -> Result<(), Failure> {
    let body = json!({ "seconds": args.wait.map(seconds).transpose()? });
    let done = format!("paused{}: events are taken and not delivered", for_so_long(args.wait));
    ask(Method::POST, "/api/pause", &body, &done, context).await
}

/// The relay counts in whole seconds.
pub(super) fn seconds(wait: Duration) -> Result<u64, Failure> {
    let least = || Failure::new(Exit::Usage, "--for must be at least 1s");
    Some(wait.as_secs()).filter(|seconds| *seconds > 0).ok_or_else(least)
}

/// ` for 10m 0s`, or nothing.
pub(super) fn for_so_long(wait: Option<Duration>) -> String {
    wait.map(|wait| format!(" for {}", output::age(wait))).unwrap_or_default()
}

/// A client of the control socket.
pub(super) fn control(whereabouts: &Whereabouts) -> Client {
    Client::new(Endpoint::Socket(whereabouts.socket.clone()))
}

/// The answer, or what to do without one.
pub(super) fn answered(client: &Client, result: Result<Answer, CallError>) -> Result<Answer, Failure> {
    result.map_err(|error| unreachable(client, &error))
}

/// Nobody answers on the control socket.
pub(super) fn unreachable(client: &Client, error: &CallError) -> Failure {
    if let CallError::NoRelay(cause) = error
        && cause.kind() == io::ErrorKind::PermissionDenied
    {
        let message = format!("no permission for the control socket {}", client.endpoint());
        return Failure::new(Exit::Permission, message).hint("it is for the user that the relay runs as");
    }
    let message = format!("no answer on the control socket {}: {error}", client.endpoint());
    Failure::new(Exit::Unavailable, message).hint(
        "is the relay running, with this very configuration (--config, CELLO_RELAY_…) and on this machine or in this \
         container? What a stopped relay holds, its directory (outbox.dir) tells: `cello-relay outbox \
         stats|list|show|export|check`",
    )
}

/// Posts to the control API and says what that did.
pub(super) async fn run(path: &str, done: &str, context: &Context) -> Result<(), Failure> {
    ask(Method::POST, path, &json!({}), done, context).await
}

/// Sends JSON to the control API and says what that did.
pub(super) async fn ask(
    method: Method,
    path: &str,
    body: &Value,
    done: &str,
    context: &Context,
) -> Result<(), Failure> {
    let mut client = control(&context.whereabouts()?);
    let json = [(header::CONTENT_TYPE.as_str(), "application/json")];
    let result = client.call(method, path, &json, Bytes::from(body.to_string())).await;
    let answer = answered(&client, result)?;
    if !answer.status.is_success() {
        answer.json::<Value>()?;
    }
    output::note(done);
    Ok(())
}
