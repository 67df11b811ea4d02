//! Just enough HTTP to scrape.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// The body of `path` on a port of the loopback, as it came: `gzip` asks for it packed.
///
/// # Errors
/// If nobody serves it, or not with status 200.
pub(crate) fn get(port: u16, path: &str, gzip: bool) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(Duration::from_secs(60)))?;
    let encoding = if gzip { "Accept-Encoding: gzip\r\n" } else { "" };
    let request =
        format!("GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: text/plain\r\n{encoding}Connection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let end = memchr::memmem::find(&answer, b"\r\n\r\n").ok_or_else(|| io::Error::other("no HTTP answer"))?;
    let head = String::from_utf8_lossy(&answer[..end]).to_ascii_lowercase();
    let status = head.split_ascii_whitespace().nth(1).unwrap_or_default();
    if status != "200" {
        return Err(io::Error::other(format!("{path} answered {status}")));
    }
    let body = answer.split_off(end + 4);
    Ok(if head.contains("transfer-encoding: chunked") { unchunk(&body) } else { body })
}

/// What chunks carry.
fn unchunk(mut body: &[u8]) -> Vec<u8> {
    let mut whole = Vec::with_capacity(body.len());
    while let Some(end) = memchr::memmem::find(body, b"\r\n") {
        let size = std::str::from_utf8(&body[..end]).ok();
        let size = size.and_then(|size| usize::from_str_radix(size.split(';').next().unwrap_or(size).trim(), 16).ok());
        let Some(chunk) = size.and_then(|size| body.get(end + 2..end + 2 + size)) else { break };
        if chunk.is_empty() {
            break;
        }
        whole.extend_from_slice(chunk);
        body = body.get(end + 2 + chunk.len() + 2..).unwrap_or_default();
    }
    whole
}

/// The sum of a metric's samples in Prometheus text whose labels hold `label`.
pub(crate) fn sum(text: &str, name: &str, label: &str) -> Option<f64> {
    let values = text.lines().filter_map(|line| {
        let rest = line.strip_prefix(name)?;
        let (labels, value) = match rest.strip_prefix('{') {
            Some(rest) => rest.split_once('}')?,
            None => ("", rest.strip_prefix(' ')?),
        };
        // A timestamp may follow.
        labels.contains(label).then(|| value.split_ascii_whitespace().next()?.parse::<f64>().ok()).flatten()
    });
    values.reduce(|sum, value| sum + value)
}
