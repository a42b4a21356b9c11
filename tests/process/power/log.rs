//! What `tests/support/record.c` wrote down.

use std::rc::Rc;

use cello_relay::event::EventId;

/// One call that changed the directory, or one message that counts.
#[derive(Clone, Debug)]
pub(crate) enum Record {
    Create {
        ino: u64,
        path: String,
    },
    Mkdir {
        path: String,
    },
    Unlink {
        path: String,
    },
    Rename {
        from: String,
        to: String,
    },
    Truncate {
        ino: u64,
        length: usize,
    },
    Write {
        ino: u64,
        offset: usize,
        data: Rc<[u8]>,
    },
    /// All earlier writes of the file are durable.
    Sync {
        ino: u64,
    },
    /// All earlier changes of the names in it are durable.
    SyncDir {
        path: String,
    },
    /// A 2xx for these events goes to an app.
    Told {
        ids: Vec<EventId>,
    },
    /// Upstream's 2xx for that event came.
    Heard {
        id: EventId,
    },
}

/// Reads a whole log. Which event upstream answered is told by what was sent before on the same connection.
pub(crate) fn parse(bytes: &[u8]) -> Vec<Record> {
    let mut rest = bytes;
    let mut sent = std::collections::HashMap::new();
    let mut records = Vec::new();
    while !rest.is_empty() {
        let end = rest.iter().position(|byte| *byte == b'\n').expect("whole lines");
        let line = std::str::from_utf8(&rest[..end]).expect("UTF-8");
        rest = &rest[end + 1..];
        let words: Vec<&str> = line.split(' ').collect();
        let number = |at: usize| words[at].parse::<u64>().expect("a number");
        let data = match words[0] {
            "write" | "told" | "sent" | "heard" => {
                let (data, left) = rest.split_at(number(words.len() - 1) as usize);
                rest = left;
                data
            }
            _ => &[],
        };
        let word = |at: usize| words[at].to_owned();
        records.push(match words[0] {
            "create" => Record::Create { ino: number(1), path: word(2) },
            "mkdir" => Record::Mkdir { path: word(2) },
            "unlink" => Record::Unlink { path: word(1) },
            "rename" => Record::Rename { from: word(1), to: word(2) },
            "truncate" => Record::Truncate { ino: number(1), length: number(2) as usize },
            "write" => Record::Write { ino: number(1), offset: number(2) as usize, data: data.into() },
            "sync" => Record::Sync { ino: number(1) },
            "sync-dir" => Record::SyncDir { path: word(1) },
            "told" => Record::Told { ids: ids(data) },
            "sent" => {
                sent.insert(number(1), ids(data));
                continue;
            }
            "heard" => match sent.remove(&number(1)).as_deref() {
                Some([id, ..]) => Record::Heard { id: *id },
                other => panic!("an answer to no event: {other:?}"),
            },
            other => panic!("{other}"),
        });
    }
    records
}

/// The ids in an answer's body, or in a request's head.
fn ids(message: &[u8]) -> Vec<EventId> {
    let text = String::from_utf8_lossy(message);
    let head = text.to_lowercase().find("idempotency-key: ").map(|at| at + "idempotency-key: ".len());
    let body = text.find("\r\n\r\n").map_or(text.len(), |at| at + 4);
    let part = head.map_or(&text[body..], |at| &text[at..body]);
    part.split(|c: char| c != '-' && !c.is_ascii_hexdigit()).filter_map(|word| word.parse().ok()).collect()
}
