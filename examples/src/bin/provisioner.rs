//! A provisioner: verifies a decision offline, checks it against the work before it, and confirms
//! the reservation.
//!
//! It starts nothing (this is an example); it prints what it would start. Exit code 0 confirmed, 1
//! refused.

use std::io::{Read as _, Write as _, stdin, stdout};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use clap::{Parser, ValueEnum};
use placet_core::{Decision, Expect, IsolationLevel, MAX_TOKEN_BYTES, ReservationGrant, Verifier};
use placet_examples::provision::{Asked, Capabilities, check};
use placet_examples::{now, read_keys};
use placet_proto::admission::v1::admission_service_client::AdmissionServiceClient;
use placet_proto::admission::v1::{
    ConfirmRequest, ReservationRef, ReservationState, Settlement, reservation_ref,
};
use tonic::transport::Endpoint;

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Isolation {
    Shared,
    Partitioned,
    Passthrough,
    Dedicated,
    Confidential,
}

impl From<Isolation> for IsolationLevel {
    fn from(isolation: Isolation) -> Self {
        match isolation {
            Isolation::Shared => Self::Shared,
            Isolation::Partitioned => Self::Partitioned,
            Isolation::Passthrough => Self::Passthrough,
            Isolation::Dedicated => Self::Dedicated,
            Isolation::Confidential => Self::Confidential,
        }
    }
}

/// Checks a decision against the work to start, and confirms its reservation
#[derive(Debug, Parser)]
struct Args {
    /// File with the token; `-` is standard input
    token: String,
    /// Cluster in which the work is to start
    #[arg(long)]
    cluster: String,
    /// GPU model on which it is to start
    #[arg(long)]
    gpu_model: String,
    /// GPUs
    #[arg(long)]
    gpus: u32,
    /// Share of each GPU in thousandths
    #[arg(long, default_value_t = 1_000)]
    gpu_milli: u32,
    /// How far it is kept apart
    #[arg(long, value_enum)]
    isolation: Isolation,
    /// Address of Placet
    #[arg(long, default_value = "http://127.0.0.1:7443")]
    server: String,
    /// Its keys: a file, or a URL on this machine
    #[arg(long, default_value = "http://127.0.0.1:7480/.well-known/jwks.json")]
    jwks: String,
    /// Name under which Placet issues decisions
    #[arg(long, default_value = "placet")]
    issuer: String,
    /// Name under which this provisioner receives them
    #[arg(long, default_value = "provisioner")]
    audience: String,
    /// Checks only, confirms nothing
    #[arg(long)]
    offline: bool,
    /// Time to check against, in seconds since 1970, in place of this machine's clock
    #[arg(long)]
    now: Option<u64>,
}

/// How long confirming may take.
const CONFIRM_WITHIN: Duration = Duration::from_secs(5);

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let args = Args::parse();
    let token = read_token(&args.token)?;
    let now = args.now.map_or_else(now, Ok)?;
    let verifier = Verifier::new(read_keys(&args.jwks)?);
    let expect = Expect { issuer: &args.issuer, audience: &args.audience, now };
    let decision = verifier.verify(token.trim(), &expect).context("the token is refused: it")?;
    let asked = Asked {
        cluster_id: args.cluster.clone(),
        gpu_count: args.gpus,
        gpu_milli: args.gpu_milli,
        gpu_model: args.gpu_model.clone(),
        isolation_level: args.isolation.into(),
    };
    let reservation = match check(&decision, &asked, &Capabilities::of_this_example(), now) {
        Ok(reservation) => reservation,
        Err(refusals) => {
            let refusals: Vec<_> = refusals.iter().map(|refusal| format!("  {refusal}")).collect();
            bail!("nothing is started:\n{}", refusals.join("\n"));
        }
    };
    if !args.offline {
        confirm(&args.server, &decision, reservation).await?;
    }
    print(&decision, reservation)
}

fn read_token(source: &str) -> Result<String> {
    let limit = u64::try_from(MAX_TOKEN_BYTES)?.saturating_add(2);
    let mut text = String::new();
    if source == "-" {
        stdin().take(limit).read_to_string(&mut text).context("cannot read standard input")?;
    } else {
        let file =
            std::fs::File::open(source).with_context(|| format!("cannot open `{source}`"))?;
        file.take(limit)
            .read_to_string(&mut text)
            .with_context(|| format!("cannot read `{source}`"))?;
    }
    Ok(text)
}

/// Starting work needs this: the token alone proves that it was issued, not that the reservation
/// still stands.
async fn confirm(server: &str, decision: &Decision, reservation: &ReservationGrant) -> Result<()> {
    let channel = Endpoint::from_shared(server.to_owned())
        .with_context(|| format!("`{server}` is no address"))?
        .timeout(CONFIRM_WITHIN)
        .connect()
        .await
        .with_context(|| format!("cannot reach `{server}`"))?;
    let target = reservation_ref::Target::ReservationId(reservation.id.to_string());
    let request = ConfirmRequest {
        request_id: format!("confirm-{}", decision.jti),
        tenant_id: decision.tenant_id.to_string(),
        reservation: Some(ReservationRef { target: Some(target), epoch: reservation.epoch }),
    };
    let Settlement { state, epoch, .. } =
        match AdmissionServiceClient::new(channel).confirm(request).await {
            Ok(answer) => answer.into_inner(),
            Err(status) => bail!("not confirmed ({:?}): {}", status.code(), status.message()),
        };
    if state != i32::from(ReservationState::Active) || epoch != reservation.epoch {
        let state = ReservationState::try_from(state).map_or("unknown", |s| s.as_str_name());
        bail!("not confirmed: the reservation is {state} in epoch {epoch}");
    }
    Ok(())
}

fn print(decision: &Decision, reservation: &ReservationGrant) -> Result<()> {
    let mut out = stdout().lock();
    let grant = &decision.workload;
    writeln!(
        out,
        "{}: start {} x {} in {} until {} (reservation {}, epoch {})",
        decision.sub,
        grant.gpu_count,
        grant.gpu_model,
        grant.cluster_id,
        reservation.end,
        reservation.id,
        reservation.epoch
    )?;
    for obligation in &decision.obligations {
        writeln!(out, "  fulfilling {} {:?}", obligation.id, obligation.params)?;
    }
    Ok(())
}
