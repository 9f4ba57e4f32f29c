//! Where public keys come from: a file, or a server on this machine.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream, ToSocketAddrs};
use std::path::Path;
use std::time::Duration;

use placet_core::{KeySet, MAX_JWKS_BYTES};

use crate::exit::Failure;

/// How long a server on this machine may take at each step.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Most bytes of an answer: the largest JWK set and its headers.
const MAX_ANSWER_BYTES: u64 = 128 * 1024;
/// Path of the JWK set where a URL names none.
const DEFAULT_PATH: &str = "/.well-known/jwks.json";

/// Reads a JWK set from a file or an `http://` URL of this machine.
///
/// Plain HTTP is read from loopback only: whoever changes keys on their way forges decisions.
///
/// # Errors
/// The source cannot be read, or holds no JWK set.
pub(crate) fn read(source: &str) -> Result<KeySet, Failure> {
    let shown = crate::print::plain(source);
    let json = if let Some(rest) = source.strip_prefix("http://") {
        fetch(rest).map_err(|failure| failure.context(format!("cannot read `{shown}`")))?
    } else if source.starts_with("https://") {
        return Err(Failure::usage(format!("`{shown}` is not on this machine"))
            .hint("fetch it with a tool that checks the server's certificate, and pass the file"));
    } else {
        read_file(Path::new(source))?
    };
    KeySet::from_json(&json)
        .map_err(|error| Failure::from_error(&error).context(format!("the JWK set of `{shown}`")))
}

fn read_file(path: &Path) -> Result<Vec<u8>, Failure> {
    let failed = |error| Failure::new(format!("cannot read `{}`: {error}", path.display()));
    let limit = u64::try_from(MAX_JWKS_BYTES).unwrap_or(u64::MAX) + 1;
    let mut json = Vec::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(limit).read_to_end(&mut json))
        .map_err(failed)?;
    Ok(json)
}

fn fetch(rest: &str) -> Result<Vec<u8>, Failure> {
    let (host, path) = match rest.split_once('/') {
        Some((host, path)) => (host, format!("/{path}")),
        None => (rest, DEFAULT_PATH.to_owned()),
    };
    if !path.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(Failure::usage("its path has characters that no URL has"));
    }
    let address = loopback(host)?;
    let failed = |error: std::io::Error| Failure::new(error.to_string());
    let mut stream = TcpStream::connect_timeout(&address, TIMEOUT).map_err(failed)?;
    stream.set_read_timeout(Some(TIMEOUT)).map_err(failed)?;
    stream.set_write_timeout(Some(TIMEOUT)).map_err(failed)?;
    // HTTP/1.0: the answer ends with the connection and is never chunked (RFC 1945 section 7.2.2).
    let request =
        format!("GET {path} HTTP/1.0\r\nHost: {host}\r\nAccept: application/json\r\n\r\n");
    stream.write_all(request.as_bytes()).map_err(failed)?;
    let mut answer = Vec::new();
    stream.take(MAX_ANSWER_BYTES).read_to_end(&mut answer).map_err(failed)?;
    body(&answer)
}

/// The address of a host and port, if it is on this machine.
fn loopback(host: &str) -> Result<SocketAddr, Failure> {
    let with_port = if host.rsplit(']').next().is_some_and(|tail| tail.contains(':')) {
        host.to_owned()
    } else {
        format!("{host}:80")
    };
    let found: Vec<SocketAddr> = with_port
        .to_socket_addrs()
        .map_err(|error| Failure::new(format!("no address: {error}")))?
        .collect();
    let local = |address: &&SocketAddr| match address.ip() {
        IpAddr::V4(ip) => ip.is_loopback(),
        IpAddr::V6(ip) => ip.is_loopback(),
    };
    found.iter().find(local).copied().ok_or_else(|| {
        Failure::usage("it is not on this machine, and plain http could be changed on its way")
            .hint("fetch it over https with another tool, and pass the file")
    })
}

/// The body of an HTTP answer with status 200.
fn body(answer: &[u8]) -> Result<Vec<u8>, Failure> {
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n");
    let Some((head, body)) = end.and_then(|end| answer.split_at_checked(end + 4)) else {
        return Err(Failure::new("the answer is not HTTP"));
    };
    let first = String::from_utf8_lossy(head);
    let status = first.lines().next().unwrap_or_default();
    if status.split(' ').nth(1) != Some("200") {
        return Err(Failure::new(format!("the server answers `{}`", crate::print::plain(status))));
    }
    Ok(body.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_http_is_read_from_this_machine_only() {
        for host in ["127.0.0.1:7480", "[::1]:7480", "127.0.0.1"] {
            assert!(loopback(host).is_ok(), "{host}");
        }
        let failure = loopback("192.0.2.1:7480").unwrap_err();
        assert!(failure.message().contains("not on this machine"), "{}", failure.message());
        assert!(read("https://placet.example/jwks").is_err());
    }

    #[test]
    fn only_a_whole_answer_counts() {
        assert_eq!(body(b"HTTP/1.1 200 OK\r\nA: b\r\n\r\n{}").unwrap(), b"{}");
        let failure = body(b"HTTP/1.1 404 Not Found\r\n\r\n").unwrap_err();
        assert_eq!(failure.message(), "the server answers `HTTP/1.1 404 Not Found`");
        assert!(body(b"nonsense").is_err());
    }
}
