//! What a policy written in Rust for Wasm links: the contract's types, ways to build an answer, and
//! one macro.
//!
//! A policy is a function from an [`Input`] and its parameters to an [`Answer`]. It has no clock,
//! no randomness and no I/O: time is `input.time`, in seconds since 1970-01-01 UTC. Whatever it
//! needs stands in the input.
//!
//! The types are generated from `proto/wit/policy.wit`; their fields, units and ranges are
//! documented there and in `placet/policy/v1/input.proto`. Ordered enums ([`IsolationLevel`],
//! [`Classification`]) compare as the chains that they are.
//!
//! # Example
//! ```
//! use placet_guest::{Answer, Decided, Denial, Input};
//!
//! fn evaluate(input: Input, _params: &str) -> Answer {
//!     let Some((kind, workload)) = input.subject() else {
//!         return Answer::failed("the input has neither a lease nor a job");
//!     };
//!     let mut decided = Decided::permit();
//!     if workload.isolation_level < input.tenant.min_isolation {
//!         let least = input.tenant.min_isolation.name();
//!         decided.deny(
//!             Denial::new("ISOLATION_BELOW_CONTRACT", format!("the contract promises {least}"))
//!                 .field(format!("{kind}.isolation_level"))
//!                 .hint(format!("ask for {least} or above")),
//!         );
//!     }
//!     decided.into()
//! }
//!
//! placet_guest::policy!(evaluate);
//! ```
//!
//! The crate that holds it has `crate-type = ["cdylib"]`; `placet build DIR` makes the component.
//! Because the types are ordinary Rust, unit tests of a policy run with plain `cargo test`.
//!
//! # Traps
//! A policy that panics, spends its fuel or returns a text over the contract's bounds is
//! Indeterminate, and an Indeterminate policy denies. There is no way to permit by failing.

#[doc(hidden)]
pub mod bindings {
    //! Generated from the WIT world.

    wit_bindgen::generate!({
        world: "policy",
        path: "../proto/wit",
        pub_export_macro: true,
        export_macro_name: "export_policy",
        default_bindings_module: "placet_guest::bindings",
        additional_derives: [PartialEq, Eq],
        generate_all,
    });
}

mod build;
mod names;

pub use bindings::placet::policy::types::{
    Answer, Attestation, Claim, Classification, Cluster, Dataset, Decided, Denial, FabricKind,
    GpuPool, Input, IsolationLevel, Licence, Model, ModelUse, Obligation, PartitionMode,
    PreemptionRule, Principal, PriorityClass, SlaTerms, Tenant, TenantKind, Warning, Workload,
};

/// Makes a function the policy of this component.
///
/// The function's shape is `fn(Input, &str) -> Answer`; its second argument is the policy's
/// parameters as one canonical JSON object. Written once, at the root of the crate.
///
/// # Example
/// ```
/// fn evaluate(_input: placet_guest::Input, _params: &str) -> placet_guest::Answer {
///     placet_guest::Answer::NotApplicable
/// }
/// placet_guest::policy!(evaluate);
/// ```
#[macro_export]
macro_rules! policy {
    ($evaluate:path) => {
        const _: () = {
            struct Policy;

            impl $crate::bindings::Guest for Policy {
                fn evaluate(input: $crate::Input, params: ::std::string::String) -> $crate::Answer {
                    let evaluate: fn($crate::Input, &str) -> $crate::Answer = $evaluate;
                    evaluate(input, &params)
                }
            }

            // A native build, such as a unit test, has no component to export from.
            #[cfg(target_arch = "wasm32")]
    $crate::bindings::export_policy!(Policy with_types_in $crate::bindings);
        };
    };
}
