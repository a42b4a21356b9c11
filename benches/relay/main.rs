//! What the relay costs, side by side with less honest servers, in one run.
//!
//! `cargo bench` runs five interleaved rounds of real processes on loopback, which takes hours with its
//! backlogs of millions, and prints medians with their range, then the project's marks. `-- --quick` is one
//! round of all and two of the core table; `-- --only NAME` runs scenarios whose name starts so, and `-- --relay PATH`
//! measures another build. Nothing is asserted: machines are noisy, ratios tell.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program for people")]

mod client;
mod load;
mod marks;
mod open_loop;
mod peers;
mod process;
mod requests;
mod results;
mod scenarios;
mod servers;

use marks::Marks;
use scenarios::{Bench, Plan};
use tokio::time::Instant;

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let value = |name: &str| {
        let at = arguments.iter().position(|argument| argument == name)?;
        arguments.get(at + 1).map(String::as_str)
    };
    if let Some(role) = value("--role") {
        return servers::serve(role);
    }
    let quick = arguments.iter().any(|argument| argument == "--quick");
    let only = value("--only").unwrap_or_default();
    let chosen: Vec<_> = scenarios::ALL.iter().filter(|(name, _)| name.starts_with(only)).collect();
    if chosen.is_empty() {
        let names: Vec<&str> = scenarios::ALL.iter().map(|(name, _)| *name).collect();
        eprintln!("no scenario {only}; there are: {}", names.join(", "));
        std::process::exit(64);
    }
    let mut bench = Bench::new(if quick { Plan::quick() } else { Plan::full() });
    for round in 0..bench.plan.rounds {
        for (name, run) in &chosen {
            if quick && round > 0 && *name != scenarios::CORE {
                continue;
            }
            let start = Instant::now();
            run(&mut bench);
            eprintln!("round {}: {name}: {:.0} s", round + 1, start.elapsed().as_secs_f64());
        }
    }
    let marks = Marks::new(&bench.results);
    print!("{}{marks}", bench.results);
    let mut json = bench.results.json();
    json["marks"] = marks.json();
    let path = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("bench.json");
    std::fs::write(&path, json.to_string()).expect("a writable target folder");
    println!("\nas JSON: {}", path.display());
}
