//! Events at hand: claimed, and not yet sent.

use std::collections::VecDeque;

use super::governor::Permit;
use crate::outbox::{Claimed, Outbox, Wait, Want};

/// Claims what may be sent soon, and gives back what may not be sent any more.
pub(super) struct Supply<'a> {
    outbox: &'a dyn Outbox,
    ready: VecDeque<Claimed>,
    claiming: Option<(Want, Wait<'a, Vec<Claimed>>)>,
}

impl<'a> Supply<'a> {
    pub(super) fn new(outbox: &'a dyn Outbox) -> Self {
        Self { outbox, ready: VecDeque::new(), claiming: None }
    }

    /// The next event to be sent.
    pub(super) fn pop(&mut self) -> Option<Claimed> {
        self.ready.pop_front()
    }

    /// Keeps what `permit` lets be kept, `started` sends later, and claims more if that is worth it.
    pub(super) fn adjust(&mut self, permit: &Permit, started: usize) {
        let keep = permit.keep - started;
        // Dropped leases return their events, and so does a dropped claim.
        self.ready.truncate(keep);
        let room = keep - self.ready.len();
        if self.claiming.as_ref().is_some_and(|(want, _)| want.max > room || want.rotate != permit.rotate) {
            self.claiming = None;
        }
        // Half a batch at least, so that a claim is not made for each event.
        let worth_it = room > 0 && (self.ready.is_empty() || room * 2 >= keep);
        if self.claiming.is_none() && worth_it {
            let want = Want { max: room, rotate: permit.rotate };
            self.claiming = Some((want, self.outbox.claim(want)));
        }
    }

    /// Waits until claimed events are there; `false` if the outbox is closed. Never resolves while
    /// nothing is being claimed; may be dropped and called again.
    pub(super) async fn arrive(&mut self) -> bool {
        let Some((_, claim)) = &mut self.claiming else { return std::future::pending().await };
        let claimed = claim.await;
        self.claiming = None;
        let open = !claimed.is_empty();
        self.ready.extend(claimed);
        open
    }
}

#[cfg(test)]
#[path = "supply/tests.rs"]
mod tests;
