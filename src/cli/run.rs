//! `run`: load, say what was loaded, hand over.

use std::io::ErrorKind;
use std::sync::Arc;

use tokio::runtime::Runtime;

use super::Context;
use super::exit::{Exit, Failure};
use crate::admin;
use crate::app::{self, Signals, StartError};
use crate::config::{self, Loaded};
use crate::metrics::Metrics;
use crate::telemetry;

pub(super) fn run(context: &Context) -> Result<(), Failure> {
    let runtime = one_thread("relay")?;
    // Before anything that takes time: as process 1 there is no default action on a signal.
    let signals = runtime.block_on(async { Signals::install() })?;
    let loaded = config::load(&context.sources)?;
    let metrics = Arc::new(Metrics::new());
    let log = telemetry::init(&loaded.settings.log, Arc::clone(&metrics));
    announce(&loaded);
    let second = if has_two_cores() { Some(one_thread("forwarder")?) } else { None };
    let forwarding = second.as_ref().unwrap_or(&runtime).handle();
    runtime.block_on(async {
        let app = app::build(loaded.settings, &loaded.hash, forwarding, metrics, log)?;
        app.run(signals).await;
        Ok(())
    })
}

/// A runtime of one thread. Two threads of one runtime wake each other for tasks that the first would have done by the
/// time the other is awake.
pub(super) fn one_thread(name: &str) -> std::io::Result<Runtime> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.worker_threads(1).thread_name(name).max_blocking_threads(4).enable_all().build()
}

/// What is taken in and what is sent share hardly more than the store: where there is room for it, each has a thread.
fn has_two_cores() -> bool {
    std::thread::available_parallelism().is_ok_and(|cores| cores.get() > 1)
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
