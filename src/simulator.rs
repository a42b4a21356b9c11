//! A Cello with faults: the stand-in for the demo, for tests, and for any team's CI.
//!
//! It speaks Cello's API v1 (tokens, events, reads), is strict where Cello is strict, remembers what
//! arrived, and misbehaves on request: see [`Faults`]. It is written from Cello's documents alone and
//! shares no code with the relay's own client, so that the two cannot be wrong in the same way.
//!
//! ```text
//! POST /token  POST /events  GET /referral-codes/…  GET /new-users/…  POST /referrers/…   as Cello
//! GET, PUT, DELETE /_sim/faults     GET, DELETE /_sim/events     GET /_sim/stats, /_sim/requests
//! ```
//!
//! Order is checked when senders number their events: `context.sequence`, rising per user.

mod answer;
mod api;
mod control;
mod envelope;
mod faults;
mod journal;
mod reads;
mod recent;
mod server;
mod tokens;
mod wire;

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::clock::Clock;
use answer::RequestIds;
use api::Cello;
use faults::FaultBoard;
pub use faults::{BadFaults, Faults};
use journal::Journal;
pub use journal::{Arrival, Headers, Seen, Stats, TokenCalls};
pub use server::TlsFiles;
use tokens::Tokens;
pub use tokens::{AccessKeys, ErrorShape, TokenRules, TokenShape};

/// What a stand-in is started with.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where to listen; port 0 is any free one.
    pub listen: SocketAddr,
    /// HTTPS if given.
    pub tls: Option<TlsFiles>,
    /// How tokens are given.
    pub tokens: TokenRules,
    /// How many events are kept whole; 0 only counts them.
    pub keep: usize,
    /// Faults from the start.
    pub faults: Faults,
    /// What tokens, request ids and jitter are made from.
    pub seed: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            tls: None,
            tokens: TokenRules::default(),
            keep: 100_000,
            faults: Faults::default(),
            seed: 0,
        }
    }
}

/// A running stand-in. Dropping it stops it without waiting.
pub struct Simulator {
    addr: SocketAddr,
    scheme: &'static str,
    cello: Arc<Cello>,
    stop: watch::Sender<bool>,
    server: JoinHandle<()>,
}

impl Simulator {
    /// Binds and serves on the current tokio runtime.
    ///
    /// # Errors
    /// What binding says; `InvalidInput` for bad TLS files.
    pub fn start(options: Options, clock: Arc<dyn Clock>) -> io::Result<Self> {
        let tls = options.tls.as_ref().map(server::tls).transpose()?;
        let listener = server::bind(options.listen)?;
        let addr = listener.local_addr()?;
        let (stop, stopping) = watch::channel(false);
        let cello = Arc::new(Cello {
            tokens: Tokens::new(options.tokens, options.seed),
            faults: FaultBoard::new(options.faults, options.seed, clock.now()),
            journal: Journal::new(options.keep),
            ids: RequestIds::new(options.seed),
            stopping,
            clock,
        });
        let scheme = if tls.is_some() { "https" } else { "http" };
        let server = tokio::spawn(server::run(listener, tls, Arc::clone(&cello)));
        Ok(Self { addr, scheme, cello, stop, server })
    }

    /// Where it listens.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The base URL for this machine, without a trailing slash.
    #[must_use]
    pub fn base_url(&self) -> String {
        let ip = match self.addr.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
            ip => ip,
        };
        format!("{}://{}", self.scheme, SocketAddr::new(ip, self.addr.port()))
    }

    /// Puts these faults in place of all others.
    pub fn faults(&self, faults: Faults) {
        self.cello.set_faults(faults);
    }

    /// The events that arrived and are still kept, in order of arrival.
    #[must_use]
    pub fn events(&self) -> Vec<Arrival> {
        self.cello.journal.events(None, 0, usize::MAX)
    }

    /// The last thousand requests of all routes, in the order in which they ended.
    #[must_use]
    pub fn requests(&self) -> Vec<Seen> {
        self.cello.journal.requests()
    }

    /// Counts of everything so far.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.cello.journal.stats()
    }

    /// Waits, without polling, until the counts are as wanted.
    pub async fn until(&self, wanted: impl FnMut(&Stats) -> bool) -> Stats {
        self.cello.journal.until(wanted).await
    }

    /// Forgets events and counts.
    pub fn forget(&self) {
        self.cello.journal.forget();
    }

    /// Closes the listener, ends what hangs, and returns when the last connection is closed.
    pub async fn stop(self) {
        self.stop.send_replace(true);
        // An error is a panic of the accept loop, which a test should see.
        self.server.await.expect("the simulator's accept loop does not panic");
    }
}

impl fmt::Debug for Simulator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Simulator").field("addr", &self.addr).finish_non_exhaustive()
    }
}
