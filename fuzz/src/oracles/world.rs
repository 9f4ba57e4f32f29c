//! The little world in which policies are asked: facts, one input, one engine.

use std::sync::LazyLock;

use placet_core::AdmissionRequest;
use placet_policy::{Bundle, Facts, Input, LoadError, WasmRuntime, resolve};
use placet_server::convert;

use crate::tar::{compressed, entry, tar};

/// When everything happens: 2026-11-22T01:20:00Z.
pub(crate) const TIME: u64 = 1_795_310_400;

/// Each engine reserves address space, so there is one.
pub(super) static RUNTIME: LazyLock<WasmRuntime> =
    LazyLock::new(|| WasmRuntime::new().expect("the engine starts"));

static REQUEST: LazyLock<AdmissionRequest> = LazyLock::new(|| {
    let text = include_str!("../../../policies/requests/lease-permitted.json");
    convert::parse_admit(text).expect("the example is a request")
});

static INPUT: LazyLock<Input> = LazyLock::new(|| {
    let facts = include_bytes!("../../../policies/reference/facts.yaml");
    let facts = Facts::from_bytes("facts.yaml", facts).expect("the shipped facts are facts");
    let resolved = resolve(&facts, &REQUEST, TIME, &[7; 32]);
    resolved.expect("the facts know all that the example names").0
});

/// A request for one GPU model.
pub(super) fn request() -> AdmissionRequest {
    REQUEST.clone()
}

/// The same, resolved.
pub(super) fn input() -> Input {
    INPUT.clone()
}

/// A bundle with one policy and its budget.
pub(super) fn bundle(file: &str, bytes: &[u8], budget: &str) -> Result<Bundle, LoadError> {
    let params = "{limit: 8, regions: [DE, NL], table: {a: [1, 2, {b: c}]}}";
    let manifest = format!(
        "schema: placet.bundle/v1\nrevision: \"1\"\n\
         policies: [{{name: fuzz, source: {file}, params: {params}, budget: {budget}}}]\n"
    );
    let files = [entry("bundle.yaml", b'0', manifest.as_bytes()), entry(file, b'0', bytes)];
    Bundle::from_archive("bundle.tar.gz", &compressed(&tar(&files)))
}

/// A refusal tells something, and repeats no more than a page of what it refuses.
pub(super) fn check_refusal(error: &LoadError) {
    assert!(matches!(error, LoadError::Invalid(_)), "there is nothing here to fail: {error}");
    let text = error.to_string();
    assert!(!text.is_empty() && text.len() <= 4_096, "{} bytes: {text}", text.len());
}
