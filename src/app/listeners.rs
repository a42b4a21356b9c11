//! Binding every socket before anything is served.

use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::net::UnixListener;

use super::{Settings, StartError};
use crate::http::{self, Limits, Listener};

/// What operators, probes and Prometheus need, and no more.
pub(super) const CONTROL_LIMITS: Limits =
    Limits { max_connections: 64, header_timeout: Duration::from_secs(10), idle_timeout: Duration::from_secs(120) };

/// The same for the control socket, whose exports may be read by a `send` that waits five minutes for a full relay.
pub(super) const SOCKET_LIMITS: Limits = Limits { idle_timeout: Duration::from_secs(600), ..CONTROL_LIMITS };

/// The sockets of a relay and where they are.
pub struct Bound {
    ingest: Vec<Listener>,
    ops: Vec<Listener>,
    admin: Vec<Listener>,
    socket: Vec<Listener>,
    pub(super) socket_file: SocketFile,
    /// Where apps post.
    pub ingest_at: Vec<SocketAddr>,
    /// Where probes and metrics are.
    pub ops_at: Vec<SocketAddr>,
    /// Where the control API is.
    pub admin_at: Vec<SocketAddr>,
}

impl Bound {
    pub(super) fn take_ingest(&mut self) -> Vec<Listener> {
        std::mem::take(&mut self.ingest)
    }

    pub(super) fn take_ops(&mut self) -> Vec<Listener> {
        std::mem::take(&mut self.ops)
    }

    pub(super) fn take_admin(&mut self) -> Vec<Listener> {
        std::mem::take(&mut self.admin)
    }

    pub(super) fn take_socket(&mut self) -> Vec<Listener> {
        std::mem::take(&mut self.socket)
    }
}

/// Binds all that the settings name.
///
/// # Errors
/// The first socket that cannot be bound.
pub fn bind(settings: &Settings) -> Result<Bound, StartError> {
    let (ingest, ingest_at) = tcp("ingest.listen", &settings.ingest.listen)?;
    let (ops, ops_at) = tcp("ops.listen", &settings.ops.listen)?;
    let (admin, admin_at) = tcp("admin.listen", &settings.admin.listen)?;
    let socket = unix(&settings.admin.socket).map_err(|error| {
        let text = format!("cannot listen on {}: {error}", settings.admin.socket.display());
        StartError::Bind { listener: "admin.socket", source: io::Error::new(error.kind(), text) }
    })?;
    let socket_file = SocketFile::of(&settings.admin.socket);
    Ok(Bound { ingest, ops, admin, socket: vec![Listener::Unix(socket)], socket_file, ingest_at, ops_at, admin_at })
}

fn tcp(listener: &'static str, addresses: &[SocketAddr]) -> Result<(Vec<Listener>, Vec<SocketAddr>), StartError> {
    let failed = |source| StartError::Bind { listener, source };
    let bound = http::bind(addresses).map_err(failed)?;
    let at = bound.iter().map(tokio::net::TcpListener::local_addr).collect::<io::Result<_>>().map_err(failed)?;
    Ok((bound.into_iter().map(Listener::Tcp).collect(), at))
}

/// A socket that a killed relay left behind is replaced. Two relays may name the same one, so a socket that somebody
/// answers on is in use; and what is no socket is not ours to remove.
fn unix(path: &Path) -> io::Result<UnixListener> {
    match std::fs::symlink_metadata(path) {
        Ok(found) if !found.file_type().is_socket() => {
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, "it is there and no socket"));
        }
        Ok(_) => match std::os::unix::net::UnixStream::connect(path) {
            Ok(_) => return Err(io::Error::new(io::ErrorKind::AddrInUse, "another relay answers on it")),
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => std::fs::remove_file(path)?,
            Err(error) => return Err(error),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// The socket file of a listener, so that no other one is removed at the end.
#[derive(Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
    inode: Option<(u64, u64)>,
}

impl SocketFile {
    pub(super) fn of(path: &Path) -> Self {
        Self { path: path.to_owned(), inode: inode(path) }
    }

    /// It may be gone already; the next start replaces it in any case.
    pub(super) fn remove(&self) {
        if self.inode.is_some() && inode(&self.path) == self.inode {
            drop(std::fs::remove_file(&self.path));
        }
    }
}

fn inode(path: &Path) -> Option<(u64, u64)> {
    std::fs::symlink_metadata(path).ok().map(|file| (file.dev(), file.ino()))
}
