//! Quota accounts and the amounts claimed on them. Integers only; the unit is part of the account.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{AccountPath, Code};

/// Largest amount or limit: 2^53 - 1, the largest integer that every JSON reader keeps exact (RFC
/// 8785 §3.2.2.3).
pub const MAX_AMOUNT: u64 = (1 << 53) - 1;

/// How use of an account behaves over time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AccountKind {
    /// Held over an interval and free again after it: GPUs, bandwidth.
    Level,
    /// Used up within a window, outliving the reservation; early release refunds: GPU-seconds.
    Budget,
}

/// What an account counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Unit {
    /// Thousandths of a GPU.
    MilliGpu,
    /// One GPU for one second.
    GpuSecond,
    /// Gbit/s.
    Gbps,
    /// Bytes.
    Byte,
    /// Things.
    Count,
}

/// What one policy wants taken if the request is admitted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Claim {
    /// On which account.
    pub account: AccountPath,
    /// How much, in the account's unit: 1..=2^53-1.
    pub amount: u64,
    /// Code of the denial if it is refused; `QUOTA_EXCEEDED` if absent.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub code: Option<Code>,
    /// Refuse if use would pass this; it can only tighten the account's own limit. 0..=2^53-1.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub limit: Option<u64>,
}

/// A claim with everything the ledger's rules need, as it stands in the decision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Charge {
    /// On which account.
    pub account: AccountPath,
    /// How much, in `unit`: 1..=2^53-1.
    pub amount: u64,
    /// How the account behaves over time.
    pub kind: AccountKind,
    /// The limit that was held against: the lowest of the account's own and the claims'.
    pub limit: u64,
    /// What the account counts.
    pub unit: Unit,
}
