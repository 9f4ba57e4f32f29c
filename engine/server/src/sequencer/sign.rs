//! Signing a batch: the only costly step between the rules and the disk, and one that threads can
//! share.

use std::num::NonZeroUsize;

use placet_core::{Decision, SignError};

use crate::signer::Signer;

/// Decisions for which a further thread pays: starting one costs as much as signing two or three.
const SHARE: usize = 16;

/// Signs in the order given, in so many threads at most, this one included. The first error of each
/// decision stands in its place.
pub(super) fn sign_all(
    signer: &Signer,
    decisions: &[&Decision],
    most: usize,
) -> Vec<Result<String, SignError>> {
    let keys = signer.keys();
    let sign = |part: &[&Decision]| -> Vec<_> {
        part.iter().map(|decision| keys.sign(decision)).collect()
    };
    let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let threads = cores.min(most).min(decisions.len().div_ceil(SHARE)).max(1);
    if threads == 1 {
        return sign(decisions);
    }
    let share = decisions.len().div_ceil(threads);
    std::thread::scope(|scope| {
        let mut parts = decisions.chunks(share);
        let own = parts.next().unwrap_or_default();
        let others: Vec<_> = parts.map(|part| scope.spawn(move || sign(part))).collect();
        let mut signed = sign(own);
        for other in others {
            signed.extend(other.join().expect("signing does not panic"));
        }
        signed
    })
}
