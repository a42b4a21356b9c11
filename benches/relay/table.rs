//! Medians, ranges and ratios.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use crate::load::Load;
use crate::process::{Contender, Usage};

/// What one contender did in one round.
#[derive(Clone, Copy)]
pub(crate) struct Sample {
    per_second: f64,
    p50: Duration,
    p99: Duration,
    cpu_per_million: f64,
    resident_bytes: u64,
    written_per_event: f64,
}

impl Sample {
    /// `left_behind` is the time it took to deliver what the load's end left: part of the price.
    pub(crate) fn new(load: &Load, before: &Usage, after: &Usage, left_behind: Duration) -> Self {
        let events = load.answered.max(1) as f64;
        Self {
            per_second: if left_behind.is_zero() {
                load.per_second()
            } else {
                events / (load.took + left_behind).as_secs_f64()
            },
            p50: load.latency(0.50),
            p99: load.latency(0.99),
            cpu_per_million: (after.cpu_seconds - before.cpu_seconds) / events * 1e6,
            resident_bytes: after.resident_bytes,
            written_per_event: (after.written_bytes - before.written_bytes) as f64 / events,
        }
    }
}

/// All samples of a run.
#[derive(Default)]
pub(crate) struct Table {
    samples: BTreeMap<(usize, Contender), Vec<Sample>>,
}

impl Table {
    pub(crate) fn add(&mut self, contender: Contender, connections: usize, sample: Sample) {
        self.samples.entry((connections, contender)).or_default().push(sample);
    }

    fn rate(&self, connections: usize, contender: Contender) -> f64 {
        median(&self.samples[&(connections, contender)], |sample| sample.per_second)
    }

    /// The medians, for machines.
    pub(crate) fn json(&self) -> String {
        let rows = self.samples.iter().map(|((connections, contender), samples)| {
            serde_json::json!({
                "connections": connections,
                "contender": contender.name(),
                "perSecond": median(samples, |sample| sample.per_second),
                "p99Seconds": median(samples, |sample| sample.p99.as_secs_f64()),
                "cpuSecondsPerMillion": median(samples, |sample| sample.cpu_per_million),
                "residentBytes": median(samples, |sample| sample.resident_bytes as f64),
                "writtenBytesPerEvent": median(samples, |sample| sample.written_per_event),
            })
        });
        serde_json::Value::from_iter(rows).to_string()
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "\nconn  contender            events/s (min-max)        x bare   p50 ms   p99 ms  CPU s/M  RSS MiB  B/event"
        )?;
        for ((connections, contender), samples) in &self.samples {
            let rates: Vec<f64> = samples.iter().map(|sample| sample.per_second).collect();
            let (min, max) =
                rates.iter().fold((f64::MAX, 0.0_f64), |(min, max), rate| (min.min(*rate), max.max(*rate)));
            writeln!(
                f,
                "{connections:>4}  {:<18} {:>8.0} ({min:.0}-{max:.0}){:>10.2} {:>8.2} {:>8.2} {:>8.1} {:>8.1} {:>8.0}",
                contender.name(),
                self.rate(*connections, *contender),
                self.rate(*connections, *contender) / self.rate(*connections, Contender::Bare),
                median(samples, |sample| sample.p50.as_secs_f64() * 1e3),
                median(samples, |sample| sample.p99.as_secs_f64() * 1e3),
                median(samples, |sample| sample.cpu_per_million),
                median(samples, |sample| sample.resident_bytes as f64 / 1048576.0),
                median(samples, |sample| sample.written_per_event),
            )?;
        }
        Ok(())
    }
}

fn median(samples: &[Sample], of: impl Fn(&Sample) -> f64) -> f64 {
    let mut values: Vec<f64> = samples.iter().map(of).collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}
