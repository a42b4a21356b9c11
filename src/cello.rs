//! Calls to Cello: typed, authenticated, bounded in time and size.
//!
//! ```text
//! deliver, call ─▶ authorize ─▶ measure ─▶ transport ─▶ connector ─▶ Cello
//!                     │            ▲        (hyper)      (DNS, proxy, TCP, TLS)
//!                     ▼            │
//!                   token ─────────┘ POST /token
//! ```
//!
//! [`verdict`] turns whatever came back, or did not, into what happens to the event; `token` owns the
//! one access token that all calls share. Connections are made and driven where `berth` says, whoever calls.

mod answer;
mod authorize;
mod base;
mod berth;
mod connector;
mod credentials;
#[cfg(fuzzing)]
pub mod fuzzing;
mod measure;
mod probe;
mod retry_after;
mod skew;
mod tls;
mod token;
mod transport;
pub mod verdict;
mod wiped;

use std::fmt;
use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hyper::Method;
use hyper::http::uri::PathAndQuery;
use secrecy::SecretString;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tower::ServiceExt;

use crate::clock::{Clock, Timestamp};
use crate::event::EventId;
use crate::metrics::{Metrics, Operation};
pub use answer::{Answer, MAX_BODY};
pub use authorize::CallError;
pub use connector::CONNECTING_MAX;
pub use probe::{Probe, ProbeError};
pub use token::status::{TokenState, TokenStatus};
pub use transport::{Call, Departed, Fault, TransportError};
pub use verdict::{Judgement, Verdict};

use authorize::Authorize;
use berth::Berth;
use credentials::{Files, Reading};
use measure::Measure;
use skew::Skew;
use token::Tokens;
use token::owner::Owner;
use transport::Transport;

/// A delivery under way.
pub type Delivery<'a> = Pin<Box<dyn Future<Output = Judgement> + Send + 'a>>;

/// Delivers one event and says what came of it: what the forwarder needs of Cello, and what its tests
/// put in its place.
pub trait Courier: Send + Sync + 'static {
    /// Sends the event once (and once more with a newer token after a 401). If that is dropped, `departed` knows whether
    /// Cello may have the event.
    fn deliver(&self, id: EventId, body: Bytes, departed: Departed) -> Delivery<'_>;

    /// Whether calls can be authenticated, and changes of that.
    fn access(&self) -> watch::Receiver<Access>;
}

/// Whether calls can be authenticated now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Access {
    /// No token yet, or the last one ended; one is being asked for.
    #[default]
    Waiting,
    /// A token is at hand (or none is needed).
    Granted,
    /// Cello refused the keys, since then.
    Refused(Timestamp),
    /// The configured keys are missing, empty or unreadable, since then.
    Missing(Timestamp),
}

/// How calls are authenticated.
#[derive(Clone, Debug)]
pub enum Auth {
    /// Access keys are exchanged for tokens at `POST /token`.
    Keys(KeySource),
    /// A bearer token from a file, re-read on change and on 401: a relay upstream.
    Bearer(PathBuf),
    /// None.
    None,
}

/// Where the access keys come from; exactly one.
#[derive(Clone, Debug)]
pub enum KeySource {
    /// Two files, re-read when they change: `access-key-id` and `secret-access-key` of a directory, or
    /// two named files.
    Files {
        /// The file that holds the access key id.
        access_key_id: PathBuf,
        /// The file that holds the secret access key.
        secret_access_key: PathBuf,
    },
    /// Values of the environment; they do not change while the process runs.
    Values {
        /// The access key id.
        access_key_id: SecretString,
        /// The secret access key.
        secret_access_key: SecretString,
    },
}

/// `cello.*`, and what of `forward.*` belongs to a single call.
#[derive(Clone)]
pub struct Settings {
    /// Without a trailing slash; may have a path.
    pub base_url: String,
    /// `sandbox`, `production` or `custom`: for messages and `check-config`.
    pub environment: String,
    /// How calls are authenticated.
    pub auth: Auth,
    /// More roots to trust, as PEM.
    pub ca_file: Option<PathBuf>,
    /// Time for DNS, TCP and TLS together.
    pub connect_timeout: Duration,
    /// Time for a whole call, connecting included.
    pub timeout: Duration,
    /// How long an idle connection is kept.
    pub pool_idle: Duration,
    /// `https_proxy`/`HTTPS_PROXY` and `no_proxy`/`NO_PROXY` as found in the environment.
    pub https_proxy: Option<String>,
    /// Hosts that the proxy is not used for.
    pub no_proxy: Option<String>,
}

impl Settings {
    /// How long the delivery of one event takes at most: it waits for a token and is sent, and after a 401 both once more.
    #[must_use]
    pub fn delivery_takes_at_most(&self) -> Duration {
        4 * self.timeout
    }
}

/// Does not show the proxy, whose URL may hold a password.
impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let base_url = if self.base_url.contains('@') { "[redacted]" } else { &self.base_url };
        f.debug_struct("Settings")
            .field("base_url", &base_url)
            .field("environment", &self.environment)
            .field("auth", &self.auth)
            .field("ca_file", &self.ca_file)
            .field("connect_timeout", &self.connect_timeout)
            .field("timeout", &self.timeout)
            .field("pool_idle", &self.pool_idle)
            .field("https_proxy", &self.https_proxy.as_ref().map(|_| "[redacted]"))
            .field("no_proxy", &self.no_proxy)
            .finish()
    }
}

/// Settings that no client can be built from.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The base URL, which is not repeated: it may hold a password.
    #[error("cello.base_url: {why}")]
    BaseUrl {
        /// What is wrong with it.
        why: &'static str,
    },
    /// The file of more roots to trust.
    #[error("cello.ca_file: {}: {why}", path.display())]
    CaFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The proxy, which is not repeated: it may hold a password.
    #[error("HTTPS_PROXY is not the URL of an http:// proxy")]
    Proxy,
}

/// The client: shared by the forwarder and reads.
pub struct Cello {
    /// Authenticated calls.
    calls: Authorize<Measure<Transport>>,
    /// The same without a token: what tokens are asked for with.
    bare: Measure<Transport>,
    tokens: Arc<Tokens>,
    /// The credentials as last read.
    readings: watch::Sender<Reading>,
    skew: Skew,
    settings: Settings,
    clock: Arc<dyn Clock>,
    metrics: Arc<Metrics>,
}

impl fmt::Debug for Cello {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cello").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl Cello {
    /// Builds the client; connects to nothing and reads no credentials yet.
    ///
    /// # Errors
    /// See [`BuildError`].
    pub fn new(settings: Settings, clock: Arc<dyn Clock>, metrics: Arc<Metrics>) -> Result<Arc<Self>, BuildError> {
        Self::build(settings, Berth::default(), clock, metrics)
    }

    /// The same, with its connections on `runtime`, whoever calls. Best on that of most calls.
    ///
    /// # Errors
    /// See [`BuildError`].
    pub fn on(
        runtime: Handle,
        settings: Settings,
        clock: Arc<dyn Clock>,
        metrics: Arc<Metrics>,
    ) -> Result<Arc<Self>, BuildError> {
        Self::build(settings, Berth::on(runtime), clock, metrics)
    }

    fn build(
        settings: Settings,
        berth: Berth,
        clock: Arc<dyn Clock>,
        metrics: Arc<Metrics>,
    ) -> Result<Arc<Self>, BuildError> {
        let skew = Skew::default();
        let transport = Transport::new(&settings, berth, clock.clone(), skew.clone())?;
        let bare = Measure::new(transport, metrics.clone(), clock.clone());
        let tokens = Arc::new(Tokens::new(matches!(settings.auth, Auth::None)));
        let calls = Authorize::new(bare.clone(), tokens.clone());
        let readings = watch::Sender::new(settings.auth.values());
        Ok(Arc::new(Self { calls, bare, tokens, readings, skew, settings, clock, metrics }))
    }

    /// Watches the credentials and keeps the token fresh, also while idle, until it is dropped. To be run once at a time;
    /// without it no authenticated call gets a token.
    pub async fn run(self: Arc<Self>) {
        match (&self.settings.auth, self.settings.auth.files()) {
            (Auth::None, _) => {
                self.metrics.credentials_ok.set(1);
                std::future::pending().await
            }
            (Auth::Keys(_), None) => {
                self.metrics.credentials_reloaded.set(self.clock.now().as_seconds());
                self.owner().run().await;
            }
            (Auth::Keys(_), Some(files)) => {
                tokio::join!(self.follow(files), self.owner().run());
            }
            (Auth::Bearer(_), files) => {
                let files = files.expect("a bearer token is in a file");
                let (clock, metrics) = (self.clock.clone(), self.metrics.clone());
                let bearer = token::bearer::run(self.tokens.clone(), files.clone(), &self.readings, clock, metrics);
                tokio::join!(self.follow(files), bearer);
            }
        }
    }

    fn follow(&self, files: Files) -> impl Future<Output = ()> {
        credentials::follow(files, &self.readings, self.clock.clone(), self.metrics.clone())
    }

    fn owner(&self) -> Owner<Measure<Transport>> {
        let (clock, metrics) = (self.clock.clone(), self.metrics.clone());
        let shared = (self.tokens.clone(), self.readings.subscribe());
        Owner::new(self.bare.clone(), &self.settings, (clock, metrics), fastrand::Rng::new(), shared)
    }

    /// The token as it stands, for operators.
    #[must_use]
    pub fn token_status(&self) -> TokenStatus {
        self.tokens.status()
    }

    /// By how many seconds this machine's clock is ahead of Cello's (negative: behind), by the `Date` of its
    /// last answer; `None` before there was one.
    #[must_use]
    pub fn clock_skew(&self) -> Option<i64> {
        self.skew.seconds()
    }

    /// Any authenticated call. A token is waited for and, after a 401, replaced as for deliveries.
    ///
    /// # Errors
    /// See [`CallError`]; a status that is no success is no error.
    pub async fn call(&self, call: Call) -> Result<Answer, CallError> {
        self.calls.clone().oneshot(call).await
    }
}

impl Courier for Cello {
    fn deliver(&self, id: EventId, body: Bytes, departed: Departed) -> Delivery<'_> {
        let path = PathAndQuery::from_static("/events");
        let call = Call::new(Operation::Events, Method::POST, path, self.settings.timeout).with_json(body).with_key(id);
        let call = call.telling(departed);
        Box::pin(async move {
            match self.call(call).await {
                Ok(answer) => verdict::judge(Ok(&answer)),
                Err(CallError::Transport(error)) => verdict::judge(Err(&error)),
                Err(CallError::NoAccess) => Judgement::no_access(),
            }
        })
    }

    fn access(&self) -> watch::Receiver<Access> {
        self.tokens.access()
    }
}

impl Auth {
    /// The files to follow, if there are any.
    fn files(&self) -> Option<Files> {
        match self {
            Self::Keys(KeySource::Files { access_key_id, secret_access_key }) => {
                Some(Files::new([access_key_id.clone(), secret_access_key.clone()]))
            }
            Self::Bearer(path) => Some(Files::new([path.clone()])),
            Self::Keys(KeySource::Values { .. }) | Self::None => None,
        }
    }

    /// What is known without reading a file.
    fn values(&self) -> Reading {
        match self {
            Self::Keys(KeySource::Values { access_key_id, secret_access_key }) => {
                Reading::of_values([access_key_id.clone(), secret_access_key.clone()])
            }
            Self::Keys(KeySource::Files { .. }) | Self::Bearer(_) | Self::None => Reading::Unread,
        }
    }
}
