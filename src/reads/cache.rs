//! Answers kept in memory: how long, how many, and what is never kept.
//!
//! Whether an answer is fresh is judged by the relay's clock when it is looked up; the store itself only
//! has to let go of what can be of no more use.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use hyper::StatusCode;
use moka::Expiry;
use serde::Deserialize;
use tokio::time::Instant;

use super::Settings;
use super::target::Target;
use crate::cello::Answer;
use crate::clock::Clock;
use crate::metrics::{Metrics, ReadRoute};

/// Memory of an entry besides its texts, roughly.
const OVERHEAD: usize = 256;

/// The cache.
pub(super) struct Cache {
    entries: moka::future::Cache<Target, Arc<Entry>>,
    lives: Lives,
    /// Counts what was forgotten: an answer that was asked for before must not come back after.
    epoch: AtomicU64,
    clock: Arc<dyn Clock>,
    metrics: Arc<Metrics>,
}

/// An answer and when it was asked for and received.
struct Entry {
    answer: Answer,
    asked: Instant,
    received: Instant,
    /// The user that a code's answer names.
    user: Option<Box<str>>,
}

/// An answer that may still be given.
#[derive(Clone)]
pub(super) struct Kept {
    pub(super) answer: Answer,
    pub(super) age: Duration,
    pub(super) ttl: Duration,
}

impl Kept {
    pub(super) fn is_fresh(&self) -> bool {
        self.age < self.ttl
    }
}

/// When an answer was asked for.
#[derive(Clone, Copy)]
pub(super) struct Opening {
    epoch: u64,
    asked: Instant,
}

/// How long answers live.
#[derive(Clone, Copy)]
struct Lives {
    referral_code: Life,
    active_link: Life,
    reward: Life,
}

#[derive(Clone, Copy)]
struct Life {
    ttl: Duration,
    stale_if_error: Duration,
}

impl Life {
    const NONE: Self = Self { ttl: Duration::ZERO, stale_if_error: Duration::ZERO };

    fn whole(self) -> Duration {
        self.ttl.saturating_add(self.stale_if_error)
    }
}

impl Lives {
    fn of(&self, route: ReadRoute) -> Life {
        match route {
            ReadRoute::ReferralCode => self.referral_code,
            ReadRoute::ActiveLink => self.active_link,
            ReadRoute::Reward => self.reward,
            ReadRoute::Depersonalize => Life::NONE,
        }
    }
}

/// Lets the store drop what is of no more use.
impl Expiry<Target, Arc<Entry>> for Lives {
    fn expire_after_create(&self, target: &Target, _: &Arc<Entry>, _: std::time::Instant) -> Option<Duration> {
        Some(self.of(target.route()).whole())
    }

    fn expire_after_update(
        &self,
        target: &Target,
        _: &Arc<Entry>,
        _: std::time::Instant,
        _: Option<Duration>,
    ) -> Option<Duration> {
        Some(self.of(target.route()).whole())
    }
}

/// What is read of a code's answer.
#[derive(Deserialize)]
struct Names {
    #[serde(rename = "productUserId")]
    user: Option<Box<str>>,
}

impl Cache {
    pub(super) fn new(settings: &Settings, clock: Arc<dyn Clock>, metrics: Arc<Metrics>) -> Self {
        let lives = Lives {
            referral_code: Life {
                ttl: settings.referral_code_ttl,
                stale_if_error: settings.referral_code_stale_if_error,
            },
            active_link: Life { ttl: settings.active_link_ttl, stale_if_error: settings.active_link_stale_if_error },
            reward: Life { ttl: settings.reward_ttl, ..Life::NONE },
        };
        // One bound for both: each entry weighs at least its share, so there are never too many.
        let share = settings.cache_max_bytes.div_ceil(settings.cache_max_entries.max(1));
        let weigh = move |target: &Target, entry: &Arc<Entry>| {
            let bytes = OVERHEAD + target.value().len() + entry.answer.body.len();
            u32::try_from(share.max(bytes as u64)).unwrap_or(u32::MAX)
        };
        let capacity = if settings.cache_max_entries == 0 { 0 } else { settings.cache_max_bytes };
        let entries = moka::future::Cache::builder().max_capacity(capacity).weigher(weigh).expire_after(lives).build();
        Self { entries, lives, epoch: AtomicU64::new(0), clock, metrics }
    }

    /// To be taken before an answer is asked for.
    pub(super) fn open(&self) -> Opening {
        Opening { epoch: self.epoch(), asked: self.clock.instant() }
    }

    /// Whether answers of that kind are ever kept.
    pub(super) fn keeps(&self, route: ReadRoute) -> bool {
        !self.lives.of(route).whole().is_zero()
    }

    /// An answer that is fresh, or may stand in if there is no better one.
    pub(super) async fn find(&self, target: &Target) -> Option<Kept> {
        let entry = self.entries.get(target).await?;
        let life = self.lives.of(target.route());
        let age = self.clock.instant().saturating_duration_since(entry.received);
        (age < life.whole()).then(|| Kept { answer: entry.answer.clone(), age, ttl: life.ttl })
    }

    /// Keeps an answer, if it is one to be kept; says whether. What Cello does not have any more is not kept either.
    pub(super) async fn keep(&self, target: &Target, answer: &Answer, opening: Opening) -> bool {
        let is_gone = matches!(answer.status, StatusCode::NOT_FOUND | StatusCode::GONE);
        if !self.keeps(target.route()) || !is_gone && !is_json(answer) {
            return false;
        }
        let known = self.entries.get(target).await;
        if known.is_some_and(|known| known.asked > opening.asked) || self.epoch() != opening.epoch {
            return false;
        }
        if is_gone {
            self.entries.invalidate(target).await;
            self.count().await;
            return false;
        }
        let names = serde_json::from_slice::<Names>(&answer.body).ok();
        let user = names.and_then(|names| names.user).filter(|_| target.route() == ReadRoute::ReferralCode);
        let (asked, received) = (opening.asked, self.clock.instant());
        self.entries.insert(target.clone(), Arc::new(Entry { answer: answer.clone(), asked, received, user })).await;
        // Whoever forgot in between may have looked before the entry was there.
        let forgotten = self.epoch() != opening.epoch;
        if forgotten {
            self.entries.invalidate(target).await;
        }
        self.count().await;
        !forgotten
    }

    /// Drops all that is kept of a user, and all that was asked for before now.
    pub(super) async fn forget_user(&self, user: &str) {
        self.epoch.fetch_add(1, Ordering::SeqCst);
        let is_about = |target: &Target, entry: &Entry| match target.route() {
            ReadRoute::ReferralCode => entry.user.as_deref() == Some(user),
            _ => target.value() == user,
        };
        let about: Vec<Arc<Target>> =
            self.entries.iter().filter(|(target, entry)| is_about(target, entry)).map(|(target, _)| target).collect();
        for target in about {
            self.entries.invalidate(&*target).await;
        }
        self.count().await;
    }

    fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::SeqCst)
    }

    async fn count(&self) {
        self.entries.run_pending_tasks().await;
        self.metrics.read_cache_entries.set(i64::try_from(self.entries.entry_count()).unwrap_or(i64::MAX));
    }
}

/// What Cello answers if all is well.
fn is_json(answer: &Answer) -> bool {
    answer.status == StatusCode::OK && serde_json::from_slice::<serde::de::IgnoredAny>(&answer.body).is_ok()
}
