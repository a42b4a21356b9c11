//! One integration binary: parts of the relay together, over real sockets and real files.

mod cello;
mod config;
mod conformance;
mod erase;
mod forwarder;
mod http;
mod ingress;
mod logged;
mod outbox_damage;
mod outbox_file;
mod outbox_flips;
mod outbox_intents;
mod outbox_model;
mod outbox_nonsense;
mod outbox_order;
mod outbox_space;
mod outbox_support;
mod outbox_versions;
mod reads;
mod simulator;
mod wire;
