//! Every target on the stable toolchain: its corpus, what was once found, and generated inputs.
#![expect(clippy::panic, clippy::print_stdout, reason = "a test says on what it failed")]

use std::fs;
use std::path::{Path, PathBuf};

use placet_fuzz::oracles::{TARGETS, accepted};
use placet_fuzz::{generator, seeds};
use proptest::test_runner::{Config, FileFailurePersistence, TestRunner};

/// Generated inputs of each target.
const CASES: u32 = 10_000;
/// Of 100 generated inputs, how many are at least not refused at the door.
const MIN_SHARE: u64 = 5;

fn folder(kind: &str, target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(kind).join(target)
}

/// The files of a folder, sorted; a target in which nothing was found has no regressions.
fn files(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else { return vec![] };
    let mut files: Vec<_> = entries.map(|entry| entry.expect("an entry").path()).collect();
    files.sort();
    files
}

fn target(name: &str) -> fn(&[u8]) {
    TARGETS.iter().find(|(known, _)| *known == name).expect("there is such a target").1
}

/// Runs a target over what it has, then over what is made for it.
fn replay(name: &str) {
    let body = target(name);
    let corpus = files(&folder("corpus", name));
    assert!(!corpus.is_empty(), "{name} has no corpus");
    for path in corpus.iter().chain(&files(&folder("regressions", name))) {
        println!("{}", path.display());
        body(&fs::read(path).expect("a file of the tree is readable"));
    }
    let failures = concat!(env!("CARGO_MANIFEST_DIR"), "/regressions/proptest.txt");
    let config = Config {
        cases: CASES,
        failure_persistence: Some(Box::new(FileFailurePersistence::Direct(failures))),
        ..Config::default()
    };
    let before = accepted();
    let run = TestRunner::new(config).run(&generator(name), |bytes| {
        body(&bytes);
        Ok(())
    });
    run.unwrap_or_else(|failure| panic!("{name}: {failure}"));
    let share = (accepted() - before) * 100 / u64::from(CASES);
    println!("{share} of 100 inputs were not refused");
    assert!(share >= MIN_SHARE, "{name}: only {share} of 100 inputs are not refused");
}

macro_rules! replayed {
    ($($name:ident)*) => {
        $(#[test]
        fn $name() {
            replay(stringify!($name));
        })*

        #[test]
        fn every_target_is_replayed() {
            let replayed = [$(stringify!($name)),*];
            assert_eq!(replayed.to_vec(), TARGETS.map(|(name, _)| name).to_vec());
        }
    };
}

replayed!(answer archive component facts receipt rego request_json request_wire token);

/// Everybody who clones gets them.
#[test]
fn the_corpora_are_small() {
    let mut bytes = 0;
    for (name, _) in TARGETS {
        for path in files(&folder("corpus", name)) {
            bytes += fs::metadata(path).expect("the file is there").len();
        }
    }
    assert!(bytes < 300_000, "the corpora have {bytes} bytes");
}

#[test]
#[ignore = "writes to fuzz/corpus: for whoever changed a generator"]
fn write_the_seeds() {
    for (name, _) in TARGETS {
        let folder = folder("corpus", name);
        fs::create_dir_all(&folder).expect("it is made");
        for (file, bytes) in seeds(name) {
            fs::write(folder.join(file), bytes).expect("it is written");
        }
    }
}
