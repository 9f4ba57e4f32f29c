//! A scheduler's submit hook: asks Placet about one job, and tells the scheduler by its exit code.
//!
//! 0 admitted, 2 denied, 1 no decision; the scheduler must start the job on 0 only.

use std::io::{Write as _, stderr, stdout};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use clap::Parser;
use placet_core::{Decision, Effect, Expect, Verifier};
use placet_examples::{Hook, JobDescription, now, read_keys};

/// Asks Placet whether a job may start
#[derive(Debug, Parser)]
#[command(
    after_help = "Exit codes: 0 admitted, 2 denied, 1 no decision (the job must not start).\n\n\
    Example:\n  admission-hook --job-id 4711 --account acme --partition de-fra-1 --gres gpu:H100:8 \
    --time 2-12:00:00"
)]
struct Args {
    /// The scheduler's number for the job
    #[arg(long)]
    job_id: u64,
    /// How often the job was put back into the queue: each time is a new question
    #[arg(long, default_value_t = 0)]
    restarts: u32,
    /// Tenant that pays
    #[arg(long)]
    account: String,
    /// Cluster
    #[arg(long)]
    partition: String,
    /// GPUs, as gpu:MODEL:COUNT
    #[arg(long)]
    gres: String,
    /// Longest run time, as [days-]hours:minutes:seconds or minutes
    #[arg(long = "time")]
    time_limit: String,
    /// Own research, not sold capacity
    #[arg(long)]
    internal: bool,
    /// How far the job is kept apart
    #[arg(long, default_value = "PASSTHROUGH")]
    isolation: String,
    /// May displace sold work
    #[arg(long)]
    may_preempt: bool,
    /// Address of Placet
    #[arg(long, default_value = "http://127.0.0.1:7443")]
    server: String,
    /// Its keys: a file, or a URL on this machine
    #[arg(long, default_value = "http://127.0.0.1:7480/.well-known/jwks.json")]
    jwks: String,
    /// Name under which Placet issues decisions
    #[arg(long, default_value = "placet")]
    issuer: String,
    /// Name under which this hook receives them
    #[arg(long, default_value = "scheduler")]
    audience: String,
    /// Milliseconds to wait for an answer, and once more for a retry
    #[arg(long, default_value_t = 2_000)]
    deadline_ms: u64,
    /// Writes the token here for the provisioner
    #[arg(long)]
    token_out: Option<std::path::PathBuf>,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let outcome = match Args::try_parse() {
        Ok(args) => decide(&args).await,
        Err(error) => {
            // clap's own code for a usage error is 2, which would read as a denial.
            let code = if error.use_stderr() { ExitCode::FAILURE } else { ExitCode::SUCCESS };
            return if error.print().is_ok() { code } else { ExitCode::FAILURE };
        }
    };
    match outcome {
        Ok(Effect::Permit) => ExitCode::SUCCESS,
        Ok(Effect::Deny) => ExitCode::from(2),
        Err(error) => {
            // Nobody may be listening; the exit code stands either way.
            drop(writeln!(stderr(), "error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

async fn decide(args: &Args) -> Result<Effect> {
    let description = JobDescription {
        account: args.account.clone(),
        job_id: args.job_id,
        restarts: args.restarts,
        partition: args.partition.clone(),
        gres: args.gres.clone(),
        time_limit: args.time_limit.clone(),
        internal: args.internal,
        isolation: args.isolation.clone(),
        may_preempt: args.may_preempt,
    };
    let request = description.request()?;
    let verifier = Verifier::new(read_keys(&args.jwks)?);
    let mut hook = Hook::new(&args.server, Duration::from_millis(args.deadline_ms))?;
    let expect = Expect { issuer: &args.issuer, audience: &args.audience, now: now()? };
    let (decision, token) = hook.decide(&request, &verifier, &expect).await?;
    if let Some(path) = &args.token_out {
        std::fs::write(path, &token)?;
    }
    print(&decision)?;
    Ok(decision.effect)
}

fn print(decision: &Decision) -> Result<()> {
    let mut out = stdout().lock();
    let effect = match decision.effect {
        Effect::Permit => "admitted",
        Effect::Deny => "denied",
    };
    writeln!(out, "{} {effect} (decision {})", decision.request_id, decision.jti)?;
    if let Some(reservation) = &decision.reservation {
        let grant = &decision.workload;
        writeln!(out, "  {} x {} in {}", grant.gpu_count, grant.gpu_model, grant.cluster_id)?;
        let (id, by) = (&reservation.id, reservation.confirm_by);
        writeln!(out, "  reservation {id}, confirm before {by}")?;
    }
    for reason in &decision.reasons {
        writeln!(out, "  {}: {}", reason.code, reason.message)?;
        if let Some(hint) = &reason.hint {
            writeln!(out, "    hint: {hint}")?;
        }
    }
    for warning in &decision.warnings {
        writeln!(out, "  warning {}: {}", warning.code, warning.message)?;
    }
    for obligation in &decision.obligations {
        writeln!(out, "  must: {} {:?}", obligation.id, obligation.params)?;
    }
    Ok(())
}
