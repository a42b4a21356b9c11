//! What the relay costs, side by side with less honest servers, in one run.
//!
//! `cargo bench` runs five interleaved rounds (`-- --quick`: two short ones) of real processes on loopback and
//! prints medians with their range, and ratios. Nothing is asserted: machines are noisy, ratios tell.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program for people")]

mod load;
mod process;
mod servers;
mod table;

use std::time::Duration;

use process::{Contender, Upstream};
use table::{Sample, Table};

/// Keep-alive connections of the load generator.
const CONNECTIONS: &[usize] = &[1, 64, 256];

struct Plan {
    rounds: usize,
    warm_up: Duration,
    measured: Duration,
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    if let Some(role) = arguments.iter().position(|argument| argument == "--role") {
        return servers::serve(&arguments[role + 1]);
    }
    let quick = arguments.iter().any(|argument| argument == "--quick");
    let plan = if quick {
        Plan { rounds: 2, warm_up: Duration::from_millis(500), measured: Duration::from_secs(2) }
    } else {
        Plan { rounds: 5, warm_up: Duration::from_secs(1), measured: Duration::from_secs(5) }
    };
    let mut table = Table::default();
    for round in 0..plan.rounds {
        eprintln!("round {} of {}", round + 1, plan.rounds);
        for connections in CONNECTIONS {
            for contender in Contender::ALL {
                // Dirty pages of the round before must not be written in the next one's time.
                rustix::fs::sync();
                table.add(*contender, *connections, measure(*contender, *connections, &plan));
            }
        }
    }
    print!("{table}");
    let json = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("bench.json");
    std::fs::write(&json, table.json()).expect("a writable target folder");
    println!("\nas JSON: {}", json.display());
}

fn measure(contender: Contender, connections: usize, plan: &Plan) -> Sample {
    let upstream = Upstream::start();
    let server = contender.start(&upstream);
    load::run(server.address, connections, plan.warm_up);
    let before = server.usage();
    let load = load::run(server.address, connections, plan.measured);
    let left_behind = server.wait_until_forwarded();
    let after = server.usage();
    Sample::new(&load, &before, &after, left_behind)
}
