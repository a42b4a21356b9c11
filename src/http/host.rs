//! A host as `Host` headers and `ingest.allowed_hosts` name it: a name or an address, perhaps a port, nothing else.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Host {
    name: Name,
    port: Option<u16>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Name {
    Address(IpAddr),
    /// In small letters, without a final point.
    Named(String),
}

impl Host {
    /// Of a request; `None` if it is no host. What cannot be understood whole is not taken for its start.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (name, port) = match text.strip_prefix('[') {
            Some(rest) => {
                let (address, port) = rest.split_once(']')?;
                (Name::of(address.parse::<Ipv6Addr>().ok()?), port)
            }
            None => {
                let (name, port) = text.split_at(text.find(':').unwrap_or(text.len()));
                (Name::parse(name)?, port)
            }
        };
        let port = match port.strip_prefix(':') {
            None if port.is_empty() => None,
            Some("") => None,
            // A number may have a sign, a port may not.
            Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => Some(digits.parse().ok()?),
            _ => return None,
        };
        Some(Self { name, port })
    }

    /// Of the configuration, where an IPv6 address without a port may stand without its brackets.
    pub(crate) fn configured(text: &str) -> Option<Self> {
        match text.parse::<Ipv6Addr>() {
            Ok(address) => Some(Self { name: Name::of(address), port: None }),
            Err(_) => Self::parse(text),
        }
    }

    pub(crate) fn is_loopback(&self) -> bool {
        match &self.name {
            Name::Address(address) => address.is_loopback(),
            Name::Named(name) => name == "localhost",
        }
    }

    /// Whether it is the other; without a port, whatever the other's.
    pub(crate) fn allows(&self, other: &Self) -> bool {
        self.name == other.name && (self.port.is_none() || self.port == other.port)
    }
}

impl Name {
    fn of(address: impl Into<IpAddr>) -> Self {
        Self::Address(address.into().to_canonical())
    }

    fn parse(name: &str) -> Option<Self> {
        let name = name.strip_suffix('.').unwrap_or(name);
        if let Ok(address) = name.parse::<Ipv4Addr>() {
            return Some(Self::of(address));
        }
        let known = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
        (!name.is_empty() && name.bytes().all(known)).then(|| Self::Named(name.to_ascii_lowercase()))
    }
}
