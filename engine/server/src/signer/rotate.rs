//! Changing which keys sign: the next one, and that one must no longer be relied on.

use std::path::Path;

use placet_core::{KeyId, KeyValidity, MAX_KEYS, Revocation, SigningKey};

use super::manifest::{self, KeyUse, ListedKey, Lock, Manifest, Place, Token};
use super::{SignerError, pkcs11, private};
use crate::metrics::Stopwatch;

/// Seconds that a running server has to take up a change: it looks at the manifest once a second,
/// and a token may take some to be reached.
pub const PICKUP_SECONDS: u64 = 5;
/// Seconds of waiting, for a lock or a token, from which on a rotation is reckoned from their end:
/// a turn that is announced too late leaves signatures of a key whose time was over.
const SLOW_SECONDS: u64 = 2;
/// Longest overlap in seconds: a year.
pub const MAX_OVERLAP_SECONDS: u64 = 31_536_000;

/// Where the next key comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NextKey {
    /// It is made, and kept in a file of the directory.
    Made,
    /// It is in that variable of the environment.
    Env(String),
    /// It is in a token, and so is its public half.
    Pkcs11(Token),
}

/// Why the keys stay as they are.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RotateError {
    /// A key or the manifest cannot be used.
    #[error(transparent)]
    Keys(#[from] SignerError),
    /// The last rotation is not over.
    #[error(
        "the key `{kid}` signs until {until}: the last rotation is not over\n\
         hint: wait, or revoke the key that is to be replaced (`placet keys revoke`)"
    )]
    UnderWay {
        /// The key that is being replaced.
        kid: KeyId,
        /// When it ends to sign, in seconds since 1970-01-01 UTC.
        until: u64,
    },
    /// The key is listed already.
    #[error(
        "the key `{kid}` is listed already\nhint: a key signs once, for one use: take a new one"
    )]
    Listed {
        /// Which.
        kid: KeyId,
    },
    /// There are as many keys as there can be.
    #[error(
        "{MAX_KEYS} keys are listed, as many as can be\n\
         hint: begin a new directory; verifiers then need the JWK sets of both"
    )]
    TooMany,
    /// The overlap is too long.
    #[error("an overlap has at most {MAX_OVERLAP_SECONDS} seconds, a year")]
    Overlap,
    /// There is no such key.
    #[error("no key `{kid}` is listed\nhint: `placet keys list` names them")]
    Unknown {
        /// Which was named.
        kid: String,
    },
    /// It is the only key that signs.
    #[error(
        "the key `{kid}` is the only one that signs: without it nothing is decided\n\
         hint: make the next one first, with `placet keys rotate --overlap 0s`"
    )]
    OnlyOne {
        /// Which.
        kid: KeyId,
    },
    /// It was revoked before, as of an earlier time.
    #[error(
        "the key `{kid}` is revoked as of {since} already\n\
         hint: a revocation can only be moved to an earlier time"
    )]
    RevokedBefore {
        /// Which.
        kid: KeyId,
        /// As of when, in seconds since 1970-01-01 UTC.
        since: u64,
    },
    /// The revocation cannot be as it is asked for.
    #[error("the revocation {problem}")]
    Revocation {
        /// What is wrong.
        problem: String,
    },
}

/// What a rotation did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rotated {
    /// The next key.
    pub next: ListedKey,
    /// The one that it replaces, if there was one.
    pub before: Option<ListedKey>,
}

/// Lists the next key. It is published from now on. With decisions the key before signs until the
/// overlap is over, then the next one: a JWK set names both, whenever it was fetched. Checkpoints
/// are signed by both in the overlap, because whoever verifies them knows one key. The first key of
/// a use signs at any time.
///
/// `now` is in seconds since 1970-01-01 UTC. Holds a lock: of two at once, the second finds the
/// first one's key.
///
/// # Errors
/// [`RotateError`]: every key is as it was. There may be a key file that nothing names, and a
/// manifest of the keys that there were.
pub fn rotate(
    directory: &Path,
    usage: KeyUse,
    next: &NextKey,
    overlap_seconds: u64,
    now: u64,
) -> Result<Rotated, RotateError> {
    if overlap_seconds > MAX_OVERLAP_SECONDS {
        return Err(RotateError::Overlap);
    }
    private::make_directory(directory).map_err(|source| {
        let path = directory.display().to_string();
        SignerError::Access { path, source }
    })?;
    let waited = Stopwatch::start();
    let after = |now: u64| {
        let waited = waited.elapsed().as_secs();
        if waited < SLOW_SECONDS { now } else { now.saturating_add(waited) }
    };
    let lock = Lock::take(directory)?;
    let mut manifest = adopted(directory, &lock)?;
    if manifest.keys.len() >= MAX_KEYS {
        return Err(RotateError::TooMany);
    }
    let begun = now;
    let now = after(begun);
    let ending = manifest.keys.iter().filter(|key| key.usage == usage).find_map(|key| {
        let until = key.validity.until.filter(|until| *until > now)?;
        key.validity.revoked.is_none().then(|| (key.public.id().clone(), until))
    });
    if let Some((kid, until)) = ending {
        return Err(RotateError::UnderWay { kid, until });
    }
    let current = manifest.keys.iter().position(|key| {
        key.usage == usage && key.validity.until.is_none() && key.validity.revoked.is_none()
    });
    if *next == NextKey::Made {
        // A key file without a manifest is the sign of one that was lost: so the manifest comes
        // first, whatever becomes of the rest.
        manifest.begin(directory, &lock)?;
    }
    let (key, place) = take(directory, usage, next)?;
    let now = after(begun);
    let soon = now.saturating_add(PICKUP_SECONDS);
    let turn = now.saturating_add(overlap_seconds.max(PICKUP_SECONDS));
    // The key before may not have begun yet: it signs for a second at least.
    let begins = current.and_then(|at| manifest.keys.get(at)).and_then(|key| key.validity.from);
    let turn = turn.max(begins.unwrap_or_default().saturating_add(1));
    let (from, until) = match usage {
        KeyUse::Decision => (turn, turn),
        KeyUse::Checkpoint => (soon, turn.max(soon.saturating_add(PICKUP_SECONDS))),
    };
    let public = key.verifying_key().clone();
    if manifest.get(public.id()).is_some() {
        return Err(RotateError::Listed { kid: public.id().clone() });
    }
    let is_first = !manifest.names(usage);
    let validity = KeyValidity { from: (!is_first).then_some(from), ..KeyValidity::default() };
    let before = current.and_then(|at| manifest.keys.get_mut(at)).map(|before| {
        before.validity.until = Some(until);
        before.clone()
    });
    let next = ListedKey { usage, public, place, validity };
    manifest.keys.push(next.clone());
    manifest.write(directory, &lock)?;
    Ok(Rotated { next, before })
}

/// The next key, and where it stays.
fn take(
    directory: &Path,
    usage: KeyUse,
    next: &NextKey,
) -> Result<(SigningKey, Place), SignerError> {
    let unfit = |problem| SignerError::Manifest { path: "the next key".to_owned(), problem };
    match next {
        NextKey::Made => {
            let key = SigningKey::generate().map_err(SignerError::Make)?;
            let file = usage.file_of(key.id());
            private::write(directory, &file, &key)?;
            Ok((key, Place::File(file)))
        }
        NextKey::Env(variable) => {
            let place = Place::Env(variable.clone());
            place.check().map_err(unfit)?;
            Ok((private::read_variable(variable)?, place))
        }
        NextKey::Pkcs11(token) => {
            let place = Place::Pkcs11(token.clone());
            place.check().map_err(unfit)?;
            let public = pkcs11::public_key(token)?;
            Ok((pkcs11::open(token, &public)?, place))
        }
    }
}

/// Revokes a key: nothing that it signed at `since` or later counts, and nobody acts on anything
/// of it. If it signs now and the next one waits, that one's turn comes at once; if it is the next
/// one, the one before goes on.
///
/// Times are in seconds since 1970-01-01 UTC.
///
/// # Errors
/// [`RotateError`]: everything is as it was.
pub fn revoke(
    directory: &Path,
    kid: &str,
    revocation: &Revocation,
    now: u64,
) -> Result<ListedKey, RotateError> {
    let unfit = |problem| RotateError::Revocation { problem };
    manifest::check_reason(&revocation.reason).map_err(unfit)?;
    if revocation.since > now {
        return Err(unfit(format!("is as of {}, it is {now}", revocation.since)));
    }
    let lock = Lock::take(directory)?;
    let mut manifest = adopted(directory, &lock)?;
    let Some(at) = manifest.keys.iter().position(|key| key.public.id().as_str() == kid) else {
        return Err(RotateError::Unknown { kid: kid.to_owned() });
    };
    let Some(key) = manifest.keys.get(at).cloned() else {
        return Err(RotateError::Unknown { kid: kid.to_owned() });
    };
    let (kid, usage) = (key.public.id().clone(), key.usage);
    match &key.validity.revoked {
        Some(Revocation { since, .. }) if *since <= revocation.since => {
            return Err(RotateError::RevokedBefore { kid, since: *since });
        }
        Some(_) => {}
        None => make_room(&mut manifest, &key, usage, now)?,
    }
    let Some(key) = manifest.keys.get_mut(at) else {
        return Err(RotateError::Unknown { kid: kid.to_string() });
    };
    key.validity.revoked = Some(revocation.clone());
    let revoked = key.clone();
    manifest.write(directory, &lock)?;
    Ok(revoked)
}

/// Sees to it that another key signs in the place of one that is to be revoked.
fn make_room(
    manifest: &mut Manifest,
    key: &ListedKey,
    usage: KeyUse,
    now: u64,
) -> Result<(), RotateError> {
    let is_retired = key.validity.until.is_some_and(|until| until <= now);
    if is_retired {
        return Ok(());
    }
    let others = manifest.keys.iter_mut().filter(|other| {
        other.usage == usage
            && other.public != key.public
            && other.validity.revoked.is_none()
            && other.validity.until.is_none_or(|until| until > now)
    });
    let soon = now.saturating_add(PICKUP_SECONDS);
    let mut others: Vec<_> = others.collect();
    let Some(other) = others.pop() else {
        return Err(RotateError::OnlyOne { kid: key.public.id().clone() });
    };
    if other.validity.until.is_some() {
        // The key to be revoked was to come after it.
        other.validity.until = None;
    } else if other.validity.from.is_some_and(|from| from > soon) {
        other.validity.from = Some(soon);
    }
    Ok(())
}

/// The manifest, with the keys in it that stood for those that it does not name.
fn adopted(directory: &Path, _lock: &Lock) -> Result<Manifest, SignerError> {
    let keys = super::ring::listed(directory)?;
    Ok(Manifest { keys })
}
