//! Answers of the server, for a person and as JSON.

use placet_core::{Charge, Decision, Effect, MAX_AMOUNT, Reason, Unit, utc};
use placet_proto::admission::v1::{AdmitResponse, Error, ReservationState, Settlement};
use serde::Serialize;

use crate::events::{INVALID_ARGUMENT, LineError};
use crate::exit::Failure;
use crate::print::{self, Printer, Tone, plain};

/// Columns of the longest result, `NOT_RESERVED`.
const RESULT_WIDTH: usize = 12;
/// Columns of a request id; longer ones push the rest aside.
const REQUEST_WIDTH: usize = 20;

/// A decision as one line of JSON.
#[derive(Debug, Serialize)]
struct DecisionLine<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    line: Option<u64>,
    request_id: &'a str,
    time: u64,
    effect: Effect,
    /// Of an advance reservation only: others start at `time`.
    #[serde(skip_serializing_if = "Option::is_none")]
    start: Option<u64>,
    token: &'a str,
    position: u64,
    codes: Vec<&'a str>,
}

/// A settlement as one line of JSON.
#[derive(Debug, Serialize)]
struct SettlementLine<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    line: Option<u64>,
    request_id: &'a str,
    reservation_id: &'a str,
    state: &'static str,
    epoch: u64,
    time: u64,
    refunded_gpu_seconds: u64,
}

/// An event that was not decided, as one line of JSON.
#[derive(Debug, Serialize)]
struct ErrorLine<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<&'a str>,
    line: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    request_id: Option<&'a str>,
    error: Problem,
}

/// Why an event was not decided.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Problem {
    /// The gRPC status code.
    pub(crate) status: i32,
    /// Stable code.
    pub(crate) code: String,
    /// For a person; the remedy on a line of its own.
    pub(crate) message: String,
    /// Path of the offending field; empty if no one field is at fault.
    pub(crate) field: String,
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        let Error { status, code, message, field } = error;
        Self { status, code, message, field }
    }
}

impl From<&LineError> for Problem {
    fn from(error: &LineError) -> Self {
        Self {
            status: INVALID_ARGUMENT,
            code: error.code.to_owned(),
            message: match error.column {
                Some(column) => format!("column {column}: {}", error.message),
                None => error.message.clone(),
            },
            field: error.field.clone(),
        }
    }
}

/// Where an event stands.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place<'a> {
    /// Name of its file, if several are read.
    pub(crate) file: Option<&'a str>,
    /// Its line, from 1.
    pub(crate) line: u64,
}

fn write(value: &impl Serialize) -> Result<String, Failure> {
    serde_json::to_string(value).map_err(|error| Failure::from_error(&error))
}

/// A decision as one line of JSON; without a line number if it was asked for alone.
///
/// # Errors
/// Never: it holds text and numbers only.
pub(crate) fn decision_json(
    place: Option<Place<'_>>,
    response: &AdmitResponse,
    claims: &Decision,
) -> Result<String, Failure> {
    write(&DecisionLine {
        file: place.and_then(|place| place.file),
        line: place.map(|place| place.line),
        request_id: &response.request_id,
        time: claims.iat,
        effect: claims.effect,
        start: later_start(claims),
        token: &response.token,
        position: response.position,
        codes: codes(claims),
    })
}

/// When work starts that was booked in advance; none if it starts with its decision.
pub(crate) fn later_start(claims: &Decision) -> Option<u64> {
    let start = claims.reservation.as_ref().map(|reservation| reservation.start);
    start.filter(|start| *start > claims.iat)
}

/// The codes of a denial, each once, in the order of the reasons.
pub(crate) fn codes(claims: &Decision) -> Vec<&str> {
    let mut codes: Vec<&str> = Vec::new();
    for reason in &claims.reasons {
        if !codes.contains(&reason.code.as_str()) {
            codes.push(reason.code.as_str());
        }
    }
    codes
}

/// A settlement as one line of JSON; without a line number if it was asked for alone.
///
/// # Errors
/// Never: it holds text and numbers only.
pub(crate) fn settlement_json(
    place: Option<Place<'_>>,
    settlement: &Settlement,
) -> Result<String, Failure> {
    write(&SettlementLine {
        file: place.and_then(|place| place.file),
        line: place.map(|place| place.line),
        request_id: &settlement.request_id,
        reservation_id: &settlement.reservation_id,
        state: state(settlement),
        epoch: settlement.epoch,
        time: settlement.time,
        refunded_gpu_seconds: settlement.refunded_gpu_seconds,
    })
}

/// An event that was not decided, as one line of JSON.
///
/// # Errors
/// Never: it holds text and numbers only.
pub(crate) fn problem_json(
    place: Place<'_>,
    request_id: &str,
    problem: &Problem,
) -> Result<String, Failure> {
    write(&ErrorLine {
        file: place.file,
        line: place.line,
        request_id: Some(request_id).filter(|id| !id.is_empty()),
        error: problem.clone(),
    })
}

/// Name of the state that a settlement led to.
pub(crate) fn state(settlement: &Settlement) -> &'static str {
    ReservationState::try_from(settlement.state)
        .unwrap_or(ReservationState::Unspecified)
        .as_str_name()
}

/// The word for an effect, in its colour.
pub(crate) fn effect(printer: &Printer, effect: Effect) -> String {
    match effect {
        Effect::Permit => printer.tone(Tone::Good, "PERMIT"),
        Effect::Deny => printer.tone(Tone::Bad, "DENY"),
    }
}

/// The same, as wide as a column of results: colour has no width, so the blanks are added apart.
pub(crate) fn effect_column(printer: &Printer, of: Effect) -> String {
    let bare = match of {
        Effect::Permit => "PERMIT".len(),
        Effect::Deny => "DENY".len(),
    };
    format!("{}{}", effect(printer, of), " ".repeat(RESULT_WIDTH - bare))
}

/// The columns of one decision a line.
pub(crate) fn columns(line: &str, result: &str, request: &str, detail: &str) -> String {
    let pad = |text: &str, width: usize| {
        let blanks = width.saturating_sub(text.chars().count());
        format!("{text}{}", " ".repeat(blanks))
    };
    format!("{line:>7}  {}  {}  {detail}", pad(result, RESULT_WIDTH), pad(request, REQUEST_WIDTH))
        .trim_end()
        .to_owned()
}

/// A decision in full.
pub(crate) fn decision_card(printer: &Printer, claims: &Decision) -> String {
    let mut text = format!("{}  {}\n", effect(printer, claims.effect), claims.sub);
    let work = &claims.workload;
    let share = if work.gpu_milli == 1_000 {
        String::new()
    } else {
        format!(", {}/1000 of each", work.gpu_milli)
    };
    let mut table = print::pairs();
    let mut row = |name: &str, value: String| {
        table.add_row([format!("  {name}"), value]);
    };
    row("request", claims.request_id.to_string());
    row("tenant", format!("{}, {}", claims.tenant_id, json_name(&claims.priority_class)));
    row(
        "asked",
        format!(
            "{} x {}{share} on {}, {}",
            work.gpu_count,
            work.gpu_model,
            work.cluster_id,
            json_name(&work.isolation_level)
        ),
    );
    if let Some(reservation) = &claims.reservation {
        row("reservation", format!("{}, epoch {}", reservation.id, reservation.epoch));
        let ahead = if later_start(claims).is_some() { ", booked in advance" } else { "" };
        row("from", format!("{}{ahead}", utc(reservation.start)));
        row("until", utc(reservation.end));
        row("confirm by", utc(reservation.confirm_by));
        for charge in &reservation.charges {
            row("holds", charge_text(charge));
        }
    }
    for waiver in &claims.waivers {
        row("waived by", waiver.to_string());
    }
    for victim in &claims.evictions {
        let by = utc(victim.evict_by);
        row("displaces", format!("{} of {}, by {by}", victim.reservation, victim.tenant_id));
    }
    for obligation in &claims.obligations {
        let params: Vec<_> =
            obligation.params.iter().map(|(name, value)| format!("{name}={value}")).collect();
        row("obligation", plain(&format!("{} {}", obligation.id, params.join(" "))));
    }
    for warning in &claims.warnings {
        row(
            "warning",
            plain(&format!("{} ({}): {}", warning.code, warning.policy, warning.message)),
        );
    }
    for reason in &claims.reasons {
        row("because", reason_text(reason));
    }
    row("decided", utc(claims.iat));
    row("expires", utc(claims.exp));
    text.push_str(&table.trim_fmt());
    text
}

/// A denial in one paragraph.
pub(crate) fn reason_text(reason: &Reason) -> String {
    let mut text = format!("{} ({}): {}", reason.code, reason.policy, reason.message);
    if let Some(field) = &reason.field {
        text.push_str(&format!(" [{field}]"));
    }
    if let Some(hint) = &reason.hint {
        text.push_str(&format!("\nhint: {hint}"));
    }
    if reason.retry {
        text.push_str("\nthe same request may be admitted later");
    }
    plain(&text)
}

/// An amount and its limit. An account in a tree of quotas has no limit of its own: what it may
/// hold depends on the others.
pub(crate) fn of_limit(amount: u64, limit: u64) -> String {
    if limit == MAX_AMOUNT { amount.to_string() } else { format!("{amount} of {limit}") }
}

fn charge_text(charge: &Charge) -> String {
    let unit = match charge.unit {
        Unit::MilliGpu => "milli-GPU",
        Unit::GpuSecond => "GPU-seconds",
        Unit::Gbps => "Gbit/s",
        Unit::Byte => "bytes",
        Unit::Count => "",
    };
    format!("{} {unit} on {}", of_limit(charge.amount, charge.limit), charge.account)
}

/// The name that an enum has in JSON.
pub(crate) fn json_name(value: &impl Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(name)) => name,
        Ok(_) | Err(_) => String::new(),
    }
}

/// A settlement in full.
pub(crate) fn settlement_card(printer: &Printer, settlement: &Settlement) -> String {
    let mut table = print::pairs();
    table.add_row(["  reservation", &plain(&settlement.reservation_id)]);
    table.add_row(["  epoch", &settlement.epoch.to_string()]);
    table.add_row(["  since", &utc(settlement.time)]);
    if settlement.refunded_gpu_seconds > 0 {
        table.add_row(["  refunded", &format!("{} GPU-seconds", settlement.refunded_gpu_seconds)]);
    }
    format!("{}\n{}", printer.tone(Tone::Strong, state(settlement)), table.trim_fmt())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_told_only_where_there_is_one() {
        assert_eq!(of_limit(1, 2), "1 of 2");
        assert_eq!(of_limit(1, MAX_AMOUNT), "1");
    }
}
