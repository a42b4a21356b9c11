//! `demo`: the main job told on a terminal, with a relay and a stand-in for Cello in one process.
//!
//! Every number printed is read from the relay's `/metrics` or from the stand-in.

mod story;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::runtime::Handle;

use super::exit::{Exit, Failure};
use super::output;
use super::threads::one_thread;
use crate::app::{self, App, Signals};
use crate::clock::SystemClock;
use crate::config::{self, Sources};
use crate::metrics::Metrics;
use crate::simulator::{Options, Simulator};
use crate::telemetry;
use story::Story;

/// What the page asks for before it changes anything; the demo has nothing to protect.
const ADMIN_TOKEN: &str = "demo";

/// The outbox, in a directory that is gone afterwards.
const OUTBOX: &str = "outbox";

/// The demo's only flag.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Exit when the story is told: 0, or 1 if an event was missing, doubled or out of order
    #[arg(long)]
    once: bool,
}

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let runtime = one_thread("demo")?;
    let signals = runtime.block_on(async { Signals::install() })?;
    let dir = TempDir::with_prefix("cello-relay-demo-")?;
    runtime.block_on(async {
        let cello = Simulator::start(Options::default(), Arc::new(SystemClock))?;
        let app = build(&cello, &dir).await?;
        let bound = app.bound();
        let mut story = Story::new(&cello, bound.ingest_at.clone(), bound.ops_at.clone());
        let (ingest, admin) = (bound.ingest_at[0], bound.admin_at[0]);
        let relay = tokio::spawn(app.run(signals));
        let told = story.tell().await;
        if args.once {
            return told;
        }
        told?;
        output::print(&closing(ingest, admin, &dir.path().join(OUTBOX)))?;
        // Only a panic keeps it from ending by a signal.
        relay.await.map_err(|_| Failure::new(Exit::Software, "the relay stopped by itself"))??;
        Ok(())
    })
}

/// A relay on embedded defaults, but for its upstream and a directory that is gone afterwards.
async fn build(cello: &Simulator, dir: &TempDir) -> Result<App, Failure> {
    let inside = |name: &str| dir.path().join(name).display().to_string();
    std::fs::write(dir.path().join("admin-token"), ADMIN_TOKEN)?;
    let mut flags = vec![
        ("cello.base_url", cello.base_url()),
        ("outbox.dir", inside(OUTBOX)),
        ("admin.token_file", inside("admin-token")),
        // Only what goes wrong; the story says the rest.
        ("log.level", "error".to_owned()),
    ];
    for (key, port) in [("ingest.listen", 8745), ("ops.listen", 8746), ("admin.listen", 8747)] {
        flags.push((key, free(port).await.to_string()));
    }
    let keys = [("ACCESS_KEY_ID", "demo-key-id"), ("SECRET_ACCESS_KEY", "demo-secret")];
    let sources = Sources {
        files: Vec::new(),
        environment: keys.map(|(key, value)| (format!("CELLO_RELAY_CELLO__{key}"), value.to_owned())).to_vec(),
        flags: flags.into_iter().map(|(key, value)| (key.to_owned(), value)).collect(),
    };
    let loaded = config::load(&sources)?;
    let metrics = Arc::new(Metrics::new());
    let log = telemetry::init(&loaded.settings.log, Arc::clone(&metrics));
    Ok(app::build(loaded.settings, &loaded.hash, &Handle::current(), metrics, log)?)
}

/// The default port, or any other if that one is taken.
async fn free(port: u16) -> SocketAddr {
    let usual = SocketAddr::from(([127, 0, 0, 1], port));
    let is_free = TcpListener::bind(usual).await.is_ok();
    if is_free { usual } else { SocketAddr::from(([127, 0, 0, 1], 0)) }
}

fn closing(ingest: SocketAddr, admin: SocketAddr, outbox: &Path) -> String {
    let dir = outbox.display();
    format!(
        r#"
The relay and its stand-in for Cello stay up until ctrl-C. Try:

  curl -sS http://{ingest}/events -H 'Content-Type: application/json' -d '{{"eventName":"ReferralUpdated","payload":{{"ucc":"cello-ucc","newUserId":"you"}},"context":{{"event":{{"trigger":"new-signup","timestamp":"2026-11-20T03:18:01.620Z"}}}}}}'
  curl -sS http://{ingest}/outbox

In another terminal the CLI finds this relay with:

  export CELLO_RELAY_OUTBOX__DIR={dir}

What operators see, with the outage, the warning and the dead letter (replay it with the token "{ADMIN_TOKEN}"):

  http://{admin}/
"#
    )
}
