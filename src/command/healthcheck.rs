//! `statsieve healthcheck`: asks a sidecar whether it is ready, for images that hold no shell.

use std::io::{self, Write};
use std::path::PathBuf;
use std::time::Duration;

use super::fetch::{Get, client_tls};
use super::{BAD_CONFIGURATION, printable};
use crate::config::{self, Sources};

/// Longest wait for the connection, and for each part of the answer.
const TIMEOUT: Duration = Duration::from_secs(3);

/// Whom to ask, and how to show who asks.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// `http://host:port` or `https://host:port`; the configuration says where if there is none.
    pub url: Option<String>,
    /// PEM file that the server's certificate has to lead to.
    pub ca: Option<PathBuf>,
    /// Whether any certificate will do.
    pub insecure: bool,
    /// File with `user:password` in it.
    pub user_file: Option<PathBuf>,
    /// PEM file of a client's certificate.
    pub cert: Option<PathBuf>,
    /// PEM file of its key.
    pub key: Option<PathBuf>,
}

/// Where to ask.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Target {
    /// `host:port`.
    address: String,
    is_https: bool,
    /// Whether it is the sidecar of the configuration, on this machine.
    is_own: bool,
}

/// Asks the URL, or the address that the configuration listens on, and writes what it found: 0 if ready, 2 for problems
/// of the configuration or an option, else 1.
///
/// # Errors
/// If `out` cannot be written.
pub fn healthcheck(options: &Options, sources: &Sources, out: &mut dyn Write) -> io::Result<u8> {
    let get = match target(options, sources).and_then(|target| prepare(options, target)) {
        Ok(get) => get,
        Err(problem) => {
            writeln!(out, "{problem}")?;
            return Ok(BAD_CONFIGURATION);
        }
    };
    let (address, tls, credentials) = &get;
    let get = Get {
        address,
        path: "/-/ready",
        accept: "",
        credentials,
        tls: tls.clone(),
        timeout: TIMEOUT,
        most_bytes: 64 * 1024,
    };
    match get.send() {
        Ok((200, _)) => {
            writeln!(out, "{address}: ready")?;
            Ok(0)
        }
        Ok((401, _)) => {
            writeln!(out, "{address}: 401, it wants a name and a password: --user-file names a file with both")?;
            Ok(1)
        }
        Ok((status, body)) => {
            writeln!(out, "{address}: {status} {}", printable(body.trim_ascii_end()))?;
            Ok(1)
        }
        Err(error) => {
            writeln!(out, "{address}: {error}")?;
            Ok(1)
        }
    }
}

/// Whom the options mean, or the configuration.
pub(super) fn target(options: &Options, sources: &Sources) -> Result<Target, String> {
    if let Some(url) = &options.url {
        return read_url(url);
    }
    let loaded = config::load(sources).map_err(|problems| problems.to_string())?;
    let is_https = match &loaded.config.http.web_config_file {
        None => false,
        Some(file) => config::load_web(file).0.map_err(|problems| problems.to_string())?.tls.is_some(),
    };
    // Listening on every address, it is to be found on this machine's own.
    let address = on_this_machine(&loaded.config.http.listen);
    Ok(Target { address, is_https, is_own: true })
}

/// A path in it is of no use: what is asked for is always the same.
///
/// # Errors
/// If it holds a user: what stands on a command line can be read by all users of the machine. It is not repeated.
fn read_url(url: &str) -> Result<Target, String> {
    let (is_https, rest) = match (url.strip_prefix("https://"), url.strip_prefix("http://")) {
        (Some(rest), _) => (true, rest),
        (_, rest) => (false, rest.unwrap_or(url)),
    };
    // An address has none, and a password may hold a slash.
    if rest.contains('@') {
        let why = "found a user in it, where all users of this machine can read the password";
        return Err(format!("--url: {why}; write user:password into a file, and name that by --user-file"));
    }
    let address = rest.split('/').next().unwrap_or_default();
    Ok(Target { address: address.to_owned(), is_https, is_own: false })
}

/// `host:port`, TLS and credentials.
pub(super) type Prepared = (String, Option<std::sync::Arc<rustls::ClientConfig>>, String);

/// Address, TLS and credentials of the request.
pub(super) fn prepare(options: &Options, target: Target) -> Result<Prepared, String> {
    let credentials = match &options.user_file {
        None => String::new(),
        Some(file) => std::fs::read_to_string(file)
            .map_err(|error| format!("--user-file {}: {error}", file.display()))?
            .trim_end_matches(['\r', '\n'])
            .to_owned(),
    };
    if !credentials.is_empty() && !credentials.contains(':') {
        return Err("found a user without a password, accepted: user:password".to_owned());
    }
    if !target.is_https {
        return Ok((target.address, None, credentials));
    }
    if options.ca.is_none() && !options.insecure && !target.is_own {
        return Err("https needs --ca FILE, or --insecure to take any certificate".to_owned());
    }
    let identity = options.cert.as_deref().zip(options.key.as_deref());
    let tls = client_tls(options.ca.as_deref(), identity)?;
    Ok((target.address, Some(tls), credentials))
}

/// An address that means every interface, as the one that this machine reaches itself by.
pub(super) fn on_this_machine(address: &str) -> String {
    match (address.strip_prefix("0.0.0.0:"), address.strip_prefix("[::]:")) {
        (Some(port), _) => format!("127.0.0.1:{port}"),
        (_, Some(port)) => format!("[::1]:{port}"),
        _ => address.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_says_where_and_a_user_in_it_is_refused_without_being_repeated() {
        for (url, address, is_https) in [
            ("http://127.0.0.1:9102", "127.0.0.1:9102", false),
            ("127.0.0.1:9102", "127.0.0.1:9102", false),
            ("https://[::1]:9102/-/ready", "[::1]:9102", true),
        ] {
            let expected = Target { address: address.to_owned(), is_https, is_own: false };
            assert_eq!(read_url(url), Ok(expected), "{url}");
        }
        for url in ["https://a:secret@bot:9102", "http://a:b@secret@bot:1", "a:se/secret@bot:1", "https://secret@bot:1"]
        {
            let told = read_url(url).unwrap_err();
            assert!(told.contains("--user-file") && !told.contains("secret"), "{told}");
        }
    }

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
