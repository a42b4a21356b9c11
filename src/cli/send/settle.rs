//! `--wait`: until each of the events is delivered, or dead.

use std::time::Duration;

use hyper::StatusCode;
use serde::Deserialize;

use super::Sent;
use crate::cli::client::Client;
use crate::cli::exit::{Exit, Failure};
use crate::cli::output;
use crate::event::EventId;

/// Between two looks at an event that still waits.
const PAUSE: Duration = Duration::from_millis(200);

/// `GET /events/{id}`
#[derive(Deserialize)]
struct Report {
    state: String,
}

/// What an event came to.
enum End {
    Delivered,
    Dead,
    /// The relay does not know it: delivered long ago, or discarded or erased.
    Unknown,
}

/// How many came to what.
#[derive(Default)]
struct Tally {
    delivered: u64,
    dead: u64,
    /// Stored by this run, and forgotten by now.
    forgotten: u64,
    /// Sent by an earlier run, and not again.
    unknown: u64,
}

/// Waits for them in their order, which is also that of delivery.
pub(super) async fn wait(client: &mut Client, sent: &[Sent], timeout: Duration) -> Result<(), Failure> {
    let mut tally = Tally::default();
    let all = tokio::time::timeout(timeout, async {
        for sent in sent {
            let count = match end(client, sent.id).await? {
                End::Delivered => &mut tally.delivered,
                End::Dead => &mut tally.dead,
                End::Unknown if sent.known => &mut tally.unknown,
                End::Unknown => &mut tally.forgotten,
            };
            *count += 1;
        }
        Ok::<(), Failure>(())
    });
    match all.await {
        Err(_) => {
            let settled = tally.delivered + tally.dead + tally.forgotten + tally.unknown;
            let all = output::counted(sent.len() as u64, "event");
            let message = format!("not delivered after {timeout:?}: {} of {all}", sent.len() as u64 - settled);
            Err(Failure::new(Exit::Unavailable, message).hint("they stay stored; `cello-relay outbox stats` shows why"))
        }
        Ok(Err(failure)) => Err(failure),
        Ok(Ok(())) => tally.verdict(sent.len() as u64),
    }
}

impl Tally {
    fn verdict(&self, all: u64) -> Result<(), Failure> {
        let mut text = format!("{} delivered", self.delivered);
        if self.forgotten > 0 {
            // A backlog of hours: the first are forgotten before the last are delivered.
            text.push_str(&format!(", {} stored and no longer remembered", self.forgotten));
        }
        if self.unknown > 0 {
            text.push_str(&format!(", {} sent before and not known any more", self.unknown));
        }
        output::note(&text);
        let all = output::counted(all, "event");
        if self.dead > 0 {
            return Err(Failure::new(Exit::Data, format!("Cello refused {} of {all}", self.dead))
                .hint("`cello-relay outbox list --state dead` shows them"));
        }
        if self.unknown > 0 {
            let message = format!(
                "not sent again: {} of {all}; the relay had them before and does not know whether it delivered them",
                self.unknown
            );
            return Err(Failure::new(Exit::Unavailable, message).hint(
                "delivered longer ago than outbox.remember, or discarded or erased; what was discarded goes again only \
                 without its key: `POST /events/batch`",
            ));
        }
        Ok(())
    }
}

/// Resolves once the event has come to its end.
async fn end(client: &mut Client, id: EventId) -> Result<End, Failure> {
    loop {
        if let Ok(answer) = client.get(&format!("/events/{id}")).await {
            if answer.status == StatusCode::NOT_FOUND {
                return Ok(End::Unknown);
            }
            if answer.status.is_success() {
                match answer.json::<Report>()?.state.as_str() {
                    "delivered" => return Ok(End::Delivered),
                    "dead" => return Ok(End::Dead),
                    _ => {}
                }
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
}
