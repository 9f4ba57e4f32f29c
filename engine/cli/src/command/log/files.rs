//! `placet log verify` and `placet log export`: the log in a store or in a directory.

use std::path::{Path, PathBuf};

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use placet_core::{
    Checkpoint, Cosignature, KeySet, MAX_CHECKPOINT_BYTES, Verifier, VerifyingKey, Walked, utc,
};
use placet_policy::Approvers;
use placet_server::{LogExpect, LogSource, default_threads, export_log, verify_log};

use crate::exit::{Exit, Failure};
use crate::jwks_source;
use crate::log_key::{self, read_file};
use crate::print::{self, Printer};
use crate::witnesses::{self, Quorum, WitnessArgs};

const VERIFY_EXAMPLES: &str = "\
Reads every leaf, and checks: that it is well-formed and spelled in the one way
that the log spells it; the signature of each decision and each order of
eviction, against the keys of the issuer at the time of its issue; every stored
hash of the tree; the newest checkpoint; and that the log continues each
checkpoint that is given with --seen. Needs public keys alone, uses all cores,
and little memory however long the log is. What the leaves add up to, quotas
among it, is for `placet ledger verify`.

--log-key is what `placet keys log` printed: its text, or a file that holds it.
Get it, and the JWK set, from whoever runs the server by another way than the
log. Keep the checkpoint that was verified, and give it with --seen the next
time: then a log that was cut back or written anew in between is found out.

With --witness, those that it names must have cosigned the newest checkpoint, or
one that is given with --seen: the newest is often too new. What is behind it is
told. `placet log checkpoint --witnesses COUNT` asks a server for such a one.

Leaves of a store that are behind its newest checkpoint are checked as well, but
nobody has signed yet that they are the log: how many is told.

With --approvers the signatures of waivers, freezes and thaws are checked too:
give the file with every key that ever approved, and when each signed.

After a key was revoked, give all keys that ever were: `placet keys jwks
--history` prints them; the set that a server publishes has no revoked ones.

Exit code: 0 what is published is whole, 1 it is not, or it cannot be read. What
is wrong is named with its place.

Examples:
  placet log verify --store placet.db --jwks jwks.json --log-key log.key
  placet log verify --directory mirror/ --jwks jwks.json --log-key log.key \\
    --seen last-week.checkpoint --format json";

const EXPORT_EXAMPLES: &str = "\
Writes what the newest checkpoint counts as static files in the layout of C2SP
tlog-tiles: `checkpoint`, `tile/entries/...` with the leaves, `tile/<level>/...`
with the hashes. Any web server can serve them, and any tool of that family
read them; a running server serves the same under /log/ of its HTTP address.

The store may be in use. Run again, only what is new is written, and the
checkpoint last; a directory that holds another log is refused.

The leaves have no personal values, only commitments to them.

Examples:
  placet log export --store placet.db --to mirror/
  placet log verify --directory mirror/ --jwks jwks.json --log-key log.key";

/// Check a whole log with public keys alone
#[derive(Debug, Args)]
#[command(after_help = VERIFY_EXAMPLES)]
pub(super) struct VerifyArgs {
    /// File of the store, which a server may have open
    #[arg(long, env = "PLACET_STORE", value_name = "FILE", default_value = "placet.db")]
    store: PathBuf,
    /// Directory of static files, looked at in place of a store
    #[arg(long, value_name = "DIR")]
    directory: Option<PathBuf>,
    /// Key of the log's checkpoints, as `placet keys log` prints it, or a file of it
    #[arg(long, env = "PLACET_LOG_KEY", value_name = "KEY|FILE")]
    log_key: String,
    /// JWK set of the issuer: a file, or an http URL on this machine
    #[arg(
        long,
        env = "PLACET_JWKS",
        value_name = "FILE|URL",
        default_value = "http://127.0.0.1:7480"
    )]
    jwks: String,
    /// Who must have issued the decisions [default: the name of the log]
    #[arg(long, env = "PLACET_ISSUER", value_name = "NAME")]
    issuer: Option<String>,
    /// File of all approvers that ever were: the signatures of waivers, freezes and thaws are
    /// checked too
    #[arg(long, env = "PLACET_APPROVERS", value_name = "FILE")]
    approvers: Option<PathBuf>,
    /// A checkpoint that was seen before, which the log must continue: a file
    #[arg(long, value_name = "FILE")]
    seen: Vec<PathBuf>,
    /// Threads that check leaves [default: one for each core]
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u16).range(1..=64))]
    threads: Option<u16>,
    #[command(flatten)]
    witnesses: WitnessArgs,
}

/// Write the log as static files
#[derive(Debug, Args)]
#[command(after_help = EXPORT_EXAMPLES)]
pub(super) struct ExportArgs {
    /// File of the store, which a server may have open
    #[arg(long, env = "PLACET_STORE", value_name = "FILE", default_value = "placet.db")]
    store: PathBuf,
    /// Directory of the files, which is made if there is none
    #[arg(long, value_name = "DIR")]
    to: PathBuf,
}

pub(super) fn verify(args: &VerifyArgs, printer: &mut Printer) -> Result<Exit, Failure> {
    let (origin, keys) = log_key::read(&args.log_key)?;
    let quorum = args.witnesses.quorum()?;
    let seen = args.seen.iter().map(|path| read_seen(path, &origin, &keys));
    let (seen, notes): (Vec<_>, Vec<_>) = seen.collect::<Result<Vec<_>, _>>()?.into_iter().unzip();
    let decisions = Verifier::new(jwks_source::read(&args.jwks)?);
    let (what, source) = match &args.directory {
        Some(path) => (path, LogSource::directory(path)),
        None => (&args.store, LogSource::store(&args.store)),
    };
    let failed = |error: &(dyn std::error::Error + 'static)| {
        Failure::from_error(error).context(format!("the log in `{}`", what.display()))
    };
    let source = source.map_err(|error| failed(&error))?;
    let note = source.checkpoint().map_err(|error| failed(&error))?.to_owned();
    let kept = seen.iter().map(|seen| seen.size).zip(notes.iter().map(String::as_str));
    let cosigned = match (&quorum, Checkpoint::verify_any(&note, &origin, &keys)) {
        (Some(quorum), Ok(newest)) => Some(cosigned(quorum, (newest.size, &note), kept)?),
        // What is wrong with the newest one is told below.
        (Some(_), Err(_)) | (None, _) => None,
    };
    let issuer = args.issuer.clone().unwrap_or_else(|| origin.clone());
    let approvers = args.approvers.as_deref().map(|path| approvers(path, &issuer)).transpose()?;
    let expect = LogExpect { origin, keys, decisions, issuer, approvers, seen };
    let threads = args.threads.map_or_else(default_threads, usize::from);
    let bar = bar(source.size(), "leaves");
    let walked = verify_log(&source, expect, threads, |done| bar.set_position(done));
    bar.finish_and_clear();
    let walked = walked.map_err(|error| failed(&error))?;
    show(&walked, &note, cosigned.as_ref(), printer)?;
    let behind = walked.head.size.saturating_sub(walked.published);
    if behind > 0 {
        let what = "verified as far as it is published: the last";
        printer.note(&format!("{what} {behind} leaves are under no checkpoint"));
        printer.hint(
            "nobody has signed yet that these are the log: they count once a server on this store \
             has made its next checkpoint",
        );
    } else {
        printer.note("verified");
    }
    Ok(Exit::Done)
}

/// The keys of all approvers in a file.
fn approvers(path: &Path, issuer: &str) -> Result<KeySet, Failure> {
    let approvers = Approvers::load(path, issuer).map_err(|error| Failure::from_error(&error))?;
    approvers.keys().cloned().ok_or_else(|| {
        Failure::new(format!("`{}` names no approver", path.display()))
            .hint("leave --approvers out if there never was one")
    })
}

pub(super) fn export(args: &ExportArgs, printer: &mut Printer) -> Result<Exit, Failure> {
    let (store, to) = (args.store.display(), args.to.display());
    let bar = bar(0, "files");
    let exported = export_log(&args.store, &args.to, |done, of| {
        bar.set_length(of);
        bar.set_position(done);
    });
    bar.finish_and_clear();
    let exported = exported.map_err(|error| {
        Failure::from_error(&error).context(format!("the log of `{store}` was not exported"))
    })?;
    let (size, before) = (exported.checkpoint.size, exported.before);
    if printer.json() {
        let line = serde_json::json!({
            "origin": exported.checkpoint.origin, "size": size,
            "root": exported.checkpoint.root.to_string(), "before": before,
            "files": exported.files,
        });
        printer.data(&line.to_string())?;
    } else {
        printer.data(&format!("root {}", exported.checkpoint.root))?;
        let mut table = print::pairs();
        table.add_row(["log", &exported.checkpoint.origin]);
        table.add_row(["leaves", &format!("{size}, of which {before} were there before")]);
        table.add_row(["files", &format!("{} written", exported.files)]);
        printer.data(&table.trim_fmt())?;
    }
    printer.note(&format!("exported to {to}"));
    Ok(Exit::Done)
}

/// The largest checkpoint that enough witnesses cosigned.
#[derive(Debug)]
struct Cosigned {
    /// Leaves.
    size: u64,
    cosignatures: Vec<Cosignature>,
}

/// Looks for it among checkpoints: the newest of the log, and those that were kept.
///
/// # Errors
/// What the newest one lacks, if none is it.
fn cosigned<'a>(
    quorum: &Quorum,
    newest: (u64, &'a str),
    kept: impl Iterator<Item = (u64, &'a str)>,
) -> Result<Cosigned, Failure> {
    let of = |(size, note)| quorum.of(note).map(|cosignatures| Cosigned { size, cosignatures });
    let kept = kept.filter_map(|kept| of(kept).ok()).max_by_key(|cosigned| cosigned.size);
    match (of(newest), kept) {
        (Ok(newest), Some(kept)) if kept.size > newest.size => Ok(kept),
        (Ok(cosigned), _) | (Err(_), Some(cosigned)) => Ok(cosigned),
        (Err(lacks), None) => Err(lacks.hint("or give one that has them with --seen")),
    }
}

fn show(
    walked: &Walked,
    note: &str,
    cosigned: Option<&Cosigned>,
    printer: &mut Printer,
) -> Result<(), Failure> {
    let Walked { head, published, decisions, orders, approvals, times, checkpoints } = walked;
    if printer.json() {
        let line = serde_json::json!({
            "size": head.size, "published": published, "root": head.root.to_string(),
            "decisions": decisions, "orders": orders, "approvals": approvals,
            "first": times.map(|(first, _)| first),
            "last": times.map(|(_, last)| last), "checkpoints": checkpoints, "checkpoint": note,
            "cosigned": cosigned.map(|cosigned| cosigned.size),
            "cosignatures": cosigned.map(|it| witnesses::to_json(&it.cosignatures)),
        });
        return printer.data(&line.to_string());
    }
    printer.data(&format!("root {}", head.root))?;
    let mut table = print::pairs();
    table.add_row(["leaves", &format!("{}, {published} of them published", head.size)]);
    table.add_row(["signed", &format!("{decisions} decisions, {orders} orders of eviction")]);
    if *approvals > 0 {
        table.add_row(["approved", &format!("{approvals} waivers, freezes and thaws")]);
    }
    if let Some((first, last)) = times {
        table.add_row(["time", &format!("{} to {}", utc(*first), utc(*last))]);
    }
    table.add_row(["checkpoints", &format!("{checkpoints}, all of them continued")]);
    if let Some(Cosigned { size, cosignatures }) = cosigned {
        table.add_row(["cosigned", &format!("{size} of the leaves")]);
        for cosignature in cosignatures {
            table.add_row(["", &witnesses::to_text(cosignature)]);
        }
    }
    printer.data(&table.trim_fmt())
}

fn read_seen(
    path: &Path,
    origin: &str,
    keys: &[VerifyingKey],
) -> Result<(Checkpoint, String), Failure> {
    let note = read_file(path, MAX_CHECKPOINT_BYTES)?;
    match Checkpoint::verify_any(&note, origin, keys) {
        Ok(checkpoint) => Ok((checkpoint, note)),
        Err(error) => Err(Failure::from_error(&error).subject(&format!("`{}`", path.display()))),
    }
}

/// A bar on standard error, if that is a terminal.
fn bar(length: u64, unit: &str) -> ProgressBar {
    let template = format!("{{bar:32}} {{pos}}/{{len}} {unit}  {{per_sec}}  {{eta}} left");
    let style =
        ProgressStyle::with_template(&template).expect("the template is one of a progress bar");
    ProgressBar::new(length).with_style(style)
}
