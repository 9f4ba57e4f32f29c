//! `placet keys`: the keys that decisions are signed with.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use placet_server::signer::{KEY_FILE, Signer};

use crate::exit::{Exit, Failure};
use crate::print::{self, Printer};

const EXAMPLES: &str = "\
The private key stays in its file (mode 0600); nothing here prints it.

Examples:
  placet keys generate --keys run/keys
  placet keys show --keys run/keys
  placet keys jwks --keys run/keys > jwks.json";

/// Show, publish or make the keys that sign decisions
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct KeysArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Show the name of the key and where it is
    Show(Directory),
    /// Print the public keys as a JWK set (RFC 7517), for verifiers
    Jwks(Directory),
    /// Make a key; one that is there already is never replaced
    Generate(Directory),
}

#[derive(Debug, Args)]
struct Directory {
    /// Directory of the signing keys
    #[arg(long, env = "PLACET_KEYS", value_name = "DIR", default_value = "keys")]
    keys: PathBuf,
}

pub(super) fn run(args: &KeysArgs, printer: &mut Printer) -> Result<Exit, Failure> {
    match &args.action {
        Action::Show(directory) => {
            let signer = existing(&directory.keys)?;
            show(&signer, &directory.keys, printer)?;
        }
        Action::Jwks(directory) => printer.data(&existing(&directory.keys)?.jwks())?,
        Action::Generate(directory) => {
            let path = directory.keys.join(KEY_FILE);
            if path.exists() {
                return Err(Failure::new(format!("`{}` exists", path.display())).hint(
                    "tokens that it signed need its public key; when none is in use, move it away",
                ));
            }
            let signer = open(&directory.keys)?;
            show(&signer, &directory.keys, printer)?;
        }
    }
    Ok(Exit::Done)
}

/// The key of a directory that has one: looking must not make it.
fn existing(directory: &Path) -> Result<Signer, Failure> {
    let path = directory.join(KEY_FILE);
    if !path.exists() {
        return Err(Failure::new(format!("`{}` does not exist", path.display()))
            .hint("name the directory with --keys, or make a key with `placet keys generate`"));
    }
    open(directory)
}

fn open(directory: &Path) -> Result<Signer, Failure> {
    Signer::open(directory).map_err(|error| Failure::from_error(&error))
}

fn show(signer: &Signer, directory: &Path, printer: &mut Printer) -> Result<(), Failure> {
    let id = signer.key().id();
    let path = directory.join(KEY_FILE);
    if printer.json() {
        let shown = serde_json::json!({"kid": id.as_str(), "alg": "EdDSA", "file": path});
        return printer.data(&shown.to_string());
    }
    let mut table = print::pairs();
    table.add_row(["key id", id.as_str()]);
    table.add_row(["algorithm", "EdDSA (Ed25519)"]);
    table.add_row(["file", &path.display().to_string()]);
    printer.data(&table.trim_fmt())
}
