//! What decisions are made with, read from files: at the start, and again while decisions are made.
//!
//! A bundle becomes active only if it compiles, passes its own cases and, where the operator
//! demands it, is signed. Bundle and facts that are read together are switched together.

use std::fmt;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use placet_core::{Digest, KeySet, MAX_JWKS_BYTES};
use placet_policy::{
    Approvers, Bundle, CacheActivity, CaseRunner, Facts, LoadError, PolicySet, WasmRuntime,
};

use crate::grpc::convert;
use crate::sequencer::{Activation, SequencerError};
use crate::settings::Settings;
use crate::workers::Active;

/// How often a source is read before it is given up as still being written.
const READS: usize = 5;
/// Longest message of a refusal that is told, in bytes. With the remedy, it is sent twice in a
/// header: once escaped, up to three bytes for each, once in base64. Clients take 16 KiB.
const MAX_MESSAGE: usize = 2_048;
/// Longest remedy of a refusal that is told, in bytes.
const MAX_HINT: usize = 512;
/// Stands for what was cut off.
const CUT: &str = "...";
/// Most failed cases that a refusal names: the first tell enough, `placet test` tells all.
const MAX_NAMED_CASES: usize = 3;

/// What can be replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// The policies.
    Bundle,
    /// Tenants, clusters, datasets, models and quotas.
    Facts,
}

impl Source {
    /// Both, in the order in which they are read.
    pub const ALL: [Self; 2] = [Self::Bundle, Self::Facts];

    /// Its name in metrics and log lines.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Bundle => "bundle",
            Self::Facts => "facts",
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A source as it is active.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ActiveSource {
    /// Which one.
    pub source: Source,
    /// Its SHA-256.
    pub digest: Digest,
    /// What it calls this state of itself.
    pub revision: String,
    /// The last attempt to replace it, the first loading included.
    pub last: Attempt,
}

/// An attempt to make a source active.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Attempt {
    /// When, in seconds since 1970-01-01 UTC.
    pub time: u64,
    /// Whether another state of the source became active.
    pub changed: bool,
    /// Why it was refused, with place and remedy.
    pub error: Option<String>,
    /// From reading to being active or refused.
    pub took: Duration,
    /// Cases that the bundle passed; 0 for facts.
    pub cases: usize,
}

/// Why a source cannot be active.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RefuseError {
    /// It is missing, breaks a rule or does not compile.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// It changed each time that it was read.
    #[error(
        "`{path}` changes while it is read\n\
         hint: write it beside, then rename it into place"
    )]
    Changing {
        /// Its path.
        path: String,
    },
    /// Cases of the bundle fail.
    #[error(
        "{failed} of {all} cases of the bundle fail: {first}\n\
         hint: `placet test` shows every failure"
    )]
    Cases {
        /// How many fail.
        failed: usize,
        /// How many there are.
        all: usize,
        /// The first of them, with what was not as expected.
        first: String,
    },
    /// The keys that bundles must be signed with cannot be read.
    #[error("the keys for bundles in `{path}` cannot be used: {reason}")]
    Keys {
        /// Their file.
        path: String,
        /// Why.
        reason: String,
    },
    /// The bundle has no good signature.
    #[error(
        "the bundle is not signed as this server demands: {reason}\n\
         hint: sign it with `placet bundle sign`, by a key of `{path}`"
    )]
    Signature {
        /// Why.
        reason: String,
        /// File of the keys.
        path: String,
    },
    /// It is good, but the file of approvers, which is read with it, is not.
    #[error("the approvers, which are read with it, cannot be used")]
    Approvers(#[source] Box<RefuseError>),
    /// It is not what the caller expects.
    #[error(
        "its digest is {found}, not {expected}\n\
         hint: put the expected one into place first, or ask without a digest"
    )]
    Unexpected {
        /// What was read.
        found: Digest,
        /// What was to be read.
        expected: Digest,
    },
    /// It is good, but was not switched to: what was to be switched with it is not.
    #[error("{} refused", match other {
        Source::Bundle => "the bundle that was read with it was",
        Source::Facts => "the facts that were read with it were",
    })]
    Together {
        /// The one that was refused.
        other: Source,
    },
    /// A bug: loading panicked.
    #[error("loading it panicked")]
    Panicked,
}

/// Why nothing was switched.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ActivateError {
    /// A source was refused.
    #[error("the {refused} cannot be active: {reason}")]
    Refused {
        /// Which one.
        refused: Source,
        /// Why.
        #[source]
        reason: RefuseError,
    },
    /// The log did not take the event.
    #[error("the activation could not be stored")]
    Store(#[source] SequencerError),
}

/// Reads sources from where the server was told that they are.
#[derive(Debug, Clone)]
pub(crate) struct Loader {
    pub(crate) bundle: PathBuf,
    pub(crate) bundle_keys: Option<PathBuf>,
    pub(crate) facts: PathBuf,
    /// Who may waive and freeze; nobody if absent.
    pub(crate) approvers: Option<PathBuf>,
    /// The deployment that they approve for.
    pub(crate) issuer: String,
    pub(crate) runtime: WasmRuntime,
}

impl Loader {
    /// From where the settings say.
    pub(crate) fn new(settings: &Settings, runtime: WasmRuntime) -> Self {
        Self {
            bundle: settings.bundle.clone(),
            bundle_keys: settings.bundle_keys.clone(),
            facts: settings.facts.clone(),
            approvers: settings.approvers.clone(),
            issuer: settings.issuer.clone(),
            runtime,
        }
    }

    /// The bundle, if it is good; `current` itself if it has not changed. Blocks, and may take
    /// seconds. Also tells how many cases it passed.
    pub(crate) fn bundle(
        &self,
        current: Option<&Arc<PolicySet>>,
        expected: Option<Digest>,
    ) -> Result<(Arc<PolicySet>, usize), RefuseError> {
        let bundle = match &self.bundle_keys {
            None => settled(&self.bundle, || Bundle::load(&self.bundle), Bundle::digest)?,
            Some(keys) => self.signed_bundle(keys)?,
        };
        check_expected(bundle.digest(), expected)?;
        if let Some(current) = current.filter(|current| current.digest() == bundle.digest()) {
            return Ok((Arc::clone(current), 0));
        }
        let policies = Arc::new(PolicySet::compile(&bundle, &self.runtime)?);
        let cases = self.check_cases(&bundle, &policies)?;
        self.tell_cache();
        Ok((policies, cases))
    }

    /// The bundle, if one of the keys signed it: checked before anything in it is parsed.
    fn signed_bundle(&self, keys: &Path) -> Result<Bundle, RefuseError> {
        let path = keys.display().to_string();
        let set =
            read_keys(keys).map_err(|reason| RefuseError::Keys { path: path.clone(), reason })?;
        let load = || Bundle::load_verified(&self.bundle, &set);
        match settled(&self.bundle, load, Bundle::digest) {
            Err(RefuseError::Load(LoadError::Signature(error))) => {
                Err(RefuseError::Signature { reason: error.to_string(), path })
            }
            settled => settled,
        }
    }

    /// The facts, if they are good; `current` itself if they have not changed. Blocks.
    pub(crate) fn facts(
        &self,
        current: Option<&Arc<Facts>>,
        expected: Option<Digest>,
    ) -> Result<Arc<Facts>, RefuseError> {
        let facts = settled(&self.facts, || Facts::load(&self.facts), Facts::digest)?;
        check_expected(facts.digest(), expected)?;
        match current.filter(|current| current.digest() == facts.digest()) {
            Some(current) => Ok(Arc::clone(current)),
            None => Ok(Arc::new(facts)),
        }
    }

    /// The approvers, if their file is good; `current` itself if it has not changed. Blocks.
    pub(crate) fn approvers(
        &self,
        current: Option<&Arc<Approvers>>,
    ) -> Result<Arc<Approvers>, RefuseError> {
        let Some(path) = &self.approvers else {
            return Ok(Arc::new(Approvers::none(&self.issuer)));
        };
        let load = || Approvers::load(path, &self.issuer);
        let approvers = settled(path, load, Approvers::digest)?;
        match current.filter(|current| current.digest() == approvers.digest()) {
            Some(current) => Ok(Arc::clone(current)),
            None => Ok(Arc::new(approvers)),
        }
    }

    /// Logs what the cache of compiled components was good for.
    fn tell_cache(&self) {
        let activity = self.runtime.take_cache_activity();
        let CacheActivity { loaded, compiled, evicted, notes } = activity;
        tracing::debug!(loaded, compiled, evicted, "compiled components");
        for note in notes {
            tracing::warn!(%note, "the cache of compiled components");
        }
    }

    /// Runs the bundle's own cases, those of twins included.
    fn check_cases(&self, bundle: &Bundle, set: &Arc<PolicySet>) -> Result<usize, RefuseError> {
        let twins = PolicySet::compile_twins(bundle, &self.runtime)?.map(Arc::new);
        let mut runner = CaseRunner::new(Arc::clone(set), twins);
        let request = |json: &serde_json::Value| {
            convert::parse_admit(&json.to_string()).map_err(|error| error.to_string())
        };
        let (mut all, mut failed, mut named) = (0_usize, 0_usize, Vec::new());
        for file in bundle.case_files() {
            for report in runner.run(bundle, &file, request)? {
                all = all.saturating_add(1);
                let Some(why) = report.failures.first() else { continue };
                failed = failed.saturating_add(1);
                if named.len() < MAX_NAMED_CASES {
                    named.push(format!("{}, `{}`: {why}", report.file, report.name));
                }
            }
        }
        if failed == 0 {
            return Ok(all);
        }
        Err(RefuseError::Cases { failed, all, first: named.join("; ") })
    }
}

/// Reads until two readings agree: a directory is not written at once.
fn settled<T>(
    path: &Path,
    read: impl Fn() -> Result<T, LoadError>,
    digest: impl Fn(&T) -> Digest,
) -> Result<T, RefuseError> {
    let mut last = read();
    for _ in 1..READS {
        let next = read();
        match (&last, &next) {
            (Ok(one), Ok(other)) if digest(one) == digest(other) => return Ok(next?),
            (Err(one), Err(other)) if one.to_string() == other.to_string() => return Ok(next?),
            _ => last = next,
        }
    }
    Err(RefuseError::Changing { path: path.display().to_string() })
}

fn check_expected(found: Digest, expected: Option<Digest>) -> Result<(), RefuseError> {
    match expected.filter(|expected| *expected != found) {
        Some(expected) => Err(RefuseError::Unexpected { found, expected }),
        None => Ok(()),
    }
}

fn read_keys(path: &Path) -> Result<KeySet, String> {
    let limit = u64::try_from(MAX_JWKS_BYTES).unwrap_or(u64::MAX).saturating_add(1);
    let mut json = Vec::new();
    let read = std::fs::File::open(path)
        .and_then(|file| file.take(limit).read_to_end(&mut json).map(drop));
    read.map_err(|error| error.to_string())?;
    KeySet::from_json(&json).map_err(|error| error.to_string())
}

impl Active {
    /// What the log says of it.
    pub(crate) fn names(&self) -> Activation {
        Activation {
            bundle: (self.policies.digest(), self.policies.revision().to_owned()),
            facts: (self.facts.digest(), self.facts.revision().to_owned()),
            quotas: self.facts.quotas(),
        }
    }

    /// Digest and revision of one source.
    pub(crate) fn name(&self, source: Source) -> (Digest, &str) {
        match source {
            Source::Bundle => (self.policies.digest(), self.policies.revision()),
            Source::Facts => (self.facts.digest(), self.facts.revision()),
        }
    }
}

/// What became of the attempts to replace each source; shared, never held for long.
#[derive(Debug, Default)]
pub(crate) struct Attempts(Mutex<[Attempt; 2]>);

impl Attempts {
    pub(crate) fn note(&self, source: Source, attempt: Attempt) {
        // A panic elsewhere leaves whole attempts behind: they are replaced as one.
        let mut attempts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let [bundle, facts] = &mut *attempts;
        match source {
            Source::Bundle => *bundle = attempt,
            Source::Facts => *facts = attempt,
        }
    }

    pub(crate) fn last(&self, source: Source) -> Attempt {
        let attempts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let [bundle, facts] = &*attempts;
        match source {
            Source::Bundle => bundle.clone(),
            Source::Facts => facts.clone(),
        }
    }
}

/// What is told of a refusal: message and remedy, each cut to what an HTTP/2 header has room for
/// twice, its text escaped.
pub(crate) fn message_and_hint(error: &dyn std::error::Error) -> (String, String) {
    let text = chain(error);
    let (message, hint) = text.split_once("\nhint: ").unwrap_or((&text, ""));
    (cut(message, MAX_MESSAGE), cut(hint, MAX_HINT))
}

/// The same in one text.
pub(crate) fn told(error: &dyn std::error::Error) -> String {
    match message_and_hint(error) {
        (message, hint) if hint.is_empty() => message,
        (message, hint) => format!("{message}\nhint: {hint}"),
    }
}

fn cut(text: &str, longest: usize) -> String {
    if text.len() <= longest {
        return text.to_owned();
    }
    let end = text.floor_char_boundary(longest.saturating_sub(CUT.len()));
    format!("{}{CUT}", text.get(..end).unwrap_or_default())
}

/// The whole chain of an error in one text, remedy included.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        // Errors that only pass on another repeat its words.
        if !text.contains(&next) {
            text.push_str(": ");
            text.push_str(&next);
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_refusal_keeps_its_remedy() {
        let first = "\u{e4}".repeat(100_000);
        let error = RefuseError::Cases { failed: 1, all: 2, first };
        let (message, hint) = message_and_hint(&error);
        assert!(message.starts_with("1 of 2 cases") && message.ends_with("\u{e4}..."), "{message}");
        assert!(message.len() <= MAX_MESSAGE, "{}", message.len());
        assert_eq!(hint, "`placet test` shows every failure");
        assert!(told(&error).ends_with(&hint));
        assert_eq!(told(&RefuseError::Panicked), "loading it panicked");
        let told = told(&RefuseError::Together { other: Source::Facts });
        assert_eq!(told, "the facts that were read with it were refused");
    }
}
