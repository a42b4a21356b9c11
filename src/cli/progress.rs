//! How far long work is: on a terminal, nothing elsewhere.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// A wheel turns so often while nothing is known.
const TICK: Duration = Duration::from_millis(120);

/// Counts up to `total`, or only up where that is not known.
pub(super) fn events(total: Option<u64>, doing: &'static str) -> ProgressBar {
    let template = match total {
        Some(_) => "{msg} {bar:40} {pos}/{len}, {eta} left",
        None => "{spinner} {msg} {pos}",
    };
    start(total, template, doing)
}

/// Bytes of an input, of which the size may be known.
pub(super) fn bytes(total: Option<u64>) -> ProgressBar {
    let template = match total {
        Some(_) => "{bar:40} {bytes}/{total_bytes} {msg}, {eta} left",
        None => "{spinner} {msg}",
    };
    start(total, template, "")
}

/// Work of which only the time is known.
pub(super) fn wheel(doing: &'static str) -> ProgressBar {
    start(None, "{spinner} {msg}, {elapsed}", doing)
}

fn start(total: Option<u64>, template: &str, doing: &'static str) -> ProgressBar {
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    let bar = ProgressBar::with_draw_target(total, ProgressDrawTarget::stderr()).with_style(style).with_message(doing);
    if !bar.is_hidden() {
        bar.enable_steady_tick(TICK);
    }
    bar
}
