//! Where events are read from: the running relay, or the directory of one that is stopped.

use std::io;
use std::path::Path;
use std::time::Duration;

use serde::de::DeserializeOwned;

use super::offline::Stopped;
use crate::cli::Context;
use crate::cli::client::{CallError, Client, query};
use crate::cli::exit::{Exit, Failure};
use crate::cli::{flow, output};
use crate::config::Whereabouts;
use crate::event::EventId;
use crate::reason::Reason;

/// What is asked for; the same of both.
pub(super) enum Question<'a> {
    Status,
    List { which: Which<'a>, after: Option<EventId>, limit: u32, reveal: bool },
    Show { id: EventId, reveal: bool },
}

/// Which events are meant.
#[derive(Clone, Copy, Default)]
pub(super) struct Which<'a> {
    pub(super) state: Option<&'a str>,
    pub(super) user: Option<&'a str>,
    pub(super) reason: Option<Reason>,
    /// Ages.
    pub(super) older_than: Option<Duration>,
    pub(super) newer_than: Option<Duration>,
}

impl Question<'_> {
    /// The question to the control API.
    fn path(&self) -> String {
        match self {
            Question::Status => "/api/status".to_owned(),
            Question::Show { id, reveal } => {
                format!("/api/events/{id}{}", query(&[("reveal", reveal.then_some("true"))]))
            }
            Question::List { which, after, limit, reveal } => {
                let seconds = |age: Option<Duration>| age.map(|age| age.as_secs().to_string());
                let (older, newer) = (seconds(which.older_than), seconds(which.newer_than));
                let (after, limit) = (after.map(|id| id.to_string()), limit.to_string());
                let parameters = [
                    ("state", which.state),
                    ("user", which.user),
                    ("reason", which.reason.map(Reason::as_str)),
                    ("older_than", older.as_deref()),
                    ("newer_than", newer.as_deref()),
                    ("after", after.as_deref()),
                    ("limit", Some(limit.as_str())),
                    ("reveal", reveal.then_some("true")),
                ];
                format!("/api/events{}", query(&parameters))
            }
        }
    }
}

/// The answer as JSON; the same from both. With it the damage that was met on the way, to be told after it.
pub(super) struct Found(Vec<u8>, Result<(), Failure>);

impl Found {
    /// As a value.
    pub(super) fn read<T: DeserializeOwned>(&self) -> Result<T, Failure> {
        let unexpected = |error| Failure::new(Exit::Unavailable, format!("the answer is not understood: {error}"));
        serde_json::from_slice(&self.0).map_err(unexpected)
    }

    /// How it ends once all is printed.
    pub(super) fn end(self) -> Result<(), Failure> {
        self.1
    }

    /// As it is, for scripts.
    pub(super) fn text(&self) -> String {
        format!("{}\n", String::from_utf8_lossy(&self.0).trim_end())
    }
}

/// Asks the running relay, and reads its directory if nobody answers; or reads a damaged `file` that was moved aside.
pub(super) async fn ask(question: Question<'_>, file: Option<&Path>, context: &Context) -> Result<Found, Failure> {
    let whereabouts = context.whereabouts()?;
    if let Some(file) = file {
        return read(&Stopped::aside(&whereabouts.dir, file)?, &question);
    }
    let mut client = flow::control(&whereabouts);
    let answer = match client.get(&question.path()).await {
        Ok(answer) => answer,
        Err(error) => return read(&stopped(&whereabouts, &client, &error)?, &question),
    };
    match (&question, answer.status) {
        (Question::Show { .. }, hyper::StatusCode::NOT_FOUND) => Err(unknown()),
        _ => answer.json::<serde::de::IgnoredAny>().map(|_| Found(answer.body.to_vec(), Ok(()))),
    }
}

fn read(stopped: &Stopped, question: &Question<'_>) -> Result<Found, Failure> {
    let found = stopped.answer(question)?;
    // In a damaged file it may be among what cannot be read.
    let Some(answer) = found else { return stopped.verdict().and_then(|()| Err(unknown())) };
    Ok(Found(answer.into_bytes(), stopped.verdict()))
}

fn unknown() -> Failure {
    Failure::new(Exit::Unavailable, "no such event waits or is dead")
        .hint("delivered events are known to GET /events/{id} only")
}

/// The outbox itself, if it is only that nobody answers.
pub(super) fn stopped(whereabouts: &Whereabouts, client: &Client, error: &CallError) -> Result<Stopped, Failure> {
    match error {
        CallError::NoRelay(cause) if cause.kind() != io::ErrorKind::PermissionDenied => {}
        _ => return Err(flow::unreachable(client, error)),
    }
    let stopped = Stopped::open(&whereabouts.dir)?.ok_or_else(|| {
        let message = format!(
            "nobody answers on the control socket {}, and {} holds no outbox",
            whereabouts.socket.display(),
            whereabouts.dir.display()
        );
        Failure::new(Exit::Unavailable, message).hint("does the configuration (outbox.dir) name the right directory?")
    })?;
    output::note(&format!("no relay is running: reading {}", whereabouts.dir.display()));
    Ok(stopped.on(&whereabouts.durability))
}
