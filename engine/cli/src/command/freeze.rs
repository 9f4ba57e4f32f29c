//! `placet freeze`: stops everything new in a scope, and lets it go on.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use placet_core::{
    APPROVAL_VERSION, Approval, FreezeClaims, FreezeScope, Id, PriorityClass, SigningKey,
    SubjectKind, ThawClaims, sign_approval, utc,
};
use placet_proto::control::v1::control_service_client::ControlServiceClient;
use placet_proto::control::v1::{FreezeRequest, Frozen, ListFreezesRequest, ThawRequest};
use placet_proto::json;
use placet_server::Clock;

use super::bundle::read_key;
use super::ledger::reserve::time;
use super::waiver::{DEFAULT_ISSUER, Kind, id};
use crate::connection::{ServerArgs, block_on, channel, status_failure};
use crate::exit::{Exit, Failure};
use crate::print::{self, Printer, Tone, plain};

const EXAMPLES: &str = "\
A freeze denies every request in its scope with FROZEN, and refuses to confirm
what was admitted before and has not begun. What runs goes on, and everything
may be released. It stands, restarts included, until it is lifted. It covers
what fits every list that is given. No waiver lifts it.

The order is signed by an approver whom the server's file of approvers lets
freeze as much, and sent by an operator of the server. It is in the log.

Examples:
  placet freeze --cluster de-fra-1 --id f-2026-3 --by site-duty \\
    --reason \"INC-77: smoke in hall 2\" --key site-duty.pkcs8
  placet freeze --everything --id f-2026-4 --by security --reason INC-78 \\
    --key security.pkcs8
  placet freeze --list
  placet freeze --lift f-2026-3 --by site-duty --reason \"INC-77: cleared\" \\
    --key site-duty.pkcs8";

/// Deny everything new in a scope until it is lifted
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct FreezeArgs {
    /// Name of the freeze
    #[arg(long, value_name = "ID", value_parser = id,
          required_unless_present_any = ["lift", "list"])]
    id: Option<Id>,
    /// Freeze everything
    #[arg(long, conflicts_with_all = ["cluster", "tenant", "kind", "class"])]
    everything: bool,
    /// Cluster to freeze; repeat for several
    #[arg(long, value_name = "ID", value_parser = id)]
    cluster: Vec<Id>,
    /// Tenant whose work is frozen; repeat for several
    #[arg(long, value_name = "ID", value_parser = id)]
    tenant: Vec<Id>,
    /// Kind of subject that is frozen
    #[arg(long, value_enum)]
    kind: Vec<Kind>,
    /// Class whose work is frozen
    #[arg(long, value_enum)]
    class: Vec<Class>,
    /// Lift the freeze of this name
    #[arg(long, value_name = "ID", value_parser = id,
          conflicts_with_all = ["id", "everything", "cluster", "tenant", "kind", "class"])]
    lift: Option<Id>,
    /// List the freezes that stand
    #[arg(long, conflicts_with_all = ["id", "everything", "cluster", "tenant", "kind", "class",
                                      "lift", "key", "by", "reason", "at"])]
    list: bool,
    /// File of the approver's private key
    #[arg(long, value_name = "FILE", required_unless_present = "list")]
    key: Option<PathBuf>,
    /// Who orders it: the name in the server's file of approvers
    #[arg(long, value_name = "NAME", value_parser = id, required_unless_present = "list")]
    by: Option<Id>,
    /// Why: a ticket or a sentence that names no person; every denial repeats it
    #[arg(long, value_name = "TEXT", required_unless_present = "list")]
    reason: Option<String>,
    /// Issuer of the decisions of the server
    #[arg(long, env = "PLACET_ISSUER", value_name = "NAME", default_value = DEFAULT_ISSUER)]
    issuer: String,
    /// When it is signed, in UTC, for servers whose clock is the events [default: now]
    #[arg(long, value_name = "TIME", value_parser = time)]
    at: Option<u64>,
    #[command(flatten)]
    server: ServerArgs,
}

/// A priority class.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Class {
    /// The owner's own work
    Internal,
    /// Sold capacity
    External,
}

impl From<Class> for PriorityClass {
    fn from(class: Class) -> Self {
        match class {
            Class::Internal => Self::InternalResearch,
            Class::External => Self::ExternalCommercial,
        }
    }
}

pub(super) fn run(args: &FreezeArgs, printer: &mut Printer) -> Result<Exit, Failure> {
    let (Some(key), Some(by), Some(reason)) = (&args.key, &args.by, &args.reason) else {
        return list(args, printer);
    };
    let key = read_key(key)?;
    let iat = args.at.unwrap_or_else(Clock::now);
    let (by, reason, aud) = (by.clone(), reason.clone(), args.issuer.clone());
    let placet = APPROVAL_VERSION;
    let (freeze, done) = match (&args.lift, &args.id) {
        (Some(name), _) => {
            let claims = ThawClaims { aud, by, iat, jti: name.clone(), placet, reason };
            let request = ThawRequest { token: signed(&key, &claims)? };
            let lifted = block_on(async {
                let mut client = ControlServiceClient::new(channel(&args.server).await?);
                let answer = client.thaw(request).await;
                Ok(answer.map_err(|status| status_failure(&status))?.into_inner().freeze)
            })?;
            (lifted, "lifted")
        }
        (None, Some(name)) => {
            let (jti, scope) = (name.clone(), scope(args)?);
            let claims = FreezeClaims { aud, by, iat, jti, placet, reason, scope };
            let request = FreezeRequest { token: signed(&key, &claims)? };
            let frozen = block_on(async {
                let mut client = ControlServiceClient::new(channel(&args.server).await?);
                let answer = client.freeze(request).await;
                Ok(answer.map_err(|status| status_failure(&status))?.into_inner().freeze)
            })?;
            (frozen, "frozen")
        }
        (None, None) => return list(args, printer),
    };
    show(&freeze.unwrap_or_default(), printer)?;
    printer.note(done);
    Ok(Exit::Done)
}

fn signed<T: Approval>(key: &SigningKey, claims: &T) -> Result<String, Failure> {
    let signed = sign_approval(key, claims);
    signed.map_err(|error| Failure::from_error(&error).subject("the order"))
}

fn scope(args: &FreezeArgs) -> Result<FreezeScope, Failure> {
    let scope = FreezeScope {
        clusters: args.cluster.iter().cloned().collect(),
        everything: args.everything,
        kinds: args.kind.iter().copied().map(SubjectKind::from).collect(),
        priority_classes: args.class.iter().copied().map(PriorityClass::from).collect(),
        tenants: args.tenant.iter().cloned().collect(),
    };
    if !args.everything && scope == FreezeScope::default() {
        return Err(Failure::usage("nothing is named that is to be frozen")
            .hint("give --cluster, --tenant, --kind or --class, or --everything"));
    }
    Ok(scope)
}

fn list(args: &FreezeArgs, printer: &mut Printer) -> Result<Exit, Failure> {
    let freezes = block_on(async {
        let mut client = ControlServiceClient::new(channel(&args.server).await?);
        let answer = client.list_freezes(ListFreezesRequest {}).await;
        Ok(answer.map_err(|status| status_failure(&status))?.into_inner().freezes)
    })?;
    for freeze in &freezes {
        show(freeze, printer)?;
    }
    printer.flush()?;
    match freezes.len() {
        0 => printer.note("no freeze stands"),
        1 => printer.note("1 freeze stands"),
        count => printer.note(&format!("{count} freezes stand")),
    }
    Ok(Exit::Done)
}

fn show(freeze: &Frozen, printer: &mut Printer) -> Result<(), Failure> {
    if printer.json() {
        return printer.data(&json::to_json(freeze).to_string());
    }
    let name = printer.tone(Tone::Strong, &plain(&freeze.name));
    printer.data(&format!("freeze {name}"))?;
    let mut table = print::pairs();
    let mut row = |name: &str, value: String| {
        table.add_row([format!("  {name}"), plain(&value)]);
    };
    if freeze.everything {
        row("covers", "everything".to_owned());
    }
    for (what, names) in [
        ("clusters", &freeze.clusters),
        ("tenants", &freeze.tenants),
        ("kinds", &freeze.kinds),
        ("classes", &freeze.priority_classes),
    ] {
        if !names.is_empty() {
            row(what, names.join(" "));
        }
    }
    row("since", utc(freeze.since).to_string());
    row("ordered by", freeze.by.clone());
    row("reason", freeze.reason.clone());
    printer.data(&table.trim_fmt())
}
