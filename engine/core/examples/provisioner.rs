//! A provisioner: verifies a decision with the issuer's public keys alone, and says what it may
//! start.
//!
//! ```sh
//! cd engine/core/tests/vectors
//! cargo run --quiet --package placet-core --example provisioner -- \
//!     jwks.json decision.jwt https://placet.example provisioner 1793491200
//! ```
//!
//! The last argument is the time, in seconds since 1970-01-01 UTC; in earnest it is `$(date +%s)`.
//! Whatever is wrong, it starts nothing and exits with 1.

use std::error::Error;
use std::fmt::Write as _;
use std::io::Write as _;
use std::process::ExitCode;
use std::{env, fs, io};

use placet_core::{Decision, Effect, Expect, KeySet, ReservationGrant, Verifier};

/// The duties that this provisioner can fulfil. It refuses a decision with any other.
const DUTIES: [&str; 1] = ["network.partition"];

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let (said, code) = match run(&arguments) {
        Ok(plan) => (io::stdout().write_all(plan.as_bytes()), ExitCode::SUCCESS),
        Err(error) => {
            (writeln!(io::stderr(), "start nothing: {}", chain(&*error)), ExitCode::FAILURE)
        }
    };
    if said.is_ok() { code } else { ExitCode::FAILURE }
}

/// What it may start, or why not.
pub(crate) fn run(arguments: &[String]) -> Result<String, Box<dyn Error>> {
    let [jwks, token, issuer, audience, now] = arguments else {
        return Err("usage: provisioner JWKS_FILE TOKEN_FILE ISSUER AUDIENCE NOW".into());
    };
    let verifier = Verifier::new(KeySet::from_json(&fs::read(jwks)?)?);
    let expect = Expect { issuer, audience, now: now.parse()? };
    let token = fs::read_to_string(token)?;
    let decision = verifier.verify(token.trim_end(), &expect)?;
    plan(&decision)
}

fn plan(decision: &Decision) -> Result<String, Box<dyn Error>> {
    let reservation = match (decision.effect, &decision.reservation) {
        (Effect::Permit, Some(reservation)) => reservation,
        (Effect::Permit | Effect::Deny, _) => return Err(denial(decision).into()),
    };
    let known = |id: &str| DUTIES.contains(&id);
    if let Some(duty) = decision.obligations.iter().find(|duty| !known(duty.id.as_str())) {
        return Err(format!("`{}` is a duty that it does not know", duty.id).into());
    }
    let mut plan = String::new();
    let ReservationGrant { id, epoch, confirm_by, start, end, .. } = reservation;
    writeln!(plan, "confirm `{id}` at epoch {epoch} before {confirm_by}")?;
    for duty in &decision.obligations {
        let values: Vec<_> =
            duty.params.iter().map(|(name, value)| format!("{name}={value}")).collect();
        writeln!(plan, "fulfil {} {}", duty.id, values.join(" "))?;
    }
    let work = &decision.workload;
    write!(plan, "start {} of {}: ", decision.sub, decision.tenant_id)?;
    write!(plan, "{} x {} of {} thousandths, ", work.gpu_count, work.gpu_model, work.gpu_milli)?;
    write!(plan, "{} Gbit/s, {:?}, ", work.fabric_gbps, work.isolation_level)?;
    writeln!(plan, "on {} from {start} until {end}", work.cluster_id)?;
    Ok(plan)
}

fn denial(decision: &Decision) -> String {
    let reasons = decision.reasons.iter().map(|reason| format!("\n  {}", reason.message));
    format!("{} was denied{}", decision.sub, reasons.collect::<String>())
}

/// An error and what caused it, as one text.
pub(crate) fn chain(error: &dyn Error) -> String {
    let causes = std::iter::successors(error.source(), |&error| error.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}\ncause: {cause}"))
}
