//! The outbox of a relay that does not run, answering as the control API would.

use std::cell::Cell;
use std::io::Write;
use std::path::Path;

use serde_json::{Value, json};

use super::source::{Question, Which};
use crate::admin::{PauseFile, reasons, view};
use crate::cli::exit::{Exit, Failure};
use crate::cli::output::counted;
use crate::clock::{Clock, SystemClock, Timestamp};
use crate::event::{EventId, UserId};
use crate::forwarder::Pause;
use crate::outbox::sqlite::{Offline, OpenError, aside, offline};
use crate::outbox::{Detail, Filter, Ledger, Listed, ReadError, State, Stats};

/// Events read at a time.
const PAGE: usize = 500;

/// What a relay makes of damage.
pub(super) const WHAT_BECOMES: &str = "a relay moves a damaged file aside as soon as it meets the damage, and goes on with \
    what can be read; an event that fails only its checksum becomes a dead letter (corrupt) when it is its turn";

/// So many events are not what was stored.
pub(super) fn left_out(damaged: u64) -> Failure {
    let message = match damaged {
        1 => "1 of these events does not match its checksum".to_owned(),
        _ => format!("{damaged} of these events do not match their checksums"),
    };
    Failure::new(Exit::Data, format!("the outbox is damaged: {message}")).hint(WHAT_BECOMES)
}

/// The outbox of a relay that does not run.
pub(super) struct Stopped {
    outbox: Offline,
    /// `outbox.durability` of the configuration; empty where that does not matter.
    durability: String,
    /// What an operator ordered, and the next start keeps to.
    pause: Option<Pause>,
    /// Events whose bytes are not what was stored.
    damaged: Cell<u64>,
}

impl From<ReadError> for Failure {
    fn from(error: ReadError) -> Self {
        Failure::new(Exit::Io, error.to_string())
    }
}

impl Stopped {
    /// The outbox in that directory, if there is one.
    pub(super) fn open(dir: &Path) -> Result<Option<Self>, Failure> {
        match offline(dir) {
            Ok(outbox) => {
                let (durability, pause) = (String::new(), PauseFile::new(dir).read()?);
                Ok(Some(Self { outbox, durability, pause, damaged: Cell::default() }))
            }
            Err(OpenError::Missing { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// The disk it is on, as configured.
    pub(super) fn on(mut self, durability: &str) -> Self {
        durability.clone_into(&mut self.durability);
        self
    }

    /// A damaged file that was moved aside.
    pub(super) fn aside(dir: &Path, file: &Path) -> Result<Self, Failure> {
        Ok(Self { outbox: aside(dir, file)?, durability: String::new(), pause: None, damaged: Cell::default() })
    }

    /// To be asked when all that can be read was told: the damage that was met, if any.
    pub(super) fn verdict(&self) -> Result<(), Failure> {
        self.all_came_over()?;
        let message = match (self.outbox.damage(), self.damaged.get()) {
            (None, 0) => return Ok(()),
            (None, damaged) => return Err(left_out(damaged)),
            (Some(damage), _) => match damage.expected {
                Some(expected) => format!("only {} of {} can be read", damage.readable, counted(expected, "event")),
                None => format!("only {} can be read; nobody knows of how many", counted(damage.readable, "event")),
            },
        };
        Err(Failure::new(Exit::Data, format!("the outbox is damaged: {message}")).hint(WHAT_BECOMES))
    }

    /// A copy out of a damaged file that was cut off: what is here is not all.
    fn all_came_over(&self) -> Result<(), Failure> {
        let Some(unrecovered) = self.outbox.unrecovered() else { return Ok(()) };
        Err(Failure::new(Exit::Data, format!("the outbox is not whole: {unrecovered}")).hint(
            "start a relay, which goes on with that, and delete nothing before; `--file NAME` shows what is in it",
        ))
    }

    /// What `outbox check` finds; nothing if all is well.
    pub(super) fn check(&self) -> Result<Vec<String>, Failure> {
        Ok(self.outbox.check()?)
    }

    /// How many events wait and are dead, and the base URL they are for.
    pub(super) fn binding(&self) -> Result<(Ledger, Option<String>), Failure> {
        Ok((self.outbox.ledger()?, self.outbox.upstream()?))
    }

    /// From now on they are for that base URL.
    pub(super) fn rebind(&self, upstream: &str) -> Result<(), Failure> {
        Ok(self.outbox.rebind(upstream)?)
    }

    /// The answer, or nothing if there is no such event.
    pub(super) fn answer(&self, question: &Question<'_>) -> Result<Option<String>, Failure> {
        let answer = match question {
            Question::Status => self.status()?,
            Question::List { which, after, limit, reveal } => self.list(which, *after, *limit as usize, *reveal)?,
            Question::Show { id, reveal } => return self.show(*id, *reveal),
        };
        Ok(Some(answer.to_string()))
    }

    fn status(&self) -> Result<Value, Failure> {
        let (ledger, retrying) = self.outbox.counts()?;
        let mut oldest: Option<Timestamp> = None;
        for state in [State::Pending, State::Retrying] {
            let filter = Filter { state: Some(state), ..Filter::default() };
            let first = self.outbox.list(&filter, None, 1)?.first().map(|listed| listed.id.accepted_at());
            oldest = [oldest, first].into_iter().flatten().min();
        }
        let age = oldest.map_or(0.0, |oldest| SystemClock.now().since(oldest).as_secs_f64());
        let now = SystemClock.now();
        let paused = self.pause.filter(|pause| pause.left(now).is_some());
        let quarantined_files = self.outbox.quarantined().len() as u64;
        let is_recovering = self.outbox.unrecovered().is_some();
        let stats = Stats { ledger, retrying, oldest, quarantined_files, is_recovering, ..Stats::default() };
        let until = paused.and_then(|pause| pause.until).map(|until| until.to_string());
        let paused = paused.map(|pause| json!({"since": pause.since.to_string(), "until": until}));
        Ok(json!({
            "state": "stopped",
            "reasons": reasons::of_a_stopped(stats, &self.durability, self.pause, now),
            "upstream": {"paused": paused},
            "ledger": {
                "accepted": ledger.accepted, "delivered": ledger.delivered, "dead": ledger.dead,
                "discarded": ledger.discarded, "erased": ledger.erased, "lost": ledger.lost,
            },
            "queue": {
                "pending": ledger.undelivered().saturating_sub(retrying), "in_flight": 0, "retrying": retrying,
                "dead": ledger.dead,
                "oldestSeconds": age,
            },
            "volume": {"quarantinedFiles": self.outbox.quarantined().len()},
        }))
    }

    fn list(&self, which: &Which<'_>, after: Option<EventId>, limit: usize, reveal: bool) -> Result<Value, Failure> {
        // One more than asked for, to see whether there are more.
        let mut listed = self.outbox.list(&filter(which), after, limit + 1)?;
        let more = listed.len() > limit;
        listed.truncate(limit);
        let next = listed.last().filter(|_| more).map(|last| last.id.to_string());
        let events: Vec<Value> = listed.iter().map(|listed| view::listed(listed, reveal)).collect();
        Ok(json!({ "events": events, "next": next }))
    }

    /// What is kept of a person, by state.
    pub(super) fn found_of(&self, user: &str) -> Result<Value, Failure> {
        self.all_came_over()?;
        let filter = Filter { user: Some(UserId::new(user)), ..Filter::default() };
        let lines = self.outbox.list(&filter, None, usize::MAX)?;
        let of = |state| lines.iter().filter(|line| line.report.state == state).count();
        let (pending, retrying, dead) = (of(State::Pending), of(State::Retrying), of(State::Dead));
        Ok(json!({"count": lines.len(), "pending": pending, "retrying": retrying, "in_flight": 0, "dead": dead}))
    }

    fn show(&self, id: EventId, reveal: bool) -> Result<Option<String>, Failure> {
        let Some(detail) = self.outbox.show(id)? else { return Ok(None) };
        self.damaged.set(u64::from(!detail.is_intact));
        let shown = serde_json::to_string(&view::detail(&detail, reveal));
        Ok(Some(shown.expect("names are strings, so it is always JSON")))
    }

    /// Writes the bodies, or without `reveal` the redacted lines of the listing: of these ids if there are any, else
    /// of at most `limit` that are meant. A body that the disk damaged is left out, which is said at the end.
    pub(super) fn export(
        &self,
        which: &Which<'_>,
        ids: &[EventId],
        limit: usize,
        reveal: bool,
        out: &mut impl Write,
    ) -> Result<(), Failure> {
        if !ids.is_empty() {
            return self.export_these(ids, reveal, out);
        }
        let (filter, mut after, mut left) = (filter(which), None, limit);
        loop {
            let page = self.outbox.list(&filter, after, left.min(PAGE))?;
            for listed in &page {
                let detail = if reveal { self.outbox.show(listed.id)? } else { None };
                self.write_line(listed, detail.as_ref(), reveal, out)?;
            }
            left -= page.len();
            match page.last() {
                Some(last) if page.len() == PAGE && left > 0 => after = Some(last.id),
                _ => break,
            }
        }
        out.flush()?;
        self.verdict()
    }

    fn export_these(&self, ids: &[EventId], reveal: bool, out: &mut impl Write) -> Result<(), Failure> {
        let mut ids = ids.to_vec();
        ids.sort_by_key(|id| id.seq());
        ids.dedup();
        let found = ids.iter().map(|id| Ok((*id, self.outbox.show(*id)?)));
        let found: Vec<(EventId, Option<Detail>)> = found.collect::<Result<_, Failure>>()?;
        let unknown: Vec<String> =
            found.iter().filter(|(_, found)| found.is_none()).map(|(id, _)| id.to_string()).collect();
        if !unknown.is_empty() {
            return Err(Failure::new(Exit::Unavailable, format!("not waiting and not dead: {}", unknown.join(", "))));
        }
        for detail in found.into_iter().filter_map(|(_, found)| found) {
            self.write_line(&detail.listed, reveal.then_some(&detail), reveal, out)?;
        }
        out.flush()?;
        self.verdict()
    }

    /// A line of an export: the body, or redacted.
    fn write_line(
        &self,
        listed: &Listed,
        detail: Option<&Detail>,
        reveal: bool,
        out: &mut impl Write,
    ) -> Result<(), Failure> {
        let line = match detail.filter(|detail| detail.is_intact) {
            Some(detail) => view::one_line(&detail.body),
            None if reveal => {
                self.damaged.set(self.damaged.get() + 1);
                return Ok(());
            }
            None => view::listed(listed, false).to_string(),
        };
        Ok(writeln!(out, "{line}")?)
    }
}

fn filter(which: &Which<'_>) -> Filter {
    let states = [State::Pending, State::InFlight, State::Retrying, State::Dead];
    let state = which.state.and_then(|name| states.into_iter().find(|state| state.as_str() == name));
    let now = SystemClock.now();
    let (until, since) = (which.older_than.map(|age| now.minus(age)), which.newer_than.map(|age| now.minus(age)));
    Filter { state, user: which.user.map(UserId::new), reason: which.reason, since, until }
}
