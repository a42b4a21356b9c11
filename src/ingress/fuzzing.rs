//! What fuzz targets may see of this module; in no other build.

use super::post::Layout;
use super::{Settings, batch};
use crate::event::{Checked, Checks};

/// Reads a batch as `POST /events/batch` does, with these bounds; an error is the answer's status.
///
/// # Errors
/// If the batch is refused.
pub fn batch(body: &[u8], lines: bool, max_batch: usize, max_body_bytes: usize) -> Result<Vec<Checked>, u16> {
    let settings = Settings {
        listen: Vec::new(),
        max_body_bytes,
        max_batch,
        max_batch_bytes: usize::MAX,
        outbox_max_events: 0,
        checks: Checks::Warn,
        allowed_hosts: Vec::new(),
        token_file: None,
        allow_unauthenticated_remote: false,
        max_connections: 1,
        header_timeout: std::time::Duration::ZERO,
        idle_timeout: std::time::Duration::ZERO,
    };
    let layout = if lines { Layout::Lines } else { Layout::Json };
    batch::read(body, layout, &settings).map_err(|refusal| refusal.answer.status().as_u16())
}
