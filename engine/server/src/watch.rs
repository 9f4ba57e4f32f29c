//! Looks at the files of bundle and facts, and has them read again when they have changed.
//!
//! By looking from time to time, not by the system's notices: those miss what is mounted, replaced
//! as a whole or reached through a link.

use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use placet_policy::LoadError;
use tokio::sync::watch;

use crate::activation::{ActivateError, RefuseError, Source};
use crate::admission::Admission;
use crate::settings::Settings;

/// Most files and directories that are looked at, several times those of the largest bundle: past
/// it, the source is as it looks so far, and loading it will say that it has too many.
const MAX_ENTRIES: usize = 16_384;

/// Looks after which a source is read again that could not be read for a reason that its files need
/// not show: a disk that failed, a file that another process writes to.
const LOOKS_UNTIL_AGAIN: u32 = 30;

/// How the sources looked when they were last read.
#[derive(Debug)]
pub(crate) struct Watch {
    paths: [(Source, Vec<PathBuf>); 2],
    every: Duration,
    again: Again,
    /// By source: as it was when it was last read, and as it was when last looked at.
    seen: [(Look, Look); 2],
}

/// What is to be read again although it does not look changed.
#[derive(Debug, Default)]
struct Again {
    /// Refused only for what was read with it: as soon as anything changes.
    with_others: Vec<Source>,
    /// Refused for what may pass: after some looks.
    by_itself: Vec<Source>,
    /// Looks since then.
    looks: u32,
}

/// How a source looks from outside: each of its entries with identity, size and times of change.
/// Equal looks mean equal content, for all that ordinary tools do.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Look(Vec<(PathBuf, [i128; 6])>);

impl Watch {
    /// Looks for the first time; `None` if nothing is to be watched. To be called before the
    /// sources are read, so that no change is missed. Blocks.
    pub(crate) fn new(settings: &Settings) -> Option<Self> {
        let every = settings.watch?;
        // A bundle may become good because the keys that it is checked with are others; approvers
        // are read with whatever is.
        let beside = settings.bundle_keys.clone().into_iter().chain(settings.approvers.clone());
        let bundle = [settings.bundle.clone()].into_iter().chain(beside);
        let paths =
            [(Source::Bundle, bundle.collect()), (Source::Facts, vec![settings.facts.clone()])];
        Some(Self::of(paths, every))
    }

    fn of(paths: [(Source, Vec<PathBuf>); 2], every: Duration) -> Self {
        let seen = paths.each_ref().map(|(_, paths)| {
            let look = Look::at(paths);
            (look.clone(), look)
        });
        Self { paths, every, again: Again::default(), seen }
    }

    /// Has changed sources read again until the server stops.
    pub(crate) async fn run(mut self, admission: Admission, mut stopped: watch::Receiver<bool>) {
        loop {
            tokio::select! {
                // A sender that is gone means the same as one that says stop.
                _ = stopped.wait_for(|stop| *stop) => return,
                () = tokio::time::sleep(self.every) => {}
            }
            let looked = tokio::task::spawn_blocking(move || {
                let changed = self.changed();
                (self, changed)
            });
            let Ok((watch, changed)) = looked.await else {
                tracing::error!("the files of bundle and facts are no longer watched");
                return;
            };
            self = watch;
            let asked = self.again.asked(changed);
            if !asked.is_empty() {
                // What was refused has been noted where it can be seen.
                let result = admission.activate(&asked, None).await;
                if let Err(error) = result {
                    self.again.note(&asked, &error);
                }
            }
        }
    }

    /// The sources that have changed since they were last read, and have held still since the last
    /// look.
    fn changed(&mut self) -> Vec<Source> {
        let mut changed = Vec::new();
        for ((source, paths), (read, last)) in self.paths.iter().zip(&mut self.seen) {
            let now = Look::at(paths);
            if now == *last && now != *read {
                changed.push(*source);
                read.clone_from(&now);
            }
            *last = now;
        }
        changed
    }
}

impl Again {
    /// What to read after a look that found these changed.
    fn asked(&mut self, changed: Vec<Source>) -> Vec<Source> {
        self.looks = self.looks.saturating_add(1);
        let is_due = !self.by_itself.is_empty() && self.looks >= LOOKS_UNTIL_AGAIN;
        if changed.is_empty() && !is_due {
            return changed;
        }
        let Self { with_others, by_itself, .. } = std::mem::take(self);
        let mut asked = [changed, with_others, by_itself].concat();
        asked.sort();
        asked.dedup();
        asked
    }

    /// Nothing of what was asked for became active.
    fn note(&mut self, asked: &[Source], error: &ActivateError) {
        self.looks = 0;
        let (refused, reason) = match error {
            ActivateError::Refused { refused, reason } => (*refused, reason),
            ActivateError::Store(_) => return self.by_itself.extend(asked),
        };
        self.with_others.extend(asked.iter().filter(|source| **source != refused));
        if may_pass(reason) {
            self.by_itself.push(refused);
        }
    }
}

/// Whether what was refused for this reason may be good without its files being changed.
fn may_pass(reason: &RefuseError) -> bool {
    if let RefuseError::Approvers(reason) = reason {
        return may_pass(reason);
    }
    matches!(
        reason,
        RefuseError::Load(LoadError::Read { .. })
            | RefuseError::Changing { .. }
            | RefuseError::Keys { .. }
            | RefuseError::Panicked
    )
}

impl Look {
    fn at(paths: &[PathBuf]) -> Self {
        let mut look = Self(Vec::new());
        for path in paths {
            look.add(path);
        }
        look
    }

    fn add(&mut self, path: &Path) {
        if self.0.len() >= MAX_ENTRIES {
            return;
        }
        // Through links: what they lead to is what will be read.
        let metadata = std::fs::metadata(path);
        let is_directory = metadata.as_ref().is_ok_and(Metadata::is_dir);
        self.0.push((path.to_owned(), marks(metadata)));
        if !is_directory {
            return;
        }
        // One that cannot be listed looks empty, and loading it will say why.
        let entries = std::fs::read_dir(path).into_iter().flatten().filter_map(Result::ok);
        let left = MAX_ENTRIES.saturating_sub(self.0.len());
        let mut paths: Vec<PathBuf> = entries.take(left).map(|entry| entry.path()).collect();
        paths.sort();
        for path in paths {
            self.add(&path);
        }
    }
}

/// What tells one state of an entry from another. The time of the last change of the inode is among
/// it: unlike that of the content it cannot be set back by a tool that keeps times.
fn marks(metadata: io::Result<Metadata>) -> [i128; 6] {
    match metadata {
        Ok(it) => [
            it.dev().into(),
            it.ino().into(),
            it.size().into(),
            it.mode().into(),
            i128::from(it.ctime()) * 1_000_000_000 + i128::from(it.ctime_nsec()),
            i128::from(it.mtime()) * 1_000_000_000 + i128::from(it.mtime_nsec()),
        ],
        Err(_missing) => [-1; 6],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn watch(folder: &Path) -> Watch {
        let bundle = vec![folder.join("bundle"), folder.join("jwks.json")];
        let paths = [(Source::Bundle, bundle), (Source::Facts, vec![folder.join("facts.yaml")])];
        Watch::of(paths, Duration::from_secs(1))
    }

    #[test]
    fn what_was_refused_for_what_may_pass_is_read_again() {
        let refused = |refused, reason| ActivateError::Refused { refused, reason };
        let (bundle, facts) = (Source::Bundle, Source::Facts);
        let mut again = Again::default();
        // The facts were good, and become active as soon as anything changes.
        let bad = RefuseError::Signature { reason: String::new(), path: String::new() };
        again.note(&Source::ALL, &refused(bundle, bad));
        for _ in 0..2 * LOOKS_UNTIL_AGAIN {
            assert_eq!(again.asked(vec![]), []);
        }
        assert_eq!(again.asked(vec![bundle]), Source::ALL);
        assert_eq!(again.asked(vec![bundle]), [bundle], "once");
        // A reason that passes by itself.
        again.note(&[facts], &refused(facts, RefuseError::Changing { path: String::new() }));
        let asked: Vec<_> = (0..2 * LOOKS_UNTIL_AGAIN).map(|_| again.asked(vec![])).collect();
        let due: Vec<_> = asked.iter().filter(|asked| !asked.is_empty()).collect();
        assert_eq!(due, [&[facts]], "after some looks, once");
        let stopped = crate::sequencer::SequencerError::OutcomeUnknown;
        again.note(&Source::ALL, &ActivateError::Store(stopped));
        assert_eq!(again.asked(vec![facts]), Source::ALL, "at once if anything changes");
    }

    #[test]
    fn keys_are_a_part_of_how_a_bundle_looks() {
        let folder = tempfile::tempdir().unwrap();
        let mut watch = watch(folder.path());
        std::fs::write(folder.path().join("jwks.json"), "{}").unwrap();
        assert_eq!((watch.changed(), watch.changed()), (vec![], vec![Source::Bundle]));
    }

    #[test]
    fn a_change_is_told_once_and_only_when_it_holds_still() {
        let folder = tempfile::tempdir().unwrap();
        let bundle = folder.path().join("bundle");
        std::fs::create_dir_all(bundle.join("a")).unwrap();
        std::fs::write(bundle.join("a/x.rego"), "package a").unwrap();
        let mut watch = watch(folder.path());
        assert_eq!(watch.changed(), []);
        std::fs::write(bundle.join("a/y.rego"), "package b").unwrap();
        assert_eq!(watch.changed(), [], "it may still be written");
        std::fs::write(bundle.join("a/z.rego"), "package c").unwrap();
        assert_eq!(watch.changed(), [], "and is");
        assert_eq!(watch.changed(), [Source::Bundle]);
        assert_eq!(watch.changed(), []);
        std::fs::write(folder.path().join("facts.yaml"), "").unwrap();
        assert_eq!(watch.changed(), []);
        assert_eq!(watch.changed(), [Source::Facts], "a file that was missing came");
    }

    #[test]
    fn a_whole_directory_behind_a_link_is_seen_to_be_replaced() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["one", "two"] {
            std::fs::create_dir(folder.path().join(name)).unwrap();
            std::fs::write(folder.path().join(name).join("bundle.yaml"), "same").unwrap();
        }
        let link = |to: &str| {
            let (new, old) = (folder.path().join("new"), folder.path().join("bundle"));
            std::os::unix::fs::symlink(to, &new).unwrap();
            std::fs::rename(new, old).unwrap();
        };
        link("one");
        let mut watch = watch(folder.path());
        link("two");
        assert_eq!((watch.changed(), watch.changed()), (vec![], vec![Source::Bundle]));
    }
}
