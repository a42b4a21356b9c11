//! The forwarder's promises, in virtual time, against a scripted Cello.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

mod histories;
mod orders;
mod outages;
mod outbox;
mod sending;
mod truth;
mod world;
