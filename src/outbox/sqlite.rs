//! The embedded store: one SQLite file, one writer thread, group commit.
//!
//! | file | idea |
//! | --- | --- |
//! | `inbox` | the bounded way from async callers to the writer |
//! | `writer` | the loop: take all, one transaction, answer, hand out; failure and opening anew |
//! | `apply` | what a transaction writes for appends and settles |
//! | `decide`, `erase` | the same for operators' decisions |
//! | `hand_out`, `queue`, `gates`, `lines` | who is next, and who waits |
//! | `store`, `binding` | opening: schema, upstream, what was cut off |
//! | `recovery`, `wal`, `sense`, `unread` | damage, and what is none |
//! | `reader`, `offline`, `salvage` | looks into the file; into a damaged one |
//! | `env`, `volume`, `file_system`, `place` | limits, the directory, the disk, files that lose their names |
//! | `sql`, `row`, `words` | all SQL, every PRAGMA, what rows hold, how a body is packed |

mod apply;
mod astray;
mod binding;
mod decide;
mod env;
mod erase;
mod fault;
mod file_system;
mod gates;
mod hand_out;
mod inbox;
mod lines;
mod offline;
mod place;
mod queue;
mod reader;
mod recovery;
mod row;
mod salvage;
mod sense;
mod shared;
mod sql;
mod store;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod unread;
mod volume;
mod wal;
mod words;
mod writer;

use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use self::env::Env;
use self::fault::Fault;
use self::inbox::{Command, Decided, Decision, Inbox};
use self::reader::Question;
use self::shared::Shared;
use self::store::Failure;
use self::volume::Home;
use super::lease::Returns;
use super::{
    AppendError, Batch, Claimed, DeadGroup, DeadLetters, Detail, Erased, Filter, Lease, Listed, Outbox, Outcome,
    ReadError, Receipt, Replayed, Report, Selection, SettleError, Settled, Stats, Terms, Wait, Want,
};
use crate::clock::Clock;
use crate::event::{EventId, UserId};
use crate::metrics::Metrics;
pub use env::Seams;
pub use fault::OpenError;
pub use file_system::{FileSystem, Keeps};
pub use offline::{Offline, aside, erase_stopped, offline};
pub use salvage::Damage;

/// `outbox.*` and `idempotency.*`
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where the file is.
    pub dir: PathBuf,
    /// Live pages, WAL and reserve together.
    pub max_bytes: u64,
    /// Undelivered and dead events together; 0 is no limit.
    pub max_events: u64,
    /// What is left free on the volume.
    pub min_free_bytes: u64,
    /// Preallocated, given up when the disk is full so that deliveries can still be recorded; at most
    /// an eighth of the volume.
    pub reserve: u64,
    /// How long a delivered event is remembered; a sixty-fourth longer while there is other work.
    pub remember: Duration,
    /// How many delivered events are remembered; up to 256 more while there is other work.
    pub remember_max: u64,
    /// Dead letters are discarded so long after they died; `None` keeps them until an operator decides.
    pub dead_max_age: Option<Duration>,
    /// How long an idempotency key is remembered.
    pub key_remember: Duration,
    /// Room for idempotency keys; the oldest go first.
    pub key_max_bytes: u64,
    /// Allows NFS, SMB and CephFS.
    pub allow_network_fs: bool,
    /// The base URL this outbox belongs to.
    pub upstream: String,
    /// A send takes so long at most; by a lease that was lost one may go on until then.
    pub send_within: Duration,
}

/// Longer than anything is remembered.
const FOR_EVER: Duration = Duration::from_secs(100 * 365 * 86_400);

impl Settings {
    /// Of a store that refuses nothing for want of room and forgets nothing, wherever it is.
    #[must_use]
    pub fn keeping_all(dir: &Path, upstream: &str) -> Self {
        Self {
            dir: dir.to_path_buf(),
            max_bytes: u64::MAX / 4,
            max_events: 0,
            min_free_bytes: 0,
            reserve: 0,
            remember: FOR_EVER,
            remember_max: u64::MAX / 4,
            dead_max_age: None,
            key_remember: FOR_EVER,
            key_max_bytes: u64::MAX / 4,
            allow_network_fs: true,
            upstream: upstream.to_owned(),
            send_within: Duration::ZERO,
        }
    }
}

/// Whoever orders an erasure waits so long for what is in flight: a request and its settle, as a rule.
const LANDING: Duration = Duration::from_secs(30);
/// It looks so often whether it has landed.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// The embedded store. Dropping it without [`Outbox::close`] is like a crash: nothing is lost.
pub struct Sqlite {
    shared: Arc<Shared>,
    clock: Arc<dyn Clock>,
    file_system: FileSystem,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Sqlite {
    /// Opens or makes the outbox in `settings.dir`. Blocks for some milliseconds, whatever waits in it. Whoever calls it
    /// in a runtime uses it there.
    ///
    /// # Errors
    /// See [`OpenError`]. A damaged file is none: it is moved aside.
    pub fn open(settings: Settings, clock: Arc<dyn Clock>, metrics: Arc<Metrics>) -> Result<Self, OpenError> {
        Self::open_with(settings, clock, metrics, Seams::default())
    }

    /// The same, with randomness and failures given by the caller.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn open_with(
        settings: Settings,
        clock: Arc<dyn Clock>,
        metrics: Arc<Metrics>,
        seams: Seams,
    ) -> Result<Self, OpenError> {
        let home = Home::new(&settings.dir);
        home.create()?;
        let file_system = home.file_system()?;
        if file_system.keeps == Keeps::Remotely && !settings.allow_network_fs {
            return Err(OpenError::NetworkFs { path: settings.dir, kind: file_system.name });
        }
        let lock = home.lock()?;
        let database = home.database().to_owned();
        let shared_clock = Arc::clone(&clock);
        let mut env = Env::new(settings, clock, metrics, home, seams);
        env.measure();
        let store = match writer::open_or_quarantine(&mut env, writer::FIRST_EPOCH, None) {
            // No reason not to start: the writer goes on trying, and callers are refused meanwhile.
            Err(Failure::Fault(fault @ Fault::Full(_))) => {
                tracing::error!(
                    event = "outbox_error",
                    reason = fault.text(),
                    "the disk is full: started without the outbox"
                );
                None
            }
            opened => Some(opened.map_err(|failure| open_error(&database, failure))?),
        };
        env.restore_reserve();
        env.measure();
        let (ask, questions) = mpsc::channel(reader::QUESTIONS);
        let shared = Arc::new(Shared::new(Inbox::new(), ask));
        let nudged = Arc::downgrade(&shared);
        let returns = Returns::new(move || {
            if let Some(shared) = nudged.upgrade() {
                shared.inbox.nudge();
            }
        });
        let no_thread = |error: std::io::Error| OpenError::Io { doing: "start a thread", reason: error.to_string() };
        let writer = writer::Writer::new(env, Arc::clone(&shared), returns, store, lock).map_err(no_thread)?;
        let asked = Arc::clone(&shared);
        let threads = vec![
            shared.start("outbox-writer", move || writer.run()).map_err(no_thread)?,
            shared.start("outbox-reader", move || reader::run(database, asked, questions)).map_err(no_thread)?,
        ];
        Ok(Self { shared, clock: shared_clock, file_system, threads: Mutex::new(threads) })
    }

    /// Resolves once a bug has broken off one of the store's threads: what it was answered for is on the disk, but this
    /// process can do nothing with it any more. One waits for it.
    pub async fn broken(&self) {
        self.shared.broken().await;
    }

    /// What it lies on.
    #[must_use]
    pub fn file_system(&self) -> FileSystem {
        self.file_system
    }

    /// When the writer last moved. Waiting for work counts as moving; a disk that hangs does not.
    #[must_use]
    pub fn heartbeat(&self) -> Instant {
        self.shared.moved().unwrap_or_else(|| self.clock.instant())
    }

    /// Asks the reader.
    async fn ask<T>(
        &self,
        question: Question,
        answer: oneshot::Receiver<Result<T, ReadError>>,
    ) -> Result<T, ReadError> {
        let closed = || ReadError("it is closed".to_owned());
        let reader = self.shared.reader().ok_or_else(closed)?;
        reader.send(question).await.map_err(|_| closed())?;
        answer.await.unwrap_or_else(|_| Err(closed()))
    }

    fn decide(&self, decision: Decision, which: Selection) -> Wait<'_, Result<Decided, ReadError>> {
        let (reply, answer) = oneshot::channel();
        drop(self.shared.inbox.push(Command::Decide { decision, which, reply }));
        Box::pin(async move { answer.await.unwrap_or_else(|_| Err(ReadError("it is closed".to_owned()))) })
    }

    /// What a caller hears of an append. If nothing was answered, the inbox tells why.
    async fn receipt(&self, answer: oneshot::Receiver<Result<Receipt, AppendError>>) -> Result<Receipt, AppendError> {
        match answer.await {
            Ok(result) => result,
            Err(_) if self.shared.inbox.is_closed() => Err(AppendError::Closed),
            Err(_) => Err(AppendError::Unavailable),
        }
    }
}

fn open_error(path: &Path, failure: Failure) -> OpenError {
    let fault = match failure {
        Failure::Refused(error) => return error,
        Failure::Fault(fault) => fault,
    };
    let path = path.to_path_buf();
    match &fault {
        Fault::Broken(error) => match error.sqlite_error_code() {
            Some(rusqlite::ErrorCode::ReadOnly) => OpenError::ReadOnly { path },
            Some(rusqlite::ErrorCode::PermissionDenied) => OpenError::Permission { path },
            _ => OpenError::Io { doing: "open the outbox", reason: fault.text() },
        },
        _ => OpenError::Io { doing: "open the outbox", reason: fault.text() },
    }
}

impl Drop for Sqlite {
    fn drop(&mut self) {
        self.shared.inbox.abandon();
        self.shared.stop_reader();
        for thread in self.threads.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            // A thread that panicked was reported by the panic hook.
            drop(thread.join());
        }
    }
}

impl Outbox for Sqlite {
    fn append(&self, batch: Batch) -> Wait<'_, Result<Receipt, AppendError>> {
        let (reply, answer) = oneshot::channel();
        let inbox = &self.shared.inbox;
        // Enqueued at the call if there is room, so that it is stored even if nobody waits.
        let Some(room) = inbox.try_room(&batch) else {
            return Box::pin(async move {
                let room = inbox.wait_for_room(&batch).await.ok_or(AppendError::Closed)?;
                drop(inbox.push(Command::Append { batch, _room: room, reply }));
                self.receipt(answer).await
            });
        };
        drop(inbox.push(Command::Append { batch, _room: room, reply }));
        // A future of its own: it is the usual one, and much smaller.
        Box::pin(self.receipt(answer))
    }

    fn claim(&self, want: Want) -> Wait<'_, Vec<Claimed>> {
        let (reply, answer) = oneshot::channel();
        drop(self.shared.inbox.push(Command::Claim { want, reply }));
        Box::pin(async move { answer.await.unwrap_or_default() })
    }

    fn intend<'a>(&'a self, lease: &'a Lease) -> Wait<'a, Result<(), SettleError>> {
        let (reply, answer) = oneshot::channel();
        let (seq, epoch) = (lease.seq(), lease.epoch());
        drop(self.shared.inbox.push(Command::Intend { seq, epoch, reply }));
        Box::pin(async move { answer.await.unwrap_or(Err(SettleError::Unavailable)) })
    }

    fn settle(&self, lease: Lease, outcome: Outcome) -> Wait<'_, Result<Settled, SettleError>> {
        let (reply, answer) = oneshot::channel();
        let (seq, epoch) = lease.end();
        drop(self.shared.inbox.push(Command::Settle { seq, epoch, outcome, reply }));
        Box::pin(async move { answer.await.unwrap_or(Err(SettleError::Unavailable)) })
    }

    fn lookup(&self, id: EventId) -> Wait<'_, Result<Option<Report>, ReadError>> {
        let (reply, answer) = oneshot::channel();
        Box::pin(self.ask(Question::Lookup { id, reply }, answer))
    }

    fn stats(&self) -> Stats {
        self.shared.snapshot.lock().unwrap_or_else(PoisonError::into_inner).stats.clone()
    }

    fn ignore_backoff(&self, ignore: bool) {
        self.shared.ignore_backoff.store(ignore, Ordering::Relaxed);
        self.shared.inbox.nudge();
    }

    fn close(&self) -> Wait<'_, ()> {
        let (reply, answer) = oneshot::channel();
        drop(self.shared.inbox.push(Command::Close { reply }));
        Box::pin(async move { drop(answer.await) })
    }
}

impl DeadLetters for Sqlite {
    fn list(&self, filter: Filter, after: Option<EventId>, limit: usize) -> Wait<'_, Result<Vec<Listed>, ReadError>> {
        Box::pin(async move {
            let (mut lines, mut next) = (Vec::new(), Some(after.map_or(0, |id| id.seq() + 1)));
            // Part by part, so that a rare filter keeps no other question waiting. A full page has no next part.
            while let Some(from) = next {
                let (reply, answer) = oneshot::channel();
                let (filter, limit) = (filter.clone(), limit - lines.len());
                let found = self.ask(Question::List { filter, from, limit, reply }, answer).await?;
                lines.extend(found.lines);
                next = found.next;
            }
            Ok(lines)
        })
    }

    fn show(&self, id: EventId) -> Wait<'_, Result<Option<Detail>, ReadError>> {
        let (reply, answer) = oneshot::channel();
        Box::pin(self.ask(Question::Show { id, reply }, answer))
    }

    fn dead_groups(&self) -> Wait<'_, Result<Vec<DeadGroup>, ReadError>> {
        let (reply, answer) = oneshot::channel();
        Box::pin(self.ask(Question::Groups { reply }, answer))
    }

    fn replay(&self, which: Selection, terms: Terms) -> Wait<'_, Result<Replayed, ReadError>> {
        if terms.limit == 0 {
            return Box::pin(std::future::ready(Ok(Replayed::default())));
        }
        let decided = self.decide(Decision::Replay(terms), which);
        Box::pin(async move { Ok(decided.await?.replayed) })
    }

    fn discard(&self, which: Selection) -> Wait<'_, Result<u64, ReadError>> {
        let decided = self.decide(Decision::Discard, which);
        Box::pin(async move { Ok(decided.await?.replayed.count) })
    }

    fn erase(&self, user: UserId) -> Wait<'_, Result<Erased, ReadError>> {
        Box::pin(async move {
            let all = Selection::Matching(Filter::default());
            let mut pass = self.decide(Decision::Erase(user.clone()), all).await?;
            let mut erased = pass.erased;
            let give_up_at = Instant::now() + LANDING;
            while !pass.flying.is_empty() && Instant::now() < give_up_at && !self.shared.inbox.is_closed() {
                tokio::time::sleep(LOOK_AGAIN).await;
                pass = self.decide(Decision::Erase(user.clone()), Selection::Ids(pass.flying)).await?;
                erased.add(pass.erased);
            }
            Ok(erased)
        })
    }
}
