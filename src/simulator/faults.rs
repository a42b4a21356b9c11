//! Faults: rules that make the stand-in misbehave, and the board that keeps count of them.
//!
//! Rules are asked in their order. Each that matches a request and whose turn it is adds its latency;
//! the first with another effect decides the answer.

mod rule;

use std::str::FromStr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::answer::Answer;
use crate::clock::Timestamp;
use rule::Rule;

/// A set of faults, checked.
///
/// Read from JSON, everywhere the same: a rule, a list of rules, or an object
/// `{"rules": […], "refuseKeys": true, "revokeTokens": true}`. A rule is
///
/// ```json
/// {"path": "/events", "user": "u-1", "every": 3, "times": 5, "for": "10s",
///  "status": 503, "retryAfter": 2, "headers": {"x-from": "gateway"}, "counts": true,
///  "latency": "200ms", "jitter": "50ms"}
/// ```
///
/// All of the first line narrow the rule: `path` exactly, or all that begin with it if it ends in `*`;
/// `user` is `payload.newUserId` or the user in the path. Effects beside `status`: `body` or `message`,
/// `"garbage": true` (HTML), `"empty": true`, `"successFalse": true`, `"reset": "before" | "after"`,
/// `"hang": true`. With `"counts": true` Cello has done its work, and only then the fault strikes;
/// that is the default for `"reset": "after"` and for a 2xx that does not say otherwise.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct Faults {
    rules: Vec<Rule>,
    refuse_keys: bool,
    revoke_tokens: bool,
}

/// Why a set of faults was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadFaults(String);

impl Faults {
    /// Checks faults given as JSON.
    ///
    /// # Errors
    /// Names the first thing that is wrong, with the rule it is in.
    pub fn from_json(json: Value) -> Result<Self, BadFaults> {
        let is_set = |key| json.get(key).is_some();
        let faults = if json.is_array() {
            Self { rules: Rule::list(json)?, ..Self::default() }
        } else if is_set("rules") || is_set("refuseKeys") || is_set("revokeTokens") {
            serde_json::from_value(json).map_err(|error| BadFaults(error.to_string()))?
        } else {
            Self { rules: Rule::list(Value::Array(vec![json]))?, ..Self::default() }
        };
        for (position, rule) in faults.rules.iter().enumerate() {
            rule.effect().map_err(|why| BadFaults(format!("rule {position}: {why}")))?;
        }
        Ok(faults)
    }

    /// These and then others.
    #[must_use]
    pub fn and(mut self, others: Self) -> Self {
        self.rules.extend(others.rules);
        self.refuse_keys |= others.refuse_keys;
        self.revoke_tokens |= others.revoke_tokens;
        self
    }

    /// Keys are refused from now on.
    #[must_use]
    pub fn refusing_keys(mut self) -> Self {
        self.refuse_keys = true;
        self
    }

    /// Whether all tokens given so far end when these faults are set; happens once.
    pub(super) fn revokes_tokens(&self) -> bool {
        self.revoke_tokens
    }
}

impl FromStr for Faults {
    type Err = BadFaults;

    fn from_str(text: &str) -> Result<Self, BadFaults> {
        Self::from_json(serde_json::from_str(text).map_err(|error| BadFaults(format!("not JSON: {error}")))?)
    }
}

/// How a request ends.
#[derive(Clone, Debug)]
pub(super) enum Ending {
    /// As Cello would answer.
    Honest,
    /// With this answer in its place.
    Answer(Answer),
    /// The connection is reset.
    Reset,
    /// Never, while the client waits.
    Hang,
}

/// What is done to one request.
#[derive(Clone, Debug)]
pub(super) struct Fate {
    /// Waited for before the ending; before Cello's work too, unless `counts`.
    pub(super) delay: Duration,
    /// Cello does its work although the ending is another one.
    pub(super) counts: bool,
    /// How it ends.
    pub(super) ending: Ending,
}

/// The faults in force and how often each struck.
pub(super) struct FaultBoard {
    set: Mutex<Set>,
}

struct Set {
    rules: Vec<Armed>,
    refuse_keys: bool,
    since: Timestamp,
    rng: fastrand::Rng,
}

struct Armed {
    rule: Rule,
    effect: rule::Effect,
    matched: u64,
    fired: u64,
}

/// A rule as it is shown.
#[derive(Serialize)]
struct Shown<'a> {
    #[serde(flatten)]
    rule: &'a Rule,
    matched: u64,
    fired: u64,
}

impl FaultBoard {
    pub(super) fn new(faults: Faults, seed: u64, now: Timestamp) -> Self {
        let rng = fastrand::Rng::with_seed(seed);
        let board = Self { set: Mutex::new(Set { rules: Vec::new(), refuse_keys: false, since: now, rng }) };
        board.replace(faults, now);
        board
    }

    /// Puts these faults in place of all others.
    pub(super) fn replace(&self, faults: Faults, now: Timestamp) {
        let arm = |rule: Rule| {
            let effect = rule.effect().expect("Faults are checked when they are made");
            Armed { rule, effect, matched: 0, fired: 0 }
        };
        let mut set = self.set();
        set.rules = faults.rules.into_iter().map(arm).collect();
        set.refuse_keys = faults.refuse_keys;
        set.since = now;
    }

    /// What is done to a request; counts it for every rule that it matches.
    pub(super) fn decide(&self, path: &str, user: Option<&str>, now: Timestamp) -> Fate {
        let Set { rules, since, rng, .. } = &mut *self.set();
        let mut fate = Fate { delay: Duration::ZERO, counts: false, ending: Ending::Honest };
        for armed in rules {
            if !armed.strikes(path, user, now.since(*since)) {
                continue;
            }
            let jitter = armed.rule.jitter.map_or(Duration::ZERO, |jitter| jitter.0.mul_f64(rng.f64()));
            fate.delay += armed.rule.latency.map_or(Duration::ZERO, |latency| latency.0) + jitter;
            fate.counts |= armed.effect.counts;
            if !matches!(armed.effect.ending, Ending::Honest) {
                fate.ending = armed.effect.ending.clone();
                break;
            }
        }
        fate
    }

    pub(super) fn refuses_keys(&self) -> bool {
        self.set().refuse_keys
    }

    /// The faults in force as JSON, with how often each matched and struck.
    pub(super) fn show(&self) -> Value {
        let set = self.set();
        let shown = |armed: &Armed| {
            let shown = Shown { rule: &armed.rule, matched: armed.matched, fired: armed.fired };
            serde_json::to_value(shown).expect("rules came from JSON")
        };
        serde_json::json!({
            "rules": set.rules.iter().map(shown).collect::<Vec<_>>(),
            "refuseKeys": set.refuse_keys,
        })
    }

    fn set(&self) -> MutexGuard<'_, Set> {
        self.set.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Armed {
    /// Whether the rule strikes this request, which is then used up.
    fn strikes(&mut self, path: &str, user: Option<&str>, age: Duration) -> bool {
        let rule = &self.rule;
        let in_time = rule.lasts.is_none_or(|lasts| age < lasts.0);
        if !in_time || !rule.matches(path, user) || rule.times.is_some_and(|times| self.fired >= times) {
            return false;
        }
        self.matched += 1;
        let turn = self.matched.is_multiple_of(u64::from(rule.every.map_or(1, std::num::NonZeroU32::get)));
        self.fired += u64::from(turn);
        turn
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Timestamp = Timestamp::from_millis(0);

    fn board(faults: &str) -> FaultBoard {
        FaultBoard::new(faults.parse().expect("good faults"), 7, START)
    }

    fn strikes(board: &FaultBoard, path: &str, user: Option<&str>, at: i64) -> bool {
        !matches!(board.decide(path, user, Timestamp::from_millis(at)).ending, Ending::Honest)
    }

    #[test]
    fn every_and_times_and_for_narrow_a_rule() {
        let every = board(r#"{"status":503,"every":3,"times":2}"#);
        let struck: Vec<_> = (0..12).filter(|_| strikes(&every, "/events", None, 0)).collect();
        assert_eq!(struck.len(), 2);
        let shown = every.show();
        assert_eq!((&shown["rules"][0]["matched"], &shown["rules"][0]["fired"]), (&6.into(), &2.into()));
        let brief = board(r#"{"status":503,"for":"10s"}"#);
        assert!(strikes(&brief, "/events", None, 9_999));
        assert!(!strikes(&brief, "/events", None, 10_000));
    }

    #[test]
    fn path_and_user_narrow_a_rule() {
        let rules = board(r#"[{"path":"/events","user":"u","hang":true},{"path":"/new-users/*","reset":"before"}]"#);
        assert!(strikes(&rules, "/events", Some("u"), 0));
        assert!(!strikes(&rules, "/events", Some("v"), 0) && !strikes(&rules, "/events", None, 0));
        assert!(strikes(&rules, "/new-users/v/reward", Some("v"), 0));
        assert!(!strikes(&rules, "/token", None, 0));
    }

    #[test]
    fn latencies_add_up_and_the_first_ending_decides() {
        let rules = board(r#"[{"latency":"100ms","jitter":"10ms"},{"latency":"50ms","status":500},{"status":501}]"#);
        let fate = rules.decide("/events", None, START);
        assert!(fate.delay >= Duration::from_millis(150) && fate.delay <= Duration::from_millis(160));
        assert!(matches!(&fate.ending, Ending::Answer(answer) if answer.status == 500));
    }

    #[test]
    fn bad_faults_are_refused_with_the_reason() {
        let reason = |faults: &str| faults.parse::<Faults>().expect_err(faults).to_string();
        assert!(reason(r#"{"status":503,"evrey":2}"#).contains("unknown field `evrey`"));
        assert!(reason(r#"[{"status":503},{"every":2}]"#).contains("rule 1: does nothing"));
        assert!(reason(r#"{"status":99}"#).contains("200 to 599"));
        assert!(reason(r#"{"status":503,"hang":true}"#).contains("exclude each other"));
        assert!(reason(r#"{"latency":200}"#).contains("with its unit"));
        assert!(reason(r#"{"latency":"soon"}"#).contains("with its unit"));
        assert!(reason("{").contains("not JSON"));
    }
}
