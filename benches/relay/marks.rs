//! The marks the project has set itself, and how far each is. Told, never asserted: machines differ.

use std::fmt;

use serde_json::{Value, json};

use crate::results::{Results, short};

/// On which side of the bound a figure should be.
#[derive(Clone, Copy)]
enum Bound {
    AtLeast(f64),
    AtMost(f64),
}

/// One mark and what was measured.
struct Mark {
    what: String,
    figure: Option<f64>,
    bound: Bound,
    unit: &'static str,
}

/// All marks of one run.
pub(crate) struct Marks(Vec<Mark>);

impl Marks {
    pub(crate) fn new(results: &Results) -> Self {
        let mut marks = Self(Vec::new());
        marks.throughput(results);
        marks.backlog(results);
        marks.latency(results);
        marks.reads(results);
        marks.listing(results);
        marks.footprint(results);
        marks
    }

    fn add(&mut self, what: impl Into<String>, figure: Option<f64>, bound: Bound, unit: &'static str) {
        // What could not be measured is no figure: see `Usage::written_bytes`.
        self.0.push(Mark { what: what.into(), figure: figure.filter(|figure| figure.is_finite()), bound, unit });
    }

    fn throughput(&mut self, results: &Results) {
        let rate = |who: &str, connections: u32| {
            results.median("throughput", &format!("{who}, {connections} conn"), "events/s")
        };
        let versus = |who, other, connections| Some(rate(who, connections)? / rate(other, connections)?);
        for (connections, bound) in [(64, 0.65), (256, 0.70)] {
            let figure = versus("relay, ingest", "bare hyper", connections);
            self.add(format!("ingest / bare hyper, {connections} conn"), figure, Bound::AtLeast(bound), "x");
        }
        for (connections, bound) in [(1, 1.0), (64, 1.2), (256, 1.1)] {
            let figure = versus("relay, ingest", "simplest honest", connections);
            self.add(format!("ingest / simplest honest, {connections} conn"), figure, Bound::AtLeast(bound), "x");
        }
        let figure = versus("relay, in and out", "bare hyper", 64);
        self.add("in and out / bare hyper, 64 conn", figure, Bound::AtLeast(0.35), "x");
        let of_both = |name| results.median("throughput", "relay, in and out, 64 conn", name);
        self.add("bytes written per delivered event, 64 conn", of_both("B/event"), Bound::AtMost(3072.0), "B");
        self.add("peak memory under that load", of_both("peak MiB"), Bound::AtMost(24.0), "MiB");
    }

    fn backlog(&mut self, results: &Results) {
        let rate = |who: &str| results.median("drain", who, "events/s");
        let figure = rate("relay").zip(rate("bare hyper client")).map(|(relay, bare)| relay / bare);
        self.add("draining / bare hyper client", figure, Bound::AtLeast(0.5), "x");
        let rates = results.all("pending", "events/s");
        if let Some(((_, empty), (who, full))) = rates.first().zip(rates.last()).filter(|_| rates.len() > 1) {
            self.add(format!("ingest with {who} / with none"), Some(full / empty), Bound::AtLeast(0.9), "x");
        }
        // The fewest are the million that the mark speaks of.
        let (who, memory) = results.all("pending", "peak MiB").into_iter().nth(1).unzip();
        self.add(format!("peak memory, {}", who.unwrap_or("1000000 pending")), memory, Bound::AtMost(32.0), "MiB");
    }

    fn latency(&mut self, results: &Results) {
        let probe = results.median("open-loop", "append + fdatasync alone", "p99 ms");
        let ratio = |who| Some(results.median("open-loop", who, "p99 ms")? / probe?);
        let name = "p99 at 1,000/s / p99 of append + fdatasync";
        self.add(format!("{name}, ingest"), ratio("relay, ingest, 1000/s"), Bound::AtMost(2.0), "x");
        self.add(format!("{name}, in and out"), ratio("relay, in and out, 1000/s"), Bound::AtMost(2.0), "x");
        let median = |who| results.median("delivery", who, "median ms");
        let more = |own: f64| Some(own - median("upstream alone")? - median("one commit alone")?);
        let figure = median("accept to Cello's 2xx").and_then(more);
        self.add("accept to 2xx, beyond commit and upstream", figure, Bound::AtMost(2.0), "ms");
    }

    fn reads(&mut self, results: &Results) {
        let rate = |who: &str| results.median("reads", who, "reads/s");
        let figure = rate("relay, hit").zip(rate("bare hyper")).map(|(relay, bare)| relay / bare);
        self.add("reads, hit / bare hyper", figure, Bound::AtLeast(0.8), "x");
        for cello in ["Cello 5 ms", "Cello 0 ms"] {
            let of = |who: &str, figure| results.median("interference", &format!("{who}, {cello}"), figure);
            let ratio = |with, without, figure| Some(of(with, figure)? / of(without, figure)?);
            let slower = ratio("reads, draining", "reads, quiet", "p99 ms");
            self.add(format!("read p99 while draining / without, {cello}"), slower, Bound::AtMost(2.0), "x");
            let kept = ratio("delivery, flooded", "delivery, quiet", "deliv./s");
            self.add(format!("delivery under a flood / without, {cello}"), kept, Bound::AtLeast(0.7), "x");
        }
    }

    fn listing(&mut self, results: &Results) {
        let slowest = |found: Option<f64>, (_, one): (&str, f64)| Some(found.map_or(one, |found| found.max(one)));
        let pages = results.all("listing", "most ms").into_iter().fold(None, slowest);
        self.add("slowest page, 1,000,000 pending, 100,000 dead", pages, Bound::AtMost(50.0), "ms");
        let rate = |who| results.median("listing", who, "events/s");
        let figure =
            rate("ingest, pages are turned").zip(rate("ingest, nobody lists")).map(|(beside, alone)| beside / alone);
        self.add("ingest while pages are turned / without", figure, Bound::AtLeast(0.9), "x");
    }

    fn footprint(&mut self, results: &Results) {
        let idle = |figure| results.median("idle", "relay, after some events", figure);
        let fresh = results.median("idle", "relay, never used", "RSS MiB");
        self.add("memory, idle", fresh, Bound::AtMost(10.0), "MiB");
        self.add("CPU, idle", idle("CPU %"), Bound::AtMost(0.1), "%");
        self.add("wake-ups, idle", idle("wakeups/s"), Bound::AtMost(5.0), "/s");
        let trickle = results.median("trickle", "relay, in and out, 100/s", "CPU %");
        self.add("CPU at 100 events/s", trickle, Bound::AtMost(3.0), "%");
        let tenth = |figure| results.median("tenth of a core", "relay, in and out, 50/s", figure);
        self.add("p99 with 0.1 of a core, 50/s", tenth("p99 ms"), Bound::AtMost(1000.0), "ms");
        self.add("peak memory with 0.1 of a core", tenth("peak MiB"), Bound::AtMost(24.0), "MiB");
        for ((who, figure), bound) in results.all("start", "ready ms").into_iter().zip([50.0, 200.0]) {
            self.add(format!("start to /readyz, {who}"), Some(figure), Bound::AtMost(bound), "ms");
        }
        let size = results.median("size", "binary as built here", "MiB");
        self.add("size of the binary", size, Bound::AtMost(9.0), "MiB");
    }

    /// For machines.
    pub(crate) fn json(&self) -> Value {
        self.0
            .iter()
            .filter_map(|mark| {
                let (Bound::AtLeast(bound) | Bound::AtMost(bound)) = mark.bound;
                let figure = mark.figure?;
                Some(json!({ "what": mark.what, "figure": figure, "mark": bound, "unit": mark.unit, "met": mark.is_met(figure) }))
            })
            .collect()
    }
}

impl Mark {
    fn is_met(&self, figure: f64) -> bool {
        match self.bound {
            Bound::AtLeast(bound) => figure >= bound,
            Bound::AtMost(bound) => figure <= bound,
        }
    }
}

impl fmt::Display for Marks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\nmarks{:>56} {:>14}", "measured", "mark")?;
        for mark in &self.0 {
            // A scenario that did not run has none.
            let Some(figure) = mark.figure else { continue };
            let (sign, bound) = match mark.bound {
                Bound::AtLeast(bound) => (">=", bound),
                Bound::AtMost(bound) => ("<=", bound),
            };
            let percent = (figure / bound - 1.0).abs() * 100.0;
            let verdict = if mark.is_met(figure) { "met".to_owned() } else { format!("missed by {percent:.0} %") };
            let (measured, bound) = (short(figure), short(bound));
            writeln!(f, "  {:<46} {measured:>8} {:<3} {sign} {bound:>8}   {verdict}", mark.what, mark.unit)?;
        }
        Ok(())
    }
}
