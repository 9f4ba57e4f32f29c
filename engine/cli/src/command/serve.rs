//! `placet serve`: the decision point as a server.

use std::path::PathBuf;

use clap::Args;
use placet_server::Ready;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

use crate::connection::{block_on, serve_failure};
use crate::exit::{Exit, Failure};
use crate::print::Printer;
use crate::settings::{Given, LogFormat, LogLevel};

const AFTER_HELP: &str = "\
A flag wins over the environment, the environment over the file of --config, the
file over the default. Names in the file are those of the flags; relative paths
in it are relative to the file:

  bundle = \"policies/reference\"
  facts = \"policies/reference/facts.yaml\"
  audience = [\"scheduler\", \"provisioner\"]
  confirm-within = 300

Plain text is served on loopback only; other addresses need the three --tls-*
files.

Examples:
  placet serve --bundle policies/reference --facts policies/reference/facts.yaml
  placet serve --config /etc/placet.toml --log-format json";

/// Run the server
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct ServeArgs {
    /// TOML file with settings
    #[arg(long, env = "PLACET_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    given: Given,
    /// A request to suggest once the server answers
    #[arg(long = "try", value_name = "FILE", hide = true)]
    suggestions: Vec<PathBuf>,
}

pub(super) fn run(args: ServeArgs, printer: &mut Printer) -> Result<Exit, Failure> {
    let file = args.config.as_deref().map(Given::read).transpose()?.unwrap_or_default();
    let merged = args.given.or(file).merged()?;
    start_log(merged.log_format, merged.log_level)?;
    let printer: &Printer = printer;
    block_on(async move {
        let stop = stop_signal()?;
        let ready = |ready| announce(ready, &args.suggestions, printer);
        placet_server::serve(merged.server, stop, ready)
            .await
            .map_err(|error| serve_failure(&error))
    })?;
    printer.note("stopped");
    Ok(Exit::Done)
}

fn announce(ready: Ready, suggestions: &[PathBuf], printer: &Printer) {
    let Ready { grpc, http } = ready;
    printer.note(&format!("placet answers on {grpc} (gRPC) and {http} (metrics, health, keys)"));
    if suggestions.is_empty() {
        return;
    }
    let binary = std::env::args_os().next().unwrap_or_else(|| "placet".into());
    let server =
        if grpc.port() == 7443 { String::new() } else { format!(" --server http://{grpc}") };
    printer.note("try next, in another terminal:");
    for file in suggestions {
        printer.note(&format!(
            "  {} admit{server} {}",
            PathBuf::from(&binary).display(),
            file.display()
        ));
    }
}

/// Completes at the first Ctrl-C or SIGTERM. A second one ends the process at once.
fn stop_signal() -> Result<impl Future<Output = ()> + Send + 'static, Failure> {
    let listen = |kind| {
        signal(kind).map_err(|error| Failure::new(format!("cannot listen for signals: {error}")))
    };
    let (mut interrupt, mut terminate) =
        (listen(SignalKind::interrupt())?, listen(SignalKind::terminate())?);
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        tokio::spawn(async move {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            // Nothing acknowledged is lost: the store is made for being killed at any time.
            std::process::exit(i32::from(Exit::Failed.code()));
        });
    })
}

fn start_log(format: LogFormat, level: LogLevel) -> Result<(), Failure> {
    // Libraries say what only their authors can read; theirs is kept to warnings.
    let level = level.as_str();
    let library = if level == "error" { "error" } else { "warn" };
    let filter = format!("{library},placet={level},placet_server={level},placet_policy={level}");
    let filter = EnvFilter::try_new(filter).map_err(|error| Failure::from_error(&error))?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_target(false);
    let started = match format {
        LogFormat::Text => builder.with_ansi(false).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
    started.map_err(|error| Failure::new(format!("cannot start the log: {error}")))
}
