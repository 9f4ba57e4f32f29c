//! The leaves of the decision log: every change of the ledger, in one order.

use serde::{Deserialize, Serialize};

use crate::{AccountPath, Digest, Id, Level, Unit};

/// Version byte of the leaf format.
pub const LEAF_VERSION: u8 = 1;
/// Longest leaf in bytes: what an entry of a C2SP tile can hold (C2SP tlog-tiles, "Log entries": a
/// 16-bit length).
pub const MAX_LEAF_BYTES: usize = 65_535;

/// One leaf: canonical JSON (RFC 8785) of this struct, stored and hashed as it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Leaf {
    /// What happened.
    pub event: Event,
    /// When, in seconds since 1970-01-01 UTC; never before that of the leaf ahead.
    pub time: u64,
    /// Version of the format: 1.
    pub v: u8,
}

/// Why a reservation expired.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExpiryCause {
    /// It was not confirmed before its deadline.
    Unconfirmed,
    /// Its interval is over.
    Ended,
    /// It had to make room for another.
    Evicted,
    /// The lease inside which it ran is over.
    LeaseEnded,
}

/// Budget given back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Refund {
    /// To which account.
    pub account: AccountPath,
    /// How much, in the account's unit.
    pub amount: u64,
}

/// An account's place in a tree of quotas: the words and rules are Kueue's (its
/// `pkg/cache/scheduler/resource_node.go`).
///
/// The quota of an account is its nominal quota and what its children lend it. Use above what it
/// keeps for itself flows up to the parent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QuotaNode {
    /// Which account: a level account.
    pub account: AccountPath,
    /// Most that it may use above its quota, out of what others lend: 0..=2^53-1, in `unit`. Absent
    /// means no bound of its own. Without a parent there is nothing to borrow.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub borrowing_limit: Option<u64>,
    /// The account that it shares with others.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub cohort: Option<AccountPath>,
    /// Most of its quota that others may use while it does not: 0..=2^53-1, in `unit`. Absent means
    /// all of it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub lending_limit: Option<u64>,
    /// What it brings in: 0..=2^53-1, in `unit`.
    pub nominal: u64,
    /// What is counted; the same in a whole tree.
    pub unit: Unit,
}

/// What happened. Kinds that no code writes yet are here so that the format need not change for
/// them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Event {
    /// The log begins. Always the first leaf, and only that.
    Genesis {
        /// Name of the log, as in its checkpoints.
        origin: String,
        /// Random name of this store: 32 hexadecimal digits.
        store: String,
    },
    /// A request was decided.
    Decision {
        /// Name of the caller that asked.
        caller: Id,
        /// The signed decision, as sent.
        token: String,
    },
    /// A reservation became active.
    Confirmation {
        /// Who confirmed.
        caller: Id,
        /// Its epoch.
        epoch: u64,
        /// Which reservation.
        reservation: Id,
    },
    /// A reservation was ended by its holder.
    Release {
        /// Who released.
        caller: Id,
        /// Its epoch.
        epoch: u64,
        /// Budget given back.
        refunds: Vec<Refund>,
        /// Which reservation.
        reservation: Id,
    },
    /// A reservation ended by itself.
    Expiry {
        /// Why.
        cause: ExpiryCause,
        /// Its epoch.
        epoch: u64,
        /// Budget given back.
        refunds: Vec<Refund>,
        /// Which reservation.
        reservation: Id,
    },
    /// A reservation was taken back.
    Revocation {
        /// New epoch.
        epoch: u64,
        /// Why, for a person to read.
        reason: String,
        /// Budget given back.
        refunds: Vec<Refund>,
        /// Which reservation.
        reservation: Id,
    },
    /// A reservation was told to make room for another.
    EvictionOrder {
        /// New epoch.
        epoch: u64,
        /// When its interval is cut, in seconds since 1970-01-01 UTC.
        evict_by: u64,
        /// For which reservation.
        preemptor: Id,
        /// The signed order.
        token: String,
        /// Which reservation.
        victim: Id,
    },
    /// A bundle became active.
    BundleActivation {
        /// SHA-256 of the bundle.
        digest: Digest,
        /// Its revision, as its manifest says.
        revision: String,
    },
    /// Facts became active.
    FactsActivation {
        /// SHA-256 of the facts.
        digest: Digest,
        /// Their revision, as they say.
        revision: String,
    },
    /// The trees of quotas changed, as part of the activation of facts that follows.
    Quotas {
        /// Accounts that are new in a tree, or have another place in one, in the order of their
        /// paths.
        changed: Vec<QuotaNode>,
        /// Whether the next leaf goes on with it: the change takes effect with its last leaf.
        more: bool,
        /// Accounts that are in no tree any more.
        removed: Vec<AccountPath>,
    },
    /// Personal values were erased because somebody asked for it. Of which decisions is not said:
    /// it would tell for ever that they are of one person.
    Erasure {
        /// Who asked.
        caller: Id,
        /// Of how many decisions: 1 or more.
        decisions: u64,
    },
    /// A waiver was used for the first time.
    Waiver {
        /// Its name.
        id: Id,
        /// Highest level that it lifts: overridable.
        level: Level,
        /// The signed waiver.
        token: String,
    },
    /// Everything in a scope is denied from now on.
    Freeze {
        /// Name of the freeze.
        id: Id,
        /// The signed order.
        token: String,
    },
    /// A freeze ended.
    Thaw {
        /// Name of the freeze.
        id: Id,
        /// The signed order.
        token: String,
    },
}
