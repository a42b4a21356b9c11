//! Locks, bells, tasks and the time they wait for, under a name that a test can give to others.
//!
//! Where a lost wake-up would be a lost or stuck event, they come from here: `tests/interleavings.rs` compiles
//! the same files with those of a scheduler of its own, which tries one order of steps after another.

pub(crate) use std::sync::{Condvar, Mutex, MutexGuard};
pub(crate) use tokio::spawn;
pub(crate) use tokio::time::Instant;
