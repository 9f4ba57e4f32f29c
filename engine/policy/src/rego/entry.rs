//! What of a policy is evaluated: the rules of the contract, and what they lead to.
//!
//! One rule of the engine's own reads each of them, in one evaluation, so that what several need is
//! worked out once. A rule that nothing of the contract leads to is not evaluated, as in OPA.

use regorus::Engine;
use regorus::unstable::{Module, Ref, Rule};

use super::check::Declared;
use super::path_of;

/// The engine's own rule.
const ANSWER: &str = "__answer";

/// The engine's own rule, in a module beside the policy's.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) module: Ref<Module>,
    pub(super) rule: Ref<Rule>,
}

type Error = Box<dyn std::error::Error + Send + Sync>;

/// Adds the rule to an interpreter that has the policy.
pub(super) fn add(
    engine: &mut Engine,
    package: &[String],
    declared: &Declared,
) -> Result<Entry, Error> {
    // A comprehension has a value whether or not the rule has one.
    let read: Vec<String> = declared.rules().map(|rule| format!("[1 | {rule}]")).collect();
    let text = format!("package {}\n\n{ANSWER} := [{}]\n", path_of(package), read.join(", "));
    engine.add_policy(ANSWER.to_owned(), text)?;
    let module = engine.get_modules().last().expect("the module was just added").clone();
    let rule = module.policy.first().expect("it has one rule").clone();
    Ok(Entry { module, rule })
}
