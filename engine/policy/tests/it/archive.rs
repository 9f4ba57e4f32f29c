//! Archives of bundles: the same bytes each time, the same bundle as the directory, and every
//! hostile one refused.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::Command;

use flate2::Compression;
use flate2::write::GzEncoder;
use placet_core::{BundleClaims, Digest, KeySet, SignatureError, SigningKey, sign_bundle};
use placet_policy::{Bundle, Facts, LoadError};
use proptest::prelude::*;
use tempfile::TempDir;

const MANIFEST: &str = "schema: placet.bundle/v1\nrevision: \"1\"\n\
    policies: [{name: p, source: p.rego}]\n";
const POLICY: &str = "package placet.p\n\
    warn contains {\"code\": \"W\", \"message\": \"w\"} if false\n";

/// One file of an archive, its header as it will be written.
struct Entry {
    header: tar::Header,
    content: Vec<u8>,
}

impl Entry {
    fn new(path: &str, content: &[u8]) -> Self {
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(tar::EntryType::Regular);
        header.set_mode(0o600);
        header.set_mtime(7);
        header.set_size(content.len() as u64);
        header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
        header.set_cksum();
        Self { header, content: content.to_vec() }
    }

    /// The same with its header changed, and the checksum made to fit.
    fn with(mut self, change: impl FnOnce(&mut tar::Header)) -> Self {
        change(&mut self.header);
        self.header.set_cksum();
        self
    }

    fn write(&self, tar: &mut Vec<u8>) {
        tar.extend(self.header.as_bytes());
        tar.extend(&self.content);
        tar.resize(tar.len().next_multiple_of(512), 0);
    }
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
    gzip.write_all(bytes).expect("written");
    gzip.finish().expect("finished")
}

/// A tar file with a small bundle and some more entries.
fn tar_with(entries: &[Entry]) -> Vec<u8> {
    let mut tar = Vec::new();
    Entry::new("bundle.yaml", MANIFEST.as_bytes()).write(&mut tar);
    Entry::new("p.rego", POLICY.as_bytes()).write(&mut tar);
    for entry in entries {
        entry.write(&mut tar);
    }
    tar.extend([0; 1_024]);
    tar
}

fn refusal(bytes: &[u8]) -> String {
    match Bundle::from_archive("x.tar.gz", bytes) {
        Err(LoadError::Invalid(fault)) => {
            assert!(fault.hint.is_some(), "no remedy: {fault}");
            fault.to_string()
        }
        other => panic!("not refused as invalid: {other:?}"),
    }
}

#[track_caller]
fn refused_with(entries: &[Entry], expected: &str) {
    let message = refusal(&gzip(&tar_with(entries)));
    assert!(message.contains(expected), "wanted `{expected}`: {message}");
}

fn write(directory: &Path, path: &str, content: &[u8]) {
    let path = directory.join(path);
    fs::create_dir_all(path.parent().expect("a parent")).expect("made");
    fs::write(path, content).expect("written");
}

fn directory(files: &[(&str, &[u8])]) -> TempDir {
    let directory = tempfile::tempdir().expect("a directory");
    for (path, content) in files {
        write(directory.path(), path, content);
    }
    directory
}

fn small() -> [(&'static str, &'static [u8]); 3] {
    [("bundle.yaml", MANIFEST.as_bytes()), ("p.rego", POLICY.as_bytes()), ("a/b/c.txt", b"hello")]
}

fn load(path: &Path) -> Bundle {
    Bundle::load(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn contents(bundle: &Bundle) -> BTreeMap<String, Vec<u8>> {
    bundle.files().map(|(path, bytes)| (path.to_owned(), bytes.to_vec())).collect()
}

#[test]
fn an_archive_is_the_bundle_of_its_directory_and_is_known_by_its_bytes() {
    let directory = directory(&small());
    let bundle = load(directory.path());
    let archive = bundle.to_archive();
    let file = directory.path().with_extension("of-any-name");
    fs::write(&file, &archive).expect("written");
    let again = load(&file);
    fs::remove_file(&file).expect("removed");
    assert_eq!(again.digest(), bundle.digest());
    assert_eq!(contents(&again), contents(&bundle));
    assert_eq!(again.to_archive(), archive);
}

#[test]
fn the_same_files_give_the_same_bytes_whoever_wrote_them_when() {
    let files = small();
    let first = directory(&files);
    let second = tempfile::tempdir().expect("a directory");
    for (path, content) in files.iter().rev() {
        write(second.path(), path, content);
        let file = fs::File::open(second.path().join(path)).expect("there");
        let early = std::time::UNIX_EPOCH + std::time::Duration::from_secs(86_400);
        file.set_modified(early).expect("a time of its own");
    }
    let archive = load(first.path()).to_archive();
    assert_eq!(load(second.path()).to_archive(), archive);
    assert_eq!(load(first.path()).to_archive(), archive);
    // The gzip header: no flags, no time, best compression, no system (RFC 1952 section 2.3.1).
    assert_eq!(archive[..10], [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 2, 255]);
}

#[test]
fn the_systems_tools_unpack_it_and_find_the_same_digest() {
    let directory = directory(&small());
    let bundle = load(directory.path());
    let out = tempfile::tempdir().expect("a directory");
    let archive = out.path().join("b.tar.gz");
    fs::write(&archive, bundle.to_archive()).expect("written");
    let script = "mkdir out && tar -xzf b.tar.gz -C out && cd out && \
        find . -type f | sed 's|^./||' | LC_ALL=C sort | xargs sha256sum | sha256sum";
    let ran = Command::new("sh").args(["-c", script]).current_dir(out.path()).output();
    let ran = ran.expect("a shell");
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    let printed = String::from_utf8(ran.stdout).expect("text");
    assert_eq!(printed.split(' ').next(), Some(bundle.digest().hex().as_str()));
    assert_eq!(load(&out.path().join("out")).digest(), bundle.digest());
}

#[test]
fn a_signature_travels_along_and_is_no_part_of_the_digest() {
    let key = SigningKey::generate().expect("randomness");
    let keys = KeySet::new([key.verifying_key().clone()]).expect("one key");
    let directory = directory(&small());
    let mut bundle = load(directory.path());
    let unsigned = bundle.digest();
    assert!(matches!(bundle.verify(&keys), Err(SignatureError::Missing)));
    let signature = bundle.sign(&key, None).expect("signs").to_owned();
    let archived = Bundle::from_archive("x", &bundle.to_archive()).expect("it reads back");
    write(directory.path(), "bundle.sig", format!("{signature}\n").as_bytes());
    for bundle in [bundle, archived, load(directory.path())] {
        assert_eq!(bundle.digest(), unsigned);
        assert_eq!(bundle.signature(), Some(signature.as_str()));
        assert!(bundle.files().all(|(path, _)| path != "bundle.sig"));
        let (claims, kid) = bundle.verify(&keys).expect("it verifies");
        assert_eq!((claims.digest, &kid), (unsigned, key.id()));
    }
    // Every change of a file is a change of what was signed.
    write(directory.path(), "a/b/c.txt", b"hellO");
    let changed = load(directory.path());
    assert!(matches!(changed.verify(&keys), Err(SignatureError::Digest { .. })));
    write(directory.path(), "bundle.sig", &[b'a'; 5_000]);
    let error = Bundle::load(directory.path()).expect_err("too long").to_string();
    assert!(error.starts_with("bundle.sig: has more than 4097 bytes"), "{error}");
    write(directory.path(), "bundle.sig", b"\xff");
    let error = Bundle::load(directory.path()).expect_err("no text").to_string();
    assert!(error.starts_with("bundle.sig:1: is not UTF-8"), "{error}");
}

#[test]
fn what_nobody_signed_is_not_parsed() {
    let key = SigningKey::generate().expect("randomness");
    let keys = KeySet::new([key.verifying_key().clone()]).expect("one key");
    let directory = directory(&small());
    let error = |directory: &TempDir| match Bundle::load_verified(directory.path(), &keys) {
        Err(LoadError::Signature(error)) => error,
        other => panic!("not refused for its signature: {other:?}"),
    };
    assert!(matches!(error(&directory), SignatureError::Missing));
    let mut bundle = load(directory.path());
    let signature = bundle.sign(&key, None).expect("signs").to_owned();
    write(directory.path(), "bundle.sig", signature.as_bytes());
    let verified = Bundle::load_verified(directory.path(), &keys).expect("it is signed");
    assert_eq!(verified.digest(), bundle.digest());
    let archive = directory.path().with_extension("signed");
    fs::write(&archive, bundle.to_archive()).expect("written");
    let verified = Bundle::load_verified(&archive, &keys).expect("so is the archive");
    fs::remove_file(&archive).expect("removed");
    assert_eq!(verified.digest(), bundle.digest());
    // Another key, then a manifest that does not even parse: the signature is what is told.
    let other = SigningKey::generate().expect("randomness");
    let by_other = bundle.sign(&other, None).expect("signs").to_owned();
    write(directory.path(), "bundle.sig", by_other.as_bytes());
    write(directory.path(), "bundle.yaml", b"revision: [");
    assert!(matches!(error(&directory), SignatureError::UnknownKey { .. }));
    write(directory.path(), "bundle.sig", signature.as_bytes());
    assert!(matches!(error(&directory), SignatureError::Digest { .. }));
    // What is signed is parsed: digest and key are good, and the manifest is not.
    let listed = ["a/b/c.txt", "bundle.yaml", "p.rego"].map(|path| {
        let bytes = fs::read(directory.path().join(path)).expect("there");
        format!("{}  {path}\n", Digest::of(&bytes).hex())
    });
    let digest = Digest::of(listed.concat().as_bytes());
    let claims = BundleClaims { digest, iat: None, revision: "1".to_owned() };
    let signature = sign_bundle(&key, &claims).expect("signs");
    write(directory.path(), "bundle.sig", signature.as_bytes());
    let invalid = Bundle::load_verified(directory.path(), &keys).expect_err("no manifest");
    assert!(invalid.to_string().starts_with("bundle.yaml:"), "{invalid}");
    // The same digest under another revision.
    write(directory.path(), "bundle.yaml", MANIFEST.as_bytes());
    let claims = BundleClaims { digest: bundle.digest(), iat: None, revision: "2".to_owned() };
    let signature = sign_bundle(&key, &claims).expect("signs");
    write(directory.path(), "bundle.sig", signature.as_bytes());
    assert!(matches!(error(&directory), SignatureError::Revision { .. }));
}

#[cfg(unix)]
#[test]
fn a_pipe_is_refused_and_not_waited_for() {
    let directory = directory(&small());
    let pipe = directory.path().join("a/pipe");
    let made = Command::new("mkfifo").arg(&pipe).status().expect("mkfifo");
    assert!(made.success());
    for (path, expected) in [
        (directory.path(), "a/pipe: is not a regular file"),
        (&pipe, "is neither a directory nor an archive"),
    ] {
        let error = Bundle::load(path).expect_err("a pipe").to_string();
        assert!(error.contains(expected), "{error}");
    }
    let error = Facts::load(&pipe).expect_err("a pipe").to_string();
    assert!(error.contains("is not a regular file\nhint: "), "{error}");
}

#[test]
fn what_is_no_archive_is_refused() {
    let directory = directory(&[("bundle.yaml", MANIFEST.as_bytes())]);
    let manifest = directory.path().join("bundle.yaml");
    let error = Bundle::load(&manifest).expect_err("a manifest alone").to_string();
    assert!(error.contains("is neither a directory nor an archive"), "{error}");
    assert!(refusal(b"").contains("is not compressed by gzip"));
    assert!(refusal(&tar_with(&[])).contains("is not compressed by gzip"));
    assert!(refusal(b"\x1f\x8b").contains("is cut short"));
    assert!(refusal(b"\x1f\x8b\x07 no deflate").contains("x.tar.gz: is damaged"));
    assert!(refusal(&gzip(b"no tar at all")).contains("is cut short"));
    assert!(refusal(&gzip(&[b'x'; 2_048])).contains("not of the format ustar"));
    assert!(refusal(&gzip(&[0; 1_024])).contains("bundle.yaml: is missing in `x.tar.gz`"));
}

#[test]
fn a_cut_archive_is_refused_wherever_it_is_cut() {
    let whole = Bundle::from_archive("x", &gzip(&tar_with(&[]))).expect("it is whole").to_archive();
    for end in 0..whole.len() {
        refusal(&whole[..end]);
    }
    // The same of the tar file inside, compressed whole again.
    let tar = tar_with(&[]);
    for end in (0..tar.len() - 511).step_by(64) {
        let message = refusal(&gzip(&tar[..end]));
        assert!(message.contains("is cut short"), "{end}: {message}");
    }
}

#[test]
fn what_follows_the_end_is_refused() {
    let archive = gzip(&tar_with(&[]));
    let with = |rest: &[u8]| refusal(&[archive.as_slice(), rest].concat());
    assert!(with(b"x").contains("has something after the compressed bytes"));
    assert!(with(&archive).contains("has something after the compressed bytes"));
    let mut tar = tar_with(&[]);
    Entry::new("late.rego", b"late").write(&mut tar);
    assert!(refusal(&gzip(&tar)).contains("goes on after its end"));
    let mut tar = tar_with(&[]);
    tar.extend(vec![0; 64 << 20]);
    assert!(refusal(&gzip(&tar)).contains("goes on after its end"), "a bomb of zeros");
    let mut tar = tar_with(&[]);
    tar.resize(tar.len().next_multiple_of(10_240), 0);
    Bundle::from_archive("x", &gzip(&tar)).expect("tar fills up its last record");
}

#[test]
fn a_damaged_archive_is_refused() {
    let mut archive = Bundle::from_archive("x", &gzip(&tar_with(&[]))).expect("ok").to_archive();
    // Its last eight bytes are a checksum and the length (RFC 1952 section 2.3.1).
    let at = archive.len() - 8;
    archive[at] ^= 1;
    assert!(refusal(&archive).contains("is damaged"));
    let mut tar = tar_with(&[]);
    tar[100] ^= 1;
    assert!(refusal(&gzip(&tar)).contains("checksum does not hold"));
    let mut tar = tar_with(&[]);
    let at = 512 + MANIFEST.len();
    tar[at] = b'x';
    assert!(refusal(&gzip(&tar)).contains("bytes that belong to no file"));
}

#[test]
fn only_regular_files_are_taken() {
    for (flag, expected) in [
        (b'\0', "is not a regular file"),
        (b'1', "x: is a hard link"),
        (b'2', "x: is a symbolic link"),
        (b'3', "x: is a device"),
        (b'4', "x: is a device"),
        (b'5', "x: is an entry of a directory"),
        (b'6', "x: is a pipe"),
        (b'7', "is not a regular file"),
        (b'L', "is a long name of GNU tar"),
        (b'K', "is a long name of GNU tar"),
        (b'S', "is a sparse file"),
        (b'x', "is an extended header (pax)"),
        (b'g', "is an extended header (pax)"),
        (b'V', "is not a regular file"),
    ] {
        let entry = Entry::new("x", b"").with(|header| header.as_old_mut().linkflag = [flag]);
        refused_with(&[entry], expected);
    }
    let link = Entry::new("x", b"").with(|header| header.as_old_mut().linkname[0] = b'y');
    refused_with(&[link], "x: is a file with the target of a link");
    let gnu = Entry::new("x", b"").with(|header| {
        header.as_mut_bytes()[257..265].copy_from_slice(b"ustar  \0");
    });
    refused_with(&[gnu], "not of the format ustar");
}

#[test]
fn paths_that_lead_astray_are_refused() {
    for (path, expected) in [
        ("/etc/passwd", "has an absolute path"),
        ("../x", "`.` or `..`"),
        ("a/../../x", "`.` or `..`"),
        ("./x", "`.` or `..`"),
        ("a//x", "has an empty segment"),
        ("a/", "has an empty segment"),
        ("", "has an empty segment"),
        ("a\\x", "a backslash in its path"),
        ("a\nx", "a\\nx: has a control character"),
        ("a\u{7f}x", "has a control character"),
        ("a/b/c/d/e/f/g/h/i/j/k/l/m/n/o/p/q/r", "is deeper than 16 directories"),
        ("bundle.sig/x", "lies under `bundle.sig`"),
        ("p.rego", "p.rego: is there twice"),
        ("p.rego/x", "lies under `p.rego`, which is a file"),
    ] {
        refused_with(&[Entry::new(path, b"x")], expected);
    }
    refused_with(
        &[Entry::new("bundle.sig", b"a.b.c"), Entry::new("bundle.sig", b"a.b.c")],
        "bundle.sig: is there twice",
    );
    let not_utf8 = Entry::new("x", b"").with(|header| header.as_old_mut().name[0] = 0xff);
    refused_with(&[not_utf8], "a file whose path is not plain UTF-8");
    let hidden = Entry::new("x", b"").with(|header| header.as_old_mut().name[5] = b'y');
    refused_with(&[hidden], "a file whose path is not plain UTF-8");
    let control = "\u{1b}[2J".repeat(8);
    let message = refusal(&gzip(&tar_with(&[Entry::new(&control, b"")])));
    assert!(!message.contains('\u{1b}'), "{message:?}");
}

#[test]
fn long_paths_are_split_as_ustar_does_and_no_longer_ones_are_taken() {
    let segment = "s".repeat(90);
    let path = format!("{segment}/{}/{}", "t".repeat(60), "u".repeat(100));
    let mut files = small().to_vec();
    files.push((&path, b"deep"));
    let bundle = load(directory(&files).path());
    let again = Bundle::from_archive("x", &bundle.to_archive()).expect("it reads back");
    assert_eq!(contents(&again), contents(&bundle));
    for path in ["v".repeat(101), format!("{segment}/{segment}/{segment}"), "a/".repeat(200)] {
        let directory = directory(&small());
        // A path that is too long for the system is none that a directory can have.
        let parent = Path::new(&path).parent().expect("a parent");
        fs::create_dir_all(directory.path().join(parent)).expect("made");
        fs::write(directory.path().join(&path), b"x").unwrap_or_default();
        let error = Bundle::load(directory.path()).expect_err(&path).to_string();
        assert!(error.contains("path") || error.contains("deeper"), "{error}");
    }
}

#[test]
fn bounds_on_sizes_and_counts_hold_before_anything_is_believed() {
    // The header says more than is there, or more than is allowed; nothing is reserved for it.
    let large = Entry::new("x", b"").with(|header| header.set_size(32 << 20));
    assert!(refusal(&gzip(&tar_with(&[large]))).contains("is cut short in `x`"));
    for size in [(32 << 20) + 1, u64::MAX >> 1] {
        let larger = Entry::new("x", b"").with(|header| header.set_size(size));
        refused_with(&[larger], "x: has a size that is not 0 to 33554432 bytes");
    }
    let nonsense = Entry::new("x", b"").with(|header| header.as_old_mut().size = *b"00000000-01\0");
    refused_with(&[nonsense], "x: has a size that is not");
    let signature = Entry::new("bundle.sig", &[b'a'; 4_098]);
    refused_with(&[signature], "bundle.sig: has 4098 bytes, at most 4097 are allowed");
    let mut tar = Vec::new();
    for at in 0..4_097 {
        Entry::new(&format!("f{at}"), b"").write(&mut tar);
    }
    tar.extend([0; 1_024]);
    assert!(refusal(&gzip(&tar)).contains("f4096: the bundle has more than 4096 files"));
}

#[test]
fn a_bomb_is_refused_after_what_a_bundle_may_have() {
    // Nine files of 32 MiB each: a few hundred kilobytes that become 288 MiB.
    let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
    let zeros = vec![0; 32 << 20];
    for at in 0..9 {
        let header = Entry::new(&format!("f{at}"), b"").with(|header| header.set_size(32 << 20));
        gzip.write_all(header.header.as_bytes()).expect("written");
        gzip.write_all(&zeros).expect("written");
    }
    let bomb = gzip.finish().expect("finished");
    assert!(bomb.len() < 4 << 20);
    let message = refusal(&bomb);
    assert!(message.contains("f8: the bundle has more than"), "{message}");
}

#[test]
fn one_flipped_byte_never_brings_the_reader_down_nor_passes_unseen() {
    let directory = directory(&small());
    let bundle = load(directory.path());
    let archive = bundle.to_archive();
    for at in 0..archive.len() {
        let mut damaged = archive.clone();
        damaged[at] ^= 0x11;
        // Bytes of the gzip header that say nothing of the content may differ.
        if let Ok(read) = Bundle::from_archive("x", &damaged) {
            assert_eq!(read.digest(), bundle.digest(), "byte {at}");
            assert!(at < 10, "byte {at}");
        }
    }
}

fn path() -> impl Strategy<Value = String> {
    let segment = "[a-zA-Z0-9._ -]{1,40}|\u{e4}[a-z]{0,9}";
    let plain = |path: &String| path.split('/').all(|it| it != "." && it != "..");
    let path = proptest::collection::vec(segment, 1..5).prop_map(|segments| segments.join("/"));
    path.prop_filter("no detours", plain)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn any_directory_survives_its_archive(
        files in proptest::collection::btree_map(
            path(), proptest::collection::vec(any::<u8>(), 0..2_000), 0..12,
        ),
    ) {
        let directory = directory(&small());
        for (path, content) in &files {
            let path = directory.path().join(path);
            // Where one path lies under another file the system itself refuses.
            if fs::create_dir_all(path.parent().expect("a parent")).is_ok() && !path.exists() {
                fs::write(path, content).expect("written");
            }
        }
        let bundle = load(directory.path());
        let archive = bundle.to_archive();
        let again = Bundle::from_archive("x", &archive).expect("it reads back");
        prop_assert_eq!(again.digest(), bundle.digest());
        prop_assert_eq!(contents(&again), contents(&bundle));
        prop_assert_eq!(again.to_archive(), archive);
        let text: String = contents(&bundle)
            .iter()
            .map(|(path, bytes)| format!("{}  {path}\n", Digest::of(bytes).hex()))
            .collect();
        prop_assert_eq!(bundle.digest(), Digest::of(text.as_bytes()));
    }

    #[test]
    fn any_bytes_are_refused_or_read_and_never_more(bytes: Vec<u8>) {
        refusal(&gzip(&bytes));
        refusal(&[&[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255], bytes.as_slice()].concat());
    }
}
