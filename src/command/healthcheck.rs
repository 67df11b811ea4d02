//! `statsieve healthcheck`: asks a sidecar whether it is ready, for images that hold no shell.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use super::BAD_CONFIGURATION;
use crate::config::{self, Sources};
use crate::listen::{first_that_works, resolve};

/// Longest wait for the connection, and for each part of the answer.
const TIMEOUT: Duration = Duration::from_secs(3);

/// Asks `url`, or the address that the configuration listens on, and writes what it found: 0 if ready, 2 for problems
/// of the configuration, else 1.
///
/// # Errors
/// If `out` cannot be written.
pub fn healthcheck(url: Option<&str>, sources: &Sources, out: &mut dyn Write) -> io::Result<u8> {
    let address = match url {
        // A path in it is of no use: what is asked for is always the same.
        Some(url) => url.strip_prefix("http://").unwrap_or(url).split('/').next().unwrap_or_default().to_owned(),
        None => match config::load(sources) {
            // Listening on every address, it is to be found on this machine's own.
            Ok(loaded) => on_this_machine(&loaded.config.http.listen),
            Err(problems) => {
                writeln!(out, "{problems}")?;
                return Ok(BAD_CONFIGURATION);
            }
        },
    };
    match ask(&address) {
        Ok((200, _)) => {
            writeln!(out, "{address}: ready")?;
            Ok(0)
        }
        Ok((status, body)) => {
            writeln!(out, "{address}: {status} {}", body.trim_end())?;
            Ok(1)
        }
        Err(error) => {
            writeln!(out, "{address}: {error}")?;
            Ok(1)
        }
    }
}

/// An address that means every interface, as the one that this machine reaches itself by.
fn on_this_machine(address: &str) -> String {
    match (address.strip_prefix("0.0.0.0:"), address.strip_prefix("[::]:")) {
        (Some(port), _) => format!("127.0.0.1:{port}"),
        (_, Some(port)) => format!("[::1]:{port}"),
        _ => address.to_owned(),
    }
}

/// Status and body of `/-/ready`.
fn ask(address: &str) -> io::Result<(u16, String)> {
    let connect = |address| TcpStream::connect_timeout(&address, TIMEOUT);
    let mut stream = first_that_works(resolve(address)?, connect)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    write!(stream, "GET /-/ready HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.take(64 * 1024).read_to_end(&mut answer)?;
    let answer = String::from_utf8_lossy(&answer);
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    let status = status.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "the answer is no HTTP"))?;
    Ok((status, body.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_address_of_every_interface_is_turned_into_the_loopback() {
        for (listen, asked) in [
            ("0.0.0.0:9102", "127.0.0.1:9102"),
            ("[::]:9102", "[::1]:9102"),
            ("10.0.0.0:9102", "10.0.0.0:9102"),
            ("bot.example:9102", "bot.example:9102"),
        ] {
            assert_eq!(on_this_machine(listen), asked);
        }
    }
}
