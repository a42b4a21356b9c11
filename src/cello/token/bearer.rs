//! The owner of the token where it is the content of a file: a relay upstream.

use std::sync::Arc;

use secrecy::{ExposeSecret, SecretString};
use tokio::sync::watch;
use tracing::{error, info};

use super::status::TokenStatus;
use super::{Rejection, Slot, Token, Tokens};
use crate::cello::Access;
use crate::cello::credentials::{Files, Reading, Secrets};
use crate::cello::transport::bearer;
use crate::clock::Clock;
use crate::metrics::{Invalidation, Metrics};

/// Publishes the file's content as the token, for ever; reads it again when it changed and after a 401.
pub(in crate::cello) async fn run(
    tokens: Arc<Tokens>,
    files: Files,
    readings: &watch::Sender<Reading>,
    clock: Arc<dyn Clock>,
    metrics: Arc<Metrics>,
) {
    let mut rejections = tokens.rejections();
    let mut changes = readings.subscribe();
    let (generation, settled) = tokens.so_far();
    let mut state = State { generation, settled, ..State::default() };
    loop {
        let reading = changes.borrow_and_update().clone();
        let slot = state.slot(&reading, &*clock);
        metrics.credentials_ok.set(i64::from(matches!(slot.access, Access::Granted | Access::Waiting)));
        tokens.tell(state.status(&slot, &reading, &*clock));
        tokens.publish(slot);
        tokio::select! {
            Ok(()) = changes.changed() => {}
            Ok(()) = rejections.changed() => {
                let rejected = *rejections.borrow_and_update();
                files.clone().read_into(readings).await;
                state.settle(rejected, &readings.borrow(), &metrics);
            }
        }
    }
}

#[derive(Default)]
struct State {
    generation: u64,
    settled: u64,
    content: Option<Arc<Secrets>>,
    missing_since: Option<crate::clock::Timestamp>,
    /// When the content in use was first read.
    obtained_at: Option<crate::clock::Timestamp>,
}

impl State {
    /// What to publish for a reading; a changed content is a new generation.
    fn slot(&mut self, reading: &Reading, clock: &dyn Clock) -> Slot {
        let found = match reading {
            Reading::Unread => None,
            Reading::Present(content) => Some(usable(content)),
            Reading::Missing(why) => Some(Err(why.as_str())),
        };
        if let (Reading::Present(content), Some(Ok(_))) = (reading, &found) {
            if self.content.as_ref() != Some(content) {
                self.generation += 1;
                self.content = Some(content.clone());
                self.obtained_at = Some(clock.now());
            }
            if self.missing_since.take().is_some() {
                info!(event = "token_recovered", "the bearer token can be read again");
            }
        }
        if let Some(Err(why)) = found
            && self.missing_since.is_none()
        {
            self.missing_since = Some(clock.now());
            error!(
                event = "credentials_missing",
                why, "the bearer token cannot be read; looked at again when it changes"
            );
        }
        let token = found.and_then(Result::ok).map(|value| Token { generation: self.generation, value });
        let access = match (&token, self.missing_since) {
            (Some(_), _) => Access::Granted,
            (None, Some(since)) => Access::Missing(since),
            (None, None) => Access::Waiting,
        };
        Slot { token: token.map(|token| (token, None)), open: false, settled: self.settled, access, failing: false }
    }

    /// What operators are told.
    fn status(&self, slot: &Slot, reading: &Reading, clock: &dyn Clock) -> TokenStatus {
        let since = self.missing_since.unwrap_or_else(|| clock.now());
        let last_error = match reading {
            Reading::Unread => None,
            Reading::Present(content) => usable(content).err().map(|why| (since, why.to_owned())),
            Reading::Missing(why) => Some((since, why.to_string())),
        };
        let obtained_at = self.obtained_at.filter(|_| slot.token.is_some());
        TokenStatus { access: slot.access, obtained_at, last_error, ..TokenStatus::default() }
    }

    /// After a 401 and a look at the file: if its content is the refused one, the 401 stands.
    fn settle(&mut self, rejected: Rejection, now: &Reading, metrics: &Metrics) {
        if matches!(now, Reading::Present(content) if self.content.as_ref() == Some(content)) {
            self.settled = rejected.ticket;
        } else if rejected.generation == self.generation {
            metrics.token_invalidations.with(Invalidation::Http401).inc();
        }
    }
}

/// The token that a file holds, or why it is none. White space around it is no part of it: the relay that asks for it
/// reads its `ingest.token_file` so, and both may be one file.
pub(in crate::cello) fn usable(content: &Secrets) -> Result<SecretString, &'static str> {
    let token = SecretString::from(content.expose(0).trim());
    if token.expose_secret().is_empty() {
        Err("it is empty")
    } else if bearer(&token).is_none() {
        Err("it holds characters that no header may hold")
    } else {
        Ok(token)
    }
}
