//! `placet new`: working scaffolds of bundles and policies, each with its cases.

mod entry;
mod name;
mod place;
mod scaffold;
mod write;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::{Args, Subcommand};
use placet_core::SubjectKind;
use placet_policy::opa::{TestOutcome, run_rule_tests};
use placet_policy::{Bundle, CaseRunner, LoadError, PolicySet, WasmRuntime};
use serde_json::json;

use super::test::{invalid, request};
use crate::exit::{Exit, Failure};
use crate::print::Printer;
use name::Name;
use place::{MANIFEST, find_bundle, find_sdk, inside, shell};
use scaffold::Setting;
use write::Files;

const EXAMPLES: &str = "\
What is made works at once: a small policy with params, their schema, cases and
tests that pass. Nothing is ever written over, and what fails leaves nothing
behind. Paths of new files go to standard output, and with --format json the
commands that come next, too.

Examples:
  placet new bundle acme
  placet new rego maintenance --bundle acme
  placet new wasm burst --sdk placet/sdk-guest";

const BUNDLE_EXAMPLES: &str = "\
Makes the directory NAME: a manifest, one policy in Rego with its cases, facts
that they use, a request to try, and JSON Schemas of all files, by which editors
complete and check them.

Examples:
  placet new bundle acme
  placet new bundle acme --in policies
  placet test acme";

const REGO_EXAMPLES: &str = "\
Makes the directory NAME in the bundle: source, schema of the params, tests and
cases; and adds the policy to the end of `policies` in bundle.yaml, which stays
as it is else. The cases use the facts of the bundle if they pass with them, or
else facts of their own beside them.

Exit code: 0 written, 1 not written, 3 the bundle is invalid as it is.

Examples:
  placet new rego maintenance
  placet new rego maintenance --bundle acme
  placet test acme --only maintenance";

const WASM_EXAMPLES: &str = "\
Makes the directory NAME: a Rust crate with the policy, and a bundle that tests
it once `placet build` has made the component. The crate links `placet-guest`,
which is in the directory sdk-guest of Placet's sources; it is looked for in
this directory and those above. Its lock file names the versions that shipped
policies are built from, so what builds those offline builds this.

Examples:
  placet new wasm burst --sdk ~/placet/sdk-guest
  placet build burst --output burst/bundle/burst/burst.wasm
  placet test burst/bundle";

/// Make a bundle or a policy to begin with, with cases that pass
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct NewArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    Bundle(BundleArgs),
    Rego(RegoArgs),
    Wasm(WasmArgs),
}

/// Make a bundle with one policy
#[derive(Debug, Args)]
#[command(after_help = BUNDLE_EXAMPLES)]
struct BundleArgs {
    /// Name of the new directory
    name: String,
    /// Where to make it
    #[arg(long = "in", value_name = "DIR", default_value = ".")]
    directory: PathBuf,
}

/// Add a policy in Rego to a bundle
#[derive(Debug, Args)]
#[command(after_help = REGO_EXAMPLES)]
struct RegoArgs {
    /// Name of the policy
    name: String,
    /// Directory of the bundle [default: the one that this directory is in]
    #[arg(long, value_name = "DIR")]
    bundle: Option<PathBuf>,
}

/// Make a policy in Rust, which becomes a component
#[derive(Debug, Args)]
#[command(after_help = WASM_EXAMPLES)]
struct WasmArgs {
    /// Name of the policy, and of the new directory
    name: String,
    /// Where to make it
    #[arg(long = "in", value_name = "DIR", default_value = ".")]
    directory: PathBuf,
    /// Directory of the crate `placet-guest` [default: sdk-guest here or above]
    #[arg(long, value_name = "DIR")]
    sdk: Option<PathBuf>,
}

/// What was made, and what to do with it.
struct Made {
    kind: &'static str,
    name: Name,
    files: Vec<PathBuf>,
    changed: Option<PathBuf>,
    /// Cases and tests that passed.
    passed: usize,
    next: Vec<String>,
}

pub(super) fn run(args: &NewArgs, printer: &mut Printer) -> Result<Exit, Failure> {
    let made = match &args.what {
        What::Bundle(args) => bundle(args)?,
        What::Rego(args) => rego(args, printer)?,
        What::Wasm(args) => wasm(args)?,
    };
    tell(&made, printer)?;
    Ok(Exit::Done)
}

fn tell(made: &Made, printer: &mut Printer) -> Result<(), Failure> {
    let shown = |path: &PathBuf| path.display().to_string();
    if printer.json() {
        let line = json!({
            "changed": made.changed.iter().map(shown).collect::<Vec<_>>(),
            "files": made.files.iter().map(shown).collect::<Vec<_>>(),
            "kind": made.kind,
            "name": made.name.as_str(),
            "next": made.next,
        });
        return printer.data(&line.to_string());
    }
    for file in &made.files {
        printer.data(&shown(file))?;
    }
    printer.flush()?;
    let files = made.files.len();
    let also = made.changed.iter().map(|path| format!(", changed {}", path.display()));
    let passed = match made.passed {
        0 => String::new(),
        passed => format!("; {passed} cases and tests pass"),
    };
    printer.note(&format!("wrote {files} files{}{passed}", also.collect::<String>()));
    printer.note("next:");
    for command in &made.next {
        printer.note(&format!("  {command}"));
    }
    Ok(())
}

fn bundle(args: &BundleArgs) -> Result<Made, Failure> {
    let name = Name::parse(&args.name, "bundle")?;
    let target = inside(&args.directory, name.as_str());
    write::check_absent(&target)?;
    let files = scaffold::bundle(&name);
    let bundle = Bundle::from_files(name.as_str(), bytes(&files)).map_err(|it| invalid(&it))?;
    let trial = Trial::compile(&bundle)?;
    let passed = trial.pass(&bundle, scaffold::first().as_str())?;
    write::directory(&target, &files)?;
    let shown = shell(&target);
    Ok(Made {
        kind: "bundle",
        name,
        files: files.keys().map(|path| target.join(path)).collect(),
        changed: None,
        passed,
        next: vec![
            format!("placet test {shown}"),
            format!("placet new rego NAME --bundle {shown}"),
            format!("placet admit --local --bundle {shown} --facts {shown}/facts.yaml \\"),
            format!("  {shown}/requests/lease.json"),
        ],
    })
}

fn rego(args: &RegoArgs, printer: &Printer) -> Result<Made, Failure> {
    let name = Name::parse(&args.name, "policy")?;
    let directory = find_bundle(args.bundle.as_deref())?;
    let target = inside(&directory, name.as_str());
    write::check_absent(&target)?;
    let old = Bundle::load(&directory).map_err(|error| invalid(&error))?;
    check_new(&old, &name)?;
    let manifest = find(&old, MANIFEST);
    let by_hand = scaffold::entry(&name, "rego", "");
    let text = String::from_utf8_lossy(manifest);
    let added = entry::add(&text, &by_hand).ok_or_else(|| no_place(&by_hand))?;
    let (files, passed) = fitting(&old, &name, &added, &by_hand)?;
    write::directory(&target, &files)?;
    let path = inside(&directory, MANIFEST);
    if let Err(failure) = write::replace(&path, manifest, &added) {
        // Without its entry it is nothing: all of it was written just now.
        let gone = std::fs::remove_dir_all(&target);
        return Err(gone.map_or_else(|error| cannot_remove(&target, &error), |()| failure));
    }
    if old.signature().is_some() {
        printer.note("the signature of the bundle is that of what it was: sign it anew");
    }
    let (shown, named) = (shell(&directory), shell(Path::new(name.as_str())));
    Ok(Made {
        kind: "rego",
        name,
        files: files.keys().map(|path| target.join(path)).collect(),
        changed: Some(path),
        passed,
        next: vec![
            format!("placet test {shown} --only {named}"),
            format!("placet test {shown} --coverage"),
        ],
    })
}

/// The files of a policy that pass their own cases in a bundle, by the first setting in which they
/// do, and how many cases and tests those are.
fn fitting(
    old: &Bundle,
    name: &Name,
    manifest: &str,
    by_hand: &str,
) -> Result<(Files, usize), Failure> {
    let is_there = |start: &str| old.files().any(|(path, _)| path.starts_with(start));
    let schemas = is_there(&format!("{}/cases.", scaffold::SCHEMAS));
    let mut trial = None;
    let mut last = None;
    for setting in [Setting::Shared, Setting::OwnFacts, Setting::OwnVerdict] {
        let files = scaffold::rego(name, setting, schemas);
        let kept = old.files().filter(|(path, _)| *path != MANIFEST);
        let kept = kept.map(|(path, bytes)| (path.to_owned(), bytes.to_vec()));
        let more = bytes(&files).map(|(path, bytes)| (format!("{}/{path}", name.as_str()), bytes));
        let manifest = (MANIFEST.to_owned(), manifest.as_bytes().to_vec());
        let bundle = Bundle::from_files(MANIFEST, kept.chain(more).chain([manifest]))
            .map_err(|error| invalid(&error))?;
        check_added(old, &bundle, by_hand)?;
        let trial = match &trial {
            Some(trial) => trial,
            None => trial.insert(Trial::compile(&bundle)?),
        };
        match trial.pass(&bundle, name.as_str()) {
            Ok(passed) => return Ok((files, passed)),
            Err(failure) => last = Some(failure),
        }
    }
    let failure = last.unwrap_or_else(|| Failure::new("the cases do not pass"));
    Err(failure.context("the new policy would not pass its own cases in this bundle"))
}

fn wasm(args: &WasmArgs) -> Result<Made, Failure> {
    let name = Name::parse(&args.name, "policy")?;
    let target = inside(&args.directory, name.as_str());
    write::check_absent(&target)?;
    let sdk = find_sdk(args.sdk.as_deref())?;
    let files = scaffold::wasm(&name, &sdk);
    write::directory(&target, &files)?;
    let (shown, named) = (shell(&target), name.as_str());
    Ok(Made {
        kind: "wasm",
        files: files.keys().map(|path| target.join(path)).collect(),
        changed: None,
        passed: 0,
        next: vec![
            format!("placet build {shown} --output {shown}/bundle/{named}/{named}.wasm"),
            format!("placet test {shown}/bundle"),
        ],
        name,
    })
}

/// A compiled bundle that new cases are tried with.
struct Trial {
    policies: Arc<PolicySet>,
}

impl Trial {
    fn compile(bundle: &Bundle) -> Result<Self, Failure> {
        let compile = || PolicySet::compile(bundle, &WasmRuntime::new()?);
        let policies = compile().map_err(|error: LoadError| invalid(&error))?;
        Ok(Self { policies: Arc::new(policies) })
    }

    /// Runs what lies in a folder of the bundle, and counts it; fails with the first that does not
    /// pass.
    fn pass(&self, bundle: &Bundle, folder: &str) -> Result<usize, Failure> {
        let folder = format!("{folder}/");
        let failed = |file: &str, name: &str, why: &str| {
            Err(Failure::new(format!("{file}: {name}: {why}")).with_exit(Exit::PolicyInvalid))
        };
        let mut runner = CaseRunner::new(Arc::clone(&self.policies), None);
        let mut passed = 0_usize;
        for file in bundle.case_files().iter().filter(|file| file.starts_with(&folder)) {
            for report in runner.run(bundle, file, request).map_err(|error| invalid(&error))? {
                if let Some(why) = report.failures.first() {
                    return failed(file, &report.name, why);
                }
                passed += 1;
            }
        }
        let tests = run_rule_tests(bundle).map_err(|error| invalid(&error))?;
        for test in tests.iter().filter(|test| test.file.starts_with(&folder)) {
            if test.outcome != TestOutcome::Passed {
                return failed(&test.file, &test.rule, "does not pass");
            }
            passed += 1;
        }
        Ok(passed)
    }
}

/// Fails where a policy has that name, or a package that would be the same.
fn check_new(bundle: &Bundle, name: &Name) -> Result<(), Failure> {
    let taken = bundle.policies().find(|policy| {
        let known = Name::parse(policy.name.as_str(), "policy");
        policy.name.as_str() == name.as_str()
            || known.is_ok_and(|known| known.package() == name.package())
    });
    match taken {
        None => Ok(()),
        Some(policy) if policy.name.as_str() == name.as_str() => {
            let message = format!("the bundle has a policy `{}` already", policy.name);
            Err(Failure::new(message).hint("choose another name"))
        }
        Some(policy) => {
            let (package, other) = (name.package(), policy.name);
            let message = format!("its package would be `placet.{package}`, as that of `{other}`");
            Err(Failure::new(message).hint("choose a name that differs in letters or digits"))
        }
    }
}

/// Fails unless the new manifest says what the old one did, and one policy more.
fn check_added(old: &Bundle, new: &Bundle, by_hand: &str) -> Result<(), Failure> {
    let before: Vec<_> = old.policies().collect();
    let mut after: Vec<_> = new.policies().collect();
    let added = after.pop().is_some();
    let kinds = [SubjectKind::Lease, SubjectKind::Job];
    let required = kinds.into_iter().all(|kind| old.required(kind) == new.required(kind));
    let same = before == after && required && old.revision() == new.revision();
    if added && same { Ok(()) } else { Err(no_place(by_hand)) }
}

fn no_place(by_hand: &str) -> Failure {
    Failure::new(format!(
        "cannot tell where `policies` of {MANIFEST} ends; nothing was written\n\
         An entry would be:\n{}",
        by_hand.trim_end()
    ))
    .hint("write `policies:` with a line `  - name: ...` for each policy")
}

fn cannot_remove(path: &Path, error: &std::io::Error) -> Failure {
    Failure::new(format!("cannot remove `{}` again: {error}", path.display()))
        .hint("remove it: it has no entry in the manifest")
}

fn find<'a>(bundle: &'a Bundle, path: &str) -> &'a [u8] {
    let mut files = bundle.files();
    files.find(|(found, _)| *found == path).map(|(_, bytes)| bytes).unwrap_or_default()
}

fn bytes(files: &Files) -> impl Iterator<Item = (String, Vec<u8>)> {
    files.iter().map(|(path, text)| (path.clone(), text.clone().into_bytes()))
}
