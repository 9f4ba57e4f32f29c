//! A file that spares a start the fold of the log up to some position: a cache, never a truth.
//!
//! It begins with a page that holds the signed claims of a snapshot ([`SnapshotClaims`]), a line
//! feed and spaces. Behind it is the content: frames of a length in four bytes, the lowest first,
//! and as many bytes. The first frame says what is active, each of the others is an item of the
//! ledger. The content is a function of the leaves that were folded.
//!
//! What is read is bound to the log by the root at its position, and to this server by its
//! signature, before anything of the content is looked at. Whatever does not fit is not used.

use std::fs::{File, OpenOptions};
use std::io::{BufReader, BufWriter, Read, Seek as _, Write};
use std::path::{Path, PathBuf};

use aws_lc_rs::digest::{Context, SHA256};
use placet_core::merkle::Tree;
use placet_core::{
    Digest, MAX_SNAPSHOT_CLAIMS_BYTES, SnapshotClaims, SnapshotClaimsError, read_snapshot_claims,
    verify_snapshot,
};
use serde::{Deserialize, Serialize};

use super::{Folded, LogError, empty};
use crate::quota::{AuditError, FORMAT, ItemError, MAX_ITEM_BYTES, Restoring, VisitError, subject};
use crate::signer::Signer;
use crate::store::{Faults, ReadError, owner_only};

/// What stands behind a store's name in that of its snapshot.
const ENDING: &str = ".snapshot";
/// What it is called until it is whole: its name with this behind it.
const PARTIAL: &str = ".partial";
/// Bytes of the first page: twice what the claims can take.
const PAGE_BYTES: usize = 2 * MAX_SNAPSHOT_CLAIMS_BYTES;
/// Bytes of the length of a frame.
const LENGTH_BYTES: usize = 4;
/// Bytes that are read and written at a time.
const BUFFER_BYTES: usize = 1 << 18;

/// Bytes that are brought to the disk at a time: whoever syncs another file of the same file system
/// may have to wait for them, and a commit of the writer does just that.
const SYNC_BYTES: usize = 4 << 20;

/// Why a snapshot is not used, or is not what the log folds to.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SnapshotError {
    /// It cannot be read.
    #[error("it cannot be read")]
    Access(#[source] std::io::Error),
    /// Its first page is not what this server wrote.
    #[error(transparent)]
    Claims(SnapshotClaimsError),
    /// It is of another version.
    #[error("its content has format {found}, this program knows {known}")]
    Format {
        /// Its version.
        found: u32,
        /// The one that is known.
        known: u32,
    },
    /// It is damaged, or of another log.
    #[error("{0}")]
    Unfit(&'static str),
    /// Its content is no ledger.
    #[error("its content is no ledger: {0}")]
    Content(String),
    /// The ledger contradicts itself.
    #[error("its ledger contradicts itself")]
    Ledger(#[source] AuditError),
    /// What the log has behind it does not follow from it.
    #[error("the log does not go on from it")]
    Log(#[source] Box<LogError>),
    /// Reading was cut short: the server stops.
    #[error("the server stops")]
    Stopped,
    /// It is whole, and not what the log folds to.
    #[error("it differs from the log, whose first {size} leaves it should hold: {what}")]
    Differs {
        /// Leaves that it should hold.
        size: u64,
        /// Where.
        what: String,
    },
}

impl SnapshotError {
    /// It stands for leaves that the log has not.
    pub(crate) const AHEAD: Self =
        Self::Unfit("it is ahead of the log: the store was replaced by an older copy");
}

impl From<ItemError> for SnapshotError {
    fn from(error: ItemError) -> Self {
        Self::Content(error.to_string())
    }
}

/// Why no snapshot was written. What was there before is there still.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum WriteError {
    /// The file cannot be written.
    #[error("the file cannot be written")]
    Write(#[from] std::io::Error),
    /// It cannot be signed.
    #[error("it cannot be signed")]
    Sign(#[source] placet_core::SignError),
    /// An item has no form.
    #[error("an item is longer than it can be")]
    Form,
    /// It was cut short.
    #[error("the server stops")]
    Stopped,
}

/// What is written of a fold beside its ledger.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Active {
    bundle: Option<(Digest, String)>,
    facts: Option<(Digest, String)>,
}

/// Where the snapshot of a store is.
pub(crate) fn path_of(store: &Path) -> PathBuf {
    with_ending(store, ENDING)
}

fn with_ending(path: &Path, ending: &str) -> PathBuf {
    let mut path = path.as_os_str().to_owned();
    path.push(ending);
    PathBuf::from(path)
}

/// Counts and hashes what passes.
struct Sum {
    context: Context,
    bytes: u64,
    items: u64,
}

impl Sum {
    fn new() -> Self {
        Self { context: Context::new(&SHA256), bytes: 0, items: 0 }
    }

    fn add(&mut self, length: [u8; LENGTH_BYTES], frame: &[u8]) {
        self.context.update(&length);
        self.context.update(frame);
        let bytes = u64::try_from(frame.len().saturating_add(LENGTH_BYTES)).unwrap_or(u64::MAX);
        self.bytes = self.bytes.saturating_add(bytes);
        self.items = self.items.saturating_add(1);
    }

    fn digest(self) -> Digest {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(self.context.finish().as_ref());
        Digest::from_bytes(bytes)
    }
}

impl Folded {
    /// What is written down of the fold, frame by frame. Nothing is under way.
    fn each_frame<E>(
        &self,
        mut visit: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), VisitError<E>> {
        let active = Active { bundle: self.bundle.clone(), facts: self.facts.clone() };
        let active = postcard::to_extend(&active, Vec::new()).map_err(|_form| VisitError::Form)?;
        visit(&active).map_err(VisitError::Visitor)?;
        self.ledger.each_item(visit)
    }

    /// Where two folds differ, if they do.
    ///
    /// # Errors
    /// If an item has no form.
    pub(crate) fn difference(&self, other: &Self) -> Result<Option<String>, WriteError> {
        let frames = |folded: &Self| {
            let mut frames = Vec::new();
            let visited = folded.each_frame(|frame| {
                frames.push(frame.to_vec());
                Ok::<(), std::convert::Infallible>(())
            });
            visited.map(|()| frames).map_err(|_form| WriteError::Form)
        };
        let (own, others) = (frames(self)?, frames(other)?);
        if let Some((one, _)) = own.iter().zip(&others).find(|(one, another)| one != another) {
            return Ok(Some(subject(one)));
        }
        let (digest, usages) = (self.ledger.state_digest(), self.ledger.usages());
        let is_same = own.len() == others.len()
            && (&self.tree, &self.name, self.last) == (&other.tree, &other.name, other.last)
            && (digest, usages) == (other.ledger.state_digest(), other.ledger.usages())
            && self.ledger.now() == other.ledger.now();
        Ok((!is_same).then(|| "something".to_owned()))
    }

    /// Writes the snapshot of a store, whole or not at all: a file of mode 0600 that takes the
    /// place of the one before. Gives its claims.
    ///
    /// # Errors
    /// [`WriteError`].
    pub(crate) fn write_snapshot(
        &self,
        path: &Path,
        signer: &Signer,
        is_over: &dyn Fn() -> bool,
    ) -> Result<SnapshotClaims, WriteError> {
        let partial = with_ending(path, PARTIAL);
        let written = self.write_partial(&partial, signer, is_over);
        let renamed = written.and_then(|claims| {
            std::fs::rename(&partial, path)?;
            let directory = path.parent().filter(|it| !it.as_os_str().is_empty());
            File::open(directory.unwrap_or(Path::new(".")))?.sync_all()?;
            Ok(claims)
        });
        if renamed.is_err() {
            // It was none yet; whatever is left of it, the next one takes its place.
            drop(std::fs::remove_file(&partial));
        }
        renamed
    }

    fn write_partial(
        &self,
        partial: &Path,
        signer: &Signer,
        is_over: &dyn Fn() -> bool,
    ) -> Result<SnapshotClaims, WriteError> {
        // Only the process that holds the store's lock gets here: what is left there is nobody's.
        match std::fs::remove_file(partial) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
            Ok(()) | Err(_) => {}
        }
        let mut options = OpenOptions::new();
        options.write(true).create_new(true);
        owner_only(&mut options);
        let mut file = options.open(partial)?;
        file.write_all(&[b' '; PAGE_BYTES])?;
        let (mut out, mut sum) = (BufWriter::with_capacity(BUFFER_BYTES, file), Sum::new());
        let mut unsynced = 0_usize;
        let visited = self.each_frame(|frame| {
            if is_over() {
                return Err(WriteError::Stopped);
            }
            let length = u32::try_from(frame.len()).map_err(|_beyond| WriteError::Form)?;
            let length = length.to_le_bytes();
            sum.add(length, frame);
            out.write_all(&length)?;
            out.write_all(frame)?;
            unsynced = unsynced.saturating_add(frame.len());
            if unsynced >= SYNC_BYTES {
                unsynced = 0;
                out.flush()?;
                out.get_ref().sync_data()?;
            }
            Ok(())
        });
        visited.map_err(|error| match error {
            VisitError::Form => WriteError::Form,
            VisitError::Visitor(error) => error,
        })?;
        let head = self.tree.head();
        let claims = SnapshotClaims {
            content_bytes: sum.bytes,
            items: sum.items,
            content_digest: sum.digest(),
            format: FORMAT,
            root: head.root,
            size: head.size,
            store: self.name.clone(),
            time: self.last,
        };
        let signed = signer.sign_snapshot(&claims).map_err(WriteError::Sign)?;
        let mut file = out.into_inner().map_err(std::io::IntoInnerError::into_error)?;
        // Until its first page is there, it is no snapshot.
        file.rewind()?;
        file.write_all(signed.as_bytes())?;
        file.write_all(b"\n")?;
        file.sync_all()?;
        Ok(claims)
    }

    /// Takes up a snapshot: the fold of the leaves that it stands for, as far as the file is whole
    /// and of this log; `None` if there is none. `size` and `hashes` are those of the log.
    ///
    /// # Errors
    /// [`SnapshotError`]: it is not to be used.
    pub(crate) fn take_up(
        (path, signer): (&Path, &Signer),
        faults: &Faults,
        (size, hashes): (u64, impl FnMut(&[u64]) -> Result<Vec<Digest>, ReadError>),
        is_over: &dyn Fn() -> bool,
    ) -> Result<Option<Self>, SnapshotError> {
        let unfit = |what| Err(SnapshotError::Unfit(what));
        let Some(mut frames) = Frames::open(path)? else { return Ok(None) };
        let Some(keys) = signer.trusted() else { return unfit("all keys were revoked") };
        let claims = verify_snapshot(&keys, &frames.text).map_err(SnapshotError::Claims)?;
        frames.begin(&claims)?;
        if claims.size == 0 || claims.size > size {
            return Err(SnapshotError::AHEAD);
        }
        let Ok((tree, root)) = Tree::at(claims.size, hashes) else {
            return unfit("the log has no root at its position");
        };
        if root != claims.root {
            return unfit("the log has another root at its position");
        }
        let mut restoring = Restoring::new(empty(faults));
        let Some(first) = frames.next()? else { return unfit("its content is empty") };
        let active: Active = postcard::from_bytes(first)
            .map_err(|_form| SnapshotError::Unfit("it does not say what is active"))?;
        while let Some(item) = frames.next()? {
            if is_over() {
                return Err(SnapshotError::Stopped);
            }
            restoring.put(item)?;
        }
        frames.finish(&claims)?;
        let ledger = restoring.finish(claims.time)?;
        let Active { bundle, facts } = active;
        let (name, last) = (claims.store, claims.time);
        let begun = Some((claims.size, claims.items));
        Ok(Some(Self { ledger, tree, name, bundle, facts, last, begun, ..Self::default() }))
    }
}

/// Holds a snapshot against the fold of the log, from its first leaf on: for whoever checks a store
/// and has no key.
#[derive(Debug)]
pub(crate) struct Comparison {
    frames: Frames,
    claims: SnapshotClaims,
}

impl Comparison {
    /// `None` if there is no snapshot.
    ///
    /// # Errors
    /// [`SnapshotError`].
    pub(crate) fn open(path: &Path) -> Result<Option<Self>, SnapshotError> {
        let Some(frames) = Frames::open(path)? else { return Ok(None) };
        let claims = read_snapshot_claims(&frames.text).map_err(SnapshotError::Claims)?;
        frames.begin(&claims)?;
        Ok(Some(Self { frames, claims }))
    }

    /// Leaves that it stands for.
    pub(crate) fn size(&self) -> u64 {
        self.claims.size
    }

    /// Compares it with the fold of as many leaves.
    ///
    /// # Errors
    /// [`SnapshotError`] says where they differ.
    pub(crate) fn with(mut self, folded: &Folded) -> Result<(), SnapshotError> {
        let size = self.claims.size;
        let differs = |what: String| SnapshotError::Differs { size, what };
        let SnapshotClaims { root, store, time, .. } = &self.claims;
        let own = (&folded.tree.head().root, &folded.name, &folded.last);
        if (root, store, time) != own {
            return Err(SnapshotError::Unfit("it is of another log"));
        }
        let frames = &mut self.frames;
        let mut is_first = true;
        let visited = folded.each_frame(|expected| {
            let found = frames.next()?;
            let what = match found {
                Some(found) if found == expected => {
                    is_first = false;
                    return Ok(());
                }
                _ if is_first => "what is active".to_owned(),
                Some(found) => {
                    let (expected, found) = (subject(expected), subject(found));
                    if expected == found {
                        format!("{expected} is another one")
                    } else {
                        format!("it has {found} where the log has {expected}")
                    }
                }
                None => format!("{} is missing", subject(expected)),
            };
            Err(differs(what))
        });
        visited.map_err(|error| match error {
            VisitError::Form => SnapshotError::Content("an item is too long".to_owned()),
            VisitError::Visitor(error) => error,
        })?;
        if let Some(more) = frames.next()? {
            return Err(differs(format!("it has {}, which the log has not", subject(more))));
        }
        self.frames.finish(&self.claims)
    }
}

/// The frames of a snapshot, read one by one.
#[derive(Debug)]
struct Frames {
    file: BufReader<File>,
    /// What stands on the first page.
    text: String,
    /// Bytes of content that are still to come.
    left: u64,
    frame: Vec<u8>,
    sum: Sum,
}

impl std::fmt::Debug for Sum {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Sum({} items, {} bytes)", self.items, self.bytes)
    }
}

impl Frames {
    /// Reads the first page; `None` if there is no file.
    fn open(path: &Path) -> Result<Option<Self>, SnapshotError> {
        let mut file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(SnapshotError::Access(error)),
        };
        let metadata = file.metadata().map_err(SnapshotError::Access)?;
        let page = u64::try_from(PAGE_BYTES).unwrap_or(u64::MAX);
        let Some(left) = metadata.len().checked_sub(page).filter(|_| metadata.is_file()) else {
            return Err(SnapshotError::Unfit("it is cut short"));
        };
        let mut page = [0; PAGE_BYTES];
        file.read_exact(&mut page).map_err(SnapshotError::Access)?;
        let no_page = || SnapshotError::Unfit("its first page is not that of a snapshot");
        let text = std::str::from_utf8(&page).map_err(|_bytes| no_page())?;
        let (text, rest) = text.split_once('\n').ok_or_else(no_page)?;
        if rest.bytes().any(|byte| byte != b' ') {
            return Err(no_page());
        }
        let file = BufReader::with_capacity(BUFFER_BYTES, file);
        let (text, frame) = (text.to_owned(), Vec::new());
        Ok(Some(Self { file, text, left, frame, sum: Sum::new() }))
    }

    /// Checks what the claims say before any frame is read.
    fn begin(&self, claims: &SnapshotClaims) -> Result<(), SnapshotError> {
        if claims.format != FORMAT {
            return Err(SnapshotError::Format { found: claims.format, known: FORMAT });
        }
        if claims.content_bytes != self.left {
            return Err(SnapshotError::Unfit("it is longer or shorter than it was written"));
        }
        Ok(())
    }

    /// The next frame; `None` behind the last.
    fn next(&mut self) -> Result<Option<&[u8]>, SnapshotError> {
        if self.left == 0 {
            return Ok(None);
        }
        let broken = || SnapshotError::Unfit("a part of it has no end");
        let mut length = [0; LENGTH_BYTES];
        self.file.read_exact(&mut length).map_err(SnapshotError::Access)?;
        let bytes = usize::try_from(u32::from_le_bytes(length)).unwrap_or(usize::MAX);
        if bytes > MAX_ITEM_BYTES {
            return Err(broken());
        }
        let all = u64::try_from(bytes.saturating_add(LENGTH_BYTES)).unwrap_or(u64::MAX);
        self.left = self.left.checked_sub(all).ok_or_else(broken)?;
        self.frame.resize(bytes, 0);
        self.file.read_exact(&mut self.frame).map_err(SnapshotError::Access)?;
        self.sum.add(length, &self.frame);
        Ok(Some(&self.frame))
    }

    /// Whether what was read is what was written.
    fn finish(self, claims: &SnapshotClaims) -> Result<(), SnapshotError> {
        if self.left != 0 || self.sum.items != claims.items {
            return Err(SnapshotError::Unfit("it has more or fewer items than were written"));
        }
        if self.sum.digest() != claims.content_digest {
            return Err(SnapshotError::Unfit("its content is not what was written"));
        }
        Ok(())
    }
}
