//! The tree against the recursive definition of RFC 6962.

use std::convert::Infallible;

use placet_core::Digest;
use placet_core::merkle::{
    self, ConsistencyProof, Head, InclusionProof, MAX_TREE_SIZE, ProofError, Tree, TreeError,
};
use proptest::prelude::*;

/// RFC 6962 section 2.1, word for word: MTH.
fn naive_root(leaves: &[Vec<u8>]) -> Digest {
    match leaves {
        [] => Digest::of(b""),
        [leaf] => Digest::of_parts(&[&[0], leaf]),
        _ => {
            let (left, right) = leaves.split_at(split(leaves.len()));
            let (left, right) = (naive_root(left), naive_root(right));
            Digest::of_parts(&[&[1], left.as_bytes(), right.as_bytes()])
        }
    }
}

/// The largest power of two below `n`.
fn split(n: usize) -> usize {
    n.next_power_of_two() / 2
}

/// RFC 6962 section 2.1.1: PATH.
fn naive_path(at: usize, leaves: &[Vec<u8>]) -> Vec<Digest> {
    if leaves.len() == 1 {
        return Vec::new();
    }
    let k = split(leaves.len());
    let (left, right) = leaves.split_at(k);
    let (mut path, other) = if at < k {
        (naive_path(at, left), naive_root(right))
    } else {
        (naive_path(at - k, right), naive_root(left))
    };
    path.push(other);
    path
}

/// RFC 6962 section 2.1.2: SUBPROOF.
fn naive_consistency(old: usize, leaves: &[Vec<u8>], whole: bool) -> Vec<Digest> {
    if old == leaves.len() {
        return if whole { Vec::new() } else { vec![naive_root(leaves)] };
    }
    let k = split(leaves.len());
    let (left, right) = leaves.split_at(k);
    let (mut proof, other) = if old <= k {
        (naive_consistency(old, left, whole), naive_root(right))
    } else {
        (naive_consistency(old - k, right, false), naive_root(left))
    };
    proof.push(other);
    proof
}

/// The stored row, as a store would keep it.
#[derive(Default)]
struct Row(Vec<Digest>);

impl Row {
    fn read(&self) -> impl FnMut(&[u64]) -> Result<Vec<Digest>, Infallible> + '_ {
        |indexes| Ok(indexes.iter().map(|index| self.0[to_index(*index)]).collect())
    }

    fn grow(&mut self, size: u64, leaf: &[u8]) {
        let at = merkle::stored_count(size).expect("a possible size");
        assert_eq!(to_index(at), self.0.len(), "hashes go to the end of the row");
        let new = merkle::append(size, merkle::leaf_hash(leaf), self.read()).expect("appends");
        self.0.extend(new);
    }

    fn of(leaves: &[Vec<u8>]) -> Self {
        let mut row = Self::default();
        for (size, leaf) in (0..).zip(leaves) {
            row.grow(size, leaf);
        }
        row
    }
}

fn to_index(number: u64) -> usize {
    usize::try_from(number).expect("a small tree")
}

fn leaves() -> impl Strategy<Value = Vec<Vec<u8>>> {
    prop::collection::vec(prop::collection::vec(any::<u8>(), 0..4), 1..70)
}

proptest! {
    #[test]
    fn every_root_is_that_of_the_rfc(leaves in leaves()) {
        let row = Row::of(&leaves);
        for size in 0..=leaves.len() {
            let root = merkle::root(size as u64, row.read()).expect("a root");
            prop_assert_eq!(root, naive_root(&leaves[..size]));
        }
    }

    #[test]
    fn every_leaf_is_proved_and_no_other(leaves in leaves(), pick in any::<prop::sample::Index>()) {
        let row = Row::of(&leaves);
        let (size, at) = (leaves.len() as u64, pick.index(leaves.len()));
        let root = naive_root(&leaves);
        let proof = InclusionProof::new(at as u64, size, row.read()).expect("a proof");
        prop_assert_eq!(&proof.hashes, &naive_path(at, &leaves));
        let leaf = merkle::leaf_hash(&leaves[at]);
        prop_assert_eq!(proof.verify(at as u64, size, root, leaf), Ok(()));
        let other = merkle::leaf_hash(b"another leaf");
        prop_assert!(proof.verify(at as u64, size, root, other).is_err());
        prop_assert!(proof.verify(at as u64, size, other, leaf).is_err());
        prop_assert!(proof.verify(size, size, root, leaf).is_err());
        let mut longer = proof.clone();
        longer.hashes.push(other);
        prop_assert!(longer.verify(at as u64, size, root, leaf).is_err());
        for broken in 0..proof.hashes.len() {
            let mut proof = proof.clone();
            proof.hashes[broken] = other;
            prop_assert!(proof.verify(at as u64, size, root, leaf).is_err());
        }
    }

    #[test]
    fn growth_is_proved_and_rewriting_is_not(
        leaves in leaves(),
        pick in any::<prop::sample::Index>(),
    ) {
        let row = Row::of(&leaves);
        let (size, old) = (leaves.len() as u64, pick.index(leaves.len()) + 1);
        let proof = ConsistencyProof::new(old as u64, size, row.read()).expect("a proof");
        prop_assert_eq!(&proof.hashes, &naive_consistency(old, &leaves, true));
        let (before, after) = (naive_root(&leaves[..old]), naive_root(&leaves));
        prop_assert_eq!(proof.verify((old as u64, before), (size, after)), Ok(()));
        let mut rewritten = leaves.clone();
        rewritten[old - 1].push(0);
        let forged = naive_root(&rewritten[..old]);
        prop_assert!(proof.verify((old as u64, forged), (size, after)).is_err());
        prop_assert!(proof.verify((old as u64, before), (size, naive_root(&rewritten))).is_err());
    }

    #[test]
    fn no_proof_panics(
        hashes in prop::collection::vec(any::<[u8; 32]>(), 0..60),
        at in any::<u64>(),
        size in any::<u64>(),
        root in any::<[u8; 32]>(),
    ) {
        let hashes: Vec<_> = hashes.into_iter().map(Digest::from_bytes).collect();
        let root = Digest::from_bytes(root);
        for at in [at, at % size.max(1), at % (1 << 48)] {
            let inclusion = InclusionProof { hashes: hashes.clone() };
            prop_assert!(inclusion.verify(at, size, root, Digest::of(b"")).is_err());
            let consistency = ConsistencyProof { hashes: hashes.clone() };
            prop_assert!(consistency.verify((at, Digest::of(b"")), (size, root)).is_err());
        }
    }
}

#[test]
fn sizes_that_no_log_has_are_refused() {
    let none = |_: &[u64]| -> Result<Vec<Digest>, Infallible> { panic!("nothing to read") };
    let leaf = Digest::of(b"");
    assert!(matches!(merkle::append(MAX_TREE_SIZE, leaf, none), Err(TreeError::Range { .. })));
    assert!(matches!(merkle::root(MAX_TREE_SIZE + 1, none), Err(TreeError::Range { .. })));
    assert!(merkle::stored_count(MAX_TREE_SIZE).is_ok());
    assert!(merkle::stored_count(u64::MAX).is_err());
    for (at, size) in [(0, 0), (5, 5), (0, u64::MAX)] {
        assert!(matches!(InclusionProof::new(at, size, none), Err(TreeError::Range { .. })));
        let proof = InclusionProof { hashes: Vec::new() };
        assert_eq!(proof.verify(at, size, leaf, leaf), Err(ProofError::Range));
    }
    for (old, new) in [(0, 5), (6, 5), (1, u64::MAX)] {
        assert!(matches!(ConsistencyProof::new(old, new, none), Err(TreeError::Range { .. })));
    }
    assert_eq!(merkle::root(0, none), Ok(merkle::empty_root()));
}

#[test]
fn what_the_store_says_comes_through() {
    let fails = |_: &[u64]| Err("disk");
    assert_eq!(merkle::root(3, fails), Err(TreeError::Store("disk")));
    let short = |_: &[u64]| Ok::<_, Infallible>(Vec::new());
    assert_eq!(merkle::root(3, short), Err(TreeError::Answer { asked: 2, got: 0 }));
}

#[test]
fn a_tree_of_peaks_grows_as_the_row_does() {
    let (mut tree, mut row) = (Tree::default(), Vec::new());
    for size in 0..300_u64 {
        assert_eq!(tree.row(), merkle::stored_count(size).unwrap());
        let at = |number: &u64| row[usize::try_from(*number).unwrap()];
        let read = |numbers: &[u64]| Ok::<_, Infallible>(numbers.iter().map(at).collect());
        assert_eq!(tree.head(), Head { size, root: merkle::root(size, read).unwrap() });
        let bits = usize::try_from(size.count_ones()).unwrap();
        assert_eq!(tree.peaks().len(), bits, "one peak for each bit");
        assert_eq!(Tree::at(size, read).unwrap(), (tree.clone(), tree.head().root));
        row.extend(tree.append(merkle::leaf_hash(&size.to_be_bytes())).unwrap());
    }
    let mut full = Tree::at(MAX_TREE_SIZE, |numbers| {
        Ok::<_, Infallible>(vec![Digest::of(b"any"); numbers.len()])
    });
    let (full, _) = full.as_mut().unwrap();
    let before = full.clone();
    assert!(matches!(full.append(Digest::of(b"one more")), Err(TreeError::Range { .. })));
    assert_eq!(*full, before);
}
