//! `outbox …`: what waits, what died, and what to do about it.

mod act;
mod erase;
mod export;
mod follow;
mod look;
mod model;
mod offline;
mod rebind;
mod source;

use super::Context;
use super::exit::Failure;
pub(super) use model::Status;

/// `outbox …`
#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Count what waits and what has happened
    Stats(look::StatsArgs),
    /// List events that wait or are dead
    List(look::ListArgs),
    /// Show one event with its last attempts
    Show(look::ShowArgs),
    /// Check a stopped relay's outbox for damage
    Check(look::CheckArgs),
    /// Put dead letters back into the queue
    Replay(act::ReplayArgs),
    /// End dead letters for good
    Discard(act::Args),
    /// Erase a person: all that is kept of a newUserId
    Erase(erase::Args),
    /// Print events as NDJSON, as `send -` takes them
    Export(export::Args),
    /// Let a stopped relay's events go to the upstream that is configured now
    Rebind(rebind::Args),
}

pub(super) async fn run(command: &Command, context: &Context) -> Result<(), Failure> {
    match command {
        Command::Stats(args) => look::stats(args, context).await,
        Command::List(args) => look::list(args, context).await,
        Command::Show(args) => look::show(args, context).await,
        Command::Check(args) => look::check(args, context),
        Command::Replay(args) => act::replay(args, context).await,
        Command::Discard(args) => act::discard(args, context).await,
        Command::Erase(args) => erase::run(args, context).await,
        Command::Export(args) => export::run(args, context).await,
        Command::Rebind(args) => rebind::run(args, context),
    }
}

#[cfg(test)]
mod tests;
