//! Syncs that end when a test says so.

use super::*;

/// The thread's end of a syncer that has none.
pub(in super::super) struct Held {
    todo: Receiver<Job>,
    done: SyncSender<Synced>,
}

impl Syncer {
    /// A syncer, and what ends its syncs.
    pub(in super::super) fn held() -> (Self, Held) {
        let (jobs, todo) = sync_channel(1);
        let (done, results) = sync_channel(1);
        (Self { jobs: Some(jobs), results, thread: None, since: None, took: Arc::default() }, Held { todo, done })
    }
}

impl Held {
    /// Whether a sync has begun since the last one ended. If so, it ends well, or fails.
    pub(in super::super) fn end(&self, is_well: bool) -> bool {
        let Ok(Job { commit, answers }) = self.todo.try_recv() else { return false };
        let fault = if is_well { commit.make_durable().err() } else { Some(sync_fault(&io::ErrorKind::Other.into())) };
        let (result, answers) = match fault {
            None => (Ok(()), answers),
            Some(fault) => (Err((fault, answers)), Vec::new()),
        };
        self.done.send(result).unwrap();
        answers.into_iter().for_each(Answer::give);
        true
    }
}
