//! Placet's decision point: a bundle of policies and an input give an evaluation, and nothing else
//! has a say in it.
//!
//! [`Bundle::load`] reads a directory or an archive, [`PolicySet::compile`] makes it ready,
//! [`resolve`] turns a request and the [`Facts`] into one self-contained [`Input`], and an
//! [`Evaluator`], one for each thread, asks every policy that selects it, in Rego or as a
//! WebAssembly component, and combines their verdicts. Deciding is pure: no clock, no I/O, no
//! randomness; the same bytes in give the same bytes out, the cost included.
//!
//! A policy that fails, spends its budget or cannot be understood is `INDETERMINATE`, and denies.
#![deny(clippy::indexing_slicing, clippy::wildcard_enum_match_arm)]

mod answer;
mod approvers;
pub mod bundle;
mod cases;
pub mod catalogue;
pub mod coverage;
mod document;
mod error;
mod evaluate;
mod facts;
mod index;
pub mod input;
mod jurisdiction;
pub mod lint;
mod metadata;
/// OPA's conformance cases and OPA's `test_` rules, on the interpreter of policies.
pub mod opa {
    pub use crate::rego::opa::{
        OpaReport, RuleTestReport, TestOutcome, opa_case_files, record_rule_tests, run_opa_file,
        run_rule_tests,
    };
}
mod rego;
mod resolve;
mod value;
pub mod waiver;
mod wasm;

pub use approvers::{Approvers, FreezeGrant};
pub use bundle::Bundle;
pub use cases::{CaseReport, CaseRunner};
pub use error::{EvaluateError, Fault, LoadError};
pub use evaluate::{Candidate, Evaluation, Evaluator, PolicySet};
pub use facts::{AccountLimit, Facts, Validity};
pub use input::Input;
pub use metadata::{Metadata, PolicyMetadata, RuleMetadata};
pub use resolve::{Commitment, resolve};
pub use waiver::Waiver;
pub use wasm::{CacheActivity, WasmRuntime, check_component};
