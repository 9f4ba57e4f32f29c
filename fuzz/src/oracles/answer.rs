//! Bytes as the memory of a guest that the host reads an answer from.

use std::cell::RefCell;
use std::sync::{Arc, LazyLock};

use placet_core::{Verdict, canonical_json};
use placet_policy::{Evaluator, PolicySet};

use super::work::{accept, bounded};
use super::{evaluation, world};
use crate::guest;

/// Most bytes that are given to the guest: a quarter of its first page.
const MAX_BYTES: usize = 16 << 10;
/// The guest takes the longest text of its input for the bytes, so it must be longer than any name.
const MIN_BYTES: usize = 512;

static SET: LazyLock<Arc<PolicySet>> = LazyLock::new(|| {
    let bytes = guest::component_of(&guest::module_of(guest::ECHO));
    let bundle = world::bundle("p.wasm", &bytes, "{fuel: 5000000, memory_bytes: 1048576}");
    let bundle = bundle.expect("the manifest is right");
    Arc::new(PolicySet::compile(&bundle, &world::RUNTIME).expect("the guest is a policy"))
});

thread_local! {
    static EVALUATOR: RefCell<Evaluator> = RefCell::new(Evaluator::new(Arc::clone(&SET)));
}

/// The guest writes the bytes into its memory, from address 1,020 on, and returns the first
/// four of them as the address of its answer: the host must read anything at all as an answer
/// within every bound, or call it Indeterminate, and do so again.
///
/// # Panics
/// If the bytes show a bug.
pub fn answer(bytes: &[u8]) {
    let mut input = world::input();
    let principal = input.principal.get_or_insert_with(|| placet_policy::input::Principal {
        groups: Vec::new(),
        issuer: String::new(),
        subject_commitment: String::new(),
    });
    principal.issuer = letters(bytes.get(..MAX_BYTES).unwrap_or(bytes));
    EVALUATOR.with_borrow_mut(|evaluator| {
        let mut evaluate = || bounded("evaluating", || evaluator.evaluate(&input));
        let (Ok(first), Ok(second)) = (evaluate(), evaluate()) else { return };
        evaluation::check(&first);
        let verdicts = || first.candidates.iter().flat_map(|candidate| &candidate.verdicts);
        if verdicts().all(|one| one.verdict != Verdict::Indeterminate) {
            accept();
        }
        let bytes = |one| canonical_json(one).expect("an evaluation has a canonical form");
        assert_eq!(bytes(&first), bytes(&second), "the second evaluation says something else");
    });
}

/// Two letters, from `a` to `p`, for each byte.
fn letters(bytes: &[u8]) -> String {
    let padding = MIN_BYTES.saturating_sub(bytes.len());
    let bytes = bytes.iter().copied().chain(std::iter::repeat_n(0, padding));
    bytes.flat_map(|byte| [byte >> 4, byte & 15]).map(|half| char::from(b'a' + half)).collect()
}
