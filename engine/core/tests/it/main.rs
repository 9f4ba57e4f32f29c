//! Everything that tests this crate from outside, linked once.

mod approval;
#[expect(dead_code, reason = "its `main` is that of the example")]
#[path = "../../examples/auditor.rs"]
mod auditor;
mod bundle_signature;
mod checkpoint;
mod cosignature;
mod drawings;
mod eviction;
mod examples;
mod log_check;
mod merkle;
#[expect(dead_code, reason = "its `main` is that of the example")]
#[path = "../../examples/provisioner.rs"]
mod provisioner;
mod python;
mod receipt;
mod sample;
mod tampering;
mod tidy;
mod tile;
mod token;
mod vectors;
