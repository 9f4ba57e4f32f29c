//! Generators make inputs; oracles decide whether what came of one shows a bug.
//!
//! Each oracle is an ordinary function of bytes: it returns if all is well and panics if it is not,
//! so that a test on the stable toolchain and a fuzzer can both call it.

pub mod generators;
mod guest;
pub mod oracles;
mod seeds;
pub mod sim;
mod tar;

pub use seeds::{generator, seeds};
