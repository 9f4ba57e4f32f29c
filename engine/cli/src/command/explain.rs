//! `placet explain`: what would be decided now, and why.

use std::path::PathBuf;

use clap::Args;
use placet_core::{Level, Mode, PolicyVerdict, Reason, Verdict};
use placet_proto::admission::v1::{
    Effect, ExplainRequest, ExplainResponse, StreamRequest, stream_request,
};
use serde::Deserialize;
use serde_json::Value;

use super::waiver::read_token;
use crate::answer;
use crate::connection::{Connection, LocalArgs, ServerArgs, block_on, status_failure};
use crate::events::{Shape, Source};
use crate::exit::{Exit, Failure};
use crate::print::{self, Printer, Tone, plain};

const EXAMPLES: &str = "\
Stores, reserves and signs nothing. JSON holds the input document, every
policy's verdict and the reasons that stand, those of the ledger included.

Examples:
  placet explain request.json
  placet explain --local --bundle policies/reference \\
    --facts policies/reference/facts.yaml request.json
  placet explain --format json request.json";

/// Tell what would be decided now and why, without consequences
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ExplainArgs {
    /// The request as JSON; `-` is standard input
    file: PathBuf,
    /// File of a waiver that the request brings; repeat for several
    #[arg(long, value_name = "FILE")]
    waiver: Vec<PathBuf>,
    #[command(flatten)]
    server: ServerArgs,
    #[command(flatten)]
    local: LocalArgs,
}

pub(super) fn run(args: &ExplainArgs, printer: &mut Printer) -> Result<Exit, Failure> {
    let request = read(args)?;
    let explained = block_on(async {
        let connection = Connection::open(&args.server, &args.local).await?;
        let answer = connection.client().explain(request).await;
        let closed = connection.close().await;
        let answer = answer.map_err(|status| status_failure(&status))?;
        closed.map(|()| answer.into_inner())
    })?;
    let text =
        if printer.json() { as_json(&explained)? } else { for_a_person(printer, &explained)? };
    printer.data(&text)?;
    Ok(if explained.effect() == Effect::Permit { Exit::Done } else { Exit::Denied })
}

fn read(args: &ExplainArgs) -> Result<ExplainRequest, Failure> {
    let mut source = Source::open(&args.file)?;
    let name = source.name().to_owned();
    if source.shape() == Shape::Events {
        return Err(Failure::new(format!("`{name}` holds events, not one request"))
            .hint("pass one request as JSON"));
    }
    let waivers = args.waiver.iter().map(|file| read_token(file)).collect::<Result<Vec<_>, _>>()?;
    source.waive(&waivers)?;
    let line = source.next()?.ok_or_else(|| Failure::new(format!("`{name}` is empty")))?;
    let event: Box<StreamRequest> = line.event.map_err(|error| {
        let place = match (error.line, error.column) {
            (Some(line), Some(column)) => format!("{name}:{line}:{column}"),
            _ => name.clone(),
        };
        Failure::new(error.message).context(place)
    })?;
    match event.event {
        Some(stream_request::Event::Admit(admit)) => Ok(ExplainRequest { admit: Some(admit) }),
        _ => Err(Failure::new(format!("`{name}` asks for no admission"))
            .hint("only admissions are decided by policies")),
    }
}

fn parse(part: &str, json: &str) -> Result<Value, Failure> {
    if json.is_empty() {
        return Ok(Value::Null);
    }
    serde_json::from_str(json)
        .map_err(|error| Failure::new(format!("the server's `{part}` is unreadable: {error}")))
}

fn as_json(explained: &ExplainResponse) -> Result<String, Failure> {
    let whole = serde_json::json!({
        "effect": explained.effect().as_str_name(),
        "input": parse("input", &explained.input)?,
        "evaluation": parse("evaluation", &explained.evaluation)?,
        "reasons": parse("reasons", &explained.reasons)?,
    });
    Ok(whole.to_string())
}

fn for_a_person(printer: &Printer, explained: &ExplainResponse) -> Result<String, Failure> {
    let reasons: Vec<Reason> = serde_json::from_value(parse("reasons", &explained.reasons)?)
        .map_err(|error| Failure::new(format!("the server's `reasons` are unreadable: {error}")))?;
    let evaluation = parse("evaluation", &explained.evaluation)?;
    let effect = match explained.effect() {
        Effect::Permit => printer.tone(Tone::Good, "PERMIT"),
        _ => printer.tone(Tone::Bad, "DENY"),
    };
    let mut parts = vec![format!("{effect}  if it were asked now")];
    let candidates = evaluation.get("candidates").and_then(Value::as_array);
    for candidate in candidates.into_iter().flatten() {
        let candidate: Candidate = serde_json::from_value(candidate.clone()).map_err(|error| {
            Failure::new(format!("the server's `evaluation` is unreadable: {error}"))
        })?;
        parts.push(policies(&candidate.gpu_model, &candidate.verdicts));
    }
    if !reasons.is_empty() {
        let mut table = print::pairs();
        for reason in &reasons {
            table.add_row(["because", &answer::reason_text(reason)]);
        }
        parts.push(table.trim_fmt());
    }
    Ok(parts.join("\n\n"))
}

/// One GPU model that was tried, and what the policies said of it.
#[derive(Deserialize)]
struct Candidate {
    gpu_model: String,
    verdicts: Vec<PolicyVerdict>,
}

/// What policies said of a GPU model, as a table under its name.
pub(super) fn policies(gpu_model: &str, verdicts: &[PolicyVerdict]) -> String {
    let mut table = print::table(["POLICY", "VERDICT", "CLAIMS, REASONS, DUTIES"]);
    for verdict in verdicts {
        table.add_row([policy_name(verdict), verdict_name(verdict.verdict), details(verdict)]);
    }
    format!("with {}:\n{}", plain(gpu_model), table.trim_fmt())
}

fn policy_name(verdict: &PolicyVerdict) -> String {
    let level = match verdict.level {
        Level::Mandatory => "",
        Level::Overridable => "overridable",
        Level::Advisory => "advisory",
    };
    let mode = match verdict.mode {
        Mode::Enforce => "",
        Mode::Shadow => "shadow",
    };
    let notes: Vec<_> = [level, mode].into_iter().filter(|note| !note.is_empty()).collect();
    match notes.as_slice() {
        [] => verdict.policy.to_string(),
        notes => format!("{} ({})", verdict.policy, notes.join(", ")),
    }
}

fn verdict_name(verdict: Verdict) -> String {
    match verdict {
        Verdict::Permit => "permit",
        Verdict::Deny => "deny",
        Verdict::NotApplicable => "not applicable",
        Verdict::Indeterminate => "indeterminate",
    }
    .to_owned()
}

fn details(verdict: &PolicyVerdict) -> String {
    let claims = verdict.claims.iter().map(|claim| {
        let limit = claim.limit.map(|limit| format!(", at most {limit}")).unwrap_or_default();
        format!("claims {} on {}{limit}", claim.amount, claim.account)
    });
    let reasons = verdict.reasons.iter().map(|it| format!("{}: {}", it.code, it.message));
    let duties = verdict.obligations.iter().map(|it| format!("duty {}", it.id));
    let warnings = verdict.warnings.iter().map(|it| format!("warns {}: {}", it.code, it.message));
    let lines: Vec<_> = verdict
        .error
        .clone()
        .into_iter()
        .chain(reasons)
        .chain(claims)
        .chain(duties)
        .chain(warnings)
        .collect();
    plain(&lines.join("\n"))
}
