//! Reading request bodies: bounded in size, time and, all bodies together, in memory.

use std::future::poll_fn;
use std::io::Read;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use flate2::bufread::GzDecoder;
use hyper::body::{Body, Incoming};
use tokio::sync::{Mutex, MutexGuard, OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};

/// A budget is counted in pieces of so many bytes.
const PIECE: usize = 1024;

/// The one body that goes on though the budget is spent must be complete within this time.
const OVERDRAFT: Duration = Duration::from_secs(10);

/// So much of a refused body is read away …
const DRAIN_BYTES: usize = 4 * 1024 * 1024;

/// … for so long, so that a client that sends first and reads later sees its answer.
const DRAIN_TIME: Duration = Duration::from_secs(1);

/// Why a body could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    /// More bytes, or more decompressed bytes, than allowed.
    #[error("is too large")]
    TooLarge,
    /// The client fell silent.
    #[error("was not sent in time")]
    Slow,
    /// The client left, or sent no valid chunks.
    #[error("ended early")]
    Broken,
    /// The bytes are no gzip.
    #[error("is not gzip")]
    NotGzip,
}

/// What all bodies that did not come in one piece may take together, from their first byte until
/// their [`Share`] is dropped.
///
/// Whoever finds it spent waits. So that bodies half read cannot wait for each other for ever, one at a
/// time goes on regardless, within [`OVERDRAFT`].
#[derive(Debug)]
pub struct Budget {
    pieces: Arc<Semaphore>,
    overdraft: Mutex<()>,
}

impl Budget {
    /// A budget of about `bytes`.
    #[must_use]
    pub fn new(bytes: usize) -> Self {
        Self { pieces: Arc::new(Semaphore::new(bytes.div_ceil(PIECE))), overdraft: Mutex::new(()) }
    }

    fn share(&self) -> Share<'_> {
        Share { budget: self, held: None, bytes: 0, overdraft: None }
    }
}

/// A body that was read.
pub struct Whole<'b> {
    /// Its bytes.
    pub bytes: Bytes,
    /// Keep it while what was made of the bytes waits for the disk: then many large bodies wait in their
    /// clients, not in memory.
    pub held: Share<'b>,
}

/// One body's part of the budget: grows with what has arrived, so that a slow client cannot hoard.
pub struct Share<'b> {
    budget: &'b Budget,
    held: Option<OwnedSemaphorePermit>,
    bytes: usize,
    overdraft: Option<(MutexGuard<'b, ()>, Instant)>,
}

impl Share<'_> {
    /// Counts `more` bytes, waiting for room.
    async fn grow(&mut self, more: usize) {
        let before = self.bytes.div_ceil(PIECE);
        self.bytes += more;
        let pieces = (self.bytes.div_ceil(PIECE) - before) as u32;
        if pieces == 0 || self.overdraft.is_some() {
            return;
        }
        tokio::select! {
            biased;
            permit = Arc::clone(&self.budget.pieces).acquire_many_owned(pieces) => {
                let permit = permit.expect("the semaphore is never closed");
                match &mut self.held {
                    Some(held) => held.merge(permit),
                    None => self.held = Some(permit),
                }
            }
            guard = self.budget.overdraft.lock() => self.overdraft = Some((guard, Instant::now() + OVERDRAFT)),
        }
    }

    /// When this body must be complete, if others wait for it.
    fn deadline(&self) -> Option<Instant> {
        self.overdraft.as_ref().map(|(_, deadline)| *deadline)
    }
}

/// Reads a whole body of at most `max` bytes, no two pieces of it more than `silence` apart. One that
/// arrives in one piece is not copied.
///
/// # Errors
/// See [`BodyError`].
pub async fn read<'b>(
    body: &mut Incoming,
    max: usize,
    silence: Duration,
    budget: &'b Budget,
) -> Result<Whole<'b>, BodyError> {
    if body.size_hint().lower() > max as u64 {
        return Err(BodyError::TooLarge);
    }
    let first = data(body, Instant::now() + silence).await?.unwrap_or_default();
    if first.len() > max {
        return Err(BodyError::TooLarge);
    }
    if body.is_end_stream() {
        return Ok(Whole { bytes: first, held: budget.share() });
    }
    // Boxed: most bodies come in one piece, and every request's future would be too large for quick allocation.
    Box::pin(read_on(first, body, max, silence, budget.share())).await
}

/// Bytes that are reserved for a body before it came.
const RESERVED_AT_MOST: usize = 4 << 20;

/// Reads what follows the first piece.
async fn read_on<'b>(
    first: Bytes,
    body: &mut Incoming,
    max: usize,
    silence: Duration,
    mut share: Share<'b>,
) -> Result<Whole<'b>, BodyError> {
    share.grow(first.len()).await;
    let mut whole = BytesMut::from(first);
    // Known from Content-Length; otherwise it would grow to twice its size. What is only announced is not believed further.
    whole.reserve(usize::try_from(body.size_hint().lower()).unwrap_or_default().min(RESERVED_AT_MOST));
    loop {
        let silent = Instant::now() + silence;
        let until = share.deadline().map_or(silent, |deadline| deadline.min(silent));
        let Some(piece) = data(body, until).await? else { break };
        if whole.len() + piece.len() > max {
            return Err(BodyError::TooLarge);
        }
        share.grow(piece.len()).await;
        whole.extend_from_slice(&piece);
    }
    Ok(Whole { bytes: whole.freeze(), held: share })
}

/// Decompresses at most `max` bytes, of as many members as there are. Others get their turn meanwhile: a body of
/// nothing but empty members is much work for nothing. What it unpacks to is counted on the body's own share: with
/// one of its own it could wait for itself.
///
/// # Errors
/// [`BodyError::TooLarge`] as soon as there are more, [`BodyError::NotGzip`].
pub async fn gunzip(compressed: Whole<'_>, max: usize) -> Result<Whole<'_>, BodyError> {
    let Whole { bytes, held: mut share } = compressed;
    let mut decoder = GzDecoder::new(bytes.reader());
    let mut whole = Vec::new();
    let mut piece = [0; 4 * PIECE];
    loop {
        tokio::task::consume_budget().await;
        let read = decoder.read(&mut piece).map_err(|_| BodyError::NotGzip)?;
        if read == 0 {
            let rest = decoder.into_inner();
            if !rest.get_ref().has_remaining() {
                return Ok(Whole { bytes: Bytes::from(whole), held: share });
            }
            decoder = GzDecoder::new(rest);
        }
        if whole.len() + read > max {
            return Err(BodyError::TooLarge);
        }
        share.grow(read).await;
        whole.extend_from_slice(&piece[..read]);
    }
}

/// Reads away what a refused client still sends, within bounds.
pub async fn drain(body: &mut Incoming) {
    let until = Instant::now() + DRAIN_TIME;
    let mut left = DRAIN_BYTES;
    // Whether all came or time ran out, the answer is next.
    while let Ok(Some(piece)) = data(body, until).await {
        left = left.saturating_sub(piece.len());
        if left == 0 {
            return;
        }
    }
}

/// The next piece of data, if it comes in time; trailers are passed over.
async fn data(body: &mut Incoming, until: Instant) -> Result<Option<Bytes>, BodyError> {
    let next = async {
        loop {
            match poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)).await {
                None => return Ok(None),
                Some(Err(_)) => return Err(BodyError::Broken),
                Some(Ok(frame)) => {
                    if let Ok(piece) = frame.into_data() {
                        return Ok(Some(piece));
                    }
                }
            }
        }
    };
    timeout_at(until, next).await.unwrap_or(Err(BodyError::Slow))
}
