//! `check-config`: all that is wrong, or all that holds and where it came from.

use std::sync::Arc;

use super::Context;
use super::exit::{Exit, Failure};
use super::output::{self, Table};
use crate::cello::{Cello, ProbeError, Settings};
use crate::clock::SystemClock;
use crate::config::{self, Loaded};

/// `check-config`
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Also ask Cello for a token, with the access keys as they are now
    #[arg(long)]
    online: bool,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args, context: &Context) -> Result<(), Failure> {
    let loaded = config::load(&context.sources)?;
    for warning in &loaded.warnings {
        output::note(&format!("warning: {warning}"));
    }
    output::print(&if args.json { json(&loaded) } else { table(&loaded) })?;
    if args.online { super::block_on(probe(loaded.settings.cello)) } else { Ok(()) }
}

/// What only Cello and the files can tell.
async fn probe(settings: Settings) -> Result<(), Failure> {
    let cello = Cello::new(settings, Arc::new(SystemClock), Arc::default())?;
    match cello.probe().await {
        Ok(found) => {
            output::note(&found.to_string());
            Ok(())
        }
        Err(error @ ProbeError::Failed { .. }) => Err(Failure::new(Exit::Unavailable, error.to_string())
            .hint("is the network open from here? HTTPS_PROXY and cello.ca_file are honoured")),
        Err(error) => Err(Failure::new(Exit::Config, error.to_string())),
    }
}

fn table(loaded: &Loaded) -> String {
    let mut table = Table::new(["SETTING", "VALUE", "FROM"]);
    for entry in &loaded.effective {
        let value = if entry.value.is_empty() { "-" } else { &entry.value };
        table.row([entry.key.clone(), value.to_owned(), entry.origin.clone()]);
    }
    format!("{}\nThe configuration is valid; its hash is {}.\n", table.render(), loaded.hash)
}

fn json(loaded: &Loaded) -> String {
    let settings = loaded.effective.iter().map(|entry| {
        let value = serde_json::json!({ "value": entry.value, "origin": entry.origin });
        (entry.key.clone(), value)
    });
    let settings: serde_json::Map<String, serde_json::Value> = settings.collect();
    let document = serde_json::json!({ "hash": loaded.hash, "warnings": loaded.warnings, "settings": settings });
    format!("{document:#}\n")
}
