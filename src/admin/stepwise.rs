//! Orders that take their time: carried out step by step while their reader watches, and ended when it leaves.
//!
//! The answer is NDJSON: a line as it goes on, and a last one with `"done": true`. A request whose client left is
//! answered to its end all the same, so only writing to it shows that nobody reads any more: there is a line every
//! quarter of a second.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt;
use http_body_util::channel::{Channel, Sender};
use hyper::{Response, StatusCode};
use serde_json::json;

use super::decide::{Left, answer};
use super::order::{Action, Order};
use super::reply::{self, Body};
use super::{Parts, audit};
use crate::event::EventId;
use crate::outbox::{Ledger, ReadError, Replayed, Selection, State, Terms};

/// A canary is given so long to be delivered.
const CANARY_PATIENCE: Duration = Duration::from_secs(60);
/// It is looked at so often.
const CANARY_LOOK: Duration = Duration::from_millis(100);
/// The reader hears something so often.
const BEAT: Duration = Duration::from_millis(250);
/// Dead letters in one step of an order without a pace.
const STEP: u64 = 1000;

/// Why an order ends before its end.
enum Stop {
    /// Nobody reads any more.
    ReaderLeft,
    /// The canary was not delivered.
    Canary(&'static str),
    Failed(ReadError),
}

impl From<ReadError> for Stop {
    fn from(error: ReadError) -> Self {
        Stop::Failed(error)
    }
}

/// Begins an order; the answer is its progress.
pub(super) fn start(parts: Arc<Parts>, via: &'static str, order: Order, left: Left) -> Response<Body> {
    let (out, body) = Channel::<Bytes, io::Error>::new(1);
    audit::begun(via, &order);
    let done = Replayed::default();
    let work = Work { parts, via, order, left, out, done, canary: None, outcome: "relay_ended" };
    tokio::spawn(work.run());
    reply::with_type(StatusCode::OK, "application/x-ndjson", body.boxed_unsync())
}

/// An order under way.
struct Work {
    parts: Arc<Parts>,
    via: &'static str,
    order: Order,
    left: Left,
    out: Sender<Bytes, io::Error>,
    done: Replayed,
    canary: Option<(EventId, &'static str)>,
    /// What is logged at the end, which may be that of the relay.
    outcome: &'static str,
}

impl Drop for Work {
    fn drop(&mut self) {
        audit::ended(self.via, &self.order, &self.done, self.outcome);
    }
}

impl Work {
    async fn run(mut self) {
        let result = match self.order.action {
            Action::Replay => self.replay().await,
            Action::Discard => self.discard().await,
        };
        self.outcome = match &result {
            Ok(()) => "done",
            Err(Stop::Canary(outcome)) => outcome,
            Err(Stop::ReaderLeft) => "reader_left",
            Err(Stop::Failed(_)) => "failed",
        };
        // Whether the last line is read is the reader's business: the order is at its end.
        drop(match result {
            Ok(()) | Err(Stop::Canary(_)) => self.tell(true).await,
            Err(Stop::ReaderLeft) => Ok(()),
            Err(Stop::Failed(error)) => self.write(&json!({"message": error.to_string()})).await,
        });
    }

    /// Replays at the pace that was asked for, after the canary. Whatever breaks this off leaves the rest dead.
    async fn replay(&mut self) -> Result<(), Stop> {
        let mut terms = Terms { may_duplicate: self.order.may_duplicate, ..Terms::default() };
        if self.order.canary {
            let before = self.parts.outbox.stats().ledger;
            let first = self.replay_some(Terms { limit: 1, ..terms }).await?;
            let Some(id) = first else { return Ok(()) };
            let outcome = self.watch(id, &before).await?;
            self.canary = Some((id, outcome));
            if outcome != "delivered" {
                return Err(Stop::Canary(outcome));
            }
            terms.after = Some(id);
        }
        terms.limit = self.order.per_second.unwrap_or(STEP);
        loop {
            let Some(last) = self.replay_some(terms).await? else { return Ok(()) };
            terms.after = Some(last);
            match self.order.per_second {
                Some(_) => self.wait(Duration::from_secs(1)).await?,
                None => self.tell(false).await?,
            }
        }
    }

    /// One step; gives where to go on.
    async fn replay_some(&mut self, terms: Terms) -> Result<Option<EventId>, Stop> {
        let step = self.parts.dead.replay(self.order.selection.clone(), terms).await?;
        self.done.count += step.count;
        self.done.passed_over += step.passed_over;
        Ok(step.next)
    }

    async fn discard(&mut self) -> Result<(), Stop> {
        match self.order.selection.clone() {
            Selection::Ids(ids) => {
                for some in ids.chunks(STEP as usize) {
                    self.discard_some(some.to_vec()).await?;
                }
            }
            Selection::Matching(filter) => {
                let mut after = None;
                loop {
                    let page = self.parts.dead.list(filter.clone(), after, STEP as usize).await?;
                    let Some(last) = page.last() else { return Ok(()) };
                    after = Some(last.id);
                    self.discard_some(page.iter().map(|listed| listed.id).collect()).await?;
                }
            }
        }
        Ok(())
    }

    async fn discard_some(&mut self, ids: Vec<EventId>) -> Result<(), Stop> {
        self.done.count += self.parts.dead.discard(Selection::Ids(ids)).await?;
        self.tell(false).await
    }

    /// What becomes of a canary, as far as it is known in time.
    async fn watch(&mut self, id: EventId, before: &Ledger) -> Result<&'static str, Stop> {
        let looks = CANARY_PATIENCE.as_millis() / CANARY_LOOK.as_millis();
        let mut gone = false;
        for _ in 0..looks {
            match self.parts.outbox.lookup(id).await?.map(|report| report.state) {
                Some(State::Delivered) => return Ok("delivered"),
                Some(State::Dead) => return Ok("dead"),
                // The ledger may be told a moment after the row.
                None if gone => return Ok(self.end_of_the_forgotten(before)),
                None => gone = true,
                Some(_) => {}
            }
            self.wait(CANARY_LOOK).await?;
        }
        Ok("waiting")
    }

    /// Deliveries may not be remembered at all (`outbox.remember`): what went and was neither discarded, erased nor
    /// lost was delivered.
    fn end_of_the_forgotten(&self, before: &Ledger) -> &'static str {
        let ends = |ledger: &Ledger| (ledger.discarded, ledger.erased, ledger.lost);
        if ends(&self.parts.outbox.stats().ledger) == ends(before) { "delivered" } else { "forgotten" }
    }

    /// Waits, and sees meanwhile whether somebody still reads.
    async fn wait(&mut self, time: Duration) -> Result<(), Stop> {
        let mut left = time;
        while !left.is_zero() {
            self.tell(false).await?;
            let beat = left.min(BEAT);
            tokio::time::sleep(beat).await;
            left -= beat;
        }
        Ok(())
    }

    /// Says how far it is.
    async fn tell(&mut self, done: bool) -> Result<(), Stop> {
        let mut line = match done {
            true => answer(&self.order, &self.left, &self.done),
            false => json!({"count": self.done.count, "passedOver": self.done.passed_over}),
        };
        line["done"] = done.into();
        if let Some((id, outcome)) = self.canary {
            line["canary"] = json!({"id": id.to_string(), "outcome": outcome});
        }
        self.write(&line).await
    }

    async fn write(&mut self, line: &serde_json::Value) -> Result<(), Stop> {
        self.out.send_data(Bytes::from(format!("{line}\n"))).await.map_err(|_| Stop::ReaderLeft)
    }
}
