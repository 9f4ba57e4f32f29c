//! Where things are and where they go.

use std::path::{Path, PathBuf};

use crate::exit::Failure;

/// The manifest of a bundle.
pub(super) const MANIFEST: &str = "bundle.yaml";
/// The crate that a policy in Rust links, as a checkout of Placet has it.
const SDK: &str = "sdk-guest";

/// The bundle's directory: as it is named, or the nearest one above.
pub(super) fn find_bundle(named: Option<&Path>) -> Result<PathBuf, Failure> {
    let make = "make a bundle with `placet new bundle NAME`, or name one with --bundle";
    if let Some(named) = named {
        if named.join(MANIFEST).is_file() {
            return Ok(named.to_owned());
        }
        let failure = Failure::new(format!("`{}` has no {MANIFEST}", named.display()));
        return Err(match named.is_file() {
            true => failure.hint("unpack the archive, and name the directory"),
            false => failure.hint(make),
        });
    }
    match above(|directory| directory.join(MANIFEST).is_file())? {
        Some(directory) => Ok(directory),
        None => Err(Failure::new(format!("neither this directory nor one above has a {MANIFEST}"))
            .hint(make)),
    }
}

/// The path of `placet-guest` as it is to stand in a manifest of Cargo.
pub(super) fn find_sdk(named: Option<&Path>) -> Result<String, Failure> {
    let is_sdk = |directory: &Path| directory.join("Cargo.toml").is_file();
    let hint = "name the directory sdk-guest of Placet's sources with --sdk";
    let found = match named {
        Some(named) if is_sdk(named) => Some(named.to_owned()),
        Some(named) => {
            let message = format!("`{}` is not the crate `placet-guest`", named.display());
            return Err(Failure::new(message).hint(hint));
        }
        None => above(|directory| is_sdk(&directory.join(SDK)))?.map(|it| it.join(SDK)),
    };
    let Some(found) = found else {
        return Err(Failure::new(format!("no {SDK} is here or above")).hint(hint));
    };
    let cannot = |why: &dyn std::fmt::Display| {
        Failure::new(format!("cannot use `{}`: {why}", found.display())).hint(hint)
    };
    let whole = found.canonicalize().map_err(|error| cannot(&error))?;
    let text = whole.to_str().ok_or_else(|| cannot(&"its path is not UTF-8"))?;
    Ok(text.replace('\\', "\\\\").replace('"', "\\\""))
}

/// The nearest directory, this one first, of which something holds; relative to this one.
fn above(holds: impl Fn(&Path) -> bool) -> Result<Option<PathBuf>, Failure> {
    let here = std::env::current_dir()
        .map_err(|error| Failure::new(format!("cannot tell the current directory: {error}")))?;
    let found = here.ancestors().position(holds);
    Ok(found.map(|up| match up {
        0 => PathBuf::from("."),
        up => ["..".to_owned()].iter().cycle().take(up).collect(),
    }))
}

/// A path in a directory; in this one, without any ado.
pub(super) fn inside(directory: &Path, name: &str) -> PathBuf {
    if directory == Path::new(".") { PathBuf::from(name) } else { directory.join(name) }
}

/// A path as a shell reads it.
pub(super) fn shell(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = |c: char| c.is_alphanumeric() || matches!(c, '/' | '.' | '_' | '-' | ':' | '@');
    if !text.is_empty() && text.chars().all(plain) {
        text
    } else {
        format!("'{}'", text.replace('\'', "'\\''"))
    }
}
