//! `log-level`: more or less in the log of a running relay, without a restart.

use std::time::Duration;

use hyper::Method;
use serde_json::json;

use super::exit::Failure;
use super::{Context, flow};
use crate::config;
use crate::telemetry::Level;

/// `log-level`
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// What is logged from now on
    #[arg(value_parser = Level::ALL.map(Level::as_str))]
    level: String,

    /// Only for so long; then as before [default: until the relay ends]
    #[arg(long = "for", value_name = "DURATION", value_parser = config::duration)]
    wait: Option<Duration>,
}

pub(super) async fn run(args: &Args, context: &Context) -> Result<(), Failure> {
    let body = json!({ "level": args.level, "seconds": args.wait.map(flow::seconds).transpose()? });
    let done = format!("log level {}{}", args.level, flow::for_so_long(args.wait));
    flow::ask(Method::PUT, "/api/log-level", &body, &done, context).await
}
