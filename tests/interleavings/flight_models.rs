//! Reads that share a flight.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};

use shuttle::future::{block_on, yield_now};
use shuttle::thread;

use crate::cache::Kept;
use crate::flight::{Flights, Landed, wait};
use crate::target::Target;
use crate::{cello, in_every_order, join};

/// What has happened: nothing; Cello's data have changed; and the flights of before were forgotten.
const BEFORE: usize = 0;
const CHANGED: usize = 1;
const FORGOTTEN: usize = 2;

/// Cello, as flights see it.
#[derive(Default)]
struct World {
    flights: Arc<Flights>,
    phase: AtomicUsize,
    departed: AtomicUsize,
    /// By the phase in which they departed.
    in_the_air: [AtomicUsize; 3],
}

impl World {
    async fn fly(self: Arc<Self>, departed_in: usize) -> Landed {
        let saw = self.phase.load(SeqCst);
        let others = self.in_the_air[departed_in].fetch_add(1, SeqCst);
        // While they are being forgotten there may be an old one and a new one.
        assert!(others == 0 || departed_in == CHANGED, "one flight for all who ask at the same time");
        let flight = self.departed.fetch_add(1, SeqCst);
        yield_now().await;
        self.in_the_air[departed_in].fetch_sub(1, SeqCst);
        Landed::Fetched { answer: cello::Answer { flight, saw }, stored: false }
    }

    /// A read, from joining or starting a flight to its answer.
    fn read(self: &Arc<Self>) -> cello::Answer {
        let (landing, _) =
            self.flights.join(&Target("/referral-codes/a"), || Arc::clone(self).fly(self.phase.load(SeqCst)));
        match block_on(wait(landing)) {
            Landed::Fetched { answer, .. } => answer,
            Landed::Kept(Kept) | Landed::Failed(_) => unreachable!("Cello answers here"),
        }
    }
}

fn readers<T: Send + 'static>(
    world: &Arc<World>,
    read: impl Fn(&Arc<World>) -> T + Copy + Send + 'static,
) -> Vec<thread::JoinHandle<T>> {
    let one = |_| {
        let world = Arc::clone(world);
        thread::spawn(move || read(&world))
    };
    (0..3).map(one).collect()
}

#[test]
fn who_asks_at_the_same_time_shares_a_flight_and_who_asks_after_its_answer_gets_a_newer_one() {
    in_every_order(|| {
        let world = Arc::new(World::default());
        join(readers(&world, |world| {
            let (first, second) = (world.read(), world.read());
            assert!(first.flight < second.flight, "the answer of a flight that had landed");
        }));
    });
}

#[test]
fn a_flight_lands_for_others_when_who_started_it_has_left() {
    in_every_order(|| {
        let world = Arc::new(World::default());
        let left = Arc::new(AtomicBool::new(false));
        let (theirs, leaves) = (Arc::clone(&world), Arc::clone(&left));
        let starter = thread::spawn(move || {
            let flying = Arc::clone(&theirs);
            drop(theirs.flights.join(&Target("/referral-codes/a"), || flying.fly(BEFORE)));
            leaves.store(true, SeqCst);
        });
        join(readers(&world, World::read));
        join(vec![starter]);
        assert!(left.load(SeqCst));
    });
}

#[test]
fn after_a_change_nobody_is_given_what_was_fetched_before_and_a_late_flight_disturbs_no_newer_one() {
    in_every_order(|| {
        let world = Arc::new(World::default());
        let others = readers(&world, |world| {
            world.read();
            world.read();
        });
        world.phase.store(CHANGED, SeqCst);
        world.flights.forget();
        world.phase.store(FORGOTTEN, SeqCst);
        assert_ne!(world.read().saw, BEFORE);
        join(others);
        assert_ne!(world.read().saw, BEFORE);
    });
}
