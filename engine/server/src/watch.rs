//! Looks at the files of bundle and facts, and has them read again when they have changed.
//!
//! By looking from time to time, not by the system's notices: those miss what is mounted, replaced
//! as a whole or reached through a link.

use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::sync::watch;

use crate::activation::Source;
use crate::admission::Admission;
use crate::settings::Settings;

/// Most files and directories that are looked at, several times those of the largest bundle: past
/// it, the source is as it looks so far, and loading it will say that it has too many.
const MAX_ENTRIES: usize = 16_384;

/// How the sources looked when they were last read.
#[derive(Debug)]
pub(crate) struct Watch {
    paths: [(Source, PathBuf); 2],
    every: Duration,
    /// By source: as it was when it was last read, and as it was when last looked at.
    seen: [(Look, Look); 2],
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
        let paths =
            [(Source::Bundle, settings.bundle.clone()), (Source::Facts, settings.facts.clone())];
        let seen = [0, 1].map(|at: usize| {
            let look = paths.get(at).map_or(Look(Vec::new()), |(_, path)| Look::at(path));
            (look.clone(), look)
        });
        Some(Self { paths, every, seen })
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
            let Ok((watch, mut changed)) = looked.await else {
                tracing::error!("the files of bundle and facts are no longer watched");
                return;
            };
            self = watch;
            if admission.is_doubtful() {
                changed = Source::ALL.to_vec();
            }
            if !changed.is_empty() {
                // What was refused has been noted where it can be seen, and is not read again until
                // it changes.
                drop(admission.activate(&changed, None).await);
            }
        }
    }

    /// The sources that have changed since they were last read, and have held still since the last
    /// look.
    fn changed(&mut self) -> Vec<Source> {
        let mut changed = Vec::new();
        for ((source, path), (read, last)) in self.paths.iter().zip(&mut self.seen) {
            let now = Look::at(path);
            if now == *last && now != *read {
                changed.push(*source);
                read.clone_from(&now);
            }
            *last = now;
        }
        changed
    }
}

impl Look {
    fn at(path: &Path) -> Self {
        let mut look = Self(Vec::new());
        look.add(path);
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
        let mut paths: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
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
        let paths =
            [(Source::Bundle, folder.join("bundle")), (Source::Facts, folder.join("facts.yaml"))];
        let seen = [Look::at(&paths[0].1), Look::at(&paths[1].1)];
        let seen = seen.map(|look| (look.clone(), look));
        Watch { paths, every: Duration::from_secs(1), seen }
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
