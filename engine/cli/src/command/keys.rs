//! `placet keys`: the keys that decisions and checkpoints are signed with.

mod rotate;

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use placet_core::{KeyValidity, note_verifier_key, utc};
use placet_server::Clock;
use placet_server::signer::{
    KEY_FILE, KeyUse, ListedKey, MANIFEST_FILE, Place, Signer, left_over_files, listed_jwks,
    listed_keys,
};

use crate::exit::{Exit, Failure};
use crate::print::{self, Printer};

const EXAMPLES: &str = "\
Private keys stay where they are: in a file (mode 0600), in a variable of the
environment, or in a token; nothing here prints them. `keys rotate --help` and
`keys revoke --help` tell more.

Examples:
  placet keys generate --keys run/keys
  placet keys list --keys run/keys
  placet keys rotate --keys run/keys --overlap 24h
  placet keys jwks --keys run/keys > jwks.json
  placet keys log --keys run/keys --origin placet";

/// Show, publish, rotate or revoke the keys of decisions and log
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct KeysArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Show the name of the key that signs decisions, and where it is
    Show(Directory),
    /// List all keys, of decisions and of checkpoints, and when each signs
    List(Directory),
    /// Print the public keys as a JWK set (RFC 7517), for verifiers
    Jwks(Jwks),
    /// Print the keys of the log's checkpoints, as tools of the C2SP family take them
    Log(LogKey),
    /// Make a key; one that is there already is never replaced
    Generate(Directory),
    /// Let the next key sign, from a stated time on
    Rotate(rotate::RotateArgs),
    /// Say that a key must no longer be relied on
    Revoke(rotate::RevokeArgs),
}

#[derive(Debug, Args)]
struct Directory {
    /// Directory of the signing keys
    #[arg(long, env = "PLACET_KEYS", value_name = "DIR", default_value = "keys")]
    keys: PathBuf,
}

#[derive(Debug, Args)]
struct Jwks {
    #[command(flatten)]
    directory: Directory,
    /// With the keys that were revoked, and since when: for auditors, not for provisioners
    #[arg(long)]
    history: bool,
}

#[derive(Debug, Args)]
struct LogKey {
    #[command(flatten)]
    directory: Directory,
    /// Name of the log: the first line of its checkpoints, the issuer at its beginning
    #[arg(long, value_name = "NAME", default_value = "placet")]
    origin: String,
}

pub(super) fn run(args: &KeysArgs, printer: &mut Printer) -> Result<Exit, Failure> {
    match &args.action {
        Action::Show(directory) => {
            let keys = existing(&directory.keys)?;
            show(&keys, &directory.keys, printer)?;
        }
        Action::List(directory) => list(&directory.keys, printer)?,
        Action::Jwks(Jwks { directory, history }) => {
            existing(&directory.keys)?;
            printer.data(&listed_jwks(&directory.keys, *history).map_err(failure)?)?;
        }
        Action::Log(args) => log(args, printer)?,
        Action::Generate(Directory { keys }) => {
            for path in [keys.join(KEY_FILE), keys.join(MANIFEST_FILE)] {
                if path.exists() {
                    return Err(Failure::new(format!("`{}` exists", path.display())).hint(
                        "`placet keys rotate` makes the next key; tokens that this one signed \
                         need its public key",
                    ));
                }
            }
            Signer::open(keys).map_err(failure)?;
            show(&existing(keys)?, keys, printer)?;
        }
        Action::Rotate(args) => rotate::rotate_key(args, printer)?,
        Action::Revoke(args) => rotate::revoke_key(args, printer)?,
    }
    Ok(Exit::Done)
}

#[expect(clippy::needless_pass_by_value, reason = "it is what map_err passes")]
fn failure(error: placet_server::signer::SignerError) -> Failure {
    Failure::from_error(&error)
}

/// The keys of a directory that has one: looking must not make it.
fn existing(directory: &Path) -> Result<Vec<ListedKey>, Failure> {
    let keys = listed_keys(directory).map_err(failure)?;
    if keys.iter().any(|key| key.usage == KeyUse::Decision) {
        return Ok(keys);
    }
    let path = directory.join(KEY_FILE);
    Err(Failure::new(format!("`{}` does not exist", path.display()))
        .hint("name the directory with --keys, or make a key with `placet keys generate`"))
}

/// What a key does at a time.
fn state(validity: &KeyValidity, now: u64) -> &'static str {
    let KeyValidity { from, until, revoked } = validity;
    if revoked.is_some() {
        "revoked"
    } else if until.is_some_and(|until| until <= now) {
        "retired"
    } else if from.is_some_and(|from| from > now) {
        "next"
    } else {
        "signs"
    }
}

/// The key that signs decisions now, or will.
fn show(keys: &[ListedKey], directory: &Path, printer: &mut Printer) -> Result<(), Failure> {
    let now = Clock::now();
    let of = |wanted: &str| {
        let mut decisions = keys.iter().filter(|key| key.usage == KeyUse::Decision);
        decisions.rfind(|key| state(&key.validity, now) == wanted)
    };
    let Some(key) = of("signs").or_else(|| of("next")) else {
        return Err(Failure::new("no key signs decisions: all were retired or revoked")
            .hint("make the next one with `placet keys rotate --overlap 0s`"));
    };
    let id = key.public.id();
    let file = match &key.place {
        Place::File(name) => Some(directory.join(name)),
        Place::Env(_) | Place::Pkcs11(_) => None,
    };
    if printer.json() {
        let mut shown = serde_json::json!({"kid": id.as_str(), "alg": "EdDSA"});
        match file {
            Some(file) => shown["file"] = serde_json::json!(file),
            None => shown["place"] = serde_json::json!(key.place),
        }
        return printer.data(&shown.to_string());
    }
    let mut table = print::pairs();
    table.add_row(["key id", id.as_str()]);
    table.add_row(["algorithm", "EdDSA (Ed25519)"]);
    match file {
        Some(file) => table.add_row(["file", &file.display().to_string()]),
        None => table.add_row(["place", &print::plain(&key.place.to_string())]),
    };
    printer.data(&table.trim_fmt())
}

fn list(directory: &Path, printer: &mut Printer) -> Result<(), Failure> {
    let keys = existing(directory)?;
    let left_over = left_over_files(directory).map_err(failure)?;
    let now = Clock::now();
    if printer.json() {
        let keys: Vec<_> = keys.iter().map(|key| in_json(key, now)).collect();
        let listed = serde_json::json!({"keys": keys, "left_over": left_over});
        return printer.data(&listed.to_string());
    }
    let lines = keys.iter().map(|key| {
        let (kid, usage, told) = (key.public.id(), key.usage.as_str(), told(&key.validity, now));
        format!("{kid}\n  {usage}, {told}; {}", print::plain(&key.place.to_string()))
    });
    printer.data(&lines.collect::<Vec<_>>().join("\n"))?;
    for file in left_over {
        let file = print::plain(&file);
        printer.note(&format!("`{file}` is no listed key: a rotation did not finish; delete it"));
    }
    Ok(())
}

/// The same with its times, for a person.
fn told(validity: &KeyValidity, now: u64) -> String {
    let KeyValidity { from, until, revoked } = validity;
    match (state(validity, now), revoked, from, until) {
        (state, Some(revoked), ..) => {
            format!("{state} as of {} ({})", utc(revoked.since), print::plain(&revoked.reason))
        }
        ("next", _, Some(from), _) => format!("signs from {}", utc(*from)),
        ("retired", _, _, Some(until)) => format!("retired at {}", utc(*until)),
        (state, _, _, Some(until)) => format!("{state} until {}", utc(*until)),
        (state, ..) => state.to_owned(),
    }
}

fn in_json(key: &ListedKey, now: u64) -> serde_json::Value {
    let KeyValidity { from, until, revoked } = &key.validity;
    let revoked = revoked
        .as_ref()
        .map(|revoked| serde_json::json!({"since": revoked.since, "reason": revoked.reason}));
    serde_json::json!({
        "kid": key.public.id().as_str(),
        "use": key.usage.as_str(),
        "state": state(&key.validity, now),
        "signs_from": from,
        "signs_until": until,
        "revoked": revoked,
        "place": key.place,
    })
}

fn log(LogKey { directory, origin }: &LogKey, printer: &mut Printer) -> Result<(), Failure> {
    let now = Clock::now();
    let mut lines = Vec::new();
    // The newest first.
    for key in existing(&directory.keys)?.iter().rev() {
        let is_used = matches!(state(&key.validity, now), "signs" | "next");
        if key.usage == KeyUse::Checkpoint && is_used {
            let line = note_verifier_key(origin, &key.public);
            lines.push(line.map_err(|error| Failure::from_error(&error))?);
        }
    }
    let Some(first) = lines.first() else {
        let path = directory.keys.join(KeyUse::Checkpoint.first_file());
        return Err(Failure::new(format!("`{}` does not exist", path.display()))
            .hint("the server makes it at its first start with checkpoints"));
    };
    if printer.json() {
        let shown = serde_json::json!({"key": first, "keys": lines}).to_string();
        return printer.data(&shown);
    }
    printer.data(&lines.join("\n"))
}
