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
                Ok(()) => return,
                Err(said) => last = said,
            }
            if !wheel.is_hidden() {
                wheel.set_message(output::printable(&last));
            }
            tokio::time::sleep(PAUSE).await;
        }
    });
    let done = done.await;
    wheel.finish_and_clear();
    done.map_err(|_| {
        let (what, hint) = match args.empty {
            true => ("empty", "`cello-relay outbox stats` shows what waits and why"),
            false => ("ready", "is it running, with this very configuration? its log says what it waits for"),
        };
        let message = format!("the relay at {} is not {what} after {:?}: {last}", client.endpoint(), args.timeout);
        Failure::new(Exit::Unavailable, message).hint(hint)
    })
}

async fn is_ready(client: &mut Client) -> Result<(), String> {
    match client.get("/readyz").await {
        Ok(answer) if answer.status == StatusCode::OK => Ok(()),
        Ok(answer) => Err(answer.message().trim().to_owned()),
        Err(error) => Err(error.to_string()),
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

async fn is_empty(client: &mut Client) -> Result<(), String> {
    let answer = client.get("/outbox").await.map_err(|error| error.to_string())?;
    let outbox: Outbox = answer.json().map_err(|failure| failure.message)?;
    match outbox.pending {
        0 => Ok(()),
        1 => Err(format!("1 event waits, state {}", outbox.state)),
        pending => Err(format!("{pending} events wait, state {}", outbox.state)),
    }
}
