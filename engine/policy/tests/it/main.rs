//! Placet's decision point from the outside: contracts, bundles on disk, the shipped policies and
//! their cases.
#![expect(clippy::panic, reason = "a test fails by panicking")]

mod again;
mod archive;
mod bundle;
mod contradictions;
mod coverage;
mod documents;
mod lint;
mod opa;
mod params;
mod reference;
mod request;
mod schema;
mod shipped;
mod twins;
mod variants;
mod waiver;
mod wasm;
