//! Bytes as the archive of a bundle.

use placet_policy::Bundle;

use super::work::{accept, bounded};
use super::world;
use crate::tar::{compressed, with_checksums};

/// First bytes of a gzip file (RFC 1952 §2.3.1).
const GZIP: [u8; 2] = [0x1f, 0x8b];
/// An archive: refused with a reason, or a bundle that is written and read again with the same
/// digest, and then written to the same bytes. What is not compressed is also tried as a tar
/// archive, with its checksums put right and compressed, so that chance need not find either.
///
/// # Panics
/// If the bytes show a bug.
pub fn archive(bytes: &[u8]) {
    check(bytes);
    if !bytes.starts_with(&GZIP) {
        check(&compressed(&with_checksums(bytes.to_vec())));
    }
}

fn check(bytes: &[u8]) {
    match bounded("reading", || Bundle::from_archive("bundle.tar.gz", bytes)) {
        Err(error) => world::check_refusal(&error),
        Ok(bundle) => {
            accept();
            let written = bundle.to_archive();
            let again = Bundle::from_archive("again.tar.gz", &written);
            let again = again.expect("what we wrote can be read");
            assert_eq!(again.digest(), bundle.digest(), "it was written as another bundle");
            assert_eq!(again.revision(), bundle.revision());
            assert_eq!(again.signature(), bundle.signature());
            assert!(again.files().eq(bundle.files()), "it was written with other files");
            assert_eq!(again.to_archive(), written, "it is written differently a second time");
        }
    }
}
