//! `placet verify`: checks a signed decision offline.

use clap::Args;
use placet_core::{Expect, Verifier};

use crate::answer;
use crate::exit::{Exit, Failure};
use crate::print::Printer;
use crate::{jwks_source, proof};

const EXAMPLES: &str = "\
Checks signature, issuer, audience and time, and prints the claims. A denial
verifies too: it is a signed decision like any other. A verified permit is no
leave to start yet: `placet confirm` is.

Examples:
  placet verify decision.json --jwks http://127.0.0.1:7480
  placet verify eyJhbGciOi... --jwks jwks.json --audience scheduler --issuer placet
  placet verify - --jwks jwks.json --at 1798761600 < decision.json";

/// Check a signed decision with the issuer's public keys alone
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct VerifyArgs {
    /// A decision's token, a file that holds one, or `-` for standard input
    token: String,
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
    /// Who must have issued the decision: its `iss`
    #[arg(long, env = "PLACET_ISSUER", value_name = "NAME", default_value = "placet")]
    issuer: String,
    /// Time to verify at, in seconds since 1970 UTC [default: now]
    #[arg(long, value_name = "SECONDS")]
    at: Option<u64>,
}

pub(super) fn run(args: &VerifyArgs, printer: &mut Printer) -> Result<Exit, Failure> {
    let token = proof::read_token(&args.token)?;
    let verifier = Verifier::new(jwks_source::read(&args.jwks)?);
    let now = args.at.unwrap_or_else(placet_server::Clock::now);
    let expect = Expect { issuer: &args.issuer, audience: &args.audience, now };
    let decision = verifier
        .verify(&token, &expect)
        .map_err(|error| Failure::from_error(&error).subject("the token"))?;
    let text = if printer.json() {
        serde_json::to_string(&decision).map_err(|error| Failure::from_error(&error))?
    } else {
        answer::decision_card(printer, &decision)
    };
    printer.data(&text)?;
    printer.note("verified");
    Ok(Exit::Done)
}
