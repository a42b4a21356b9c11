//! `simulate`: a stand-in for Cello, for development and CI.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::{ArgAction, ValueEnum};
use secrecy::SecretString;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::clock::SystemClock;
use crate::simulator::{AccessKeys, ErrorShape, Faults, Options, Simulator, Stats, TlsFiles, TokenRules, TokenShape};

/// Run a stand-in for Cello: its API, what arrived, and faults on request
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct Args {
    /// Where to listen; other machines may be let in (CI containers)
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8780")]
    pub listen: SocketAddr,

    /// The one accepted key id [default: any pair of keys is accepted]
    #[arg(long, value_name = "ID", requires = "secret_access_key")]
    pub access_key_id: Option<SecretString>,

    /// The secret that belongs to it
    #[arg(long, value_name = "SECRET", requires = "access_key_id")]
    pub secret_access_key: Option<SecretString>,

    /// How long an access token lives
    #[arg(long, value_name = "DURATION", default_value = "5h", value_parser = duration)]
    pub token_life: Duration,

    /// How long a refresh token lives
    #[arg(long, value_name = "DURATION", default_value = "120h", value_parser = duration)]
    pub refresh_token_life: Duration,

    /// Whether token answers have refreshTokenExpiresIn (new) or not (old)
    #[arg(long, value_name = "SHAPE", default_value = "new")]
    pub token_shape: TokenShapeArg,

    /// How bad credentials are answered: 400 as documented, or 401 as seen
    #[arg(long, value_name = "SHAPE", default_value = "documented")]
    pub error_shape: ErrorShapeArg,

    /// How many events are kept to be looked at; counts go on
    #[arg(long, value_name = "EVENTS", default_value_t = 100_000)]
    pub keep: usize,

    /// Keep no events, only counts: for load tests
    #[arg(long, conflicts_with = "keep")]
    pub count_only: bool,

    /// A fault rule, or several, as JSON; may be given more than once
    #[arg(long, value_name = "JSON", action = ArgAction::Append)]
    pub fault: Vec<Faults>,

    /// Refuse all keys
    #[arg(long)]
    pub refuse_keys: bool,

    /// A certificate chain as PEM: serve HTTPS
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    pub tls_cert: Option<PathBuf>,

    /// Its private key as PEM
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,

    /// What tokens, request ids and jitter are made from
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    pub seed: u64,
}

const AFTER_HELP: &str = r#"Faults (also at run time: GET, PUT, DELETE /_sim/faults):
  --fault '{"path":"/events","every":10,"status":503,"retryAfter":2}'
  --fault '{"path":"/events","user":"u-1","times":3,"reset":"after"}'
  --fault '{"latency":"200ms","jitter":"50ms","for":"1m"}'
Effects: status, body, message, headers, garbage, empty, successFalse, reset (before, after), hang, latency.
With "counts":true the event is stored before the fault strikes.

What arrived: GET /_sim/events?user=&after=&limit=, /_sim/stats, /_sim/requests; DELETE /_sim/events forgets."#;

/// `--token-shape`
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum TokenShapeArg {
    /// Without `refreshTokenExpiresIn`.
    Old,
    /// With it.
    New,
}

/// `--error-shape`
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum ErrorShapeArg {
    /// 400 with `message`.
    Documented,
    /// 401 with `statusCode`, `timestamp`, `path` and `message`.
    Seen,
}

impl Args {
    /// What the flags say, as the simulator wants it.
    #[must_use]
    pub fn options(self) -> Options {
        let keys = self.access_key_id.zip(self.secret_access_key);
        let faults = self.fault.into_iter().fold(Faults::default(), Faults::and);
        Options {
            listen: self.listen,
            tls: self.tls_cert.zip(self.tls_key).map(|(cert, key)| TlsFiles { cert, key }),
            tokens: TokenRules {
                keys: keys.map(|(access_key_id, secret_access_key)| AccessKeys { access_key_id, secret_access_key }),
                life: self.token_life,
                refresh_life: self.refresh_token_life,
                shape: match self.token_shape {
                    TokenShapeArg::Old => TokenShape::Old,
                    TokenShapeArg::New => TokenShape::New,
                },
                error_shape: match self.error_shape {
                    ErrorShapeArg::Documented => ErrorShape::Documented,
                    ErrorShapeArg::Seen => ErrorShape::Seen,
                },
            },
            keep: if self.count_only { 0 } else { self.keep },
            faults: if self.refuse_keys { faults.refusing_keys() } else { faults },
            seed: self.seed,
        }
    }
}

/// Runs until SIGTERM or ctrl-C. Makes its own runtime.
#[must_use]
pub fn run(args: Args) -> ExitCode {
    let any_keys = args.access_key_id.is_none();
    let served = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .and_then(|runtime| runtime.block_on(serve(args.options(), any_keys)));
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Nothing is left to be done if standard error is closed.
            writeln!(io::stderr(), "cello-relay simulate: {error}").ok();
            ExitCode::from(exit_code(error.kind()))
        }
    }
}

async fn serve(options: Options, any_keys: bool) -> io::Result<()> {
    // Before anything else, so that no signal is missed.
    let (terminate, interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let listen = options.listen;
    let simulator = Simulator::start(options, Arc::new(SystemClock))
        .map_err(|error| io::Error::new(error.kind(), format!("cannot serve on {listen}: {error}")))?;
    greet(&simulator, any_keys)?;
    first_of(terminate, interrupt).await;
    let Stats { received, counted, .. } = simulator.stats();
    simulator.stop().await;
    writeln!(io::stdout(), "stopped: {received} events received, {counted} counted")
}

async fn first_of(mut terminate: Signal, mut interrupt: Signal) {
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}

fn greet(simulator: &Simulator, any_keys: bool) -> io::Result<()> {
    let base_url = simulator.base_url();
    let mut out = io::stdout().lock();
    writeln!(out, "THIS IS NOT CELLO. It is a stand-in: nothing reaches Cello, no reward is ever paid.\n")?;
    writeln!(out, "base URL   {base_url}   (listening on {})", simulator.addr())?;
    writeln!(out, "keys       {}", if any_keys { "any pair is accepted" } else { "the given pair only" })?;
    writeln!(out, "arrived    curl {base_url}/_sim/events")?;
    writeln!(out, "a token    curl {base_url}/token -d '{{\"accessKeyId\":\"id\",\"secretAccessKey\":\"secret\"}}'")?;
    writeln!(out, "a fault    curl -X PUT {base_url}/_sim/faults -d '{{\"path\":\"/events\",\"status\":503}}'\n")?;
    if !simulator.addr().ip().is_loopback() {
        writeln!(out, "Other machines can reach it: what arrives can be read by anyone who can.\n")?;
    }
    out.flush()
}

/// The exit code of DESIGN 7 for what kept the stand-in from running.
fn exit_code(kind: io::ErrorKind) -> u8 {
    match kind {
        io::ErrorKind::AddrInUse => 75,
        io::ErrorKind::PermissionDenied => 77,
        io::ErrorKind::InvalidInput | io::ErrorKind::AddrNotAvailable => 78,
        _ => 74,
    }
}

fn duration(text: &str) -> Result<Duration, String> {
    let span = text.parse::<jiff::SignedDuration>().ok().and_then(|span| Duration::try_from(span).ok());
    span.ok_or_else(|| "a duration has a unit, such as 500ms, 90s or 5h".to_owned())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        args: Args,
    }

    fn options(flags: &[&str]) -> Result<Options, clap::Error> {
        let flags = std::iter::once(&"simulate").chain(flags);
        Command::try_parse_from(flags).map(|command| command.args.options())
    }

    #[test]
    fn without_flags_it_is_the_cello_of_the_documents_on_port_8780() {
        let options = options(&[]).expect("no flags");
        assert_eq!(options.listen.to_string(), "127.0.0.1:8780");
        assert_eq!(options.tokens.life, Duration::from_secs(18_000));
        assert_eq!(options.tokens.refresh_life, Duration::from_secs(432_000));
        assert_eq!((options.keep, options.tokens.shape), (100_000, TokenShape::New));
        assert!(options.tls.is_none() && options.tokens.keys.is_none());
    }

    #[test]
    fn bad_flags_are_refused_with_what_is_wrong() {
        let reason = |flags: &[&str]| options(flags).expect_err("bad flags").to_string();
        assert!(reason(&["--fault", r#"{"status":7}"#]).contains("200 to 599"));
        assert!(reason(&["--token-life", "5"]).contains("has a unit"));
        assert!(reason(&["--tls-cert", "x"]).contains("--tls-key"));
        assert!(reason(&["--access-key-id", "x"]).contains("--secret-access-key"));
    }

    #[test]
    fn keys_are_not_shown_by_debug() {
        let options = options(&["--access-key-id", "my-id", "--secret-access-key", "my-secret"]).expect("keys");
        let shown = format!("{options:?}");
        assert!(!shown.contains("my-id") && !shown.contains("my-secret"), "{shown}");
    }
}
