//! Listening sockets.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};

use tokio::net::{TcpListener, TcpSocket};

/// Connections that the kernel keeps for us before they are accepted.
const BACKLOG: u32 = 1024;

/// Listens on all addresses. One that the machine has no network stack for is passed over, if another
/// one works. An IPv6 wildcard takes IPv4 connections too, where the kernel is set so (it is by default);
/// naming the IPv4 wildcard beside it is then harmless. Without IPv6 the IPv4 wildcard stands in for it.
///
/// # Errors
/// The first address that cannot be had, with its name in the message and its kind kept.
pub fn bind(addresses: &[SocketAddr]) -> io::Result<Vec<TcpListener>> {
    bind_by(addresses, listen)
}

fn bind_by(
    addresses: &[SocketAddr],
    listen: impl Fn(SocketAddr) -> io::Result<TcpListener>,
) -> io::Result<Vec<TcpListener>> {
    let mut ordered = addresses.to_vec();
    ordered.sort_by_key(|address| !(address.is_ipv6() && address.ip().is_unspecified()));
    let (mut listeners, mut missing): (Vec<TcpListener>, Option<io::Error>) = (Vec::new(), None);
    for address in ordered {
        match listen(address) {
            Ok(listener) => listeners.push(listener),
            Err(error) if no_such_stack(&error) => {
                missing = Some(named(address, &error));
                let ipv4 = SocketAddr::from((Ipv4Addr::UNSPECIFIED, address.port()));
                if address.ip().is_unspecified() && !addresses.contains(&ipv4) {
                    listeners.push(listen(ipv4).map_err(|error| named(ipv4, &error))?);
                }
            }
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

#[cfg(test)]
mod tests {
    use super::*;

    /// As on a machine without IPv6.
    fn listen_without_ipv6(address: SocketAddr) -> io::Result<TcpListener> {
        if address.is_ipv6() { Err(io::Error::from_raw_os_error(97)) } else { listen(address) }
    }

    #[tokio::test]
    async fn without_ipv6_its_wildcard_means_all_of_ipv4_and_its_other_addresses_are_passed_over() {
        let bound = |text: &str| -> io::Result<Vec<String>> {
            let addresses: Vec<SocketAddr> = text.split(' ').map(|address| address.parse().unwrap()).collect();
            let listeners = bind_by(&addresses, listen_without_ipv6)?;
            Ok(listeners.iter().map(|listener| listener.local_addr().unwrap().ip().to_string()).collect())
        };
        assert_eq!(bound("[::]:0").unwrap(), ["0.0.0.0"]);
        assert_eq!(bound("[::]:0 0.0.0.0:0").unwrap(), ["0.0.0.0"]);
        assert_eq!(bound("[::1]:0 127.0.0.1:0").unwrap(), ["127.0.0.1"]);
        assert!(bound("[::1]:0").is_err(), "nothing is left to listen on");
    }
}
