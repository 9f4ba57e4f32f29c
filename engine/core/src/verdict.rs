//! One policy's answer, and the rule that combines many into one.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{AccountPath, Claim, Code, Id, PriorityClass, Waived};

/// What one policy says (XACML 3.0 §7.3.5's four values).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Verdict {
    /// It applies and denies nothing.
    Permit,
    /// It denies, with reasons.
    Deny,
    /// It has no opinion on this request.
    NotApplicable,
    /// It could not decide: an error, a spent budget, a trap, an unreadable answer.
    Indeterminate,
}

/// The final word on a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Effect {
    /// Admitted.
    Permit,
    /// Refused.
    Deny,
}

/// Whether a policy's denial can be lifted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// Never.
    Mandatory,
    /// By a signed, expiring waiver.
    Overridable,
    /// It only warns.
    Advisory,
}

/// Whether a policy's verdict counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// It counts.
    Enforce,
    /// Evaluated and logged, without effect.
    Shadow,
}

/// What the ledger would have admitted instead, the rest of the request being the same, as things
/// stood when it refused. Policies are not asked again for it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Counterfactual {
    /// The account that has no room: the one charged, or one above it in its tree.
    pub account: AccountPath,
    /// Longest duration in seconds; absent if not even one second.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub duration_seconds: Option<u64>,
    /// Most GPUs; absent if not even one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub gpu_count: Option<u32>,
    /// Earliest start, in seconds since 1970-01-01 UTC; absent if none is in sight.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub start: Option<u64>,
}

/// Why a request is refused.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reason {
    /// Stable code.
    pub code: Code,
    /// What would have been admitted; only where the ledger refuses.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub counterfactual: Option<Counterfactual>,
    /// Path of the offending input field, such as `lease.isolation_level`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub field: Option<String>,
    /// What would help.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub hint: Option<String>,
    /// For a person to read.
    pub message: String,
    /// Policy that denies, or `placet` for the engine's own reasons (resolve, combine, ledger).
    pub policy: Id,
    /// Whether the same request may be admitted later.
    pub retry: bool,
}

/// Something that a person should know, though the request may pass.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Warning {
    /// Stable code.
    pub code: Code,
    /// For a person to read.
    pub message: String,
    /// Policy that warns.
    pub policy: Id,
}

/// What the PEP must do, or refuse (XACML 3.0 §7.18).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Obligation {
    /// Which duty, such as `network.partition`.
    pub id: Id,
    /// Its parameters.
    pub params: BTreeMap<String, String>,
}

/// Whom a request may displace; by default nobody. Recorded in the decision. Fields that are left
/// out of signed bytes at their default came later: what was signed without them stays what it is.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PreemptionRule {
    /// Seconds, 0..=31,622,400: a tenant that lost work by an eviction that took effect less than
    /// so long before the next one would is spared. 0, the default, spares nobody.
    #[serde(skip_serializing_if = "is_zero", default)]
    pub cool_down_seconds: u32,
    /// Seconds that a victim keeps running after its eviction order.
    pub grace_seconds: u32,
    /// Most victims of one request.
    pub max_victims: u32,
    /// Most victims of one tenant, 1..=1,000; no bound of its own by default.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub max_victims_per_tenant: Option<u32>,
    /// Seconds that a victim must have had before it may be displaced.
    pub min_runtime_seconds: u32,
    /// Tenants that nobody may displace, in their order, each once; at most 256. None by default.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub protected_tenants: Vec<Id>,
    /// Classes that may be displaced.
    pub victim_classes: Vec<PriorityClass>,
}

/// What a request, once admitted, is promised should it be displaced, beyond what the preemptor's
/// rule says. Recorded in the decision and held with the reservation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SlaTerms {
    /// Seconds that it has had when it has to be gone, 0..=31,622,400.
    pub min_runtime_seconds: u32,
    /// Seconds between the eviction order and the second at which it has to be gone,
    /// 0..=31,622,400.
    pub notice_seconds: u32,
}

impl SlaTerms {
    /// Of two promises the better one, number by number: whoever was given both is held to both.
    #[must_use]
    pub fn stricter(self, other: Self) -> Self {
        Self {
            min_runtime_seconds: self.min_runtime_seconds.max(other.min_runtime_seconds),
            notice_seconds: self.notice_seconds.max(other.notice_seconds),
        }
    }

    /// The same of promises that may be absent: absent only if both are.
    #[must_use]
    pub fn strictest(promises: impl IntoIterator<Item = Option<Self>>) -> Option<Self> {
        promises.into_iter().flatten().reduce(Self::stricter)
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// What an evaluation used of its deterministic budget. Same bundle and input, same cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cost {
    /// Fuel of a Wasm guest; 0 for Rego.
    pub fuel: u64,
    /// Ticks of the Rego interpreter; 0 for Wasm.
    pub ticks: u64,
}

/// One policy's answer to one input.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PolicyVerdict {
    /// Quota to take if admitted, in account order.
    pub claims: Vec<Claim>,
    /// What it cost.
    pub cost: Cost,
    /// What went wrong, if the verdict is `Indeterminate`: one line.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub error: Option<String>,
    /// Whether its denial can be lifted.
    pub level: Level,
    /// Whether it counts.
    pub mode: Mode,
    /// Duties, sorted.
    pub obligations: Vec<Obligation>,
    /// Name of the policy.
    pub policy: Id,
    /// Whom the request may displace.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub preemption: Option<PreemptionRule>,
    /// Its denials, sorted; not empty exactly if the verdict is `Deny`.
    pub reasons: Vec<Reason>,
    /// What the request is promised should it be displaced.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub terms: Option<SlaTerms>,
    /// The verdict.
    pub verdict: Verdict,
    /// Its warnings, sorted.
    pub warnings: Vec<Warning>,
}

impl PolicyVerdict {
    /// Whether the verdict has a say in the effect.
    #[must_use]
    pub fn counts(&self) -> bool {
        self.mode == Mode::Enforce && self.level != Level::Advisory
    }
}

/// A claim that stands after combining, and who made it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PolicyClaim {
    /// What to take.
    pub claim: Claim,
    /// The policy whose limit stands: the one to name if the ledger refuses.
    pub policy: Id,
}

/// Many verdicts combined.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Outcome {
    /// Quota to take, one claim an account, in account order; empty unless permitted.
    pub claims: Vec<PolicyClaim>,
    /// Before the ledger has its say.
    pub effect: Effect,
    /// Duties of the PEP; empty unless permitted.
    pub obligations: Vec<Obligation>,
    /// Whom the request may displace; absent unless permitted.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub preemption: Option<PreemptionRule>,
    /// Every denial; empty exactly if permitted.
    pub reasons: Vec<Reason>,
    /// What the request is promised should it be displaced, the best of all promises; absent unless
    /// permitted.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub terms: Option<SlaTerms>,
    /// The denials that waivers lifted, sorted; left out if none: always where it denies.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub waived: Vec<Waived>,
    /// What a person should know.
    pub warnings: Vec<Warning>,
}
