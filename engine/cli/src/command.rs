//! The commands: one file a verb.

mod admit;
mod build;
mod bundle;
mod check;
mod completion;
mod confirm;
mod explain;
mod facts;
mod freeze;
mod keys;
mod ledger;
mod log;
mod new;
mod release;
mod serve;
mod test;
mod verify;
pub(crate) mod waiver;

use clap::{Parser, Subcommand};

use crate::exit::{Exit, Failure};
use crate::print::{Format, Printer};

const AFTER_HELP: &str = "\
Exit codes: 0 done or permitted, 1 failed, 2 denied (single requests only),
3 policies invalid, 64 usage.
Data goes to standard output, everything else to standard error.

Examples:
  placet serve --bundle policies/reference --facts policies/reference/facts.yaml
  placet admit request.json
  placet admit --local --bundle policies/reference \\
    --facts policies/reference/facts.yaml request.json";

/// Decides who may use which GPUs, by policy, and signs every decision
#[derive(Debug, Parser)]
#[command(name = "placet", version, after_help = AFTER_HELP, max_term_width = 80)]
#[command(propagate_version = true, subcommand_required = true, arg_required_else_help = true)]
pub(crate) struct Cli {
    /// How data is written
    #[arg(long, global = true, value_enum, default_value_t, env = "PLACET_FORMAT")]
    format: Format,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    // Boxed: its settings are many times the size of the others' arguments.
    Serve(Box<serve::ServeArgs>),
    Admit(admit::AdmitArgs),
    Confirm(confirm::ConfirmArgs),
    Release(release::ReleaseArgs),
    Verify(verify::VerifyArgs),
    Explain(explain::ExplainArgs),
    New(new::NewArgs),
    Test(test::TestArgs),
    Build(build::BuildArgs),
    Check(check::CheckArgs),
    Facts(facts::FactsArgs),
    Bundle(bundle::BundleArgs),
    // Boxed for the same reason.
    Waiver(Box<waiver::WaiverArgs>),
    Freeze(Box<freeze::FreezeArgs>),
    Keys(keys::KeysArgs),
    Ledger(ledger::LedgerArgs),
    Log(log::LogArgs),
    Completion(completion::CompletionArgs),
}

/// Reads the command line and does what it says.
pub(crate) fn run() -> Exit {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let exit = if error.use_stderr() { Exit::Usage } else { Exit::Done };
            return if error.print().is_ok() { exit } else { Exit::Failed };
        }
    };
    let mut printer = Printer::new(cli.format);
    let result = cli.command.run(&mut printer).and_then(|exit| printer.flush().map(|()| exit));
    result.unwrap_or_else(|failure| {
        // What was decided before the failure is still the reader's.
        let flushed = printer.flush();
        printer.error(failure.message());
        flushed.map_or_else(|lost: Failure| lost.exit(), |()| failure.exit())
    })
}

impl Command {
    fn run(self, printer: &mut Printer) -> Result<Exit, Failure> {
        match self {
            Self::Serve(args) => serve::run(*args, printer),
            Self::Admit(args) => admit::run(&args, printer),
            Self::Confirm(args) => confirm::run(&args, printer),
            Self::Release(args) => release::run(&args, printer),
            Self::Verify(args) => verify::run(&args, printer),
            Self::Explain(args) => explain::run(&args, printer),
            Self::New(args) => new::run(&args, printer),
            Self::Test(args) => test::run(&args, printer),
            Self::Build(args) => build::run(&args, printer),
            Self::Check(args) => check::run(&args, printer),
            Self::Facts(args) => facts::run(&args, printer),
            Self::Bundle(args) => bundle::run(&args, printer),
            Self::Waiver(args) => waiver::run(&args, printer),
            Self::Freeze(args) => freeze::run(&args, printer),
            Self::Keys(args) => keys::run(&args, printer),
            Self::Ledger(args) => ledger::run(&args, printer),
            Self::Log(args) => log::run(&args, printer),
            Self::Completion(args) => completion::run(&args, printer),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_well_formed() {
        super::Cli::command().debug_assert();
    }
}
