//! Around a service: panics become 500, and the stream learns when a request is being answered.

use std::convert::Infallible;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body_util::{Either, Full};
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::service::Service;
use hyper::{Request, Response, StatusCode};

use super::watched::Activity;

/// The service of one connection.
pub(super) struct Guard<S> {
    service: S,
    activity: Arc<Activity>,
}

impl<S> Guard<S> {
    pub(super) fn new(service: S, activity: Arc<Activity>) -> Self {
        Self { service, activity }
    }
}

impl<S, B> Service<Request<Incoming>> for Guard<S>
where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible, Future: Unpin>,
{
    type Response = Response<Either<B, Full<Bytes>>>;
    type Error = Infallible;
    type Future = Guarded<S::Future>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        self.activity.begin();
        let called = catch_unwind(AssertUnwindSafe(|| self.service.call(request)));
        if called.is_err() {
            tell();
        }
        Guarded { answer: called.ok(), activity: Arc::clone(&self.activity) }
    }
}

/// An answer on its way.
pub(super) struct Guarded<F> {
    /// `None` once it panicked.
    answer: Option<F>,
    activity: Arc<Activity>,
}

impl<F, B> Future for Guarded<F>
where
    F: Future<Output = Result<Response<B>, Infallible>> + Unpin,
{
    type Output = Result<Response<Either<B, Full<Bytes>>>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(answer) = self.answer.as_mut() else { return Poll::Ready(Ok(sorry())) };
        match catch_unwind(AssertUnwindSafe(|| Pin::new(answer).poll(cx))) {
            Ok(polled) => polled.map(|Ok(answer)| Ok(answer.map(Either::Left))),
            Err(_) => {
                self.answer = None;
                tell();
                Poll::Ready(Ok(sorry()))
            }
        }
    }
}

impl<F> Drop for Guarded<F> {
    fn drop(&mut self) {
        self.activity.end();
    }
}

/// The panic's own text may hold anything; what of it is written, and that it is counted, is up to the panic hook.
fn tell() {
    tracing::error!(event = "handler_panicked", "a request handler panicked; this is a bug");
}

fn sorry<B>() -> Response<Either<B, Full<Bytes>>> {
    const BODY: &[u8] = br#"{"message":"internal error"}"#;
    let mut answer = Response::new(Either::Right(Full::new(Bytes::from_static(BODY))));
    *answer.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    answer
}
