//! What must hold of any bytes at all: one ordinary function for each fuzz target.
//!
//! Each returns if all is well and panics if it is not. None of them only asks for "no crash": what
//! is accepted must say the same again, what is evaluated must give the same bytes again and keep
//! every bound, and all of it within a bound of work.

mod answer;
mod archive;
mod component;
mod evaluation;
mod facts;
mod receipt;
mod rego;
mod request;
mod token;
mod work;
mod world;

pub use answer::answer;
pub use archive::archive;
pub use component::component;
pub use facts::facts;
pub use receipt::{proved, receipt};
pub use rego::rego;
pub use request::{request_json, request_wire};
pub use token::{sample, token};
pub use work::accepted;
pub(crate) use world::TIME;

/// A target: what its binary, corpus and regressions are called, and its body.
pub type Target = (&'static str, fn(&[u8]));

/// Every target, by name.
pub const TARGETS: [Target; 9] = [
    ("answer", answer),
    ("archive", archive),
    ("component", component),
    ("facts", facts),
    ("receipt", receipt),
    ("rego", rego),
    ("request_json", request_json),
    ("request_wire", request_wire),
    ("token", token),
];
