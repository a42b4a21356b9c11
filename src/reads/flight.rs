//! One request to Cello for all who ask for the same at the same time.
//!
//! A flight is a task of its own, so that it lands also when the reader who started it has left. How
//! many there are is bounded by [`super::upstream`], how long each takes by its deadline. Tested in
//! `tests/interleavings/flight_models.rs`.

use std::collections::HashMap;
use std::future::Future;
use std::sync::{Arc, PoisonError};

use tokio::sync::watch;

use super::cache::Kept;
use super::target::Target;
use super::upstream::Failure;
use crate::cello::Answer;
use crate::sync::{Mutex, MutexGuard, spawn};

/// How a flight ended.
#[derive(Clone)]
pub(super) enum Landed {
    /// Cello answered.
    Fetched {
        answer: Answer,
        /// The cache took it.
        stored: bool,
    },
    /// The cache had it by then.
    Kept(Kept),
    /// No answer of Cello's can be given.
    Failed(Failure),
}

/// Where a flight's end is told.
pub(super) type Landing = watch::Receiver<Option<Landed>>;

/// The flights under way.
#[derive(Default)]
pub(super) struct Flights {
    board: Mutex<Board>,
}

#[derive(Default)]
struct Board {
    under_way: HashMap<Target, (u64, Landing)>,
    /// Tells flights to the same target apart.
    last: u64,
}

impl Flights {
    /// Takes part in the flight to `target`, which is started with `fetch` if there is none; says
    /// whether it is another reader's.
    pub(super) fn join<F>(self: &Arc<Self>, target: &Target, fetch: impl FnOnce() -> F) -> (Landing, bool)
    where
        F: Future<Output = Landed> + Send + 'static,
    {
        let mut board = self.board();
        let (landing, shared) = match board.under_way.get(target) {
            Some((_, landing)) => (landing.clone(), true),
            None => (self.depart(&mut board, target, fetch()), false),
        };
        (landing, shared)
    }

    fn depart(
        self: &Arc<Self>,
        board: &mut Board,
        target: &Target,
        fetch: impl Future<Output = Landed> + Send + 'static,
    ) -> Landing {
        board.last += 1;
        let entry = OnBoard { flights: Arc::clone(self), target: target.clone(), number: board.last };
        let (land, landing) = watch::channel(None);
        board.under_way.insert(target.clone(), (board.last, landing.clone()));
        spawn(async move {
            let landed = fetch.await;
            // First: who comes now asks the cache, or anew.
            drop(entry);
            land.send_replace(Some(landed));
        });
        landing
    }

    /// From now on nobody joins what is under way.
    pub(super) fn forget(&self) {
        self.board().under_way.clear();
    }

    fn board(&self) -> MutexGuard<'_, Board> {
        self.board.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A flight that nobody shares. It goes on also if the caller leaves.
pub(super) async fn alone(fetch: impl Future<Output = Landed> + Send + 'static) -> Landed {
    let (land, landing) = watch::channel(None);
    spawn(async move { land.send_replace(Some(fetch.await)) });
    wait(landing).await
}

/// Waits for a flight to end.
pub(super) async fn wait(mut landing: Landing) -> Landed {
    let landed = landing.wait_for(Option::is_some).await;
    let landed = landed.ok().and_then(|landed| landed.clone());
    // Carries a panic over to the request, where it is counted and answered.
    landed.expect("a flight lands unless it panics")
}

/// Takes a flight off the board, however it ends.
struct OnBoard {
    flights: Arc<Flights>,
    target: Target,
    number: u64,
}

impl Drop for OnBoard {
    fn drop(&mut self) {
        let mut board = self.flights.board();
        if board.under_way.get(&self.target).is_some_and(|(number, _)| *number == self.number) {
            board.under_way.remove(&self.target);
        }
    }
}
