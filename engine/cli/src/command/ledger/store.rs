//! `placet ledger verify` and `placet ledger backup`: the store's file itself.

use std::path::PathBuf;

use clap::Args;
use placet_core::utc;
use placet_proto::json;
use placet_proto::ledger::v1::AccountUse;
use placet_server::convert::account_use;
use placet_server::store::{CopyError, OpenError};
use placet_server::{BackupError, SnapshotFound, Verified, VerifyError};

use super::use_table;
use crate::exit::{Exit, Failure};
use crate::print::{self, Printer};

const VERIFY_EXAMPLES: &str = "\
Folds the log from its first leaf on, checks every invariant of the ledger on
the way, the pages and indices of the file, and that each decision is
found by its request with the evidence that it names. A snapshot beside the file
is compared with what the log folds to. Changes nothing, and needs that no
server has the store open: make a copy with `placet ledger backup`, and verify
that, while one runs.

Signatures are not looked at: `placet verify` checks those of single decisions.

Exit code: 0 whole, 1 damaged, or it cannot be read or is in use. What is
damaged is named with its place. Restore such a store from a copy; a snapshot
that is damaged or differs can be deleted at any time.

Examples:
  placet ledger verify --store placet.db
  placet ledger verify --store copies/placet-2026-11-22.db --format json";

const BACKUP_EXAMPLES: &str = "\
Copies what is committed at one instant: the log up to some position, while the
server goes on. The copy is verified, readable by its owner alone, and gets its
name only when it is whole and on the disk; no file is ever replaced. Personal
values that were erased are not in it. It takes as much room as the store.

A copy is the same store: a server that is started on it goes on from there, and
what was decided after the copy is not known to it. Never run both. The signing
keys are no part of it; keep them, by other means.

Examples:
  placet ledger backup --store placet.db --to copies/placet-2026-11-22.db";

/// Check all of a store, while no server runs on it
#[derive(Debug, Args)]
#[command(after_help = VERIFY_EXAMPLES)]
pub(super) struct VerifyArgs {
    /// File of the store
    #[arg(long, env = "PLACET_STORE", value_name = "FILE", default_value = "placet.db")]
    store: PathBuf,
}

/// Copy a store, while a server runs on it or not
#[derive(Debug, Args)]
#[command(after_help = BACKUP_EXAMPLES)]
pub(super) struct BackupArgs {
    /// File of the store
    #[arg(long, env = "PLACET_STORE", value_name = "FILE", default_value = "placet.db")]
    store: PathBuf,
    /// File of the copy, which must not exist
    #[arg(long, value_name = "FILE")]
    to: PathBuf,
}

pub(super) fn verify(args: &VerifyArgs, printer: &mut Printer) -> Result<Exit, Failure> {
    let store = args.store.display();
    let verified = placet_server::verify(&args.store).map_err(|error| match &error {
        VerifyError::Open(OpenError::InUse { holder }) => {
            Failure::new(format!("the store `{store}` is in use by {holder}")).hint(
                "stop it; or make a copy with `placet ledger backup`, which needs no stop, and \
                 verify that",
            )
        }
        VerifyError::Open(_) => {
            Failure::from_error(&error).subject(&format!("the store `{store}`"))
        }
        VerifyError::Snapshot { .. } => Failure::from_error(&error)
            .context(format!("the store `{store}` is whole, the file beside it is not")),
        _ => Failure::from_error(&error).context(format!("the store `{store}` is not whole")),
    })?;
    show(&verified, printer)?;
    printer.note("verified");
    Ok(Exit::Done)
}

pub(super) fn backup(args: &BackupArgs, printer: &mut Printer) -> Result<Exit, Failure> {
    let (store, to) = (args.store.display(), args.to.display());
    let verified = placet_server::backup(&args.store, &args.to).map_err(|error| match &error {
        BackupError::Copy(CopyError::Open(cause)) => {
            Failure::from_error(cause).subject(&format!("the store `{store}`"))
        }
        BackupError::Copy(CopyError::Exists { .. } | CopyError::UnderWay { .. }) => {
            Failure::from_error(&error)
        }
        _ => Failure::from_error(&error).context(format!("no copy of `{store}` was made")),
    })?;
    show(&verified, printer)?;
    printer.note(&format!("copied to {to} and verified"));
    Ok(Exit::Done)
}

fn show(verified: &Verified, printer: &mut Printer) -> Result<(), Failure> {
    let Verified { name, head, high_water, decisions, live, accounts, bytes, snapshot } = verified;
    // Limits are facts, which the store does not hold.
    let accounts: Vec<AccountUse> =
        accounts.iter().map(|it| account_use(it.clone(), None)).collect();
    if printer.json() {
        let accounts: Vec<_> = accounts.iter().map(json::to_json).collect();
        let line = serde_json::json!({
            "store": name, "size": head.size, "root": head.root.to_string(), "time": high_water,
            "decisions": decisions, "reservations": live, "accounts": accounts, "bytes": bytes,
            "snapshot": match snapshot {
                SnapshotFound::Equal { size } => Some(*size),
                SnapshotFound::Absent | SnapshotFound::Foreign { .. } => None,
            },
        });
        return printer.data(&line.to_string());
    }
    printer.data(&format!("store {name}"))?;
    // On a line of its own a digest fits 80 columns, and can be copied.
    printer.data(&format!("root {}", head.root))?;
    let mut table = print::pairs();
    table.add_row(["log", &format!("{} leaves, {decisions} decisions", head.size)]);
    table.add_row(["time", &utc(*high_water)]);
    table.add_row(["reservations", &format!("{live} held")]);
    table.add_row(["accounts", &accounts.len().to_string()]);
    table.add_row(["file", &format!("{bytes} bytes")]);
    match snapshot {
        SnapshotFound::Absent => {}
        SnapshotFound::Equal { size } => {
            table.add_row(["snapshot", &format!("what the first {size} leaves fold to")]);
        }
        SnapshotFound::Foreign { format } => {
            table.add_row(["snapshot", &format!("of format {format}, which is not used")]);
        }
    }
    printer.data(&table.trim_fmt())?;
    if !accounts.is_empty() {
        printer.data(&use_table(printer, &accounts))?;
    }
    Ok(())
}
