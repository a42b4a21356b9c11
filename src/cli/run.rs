//! `run`: load, say what was loaded, hand over.

use std::process::ExitCode;
use std::sync::Arc;

use super::Context;
use super::exit::{Exit, Failure};
use crate::app::Settings;
use crate::config::{self, Loaded};
use crate::metrics::Metrics;
use crate::telemetry;

pub(super) fn run(context: &Context) -> Result<ExitCode, Failure> {
    let loaded = config::load(&context.sources)?;
    let metrics = Arc::new(Metrics::new());
    let handle = telemetry::init(&loaded.settings.log, Arc::clone(&metrics));
    announce(&loaded);
    launch(loaded.settings, handle, metrics)
}

/// One line with what a support case asks for first, and one for each warning.
fn announce(loaded: &Loaded) {
    let settings = &loaded.settings;
    tracing::info!(
        event = "config_loaded",
        config_hash = loaded.hash,
        environment = settings.cello.environment,
        base_url = settings.cello.base_url,
        outbox_dir = %settings.outbox.dir.display(),
        durability = settings.durability,
        "the configuration is valid"
    );
    for warning in &loaded.warnings {
        tracing::warn!(event = "config_warning", reason = warning, "the configuration may surprise");
    }
}

/// The one place where the command line hands over to the wiring.
fn launch(_settings: Settings, _handle: telemetry::Handle, _metrics: Arc<Metrics>) -> Result<ExitCode, Failure> {
    Err(Failure::new(Exit::Software, "this build cannot run a relay"))
}
