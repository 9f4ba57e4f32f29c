//! Freezes: signed orders that deny everything in a scope until a thaw lifts them.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::approval::{Approval, ApprovalError, MAX_SCOPE_NAMES, check_shared, private};
use crate::{Id, PriorityClass, SubjectKind};

/// `typ` of the header of a freeze.
pub const FREEZE_TYP: &str = "placet-freeze+jwt";
/// `typ` of the header of a thaw.
pub const THAW_TYP: &str = "placet-thaw+jwt";
/// Seconds by which the `iat` of a freeze or a thaw may differ from the time at which it is
/// carried out: enough for a person to sign and send it and for clocks that differ, too little to
/// be of use to whoever finds it later.
pub const FREEZE_FRESH_SECONDS: u64 = 300;

/// What is denied: what fits every list that is not empty.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FreezeScope {
    /// Where: at most 64 clusters.
    pub clusters: BTreeSet<Id>,
    /// Whether it is everything: then every list is empty, else one is not.
    pub everything: bool,
    /// What kinds of subject.
    pub kinds: BTreeSet<SubjectKind>,
    /// Which classes.
    pub priority_classes: BTreeSet<PriorityClass>,
    /// Whose: at most 64 tenants.
    pub tenants: BTreeSet<Id>,
}

impl FreezeScope {
    /// Whether it covers work of a tenant on a cluster, of a kind and a class.
    #[must_use]
    pub fn covers(
        &self,
        tenant: &Id,
        cluster: &Id,
        kind: SubjectKind,
        class: PriorityClass,
    ) -> bool {
        fn fits<T: Ord>(list: &BTreeSet<T>, value: &T) -> bool {
            list.is_empty() || list.contains(value)
        }
        // Without a list, and not of everything, it covers nothing: such a scope is refused before.
        let names_something = self.everything || !self.is_empty();
        names_something
            && fits(&self.clusters, cluster)
            && fits(&self.kinds, &kind)
            && fits(&self.priority_classes, &class)
            && fits(&self.tenants, tenant)
    }

    fn is_empty(&self) -> bool {
        self.clusters.is_empty()
            && self.kinds.is_empty()
            && self.priority_classes.is_empty()
            && self.tenants.is_empty()
    }

    fn check(&self) -> Result<(), ApprovalError> {
        let wrong = |problem| Err(ApprovalError::Senseless { field: "scope", problem });
        if self.everything != self.is_empty() {
            return wrong(
                "names neither everything nor anything, or both: give `everything`, or lists",
            );
        }
        if self.clusters.len() > MAX_SCOPE_NAMES || self.tenants.len() > MAX_SCOPE_NAMES {
            return wrong("names more than 64 tenants or clusters");
        }
        Ok(())
    }
}

/// The claims of a freeze: registered JWT claims (RFC 7519 §4.1) and Placet's own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FreezeClaims {
    /// The deployment that is to freeze: the issuer of its decisions.
    pub aud: String,
    /// Who orders it: the name under which the server knows the key.
    pub by: Id,
    /// When it was signed, in seconds since 1970-01-01 UTC: it is carried out within 300 seconds.
    pub iat: u64,
    /// Name of the freeze.
    pub jti: Id,
    /// Version of these claims: 1.
    pub placet: u8,
    /// Why, for a person to read: a ticket or a sentence, 1 to 256 bytes. Every denial repeats it.
    pub reason: String,
    /// What is denied.
    pub scope: FreezeScope,
}

/// The claims of a thaw, which lifts a freeze.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ThawClaims {
    /// The deployment: the issuer of its decisions.
    pub aud: String,
    /// Who orders it: the name under which the server knows the key.
    pub by: Id,
    /// When it was signed, in seconds since 1970-01-01 UTC: it is carried out within 300 seconds,
    /// and never before the freeze.
    pub iat: u64,
    /// Name of the freeze that it lifts.
    pub jti: Id,
    /// Version of these claims: 1.
    pub placet: u8,
    /// Why, for a person to read: 1 to 256 bytes.
    pub reason: String,
}

impl private::Sealed for FreezeClaims {}

impl Approval for FreezeClaims {
    const TYP: &'static str = FREEZE_TYP;

    fn name(&self) -> &Id {
        &self.jti
    }

    fn iat(&self) -> u64 {
        self.iat
    }

    fn check(&self) -> Result<(), ApprovalError> {
        check_shared(self.placet, &self.aud, &self.reason)?;
        self.scope.check()
    }
}

impl private::Sealed for ThawClaims {}

impl Approval for ThawClaims {
    const TYP: &'static str = THAW_TYP;

    fn name(&self) -> &Id {
        &self.jti
    }

    fn iat(&self) -> u64 {
        self.iat
    }

    fn check(&self) -> Result<(), ApprovalError> {
        check_shared(self.placet, &self.aud, &self.reason)
    }
}
