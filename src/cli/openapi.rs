//! `openapi`: the documents that `GET /openapi.json` serves.

use super::exit::Failure;
use super::output;

/// `openapi`
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The control API's document instead
    #[arg(long)]
    admin: bool,
}

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    output::print(if args.admin { crate::admin::OPENAPI } else { crate::ingress::OPENAPI })
}
