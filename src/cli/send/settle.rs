//! `--wait`: until each of the events is delivered, or dead.

use std::time::Duration;

use hyper::StatusCode;
use serde::Deserialize;

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

/// Waits for them in their order, which is also that of delivery.
pub(super) async fn wait(client: &mut Client, ids: &[EventId], timeout: Duration) -> Result<(), Failure> {
    let (mut settled, mut dead) = (0, 0);
    let all = tokio::time::timeout(timeout, async {
        for id in ids {
            if is_dead(client, *id).await? {
                dead += 1;
            }
            settled += 1;
        }
        Ok::<(), Failure>(())
    });
    match all.await {
        Err(_) => {
            let all = output::counted(ids.len() as u64, "event");
            let message = format!("not delivered after {timeout:?}: {} of {all}", ids.len() - settled);
            Err(Failure::new(Exit::Unavailable, message).hint("they stay stored; `cello-relay outbox stats` shows why"))
        }
        Ok(Err(failure)) => Err(failure),
        Ok(Ok(())) if dead > 0 => {
            let all = output::counted(ids.len() as u64, "event");
            Err(Failure::new(Exit::Data, format!("Cello refused {dead} of {all}"))
                .hint("`cello-relay outbox list --state dead` shows them"))
        }
        Ok(Ok(())) => {
            output::note(&format!("{} delivered", ids.len()));
            Ok(())
        }
    }
}

/// Resolves once the event has come to its end. One that is forgotten was delivered, long ago.
async fn is_dead(client: &mut Client, id: EventId) -> Result<bool, Failure> {
    loop {
        if let Ok(answer) = client.get(&format!("/events/{id}")).await {
            if answer.status == StatusCode::NOT_FOUND {
                return Ok(false);
            }
            if answer.status.is_success() {
                match answer.json::<Report>()?.state.as_str() {
                    "delivered" => return Ok(false),
                    "dead" => return Ok(true),
                    _ => {}
                }
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
}
