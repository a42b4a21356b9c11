//! One integration binary: parts of the relay together, over real sockets and real files.

mod conformance;
mod outbox_file;
mod outbox_model;
mod outbox_support;
