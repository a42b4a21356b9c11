//! Commands on the control socket, and `pause` and `resume`, which are nothing more than that.

use serde_json::{Value, json};

use super::Context;
use super::client::{Answer, CallError, Client, Endpoint};
use super::exit::{Exit, Failure};
use super::output;
use crate::config::Whereabouts;

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
    let message = format!("no answer on the control socket {}: {error}", client.endpoint());
    Failure::new(Exit::Unavailable, message).hint(
        "is the relay running, with this very configuration (--config, CELLO_RELAY_…) and on this machine or in this \
         container?",
    )
}

/// Posts to the control API and says what that did.
pub(super) async fn run(path: &str, done: &str, context: &Context) -> Result<(), Failure> {
    let mut client = control(&context.whereabouts()?);
    let result = client.post(path, &json!({})).await;
    let answer = answered(&client, result)?;
    if !answer.status.is_success() {
        answer.json::<Value>()?;
    }
    output::note(done);
    Ok(())
}
