//! The stand-in for Cello, over real sockets: what it accepts, refuses, remembers and breaks.

mod cello;
mod client;
mod control;
mod faults;
mod tls;
