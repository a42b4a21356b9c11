//! `outbox replay|discard`: deciding about dead letters.

use std::time::Duration;

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::look;
use crate::cli::Context;
use crate::cli::client::Client;
use crate::cli::exit::{Exit, Failure};
use crate::cli::{flow, output};
use crate::config;
use crate::event::EventId;
use crate::reason::Reason;

/// A replay at a pace, or behind a canary, is answered at its end.
const LONG: Duration = Duration::from_secs(86_400);

/// What is done, and how it is told.
struct Act {
    path: &'static str,
    question: &'static str,
    done: &'static str,
}

const REPLAY: Act = Act { path: "/api/replay", question: "Replay", done: "put back into the queue" };
const DISCARD: Act = Act { path: "/api/discard", question: "Discard for good", done: "discarded" };

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
    /// Only those accepted longer ago than this, e.g. 2h
    #[arg(long, value_name = "DURATION", conflicts_with = "ids", value_parser = config::duration)]
    older_than: Option<Duration>,
    /// Only count them
    #[arg(long, conflicts_with = "ids")]
    dry_run: bool,
    /// Do not ask
    #[arg(long, short)]
    yes: bool,
}

/// `outbox replay`
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct ReplayArgs {
    #[command(flatten)]
    which: Args,
    /// Also those that Cello may have counted already
    #[arg(long)]
    may_duplicate: bool,
    /// One first, and the rest only once that is delivered
    #[arg(long)]
    canary: bool,
    /// So many a second; what is not replayed when this ends stays dead
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    per_second: Option<u64>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Done {
    count: u64,
    #[serde(default)]
    passed_over: u64,
    canary: Option<Canary>,
}

#[derive(Deserialize)]
struct Canary {
    id: String,
    outcome: String,
}

pub(super) async fn replay(args: &ReplayArgs, context: &Context) -> Result<(), Failure> {
    let mut terms = Map::new();
    if args.may_duplicate {
        terms.insert("may_duplicate".to_owned(), true.into());
    }
    if args.canary {
        terms.insert("canary".to_owned(), true.into());
    }
    if let Some(rate) = args.per_second {
        terms.insert("per_second".to_owned(), rate.into());
        output::note(&format!("replaying {rate} a second; what is left when this is ended stays dead"));
    }
    run(&REPLAY, &args.which, &terms, context).await
}

pub(super) async fn discard(args: &Args, context: &Context) -> Result<(), Failure> {
    run(&DISCARD, args, &Map::new(), context).await
}

async fn run(act: &Act, args: &Args, terms: &Map<String, Value>, context: &Context) -> Result<(), Failure> {
    let mut client = flow::control(&context.whereabouts()?);
    if terms.contains_key("per_second") || terms.contains_key("canary") {
        client = client.with_patience(LONG);
    }
    if args.dry_run || (args.ids.is_empty() && !args.yes && output::is_interactive()) {
        let found = ask(&mut client, act, &selection(args, terms, true)).await?;
        tell_passed_over(found.passed_over);
        if args.dry_run {
            return output::print(&format!("{} dead letters match\n", found.count));
        }
        if !output::confirm(&format!("{} {} dead letters?", act.question, found.count))? {
            return Err(Failure::new(Exit::Ok, "nothing was changed"));
        }
    }
    let done = ask(&mut client, act, &selection(args, terms, false)).await?;
    output::print(&format!("{} dead letters {}\n", done.count, act.done))?;
    if done.count + done.passed_over < args.ids.len() as u64 && done.canary.is_none() {
        output::note("the others are not dead (any more)");
    }
    tell_passed_over(done.passed_over);
    match done.canary {
        Some(Canary { id, outcome }) if outcome != "delivered" => {
            let message = format!("the canary {id} was not delivered ({outcome}): the rest stays dead");
            Err(Failure::new(Exit::Unavailable, message).hint(format!("see why: cello-relay outbox show {id}")))
        }
        _ => Ok(()),
    }
}

fn tell_passed_over(count: u64) {
    if count > 0 {
        let why = "Cello may have counted them already; --may-duplicate replays them too";
        output::note(&format!("{count} were passed over: {why}"));
    }
}

fn selection(args: &Args, terms: &Map<String, Value>, dry_run: bool) -> Value {
    let mut body = terms.clone();
    if !args.ids.is_empty() {
        let ids: Vec<String> = args.ids.iter().map(ToString::to_string).collect();
        body.insert("ids".to_owned(), json!(ids));
        return Value::Object(body);
    }
    let mut filter = Map::new();
    if let Some(reason) = args.reason {
        filter.insert("reason".to_owned(), reason.as_str().into());
    }
    if let Some(user) = &args.user {
        filter.insert("user".to_owned(), user.as_str().into());
    }
    if let Some(age) = args.older_than {
        filter.insert("olderThan".to_owned(), age.as_secs().into());
    }
    body.insert("dry_run".to_owned(), dry_run.into());
    body.insert("filter".to_owned(), Value::Object(filter));
    Value::Object(body)
}

async fn ask(client: &mut Client, act: &Act, selection: &Value) -> Result<Done, Failure> {
    let result = client.post(act.path, selection).await;
    flow::answered(client, result)?.json::<Done>()
}
