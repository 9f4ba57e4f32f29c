//! The keys of one use, ready to sign, and read again when their manifest changes.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use placet_core::{KeyError, KeyId, KeySet, KeyValidity, SigningKey, VerifyingKey};

use super::manifest::{KeyUse, ListedKey, MANIFEST_FILE, Manifest, Place};
use super::{SignerError, TokenError, private};
use crate::activation::chain;
use crate::clock::Clock;
use crate::metrics::Stopwatch;

/// Time between two looks at the manifest: a rotation gives a running server some of them to take
/// it up.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Time between two attempts to reach a key that could not be reached: opening a token may take
/// seconds, in which nothing is decided.
const RETRY_EVERY: Duration = Duration::from_secs(60);

/// The keys of one use.
#[derive(Debug)]
pub(super) struct Ring {
    keys: Vec<RingKey>,
    /// Whether a key that is to sign could not be reached, for a reason that may pass.
    is_incomplete: bool,
}

#[derive(Debug, Clone)]
struct RingKey {
    public: VerifyingKey,
    validity: KeyValidity,
    /// Absent if it no longer signs, or cannot be reached.
    private: Option<Arc<SigningKey>>,
}

impl Ring {
    /// Of one key that signs at any time.
    pub(super) fn of(key: SigningKey) -> Self {
        let (public, validity) = (key.verifying_key().clone(), KeyValidity::default());
        let key = RingKey { public, validity, private: Some(Arc::new(key)) };
        Self { keys: vec![key], is_incomplete: false }
    }

    /// Opens the keys of a directory that sign now or later, those of `known` as they are. A key
    /// that has to sign now must be there; for another there is time to mend it.
    fn open(
        directory: &Path,
        usage: KeyUse,
        known: Option<&Self>,
        now: u64,
    ) -> Result<Self, SignerError> {
        let manifest = Manifest::read(directory)?;
        if !manifest.names(usage) {
            return Ok(Self::of(private::open_or_make(directory, usage.first_file())?));
        }
        let listed = manifest.keys.iter().filter(|key| key.usage == usage);
        let (mut keys, mut is_incomplete) = (Vec::new(), false);
        for listed in listed {
            let ListedKey { public, validity, .. } = listed.clone();
            let mut key = RingKey { public, validity, private: None };
            if key.may_sign_from(now) {
                let opened = match known.and_then(|known| known.private(key.public.id())) {
                    Some(private) => Ok(private),
                    None => private::open(directory, listed).map(Arc::new),
                };
                match opened {
                    Ok(private) => key.private = Some(private),
                    // A running server goes on with the others, and says so.
                    Err(error) if known.is_none() && key.validity.signs_at(now) => {
                        return Err(error);
                    }
                    Err(error) => {
                        // A PIN that was refused is not tried again: tokens lock themselves.
                        let is_final = matches!(error, SignerError::Token(TokenError::Pin { .. }));
                        is_incomplete |= !is_final;
                        let (kid, error) = (key.public.id(), chain(&error).replace('\n', "; "));
                        tracing::error!(%kid, error, "a key that is to sign cannot be used");
                    }
                }
            }
            keys.push(key);
        }
        Ok(Self { keys, is_incomplete })
    }

    fn private(&self, kid: &KeyId) -> Option<Arc<SigningKey>> {
        let key = self.keys.iter().find(|key| key.public.id() == kid)?;
        key.private.clone()
    }

    /// The keys that sign at that time, the newest first.
    fn in_use(&self, time: u64) -> Vec<&RingKey> {
        let mut keys: Vec<_> = self.keys.iter().filter(|key| key.validity.signs_at(time)).collect();
        keys.sort_by_key(|key| std::cmp::Reverse(key.validity.from));
        keys
    }

    /// The key that signs what is issued at that time: the newest of those in use.
    ///
    /// # Errors
    /// [`KeyError`]: none is in use, or it cannot be reached.
    pub(super) fn at(&self, time: u64) -> Result<&SigningKey, KeyError> {
        let Some(newest) = self.in_use(time).into_iter().next() else {
            return Err(KeyError::NoneInUse);
        };
        newest.private.as_deref().ok_or(KeyError::Elsewhere)
    }

    /// The newest key that can be reached and was not revoked, whenever it signs: for what the
    /// server writes for itself.
    ///
    /// # Errors
    /// [`KeyError::NoneInUse`].
    pub(super) fn last(&self) -> Result<&SigningKey, KeyError> {
        let trusted = self.keys.iter().filter(|key| key.validity.revoked.is_none());
        trusted.rev().find_map(|key| key.private.as_deref()).ok_or(KeyError::NoneInUse)
    }

    /// All keys that sign at that time and can be reached, the newest first.
    pub(super) fn all_at(&self, time: u64) -> Vec<&SigningKey> {
        self.in_use(time).into_iter().filter_map(|key| key.private.as_deref()).collect()
    }

    /// What is published of them: public halves and times. Those that were revoked are left out
    /// unless `with_revoked`: many libraries would take what they sign.
    pub(super) fn public(&self, with_revoked: bool) -> Vec<(VerifyingKey, KeyValidity)> {
        let keys = self.keys.iter();
        let keys = keys.filter(|key| with_revoked || key.validity.revoked.is_none());
        keys.map(|key| (key.public.clone(), key.validity.clone())).collect()
    }

    /// Those that were not revoked, whenever they signed; none if there is none.
    pub(super) fn trusted(&self) -> Option<KeySet> {
        KeySet::new(self.public(false).into_iter().map(|(key, _)| key)).ok()
    }
}

impl RingKey {
    fn may_sign_from(&self, now: u64) -> bool {
        let KeyValidity { until, revoked, .. } = &self.validity;
        revoked.is_none() && until.is_none_or(|until| until > now)
    }
}

/// A ring that follows its manifest. Shared between threads.
#[derive(Debug)]
pub(super) struct Following {
    /// Absent if there is no manifest to follow.
    source: Option<(PathBuf, KeyUse)>,
    /// Replaced as one; held for no longer than it takes to copy the reference.
    ring: RwLock<Arc<Ring>>,
    /// Held by whoever looks, and reads the manifest again.
    looked: Mutex<Looked>,
}

#[derive(Debug)]
struct Looked {
    at: Stopwatch,
    /// When the manifest was last read.
    read: Stopwatch,
    /// How the manifest looked when it was last read, or could not be.
    mark: Mark,
}

/// What tells one state of the manifest from another.
type Mark = Option<(u64, u64, u64, i64, i64)>;

impl Following {
    pub(super) fn fixed(key: SigningKey) -> Self {
        Self::with(None, Ring::of(key), None)
    }

    /// Opens the keys of a directory.
    ///
    /// # Errors
    /// [`SignerError`].
    pub(super) fn open(directory: &Path, usage: KeyUse) -> Result<Self, SignerError> {
        // Before it is read: what changes meanwhile is seen at the next look.
        let mark = mark(directory);
        let ring = Ring::open(directory, usage, None, Clock::now())?;
        Ok(Self::with(Some((directory.to_owned(), usage)), ring, mark))
    }

    fn with(source: Option<(PathBuf, KeyUse)>, ring: Ring, mark: Mark) -> Self {
        let looked = Mutex::new(Looked { at: Stopwatch::start(), read: Stopwatch::start(), mark });
        Self { source, ring: RwLock::new(Arc::new(ring)), looked }
    }

    /// The keys, as new as the last look: at most a second old.
    pub(super) fn ring(&self) -> Arc<Ring> {
        // Whoever comes while another looks goes on with what there is.
        if self.source.is_some()
            && let Ok(mut looked) = self.looked.try_lock()
            && looked.at.elapsed() >= LOOK_EVERY
        {
            self.look(&mut looked);
        }
        Arc::clone(&self.ring.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Looks at once.
    pub(super) fn look_now(&self) {
        // A panic elsewhere leaves a whole ring and an old mark behind.
        let mut looked = self.looked.lock().unwrap_or_else(PoisonError::into_inner);
        self.look(&mut looked);
    }

    fn look(&self, looked: &mut Looked) {
        let Some((directory, usage)) = &self.source else { return };
        looked.at = Stopwatch::start();
        let mark = mark(directory);
        let known = Arc::clone(&self.ring.read().unwrap_or_else(PoisonError::into_inner));
        let is_due = known.is_incomplete && looked.read.elapsed() >= RETRY_EVERY;
        if mark == looked.mark && !is_due {
            return;
        }
        looked.read = Stopwatch::start();
        let usage_name = usage.as_str();
        match Ring::open(directory, *usage, Some(&known), Clock::now()) {
            Ok(ring) => {
                // What could not be read is looked at again: the reason may pass.
                looked.mark = mark;
                let keys = ring.keys.len();
                tracing::info!(keys, usage = usage_name, "the manifest of keys was read again");
                *self.ring.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(ring);
            }
            Err(error) => {
                let error = chain(&error).replace('\n', "; ");
                tracing::error!(error, usage = usage_name, "the keys stay as they were");
            }
        }
    }
}

fn mark(directory: &Path) -> Mark {
    let metadata = std::fs::metadata(directory.join(MANIFEST_FILE)).ok()?;
    let (dev, ino, size) = (metadata.dev(), metadata.ino(), metadata.size());
    Some((dev, ino, size, metadata.ctime(), metadata.ctime_nsec()))
}

/// The keys of a directory, without opening what is not in a file: for whoever looks at them.
///
/// # Errors
/// [`SignerError`].
pub(super) fn listed(directory: &Path) -> Result<Vec<ListedKey>, SignerError> {
    let manifest = Manifest::read(directory)?;
    let mut keys = Vec::new();
    for usage in [KeyUse::Decision, KeyUse::Checkpoint] {
        let file = usage.first_file();
        if manifest.names(usage) {
            keys.extend(manifest.keys.iter().filter(|key| key.usage == usage).cloned());
        } else if directory.join(file).exists() {
            let public = private::read_file(&directory.join(file))?.verifying_key().clone();
            let (place, validity) = (Place::File(file.to_owned()), KeyValidity::default());
            keys.push(ListedKey { usage, public, place, validity });
        }
    }
    Ok(keys)
}
