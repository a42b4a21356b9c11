//! `outbox erase`: a person asked to be forgotten. Works on a stopped relay's directory too.

use std::future::Future;
use std::io::Read;
use std::path::PathBuf;

use hyper::StatusCode;
use serde_json::{Value, json};

use super::source;
use crate::admin::{audit, view};
use crate::cli::Context;
use crate::cli::exit::{Exit, Failure};
use crate::cli::{flow, output, progress};
use crate::event::UserId;
use crate::outbox::sqlite::erase_stopped;
use crate::telemetry;

/// `outbox erase`
#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("who").required(true))]
pub(in crate::cli) struct Args {
    /// The person's newUserId
    #[arg(long, group = "who")]
    user: Option<String>,
    /// A file with it, or - for stdin, so that it stays out of the shell's history
    #[arg(long, value_name = "FILE", group = "who")]
    user_file: Option<PathBuf>,
    /// Only count
    #[arg(long)]
    dry_run: bool,
    /// Do not ask, and erase also what waits to be delivered: a reward may go unpaid
    #[arg(long, short)]
    yes: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Args {
    fn person(&self) -> Result<String, Failure> {
        let text = match (&self.user, &self.user_file) {
            (Some(user), _) => user.clone(),
            (None, Some(path)) if path.as_os_str() == "-" => {
                let mut text = String::new();
                std::io::stdin().take(4096).read_to_string(&mut text)?;
                text
            }
            (None, Some(path)) => std::fs::read_to_string(path)?,
            (None, None) => String::new(),
        };
        let id = text.trim_end_matches(['\r', '\n']);
        if id.is_empty() {
            return Err(Failure::new(Exit::Usage, "the newUserId is empty"));
        }
        Ok(id.to_owned())
    }
}

pub(super) async fn run(args: &Args, context: &Context) -> Result<(), Failure> {
    let person = args.person()?;
    let whereabouts = context.whereabouts()?;
    // It waits for what is in flight and overwrites the free pages.
    let mut client = flow::control(&whereabouts).with_patience(std::time::Duration::from_secs(600));
    if !args.yes && !args.dry_run && output::is_interactive() {
        // Where no relay answers, the order itself finds that out, and the directory is asked.
        let counted = client.post("/api/erase", &json!({"user": person, "dry_run": true})).await;
        if let Some(found) = counted.ok().filter(|answer| answer.status.is_success()) {
            agreed(args, &found.json()?)?;
        }
    }
    let body = json!({"user": person, "dry_run": args.dry_run, "yes": args.yes});
    let result = waiting(client.post("/api/erase", &body)).await;
    let answer = match result {
        Ok(answer) => answer,
        Err(error) => {
            let stopped = source::stopped(&whereabouts, &client, &error)?;
            let found = stopped.found_of(&person)?;
            drop(stopped);
            if args.dry_run {
                return tell(&found, args);
            }
            if found["pending"] != 0 || found["retrying"] != 0 {
                confirmed(args, &found)?;
            }
            agreed(args, &found)?;
            let erased = waiting(erase_stopped(&whereabouts.dir, UserId::new(&person))).await?;
            telemetry::to_stderr(|| audit::erased("directory", erased.events()));
            return tell(&view::erased(&erased), args);
        }
    };
    if answer.status == StatusCode::CONFLICT {
        let found: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        confirmed(args, &found)?;
        let body = json!({"user": person, "yes": true});
        let result = waiting(client.post("/api/erase", &body)).await;
        return tell(&flow::answered(&client, result)?.json()?, args);
    }
    tell(&answer.json()?, args)
}

/// Shows on a terminal that it goes on.
async fn waiting<T>(work: impl Future<Output = T>) -> T {
    let wheel = progress::wheel("erasing");
    let result = work.await;
    wheel.finish_and_clear();
    result
}

/// Dead letters go for good: where somebody can be asked, he is. What waits has a question of its own.
fn agreed(args: &Args, found: &Value) -> Result<(), Failure> {
    let dead = found["dead"].as_u64().unwrap_or(0);
    let question = format!("Erase {} of this person for good?", output::counted(dead, "dead letter"));
    if args.yes || dead == 0 || count_waiting(found) > 0 || output::confirm(&question)? {
        return Ok(());
    }
    Err(Failure::new(Exit::Ok, "nothing was changed"))
}

fn count_waiting(found: &Value) -> u64 {
    ["pending", "retrying", "in_flight"].iter().filter_map(|state| found[state].as_u64()).sum()
}

/// What waits is only erased if that is said.
fn confirmed(args: &Args, found: &Value) -> Result<(), Failure> {
    let waiting = count_waiting(found);
    let wait = if waiting == 1 { "waits" } else { "wait" };
    let what = output::counted(waiting, "event");
    let message = format!("{what} of this person {wait} to be delivered: erased, a reward may go unpaid");
    if args.yes || (output::is_interactive() && output::confirm(&format!("{message}. Erase anyway?"))?) {
        return Ok(());
    }
    Err(Failure::new(Exit::Usage, message).hint("if that is meant, say --yes; nothing was changed"))
}

fn tell(answer: &Value, args: &Args) -> Result<(), Failure> {
    if args.json {
        return output::print(&format!("{answer}\n"));
    }
    let of = |name: &str| answer[name].as_u64().unwrap_or(0);
    let done = if args.dry_run { "would be erased" } else { "erased" };
    let mut text = format!("{} {done}", output::counted(of("count"), "event"));
    for state in ["pending", "retrying", "in_flight", "dead"] {
        if of(state) > 0 {
            text.push_str(&format!(", {} {}", of(state), state.replace('_', " ")));
        }
    }
    if of("keys") > 0 {
        text.push_str(&format!("; {} forgotten", output::counted(of("keys"), "idempotency key")));
    }
    output::print(&format!("{text}\n"))?;
    for file in answer["quarantined"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        output::note(&format!("not searched: the damaged file {file} in outbox.dir; remove it by hand"));
    }
    if !args.dry_run && of("in_flight") > 0 {
        output::note("some were still in flight: run this again");
    }
    if answer["overwritten"] == false {
        output::note("free pages are overwritten when the relay is idle next");
    }
    Ok(())
}
