//! `placet log show`: one decision with all that is kept of it.

use clap::Args;
use placet_core::utc;
use placet_proto::audit::v1::get_decision_request::Decision;
use placet_proto::audit::v1::{Evidence, GetDecisionRequest, GetDecisionResponse, RequestName};
use placet_proto::json;
use serde_json::Value;

use super::connect;
use crate::answer;
use crate::connection::{ServerArgs, block_on, status_failure};
use crate::exit::{Exit, Failure};
use crate::print::{Printer, plain};
use crate::proof;

const EXAMPLES: &str = "\
A decision is named by its id, by that of its reservation, by its position in
the log, or by the request that it answers. Personal values, such as who asked,
are kept apart from the log: an erased one is told to be so.

What is shown is the server's word. `placet verify` checks the token, and a
receipt (`placet log prove`) proves that it is in the log.

Examples:
  placet log show dec-2107b8e7922912419a51bf7e78b3bbd7
  placet log show 1042 --evidence
  placet log show --caller loopback --request-id job-7 --format json";

/// Show a decision with all that is kept of it
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct ShowArgs {
    /// Id of a decision or of its reservation, or a position of the log
    #[arg(
        value_name = "ID_OR_POSITION",
        required_unless_present = "request_id",
        conflicts_with = "request_id"
    )]
    what: Option<String>,
    /// Who asked, with --request-id
    #[arg(long, value_name = "NAME", requires = "request_id")]
    caller: Option<String>,
    /// The request that the decision answers, with --caller
    #[arg(long, value_name = "ID", requires = "caller")]
    request_id: Option<String>,
    /// Show input and evaluation too
    #[arg(long)]
    evidence: bool,
    #[command(flatten)]
    server: ServerArgs,
}

impl ShowArgs {
    fn named(&self) -> Decision {
        match (&self.what, &self.caller, &self.request_id) {
            (Some(what), _, _) => match what.parse() {
                Ok(position) => Decision::Position(position),
                Err(_no_number) => Decision::Id(what.clone()),
            },
            (None, caller, request_id) => Decision::Request(RequestName {
                caller: caller.clone().unwrap_or_default(),
                request_id: request_id.clone().unwrap_or_default(),
            }),
        }
    }
}

pub(super) fn show(args: &ShowArgs, printer: &mut Printer) -> Result<Exit, Failure> {
    let request = GetDecisionRequest { decision: Some(args.named()), with_evidence: args.evidence };
    let told = block_on(async {
        let mut client = connect(&args.server).await?;
        let told = client.get_decision(request).await;
        Ok(told.map_err(|status| status_failure(&status))?.into_inner())
    })?;
    let text = if printer.json() {
        json::to_json(&told).to_string()
    } else {
        for_a_person(printer, &told)?
    };
    printer.data(&text)?;
    Ok(Exit::Done)
}

fn for_a_person(printer: &Printer, told: &GetDecisionResponse) -> Result<String, Failure> {
    let claims = proof::claims(&told.token)?;
    let card = plain_card(answer::decision_card(printer, &claims));
    let (caller, position) = (plain(&told.caller), told.position);
    let mut lines = vec![
        card,
        format!("  position {position} of the log, decided {} for {caller}", utc(told.time)),
    ];
    for value in &told.personal {
        let path = plain(&value.path);
        lines.push(match value.erased {
            true => format!("  {path} was erased"),
            false => format!("  {path} is {}", plain(&value.value)),
        });
    }
    if let Some(Evidence { input, evaluation }) = &told.evidence {
        let input = input.as_deref().map_or_else(|| Ok("none".to_owned()), pretty)?;
        lines.push(format!("input:\n{input}\nevaluation:\n{}", pretty(evaluation)?));
    }
    lines.push(format!("token:\n{}", plain(&told.token)));
    Ok(lines.join("\n"))
}

/// The card of a decision, without the line feed at its end.
fn plain_card(mut card: String) -> String {
    card.truncate(card.trim_end().len());
    card
}

fn pretty(json: &str) -> Result<String, Failure> {
    let value: Value = serde_json::from_str(json).map_err(|error| {
        Failure::new(format!("the server sent evidence that is no JSON: {error}"))
    })?;
    let text = serde_json::to_string_pretty(&value);
    text.map(|text| plain(&text)).map_err(|error| Failure::from_error(&error))
}
