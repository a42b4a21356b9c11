//! The inbox of the store's writer, and leases that are dropped.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use cello_relay::outbox::Want;
use shuttle::future::block_on;
use shuttle::thread;
use tokio::sync::oneshot;

use crate::callers::{
    IDLE, append, batch, close, deliver, delivery, numbered, three, with_writer, with_writer_that_wants,
};
use crate::inbox::{Command, GATHER, GATHER_FOR, Inbox, LINGER_FOR, Wanted};
use crate::lease::{Lease, Returns};
use crate::{in_every_order, join, sync};

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
                deliver(inbox, number);
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
        let callers = three(&inbox, deliver);
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
fn the_last_delivery_that_can_come_wakes_the_writer() {
    in_every_order(|| {
        // No wait ends by itself.
        let (inbox, writer) = with_writer_that_wants(Wanted { gather: 3, company: IDLE.within, ..IDLE });
        let callers = three(&inbox, deliver);
        join(callers);
        close(&inbox);
        assert_eq!(writer.join().expect("no panic").len(), 3);
    });
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
