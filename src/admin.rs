//! The control API.

use std::net::SocketAddr;
use std::path::PathBuf;

/// `admin.*`
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where to listen on TCP.
    pub listen: Vec<SocketAddr>,
    /// The control socket.
    pub socket: PathBuf,
    /// A file with the bearer token that changes of state need on TCP.
    pub token_file: Option<PathBuf>,
    /// Lets `POST /api/quit` end the relay.
    pub allow_quit: bool,
}
