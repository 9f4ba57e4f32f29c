//! `placet facts`: what is known of tenants, clusters and quotas, apart from the policies.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use placet_core::utc;
use placet_policy::{Facts, LoadError, Validity};
use placet_proto::control::v1::Source;

use crate::activate::{self, ActivateArgs, StatusArgs};
use crate::command::ledger::reserve::time;
use crate::exit::{Exit, Failure};
use crate::print::{self, Printer};

const EXAMPLES: &str = "\
A server reads its file of facts again when it changes; `activate` does it now
and tells what came of it. Facts that break a rule never become active.

Exit codes: 0 done, 1 the server cannot be asked, 3 the facts are refused.

`check --at` lists attestations and licences that are over at a time, end within
`--within` days of it, or begin after it, unless another one goes on.

Examples:
  placet facts check policies/reference/facts.yaml
  placet facts check policies/reference/facts.yaml --at 2026-12-01T00:00:00Z
  placet facts activate
  placet facts status --format json";

/// Check facts, or make them active in a server
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct FactsArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Check a file of facts and print its digest
    Check(CheckArgs),
    /// Have a server read its facts again, now
    Activate(ActivateArgs),
    /// Tell which facts are active in a server, and what became of the last attempt
    Status(StatusArgs),
}

#[derive(Debug, Args)]
struct CheckArgs {
    /// File of the facts
    file: PathBuf,
    /// List attestations and licences that do not hold at this time, such as 2026-12-01T00:00:00Z
    #[arg(long, value_name = "TIME", value_parser = time)]
    at: Option<u64>,
    /// With `--at`: list those that end within so many days after it, too
    #[arg(long, value_name = "DAYS", default_value_t = 30, requires = "at",
          value_parser = clap::value_parser!(u64).range(..=MAX_DAYS))]
    within: u64,
}

/// Most days ahead: ten years.
const MAX_DAYS: u64 = 3_650;
const SECONDS_PER_DAY: u64 = 86_400;

pub(super) fn run(args: &FactsArgs, printer: &mut Printer) -> Result<Exit, Failure> {
    match &args.action {
        Action::Check(args) => check(args, printer),
        Action::Activate(args) => activate::activate(Source::Facts, args, printer),
        Action::Status(args) => activate::status(Source::Facts, args, printer),
    }
}

fn check(args: &CheckArgs, printer: &mut Printer) -> Result<Exit, Failure> {
    let facts = Facts::load(&args.file).map_err(|error| {
        let exit = match error {
            LoadError::Invalid(_) => Exit::PolicyInvalid,
            _ => Exit::Failed,
        };
        Failure::from_error(&error).with_exit(exit)
    })?;
    let (digest, revision) = (facts.digest().to_string(), facts.revision());
    let all = facts.validities();
    let terms = args.at.map(|at| terms(&all, at, args.within * SECONDS_PER_DAY));
    if printer.json() {
        let mut line = serde_json::json!({"digest": digest, "revision": revision});
        if let Some(terms) = terms {
            let terms = terms.iter().map(|(one, state, time)| {
                let Validity { holder, what, .. } = one;
                serde_json::json!({"holder": holder, "what": what, "state": state, "time": time})
            });
            line["terms"] = terms.collect();
        }
        printer.data(&line.to_string())?;
    } else {
        printer.data(&format!("facts {digest}"))?;
        printer.data(&format!("revision {}", print::plain(revision)))?;
        for (one, state, time) in terms.iter().flatten() {
            let line = format!("{}: {} {state} {}", one.holder, one.what, utc(*time));
            printer.data(&line)?;
        }
    }
    Ok(Exit::Done)
}

/// What does not hold at a time, or not for long, and since or until when. What another one of its
/// kind goes on for is left out.
fn terms(all: &[Validity], at: u64, within: u64) -> Vec<(&Validity, &'static str, u64)> {
    let soon = at.saturating_add(within);
    let of_kind = |one: &Validity, other: &Validity| {
        one.holder == other.holder && one.what == other.what && one != other
    };
    let goes_on = |one: &Validity, until: u64| {
        all.iter().any(|other| of_kind(one, other) && other.from <= until && other.until > until)
    };
    let told = all.iter().filter_map(|one| match one {
        Validity { from, .. } if at < *from => {
            (!goes_on(one, at)).then_some((one, "begins", *from))
        }
        Validity { until, .. } if *until <= at => {
            let later = all.iter().any(|other| of_kind(one, other) && other.until > one.until);
            (!later).then_some((one, "ended", *until))
        }
        Validity { until, .. } if *until <= soon => {
            (!goes_on(one, *until)).then_some((one, "ends", *until))
        }
        Validity { .. } => None,
    });
    told.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_hold_is_told_unless_another_one_goes_on() {
        let one = |what: &str, from, until| Validity {
            holder: "tenant `acme`".to_owned(),
            what: what.to_owned(),
            from,
            until,
        };
        let all = [
            one("holds", 0, 500),
            one("renewed", 0, 110),
            one("renewed", 110, 500),
            one("ends", 0, 120),
            one("ended", 0, 50),
            one("ended", 0, 40),
            one("to come", 300, 500),
            one("gap", 0, 50),
            one("gap", 200, 500),
        ];
        let told = terms(&all, 100, 50);
        let told: Vec<_> =
            told.iter().map(|(one, state, time)| (one.what.as_str(), *state, *time)).collect();
        assert_eq!(
            told,
            [
                ("ends", "ends", 120),
                ("ended", "ended", 50),
                ("to come", "begins", 300),
                ("gap", "begins", 200)
            ]
        );
    }
}
