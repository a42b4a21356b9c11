//! `wait`: until the relay is ready, or has nothing left to deliver.

use std::time::Duration;

use hyper::StatusCode;
use serde::Deserialize;

use super::client::{Client, Endpoint};
use super::exit::{Exit, Failure};
use super::{Context, output, progress, send};
use crate::config;

/// Between two looks: soon enough for a start, seldom enough to cost nothing.
const PAUSE: Duration = Duration::from_millis(200);

/// `wait`
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// How long to wait at most
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = config::duration)]
    timeout: Duration,

    /// Wait until nothing is left to deliver, instead of until ready
    #[arg(long)]
    empty: bool,
}

pub(super) async fn run(args: &Args, context: &Context) -> Result<(), Failure> {
    let whereabouts = context.whereabouts()?;
    let mut client = if args.empty {
        let token = send::bearer(&whereabouts)?;
        Client::new(Endpoint::Tcp(whereabouts.ingest)).with_bearer(token)
    } else {
        Client::new(Endpoint::Tcp(whereabouts.ops))
    };
    let mut last = String::new();
    let wheel = progress::wheel("waiting");
    let done = tokio::time::timeout(args.timeout, async {
        loop {
            match if args.empty { is_empty(&mut client).await } else { is_ready(&mut client).await } {
                Ok(()) => return Ok(()),
                Err(Not::Yet(said)) => last = said,
                Err(Not::Ever(failure)) => return Err(failure),
            }
            if !wheel.is_hidden() {
                wheel.set_message(output::printable(&last));
            }
            tokio::time::sleep(PAUSE).await;
        }
    });
    let done = done.await;
    wheel.finish_and_clear();
    done.unwrap_or_else(|_| {
        let (what, hint) = match args.empty {
            true => ("empty", "`cello-relay outbox stats` shows what waits and why"),
            false => ("ready", "is it running, with this very configuration? its log says what it waits for"),
        };
        let message = format!("the relay at {} is not {what} after {:?}: {last}", client.endpoint(), args.timeout);
        Err(Failure::new(Exit::Unavailable, message).hint(hint))
    })
}

/// Why a look did not find what is waited for.
enum Not {
    Yet(String),
    /// Waiting does not help.
    Ever(Failure),
}

async fn is_ready(client: &mut Client) -> Result<(), Not> {
    match client.get("/readyz").await {
        Ok(answer) if answer.status == StatusCode::OK => Ok(()),
        Ok(answer) => Err(Not::Yet(answer.message().trim().to_owned())),
        Err(error) => Err(Not::Yet(error.to_string())),
    }
}

/// `GET /outbox`
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Outbox {
    pending: u64,
    #[serde(default)]
    state: String,
}

async fn is_empty(client: &mut Client) -> Result<(), Not> {
    let answer = client.get("/outbox").await.map_err(|error| Not::Yet(error.to_string()))?;
    if answer.status == StatusCode::UNAUTHORIZED {
        return Err(Not::Ever(send::asks_for_token(&answer.message())));
    }
    let outbox: Outbox = answer.json().map_err(|failure| Not::Yet(failure.message))?;
    match outbox.pending {
        0 => Ok(()),
        1 => Err(Not::Yet(format!("1 event waits, state {}", outbox.state))),
        pending => Err(Not::Yet(format!("{pending} events wait, state {}", outbox.state))),
    }
}
