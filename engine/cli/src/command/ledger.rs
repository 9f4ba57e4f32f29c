//! `placet ledger`: what is held and booked, asked of a server; and stores, checked and copied.

pub(super) mod reserve;
mod store;
mod watch;

use clap::{Args, Subcommand, ValueEnum};
use comfy_table::{CellAlignment, ColumnConstraint, ContentArrangement};
use placet_core::utc;
use placet_proto::admission::v1::ReservationState;
use placet_proto::json;
use placet_proto::ledger::v1::ledger_service_client::LedgerServiceClient;
use placet_proto::ledger::v1::{
    AccountKind, AccountUse, Charge, Reservation, ReservationsRequest, Unit, UsageRequest,
};
use serde_json::Value;
use tonic::transport::Channel;

use crate::answer;
use crate::connection::{ServerArgs, block_on, channel, status_failure};
use crate::exit::{Exit, Failure};
use crate::print::{self, Printer, Tone, plain};
use reserve::ReserveArgs;
use store::{BackupArgs, VerifyArgs};
use watch::WatchArgs;

const EXAMPLES: &str = "\
The ledger holds what was admitted: use of each account, and the reservations
behind it. It is the fold of the decision log, which the store keeps in one
file. `usage`, `reservations` and `watch` ask a running server, as one of its
operators; `reserve` books capacity there; `verify` and `backup` take the
store's file.

Examples:
  placet ledger usage tenant/acme
  placet ledger reservations --tenant acme --state active
  placet ledger watch --kind eviction-ordered
  placet ledger reserve --tenant research-foundation --cluster de-fra-1 \\
    --gpus 2000 --gpu-model H100 --start 2026-11-23T06:00:00Z --for 7d
  placet ledger backup --store placet.db --to copies/placet-2026-11-22.db
  placet ledger verify --store copies/placet-2026-11-22.db";

const USAGE_EXAMPLES: &str = "\
PREFIX is a path, segment by segment: `tenant/acme` stands for itself and for
`tenant/acme/gpu`, not for `tenant/acme-eu/gpu`. An account that holds nothing
is not shown. The limit is that of the active facts; policies may claim under a
lower one.

An answer stands for a position of the decision log. With --at-least it is no
older than that: give the `position` of a decision, or of an earlier answer.

Examples:
  placet ledger usage
  placet ledger usage tenant/acme --at-least 1042
  placet ledger usage cluster --format json";

const RESERVATIONS_EXAMPLES: &str = "\
Those that are held, the first to end first: by their confirm deadline while
they are RESERVED, by their end when they are ACTIVE. Those that have ended are
in the decision log alone.

Examples:
  placet ledger reservations --tenant acme
  placet ledger reservations --account cluster/c-042/gpu/H100 --state reserved
  placet ledger reservations --format json";

/// Show what is held, book ahead; check and copy a store
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct LedgerArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    Usage(UsageArgs),
    Reservations(ReservationsArgs),
    // Boxed: it has many more options than the others.
    Reserve(Box<ReserveArgs>),
    Watch(WatchArgs),
    Verify(VerifyArgs),
    Backup(BackupArgs),
}

/// Show the use of accounts
#[derive(Debug, Args)]
#[command(after_help = USAGE_EXAMPLES)]
struct UsageArgs {
    /// Path that the accounts have or begin with [default: all accounts]
    #[arg(value_name = "PREFIX")]
    prefix: Option<String>,
    /// Position of the log that the answer must include
    #[arg(long, value_name = "POSITION")]
    at_least: Option<u64>,
    #[command(flatten)]
    server: ServerArgs,
}

/// Show the reservations that are held
#[derive(Debug, Args)]
#[command(after_help = RESERVATIONS_EXAMPLES)]
struct ReservationsArgs {
    /// Only those of this tenant
    #[arg(long, value_name = "ID")]
    tenant: Option<String>,
    /// Only those that charge this account
    #[arg(long, value_name = "PATH")]
    account: Option<String>,
    /// Only those in this state
    #[arg(long, value_enum, value_name = "STATE")]
    state: Option<State>,
    /// Position of the log that the answer must include
    #[arg(long, value_name = "POSITION")]
    at_least: Option<u64>,
    #[command(flatten)]
    server: ServerArgs,
}

/// A state in which something is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum State {
    /// Waiting to be confirmed
    Reserved,
    /// Confirmed
    Active,
}

pub(super) fn run(args: &LedgerArgs, printer: &mut Printer) -> Result<Exit, Failure> {
    match &args.action {
        Action::Usage(args) => usage(args, printer),
        Action::Reservations(args) => reservations(args, printer),
        Action::Reserve(args) => reserve::reserve(args, printer),
        Action::Watch(args) => watch::watch(args, printer),
        Action::Verify(args) => store::verify(args, printer),
        Action::Backup(args) => store::backup(args, printer),
    }
}

/// What the pages so far stand for.
#[derive(Debug, Default, Clone, Copy)]
struct AsOf {
    position: u64,
    time: u64,
}

impl AsOf {
    fn note(self, printer: &Printer) {
        let Self { position, time } = self;
        printer.note(&format!("as of position {position} of the log, {}", utc(time)));
    }
}

fn usage(args: &UsageArgs, printer: &mut Printer) -> Result<Exit, Failure> {
    let mut request = UsageRequest {
        prefix: args.prefix.clone().unwrap_or_default(),
        at_least: args.at_least,
        ..UsageRequest::default()
    };
    let mut rows = Vec::new();
    let as_of = block_on(async {
        let mut client = connect(&args.server).await?;
        loop {
            let answer = client.usage(request.clone()).await;
            let page = answer.map_err(|status| status_failure(&status))?.into_inner();
            let as_of = AsOf { position: page.position, time: page.time };
            if printer.json() {
                for account in &page.accounts {
                    printer.data(&with_place(json::to_json(account), as_of))?;
                }
            } else {
                rows.extend(page.accounts);
            }
            if page.next.is_empty() {
                return Ok(as_of);
            }
            // Later pages are no older than the ones before.
            (request.after, request.at_least) = (page.next, Some(page.position));
        }
    })?;
    if !rows.is_empty() {
        printer.data(&use_table(printer, &rows))?;
    }
    as_of.note(printer);
    Ok(Exit::Done)
}

fn reservations(args: &ReservationsArgs, printer: &mut Printer) -> Result<Exit, Failure> {
    let state = match args.state {
        None => ReservationState::Unspecified,
        Some(State::Reserved) => ReservationState::Reserved,
        Some(State::Active) => ReservationState::Active,
    };
    let mut request = ReservationsRequest {
        tenant_id: args.tenant.clone().unwrap_or_default(),
        account: args.account.clone().unwrap_or_default(),
        state: state.into(),
        at_least: args.at_least,
        ..ReservationsRequest::default()
    };
    let as_of = block_on(async {
        let mut client = connect(&args.server).await?;
        loop {
            let answer = client.reservations(request.clone()).await;
            let page = answer.map_err(|status| status_failure(&status))?.into_inner();
            let as_of = AsOf { position: page.position, time: page.time };
            for reservation in &page.reservations {
                if printer.json() {
                    printer.data(&with_place(json::to_json(reservation), as_of))?;
                } else {
                    printer.data(&card(printer, reservation))?;
                }
            }
            if page.next.is_empty() {
                return Ok(as_of);
            }
            (request.after, request.at_least) = (page.next, Some(page.position));
        }
    })?;
    as_of.note(printer);
    Ok(Exit::Done)
}

async fn connect(server: &ServerArgs) -> Result<LedgerServiceClient<Channel>, Failure> {
    Ok(LedgerServiceClient::new(channel(server).await?))
}

/// One line of JSON that also says what it stands for.
fn with_place(mut line: Value, as_of: AsOf) -> String {
    if let Some(line) = line.as_object_mut() {
        line.insert("position".to_owned(), as_of.position.into());
        line.insert("time".to_owned(), as_of.time.into());
    }
    line.to_string()
}

fn unit_name(unit: Unit) -> &'static str {
    match unit {
        Unit::MilliGpu => "milli-GPU",
        Unit::GpuSecond => "GPU-seconds",
        Unit::Gbps => "Gbit/s",
        Unit::Byte => "bytes",
        Unit::Count => "things",
        Unit::Unspecified => "?",
    }
}

fn kind_name(kind: AccountKind) -> &'static str {
    match kind {
        AccountKind::Level => "level",
        AccountKind::Budget => "budget",
        AccountKind::Unspecified => "?",
    }
}

/// A table of accounts; what is at its limit or above stands out. Without any limit it has no
/// columns for them. Paths stand last and whole, to be
/// copied, however long they are.
fn use_table(printer: &Printer, rows: &[AccountUse]) -> String {
    let mut table = print::table(["USED", "LIMIT", "FULL", "UNIT", "KIND", "ACCOUNT"]);
    table.set_content_arrangement(ContentArrangement::Disabled);
    for row in rows {
        let limit = row.limit.map_or_else(|| "-".to_owned(), |limit| limit.to_string());
        let full = match row.limit {
            Some(limit) => full(printer, row.used, limit),
            None => "-".to_owned(),
        };
        table.add_row([
            row.used.to_string(),
            limit,
            full,
            unit_name(row.unit()).to_owned(),
            kind_name(row.kind()).to_owned(),
            plain(&row.account),
        ]);
    }
    for column in [0, 1, 2] {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    if rows.iter().all(|row| row.limit.is_none()) {
        for column in [1, 2] {
            if let Some(column) = table.column_mut(column) {
                column.set_constraint(ColumnConstraint::Hidden);
            }
        }
    }
    table.trim_fmt()
}

/// How much of a limit is used, in whole percent.
fn full(printer: &Printer, used: u64, limit: u64) -> String {
    let percent = (u128::from(used) * 100).checked_div(u128::from(limit));
    let text = percent.map_or_else(|| "-".to_owned(), |percent| format!("{percent} %"));
    if used >= limit { printer.tone(Tone::Warn, &text) } else { text }
}

fn card(printer: &Printer, reservation: &Reservation) -> String {
    let state = reservation.state();
    let tone = if state == ReservationState::Active { Tone::Good } else { Tone::Warn };
    let mut lines = vec![format!(
        "{} {} of {} epoch {}",
        plain(&reservation.reservation_id),
        printer.tone(tone, state.as_str_name()),
        plain(&reservation.tenant_id),
        reservation.epoch,
    )];
    lines.push(format!("  from {} to {}", utc(reservation.start), utc(reservation.end)));
    let since = utc(reservation.since);
    let caller = plain(&reservation.caller);
    lines.push(match state {
        ReservationState::Reserved => {
            let by = utc(reservation.confirm_by);
            format!("  asked by {caller} at {since}, to be confirmed before {by}")
        }
        _ => format!("  asked by {caller}, active since {since}"),
    });
    lines.extend(reservation.charges.iter().map(|charge: &Charge| {
        let amount = answer::of_limit(charge.amount, charge.limit);
        format!("  {amount} {} on {}", unit_name(charge.unit()), plain(&charge.account))
    }));
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::print::Format;

    #[test]
    fn a_table_of_accounts_says_how_full_they_are_and_breaks_no_path() {
        let printer = Printer::new(Format::Human);
        let row = |account: &str, used, limit| AccountUse {
            account: account.to_owned(),
            kind: AccountKind::Budget.into(),
            unit: Unit::GpuSecond.into(),
            used,
            limit,
        };
        let rows = [
            row(&"a".repeat(128), 1_000_000, Some(2_000_000)),
            row("tenant/b/gpu", 7, Some(7)),
            row("tenant/c/gpu", 7, Some(0)),
            row("tenant/d/gpu", 7, None),
        ];
        let text = use_table(&printer, &rows);
        assert!(text.contains(&"a".repeat(128)), "{text}");
        let full: Vec<_> =
            text.lines().skip(1).map(|line| line.split_whitespace().nth(2).unwrap()).collect();
        assert_eq!(full, ["50", "100", "-", "-"], "{text}");
        let bare = use_table(&printer, &[row("tenant/d/gpu", 7, None)]);
        let dashes = bare.split_whitespace().filter(|word| *word == "-").count();
        assert!(!bare.contains("LIMIT") && dashes == 0, "{bare}");
    }
}
