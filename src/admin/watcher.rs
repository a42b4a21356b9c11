//! What only shows over time: rates, since when a reason holds, and its lines in the log.
//!
//! One tick every [`STEP`]; nothing in between, so that an idle relay stays idle.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::{Instant, MissedTickBehavior};

use super::Parts;
use super::reasons::{Finding, Severity};
use crate::clock::Timestamp;
use crate::metrics::Metrics;

/// How long a step of the rates is, and how often it is looked whether a reason came or went.
const STEP: Duration = Duration::from_secs(10);
/// Steps kept: 15 minutes.
const STEPS: usize = 90;
/// A reason that comes and goes is logged so often at most.
const LINE_EVERY: Duration = Duration::from_secs(60);

/// Remembers; shared by the ticks and whoever asks for the status.
#[derive(Debug, Default)]
pub struct Watch {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Accepted, delivered and failed, as of the last step.
    totals: [u64; 3],
    /// The same in each of the last steps, oldest first.
    steps: VecDeque<[u64; 3]>,
    until: Option<Timestamp>,
    known: BTreeMap<&'static str, Known>,
    /// How many events this process lost, and when it was seen that they were more.
    lost: u64,
    lost_at: Option<Timestamp>,
}

/// A reason that holds, or did.
#[derive(Debug)]
struct Known {
    /// `None` while it does not hold.
    since: Option<Timestamp>,
    /// What the log says of it: that it holds, or not.
    told: bool,
    /// When it was last said that it began.
    told_at: Option<Instant>,
}

impl Watch {
    /// Fills in since when each reason holds, for those that do not know it themselves.
    pub(super) fn date(&self, findings: &mut [Finding], now: Timestamp) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        for (code, known) in &mut state.known {
            known.since.take_if(|_| !findings.iter().any(|finding| finding.code == *code));
        }
        for finding in findings {
            let fresh = || Known { since: None, told: false, told_at: None };
            let since = &mut state.known.entry(finding.code).or_insert_with(fresh).since;
            let first = *since.get_or_insert(finding.since.unwrap_or(now));
            finding.since.get_or_insert(first);
        }
    }

    /// When this process last lost events, of which there are `total` now.
    pub(super) fn lost_at(&self, total: u64, now: Timestamp) -> Option<Timestamp> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if total > state.lost {
            (state.lost, state.lost_at) = (total, Some(now));
        }
        state.lost_at
    }

    /// The rates as the API shows them.
    pub(super) fn rates(&self) -> Value {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let row = |place: usize| state.steps.iter().map(|step| step[place]).collect::<Vec<u64>>();
        json!({
            "stepSeconds": STEP.as_secs(), "until": state.until.map(|until| until.to_string()),
            "accepted": row(0), "delivered": row(1), "failed": row(2),
        })
    }

    /// Ends a step of the rates.
    fn step(&self, metrics: &Metrics, now: Timestamp) {
        let failed = metrics.delivery_retries.total() + metrics.dead_lettered.total();
        let totals = [metrics.accepted.total(), metrics.delivered.total(), failed];
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let before = std::mem::replace(&mut state.totals, totals);
        state.steps.push_back(std::array::from_fn(|place| totals[place].saturating_sub(before[place])));
        if state.steps.len() > STEPS {
            state.steps.pop_front();
        }
        state.until = Some(now);
    }

    /// One line when a reason came and one when it went; a flapping one is told less often.
    fn log(&self, findings: &[Finding], now: Instant) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        for (code, known) in &mut state.known {
            let lately = known.told_at.is_some_and(|at| now.saturating_duration_since(at) < LINE_EVERY);
            let holds = known.since.is_some();
            if known.told == holds || (holds && lately) {
                continue;
            }
            let finding = findings.iter().find(|finding| finding.code == *code);
            let command = finding.map(|finding| finding.command).filter(|command| !command.is_empty());
            known.told = holds;
            if holds {
                known.told_at = Some(now);
            }
            match finding {
                Some(Finding { severity, sentence, .. }) if *severity > Severity::Info => {
                    tracing::warn!(event = "reason_began", reason = code, severity = severity.as_str(), %sentence, command, "not as it should be");
                }
                Some(Finding { severity, sentence, .. }) => {
                    tracing::info!(event = "reason_began", reason = code, severity = severity.as_str(), %sentence, command, "worth knowing");
                }
                None => tracing::info!(event = "reason_ended", reason = code, "this is over"),
            }
        }
    }
}

/// Steps and logs for ever.
pub(super) async fn run(parts: Arc<Parts>) {
    let mut ticks = tokio::time::interval_at(parts.clock.instant() + STEP, STEP);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        ticks.tick().await;
        let instant = parts.clock.instant();
        parts.watch.step(&parts.metrics, parts.clock.now());
        let (_, findings) = parts.findings();
        parts.watch.log(&findings, instant);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Trigger;
    use crate::reason::Reason;

    fn finding(since: Option<Timestamp>) -> Finding {
        let sentence = "It is so.".to_owned();
        Finding { code: "x", severity: Severity::Info, sentence, since, count: 0, command: "cello-relay resume" }
    }

    const fn at(seconds: i64) -> Timestamp {
        Timestamp::from_millis(seconds * 1000)
    }

    #[test]
    fn a_reason_is_dated_from_when_it_was_first_seen_and_anew_when_it_comes_back() {
        let watch = Watch::default();
        let seen = |since, now| {
            let mut findings = [finding(since)];
            watch.date(&mut findings, now);
            findings[0].since
        };
        assert_eq!([seen(None, at(5)), seen(None, at(9))], [Some(at(5)); 2]);
        assert_eq!(seen(Some(at(2)), at(10)), Some(at(2)), "who knows better is believed");
        watch.date(&mut [], at(11));
        assert_eq!(seen(None, at(12)), Some(at(12)));
    }

    #[test]
    fn a_loss_is_dated_from_when_its_count_last_grew() {
        let watch = Watch::default();
        assert_eq!(
            [watch.lost_at(0, at(1)), watch.lost_at(2, at(5)), watch.lost_at(2, at(9))],
            [None, Some(at(5)), Some(at(5))]
        );
        assert_eq!(watch.lost_at(3, at(11)), Some(at(11)));
    }

    #[test]
    fn a_reason_that_comes_and_goes_is_told_once_a_minute() {
        let (watch, start) = (Watch::default(), Instant::now());
        let told = |holds: bool, seconds| {
            let mut findings = if holds { vec![finding(None)] } else { vec![] };
            watch.date(&mut findings, at(0));
            watch.log(&findings, start + Duration::from_secs(seconds));
            watch.state.lock().unwrap().known["x"].told
        };
        assert_eq!([told(true, 0), told(false, 10), told(true, 20), told(true, 60)], [true, false, false, true]);
    }

    #[test]
    fn rates_are_counts_of_steps_and_the_oldest_step_goes() {
        let (watch, metrics) = (Watch::default(), Metrics::new());
        for step in 0..=STEPS {
            metrics.accepted.with(Trigger::None).inc_by(step as u64);
            metrics.delivery_retries.with(Reason::Http5xx).inc();
            watch.step(&metrics, at(10 * step as i64));
        }
        let rates = watch.rates();
        let accepted = rates["accepted"].as_array().unwrap();
        assert_eq!((accepted.len(), &accepted[0], &accepted[STEPS - 1]), (STEPS, &json!(1), &json!(STEPS)));
        assert_eq!((&rates["failed"][7], &rates["delivered"][7]), (&json!(1), &json!(0)));
        assert_eq!(rates["until"], at(900).to_string());
    }
}
