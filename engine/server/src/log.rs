//! The decision log: its Merkle tree as it grows, and the ledger as the fold of its leaves.

mod cosign;
mod files;
mod proofs;
mod snapshot;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::Path;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use placet_core::{
    AccountPath, Approval, CheckpointError, CosignatureError, Decision, Digest, Effect, Event,
    Eviction, EvictionOrder, FreezeClaims, Id, LEAF_VERSION, Leaf, Level, MAX_LEAF_BYTES,
    PreemptionRule, QuotaNode, ThawClaims, WaiverClaims, canonical_json,
    merkle::{self, Tree},
    read_approval,
};

pub use placet_core::merkle::Head;

use crate::activation::chain;
use crate::quota::{AuditError, Booking, Expired, Ledger, MAX_NODES_IN_LEAF, Outcome, Work};
use crate::signer::Signer;
use crate::store::{Faults, RESTORE, ReadError, Reader, Store};
pub(crate) use cosign::{Checked, CosignError, check};
pub(crate) use files::{FileError, Files, read_tile};
pub use snapshot::SnapshotError;
pub(crate) use snapshot::{Comparison, WriteError, path_of};

/// How often a long fold says how far it is, in leaves: every second or two.
const PROGRESS: u64 = 100_000;

/// Why a log cannot be carried on. Nothing was changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LogError {
    /// The store cannot be read.
    #[error("the log cannot be read")]
    Read(#[from] ReadError),
    /// A leaf cannot be read.
    #[error("the log cannot be read at position {position}")]
    Unreadable {
        /// Position of the leaf, from 0.
        position: u64,
        /// Why.
        source: ReadError,
    },
    /// A leaf is not what this program writes.
    #[error("the log is damaged at position {position}: {what}; nothing was changed\n{}", RESTORE)]
    Leaf {
        /// Position of the leaf, from 0.
        position: u64,
        /// What is wrong.
        what: String,
    },
    /// The stored hashes of the tree are not those of the leaves.
    #[error("the stored hashes do not match the leaves; nothing was changed\n{}", RESTORE)]
    Hashes,
    /// The store's time is none that this log can have.
    #[error(
        "the store's time {high_water} is before the last leaf of the log, {last}\n{}",
        RESTORE
    )]
    Time {
        /// The store's time, in seconds since 1970-01-01 UTC.
        high_water: u64,
        /// That of the last leaf.
        last: u64,
    },
    /// It is shorter than what was published of it.
    #[error(
        "the log has {leaves} leaves, but a checkpoint of {published} was published: its end is \
         lost; nothing was changed\n{}",
        RESTORE
    )]
    Behind {
        /// Leaves that it has.
        leaves: u64,
        /// Leaves that were published.
        published: u64,
    },
    /// It is another one than what was published of it.
    #[error(
        "the first {published} leaves of the log are not those of the checkpoint that was \
         published, or the checkpoint is damaged; nothing was changed\n{}",
        RESTORE
    )]
    Forked {
        /// Leaves that were published.
        published: u64,
    },
    /// The newest checkpoint, or one that witnesses cosigned, is damaged.
    #[error("a checkpoint of the log is damaged; nothing was changed\n{}", RESTORE)]
    Checkpoint(#[source] CheckpointError),
    /// It is another issuer's.
    #[error(
        "the log is that of the issuer `{origin}`, not of `{issuer}`; nothing was changed\n\
         hint: start with the issuer of the log; one of another name begins with a new store"
    )]
    Issuer {
        /// Whose it is.
        origin: String,
        /// Who is to issue decisions.
        issuer: String,
    },
    /// A cosignature of a checkpoint is damaged.
    #[error(
        "what witnesses said of the checkpoint of {size} leaves does not match their keys; nothing \
         was changed\nhint: if a witness was given another key, leave it out; else restore the \
         store from a copy made by `placet ledger backup`"
    )]
    Cosigned {
        /// Leaves of the checkpoint.
        size: u64,
        /// What is wrong.
        source: CosignatureError,
    },
    /// It cannot have checkpoints.
    #[error(
        "the log's name, the issuer at its beginning, cannot be that of checkpoints\n\
         hint: give a new log another `issuer`; `checkpoint-every` 0 makes no checkpoints"
    )]
    Origin(#[source] CheckpointError),
    /// The tree is full.
    #[error("the log is full")]
    Full,
    /// The ledger that results contradicts itself.
    #[error("the log folds to a ledger that contradicts itself")]
    Ledger(#[source] AuditError),
}

/// Appends a leaf, and gives the hashes to store.
pub(crate) fn append(tree: &mut Tree, leaf: &[u8]) -> Result<Vec<Digest>, LogError> {
    tree.append(merkle::leaf_hash(leaf)).map_err(|_full| LogError::Full)
}

/// Works every stored hash out again from the leaves. A start looks only at those that it needs;
/// the others are what proofs are made of.
pub(crate) fn check_hashes(store: &Store) -> Result<(), LogError> {
    let mut tree = Tree::default();
    store.for_each_leaf(0, |bytes| {
        let first = tree.row();
        let hashes = append(&mut tree, bytes)?;
        let numbers: Vec<u64> = (first..tree.row()).collect();
        if store.hashes(&numbers)? != hashes {
            return Err(LogError::Hashes);
        }
        Ok(())
    })
}

/// What is active, by digest and revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Activation {
    /// The policy bundle.
    pub bundle: (Digest, String),
    /// The facts.
    pub facts: (Digest, String),
    /// The facts' trees of quotas, in the order of the accounts' paths.
    pub quotas: Arc<[QuotaNode]>,
}

/// What the leaves of a log add up to.
#[derive(Debug, Default)]
pub(crate) struct Folded {
    pub(crate) ledger: Ledger,
    pub(crate) tree: Tree,
    /// Random name of the store, from the first leaf.
    pub(crate) name: String,
    pub(crate) bundle: Option<(Digest, String)>,
    pub(crate) facts: Option<(Digest, String)>,
    /// Time of the last leaf, in seconds since 1970-01-01 UTC: the ledger's may be later.
    last: u64,
    /// Leaves and items of the snapshot that it goes on from, if it does not begin with the first
    /// leaf.
    pub(crate) begun: Option<(u64, u64)>,
    /// Changes of the trees of quotas of which not all leaves were folded.
    quotas: (Vec<QuotaNode>, Vec<AccountPath>),
    more_quotas: bool,
    /// Orders of eviction that have to follow, in this order: preemptor and eviction.
    orders: VecDeque<(Id, Eviction)>,
    /// Waivers that the next decision has to use.
    waivers: BTreeSet<Id>,
}

impl Folded {
    /// Reads the log of a store: behind its snapshot if that can be used, else all of it, and says
    /// why.
    ///
    /// # Errors
    /// [`LogError`], whatever the snapshot is.
    pub(crate) fn open(store: &Store, path: &Path, signer: &Signer) -> Result<Self, LogError> {
        match Self::go_on_from(store, path, signer) {
            Ok(Some(folded)) => return Ok(folded),
            Ok(None) => {}
            Err(error) => {
                let reason = chain(&error).replace('\n', "; ");
                tracing::warn!(
                    snapshot = %path.display(),
                    reason,
                    "the snapshot is not used: the whole log is folded"
                );
            }
        }
        Self::read(store)
    }

    /// Goes on from the snapshot of a store: `None` if there is none.
    ///
    /// # Errors
    /// [`SnapshotError`]: it is not to be used.
    pub(crate) fn go_on_from(
        store: &Store,
        path: &Path,
        signer: &Signer,
    ) -> Result<Option<Self>, SnapshotError> {
        let log = |error: LogError| SnapshotError::Log(Box::new(error));
        let size = store.size().map_err(|error| log(error.into()))?;
        let hashes = |numbers: &[u64]| store.hashes(numbers);
        let taken = Self::take_up((path, signer), store.faults(), (size, hashes), &|| false)?;
        let Some(mut folded) = taken else { return Ok(None) };
        let (behind, leaves) = (folded.tree.size(), size);
        tracing::info!(behind, leaves, "a snapshot was taken up: only what is behind it is folded");
        match folded.go_on(store, |_| Ok(())) {
            Ok(()) => Ok(Some(folded)),
            Err(LogError::Ledger(error)) => Err(SnapshotError::Ledger(error)),
            Err(error) => Err(log(error)),
        }
    }

    /// Reads the whole log of a store. Every leaf is parsed, checked for its place and folded; the
    /// tree is built again from the leaves, and its peaks, which cover all of them, must be the
    /// stored ones.
    ///
    /// # Errors
    /// [`LogError`].
    pub(crate) fn read(store: &Store) -> Result<Self, LogError> {
        Self::read_with(store, |_| Ok(()))
    }

    /// The same, and calls `each` before every leaf and behind the last.
    ///
    /// # Errors
    /// [`LogError`], or the first error of `each`.
    pub(crate) fn read_with(
        store: &Store,
        each: impl FnMut(&Self) -> Result<(), LogError>,
    ) -> Result<Self, LogError> {
        let mut folded = Self::new(store.faults());
        folded.go_on(store, each)?;
        Ok(folded)
    }

    /// Nothing is folded.
    pub(crate) fn new(faults: &Faults) -> Self {
        Self { ledger: empty(faults), ..Self::default() }
    }

    /// Folds the leaves that are behind those that were, and checks the whole.
    fn go_on(
        &mut self,
        store: &Store,
        mut each: impl FnMut(&Self) -> Result<(), LogError>,
    ) -> Result<(), LogError> {
        let begin = self.tree.size();
        let size = store.size().map_err(LogError::from);
        let read = size.and_then(|leaves| {
            store.for_each_leaf(begin, |bytes| {
                each(self)?;
                self.fold_leaf(bytes)?;
                let folded = self.tree.size();
                if folded.saturating_sub(begin).is_multiple_of(PROGRESS) {
                    tracing::info!(folded, leaves, "folding the log");
                }
                Ok::<(), LogError>(())
            })
        });
        let position = self.tree.size();
        read.map_err(|error| match error {
            LogError::Read(source) => LogError::Unreadable { position, source },
            other => other,
        })?;
        each(self)?;
        // Equal in number too: a log that lost its tail would else look like a shorter one.
        if store.hash_count()? != self.tree.row() {
            return Err(LogError::Hashes);
        }
        self.check_end(|numbers| store.hashes(numbers))?;
        let high_water = store.high_water()?;
        if high_water < self.ledger.now() {
            return Err(LogError::Time { high_water, last: self.ledger.now() });
        }
        let expired = self.ledger.advance(high_water);
        if !expired.is_ok_and(|expired| expired.is_empty()) {
            let what = "something that was due before the store's time did not happen".to_owned();
            return Err(LogError::Leaf { position: self.tree.size(), what });
        }
        self.ledger.keep();
        self.ledger.audit().map_err(LogError::Ledger)
    }

    /// Folds the leaves of a log, read beside its writer, up to a size at which a batch of it
    /// ended; then checks the whole.
    ///
    /// # Errors
    /// [`LogError`]. Otherwise whether it was not cut short.
    pub(crate) fn follow(
        &mut self,
        reader: &Reader,
        size: u64,
        is_over: &dyn Fn() -> bool,
    ) -> Result<bool, LogError> {
        while self.tree.size() < size {
            let leaves = reader.leaves(self.tree.size(), size)?;
            if leaves.is_empty() {
                return Err(ReadError::Damaged("a leaf is missing").into());
            }
            for leaf in leaves {
                self.fold_leaf(&leaf)?;
            }
            if is_over() {
                return Ok(false);
            }
        }
        self.check_end(|numbers| reader.hashes(numbers))?;
        self.ledger.audit().map_err(LogError::Ledger)?;
        Ok(true)
    }

    fn fold_leaf(&mut self, bytes: &[u8]) -> Result<(), LogError> {
        let position = self.tree.size();
        self.fold(position, bytes).map_err(|what| LogError::Leaf { position, what })?;
        append(&mut self.tree, bytes)?;
        // Nothing of a leaf that is in the log is ever taken back.
        self.ledger.keep();
        Ok(())
    }

    /// Whether the leaves that were folded are those of the stored tree, and nothing is half done
    /// behind them.
    fn check_end(
        &self,
        hashes: impl Fn(&[u64]) -> Result<Vec<Digest>, ReadError>,
    ) -> Result<(), LogError> {
        let (numbers, peaks): (Vec<u64>, Vec<Digest>) = self.tree.peaks().iter().copied().unzip();
        if hashes(&numbers)? != peaks {
            return Err(LogError::Hashes);
        }
        if self.more_quotas || !self.orders.is_empty() || !self.waivers.is_empty() {
            let what = "what begins before it is not complete".to_owned();
            return Err(LogError::Leaf { position: self.tree.size(), what });
        }
        Ok(())
    }

    fn fold(&mut self, position: u64, bytes: &[u8]) -> Result<(), String> {
        let leaf: Leaf = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        if leaf.v != LEAF_VERSION {
            return Err(format!("its version is {}, not {LEAF_VERSION}", leaf.v));
        }
        if leaf.time < self.ledger.now() {
            return Err("it is older than the one before".to_owned());
        }
        if matches!(leaf.event, Event::Genesis { .. }) != (position == 0) {
            return Err("the log must begin with its genesis, and only begin".to_owned());
        }
        if self.more_quotas && !matches!(leaf.event, Event::Quotas { .. }) {
            return Err("the change of quotas before it is not complete".to_owned());
        }
        if !self.orders.is_empty() && !matches!(leaf.event, Event::EvictionOrder { .. }) {
            return Err("an order of eviction is missing before it".to_owned());
        }
        let uses = matches!(leaf.event, Event::Waiver { .. } | Event::Decision { .. });
        if !self.waivers.is_empty() && !uses {
            return Err("the decision that uses the waiver before it is missing".to_owned());
        }
        self.last = leaf.time;
        if let Event::Expiry { .. } = &leaf.event {
            return self.fold_expiry(&leaf);
        }
        let expired = self.ledger.advance(leaf.time).map_err(|error| error.to_string())?;
        if let Some(missing) = expired.first() {
            return Err(format!("`{}` should have expired before", missing.reservation));
        }
        self.fold_event(leaf)
    }

    fn fold_expiry(&mut self, leaf: &Leaf) -> Result<(), String> {
        let expired = self.ledger.expire_next(leaf.time).map_err(|error| error.to_string())?;
        match expired {
            Some(expired) if leaf_of_expiry(expired.clone()) == *leaf => Ok(()),
            _ => Err("another reservation, or none, should have expired".to_owned()),
        }
    }

    fn fold_event(&mut self, leaf: Leaf) -> Result<(), String> {
        match leaf.event {
            Event::Genesis { store, .. } => self.name = store,
            Event::Decision { caller, token } => {
                let decision = read_claims(&token)?;
                if decision.iat != leaf.time {
                    return Err("its decision was made at another time".to_owned());
                }
                self.fold_decision(caller, decision)?;
            }
            Event::Confirmation { epoch, reservation, .. } => {
                let outcome = self.ledger.confirm(&reservation, epoch);
                must_change(&outcome.map_err(|error| error.to_string())?)?;
            }
            Event::Release { epoch, refunds, reservation, .. } => {
                let outcome = self.ledger.release(&reservation, epoch);
                let outcome = outcome.map_err(|error| error.to_string())?;
                must_change(&outcome)?;
                if outcome.refunds != refunds {
                    return Err("its refunds are not those of the rules".to_owned());
                }
            }
            Event::BundleActivation { digest, revision } => self.bundle = Some((digest, revision)),
            Event::FactsActivation { digest, revision } => self.facts = Some((digest, revision)),
            Event::Quotas { changed, more, removed } => {
                self.quotas.0.extend(changed);
                self.quotas.1.extend(removed);
                self.more_quotas = more;
                if !more {
                    let (changed, removed) = std::mem::take(&mut self.quotas);
                    let set = self.ledger.set_quotas(&changed, &removed);
                    set.map_err(|error| error.to_string())?;
                }
            }
            Event::EvictionOrder { epoch, evict_by, preemptor, victim, .. } => {
                let (by, due) = self.orders.pop_front().ok_or("nobody asked for it")?;
                let told = (&by, due.epoch, due.evict_by, &due.reservation);
                if told != (&preemptor, epoch, evict_by, &victim) {
                    return Err("it is not the order that the decision asks for".to_owned());
                }
            }
            // What is erased is beside the log.
            Event::Erasure { .. } => {}
            Event::Waiver { id, level, token } => {
                self.fold_waiver(leaf.time, (id, level), &token)?
            }
            Event::Freeze { id, token } => {
                let claims = claims_of::<FreezeClaims>(&token, &id)?;
                let frozen = self.ledger.freeze(claims, Digest::of(token.as_bytes()));
                let is_new = frozen.map_err(|error| error.to_string())?;
                return is_new.then_some(()).ok_or_else(|| "it changes nothing".to_owned());
            }
            Event::Thaw { id, token } => {
                let claims = claims_of::<ThawClaims>(&token, &id)?;
                self.ledger.thaw(&claims).map_err(|error| error.to_string())?;
            }
            Event::Expiry { .. } | Event::Revocation { .. } => {
                return Err("this version of Placet does not know what it means".to_owned());
            }
        }
        Ok(())
    }

    /// A waiver is logged because the next decision uses it for the first time.
    fn fold_waiver(
        &mut self,
        time: u64,
        (id, level): (Id, Level),
        token: &str,
    ) -> Result<(), String> {
        let WaiverClaims { exp, nbf, uses, .. } = claims_of::<WaiverClaims>(token, &id)?;
        if level != Level::Overridable || !(nbf..exp).contains(&time) {
            return Err("it cannot be used, or not now".to_owned());
        }
        let begun = self.ledger.begin_waiver(&id, (Digest::of(token.as_bytes()), exp, uses));
        begun.map_err(|error| error.to_string())?;
        self.waivers.insert(id);
        Ok(())
    }

    /// Counts the waivers that a decision uses, and looks whether anything keeps it from being.
    fn fold_approved(&mut self, decision: &Decision) -> Result<(), String> {
        let place = (&decision.tenant_id, &decision.workload.cluster_id);
        let (kind, class) = (decision.kind, decision.priority_class);
        let is_permit = decision.effect == Effect::Permit;
        if let Some(freeze) = self.ledger.freezes().covering(place, kind, class)
            && is_permit
        {
            return Err(format!("it is admitted though `{}` freezes it", freeze.claims.jti));
        }
        let is_sorted = decision.waivers.is_sorted_by(|one, next| one < next);
        if !is_sorted || (!is_permit && !decision.waivers.is_empty()) {
            return Err("its waivers are not those of a permit, each once".to_owned());
        }
        for name in &decision.waivers {
            let used = self.ledger.use_waiver(name);
            used.map_err(|error| format!("waiver `{name}`: {error}"))?;
            self.waivers.remove(name);
        }
        match self.waivers.first() {
            None => Ok(()),
            Some(unused) => Err(format!("it does not use `{unused}`, which was logged for it")),
        }
    }

    fn fold_decision(&mut self, caller: placet_core::Id, decision: Decision) -> Result<(), String> {
        self.fold_approved(&decision)?;
        match (decision.effect, decision.reservation) {
            (Effect::Deny, None) => Ok(()),
            (Effect::Permit, Some(grant)) => {
                let epoch = grant.epoch;
                let booking = Booking {
                    id: grant.id,
                    tenant: decision.tenant_id,
                    caller,
                    class: decision.priority_class,
                    work: Arc::new(Work {
                        kind: decision.kind,
                        grant: decision.workload,
                        lease_id: decision.lease_id,
                    }),
                    start: grant.start,
                    end: grant.end,
                    confirm_by: grant.confirm_by,
                    charges: grant.charges,
                    terms: decision.terms,
                };
                // INVARIANT: what was admitted once is admitted again by the fold: the rules depend
                // on nothing else.
                if let Some(extends) = &decision.extends {
                    let held = self.ledger.extend(booking, extends);
                    let held = held.map_err(|error| error.to_string())?;
                    let is_next = held.epoch == epoch && decision.evictions.is_empty();
                    return is_next.then_some(()).ok_or_else(|| "it extends nothing".to_owned());
                }
                let names = decision.evictions.iter().map(|victim| victim.reservation.clone());
                let names = names.collect();
                let allows = |rule: &PreemptionRule| self.ledger.allows(rule, &booking, &names);
                if !names.is_empty() && !decision.preemption.as_ref().is_some_and(allows) {
                    return Err("its rule does not allow its evictions".to_owned());
                }
                let reserved = self.ledger.displace(booking, &names);
                let reserved = reserved.map_err(|error| error.to_string())?;
                let (id, start) = (reserved.booking.id, reserved.booking.start);
                for eviction in decision.evictions {
                    let held = self.ledger.held(&eviction.reservation);
                    let due = held.map(|held| held.epoch.saturating_add(1));
                    if (due, eviction.evict_by) != (Some(eviction.epoch), start) {
                        return Err("its evictions are not those of the rules".to_owned());
                    }
                    self.orders.push_back((id.clone(), eviction));
                }
                Ok(())
            }
            _ => Err("its effect and its reservation contradict each other".to_owned()),
        }
    }
}

/// A ledger that holds nothing; in tests it may break a rule.
fn empty(faults: &Faults) -> Ledger {
    #[cfg(not(feature = "defects"))]
    let (ledger, _) = (Ledger::default(), faults);
    #[cfg(feature = "defects")]
    let ledger = {
        let mut ledger = Ledger::default();
        ledger.set_defect(faults.defect());
        ledger
    };
    ledger
}

fn must_change(outcome: &Outcome) -> Result<(), String> {
    if outcome.changed { Ok(()) } else { Err("it changes nothing".to_owned()) }
}

/// The leaf of an expiry: its time is that of the deadline, however late the ledger was told.
pub(crate) fn leaf_of_expiry(expired: Expired) -> Leaf {
    let Expired { at, reservation, epoch, cause, refunds } = expired;
    leaf(at, Event::Expiry { cause, epoch, refunds, reservation })
}

/// What brings a ledger's trees of quotas to those of the facts: nothing if they are those.
pub(crate) fn quota_events(ledger: &Ledger, wanted: &[QuotaNode]) -> Vec<Event> {
    let before: BTreeMap<&AccountPath, &QuotaNode> =
        ledger.quotas().map(|node| (&node.account, node)).collect();
    let after: BTreeSet<&AccountPath> = wanted.iter().map(|node| &node.account).collect();
    let changed = wanted.iter().filter(|node| before.get(&node.account) != Some(node));
    let changed: Vec<QuotaNode> = changed.cloned().collect();
    let removed = before.keys().filter(|path| !after.contains(*path));
    let removed: Vec<AccountPath> = removed.map(|path| (*path).clone()).collect();
    let (mut changed, mut removed) = (&*changed, &*removed);
    let mut events = Vec::new();
    while !changed.is_empty() || !removed.is_empty() {
        let (new, rest) = changed.split_at(changed.len().min(MAX_NODES_IN_LEAF));
        let room = MAX_NODES_IN_LEAF.saturating_sub(new.len());
        let (old, still) = removed.split_at(removed.len().min(room));
        (changed, removed) = (rest, still);
        let more = !changed.is_empty() || !removed.is_empty();
        events.push(Event::Quotas { changed: new.to_vec(), more, removed: old.to_vec() });
    }
    events
}

/// The leaf of an order of eviction.
pub(crate) fn leaf_of_order(order: EvictionOrder, token: String) -> Leaf {
    let EvictionOrder { epoch, evict_by, iat, preemptor, reservation, .. } = order;
    leaf(iat, Event::EvictionOrder { epoch, evict_by, preemptor, token, victim: reservation })
}

pub(crate) fn leaf(time: u64, event: Event) -> Leaf {
    Leaf { event, time, v: LEAF_VERSION }
}

/// The bytes of a leaf, or `None` if they are too many.
pub(crate) fn leaf_bytes(leaf: &Leaf) -> Option<Vec<u8>> {
    let bytes = canonical_json(leaf).expect("a leaf holds strings and small integers only");
    (bytes.len() <= MAX_LEAF_BYTES).then_some(bytes)
}

/// What an approver signed, out of our own log, under the name that the leaf gives it. As with
/// decisions, its signature is not checked: who may approve changes.
fn claims_of<T: Approval>(token: &str, id: &Id) -> Result<T, String> {
    let claims = read_approval::<T>(token).map_err(|error| error.to_string())?;
    if claims.name() == id { Ok(claims) } else { Err("it is called otherwise".to_owned()) }
}

/// The claims of a token out of our own log. Its signature is not checked: keys may have been
/// retired since, and the tree's hashes already tell damage. Verifying the log against its keys is
/// a command of its own.
pub(crate) fn read_claims(token: &str) -> Result<Decision, String> {
    let claims = token.split('.').nth(1).ok_or("its token has no claims")?;
    let claims = URL_SAFE_NO_PAD.decode(claims).map_err(|error| error.to_string())?;
    serde_json::from_slice(&claims).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use placet_core::{ExpiryCause, Id};

    use super::*;

    fn id(text: &str) -> Id {
        Id::new(text).unwrap()
    }

    /// A permit of 10 GPU-seconds over 100 seconds, unsigned: folding does not look at signatures.
    fn permit(iat: u64) -> Event {
        permit_using(1, iat, &[])
    }

    /// The same under a number of its own, with waivers.
    fn permit_using(number: u32, iat: u64, waivers: &[&str]) -> Event {
        let digest = Digest::of(b"").to_string();
        let named = |prefix: &str| format!("{prefix}{number}");
        let charge = serde_json::json!({
            "account": "budget/a", "amount": 10, "kind": "budget", "limit": 15 * number,
            "unit": "gpu-second"
        });
        let claims = serde_json::json!({
            "aud": ["scheduler"], "bundle_digest": digest, "effect": "PERMIT",
            "evaluation_digest": digest, "exp": 200, "facts_digest": digest, "iat": iat,
            "iss": "placet", "jti": named("dec-"), "kind": "lease", "obligations": [], "placet": 1,
            "priority_class": "INTERNAL_RESEARCH", "reasons": [], "request_digest": digest,
            "request_id": named("r-"), "sub": named("lease/dec-"), "tenant_id": "acme",
            "waivers": waivers, "warnings": [],
            "reservation": {
                "charges": [charge], "confirm_by": 150, "end": 200, "epoch": 1,
                "id": named("rsv-"), "start": 100
            },
            "workload": {
                "cluster_id": "c-1", "fabric_gbps": 0, "gpu_count": 1, "gpu_milli": 1000,
                "gpu_model": "H100", "isolation_level": "SHARED"
            }
        });
        let claims = URL_SAFE_NO_PAD.encode(claims.to_string());
        Event::Decision { caller: id("scheduler"), token: format!("e30.{claims}.e30") }
    }

    fn release(amount: u64) -> Event {
        let account = placet_core::AccountPath::new("budget/a").unwrap();
        let refunds = vec![placet_core::Refund { account, amount }];
        Event::Release { caller: id("scheduler"), epoch: 1, refunds, reservation: id("rsv-1") }
    }

    fn confirm() -> Event {
        Event::Confirmation { caller: id("scheduler"), epoch: 1, reservation: id("rsv-1") }
    }

    fn expiry(cause: ExpiryCause, refunds: Vec<placet_core::Refund>) -> Event {
        Event::Expiry { cause, epoch: 1, refunds, reservation: id("rsv-1") }
    }

    fn fold(events: impl IntoIterator<Item = (u64, Event)>) -> Result<(), String> {
        let mut folded = Folded::default();
        let genesis = Event::Genesis { origin: "placet".to_owned(), store: "00".to_owned() };
        let events = [(0, genesis)].into_iter().chain(events);
        for (position, (time, event)) in (0..).zip(events) {
            folded.fold(position, &leaf_bytes(&leaf(time, event)).unwrap())?;
        }
        Ok(())
    }

    #[test]
    fn a_log_folds_if_every_leaf_follows_from_those_before() {
        let permit = || (100, permit(100));
        assert_eq!(fold([permit(), (120, confirm()), (150, release(5))]), Ok(()));
        assert_eq!(fold([permit(), (120, release(10))]), Ok(()), "never confirmed");
        let ended = (200, expiry(ExpiryCause::Ended, Vec::new()));
        assert_eq!(fold([permit(), (120, confirm()), ended.clone()]), Ok(()));

        let unconfirmed = (150, expiry(ExpiryCause::Unconfirmed, Vec::new()));
        for (events, says) in [
            (vec![permit(), (120, confirm()), (150, release(6))], "refunds"),
            (vec![permit(), (150, confirm())], "should have expired before"),
            (vec![permit(), (120, confirm()), (121, confirm())], "changes nothing"),
            (vec![permit(), (99, confirm())], "older"),
            (vec![permit(), permit()], "name that was used before"),
            (vec![(101, permit().1)], "another time"),
            (vec![permit(), unconfirmed], "another reservation, or none"),
            (vec![permit(), ended], "another reservation, or none"),
            (vec![(1, release(5))], "no such reservation"),
            (vec![(1, Event::Genesis { origin: String::new(), store: String::new() })], "genesis"),
            (vec![(1, Event::Thaw { id: id("f"), token: String::new() })], "is not signed"),
            (
                vec![(
                    1,
                    Event::Revocation {
                        epoch: 1,
                        reason: String::new(),
                        refunds: Vec::new(),
                        reservation: id("rsv-1"),
                    },
                )],
                "does not know",
            ),
        ] {
            let error = fold(events.clone()).unwrap_err();
            assert!(error.contains(says), "{events:?}: {error}");
        }
    }

    /// A waiver that is good from 50 to 1,000, as a leaf: the fold does not look at who signed it.
    fn waiver(name: &str, uses: u32) -> Event {
        let key = placet_core::SigningKey::generate().unwrap();
        let lift = placet_core::Lift {
            code: placet_core::Code::new("LATE").unwrap(),
            policy: id("compliance"),
        };
        let claims = WaiverClaims {
            approved_by: id("duty"),
            aud: "placet".to_owned(),
            exp: 1_000,
            iat: 50,
            jti: id(name),
            lifts: [lift].into(),
            max_duration_seconds: None,
            max_gpu_count: None,
            nbf: 50,
            placet: 1,
            reason: "CHG-1".to_owned(),
            requested_by: id("ops"),
            scope: placet_core::WaiverScope {
                tenants: [id("acme")].into(),
                ..placet_core::WaiverScope::default()
            },
            uses,
        };
        let token = placet_core::sign_approval(&key, &claims).unwrap();
        Event::Waiver { id: id(name), level: Level::Overridable, token }
    }

    fn freeze(name: &str, iat: u64) -> Event {
        let key = placet_core::SigningKey::generate().unwrap();
        let scope =
            placet_core::FreezeScope { everything: true, ..placet_core::FreezeScope::default() };
        let claims = FreezeClaims {
            aud: "placet".to_owned(),
            by: id("duty"),
            iat,
            jti: id(name),
            placet: 1,
            reason: "INC-7".to_owned(),
            scope,
        };
        let token = placet_core::sign_approval(&key, &claims).unwrap();
        Event::Freeze { id: id(name), token }
    }

    fn thaw(name: &str, iat: u64) -> Event {
        let key = placet_core::SigningKey::generate().unwrap();
        let claims = ThawClaims {
            aud: "placet".to_owned(),
            by: id("duty"),
            iat,
            jti: id(name),
            placet: 1,
            reason: "cleared".to_owned(),
        };
        let token = placet_core::sign_approval(&key, &claims).unwrap();
        Event::Thaw { id: id(name), token }
    }

    #[test]
    fn a_log_folds_if_waivers_and_freezes_were_kept_to() {
        let first = || (100, waiver("w-1", 2));
        let used = |number| (100, permit_using(number, 100, &["w-1"]));
        assert_eq!(fold([first(), used(1), used(2)]), Ok(()));
        let both = (100, permit_using(1, 100, &["w-1", "w-2"]));
        assert_eq!(fold([first(), (100, waiver("w-2", 1)), both.clone()]), Ok(()));
        let cold = || (60, freeze("f-1", 60));
        let warm = || (80, thaw("f-1", 80));
        assert_eq!(fold([cold(), warm(), (100, permit(100))]), Ok(()));
        let late = |time| (time, permit_using(1, time, &["w-1"]));
        let named_otherwise = match waiver("w-1", 2) {
            Event::Waiver { level, token, .. } => Event::Waiver { id: id("w-2"), level, token },
            other => other,
        };
        let mandatory = match waiver("w-1", 2) {
            Event::Waiver { id, token, .. } => Event::Waiver { id, level: Level::Mandatory, token },
            other => other,
        };
        for (events, says) in [
            (vec![used(1)], "was not logged"),
            (vec![first(), used(1), used(2), used(3)], "as often as it may be"),
            (vec![first(), (100, permit(100))], "does not use `w-1`"),
            (vec![first(), (110, confirm())], "is missing"),
            (vec![first(), used(1), first(), used(2)], "under its name"),
            (vec![(49, waiver("w-1", 2)), late(49)], "not now"),
            (vec![(1_000, waiver("w-1", 2)), late(1_000)], "not now"),
            (vec![(100, named_otherwise), used(1)], "called otherwise"),
            (vec![(100, mandatory), used(1)], "cannot be used"),
            (vec![first(), (100, permit_using(1, 100, &["w-1", "w-1"]))], "each once"),
            (vec![cold(), (100, permit(100))], "`f-1` freezes it"),
            (vec![(100, permit(100)), (110, freeze("f-1", 110)), (120, confirm())], "`f-1` keeps"),
            (vec![(500, freeze("f-1", 199))], "signed at 199"),
            (vec![cold(), cold()], "there is a freeze `f-1`"),
            (vec![warm()], "no freeze `f-1`"),
            (vec![cold(), warm(), (90, freeze("f-1", 90))], "just now"),
        ] {
            let error = fold(events.clone()).unwrap_err();
            assert!(error.contains(says), "{events:?}: {error}");
        }
    }

    #[test]
    fn a_snapshot_is_compared_with_the_fold_item_by_item() {
        let folded = |events: Vec<(u64, Event)>| {
            let mut folded = Folded::default();
            let genesis = Event::Genesis { origin: "placet".to_owned(), store: "00".to_owned() };
            for (time, event) in [(0, genesis)].into_iter().chain(events) {
                folded.fold_leaf(&leaf_bytes(&leaf(time, event)).unwrap()).unwrap();
            }
            folded
        };
        let events = || vec![(100, permit(100)), (120, confirm())];
        let directory = tempfile::tempdir().unwrap();
        let path = path_of(&directory.path().join("s"));
        let signer = Signer::new(placet_core::SigningKey::generate().unwrap());
        let compared = |written: &Folded| {
            written.write_snapshot(&path, &signer, &|| false).unwrap();
            let comparison = Comparison::open(&path).unwrap().unwrap();
            assert_eq!(comparison.size(), 3);
            comparison.with(&folded(events())).map_err(|error| error.to_string())
        };
        assert_eq!(compared(&folded(events())), Ok(()));
        // Written by whoever has the key: the root is that of the log, the ledger is not.
        let mut forged = folded(events());
        forged.ledger.release(&id("rsv-1"), 1).unwrap();
        forged.ledger.keep();
        let error = compared(&forged).unwrap_err();
        assert!(error.contains("first 3 leaves") && error.contains("`budget/a`"), "{error}");
        let mut forged = folded(events());
        forged.ledger.advance(110).unwrap();
        forged.bundle = Some((Digest::of(b"other"), "7".to_owned()));
        assert!(compared(&forged).unwrap_err().contains("what is active"));
        // A start takes it: the signature is what keeps others from writing one.
        let peaks: BTreeMap<u64, Digest> = forged.tree.peaks().iter().copied().collect();
        let hashes = |numbers: &[u64]| Ok(numbers.iter().map(|number| peaks[number]).collect());
        let faults = Faults::default();
        let taken = Folded::take_up((&path, &signer), &faults, (3, hashes), &|| false);
        assert_eq!(taken.unwrap().unwrap().bundle, forged.bundle);
        let taken = Folded::take_up((&path, &signer), &faults, (2, hashes), &|| false);
        assert!(taken.unwrap_err().to_string().contains("ahead of the log"));
        let is_over = || true;
        let given_up = forged.write_snapshot(&path, &signer, &is_over);
        assert!(matches!(given_up, Err(WriteError::Stopped)));
        assert!(path.exists() && std::fs::read_dir(directory.path()).unwrap().count() == 1);
    }
}
