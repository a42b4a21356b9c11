//! `outbox erase`: a person asked to be forgotten. Works on a stopped relay's directory too.

use std::fs::File;
use std::future::Future;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use hyper::StatusCode;
use serde_json::{Value, json};

use super::source;
use crate::admin::{audit, view};
use crate::cli::Context;
use crate::cli::exit::{Exit, Failure};
use crate::cli::{flow, output, progress};
use crate::event::UserId;
use crate::outbox::sqlite::erase_stopped;
use crate::telemetry;

/// No event is larger by default.
const MAX_BYTES: u64 = 256 << 10;

/// `outbox erase`
#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("who").required(true))]
pub(in crate::cli) struct Args {
    /// The person's newUserId
    #[arg(long, group = "who")]
    user: Option<String>,
    /// A file with it and nothing else, or - for stdin, so that it stays out of the shell's history
    #[arg(long, value_name = "FILE", group = "who")]
    user_file: Option<PathBuf>,
    /// Only count
    #[arg(long)]
    dry_run: bool,
    /// Do not ask, and erase also what waits to be delivered: a reward may go unpaid
    #[arg(long, short)]
    yes: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Args {
    fn person(&self) -> Result<String, Failure> {
        if let Some(path) = &self.user_file {
            return from_file(path);
        }
        // As it is: the shell has taken off what is not meant, and another id would be another person.
        match self.user.as_deref().unwrap_or_default() {
            "" => Err(Failure::new(Exit::Usage, "the newUserId is empty")),
            id => Ok(id.to_owned()),
        }
    }
}

/// The id that a file holds, or stdin.
fn from_file(path: &Path) -> Result<String, Failure> {
    let is_stdin = path.as_os_str() == "-";
    let name = if is_stdin { "stdin".into() } else { path.display().to_string() };
    let cannot = |error: io::Error| {
        let message = format!("{name} cannot be read: {error}");
        Failure::new(Failure::from(error).exit, message)
    };
    let source: Box<dyn Read> =
        if is_stdin { Box::new(io::stdin()) } else { Box::new(File::open(path).map_err(cannot)?) };
    let mut bytes = Vec::new();
    source.take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(cannot)?;
    let refused = |why| {
        Failure::new(Exit::Usage, format!("{name} {why}"))
            .hint("it must hold one newUserId and nothing else; one that is as odd as that can be given as --user")
    };
    only_id(&bytes).map_err(refused).map(str::to_owned)
}

/// The one id that this is. An id may hold blanks and line breaks, so nothing but the end of the last line and an
/// editor's mark is taken off: where more is doubtful, nobody is erased and nobody is told that there was nothing.
fn only_id(bytes: &[u8]) -> Result<&str, &'static str> {
    if bytes.len() as u64 > MAX_BYTES {
        return Err("is longer than any newUserId");
    }
    let text = std::str::from_utf8(bytes).map_err(|_| "is not UTF-8")?;
    let id = text.strip_prefix('\u{feff}').unwrap_or(text).trim_end_matches(['\r', '\n']);
    if id.is_empty() {
        Err("holds no newUserId")
    } else if id.contains(['\r', '\n']) {
        Err("has more than one line")
    } else if id.trim() != id {
        Err("has a blank before or after the newUserId")
    } else {
        Ok(id)
    }
}

pub(super) async fn run(args: &Args, context: &Context) -> Result<(), Failure> {
    let person = args.person()?;
    let whereabouts = context.whereabouts()?;
    // It waits for what is in flight and overwrites the free pages.
    let mut client = flow::control(&whereabouts).with_patience(std::time::Duration::from_secs(600));
    if !args.yes && !args.dry_run && output::is_interactive() {
        // Where no relay answers, the order itself finds that out, and the directory is asked.
        let counted = client.post("/api/erase", &json!({"user": person, "dry_run": true})).await;
        if let Some(found) = counted.ok().filter(|answer| answer.status.is_success()) {
            agreed(args, &found.json()?)?;
        }
    }
    let body = json!({"user": person, "dry_run": args.dry_run, "yes": args.yes});
    let result = waiting(client.post("/api/erase", &body)).await;
    let answer = match result {
        Ok(answer) => answer,
        Err(error) => {
            let stopped = source::stopped(&whereabouts, &client, &error)?;
            let found = stopped.found_of(&person)?;
            drop(stopped);
            if args.dry_run {
                return tell(&found, args);
            }
            if found["pending"] != 0 || found["retrying"] != 0 {
                confirmed(args, &found)?;
            }
            agreed(args, &found)?;
            let erased = waiting(erase_stopped(&whereabouts.dir, UserId::new(&person))).await?;
            telemetry::to_stderr(|| audit::erased("directory", erased.events()));
            return tell(&view::erased(&erased), args);
        }
    };
    if answer.status == StatusCode::CONFLICT {
        let found: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        confirmed(args, &found)?;
        let body = json!({"user": person, "yes": true});
        let result = waiting(client.post("/api/erase", &body)).await;
        return tell(&flow::answered(&client, result)?.json()?, args);
    }
    tell(&answer.json()?, args)
}

/// Shows on a terminal that it goes on.
async fn waiting<T>(work: impl Future<Output = T>) -> T {
    let wheel = progress::wheel("erasing");
    let result = work.await;
    wheel.finish_and_clear();
    result
}

/// Dead letters go for good: where somebody can be asked, he is. What waits has a question of its own.
fn agreed(args: &Args, found: &Value) -> Result<(), Failure> {
    let dead = found["dead"].as_u64().unwrap_or(0);
    let question = format!("Erase {} of this person for good?", output::counted(dead, "dead letter"));
    if args.yes || dead == 0 || count_waiting(found) > 0 || output::confirm(&question)? {
        return Ok(());
    }
    Err(Failure::new(Exit::Ok, "nothing was changed"))
}

fn count_waiting(found: &Value) -> u64 {
    ["pending", "retrying", "in_flight"].iter().filter_map(|state| found[state].as_u64()).sum()
}

/// What waits is only erased if that is said.
fn confirmed(args: &Args, found: &Value) -> Result<(), Failure> {
    let waiting = count_waiting(found);
    let wait = if waiting == 1 { "waits" } else { "wait" };
    let what = output::counted(waiting, "event");
    let message = format!("{what} of this person {wait} to be delivered: erased, a reward may go unpaid");
    if args.yes || (output::is_interactive() && output::confirm(&format!("{message}. Erase anyway?"))?) {
        return Ok(());
    }
    Err(Failure::new(Exit::Usage, message).hint("if that is meant, say --yes; nothing was changed"))
}

fn tell(answer: &Value, args: &Args) -> Result<(), Failure> {
    if args.json {
        return output::print(&format!("{answer}\n"));
    }
    let of = |name: &str| answer[name].as_u64().unwrap_or(0);
    let done = if args.dry_run { "would be erased" } else { "erased" };
    let mut text = format!("{} {done}", output::counted(of("count"), "event"));
    for state in ["pending", "retrying", "in_flight", "dead"] {
        if of(state) > 0 {
            text.push_str(&format!(", {} {}", of(state), state.replace('_', " ")));
        }
    }
    if of("keys") > 0 {
        text.push_str(&format!("; {} forgotten", output::counted(of("keys"), "idempotency key")));
    }
    output::print(&format!("{text}\n"))?;
    for file in answer["quarantined"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        output::note(&format!("not searched: the damaged file {file} in outbox.dir; remove it by hand"));
    }
    if !args.dry_run && of("in_flight") > 0 {
        output::note("some were still in flight: run this again");
    }
    if answer["overwritten"] == false {
        output::note("free pages are overwritten when the relay is idle next");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_on_the_command_line_is_taken_as_it_is() {
        let person = |user: &str| {
            let args = Args { user: Some(user.to_owned()), user_file: None, dry_run: false, yes: false, json: false };
            args.person().ok()
        };
        assert_eq!(["x", "x\n", " x"].map(person), ["x", "x\n", " x"].map(|id| Some(id.to_owned())));
        assert_eq!(person(""), None);
    }

    #[test]
    fn a_file_holds_one_id_and_whatever_may_be_another_is_refused() {
        for text in ["u 1", "u 1\n", "u 1\r\n", "u 1\n\n", "\u{feff}u 1\n"] {
            assert_eq!(only_id(text.as_bytes()), Ok("u 1"), "{text:?}");
        }
        for (text, why) in [
            ("", "no newUserId"),
            ("\n", "no newUserId"),
            ("u1\nu2\n", "more than one line"),
            ("u1\r\nu2", "more than one line"),
            ("\nu1", "more than one line"),
            ("u1 \n", "a blank"),
            ("\tu1", "a blank"),
            (" \n", "a blank"),
        ] {
            assert!(only_id(text.as_bytes()).unwrap_err().contains(why), "{text:?}");
        }
        assert_eq!(only_id(b"u\xff"), Err("is not UTF-8"));
        let long = vec![b'u'; MAX_BYTES as usize + 1];
        assert_eq!(only_id(&long[1..]).map(str::len), Ok(MAX_BYTES as usize));
        assert!(only_id(&long).unwrap_err().contains("longer"));
    }

    #[test]
    fn a_file_that_is_no_id_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("ids");
        std::fs::write(&file, "u1\nu2\n").unwrap();
        for (path, exit) in [(file, Exit::Usage), (dir.path().join("missing"), Exit::Io), (dir.path().into(), Exit::Io)]
        {
            let failure = from_file(&path).unwrap_err();
            assert_eq!((failure.exit, failure.message.starts_with(&format!("{} ", path.display()))), (exit, true));
        }
    }
}
