//! An ingress whose reads go to a scripted Cello, and a clock that the test moves.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use cello_relay::cello::{Access, Auth, Cello, Courier, KeySource};
use cello_relay::clock::{Clock, SystemClock, Timestamp};
use cello_relay::metrics::Metrics;
use cello_relay::reads::{Reads, Settings};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::cello::upstream::{Reply, Seen, Upstream};
use crate::ingress::support::{self, Rig};
use crate::wire::Answer;

pub(crate) const LINK: &str = r#"{"activeUcc":"U1","link":"moonly.cello.so/U1"}"#;

/// Like the defaults, but so patient that only a failing test times out.
pub(crate) fn settings() -> Settings {
    Settings {
        timeout: Duration::from_secs(20),
        concurrency: 16,
        active_link_ttl: Duration::from_secs(60),
        referral_code_ttl: Duration::from_secs(5),
        reward_ttl: Duration::ZERO,
        active_link_stale_if_error: Duration::from_secs(3_600),
        referral_code_stale_if_error: Duration::ZERO,
        cache_max_entries: 10_000,
        cache_max_bytes: 8 << 20,
        allow_depersonalize: false,
    }
}

/// The machine's clock, plus what the test adds.
#[derive(Default)]
pub(crate) struct Ahead(AtomicU64);

impl Clock for Ahead {
    fn now(&self) -> Timestamp {
        SystemClock.now()
    }

    fn instant(&self) -> Instant {
        SystemClock.instant() + Duration::from_millis(self.0.load(Ordering::SeqCst))
    }
}

impl Ahead {
    /// Lets time pass.
    pub(crate) fn pass(&self, time: Duration) {
        self.0.fetch_add(time.as_millis() as u64, Ordering::SeqCst);
    }
}

pub(crate) struct World {
    upstream: Option<Upstream>,
    pub(crate) rig: Rig,
    pub(crate) client: Arc<Cello>,
    metrics: Arc<Metrics>,
    clock: Arc<Ahead>,
    breaker: watch::Sender<Option<Instant>>,
    tokens: JoinHandle<()>,
}

impl Drop for World {
    fn drop(&mut self) {
        self.tokens.abort();
    }
}

impl World {
    /// Before a Cello that gives the token `t` and answers reads by `script`.
    pub(crate) async fn script<F>(settings: Settings, script: impl Fn(Seen) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Reply> + Send + 'static,
    {
        let script = Arc::new(script);
        Self::whole_script(settings, move |seen: Seen| {
            let script = script.clone();
            async move {
                match seen.path.as_str() {
                    "/token" => Reply::token("t", 18_000),
                    _ => script(seen).await,
                }
            }
        })
        .await
    }

    /// Before a Cello that answers also `/token` by `script`.
    pub(crate) async fn whole_script<F>(settings: Settings, script: impl Fn(Seen) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Reply> + Send + 'static,
    {
        let upstream = Upstream::start(script).await;
        let mut world = Self::before(&upstream.url(), settings);
        world.upstream = Some(upstream);
        world
    }

    /// Before a Cello that has a link for everybody.
    pub(crate) async fn links() -> Self {
        Self::script(settings(), |_| async { Reply::Typed(200, "application/json", LINK.into()) }).await
    }

    pub(crate) fn before(base_url: &str, settings: Settings) -> Self {
        let (metrics, clock) = (Arc::new(Metrics::new()), Arc::new(Ahead::default()));
        let breaker = watch::Sender::default();
        let (access_key_id, secret_access_key) = ("key-1".into(), "secret-1".into());
        let auth = Auth::Keys(KeySource::Values { access_key_id, secret_access_key });
        let client = crate::cello::settings(base_url, auth);
        let client = Cello::new(client, Arc::new(SystemClock), metrics.clone()).unwrap();
        let tokens = tokio::spawn(client.clone().run());
        let reads = Reads::new(settings, client.clone(), breaker.subscribe(), clock.clone(), metrics.clone());
        let rig = Rig::with(support::settings(), Some(Arc::new(move |request| reads.answer(request))));
        Self { upstream: None, rig, client, metrics, clock, breaker, tokens }
    }

    /// The scripted Cello.
    pub(crate) fn cello(&self) -> &Upstream {
        self.upstream.as_ref().unwrap()
    }

    pub(crate) async fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)]) -> Answer {
        self.rig.ask(method, path, headers, b"").await
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.ask("GET", path, &[]).await
    }

    /// Lets time pass for the cache.
    pub(crate) fn pass(&self, time: Duration) {
        self.clock.pass(time);
    }

    /// Waits until calls can, or cannot, be authenticated.
    pub(crate) async fn access(&self, wanted: impl Fn(&Access) -> bool) {
        let mut access = self.client.access();
        let reached = tokio::time::timeout(Duration::from_secs(20), access.wait_for(wanted)).await;
        assert!(reached.is_ok(), "access is {:?}", *self.client.access().borrow());
    }

    /// The forwarder's breaker opens, or closes.
    pub(crate) fn set_breaker(&self, open: bool) {
        self.breaker.send_replace(open.then(Instant::now));
    }

    pub(crate) fn metric(&self, sample: &str) -> f64 {
        let text = self.metrics.render();
        let line = text.lines().find_map(|line| line.strip_prefix(&format!("cello_relay_{sample} ")));
        line.map_or(0.0, |value| value.parse().unwrap())
    }

    /// Waits until the metrics, or anything else, are as wanted.
    pub(crate) async fn until(&self, wanted: impl Fn(&Metrics) -> bool) {
        let reached = async {
            while !wanted(&self.metrics) {
                tokio::task::yield_now().await;
            }
        };
        let reached = tokio::time::timeout(Duration::from_secs(20), reached).await;
        assert!(reached.is_ok(), "{}", self.metrics.render());
    }
}
