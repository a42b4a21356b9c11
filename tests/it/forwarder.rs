//! The forwarder's promises, in virtual time, against a scripted Cello.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

mod orders;
mod outages;
mod outbox;
mod sending;
mod world;
