//! A text as the only policy of a bundle.

use placet_policy::PolicySet;

use super::work::{accept, bounded};
use super::{evaluation, world};

/// The text of a policy: refused with its reason, or evaluated to the same bytes in every run,
/// ticks included, within every bound of an answer and of work. What is Indeterminate never
/// permits.
///
/// # Panics
/// If the text shows a bug.
pub fn rego(bytes: &[u8]) {
    let bundle = world::bundle("p.rego", bytes, "{ticks: 20000}").expect("the manifest is right");
    match bounded("compiling", || PolicySet::compile(&bundle, &world::RUNTIME)) {
        Err(error) => world::check_refusal(&error),
        Ok(set) => {
            accept();
            bounded("evaluating", || evaluation::thrice(set, &world::input()));
        }
    }
}
