//! `outbox replay|discard`: deciding about dead letters.

use std::time::Duration;

use serde_json::{Map, Value, json};

use super::follow::{self, Canary, Done};
use super::look;
use crate::cli::Context;
use crate::cli::exit::{Exit, Failure};
use crate::cli::{flow, output, progress};
use crate::config;
use crate::event::EventId;
use crate::reason::Reason;

/// Counting many dead letters is answered at its end.
const LONG: Duration = Duration::from_secs(86_400);

/// What is done, and how it is told.
struct Act {
    path: &'static str,
    question: &'static str,
    doing: &'static str,
    done: &'static str,
}

const REPLAY: Act =
    Act { path: "/api/replay", question: "Replay", doing: "replaying", done: "put back into the queue" };
const DISCARD: Act = Act { path: "/api/discard", question: "Discard for good", doing: "discarding", done: "discarded" };

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
    /// Only those accepted within this time, e.g. 15m
    #[arg(long, value_name = "DURATION", conflicts_with = "ids", value_parser = config::duration)]
    newer_than: Option<Duration>,
    /// Only count them
    #[arg(long)]
    dry_run: bool,
    /// Do not ask
    #[arg(long, short)]
    yes: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
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
        if !args.which.dry_run {
            output::note(&format!("replaying {rate} a second; what is left when this is ended stays dead"));
        }
    }
    run(&REPLAY, &args.which, &terms, context).await
}

pub(super) async fn discard(args: &Args, context: &Context) -> Result<(), Failure> {
    run(&DISCARD, args, &Map::new(), context).await
}

async fn run(act: &Act, args: &Args, terms: &Map<String, Value>, context: &Context) -> Result<(), Failure> {
    let mut client = flow::control(&context.whereabouts()?).with_patience(LONG);
    let mut total = Some(args.ids.len() as u64).filter(|count| *count > 0);
    // On a terminal how many there are is needed for the question, or for the bar.
    if args.dry_run || (args.ids.is_empty() && output::is_interactive()) {
        let wheel = progress::wheel("counting");
        let (found, answer) = follow::order(&mut client, act.path, &selection(args, terms, true), &wheel).await?;
        if args.dry_run {
            let verb = if found.count == 1 { "matches" } else { "match" };
            tell(args, &found, &answer, &format!("{} {verb}", letters(found.count)))?;
            return fulfilled(act, args, &found);
        }
        if !args.yes {
            tell_passed_over(found.passed_over);
        }
        if !args.yes && !output::confirm(&format!("{} {}?", act.question, letters(found.count)))? {
            return Err(Failure::new(Exit::Ok, "nothing was changed"));
        }
        total = Some(found.count);
    }
    let bar = progress::events(total, act.doing);
    let (done, answer) = follow::order(&mut client, act.path, &selection(args, terms, false), &bar).await?;
    tell(args, &done, &answer, &format!("{} {}", letters(done.count), act.done))?;
    match &done.canary {
        Some(Canary { id, outcome }) if outcome != "delivered" => {
            let message = format!("the canary {id} was not delivered ({outcome}): the rest stays dead");
            Err(Failure::new(Exit::Unavailable, message).hint(format!("see why: cello-relay outbox show {id}")))
        }
        _ => fulfilled(act, args, &done),
    }
}

fn letters(count: u64) -> String {
    output::counted(count, "dead letter")
}

/// The result, and what of the order came to nothing.
fn tell(args: &Args, done: &Done, answer: &Value, text: &str) -> Result<(), Failure> {
    output::print(&if args.json { format!("{answer}\n") } else { format!("{text}\n") })?;
    if !done.not_dead.is_empty() {
        output::note(&format!("not dead (any more): {}", done.not_dead.join(", ")));
    }
    tell_passed_over(done.passed_over);
    Ok(())
}

/// An id that was misspelt, or events of which none could be meant, must not pass for done.
fn fulfilled(act: &Act, args: &Args, done: &Done) -> Result<(), Failure> {
    let message = match done.unknown.is_empty() {
        false => format!("no such event waits or is dead: {}", done.unknown.join(", ")),
        true if !args.ids.is_empty() && done.count == 0 => format!("none of the events named can be {}", act.done),
        true => return Ok(()),
    };
    Err(Failure::new(Exit::Unavailable, message).hint("`cello-relay outbox list --state dead` shows the ids there are"))
}

fn tell_passed_over(count: u64) {
    if count > 0 {
        let (were, them) = if count == 1 { ("was", "it") } else { ("were", "them") };
        let why = format!("Cello may have counted {them} already; --may-duplicate replays {them} too");
        output::note(&format!("{count} {were} passed over: {why}"));
    }
}

fn selection(args: &Args, terms: &Map<String, Value>, dry_run: bool) -> Value {
    let mut body = terms.clone();
    if dry_run {
        // Nothing goes first or at a pace while it is only counted.
        body.retain(|name, _| name == "may_duplicate");
    }
    body.insert("dry_run".to_owned(), dry_run.into());
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
    for (name, age) in [("olderThan", args.older_than), ("newerThan", args.newer_than)] {
        if let Some(age) = age {
            filter.insert(name.to_owned(), age.as_secs().into());
        }
    }
    body.insert("filter".to_owned(), Value::Object(filter));
    Value::Object(body)
}
