//! Each condition, the sentence that an operator reads for it, and that it goes when the condition does.

use std::collections::BTreeSet;
use std::time::Duration;

use super::*;
use crate::admin::{About, Auth};
use crate::cello::{Access, TokenStatus};
use crate::forwarder::{Breaker, Failure, Pause};
use crate::ingress::door::{Kind, Note};
use crate::outbox::{AppendError, Bound, Flow, Ledger};
use crate::reason::Reason;

/// 2026-03-01 14:40 UTC.
const NOW: Timestamp = Timestamp::from_millis(1_772_376_000_000);

fn ago(minutes: u64) -> Timestamp {
    NOW.minus(Duration::from_secs(minutes * 60))
}

fn hence(minutes: u64) -> Timestamp {
    NOW.plus(Duration::from_secs(minutes * 60))
}

/// A sandbox relay with a token and nothing to do.
fn calm() -> Snapshot {
    let token = TokenStatus {
        access: Access::Granted,
        obtained_at: Some(ago(10)),
        expires_at: Some(hence(290)),
        refresh_at: Some(hence(200)),
        ..TokenStatus::default()
    };
    let about = About {
        environment: "sandbox".into(),
        base_url: "https://x".into(),
        durability: "persistent".into(),
        ..About::default()
    };
    Snapshot { now: NOW, started_at: ago(60), about, token, ..Snapshot::default() }
}

/// The same with 1,204 events that wait, the oldest for 38 minutes.
fn waiting(snapshot: &mut Snapshot) {
    snapshot.stats.ledger = Ledger { accepted: 2_000, delivered: 796, ..Ledger::default() };
    snapshot.stats.oldest = Some(ago(38));
}

fn held(reason: Reason) -> impl Fn(&mut Snapshot) {
    move |snapshot| {
        waiting(snapshot);
        snapshot.forwarder.hold = Some((reason, ago(38)));
    }
}

fn refusing(error: AppendError) -> impl Fn(&mut Snapshot) {
    move |snapshot| {
        waiting(snapshot);
        snapshot.stats.refusing = Some(error);
        (snapshot.stats.size_bytes, snapshot.stats.capacity_bytes) = (1 << 30, 1 << 30);
        (snapshot.stats.volume_free_bytes, snapshot.stats.volume_bytes) = (1 << 20, 1 << 33);
        snapshot.forwarder.hold = None;
    }
}

fn note(kind: Kind, what: &str, field: &str, count: u64) -> Note {
    Note { at: ago(1), kind, what: what.to_owned(), fields: vec![field.to_owned()], count }
}

fn failed() -> Option<Failure> {
    Some(Failure { at: ago(1), reason: Reason::Http5xx, status: Some(502), request_id: None })
}

type Change = Box<dyn Fn(&mut Snapshot)>;
/// Code, severity, what makes it so, and parts of the sentence.
type Row = (&'static str, Severity, Change, &'static [&'static str]);

fn table() -> Vec<Row> {
    use Severity::{Critical, Info, Warning};
    fn row(
        code: &'static str,
        severity: Severity,
        change: impl Fn(&mut Snapshot) + 'static,
        parts: &'static [&'static str],
    ) -> Row {
        (code, severity, Box::new(change), parts)
    }
    let mut rows = vec![
        row("held_credentials", Critical, held(Reason::Credentials), &["since 14:02 UTC", "401", "by itself"]),
        row("held_mass_refusal", Critical, held(Reason::MassRefusal), &["many users in a row", "1,204 events wait"]),
        row("held_http_403", Critical, held(Reason::Http403), &["403", "the oldest 38 min", "by itself"]),
        row("held_no_such_api", Critical, held(Reason::Http404), &["cello.base_url", "(sandbox, http_404)"]),
        row("held_no_such_api", Critical, held(Reason::Http405), &["http_405"]),
        row("held_no_such_api", Critical, held(Reason::Http410), &["http_410"]),
        row("held_redirect", Critical, held(Reason::Http3xx), &["redirect", "never followed"]),
        row("held_http_4xx", Critical, held(Reason::Http4xx), &["407", "http_4xx"]),
        row("full_max_bytes", Critical, refusing(AppendError::Full(Bound::Bytes)), &["1.0 GiB of 1.0 GiB", "503"]),
        row("full_max_events", Critical, refusing(AppendError::Full(Bound::Events)), &["1,204 events", "max_events"]),
        row("full_disk", Critical, refusing(AppendError::Full(Bound::Disk)), &["1.0 MiB of 8.0 GiB", "min_free_bytes"]),
        row("disk_error", Critical, refusing(AppendError::Unavailable), &["cannot write", "tried again by itself"]),
        row("closing", Critical, refusing(AppendError::Closed), &["stopping"]),
    ];
    rows.extend(flow_rows());
    rows.extend([
        row(
            "nearly_full",
            Warning,
            |it| (it.stats.size_bytes, it.stats.capacity_bytes) = (81, 100),
            &["81 B of 100 B"],
        ),
        row("dead_letters", Warning, |it| it.stats.ledger.dead = 3, &["3 dead letters", "replay or discard"]),
        row(
            "dead_letters_full",
            Critical,
            |it| (it.stats.ledger.dead, it.stats.dead_letters_full) = (7_000, true),
            &["Dead letters (7,000)", "every 5 min"],
        ),
        row(
            "lost_events",
            Critical,
            |it| (it.stats.ledger.lost, it.stats.quarantined_files) = (1, 1),
            &["1 event that", "is lost", "delete the damaged file"],
        ),
        row("lost_events", Critical, |it| (it.stats.ledger.lost, it.lost_at) = (2, Some(ago(1_439))), &["are lost"]),
        row("lost_events", Info, |it| it.stats.ledger.lost = 2, &["2 events", "were lost", "nothing is to be done"]),
        row("quarantined", Warning, |it| it.stats.quarantined_files = 2, &["2 *.damaged.db"]),
        row("clock_skew", Warning, |it| it.clock_skew = Some(-125), &["2 min behind Cello's"]),
        row("clock_skew", Warning, |it| it.clock_skew = Some(60), &["60 s ahead of Cello's"]),
        row(
            "door_refusals",
            Warning,
            |it| it.door = vec![note(Kind::Refusal, "http_400", "payload.ucc", 12)],
            &["12 requests were refused", "http_400 (payload.ucc) at 14:39 UTC"],
        ),
        row(
            "door_warnings",
            Info,
            |it| it.door = vec![note(Kind::Warning, "currency", "payload.currency", 1)],
            &["1 warning was given at the door lately", "payload.currency"],
        ),
    ]);
    rows.extend(token_rows());
    rows
}

/// What keeps events from going out, but for holds.
fn flow_rows() -> Vec<Row> {
    let open = |it: &mut Snapshot| {
        waiting(it);
        (it.forwarder.breaker, it.forwarder.breaker_since) = (Breaker::Open, Some(ago(38)));
        (it.forwarder.last_failure, it.forwarder.next_probe_at) = (failed(), Some(NOW.plus(Duration::from_secs(12))));
    };
    let slow = |it: &mut Snapshot| it.forwarder.breaker = Breaker::SlowStart;
    let pause = |until| {
        move |it: &mut Snapshot| {
            waiting(it);
            it.forwarder.paused = Some(Pause { since: ago(38), until });
        }
    };
    let draining = |ends| move |it: &mut Snapshot| (it.forwarder.flow, it.is_ending) = (Flow::Draining, ends);
    let paced = |it: &mut Snapshot| it.forwarder.paced_until = Some(hence(3));
    let blocked = |it: &mut Snapshot| {
        waiting(it);
        (it.stats.retrying, it.forwarder.last_failure) = (2, failed());
    };
    let pod = |it: &mut Snapshot| {
        waiting(it);
        it.about.durability = "pod".into();
    };
    vec![
        ("breaker_open", Severity::Warning, Box::new(open), &["http_5xx", "since 14:02 UTC", "in 12 s", "by itself"]),
        ("slow_start", Severity::Info, Box::new(slow), &["step by step"]),
        ("paused", Severity::Warning, Box::new(pause(None)), &["at 14:02 UTC", "over a restart", "1,204"]),
        ("paused", Severity::Warning, Box::new(pause(Some(hence(22)))), &["ends by itself at 15:02 UTC, in 22 min"]),
        ("draining", Severity::Info, Box::new(draining(false)), &["before an end", "still taken", "Only a restart"]),
        ("draining", Severity::Info, Box::new(draining(true)), &["is ending", "next start", "shutdown.linger"]),
        ("paced", Severity::Info, Box::new(paced), &["Retry-After", "3 min"]),
        ("user_blocked", Severity::Warning, Box::new(blocked), &["of 2 users", "http_5xx", "those of others do not"]),
        ("backlog", Severity::Warning, Box::new(waiting), &["behind", "1,204 events wait, the oldest 38 min"]),
        ("backlog_on_pod_disk", Severity::Warning, Box::new(pod), &["1,204 events wait", "ends with this pod"]),
    ]
}

/// Keys and token.
fn token_rows() -> Vec<Row> {
    let error = || Some((ago(5), "status 500".to_owned()));
    let access = |access| {
        move |it: &mut Snapshot| {
            waiting(it);
            it.token = TokenStatus { access, ..TokenStatus::default() };
            it.forwarder.hold = Some((Reason::Credentials, ago(38)));
        }
    };
    let ageing = move |it: &mut Snapshot| (it.token.refresh_at, it.token.last_error) = (Some(ago(5)), error());
    let expired = move |it: &mut Snapshot| {
        it.token.access = Access::Waiting;
        (it.token.expires_at, it.token.last_error) = (Some(ago(5)), error());
    };
    let never = move |it: &mut Snapshot| it.token = TokenStatus { last_error: error(), ..TokenStatus::default() };
    let refused = |it: &mut Snapshot| it.token.keys_refused = true;
    let example: &[&str] =
        &["Cello refuses the access key since 14:02 UTC (sandbox); 1,204 events wait, the oldest 38 min. Check the \
         Secret, then nothing more: it resumes by itself."];
    let (critical, warning) = (Severity::Critical, Severity::Warning);
    vec![
        ("token_refused", critical, Box::new(access(Access::Refused(ago(38)))), example),
        ("token_missing", critical, Box::new(access(Access::Missing(ago(38)))), &["cannot be read", "by itself"]),
        ("keys_refused", warning, Box::new(refused), &["still works, until 19:30 UTC"]),
        ("token_ageing", warning, Box::new(ageing), &["status 500", "still works, until"]),
        ("token_unavailable", warning, Box::new(expired), &["has ended", "status 500"]),
        ("token_unavailable", warning, Box::new(never), &["has not come yet"]),
    ]
}

#[test]
fn a_calm_relay_has_no_reason_and_is_healthy() {
    let findings = reasons(&calm());
    assert_eq!((findings.as_slice(), is_healthy(&findings)), (&[][..], true));
}

#[test]
fn each_condition_has_its_sentence_its_weight_and_its_next_command() {
    for (code, severity, change, parts) in table() {
        let mut snapshot = calm();
        change(&mut snapshot);
        let findings = reasons(&snapshot);
        let finding = findings.iter().find(|finding| finding.code == code);
        let finding = finding.unwrap_or_else(|| panic!("{code} is not in {findings:#?}"));
        assert_eq!(finding.severity, severity, "{code}");
        for part in parts {
            assert!(finding.sentence.contains(part), "{code}: {part:?} is not in {:?}", finding.sentence);
        }
        let sentence = &finding.sentence;
        assert!(sentence.ends_with('.') && sentence.len() < 500 && !sentence.contains("  "), "{code}: {sentence}");
        let command = finding.command;
        assert!(command.starts_with("cello-relay ") || command.is_empty() || code == "clock_skew", "{code}");
        assert_ne!(command, "cello-relay outbox stats", "{code}: that is where it is read");
        assert_eq!(is_healthy(&findings), findings.iter().all(|one| one.severity == Severity::Info), "{code}");
    }
}

#[test]
fn the_document_lists_the_very_codes_that_there_are() {
    let document: Value = serde_json::from_str(crate::admin::OPENAPI).unwrap();
    let listed = document["components"]["schemas"]["Reason"]["properties"]["code"]["enum"].as_array().unwrap();
    let listed: BTreeSet<&str> = listed.iter().map(|code| code.as_str().unwrap()).collect();
    let known: BTreeSet<&str> = table().iter().map(|(code, ..)| *code).collect();
    assert_eq!(listed, known);
    assert!(known.len() >= 15);
}

#[test]
fn the_document_lists_every_reason_that_a_failure_can_have() {
    let document: Value = serde_json::from_str(crate::admin::OPENAPI).unwrap();
    let listed = document["components"]["schemas"]["Why"]["enum"].as_array().unwrap();
    let listed: BTreeSet<&str> = listed.iter().map(|reason| reason.as_str().unwrap()).collect();
    let known: BTreeSet<&str> = crate::reason::Reason::ALL.iter().map(|reason| reason.as_str()).collect();
    assert_eq!(listed, known);
}

#[test]
fn the_worst_comes_first() {
    let mut snapshot = calm();
    snapshot.door = vec![note(Kind::Warning, "currency", "payload.currency", 1)];
    snapshot.stats.ledger.dead = 1;
    snapshot.forwarder.hold = Some((Reason::Http403, ago(1)));
    let codes: Vec<&str> = reasons(&snapshot).iter().map(|finding| finding.code).collect();
    assert_eq!(codes, ["held_http_403", "dead_letters", "door_warnings"]);
}

#[test]
fn one_fault_is_told_once() {
    let codes = |change: &dyn Fn(&mut Snapshot)| {
        let mut snapshot = calm();
        change(&mut snapshot);
        reasons(&snapshot).iter().map(|finding| finding.code).collect::<Vec<_>>()
    };
    let refused = |it: &mut Snapshot| {
        held(Reason::Credentials)(it);
        it.token.access = Access::Refused(ago(38));
    };
    assert_eq!(codes(&refused), ["token_refused"]);
    let held_with_heads = |it: &mut Snapshot| {
        held(Reason::Http403)(it);
        it.stats.retrying = 3;
    };
    assert_eq!(codes(&held_with_heads), ["held_http_403"]);
}

#[test]
fn a_token_from_a_file_is_not_told_of_as_keys() {
    let of = |change: &dyn Fn(&mut Snapshot)| {
        let mut snapshot = calm();
        snapshot.about.auth = Auth::Bearer;
        held(Reason::Credentials)(&mut snapshot);
        change(&mut snapshot);
        reasons(&snapshot)
    };
    let missing =
        |it: &mut Snapshot| it.token = TokenStatus { access: Access::Missing(ago(38)), ..TokenStatus::default() };
    for (code, command, findings) in [
        ("held_credentials", "cello-relay check-config", of(&|_| {})),
        ("token_missing", "cello-relay check-config --online", of(&missing)),
    ] {
        let [finding] = &findings[..] else { panic!("{findings:?}") };
        assert_eq!((finding.code, finding.command), (code, command));
        let said = &finding.sentence;
        assert!(said.contains("cello.bearer_token_file") && said.contains("https://x"), "{said}");
        assert!(!said.contains("key") && !said.contains("access token") && said.len() < 500, "{said}");
    }
}

#[test]
fn without_credentials_a_401_says_that_some_are_wanted() {
    let mut snapshot = calm();
    (snapshot.about.auth, snapshot.token) = (Auth::None, TokenStatus::default());
    snapshot.token.access = Access::Granted;
    held(Reason::Credentials)(&mut snapshot);
    let findings = reasons(&snapshot);
    let [finding] = &findings[..] else { panic!("{findings:?}") };
    assert_eq!((finding.code, finding.command), ("held_credentials", "cello-relay check-config"));
    let said = &finding.sentence;
    assert!(said.contains("cello.auth") && said.contains("none is sent") && said.contains("https://x"), "{said}");
    assert!(!said.contains("gives access tokens") && said.len() < 500, "{said}");
}

#[test]
fn a_loss_is_told_but_is_no_ill_health_once_its_file_is_gone_and_a_day_is_over() {
    let mut snapshot = calm();
    (snapshot.stats.ledger.lost, snapshot.stats.quarantined_files) = (1, 1);
    snapshot.lost_at = Some(ago(1_440));
    assert!(!is_healthy(&reasons(&snapshot)), "the damaged file lies there");
    snapshot.stats.quarantined_files = 0;
    let findings = reasons(&snapshot);
    let told: Vec<_> = findings.iter().map(|finding| (finding.code, finding.count)).collect();
    assert_eq!((told, is_healthy(&findings)), (vec![("lost_events", 1)], true));
    snapshot.lost_at = Some(ago(1_439));
    assert!(!is_healthy(&reasons(&snapshot)), "it is less than a day ago");
}

#[test]
fn what_happened_long_ago_at_the_door_is_no_reason_any_more() {
    let mut snapshot = calm();
    snapshot.door = vec![Note { at: ago(16), ..note(Kind::Refusal, "http_400", "payload.ucc", 1) }];
    assert_eq!(reasons(&snapshot), []);
}
