//! `GET /api/status`: where everything stands.

use serde_json::{Value, json};

use super::Parts;
use super::reasons::{self, Finding};
use super::snapshot::Snapshot;
use crate::clock::Timestamp;
use crate::forwarder::Failure;
use crate::ingress::door::Note;
use crate::metrics::Phase;

impl Parts {
    /// Everything as of now, and what of it is not as it should be.
    pub(super) fn findings(&self) -> (Snapshot, Vec<Finding>) {
        let now = self.clock.now();
        let snapshot = Snapshot {
            now,
            started_at: self.started_at,
            is_ending: *self.phase.borrow() == Phase::Draining,
            about: self.about.clone(),
            stats: self.outbox.stats(),
            forwarder: self.forwarder.snapshot(),
            token: self.cello.token_status(),
            clock_skew: self.cello.clock_skew(),
            lost_at: self.watch.lost_at(self.metrics.lost.total(), now),
            door: self.door.notes(),
        };
        let mut findings = reasons::reasons(&snapshot);
        self.watch.date(&mut findings, now);
        (snapshot, findings)
    }
}

/// The whole answer.
pub(super) fn status(parts: &Parts) -> Value {
    let (snapshot, findings) = parts.findings();
    let Snapshot { stats, .. } = &snapshot;
    let ledger = stats.ledger;
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "now": snapshot.now.to_string(),
        "startedAt": snapshot.started_at.to_string(),
        "state": snapshot.forwarder.flow.to_string(),
        "healthy": reasons::is_healthy(&findings),
        "environment": snapshot.about.environment,
        "durability": snapshot.about.durability,
        "ledger": {
            "accepted": ledger.accepted, "delivered": ledger.delivered, "dead": ledger.dead,
            "discarded": ledger.discarded, "erased": ledger.erased, "lost": ledger.lost,
        },
        "queue": {
            "pending": stats.pending(), "in_flight": stats.in_flight, "retrying": stats.retrying, "dead": ledger.dead,
            "oldestSeconds": stats.oldest_age(snapshot.now).as_secs(),
        },
        "upstream": upstream(&snapshot),
        "token": token(&snapshot),
        "volume": {
            "sizeBytes": stats.size_bytes, "capacityBytes": stats.capacity_bytes, "walBytes": stats.wal_bytes,
            "volumeBytes": stats.volume_bytes, "volumeFreeBytes": stats.volume_free_bytes,
            "quarantinedFiles": stats.quarantined_files,
        },
        "refusing": stats.refusing.map(|error| error.to_string()),
        "reasons": findings.iter().map(Finding::json).collect::<Vec<_>>(),
        "door": snapshot.door.iter().map(note).collect::<Vec<_>>(),
        "rates": parts.watch.rates(),
    })
}

fn shown(moment: Option<Timestamp>) -> Option<String> {
    moment.map(|moment| moment.to_string())
}

fn upstream(snapshot: &Snapshot) -> Value {
    let forwarder = &snapshot.forwarder;
    json!({
        "baseUrl": snapshot.about.base_url,
        "breaker": forwarder.breaker.as_str(),
        "breakerSince": shown(forwarder.breaker_since),
        "hold": forwarder.hold.map(|(reason, since)| json!({"reason": reason.as_str(), "since": since.to_string()})),
        "paused": forwarder.paused.map(|pause| json!({"since": pause.since.to_string(), "until": shown(pause.until)})),
        "nextProbeAt": shown(forwarder.next_probe_at),
        "pacedUntil": shown(forwarder.paced_until),
        "lastDeliveredAt": shown(forwarder.last_delivered_at),
        "lastFailure": forwarder.last_failure.as_ref().map(last_failure),
        "clockSkewSeconds": snapshot.clock_skew,
    })
}

fn last_failure(failure: &Failure) -> Value {
    json!({
        "at": failure.at.to_string(),
        "reason": failure.reason.as_str(),
        "status": failure.status,
        "requestId": failure.request_id,
    })
}

fn token(snapshot: &Snapshot) -> Value {
    let token = &snapshot.token;
    json!({
        "state": token.state(snapshot.now).as_str(),
        "obtainedAt": shown(token.obtained_at),
        "expiresAt": shown(token.expires_at),
        "refreshAt": shown(token.refresh_at),
        "lastError": token.last_error.as_ref().map(|(at, said)| json!({"at": at.to_string(), "sentence": said})),
    })
}

fn note(note: &Note) -> Value {
    json!({
        "at": note.at.to_string(), "kind": note.kind.as_str(), "what": note.what, "fields": note.fields,
        "count": note.count,
    })
}
