//! Exporting events as NDJSON, read page by page as the client takes them.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::BodyExt;
use http_body_util::channel::Channel;
use hyper::header::{HeaderMap, HeaderName, HeaderValue, TE, TRAILER};
use hyper::{Response, StatusCode};

use super::events::Query;
use super::reply::{self, Body, Refusal};
use super::{Parts, view};
use crate::event::EventId;
use crate::outbox::{DeadLetters, Detail, Filter, Listed, ReadError, State};

/// Events read at once; this many bodies are in memory.
const PAGE: usize = 100;

/// The trailer with how many events were left out, as the disk damaged them.
pub(crate) const LEFT_OUT: &str = "outbox-left-out";

/// Where the next events come from.
enum Source {
    /// These, as far as the filter lets them through.
    Ids(VecDeque<EventId>),
    /// All that the filter lets through after that event.
    All { after: Option<EventId> },
}

/// What is still to be written.
struct Export {
    dead: Arc<dyn DeadLetters>,
    source: Source,
    filter: Filter,
    /// How many more at most.
    limit: usize,
    reveal: bool,
    /// Those whose bodies are not what was stored.
    left_out: u64,
}

/// Whether the client hears what is said after a body.
pub(super) fn takes_trailers(headers: &HeaderMap) -> bool {
    let of = |value: &HeaderValue| value.to_str().is_ok_and(|value| value.eq_ignore_ascii_case("trailers"));
    headers.get(TE).is_some_and(of)
}

/// The events that are meant, one JSON document a line: bodies if revealed, listing lines otherwise. What was damaged is
/// left out: a trailer tells how many, and a client that takes none sees the answer break off.
pub(super) async fn export(parts: &Parts, query: Query, takes_trailers: bool) -> Result<Response<Body>, Refusal> {
    let source = match query.ids.is_empty() {
        true => Source::All { after: query.after },
        false => Source::Ids(known(parts, &query).await?),
    };
    let (dead, filter) = (parts.dead.clone(), query.filter(parts.clock.now()));
    let limit = query.limit.unwrap_or(usize::MAX);
    let mut export = Export { dead, source, filter, limit, reveal: query.reveal, left_out: 0 };
    let (mut out, body) = Channel::<Bytes, io::Error>::new(1);
    tokio::spawn(async move {
        loop {
            // A client must be able to tell an export that broke off from one that ended.
            let (page, is_last) = match export.page().await {
                Ok(page) => page,
                Err(error) => return out.abort(io::Error::other(error)),
            };
            if !page.is_empty() && out.send_data(Bytes::from(page)).await.is_err() {
                return;
            }
            if is_last {
                break;
            }
        }
        match export.left_out {
            0 => {}
            count if takes_trailers => {
                // Who left needs no count.
                out.send_trailers(HeaderMap::from_iter([(HeaderName::from_static(LEFT_OUT), count.into())])).await.ok();
            }
            count => out.abort(io::Error::other(format!("{count} damaged events were left out"))),
        }
    });
    let mut answer = reply::with_type(StatusCode::OK, "application/x-ndjson", body.boxed_unsync());
    if takes_trailers {
        answer.headers_mut().insert(TRAILER, HeaderValue::from_static(LEFT_OUT));
    }
    Ok(answer)
}

/// The ids in the order of their events, each once; an unknown one is refused.
async fn known(parts: &Parts, query: &Query) -> Result<VecDeque<EventId>, Refusal> {
    let mut ids = query.ids.clone();
    ids.sort_by_key(|id| id.seq());
    ids.dedup();
    let mut unknown = Vec::new();
    for id in &ids {
        let state = parts.outbox.lookup(*id).await?.map(|report| report.state);
        if state.is_none_or(|state| state == State::Delivered) {
            unknown.push(id.to_string());
        }
    }
    if !unknown.is_empty() {
        return Err(Refusal::not_found(format!("not waiting and not dead: {}", unknown.join(", "))));
    }
    ids.retain(|id| query.after.is_none_or(|after| id.seq() > after.seq()));
    Ok(ids.into())
}

impl Export {
    /// The next lines, and whether they are the last.
    async fn page(&mut self) -> Result<(String, bool), ReadError> {
        match &mut self.source {
            Source::Ids(ids) => {
                let some = ids.drain(..ids.len().min(PAGE)).collect();
                let is_last = ids.is_empty();
                Ok((self.these(some).await?, is_last || self.limit == 0))
            }
            Source::All { after } => {
                let after = *after;
                self.next(after).await
            }
        }
    }

    async fn these(&mut self, ids: Vec<EventId>) -> Result<String, ReadError> {
        let mut lines = String::new();
        for id in ids {
            let shown = self.dead.show(id).await?;
            let meant = shown.filter(|detail| self.limit > 0 && self.is_meant(&detail.listed));
            if let Some(detail) = self.fit(meant) {
                self.limit -= 1;
                lines.push_str(&self.line(&detail.listed, Some(&detail.body)));
            }
        }
        Ok(lines)
    }

    async fn next(&mut self, after: Option<EventId>) -> Result<(String, bool), ReadError> {
        let want = self.limit.min(PAGE);
        let page = self.dead.list(self.filter.clone(), after, want).await?;
        let mut lines = String::new();
        for listed in &page {
            let shown = if self.reveal { self.dead.show(listed.id).await? } else { None };
            let detail = self.fit(shown);
            // One that was delivered meanwhile is no part of it.
            if detail.is_some() || !self.reveal {
                lines.push_str(&self.line(listed, detail.as_ref().map(|detail| &*detail.body)));
            }
        }
        self.limit -= page.len();
        self.source = Source::All { after: page.last().map(|last| last.id) };
        Ok((lines, page.len() < want || self.limit == 0))
    }

    /// What the disk damaged is no event any more: it is counted, and listed as `corrupt`.
    fn fit(&mut self, detail: Option<Detail>) -> Option<Detail> {
        let is_damaged = self.reveal && detail.as_ref().is_some_and(|detail| !detail.is_intact);
        self.left_out += u64::from(is_damaged);
        detail.filter(|_| !is_damaged)
    }

    fn is_meant(&self, listed: &Listed) -> bool {
        let Filter { state, user, reason, .. } = &self.filter;
        state.is_none_or(|state| state == listed.report.state)
            && user.as_ref().is_none_or(|user| *user == listed.user)
            && reason.is_none_or(|reason| Some(reason) == listed.report.reason)
            && self.filter.is_in_time(listed.id)
    }

    fn line(&self, listed: &Listed, body: Option<&[u8]>) -> String {
        let mut line = match body {
            Some(body) if self.reveal => view::one_line(body),
            _ => view::listed(listed, false).to_string(),
        };
        line.push('\n');
        line
    }
}
