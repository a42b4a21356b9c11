//! `send`: events from a file to the relay, in their order; twice is once.
//!
//! Each event goes with an `Idempotency-Key` made of its bytes and of how many like it came before, so that a run that
//! was cut short is simply run again, and a later export of what is left doubles nothing.

mod input;
mod keys;
mod post;
mod rejects;
mod settle;

use std::fs::{File, Metadata};
use std::io::{self, BufRead, BufReader};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use indicatif::ProgressBar;

use super::client::{Client, Endpoint};
use super::exit::{Exit, Failure};
use super::{Context, output, progress};
use crate::config::{self, Whereabouts};
use crate::event::EventId;
use input::Items;
use keys::Keys;
use post::{Posted, Poster};
use rejects::Rejects;

/// `send`
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// NDJSON, a JSON array, or one event; `-` is standard input
    #[arg(value_name = "FILE")]
    file: PathBuf,

    /// Also wait until each of them is delivered, or dead
    #[arg(long)]
    wait: bool,

    /// How long to wait at most
    #[arg(long, value_name = "DURATION", default_value = "5m", requires = "wait", value_parser = config::duration)]
    timeout: Duration,

    /// How long to go on when the relay is full or restarts
    #[arg(long, value_name = "DURATION", default_value = "5m", value_parser = config::duration)]
    patience: Duration,

    /// Write refused events to this new file, with line and reason, as NDJSON [default: reasons on stderr]
    #[arg(long, value_name = "FILE")]
    rejects: Option<PathBuf>,
}

/// What became of the events.
#[derive(Debug, Default)]
struct Summary {
    stored: u64,
    known: u64,
    ids: Vec<Sent>,
}

/// An event that the relay has, or had.
#[derive(Clone, Copy, Debug)]
struct Sent {
    id: EventId,
    /// From an earlier run.
    known: bool,
}

/// The bearer token that the relay asks of apps, if it does.
pub(super) fn bearer(whereabouts: &Whereabouts) -> Result<Option<String>, Failure> {
    let Some(file) = &whereabouts.ingest_token_file else { return Ok(None) };
    let cannot = |error: io::Error| {
        Failure::new(Failure::from(error).exit, format!("ingest.token_file {} cannot be read", file.display()))
    };
    std::fs::read_to_string(file).map(|token| Some(token.trim_end().to_owned())).map_err(cannot)
}

/// The relay refused the token that we have, or that we have none. Asking again changes nothing.
pub(super) fn asks_for_token(said: &str) -> Failure {
    Failure::new(Exit::Permission, format!("the relay asks for a token: {said}"))
        .hint("set ingest.token_file, as the relay's own configuration does")
}

pub(super) async fn run(args: &Args, context: &Context) -> Result<(), Failure> {
    let whereabouts = context.whereabouts()?;
    let token = bearer(&whereabouts)?;
    let client = Client::new(Endpoint::Tcp(whereabouts.ingest)).with_bearer(token);
    let (reader, input) = open(&args.file)?;
    let bytes = input.as_ref().map(Metadata::len);
    let mut poster = Poster::new(client, args.patience);
    let mut rejects = Rejects::new(args.rejects.clone(), input)?;
    let summary = send(Items::read(reader)?, &mut poster, &mut rejects, &progress::bytes(bytes), args.wait).await;
    rejects.finish()?;
    let summary = summary?;
    let (stored, known, refused) = (summary.stored, summary.known, rejects.count());
    output::note(&format!("{stored} stored, {known} already known, {refused} refused"));
    if args.wait {
        settle::wait(&mut poster.into_client(), &summary.ids, args.timeout).await?;
    }
    match refused {
        0 => Ok(()),
        _ => {
            Err(Failure::new(Exit::Data, format!("refused: {}", output::counted(refused, "event")))
                .hint(rejects.hint()))
        }
    }
}

async fn send<R: BufRead>(
    items: Items<R>,
    poster: &mut Poster,
    rejects: &mut Rejects,
    progress: &ProgressBar,
    keep_ids: bool,
) -> Result<Summary, Failure> {
    let (mut summary, mut keys) = (Summary::default(), Keys::default());
    for item in items {
        let item = item?;
        match poster.post(&item, &keys.next(&item.body)).await? {
            Posted::Stored { id, known } => {
                *(if known { &mut summary.known } else { &mut summary.stored }) += 1;
                summary.ids.extend(id.filter(|_| keep_ids).map(|id| Sent { id, known }));
            }
            Posted::Refused { status, reason } => progress.suspend(|| rejects.add(&item, status, &reason))?,
        }
        progress.inc(item.body.len() as u64 + 1);
        progress.set_message(output::counted(summary.stored + summary.known + rejects.count(), "event"));
    }
    progress.finish_and_clear();
    Ok(summary)
}

/// The input, and what is known of it if it is a file.
fn open(path: &Path) -> Result<(Box<dyn BufRead>, Option<Metadata>), Failure> {
    if path == Path::new("-") {
        // `send - < FILE` reads a file, too.
        let of_stdin = io::stdin().as_fd().try_clone_to_owned().and_then(|stdin| File::from(stdin).metadata());
        return Ok((Box::new(BufReader::new(io::stdin())), of_stdin.ok().filter(Metadata::is_file)));
    }
    let cannot = |error: io::Error| {
        let message = format!("{} cannot be read: {error}", path.display());
        Failure::new(Failure::from(error).exit, message)
    };
    let file = File::open(path).map_err(cannot)?;
    let metadata = file.metadata().map_err(cannot)?;
    if metadata.is_dir() {
        return Err(cannot(io::ErrorKind::IsADirectory.into()));
    }
    Ok((Box::new(BufReader::new(file)), Some(metadata).filter(Metadata::is_file)))
}

#[cfg(test)]
mod tests;
