//! `drain`: deliver what waits, now. The preStop hook.

use std::time::Duration;

use super::exit::{Exit, Failure};
use super::outbox::Status;
use super::{Context, flow, output, progress};
use crate::config;

/// Between two looks at the queue.
const PAUSE: Duration = Duration::from_millis(200);

/// `drain`
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Start draining and return at once
    #[arg(long, conflicts_with = "timeout")]
    no_wait: bool,

    /// How long to wait until all is delivered [default: shutdown.deadline]
    #[arg(long, value_name = "DURATION", value_parser = config::duration)]
    timeout: Option<Duration>,
}

pub(super) async fn run(args: &Args, context: &Context) -> Result<(), Failure> {
    flow::run("/api/drain", "draining", context).await?;
    if args.no_wait {
        return Ok(());
    }
    let whereabouts = context.whereabouts()?;
    let timeout = args.timeout.unwrap_or(whereabouts.deadline);
    let mut client = flow::control(&whereabouts);
    let mut waiting = 0;
    let bar = progress::events(None, "waiting:");
    let drained = tokio::time::timeout(timeout, async {
        loop {
            let result = client.get("/api/status").await;
            waiting = flow::answered(&client, result)?.json::<Status>()?.queue.waiting();
            bar.set_position(waiting);
            if waiting == 0 {
                return Ok::<(), Failure>(());
            }
            tokio::time::sleep(PAUSE).await;
        }
    });
    let drained = drained.await;
    bar.finish_and_clear();
    match drained {
        Ok(result) => result.inspect(|()| output::note("all is delivered")),
        Err(_) => {
            let (are, they) = if waiting == 1 { ("is", "it stays") } else { ("are", "they stay") };
            let waiting = output::counted(waiting, "event");
            let message = format!("{waiting} {are} not delivered after {timeout:?}; {they} stored");
            Err(Failure::new(Exit::Unavailable, message).hint("`cello-relay outbox stats` shows what they wait for"))
        }
    }
}
