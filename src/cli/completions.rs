//! `completions`: a script for the shell.

use clap::CommandFactory;
use clap_complete::Shell;

use super::exit::Failure;
use super::{Cli, output};

/// `completions`
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Whose completions
    shell: Shell,
}

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "cello-relay", &mut script);
    output::print(&String::from_utf8_lossy(&script))
}
