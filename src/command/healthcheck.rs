//! `statsieve healthcheck`: asks a sidecar whether it is ready, for images that hold no shell.

use std::io::{self, Write};
use std::time::Duration;

use super::BAD_CONFIGURATION;
use super::fetch::Get;
use crate::config::{self, Sources};

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
pub(super) fn on_this_machine(address: &str) -> String {
    match (address.strip_prefix("0.0.0.0:"), address.strip_prefix("[::]:")) {
        (Some(port), _) => format!("127.0.0.1:{port}"),
        (_, Some(port)) => format!("[::1]:{port}"),
        _ => address.to_owned(),
    }
}

/// Status and body of `/-/ready`.
fn ask(address: &str) -> io::Result<(u16, String)> {
    let get = Get { address, path: "/-/ready", accept: "", timeout: TIMEOUT, most_bytes: 64 * 1024 };
    let (status, body) = get.send()?;
    Ok((status, String::from_utf8_lossy(&body).into_owned()))
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
