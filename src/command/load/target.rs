//! Where traffic goes.
//!
//! In: the text of `--target`. Out: [`Target`], and connected sockets.
//! Always: only this machine, unless anywhere is allowed in so many words.

use std::fmt;
use std::io::{self, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::os::fd::{AsRawFd, RawFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr as UnixAddr, UnixDatagram, UnixStream};

use crate::listen::resolve;

/// A listener of a sidecar.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Target {
    Udp(SocketAddr),
    Tcp(SocketAddr),
    /// Path, or `@name`.
    UnixDatagram(String),
    /// The same.
    UnixStream(String),
}

impl Target {
    /// Reads `udp://host:port`, `tcp://host:port`, `unix:///path` (datagrams) or `unix-stream:///path`.
    ///
    /// # Errors
    /// What is wrong with it, in words.
    pub(super) fn parse(text: &str, anywhere: bool) -> Result<Self, String> {
        let accepted = "udp://host:port, tcp://host:port, unix:///path (datagrams) or unix-stream:///path";
        let (scheme, rest) = text.split_once("://").ok_or_else(|| format!("found {text:?}, accepted: {accepted}"))?;
        match scheme {
            "udp" => Ok(Self::Udp(address_of(rest, anywhere)?)),
            "tcp" => Ok(Self::Tcp(address_of(rest, anywhere)?)),
            "unix" | "unix-stream" if !rest.starts_with(['/', '@']) || rest.len() < 2 => {
                Err(format!("found {text:?}, accepted: an absolute path, or @name"))
            }
            "unix" => Ok(Self::UnixDatagram(rest.to_owned())),
            "unix-stream" => Ok(Self::UnixStream(rest.to_owned())),
            _ => Err(format!("found {text:?}, accepted: {accepted}")),
        }
    }

    /// The `listener` label of the sidecar's own metrics.
    pub(super) fn listener(&self) -> &'static str {
        match self {
            Self::Udp(_) => "udp",
            Self::Tcp(_) => "tcp",
            Self::UnixDatagram(_) => "unix_datagram",
            Self::UnixStream(_) => "unix_stream",
        }
    }

    /// `count` sockets, each a sender of its own.
    ///
    /// # Errors
    /// If one cannot be had, or cannot be connected.
    pub(super) fn connect(&self, count: usize) -> io::Result<Sockets> {
        fn each<T>(count: usize, connect: impl Fn() -> io::Result<T>) -> io::Result<Vec<T>> {
            (0..count).map(|_| connect()).collect()
        }
        Ok(match self {
            Self::Udp(address) => Sockets::Udp(each(count, || {
                let own = match address {
                    SocketAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
                    SocketAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
                };
                let socket = UdpSocket::bind(own)?;
                socket.connect(address)?;
                Ok(socket)
            })?),
            Self::Tcp(address) => Sockets::Streams(each(count, || {
                let stream = TcpStream::connect(address)?;
                stream.set_nodelay(true)?;
                Ok(Box::new(stream) as Box<dyn Write + Send>)
            })?),
            Self::UnixDatagram(path) => Sockets::UnixDatagram(each(count, || {
                let socket = UnixDatagram::unbound()?;
                socket.connect_addr(&unix_address(path)?)?;
                Ok(socket)
            })?),
            Self::UnixStream(path) => Sockets::Streams(each(count, || {
                Ok(Box::new(UnixStream::connect_addr(&unix_address(path)?)?) as Box<dyn Write + Send>)
            })?),
        })
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Udp(address) => write!(f, "udp://{address}"),
            Self::Tcp(address) => write!(f, "tcp://{address}"),
            Self::UnixDatagram(path) => write!(f, "unix://{path}"),
            Self::UnixStream(path) => write!(f, "unix-stream://{path}"),
        }
    }
}

/// The first address of `host:port`.
///
/// # Errors
/// If there is none, or if it is not of this machine and need be.
pub(super) fn address_of(text: &str, anywhere: bool) -> Result<SocketAddr, String> {
    let address = resolve(text).map_err(|error| format!("{text}: {error}"))?.next();
    let address = address.ok_or_else(|| format!("{text}: the name has no address"))?;
    if anywhere || address.ip().to_canonical().is_loopback() {
        return Ok(address);
    }
    Err(format!(
        "{text} is not this machine's own loopback; --anywhere allows it, and then mind who else is on the way"
    ))
}

fn unix_address(path: &str) -> io::Result<UnixAddr> {
    match path.strip_prefix('@') {
        Some(name) => UnixAddr::from_abstract_name(name),
        None => UnixAddr::from_pathname(path),
    }
}

/// Connected sockets of one kind.
pub(super) enum Sockets {
    Udp(Vec<UdpSocket>),
    UnixDatagram(Vec<UnixDatagram>),
    Streams(Vec<Box<dyn Write + Send>>),
}

impl Sockets {
    /// The descriptor of a datagram socket.
    pub(super) fn datagram_socket(&self, number: usize) -> Option<RawFd> {
        match self {
            Self::Udp(sockets) => Some(sockets[number].as_raw_fd()),
            Self::UnixDatagram(sockets) => Some(sockets[number].as_raw_fd()),
            Self::Streams(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_and_unix_paths_are_taken_unless_anywhere_is_allowed() {
        for good in ["udp://127.0.0.1:8125", "tcp://[::1]:8125", "unix:///run/s.sock", "unix-stream://@name"] {
            assert_eq!(Target::parse(good, false).unwrap().to_string(), good);
        }
        let far = "udp://192.0.2.1:8125";
        assert!(Target::parse(far, false).unwrap_err().contains("--anywhere"));
        assert_eq!(Target::parse(far, true).unwrap().to_string(), far);
        assert!(Target::parse("udp://0.0.0.0:8125", false).is_err());
        for bad in ["127.0.0.1:8125", "http://127.0.0.1:8125", "unix://relative", "unix://", "udp://127.0.0.1"] {
            assert!(Target::parse(bad, true).is_err(), "{bad}");
        }
    }
}
