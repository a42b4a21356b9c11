//! cello-relay: the map (written last).
pub mod admin;
pub mod app;
pub mod cello;
pub mod cli;
pub mod clock;
pub mod config;
pub mod event;
pub mod forwarder;
pub mod http;
pub mod ingress;
pub mod metrics;
pub mod ops;
pub mod outbox;
pub mod reason;
pub mod simulator;
pub mod telemetry;
