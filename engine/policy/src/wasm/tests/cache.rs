//! What the cache of compiled code accepts, which is what it wrote itself and nothing else.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use super::*;
use crate::wasm::cache::{self, Cache};

/// A guest whose answer is `failed` with this one letter.
fn letter(letter: char) -> Vec<u8> {
    let body = "(i32.store8 (i32.const 16) (i32.const 2)) (i32.store (i32.const 20) (i32.const 64))
        (i32.store (i32.const 24) (i32.const 1)) (i32.const 16)";
    guest(body, &format!("(data (i32.const 64) \"{letter}\")"))
}

static A: LazyLock<Vec<u8>> = LazyLock::new(|| letter('a'));
static B: LazyLock<Vec<u8>> = LazyLock::new(|| letter('b'));

fn open(directory: &Path) -> Cache {
    Cache::open(directory, &RUNTIME.engine).expect("it opens")
}

/// What a component says whose code came through a cache.
fn says(cache: &Cache, component: &[u8]) -> String {
    let component = cache.component(&RUNTIME.engine, component).expect("it compiles");
    let evaluate = check::interface(&RUNTIME.engine, &component).expect("it is of our world");
    let instance = Linker::new(&RUNTIME.engine).instantiate_pre(&component).expect("no imports");
    let runtime = RUNTIME.clone();
    let (name, params) = (id("letter"), "{}".to_owned());
    let policy = WasmPolicy { name, params, budget: BUDGET, instance, evaluate, runtime };
    let Finding::Indeterminate(says) = super::evaluate(&policy).finding else { panic!("a letter") };
    says
}

/// How many components were loaded and how many compiled since this was last asked, and the notes.
fn counts(cache: &Cache) -> (u64, u64, Vec<String>) {
    let activity = cache.take_activity();
    (activity.loaded, activity.compiled, activity.notes)
}

fn entries(directory: &Path) -> Vec<PathBuf> {
    let files = fs::read_dir(directory).expect("it lists").map(|file| file.expect("a file").path());
    let mut files: Vec<_> = files.filter(|path| !path.ends_with("key")).collect();
    files.sort();
    files
}

/// A directory with one entry, that of [`A`].
fn filled() -> (tempfile::TempDir, PathBuf) {
    let directory = private_directory();
    let cache = open(directory.path());
    assert_eq!(says(&cache, &A), "a");
    assert_eq!(counts(&cache), (0, 1, vec![]));
    let [entry] = entries(directory.path()).try_into().expect("one entry");
    (directory, entry)
}

/// Asserts that what lies in a directory is not loaded, said so, answered rightly all the same and
/// replaced.
#[track_caller]
fn compiled_anew(directory: &Path, why: &str) {
    let cache = open(directory);
    assert_eq!(says(&cache, &A), "a");
    let (loaded, compiled, notes) = counts(&cache);
    assert_eq!((loaded, compiled), (0, 1), "{notes:?}");
    assert!(notes.len() == 1 && notes[0].contains(why), "{why}: {notes:?}");
    assert_eq!(says(&cache, &A), "a");
    assert_eq!(counts(&cache), (1, 0, vec![]), "it was replaced");
}

#[test]
fn what_was_compiled_once_is_loaded_after() {
    let (directory, entry) = filled();
    let cache = open(directory.path());
    assert_eq!(says(&cache, &A), "a");
    assert_eq!(counts(&cache), (1, 0, vec![]));
    assert_eq!(says(&cache, &B), "b");
    assert_eq!(counts(&cache), (0, 1, vec![]));
    assert_eq!(entries(directory.path()).len(), 2);
    for path in entries(directory.path()).iter().chain([&directory.path().join("key"), &entry]) {
        let mode = fs::metadata(path).expect("it is there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{}", path.display());
    }
}

#[test]
fn the_entry_is_what_runs() {
    let directory = private_directory();
    let cache = open(directory.path());
    let b = RUNTIME.component(&B).expect("it compiles").serialize().expect("it serializes");
    // Only this node's key can do this: it shows that the code comes from the entry.
    cache.enter(&cache.name(&A), &b);
    assert_eq!(says(&cache, &A), "b");
    assert_eq!(counts(&cache), (1, 0, vec![]));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn one_bit_anywhere_is_enough(at in any::<prop::sample::Index>(), bit in 0_u8..8) {
        static FILLED: LazyLock<(tempfile::TempDir, PathBuf)> = LazyLock::new(filled);
        let (directory, entry) = &*FILLED;
        let mut bytes = fs::read(entry).expect("it reads");
        // Half of the cases hit the header.
        let within = if bit % 2 == 0 { 48 } else { bytes.len() };
        bytes[at.index(within)] ^= 1 << bit;
        fs::write(entry, bytes).expect("it is written");
        compiled_anew(directory.path(), "is compiled anew");
    }

    #[test]
    fn cut_short_anywhere_is_enough(at in any::<prop::sample::Index>()) {
        static FILLED: LazyLock<(tempfile::TempDir, PathBuf)> = LazyLock::new(filled);
        let (directory, entry) = &*FILLED;
        let mut bytes = fs::read(entry).expect("it reads");
        bytes.truncate(at.index(bytes.len()));
        fs::write(entry, bytes).expect("it is written");
        compiled_anew(directory.path(), "is compiled anew");
    }
}

#[test]
fn an_entry_under_anothers_name_is_not_accepted() {
    let (directory, entry) = filled();
    let cache = open(directory.path());
    says(&cache, &B);
    let other = entries(directory.path()).into_iter().find(|path| *path != entry);
    fs::copy(other.expect("that of `b`"), &entry).expect("it is copied");
    compiled_anew(directory.path(), "not written by this node, or altered");
}

#[test]
fn an_entry_of_another_node_is_not_accepted() {
    let (directory, entry) = filled();
    let (_elsewhere, other) = filled();
    assert_eq!(entry.file_name(), other.file_name(), "same engine, same component");
    fs::copy(other, &entry).expect("it is copied");
    compiled_anew(directory.path(), "not written by this node, or altered");
    // The same when this node lost its key.
    fs::remove_file(directory.path().join("key")).expect("it is removed");
    compiled_anew(directory.path(), "not written by this node, or altered");
}

#[test]
fn bare_native_code_is_not_accepted() {
    let (directory, entry) = filled();
    let native = RUNTIME.engine.precompile_component(&B).expect("it compiles");
    fs::write(&entry, native).expect("it is written");
    compiled_anew(directory.path(), "is not an entry of this version");
}

#[test]
fn an_entry_that_is_not_private_is_not_accepted() {
    let (directory, entry) = filled();
    for mode in [0o640, 0o602, 0o666, 0o604] {
        fs::set_permissions(&entry, Permissions::from_mode(mode)).expect("it is changed");
        compiled_anew(directory.path(), "is open to other users");
    }
    let aside = directory.path().join("aside");
    fs::rename(&entry, &aside).expect("it is moved");
    symlink(&aside, &entry).expect("it is linked");
    compiled_anew(directory.path(), "is not a regular file");
    assert!(aside.exists(), "the link was replaced, not what it names");
    fs::remove_file(&entry).expect("it is removed");
    fs::create_dir(&entry).expect("it is made");
    let cache = open(directory.path());
    assert_eq!(says(&cache, &A), "a");
    let (loaded, compiled, notes) = counts(&cache);
    assert_eq!((loaded, compiled, notes.len()), (0, 1, 2), "nor replaced: {notes:?}");
}

#[test]
fn a_directory_or_key_that_is_not_private_is_refused() {
    let refused = |directory: &Path, why: &str| {
        let error = Cache::open(directory, &RUNTIME.engine).expect_err("refused").to_string();
        assert!(error.contains(why) && error.contains("\nhint: "), "{error}");
    };
    let (directory, _) = filled();
    let path = directory.path();
    for mode in [0o750, 0o701, 0o777] {
        fs::set_permissions(path, Permissions::from_mode(mode)).expect("it is changed");
        refused(path, "is open to other users");
    }
    fs::set_permissions(path, Permissions::from_mode(0o700)).expect("it is changed");
    let parent = tempfile::tempdir().expect("a directory");
    let link = parent.path().join("link");
    symlink(path, &link).expect("it is linked");
    refused(&link, "is not a directory");

    let key = path.join("key");
    let good = fs::read(&key).expect("it reads");
    fs::set_permissions(&key, Permissions::from_mode(0o644)).expect("it is changed");
    refused(path, "is open to other users");
    fs::set_permissions(&key, Permissions::from_mode(0o600)).expect("it is changed");
    for wrong in [&good[..31], &[], &[good.as_slice(), b"x"].concat()] {
        fs::write(&key, wrong).expect("it is written");
        let error = Cache::open(path, &RUNTIME.engine).expect_err("refused").to_string();
        assert!(error.contains("key: is ") && error.contains("remove it"), "{error}");
    }
    fs::rename(&key, path.join("elsewhere")).expect("it is moved");
    symlink(path.join("elsewhere"), &key).expect("it is linked");
    refused(path, "is not a regular file");
}

#[test]
fn what_belongs_to_another_user_is_refused() {
    let (_directory, entry) = filled();
    let found = fs::metadata(entry).expect("it is there");
    use std::os::unix::fs::MetadataExt;
    assert_eq!(cache::private(&found, found.uid()), Ok(()));
    assert_eq!(cache::private(&found, found.uid() + 1), Err("owned by another user"));
}

#[test]
fn other_settings_have_entries_of_their_own() {
    let (directory, _) = filled();
    let mut config = runtime::config(&runtime::pool());
    config.cranelift_nan_canonicalization(false);
    let other = WasmRuntime::with_config(&config).expect("it starts");
    let cache = Cache::open(directory.path(), &other.engine).expect("it opens");
    cache.component(&other.engine, &A).expect("it compiles");
    assert_eq!(counts(&cache), (0, 1, vec![]), "compiled for itself, with nothing to note");
    assert_eq!(entries(directory.path()).len(), 2);
}

#[test]
fn the_oldest_entries_make_room() {
    let (directory, oldest) = filled();
    let mut cache = open(directory.path());
    let bytes = fs::metadata(&oldest).expect("it is there").len();
    cache.max_bytes = bytes * 5 / 2;
    // What a crash left behind counts too.
    fs::write(directory.path().join("partial-0"), vec![0; 10]).expect("it is written");
    says(&cache, &B);
    let activity = cache.take_activity();
    assert_eq!((activity.compiled, activity.evicted), (1, 0), "two fit");
    says(&cache, &letter('c'));
    assert!(cache.take_activity().evicted >= 1);
    assert!(!oldest.exists(), "the oldest went");
    assert_eq!(entries(directory.path()).iter().filter(|path| path.ends_with("key")).count(), 0);
    let total: u64 =
        entries(directory.path()).iter().map(|path| fs::metadata(path).expect("it").len()).sum();
    assert!(total <= cache.max_bytes);
    assert_eq!(says(&cache, &letter('c')), "c");
    assert_eq!(cache.take_activity().loaded, 1, "the newest stayed");
    cache.max_bytes = bytes / 2;
    assert_eq!(says(&cache, &letter('d')), "d");
    let (_, compiled, notes) = counts(&cache);
    assert!(compiled == 1 && notes[0].contains("too large"), "{notes:?}");
}

#[test]
fn threads_may_fill_it_at_once() {
    let directory = private_directory();
    let said: Vec<(String, String)> = std::thread::scope(|scope| {
        let fill = || {
            let cache = open(directory.path());
            let said = (says(&cache, &A), says(&cache, &B));
            let (loaded, compiled, notes) = counts(&cache);
            assert_eq!((loaded + compiled, notes), (2, vec![]));
            said
        };
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(fill)).collect();
        threads.into_iter().map(|thread| thread.join().expect("no panic")).collect()
    });
    assert!(said.iter().all(|said| *said == ("a".to_owned(), "b".to_owned())));
    assert_eq!(entries(directory.path()).len(), 2, "one entry each, and nothing half written");
    let cache = open(directory.path());
    says(&cache, &A);
    says(&cache, &B);
    assert_eq!(counts(&cache), (2, 0, vec![]));
}
