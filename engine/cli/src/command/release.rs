//! `placet release`: ends a reservation.

use clap::Args;

use crate::exit::{Exit, Failure};
use crate::print::Printer;
use crate::settle::{self, SettleArgs, Verb};

const EXAMPLES: &str = "\
Repeating a release that took effect gives the same answer.

Examples:
  placet release decision.json
  placet admit --format json request.json | placet release -
  placet release RESERVATION --tenant acme --epoch 1";

/// End a reservation and refund the budget that it did not use
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ReleaseArgs {
    #[command(flatten)]
    settle: SettleArgs,
}

pub(super) fn run(args: &ReleaseArgs, printer: &mut Printer) -> Result<Exit, Failure> {
    settle::run(Verb::Release, &args.settle, printer)
}
