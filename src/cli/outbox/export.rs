//! `outbox export`: event bodies as NDJSON, a line at a time, however many there are.

use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::Method;
use hyper::body::Incoming;
use hyper::header::TE;
use indicatif::ProgressBar;

use super::look;
use super::offline::{Stopped, left_out};
use super::source::{self, Which};
use crate::admin::LEFT_OUT;
use crate::cli::Context;
use crate::cli::client::{Client, query};
use crate::cli::exit::{Exit, Failure};
use crate::cli::{flow, progress};
use crate::config;
use crate::event::EventId;
use crate::reason::Reason;

/// Ids in one request, well within what a request's head may hold.
const IDS: usize = 200;

/// `outbox export`
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Args {
    /// Only these events [default: all that wait or are dead]
    #[arg(value_name = "ID")]
    ids: Vec<EventId>,
    /// Only in this state
    #[arg(long, conflicts_with = "ids", value_parser = look::STATES)]
    state: Option<String>,
    /// Only of this user (newUserId)
    #[arg(long, conflicts_with = "ids")]
    user: Option<String>,
    /// Only dead of, or last failed with, this reason
    #[arg(long, conflicts_with = "ids", value_parser = look::reason)]
    reason: Option<Reason>,
    /// Only accepted longer ago than this, e.g. 2h
    #[arg(long, value_name = "DURATION", conflicts_with = "ids", value_parser = config::duration)]
    older_than: Option<Duration>,
    /// Only accepted within this time, e.g. 15m
    #[arg(long, value_name = "DURATION", conflicts_with = "ids", value_parser = config::duration)]
    newer_than: Option<Duration>,
    /// At most so many
    #[arg(long, value_name = "N", conflicts_with = "ids", value_parser = clap::value_parser!(u32).range(1..))]
    limit: Option<u32>,
    /// With personal data: what `send -` takes
    #[arg(long)]
    reveal: bool,
    /// Read a damaged file that was moved aside (outbox-….damaged.db)
    #[arg(long)]
    file: Option<PathBuf>,
}

impl Args {
    pub(super) fn which(&self) -> Which<'_> {
        let (older_than, newer_than) = (self.older_than, self.newer_than);
        Which { state: self.state.as_deref(), user: self.user.as_deref(), reason: self.reason, older_than, newer_than }
    }

    fn of_stopped(&self, stopped: &Stopped, out: &mut impl Write) -> Result<(), Failure> {
        let limit = self.limit.map_or(usize::MAX, |limit| limit as usize);
        stopped.export(&self.which(), &self.ids, limit, self.reveal, out)
    }

    /// The requests that it takes: one, or one for some ids at a time.
    fn paths(&self) -> Vec<String> {
        let seconds = |age: Option<Duration>| age.map(|age| age.as_secs().to_string());
        let (older, newer) = (seconds(self.older_than), seconds(self.newer_than));
        let limit = self.limit.map(|limit| limit.to_string());
        let path = |ids: Option<&str>| {
            let parameters = [
                ("ids", ids),
                ("state", self.state.as_deref()),
                ("user", self.user.as_deref()),
                ("reason", self.reason.map(Reason::as_str)),
                ("older_than", older.as_deref()),
                ("newer_than", newer.as_deref()),
                ("limit", limit.as_deref()),
                ("reveal", self.reveal.then_some("true")),
            ];
            format!("/api/export{}", query(&parameters))
        };
        let mut ids = self.ids.clone();
        ids.sort_by_key(|id| id.seq());
        let texts: Vec<String> = ids.iter().map(ToString::to_string).collect();
        let some: Vec<String> = texts.chunks(IDS).map(|some| path(Some(&some.join(",")))).collect();
        if some.is_empty() { vec![path(None)] } else { some }
    }
}

pub(super) async fn run(args: &Args, context: &Context) -> Result<(), Failure> {
    let whereabouts = context.whereabouts()?;
    if let Some(file) = &args.file {
        return args.of_stopped(&Stopped::aside(&whereabouts.dir, file)?, &mut io::stdout().lock());
    }
    let mut client = flow::control(&whereabouts);
    let mut stdout = io::stdout().lock();
    // Lines and a bar on one terminal would be neither.
    let bar = if stdout.is_terminal() { ProgressBar::hidden() } else { progress::events(None, "exporting") };
    let mut damaged = 0;
    for (place, path) in args.paths().iter().enumerate() {
        match client.start(Method::GET, path, &[(TE.as_str(), "trailers")], Bytes::new()).await {
            Ok(answer) if answer.status().is_success() => {
                damaged += copy(answer.into_body(), &mut stdout, &bar).await?
            }
            Ok(answer) => return Err(refused(&client, answer).await),
            Err(error) if place > 0 => return Err(flow::unreachable(&client, &error)),
            Err(error) => {
                return args.of_stopped(&source::stopped(&whereabouts, &client, &error)?, &mut stdout);
            }
        }
    }
    bar.finish_and_clear();
    stdout.flush()?;
    if damaged == 0 { Ok(()) } else { Err(left_out(damaged)) }
}

/// Copies an export as it comes; gives how many damaged events the relay left out.
async fn copy(mut body: Incoming, out: &mut impl Write, bar: &ProgressBar) -> Result<u64, Failure> {
    let mut damaged = 0;
    while let Some(frame) = body.frame().await {
        let broke_off = |error| {
            Failure::new(Exit::Unavailable, format!("the export broke off, what was printed is not all: {error}"))
                .hint("run it again; `send` takes no event twice")
        };
        match frame.map_err(broke_off)?.into_data() {
            Ok(data) => {
                out.write_all(&data)?;
                bar.inc(data.iter().filter(|byte| **byte == b'\n').count() as u64);
            }
            Err(frame) => {
                let trailers = frame.into_trailers().unwrap_or_default();
                damaged += trailers.get(LEFT_OUT).and_then(|count| count.to_str().ok()?.parse().ok()).unwrap_or(0);
            }
        }
    }
    Ok(damaged)
}

/// What the relay said to a request that it does not grant.
async fn refused(client: &Client, answer: hyper::Response<Incoming>) -> Failure {
    match flow::answered(client, Client::whole(answer).await) {
        Err(failure) => failure,
        Ok(answer) => {
            let message = format!("the relay refused ({}): {}", answer.status, answer.message());
            Failure::new(Exit::Unavailable, message)
        }
    }
}
