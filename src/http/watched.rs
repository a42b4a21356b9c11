//! A stream that ends when its peer takes too long.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::{Instant, Sleep};

use super::Limits;

/// So much is read away after the last answer …
const LINGER_BYTES: usize = 1024 * 1024;

/// … for so long.
const LINGER_TIME: Duration = Duration::from_secs(1);

/// A stream that can be served.
pub(super) trait WatchedStream: AsyncRead + AsyncWrite + Unpin + Send + 'static {
    /// Waits until there is something to read, or the peer is gone.
    fn readable(&self) -> impl Future<Output = io::Result<()>> + Send;
}

impl WatchedStream for TcpStream {
    /// By looking: tokio takes a new connection to be readable until a read finds nothing.
    async fn readable(&self) -> io::Result<()> {
        self.peek(&mut [0]).await?;
        Ok(())
    }
}

/// Of these there are few; a new one counts as readable at once.
impl WatchedStream for UnixStream {
    fn readable(&self) -> impl Future<Output = io::Result<()>> + Send {
        UnixStream::readable(self)
    }
}

/// What the service side of a connection tells its stream. Both run on one task, so the order of
/// memory does not matter.
#[derive(Debug, Default)]
pub(super) struct Activity {
    busy: AtomicBool,
    requests: AtomicU32,
}

impl Activity {
    /// A head is complete and its request is being answered. Until the answer is ready, how long the
    /// body may take is its reader's business.
    pub(super) fn begin(&self) {
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.busy.store(true, Ordering::Relaxed);
    }

    /// The answer is ready, or nobody waits for it any more.
    pub(super) fn end(&self) {
        self.busy.store(false, Ordering::Relaxed);
    }

    fn is_busy(&self) -> bool {
        self.busy.load(Ordering::Relaxed)
    }

    fn requests(&self) -> u32 {
        self.requests.load(Ordering::Relaxed)
    }
}

/// Ends a stream that is silent for `idle_timeout`, or whose next head takes `header_timeout` from its
/// first byte, while no request is being answered.
///
/// One timer a connection, hardly ever reset but looked at again when it fires: a busy connection pays
/// for a look at the clock, no more.
pub(super) struct Watched<I> {
    stream: I,
    limits: Limits,
    activity: Arc<Activity>,
    /// When bytes last came or went.
    last: Instant,
    /// When the first byte of a head came, and how many requests there had been then.
    head: Option<(Instant, u32)>,
    timer: Pin<Box<Sleep>>,
    /// Bytes that may still be read away at the end; set when that begins.
    lingering: Option<usize>,
}

impl<I> Watched<I> {
    pub(super) fn new(stream: I, limits: Limits, activity: Arc<Activity>) -> Self {
        let last = Instant::now();
        let timer = Box::pin(tokio::time::sleep_until(last + limits.idle_timeout));
        Self { stream, limits, activity, last, head: None, timer, lingering: None }
    }

    /// Bytes came.
    fn received(&mut self) {
        self.last = Instant::now();
        let requests = self.activity.requests();
        if !self.activity.is_busy() && self.head.is_none_or(|(_, then)| then != requests) {
            self.head = Some((self.last, requests));
        }
    }

    /// When patience ends, as things are.
    fn deadline(&self) -> Instant {
        let silent = self.last + self.limits.idle_timeout;
        match self.head {
            Some((since, then)) if then == self.activity.requests() => silent.min(since + self.limits.header_timeout),
            _ => silent,
        }
    }

    /// Nothing moves: an error once that has lasted too long.
    fn waits(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        let deadline = self.deadline();
        if deadline < self.timer.deadline() {
            self.timer.as_mut().reset(deadline);
        }
        loop {
            ready!(self.timer.as_mut().poll(cx));
            let now = Instant::now();
            if self.activity.is_busy() {
                self.last = now;
            }
            let deadline = self.deadline();
            if deadline <= now {
                return Poll::Ready(io::ErrorKind::TimedOut.into());
            }
            self.timer.as_mut().reset(deadline);
        }
    }
}

impl<I: AsyncRead + Unpin> Watched<I> {
    /// Reads away what a client still sends after the last answer, within bounds. Closing with bytes
    /// unread would reset the connection and take the answer (431, say) from the client.
    fn linger(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut scratch = [0; 4096];
        loop {
            let mut piece = ReadBuf::new(&mut scratch);
            match (Pin::new(&mut self.stream).poll_read(cx, &mut piece), self.lingering) {
                // Nothing is on its way: no reason to wait.
                (Poll::Pending, None) => return Poll::Ready(()),
                (Poll::Pending, Some(_)) => return self.timer.as_mut().poll(cx),
                (Poll::Ready(Err(_)), _) => return Poll::Ready(()),
                (Poll::Ready(Ok(())), left) => {
                    if left.is_none() {
                        self.timer.as_mut().reset(Instant::now() + LINGER_TIME);
                    }
                    let left = left.unwrap_or(LINGER_BYTES).saturating_sub(piece.filled().len());
                    self.lingering = Some(left);
                    if piece.filled().is_empty() || left == 0 {
                        return Poll::Ready(());
                    }
                }
            }
        }
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for Watched<I> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match Pin::new(&mut self.stream).poll_read(cx, buf) {
            Poll::Ready(done) => {
                self.received();
                Poll::Ready(done)
            }
            Poll::Pending => self.waits(cx).map(Err),
        }
    }
}

impl<I: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Watched<I> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match Pin::new(&mut self.stream).poll_write(cx, buf) {
            Poll::Ready(done) => {
                self.last = Instant::now();
                Poll::Ready(done)
            }
            Poll::Pending => self.waits(cx).map(Err),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match Pin::new(&mut self.stream).poll_write_vectored(cx, bufs) {
            Poll::Ready(done) => {
                self.last = Instant::now();
                Poll::Ready(done)
            }
            Poll::Pending => self.waits(cx).map(Err),
        }
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.lingering.is_none() {
            ready!(Pin::new(&mut self.stream).poll_shutdown(cx))?;
        }
        self.linger(cx).map(Ok)
    }
}
