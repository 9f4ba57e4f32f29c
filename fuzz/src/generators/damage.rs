//! What was right, with wounds.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};

/// Bytes with some of them changed, dropped or doubled.
pub fn damaged(bytes: impl Strategy<Value = Vec<u8>>) -> impl Strategy<Value = Vec<u8>> {
    let wounds = vec((any::<Index>(), 0_u8..4, any::<u8>()), 0..4);
    (bytes, wounds).prop_map(|(mut bytes, wounds)| {
        for (at, kind, byte) in wounds {
            if bytes.is_empty() {
                break;
            }
            let at = at.index(bytes.len());
            match kind {
                0 => bytes.truncate(at),
                1 => bytes.insert(at, byte),
                2 => {
                    bytes.remove(at);
                }
                _ => {
                    if let Some(place) = bytes.get_mut(at) {
                        *place ^= byte;
                    }
                }
            }
        }
        bytes
    })
}

/// Text with some of its words replaced by others, dropped, doubled or swapped, and some of its
/// lines dropped or doubled.
pub fn spoiled(
    text: impl Strategy<Value = String>,
    words: &'static [&'static str],
) -> impl Strategy<Value = String> {
    let wounds = vec((any::<Index>(), any::<Index>(), 0_u8..8, select(words)), 0..5);
    (text, wounds).prop_map(|(text, wounds)| {
        let mut text = text;
        for (at, other, kind, word) in wounds {
            text = if kind < 6 {
                spoil(pieces(&text), at, other, kind, word)
            } else {
                spoil(text.split_inclusive('\n').collect(), at, other, kind % 3, "")
            };
        }
        text
    })
}

fn spoil<'a>(mut pieces: Vec<&'a str>, at: Index, other: Index, kind: u8, word: &'a str) -> String {
    if !pieces.is_empty() {
        let (at, other) = (at.index(pieces.len()), other.index(pieces.len()));
        match kind {
            0 => {
                pieces.remove(at);
            }
            1 => pieces.insert(at, pieces.get(other).copied().unwrap_or(word)),
            2 => pieces.swap(at, other),
            3 => pieces.insert(at, word),
            _ => {
                if let Some(piece) = pieces.get_mut(at) {
                    *piece = word;
                }
            }
        }
    }
    pieces.concat()
}

/// A text cut before and after every word, a word being letters, digits and what joins them.
fn pieces(text: &str) -> Vec<&str> {
    let word = |c: char| c.is_alphanumeric() || c == '_' || c == '.';
    let mut pieces = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let end = if word(first) {
            rest.find(|c| !word(c)).unwrap_or(rest.len())
        } else {
            first.len_utf8()
        };
        let (piece, after) = rest.split_at(end);
        pieces.push(piece);
        rest = after;
    }
    pieces
}
