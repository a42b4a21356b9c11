//! Calls to Cello, over real sockets.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail the test")]

mod access;
mod bearer;
mod complaints;
mod h2;
mod hostile;
mod raw;
mod tls;
mod transport;
pub(crate) mod upstream;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cello_relay::cello::{Access, Auth, Cello, Courier, Departed, Judgement, KeySource, Settings};
use cello_relay::clock::{Clock, SystemClock, Timestamp};
use cello_relay::event::EventId;
use cello_relay::metrics::Metrics;
use tempfile::TempDir;
use tokio::task::JoinHandle;

const EVENT: &str = r#"{"eventName":"ReferralUpdated","payload":{"ucc":"u","newUserId":"n"},"context":{}}"#;

pub(crate) fn settings(base_url: &str, auth: Auth) -> Settings {
    Settings {
        base_url: base_url.to_owned(),
        environment: "custom".to_owned(),
        auth,
        ca_file: None,
        connect_timeout: Duration::from_secs(5),
        timeout: Duration::from_secs(10),
        pool_idle: Duration::from_secs(20),
        https_proxy: None,
        no_proxy: None,
    }
}

fn values() -> Auth {
    let (access_key_id, secret_access_key) = ("key-1".into(), "secret-1".into());
    Auth::Keys(KeySource::Values { access_key_id, secret_access_key })
}

/// Two key files in a directory.
struct KeyFiles(TempDir);

impl KeyFiles {
    fn none() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn with(id: &str, secret: &str) -> Self {
        let files = Self::none();
        files.write(id, secret);
        files
    }

    /// Renames over what is there, so that nobody reads a half.
    fn write(&self, id: &str, secret: &str) {
        for (name, content) in [("access-key-id", id), ("secret-access-key", secret)] {
            let next = self.path("next");
            std::fs::write(&next, format!("{content}\n")).unwrap();
            std::fs::rename(&next, self.path(name)).unwrap();
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn auth(&self) -> Auth {
        auth_of(self.0.path())
    }
}

fn auth_of(directory: &Path) -> Auth {
    Auth::Keys(KeySource::Files {
        access_key_id: directory.join("access-key-id"),
        secret_access_key: directory.join("secret-access-key"),
    })
}

/// A running client.
struct Running {
    cello: Arc<Cello>,
    metrics: Arc<Metrics>,
    task: JoinHandle<()>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn run(settings: Settings) -> Running {
    run_by(settings, Arc::new(SystemClock))
}

fn run_by(settings: Settings, clock: Arc<dyn Clock>) -> Running {
    let metrics = Arc::new(Metrics::new());
    let cello = Cello::new(settings, clock, metrics.clone()).unwrap();
    let task = tokio::spawn(cello.clone().run());
    Running { cello, metrics, task }
}

async fn deliver_by(cello: &Cello) -> Judgement {
    deliver_telling(cello, Departed::default()).await
}

async fn deliver_telling(cello: &Cello, departed: Departed) -> Judgement {
    let id = EventId::new(Timestamp::from_millis(1), 1, 1);
    cello.deliver(id, Bytes::from_static(EVENT.as_bytes()), departed).await
}

impl Running {
    async fn deliver(&self) -> Judgement {
        deliver_by(&self.cello).await
    }

    /// Waits until access is as `wanted` says.
    async fn access(&self, wanted: impl Fn(&Access) -> bool) {
        let mut access = self.cello.access();
        let reached = tokio::time::timeout(Duration::from_secs(20), access.wait_for(wanted)).await;
        assert!(reached.is_ok(), "access is {:?}", *self.cello.access().borrow());
    }

    /// The value of a series.
    fn metric(&self, series: &str) -> f64 {
        let text = self.metrics.render();
        let line = text.lines().find_map(|line| line.strip_prefix(&format!("cello_relay_{series} ")));
        line.unwrap_or_else(|| panic!("no {series} in\n{text}")).parse().unwrap()
    }
}
