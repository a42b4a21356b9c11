//! What the handle and the store's threads share.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{Builder, JoinHandle};

use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;

use super::inbox::Inbox;
use super::reader::Question;
use super::sql::Sql;
use crate::outbox::Stats;

/// What others see of the writer's state, as of its last turn.
#[derive(Clone, Debug, Default)]
pub(super) struct Snapshot {
    pub(super) stats: Stats,
    /// Sequences in flight, ascending.
    pub(super) flying: Vec<u64>,
}

/// See the module.
pub(super) struct Shared {
    pub(super) inbox: Inbox,
    pub(super) snapshot: Mutex<Snapshot>,
    pub(super) ignore_backoff: AtomicBool,
    /// Changes when the file was opened anew: readers then do so too.
    pub(super) generation: AtomicU64,
    /// The generation in which the reader met damage; none if this is not the present one.
    pub(super) damaged: AtomicU64,
    /// The same of damage at the beginning of the file, which keeps anybody from opening it.
    pub(super) headless: AtomicU64,
    /// The reader's connection and the generation it is of; held while a question is answered, and by the writer
    /// while it opens the file anew.
    pub(super) looks: Mutex<Option<(u64, Sql)>>,
    /// When the writer last moved; `None` while it waits for work.
    moved: Mutex<Option<Instant>>,
    /// The way to the reader, until the store is closed.
    questions: Mutex<Option<mpsc::Sender<Question>>>,
    /// Rung when one of the threads has panicked.
    broken: Notify,
}

impl Shared {
    pub(super) fn new(inbox: Inbox, questions: mpsc::Sender<Question>) -> Self {
        Self {
            inbox,
            snapshot: Mutex::default(),
            ignore_backoff: AtomicBool::new(false),
            generation: AtomicU64::new(0),
            damaged: AtomicU64::new(u64::MAX),
            headless: AtomicU64::new(u64::MAX),
            looks: Mutex::default(),
            moved: Mutex::default(),
            questions: Mutex::new(Some(questions)),
            broken: Notify::new(),
        }
    }

    /// Starts a thread of the store. There is none that it can do without: see [`Shared::broken`].
    pub(super) fn start(
        self: &Arc<Self>,
        name: &str,
        run: impl FnOnce() + Send + 'static,
    ) -> io::Result<JoinHandle<()>> {
        let shared = Arc::clone(self);
        Builder::new().name(name.to_owned()).spawn(move || {
            // The panic hook has reported it, and nobody uses what it left half done.
            if catch_unwind(AssertUnwindSafe(run)).is_err() {
                shared.broken.notify_one();
            }
        })
    }

    /// Resolves once a thread of the store has panicked. One waits for it.
    pub(super) async fn broken(&self) {
        self.broken.notified().await;
    }

    pub(super) fn beat(&self, now: Instant) {
        *self.moved.lock().unwrap_or_else(PoisonError::into_inner) = Some(now);
    }

    pub(super) fn beat_waiting(&self) {
        *self.moved.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// When the writer moved last; `None` while it waits for work.
    pub(super) fn moved(&self) -> Option<Instant> {
        *self.moved.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The way to the reader; `None` once closed.
    pub(super) fn reader(&self) -> Option<mpsc::Sender<Question>> {
        self.questions.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Lets the reader's thread end after what it was asked already.
    pub(super) fn stop_reader(&self) {
        self.questions.lock().unwrap_or_else(PoisonError::into_inner).take();
    }
}
