//! `outbox stats|list|show`: reading. Personal data only with `--reveal`.

use super::model::{Page, Row, Status};
use crate::cli::Context;
use crate::cli::client::query;
use crate::cli::exit::{Exit, Failure};
use crate::cli::{flow, output};
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
    /// Go on after this event
    #[arg(long, value_name = "ID")]
    after: Option<EventId>,
    /// How many to list
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    limit: u32,
    /// Show user ids and Cello's messages
    #[arg(long)]
    reveal: bool,
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
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) async fn stats(args: &StatsArgs, context: &Context) -> Result<(), Failure> {
    let body = fetch("/api/status", args.json, context).await?;
    output::print(&if args.json { body.text() } else { body.parse::<Status>()?.render() })
}

pub(super) async fn list(args: &ListArgs, context: &Context) -> Result<(), Failure> {
    let (after, limit) = (args.after.map(|id| id.to_string()), args.limit.to_string());
    let parameters = [
        ("state", args.state.as_deref()),
        ("user", args.user.as_deref()),
        ("reason", args.reason.map(Reason::as_str)),
        ("after", after.as_deref()),
        ("limit", Some(limit.as_str())),
        ("reveal", args.reveal.then_some("true")),
    ];
    let body = fetch(&format!("/api/events{}", query(&parameters)), args.json, context).await?;
    if args.json {
        return output::print(&body.text());
    }
    let page: Page = body.parse()?;
    output::print(&page.render())?;
    if let Some(next) = &page.next {
        output::note(&format!("there are more: --after {next}"));
    }
    Ok(())
}

pub(super) async fn show(args: &ShowArgs, context: &Context) -> Result<(), Failure> {
    let path = format!("/api/events/{}{}", args.id, query(&[("reveal", args.reveal.then_some("true"))]));
    let body = fetch(&path, args.json, context).await?;
    output::print(&if args.json { body.text() } else { body.parse::<Row>()?.render() })
}

/// An answer of the control API, not read yet.
struct Body(crate::cli::client::Answer);

impl Body {
    fn parse<T: serde::de::DeserializeOwned>(&self) -> Result<T, Failure> {
        self.0.json()
    }

    fn text(&self) -> String {
        format!("{}\n", String::from_utf8_lossy(&self.0.body).trim_end())
    }
}

async fn fetch(path: &str, json: bool, context: &Context) -> Result<Body, Failure> {
    let mut client = flow::control(&context.whereabouts()?);
    let result = client.get(path).await;
    let answer = flow::answered(&client, result)?;
    if answer.status == hyper::StatusCode::NOT_FOUND {
        let message = "no such event waits or is dead";
        return Err(
            Failure::new(Exit::Unavailable, message).hint("delivered events are known to GET /events/{id} only")
        );
    }
    if json && !answer.status.is_success() {
        answer.json::<serde_json::Value>()?;
    }
    Ok(Body(answer))
}
