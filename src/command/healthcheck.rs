//! `statsieve healthcheck`: asks a sidecar whether it is ready, for images that hold no shell.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use crate::config::{self, Sources};
use crate::listen::resolve;

/// Longest wait for the connection, and for each part of the answer.
const TIMEOUT: Duration = Duration::from_secs(3);

/// Asks `url`, or the address that the configuration listens on, and writes what it found: 0 if ready, 2 for problems of
/// the configuration, else 1.
///
/// # Errors
/// If `out` cannot be written.
pub fn healthcheck(url: Option<&str>, sources: &Sources, out: &mut dyn Write) -> io::Result<u8> {
    let address = match url {
        // A path in it is of no use: what is asked for is always the same.
        Some(url) => url.strip_prefix("http://").unwrap_or(url).split('/').next().unwrap_or_default().to_owned(),
        None => match config::load(sources) {
            // Listening on every address, it is to be found on this machine's own.
            Ok(loaded) => {
                loaded.config.http.listen.replacen("0.0.0.0:", "127.0.0.1:", 1).replacen("[::]:", "[::1]:", 1)
            }
            Err(problems) => {
                writeln!(out, "{problems}")?;
                return Ok(2);
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

/// Status and body of `/-/ready`.
fn ask(address: &str) -> io::Result<(u16, String)> {
    let mut stream = TcpStream::connect_timeout(&resolve(address)?, TIMEOUT)?;
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
