//! `placet log erase`: the personal values of one person.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use clap::Args;
use placet_proto::control::v1::control_service_client::ControlServiceClient;
use placet_proto::control::v1::{ErasePersonalRequest, ErasePersonalResponse};
use placet_proto::json;
use placet_server::store::OpenError;
use placet_server::{EraseError, Erased, Person, erase_personal};

use crate::connection::{ServerArgs, block_on, channel, status_failure};
use crate::exit::{Exit, Failure};
use crate::print::Printer;

/// Most bytes that are read of a subject: more than any has, and it is told how long it is.
const MAX_SUBJECT_BYTES: u64 = 4_096;

const EXAMPLES: &str = "\
Values go from the store's file and cannot be had back. The log has salted
commitments alone: it and every proof stay as they are, and the log tells that
values were erased, by whom and of how many decisions, not of which. Decisions
made while it runs may be missed: run it when the person's access has ended.

Backups that were made before keep what they have. With --store it is erased in
such a copy, or in the store of a server that is stopped; that log is left as it
is. What was shown before, and files written from it, is elsewhere.

Two tenants may name two people alike: --tenant erases for one of them. Two
identity providers of one tenant may, too: both are erased. A name on the
command line is in the shell's history, one from standard input is not.

Examples:
  placet log erase --subject ada@acme.example --dry-run
  placet log erase --subject ada@acme.example --tenant acme
  placet log erase --subject - < name.txt
  placet log erase --subject ada@acme.example --store copies/placet.db";

/// Erase what is kept of a person beside the log
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct EraseArgs {
    /// The person, as `principal.subject` of the requests; - reads it from standard input
    #[arg(long, value_name = "SUBJECT")]
    subject: String,
    /// Only decisions of this tenant [default: all]
    #[arg(long, value_name = "ID", default_value = "", hide_default_value = true)]
    tenant: String,
    /// Tell what would be erased, and erase nothing
    #[arg(long)]
    dry_run: bool,
    /// File of a store that no server has open, instead of a server
    #[arg(long, value_name = "FILE")]
    store: Option<PathBuf>,
    #[command(flatten)]
    server: ServerArgs,
}

pub(super) fn erase(args: &EraseArgs, printer: &mut Printer) -> Result<Exit, Failure> {
    let subject = match args.subject.as_str() {
        "-" => piped()?,
        subject => subject.to_owned(),
    };
    let erased = match &args.store {
        Some(store) => in_store(store, &subject, args)?,
        None => by_server(subject, args)?,
    };
    let ErasePersonalResponse { decisions, size, pending } = erased;
    if printer.json() {
        printer.data(&json::to_json(&erased).to_string())?;
    } else {
        let what = if args.dry_run { "would be erased" } else { "erased" };
        let noun = if decisions == 1 { "decision" } else { "decisions" };
        printer.data(&format!("values of {decisions} {noun} {what}, {size} leaves looked at"))?;
    }
    if pending {
        printer.note(
            "the write-ahead log beside the store still has them, because something reads the \
             store; it is emptied as soon as nothing does: run this again to be told",
        );
    }
    if decisions == 0 {
        printer.note("nothing is kept of that subject");
    }
    Ok(Exit::Done)
}

/// What standard input holds, less the end of its line.
fn piped() -> Result<String, Failure> {
    let failed = |error| Failure::new(format!("cannot read standard input: {error}"));
    let mut text = String::new();
    std::io::stdin().take(MAX_SUBJECT_BYTES).read_to_string(&mut text).map_err(failed)?;
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}

fn by_server(subject: String, args: &EraseArgs) -> Result<ErasePersonalResponse, Failure> {
    let (tenant_id, dry_run) = (args.tenant.clone(), args.dry_run);
    block_on(async {
        let mut client = ControlServiceClient::new(channel(&args.server).await?);
        let request = ErasePersonalRequest { subject, tenant_id, dry_run };
        let answer = client.erase_personal(request).await;
        Ok(answer.map_err(|status| status_failure(&status))?.into_inner())
    })
}

fn in_store(
    path: &Path,
    subject: &str,
    args: &EraseArgs,
) -> Result<ErasePersonalResponse, Failure> {
    let person = Person::new(subject, &args.tenant).map_err(|error| Failure::from_error(&error))?;
    let store = path.display();
    let erased = erase_personal(path, &person, args.dry_run).map_err(|error| match &error {
        EraseError::Open(OpenError::InUse { holder }) => {
            Failure::new(format!("the store `{store}` is in use by {holder}"))
                .hint("leave out --store, and the server is asked")
        }
        EraseError::Open(cause) => {
            Failure::from_error(cause).subject(&format!("the store `{store}`"))
        }
        _ => Failure::from_error(&error).context(format!("in the store `{store}`")),
    })?;
    let Erased { decisions, size, is_pending } = erased;
    Ok(ErasePersonalResponse { decisions, size, pending: is_pending })
}
