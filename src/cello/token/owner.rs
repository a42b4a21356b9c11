//! The owner of the token where access keys are exchanged for it: drives [`Machine`], asks, publishes,
//! logs and counts.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tower::Service;
use tracing::{debug, error, info, warn};

use super::exchange::{Failure, exchange};
use super::machine::{Ask, Machine, Next, Rejected, Standing};
use super::status::TokenStatus;
use super::{Rejection, Slot, Tokens};
use crate::cello::Access;
use crate::cello::answer::Answer;
use crate::cello::credentials::Reading;
use crate::cello::transport::{Call, TransportError};
use crate::clock::{Clock, Timestamp};
use crate::metrics::{Invalidation, Label, Metrics, RefreshFailure};

/// Runs as long as it is polled.
pub(in crate::cello) struct Owner<S> {
    machine: Machine,
    stack: S,
    timeout: Duration,
    /// For messages.
    base_url: String,
    clock: Arc<dyn Clock>,
    metrics: Arc<Metrics>,
    rng: fastrand::Rng,
    tokens: Arc<Tokens>,
    credentials: watch::Receiver<Reading>,
    /// The 401s up to this ticket stand.
    settled: u64,
    /// Since when access stands as it does.
    since: (Standing, Timestamp),
    /// What was complained about in the log and is not over.
    complaint: Option<Complaint>,
    /// What operators are told; its access and times are set when it is.
    status: TokenStatus,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Complaint {
    Refused,
    Missing,
    Failing,
}

impl<S> Owner<S>
where
    S: Service<Call, Response = Answer, Error = TransportError> + Clone,
{
    pub(in crate::cello) fn new(
        stack: S,
        settings: &crate::cello::Settings,
        (clock, metrics): (Arc<dyn Clock>, Arc<Metrics>),
        rng: fastrand::Rng,
        (tokens, credentials): (Arc<Tokens>, watch::Receiver<Reading>),
    ) -> Self {
        let since = (Standing::Waiting, clock.now());
        let (generation, settled) = tokens.so_far();
        Self {
            machine: Machine::after(generation),
            stack,
            timeout: settings.timeout,
            base_url: settings.base_url.clone(),
            clock,
            metrics,
            rng,
            tokens,
            credentials,
            settled,
            since,
            complaint: None,
            status: TokenStatus::default(),
        }
    }

    /// Keeps the token fresh, for ever.
    pub(in crate::cello) async fn run(mut self) {
        let mut rejections = self.tokens.rejections();
        self.read_credentials();
        loop {
            let next = self.machine.next(self.clock.instant());
            self.publish();
            match next {
                Next::Ask(ask) => self.ask(ask, &mut rejections).await,
                Next::Wait(until) => tokio::select! {
                    () = wait_until(until) => {}
                    Ok(()) = self.credentials.changed() => self.read_credentials(),
                    Ok(()) = rejections.changed() => self.reject(&mut rejections),
                },
            }
        }
    }

    async fn ask(&mut self, ask: Ask, rejections: &mut watch::Receiver<Rejection>) {
        let asked = self.clock.instant();
        let mut asking = pin!(exchange(self.stack.clone(), &ask, self.timeout));
        let result = loop {
            tokio::select! {
                result = &mut asking => break result,
                // Nobody with a 401 has to wait for a slow Cello to learn that it stands.
                Ok(()) = rejections.changed() => {
                    self.reject(rejections);
                    self.publish();
                }
            }
        };
        let now = self.clock.instant();
        let took = now.duration_since(asked);
        self.metrics.token_duration.observe(took.as_secs_f64());
        // A token lives from when it was asked for. One that has ended already would be asked for again at once, for ever.
        let result = result.and_then(|granted| if granted.0.life > took { Ok(granted) } else { Err(Failure::Late) });
        match result {
            Ok((granted, life_unsaid)) => {
                if life_unsaid {
                    warn!(event = "token_life_unknown", "the token's answer has no valid expiresIn; taken as 60 s");
                }
                debug!(
                    event = "token_obtained",
                    grant = ask.grant().as_str(),
                    life_seconds = granted.life.as_secs(),
                    "token obtained"
                );
                self.metrics.token_refreshes.with(ask.grant()).inc();
                self.metrics.token_last_success.set(self.clock.now().as_seconds());
                let status = &mut self.status;
                (status.obtained_at, status.last_error, status.failure) = (Some(self.clock.now()), None, None);
                if self.machine.granted(asked, &ask, granted, &mut self.rng) {
                    self.metrics.token_invalidations.with(Invalidation::Rotated).inc();
                    info!(
                        event = "credentials_rotated",
                        "the changed access keys gave a token; the old one is dropped"
                    );
                }
            }
            Err(failure) => {
                self.metrics.token_failures.with(failure.label()).inc();
                self.machine.refused(now, &ask, failure.refusal(), &mut self.rng);
                self.status.last_error = Some((self.clock.now(), failure.to_string()));
                self.status.failure = Some(failure.reason());
                self.complain_of(failure);
            }
        }
        self.settle_complaint();
    }

    fn read_credentials(&mut self) {
        let reading = self.credentials.borrow_and_update().clone();
        match reading {
            Reading::Unread => {}
            Reading::Present(keys) => self.machine.credentials(Some(keys)),
            Reading::Missing(why) => {
                self.machine.credentials(None);
                self.metrics.token_failures.with(RefreshFailure::Missing).inc();
                self.status.last_error = Some((self.clock.now(), why.to_string()));
                if self.complain(Complaint::Missing) {
                    error!(event = "credentials_missing", why = %why, "the access keys cannot be read; looked at again when they change");
                }
            }
        }
        self.settle_complaint();
    }

    fn reject(&mut self, rejections: &mut watch::Receiver<Rejection>) {
        let Rejection { generation, ticket } = *rejections.borrow_and_update();
        match self.machine.rejected(self.clock.instant(), generation, &mut self.rng) {
            Rejected::Superseded => {}
            Rejected::Stands => self.settled = ticket,
            Rejected::Forgotten => {
                self.metrics.token_invalidations.with(Invalidation::Http401).inc();
                info!(event = "token_refused", "the access token was answered 401; a new one is asked for");
            }
        }
    }

    fn publish(&mut self) {
        let standing = self.machine.standing();
        if self.since.0 != standing {
            self.since = (standing, self.clock.now());
        }
        let access = match standing {
            Standing::Waiting => Access::Waiting,
            Standing::Granted => Access::Granted,
            Standing::Refused => Access::Refused(self.since.1),
            Standing::Missing => Access::Missing(self.since.1),
        };
        let token = self.machine.token().map(|(token, ends)| (token.clone(), Some(ends)));
        let left = token.as_ref().and_then(|(_, ends)| *ends).map(|ends| ends.duration_since(self.clock.instant()));
        self.metrics.token_expiry.set(left.map_or(0.0, |left| self.clock.now().plus(left).as_seconds()));
        let sound = !matches!(self.machine.keys(), Standing::Refused | Standing::Missing);
        self.metrics.credentials_ok.set(i64::from(sound));
        self.tell(access, token.as_ref().and_then(|(_, ends)| *ends));
        let failing = self.machine.is_failing();
        self.tokens.publish(Slot { token, open: false, settled: self.settled, access, failing });
    }

    /// Tells operators; the last token's times stay when it has ended.
    fn tell(&mut self, access: Access, ends: Option<Instant>) {
        let (now, wall) = (self.clock.instant(), self.clock.now());
        let at = |moment: Instant| wall.plus(moment.saturating_duration_since(now));
        let status = &mut self.status;
        status.access = access;
        status.keys_refused = self.machine.keys() == Standing::Refused;
        if let Some(ends) = ends {
            status.expires_at = Some(at(ends));
            // What is overdue keeps the moment when it was due.
            let renew_at = self.machine.renew_at().filter(|renew_at| *renew_at > now);
            status.refresh_at = renew_at.map(at).or(status.refresh_at);
        }
        self.tokens.tell(status.clone());
    }

    /// Whether this is news.
    fn complain(&mut self, complaint: Complaint) -> bool {
        self.complaint.replace(complaint) != Some(complaint)
    }

    fn complain_of(&mut self, failure: Failure) {
        let status = failure.status();
        if self.machine.keys() == Standing::Refused {
            if self.complain(Complaint::Refused) {
                error!(
                    event = "credentials_refused",
                    status,
                    base_url = %self.base_url,
                    "Cello refuses the access keys; keys are made in the Cello Portal, on the Access Keys page, \
                     separately for sandbox and production (switch the environment there)"
                );
            }
        } else if matches!(failure, Failure::Rejected(_)) {
            debug!(event = "refresh_token_refused", status, "the refresh token is not accepted; using the access keys");
        } else if self.complain(Complaint::Failing) {
            warn!(event = "token_refresh_failed", reason = %failure, "no token could be obtained; trying again");
        }
    }

    /// Says once that all is well again.
    fn settle_complaint(&mut self) {
        let over = match self.complaint {
            None => false,
            Some(Complaint::Missing) => self.machine.keys() != Standing::Missing,
            Some(Complaint::Refused) => self.machine.keys() == Standing::Granted,
            Some(Complaint::Failing) => {
                self.machine.standing() == Standing::Granted && self.machine.keys() != Standing::Refused
            }
        };
        if over {
            self.complaint = None;
            info!(event = "token_recovered", "access tokens can be obtained again");
        }
    }
}

async fn wait_until(until: Option<Instant>) {
    match until {
        Some(until) => sleep_until(until).await,
        None => std::future::pending().await,
    }
}
