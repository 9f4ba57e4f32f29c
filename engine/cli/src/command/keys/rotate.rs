//! `placet keys rotate | revoke`: which key signs from when on, and which no longer counts.

use std::path::PathBuf;
use std::time::{Duration, UNIX_EPOCH};

use clap::{ArgGroup, Args, ValueEnum};
use placet_core::{Revocation, utc};
use placet_server::Clock;
use placet_server::signer::{
    KeyUse, MAX_OVERLAP_SECONDS, NextKey, Pin, RotateError, Token, revoke, rotate,
};

use super::{Directory, in_json};
use crate::exit::Failure;
use crate::print::{self, Printer};

const ROTATE_EXAMPLES: &str = "\
The next key is in the JWK set at once. Decisions are signed with it when the
overlap is over, so that whoever keeps the JWK set for a while knows it by then.
Checkpoints are signed with both keys in the overlap. A server that runs takes
the change up within seconds.

A token's PIN is in a file or in a variable, never on the command line.

Examples:
  placet keys rotate --keys run/keys --overlap 24h
  placet keys rotate --keys run/keys --use checkpoint --overlap 30d
  placet keys rotate --keys run/keys --from-env PLACET_NEXT_KEY
  placet keys rotate --keys run/keys --pkcs11 /usr/lib/softhsm/libsofthsm2.so \\
      --token placet --key-label decisions-2 --pin-file /etc/placet/pin";

const REVOKE_EXAMPLES: &str = "\
Nothing that the key signed at --since or later counts any more, and nobody acts
on anything that it ever signed: the key leaves the JWK set. The log still
proves what was signed before. If it signs now and the next one waits, that
one's turn comes at once.

Examples:
  placet keys rotate --keys run/keys --overlap 0s
  placet keys revoke kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k \\
      --keys run/keys --since 2026-11-21T04:00:00Z --reason compromised";

#[derive(Debug, Args)]
#[command(
    after_help = ROTATE_EXAMPLES,
    group(ArgGroup::new("pin").args(["pin_file", "pin_env"])),
    group(ArgGroup::new("key").args(["key_label", "key_id"]).multiple(true)),
)]
pub(super) struct RotateArgs {
    #[command(flatten)]
    directory: Directory,
    /// What the key signs
    #[arg(long = "use", value_enum, value_name = "USE", default_value_t = Use::Decision)]
    usage: Use,
    /// How long the old and the new key stand side by side, up to 365d
    #[arg(long, value_name = "DURATION", default_value = "24h", value_parser = overlap)]
    overlap: u64,
    /// Take the key in this variable of the environment, PLACET_..., instead of making one
    #[arg(long, value_name = "VARIABLE", conflicts_with = "pkcs11")]
    from_env: Option<String>,
    /// Take a key in a token that this PKCS#11 library reaches
    #[arg(long, value_name = "LIBRARY", requires_all = ["token", "key", "pin"])]
    pkcs11: Option<PathBuf>,
    /// Label of the token
    #[arg(long, value_name = "LABEL", requires = "pkcs11")]
    token: Option<String>,
    /// Label of the key
    #[arg(long, value_name = "LABEL", requires = "pkcs11")]
    key_label: Option<String>,
    /// Id of the key, in hexadecimal digits
    #[arg(long, value_name = "HEX", requires = "pkcs11")]
    key_id: Option<String>,
    /// File of the token's PIN, mode 0600, absolute
    #[arg(long, value_name = "FILE", requires = "pkcs11")]
    pin_file: Option<PathBuf>,
    /// Variable of the token's PIN, PLACET_...
    #[arg(long, value_name = "VARIABLE", requires = "pkcs11")]
    pin_env: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Use {
    /// Decisions, orders of eviction and snapshots
    Decision,
    /// Checkpoints of the log
    Checkpoint,
}

#[derive(Debug, Args)]
#[command(after_help = REVOKE_EXAMPLES)]
pub(super) struct RevokeArgs {
    #[command(flatten)]
    directory: Directory,
    /// Key id, as `placet keys list` shows it
    #[arg(allow_hyphen_values = true)]
    kid: String,
    /// Since when others may have signed with it, such as 2026-11-21T04:00:00Z, or in seconds
    #[arg(long, value_name = "TIME", value_parser = time)]
    since: u64,
    /// Why
    #[arg(long, value_enum, value_name = "REASON")]
    reason: Reason,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Reason {
    /// Others may have the private key
    Compromised,
    /// Another key took its place
    Superseded,
    /// None is told
    Unspecified,
}

impl Reason {
    /// As it is published (OpenID Federation 1.0).
    fn as_str(self) -> &'static str {
        match self {
            Self::Compromised => "compromised",
            Self::Superseded => "superseded",
            Self::Unspecified => "unspecified",
        }
    }
}

/// Whole seconds, up to a year.
fn overlap(text: &str) -> Result<u64, String> {
    let length = match text.parse() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => humantime::parse_duration(text)
            .map_err(|error| format!("{error}; write it such as 24h, 30d or 3600"))?,
    };
    if length.subsec_nanos() != 0 || length.as_secs() > MAX_OVERLAP_SECONDS {
        return Err("it is not a whole number of seconds up to 365 days".to_owned());
    }
    Ok(length.as_secs())
}

/// Seconds since 1970-01-01 UTC.
fn time(text: &str) -> Result<u64, String> {
    if let Ok(seconds) = text.parse() {
        return Ok(seconds);
    }
    let wrong = |why: &str| format!("{why}; write it in UTC, such as 2026-11-23T06:00:00Z");
    let time = humantime::parse_rfc3339(text).map_err(|error| wrong(&error.to_string()))?;
    let since = time.duration_since(UNIX_EPOCH);
    since.map(|since| since.as_secs()).map_err(|_before| wrong("it is before 1970"))
}

pub(super) fn rotate_key(args: &RotateArgs, printer: &mut Printer) -> Result<(), Failure> {
    let usage = match args.usage {
        Use::Decision => KeyUse::Decision,
        Use::Checkpoint => KeyUse::Checkpoint,
    };
    let now = Clock::now();
    let rotated = rotate(&args.directory.keys, usage, &next_key(args)?, args.overlap, now);
    let rotated = rotated.map_err(|error| failure(&error))?;
    if printer.json() {
        let before = rotated.before.as_ref().map(|before| in_json(before, now));
        let shown = serde_json::json!({"before": before, "next": in_json(&rotated.next, now)});
        return printer.data(&shown.to_string());
    }
    let mut table = print::pairs();
    let at = |time: Option<u64>| time.map_or_else(|| "at any time".to_owned(), utc);
    table.add_row(["next key", rotated.next.public.id().as_str()]);
    table.add_row(["signs from", &at(rotated.next.validity.from)]);
    table.add_row(["where", &print::plain(&rotated.next.place.to_string())]);
    if let Some(before) = &rotated.before {
        table.add_row(["key before", before.public.id().as_str()]);
        table.add_row(["signs until", &at(before.validity.until)]);
    }
    printer.data(&table.trim_fmt())?;
    if usage == KeyUse::Checkpoint {
        printer.note("pass the output of `placet keys log` on to those who verify the log");
    }
    Ok(())
}

fn next_key(args: &RotateArgs) -> Result<NextKey, Failure> {
    if let Some(variable) = &args.from_env {
        return Ok(NextKey::Env(variable.clone()));
    }
    let Some(module) = &args.pkcs11 else { return Ok(NextKey::Made) };
    let pin = match (&args.pin_file, &args.pin_env) {
        (Some(file), _) => Pin::File(file.clone()),
        (None, Some(variable)) => Pin::Env(variable.clone()),
        (None, None) => return Err(Failure::usage("no PIN is named")),
    };
    Ok(NextKey::Pkcs11(Token {
        module: module.clone(),
        token: args.token.clone().unwrap_or_default(),
        label: args.key_label.clone(),
        id: args.key_id.clone(),
        pin,
    }))
}

fn failure(error: &RotateError) -> Failure {
    Failure::from_error(error)
}

pub(super) fn revoke_key(args: &RevokeArgs, printer: &mut Printer) -> Result<(), Failure> {
    let reason = args.reason.as_str().to_owned();
    let revocation = Revocation { since: args.since, reason };
    let now = Clock::now();
    let revoked = revoke(&args.directory.keys, &args.kid, &revocation, now);
    let revoked = revoked.map_err(|error| failure(&error))?;
    if printer.json() {
        return printer.data(&in_json(&revoked, now).to_string());
    }
    let mut table = print::pairs();
    table.add_row(["revoked", revoked.public.id().as_str()]);
    table.add_row(["as of", &utc(revocation.since)]);
    table.add_row(["reason", &revocation.reason]);
    printer.data(&table.trim_fmt())
}
