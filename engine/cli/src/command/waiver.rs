//! `placet waiver`: signing exceptions, and looking at them.

use std::collections::BTreeSet;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand, ValueEnum};
use placet_core::{
    APPROVAL_VERSION, Code, Id, Lift, MAX_APPROVAL_BYTES, SubjectKind, WaiverClaims, WaiverScope,
    approval_signer, read_approval, sign_approval, utc,
};
use placet_policy::Approvers;
use placet_server::Clock;
use serde_json::json;

use super::bundle::read_key;
use super::ledger::reserve::{duration, time};
use crate::exit::{Exit, Failure};
use crate::print::{self, Printer, Tone, plain};

/// `aud` where nobody names a deployment: the default issuer of a server.
pub(super) const DEFAULT_ISSUER: &str = "placet";
/// How long a waiver may be used unless somebody says otherwise.
const DEFAULT_FOR: &str = "24h";

const AFTER_HELP: &str = "\
A waiver is a signed exception: for named tenants, for a while, it lifts named
denials of policies that let them be lifted (`level: overridable` in the
bundle). The server's file of approvers says who may waive what. A request
brings its waivers; one that is not good for it denies it. Each use stands in
the decision and in the log.

Examples:
  placet waiver sign --help
  placet waiver show --approvers approvers.yaml w-2026-17.waiver";

/// The one that clap makes does not fit a terminal.
const SIGN_USAGE: &str = "placet waiver sign [OPTIONS] --key <FILE> --id <ID> --tenant <ID> ...";

const SIGN_EXAMPLES: &str = "\
The waiver is written to standard output: put it into `waivers` of the request,
or give its file to `placet admit --waiver`. Who asked for it and who approves
it are two. Nothing in it may name a person: it is logged for ever.

With --approvers, what a server would refuse is refused at once: what the key
may not waive, an approver who is not known, or who asked for it as well.

Examples:
  placet waiver sign --key duty.pkcs8 --id w-2026-17 --tenant acme \\
    --lift compliance/ATTESTATION_EXPIRED --for 7d --uses 3 --max-gpus 16 \\
    --requested-by ops --approved-by duty --reason \"CHG-1887: report is late\" \\
    > w-2026-17.waiver
  placet admit --waiver w-2026-17.waiver request.json";

const SHOW_EXAMPLES: &str = "\
Without --approvers it is only read: whoever has it may have made it. With the
server's file of approvers its signature, its key and what the key may waive are
checked, as of now or --at. Exit code 1 if it would be refused.

How often it was used, the server's log knows: `placet log list --kind waiver`
has its first use, and each decision names the waivers that it used.

Examples:
  placet waiver show w-2026-17.waiver
  placet waiver show --approvers approvers.yaml --format json - < w-2026-17.waiver";

/// Sign exceptions that lift denials, and look at them
#[derive(Debug, Args)]
#[command(subcommand_required = true, arg_required_else_help = true, after_help = AFTER_HELP)]
pub(crate) struct WaiverArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    Sign(Box<SignArgs>),
    Show(ShowArgs),
}

/// A kind of subject.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Kind {
    /// GPUs for a while
    Lease,
    /// A program that runs
    Job,
}

impl From<Kind> for SubjectKind {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Lease => Self::Lease,
            Kind::Job => Self::Job,
        }
    }
}

/// Sign a waiver
#[derive(Debug, Args)]
#[command(after_help = SIGN_EXAMPLES, override_usage = SIGN_USAGE)]
struct SignArgs {
    /// File of the approver's private key, as `placet keys generate` writes it
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// Name of the waiver, given to no other
    #[arg(long, value_name = "ID", value_parser = id)]
    id: Id,
    /// Tenant that may use it; repeat for several
    #[arg(long, value_name = "ID", value_parser = id, required = true)]
    tenant: Vec<Id>,
    /// Cluster where it may be used; repeat for several [default: all that the key may]
    #[arg(long, value_name = "ID", value_parser = id)]
    cluster: Vec<Id>,
    /// Kind of subject that it is for [default: both]
    #[arg(long, value_enum)]
    kind: Vec<Kind>,
    /// Denial that it lifts; repeat for several
    #[arg(long, value_name = "POLICY/CODE", value_parser = lift, required = true)]
    lift: Vec<Lift>,
    /// First second of use, in UTC [default: now]
    #[arg(long, value_name = "TIME", value_parser = time)]
    from: Option<u64>,
    /// First second after, in UTC
    #[arg(long, value_name = "TIME", value_parser = time, conflicts_with = "length")]
    until: Option<u64>,
    /// For how long, such as 7d; at most 90d
    #[arg(long = "for", value_name = "DURATION", value_parser = duration,
          default_value = DEFAULT_FOR)]
    length: u64,
    /// Permits that it may lift denials of, 1 to 1000
    #[arg(long, value_name = "N", default_value_t = 1)]
    uses: u32,
    /// Most GPUs of a request
    #[arg(long, value_name = "N")]
    max_gpus: Option<u32>,
    /// Longest request, such as 30d
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    max_duration: Option<u64>,
    /// Who asked for it
    #[arg(long, value_name = "NAME", value_parser = id)]
    requested_by: Id,
    /// Who approves it: the name in the server's file of approvers
    #[arg(long, value_name = "NAME", value_parser = id)]
    approved_by: Id,
    /// Issuer of the decisions of the server that it is for
    #[arg(long, env = "PLACET_ISSUER", value_name = "NAME", default_value = DEFAULT_ISSUER)]
    issuer: String,
    /// Why: a ticket or a sentence that names no person
    #[arg(long, value_name = "TEXT")]
    reason: String,
    /// When it is signed, in UTC, for servers whose clock is the events [default: now]
    #[arg(long, value_name = "TIME", value_parser = time)]
    at: Option<u64>,
    /// The server's file of approvers, to refuse what it would refuse
    #[arg(long, env = "PLACET_APPROVERS", value_name = "FILE")]
    approvers: Option<PathBuf>,
}

/// Tell what a waiver says
#[derive(Debug, Args)]
#[command(after_help = SHOW_EXAMPLES)]
struct ShowArgs {
    /// File of the waiver; `-` is standard input
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The server's file of approvers, against which it is checked
    #[arg(long, env = "PLACET_APPROVERS", value_name = "FILE")]
    approvers: Option<PathBuf>,
    /// Issuer of the decisions of the server that it is for, with --approvers
    #[arg(long, env = "PLACET_ISSUER", value_name = "NAME", default_value = DEFAULT_ISSUER)]
    issuer: String,
    /// As of when it is checked, in UTC [default: now]
    #[arg(long, value_name = "TIME", value_parser = time)]
    at: Option<u64>,
}

pub(super) fn run(args: &WaiverArgs, printer: &mut Printer) -> Result<Exit, Failure> {
    match &args.action {
        Action::Sign(args) => sign(args, printer),
        Action::Show(args) => show(args, printer),
    }
}

/// An id on the command line.
pub(super) fn id(text: &str) -> Result<Id, String> {
    Id::new(text).map_err(|error| error.to_string())
}

fn lift(text: &str) -> Result<Lift, String> {
    let wrong = || "write it as POLICY/CODE, such as quota/DURATION_ABOVE_MAXIMUM".to_owned();
    let (policy, code) = text.split_once('/').ok_or_else(wrong)?;
    let policy = Id::new(policy).map_err(|error| format!("its policy {error}"))?;
    let code = Code::new(code).map_err(|error| format!("its code {error}"))?;
    Ok(Lift { code, policy })
}

fn sign(args: &SignArgs, printer: &mut Printer) -> Result<Exit, Failure> {
    let key = read_key(&args.key)?;
    let now = args.at.unwrap_or_else(Clock::now);
    let nbf = args.from.unwrap_or(now);
    let scope = WaiverScope {
        clusters: args.cluster.iter().cloned().collect(),
        kinds: args.kind.iter().copied().map(SubjectKind::from).collect(),
        tenants: args.tenant.iter().cloned().collect(),
    };
    let claims = WaiverClaims {
        approved_by: args.approved_by.clone(),
        aud: args.issuer.clone(),
        exp: args.until.unwrap_or_else(|| nbf.saturating_add(args.length)),
        iat: now,
        jti: args.id.clone(),
        lifts: args.lift.iter().cloned().collect::<BTreeSet<_>>(),
        max_duration_seconds: args.max_duration,
        max_gpu_count: args.max_gpus,
        nbf,
        placet: APPROVAL_VERSION,
        reason: args.reason.clone(),
        requested_by: args.requested_by.clone(),
        scope,
        uses: args.uses,
    };
    if claims.requested_by == claims.approved_by {
        return Err(Failure::usage("who asks for a waiver does not approve it")
            .hint("have it signed by somebody else, and name who asked with --requested-by"));
    }
    let token = sign_approval(&key, &claims)
        .map_err(|error| Failure::from_error(&error).subject("the waiver"))?;
    if let Some(path) = &args.approvers {
        check(path, &args.issuer, &token, nbf)?;
    }
    if printer.json() {
        let line = json!({"waiver": token, "claims": claims, "kid": key.id().as_str()});
        printer.data(&line.to_string())?;
    } else {
        printer.data(&token)?;
        printer.note(&format!("signed by {}, good until {}", key.id(), utc(claims.exp)));
    }
    Ok(Exit::Done)
}

/// Holds a waiver against the approvers of a server.
fn check(path: &Path, issuer: &str, token: &str, time: u64) -> Result<WaiverClaims, Failure> {
    let approvers = Approvers::load(path, issuer).map_err(|error| Failure::from_error(&error))?;
    approvers.check_waiver(token, time).map_err(|refusal| {
        Failure::from_error(&refusal)
            .context(format!("the server would refuse it, {}", refusal.code))
    })
}

/// The one token of a file, or of standard input.
///
/// # Errors
/// It cannot be read, or is longer than a token of its kind.
pub(crate) fn read_token(path: &Path) -> Result<String, Failure> {
    let shown = path.display();
    let failed = |error: std::io::Error| Failure::new(format!("cannot read `{shown}`: {error}"));
    let most = MAX_APPROVAL_BYTES.saturating_mul(2);
    let limit = u64::try_from(most).unwrap_or(u64::MAX);
    let mut text = String::new();
    if path.as_os_str() == "-" {
        std::io::stdin().take(limit).read_to_string(&mut text).map_err(failed)?;
    } else {
        let file = std::fs::File::open(path).map_err(failed)?;
        file.take(limit).read_to_string(&mut text).map_err(failed)?;
    }
    let token = text.trim();
    if token.is_empty() || token.len() > MAX_APPROVAL_BYTES {
        return Err(Failure::new(format!("`{shown}` holds no waiver"))
            .hint("give the file that `placet waiver sign` wrote"));
    }
    Ok(token.to_owned())
}

fn show(args: &ShowArgs, printer: &mut Printer) -> Result<Exit, Failure> {
    let token = read_token(&args.file)?;
    let unreadable = |error: placet_core::ApprovalError| {
        Failure::from_error(&error).subject(&format!("`{}`", args.file.display()))
    };
    let claims: WaiverClaims = read_approval(&token).map_err(unreadable)?;
    let kid = approval_signer::<WaiverClaims>(&token).map_err(unreadable)?;
    let time = args.at.unwrap_or_else(Clock::now);
    let checked = args.approvers.as_deref().map(|path| check(path, &args.issuer, &token, time));
    let (word, tone) = match &checked {
        None => ("not checked", Tone::Warn),
        Some(Ok(_)) => ("good", Tone::Good),
        Some(Err(_)) => ("refused", Tone::Bad),
    };
    if printer.json() {
        let line = json!({"claims": claims, "kid": kid, "checked": word});
        printer.data(&line.to_string())?;
    } else {
        let word = printer.tone(tone, word);
        printer.data(&format!("waiver {}, {word}", claims.jti))?;
        printer.data(&table(&claims, &kid))?;
    }
    match checked {
        Some(Err(refused)) => Err(refused),
        Some(Ok(_)) => Ok(Exit::Done),
        None => {
            printer.note("nothing of it was checked: give the server's file with --approvers");
            Ok(Exit::Done)
        }
    }
}

fn table(claims: &WaiverClaims, kid: &str) -> String {
    let WaiverClaims { approved_by, aud, exp, iat, lifts, nbf, reason, requested_by, .. } = claims;
    let names = |ids: &BTreeSet<Id>, none: &str| match ids.is_empty() {
        true => none.to_owned(),
        false => ids.iter().map(Id::as_str).collect::<Vec<_>>().join(" "),
    };
    let mut table = print::pairs();
    let mut row = |name: &str, value: &str| {
        table.add_row([format!("  {name}"), value.to_owned()]);
    };
    for lift in lifts {
        row("lifts", &format!("{} of {}", lift.code, lift.policy));
    }
    row("for", &names(&claims.scope.tenants, ""));
    row("on", &names(&claims.scope.clusters, "every cluster that its key may"));
    for kind in &claims.scope.kinds {
        row("kind", kind.as_str());
    }
    row("uses", &format!("{}, one a permit", claims.uses));
    if let Some(most) = claims.max_gpu_count {
        row("at most", &format!("{most} GPUs"));
    }
    if let Some(most) = claims.max_duration_seconds {
        row("at most", &format!("{most} s"));
    }
    row("from", &utc(*nbf).to_string());
    row("until", &utc(*exp).to_string());
    row("asked by", requested_by.as_str());
    row("approved", &format!("by {approved_by} at {}", utc(*iat)));
    row("key", &plain(kid));
    row("server", &plain(aud));
    row("reason", &plain(reason));
    table.trim_fmt()
}
