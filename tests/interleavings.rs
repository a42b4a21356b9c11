//! Threads that come between each other at every place they can: the inbox of the store's writer, leases that are
//! dropped, and reads that share a flight.
//!
//! The files are the relay's own, compiled here with locks and tasks of `shuttle`, which runs one thread at a time
//! and chooses at each step who goes on: thousands of orders, and not those of one machine's luck. A long wait never
//! times out here, so a wake-up that is lost is a deadlock, and fails. What a file needs of its neighbours and what
//! plays no part is stood in for. A failure prints its schedule: `shuttle::replay` goes through it again.

#![allow(clippy::expect_used, missing_docs)]
#![allow(dead_code, unreachable_pub, reason = "not all of the files is used here")]

#[path = "../src/reads/flight.rs"]
mod flight;
#[path = "../src/outbox/sqlite/inbox.rs"]
mod inbox;
#[path = "../src/outbox/lease.rs"]
mod lease;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use cello_relay::outbox::{AppendError, Batch, Outcome, Receipt, SettleError, Settled, Want};
use shuttle::future::{block_on, yield_now};
use shuttle::thread;
use tokio::sync::oneshot;

use cache::Kept;
use flight::{Flights, Landed, wait};
use inbox::{Command, GATHER, GATHER_FOR, Inbox, LINGER_FOR, Wanted, answer};
use lease::{Lease, Returns};
use target::Target;

pub use cello_relay::{event, outbox};

mod sync {
    use std::cell::Cell;
    use std::ops::Add;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
    use std::time::Duration;

    pub(crate) use shuttle::future::spawn;
    use shuttle::sync::LockResult;
    pub(crate) use shuttle::sync::{Mutex, MutexGuard};

    thread_local! {
        /// A model runs in one real thread.
        static NOW: Cell<Duration> = const { Cell::new(Duration::ZERO) };
        static RINGS: Cell<usize> = const { Cell::new(0) };
    }

    /// How often a bell was rung, not counting those of time.
    pub(crate) fn rings() -> usize {
        RINGS.get()
    }

    /// A time that passes only where somebody waits for it.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
    pub(crate) struct Instant(Duration);

    impl Instant {
        pub(crate) fn now() -> Self {
            Self(NOW.get())
        }

        pub(crate) fn elapsed(&self) -> Duration {
            NOW.get() - self.0
        }

        pub(crate) fn saturating_duration_since(&self, earlier: Self) -> Duration {
            self.0.saturating_sub(earlier.0)
        }
    }

    /// Lets time pass.
    pub(crate) fn pass(time: Duration) {
        NOW.set(NOW.get() + time);
    }

    impl Add<Duration> for Instant {
        type Output = Self;

        fn add(self, wait: Duration) -> Self {
            Self(self.0 + wait)
        }
    }

    /// A bell whose short waits end by themselves, whenever the scheduler likes.
    pub(crate) struct Condvar(Arc<shuttle::sync::Condvar>);

    impl Condvar {
        pub(crate) fn new() -> Self {
            Self(Arc::default())
        }

        pub(crate) fn notify_one(&self) {
            RINGS.set(RINGS.get() + 1);
            self.0.notify_one();
        }

        pub(crate) fn wait_timeout<'a, T>(
            &self,
            guard: MutexGuard<'a, T>,
            patience: Duration,
        ) -> LockResult<(MutexGuard<'a, T>, ())> {
            let ended = Arc::new(AtomicBool::new(patience >= Duration::from_secs(1)));
            if !ended.load(SeqCst) {
                let (bell, ended, at) = (Arc::clone(&self.0), Arc::clone(&ended), NOW.get() + patience);
                shuttle::thread::spawn(move || {
                    NOW.set(NOW.get().max(at));
                    // More than once: the first may come before the wait has begun.
                    while !ended.load(SeqCst) {
                        bell.notify_all();
                        shuttle::thread::yield_now();
                    }
                });
            }
            let guard = self.0.wait(guard).expect("no panic");
            ended.store(true, SeqCst);
            Ok((guard, ()))
        }
    }
}

mod row {
    /// So large that the inbox has room for one only.
    pub(crate) fn event_bytes(_: &cello_relay::event::Event) -> u64 {
        1_200 * 1024
    }
}

mod cello {
    /// Which flight brought it, and what it saw.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(crate) struct Answer {
        pub(crate) flight: usize,
        pub(crate) saw: usize,
    }
}

mod cache {
    #[derive(Clone, Debug)]
    pub(crate) struct Kept;
}

mod target {
    #[derive(Clone, Debug, PartialEq, Eq, Hash)]
    pub(crate) struct Target(pub(crate) &'static str);
}

mod upstream {
    #[derive(Clone, Debug)]
    pub(crate) struct Failure;
}

/// Many orders at random, and many in which few steps are out of turn, where most faults are.
fn in_every_order(model: impl Fn() + Send + Sync + Copy + 'static) {
    shuttle::check_random(model, 3_000);
    shuttle::check_pct(model, 3_000, 3);
}

/// What an idle writer waits for; no test lasts so long.
const IDLE: Wanted =
    Wanted { commands: 1, claims: true, company: LINGER_FOR, expects: false, within: Duration::from_secs(3600) };

type Reply = oneshot::Receiver<Result<(), SettleError>>;

/// A command that is known by its number.
fn numbered(number: u64) -> (Command, Reply) {
    let (reply, answer) = oneshot::channel();
    (Command::Intend { seq: number, epoch: 0, reply }, answer)
}

/// A delivery that is known by its number.
fn delivery(number: u64) -> (Command, oneshot::Receiver<Result<Settled, SettleError>>) {
    let (reply, answer) = oneshot::channel();
    let outcome = Outcome::Delivered { request_id: None };
    (Command::Settle { seq: number, epoch: 0, outcome, reply }, answer)
}

/// A batch that takes most of the room.
fn batch() -> Batch {
    let event = br#"{"eventName":"ReferralUpdated","payload":{"ucc":"a","newUserId":"b"}}"#;
    let event = event::read(event, event::Checks::Off).expect("an event").event;
    Batch { events: vec![event], key: None }
}

/// Brings such a batch; `None` if it is too late for that.
async fn append(inbox: &Inbox) -> Option<oneshot::Receiver<Result<Receipt, AppendError>>> {
    let batch = batch();
    let _room = match inbox.try_room(&batch) {
        Some(room) => room,
        None => inbox.wait_for_room(&batch).await?,
    };
    let (reply, answer) = oneshot::channel();
    inbox.push(Command::Append { batch, _room, reply }).is_ok().then_some(answer)
}

/// The writer's loop: answers all it takes, until the inbox is closed or abandoned. The numbers, in the order taken.
fn write(inbox: &Inbox, wanted: Wanted) -> Vec<u64> {
    let (mut commands, mut taken, mut closed) = (Vec::new(), Vec::new(), false);
    while !closed {
        inbox.take(wanted, &mut commands);
        if inbox.is_abandoned() {
            return taken;
        }
        let is_last = |command: &Command| matches!(command, Command::Close { .. });
        let after = commands.iter().skip_while(|command| !is_last(command)).skip(1);
        assert!(
            after.into_iter().all(|command| matches!(command, Command::Settle { .. })),
            "nothing comes after the close"
        );
        for command in commands.drain(..) {
            match command {
                Command::Settle { seq, reply, .. } => {
                    taken.push(seq);
                    answer(reply, Ok(Settled::Done));
                }
                Command::Intend { seq, reply, .. } => {
                    taken.push(seq);
                    answer(reply, Ok(()));
                }
                Command::Append { reply, .. } => answer(reply, Err(AppendError::Unavailable)),
                Command::Close { reply } => {
                    closed = true;
                    answer(reply, ());
                }
                _ => unreachable!("nobody asks for that here"),
            }
        }
    }
    taken
}

/// An inbox, and its writer at work.
fn with_writer() -> (Arc<Inbox>, thread::JoinHandle<Vec<u64>>) {
    with_writer_that_wants(IDLE)
}

fn with_writer_that_wants(wanted: Wanted) -> (Arc<Inbox>, thread::JoinHandle<Vec<u64>>) {
    let inbox = Arc::new(Inbox::new());
    let writers = Arc::clone(&inbox);
    (inbox, thread::spawn(move || write(&writers, wanted)))
}

fn close(inbox: &Inbox) {
    let (reply, closed) = oneshot::channel();
    assert!(inbox.push(Command::Close { reply }).is_ok());
    block_on(closed).expect("the close is answered");
}

/// Runs `call` in three threads with numbers of their own.
fn three<T: Send + 'static>(
    inbox: &Arc<Inbox>,
    call: impl Fn(&Inbox, u64) -> T + Copy + Send + 'static,
) -> Vec<thread::JoinHandle<T>> {
    let one = |number: u64| {
        let inbox = Arc::clone(inbox);
        thread::spawn(move || call(&inbox, number * 10))
    };
    (1..=3).map(one).collect()
}

fn join<T>(threads: Vec<thread::JoinHandle<T>>) -> Vec<T> {
    threads.into_iter().map(|thread| thread.join().expect("no panic")).collect()
}

#[test]
fn the_writer_sleeps_through_no_command() {
    in_every_order(|| {
        let (inbox, writer) = with_writer();
        let callers = three(&inbox, |inbox, number| {
            for number in number..number + 2 {
                let (command, answer) = numbered(number);
                assert!(inbox.push(command).is_ok());
                block_on(answer).expect("an answer").expect("done");
            }
        });
        inbox.nudge();
        join(callers);
        close(&inbox);
        let mut taken = writer.join().expect("no panic");
        taken.sort_unstable();
        assert_eq!(taken, [10, 11, 20, 21, 30, 31], "each once");
    });
}

#[test]
fn a_delivery_waits_for_company_but_not_for_ever() {
    in_every_order(|| {
        let (inbox, writer) = with_writer();
        let callers = three(&inbox, |inbox, number| {
            for number in number..number + 2 {
                let (command, answer) = delivery(number);
                assert!(inbox.push(command).is_ok());
                block_on(answer).expect("an answer").expect("done");
            }
        });
        // Commands come between, and take no delivery with them before its time.
        let (command, answer) = numbered(0);
        assert!(inbox.push(command).is_ok());
        block_on(answer).expect("an answer").expect("done");
        join(callers);
        close(&inbox);
        let mut taken = writer.join().expect("no panic");
        taken.sort_unstable();
        assert_eq!(taken, [0, 10, 11, 20, 21, 30, 31], "each once");
    });
}

#[test]
fn many_deliveries_and_those_that_nobody_gathers_wait_for_no_time_to_pass() {
    in_every_order(|| {
        let start = sync::Instant::now();
        let (inbox, writer) = with_writer_that_wants(Wanted { company: Duration::ZERO, ..IDLE });
        let callers = three(&inbox, |inbox, number| {
            let (command, answer) = delivery(number);
            assert!(inbox.push(command).is_ok());
            block_on(answer).expect("an answer").expect("done");
        });
        join(callers);
        close(&inbox);
        writer.join().expect("no panic");
        assert_eq!(start.elapsed(), Duration::ZERO);
    });
    let many = || {
        let inbox = Inbox::new();
        let answers: Vec<_> = (0..GATHER as u64).map(|number| (inbox.push(delivery(number).0), number)).collect();
        let mut commands = Vec::new();
        inbox.take(Wanted { within: Duration::ZERO, ..IDLE }, &mut commands);
        assert_eq!(commands.len(), answers.len());
    };
    shuttle::check_random(many, 1);
}

#[test]
fn a_delivery_goes_along_with_a_commit_that_is_due_anyway_and_waits_longer_where_there_is_none() {
    let model = || {
        let inbox = Inbox::new();
        let bring = |command: Command| assert!(inbox.push(command).is_ok());
        let take = |company: Duration| {
            let mut commands = Vec::new();
            inbox.take(Wanted { company, within: Duration::ZERO, ..IDLE }, &mut commands);
            let number = |command: &Command| match command {
                Command::Settle { seq, .. } | Command::Intend { seq, .. } => *seq,
                _ => unreachable!("nobody asks for that here"),
            };
            commands.iter().map(number).collect::<Vec<_>>()
        };
        bring(delivery(1).0);
        bring(numbered(2).0);
        assert_eq!(take(LINGER_FOR), [2], "it has just come");
        sync::pass(GATHER_FOR);
        assert!(take(LINGER_FOR).is_empty(), "it would have a commit of its own");
        bring(numbered(3).0);
        assert_eq!(take(LINGER_FOR), [3, 1]);
        bring(delivery(4).0);
        bring(numbered(6).0);
        assert_eq!(take(LINGER_FOR), [6], "the wait of the next one begins anew");
        sync::pass(GATHER_FOR);
        assert_eq!(take(GATHER_FOR), [4], "the user's next event waits");
        bring(delivery(5).0);
        sync::pass(LINGER_FOR);
        assert_eq!(take(LINGER_FOR), [5]);
    };
    shuttle::check_random(model, 1);
}

#[test]
fn a_delivery_that_is_expected_is_found_in_time_and_wakes_the_writer_only_from_a_longer_wait() {
    in_every_order(|| {
        let (start, rung) = (sync::Instant::now(), sync::rings());
        let inbox = Arc::new(Inbox::new());
        let brings = Arc::clone(&inbox);
        let caller = thread::spawn(move || {
            assert!(brings.push(delivery(1).0).is_ok());
            sync::Instant::now()
        });
        let mut commands = Vec::new();
        inbox.take(Wanted { expects: true, ..IDLE }, &mut commands);
        let brought = caller.join().expect("no panic");
        assert_eq!(commands.len(), 1);
        assert!(brought.elapsed() <= LINGER_FOR);
        let looks_at = start + LINGER_FOR;
        assert!(sync::rings() == rung || brought >= looks_at, "it would have looked by itself");
    });
}

#[test]
fn a_writer_that_syncs_is_woken_for_several_commands_or_by_a_nudge() {
    in_every_order(|| {
        let (inbox, writer) = with_writer_that_wants(Wanted { commands: 2, ..IDLE });
        let callers = three(&inbox, |inbox, number| {
            let (command, answer) = numbered(number);
            assert!(inbox.push(command).is_ok());
            answer
        });
        let answers = join(callers);
        // As when the sync is done: one of the three may still be there.
        inbox.nudge();
        for answer in answers {
            block_on(answer).expect("an answer").expect("done");
        }
        inbox.abandon();
        writer.join().expect("no panic");
    });
}

#[test]
fn a_claim_that_would_get_nothing_wakes_nobody_and_is_taken_with_what_comes_next() {
    in_every_order(|| {
        let inbox = Arc::new(Inbox::new());
        let brings = Arc::clone(&inbox);
        let caller = thread::spawn(move || {
            let (reply, _) = oneshot::channel();
            assert!(brings.push(Command::Claim { want: Want { max: 1, rotate: false }, reply }).is_ok());
            assert!(brings.push(numbered(1).0).is_ok());
        });
        let mut commands = Vec::new();
        inbox.take(Wanted { claims: false, ..IDLE }, &mut commands);
        assert!(matches!(commands[..], [Command::Intend { .. }, Command::Claim { .. }]), "both at once");
        caller.join().expect("no panic");
        // One that might get something is reason enough.
        let (reply, _) = oneshot::channel();
        assert!(inbox.push(Command::Claim { want: Want { max: 1, rotate: false }, reply }).is_ok());
        inbox.take(IDLE, &mut commands);
        assert_eq!(commands.len(), 3);
    });
}

#[test]
fn commands_of_one_caller_are_taken_in_their_order() {
    in_every_order(|| {
        let (inbox, writer) = with_writer();
        let callers = three(&inbox, |inbox, number| {
            for number in number..number + 3 {
                assert!(inbox.push(numbered(number).0).is_ok());
            }
        });
        join(callers);
        close(&inbox);
        let taken = writer.join().expect("no panic");
        assert_eq!(taken.len(), 9);
        for caller in 1..=3 {
            let its: Vec<u64> = taken.iter().copied().filter(|number| number / 10 == caller).collect();
            assert!(its.is_sorted(), "{taken:?}");
        }
    });
}

#[test]
fn what_came_before_the_close_is_answered_and_what_comes_after_is_given_back() {
    in_every_order(|| {
        let (inbox, writer) = with_writer();
        let callers = three(&inbox, |inbox, number| {
            let (command, answer) = numbered(number);
            match inbox.push(command) {
                Ok(()) => block_on(answer).expect("an answer").expect("done"),
                Err(Command::Intend { seq, .. }) => {
                    assert_eq!(seq, number);
                    assert!(inbox.is_closed());
                }
                Err(_) => unreachable!("the same command comes back"),
            }
        });
        close(&inbox);
        assert!(inbox.push(numbered(0).0).is_err() && block_on(append(&inbox)).is_none(), "closed for good");
        join(callers);
        writer.join().expect("no panic");
    });
}

#[test]
fn nobody_waits_for_an_abandoned_writer() {
    in_every_order(|| {
        let (inbox, writer) = with_writer();
        let mut callers = three(&inbox, |inbox, number| {
            let (command, answer) = numbered(number);
            // Done, or dropped: but it ends.
            if inbox.push(command).is_ok() {
                drop(block_on(answer));
            }
        });
        callers.extend(three(&inbox, |inbox, _| {
            if let Some(answer) = block_on(append(inbox)) {
                drop(block_on(answer));
            }
        }));
        inbox.abandon();
        writer.join().expect("no panic");
        join(callers);
        assert!(inbox.is_closed() && inbox.push(numbered(0).0).is_err());
    });
}

#[test]
fn room_that_was_taken_is_given_back_and_everyone_gets_some() {
    in_every_order(|| {
        let (inbox, writer) = with_writer();
        let callers = three(&inbox, |inbox, _| {
            let answer = block_on(append(inbox)).expect("room, once it is this one's turn");
            block_on(answer).expect("an answer").expect_err("the writer here stores nothing");
        });
        join(callers);
        close(&inbox);
        writer.join().expect("no panic");
    });
}

#[test]
fn who_waits_for_room_is_let_go_when_nothing_is_taken_any_more() {
    for end in [close, Inbox::abandon] {
        in_every_order(move || {
            let (inbox, writer) = with_writer();
            let room = inbox.try_room(&batch());
            assert!(room.is_some());
            let callers = three(&inbox, |inbox, _| assert!(block_on(append(inbox)).is_none()));
            end(&inbox);
            join(callers);
            writer.join().expect("no panic");
            drop(room);
        });
    }
}

#[test]
fn a_nudge_makes_the_writer_look_around_whenever_it_comes() {
    in_every_order(|| {
        let inbox = Arc::new(Inbox::new());
        let news = Arc::new(AtomicUsize::new(0));
        let nudgers = [1, 2].map(|_| {
            let (inbox, news) = (Arc::clone(&inbox), Arc::clone(&news));
            thread::spawn(move || {
                news.fetch_add(1, SeqCst);
                inbox.nudge();
            })
        });
        let mut commands = Vec::new();
        while news.load(SeqCst) < 2 {
            inbox.take(IDLE, &mut commands);
        }
        join(nudgers.into());
        // One that has no patience is not held up, nudged or not.
        let at_once = Wanted { within: Duration::ZERO, ..IDLE };
        inbox.take(at_once, &mut commands);
        inbox.take(at_once, &mut commands);
        assert!(commands.is_empty());
    });
}

#[test]
fn a_dropped_lease_comes_back_once_and_wakes_the_store_and_an_ended_one_never_does() {
    in_every_order(|| {
        let inbox = Arc::new(Inbox::new());
        let bell = Arc::clone(&inbox);
        let returns = Returns::new(move || bell.nudge());
        let droppers = [1, 2, 3].map(|seq| {
            let (dropped, ended) = (Lease::new(seq, 7, returns.clone()), Lease::new(seq + 10, 7, returns.clone()));
            thread::spawn(move || {
                drop(dropped);
                assert_eq!(ended.end(), (seq + 10, 7));
            })
        });
        let (mut back, mut commands) = (Vec::new(), Vec::new());
        while back.len() < 3 {
            inbox.take(IDLE, &mut commands);
            back.extend(returns.take());
        }
        join(droppers.into());
        back.extend(returns.take());
        back.sort_unstable();
        assert_eq!(back, [(1, 7), (2, 7), (3, 7)]);
    });
}

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
