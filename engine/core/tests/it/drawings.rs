//! `engine/docs/formats.md` draws the vectors, byte by byte.

use std::fs;
use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::Value;

use crate::sample;

/// Most characters that are shown of a part.
const SHOWN: usize = 41;

fn page() -> PathBuf {
    sample::workspace().join("engine/docs/formats.md")
}

fn vector(name: &str) -> Value {
    let text = fs::read_to_string(sample::vector_path(name)).expect("it is in the tree");
    serde_json::from_str(&text).expect("a vector is JSON")
}

fn text(vector: &Value, member: &str) -> String {
    vector[member].as_str().expect("a text").to_owned()
}

/// Bytes as they are drawn: text where they are text, else hexadecimal digits.
fn shown(bytes: &[u8]) -> String {
    let plain = |char: char| matches!(char, ' '..='~' | '\n' | '\u{2014}');
    let whole = match std::str::from_utf8(bytes) {
        Ok(text) if text.chars().all(plain) => text.replace('\n', "\\n"),
        Ok(_) | Err(_) => bytes.iter().map(|byte| format!("{byte:02x}")).collect(),
    };
    let length = whole.chars().count();
    if length <= SHOWN {
        return whole;
    }
    let (head, tail) = (whole.chars().take(SHOWN - 13), whole.chars().skip(length - 10));
    format!("{}...{}", head.collect::<String>(), tail.collect::<String>())
}

/// A drawing of parts that lie end to end.
struct Drawing {
    name: &'static str,
    parts: Vec<(Vec<u8>, &'static str)>,
}

impl Drawing {
    /// Of bytes that are cut after so many each; the last part is the rest.
    fn cut(name: &'static str, bytes: &[u8], parts: &[(usize, &'static str)]) -> Self {
        let mut rest = bytes;
        let mut drawn = Vec::new();
        for (length, meaning) in parts {
            let (part, more) = rest.split_at(*length);
            drawn.push((part.to_vec(), *meaning));
            rest = more;
        }
        assert!(rest.is_empty(), "{name}: {} bytes are not drawn", rest.len());
        Self { name, parts: drawn }
    }

    /// Of a text whose lines have one meaning each.
    fn lines(name: &'static str, text: &str, meanings: &[&'static str]) -> Self {
        let lines: Vec<_> = text.split_inclusive('\n').collect();
        assert_eq!(lines.len(), meanings.len(), "{name}: {text}");
        let parts = lines.iter().map(|line| line.as_bytes().to_vec());
        Self { name, parts: parts.zip(meanings.iter().copied()).collect() }
    }

    fn drawn(&self) -> String {
        let mut block = format!("offset bytes  {:SHOWN$}  meaning\n", "content");
        let mut offset = 0;
        for (bytes, meaning) in &self.parts {
            let row = format!("{offset:6} {:5}  {:SHOWN$}  {meaning}", bytes.len(), shown(bytes));
            block.push_str(row.trim_end());
            block.push('\n');
            offset += bytes.len();
        }
        block
    }
}

fn token_drawings() -> Vec<Drawing> {
    let token = text(&vector("token.json"), "token");
    let (header, rest) = token.split_once('.').expect("three parts");
    let (claims, signature) = rest.split_once('.').expect("three parts");
    let unencoded = |text: &str| URL_SAFE_NO_PAD.decode(text).expect("base64url");
    vec![
        Drawing::cut(
            "token",
            token.as_bytes(),
            &[
                (header.len(), "header, base64url"),
                (1, ""),
                (claims.len(), "claims, base64url"),
                (1, ""),
                (signature.len(), "signature, base64url"),
            ],
        ),
        Drawing::cut(
            "token header",
            &unencoded(header),
            &[
                (r#"{"alg":"EdDSA","#.len(), ""),
                (7 + 43 + 2, "thumbprint of the key"),
                (r#""typ":"placet-decision+jwt"}"#.len(), ""),
            ],
        ),
        Drawing::cut(
            "token signature",
            &unencoded(signature),
            &[(32, "R of RFC 8032 section 5.1.6"), (32, "S")],
        ),
    ]
}

fn leaf_drawing() -> Drawing {
    let leaf = vector("leaf.json")["leaves"][1].as_str().expect("a text").to_owned();
    let token = text(&vector("token.json"), "token");
    let head = r#"{"caller":"scheduler-1","#;
    let kind = r#""kind":"decision","token":""#;
    Drawing::cut(
        "leaf",
        leaf.as_bytes(),
        &[
            (r#"{"event":"#.len(), ""),
            (head.len(), "who asked"),
            (kind.len(), ""),
            (token.len(), "the token, as it was sent"),
            (3, ""),
            (r#""time":1793491200,"#.len(), "when it was logged"),
            (r#""v":1}"#.len(), "version of the format"),
        ],
    )
}

/// The bytes of the signature that ends a line.
fn signature_of(line: &str) -> Vec<u8> {
    let encoded = line.trim_end().rsplit(' ').next().expect("a word");
    STANDARD.decode(encoded).expect("base64")
}

fn log_drawings() -> Vec<Drawing> {
    let note = text(&vector("checkpoint.json"), "note");
    let cosignature = &vector("cosignature.json")["witnesses"][0];
    let line = text(cosignature, "line");
    let signed = note.split_inclusive("\n").take(3).collect::<String>();
    let message = format!("cosignature/v1\ntime {}\n{signed}", cosignature["time"]);
    let name = text(cosignature, "name").len();
    let receipt = text(&vector("receipt.json"), "receipt");
    vec![
        Drawing::lines(
            "checkpoint",
            &note,
            &[
                "origin",
                "leaves",
                "root, base64",
                "the text ends ahead of it",
                "signature of the log",
            ],
        ),
        Drawing::cut(
            "checkpoint signature",
            &signature_of(&note),
            &[(4, "key hash"), (64, "Ed25519 over the text")],
        ),
        Drawing::cut(
            "cosignature",
            line.as_bytes(),
            &[
                (4, "em dash (3 bytes), space"),
                (name, "the witness"),
                (1, ""),
                (line.len() - name - 6, "signature, base64"),
                (1, ""),
            ],
        ),
        Drawing::cut(
            "cosignature signature",
            &signature_of(&line),
            &[
                (4, "key hash"),
                (8, "time, the highest byte first"),
                (64, "Ed25519 over the message"),
            ],
        ),
        Drawing::lines(
            "cosignature message",
            &message,
            &["", "the same time", "the text of the checkpoint", "", ""],
        ),
        Drawing::lines(
            "receipt",
            &receipt,
            &[
                "version",
                "the leaf, base64",
                "its position, from 0",
                "proof, base64: the hash of leaf 0",
                "",
                "checkpoint: origin",
                "leaves",
                "root",
                "",
                "signature of the log",
                "cosignatures",
                "",
            ],
        ),
    ]
}

fn tile_drawings() -> Vec<Drawing> {
    let vector = vector("tiles.json");
    let tiles = vector["tiles"].as_array().expect("tiles");
    let bytes = |path: &str| {
        let tile = tiles.iter().find(|tile| tile["path"] == path).expect("it is in the vector");
        sample::bytes(tile["hex"].as_str().expect("a short tile"))
    };
    let hashes = [(32, "hash of leaf 256"), (32, "257"), (32, "258"), (32, "259")];
    vec![
        Drawing::cut("hash tile", &bytes("tile/0/001.p/4"), &hashes),
        Drawing::cut(
            "entry bundle",
            &bytes("tile/entries/001.p/4"),
            &[
                (2, "length"),
                (8, "leaf 256"),
                (2, ""),
                (8, "257"),
                (2, ""),
                (8, "258"),
                (2, ""),
                (8, "259"),
            ],
        ),
    ]
}

fn drawings() -> Vec<Drawing> {
    let mut drawings = token_drawings();
    drawings.push(leaf_drawing());
    drawings.extend(log_drawings());
    drawings.extend(tile_drawings());
    drawings
}

/// A page before, in and behind a drawing, which stands after its mark, between fences.
fn parted<'a>(page: &'a str, name: &str) -> (&'a str, &'a str, &'a str) {
    let mark = format!("<!-- drawn from the vectors: {name} -->\n```\n");
    assert_eq!(page.matches(&mark).count(), 1, "the page draws `{name}` once");
    let (before, rest) = page.split_once(&mark).expect("it is there");
    let (drawn, behind) = rest.split_once("```").expect("the fence is closed");
    (before, drawn, behind)
}

#[test]
fn the_page_draws_the_vectors() {
    let page = fs::read_to_string(page()).expect("it is in the tree");
    let drawings = drawings();
    for drawing in &drawings {
        let (_, found, _) = parted(&page, drawing.name);
        assert_eq!(found, drawing.drawn(), "{}", drawing.name);
    }
    let marks = page.matches("<!-- drawn from the vectors: ").count();
    assert_eq!(marks, drawings.len(), "a drawing that nobody checks");
}

/// Draws the vectors anew, where the page has their marks.
#[test]
#[ignore = "overwrites the page"]
fn write_drawings() {
    let mut text = fs::read_to_string(page()).expect("it is in the tree");
    for drawing in drawings() {
        let (name, drawn) = (drawing.name, drawing.drawn());
        let (before, _, behind) = parted(&text, name);
        let mark = format!("<!-- drawn from the vectors: {name} -->\n```\n");
        text = format!("{before}{mark}{drawn}```{behind}");
    }
    fs::write(page(), text).expect("the tree is writable");
}
