//! `placet keys`: the keys that decisions and checkpoints are signed with.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use placet_server::signer::{CHECKPOINT_KEY_FILE, CheckpointSigner, KEY_FILE, Signer};

use crate::exit::{Exit, Failure};
use crate::print::{self, Printer};

const EXAMPLES: &str = "\
The private key stays in its file (mode 0600); nothing here prints it.

Examples:
  placet keys generate --keys run/keys
  placet keys show --keys run/keys
  placet keys jwks --keys run/keys > jwks.json
  placet keys log --keys run/keys --origin placet";

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
    /// Print the key of the log's checkpoints, as tools of the C2SP family take it
    Log(LogKey),
    /// Make a key; one that is there already is never replaced
    Generate(Directory),
}

#[derive(Debug, Args)]
struct Directory {
    /// Directory of the signing keys
    #[arg(long, env = "PLACET_KEYS", value_name = "DIR", default_value = "keys")]
    keys: PathBuf,
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
            let signer = existing(&directory.keys)?;
            show(&signer, &directory.keys, printer)?;
        }
        Action::Jwks(directory) => printer.data(&existing(&directory.keys)?.jwks())?,
        Action::Log(LogKey { directory, origin }) => {
            let decisions = existing(&directory.keys)?;
            must_exist(
                &directory.keys.join(CHECKPOINT_KEY_FILE),
                "the server makes it at its first start with checkpoints",
            )?;
            let signer = CheckpointSigner::open(&directory.keys, &decisions);
            let signer = signer.map_err(|error| Failure::from_error(&error))?;
            let key = signer.verifier(origin).map_err(|error| Failure::from_error(&error))?;
            let shown = serde_json::json!({"key": key}).to_string();
            printer.data(if printer.json() { &shown } else { &key })?;
        }
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
    must_exist(
        &directory.join(KEY_FILE),
        "name the directory with --keys, or make a key with `placet keys generate`",
    )?;
    open(directory)
}

fn must_exist(path: &Path, hint: &str) -> Result<(), Failure> {
    if path.exists() {
        return Ok(());
    }
    Err(Failure::new(format!("`{}` does not exist", path.display())).hint(hint))
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
