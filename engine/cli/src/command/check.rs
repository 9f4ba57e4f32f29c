//! `placet check`: all that is wrong or doubtful in a bundle, each with its place and a remedy.

mod draw;

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use clap::Args;
use placet_policy::lint::{self, Diagnostic, RULES, Report, Severity};
use placet_policy::{LoadError, WasmRuntime};

use super::test::invalid;
use crate::exit::{Exit, Failure};
use crate::print::{Printer, plain, table};

const EXAMPLES: &str = "\
Looks at the manifest, params and their schemas, policies, cases and tests, and
tells all that is wrong with any of them; nothing is evaluated. Errors are what
the engine would refuse. Warnings are what loads, and hardly says what is meant:
a denial that absence gets around, a rule that never holds, and the like.

A warning that is meant is allowed by a comment on its line or above it:
  # placet:allow undefined-deny a seat is always recorded here

--fix mends what can be mended without asking, in a directory: a name of which
only one is near, an import that nothing reads. It never changes what a policy
that loads decides, and running it twice changes nothing.

Exit code: 0 nothing is told, 1 warnings alone, 3 errors.

Examples:
  placet check policies/reference
  placet check --only undefined-deny,unreachable-rule policies/reference
  placet check --fix policies/reference
  placet check --format json policies/reference
  placet check --rules";

/// Find all that is wrong or doubtful in a policy bundle
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct CheckArgs {
    /// The bundle: a directory, or an archive of one
    #[arg(value_name = "BUNDLE", required_unless_present = "rules")]
    bundle: Option<PathBuf>,
    /// Mend what can be mended without asking
    #[arg(long)]
    fix: bool,
    /// Only these rules
    #[arg(long, value_name = "RULE", value_delimiter = ',')]
    only: Vec<String>,
    /// List all rules, with what they tell of
    #[arg(long, conflicts_with_all = ["bundle", "fix", "only"])]
    rules: bool,
}

/// Most rounds of fixes: one fix may bring another fault to light.
const MAX_ROUNDS: usize = 16;

type Files = BTreeMap<String, Vec<u8>>;

pub(super) fn run(args: &CheckArgs, printer: &mut Printer) -> Result<Exit, Failure> {
    let path = match (&args.bundle, args.rules) {
        (_, true) => return rules(printer),
        (Some(path), false) => path,
        (None, false) => return Err(Failure::usage("no bundle is named")),
    };
    if let Some(unknown) = args.only.iter().find(|id| !RULES.iter().any(|rule| rule.id == **id)) {
        let failure = Failure::usage(format!("`{unknown}` is no rule"));
        return Err(failure.hint("`placet check --rules` lists all of them"));
    }
    let mut files = match lint::read(path) {
        Ok(files) => files,
        Err(LoadError::Invalid(fault)) => {
            return tell(&Report::refused(&fault), &Files::new(), args, printer);
        }
        Err(error) => return Err(invalid(&error)),
    };
    let runtime = WasmRuntime::new().map_err(|error| invalid(&error))?;
    let mut report = lint::check(&files, &runtime);
    if args.fix {
        if !path.is_dir() {
            let failure = Failure::usage(format!("`{}` is no directory", path.display()));
            return Err(failure.hint("unpack the archive, mend it, and build it again"));
        }
        for _ in 0..MAX_ROUNDS {
            if !mend(path, &report, &mut files, args, printer)? {
                break;
            }
            report = lint::check(&files, &runtime);
        }
    }
    tell(&report, &files, args, printer)
}

fn rules(printer: &mut Printer) -> Result<Exit, Failure> {
    if printer.json() {
        for rule in RULES {
            printer.data(&serde_json::json!(rule).to_string())?;
        }
        return Ok(Exit::Done);
    }
    let mut table = table(["RULE", "SEVERITY", "TELLS OF"]);
    for rule in RULES {
        table.add_row([rule.id, word(rule.severity), rule.summary]);
    }
    printer.data(&table.trim_fmt())?;
    Ok(Exit::Done)
}

fn word(severity: Severity) -> &'static str {
    match severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
    }
}

fn wanted(diagnostic: &Diagnostic, args: &CheckArgs) -> bool {
    args.only.is_empty() || args.only.iter().any(|id| id == diagnostic.rule)
}

/// Puts one round of fixes into the files; whether there were any.
fn mend(
    directory: &Path,
    report: &Report,
    files: &mut Files,
    args: &CheckArgs,
    printer: &mut Printer,
) -> Result<bool, Failure> {
    let mut by_file: BTreeMap<&str, Vec<Diagnostic>> = BTreeMap::new();
    let fixable = report.diagnostics.iter().filter(|it| it.fix.is_some() && wanted(it, args));
    for diagnostic in fixable {
        by_file.entry(&diagnostic.file).or_default().push(diagnostic.clone());
    }
    let mut any = false;
    for (file, diagnostics) in by_file {
        let Some(bytes) = files.get_mut(file) else { continue };
        let Ok(text) = std::str::from_utf8(bytes) else { continue };
        let Some(fixed) = lint::fixed(text, &diagnostics) else { continue };
        write(&directory.join(file), fixed.as_bytes())?;
        for diagnostic in &diagnostics {
            let what = format!("{}: {}", diagnostic.rule, draw::change(text, diagnostic));
            told_fixed(&what, diagnostic, printer)?;
        }
        *bytes = fixed.into_bytes();
        any = true;
    }
    Ok(any)
}

fn told_fixed(what: &str, diagnostic: &Diagnostic, printer: &mut Printer) -> Result<(), Failure> {
    if printer.json() {
        return printer.data(&serde_json::json!({"fixed": diagnostic}).to_string());
    }
    let line = diagnostic.span.map(|span| format!(":{}", span.start.line)).unwrap_or_default();
    printer.data(&format!("fixed {}{line}: {}", plain(&diagnostic.file), plain(what)))
}

/// Replaces a file in one step, so that nobody reads half of it.
fn write(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    let cannot = |error: &dyn std::fmt::Display| {
        Failure::new(format!("cannot write `{}`: {error}", path.display()))
    };
    let directory = path.parent().unwrap_or(Path::new("."));
    let mut file = tempfile::NamedTempFile::new_in(directory).map_err(|error| cannot(&error))?;
    file.write_all(bytes).map_err(|error| cannot(&error))?;
    let permissions = std::fs::metadata(path).map_err(|error| cannot(&error))?.permissions();
    file.as_file().set_permissions(permissions).map_err(|error| cannot(&error))?;
    file.as_file().sync_all().map_err(|error| cannot(&error))?;
    file.persist(path).map_err(|error| cannot(&error.error))?;
    Ok(())
}

fn tell(
    report: &Report,
    files: &Files,
    args: &CheckArgs,
    printer: &mut Printer,
) -> Result<Exit, Failure> {
    let (mut errors, mut warnings) = (0_usize, 0_usize);
    for diagnostic in report.diagnostics.iter().filter(|it| wanted(it, args)) {
        match diagnostic.severity {
            Severity::Error => errors += 1,
            Severity::Warning => warnings += 1,
        }
        if printer.json() {
            printer.data(&serde_json::json!(diagnostic).to_string())?;
            continue;
        }
        let bytes = files.get(&diagnostic.file).map(Vec::as_slice).unwrap_or_default();
        let text = std::str::from_utf8(bytes).unwrap_or_default();
        draw::draw(diagnostic, text, printer)?;
    }
    printer.flush()?;
    let cut = match report.cut {
        0 => String::new(),
        more => format!(" (and {more} more that are not shown)"),
    };
    let count = |number: usize, what: &str| match number {
        1 => format!("1 {what}"),
        number => format!("{number} {what}s"),
    };
    let (errors_word, warnings_word) = (count(errors, "error"), count(warnings, "warning"));
    let files = count(report.files, "file");
    printer.note(&format!("{errors_word}, {warnings_word} in {files}{cut}"));
    Ok(match (errors, warnings) {
        (0, 0) => Exit::Done,
        (0, _) => Exit::Failed,
        (_, _) => Exit::PolicyInvalid,
    })
}
