//! Exporting events as NDJSON, read page by page as the client takes them.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::BodyExt;
use http_body_util::channel::Channel;
use hyper::{Response, StatusCode};

use super::events::Query;
use super::reply::{self, Body, Refusal};
use super::{Parts, view};
use crate::event::EventId;
use crate::outbox::{DeadLetters, Detail, Filter, Listed, ReadError, State};

/// Events read at once; this many bodies are in memory.
const PAGE: usize = 100;

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
}

/// The events that are meant, one JSON document a line: bodies if revealed, listing lines otherwise.
pub(super) async fn export(parts: &Parts, query: Query) -> Result<Response<Body>, Refusal> {
    let source = match query.ids.is_empty() {
        true => Source::All { after: query.after },
        false => Source::Ids(known(parts, &query).await?),
    };
    let (dead, filter) = (parts.dead.clone(), query.filter(parts.clock.now()));
    let mut export = Export { dead, source, filter, limit: query.limit.unwrap_or(usize::MAX), reveal: query.reveal };
    let (mut out, body) = Channel::<Bytes, io::Error>::new(1);
    tokio::spawn(async move {
        loop {
            // A client must be able to tell an export that broke off from one that ended.
            let (page, is_last) = match export.page().await {
                Ok(page) => page,
                Err(error) => return out.abort(io::Error::other(error)),
            };
            if !page.is_empty() && out.send_data(Bytes::from(page)).await.is_err() || is_last {
                return;
            }
        }
    });
    Ok(reply::with_type(StatusCode::OK, "application/x-ndjson", body.boxed_unsync()))
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
            let detail = shown.filter(|detail| self.limit > 0 && self.is_fit(detail) && self.is_meant(&detail.listed));
            if let Some(detail) = detail {
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
            let detail = shown.filter(|detail| self.is_fit(detail));
            // One that was delivered meanwhile is no part of it.
            if detail.is_some() || !self.reveal {
                lines.push_str(&self.line(listed, detail.as_ref().map(|detail| &*detail.body)));
            }
        }
        self.limit -= page.len();
        self.source = Source::All { after: page.last().map(|last| last.id) };
        Ok((lines, page.len() < want || self.limit == 0))
    }

    /// What the disk damaged is no event any more; it is listed as `corrupt`.
    fn is_fit(&self, detail: &Detail) -> bool {
        !self.reveal || detail.is_intact
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
