//! `healthcheck`: a probe for images without a shell.

use std::time::Duration;

use hyper::StatusCode;

use super::Context;
use super::client::{Client, Endpoint};
use super::exit::{Exit, Failure};

/// Longer than a healthy relay ever takes, shorter than the usual period of probes.
const LIMIT: Duration = Duration::from_secs(2);

/// `healthcheck`
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Which probe to ask
    #[arg(long, value_name = "PROBE", default_value = "livez", value_parser = ["livez", "readyz", "startupz"])]
    endpoint: String,
}

pub(super) async fn run(args: &Args, context: &Context) -> Result<(), Failure> {
    let mut client = Client::new(Endpoint::Tcp(context.whereabouts()?.ops));
    let answer = tokio::time::timeout(LIMIT, client.get(&format!("/{}", args.endpoint))).await;
    let said = match answer {
        Ok(Ok(answer)) if answer.status == StatusCode::OK => return Ok(()),
        Ok(Ok(answer)) => format!("{} {}", answer.status, answer.message().trim()),
        Ok(Err(error)) => error.to_string(),
        Err(_) => format!("no answer in {} s", LIMIT.as_secs()),
    };
    Err(Failure::new(Exit::Unhealthy, format!("/{} at {}: {said}", args.endpoint, client.endpoint())))
}
