//! `placet confirm`: turns a reservation active.

use clap::Args;

use crate::exit::{Exit, Failure};
use crate::print::Printer;
use crate::settle::{self, SettleArgs, Verb};

const EXAMPLES: &str = "\
Repeating a confirm that took effect gives the same answer.

Examples:
  placet confirm decision.json
  placet admit --format json request.json | placet confirm -
  placet confirm RESERVATION --tenant acme --epoch 1";

/// Turn a reservation active: required before work may start
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ConfirmArgs {
    #[command(flatten)]
    settle: SettleArgs,
}

pub(super) fn run(args: &ConfirmArgs, printer: &mut Printer) -> Result<Exit, Failure> {
    settle::run(Verb::Confirm, &args.settle, printer)
}
