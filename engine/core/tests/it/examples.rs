//! The examples do what they say, on the vectors.

use std::fs;
use std::path::Path;

use crate::{auditor, provisioner, sample};

/// Arguments, in which the names of vectors stand for their paths.
fn arguments(words: &[&str]) -> Vec<String> {
    let path = |word: &&str| {
        let path = sample::vector_path(word);
        if path.is_file() { path.display().to_string() } else { (*word).to_owned() }
    };
    words.iter().map(path).collect()
}

fn changed(name: &str, from: &str, to: &str) -> String {
    let text = fs::read_to_string(sample::vector_path(name)).expect("it is in the tree");
    assert!(text.contains(from), "{name} has no `{from}`");
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("changed-{name}"));
    fs::write(&path, text.replacen(from, to, 1)).expect("the target folder is writable");
    path.display().to_string()
}

/// The command that the first lines of an example show, without the name of the program.
fn shown(example: &str) -> Vec<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples").join(example);
    let text = fs::read_to_string(path).expect("it is in the tree");
    let fence = text.split("//! ```").nth(1).expect("it shows a command");
    let command: String = fence.lines().map(|line| line.trim_start_matches("//!")).collect();
    let words: Vec<_> = command.split_whitespace().filter(|word| *word != "\\").collect();
    let at = words.iter().position(|word| *word == "--").expect("arguments behind `--`");
    arguments(&words[at + 1..])
}

#[test]
fn the_provisioner_starts_what_was_permitted() {
    let plan = provisioner::run(&shown("provisioner.rs")).expect("permitted");
    assert_eq!(
        plan,
        "confirm `v-1` at epoch 1 before 1793491500\n\
         fulfil network.partition tenant=acme\n\
         start lease/d-1 of acme: 8 x H100 of 1000 thousandths, 400 Gbit/s, Passthrough, \
         on c-042 from 1793491200 until 1793494800\n"
    );
    let token = changed("decision.jwt", ".eyJ", ".eyK");
    for (at, word, problem) in [
        (1, token.as_str(), "the signature does not match"),
        (2, "https://other.example", "was issued by"),
        (3, "billing", "is for"),
        (4, "1793491500", "expired"),
        (4, "now", "invalid digit"),
    ] {
        let mut words = shown("provisioner.rs");
        words[at] = word.to_owned();
        let told = provisioner::chain(&*provisioner::run(&words).expect_err(word));
        assert!(told.contains(problem), "{word}: {told}");
    }
    let told = provisioner::run(&[]).expect_err("no arguments").to_string();
    assert!(told.starts_with("usage: "), "{told}");
}

#[test]
fn the_auditor_proves_the_decision_and_the_growth() {
    let mut words = shown("auditor.rs");
    let [w1, w2] = sample::witnesses().map(|sampled| sampled.witness().to_string());
    words.extend(["2".to_owned(), w1.clone(), w2]);
    let report = auditor::run(&words).expect("proved");
    assert_eq!(
        report,
        "log.example.com/placet: grew from 1 to 2 leaves\n\
         leaf 1 is the decision d-1: Permit for lease/d-1 of acme, at 1793491200\n\
         witness.example.com/w1 cosigned at 1793491202\n\
         witness.example.org/w2 cosigned at 1793491203\n"
    );
    let receipt = changed("receipt.tlog-proof", "eyJ", "eyK");
    let older = changed("older.checkpoint", "\n1\n", "\n2\n");
    let proof = changed("older-to-newer.proof", "A", "B");
    for (at, word, problem) in [
        (0, w1.as_str(), "it is the key of a witness"),
        (2, "https://other.example", "was issued by"),
        (3, &receipt, "belongs to another leaf"),
        (4, &older, "is not what the log's key signed"),
        (5, &proof, "does not lead to the root"),
        (6, "3", "at least 3 are asked for"),
        (8, &w1, "the same voice"),
    ] {
        let mut words = words.clone();
        words[at] = word.to_owned();
        let told = auditor::chain(&*auditor::run(&words).expect_err(word));
        assert!(told.contains(problem), "{word}: {told}");
    }
    let told = auditor::run(&[]).expect_err("no arguments").to_string();
    assert!(told.starts_with("usage: "), "{told}");
}
