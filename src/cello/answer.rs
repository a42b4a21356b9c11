//! What came back from Cello, bounded in size.

use std::fmt;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::Body;
use hyper::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, LOCATION, RETRY_AFTER};
use hyper::{Response, StatusCode};

use super::{retry_after, skew};
use crate::clock::Timestamp;

/// So much of a body is read; what Cello says in earnest is a few hundred bytes.
pub const MAX_BODY: usize = 64 * 1024;
/// So much of a request id is kept; Cello's have 16 characters.
const MAX_REQUEST_ID: usize = 128;
const REQUEST_ID: HeaderName = HeaderName::from_static("apigw-requestid");

/// An answer of Cello, read to its end or to [`MAX_BODY`].
#[derive(Clone)]
pub struct Answer {
    /// The status; any that HTTP allows.
    pub status: StatusCode,
    /// `Retry-After` of a 429 or 503, clamped to 1 s–10 min.
    pub retry_after: Option<Duration>,
    /// `apigw-requestid`, the only handle for Cello's support; of a relay upstream, its id of the event.
    pub request_id: Option<Box<str>>,
    /// `Content-Type`, as received.
    pub content_type: Option<HeaderValue>,
    /// `Content-Encoding`, as received; none is asked for.
    pub content_encoding: Option<HeaderValue>,
    /// The body, at most [`MAX_BODY`] bytes. May hold personal data, or a token.
    pub body: Bytes,
    /// The body was longer; the rest was not read.
    pub cut: bool,
}

/// Shows nothing of the body.
impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Answer")
            .field("status", &self.status)
            .field("request_id", &self.request_id)
            .field("body_bytes", &self.body.len())
            .finish_non_exhaustive()
    }
}

/// Reads an answer; `now` is for a `Retry-After` that is a date, where the answer does not say its own.
pub(super) async fn read<B>(response: &mut Response<B>, now: Timestamp) -> Result<Answer, B::Error>
where
    B: Body<Data = Bytes> + Unpin,
{
    let (body, cut) = read_body(response.body_mut()).await?;
    let (status, headers) = (response.status(), response.headers());
    let paces = matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE);
    let wish = headers.get(RETRY_AFTER).filter(|_| paces).and_then(|value| value.to_str().ok());
    // Both dates are of one clock then, and ours may be wrong.
    let wait = |wish| retry_after::parse(wish, skew::date(headers).unwrap_or(now));
    Ok(Answer {
        status,
        retry_after: wish.and_then(wait),
        request_id: request_id(headers),
        content_type: headers.get(CONTENT_TYPE).cloned(),
        content_encoding: headers.get(CONTENT_ENCODING).cloned(),
        body,
        cut,
    })
}

/// The first [`MAX_BODY`] bytes, and whether there were more. Leaving the rest unread closes the
/// connection (HTTP/1.1) or resets the stream (HTTP/2).
async fn read_body<B>(body: &mut B) -> Result<(Bytes, bool), B::Error>
where
    B: Body<Data = Bytes> + Unpin,
{
    let mut read = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame?.into_data() else { continue };
        let room = MAX_BODY - read.len();
        read.extend_from_slice(&data[..data.len().min(room)]);
        if data.len() > room {
            return Ok((read.freeze(), true));
        }
    }
    Ok((read.freeze(), false))
}

/// A relay upstream names the event in `Location`, as any relay does; Cello sends none. With it an event is
/// followed from relay to relay, and by the last one's request id to Cello.
fn request_id(headers: &HeaderMap) -> Option<Box<str>> {
    let text = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    let id = text(REQUEST_ID).or_else(|| text(LOCATION)?.strip_prefix("/events/"))?;
    Some(id[..id.len().min(MAX_REQUEST_ID)].into())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(0);

    async fn answer(status: u16, headers: &[(&str, &str)], body: Vec<u8>) -> Answer {
        let mut response = Response::builder().status(status);
        for (name, value) in headers {
            response = response.header(*name, *value);
        }
        let mut response = response.body(http_body_util::Full::from(body)).unwrap();
        read(&mut response, NOW).await.unwrap()
    }

    #[tokio::test]
    async fn a_body_of_exactly_the_bound_is_whole_and_one_byte_more_is_cut() {
        let whole = answer(200, &[], vec![b'x'; MAX_BODY]).await;
        assert_eq!((whole.body.len(), whole.cut), (MAX_BODY, false));
        let cut = answer(200, &[], vec![b'x'; MAX_BODY + 1]).await;
        assert_eq!((cut.body.len(), cut.cut), (MAX_BODY, true));
    }

    #[tokio::test]
    async fn retry_after_counts_on_429_and_503_only() {
        for status in [200, 400, 408, 429, 500, 502, 503] {
            let waits = answer(status, &[("retry-after", "5")], vec![]).await.retry_after;
            assert_eq!(waits.is_some(), [429, 503].contains(&status), "{status}");
        }
    }

    #[tokio::test]
    async fn a_wait_until_a_date_counts_from_the_answers_own_date_and_only_without_one_from_our_clock() {
        let until = "Sun, 06 Nov 1994 08:50:07 GMT";
        for (date, seconds) in [("Sun, 06 Nov 1994 08:49:37 GMT", 30), ("yesterday", 600)] {
            let waits = answer(503, &[("date", date), ("retry-after", until)], vec![]).await.retry_after;
            assert_eq!(waits, Some(Duration::from_secs(seconds)), "{date}");
        }
    }

    #[tokio::test]
    async fn an_endless_request_id_is_cut() {
        let id = "i".repeat(1000);
        assert_eq!(answer(200, &[("apigw-requestid", &id)], vec![]).await.request_id.unwrap().len(), MAX_REQUEST_ID);
        assert_eq!(answer(200, &[("apigw-requestid", "abc=")], vec![]).await.request_id.as_deref(), Some("abc="));
    }

    #[tokio::test]
    async fn an_event_that_a_relay_took_is_known_by_the_id_it_got_there() {
        let of = async |headers: &[(&str, &str)]| answer(200, headers, vec![]).await.request_id;
        assert_eq!(of(&[("location", "/events/e-1")]).await.as_deref(), Some("e-1"));
        assert_eq!(of(&[("location", "/events/e-1"), ("apigw-requestid", "abc=")]).await.as_deref(), Some("abc="));
        for elsewhere in ["/login", "https://example.test/events/e-1", "/events"] {
            assert_eq!(of(&[("location", elsewhere)]).await, None, "{elsewhere}");
        }
    }
}
