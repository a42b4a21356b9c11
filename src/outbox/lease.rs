//! The right to settle one event, given back when it is dropped. Tested in `tests/interleavings/inbox_models.rs` too.

use std::fmt;
use std::sync::{Arc, PoisonError};

use crate::sync::Mutex;

/// Ends by [`Lease::end`] (the store does that in `settle`) or by being dropped, which returns the event.
pub struct Lease {
    seq: u64,
    /// Tells leases of this opening of the store from those of an earlier one.
    epoch: u64,
    returns: Arc<Returns>,
    ended: bool,
}

impl Lease {
    /// A lease on the event with sequence number `seq`.
    #[must_use]
    pub fn new(seq: u64, epoch: u64, returns: Arc<Returns>) -> Self {
        Self { seq, epoch, returns, ended: false }
    }

    /// The event's sequence number.
    #[must_use]
    pub fn seq(&self) -> u64 {
        self.seq
    }

    /// Which opening of the store made it.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Ends the lease without returning the event; gives its sequence number and epoch.
    #[must_use]
    pub fn end(mut self) -> (u64, u64) {
        self.ended = true;
        (self.seq, self.epoch)
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if !self.ended {
            self.returns.give_back(self.seq, self.epoch);
        }
    }
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Lease({})", self.seq)
    }
}

/// Where dropped leases go until the store takes them back.
pub struct Returns {
    /// `(seq, epoch)`; bounded by the number of leases there are.
    dropped: Mutex<Vec<(u64, u64)>>,
    wake: Box<dyn Fn() + Send + Sync>,
}

impl Returns {
    /// `wake` is called after each return, from whatever thread dropped the lease; it must not block.
    pub fn new(wake: impl Fn() + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Self { dropped: Mutex::default(), wake: Box::new(wake) })
    }

    fn give_back(&self, seq: u64, epoch: u64) {
        self.dropped.lock().unwrap_or_else(PoisonError::into_inner).push((seq, epoch));
        (self.wake)();
    }

    /// Takes all that was dropped since the last call.
    pub fn take(&self) -> Vec<(u64, u64)> {
        std::mem::take(&mut *self.dropped.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl fmt::Debug for Returns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Returns")
    }
}
