//! Calls to Cello: typed, authenticated, bounded in time and size.
//!
//! [`verdict`] turns whatever came back, or did not, into what happens to the event; `token` owns the
//! one access token that all calls share.

pub mod verdict;

use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use secrecy::SecretString;
use tokio::sync::watch;

use crate::clock::Timestamp;
use crate::event::EventId;
pub use verdict::{Judgement, Verdict};

/// Delivers one event and says what came of it: what the forwarder needs of Cello, and what its tests
/// put in its place.
pub trait Courier: Send + Sync + 'static {
    /// Sends the event once (and once more with a newer token after a 401).
    fn deliver(&self, id: EventId, body: Bytes) -> Pin<Box<dyn Future<Output = Judgement> + Send + '_>>;

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
#[derive(Clone, Debug)]
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
