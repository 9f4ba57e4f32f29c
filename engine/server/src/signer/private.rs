//! Private parts: from a file, from the environment, from a token.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use placet_core::SigningKey;

use super::manifest::{ListedKey, Place};
use super::{SignerError, check_mode, pkcs11};

/// Longest key file in bytes: an Ed25519 key has about 80.
const MAX_KEY_BYTES: u64 = 1_024;
/// Longest key in a variable in bytes: as much in PEM.
const MAX_VARIABLE_BYTES: usize = 4_096;
/// Bits of the mode by which others may read or write.
const OTHERS: u32 = 0o077;
const PEM_BEGIN: &str = "-----BEGIN PRIVATE KEY-----";
const PEM_END: &str = "-----END PRIVATE KEY-----";

/// The private part of a listed key, which has to belong to its public half.
///
/// # Errors
/// [`SignerError`].
pub(super) fn open(directory: &Path, listed: &ListedKey) -> Result<SigningKey, SignerError> {
    let key = match &listed.place {
        Place::File(name) => read_file(&directory.join(name))?,
        Place::Env(variable) => read_variable(variable)?,
        Place::Pkcs11(token) => pkcs11::open(token, &listed.public)?,
    };
    if key.verifying_key() == &listed.public {
        return Ok(key);
    }
    let (place, kid) = (listed.place.to_string(), listed.public.id().clone());
    Err(SignerError::OtherKey { place, kid })
}

/// The key of a file, which is made if there is none.
///
/// # Errors
/// [`SignerError`].
pub(super) fn open_or_make(directory: &Path, file_name: &str) -> Result<SigningKey, SignerError> {
    let path = directory.join(file_name);
    if !path.exists() {
        make_directory(directory)
            .map_err(|source| SignerError::Access { path: shown(directory), source })?;
        let key = SigningKey::generate().map_err(SignerError::Make)?;
        match write(directory, file_name, &key) {
            // Another process was faster: its key is the key.
            Err(SignerError::Access { source, .. })
                if source.kind() == io::ErrorKind::AlreadyExists => {}
            written => written?,
        }
    }
    read_file(&path)
}

/// Writes a key to a file of its own: never over another one.
///
/// # Errors
/// [`SignerError`].
pub(super) fn write(
    directory: &Path,
    file_name: &str,
    key: &SigningKey,
) -> Result<(), SignerError> {
    let der = key.to_pkcs8().map_err(SignerError::Make)?;
    write_new(directory, file_name, key.id().as_str(), der.as_ref())
        .map_err(|source| SignerError::Access { path: shown(&directory.join(file_name)), source })
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

/// Reads a key file that nobody but its owner can read.
///
/// # Errors
/// [`SignerError`].
pub(super) fn read_file(path: &Path) -> Result<SigningKey, SignerError> {
    let der = read_secret(path, MAX_KEY_BYTES)?;
    SigningKey::from_pkcs8(&der).map_err(|source| SignerError::NoKey { path: shown(path), source })
}

/// Reads a file that nobody but its owner can read, up to so many bytes.
///
/// # Errors
/// [`SignerError`]: unreadable, or readable by others.
pub(super) fn read_secret(path: &Path, most: u64) -> Result<Vec<u8>, SignerError> {
    let access = |source| SignerError::Access { path: shown(path), source };
    let file = File::open(path).map_err(access)?;
    check_mode(&file, path, OTHERS)?;
    let mut bytes = Vec::new();
    file.take(most).read_to_end(&mut bytes).map_err(access)?;
    Ok(bytes)
}

/// The key in a variable of the environment. What the variable holds is in no message.
///
/// # Errors
/// [`SignerError::Variable`].
pub(super) fn read_variable(variable: &str) -> Result<SigningKey, SignerError> {
    let text = variable_text(variable)?;
    let wrong = |problem| SignerError::Variable { variable: variable.to_owned(), problem };
    let (body, is_pem) = match text.trim().strip_prefix(PEM_BEGIN) {
        None => (text.trim(), false),
        Some(rest) => match rest.strip_suffix(PEM_END) {
            Some(body) => (body, true),
            None => return Err(wrong("holds PEM without its end")),
        },
    };
    let encoded: String = body.chars().filter(|char| !char.is_whitespace()).collect();
    let der = STANDARD.decode(encoded).ok().and_then(|der| SigningKey::from_pkcs8(&der).ok());
    der.ok_or_else(|| {
        wrong(if is_pem {
            "holds PEM, but no unencrypted Ed25519 key"
        } else {
            "holds no unencrypted Ed25519 key: PKCS#8 as PEM, or its DER in base64"
        })
    })
}

/// What a variable of the environment holds.
///
/// # Errors
/// [`SignerError::Variable`]: not set, too long, or no text.
pub(super) fn variable_text(variable: &str) -> Result<String, SignerError> {
    #[expect(
        clippy::disallowed_methods,
        reason = "the manifest, not a flag, says which variable holds a secret"
    )]
    let read = std::env::var(variable);
    let problem = match read {
        Ok(text) if text.len() <= MAX_VARIABLE_BYTES => return Ok(text),
        Ok(_) => "holds more than a key",
        Err(std::env::VarError::NotPresent) => "is not set",
        Err(std::env::VarError::NotUnicode(_)) => "holds no text",
    };
    Err(SignerError::Variable { variable: variable.to_owned(), problem })
}

/// Makes the directory, with mode 0700, if there is none.
pub(super) fn make_directory(directory: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(directory)
}

/// Writes a file whole or not at all, and never over another one.
///
/// The draft is named after the key. A process id would do until a process is killed over its
/// draft: in a container the next one has the same.
fn write_new(directory: &Path, file_name: &str, name: &str, bytes: &[u8]) -> io::Result<()> {
    let draft = directory.join(format!(".{file_name}.{name}"));
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(&draft)?;
    let written = file.write_all(bytes).and_then(|()| file.sync_all());
    // A link, unlike a renaming, fails where a file already stands.
    let linked = written.and_then(|()| fs::hard_link(&draft, directory.join(file_name)));
    fs::remove_file(&draft)?;
    linked?;
    File::open(directory)?.sync_all()
}
