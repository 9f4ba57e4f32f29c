//! Tampering, kind by kind: libraries that we did not write refuse what ours refuses.
//!
//! `ct-merkle` holds leaves and roots against proofs, `signed_note` the signature of a checkpoint.

use std::collections::BTreeSet;

use ct_merkle::RootHash;
use ct_merkle::mem_backed_tree::MemoryBackedTree;
use placet_core::merkle::{self, ConsistencyProof, InclusionProof};
use placet_core::{Checkpoint, Digest, SigningKey, note_verifier_key};
use sha2::Sha256;
use signed_note::{Note, StandardVerifier, VerifierList};

use crate::sample::{self, Log, ORIGIN};

/// Leaves of the tree, of the older one, and the leaf that is proven.
const SIZE: u64 = 300;
const OLDER: u64 = 140;
const AT: u64 = 17;
/// Kinds of tampering that the libraries must refuse at least.
const LEAST_KINDS: usize = 20;

fn root_hash(root: Digest, size: u64) -> RootHash<Sha256> {
    RootHash::new((*root.as_bytes()).into(), size)
}

fn flipped(digest: Digest) -> Digest {
    let mut bytes = *digest.as_bytes();
    bytes[31] ^= 1;
    Digest::from_bytes(bytes)
}

/// The log of somebody who changed its leaves, and then made a tree of them.
fn rewritten(change: impl FnOnce(&mut Vec<Vec<u8>>)) -> Log {
    let mut leaves = Log::of(SIZE).leaves;
    change(&mut leaves);
    Log::new(leaves)
}

/// A proof that a leaf is in a tree, as somebody is given it.
#[derive(Clone, PartialEq, Eq)]
struct Inclusion {
    leaf: Vec<u8>,
    at: u64,
    size: u64,
    root: Digest,
    hashes: Vec<Digest>,
}

impl Inclusion {
    fn of(log: &Log, at: u64, size: u64) -> Self {
        let hashes = log.inclusion(at, size).hashes;
        Self { leaf: log.leaf(at).to_vec(), at, size, root: log.root(size), hashes }
    }

    /// Whether we take it, and whether another library does.
    fn taken(&self) -> (bool, bool) {
        let ours = InclusionProof { hashes: self.hashes.clone() };
        let ours = ours.verify(self.at, self.size, self.root, merkle::leaf_hash(&self.leaf));
        let hashes: Vec<_> = self.hashes.iter().map(|hash| (*hash.as_bytes()).into()).collect();
        let theirs = ct_merkle::InclusionProof::<Sha256>::from_digests(&hashes);
        let root = root_hash(self.root, self.size);
        (ours.is_ok(), root.verify_inclusion(&self.leaf, self.at, &theirs).is_ok())
    }
}

/// A proof that a tree only grew, as somebody is given it.
#[derive(Clone, PartialEq, Eq)]
struct Consistency {
    old: (u64, Digest),
    new: (u64, Digest),
    hashes: Vec<Digest>,
}

impl Consistency {
    fn of(log: &Log, old: u64, new: u64) -> Self {
        let hashes = log.consistency(old, new).hashes;
        Self { old: (old, log.root(old)), new: (new, log.root(new)), hashes }
    }

    fn taken(&self) -> (bool, bool) {
        let ours = ConsistencyProof { hashes: self.hashes.clone() };
        let hashes: Vec<_> = self.hashes.iter().map(|hash| (*hash.as_bytes()).into()).collect();
        let theirs = ct_merkle::ConsistencyProof::<Sha256>::from_digests(&hashes);
        let (old, new) = (root_hash(self.old.1, self.old.0), root_hash(self.new.1, self.new.0));
        (ours.verify(self.old, self.new).is_ok(), new.verify_consistency(&old, &theirs).is_ok())
    }
}

/// A way to tamper, by name, applied to good evidence.
type Change<T> = (&'static str, fn(&mut T));

/// The evidence itself is changed: leaf, position, size, root, hashes.
const INCLUSION: [Change<Inclusion>; 13] = [
    ("another leaf", |it| it.leaf = Log::of(SIZE).leaf(AT + 1).to_vec()),
    ("a byte behind the leaf", |it| it.leaf.push(0)),
    ("the leaf's last byte left out", |it| it.leaf.truncate(it.leaf.len() - 1)),
    ("no leaf at all", |it| it.leaf.clear()),
    ("the position of its neighbour", |it| it.at -= 1),
    ("a position beyond the tree", |it| it.at = it.size),
    ("another size", |it| it.size = 256),
    ("another root", |it| it.root = flipped(it.root)),
    ("a bit of the first hash", |it| it.hashes[0] = flipped(it.hashes[0])),
    ("a bit of the last hash", |it| {
        let last = it.hashes.len() - 1;
        it.hashes[last] = flipped(it.hashes[last]);
    }),
    ("a hash left out", |it| it.hashes.truncate(it.hashes.len() - 1)),
    ("a hash too many", |it| it.hashes.push(it.root)),
    ("two hashes in the other order", |it| it.hashes.swap(0, 1)),
];

/// Whole trees are changed, or parts of several are put together.
fn forged_inclusions(log: &Log) -> Vec<(&'static str, Inclusion)> {
    let good = Inclusion::of(log, AT, SIZE);
    let at = usize::try_from(AT).expect("a small number");
    let changed = rewritten(|leaves| leaves[at] = b"permit all".to_vec());
    let neighbours = [log.leaf(AT - 1), log.leaf(AT)].map(merkle::leaf_hash);
    let node: Vec<u8> = neighbours.iter().flat_map(|hash| *hash.as_bytes()).collect();
    vec![
        (
            "the proof of another leaf",
            Inclusion { hashes: log.inclusion(AT + 1, SIZE).hashes, ..good.clone() },
        ),
        (
            "the proof of an older tree",
            Inclusion { hashes: log.inclusion(AT, OLDER).hashes, ..good.clone() },
        ),
        ("the root of an older tree", Inclusion { root: log.root(OLDER), ..good.clone() }),
        (
            "a leaf and a proof of a rewritten log",
            Inclusion { root: good.root, ..Inclusion::of(&changed, AT, SIZE) },
        ),
        // The two hashes of an inner node, passed off as a leaf one level up.
        (
            "an inner node as a leaf",
            Inclusion {
                leaf: node,
                at: AT / 2,
                size: SIZE / 2,
                hashes: good.hashes[1..].to_vec(),
                root: good.root,
            },
        ),
    ]
}

const CONSISTENCY: [Change<Consistency>; 10] = [
    ("a bit of the old root", |it| it.old.1 = flipped(it.old.1)),
    ("a bit of the new root", |it| it.new.1 = flipped(it.new.1)),
    ("a shorter old tree", |it| it.old.0 -= 1),
    ("a longer new tree", |it| it.new.0 = 600),
    ("old and new exchanged", |it| std::mem::swap(&mut it.old, &mut it.new)),
    ("a bit of a hash", |it| it.hashes[1] = flipped(it.hashes[1])),
    ("a hash of growth left out", |it| it.hashes.truncate(it.hashes.len() - 1)),
    ("a hash of growth too many", |it| it.hashes.push(it.new.1)),
    ("hashes of growth in the other order", |it| it.hashes.swap(0, 1)),
    ("no hashes of growth", |it| it.hashes.clear()),
];

/// What a log could show that was rewritten after somebody had its older root.
fn forged_consistencies(log: &Log) -> Vec<(&'static str, Consistency)> {
    let good = Consistency::of(log, OLDER, SIZE);
    let forked = |change: fn(&mut Vec<Vec<u8>>)| Consistency {
        old: good.old,
        ..Consistency::of(&rewritten(change), OLDER, SIZE)
    };
    vec![
        ("an old leaf rewritten", forked(|leaves| leaves[17] = b"permit all".to_vec())),
        ("the last old leaf rewritten", forked(|leaves| leaves[139] = b"permit all".to_vec())),
        ("two old leaves exchanged", forked(|leaves| leaves.swap(3, 4))),
        (
            "an old leaf removed",
            forked(|leaves| {
                leaves.remove(17);
                leaves.push(b"leaf 300".to_vec());
            }),
        ),
        (
            "a leaf put in between",
            forked(|leaves| {
                leaves.insert(17, b"permit all".to_vec());
                leaves.truncate(300);
            }),
        ),
        (
            "a log that was rolled back",
            Consistency { new: (OLDER - 1, log.root(OLDER - 1)), ..good.clone() },
        ),
        (
            "growth from another older tree",
            Consistency { hashes: log.consistency(OLDER - 1, SIZE).hashes, ..good.clone() },
        ),
    ]
}

fn changed<T: Clone>(good: &T, changes: &[Change<T>]) -> Vec<(&'static str, T)> {
    let apply = |(kind, change): &Change<T>| {
        let mut tampered = good.clone();
        change(&mut tampered);
        (*kind, tampered)
    };
    changes.iter().map(apply).collect()
}

#[test]
fn another_library_accepts_our_trees_and_refuses_every_kind_of_tampering() {
    let log = Log::of(SIZE);
    let mut theirs = MemoryBackedTree::<Sha256, Vec<u8>>::new();
    for (size, leaf) in (1..).zip(&log.leaves) {
        theirs.push(leaf.clone());
        assert_eq!(theirs.root().as_bytes()[..], log.root(size).as_bytes()[..], "{size} leaves");
    }
    let (grown, proven) = (Consistency::of(&log, OLDER, SIZE), Inclusion::of(&log, AT, SIZE));
    assert_eq!((grown.taken(), proven.taken()), ((true, true), (true, true)));

    let mut kinds = BTreeSet::new();
    let inclusions = changed(&proven, &INCLUSION).into_iter().chain(forged_inclusions(&log));
    for (kind, tampered) in inclusions {
        assert!(tampered != proven, "{kind} is no tampering");
        assert_eq!(tampered.taken(), (false, false), "{kind}");
        assert!(kinds.insert(kind), "{kind} is there twice");
    }
    let consistencies = changed(&grown, &CONSISTENCY).into_iter().chain(forged_consistencies(&log));
    for (kind, tampered) in consistencies {
        assert!(tampered != grown, "{kind} is no tampering");
        assert_eq!(tampered.taken(), (false, false), "{kind}");
        assert!(kinds.insert(kind), "{kind} is there twice");
    }
    assert!(kinds.len() >= LEAST_KINDS, "{} kinds: {kinds:?}", kinds.len());
}

#[test]
fn another_library_accepts_our_proofs() {
    let log = Log::of(40);
    for size in 1..=40 {
        for at in 0..size {
            assert_eq!(Inclusion::of(&log, at, size).taken(), (true, true), "{at} of {size}");
        }
        for old in 1..=size {
            let grown = Consistency::of(&log, old, size);
            assert_eq!(grown.taken(), (true, true), "{old} to {size}");
        }
    }
    // At the edges of tiles.
    let log = Log::of(SIZE);
    for (at, size) in [(0, 256), (255, 256), (256, 257), (0, 257), (255, 300), (299, 300)] {
        assert_eq!(Inclusion::of(&log, at, size).taken(), (true, true), "{at} of {size}");
    }
    for (old, size) in [(255, 256), (255, 257), (256, 257), (256, 300), (299, 300)] {
        assert_eq!(Consistency::of(&log, old, size).taken(), (true, true), "{old} to {size}");
    }
}

#[test]
fn a_checkpoint_that_was_changed_is_refused() {
    let key = sample::key();
    let checkpoint = Checkpoint { origin: ORIGIN.to_owned(), root: Digest::of(b"r"), size: 42 };
    let good = checkpoint.sign(&key).expect("signs");
    let vkey = note_verifier_key(ORIGIN, key.verifying_key()).expect("a key");
    let taken = |note: &str| {
        let verifier = StandardVerifier::new(&vkey).expect("a verifier key");
        let known = VerifierList::new(vec![Box::new(verifier)]);
        let theirs = Note::from_bytes(note.as_bytes()).is_ok_and(|it| it.verify(&known).is_ok());
        (Checkpoint::verify(note, ORIGIN, key.verifying_key()).is_ok(), theirs)
    };
    assert_eq!(taken(&good), (true, true));
    let other = Checkpoint { origin: "other.example".to_owned(), ..checkpoint.clone() };
    let stranger = SigningKey::generate().expect("randomness");
    let other_root = Checkpoint { root: Digest::of(b"s"), ..checkpoint.clone() };
    let signature = good.lines().last().expect("a line");
    for (kind, note) in [
        ("another size", good.replacen("\n42\n", "\n43\n", 1)),
        ("another root", format!("{}\n{signature}\n", other_root.text())),
        ("an extension put in", good.replacen("\n\n", "\nmore\n\n", 1)),
        ("another log", other.sign(&key).expect("signs")),
        ("another key", checkpoint.sign(&stranger).expect("signs")),
        ("no signature", format!("{}\n", checkpoint.text())),
        ("its end cut off", good.trim_end().to_owned()),
    ] {
        assert_ne!(note, good, "{kind} is no tampering");
        assert_eq!(taken(&note), (false, false), "{kind}");
    }
}
