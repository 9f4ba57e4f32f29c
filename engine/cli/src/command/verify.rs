//! `placet verify`: checks a signed decision offline, by itself or in a receipt.

use std::path::{Path, PathBuf};

use clap::Args;
use placet_core::{
    CheckpointError, Event, Expect, LeafChecker, Logged, MAX_RECEIPT_BYTES, Receipt, ReceiptError,
    Verifier,
};

use crate::answer;
use crate::exit::{Exit, Failure};
use crate::print::{self, Printer};
use crate::witnesses::WitnessArgs;
use crate::{jwks_source, log_key, proof, witnesses};

/// Issuer of a server that was given no other.
const ISSUER: &str = "placet";

const EXAMPLES: &str = "\
Checks signature, issuer, audience and time, and prints the claims. A denial
verifies too: it is a signed decision like any other. A verified permit is no
leave to start yet: `placet confirm` is.

A receipt, as `placet log prove` writes it, holds a leaf of the decision log, the
proof that it is there, and a checkpoint: with --receipt all of that is checked,
and that the decision was issued by a key that counted then. Who relies on it,
and until when, does not matter to a proof. With --witness, those that it names
must have cosigned the checkpoint. With a --quorum of more than half of them,
everybody who asks for as many was shown the same log, unless witnesses lie.

Examples:
  placet verify decision.json --jwks http://127.0.0.1:7480
  placet verify eyJhbGciOi... --jwks jwks.json --audience scheduler --issuer placet
  placet verify - --jwks jwks.json --at 1798761600 < decision.json
  placet verify --receipt receipt.txt --jwks jwks.json --log-key log.key
  placet verify --receipt receipt.txt --jwks jwks.json --log-key log.key \\
    --witness KEY1 --witness KEY2 --witness KEY3 --quorum 2";

/// Check a signed decision with the issuer's public keys alone
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct VerifyArgs {
    /// A decision's token, a file that holds one, or `-` for standard input
    #[arg(required_unless_present = "receipt")]
    token: Option<String>,
    /// A receipt (C2SP tlog-proof) in place of a token: a file
    #[arg(long, value_name = "FILE", conflicts_with = "token", requires = "log_key")]
    receipt: Option<PathBuf>,
    /// Key of the log's checkpoints, as `placet keys log` prints it, or a file of it
    #[arg(long, env = "PLACET_LOG_KEY", value_name = "KEY|FILE")]
    log_key: Option<String>,
    /// JWK set of the issuer: a file, or an http URL on this machine
    #[arg(
        long,
        env = "PLACET_JWKS",
        value_name = "FILE|URL",
        default_value = "http://127.0.0.1:7480"
    )]
    jwks: String,
    /// Who relies on the decision: must be in its `aud`
    #[arg(long, value_name = "NAME", default_value = "provisioner")]
    audience: String,
    /// Who must have issued the decision: its `iss` [default: placet; of a receipt, the name of
    /// the log]
    #[arg(long, env = "PLACET_ISSUER", value_name = "NAME")]
    issuer: Option<String>,
    /// Time to verify at, in seconds since 1970 UTC [default: now]
    #[arg(long, value_name = "SECONDS")]
    at: Option<u64>,
    #[command(flatten)]
    witnesses: WitnessArgs,
}

pub(super) fn run(args: &VerifyArgs, printer: &mut Printer) -> Result<Exit, Failure> {
    match (&args.receipt, &args.log_key, &args.token) {
        (Some(receipt), Some(key), _) => run_receipt(receipt, key, args, printer)?,
        (_, _, Some(_)) if args.witnesses.is_given() => {
            return Err(Failure::usage("`--witness` is given, but no receipt")
                .hint("witnesses cosign the checkpoint of a receipt: give one with --receipt"));
        }
        (_, _, Some(token)) => run_token(token, args, printer)?,
        (_, _, None) => return Err(Failure::usage("neither a token nor a receipt is given")),
    }
    printer.note("verified");
    Ok(Exit::Done)
}

fn run_token(token: &str, args: &VerifyArgs, printer: &mut Printer) -> Result<(), Failure> {
    let token = proof::read_token(token)?;
    let verifier = Verifier::new(jwks_source::read(&args.jwks)?);
    let now = args.at.unwrap_or_else(placet_server::Clock::now);
    let issuer = args.issuer.as_deref().unwrap_or(ISSUER);
    let expect = Expect { issuer, audience: &args.audience, now };
    let decision = verifier
        .verify(&token, &expect)
        .map_err(|error| Failure::from_error(&error).subject("the token"))?;
    let text = if printer.json() {
        serde_json::to_string(&decision).map_err(|error| Failure::from_error(&error))?
    } else {
        answer::decision_card(printer, &decision)
    };
    printer.data(&text)
}

fn run_receipt(
    path: &Path,
    key: &str,
    args: &VerifyArgs,
    printer: &mut Printer,
) -> Result<(), Failure> {
    let refused = |error: ReceiptError| Failure::from_error(&error).subject("the receipt");
    let quorum = args.witnesses.quorum()?;
    let (origin, keys) = log_key::read(key)?;
    let text = log_key::read_file(path, MAX_RECEIPT_BYTES)?;
    let receipt = Receipt::from_text(text.as_bytes()).map_err(refused)?;
    let verifier = Verifier::new(jwks_source::read(&args.jwks)?);
    let mut logged = Err(ReceiptError::Checkpoint(CheckpointError::Unsigned));
    for key in &keys {
        logged = receipt.verify(&origin, key);
        // A log that has changed its key: another one of them may have signed.
        if !matches!(logged, Err(ReceiptError::Checkpoint(CheckpointError::Unsigned))) {
            break;
        }
    }
    let logged = logged.map_err(refused)?;
    let cosignatures = match &quorum {
        Some(quorum) => quorum.of(receipt.note())?,
        None => Vec::new(),
    };
    let issuer = args.issuer.clone().unwrap_or_else(|| origin.clone());
    // What is signed in the leaf, as whoever checks the whole log does.
    let checker = LeafChecker::new(verifier.clone(), issuer.clone());
    checker.check(receipt.leaf()).map_err(|error| {
        Failure::from_error(&error).context("the receipt proves a leaf that is none of this log")
    })?;
    let decision = match &logged.leaf.event {
        Event::Decision { .. } => Some(logged.decision(&verifier, &issuer).map_err(refused)?),
        _ => None,
    };
    let Logged { checkpoint, index, leaf } = &logged;
    if printer.json() {
        let line = serde_json::json!({
            "position": index, "leaf": leaf, "decision": decision,
            "origin": checkpoint.origin, "size": checkpoint.size,
            "root": checkpoint.root.to_string(),
            "cosignatures": witnesses::to_json(&cosignatures),
        });
        return printer.data(&line.to_string());
    }
    match &decision {
        Some(decision) => printer.data(&answer::decision_card(printer, decision))?,
        None => {
            let event = serde_json::to_string_pretty(&leaf.event);
            printer.data(&event.map_err(|error| Failure::from_error(&error))?)?;
        }
    }
    let mut table = print::pairs();
    table.add_row(["log", &checkpoint.origin]);
    table.add_row(["position", &format!("{index} of {} leaves", checkpoint.size)]);
    for cosignature in &cosignatures {
        table.add_row(["cosigned", &witnesses::to_text(cosignature)]);
    }
    printer.data(&table.trim_fmt())?;
    printer.data(&format!("root {}", checkpoint.root))
}
