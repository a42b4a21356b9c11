//! Listening sockets.

use std::io;
use std::net::SocketAddr;

use tokio::net::{TcpListener, TcpSocket};

/// Connections that the kernel keeps for us before they are accepted.
const BACKLOG: u32 = 1024;

/// Listens on all addresses. One that the machine has no network stack for is passed over, if another
/// one works. An IPv6 wildcard takes IPv4 connections too, where the kernel is set so (it is by default);
/// naming the IPv4 wildcard beside it is then harmless.
///
/// # Errors
/// The first address that cannot be had, with its name in the message and its kind kept.
pub fn bind(addresses: &[SocketAddr]) -> io::Result<Vec<TcpListener>> {
    let mut ordered = addresses.to_vec();
    ordered.sort_by_key(|address| !(address.is_ipv6() && address.ip().is_unspecified()));
    let (mut listeners, mut missing): (Vec<TcpListener>, Option<io::Error>) = (Vec::new(), None);
    for address in ordered {
        match listen(address) {
            Ok(listener) => listeners.push(listener),
            Err(error) if no_such_stack(&error) => missing = Some(named(address, &error)),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && is_covered(address, &listeners) => {}
            Err(error) => return Err(named(address, &error)),
        }
    }
    match missing {
        Some(error) if listeners.is_empty() => Err(error),
        _ => Ok(listeners),
    }
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv6() { TcpSocket::new_v6() } else { TcpSocket::new_v4() }?;
    // A restart must not wait for the old connections' TIME_WAIT.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

fn named(address: SocketAddr, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("cannot listen on {address}: {error}"))
}

/// The address family is not compiled in, or switched off.
fn no_such_stack(error: &io::Error) -> bool {
    const EAFNOSUPPORT: i32 = 97;
    error.kind() == io::ErrorKind::AddrNotAvailable || error.raw_os_error() == Some(EAFNOSUPPORT)
}

/// The IPv4 wildcard is in use because our own IPv6 wildcard takes its connections already.
fn is_covered(address: SocketAddr, listeners: &[TcpListener]) -> bool {
    let dual = |listener: &TcpListener| {
        let own = listener.local_addr();
        own.is_ok_and(|own| own.is_ipv6() && own.ip().is_unspecified() && own.port() == address.port())
    };
    address.is_ipv4() && address.ip().is_unspecified() && listeners.iter().any(dual)
}
