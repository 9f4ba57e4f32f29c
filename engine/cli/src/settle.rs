//! Confirming and releasing a reservation: what the two commands share.

use clap::Args;
use placet_proto::admission::v1::{
    ConfirmRequest, ReleaseRequest, ReservationRef, Settlement, reservation_ref,
};

use crate::answer;
use crate::connection::{Client, Connection, ServerArgs, block_on, status_failure};
use crate::exit::{Exit, Failure};
use crate::print::{Printer, plain};
use crate::proof;

/// Longest request id (see the contract).
const MAX_ID_CHARS: usize = 128;

/// Which reservation.
#[derive(Debug, Args)]
pub(crate) struct SettleArgs {
    /// A decision's token, a file that holds one, `-` for standard input, or a reservation's id
    #[arg(value_name = "TOKEN|RESERVATION")]
    reservation: String,
    /// Fencing epoch [default: that of the token]
    #[arg(long, value_name = "N")]
    epoch: Option<u64>,
    /// Tenant that holds the reservation [default: that of the token]
    #[arg(long, value_name = "ID")]
    tenant: Option<String>,
    /// Request id to be echoed [default: made of the verb and the reservation]
    #[arg(long, value_name = "ID")]
    request_id: Option<String>,
    #[command(flatten)]
    server: ServerArgs,
}

/// What to do with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verb {
    /// Turn it active.
    Confirm,
    /// End it.
    Release,
}

impl Verb {
    fn name(self) -> &'static str {
        match self {
            Self::Confirm => "confirm",
            Self::Release => "release",
        }
    }
}

/// Which reservation is meant, in full.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Target {
    /// Its id.
    pub(crate) reservation: String,
    /// Its fencing epoch.
    pub(crate) epoch: u64,
    /// Who holds it.
    pub(crate) tenant: String,
}

pub(crate) fn run(verb: Verb, args: &SettleArgs, printer: &mut Printer) -> Result<Exit, Failure> {
    let target = target(args)?;
    let request_id = args.request_id.clone().unwrap_or_else(|| made_id(verb, &target));
    let settlement = block_on(async {
        let connection = Connection::connect(&args.server).await?;
        let settlement = send(verb, connection.client(), target, request_id).await?;
        connection.close().await?;
        Ok(settlement)
    })?;
    let text = if printer.json() {
        answer::settlement_json(None, &settlement)?
    } else {
        answer::settlement_card(printer, &settlement)
    };
    printer.data(&text)?;
    Ok(Exit::Done)
}

/// A request id for whoever does not care: made of the verb and the reservation.
pub(crate) fn made_id(verb: Verb, target: &Target) -> String {
    let id = format!("{}:{}", verb.name(), target.reservation);
    id.chars().take(MAX_ID_CHARS).collect()
}

/// Asks a server.
///
/// # Errors
/// It refuses, or does not answer.
pub(crate) async fn send(
    verb: Verb,
    mut client: Client,
    target: Target,
    request_id: String,
) -> Result<Settlement, Failure> {
    let Target { reservation, epoch, tenant: tenant_id } = target;
    let by_id = reservation_ref::Target::ReservationId(reservation);
    let reservation = Some(ReservationRef { target: Some(by_id), epoch });
    let answer = match verb {
        Verb::Confirm => {
            client.confirm(ConfirmRequest { request_id, tenant_id, reservation }).await
        }
        Verb::Release => {
            client.release(ReleaseRequest { request_id, tenant_id, reservation }).await
        }
    };
    Ok(answer.map_err(|status| status_failure(&status))?.into_inner())
}

fn target(args: &SettleArgs) -> Result<Target, Failure> {
    let given = args.reservation.as_str();
    if !proof::looks_like_token(given) && given != "-" && !std::path::Path::new(given).exists() {
        let absent = |flag: &str| {
            Failure::usage(format!(
                "`{}` is a reservation's id, but {flag} is not given",
                plain(given)
            ))
            .hint("give --tenant and --epoch, or the token of the decision instead of the id")
        };
        return Ok(Target {
            reservation: given.to_owned(),
            epoch: args.epoch.ok_or_else(|| absent("--epoch"))?,
            tenant: args.tenant.clone().ok_or_else(|| absent("--tenant"))?,
        });
    }
    let claims = proof::claims(&proof::read_token(given)?)?;
    let reservation = claims.reservation.ok_or_else(|| {
        let why = claims.reasons.first().map_or("denied", |reason| reason.code.as_str());
        Failure::new(format!("the decision holds no reservation: it is a denial ({why})"))
    })?;
    Ok(Target {
        reservation: reservation.id.to_string(),
        epoch: args.epoch.unwrap_or(reservation.epoch),
        tenant: args.tenant.clone().unwrap_or_else(|| claims.tenant_id.to_string()),
    })
}
