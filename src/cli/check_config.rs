//! `check-config`: all that is wrong, or all that holds and where it came from.

use std::path::PathBuf;
use std::sync::Arc;

use super::Context;
use super::exit::{Exit, Failure};
use super::output::{self, Table};
use crate::cello::{BuildError, Cello, ProbeError, Settings};
use crate::clock::SystemClock;
use crate::config::{self, Fault, Faults, Loaded};
use crate::{admin, app, ingress};

/// `check-config`
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Also refuse files that keep `run` from starting, and ask Cello for a token, with the access keys as they are now
    #[arg(long)]
    online: bool,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args, context: &Context) -> Result<(), Failure> {
    let mut loaded = config::load(&context.sources)?;
    loaded.warnings.extend(admin::token_file_warning(&loaded.settings.admin));
    let unusable = unusable_files(&loaded.settings)?;
    if args.online && !unusable.is_empty() {
        return Err(Faults(unusable).into());
    }
    // Manifests are also checked where nothing is mounted.
    let warning = |Fault { key, value, reason, .. }| {
        format!("{key} {}: {reason}; `run` would not start (exit code 78)", value.unwrap_or_default())
    };
    loaded.warnings.extend(unusable.into_iter().map(warning));
    for warning in &loaded.warnings {
        output::note(&format!("warning: {warning}"));
    }
    output::print(&if args.json { json(&loaded) } else { table(&loaded) })?;
    if args.online { super::block_on(probe(loaded.settings.cello)) } else { Ok(()) }
}

/// What is wrong with the files that a start reads. What is wrong with a client for Cello beside that is an error.
fn unusable_files(settings: &app::Settings) -> Result<Vec<Fault>, Failure> {
    let (mut unusable, of) = (Vec::new(), |key: &str, path: PathBuf, reason| {
        let (key, value) = (key.to_owned(), Some(path.display().to_string()));
        Fault { key, value, origin: None, reason }
    });
    match Cello::new(settings.cello.clone(), Arc::new(SystemClock), Arc::default()) {
        Ok(_) => {}
        Err(BuildError::CaFile { path, why }) => unusable.push(of("cello.ca_file", path, why)),
        Err(error) => return Err(error.into()),
    }
    if let Err(ingress::StartError::Token { path, why }) = ingress::check_token_file(&settings.ingest) {
        unusable.push(of("ingest.token_file", path, why));
    }
    Ok(unusable)
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
        Err(error @ ProbeError::Elsewhere { .. }) => Err(Failure::new(Exit::Unavailable, error.to_string())
            .hint("look at cello.base_url: its host, and its path if it has one")),
        Err(error @ ProbeError::Missing(_)) => Err(Failure::new(Exit::Config, error.to_string())
            .hint("the files of cello.credentials_dir are access-key-id and secret-access-key")),
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
