//! `outbox replay|discard`: deciding about dead letters.

use serde::Deserialize;
use serde_json::{Value, json};

use super::look;
use crate::cli::Context;
use crate::cli::client::Client;
use crate::cli::exit::{Exit, Failure};
use crate::cli::{flow, output};
use crate::event::EventId;
use crate::reason::Reason;

/// What is done, and how it is told.
pub(super) struct Act {
    path: &'static str,
    question: &'static str,
    done: &'static str,
}

pub(super) const REPLAY: Act = Act { path: "/api/replay", question: "Replay", done: "put back into the queue" };
pub(super) const DISCARD: Act = Act { path: "/api/discard", question: "Discard for good", done: "discarded" };

/// Which dead letters are meant.
#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("which").required(true).multiple(true))]
pub(in crate::cli) struct Args {
    /// These events
    #[arg(value_name = "ID", group = "which", conflicts_with_all = ["reason", "user", "all"])]
    ids: Vec<EventId>,
    /// All that are dead for this reason
    #[arg(long, group = "which", value_parser = look::reason)]
    reason: Option<Reason>,
    /// All dead ones of this user (newUserId)
    #[arg(long, group = "which")]
    user: Option<String>,
    /// All dead letters
    #[arg(long, group = "which", conflicts_with_all = ["reason", "user"])]
    all: bool,
    /// Only count them
    #[arg(long, conflicts_with = "ids")]
    dry_run: bool,
    /// Do not ask
    #[arg(long, short)]
    yes: bool,
}

#[derive(Deserialize)]
struct Count {
    count: u64,
}

pub(super) async fn run(act: &Act, args: &Args, context: &Context) -> Result<(), Failure> {
    let mut client = flow::control(&context.whereabouts()?);
    if args.dry_run || (args.ids.is_empty() && !args.yes && output::is_interactive()) {
        let count = ask(&mut client, act, &selection(args, true)).await?;
        if args.dry_run {
            return output::print(&format!("{count} dead letters match\n"));
        }
        if !output::confirm(&format!("{} {count} dead letters?", act.question))? {
            return Err(Failure::new(Exit::Ok, "nothing was changed"));
        }
    }
    let count = ask(&mut client, act, &selection(args, false)).await?;
    output::print(&format!("{count} dead letters {}\n", act.done))?;
    if count < args.ids.len() as u64 {
        output::note("the others are not dead (any more)");
    }
    Ok(())
}

fn selection(args: &Args, dry_run: bool) -> Value {
    if !args.ids.is_empty() {
        let ids: Vec<String> = args.ids.iter().map(ToString::to_string).collect();
        return json!({ "ids": ids });
    }
    let mut filter = serde_json::Map::new();
    if let Some(reason) = args.reason {
        filter.insert("reason".to_owned(), reason.as_str().into());
    }
    if let Some(user) = &args.user {
        filter.insert("user".to_owned(), user.as_str().into());
    }
    json!({ "filter": filter, "dry_run": dry_run })
}

async fn ask(client: &mut Client, act: &Act, selection: &Value) -> Result<u64, Failure> {
    let result = client.post(act.path, selection).await;
    Ok(flow::answered(client, result)?.json::<Count>()?.count)
}
