//! The trees of quotas: what accounts borrow from one another and lend.
//!
//! The rules are Kueue's. The *quota* of an account is its nominal quota and what its children lend
//! it; of that it keeps what is above its lending limit for itself. Use above what it keeps flows
//! up to its cohort, and so on. An account may hold its quota and its borrowing limit; the root of
//! a tree has nobody to borrow from.
//!
//! All of it holds at every second: how much flows is a step function of time that follows from the
//! level of the account. Nothing has to be done when time passes.

use std::collections::{BTreeMap, BTreeSet};

use placet_core::{AccountKind, AccountPath, MAX_AMOUNT, QuotaNode, Unit};

use super::journal::Undo;
use super::timeline::{Bound, Broken, Timeline, TimelineUndo};
use super::{Account, Defect, Ledger};

/// Most accounts from a leaf to its root: each is work for every claim on the leaf.
pub const MAX_TREE_DEPTH: usize = 8;
/// Most steps of what would flow up that are looked at to find out whether it fits: beyond them all
/// of it is taken to flow. Each costs about a microsecond, for each try of what would fit instead.
const MAX_STEPS: usize = 256;
/// Most nodes in one leaf of the log: 48 bytes of JSON beside two paths of 512 bytes fit 65,535.
pub(crate) const MAX_NODES_IN_LEAF: usize = 48;

/// Why a list of nodes is no forest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum QuotasError {
    /// A cohort is not among the nodes.
    #[error("the cohort of `{0}` is not there")]
    NoCohort(AccountPath),
    /// A tree runs in a circle or is too deep.
    #[error("`{0}` is more than {MAX_TREE_DEPTH} levels below its root, or below itself")]
    Deep(AccountPath),
    /// Accounts of one tree count different things.
    #[error("`{0}` counts something else than its cohort")]
    Unit(AccountPath),
    /// A limit is beyond what can be kept exactly.
    #[error("a limit of `{0}` is above 2^53-1")]
    TooMuch(AccountPath),
    /// The ledger contradicts itself: a bug.
    #[error("the ledger's books are wrong")]
    Broken,
}

/// An account in a tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Node {
    pub(super) own: QuotaNode,
    children: BTreeSet<AccountPath>,
    /// Nominal quota and what the children lend.
    quota: u64,
    /// What of it is never lent.
    kept: u64,
    /// Highest level, borrowing included; `MAX_AMOUNT` without a bound.
    pub(super) limit: u64,
    /// What is charged to the account and what flows up from the children; empty for an account
    /// without children, whose own timeline says it all.
    pub(super) total: Timeline,
}

/// The forest, by account.
pub(super) type Nodes = BTreeMap<AccountPath, Node>;

/// A part of an interval over which one amount is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Segment {
    pub(super) start: u64,
    pub(super) end: u64,
    pub(super) amount: u64,
}

/// Where an amount does not fit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Obstacle {
    /// The account, or one above it.
    pub(super) binding: AccountPath,
    pub(super) limit: u64,
    /// Highest level of it within the interval.
    pub(super) peak: u64,
    /// First second at which it is too much.
    pub(super) at: u64,
    /// No start before this second would help; `None` if none ever does.
    pub(super) until: Option<u64>,
}

/// Checks that nodes make up a forest, and works out what each may hold. Only a test lends all.
pub(super) fn forest(
    nodes: impl IntoIterator<Item = QuotaNode>,
    lends_all: bool,
) -> Result<Nodes, QuotasError> {
    let node = |own: QuotaNode| {
        let (children, total) = (BTreeSet::new(), Timeline::default());
        (own.account.clone(), Node { own, children, quota: 0, kept: 0, limit: 0, total })
    };
    let mut nodes: Nodes = nodes.into_iter().map(node).collect();
    let mut levels: BTreeMap<usize, Vec<AccountPath>> = BTreeMap::new();
    for (path, node) in &nodes {
        let limits = [node.own.borrowing_limit, node.own.lending_limit, Some(node.own.nominal)];
        if limits.into_iter().flatten().any(|limit| limit > MAX_AMOUNT) {
            return Err(QuotasError::TooMuch(path.clone()));
        }
        let (mut depth, mut at) = (0_usize, node);
        while let Some(cohort) = &at.own.cohort {
            at = nodes.get(cohort).ok_or_else(|| QuotasError::NoCohort(at.own.account.clone()))?;
            depth = depth.saturating_add(1);
            if depth >= MAX_TREE_DEPTH {
                return Err(QuotasError::Deep(path.clone()));
            }
        }
        if at.own.unit != node.own.unit {
            return Err(QuotasError::Unit(path.clone()));
        }
        levels.entry(depth).or_default().push(path.clone());
    }
    for path in levels.into_values().rev().flatten() {
        let Some(node) = nodes.get_mut(&path) else { continue };
        let own = &node.own;
        node.quota = node.quota.saturating_add(own.nominal).min(MAX_AMOUNT);
        let lending_limit = own.lending_limit.filter(|_| !lends_all);
        node.kept = lending_limit.map_or(0, |lent| node.quota.saturating_sub(lent));
        node.limit = match (&own.cohort, own.borrowing_limit) {
            (None, _) => node.quota,
            (Some(_), Some(borrowed)) => node.quota.saturating_add(borrowed).min(MAX_AMOUNT),
            (Some(_), None) => MAX_AMOUNT,
        };
        let lent = node.quota.saturating_sub(node.kept);
        let cohort = own.cohort.clone();
        if let Some(cohort) = cohort.and_then(|cohort| nodes.get_mut(&cohort)) {
            cohort.quota = cohort.quota.saturating_add(lent);
            cohort.children.insert(path);
        }
    }
    Ok(nodes)
}

impl Ledger {
    /// Most that an account in a tree may hold, borrowing included; `None` outside of the trees.
    /// Less may be free: others may have borrowed what it has lent.
    #[must_use]
    pub fn tree_limit(&self, account: &AccountPath) -> Option<u64> {
        let node = self.nodes.get(account)?;
        (!self.breaks(Defect::BorrowingLimitIgnored)).then_some(node.limit)
    }

    /// The nodes of all trees, in the order of their paths.
    pub fn quotas(&self) -> impl Iterator<Item = &QuotaNode> {
        self.nodes.values().map(|node| &node.own)
    }

    /// Replaces nodes of the trees, and takes others out. What is held stays held; where it is more
    /// than may be held now, nothing new is admitted.
    ///
    /// # Errors
    /// [`QuotasError`] if the result is no forest; nothing has changed then.
    pub fn set_quotas(
        &mut self,
        changed: &[QuotaNode],
        removed: &[AccountPath],
    ) -> Result<(), QuotasError> {
        let mut all: BTreeMap<AccountPath, QuotaNode> =
            self.nodes.values().map(|node| (node.own.account.clone(), node.own.clone())).collect();
        for path in removed {
            all.remove(path);
        }
        all.extend(changed.iter().map(|node| (node.account.clone(), node.clone())));
        let mut nodes = forest(all.into_values(), self.breaks(Defect::LendingLimitIgnored))?;
        self.fill(&mut nodes).map_err(|Broken| QuotasError::Broken)?;
        let old = std::mem::replace(&mut self.nodes, nodes);
        self.journal.push(Undo::Nodes(old));
        Ok(())
    }

    /// Works out what every account with children holds, the deepest first.
    pub(super) fn fill(&self, nodes: &mut Nodes) -> Result<(), Broken> {
        let paths: Vec<AccountPath> = nodes.keys().cloned().collect();
        let mut done = BTreeSet::new();
        for path in paths {
            self.fill_one(nodes, &path, &mut done)?;
        }
        Ok(())
    }

    fn fill_one(
        &self,
        nodes: &mut Nodes,
        path: &AccountPath,
        done: &mut BTreeSet<AccountPath>,
    ) -> Result<(), Broken> {
        let Some(node) = nodes.get(path) else { return Ok(()) };
        if node.children.is_empty() || !done.insert(path.clone()) {
            return Ok(());
        }
        let children = node.children.clone();
        let mut total = self.direct(path).cloned().unwrap_or_default();
        total.advance(self.now, &mut |_| {})?;
        for child in &children {
            self.fill_one(nodes, child, done)?;
            let Some(node) = nodes.get(child) else { continue };
            let Some(held) = self.level_of(node) else { continue };
            let levels = held.levels()?;
            let ends = levels.iter().skip(1).map(|(at, _)| *at).chain([u64::MAX]);
            for ((start, level), end) in levels.iter().zip(ends) {
                let flow = level.saturating_sub(node.kept);
                if flow > 0 && end > self.now {
                    total.add((*start).max(self.now), end, flow, &mut |_| {})?;
                }
            }
        }
        if let Some(node) = nodes.get_mut(path) {
            node.total = total;
        }
        Ok(())
    }

    /// What is charged to an account itself.
    fn direct(&self, path: &AccountPath) -> Option<&Timeline> {
        match self.accounts.get(path) {
            Some(Account::Level(_, timeline)) => Some(timeline),
            Some(Account::Budget(..)) | None => None,
        }
    }

    /// What an account in a tree holds.
    pub(super) fn level_of<'a>(&'a self, node: &'a Node) -> Option<&'a Timeline> {
        if node.children.is_empty() { self.direct(&node.own.account) } else { Some(&node.total) }
    }

    /// Highest level of an account within an interval, what flows up to it included.
    pub(super) fn peak(&self, path: &AccountPath, start: u64, end: u64) -> Result<u64, Broken> {
        let held = match self.nodes.get(path) {
            Some(node) => self.level_of(node),
            None => self.direct(path),
        };
        held.map_or(Ok(0), |held| held.peak(start, end))
    }

    /// Whether an account's node, if it has one, counts this.
    pub(super) fn node_fits(&self, path: &AccountPath, kind: AccountKind, unit: Unit) -> bool {
        let node = self.nodes.get(path);
        node.is_none_or(|node| kind == AccountKind::Level && node.own.unit == unit)
    }

    /// What flows up from an account if it holds more: by how much its cohort's level rises, and
    /// when. The amounts are not yet held.
    ///
    /// With `most` steps, what lies beyond them is taken to flow up in full: more than it does, so
    /// that what fits then fits for certain.
    fn flow(
        &self,
        node: &Node,
        segments: &[Segment],
        most: Option<usize>,
    ) -> Result<Vec<Segment>, Broken> {
        let none = Timeline::default();
        let held = self.level_of(node).unwrap_or(&none);
        let (mut flows, mut steps): (Vec<Segment>, usize) = (Vec::new(), 0);
        for segment in segments {
            let mut at = segment.start;
            while at < segment.end {
                steps = steps.saturating_add(1);
                if most.is_some_and(|most| steps > most) {
                    flows.push(Segment { start: at, ..*segment });
                    break;
                }
                let level = held.level(at)?;
                let reaches = level.checked_add(segment.amount).ok_or(Broken)?;
                let amount = reaches.saturating_sub(node.kept).min(segment.amount);
                let next = if level >= node.kept {
                    let below = node.kept.checked_sub(1);
                    below.map_or(Ok(None), |below| held.next(at, Bound::AtMost(below)))?
                } else if reaches <= node.kept {
                    let room = node.kept.checked_sub(segment.amount).ok_or(Broken)?;
                    held.next(at, Bound::Above(room))?
                } else {
                    held.next_change(at)
                };
                let end = next.unwrap_or(u64::MAX).min(segment.end);
                match flows.last_mut() {
                    Some(last) if last.end == at && last.amount == amount => last.end = end,
                    _ if amount > 0 => flows.push(Segment { start: at, end, amount }),
                    _ => {}
                }
                at = end;
            }
        }
        Ok(flows)
    }

    /// Where an amount over an interval does not fit: below a limit of the account itself, then
    /// above it in its tree.
    pub(super) fn obstacle(
        &self,
        path: &AccountPath,
        segment: Segment,
        limit: u64,
    ) -> Result<Option<Obstacle>, Broken> {
        let none = Timeline::default();
        let mut node = self.nodes.get(path);
        let held = match node {
            Some(node) => self.level_of(node),
            None => self.direct(path),
        };
        let held = held.unwrap_or(&none);
        let bound = node.filter(|_| !self.breaks(Defect::BorrowingLimitIgnored));
        let limit = bound.map_or(limit, |node| node.limit.min(limit));
        if let Some(found) = obstacle_of(held, path, limit, &[segment], &[])? {
            return Ok(Some(found));
        }
        if self.breaks(Defect::CohortNotAsked) {
            return Ok(None);
        }
        let (mut segments, mut below) = (vec![segment], vec![held]);
        while let Some(child) = node {
            segments = self.flow(child, &segments, Some(MAX_STEPS))?;
            node = child.own.cohort.as_ref().and_then(|cohort| self.nodes.get(cohort));
            let Some(cohort) = node.filter(|_| !segments.is_empty()) else { break };
            let (held, path) = (self.level_of(cohort).unwrap_or(&none), &cohort.own.account);
            let found = obstacle_of(held, path, cohort.limit, &segments, &below)?;
            if found.is_some() {
                return Ok(found);
            }
            below.push(held);
        }
        Ok(None)
    }

    /// First second after `after` at which the level of an account, or of one above it, changes.
    pub(super) fn next_change(&self, path: &AccountPath, after: u64) -> Option<u64> {
        let mut change = self.direct(path).and_then(|held| held.next_change(after));
        let mut node = self.nodes.get(path);
        while let Some(own) = node {
            let next = self.level_of(own).and_then(|held| held.next_change(after));
            change = change.into_iter().chain(next).min();
            node = own.own.cohort.as_ref().and_then(|cohort| self.nodes.get(cohort));
        }
        change
    }

    /// Carries what an account holds more, or no longer, up its tree. The account's own timeline is
    /// changed by the caller: after this if it holds more, before this if it holds less.
    pub(super) fn carry(
        &mut self,
        path: &AccountPath,
        segment: Segment,
        more: bool,
    ) -> Result<(), Broken> {
        let (mut segments, mut at) = (vec![segment], path.clone());
        loop {
            let Some(node) = self.nodes.get(&at) else { return Ok(()) };
            if segments.is_empty() {
                return Ok(());
            }
            let flows = if more { Some(self.flow(node, &segments, None)?) } else { None };
            if !node.children.is_empty() {
                self.shift_total(&at, &segments, more)?;
            }
            let Some(node) = self.nodes.get(&at) else { return Ok(()) };
            segments = match flows {
                Some(flows) => flows,
                None => self.flow(node, &segments, None)?,
            };
            let Some(cohort) = node.own.cohort.clone() else { return Ok(()) };
            at = cohort;
        }
    }

    fn shift_total(
        &mut self,
        path: &AccountPath,
        segments: &[Segment],
        more: bool,
    ) -> Result<(), Broken> {
        let Some(node) = self.nodes.get_mut(path) else { return Err(Broken) };
        let journal = &mut self.journal;
        let undo = &mut |one: TimelineUndo| journal.push(Undo::Total(path.clone(), one));
        node.total.advance(self.now, undo)?;
        for segment in segments {
            let amount = i64::try_from(segment.amount).map_err(|_beyond| Broken)?;
            let change = if more { amount } else { amount.checked_neg().ok_or(Broken)? };
            node.total.shift(segment.start, segment.end, change, undo)?;
        }
        Ok(())
    }
}

/// Where segments do not fit below a limit. `below` are the levels that the segments depend on.
fn obstacle_of(
    held: &Timeline,
    path: &AccountPath,
    limit: u64,
    segments: &[Segment],
    below: &[&Timeline],
) -> Result<Option<Obstacle>, Broken> {
    for segment in segments {
        let Segment { start, end, amount } = *segment;
        let peak = held.peak(start, end)?;
        if amount <= limit.saturating_sub(peak) {
            continue;
        }
        let (at, fits) = match limit.checked_sub(amount) {
            // It is more than the limit by itself.
            None => (start, None),
            Some(room) if held.level(start)? > room => {
                (start, held.next(start, Bound::AtMost(room))?)
            }
            Some(room) => {
                let at = held.next(start, Bound::Above(room))?.ok_or(Broken)?;
                (at, held.next(at, Bound::AtMost(room))?)
            }
        };
        // Another part may flow up once a level below has changed.
        let changes = below.iter().filter_map(|below| below.next_change(at));
        let until = changes.chain(fits).min();
        return Ok(Some(Obstacle { binding: path.clone(), limit, peak, at, until }));
    }
    Ok(None)
}
