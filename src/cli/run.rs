//! `run`: load, say what was loaded, hand over.

use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Runtime;

use super::Context;
use super::exit::{Exit, Failure};
use super::threads::{has_two_cores, one_thread};
use crate::admin;
use crate::app::{self, BrokenOff, Signals, StartError};
use crate::config::{self, Loaded};
use crate::metrics::Metrics;
use crate::telemetry;

/// Orders that are cut off now still say so in the log.
const LAST_WORDS: Duration = Duration::from_millis(200);

pub(super) fn run(context: &Context) -> Result<(), Failure> {
    let runtime = one_thread("relay")?;
    // Before anything that takes time: as process 1 there is no default action on a signal.
    let signals = runtime.block_on(async { Signals::install() })?;
    let loaded = config::load(&context.sources)?;
    let metrics = Arc::new(Metrics::new());
    let log = telemetry::init(&loaded.settings.log, Arc::clone(&metrics));
    announce(&loaded);
    app::raise_file_limit();
    let second = if has_two_cores() { Some(one_thread("forwarder")?) } else { None };
    let forwarding = second.as_ref().unwrap_or(&runtime).handle();
    let ended = runtime.block_on(async {
        let app = app::build(loaded.settings, &loaded.hash, forwarding, metrics, log)?;
        app.run(signals).await?;
        Ok(())
    });
    // All is settled. Names may be looked up for minutes yet, and cannot be made to end.
    second.into_iter().for_each(Runtime::shutdown_background);
    runtime.shutdown_timeout(LAST_WORDS);
    ended
}

impl From<StartError> for Failure {
    fn from(error: StartError) -> Self {
        let exit = match &error {
            StartError::Bind { source, .. } => match source.kind() {
                ErrorKind::AddrInUse => Exit::Temporary,
                ErrorKind::PermissionDenied => Exit::Permission,
                _ => Exit::Io,
            },
            StartError::Pause(_) => Exit::Io,
            _ => Exit::Config,
        };
        match error {
            StartError::Outbox(error) => error.into(),
            StartError::Cello(error) => error.into(),
            error => Failure::new(exit, error.to_string()),
        }
    }
}

impl From<BrokenOff> for Failure {
    fn from(error: BrokenOff) -> Self {
        Self::new(Exit::Software, error.to_string())
            .hint("a bug: please report the place that the log names at \"panic\"")
    }
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
    for warning in loaded.warnings.iter().chain(&admin::token_file_warning(&settings.admin)) {
        tracing::warn!(event = "config_warning", reason = warning, "the configuration may surprise");
    }
}
