//! Other forwarders that buffer on disk, where they are installed.

use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use tempfile::TempDir;

use crate::process::{Server, on_path};

/// A program that may be on the PATH.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Peer {
    Vector,
    FluentBit,
}

impl Peer {
    /// Those that are installed.
    pub(crate) fn found() -> Vec<Self> {
        [Self::Vector, Self::FluentBit].into_iter().filter(|peer| on_path(peer.name()).is_some()).collect()
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Vector => "vector",
            Self::FluentBit => "fluent-bit",
        }
    }

    /// What its 200 promises with the configuration used here.
    pub(crate) fn guarantee(self) -> &'static str {
        match self {
            Self::Vector => {
                "answers before its disk buffer is synced (every 500 ms): a power loss can lose answered \
                 events; no order per user"
            }
            Self::FluentBit => {
                "answers when the event is in a memory-mapped chunk that is not synced yet: a power loss can \
                 lose answered events; gives up by default; no order per user"
            }
        }
    }

    /// Listens for events, buffers them on disk and sends them to `upstream`.
    pub(crate) fn start(self, dir: &Arc<TempDir>, upstream: SocketAddr) -> Option<Server> {
        // Free a moment ago.
        let listen = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port");
        let (file, text) = match self {
            Self::Vector => ("vector.yaml", vector(dir.path(), listen, upstream)),
            Self::FluentBit => ("fluent-bit.conf", fluent_bit(dir.path(), listen, upstream)),
        };
        let file = dir.path().join(file);
        std::fs::write(&file, text).expect("a file");
        let mut command = Command::new(on_path(self.name())?);
        command.args(["--quiet", "--config"]).arg(&file);
        Server::foreign(command, listen, Arc::clone(dir))
    }
}

fn vector(dir: &Path, listen: SocketAddr, upstream: SocketAddr) -> String {
    format!(
        r#"data_dir: "{dir}"
sources:
  in: {{ type: http_server, address: "{listen}", path: /events, decoding: {{ codec: json }} }}
sinks:
  out:
    type: http
    inputs: [in]
    uri: "http://{upstream}/events"
    encoding: {{ codec: json }}
    framing: {{ method: newline_delimited }}
    batch: {{ max_events: 1 }}
    buffer: {{ type: disk, max_size: 1073741824, when_full: block }}
"#,
        dir = dir.display()
    )
}

fn fluent_bit(dir: &Path, listen: SocketAddr, upstream: SocketAddr) -> String {
    format!(
        "[SERVICE]\n    flush 1\n    storage.path {dir}\n    storage.sync full\n    storage.checksum on\n\
         [INPUT]\n    name http\n    listen {}\n    port {}\n    successful_response_code 200\n    storage.type filesystem\n\
         [OUTPUT]\n    name http\n    match *\n    host {}\n    port {}\n    uri /events\n    format json_lines\n    retry_limit no_limits\n",
        listen.ip(),
        listen.port(),
        upstream.ip(),
        upstream.port(),
        dir = dir.display()
    )
}
