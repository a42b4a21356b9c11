//! `outbox export`: event bodies as NDJSON, a line at a time, however many there are.

use std::io::{self, Write};
use std::path::PathBuf;

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::Method;

use super::look;
use super::offline::Stopped;
use super::source::{self, Which};
use crate::cli::Context;
use crate::cli::client::query;
use crate::cli::exit::{Exit, Failure};
use crate::cli::flow;
use crate::reason::Reason;

/// `outbox export`
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Args {
    /// Only in this state [default: all that wait or are dead]
    #[arg(long, value_parser = look::STATES)]
    state: Option<String>,
    /// Only of this user (newUserId)
    #[arg(long)]
    user: Option<String>,
    /// Only dead of, or last failed with, this reason
    #[arg(long, value_parser = look::reason)]
    reason: Option<Reason>,
    /// With personal data: what `send -` takes
    #[arg(long)]
    reveal: bool,
    /// Read a damaged file that was moved aside (outbox-….damaged.db)
    #[arg(long)]
    file: Option<PathBuf>,
}

pub(super) async fn run(args: &Args, context: &Context) -> Result<(), Failure> {
    let whereabouts = context.whereabouts()?;
    let (state, user) = (args.state.as_deref(), args.user.as_deref());
    let which = Which { state, user, reason: args.reason, ..Which::default() };
    if let Some(file) = &args.file {
        return Stopped::aside(&whereabouts.dir, file)?.export(&which, args.reveal, &mut io::stdout().lock());
    }
    let mut client = flow::control(&whereabouts);
    let parameters = [
        ("state", args.state.as_deref()),
        ("user", args.user.as_deref()),
        ("reason", args.reason.map(Reason::as_str)),
        ("reveal", args.reveal.then_some("true")),
    ];
    let path = format!("/api/export{}", query(&parameters));
    let mut stdout = io::stdout().lock();
    let answer = match client.start(Method::GET, &path, &[], Bytes::new()).await {
        Ok(answer) => answer,
        Err(error) => {
            return source::stopped(&whereabouts, &client, &error)?.export(&which, args.reveal, &mut stdout);
        }
    };
    if !answer.status().is_success() {
        return Err(Failure::new(Exit::Unavailable, format!("the relay refused ({})", answer.status())));
    }
    let mut body = answer.into_body();
    while let Some(frame) = body.frame().await {
        let broke_off = |error| Failure::new(Exit::Unavailable, format!("the export broke off: {error}"));
        if let Ok(data) = frame.map_err(broke_off)?.into_data() {
            stdout.write_all(&data)?;
        }
    }
    stdout.flush()?;
    Ok(())
}
