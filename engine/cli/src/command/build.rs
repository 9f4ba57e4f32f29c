//! `placet build`: makes a component of a policy written in Rust.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use clap::Args;
use placet_policy::{WasmRuntime, check_component};
use serde::Deserialize;
use wit_component::ComponentEncoder;

use crate::exit::{Exit, Failure};
use crate::print::Printer;

/// What a policy is compiled for: no system interface at all.
const TARGET: &str = "wasm32-unknown-unknown";
/// Where Debian's packages put a compiler that can build for it, and what that needs beside it.
const DEBIAN: Debian = Debian {
    cargo: "/usr/bin/cargo",
    rustc: "/usr/bin/rustc",
    linker: "/usr/bin/rust-lld",
    library: "/usr/lib/rustlib/src/rust/library",
};
const INSTALL: &str = "install the target with \
                       `rustup target add wasm32-unknown-unknown`, or on Debian \
                       `apt-get install cargo-web rustc-web rust-web-src rust-web-llvm lld-22`";

const EXAMPLES: &str = "\
The directory holds a Rust crate with `crate-type = [\"cdylib\"]` that uses `placet_guest::policy!`.
The component imports nothing, and is checked as a bundle checks it.

Examples:
  placet build policies/guests/isolation
  placet build policies/guests/isolation -o policies/reference/isolation/isolation.wasm";

/// Build a policy's component from its Rust source
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct BuildArgs {
    /// Directory of the policy's crate
    #[arg(value_name = "DIR")]
    directory: PathBuf,
    /// Where to write the component [default: DIR/CRATE.wasm]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

pub(super) fn run(args: &BuildArgs, printer: &mut Printer) -> Result<Exit, Failure> {
    let manifest = args.directory.join("Cargo.toml");
    if !manifest.is_file() {
        return Err(Failure::new(format!("`{}` is not a crate", args.directory.display()))
            .hint("name the directory that holds its Cargo.toml"));
    }
    let toolchain = Toolchain::find(&args.directory)?;
    let packages = toolchain.packages(&args.directory)?;
    let module_file = toolchain.compile(&args.directory, &packages)?;
    let module =
        std::fs::read(&module_file).map_err(|error| cannot("read", &module_file, &error))?;
    let component = encode(&module)?;
    let output = args.output.clone().unwrap_or_else(|| beside(&args.directory, &module_file));
    let shown = output.display().to_string();
    let runtime = WasmRuntime::new().map_err(|error| Failure::from_error(&error))?;
    check_component(&runtime, &shown, &component)
        .map_err(|error| Failure::from_error(&error).with_exit(Exit::PolicyInvalid))?;
    std::fs::write(&output, &component).map_err(|error| cannot("write", &output, &error))?;
    if printer.json() {
        let line = serde_json::json!({ "bytes": component.len(), "component": shown });
        printer.data(&line.to_string())?;
    } else {
        printer.note(&format!("wrote {shown}, {} bytes", component.len()));
    }
    Ok(Exit::Done)
}

fn cannot(what: &str, file: &Path, error: &std::io::Error) -> Failure {
    Failure::new(format!("cannot {what} `{}`: {error}", file.display()))
}

fn beside(directory: &Path, module_file: &Path) -> PathBuf {
    directory.join(module_file.file_name().unwrap_or("policy.wasm".as_ref()))
}

/// Wraps the compiler's core module in the component that its own metadata describes.
fn encode(module: &[u8]) -> Result<Vec<u8>, Failure> {
    let mut encoder = ComponentEncoder::default();
    let encoded = encoder.validate(true).module(module).and_then(ComponentEncoder::encode);
    encoded.map_err(|error| {
        Failure::from_error(error.as_ref())
            .context("cannot make a component")
            .hint("export the policy with `placet_guest::policy!(evaluate)`, and import nothing")
    })
}

struct Debian {
    cargo: &'static str,
    rustc: &'static str,
    linker: &'static str,
    library: &'static str,
}

/// A compiler that can build for [`TARGET`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Toolchain {
    /// The one on the path, with the target's standard library installed by rustup or otherwise.
    Installed,
    /// Debian's, which builds the standard library from its source.
    Debian,
}

/// One line of `cargo build --message-format json`, as far as it concerns us.
#[derive(Deserialize)]
struct Message {
    reason: String,
    target: Option<Target>,
    #[serde(default)]
    filenames: Vec<PathBuf>,
}

#[derive(Deserialize)]
struct Target {
    kind: Vec<String>,
}

/// What `cargo metadata` says, as far as it concerns us.
#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    version: String,
    manifest_path: PathBuf,
    /// Absent for a package on this machine.
    source: Option<String>,
}

impl Toolchain {
    fn find(directory: &Path) -> Result<Self, Failure> {
        let mut rustc = Command::new("rustc");
        rustc.args(["--print", "target-libdir", "--target", TARGET]).current_dir(directory);
        let libraries = rustc.stderr(Stdio::null()).output().ok().map(|output| output.stdout);
        let libraries = libraries.and_then(|bytes| String::from_utf8(bytes).ok());
        if libraries.is_some_and(|path| !path.is_empty() && Path::new(path.trim_end()).is_dir()) {
            return Ok(Self::Installed);
        }
        let needs = [DEBIAN.cargo, DEBIAN.rustc, DEBIAN.linker, DEBIAN.library];
        if needs.iter().all(|path| Path::new(path).exists()) {
            return Ok(Self::Debian);
        }
        Err(Failure::new(format!("no Rust compiler here can build for {TARGET}")).hint(INSTALL))
    }

    /// Cargo, unmoved by what the caller's environment has set for builds of its own.
    fn cargo(self, directory: &Path) -> Command {
        let mut cargo = match self {
            Self::Installed => Command::new("cargo"),
            Self::Debian => {
                let mut cargo = Command::new(DEBIAN.cargo);
                cargo
                    .env("RUSTC", DEBIAN.rustc)
                    .env("RUSTC_BOOTSTRAP", "1")
                    .env("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER", DEBIAN.linker);
                cargo
            }
        };
        cargo.current_dir(directory).stderr(Stdio::inherit());
        for ambient in ["RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS", "CARGO_TARGET_DIR"] {
            cargo.env_remove(ambient);
        }
        cargo
    }

    fn packages(self, directory: &Path) -> Result<Vec<Package>, Failure> {
        let mut cargo = self.cargo(directory);
        cargo.args(["metadata", "--format-version", "1", "--filter-platform", TARGET]);
        let read: Metadata = serde_json::from_slice(&output(cargo)?)
            .map_err(|error| Failure::from_error(&error).context("cannot read cargo's metadata"))?;
        Ok(read.packages)
    }

    /// Compiles the crate and says where its module is. The compiler's own messages pass through.
    fn compile(self, directory: &Path, packages: &[Package]) -> Result<PathBuf, Failure> {
        let mut cargo = self.cargo(directory);
        cargo.args(["build", "--release", "--target", TARGET]);
        cargo.args(["--message-format", "json-render-diagnostics", "--config"]);
        cargo.arg(rustflags(packages)?);
        if self == Self::Debian {
            cargo.arg("-Zbuild-std=std,panic_abort");
        }
        let lines = output(cargo)?;
        let mut modules = lines.split(|byte| *byte == b'\n').filter_map(|line| {
            let message: Message = serde_json::from_slice(line).ok()?;
            let kinds = message.target?.kind;
            let ours = message.reason == "compiler-artifact" && kinds.iter().any(|k| k == "cdylib");
            let wasm = |file: &PathBuf| file.extension().is_some_and(|ending| ending == "wasm");
            if ours { message.filenames.into_iter().find(wasm) } else { None }
        });
        modules.next_back().ok_or_else(|| {
            Failure::new("the crate builds no module")
                .hint("give it `[lib]` with `crate-type = [\"cdylib\"]`")
        })
    }
}

/// Takes the places of sources on this machine out of the component: it shall be the same wherever
/// it is built.
fn rustflags(packages: &[Package]) -> Result<OsString, Failure> {
    let mut flags = BTreeSet::new();
    for package in packages {
        let directory = package.manifest_path.parent();
        // What a registry keeps beside this package may be built too: the standard library's own
        // dependencies.
        let (from, to) = match &package.source {
            Some(_) => (directory.and_then(Path::parent), "/registry".to_owned()),
            None => (directory, format!("/{}-{}", package.name, package.version)),
        };
        if let Some(from) = from {
            flags.insert(format!("--remap-path-prefix={}={to}", from.display()));
        }
    }
    let flags = serde_json::to_string(&flags).map_err(|error| Failure::from_error(&error))?;
    Ok(format!("target.{TARGET}.rustflags={flags}").into())
}

fn output(mut cargo: Command) -> Result<Vec<u8>, Failure> {
    let output = cargo
        .output()
        .map_err(|error| Failure::from_error(&error).context("cannot run cargo").hint(INSTALL))?;
    if !output.status.success() {
        return Err(Failure::new("the policy does not build; cargo says why above")
            .with_exit(Exit::PolicyInvalid));
    }
    Ok(output.stdout)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_place_of_this_machine_stays_in_a_component() {
        let package = |at: &str, source: Option<&str>| Package {
            name: "guest".into(),
            version: "1.0.0".into(),
            manifest_path: at.into(),
            source: source.map(str::to_owned),
        };
        let packages = [
            package("/some where/guest/Cargo.toml", None),
            package("/cargo/src/serde-1.0.0/Cargo.toml", Some("registry")),
            package("/cargo/src/syn-2.0.0/Cargo.toml", Some("registry")),
        ];
        let flags = rustflags(&packages).expect("strings are JSON");
        let expected = "target.wasm32-unknown-unknown.rustflags=[\
            \"--remap-path-prefix=/cargo/src=/registry\",\
            \"--remap-path-prefix=/some where/guest=/guest-1.0.0\"]";
        assert_eq!(flags.to_string_lossy(), expected);
    }

    #[test]
    fn a_module_that_exports_no_policy_becomes_no_component() {
        let empty = b"\0asm\x01\0\0\0\x07\x04\x01\0";
        let failure = encode(empty).expect_err("it has no metadata");
        assert!(failure.message().contains("\nhint: export the policy"), "{}", failure.message());
    }
}
