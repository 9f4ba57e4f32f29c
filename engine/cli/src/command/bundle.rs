//! `placet bundle`: archives of bundles, their contents and their signatures.

mod catalogue;

use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::{Args, Subcommand};
use placet_core::{SigningKey, SubjectKind, bundle_signer};
use placet_policy::bundle::{Budget, PolicySummary, SIGNATURE, Selector};
use placet_policy::{Bundle, CaseReport, CaseRunner, LoadError, Metadata, PolicySet, WasmRuntime};
use placet_proto::control::v1::Source;
use serde_json::{Value, json};

use super::test::{invalid, request};
use crate::activate::{self, ActivateArgs, StatusArgs};
use crate::exit::{Exit, Failure};
use crate::jwks_source;
use crate::print::{self, Printer, Tone, plain};
use crate::replace::replace;
use catalogue::CatalogueArgs;

/// Longest key file in bytes: an Ed25519 key has about 80.
const MAX_KEY_BYTES: u64 = 1_024;

const EXAMPLES: &str = "\
A bundle is a directory with `bundle.yaml`, or the archive that `build` makes of
one: the same files give the same bytes, and both have the same digest. Whatever
takes a bundle takes either.

Examples:
  placet bundle build policies/reference --output reference.tar.gz
  placet bundle inspect reference.tar.gz
  placet bundle catalogue policies/reference
  placet bundle sign reference.tar.gz --key keys/signing-key.pkcs8
  placet bundle verify reference.tar.gz --keys jwks.json
  placet bundle activate --expect sha256:...";

const BUILD_EXAMPLES: &str = "\
Checks the manifest, the params and every policy, runs the cases, and writes the
archive in one step: FILE is there whole or not at all. Prints the digest, which
`sha256sum` of the unpacked files gives too:

  find . -type f ! -path ./bundle.sig | sed 's|^./||' | LC_ALL=C sort |
    xargs sha256sum | sha256sum

Exit code: 0 written, 1 a case failed or FILE cannot be written, 3 the bundle is
invalid.

Examples:
  placet bundle build policies/reference --output reference.tar.gz
  placet bundle build policies/reference -o draft.tar.gz --no-cases";

const INSPECT_EXAMPLES: &str = "\
Reads manifest, params and files; compiles nothing and runs nothing.

Examples:
  placet bundle inspect policies/reference
  placet bundle inspect reference.tar.gz --keys jwks.json
  placet bundle inspect reference.tar.gz --format json";

const VERIFY_EXAMPLES: &str = "\
Checks the bundle as a server does, and that one of the keys signed exactly its
files and its revision. Exit code: 0 valid, 3 the bundle or its signature is
not, 1 something cannot be read.

Examples:
  placet bundle verify reference.tar.gz --keys jwks.json
  placet keys jwks --keys release-keys > jwks.json";

const SIGN_EXAMPLES: &str = "\
In a directory the signature is the file `bundle.sig`; an archive is written
anew in one step. It covers the digest and the revision, and is no part of the
digest. The same bundle and key give the same signature, unless --at adds a
time.

Examples:
  placet keys generate --keys release-keys
  placet bundle sign policies/reference --key release-keys/signing-key.pkcs8
  placet bundle sign reference.tar.gz --key release-keys/signing-key.pkcs8 \\
    --at 1795262400";

/// Build, inspect, describe, sign or verify a bundle of policies
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct BundleArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    Build(BuildArgs),
    Inspect(InspectArgs),
    Catalogue(CatalogueArgs),
    Verify(VerifyArgs),
    Sign(SignArgs),
    /// Have a server read its bundle again, now
    Activate(ActivateArgs),
    /// Tell which bundle is active in a server, and what became of the last attempt
    Status(StatusArgs),
}

/// Make the archive of a bundle, once its cases pass
#[derive(Debug, Args)]
#[command(after_help = BUILD_EXAMPLES)]
struct BuildArgs {
    /// Directory of the bundle
    #[arg(value_name = "DIR")]
    bundle: PathBuf,
    /// Where to write the archive; a file that is there is replaced
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// Do not run the cases
    #[arg(long)]
    no_cases: bool,
}

/// Show what a bundle holds
#[derive(Debug, Args)]
#[command(after_help = INSPECT_EXAMPLES)]
struct InspectArgs {
    /// The bundle: a directory, or an archive of one
    #[arg(value_name = "PATH")]
    bundle: PathBuf,
    /// JWK set of those who may publish bundles: a file, or an http URL on this machine
    #[arg(long, value_name = "FILE|URL")]
    keys: Option<String>,
}

/// Check a bundle and its signature
#[derive(Debug, Args)]
#[command(after_help = VERIFY_EXAMPLES)]
struct VerifyArgs {
    /// The bundle: a directory, or an archive of one
    #[arg(value_name = "PATH")]
    bundle: PathBuf,
    /// JWK set of those who may publish bundles: a file, or an http URL on this machine
    #[arg(long, value_name = "FILE|URL")]
    keys: String,
}

/// Sign a bundle
#[derive(Debug, Args)]
#[command(after_help = SIGN_EXAMPLES)]
struct SignArgs {
    /// The bundle: a directory, or an archive of one
    #[arg(value_name = "PATH")]
    bundle: PathBuf,
    /// File of the private key, as `placet keys generate` writes it
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// Time to state in the signature, in seconds since 1970 UTC [default: none]
    #[arg(long, value_name = "SECONDS")]
    at: Option<u64>,
}

pub(super) fn run(args: &BundleArgs, printer: &mut Printer) -> Result<Exit, Failure> {
    match &args.action {
        Action::Build(args) => build(args, printer),
        Action::Inspect(args) => inspect(args, printer),
        Action::Catalogue(args) => catalogue::run(args, printer),
        Action::Verify(args) => verify(args, printer),
        Action::Sign(args) => sign(args, printer),
        Action::Activate(args) => activate::activate(Source::Bundle, args, printer),
        Action::Status(args) => activate::status(Source::Bundle, args, printer),
    }
}

fn load(path: &Path) -> Result<Bundle, Failure> {
    Bundle::load(path).map_err(|error| match error {
        LoadError::Read { .. } => {
            invalid(&error).hint("name a bundle's directory, or an archive of one")
        }
        _ => invalid(&error),
    })
}

fn build(args: &BuildArgs, printer: &mut Printer) -> Result<Exit, Failure> {
    let shown = args.output.display().to_string();
    if is_inside(&args.output, &args.bundle) {
        return Err(Failure::usage(format!("`{shown}` would become a part of the bundle itself"))
            .hint("write the archive outside of the bundle's directory"));
    }
    let bundle = load(&args.bundle)?;
    let runtime = WasmRuntime::new().map_err(|error| invalid(&error))?;
    let policies = PolicySet::compile(&bundle, &runtime).map_err(|error| invalid(&error))?;
    let twins = PolicySet::compile_twins(&bundle, &runtime).map_err(|error| invalid(&error))?;
    let cases = if args.no_cases {
        None
    } else {
        let runner = CaseRunner::new(Arc::new(policies), twins.map(Arc::new));
        Some(passed(&bundle, runner, &args.bundle, printer)?)
    };
    let archive = bundle.to_archive();
    replace(&args.output, &archive)?;
    let digest = bundle.digest();
    if printer.json() {
        let line = json!({
            "archive": shown,
            "bytes": archive.len(),
            "cases": cases,
            "digest": digest,
            "files": bundle.files().count(),
            "revision": bundle.revision(),
            "signed": bundle.signature().is_some(),
        });
        printer.data(&line.to_string())?;
        return Ok(Exit::Done);
    }
    printer.data(&digest.to_string())?;
    let tested = match cases {
        Some(0) => "it has no cases".to_owned(),
        Some(cases) => format!("{cases} cases passed"),
        None => "no case was run".to_owned(),
    };
    let (bytes, files) = (archive.len(), bundle.files().count());
    printer.note(&format!("wrote {shown}: {files} files in {bytes} bytes, {tested}"));
    Ok(Exit::Done)
}

/// Whether a file that may not be there yet is, or would be, inside a directory.
fn is_inside(file: &Path, directory: &Path) -> bool {
    let parent = file.parent().filter(|parent| !parent.as_os_str().is_empty());
    let parent = parent.unwrap_or(Path::new(".")).canonicalize();
    match (parent, directory.canonicalize()) {
        (Ok(parent), Ok(directory)) => directory.is_dir() && parent.starts_with(directory),
        (Err(_), _) | (_, Err(_)) => false,
    }
}

/// Runs every case, and counts them if all pass.
fn passed(
    bundle: &Bundle,
    mut runner: CaseRunner,
    path: &Path,
    printer: &Printer,
) -> Result<usize, Failure> {
    let mut passed = 0_usize;
    let mut failed = Vec::new();
    for file in bundle.case_files() {
        let reports = runner.run(bundle, &file, request).map_err(|error| invalid(&error))?;
        let (bad, good): (Vec<CaseReport>, Vec<_>) =
            reports.into_iter().partition(|report| !report.failures.is_empty());
        passed += good.len();
        failed.extend(bad);
    }
    if failed.is_empty() {
        return Ok(passed);
    }
    for report in &failed {
        printer.note(&format!("FAIL  {}: {}", plain(&report.file), plain(&report.name)));
        for line in report.failures.iter().flat_map(|failure| failure.lines()) {
            printer.note(&format!("      {}", plain(line)));
        }
    }
    let all = passed + failed.len();
    Err(Failure::new(format!("{} of {all} cases failed; nothing was written", failed.len()))
        .hint(format!("mend the policies or the cases, see `placet test {}`", path.display())))
}

fn sign(args: &SignArgs, printer: &mut Printer) -> Result<Exit, Failure> {
    let key = read_key(&args.key)?;
    let mut bundle = load(&args.bundle)?;
    let signature = bundle
        .sign(&key, args.at)
        .map_err(|error| Failure::from_error(&error).subject("the signature"))?
        .to_owned();
    if args.bundle.is_dir() {
        let path = args.bundle.join(SIGNATURE);
        std::fs::write(&path, format!("{signature}\n"))
            .map_err(|error| Failure::new(format!("cannot write `{}`: {error}", path.display())))?;
    } else {
        replace(&args.bundle, &bundle.to_archive())?;
    }
    let (digest, kid) = (bundle.digest(), key.id().as_str());
    if printer.json() {
        let line = json!({
            "digest": digest,
            "iat": args.at,
            "kid": kid,
            "revision": bundle.revision(),
            "signature": signature,
        });
        printer.data(&line.to_string())?;
    } else {
        printer.data(&digest.to_string())?;
        printer.note(&format!("signed by {kid}"));
    }
    Ok(Exit::Done)
}

/// A private key from its file, which nobody else may read.
pub(super) fn read_key(path: &Path) -> Result<SigningKey, Failure> {
    let shown = path.display();
    let failed = |error: std::io::Error| {
        let hint = "make one with `placet keys generate`, and name the file in its directory";
        Failure::new(format!("cannot read `{shown}`: {error}")).hint(hint)
    };
    let file = std::fs::File::open(path).map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    if !metadata.is_file() {
        return Err(Failure::usage(format!("`{shown}` is not a file"))
            .hint(format!("name the file of the key, such as {shown}/signing-key.pkcs8")));
    }
    let mode = metadata.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(Failure::new(format!("`{shown}` is open to others (mode {mode:o})"))
            .hint(format!("chmod 600 {shown}")));
    }
    let mut der = Vec::new();
    file.take(MAX_KEY_BYTES).read_to_end(&mut der).map_err(failed)?;
    SigningKey::from_pkcs8(&der)
        .map_err(|error| Failure::from_error(&error).subject(&format!("`{shown}`")))
}

fn verify(args: &VerifyArgs, printer: &mut Printer) -> Result<Exit, Failure> {
    let keys = jwks_source::read(&args.keys)?;
    let bundle = load(&args.bundle)?;
    let (claims, kid) = bundle.verify(&keys).map_err(|error| {
        let what = format!("the signature of `{}`", args.bundle.display());
        let what = match error {
            placet_core::SignatureError::Missing => format!("`{}`", args.bundle.display()),
            _ => what,
        };
        Failure::from_error(&error).subject(&what).with_exit(Exit::PolicyInvalid)
    })?;
    let runtime = WasmRuntime::new().map_err(|error| invalid(&error))?;
    PolicySet::compile(&bundle, &runtime).map_err(|error| invalid(&error))?;
    if printer.json() {
        let line = json!({
            "digest": claims.digest,
            "iat": claims.iat,
            "kid": kid.as_str(),
            "revision": claims.revision,
            "valid": true,
        });
        printer.data(&line.to_string())?;
        return Ok(Exit::Done);
    }
    printer.data(&format!("digest {}", claims.digest))?;
    let mut table = print::pairs();
    table.add_row(["revision", &plain(&claims.revision)]);
    table.add_row(["signed by", kid.as_str()]);
    if let Some(iat) = claims.iat {
        table.add_row(["at", &placet_core::utc(iat)]);
    }
    printer.data(&table.trim_fmt())?;
    printer.note("verified");
    Ok(Exit::Done)
}

/// What is known of a bundle's signature.
enum State {
    None,
    Unchecked { kid: String },
    Valid { kid: String, iat: Option<u64> },
    Invalid { problem: String },
}

impl State {
    fn of(bundle: &Bundle, keys: Option<&String>) -> Result<Self, Failure> {
        let Some(signature) = bundle.signature() else { return Ok(Self::None) };
        let invalid = |error: &placet_core::SignatureError| Self::Invalid {
            problem: error.to_string().lines().next().unwrap_or_default().to_owned(),
        };
        let Some(keys) = keys else {
            let named = bundle_signer(signature);
            return Ok(named.map_or_else(|error| invalid(&error), |kid| Self::Unchecked { kid }));
        };
        Ok(match bundle.verify(&jwks_source::read(keys)?) {
            Ok((claims, kid)) => Self::Valid { kid: kid.to_string(), iat: claims.iat },
            Err(error) => invalid(&error),
        })
    }

    fn json(&self) -> Value {
        match self {
            Self::None => json!({"state": "none"}),
            Self::Unchecked { kid } => json!({"state": "unchecked", "kid": kid}),
            Self::Valid { kid, iat } => json!({"state": "valid", "kid": kid, "iat": iat}),
            Self::Invalid { problem } => json!({"state": "invalid", "problem": problem}),
        }
    }

    fn words(&self, printer: &Printer) -> String {
        match self {
            Self::None => "none".to_owned(),
            Self::Unchecked { kid } => format!("not checked, names key {}", plain(kid)),
            Self::Valid { kid, iat } => {
                let at =
                    iat.map(|iat| format!(" at {}", placet_core::utc(iat))).unwrap_or_default();
                format!("{}, by {kid}{at}", printer.tone(Tone::Good, "valid"))
            }
            Self::Invalid { problem } => {
                format!("{}: it {}", printer.tone(Tone::Bad, "invalid"), plain(problem))
            }
        }
    }
}

fn inspect(args: &InspectArgs, printer: &mut Printer) -> Result<Exit, Failure> {
    let bundle = load(&args.bundle)?;
    let state = State::of(&bundle, args.keys.as_ref())?;
    let policies: Vec<_> = bundle.policies().collect();
    if printer.json() {
        let files: Vec<_> = bundle
            .files()
            .map(|(path, bytes)| {
                let digest = placet_core::Digest::of(bytes);
                json!({"path": path, "bytes": bytes.len(), "digest": digest})
            })
            .collect();
        let line = json!({
            "digest": bundle.digest(),
            "files": files,
            "policies": policies,
            "required": {
                "job": bundle.required(SubjectKind::Job),
                "lease": bundle.required(SubjectKind::Lease),
            },
            "revision": bundle.revision(),
            "signature": state.json(),
        });
        printer.data(&line.to_string())?;
        return Ok(Exit::Done);
    }
    // Not in a table: a digest that is broken into two lines cannot be copied.
    printer.data(&format!("digest {}", bundle.digest()))?;
    let mut whole = print::pairs();
    whole.add_row(["revision", &plain(bundle.revision())]);
    whole.add_row(["signature", &state.words(printer)]);
    for kind in [SubjectKind::Lease, SubjectKind::Job] {
        let names: Vec<_> = bundle.required(kind).iter().map(|name| name.as_str()).collect();
        let names = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
        whole.add_row([&format!("required for a {}", kind.as_str()), &names]);
    }
    let bytes: usize = bundle.files().map(|(_, bytes)| bytes.len()).sum();
    let (files, cases) = (bundle.files().count(), bundle.case_files().len());
    whole.add_row(["files", &format!("{files}, {cases} of them of cases, {bytes} bytes in all")]);
    printer.data(&whole.trim_fmt())?;
    for policy in &policies {
        printer.data("")?;
        printer.data(&printer.tone(Tone::Strong, policy.name.as_str()))?;
        printer.data(&format!("  {}", policy.source_digest))?;
        printer.data(&card(policy))?;
    }
    Ok(Exit::Done)
}

/// One policy for a person.
fn card(policy: &PolicySummary) -> String {
    let language = match policy.language {
        placet_policy::bundle::Language::Rego => "Rego",
        placet_policy::bundle::Language::Wasm => "WebAssembly",
    };
    let mut table = print::pairs();
    table.add_row(["  source", &format!("{}, {language}", plain(&policy.source))]);
    if let Some(twin) = &policy.twin {
        table.add_row(["  twin", &plain(twin)]);
    }
    let level = serde_json::to_value(policy.level).unwrap_or_default();
    let mode = serde_json::to_value(policy.mode).unwrap_or_default();
    let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    table.add_row(["  level", &format!("{}, mode {}", word(&level), word(&mode))]);
    table.add_row(["  selects", &selects(&policy.select)]);
    table.add_row(["  budget", &budget(policy.budget)]);
    if let Some(schema) = &policy.params_schema {
        table.add_row(["  params", &format!("as {} says", plain(schema))]);
    }
    if let Some(Metadata { title, owner, controls, .. }) = &policy.metadata {
        for (name, text) in [("  title", title), ("  owner", owner)] {
            if let Some(text) = text {
                table.add_row([name, &plain(text)]);
            }
        }
        if !controls.is_empty() {
            table.add_row(["  controls", &plain(&controls.join(", "))]);
        }
    }
    table.trim_fmt()
}

fn selects(select: &Selector) -> String {
    let value = serde_json::to_value(select).unwrap_or_default();
    let lists = value.as_object().into_iter().flatten().filter_map(|(name, list)| {
        let words: Vec<_> = list.as_array()?.iter().filter_map(Value::as_str).collect();
        let name = name.replace('_', " ");
        (!words.is_empty()).then(|| format!("{name} {}", words.join(", ")))
    });
    let lists: Vec<_> = lists.collect();
    if lists.is_empty() { "every request".to_owned() } else { lists.join("; ") }
}

fn budget(budget: Budget) -> String {
    let parts = [
        budget.ticks.map(|ticks| format!("{ticks} ticks")),
        budget.fuel.map(|fuel| format!("{fuel} fuel")),
        budget.memory_bytes.map(|bytes| format!("{bytes} bytes of memory")),
    ];
    parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
}
