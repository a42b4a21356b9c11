//! The command line: one file a subcommand, results on stdout, messages on stderr.
//!
//! Commands other than `run` find the relay from the same files, environment and flags as `run` does,
//! but need no access keys.

mod check_config;
mod client;
mod completions;
mod demo;
mod drain;
pub mod exit;
mod flow;
mod healthcheck;
mod log_level;
mod openapi;
mod outbox;
mod output;
mod private;
mod progress;
mod run;
#[cfg(test)]
mod scripted;
mod send;
mod simulate;
mod threads;
mod wait;

use std::ffi::OsString;
use std::future::Future;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::LazyLock;

use clap::error::ErrorKind;
use clap::{Args, Parser, Subcommand};

use crate::config::{self, Sources, Whereabouts};
use exit::{Exit, Failure};

/// Version, and revision where the build knows it.
static VERSION: LazyLock<String> = LazyLock::new(|| match option_env!("CELLO_RELAY_REVISION") {
    Some(revision) => format!("{} ({revision})", env!("CARGO_PKG_VERSION")),
    None => env!("CARGO_PKG_VERSION").to_owned(),
});

const AFTER_HELP: &str = "Exit codes: 0 ok · 1 a probe said no · 64 usage · 65 bad data · 69 unreachable or not in time · 70 bug · \
                          73/74 cannot create, IO · 75 locked or port in use · 77 permission · 78 configuration · \
                          130/143 ended by a second signal";

/// Takes referral events over HTTP on localhost, stores them durably and forwards them to Cello
#[derive(Debug, Parser)]
#[command(name = "cello-relay", version = VERSION.as_str(), after_help = AFTER_HELP, arg_required_else_help = true)]
struct Cli {
    #[command(flatten)]
    config: ConfigArgs,

    #[command(subcommand)]
    command: Command,
}

/// Where the configuration comes from.
#[derive(Debug, Args)]
struct ConfigArgs {
    /// A configuration file, each winning over the one before [default: those of CELLO_RELAY_CONFIG]
    #[arg(long = "config", value_name = "FILE", global = true, help_heading = "Configuration")]
    files: Vec<PathBuf>,

    /// A setting, e.g. log.level=debug; wins over files and environment
    #[arg(long = "set", value_name = "KEY=VALUE", global = true, help_heading = "Configuration", value_parser = assignment)]
    flags: Vec<(String, String)>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the relay
    Run,
    /// See it work: a relay and a stand-in for Cello in one process, no credentials
    Demo(demo::Args),
    /// Run a stand-in for Cello, with faults on request
    Simulate(simulate::Args),
    /// Check the configuration and print what holds, and why
    CheckConfig(check_config::Args),
    /// Send events from a file; a repeated run doubles nothing
    ///
    /// An event that is byte for byte one that was sent within idempotency.remember (24 h) is taken for that one,
    /// whichever file it came from; equal events of one file are as many as there are.
    Send(send::Args),
    /// Look into the outbox, and decide about dead letters
    #[command(subcommand)]
    Outbox(outbox::Command),
    /// Stop delivering, also over restarts; events are still taken
    Pause(flow::PauseArgs),
    /// Deliver again after a pause
    Resume,
    /// Change how much a running relay logs
    LogLevel(log_level::Args),
    /// Deliver what waits, now, before an end (preStop hook)
    Drain(drain::Args),
    /// Wait until the relay is ready, or empty
    Wait(wait::Args),
    /// Ask a probe once: exit code 0 or 1
    Healthcheck(healthcheck::Args),
    /// Print the OpenAPI document of the app-facing API, or of the control API
    Openapi(openapi::Args),
    /// Print a completion script
    Completions(completions::Args),
}

fn assignment(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("must be KEY=VALUE, as in log.level=debug")?;
    Ok((key.trim().to_owned(), value.to_owned()))
}

/// What a command runs with.
struct Context {
    sources: Sources,
}

impl Context {
    /// Where the relay is.
    fn whereabouts(&self) -> Result<Whereabouts, Failure> {
        config::whereabouts(&self.sources).map_err(Failure::from)
    }
}

/// Runs one command: arguments and environment as the process got them.
#[must_use]
pub fn main(arguments: impl IntoIterator<Item = OsString>, environment: Vec<(String, String)>) -> ExitCode {
    if let Err(error) = private::keep_memory_private() {
        // If the terminal is gone there is nobody to tell.
        drop(writeln!(io::stderr(), "warning: core dumps could not be switched off: {error}"));
    }
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => return usage(&error),
    };
    let context = Context { sources: Sources { files: cli.config.files, environment, flags: cli.config.flags } };
    match dispatch(cli.command, &context) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

fn dispatch(command: Command, context: &Context) -> Result<(), Failure> {
    match command {
        Command::Simulate(args) => simulate::run(args),
        Command::Run => run::run(context),
        Command::Demo(args) => demo::run(&args),
        Command::CheckConfig(args) => check_config::run(&args, context),
        Command::Send(args) => block_on(send::run(&args, context)),
        Command::Outbox(command) => block_on(outbox::run(&command, context)),
        Command::Pause(args) => block_on(flow::pause(&args, context)),
        Command::Resume => block_on(flow::run("/api/resume", "delivering", context)),
        Command::LogLevel(args) => block_on(log_level::run(&args, context)),
        Command::Drain(args) => block_on(drain::run(&args, context)),
        Command::Wait(args) => block_on(wait::run(&args, context)),
        Command::Healthcheck(args) => block_on(healthcheck::run(&args, context)),
        Command::Openapi(args) => openapi::run(&args),
        Command::Completions(args) => completions::run(&args),
    }
}

/// Help and version are answers; the rest is a usage error.
fn usage(error: &clap::Error) -> ExitCode {
    // If the terminal is gone there is nobody to tell.
    drop(error.print());
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => ExitCode::SUCCESS,
        _ => Exit::Usage.into(),
    }
}

/// Runs a client command on a small runtime of its own.
fn block_on(command: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let ended = runtime.block_on(command);
    // A name that is still being looked up is not waited for.
    runtime.shutdown_background();
    ended
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn verify_cli() {
        Cli::command().debug_assert();
    }

    #[test]
    fn configuration_flags_are_understood_before_and_after_the_command() {
        for arguments in [
            ["cello-relay", "--config", "a.toml", "--set", "log.level=debug", "run"],
            ["cello-relay", "run", "--config", "a.toml", "--set", "log.level=debug"],
        ] {
            let cli = Cli::try_parse_from(arguments).unwrap();
            assert_eq!(cli.config.files, [PathBuf::from("a.toml")]);
            assert_eq!(cli.config.flags, [("log.level".to_owned(), "debug".to_owned())]);
        }
    }

    #[test]
    fn what_is_no_command_is_a_usage_error() {
        for arguments in [&["cello-relay"][..], &["cello-relay", "fly"], &["cello-relay", "run", "--set", "x"]] {
            let error = Cli::try_parse_from(arguments).unwrap_err();
            assert!(!matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion), "{arguments:?}");
        }
    }
}
