//! Checking a whole log by itself: what each leaf is, on as many threads as one likes, and what
//! they are together.
//!
//! What the leaves mean, the ledger that they fold to, is not looked at: an auditor needs nothing
//! but the public keys and a checkpoint.

use crate::merkle::{self, Head, Tree, TreeError};
use crate::{
    Approval, ApprovalError, Checkpoint, Digest, Event, FREEZE_FRESH_SECONDS, FreezeClaims, Id,
    KeySet, LEAF_VERSION, Leaf, Level, MAX_LEAF_BYTES, ThawClaims, Verifier, VerifyError,
    WaiverClaims, canonical_json, read_approval, verify_approval_issued,
};

/// Why a leaf is none of a log of that issuer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LeafError {
    /// It is empty, or longer than any leaf.
    #[error("it has {bytes} bytes, but a leaf has 1 to {MAX_LEAF_BYTES}")]
    Length {
        /// Its length.
        bytes: usize,
    },
    /// It is not the JSON of a leaf.
    #[error("it has not the form of a leaf")]
    NotALeaf(#[source] serde_json::Error),
    /// It is of a newer format.
    #[error(
        "it has version {version} of the format, this verifier reads {LEAF_VERSION}\n\
         hint: install a newer verifier"
    )]
    Version {
        /// Its version.
        version: u8,
    },
    /// It is not spelled as a log spells it.
    #[error("it is not canonical JSON (RFC 8785)")]
    NotCanonical,
    /// The decision in it was not issued.
    #[error("it holds a decision that was not issued")]
    Decision(#[source] VerifyError),
    /// The order of eviction in it was not issued.
    #[error("it holds an order of eviction that was not issued")]
    Order(#[source] VerifyError),
    /// The waiver, freeze or thaw in it is none, or no approver signed it.
    #[error("it holds what no approver signed")]
    Approval(#[source] ApprovalError),
    /// It says other things than what is signed in it.
    #[error("it says otherwise than what is signed in it {what}")]
    Contradiction {
        /// What it says.
        what: &'static str,
    },
}

/// Why a log is not what was published.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WalkError {
    /// A leaf is none of this log.
    #[error("leaf {position} is none of this log")]
    Leaf {
        /// Its place, from 0.
        position: u64,
        /// What is wrong with it.
        #[source]
        source: LeafError,
    },
    /// It is older than the one ahead of it.
    #[error("leaf {position} is of {time}, before the {last} of the leaf ahead of it")]
    Time {
        /// Its place, from 0.
        position: u64,
        /// Its time, in seconds since 1970-01-01 UTC.
        time: u64,
        /// That of the one ahead.
        last: u64,
    },
    /// The first leaf is no genesis, or another one is.
    #[error("leaf {position} is in the wrong place: the genesis comes first, and only once")]
    Genesis {
        /// Its place, from 0.
        position: u64,
    },
    /// It is the log of another name.
    #[error("is the log `{found}`, not `{expected}`")]
    OtherLog {
        /// Its name, as its genesis says.
        found: String,
        /// The one that was expected.
        expected: String,
    },
    /// It does not begin with what a checkpoint published.
    #[error(
        "its first {size} leaves are not those of the checkpoint of that size: they have the root \
         {found}, and {published} was published{}",
        agreed(*.before)
    )]
    Forked {
        /// Leaves of the checkpoint.
        size: u64,
        /// The root of these leaves.
        found: Digest,
        /// The root that was published.
        published: Digest,
        /// Leaves of the largest checkpoint before it that it does begin with: 0 if there is none.
        before: u64,
    },
    /// It ends before what a checkpoint published.
    #[error("has {leaves} leaves, but {published} were published: its end is missing")]
    RolledBack {
        /// Its leaves.
        leaves: u64,
        /// Leaves of the checkpoint.
        published: u64,
    },
    /// No tree is so large.
    #[error("has more leaves than a log can have")]
    Full,
}

fn agreed(before: u64) -> String {
    if before == 0 {
        return String::new();
    }
    format!("; up to leaf {before} it is what an earlier checkpoint published")
}

/// Checks leaves, each by itself: from any thread.
#[derive(Debug, Clone)]
pub struct LeafChecker {
    /// The keys of approvers; absent if what they signed is only read.
    approvers: Option<KeySet>,
    issuer: String,
    verifier: Verifier,
}

/// A leaf that was checked by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckedLeaf {
    hash: Digest,
    /// The name of the log, if it is its genesis.
    origin: Option<String>,
    /// What is signed in it.
    signed: Signed,
    time: u64,
}

/// What is signed in a leaf.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Signed {
    Nothing,
    Decision,
    Order,
    Approval,
}

impl LeafChecker {
    /// With the keys of an issuer and its name.
    #[must_use]
    pub fn new(verifier: Verifier, issuer: impl Into<String>) -> Self {
        Self { approvers: None, issuer: issuer.into(), verifier }
    }

    /// The same, and with the keys of all who ever approved: the signatures of waivers, freezes and
    /// thaws are checked too. Without, these are only read.
    #[must_use]
    pub fn with_approvers(self, keys: KeySet) -> Self {
        Self { approvers: Some(keys), ..self }
    }

    /// Checks a leaf as far as it can be without the others: form, spelling, and what is signed in
    /// it, each decision and each order of eviction.
    ///
    /// # Errors
    /// [`LeafError`] names the first thing that is wrong.
    pub fn check(&self, bytes: &[u8]) -> Result<CheckedLeaf, LeafError> {
        if !(1..=MAX_LEAF_BYTES).contains(&bytes.len()) {
            return Err(LeafError::Length { bytes: bytes.len() });
        }
        let leaf: Leaf = serde_json::from_slice(bytes).map_err(LeafError::NotALeaf)?;
        if leaf.v != LEAF_VERSION {
            return Err(LeafError::Version { version: leaf.v });
        }
        if !canonical_json(&leaf).is_ok_and(|canonical| canonical == bytes) {
            return Err(LeafError::NotCanonical);
        }
        let signed = self.check_signed(&leaf)?;
        let (hash, time) = (merkle::leaf_hash(bytes), leaf.time);
        let origin =
            if let Event::Genesis { origin, .. } = leaf.event { Some(origin) } else { None };
        Ok(CheckedLeaf { hash, origin, signed, time })
    }

    fn check_signed(&self, leaf: &Leaf) -> Result<Signed, LeafError> {
        let differs = |what| Err(LeafError::Contradiction { what });
        match &leaf.event {
            Event::Decision { token, .. } => {
                let decision = self.verifier.verify_issued(token, &self.issuer);
                if decision.map_err(LeafError::Decision)?.iat != leaf.time {
                    return differs("when it was decided");
                }
                Ok(Signed::Decision)
            }
            Event::EvictionOrder { epoch, evict_by, preemptor, token, victim } => {
                let order = self.verifier.verify_eviction_issued(token, &self.issuer);
                let order = order.map_err(LeafError::Order)?;
                if order.iat != leaf.time {
                    return differs("when it was ordered");
                }
                let ordered = (order.epoch, order.evict_by, &order.preemptor, &order.reservation);
                if ordered != (*epoch, *evict_by, preemptor, victim) {
                    return differs("who makes room for whom");
                }
                Ok(Signed::Order)
            }
            Event::Waiver { id, level, token } => {
                let WaiverClaims { aud, exp, jti, nbf, .. } = self.approved(token)?;
                self.check_named((&jti, &aud), id)?;
                if *level != Level::Overridable {
                    return differs("what it lifts");
                }
                let is_in_time = (nbf..exp).contains(&leaf.time);
                if is_in_time { Ok(Signed::Approval) } else { differs("when it can be used") }
            }
            Event::Freeze { id, token } => {
                let FreezeClaims { aud, iat, jti, .. } = self.approved(token)?;
                self.check_named((&jti, &aud), id)?;
                check_fresh(iat, leaf.time)
            }
            Event::Thaw { id, token } => {
                let ThawClaims { aud, iat, jti, .. } = self.approved(token)?;
                self.check_named((&jti, &aud), id)?;
                check_fresh(iat, leaf.time)
            }
            Event::Genesis { .. }
            | Event::Confirmation { .. }
            | Event::Release { .. }
            | Event::Expiry { .. }
            | Event::Revocation { .. }
            | Event::BundleActivation { .. }
            | Event::FactsActivation { .. }
            | Event::Quotas { .. }
            | Event::Erasure { .. } => Ok(Signed::Nothing),
        }
    }

    /// What an approver signed with a key of its own, which is not the issuer's.
    fn approved<T: Approval>(&self, token: &str) -> Result<T, LeafError> {
        match &self.approvers {
            Some(keys) => verify_approval_issued(keys, token).map(|(claims, _)| claims),
            None => read_approval(token),
        }
        .map_err(LeafError::Approval)
    }

    fn check_named(&self, (jti, aud): (&Id, &str), id: &Id) -> Result<(), LeafError> {
        let differs = |what| Err(LeafError::Contradiction { what });
        if jti != id {
            return differs("what it is called");
        }
        if aud == self.issuer { Ok(()) } else { differs("for which deployment it is") }
    }
}

/// Whether a freeze or a thaw was carried out soon after it was signed.
fn check_fresh(iat: u64, time: u64) -> Result<Signed, LeafError> {
    if iat.abs_diff(time) <= FREEZE_FRESH_SECONDS {
        return Ok(Signed::Approval);
    }
    Err(LeafError::Contradiction { what: "when it was ordered" })
}

/// What was found in a whole log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Walked {
    /// Its leaves and root.
    pub head: Head,
    /// Leaves that a checkpoint counts: for those behind them nobody has signed.
    pub published: u64,
    /// Decisions among the leaves, each with a signature that was checked.
    pub decisions: u64,
    /// Orders of eviction among the leaves, each with a signature that was checked.
    pub orders: u64,
    /// Waivers, freezes and thaws among the leaves, each with a signature that was checked if the
    /// keys of approvers were given.
    pub approvals: u64,
    /// Time of the first and the last leaf, in seconds since 1970-01-01 UTC; absent if it is empty.
    pub times: Option<(u64, u64)>,
    /// Checkpoints that it was held against, all of which it continues.
    pub checkpoints: usize,
}

/// Walks along a log, from its first leaf to its last.
#[derive(Debug)]
pub struct LogWalk {
    /// Sizes and roots that were published, the largest first.
    ahead: Vec<Head>,
    /// Leaves of the last checkpoint that was met.
    agreed: u64,
    origin: String,
    tree: Tree,
    /// Decisions, orders and approvals so far.
    signed: (u64, u64, u64),
    /// Checkpoints that were met.
    met: usize,
    times: Option<(u64, u64)>,
}

impl LogWalk {
    /// Begins with the log of that name, to be held against checkpoints, of which the signatures
    /// have been verified.
    ///
    /// # Errors
    /// [`WalkError::OtherLog`]: a checkpoint is of a log of another name.
    pub fn new(
        origin: impl Into<String>,
        checkpoints: impl IntoIterator<Item = Checkpoint>,
    ) -> Result<Self, WalkError> {
        let origin = origin.into();
        let mut ahead = Vec::new();
        for Checkpoint { origin: found, root, size } in checkpoints {
            if found != origin {
                return Err(WalkError::OtherLog { found, expected: origin });
            }
            ahead.push(Head { size, root });
        }
        ahead.sort_by_key(|head| std::cmp::Reverse(head.size));
        let mut walk = Self {
            ahead,
            agreed: 0,
            origin,
            tree: Tree::default(),
            signed: (0, 0, 0),
            met: 0,
            times: None,
        };
        walk.meet()?;
        Ok(walk)
    }

    /// Goes on by one leaf; gives the hashes that a log of tiles or a store keeps for it. Whoever
    /// has those compares them before the next leaf: a checkpoint of all leaves so far is looked
    /// at then.
    ///
    /// # Errors
    /// [`WalkError`]: then the walk is over.
    pub fn push(&mut self, leaf: CheckedLeaf) -> Result<Vec<Digest>, WalkError> {
        self.meet()?;
        let position = self.tree.size();
        if leaf.origin.is_some() != (position == 0) {
            return Err(WalkError::Genesis { position });
        }
        if let Some(found) = leaf.origin.filter(|origin| *origin != self.origin) {
            return Err(WalkError::OtherLog { found, expected: self.origin.clone() });
        }
        let (first, last) = self.times.unwrap_or((leaf.time, leaf.time));
        if leaf.time < last {
            return Err(WalkError::Time { position, time: leaf.time, last });
        }
        self.times = Some((first, leaf.time));
        match leaf.signed {
            Signed::Nothing => {}
            Signed::Decision => self.signed.0 = self.signed.0.saturating_add(1),
            Signed::Order => self.signed.1 = self.signed.1.saturating_add(1),
            Signed::Approval => self.signed.2 = self.signed.2.saturating_add(1),
        }
        let hashes = self.tree.append(leaf.hash).map_err(|error| match error {
            TreeError::Range { .. } | TreeError::Store(_) | TreeError::Answer { .. } => {
                WalkError::Full
            }
        })?;
        Ok(hashes)
    }

    /// Leaves so far.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.tree.size()
    }

    /// Ends it: what was found, if nothing that was published is missing.
    ///
    /// # Errors
    /// [`WalkError::Forked`] or [`WalkError::RolledBack`].
    pub fn finish(mut self) -> Result<Walked, WalkError> {
        self.meet()?;
        let head = self.tree.head();
        if let Some(missing) = self.ahead.first() {
            return Err(WalkError::RolledBack { leaves: head.size, published: missing.size });
        }
        let Self { agreed: published, signed, met: checkpoints, times, .. } = self;
        let (decisions, orders, approvals) = signed;
        Ok(Walked { head, published, decisions, orders, approvals, times, checkpoints })
    }

    /// Holds the leaves so far against every checkpoint of that size.
    fn meet(&mut self) -> Result<(), WalkError> {
        let size = self.tree.size();
        while let Some(published) = self.ahead.pop_if(|head| head.size == size) {
            let (found, published) = (self.tree.head().root, published.root);
            if found != published {
                let before = self.agreed;
                return Err(WalkError::Forked { size, found, published, before });
            }
            self.agreed = size;
            self.met = self.met.saturating_add(1);
        }
        Ok(())
    }
}
