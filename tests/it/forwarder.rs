//! The forwarder's promises, in virtual time, against a scripted Cello.

mod orders;
mod outages;
mod outbox;
mod sending;
mod world;
