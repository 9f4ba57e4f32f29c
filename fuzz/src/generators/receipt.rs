//! Receipts, checkpoints and verifier keys.

use proptest::prelude::*;
use proptest::sample::select;

use super::damage::{damaged, spoiled};
use crate::oracles::proved;

/// What stands at the edges of a receipt's lines.
const WORDS: [&str; 16] = [
    "extra ",
    "index 0",
    "index 1",
    "index 2",
    "index 281474976710655",
    "index 281474976710656",
    "0",
    "3",
    "18446744073709551616",
    "c2sp.org/tlog-proof@v1",
    "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
    "\n\n",
    "\r\n",
    "\u{2014} log.example.com/placet AAAAAAAA\n",
    "\u{2014} ",
    "+",
];

/// The genuine receipt, its checkpoint, the key of its log or of its witness: as they are, with
/// bytes changed, or with words and lines changed.
pub fn receipt() -> impl Strategy<Value = Vec<u8>> {
    let one = || select(proved().to_vec());
    prop_oneof![
        damaged(one().prop_map(String::into_bytes)),
        spoiled(one(), &WORDS).prop_map(String::into_bytes),
    ]
}
