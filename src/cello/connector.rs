//! DNS, TCP, proxy and TLS under one deadline; every failure names the phase it happened in.
//!
//! Whatever fails here, nothing of the request was sent.

use std::error::Error;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::Uri;
use hyper_rustls::MaybeHttpsStream;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::dns::{GaiAddrs, GaiResolver, Name};
use hyper_util::client::legacy::connect::proxy::Tunnel;
use hyper_util::client::proxy::matcher::Matcher;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_rustls::TlsConnector;
use tower::{Service, ServiceExt};

use super::base::Base;
use super::berth::Berth;
use super::transport::Fault;
use super::{BuildError, Settings, tls};

type Tcp = TokioIo<TcpStream>;
type Boxed<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// So many connections are being made at a time. Over HTTP/1 each call that finds none idle begins one, and does not wait
/// for it if another falls idle before: where some of a host's addresses are dead they would become ever more.
pub const CONNECTING_MAX: usize = 32;

/// No connection: in which phase it failed. The cause is left out, it may name a proxy's user.
#[derive(Debug, thiserror::Error)]
#[error("no connection")]
pub(super) struct ConnectError(pub(super) Fault);

/// Connects to the one host of the base URL.
#[derive(Clone)]
pub(super) struct Connector {
    route: Route,
    /// Absent for plain `http://`.
    tls: Option<(TlsConnector, ServerName<'static>)>,
    /// For all phases together.
    limit: Duration,
    places: Arc<Semaphore>,
    berth: Berth,
}

#[derive(Clone)]
enum Route {
    Direct(HttpConnector<Resolver>),
    Proxied(Tunnel<HttpConnector<Resolver>>),
}

impl Connector {
    pub(super) fn new(settings: &Settings, base: &Base, berth: Berth) -> Result<Self, BuildError> {
        let config = tls::client_config(settings.ca_file.as_deref())?;
        let tls = if base.is_https() {
            let name = ServerName::try_from(base.host().to_owned());
            let name = name.map_err(|_| BuildError::BaseUrl { why: "its host is not a valid name" })?;
            Some((TlsConnector::from(Arc::new(config)), name))
        } else {
            None
        };
        let (route, places) = (Route::new(settings, base)?, Arc::new(Semaphore::new(CONNECTING_MAX)));
        Ok(Self { route, tls, limit: settings.connect_timeout, places, berth })
    }

    async fn connect(self, uri: Uri) -> Result<MaybeHttpsStream<Tcp>, ConnectError> {
        let deadline = Instant::now() + self.limit;
        let place = timeout_at(deadline, self.places.acquire_owned()).await;
        let Ok(Ok(_place)) = place else { return Err(ConnectError(Fault::Connect)) };
        let reached = timeout_at(deadline, self.route.reach(uri)).await;
        let tcp = reached.unwrap_or(Err(ConnectError(Fault::Connect)))?;
        let Some((tls, name)) = self.tls else { return Ok(MaybeHttpsStream::Http(tcp)) };
        match timeout_at(deadline, tls.connect(name, TokioIo::new(tcp))).await {
            Ok(Ok(stream)) => Ok(MaybeHttpsStream::Https(TokioIo::new(stream))),
            Ok(Err(_)) | Err(_) => Err(ConnectError(Fault::Tls)),
        }
    }
}

impl Route {
    fn new(settings: &Settings, base: &Base) -> Result<Self, BuildError> {
        let limit = settings.connect_timeout;
        let mut direct = HttpConnector::new_with_resolver(Resolver::new(limit));
        direct.enforce_http(false);
        direct.set_nodelay(true);
        // Shared out over a host's addresses, so that a dead one leaves time for the next.
        direct.set_connect_timeout(Some(limit));

        let Some(proxy) = settings.https_proxy.as_deref().map(str::trim).filter(|proxy| !proxy.is_empty()) else {
            return Ok(Self::Direct(direct));
        };
        // The matcher drops what it cannot parse; ask without exceptions first, to tell that apart.
        let root = base.join(&"/".parse().expect("a path")).ok_or(BuildError::Proxy)?;
        let applies = Matcher::builder().https(proxy).build();
        if base.is_https() && applies.intercept(&root).is_none() {
            return Err(BuildError::Proxy);
        }
        let exceptions = settings.no_proxy.clone().unwrap_or_default();
        let Some(proxy) = Matcher::builder().https(proxy).no(exceptions).build().intercept(&root) else {
            return Ok(Self::Direct(direct));
        };
        if proxy.uri().scheme_str() != Some("http") {
            return Err(BuildError::Proxy);
        }
        let tunnel = Tunnel::new(proxy.uri().clone(), direct);
        Ok(Self::Proxied(match proxy.basic_auth() {
            Some(auth) => tunnel.with_auth(auth.clone()),
            None => tunnel,
        }))
    }

    async fn reach(self, uri: Uri) -> Result<Tcp, ConnectError> {
        match self {
            Self::Direct(direct) => direct.oneshot(uri).await.map_err(|error| phase_of(&error)),
            Self::Proxied(tunnel) => tunnel.oneshot(uri).await.map_err(|error| phase_of(&error)),
        }
    }
}

/// The name was not resolved, or nothing was reached.
fn phase_of(error: &(dyn Error + 'static)) -> ConnectError {
    let causes = std::iter::successors(Some(error), |&error| error.source());
    let unresolved = causes.into_iter().any(|cause| cause.is::<NotResolved>());
    ConnectError(if unresolved { Fault::Dns } else { Fault::Connect })
}

impl Service<Uri> for Connector {
    type Response = MaybeHttpsStream<Tcp>;
    type Error = ConnectError;
    type Future = Boxed<Result<Self::Response, ConnectError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), ConnectError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let (berth, connecting) = (self.berth.clone(), self.clone().connect(uri));
        Box::pin(async move { berth.run(connecting).await.unwrap_or(Err(ConnectError(Fault::Connect))) })
    }
}

/// The system's resolver. It gets four fifths of the time, so that a name that is not resolved in
/// time is told from a host that does not answer.
#[derive(Clone)]
struct Resolver {
    system: GaiResolver,
    limit: Duration,
}

impl Resolver {
    fn new(connect_timeout: Duration) -> Self {
        Self { system: GaiResolver::new(), limit: connect_timeout * 4 / 5 }
    }
}

#[derive(Debug, thiserror::Error)]
#[error("the name was not resolved")]
struct NotResolved;

impl Service<Name> for Resolver {
    type Response = GaiAddrs;
    type Error = NotResolved;
    type Future = Boxed<Result<GaiAddrs, NotResolved>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), NotResolved>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let resolved = timeout(self.limit, self.system.clone().oneshot(name));
        Box::pin(async move {
            match resolved.await {
                Ok(Ok(addresses)) => Ok(addresses),
                Ok(Err(_)) | Err(_) => Err(NotResolved),
            }
        })
    }
}
