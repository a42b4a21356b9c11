//! The one access token that all calls share.
//!
//! Exactly one task asks for tokens ([`owner`] for access keys, [`bearer`] for a token file), so there
//! is never more than one request for a token under way, however many calls wait. It publishes a
//! [`Slot`]; calls read it, wait for it to change, and report a token that was answered 401. What to
//! ask for, and when, is decided by a pure state machine ([`machine`]).

pub(super) mod bearer;
pub(super) mod exchange;
#[cfg(fuzzing)]
pub(super) mod fuzzing;
mod machine;
pub(super) mod owner;
pub(super) mod status;

use std::sync::atomic::{AtomicU64, Ordering};

use secrecy::SecretString;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use super::Access;
pub(super) use machine::Ask;
use status::TokenStatus;

/// A token and its place in the row of tokens: of two, the one with the greater generation is newer.
#[derive(Clone, Debug)]
pub(super) struct Token {
    pub(super) generation: u64,
    pub(super) value: SecretString,
}

/// What calls may use now, as the owner published it.
#[derive(Clone, Debug)]
pub(super) struct Slot {
    /// The token in use and when it ends, if it does.
    pub(super) token: Option<(Token, Option<Instant>)>,
    /// Calls go without a token.
    pub(super) open: bool,
    /// The 401s reported up to this ticket are answers: they led to nothing newer.
    pub(super) settled: u64,
    /// Whether calls can be authenticated, as the forwarder sees it.
    pub(super) access: Access,
    /// There is no token, and the last attempt to get one failed.
    pub(super) failing: bool,
}

impl Slot {
    fn usable(&self) -> Option<&Token> {
        let (token, ends) = self.token.as_ref()?;
        ends.is_none_or(|ends| Instant::now() < ends).then_some(token)
    }

    /// Waiting leads nowhere, or nobody knows for how long: the keys must change first, or Cello must mend.
    fn is_hopeless(&self) -> bool {
        self.failing || matches!(self.access, Access::Refused(_) | Access::Missing(_))
    }
}

/// No token could be had in time.
#[derive(Clone, Copy, Debug)]
pub(super) struct NoAccess;

/// A 401 that was reported.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Rejection {
    /// The greatest generation that was answered 401.
    generation: u64,
    /// Counts the reports; a [`Slot`] says up to which they are settled.
    ticket: u64,
}

/// Where calls and the owner of the token meet.
pub(super) struct Tokens {
    slot: watch::Sender<Slot>,
    access: watch::Sender<Access>,
    rejected: watch::Sender<Rejection>,
    status: watch::Sender<TokenStatus>,
    /// The greatest generation that was published.
    newest: AtomicU64,
}

impl Tokens {
    /// Nothing at hand yet; `open`: nothing needed.
    pub(super) fn new(open: bool) -> Self {
        let access = if open { Access::Granted } else { Access::Waiting };
        Self {
            slot: watch::Sender::new(Slot { token: None, open, settled: 0, access, failing: false }),
            access: watch::Sender::new(access),
            rejected: watch::Sender::default(),
            status: watch::Sender::new(TokenStatus { access, ..TokenStatus::default() }),
            newest: AtomicU64::new(0),
        }
    }

    /// The token to use, waited for until `deadline`; `None` if none is needed.
    pub(super) async fn get(&self, deadline: Instant) -> Result<Option<Token>, NoAccess> {
        self.wait(deadline, |slot| match slot.usable() {
            _ if slot.open => Some(Ok(None)),
            Some(token) => Some(Ok(Some(token.clone()))),
            None if slot.is_hopeless() => Some(Err(NoAccess)),
            None => None,
        })
        .await
    }

    /// Reports a 401 for a generation and waits for a newer token; `None` if it stands: there is none
    /// for now.
    pub(super) async fn newer_than(&self, generation: u64, deadline: Instant) -> Result<Option<Token>, NoAccess> {
        let ticket = self.reject(generation);
        self.wait(deadline, |slot| match slot.usable() {
            Some(token) if token.generation > generation => Some(Ok(Some(token.clone()))),
            _ if slot.settled >= ticket => Some(Ok(None)),
            None if slot.is_hopeless() => Some(Err(NoAccess)),
            _ => None,
        })
        .await
    }

    /// Reports a 401 for a generation.
    pub(super) fn reject(&self, generation: u64) -> u64 {
        let mut ticket = 0;
        self.rejected.send_modify(|last| {
            last.generation = last.generation.max(generation);
            last.ticket += 1;
            ticket = last.ticket;
        });
        ticket
    }

    /// Whether calls can be authenticated, and changes of that.
    pub(super) fn access(&self) -> watch::Receiver<Access> {
        self.access.subscribe()
    }

    /// The token as it stands, for operators.
    pub(super) fn status(&self) -> TokenStatus {
        self.status.borrow().clone()
    }

    /// Tells operators how the token stands.
    fn tell(&self, status: TokenStatus) {
        self.status.send_replace(status);
    }

    fn rejections(&self) -> watch::Receiver<Rejection> {
        self.rejected.subscribe()
    }

    /// The last generation, and up to which ticket 401s are settled: where whoever owns the token goes on, also after
    /// one that broke off.
    fn so_far(&self) -> (u64, u64) {
        (self.newest.load(Ordering::Relaxed), self.slot.borrow().settled)
    }

    fn publish(&self, slot: Slot) {
        let access = slot.access;
        if let Some((token, _)) = &slot.token {
            self.newest.fetch_max(token.generation, Ordering::Relaxed);
        }
        self.slot.send_replace(slot);
        self.access.send_if_modified(|old| std::mem::replace(old, access) != access);
    }

    async fn wait<T>(
        &self,
        deadline: Instant,
        mut ready: impl FnMut(&Slot) -> Option<Result<T, NoAccess>>,
    ) -> Result<T, NoAccess> {
        let mut slot = self.slot.subscribe();
        let mut found = None;
        let waited = slot.wait_for(|slot| {
            found = ready(slot);
            found.is_some()
        });
        // Late, or (which cannot be) closed: the same to the caller.
        drop(timeout_at(deadline, waited).await);
        found.unwrap_or(Err(NoAccess))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::clock::Timestamp;

    fn slot(generation: u64, settled: u64, access: Access) -> Slot {
        let token = Token { generation, value: "t".into() };
        Slot { token: Some((token, None)), open: false, settled, access, failing: false }
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(15)
    }

    #[tokio::test(start_paused = true)]
    async fn a_token_is_waited_for_until_the_deadline_and_no_longer() {
        let tokens = Tokens::new(false);
        let start = Instant::now();
        assert!(tokens.get(soon()).await.is_err());
        assert_eq!(start.elapsed(), Duration::from_secs(15));
    }

    #[tokio::test(start_paused = true)]
    async fn a_token_that_has_ended_is_not_used() {
        let tokens = Tokens::new(false);
        let mut ended = slot(1, 0, Access::Granted);
        ended.token.as_mut().unwrap().1 = Some(Instant::now());
        tokens.publish(ended);
        assert!(tokens.get(soon()).await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn a_token_is_used_until_it_ends() {
        let tokens = Tokens::new(false);
        let mut live = slot(1, 0, Access::Granted);
        live.token.as_mut().unwrap().1 = Some(Instant::now() + Duration::from_millis(1));
        tokens.publish(live);
        assert_eq!(tokens.get(soon()).await.unwrap().unwrap().generation, 1);
    }

    #[tokio::test(start_paused = true)]
    async fn after_a_401_a_token_that_may_come_is_waited_for() {
        let tokens = Tokens::new(false);
        let start = Instant::now();
        assert!(tokens.newer_than(1, soon()).await.is_err());
        assert_eq!(start.elapsed(), Duration::from_secs(15));
    }

    #[tokio::test]
    async fn a_change_of_access_is_told_and_a_new_token_alone_is_none() {
        let tokens = Tokens::new(false);
        let mut access = tokens.access();
        tokens.publish(slot(1, 0, Access::Granted));
        assert!(access.has_changed().unwrap());
        assert_eq!(*access.borrow_and_update(), Access::Granted);
        tokens.publish(slot(2, 0, Access::Granted));
        assert!(!access.has_changed().unwrap());
        tokens.tell(TokenStatus { keys_refused: true, ..TokenStatus::default() });
        assert!(tokens.status().keys_refused);
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_for_a_token_that_cannot_come() {
        let tokens = Tokens::new(false);
        let start = Instant::now();
        for access in [Access::Refused(Timestamp::default()), Access::Missing(Timestamp::default())] {
            tokens.publish(Slot { token: None, open: false, settled: 0, access, failing: false });
            assert!(tokens.get(soon()).await.is_err());
            assert!(tokens.newer_than(1, soon()).await.is_err());
        }
        tokens.publish(Slot { token: None, open: false, settled: 0, access: Access::Waiting, failing: true });
        assert!(tokens.get(soon()).await.is_err());
        assert_eq!(start.elapsed(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn after_a_401_a_newer_token_is_taken_and_a_settled_one_stands() {
        let tokens = Tokens::new(false);
        tokens.publish(slot(2, 0, Access::Granted));
        let newer = tokens.newer_than(1, soon()).await.unwrap();
        assert_eq!(newer.unwrap().generation, 2, "a newer one exists already");
        // The report below is the second.
        tokens.publish(slot(2, 2, Access::Granted));
        assert!(tokens.newer_than(2, soon()).await.unwrap().is_none());
        let start = Instant::now();
        assert!(tokens.newer_than(2, soon()).await.is_err(), "the third is not settled by the answer to the second");
        assert_eq!(start.elapsed(), Duration::from_secs(15));
    }

    #[tokio::test]
    async fn without_authentication_nothing_is_waited_for() {
        let tokens = Tokens::new(true);
        assert!(tokens.get(soon()).await.unwrap().is_none());
        assert_eq!(*tokens.access().borrow(), Access::Granted);
    }
}
