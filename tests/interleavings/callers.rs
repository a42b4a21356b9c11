//! Who brings commands to the inbox, and a writer that answers them.

use std::sync::Arc;
use std::time::Duration;

use cello_relay::event;
use cello_relay::outbox::{AppendError, Batch, Outcome, Receipt, SettleError, Settled};
use shuttle::future::block_on;
use shuttle::thread;
use tokio::sync::oneshot;

use crate::inbox::{Command, GATHER, Inbox, LINGER_FOR, Wanted, answer};

/// What an idle writer waits for; no test lasts so long.
pub(crate) const IDLE: Wanted = Wanted {
    commands: 1,
    claims: true,
    company: LINGER_FOR,
    gather: GATHER,
    expects: false,
    within: Duration::from_secs(3600),
};

pub(crate) type Reply = oneshot::Receiver<Result<(), SettleError>>;

/// A command that is known by its number.
pub(crate) fn numbered(number: u64) -> (Command, Reply) {
    let (reply, answer) = oneshot::channel();
    (Command::Intend { seq: number, epoch: 0, reply }, answer)
}

/// A delivery that is known by its number.
pub(crate) fn delivery(number: u64) -> (Command, oneshot::Receiver<Result<Settled, SettleError>>) {
    let (reply, answer) = oneshot::channel();
    let outcome = Outcome::Delivered { request_id: None };
    (Command::Settle { seq: number, epoch: 0, outcome, reply }, answer)
}

/// Brings such a delivery, and waits until it is recorded.
pub(crate) fn deliver(inbox: &Inbox, number: u64) {
    let (command, answer) = delivery(number);
    assert!(inbox.push(command).is_ok());
    block_on(answer).expect("an answer").expect("done");
}

/// A batch that takes most of the room.
pub(crate) fn batch() -> Batch {
    let event = br#"{"eventName":"ReferralUpdated","payload":{"ucc":"a","newUserId":"b"}}"#;
    let event = event::read(event, event::Checks::Off).expect("an event").event;
    Batch { events: vec![event], key: None }
}

/// Brings such a batch; `None` if it is too late for that.
pub(crate) async fn append(inbox: &Inbox) -> Option<oneshot::Receiver<Result<Receipt, AppendError>>> {
    let batch = batch();
    let _room = match inbox.try_room(&batch) {
        Some(room) => room,
        None => inbox.wait_for_room(&batch).await?,
    };
    let (reply, answer) = oneshot::channel();
    inbox.push(Command::Append { batch, _room, reply }).is_ok().then_some(answer)
}

/// The writer's loop: answers all it takes, until the inbox is closed or abandoned. The numbers, in the order taken.
pub(crate) fn write(inbox: &Inbox, wanted: Wanted) -> Vec<u64> {
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
pub(crate) fn with_writer() -> (Arc<Inbox>, thread::JoinHandle<Vec<u64>>) {
    with_writer_that_wants(IDLE)
}

pub(crate) fn with_writer_that_wants(wanted: Wanted) -> (Arc<Inbox>, thread::JoinHandle<Vec<u64>>) {
    let inbox = Arc::new(Inbox::new());
    let writers = Arc::clone(&inbox);
    (inbox, thread::spawn(move || write(&writers, wanted)))
}

pub(crate) fn close(inbox: &Inbox) {
    let (reply, closed) = oneshot::channel();
    assert!(inbox.push(Command::Close { reply }).is_ok());
    block_on(closed).expect("the close is answered");
}

/// Runs `call` in three threads with numbers of their own.
pub(crate) fn three<T: Send + 'static>(
    inbox: &Arc<Inbox>,
    call: impl Fn(&Inbox, u64) -> T + Copy + Send + 'static,
) -> Vec<thread::JoinHandle<T>> {
    let one = |number: u64| {
        let inbox = Arc::clone(inbox);
        thread::spawn(move || call(&inbox, number * 10))
    };
    (1..=3).map(one).collect()
}
