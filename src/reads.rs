//! Reads through the relay: Cello's own answers, with the relay's token.
//!
//! ```text
//! ingress ─▶ target (path: decoded once, checked, written anew) ─▶ cache ─▶ flight ─▶ upstream ─▶ cello
//!                                                                   fresh?   one for   breaker,
//!                                                                            many      turn, deadline
//! ```
//!
//! Cello's status, body and content type come back unchanged. What fails on the way is said in Cello's
//! shape, `{"message", "reason"}`, with 502, 503 or 504; where the settings allow it an old answer stands
//! in. Only a 200 with JSON is ever kept. Nothing here names a user in a log or a metric.

mod breaker;
mod cache;
mod flight;
#[cfg(fuzzing)]
pub mod fuzzing;
mod reply;
mod target;
mod upstream;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use hyper::header::{CACHE_CONTROL, HeaderMap};
use hyper::{Method, Request, StatusCode};

use crate::cello::Cello;
use crate::clock::Clock;
use crate::metrics::{Code, Metrics, ReadRoute};
pub use breaker::OpenSince;
use cache::{Cache, Kept};
use flight::{Flights, Landed};
pub use reply::Reply;
use reply::{CacheStatus, Forwarded, Instead};
use target::Target;
use upstream::Upstream;

/// `reads.*`
#[derive(Clone, Debug)]
pub struct Settings {
    /// Time for a read, waiting for its turn and for a token included.
    pub timeout: Duration,
    /// Reads sent to Cello at the same time.
    pub concurrency: usize,
    /// How long a user's active link is given again.
    pub active_link_ttl: Duration,
    /// How long what is known of a code is given again.
    pub referral_code_ttl: Duration,
    /// How long a new user's reward is given again.
    pub reward_ttl: Duration,
    /// How much longer an old link stands in when Cello fails.
    pub active_link_stale_if_error: Duration,
    /// The same for codes.
    pub referral_code_stale_if_error: Duration,
    /// Answers kept; 0: none.
    pub cache_max_entries: u64,
    /// Memory for them.
    pub cache_max_bytes: u64,
    /// Whether `depersonalize` is passed on.
    pub allow_depersonalize: bool,
}

/// Answers reads. Cheap to clone; clones share cache and limits.
#[derive(Clone)]
pub struct Reads {
    shared: Arc<Shared>,
}

struct Shared {
    allow_depersonalize: bool,
    upstream: Upstream,
    cache: Cache,
    flights: Arc<Flights>,
    clock: Arc<dyn Clock>,
    metrics: Arc<Metrics>,
}

impl Reads {
    /// Reads through this client, which go by the breaker that is told of by `open_since`. Sends nothing yet.
    #[must_use]
    pub fn new(
        settings: Settings,
        cello: Arc<Cello>,
        open_since: OpenSince,
        clock: Arc<dyn Clock>,
        metrics: Arc<Metrics>,
    ) -> Self {
        let shared = Shared {
            allow_depersonalize: settings.allow_depersonalize,
            upstream: Upstream::new(cello, open_since, settings.concurrency, settings.timeout),
            cache: Cache::new(&settings, clock.clone(), metrics.clone()),
            flights: Arc::default(),
            clock,
            metrics,
        };
        Self { shared: Arc::new(shared) }
    }

    /// Answers one read. Only its method, path and `Cache-Control` are looked at.
    pub fn answer(&self, request: Request<()>) -> Pin<Box<dyn Future<Output = Reply> + Send>> {
        let shared = Arc::clone(&self.shared);
        Box::pin(async move { shared.answer(&request).await })
    }
}

impl Shared {
    /// Answers one read and counts it.
    async fn answer(self: &Arc<Self>, request: &Request<()>) -> Reply {
        let started = self.clock.instant();
        let Some((route, segment)) = target::route(request.uri().path()) else {
            return reply::refused(StatusCode::NOT_FOUND, "no such path");
        };
        let reply = match Target::check(route, segment) {
            Ok(target) => self.dispatch(target, request).await,
            Err(wrong) => reply::refused(wrong.status, wrong.message),
        };
        self.metrics.read_requests.with(route, Code::of(reply.status())).inc();
        self.metrics.read_duration.observe(self.clock.instant().duration_since(started).as_secs_f64());
        reply
    }

    async fn dispatch(self: &Arc<Self>, target: Target, request: &Request<()>) -> Reply {
        match (target.route(), request.method()) {
            (ReadRoute::Depersonalize, &Method::POST) => self.depersonalize(target).await,
            (ReadRoute::Depersonalize, _) => {
                reply::refused(StatusCode::METHOD_NOT_ALLOWED, "this path answers POST only")
            }
            (_, &Method::GET) => self.read(target, skips_cache(request.headers())).await,
            _ => reply::refused(StatusCode::METHOD_NOT_ALLOWED, "this path answers GET, HEAD only"),
        }
    }

    async fn read(self: &Arc<Self>, target: Target, skips_cache: bool) -> Reply {
        if skips_cache {
            // Not shared: what is under way may have been asked before the caller's reason to ask anew.
            let landed = flight::alone(Arc::clone(self).fetch(target.clone())).await;
            return self.reply(&target, landed, Forwarded::Request, false).await;
        }
        let route = target.route();
        if self.cache.keeps(route) {
            self.metrics.read_cache_requests.with(route).inc();
        }
        let found = self.cache.find(&target).await;
        let forwarded = if found.is_some() { Forwarded::Stale } else { Forwarded::Miss };
        let fetch = || Arc::clone(self).fetch_unless_kept(target.clone());
        match found {
            Some(kept) if kept.is_fresh() => {
                self.metrics.read_cache_hits.with(route).inc();
                return reply::kept(kept, Instead::OfNothing);
            }
            Some(kept) if self.upstream.breaker.is_in_doubt() => {
                if self.upstream.breaker.wants_trial() {
                    // Nobody waits for it: it finds out whether Cello is back, and renews what is kept.
                    self.flights.join(&target, fetch);
                }
                self.metrics.read_stale_served.with(route).inc();
                return reply::kept(kept, Instead::OfAsking);
            }
            _ => {}
        }
        let (landing, shared) = self.flights.join(&target, fetch);
        if shared {
            self.metrics.read_coalesced.inc();
        }
        self.reply(&target, flight::wait(landing).await, forwarded, shared).await
    }

    /// What came, or an old answer where that is better.
    async fn reply(&self, target: &Target, landed: Landed, forwarded: Forwarded, shared: bool) -> Reply {
        let failed = match &landed {
            Landed::Kept(_) => None,
            Landed::Fetched { answer, .. } => answer.status.is_server_error().then_some(answer.status),
            Landed::Failed(failure) => Some(failure.status()),
        };
        if let Some(status) = failed
            && forwarded != Forwarded::Request
            && let Some(kept) = self.cache.find(target).await
        {
            // Another read may have brought it meanwhile.
            if kept.is_fresh() {
                self.metrics.read_cache_hits.with(target.route()).inc();
                return reply::kept(kept, Instead::OfNothing);
            }
            self.metrics.read_stale_served.with(target.route()).inc();
            return reply::kept(kept, Instead::OfAnswer(status));
        }
        let status = |stored| CacheStatus { forwarded, stored, collapsed: shared };
        match landed {
            Landed::Kept(kept) => reply::kept(kept, Instead::OfNothing),
            Landed::Fetched { answer, stored } => reply::passed_on(answer, status(stored)),
            Landed::Failed(failure) => reply::failed(failure, status(false)),
        }
    }

    /// Another flight may have landed between this read's look into the cache and its own departure.
    async fn fetch_unless_kept(self: Arc<Self>, target: Target) -> Landed {
        match self.cache.find(&target).await.filter(Kept::is_fresh) {
            Some(kept) => Landed::Kept(kept),
            None => self.fetch(target).await,
        }
    }

    async fn fetch(self: Arc<Self>, target: Target) -> Landed {
        let opening = self.cache.open();
        match self.upstream.get(&target).await {
            Ok(answer) => {
                let stored = self.cache.keep(&target, &answer, opening).await;
                Landed::Fetched { answer, stored }
            }
            Err(failure) => Landed::Failed(failure),
        }
    }

    /// Passes it on, once. It is finished also if the caller leaves.
    async fn depersonalize(self: &Arc<Self>, target: Target) -> Reply {
        if !self.allow_depersonalize {
            let message = "depersonalize is switched off (reads.allow_depersonalize)";
            return reply::refused(StatusCode::FORBIDDEN, message);
        }
        let shared = Arc::clone(self);
        let landed = flight::alone(async move {
            let sent = shared.upstream.post_once(&target).await;
            // Also after a failure: Cello may have done it all the same.
            shared.flights.forget();
            shared.cache.forget_user(target.value()).await;
            match sent {
                Ok(answer) => Landed::Fetched { answer, stored: false },
                Err(failure) => Landed::Failed(failure),
            }
        });
        let status = CacheStatus { forwarded: Forwarded::Method, stored: false, collapsed: false };
        match landed.await {
            Landed::Fetched { answer, .. } => reply::passed_on(answer, status),
            Landed::Failed(failure) => reply::failed(failure, status),
            Landed::Kept(kept) => reply::kept(kept, Instead::OfNothing),
        }
    }
}

/// Whether the app wants Cello's own answer now.
fn skips_cache(headers: &HeaderMap) -> bool {
    let values = headers.get_all(CACHE_CONTROL).iter().filter_map(|value| value.to_str().ok());
    values
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .any(|directive| ["no-cache", "max-age=0"].iter().any(|wanted| directive.eq_ignore_ascii_case(wanted)))
}
