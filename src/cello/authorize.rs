//! The layer that adds the token, and gets a newer one after a 401.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use hyper::StatusCode;
use tokio::time::Instant;
use tower::{Service, ServiceExt};

use super::answer::Answer;
use super::token::{NoAccess, Token, Tokens};
use super::transport::{Call, TransportError};

/// Why an authenticated call got no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// No token could be had in time, or the only one is refused.
    #[error("no access token")]
    NoAccess,
    /// The call failed on its way.
    #[error(transparent)]
    Transport(#[from] TransportError),
}

impl From<NoAccess> for CallError {
    fn from(NoAccess: NoAccess) -> Self {
        Self::NoAccess
    }
}

/// Sends calls through `S` with the current token.
#[derive(Clone)]
pub(super) struct Authorize<S> {
    inner: S,
    tokens: Arc<Tokens>,
}

impl<S> Authorize<S>
where
    S: Service<Call, Response = Answer, Error = TransportError> + Clone,
{
    pub(super) fn new(inner: S, tokens: Arc<Tokens>) -> Self {
        Self { inner, tokens }
    }

    /// Sends a call with a token; once more if a 401 leads to a newer one, since nothing was done for a 401. A 401
    /// that no newer token cures is the answer.
    async fn send(&self, call: &Call, token: Token) -> Result<Answer, CallError> {
        let with = |value| Call { token: Some(value), ..call.clone() };
        let answer = self.inner.clone().oneshot(with(token.value)).await?;
        if answer.status != StatusCode::UNAUTHORIZED {
            return Ok(answer);
        }
        if call.once {
            self.tokens.reject(token.generation);
            return Ok(answer);
        }
        let deadline = Instant::now() + call.timeout;
        let Some(newer) = self.tokens.newer_than(token.generation, deadline).await? else {
            return Ok(answer);
        };
        let answer = self.inner.clone().oneshot(with(newer.value)).await?;
        if answer.status == StatusCode::UNAUTHORIZED {
            self.tokens.reject(newer.generation);
        }
        Ok(answer)
    }
}

impl<S> Service<Call> for Authorize<S>
where
    S: Service<Call, Response = Answer, Error = TransportError> + Clone + Send + Sync + 'static,
    S::Future: Send,
{
    type Response = Answer;
    type Error = CallError;
    type Future = Pin<Box<dyn Future<Output = Result<Answer, CallError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), CallError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, call: Call) -> Self::Future {
        let this = self.clone();
        Box::pin(async move {
            match this.tokens.get(Instant::now() + call.timeout).await? {
                None => Ok(this.inner.oneshot(call).await?),
                Some(token) => this.send(&call, token).await,
            }
        })
    }
}
