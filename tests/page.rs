//! The operator's page in a real browser: headless Chromium over a running relay and a stand-in for Cello.
//!
//! Needs Debian's `chromium` and `chromium-driver`; where they are missing the tests say so and pass.

#![expect(clippy::print_stdout, reason = "skipped tests are told")]
#![expect(clippy::disallowed_methods, reason = "real processes live in real time and in a real environment")]

#[path = "page/browser.rs"]
mod browser;
#[allow(dead_code, reason = "shared with the process tests")]
#[path = "process/client.rs"]
mod client;
#[path = "page/dead_letters.rs"]
mod dead_letters;
#[path = "page/live.rs"]
mod live;
#[allow(dead_code, reason = "shared with the process tests")]
#[path = "process/load.rs"]
mod load;
#[path = "page/looks.rs"]
mod looks;
#[allow(dead_code, reason = "shared with the process tests")]
#[path = "process/relay.rs"]
mod relay;
#[allow(dead_code, reason = "shared with the process tests")]
#[path = "process/upstream.rs"]
mod upstream;
