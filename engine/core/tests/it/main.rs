//! Everything that tests this crate from outside, linked once.

mod bundle_signature;
mod checkpoint;
mod cosignature;
mod eviction;
mod merkle;
mod python;
mod receipt;
mod sample;
mod tampering;
mod tidy;
mod tile;
mod token;
mod vectors;
