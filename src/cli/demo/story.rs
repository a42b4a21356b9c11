//! The story: events accepted, Cello away, events waiting, Cello back, everything delivered in order; then one
//! event that needs an operator.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use hyper::{Method, StatusCode};
use tokio::time::{Instant, timeout};

use crate::cli::client::{CallError, Client, Endpoint};
use crate::cli::exit::{Exit, Failure};
use crate::cli::output;
use crate::simulator::Simulator;

const USERS: usize = 10;
/// Events of each user before Cello goes away, and again while it is.
const EACH: usize = 30;
/// How long Cello stays away once all events of that part are accepted.
const AWAY: Duration = Duration::from_secs(2);
/// Beyond this the story has failed; it takes a few seconds.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often the metrics are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// The story, and whom it talks to.
pub(super) struct Story<'a> {
    cello: &'a Simulator,
    ingest: Client,
    ops: Client,
    /// The number of the last event of each user.
    posted: u64,
}

impl<'a> Story<'a> {
    pub(super) fn new(cello: &'a Simulator, ingest: Vec<SocketAddr>, ops: Vec<SocketAddr>) -> Self {
        let client = |at| Client::new(Endpoint::Tcp(at));
        Self { cello, ingest: client(ingest), ops: client(ops), posted: 0 }
    }

    pub(super) async fn tell(&mut self) -> Result<(), Failure> {
        timeout(PATIENCE, self.chapters()).await.unwrap_or_else(|_| Err(broken("the story took too long")))
    }

    async fn chapters(&mut self) -> Result<(), Failure> {
        self.ready().await?;
        say("1. Your services post events, without credentials:")?;
        let took = self.post().await?;
        say(&format!("   {} accepted, each synced to disk before its 200, in {took:.2?}", self.accepted().await?))?;
        self.delivered().await?;
        say(&format!(
            "   {} delivered to Cello with {} token call(s)",
            self.count("events_delivered_total").await?,
            self.token_calls()
        ))?;

        say("\n2. Cello goes down (503 to everything), your services do not notice:")?;
        self.cello
            .faults(r#"[{"path": "/events", "status": 503}]"#.parse().map_err(|error| broken(&format!("{error}")))?);
        let took = self.post().await?;
        say(&format!("   {} accepted so far, these in {took:.2?}", self.accepted().await?))?;
        let before = self.cello.stats().received;
        tokio::time::sleep(AWAY).await;
        let calls = self.cello.stats().received - before;
        let (waiting, dead) = (self.waiting().await?, self.dead().await?);
        say(&format!("   {waiting} wait in the outbox, {dead} given up; {calls} probe(s) in {AWAY:?}"))?;

        say("\n3. Cello is back:")?;
        self.cello.faults("[]".parse().map_err(|error| broken(&format!("{error}")))?);
        let back = Instant::now();
        self.delivered().await?;
        say(&format!("   {} delivered, {:.2?} later", self.count("events_delivered_total").await?, back.elapsed()))?;
        self.check().await?;
        self.leave_work().await
    }

    /// Leaves something for the operator: a warning at the door, and an event that Cello refuses once, so that a
    /// replay mends it.
    async fn leave_work(&mut self) -> Result<(), Failure> {
        say("\n4. One more event is doubtful, and Cello refuses it:")?;
        let refusal = r#"{"path": "/events", "user": "user-odd", "status": 400, "message": "no such ucc", "times": 1}"#;
        self.cello.faults(refusal.parse().map_err(|error| broken(&format!("{error}")))?);
        let json = [("content-type", "application/json")];
        let answer = self.ingest.call(Method::POST, "/events", &json, ODD_EVENT.into()).await.map_err(call)?;
        let body: serde_json::Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        say(&format!("   answered {} with a warning: {}", answer.status.as_u16(), body["warnings"][0]))?;
        self.delivered().await?;
        let dead = self.dead().await?;
        say(&format!("   {dead} dead letter: kept until an operator replays or discards it"))?;
        if dead == 1.0 { Ok(()) } else { Err(broken("a refused event is no dead letter")) }
    }

    /// Waits until the relay takes events.
    async fn ready(&mut self) -> Result<(), Failure> {
        while !self.ops.get("/readyz").await.is_ok_and(|answer| answer.status == StatusCode::OK) {
            tokio::time::sleep(LOOK_EVERY).await;
        }
        Ok(())
    }

    /// Posts the next events of every user; tells how long the posts took.
    async fn post(&mut self) -> Result<Duration, Failure> {
        let start = Instant::now();
        for _ in 0..EACH {
            self.posted += 1;
            for user in 0..USERS {
                let json = [("content-type", "application/json")];
                let answer =
                    self.ingest.call(Method::POST, "/events", &json, event(user, self.posted)).await.map_err(call)?;
                if answer.status != StatusCode::OK {
                    return Err(broken(&format!("an event was answered {}", answer.status)));
                }
            }
        }
        Ok(start.elapsed())
    }

    /// Waits until nothing waits.
    async fn delivered(&mut self) -> Result<(), Failure> {
        while self.waiting().await? > 0.0 {
            tokio::time::sleep(LOOK_EVERY).await;
        }
        Ok(())
    }

    async fn accepted(&mut self) -> Result<f64, Failure> {
        self.count("events_accepted_total").await
    }

    async fn waiting(&mut self) -> Result<f64, Failure> {
        let metrics = self.metrics().await?;
        Ok(sum(&metrics, "outbox_events{") - sum(&metrics, "outbox_events{state=\"dead\"}"))
    }

    async fn dead(&mut self) -> Result<f64, Failure> {
        self.count("outbox_events{state=\"dead\"}").await
    }

    async fn count(&mut self, name: &str) -> Result<f64, Failure> {
        Ok(sum(&self.metrics().await?, name))
    }

    async fn metrics(&mut self) -> Result<String, Failure> {
        let answer = self.ops.get("/metrics").await.map_err(call)?;
        Ok(String::from_utf8_lossy(&answer.body).into_owned())
    }

    fn token_calls(&self) -> u64 {
        let calls = &self.cello.stats().token_calls;
        calls.access_key + calls.refresh_token
    }

    /// Compares what arrived with what was posted.
    async fn check(&mut self) -> Result<(), Failure> {
        let mut arrived: BTreeMap<String, Vec<u64>> = BTreeMap::new();
        for event in self.cello.events().into_iter().filter(|event| event.counts) {
            let body: serde_json::Value = serde_json::from_slice(&event.body).unwrap_or_default();
            let number = body["context"]["sequence"].as_u64().unwrap_or_default();
            arrived.entry(event.user.unwrap_or_default().into()).or_default().push(number);
        }
        let expected: Vec<u64> = (1..=self.posted).collect();
        let right = arrived.values().filter(|numbers| **numbers == expected).count();
        let dead = self.dead().await?;
        say(&format!(
            "\nOf {USERS} users, {right} got all {} events at Cello, once and in order; {dead} dead letters.",
            self.posted
        ))?;
        if right == USERS && dead == 0.0 { Ok(()) } else { Err(broken("an event is missing, doubled or out of order")) }
    }
}

/// Its trigger is misspelt.
const ODD_EVENT: &str = r#"{"eventName":"ReferralUpdated","payload":{"ucc":"cello-ucc-old","newUserId":"user-odd"},"context":{"event":{"trigger":"new-sigup","timestamp":"2026-11-20T03:18:01.620Z"},"newUser":{"id":"user-odd"}}}"#;

fn say(line: &str) -> Result<(), Failure> {
    output::print(&format!("{line}\n"))
}

fn broken(what: &str) -> Failure {
    Failure::new(Exit::Unhealthy, format!("the demo failed: {what}"))
}

fn call(error: CallError) -> Failure {
    broken(&error.to_string())
}

fn event(user: usize, number: u64) -> Bytes {
    format!(
        r#"{{"eventName":"ReferralUpdated","payload":{{"ucc":"cello-ucc","newUserId":"user-{user}"}},"context":{{"sequence":{number},"event":{{"trigger":"new-signup","timestamp":"2026-11-20T03:18:01.620Z"}},"newUser":{{"id":"user-{user}"}}}}}}"#
    )
    .into()
}

/// The sum of all series whose line begins so (without the common prefix).
fn sum(metrics: &str, beginning: &str) -> f64 {
    let own =
        metrics.lines().filter_map(|line| line.strip_prefix("cello_relay_")).filter(|line| line.starts_with(beginning));
    own.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}
