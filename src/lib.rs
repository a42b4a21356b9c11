//! cello-relay: a sidecar that takes referral events from services, stores them durably and forwards them to
//! Cello.
//!
//! # The journey of one event
//!
//! ```text
//! POST /events ─▶ ingress ─▶ event (parse, validate, strip) ─▶ outbox ─▶ forwarder ─▶ cello (token, verdict) ─▶ Cello
//!                                                                ▲ claim / settle ▼
//! GET … ─▶ ingress ─▶ reads (cache) ──────────────────────────────────────────────────▶ cello ─▶ Cello
//! ```
//!
//! 1. An app posts to [`ingress`], over the accept loop of [`http`].
//! 2. [`event`] makes an `Event` of it: validated, stripped, order key known. Only that type can be stored.
//! 3. [`outbox`] appends it: one writer commits what many callers brought, and syncs.
//! 4. **Only then the app gets its 200.** It promises: the event is on stable storage, and will be delivered
//!    at least once, after every earlier event of its user, or be kept as a dead letter that an operator
//!    sees. It does not promise that Cello has it yet, nor that Cello will like it.
//! 5. [`forwarder`] claims it, sends it through [`cello`] with the one shared token, and settles it by the
//!    verdict: delivered, again later, given back, or dead.
//!
//! A crash at any point loses nothing after step 4; between Cello's answer and the settle's commit it can
//! make a duplicate, because Cello's API has no idempotency key.
//!
//! # Threads
//!
//! Taking events in has one thread, which probes and control share; sending has another. On a single core both share
//! one. More would only wake each other for work that one finishes sooner. Beside each is one for what blocks (files of
//! keys, names to be looked up), up to four where that takes long. The store has its own: one writer, one that syncs on a
//! slow disk, one reader; if one of them panics the process ends. All that is needed is there from the start: an app that
//! leaks threads until its pod may have no more takes none of them away.
//!
//! # The map
//!
//! | module | what lives there |
//! | --- | --- |
//! | [`cli`] | one file a subcommand; exit codes |
//! | [`app`] | the only wiring: settings → build → run → drain |
//! | [`config`] | layers of settings, all faults at once |
//! | [`event`] | `Unchecked` → `Event`, hints |
//! | [`ingress`] | the app-facing service |
//! | [`reads`] | reads through Cello: checked paths, one call for many, cache |
//! | [`outbox`] | traits, the state machine, `sqlite` and the `memory` model |
//! | [`forwarder`] | claim → send → settle; backoff, breaker, hold, pacing |
//! | [`cello`] | calls to Cello: token, verdict, transport |
//! | [`ops`] | probes and `/metrics` |
//! | [`admin`] | the control API |
//! | [`simulator`] | a Cello with faults, for demo and tests |
//! | [`http`] | accept loop, limits, graceful close |
//! | [`clock`], [`reason`], [`metrics`], [`telemetry`] | time, why, how much, logs |
//! | `sync` | locks and tasks, which a test can replace |
//!
//! # The import rule
//!
//! Data flows one way, and so do imports: `cli → app → {ingress, reads, forwarder, ops, admin} → {outbox, cello} →
//! {event, clock, reason, metrics}`. Ingress and forwarder meet only at the outbox traits; the SQLite store is
//! named in one place in `app`, which also hands the reads to ingress; `admin` asks handles of the others that
//! never ask it; the simulator shares no code with what it judges. `tests/tidy.rs` holds all
//! of it.

pub mod admin;
pub mod app;
pub mod cello;
pub mod cli;
pub mod clock;
pub mod config;
pub mod event;
pub mod forwarder;
pub mod http;
pub mod ingress;
pub mod metrics;
pub mod ops;
pub mod outbox;
pub mod reads;
pub mod reason;
pub mod simulator;
mod sync;
pub mod telemetry;
