//! One integration binary: parts of the relay together, over real sockets and real files.

mod cello;
mod config;
mod forwarder;
mod http;
mod ingress;
mod reads;
mod simulator;
mod wire;
