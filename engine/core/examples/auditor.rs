//! An auditor: verifies a receipt offline, and that the log only grew since an older checkpoint.
//!
//! ```sh
//! cd engine/core/tests/vectors
//! cargo run --quiet --package placet-core --example auditor -- \
//!     log.example.com/placet+5d990424+AddamAGCsQq31Uv+08lkBzoO4XLz2qYjJa8CGmj3B1Ea \
//!     jwks.json https://placet.example receipt.tlog-proof older.checkpoint older-to-newer.proof
//! ```
//!
//! The first argument is the log's verifier key. The older checkpoint is one that the auditor kept,
//! and the proof leads from it to the receipt's: one hash a line, in base64. Behind them may stand
//! a number and verifier keys of witnesses: so many of them must have cosigned.
//! Whatever is wrong, it exits with 1.

use std::error::Error;
use std::fmt::Write as _;
use std::io::Write as _;
use std::process::ExitCode;
use std::{env, fs, io};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use placet_core::merkle::ConsistencyProof;
use placet_core::{
    Checkpoint, Digest, KeySet, Receipt, Verifier, Witnesses, read_note_verifier_key,
};

const USAGE: &str = "usage: auditor LOG_KEY JWKS_FILE ISSUER RECEIPT_FILE OLDER_CHECKPOINT_FILE \
    CONSISTENCY_PROOF_FILE [QUORUM WITNESS_KEY...]";

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let (said, code) = match run(&arguments) {
        Ok(report) => (io::stdout().write_all(report.as_bytes()), ExitCode::SUCCESS),
        Err(error) => (writeln!(io::stderr(), "not proved: {}", chain(&*error)), ExitCode::FAILURE),
    };
    if said.is_ok() { code } else { ExitCode::FAILURE }
}

/// What is proved, or why nothing is.
pub(crate) fn run(arguments: &[String]) -> Result<String, Box<dyn Error>> {
    let [log_key, jwks, issuer, receipt, older, proof, rest @ ..] = arguments else {
        return Err(USAGE.into());
    };
    let (origin, log_key) = read_note_verifier_key(log_key)?;
    let receipt = Receipt::from_text(&fs::read(receipt)?)?;
    let logged = receipt.verify(&origin, &log_key)?;
    let verifier = Verifier::new(KeySet::from_json(&fs::read(jwks)?)?);
    let decision = logged.decision(&verifier, issuer)?;

    let older = Checkpoint::verify(&fs::read_to_string(older)?, &origin, &log_key)?;
    let newer = &logged.checkpoint;
    let proof = ConsistencyProof { hashes: hashes(&fs::read_to_string(proof)?)? };
    proof.verify((older.size, older.root), (newer.size, newer.root))?;

    let mut report = String::new();
    writeln!(report, "{origin}: grew from {} to {} leaves", older.size, newer.size)?;
    write!(
        report,
        "leaf {} is the decision {}: {:?} ",
        logged.index, decision.jti, decision.effect
    )?;
    writeln!(report, "for {} of {}, at {}", decision.sub, decision.tenant_id, decision.iat)?;
    if let [quorum, witnesses @ ..] = rest {
        let known = witnesses.iter().map(|key| key.parse()).collect::<Result<Vec<_>, _>>()?;
        for found in Witnesses::new(known)?.quorum(receipt.note(), quorum.parse()?)? {
            writeln!(report, "{} cosigned at {}", found.witness, found.time)?;
        }
    }
    Ok(report)
}

/// One hash a line, in base64.
fn hashes(text: &str) -> Result<Vec<Digest>, Box<dyn Error>> {
    let hash = |line: &str| -> Result<Digest, Box<dyn Error>> {
        let bytes = STANDARD.decode(line)?;
        let bytes = <[u8; 32]>::try_from(bytes.as_slice())?;
        Ok(Digest::from_bytes(bytes))
    };
    text.lines().map(hash).collect()
}

/// An error and what caused it, as one text.
pub(crate) fn chain(error: &dyn Error) -> String {
    let causes = std::iter::successors(error.source(), |&error| error.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}\ncause: {cause}"))
}
