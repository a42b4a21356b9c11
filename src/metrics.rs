//! Every metric once: name, help, closed label values, all initialised to 0.
//!
//! Counters and histograms live here and are bumped where things happen. Gauges that mirror state
//! (`outbox_*`, `state`, …) are set from it by `ops` when `/metrics` is read, so they are exact at
//! scrape and cost nothing in between.

mod family;
mod labels;
mod reasons;

pub use family::{Counters, Gauges, Histograms, Label};
pub use labels::{
    Code, Discarded, Grant, Invalidation, LogLevel, Lost, Operation, Phase, Place, ReadRoute, RefreshFailure,
    Rejection, Route, StoreError, Stripped, Warning,
};

use std::marker::PhantomData;

use prometheus::{
    Gauge, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
};

use crate::event::Trigger;
use crate::reason::Reason;
use reasons::{Of, expected};

// Few buckets, because each is a series that every pod has: at most 300 series in all, whatever comes.
// Every threshold of an alert is a boundary.

/// Seconds; a commit or a request that includes one.
const COMMIT_BUCKETS: &[f64] = &[0.001, 0.005, 0.05, 0.25, 1.0];
/// Seconds; a call to Cello.
const UPSTREAM_BUCKETS: &[f64] = &[0.05, 0.25, 1.0, 5.0, 15.0];
/// Seconds; a call for a token, of which there are few.
const TOKEN_BUCKETS: &[f64] = &[5.0];
/// Seconds from acceptance to Cello's 2xx; 300 s is the service level.
const DELIVERY_BUCKETS: &[f64] = &[0.1, 1.0, 30.0, 300.0, 3600.0, 86400.0];
/// Seconds; a read through the relay, from the cache or from Cello. Not by route: 16 more series do not fit.
const READ_BUCKETS: &[f64] = &[0.001, 0.05, 0.25, 1.0, 3.0];
/// Events in one commit.
const BATCH_BUCKETS: &[f64] = &[100.0];

/// The ways in whose time is measured; reads have a histogram of their own.
const TIMED_ROUTES: &[Route] = &[Route::Events, Route::Batch];
/// Token calls have a histogram of their own.
const TIMED_OPERATIONS: &[Operation] = &[Operation::Events, Operation::Read];
/// The answers to `POST /events` and `POST /events/batch` that are told apart.
const POST_CODES: &[Code] = &[Code::C200, Code::C400, Code::C413, Code::C415, Code::C422, Code::C503];
/// The same elsewhere.
const OTHER_CODES: &[Code] = &[Code::C200, Code::C201, Code::C401, Code::C403, Code::C404];

/// What is read; `depersonalize` is off unless it is switched on.
const READS: &[ReadRoute] = &[ReadRoute::ReferralCode, ReadRoute::ActiveLink, ReadRoute::Reward];
/// The reads whose answers are kept by default.
const CACHED_READS: &[ReadRoute] = &[ReadRoute::ReferralCode, ReadRoute::ActiveLink];
/// The answers to reads that are told apart: Cello's two usual ones, and those of the relay itself for a failure.
const READ_CODES: &[Code] = &[Code::C200, Code::C404, Code::C502, Code::C503, Code::C504];
/// The same among all requests, where reads are one route.
const READ_ROUTE_CODES: &[Code] = &[Code::C200, Code::C404, Code::C503];

/// Builds and registers families under the common prefix.
struct Builder {
    registry: Registry,
}

impl Builder {
    fn register<C: prometheus::core::Collector + Clone + 'static>(&self, made: prometheus::Result<C>) -> C {
        let collector = made.expect("metric names and labels are constants, checked by a test");
        self.registry.register(Box::new(collector.clone())).expect("each metric is declared once");
        collector
    }

    /// The standard `process_*` metrics, where the system tells them.
    fn process(&self) {
        #[cfg(target_os = "linux")]
        self.registry
            .register(Box::new(prometheus::process_collector::ProcessCollector::for_self()))
            .expect("registered once");
    }

    fn counter(&self, name: &str, help: &str) -> IntCounter {
        self.register(IntCounter::new(full(name), help))
    }

    fn gauge(&self, name: &str, help: &str) -> IntGauge {
        self.register(IntGauge::new(full(name), help))
    }

    fn time(&self, name: &str, help: &str) -> Gauge {
        self.register(Gauge::new(full(name), help))
    }

    fn histogram(&self, name: &str, help: &str, buckets: &[f64]) -> Histogram {
        self.register(Histogram::with_opts(HistogramOpts::new(full(name), help).buckets(buckets.to_vec())))
    }

    fn counters<L: Label>(&self, name: &str, help: &str, label: &str, expected: &[L]) -> Counters<L> {
        let made = IntCounterVec::new(Opts::new(full(name), help), &[label]);
        Counters::new(self.register(made), expected)
    }

    fn gauges<L: Label>(&self, name: &str, help: &str, label: &str, expected: &[L]) -> Gauges<L> {
        let made = IntGaugeVec::new(Opts::new(full(name), help), &[label]);
        Gauges::new(self.register(made), expected)
    }

    fn histograms<L: Label>(
        &self,
        name: &str,
        help: &str,
        label: &str,
        expected: &[L],
        buckets: &[f64],
    ) -> Histograms<L> {
        let opts = HistogramOpts::new(full(name), help).buckets(buckets.to_vec());
        Histograms::new(self.register(HistogramVec::new(opts, &[label])), expected)
    }

    fn answers<R: Label>(&self, name: &str, help: &str, expected: &[(&[R], &[Code])]) -> Answers<R> {
        let made = IntCounterVec::new(Opts::new(full(name), help), &["route", "code"]);
        Answers::new(&self.register(made), expected)
    }

    fn info(&self, name: &str, help: &str, labels: &[(&str, &str)]) {
        let names: Vec<&str> = labels.iter().map(|(name, _)| *name).collect();
        let values: Vec<&str> = labels.iter().map(|(_, value)| *value).collect();
        let family = self.register(IntGaugeVec::new(Opts::new(full(name), help), &names));
        family.with_label_values(&values).set(1);
    }
}

fn full(name: &str) -> String {
    format!("cello_relay_{name}")
}

/// Declares the struct of all metrics and its constructor from one table.
macro_rules! metrics {
    ($($field:ident: $kind:ty = $method:ident($name:literal, $help:literal $(, $extra:expr)*);)*) => {
        /// All metrics of a relay. Cheap to share behind an `Arc`; nothing here ever waits.
        pub struct Metrics {
            registry: Registry,
            $(#[doc = $help] pub $field: $kind,)*
        }

        impl Metrics {
            /// All metrics, at 0.
            #[must_use]
            pub fn new() -> Self {
                let builder = Builder { registry: Registry::new() };
                builder.process();
                $(let $field = builder.$method($name, $help $(, $extra)*);)*
                Self { registry: builder.registry, $($field,)* }
            }
        }
    };
}

metrics! {
    state: Gauges<Phase> = gauges("state", "Where the process is in its life; one is 1.", "state", Phase::ALL);
    log_messages: Counters<LogLevel> = counters("log_messages_total", "Log lines written or suppressed.", "level", LogLevel::ALL);
    panics: IntCounter = counter("panics_total", "Panics caught; each is a bug.");

    ingest_requests: Answers<Route> = answers("ingest_requests_total", "Requests answered.", &[(TIMED_ROUTES, POST_CODES), (&[Route::Read], READ_ROUTE_CODES), (&[Route::Other], OTHER_CODES)]);
    ingest_duration: Histograms<Route> = histograms("ingest_request_duration_seconds", "Time to answer a request, the durable commit included.", "route", TIMED_ROUTES, COMMIT_BUCKETS);
    ingest_in_flight: IntGauge = gauge("ingest_requests_in_flight", "Requests being answered.");
    ingest_connections: IntGauge = gauge("ingest_connections", "Open connections of apps.");
    ingest_bytes: IntCounter = counter("ingest_received_bytes_total", "Bytes of request bodies received, decompressed.");
    ingest_warnings: Counters<Warning> = counters("ingest_warnings_total", "Warnings given about accepted events.", "kind", Warning::ALL);
    accepted: Counters<Trigger> = counters("events_accepted_total", "Events stored, counted after the commit.", "trigger", &Trigger::ALL);
    rejected: Counters<Rejection> = counters("events_rejected_total", "Events or requests refused before anything was stored.", "reason", Rejection::ALL);
    deduplicated: IntCounter = counter("events_deduplicated_total", "Events of requests answered from a known Idempotency-Key.");
    stripped: Counters<Stripped> = counters("event_fields_stripped_total", "Fields stripped from accepted events.", "reason", Stripped::ALL);

    outbox_events: Gauges<Place> = gauges("outbox_events", "Events in the outbox, by disjoint state.", "state", Place::ALL);
    outbox_size: IntGauge = gauge("outbox_size_bytes", "Bytes used of the capacity: live pages, WAL and reserve.");
    outbox_capacity: IntGauge = gauge("outbox_capacity_bytes", "outbox.max_bytes.");
    outbox_oldest: Gauge = time("outbox_oldest_event_timestamp_seconds", "When the oldest undelivered event was accepted; 0 if there is none.");
    outbox_recovered: IntGauge = gauge("outbox_recovered_events", "Undelivered events found at start.");
    outbox_commit: Histogram = histogram("outbox_commit_duration_seconds", "Time of a durable commit; its p99 is the health of the disk.", COMMIT_BUCKETS);
    outbox_batch: Histogram = histogram("outbox_commit_batch_events", "Events appended or settled by one commit.", BATCH_BUCKETS);
    outbox_errors: Counters<StoreError> = counters("outbox_errors_total", "Failures of the store.", "reason", StoreError::ALL);
    outbox_wal: IntGauge = gauge("outbox_wal_size_bytes", "Size of the write-ahead log.");
    outbox_checkpoint: Gauge = time("outbox_checkpoint_last_success_timestamp_seconds", "When the last checkpoint succeeded.");
    outbox_volume: IntGauge = gauge("outbox_volume_size_bytes", "Size of the volume the outbox is on.");
    outbox_volume_free: IntGauge = gauge("outbox_volume_available_bytes", "Free bytes of that volume.");
    outbox_quarantined: IntGauge = gauge("outbox_quarantined_files", "Damaged files moved aside.");
    idempotency_evicted: IntCounter = counter("idempotency_keys_evicted_total", "Remembered keys dropped early for want of room.");

    upstream_requests: Counters<Operation> = counters("upstream_requests_total", "Requests sent to Cello.", "operation", Operation::ALL);
    upstream_failures: Counters<Reason> = counters("upstream_request_failures_total", "Requests to Cello that did not succeed, all operations.", "reason", &expected(Of::Failure));
    upstream_duration: Histograms<Operation> = histograms("upstream_request_duration_seconds", "Time of a request to Cello.", "operation", TIMED_OPERATIONS, UPSTREAM_BUCKETS);
    upstream_in_flight: IntGauge = gauge("upstream_requests_in_flight", "Requests to Cello under way.");
    upstream_limit: IntGauge = gauge("upstream_concurrency_limit", "How many deliveries may be under way now.");
    delivered: Counters<Trigger> = counters("events_delivered_total", "Events that Cello has, counted when that is durable.", "trigger", &Trigger::ALL);
    delivery_latency: Histogram = histogram("delivery_latency_seconds", "Time from acceptance to Cello's 2xx.", DELIVERY_BUCKETS);
    delivery_last_success: Gauge = time("delivery_last_success_timestamp_seconds", "When Cello last took an event.");
    delivery_retries: Counters<Reason> = counters("delivery_retries_total", "Attempts that failed and will be repeated.", "reason", &expected(Of::Retry));
    delivery_ambiguous: Counters<Reason> = counters("delivery_ambiguous_total", "Requests sent whose outcome is unknown: possible duplicates.", "reason", &expected(Of::Unknown));
    dead_lettered: Counters<Reason> = counters("events_dead_lettered_total", "Events given up or refused; kept until an operator decides.", "reason", &expected(Of::Death));
    replayed: IntCounter = counter("events_replayed_total", "Dead letters put back into the queue.");
    discarded: Counters<Discarded> = counters("events_discarded_total", "Events ended by an operator.", "reason", Discarded::ALL);
    lost: Counters<Lost> = counters("events_lost_total", "Accepted events that a damaged disk took. Must stay 0.", "reason", Lost::ALL);
    circuit_open: IntGauge = gauge("upstream_circuit_open", "1 while the breaker is open.");
    held: Gauges<Reason> = gauges("forward_held", "1 while delivery is held for that reason.", "reason", &expected(Of::Hold));
    paused: IntGauge = gauge("forward_paused", "1 while an operator has paused delivery.");

    read_requests: Answers<ReadRoute> = answers("read_requests_total", "Reads answered.", &[(READS, READ_CODES), (&[ReadRoute::Depersonalize], &[Code::C204])]);
    read_duration: Histogram = histogram("read_request_duration_seconds", "Time to answer a read.", READ_BUCKETS);
    read_cache_requests: Counters<ReadRoute> = counters("read_cache_requests_total", "Reads that looked into the cache.", "route", CACHED_READS);
    read_cache_hits: Counters<ReadRoute> = counters("read_cache_hits_total", "Reads answered from the cache while fresh.", "route", CACHED_READS);
    read_stale_served: Counters<ReadRoute> = counters("read_stale_served_total", "Reads answered from the cache for want of a better answer.", "route", &[ReadRoute::ActiveLink]);
    read_cache_entries: IntGauge = gauge("read_cache_entries", "Answers kept, as of the last change.");
    read_coalesced: IntCounter = counter("read_coalesced_total", "Reads that shared another one's request to Cello.");

    token_expiry: Gauge = time("token_expiry_timestamp_seconds", "When the access token ends; 0 without one.");
    token_refreshes: Counters<Grant> = counters("token_refreshes_total", "Tokens obtained.", "grant", Grant::ALL);
    token_failures: Counters<RefreshFailure> = counters("token_refresh_failures_total", "Tokens asked for and not obtained.", "reason", RefreshFailure::ALL);
    token_duration: Histogram = histogram("token_refresh_duration_seconds", "Time to obtain a token.", TOKEN_BUCKETS);
    token_last_success: Gauge = time("token_refresh_last_success_timestamp_seconds", "When a token was last obtained.");
    token_invalidations: Counters<Invalidation> = counters("token_invalidations_total", "Tokens thrown away before their end.", "reason", Invalidation::ALL);
    credentials_ok: IntGauge = gauge("credentials_last_reload_successful", "1 if the current credentials could be read and are not refused.");
    credentials_reloaded: Gauge = time("credentials_last_reload_success_timestamp_seconds", "When credentials were last read.");
}

/// One of what a gauge counts, taken off when it is dropped, whatever ends it.
pub struct Counted<'m>(&'m IntGauge);

impl<'m> Counted<'m> {
    /// Counts one more.
    #[must_use]
    pub fn on(gauge: &'m IntGauge) -> Self {
        gauge.inc();
        Self(gauge)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// Requests by route and code. The codes that are told apart are named for each route; all others are its
/// `other`, so that no traffic makes more series.
pub struct Answers<R> {
    /// A row of codes for each route.
    counters: Vec<IntCounter>,
    route: PhantomData<fn(R)>,
}

impl<R: Label> Answers<R> {
    fn new(family: &IntCounterVec, expected: &[(&[R], &[Code])]) -> Self {
        let is_expected = |route: R, code: Code| {
            let mut rows = expected.iter().filter(|(routes, _)| routes.iter().any(|one| one.index() == route.index()));
            rows.any(|(_, codes)| codes.contains(&code))
        };
        let counter = |route: R, code: Code| {
            let code = if is_expected(route, code) { code } else { Code::Other };
            family.with_label_values(&[route.as_str(), code.as_str()])
        };
        let counters = R::ALL.iter().flat_map(|route| Code::ALL.iter().map(|code| counter(*route, *code))).collect();
        Self { counters, route: PhantomData }
    }

    /// The counter of one pair.
    #[must_use]
    pub fn with(&self, route: R, code: Code) -> IntCounter {
        self.counters[route.index() * Code::ALL.len() + code.index()].clone()
    }
}

impl Metrics {
    /// Adds what is known only once the relay is built: constants shown as labels.
    pub fn describe(&self, name: &'static str, help: &'static str, labels: &[(&str, &str)]) {
        Builder { registry: self.registry.clone() }.info(name, help, labels);
    }

    /// The classic text format, version 0.0.4.
    #[must_use]
    pub fn render(&self) -> String {
        let mut text = String::with_capacity(32 * 1024);
        let encoded = prometheus::TextEncoder::new().encode_utf8(&self.registry.gather(), &mut text);
        encoded.expect("writing to a string does not fail");
        text
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_series_that_is_expected_starts_at_0() {
        let text = Metrics::new().render();
        let samples = text.lines().filter(|line| line.starts_with("cello_relay_"));
        for sample in samples {
            assert!(sample.ends_with(" 0"), "{sample}");
        }
        assert!(text.contains("cello_relay_events_dead_lettered_total{reason=\"exhausted\"} 0"));
    }

    #[test]
    fn an_unexpected_label_value_is_counted_all_the_same() {
        let metrics = Metrics::new();
        metrics.dead_lettered.with(Reason::Dns).inc();
        assert!(metrics.render().contains("cello_relay_events_dead_lettered_total{reason=\"dns\"} 1"));
    }

    fn series(metrics: &Metrics) -> usize {
        metrics.render().lines().filter(|line| !line.starts_with('#')).count()
    }

    #[test]
    fn at_most_300_series_are_exposed() {
        let metrics = Metrics::new();
        for name in ["build_info", "config_info", "outbox_info"] {
            metrics.describe(name, "As a relay that runs has it.", &[("a", "b")]);
        }
        let fresh = series(&metrics);
        for code in Code::ALL {
            Route::ALL.iter().for_each(|route| metrics.ingest_requests.with(*route, *code).inc());
            ReadRoute::ALL.iter().for_each(|route| metrics.read_requests.with(*route, *code).inc());
        }
        assert_eq!(series(&metrics), fresh, "no answer makes a series");
        // With settings that keep all that may be kept.
        for kept in READS {
            metrics.read_cache_requests.with(*kept).inc();
            metrics.read_cache_hits.with(*kept).inc();
        }
        CACHED_READS.iter().for_each(|kept| metrics.read_stale_served.with(*kept).inc());
        assert!(series(&metrics) <= 300, "{}", series(&metrics));
    }

    #[test]
    fn an_answer_that_is_not_told_apart_is_counted_as_other() {
        let metrics = Metrics::new();
        metrics.ingest_requests.with(Route::Events, Code::C405).inc();
        metrics.ingest_requests.with(Route::Events, Code::C401).inc();
        let text = metrics.render();
        assert!(text.contains("cello_relay_ingest_requests_total{code=\"other\",route=\"events\"} 2"), "{text}");
    }
}
