//! What the runnable clients share: how a PEP talks to Placet, and how a cluster trace becomes
//! events.
//!
//! A scheduler asks ([`Hook`]), a provisioner checks and starts ([`provision`]); both refuse
//! whenever they are not sure. [`trace`] turns a public cluster trace into events, to run Placet
//! against real load; [`cohorts`] are tenants to run it with.
#![forbid(unsafe_code)]

pub mod cohorts;
mod hook;
pub mod provision;
pub mod trace;

use std::fs;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, bail};
use placet_core::{KeySet, MAX_JWKS_BYTES};

pub use hook::{Hook, JobDescription};

/// How long fetching keys may take: they come from the same host.
const KEYS_WITHIN: Duration = Duration::from_secs(2);

/// Seconds since 1970-01-01 UTC on this machine's clock.
///
/// # Errors
/// The clock stands before 1970.
pub fn now() -> Result<u64> {
    #[expect(clippy::disallowed_methods, reason = "a PEP checks tokens against its own clock")]
    let now = SystemTime::now();
    Ok(now.duration_since(UNIX_EPOCH).context("this machine's clock stands before 1970")?.as_secs())
}

/// Reads the issuer's public keys from a file, or from its loopback address.
///
/// Whoever controls the keys controls every decision: plain HTTP is refused beyond loopback.
///
/// # Errors
/// There is nothing to read, it is no JWK set, or it would come over a network unprotected.
pub fn read_keys(source: &str) -> Result<KeySet> {
    let json = if source.starts_with("http:") {
        fetch(source).with_context(|| format!("cannot fetch `{source}`"))?
    } else {
        fs::read(source).with_context(|| format!("cannot read `{source}`"))?
    };
    KeySet::from_json(&json).with_context(|| format!("`{source}` holds no usable keys"))
}

fn fetch(url: &str) -> Result<Vec<u8>> {
    let loopback = ["http://127.0.0.1:", "http://127.0.0.1/", "http://[::1]:", "http://[::1]/"];
    if !loopback.iter().any(|start| url.starts_with(start)) {
        bail!(
            "keys over plain HTTP are read from loopback only\n\
             hint: copy them once over a channel that you trust, and pass the file"
        );
    }
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .timeout_global(Some(KEYS_WITHIN))
        .max_redirects(0)
        .proxy(None)
        .build()
        .into();
    let limit = u64::try_from(MAX_JWKS_BYTES)?;
    Ok(agent.get(url).call()?.into_body().with_config().limit(limit).read_to_vec()?)
}
