//! `placet completion`: what a shell needs to complete our commands.

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use crate::exit::{Exit, Failure};
use crate::print::Printer;

const EXAMPLES: &str = "\
Examples:
  placet completion bash > ~/.local/share/bash-completion/completions/placet
  placet completion zsh > ~/.zfunc/_placet";

/// Print the completion script of a shell
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct CompletionArgs {
    /// Which shell
    shell: Shell,
}

pub(super) fn run(args: &CompletionArgs, printer: &mut Printer) -> Result<Exit, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut super::Cli::command(), "placet", &mut script);
    let script = String::from_utf8_lossy(&script);
    printer.data(script.trim_end())?;
    Ok(Exit::Done)
}
