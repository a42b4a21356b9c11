//! What is wrong with the outbox, its disk and its dead letters.

use std::time::Duration;

use super::words::{bytes, capital, count_of, number, waiting};
use super::{Finding, Severity, Snapshot};
use crate::outbox::{AppendError, Bound, Stats};

/// An outbox or volume so full will be full soon, in hundredths.
const NEARLY_FULL: u64 = 80;
/// What waits so long on a disk that ends with its pod is at risk.
const AT_RISK: Duration = Duration::from_secs(60);
/// What was lost within this time is news, even if the damaged file is gone.
const FRESH_LOSS: Duration = Duration::from_secs(86_400);

const LIST: &str = "cello-relay outbox list";
const LIST_DEAD: &str = "cello-relay outbox list --state dead";

pub(super) fn look(snapshot: &Snapshot, found: &mut Vec<Finding>) {
    refusing(snapshot, found);
    dead(snapshot, found);
    damage(snapshot, found);
    let stats = &snapshot.stats;
    if snapshot.about.durability == "pod" && stats.oldest_age(snapshot.now) >= AT_RISK {
        found.push(Finding {
            code: "backlog_on_pod_disk",
            severity: Severity::Warning,
            sentence: format!(
                "{} on a disk that ends with this pod (outbox.durability = \"pod\"): do not delete or evict the pod \
                 before they are delivered.",
                capital(&waiting(snapshot))
            ),
            since: stats.oldest,
            count: stats.ledger.undelivered(),
            command: "cello-relay drain",
        });
    }
}

fn refusing(snapshot: &Snapshot, found: &mut Vec<Finding>) {
    let stats = &snapshot.stats;
    let Some(error) = stats.refusing else { return nearly_full(snapshot, found) };
    let (used, capacity) = (bytes(stats.size_bytes), bytes(stats.capacity_bytes));
    let (code, said) = match error {
        AppendError::Full(Bound::Bytes) => (
            "full_max_bytes",
            format!(
                "The outbox is full: {used} of {capacity} (outbox.max_bytes). It takes events again by itself as Cello \
                 takes some; discarding dead letters or a larger bound makes room too"
            ),
        ),
        AppendError::Full(Bound::Events) => (
            "full_max_events",
            format!(
                "The outbox is full: {} wait or are dead, as many as outbox.max_events allows. It takes events again by \
                 itself as Cello takes some",
                count_of(stats.ledger.undelivered() + stats.ledger.dead, "event")
            ),
        ),
        AppendError::Full(Bound::Disk) => (
            "full_disk",
            format!(
                "The volume of the outbox is full: {} of {} are free, less than outbox.min_free_bytes. It takes events \
                 again by itself when there is room: free or enlarge the volume",
                bytes(stats.volume_free_bytes),
                bytes(stats.volume_bytes)
            ),
        ),
        AppendError::Unavailable => (
            "disk_error",
            "The outbox cannot write to its disk; nothing is taken or sent meanwhile. It is tried again by itself: look \
             at the volume and the node's log"
                .to_owned(),
        ),
        AppendError::Closed => ("closing", "The relay is stopping; the next one takes events".to_owned()),
        AppendError::KeyReused => return,
    };
    found.push(Finding {
        code,
        severity: Severity::Critical,
        sentence: format!("{said}. Apps get 503 and must try again; what was taken is safe: {}.", waiting(snapshot)),
        since: None,
        count: stats.ledger.undelivered(),
        // A disk is mended elsewhere.
        command: if matches!(error, AppendError::Full(Bound::Bytes | Bound::Events)) { what_fills(stats) } else { "" },
    });
}

/// Dead letters can be made fewer at once; if there are none, what waits tells why it does.
fn what_fills(stats: &Stats) -> &'static str {
    if stats.ledger.dead > 0 { LIST_DEAD } else { LIST }
}

fn nearly_full(snapshot: &Snapshot, found: &mut Vec<Finding>) {
    let stats = &snapshot.stats;
    if stats.capacity_bytes == 0 || stats.size_bytes < stats.capacity_bytes / 100 * NEARLY_FULL {
        return;
    }
    found.push(Finding {
        code: "nearly_full",
        severity: Severity::Warning,
        sentence: format!(
            "The outbox is nearly full: {} of {} (outbox.max_bytes). When it is, apps get 503; {}, and {} are kept.",
            bytes(stats.size_bytes),
            bytes(stats.capacity_bytes),
            waiting(snapshot),
            count_of(stats.ledger.dead, "dead letter")
        ),
        since: None,
        count: stats.ledger.undelivered(),
        command: what_fills(stats),
    });
}

fn dead(snapshot: &Snapshot, found: &mut Vec<Finding>) {
    let dead = snapshot.stats.ledger.dead;
    if snapshot.stats.dead_letters_full {
        found.push(Finding {
            code: "dead_letters_full",
            severity: Severity::Critical,
            sentence: format!(
                "Dead letters ({}) take their half of the outbox: events that Cello refuses now wait at the head of their users' \
                 queues and are tried every 5 min. Mend and replay, or export and discard; then it goes on by itself.",
                number(dead)
            ),
            since: None,
            count: dead,
            command: LIST_DEAD,
        });
    } else if dead > 0 {
        found.push(Finding {
            code: "dead_letters",
            severity: Severity::Warning,
            sentence: format!(
                "{} to decide on: refused by Cello, or given up. Nothing more happens by itself: see why, then replay \
                 or discard.",
                count_of(dead, "dead letter")
            ),
            since: None,
            count: dead,
            command: LIST_DEAD,
        });
    }
}

const STILL_COMING: &str =
    "a relay that runs is still copying what can be read of it. Delete nothing until that is over.";
const CAME_OVER: &str = "what could be read was recovered; `cello-relay outbox list --file NAME` shows it. Check the disk, keep \
    a copy for the inquiry, then delete them.";

fn damage(snapshot: &Snapshot, found: &mut Vec<Finding>) {
    let (lost, files) = (snapshot.stats.ledger.lost, snapshot.stats.quarantined_files);
    if lost > 0 {
        let (what, lost_at) = (count_of(lost, "event"), snapshot.lost_at);
        // The count stays for good; what asks for somebody must end, or it hides what goes wrong next.
        let is_open = files > 0 || lost_at.is_some_and(|at| snapshot.now.since(at) < FRESH_LOSS);
        let (severity, sentence) = if is_open {
            let lost_are = if lost == 1 { "is lost" } else { "are lost" };
            let said = format!(
                "{what} that had been accepted could not be read from a damaged file and {lost_are}. Have the apps send \
                 again what they can, replace the disk, and delete the damaged file when you are done with it."
            );
            (Severity::Critical, said)
        } else {
            let said = format!(
                "{what} that had been accepted {} lost to a damaged disk, and no damaged file lies \
                 here any more: nothing is to be done.",
                if lost == 1 { "was" } else { "were" }
            );
            (Severity::Info, said)
        };
        found.push(Finding { code: "lost_events", severity, sentence, since: lost_at, count: lost, command: "" });
    }
    if files > 0 {
        found.push(Finding {
            code: "quarantined",
            severity: Severity::Warning,
            sentence: format!(
                "{} in the outbox directory ({} *.damaged.db): {}",
                if files == 1 { "A damaged file lies" } else { "Damaged files lie" },
                number(files),
                if snapshot.stats.is_recovering { STILL_COMING } else { CAME_OVER }
            ),
            since: None,
            count: files,
            command: "",
        });
    }
}
