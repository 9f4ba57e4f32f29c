//! Placet's contracts: the gRPC services and messages, their JSON form, and the WIT world of Wasm
//! policies.
//!
//! Protobuf decoders drop what they do not know and quietly take the last of two values. For a
//! decision point both are ways to permit what was never asked, so [`StrictCodec`] refuses such
//! messages where requests are read.
//!
//! # Example
//! ```
//! use placet_proto::{admission::v1::StreamRequest, json};
//! let line = r#"{"release": {"request_id": "r-2", "reservation": {"epoch": "1"}}, "time": 7}"#;
//! let event: StreamRequest = json::from_json(line)?;
//! assert_eq!(event.time, Some(7));
//! assert_eq!(json::from_json::<StreamRequest>("{\"relase\": {}}").unwrap_err().field, "relase");
//! # Ok::<(), placet_proto::FieldError>(())
//! ```
#![forbid(unsafe_code)]

mod codec;
mod fault;
pub mod json;
mod strict;

use std::sync::LazyLock;

use prost_reflect::DescriptorPool;

pub use codec::{StrictCodec, StrictDecoder};
pub use fault::{ERROR_DOMAIN, FieldError};
pub use strict::decode_strict;

/// The published JSON Schemas (draft 2020-12) of the files that people write. Tests hold each equal
/// to the type that reads the file.
pub mod schema {
    /// Of those who may sign waivers and freezes.
    pub const APPROVERS: &str = include_str!("../schema/approvers.schema.json");
    /// Of `bundle.yaml`.
    pub const BUNDLE: &str = include_str!("../schema/bundle.schema.json");
    /// Of files of cases, `<directory>/cases/<name>.yaml` of a bundle.
    pub const CASES: &str = include_str!("../schema/cases.schema.json");
    /// Of facts.
    pub const FACTS: &str = include_str!("../schema/facts.schema.json");
}

/// The services, by package.
pub mod admission {
    /// `placet.admission.v1`: what a PEP asks and is answered. Documented in `admission.proto`.
    pub mod v1 {
        #![expect(
            missing_docs,
            clippy::allow_attributes,
            clippy::allow_attributes_without_reason,
            clippy::large_enum_variant,
            clippy::missing_errors_doc,
            reason = "generated code: held equal to the contract by a test"
        )]
        include!("generated/placet.admission.v1.rs");
    }
}

/// The decision log, for auditors.
pub mod audit {
    /// `placet.audit.v1`: for operators. Documented in `audit.proto`.
    pub mod v1 {
        #![expect(
            clippy::allow_attributes,
            clippy::allow_attributes_without_reason,
            clippy::missing_errors_doc,
            reason = "generated code: held equal to the contract by a test"
        )]
        include!("generated/placet.audit.v1.rs");
    }
}

/// What a server decides with, and how it is replaced.
pub mod control {
    /// `placet.control.v1`: for operators. Documented in `control.proto`.
    pub mod v1 {
        #![expect(
            missing_docs,
            clippy::allow_attributes,
            clippy::allow_attributes_without_reason,
            clippy::missing_errors_doc,
            reason = "generated code: held equal to the contract by a test"
        )]
        include!("generated/placet.control.v1.rs");
    }
}

/// What is held.
pub mod ledger {
    /// `placet.ledger.v1`: for operators. Documented in `ledger.proto`.
    pub mod v1 {
        #![expect(
            clippy::allow_attributes,
            clippy::allow_attributes_without_reason,
            clippy::missing_errors_doc,
            reason = "generated code: held equal to the contract by a test"
        )]
        include!("generated/placet.ledger.v1.rs");
    }
}

/// The contracts as one encoded `google.protobuf.FileDescriptorSet`, without comments.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!("generated/placet.bin");

/// The WIT package `placet:policy`, which Wasm policies implement.
pub const WIT: &str = include_str!("../wit/policy.wit");

#[cfg(test)]
mod samples;

static POOL: LazyLock<DescriptorPool> = LazyLock::new(|| {
    DescriptorPool::decode(FILE_DESCRIPTOR_SET)
        .expect("the checked-in descriptors were written by the compiler that a test runs again")
});
