//! The only wiring: settings → build → run → drain.
//!
//! [`build`] opens the outbox and binds every socket, so that whatever can fail at start fails before
//! anything is served; [`App::run`] serves until told to end and then empties what it can
//! ([`shutdown`]).

mod files;
mod listeners;
mod shutdown;
mod upkeep;

pub(crate) use files::raise_limit as raise_file_limit;
pub use listeners::{Bound, bind};
pub use shutdown::{End, Shutdown, Signals};

use std::sync::Arc;

use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::JoinSet;

use self::upkeep::keep_up;
use crate::admin::{self, About, Access, Admin, LogLevel, PauseFile, Watch};
use crate::cello::{self, Cello};
use crate::clock::{Clock, SystemClock};
use crate::forwarder::{self, Forwarder};
use crate::http;
use crate::ingress::Ingress;
use crate::metrics::{Metrics, Phase};
use crate::ops::{Heartbeat, Ops, Sources};
use crate::outbox::Outbox;
use crate::outbox::sqlite::{FileSystem, Keeps, OpenError, Sqlite};
use crate::reads::{self, Reads};
use crate::telemetry;

/// Everything a relay is built from.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The app-facing listener.
    pub ingest: crate::ingress::Settings,
    /// The store.
    pub outbox: crate::outbox::sqlite::Settings,
    /// `outbox.durability`: a label, `persistent` or `pod`.
    pub durability: String,
    /// Claim, send, settle.
    pub forward: forwarder::Settings,
    /// Reads through the relay.
    pub reads: reads::Settings,
    /// The upstream.
    pub cello: cello::Settings,
    /// Probes and metrics.
    pub ops: crate::ops::Settings,
    /// The control API.
    pub admin: admin::Settings,
    /// The end.
    pub shutdown: Shutdown,
    /// Logs.
    pub log: telemetry::Settings,
}

/// Why a relay could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The outbox cannot be opened.
    #[error(transparent)]
    Outbox(#[from] OpenError),
    /// The client for Cello cannot be built.
    #[error("{0}")]
    Cello(#[from] cello::BuildError),
    /// The app-facing service cannot be built.
    #[error("{0}")]
    Ingress(#[from] crate::ingress::StartError),
    /// Whether an operator paused delivery cannot be read.
    #[error("outbox.dir: {0}")]
    Pause(std::io::Error),
    /// A socket cannot be bound.
    #[error("{listener}: {source}")]
    Bind {
        /// Which listener.
        listener: &'static str,
        /// Where it should have been, and why it is not.
        source: std::io::Error,
    },
}

/// Why a relay stopped without being told to.
#[derive(Debug, thiserror::Error)]
#[error("the outbox broke off: nothing that was answered is lost, and the next start goes on")]
pub struct BrokenOff;

/// A relay, built and bound, not yet serving.
pub struct App {
    forwarder: Forwarder,
    forwarding: Handle,
    relay: Relay,
}

/// All of a relay but the loop that forwards.
struct Relay {
    outbox: Arc<Sqlite>,
    cello: Arc<Cello>,
    handle: forwarder::Handle,
    ingress: Ingress,
    ops: Ops,
    /// The control API as the socket offers it, and as TCP does.
    admin: (Admin, Admin),
    watched: Arc<admin::Parts>,
    bound: Bound,
    phase: watch::Sender<Phase>,
    drain_began: shutdown::DrainBegan,
    quit: watch::Receiver<bool>,
    settings: Settings,
    clock: Arc<dyn Clock>,
    metrics: Arc<Metrics>,
}

/// Opens the outbox, binds the sockets and puts the parts together. Needs a runtime around it; `forwarding` is that of
/// what is sent, the same or another; `log` is this process's log, whose level can be changed from outside.
///
/// # Errors
/// Whatever keeps a relay from starting; nothing was served yet.
pub fn build(
    settings: Settings,
    config_hash: &str,
    forwarding: &Handle,
    metrics: Arc<Metrics>,
    log: telemetry::Handle,
) -> Result<App, StartError> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    // The one place that names the store.
    let outbox = Arc::new(Sqlite::open(settings.outbox.clone(), clock.clone(), metrics.clone())?);
    // The control socket is bound only under the outbox's lock: two relays cannot take it from each other.
    let bound = listeners::bind(&settings)?;
    let cello = Cello::on(forwarding.clone(), settings.cello.clone(), clock.clone(), metrics.clone())?;
    let deps = forwarder::Deps {
        outbox: outbox.clone(),
        courier: cello.clone(),
        clock: clock.clone(),
        metrics: metrics.clone(),
    };
    let (forwarder, handle) =
        Forwarder::new(deps, settings.forward.clone(), settings.log.deliveries, fastrand::Rng::new());
    let pause_file = PauseFile::new(&settings.outbox.dir);
    take_up_pause(&pause_file, &handle, &*clock).map_err(StartError::Pause)?;
    let ingress = Ingress::new(settings.ingest.clone(), outbox.clone(), clock.clone(), metrics.clone(), handle.flow())?;
    let reads = Reads::new(settings.reads.clone(), cello.clone(), handle.open_since(), clock.clone(), metrics.clone());
    let ingress = ingress.with_reads(Arc::new(move |request| reads.answer(request)));
    let (phase, phase_seen) = watch::channel(Phase::Starting);
    let sources = Sources::new(metrics.clone(), outbox.clone());
    let ops = Ops::new(&settings.ops, sources, phase_seen.clone(), heartbeats(&outbox, &handle));
    let drain_began = shutdown::DrainBegan::default();
    let (quit, quit_asked) = watch::channel(false);
    let parts = Arc::new(admin::Parts {
        outbox: outbox.clone(),
        dead: outbox.clone(),
        forwarder: handle.clone(),
        cello: cello.clone(),
        door: ingress.door(),
        metrics: metrics.clone(),
        watch: Watch::default(),
        about: about(&settings),
        phase: phase_seen,
        started_at: clock.now(),
        pause_file,
        steering: tokio::sync::Mutex::default(),
        log_level: LogLevel::new(log),
        clock: clock.clone(),
        drain: shutdown::on_drain(handle.clone(), drain_began.clone(), phase.clone(), clock.clone()),
        quit: settings.admin.allow_quit.then_some(quit),
    });
    let admin = (Admin::new(parts.clone(), Access::Everything), Admin::new(parts.clone(), tcp_access(&settings.admin)));
    describe(&metrics, &settings, config_hash, outbox.file_system());
    let relay = Relay {
        outbox,
        cello,
        handle,
        ingress,
        ops,
        admin,
        watched: parts,
        bound,
        phase,
        drain_began,
        quit: quit_asked,
        settings,
        clock,
        metrics,
    };
    Ok(App { forwarder, forwarding: forwarding.clone(), relay })
}

/// What an operator paused before this start stays paused, unless its time is over.
fn take_up_pause(file: &PauseFile, forwarder: &forwarder::Handle, clock: &dyn Clock) -> std::io::Result<()> {
    let Some(pause) = file.read()? else { return Ok(()) };
    if pause.left(clock.now()).is_none() {
        // Left on a full disk, it is over all the same.
        drop(file.remove());
        return Ok(());
    }
    forwarder.pause_as(pause);
    Ok(())
}

fn about(settings: &Settings) -> About {
    let url = &settings.cello.base_url;
    About {
        environment: settings.cello.environment.clone(),
        // As in messages: a user and a password in it are nobody's business.
        base_url: if url.contains('@') { "[redacted]".to_owned() } else { url.clone() },
        durability: settings.durability.clone(),
        auth: match settings.cello.auth {
            cello::Auth::Keys(_) => admin::Auth::Keys,
            cello::Auth::Bearer(_) => admin::Auth::Bearer,
            cello::Auth::None => admin::Auth::None,
        },
    }
}

fn heartbeats(outbox: &Arc<Sqlite>, forwarder: &forwarder::Handle) -> Vec<(&'static str, Heartbeat)> {
    let (outbox, forwarder) = (outbox.clone(), forwarder.clone());
    vec![("outbox", Arc::new(move || outbox.heartbeat())), ("forwarder", Arc::new(move || forwarder.heartbeat()))]
}

fn tcp_access(settings: &admin::Settings) -> Access {
    let loopback = settings.listen.iter().all(|address| address.ip().is_loopback());
    Access::Guarded { token_file: settings.token_file.clone(), reads_need_token: !loopback }
}

fn describe(metrics: &Metrics, settings: &Settings, config_hash: &str, file_system: FileSystem) {
    let version = [
        ("version", env!("CARGO_PKG_VERSION")),
        ("revision", option_env!("CELLO_RELAY_REVISION").unwrap_or("unknown")),
    ];
    metrics.describe("build_info", "Which build runs.", &version);
    metrics.describe(
        "config_info",
        "A hash of the effective configuration; tells pods that drifted.",
        &[("hash", config_hash)],
    );
    let durability = [
        ("durability", settings.durability.as_str()),
        ("fs", file_system.name),
        ("journal_mode", "wal"),
        ("synchronous", "full"),
    ];
    metrics.describe("outbox_info", "How durable the outbox is.", &durability);
}

impl App {
    /// Where the sockets are; with port 0 only known now.
    #[must_use]
    pub fn bound(&self) -> &Bound {
        &self.relay.bound
    }

    /// Serves until a signal (or `quit`) says to end, then drains; tells how it ended.
    ///
    /// # Errors
    /// A bug broke off the outbox, which leaves nothing to be served or drained.
    pub async fn run(self, signals: Signals) -> Result<End, BrokenOff> {
        let outbox = self.relay.outbox.clone();
        tokio::select! {
            biased;
            () = outbox.broken() => Err(BrokenOff),
            end = self.serve(signals) => Ok(end),
        }
    }

    async fn serve(self, signals: Signals) -> End {
        let Self { forwarder, forwarding, mut relay } = self;
        let (stop_ingest, stop_rest) = (watch::channel(false).0, watch::channel(false).0);
        let mut rest = JoinSet::new();
        rest.spawn_on(keep_up(move || forwarder.clone().run()), &forwarding);
        let ingest = relay.serve(&mut rest, &stop_ingest, &stop_rest);
        relay.phase.send_replace(Phase::Serving);
        relay.log_start();
        signals.first(&mut relay.quit).await;
        let end = relay.ending().run(stop_ingest, ingest).await;
        stop_rest.send_replace(true);
        rest.shutdown().await;
        relay.bound.socket_file.remove();
        end
    }
}

impl Relay {
    /// Starts every listener and the token's owner. What is returned ends first; `rest` goes on until
    /// the outbox is closed.
    fn serve(
        &mut self,
        rest: &mut JoinSet<()>,
        stop_ingest: &watch::Sender<bool>,
        stop_rest: &watch::Sender<bool>,
    ) -> JoinSet<()> {
        let limits = http::Limits { max_connections: self.connections_of_apps(), ..self.settings.ingest.limits() };
        let control = listeners::CONTROL_LIMITS;
        let (socket, tcp) = self.admin.clone();
        rest.spawn(http::serve(self.bound.take_ops(), self.ops.clone(), control, stop_rest.subscribe()));
        rest.spawn(http::serve(self.bound.take_socket(), socket, listeners::SOCKET_LIMITS, stop_rest.subscribe()));
        rest.spawn(http::serve(self.bound.take_admin(), tcp, control, stop_rest.subscribe()));
        let watched = self.watched.clone();
        rest.spawn(keep_up(move || admin::watch(watched.clone())));
        let cello = self.cello.clone();
        rest.spawn(keep_up(move || cello.clone().run()));
        let mut ingest = JoinSet::new();
        let connections = Some(self.metrics.ingest_connections.clone());
        let (listeners, stop) = (self.bound.take_ingest(), stop_ingest.subscribe());
        ingest.spawn(http::serve_counted(listeners, self.ingress.clone(), limits, connections, stop));
        ingest
    }

    fn connections_of_apps(&self) -> usize {
        let Settings { ingest, forward, reads, .. } = &self.settings;
        let wanted = ingest.max_connections;
        let allowed = files::left_for_apps(wanted, forward.concurrency + reads.concurrency);
        if allowed < wanted {
            tracing::warn!(
                event = "connections_limited",
                allowed,
                wanted,
                "the process may open too few files for ingest.max_connections (ulimit -n, LimitNOFILE)"
            );
        }
        allowed
    }

    fn ending(&self) -> shutdown::Ending<'_> {
        shutdown::Ending {
            outbox: &*self.outbox,
            forwarder: &self.handle,
            phase: &self.phase,
            settings: &self.settings.shutdown,
            drain_began: &self.drain_began,
            clock: &*self.clock,
        }
    }

    fn log_start(&self) {
        self.warn_of_file_system();
        let stats = self.outbox.stats();
        tracing::info!(
            event = "started",
            version = env!("CARGO_PKG_VERSION"),
            ingest = ?self.bound.ingest_at,
            ops = ?self.bound.ops_at,
            admin = ?self.bound.admin_at,
            upstream = self.settings.cello.base_url,
            environment = self.settings.cello.environment,
            durability = self.settings.durability,
            undelivered = stats.ledger.undelivered(),
            dead = stats.ledger.dead,
            "taking events",
        );
    }

    /// `outbox.durability` is what the operator believes.
    fn warn_of_file_system(&self) {
        let FileSystem { name, keeps } = self.outbox.file_system();
        let why = match keeps {
            Keeps::InMemory => "it is in memory, and ends with the pod or the machine",
            Keeps::WithContainer => "there is no volume at outbox.dir: it ends with the container",
            Keeps::Durably | Keeps::Remotely => return,
        };
        if self.settings.durability == "persistent" {
            tracing::warn!(
                event = "outbox_not_kept",
                fs = name,
                why,
                "the outbox is not as lasting as outbox.durability says"
            );
        }
    }
}
