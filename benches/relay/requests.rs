//! Requests made ahead of time: a sender only writes digits into them.

use std::sync::atomic::{AtomicU64, Ordering};

/// Where a template has a number: nine digits, another one in each event.
const DIGITS: &str = "#########";

/// No event of a run has the user of another, so that order per user serialises nothing.
static NEXT: AtomicU64 = AtomicU64::new(0);

/// A whole request, and where its numbers go.
#[derive(Clone)]
pub(crate) struct Template {
    bytes: Vec<u8>,
    /// Offset of a number, and the event it belongs to.
    slots: Vec<(usize, u64)>,
    /// Events in one request; 1 for a read.
    pub(crate) events: u64,
}

impl Template {
    /// One event of about 480 bytes.
    pub(crate) fn event() -> Self {
        Self::post("/events", &[event(0)])
    }

    /// One event of 8 KiB.
    pub(crate) fn large_event() -> Self {
        let padding = 8 * 1024 - event(0).len();
        Self::post("/events", &[event(padding)])
    }

    /// So many events in one request.
    pub(crate) fn batch(events: usize) -> Self {
        let events: Vec<String> = (0..events).map(|_| event(0)).collect();
        Self::post("/events/batch", &events)
    }

    /// The same read again and again.
    pub(crate) fn read() -> Self {
        Self::new(get("product-user-1"), 1)
    }

    /// A read of another user each time: no cache helps.
    pub(crate) fn new_read() -> Self {
        Self::new(get(DIGITS), 1)
    }

    fn post(path: &str, events: &[String]) -> Self {
        let list = events.join(",");
        let body = if path.ends_with("batch") { format!("[{list}]") } else { list };
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        Self::new(head + &body, events.len() as u64)
    }

    fn new(text: String, events: u64) -> Self {
        let found: Vec<usize> = text.match_indices(DIGITS).map(|(at, _)| at).collect();
        let each = (found.len() as u64 / events).max(1);
        let slots = found.into_iter().enumerate().map(|(index, at)| (at, index as u64 / each)).collect();
        Self { bytes: text.into_bytes(), slots, events }
    }

    /// The next request.
    pub(crate) fn next(&mut self) -> &[u8] {
        let first = NEXT.fetch_add(self.events, Ordering::Relaxed);
        for (at, event) in &self.slots {
            let mut number = first + event;
            for digit in self.bytes[*at..*at + DIGITS.len()].iter_mut().rev() {
                *digit = b'0' + (number % 10) as u8;
                number /= 10;
            }
        }
        &self.bytes
    }

    /// The body of the next request.
    pub(crate) fn next_body(&mut self) -> &[u8] {
        let whole = self.next();
        let head = find_end(whole).map_or(0, |head| head + 4);
        &whole[head..]
    }
}

fn get(user: &str) -> String {
    format!("GET /referral-codes/active-link/{user} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
}

fn event(padding: usize) -> String {
    let note = if padding == 0 { String::new() } else { format!(r#","note":"{}""#, "x".repeat(padding - 10)) };
    format!(
        r#"{{"eventName":"ReferralUpdated","payload":{{"ucc":"cello-ucc-1234","newUserId":"user-{DIGITS}","price":4900,"currency":"EUR"}},"context":{{"newUser":{{"id":"user-{DIGITS}","email":"new.user.{DIGITS}@example.com","name":"Some New User","organizationId":"organization-0042"}},"event":{{"trigger":"invoice-paid","timestamp":"2026-11-20T03:18:01.620Z"}},"subscription":{{"id":"subscription-000042","invoiceId":"invoice-{DIGITS}","interval":"monthly","seatsUsed":"12","productKey":"Pro Plan"}}{note}}}}}"#
    )
}

/// Where the empty line after a head starts.
pub(crate) fn find_end(bytes: &[u8]) -> Option<usize> {
    bytes.windows(4).position(|window| window == b"\r\n\r\n")
}
