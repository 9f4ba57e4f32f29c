//! Tiles: each has one path, and a tree can be rebuilt from them by libraries that are not ours.

use ct_merkle::RootHash;
use ct_merkle::mem_backed_tree::MemoryBackedTree;
use placet_core::merkle::{self, MAX_TREE_SIZE};
use placet_core::tile::{
    TILE_WIDTH, TileError, TileKind, TilePath, read_entries, read_hashes, tiles, write_entries,
    write_hashes,
};
use placet_core::{Digest, MAX_LEAF_BYTES};
use proptest::prelude::*;
use sha2::Sha256;
use tlog_tiles::tlog::{self, HashReader as _};
use tlog_tiles::{Tile, TileHashReader, TileReader};

use crate::sample::Log;

/// The reader of tiles of another library, which names them otherwise (with their height) and holds
/// each of them against the root.
struct Theirs<'a>(&'a Log);

impl TileReader for Theirs<'_> {
    fn height(&self) -> u8 {
        8
    }

    fn read_tiles(&self, tiles: &[Tile]) -> Result<Vec<Vec<u8>>, tlog_tiles::Error> {
        let read = |tile: &Tile| {
            let kind = TileKind::Hashes(tile.level());
            let width = u16::try_from(tile.width()).expect("at most 256");
            self.0.tile(TilePath::new(kind, tile.level_index(), width).expect("a tile"))
        };
        Ok(tiles.iter().map(read).collect())
    }

    fn save_tiles(&self, _tiles: &[Tile], _data: &[Vec<u8>]) {}
}

/// The tree as a library makes it from the leaves alone that is neither ours nor what ours is made
/// of.
fn theirs(leaves: &[Vec<u8>]) -> MemoryBackedTree<Sha256, Vec<u8>> {
    let mut tree = MemoryBackedTree::new();
    leaves.iter().for_each(|leaf| tree.push(leaf.clone()));
    tree
}

fn their_root(root: Digest, size: u64) -> RootHash<Sha256> {
    RootHash::new((*root.as_bytes()).into(), size)
}

#[test]
fn other_libraries_rebuild_the_tree_from_our_tiles() {
    let log = Log::of(1_000);
    for size in [1, 2, 255, 256, 257, 511, 512, 513, 1_000] {
        // Its leaves, out of the entry bundles.
        let mut leaves = Vec::new();
        for path in tiles(size).filter(|path| path.kind() == TileKind::Entries) {
            let bundle = log.tile(path);
            let read = read_entries(&bundle, path.width()).expect("a bundle");
            leaves.extend(read.into_iter().map(<[u8]>::to_vec));
        }
        let count = usize::try_from(size).expect("a small number");
        assert_eq!(leaves, log.leaves[..count]);
        let root = log.root(size);
        let tree = theirs(&leaves);
        assert_eq!(tree.root(), their_root(root, size), "{size}");
        // Every stored hash, out of the hash tiles: each is proven by the root.
        let their_root = tlog::Hash(*root.as_bytes());
        let tiled = Theirs(&log);
        let reader = TileHashReader::new(size, their_root, &tiled);
        let all: Vec<u64> = (0..merkle::stored_count(size).expect("small")).collect();
        let hashes = reader.read_hashes(&all).expect("tiles that prove themselves");
        let hashes: Vec<_> = hashes.into_iter().map(|hash| Digest::from_bytes(hash.0)).collect();
        assert_eq!(Ok(hashes), log.read(&all), "{size}");
    }
}

#[test]
fn a_tree_has_the_tiles_of_the_specification() {
    // The example of C2SP tlog-tiles, "Partial Tiles".
    let (mut full, mut partial) = (Vec::new(), Vec::new());
    for path in tiles(70_000).filter(|path| path.kind() != TileKind::Entries) {
        if path.is_partial() { partial.push(path.to_string()) } else { full.push(path.kind()) }
    }
    assert_eq!(full.iter().filter(|kind| **kind == TileKind::Hashes(0)).count(), 273);
    assert_eq!(full.iter().filter(|kind| **kind == TileKind::Hashes(1)).count(), 1);
    assert_eq!(partial, ["tile/0/273.p/112", "tile/1/001.p/17", "tile/2/000.p/1"]);
    assert_eq!(tiles(0).count(), 0, "empty tiles are none");
    let of_256: Vec<String> = tiles(256).map(|path| path.to_string()).collect();
    assert_eq!(of_256, ["tile/0/000", "tile/1/000.p/1", "tile/entries/000"]);
    let last = TilePath::new(TileKind::Entries, (MAX_TREE_SIZE - 1) / 256, 256).expect("a tile");
    assert_eq!(last.to_string(), "tile/entries/x001/x099/x511/x627/775");
    assert!(last.is_within(MAX_TREE_SIZE) && !last.is_within(MAX_TREE_SIZE - 1));
    let top = TilePath::new(TileKind::Hashes(63), 0, 1).expect("has a path");
    assert!(!top.is_within(MAX_TREE_SIZE) && top.stored().is_empty(), "no tree has it");
}

#[test]
fn what_is_no_path_is_refused_by_what_is_wrong() {
    for (path, says) in [
        ("", "begin with `tile/`"),
        ("/tile/0/000", "begin with `tile/`"),
        ("tile/0", "no index"),
        ("tile/0/", "end with three digits"),
        ("tile/00/000", "level"),
        ("tile/64/000", "level"),
        ("tile/-1/000", "level"),
        ("tile/+1/000", "level"),
        ("tile/data/000", "level"),
        ("tile/0/0", "three digits"),
        ("tile/0/1000", "three digits"),
        ("tile/0/x001", "three digits"),
        ("tile/0/+01", "three digits"),
        ("tile/0/000/", "three digits"),
        ("tile/0/001/234", "`x` and three digits"),
        ("tile/0/x1/234", "`x` and three digits"),
        ("tile/0/../000", "`x` and three digits"),
        ("tile/0//000", "`x` and three digits"),
        ("tile/0/x000/001", "zeros ahead"),
        ("tile/0/000.p/0", "width"),
        ("tile/0/000.p/256", "width"),
        ("tile/0/000.p/01", "width"),
        ("tile/0/000.p/", "width"),
        ("tile/0/000.p/1/", "width"),
        ("tile/0/000.p/1.p/1", "width"),
        ("tile/0/000.p", "three digits"),
        ("tile/0/x999/x999/x999/x999/999", "beyond"),
        ("tile/0/x999/x999/x999/x999/x999/x999/x999/x999/x999/999", "beyond"),
        ("tile/0/x999/x999/x999/x999/x999/x999/x999/x999/x999/x999/x999/x999/x999/999", "long"),
        ("tile/0/%30%30%30", "three digits"),
        ("tile/0/\u{661}\u{661}\u{661}", "three digits"),
    ] {
        let error = path.parse::<TilePath>().expect_err(path).to_string();
        assert!(error.contains(says), "`{path}`: {error}");
    }
}

#[test]
fn bytes_of_another_width_are_refused() {
    let hashes = [Digest::of(b"a"), Digest::of(b"b")];
    let tile = write_hashes(&hashes);
    assert_eq!(read_hashes(&tile, 2), Ok(hashes.to_vec()));
    let length = |found, expected| Err(TileError::Length { found, expected });
    assert_eq!(read_hashes(&tile, 3), length(64, 96));
    assert_eq!(read_hashes(&tile, 1), length(64, 32));
    assert_eq!(read_hashes(&tile[..63], 2), length(63, 64));
    let bundle = write_entries(&["one", "three"]).expect("short");
    assert_eq!(bundle, b"\0\x03one\0\x05three");
    assert_eq!(read_entries(&bundle, 2), Ok(vec![b"one".as_slice(), b"three"]));
    assert_eq!(read_entries(&bundle, 1), Err(TileError::Behind { bytes: 7 }));
    assert_eq!(read_entries(&bundle, 3), Err(TileError::CutShort { entry: 2 }));
    for cut in [6, 7, 11] {
        assert_eq!(read_entries(&bundle[..cut], 2), Err(TileError::CutShort { entry: 1 }));
    }
    assert_eq!(read_entries(b"\0\0", 1), Err(TileError::Entry { bytes: 0 }));
    assert_eq!(write_entries(&[""]), Err(TileError::Entry { bytes: 0 }));
    let longest = vec![b'x'; MAX_LEAF_BYTES];
    let bundle = write_entries(&[&longest]).expect("as long as can be");
    assert_eq!(read_entries(&bundle, 1), Ok(vec![longest.as_slice()]));
    let too_long = vec![b'x'; MAX_LEAF_BYTES + 1];
    assert_eq!(write_entries(&[too_long]), Err(TileError::Entry { bytes: MAX_LEAF_BYTES + 1 }));
}

proptest! {
    #[test]
    fn every_tile_has_one_path(
        level in 0_u8..=63,
        index in 0..MAX_TREE_SIZE,
        width in 1..=TILE_WIDTH,
        entries: bool,
    ) {
        let kind = if entries { TileKind::Entries } else { TileKind::Hashes(level) };
        let path = TilePath::new(kind, index, width).unwrap();
        prop_assert_eq!(path.to_string().parse::<TilePath>(), Ok(path));
        // The same index as the other library writes it, which puts the height before it.
        let theirs = Tile::new(8, level, index, u32::from(width), false).path();
        if !entries {
            prop_assert_eq!(theirs.replacen("tile/8/", "tile/", 1), path.to_string());
        }
    }

    #[test]
    fn what_is_read_is_the_one_path_of_its_tile(
        path in "tile/(entries|[0-9x]{1,3})/[0-9x/.p]{0,20}",
    ) {
        if let Ok(tile) = path.parse::<TilePath>() {
            prop_assert_eq!(tile.to_string(), path);
        }
    }

    #[test]
    fn no_bytes_panic(
        bytes in proptest::collection::vec(any::<u8>(), 0..600),
        width in 0_u16..=300,
    ) {
        if let Ok(leaves) = read_entries(&bytes, width) {
            prop_assert_eq!(write_entries(&leaves), Ok(bytes.clone()));
        }
        if let Ok(hashes) = read_hashes(&bytes, width) {
            prop_assert_eq!(write_hashes(&hashes), bytes);
        }
    }

    #[test]
    fn the_tiles_of_a_tree_hold_each_leaf_once(size in 0_u64..200_000) {
        let (mut entries, mut rows) = (0, [0_u64; 7]);
        for path in tiles(size) {
            prop_assert!(path.is_within(size));
            let is_last = size == path.range().end;
            prop_assert!(is_last || !path.is_partial() || path.kind() != TileKind::Entries);
            match path.kind() {
                TileKind::Entries => entries += u64::from(path.width()),
                TileKind::Hashes(level) => rows[usize::from(level)] += u64::from(path.width()),
            }
        }
        prop_assert_eq!(entries, size);
        for (level, hashes) in (0_u32..).zip(rows) {
            prop_assert_eq!(hashes, size / 256_u64.pow(level));
        }
    }
}
