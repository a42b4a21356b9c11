//! Panics are bugs: each is counted and logged with its place. Its text is not, since it may quote data.

use std::panic::PanicHookInfo;
use std::sync::Arc;

use crate::metrics::Metrics;

/// Replaces the process's panic hook.
pub(super) fn count_and_log(metrics: Arc<Metrics>) {
    std::panic::set_hook(Box::new(move |panic| report(panic, &metrics)));
}

pub(super) fn report(panic: &PanicHookInfo<'_>, metrics: &Metrics) {
    metrics.panics.inc();
    let location = panic.location().map(|place| format!("{}:{}:{}", place.file(), place.line(), place.column()));
    let thread = std::thread::current();
    tracing::error!(
        event = "panic",
        reason = location.as_deref().unwrap_or("unknown"),
        thread = thread.name().unwrap_or("unnamed"),
        "a bug: a task panicked; please report its place"
    );
}
