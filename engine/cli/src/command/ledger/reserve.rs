//! `placet ledger reserve`: an operator books capacity.

use std::time::{Duration, UNIX_EPOCH};

use clap::{Args, ValueEnum};
use placet_core::{Effect, MAX_DURATION_SECONDS, MAX_GPU_COUNT};
use placet_proto::admission::v1::{
    AdmitRequest, AdmitResponse, IsolationLevel, Lease, PriorityClass, admit_request,
};
use tonic::Code;

use crate::answer;
use crate::connection::{Client, Connection, ServerArgs, block_on, status_failure};
use crate::exit::{Exit, Failure};
use crate::print::{Printer, plain};
use crate::proof;
use crate::settle::{Target, Verb, made_id, send};

/// Bytes of a request id that nobody gave: enough that two are never the same.
const ID_BYTES: usize = 16;
/// Units whose length is an average: `1M` is too easily meant as a minute.
const VAGUE_UNITS: [&str; 7] = ["M", "month", "months", "y", "yr", "year", "years"];

/// Clap's own has more than 80 columns.
const USAGE: &str = "placet ledger reserve --tenant <ID> --cluster <ID> --gpus <N>
                             --gpu-model <MODEL> --for <DURATION> [OPTIONS]";

const EXAMPLES: &str = "\
Books GPUs as a lease, under all policies: own capacity for a training run that
is to come, or GPUs that are taken away for maintenance. From the decision on
nobody else is admitted into it: leases that are sold before it have to end in
time, and their denials say how long they could run.

What is booked ahead waits for its turn. What begins at once may displace sold
leases with --may-preempt, if policies allow it: it then begins when they have
to be gone, after their grace.

The booking is confirmed at once. With --no-confirm it is up to you, within the
deadline in the decision. Give it back with `placet release`.

Exit code: 0 permitted and confirmed, 2 denied, 1 failed, 64 a wrong command
line.

Examples:
  placet ledger reserve --tenant research-foundation --cluster de-fra-1 \\
    --gpus 2000 --gpu-model H100 --start 2026-11-23T06:00:00Z --for 7d
  placet ledger reserve --tenant platform-tools --cluster de-fra-edge \\
    --gpus 4 --gpu-model A100 --for 90m --may-preempt";

/// Book capacity, now or ahead
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES, override_usage = USAGE)]
pub(super) struct ReserveArgs {
    /// Tenant that it is booked for
    #[arg(long, value_name = "ID")]
    tenant: String,
    /// Cluster
    #[arg(long, value_name = "ID")]
    cluster: String,
    /// How many GPUs
    #[arg(long, value_name = "N",
          value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_GPU_COUNT)))]
    gpus: u32,
    /// Model of the GPUs; several times: the preferred first
    #[arg(long, value_name = "MODEL", required = true)]
    gpu_model: Vec<String>,
    /// When it begins, in UTC, such as 2026-11-23T06:00:00Z [default: at once]
    #[arg(long, value_name = "TIME", value_parser = time)]
    start: Option<u64>,
    /// How long it is: seconds, or such as 7d, 90m, 1h30m
    #[arg(long = "for", value_name = "DURATION", value_parser = duration)]
    seconds: u64,
    /// Priority class
    #[arg(long, value_enum, value_name = "CLASS", default_value_t = Class::Internal)]
    class: Class,
    /// How far it is kept apart from its neighbours
    #[arg(long, value_enum, value_name = "LEVEL", default_value_t = Isolation::Passthrough)]
    isolation: Isolation,
    /// Displace sold leases if there is no room; not with --start
    #[arg(long)]
    may_preempt: bool,
    /// Leave it to be confirmed
    #[arg(long)]
    no_confirm: bool,
    /// Names this attempt: given again, it gets the first answer [default: random]
    #[arg(long, value_name = "ID")]
    request_id: Option<String>,
    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Class {
    /// The owner's own work
    Internal,
    /// Sold capacity: stays out of the safety buffer
    External,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Isolation {
    /// GPUs time-sliced between tenants
    Shared,
    /// Slices of GPUs
    Partitioned,
    /// Whole GPUs on shared hosts
    Passthrough,
    /// Whole hosts
    Dedicated,
    /// Whole hosts with encrypted memory and remote attestation
    Confidential,
}

impl Isolation {
    fn level(self) -> IsolationLevel {
        match self {
            Self::Shared => IsolationLevel::Shared,
            Self::Partitioned => IsolationLevel::Partitioned,
            Self::Passthrough => IsolationLevel::Passthrough,
            Self::Dedicated => IsolationLevel::Dedicated,
            Self::Confidential => IsolationLevel::Confidential,
        }
    }
}

/// Seconds since 1970-01-01 UTC.
pub(in crate::command) fn time(text: &str) -> Result<u64, String> {
    let wrong = |why: &str| format!("{why}; write it in UTC, such as 2026-11-23T06:00:00Z");
    let time = humantime::parse_rfc3339(text).map_err(|error| wrong(&error.to_string()))?;
    match time.duration_since(UNIX_EPOCH) {
        // 0 would mean that it begins at once.
        Ok(since) if since.subsec_nanos() == 0 && since.as_secs() > 0 => Ok(since.as_secs()),
        Ok(_) | Err(_) => Err(wrong("it is no whole second after 1970-01-01T00:00:00Z")),
    }
}

/// Seconds, 1 to 366 days of them.
pub(in crate::command) fn duration(text: &str) -> Result<u64, String> {
    let unit = |word: &str| VAGUE_UNITS.contains(&word);
    if text.split(|char: char| !char.is_ascii_alphabetic()).any(unit) {
        return Err("months and years differ in length; give days, such as 30d".to_owned());
    }
    let length = match text.parse() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => humantime::parse_duration(text)
            .map_err(|error| format!("{error}; write it such as 7d, 90m, 1h30m or 3600"))?,
    };
    let seconds = length.as_secs();
    if length.subsec_nanos() != 0 || !(1..=MAX_DURATION_SECONDS).contains(&seconds) {
        return Err("it is not a whole number of seconds from 1 s to 366 days".to_owned());
    }
    Ok(seconds)
}

pub(super) fn reserve(args: &ReserveArgs, printer: &mut Printer) -> Result<Exit, Failure> {
    if args.may_preempt && args.start.is_some() {
        return Err(Failure::usage("--may-preempt has no effect on what is booked with --start")
            .hint(
                "what is booked ahead waits for its turn: leave out --start and it begins when \
                 those it displaces are gone, or leave out --may-preempt and nobody is displaced",
            ));
    }
    let request = request(args)?;
    block_on(async {
        let connection = Connection::connect(&args.server).await?;
        let exit = book(args, request, connection.client(), printer).await;
        let closed = connection.close().await;
        let exit = exit?;
        closed.map(|()| exit)
    })
}

fn request(args: &ReserveArgs) -> Result<AdmitRequest, Failure> {
    let request_id = match &args.request_id {
        Some(id) => id.clone(),
        None => random_id()?,
    };
    let class = match args.class {
        Class::Internal => PriorityClass::InternalResearch,
        Class::External => PriorityClass::ExternalCommercial,
    };
    let lease = Lease {
        cluster_id: args.cluster.clone(),
        gpu_count: args.gpus,
        gpu_models: args.gpu_model.clone(),
        start: args.start.unwrap_or(0),
        duration_seconds: args.seconds,
        isolation_level: args.isolation.level().into(),
        may_preempt: args.may_preempt,
        ..Lease::default()
    };
    Ok(AdmitRequest {
        request_id,
        tenant_id: args.tenant.clone(),
        priority_class: class.into(),
        subject: Some(admit_request::Subject::Lease(lease)),
        ..AdmitRequest::default()
    })
}

fn random_id() -> Result<String, Failure> {
    let mut bytes = [0; ID_BYTES];
    aws_lc_rs::rand::fill(&mut bytes)
        .map_err(|_unspecified| Failure::new("the system gives no randomness"))?;
    let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(format!("reserve-{digits}"))
}

/// Asks, tells the decision, and confirms what it permits.
async fn book(
    args: &ReserveArgs,
    request: AdmitRequest,
    mut client: Client,
    printer: &mut Printer,
) -> Result<Exit, Failure> {
    let request_id = request.request_id.clone();
    let response: AdmitResponse = match client.admit(request).await {
        Ok(answer) => answer.into_inner(),
        // Nothing is stored of what cannot be read.
        Err(status) if status.code() == Code::InvalidArgument => {
            return Err(status_failure(&status));
        }
        Err(status) => {
            let id = plain(&request_id);
            return Err(status_failure(&status).hint(format!(
                "it may have been booked all the same: repeat it with --request-id {id}"
            )));
        }
    };
    let claims = proof::claims(&response.token)
        .map_err(|failure| failure.context("the server sent an unreadable decision"))?;
    let shown = if printer.json() {
        answer::decision_json(None, &response, &claims)?
    } else {
        answer::decision_card(printer, &claims)
    };
    printer.data(&shown)?;
    let Some(reservation) = claims.reservation.filter(|_| claims.effect == Effect::Permit) else {
        return Ok(Exit::Denied);
    };
    if args.no_confirm {
        return Ok(Exit::Done);
    }
    // What is held stands on the screen even if it cannot be confirmed.
    printer.flush()?;
    let target = Target {
        reservation: reservation.id.to_string(),
        epoch: reservation.epoch,
        tenant: claims.tenant_id.to_string(),
    };
    let confirm_id = made_id(Verb::Confirm, &target);
    let settlement = send(Verb::Confirm, client, target, confirm_id).await.map_err(|failure| {
        failure.context("it is booked, but not confirmed").hint(format!(
            "`placet confirm {} --tenant {} --epoch {}`, or the same command with --request-id {}",
            reservation.id,
            claims.tenant_id,
            reservation.epoch,
            plain(&request_id)
        ))
    })?;
    let shown = if printer.json() {
        answer::settlement_json(None, &settlement)?
    } else {
        answer::settlement_card(printer, &settlement)
    };
    printer.data(&shown)?;
    Ok(Exit::Done)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_people_write_them() {
        for (text, seconds) in [
            ("7d", 604_800),
            ("90m", 5_400),
            ("1h 30m", 5_400),
            ("1h30m", 5_400),
            ("1.5d", 129_600),
            ("42", 42),
        ] {
            assert_eq!(duration(text), Ok(seconds), "{text}");
        }
        assert_eq!(duration("366d"), Ok(MAX_DURATION_SECONDS));
        for text in ["", "0", "0d", "367d", "1M", "1 year", "-1", "7 x", "1s500ms"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn times_are_whole_seconds_in_utc() {
        assert_eq!(time("2026-11-23T06:00:00Z"), Ok(1_795_413_600));
        for text in [
            "",
            "2026-11-23",
            "2026-11-23T06:00:00",
            "2026-11-23T06:00:00+01:00",
            "2026-11-23T06:00:00.5Z",
            "1970-01-01T00:00:00Z",
            "1969-12-31T23:59:59Z",
            "2026-13-01T00:00:00Z",
        ] {
            assert!(time(text).is_err(), "{text}");
        }
    }
}
