//! `outbox rebind`: events that were accepted for one base URL go to another. Never by accident: sandbox
//! events must not pay real rewards.

use super::offline::Stopped;
use crate::admin::audit;
use crate::cli::exit::{Exit, Failure};
use crate::cli::{Context, output};
use crate::config;
use crate::telemetry;

/// `outbox rebind`
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Args {
    /// Do not ask; needed without a terminal
    #[arg(long, short)]
    yes: bool,
}

/// Only of a stopped relay: the outbox's lock keeps a running one's events where they belong.
pub(super) fn run(args: &Args, context: &Context) -> Result<(), Failure> {
    let dir = context.whereabouts()?.dir;
    let configured = config::upstream(&context.sources)?;
    let Some(stopped) = Stopped::open(&dir)? else {
        return Err(Failure::new(Exit::Unavailable, format!("{} holds no outbox", dir.display())));
    };
    let (ledger, bound) = stopped.binding()?;
    let bound = bound.unwrap_or_else(|| "no upstream yet".to_owned());
    if bound == configured {
        output::note(&format!("the outbox is for {configured} already"));
        return Ok(());
    }
    let events = format!("{} undelivered and {} dead events", ledger.undelivered(), ledger.dead);
    if !args.yes && !output::is_interactive() {
        let message = format!("{events} accepted for {bound} would go to {configured}");
        return Err(Failure::new(Exit::Usage, message).hint("if that is meant, say --yes"));
    }
    if !args.yes && !output::confirm(&format!("Send {events}, accepted for {bound}, to {configured}?"))? {
        return Err(Failure::new(Exit::Ok, "nothing was changed"));
    }
    stopped.rebind(&configured)?;
    telemetry::to_stderr(|| audit::rebound("directory", ledger.undelivered(), ledger.dead));
    output::print(&format!("{events}, accepted for {bound}, are for {configured} now\n"))
}
