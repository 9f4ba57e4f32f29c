//! Where a fuzzer begins.

use proptest::strategy::{BoxedStrategy, Strategy, ValueTree};
use proptest::test_runner::{Config, TestRunner};

use crate::generators;
use crate::guest::{component_of, guest, module_of};
use crate::oracles::{proved, sample};

/// Generated seeds of each target.
const GENERATED: usize = 16;
/// Largest generated seed in bytes: small ones are mutated faster.
const MAX_BYTES: usize = 3_000;

/// The generator of a target's inputs, by the target's name.
///
/// # Panics
/// If there is no such target.
#[expect(clippy::panic, reason = "only tests ask, and with the names of targets")]
pub fn generator(target: &str) -> BoxedStrategy<Vec<u8>> {
    match target {
        "answer" => generators::answer().boxed(),
        "archive" => generators::archive().boxed(),
        "component" => generators::component().boxed(),
        "facts" => generators::facts().boxed(),
        "receipt" => generators::receipt().boxed(),
        "rego" => generators::rego().boxed(),
        "request_json" => generators::request_json().boxed(),
        "request_wire" => generators::request_wire().boxed(),
        "token" => generators::token().boxed(),
        other => panic!("there is no target `{other}`"),
    }
}

/// The seeds of a target, the same each time: name of the file and its bytes.
///
/// # Panics
/// If there is no such target.
#[must_use]
pub fn seeds(target: &str) -> Vec<(String, Vec<u8>)> {
    let mut seeds = by_hand(target);
    let mut runner = TestRunner::new_with_rng(Config::default(), deterministic());
    let strategy = generator(target);
    let mut generated = 0;
    while generated < GENERATED {
        let tree = strategy.new_tree(&mut runner).expect("the generators refuse nothing");
        let bytes = tree.current();
        if bytes.len() <= MAX_BYTES {
            seeds.push((format!("generated-{generated:02}"), bytes));
            generated += 1;
        }
    }
    seeds
}

fn deterministic() -> proptest::test_runner::TestRng {
    let algorithm = proptest::test_runner::RngAlgorithm::ChaCha;
    proptest::test_runner::TestRng::deterministic_rng(algorithm)
}

fn by_hand(target: &str) -> Vec<(String, Vec<u8>)> {
    let seed = |name: &str, bytes: Vec<u8>| (name.to_owned(), bytes);
    match target {
        "archive" => vec![seed("right.tar", generators::plain())],
        "component" => {
            let loops = guest("(loop $again (br $again))", 16, "");
            vec![
                seed("quiet.wasm", component_of(&module_of(&guest("", 16, "")))),
                seed("quiet-core.wasm", module_of(&guest("", 16, ""))),
                seed("loop-core.wasm", module_of(&loops)),
            ]
        }
        "receipt" => {
            let names = ["genuine", "checkpoint", "log-key", "witness-key"];
            let texts = names.into_iter().zip(proved());
            texts.map(|(name, text)| seed(name, text.into_bytes())).collect()
        }
        "token" => {
            let (token, claims) = sample();
            vec![seed("genuine", token.into_bytes()), seed("claims.json", claims)]
        }
        _ => vec![],
    }
}
