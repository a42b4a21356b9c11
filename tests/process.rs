//! The real binary: signals, kill -9, exit codes, disks that fail, pressure, and the README's examples.
//!
//! Apart from `tests/it` because these tests start processes. `CELLO_RELAY_TEST_LONG=1` (or
//! `tests/run --long`) makes the crash and outage tests as long as the release notes quote them.

#![expect(clippy::print_stdout, reason = "figures and skipped tests are told")]
#![expect(clippy::disallowed_methods, reason = "real processes live in real time and in a real environment")]

#[path = "process/canary.rs"]
mod canary;
#[path = "process/chain.rs"]
mod chain;
#[path = "process/client.rs"]
mod client;
#[path = "process/clients.rs"]
mod clients;
#[path = "process/crash.rs"]
mod crash;
#[path = "process/disk.rs"]
mod disk;
#[path = "process/exit.rs"]
mod exit;
#[path = "process/export.rs"]
mod export;
#[path = "process/hiccup.rs"]
mod hiccup;
#[path = "process/hops.rs"]
mod hops;
#[path = "process/idle.rs"]
mod idle;
#[path = "process/kill.rs"]
mod kill;
#[path = "process/load.rs"]
mod load;
#[path = "process/mend.rs"]
mod mend;
#[path = "process/moving.rs"]
mod moving;
#[path = "process/operator.rs"]
mod operator;
#[path = "process/orders.rs"]
mod orders;
#[path = "process/outage.rs"]
mod outage;
#[path = "process/power.rs"]
mod power;
#[path = "process/pressure.rs"]
mod pressure;
#[path = "process/private.rs"]
mod private;
#[path = "process/readme.rs"]
mod readme;
#[path = "process/relay.rs"]
mod relay;
#[path = "process/rollback.rs"]
mod rollback;
#[path = "process/soak.rs"]
mod soak;
#[path = "process/status.rs"]
mod status;
#[path = "process/steer.rs"]
mod steer;
#[path = "process/storm.rs"]
mod storm;
#[path = "process/tap.rs"]
mod tap;
#[path = "process/terminal.rs"]
mod terminal;
#[path = "process/threads.rs"]
mod threads;
#[path = "process/traced.rs"]
mod traced;
#[path = "process/upstream.rs"]
mod upstream;
#[path = "process/upstream_faults.rs"]
mod upstream_faults;

/// How often something is repeated: CELLO_RELAY_ROUNDS, if it is set.
fn rounds(short: usize, in_long: usize) -> usize {
    let wanted = std::env::vars().find(|(name, _)| name == "CELLO_RELAY_ROUNDS");
    let usual = if long() { in_long } else { short };
    wanted.map_or(usual, |(_, rounds)| rounds.parse().expect("a number of rounds"))
}

/// Whether the long versions were asked for.
fn long() -> bool {
    std::env::vars().any(|(name, value)| name == "CELLO_RELAY_TEST_LONG" && value == "1")
}
