//! Inputs near the edges: mostly right, with values at and around every bound.

mod answer;
mod archive;
mod damage;
mod receipt;
mod rego;
mod request;
mod text;
mod wasm;

pub use answer::answer;
pub use archive::archive;
pub(crate) use archive::plain;
pub use damage::{damaged, spoiled};
pub use receipt::receipt;
pub use rego::rego;
pub use request::{admit_request, request_wire};
pub use text::{facts, request_json, token};
pub use wasm::component;
