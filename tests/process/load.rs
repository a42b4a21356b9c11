//! Writers that post numbered events and remember what was answered.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::client::Client;

/// What all writers together know.
#[derive(Default)]
pub(crate) struct Book {
    /// The numbers that were answered 200, by user.
    acked: Mutex<BTreeMap<String, Vec<u64>>>,
    /// The next number of each user; a number is used once, whatever came of it.
    next: Mutex<BTreeMap<String, u64>>,
    /// Requests whose answer never came.
    cut_off: AtomicUsize,
}

impl Book {
    pub(crate) fn acked(&self) -> BTreeMap<String, Vec<u64>> {
        self.acked.lock().expect("no writer panicked").clone()
    }

    pub(crate) fn count(&self) -> usize {
        self.acked.lock().expect("no writer panicked").values().map(Vec::len).sum()
    }

    pub(crate) fn cut_off(&self) -> usize {
        self.cut_off.load(Ordering::SeqCst)
    }

    fn take_number(&self, user: &str) -> u64 {
        let mut next = self.next.lock().expect("no writer panicked");
        let number = next.entry(user.to_owned()).or_default();
        *number += 1;
        *number
    }

    fn note(&self, user: &str, number: u64) {
        self.acked.lock().expect("no writer panicked").entry(user.to_owned()).or_default().push(number);
    }
}

/// The body of event `number` of `user`.
pub(crate) fn event(user: &str, number: u64) -> String {
    format!(
        r#"{{"eventName":"ReferralUpdated","payload":{{"ucc":"cello-ucc","newUserId":"{user}"}},"context":{{"sequence":{number},"event":{{"trigger":"new-signup","timestamp":"2026-11-20T03:18:01.620Z"}}}}}}"#
    )
}

/// Posts one event after the other, each of the writer's users in turn, until the relay is gone or `most` were taken.
pub(crate) fn write(book: &Book, ingest: SocketAddr, writer: usize, users: usize, most: usize) {
    let Ok(mut client) = Client::connect(ingest) else { return };
    for turn in 0..most {
        let user = format!("user-{writer}-{}", turn % users);
        let number = book.take_number(&user);
        match client.post("/events", &event(&user, number)) {
            Ok(answer) if answer.status == 200 => book.note(&user, number),
            Ok(answer) => assert_eq!(answer.status, 503, "{}", answer.body),
            Err(_) => {
                book.cut_off.fetch_add(1, Ordering::SeqCst);
                return;
            }
        }
    }
}
