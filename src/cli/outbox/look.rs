//! `outbox stats|list|show|check`: reading. Personal data only with `--reveal`.

use std::path::PathBuf;
use std::time::Duration;

use super::model::{Page, Row, Status};
use super::offline::Stopped;
use super::source::{self, Question, Which};
use crate::cli::exit::{Exit, Failure};
use crate::cli::{Context, output, progress};
use crate::config;
use crate::event::EventId;
use crate::reason::Reason;

/// The states that a listing can be asked for.
pub(super) const STATES: [&str; 4] = ["pending", "in_flight", "retrying", "dead"];

/// Checks a reason's name before the relay is asked.
pub(super) fn reason(name: &str) -> Result<Reason, String> {
    let known = || Reason::ALL.iter().map(|reason| reason.as_str()).collect::<Vec<_>>().join(", ");
    name.parse().map_err(|_| format!("must be one of {}", known()))
}

/// `outbox stats`
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct StatsArgs {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// `outbox list`
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct ListArgs {
    /// Only in this state
    #[arg(long, value_parser = STATES)]
    state: Option<String>,
    /// Only of this user (newUserId)
    #[arg(long)]
    user: Option<String>,
    /// Only dead of, or last failed with, this reason
    #[arg(long, value_parser = reason)]
    reason: Option<Reason>,
    /// Only accepted longer ago than this, e.g. 2h
    #[arg(long, value_name = "DURATION", value_parser = config::duration)]
    older_than: Option<Duration>,
    /// Only accepted within this time, e.g. 15m
    #[arg(long, value_name = "DURATION", value_parser = config::duration)]
    newer_than: Option<Duration>,
    /// Go on after this event
    #[arg(long, value_name = "ID")]
    after: Option<EventId>,
    /// How many to list
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    limit: u32,
    /// Show user ids and Cello's messages
    #[arg(long)]
    reveal: bool,
    /// Read a damaged file that was moved aside (outbox-….damaged.db)
    #[arg(long)]
    file: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// `outbox show`
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct ShowArgs {
    /// The event
    id: EventId,
    /// Show user id, Cello's messages and the event itself
    #[arg(long)]
    reveal: bool,
    /// Read a damaged file that was moved aside (outbox-….damaged.db)
    #[arg(long)]
    file: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// `outbox check`
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct CheckArgs {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) async fn stats(args: &StatsArgs, context: &Context) -> Result<(), Failure> {
    let found = source::ask(Question::Status, None, context).await?;
    output::print(&if args.json { found.text() } else { found.read::<Status>()?.render() })?;
    found.end()
}

pub(super) async fn list(args: &ListArgs, context: &Context) -> Result<(), Failure> {
    let (older_than, newer_than) = (args.older_than, args.newer_than);
    let (state, user, reason) = (args.state.as_deref(), args.user.as_deref(), args.reason);
    let which = Which { state, user, reason, older_than, newer_than };
    let question = Question::List { which, after: args.after, limit: args.limit, reveal: args.reveal };
    let found = source::ask(question, args.file.as_deref(), context).await?;
    if args.json {
        output::print(&found.text())?;
        return found.end();
    }
    let page: Page = found.read()?;
    output::print(&page.render())?;
    if let Some(next) = &page.next {
        output::note(&format!("there are more: --after {next}"));
    }
    found.end()
}

pub(super) async fn show(args: &ShowArgs, context: &Context) -> Result<(), Failure> {
    let question = Question::Show { id: args.id, reveal: args.reveal };
    let found = source::ask(question, args.file.as_deref(), context).await?;
    output::print(&if args.json { found.text() } else { found.read::<Row>()?.render() })?;
    found.end()
}

/// Only of a stopped relay: a running one checks each event before it is sent.
pub(super) fn check(args: &CheckArgs, context: &Context) -> Result<(), Failure> {
    let dir = context.whereabouts()?.dir;
    let Some(stopped) = Stopped::open(&dir)? else {
        return Err(Failure::new(Exit::Unavailable, format!("{} holds no outbox", dir.display())));
    };
    let wheel = progress::wheel("checking");
    let findings = stopped.check();
    wheel.finish_and_clear();
    let findings = findings?;
    output::print(&match (args.json, findings.is_empty()) {
        (true, sound) => format!("{}\n", serde_json::json!({"sound": sound, "findings": findings})),
        (false, true) => "the outbox is sound\n".to_owned(),
        (false, false) => format!("{}\n", findings.join("\n")),
    })?;
    if findings.is_empty() {
        return Ok(());
    }
    Err(Failure::new(Exit::Data, "the outbox is damaged").hint(super::offline::WHAT_BECOMES))
}
