//! Tokens: how a command is given one, and what it claims.

use std::io::Read;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use placet_core::{Decision, MAX_TOKEN_BYTES};

use crate::exit::Failure;

/// Most bytes read where a token is expected: a token and the JSON line around it.
const MAX_BYTES: u64 = 4 * 65_536;

/// Takes a token given as such, in a file, or on standard input (`-`); a line of JSON that
/// `admit` wrote will do.
///
/// # Errors
/// The file cannot be read, is too large, or holds no token or several.
pub(crate) fn read_token(given: &str) -> Result<String, Failure> {
    if looks_like_token(given) {
        return Ok(given.to_owned());
    }
    let (name, text) = if given == "-" {
        ("standard input".to_owned(), read_bounded("standard input", std::io::stdin())?)
    } else {
        let path = Path::new(given);
        let name = format!("`{}`", crate::print::plain(given));
        let file = std::fs::File::open(path).map_err(|error| {
            let failure =
                Failure::new(format!("{name} is neither a token nor a readable file: {error}"));
            failure.hint("a token has three parts joined by dots, and begins with `eyJ`")
        })?;
        let text = read_bounded(&name, file)?;
        (name, text)
    };
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let first = lines.next().ok_or_else(|| Failure::new(format!("{name} is empty")))?;
    if lines.next().is_some() && serde_json::from_str::<serde_json::Value>(&text).is_err() {
        return Err(Failure::new(format!("{name} holds several lines"))
            .hint("give one token, or one line of `placet admit --format json`"));
    }
    if !first.starts_with('{') {
        return Ok(first.to_owned());
    }
    let object: serde_json::Value = serde_json::from_str(&text)
        .map_err(|error| Failure::new(format!("{name} is no JSON: {error}")))?;
    match object.get("token").and_then(serde_json::Value::as_str) {
        Some(token) => Ok(token.to_owned()),
        None => Err(Failure::new(format!("{name} holds no `token`"))
            .hint("pass a decision as `placet admit --format json` writes it")),
    }
}

fn read_bounded(name: &str, from: impl Read) -> Result<String, Failure> {
    let mut text = String::new();
    let read = from.take(MAX_BYTES + 1).read_to_string(&mut text);
    read.map_err(|error| Failure::new(format!("cannot read {name}: {error}")))?;
    if u64::try_from(text.len()).is_ok_and(|bytes| bytes > MAX_BYTES) {
        return Err(Failure::new(format!("{name} is larger than {MAX_BYTES} bytes: no token is")));
    }
    Ok(text)
}

/// Whether a text has the form of a compact JWS whose header is a JSON object.
pub(crate) fn looks_like_token(text: &str) -> bool {
    text.starts_with("eyJ") && text.split('.').count() == 3
}

/// The claims of a token, unverified: fit to be shown or to route by, never to be relied on.
///
/// # Errors
/// It is no compact JWS, or its claims are not those of a decision.
pub(crate) fn claims(token: &str) -> Result<Decision, Failure> {
    if token.len() > MAX_TOKEN_BYTES {
        return Err(Failure::new(format!("the token is longer than {MAX_TOKEN_BYTES} bytes")));
    }
    let payload = token.split('.').nth(1).unwrap_or_default();
    let json = URL_SAFE_NO_PAD.decode(payload).map_err(|error| {
        Failure::new(format!("this is no token: its payload is broken: {error}"))
    })?;
    serde_json::from_slice(&json)
        .map_err(|error| Failure::new(format!("the token is not that of a decision: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_told_from_a_file_and_a_reservation() {
        assert!(looks_like_token("eyJh.eyJi.c2ln"));
        for other in ["res-1", "a.b.c", "eyJh.eyJi", "decision.json"] {
            assert!(!looks_like_token(other), "{other}");
        }
    }

    #[test]
    fn a_decision_line_gives_its_token() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("d.json");
        let given = path.to_str().unwrap();
        std::fs::write(&path, "{\"token\":\"eyJh.eyJi.c2ln\",\"line\":1}\n").unwrap();
        assert_eq!(read_token(given).unwrap(), "eyJh.eyJi.c2ln");
        std::fs::write(&path, "eyJh.eyJi.c2ln\n").unwrap();
        assert_eq!(read_token(given).unwrap(), "eyJh.eyJi.c2ln");
        std::fs::write(&path, "{\"token\":\"a\"}\n{\"token\":\"b\"}\n").unwrap();
        assert!(read_token(given).unwrap_err().message().contains("several lines"));
        std::fs::write(&path, "{\"line\":1}").unwrap();
        assert!(read_token(given).unwrap_err().message().contains("no `token`"));
        assert!(read_token("/nonexistent/x").is_err());
        assert!(claims("a.b.c").is_err());
    }
}
