//! Sockets that a service manager holds and hands over.
//!
//! In: the descriptors from 3 on that `LISTEN_FDS` counts, their names from `LISTEN_FDNAMES`. Out: each socket by what
//! comes from it.
//! Always: what was handed over is used, or it is an error: nothing is left to fill up unread; addresses, permissions
//! and buffers stay as the manager set them.
//! Follows: `sd_listen_fds(3)`.

use std::io;
use std::net::{TcpListener, UdpSocket};
use std::os::unix::net::UnixDatagram;

use listenfd::ListenFd;

use super::stream::Incoming;

/// The name of a socket that serves HTTP.
const HTTP: &str = "http";
/// The name of a TCP socket that takes lines.
const TCP: &str = "tcp";

/// What was handed over; empty for a process that was started by hand.
#[derive(Debug, Default)]
pub struct Inherited {
    /// Sockets of UDP, each for a worker of its own.
    pub udp: Vec<UdpSocket>,
    /// A unix socket of datagrams.
    pub unix_datagram: Option<UnixDatagram>,
    /// What listens for connections that bring lines.
    pub streams: Vec<Incoming>,
    /// What listens for HTTP.
    pub http: Option<TcpListener>,
}

impl Inherited {
    /// Takes what this process was started with. Nothing is left for a second call.
    ///
    /// # Errors
    /// For a socket of no use, or one too many of its kind.
    pub fn take() -> io::Result<Self> {
        let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
        Self::sort(ListenFd::from_env(), &names)
    }

    /// Whether there is nothing.
    pub fn is_empty(&self) -> bool {
        self.udp.is_empty() && self.unix_datagram.is_none() && self.streams.is_empty() && self.http.is_none()
    }

    fn sort(mut held: ListenFd, names: &str) -> io::Result<Self> {
        let mut names = names.split(':');
        let mut found = Self::default();
        for number in 0..held.len() {
            let name = names.next().unwrap_or_default();
            let refused = |why: &str| {
                let error = format!("socket {number} that was handed over, named {name:?}, {why}");
                Err(io::Error::new(io::ErrorKind::InvalidInput, error))
            };
            // A socket of another kind stays where it is, for the next to look at.
            if let Ok(Some(listener)) = held.take_tcp_listener(number) {
                if !socket2::SockRef::from(&listener).is_listener()? {
                    return refused("is a TCP socket that does not listen");
                }
                match name {
                    HTTP if found.http.is_none() => found.http = Some(listener),
                    HTTP => return refused("is the second one for HTTP"),
                    TCP => found.streams.push(Incoming::Tcp(listener)),
                    _ => {
                        return refused(
                            "is a TCP socket: FileDescriptorName= must be \"http\" for metrics or \"tcp\" for lines",
                        );
                    }
                }
            } else if name == HTTP {
                return refused("is no TCP socket, and HTTP is served by TCP alone");
            } else if let Ok(Some(socket)) = held.take_udp_socket(number) {
                found.udp.push(socket);
            } else if let Ok(Some(listener)) = held.take_unix_listener(number) {
                found.streams.push(Incoming::Unix(listener));
            } else if let Ok(Some(socket)) = held.take_unix_datagram(number) {
                if found.unix_datagram.replace(socket).is_some() {
                    return refused("is the second unix socket of datagrams");
                }
            } else {
                return refused("is none of UDP, TCP, unix datagrams and unix streams");
            }
        }
        Ok(found)
    }
}
