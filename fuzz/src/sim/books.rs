//! How much of each account is held, added up anew for every question, and what that leaves room
//! for.

use std::collections::BTreeMap;

use placet_core::{AccountKind, AccountPath, Charge, QuotaNode, Unit};

use super::model::LEAD;
use super::reservation::{Held, Term};

/// Most that an account can hold.
const MOST: u64 = (1 << 53) - 1;

/// Accounts that borrow and lend, by path: Kueue's rules, worked out from the root down each time
/// the trees change.
#[derive(Debug, Default)]
pub(super) struct Trees(BTreeMap<AccountPath, Node>);

#[derive(Debug)]
struct Node {
    own: QuotaNode,
    /// What it has and does not lend.
    kept: u64,
    /// Most that it may hold.
    limit: u64,
    children: Vec<AccountPath>,
}

impl Trees {
    pub(super) fn new(nodes: &[QuotaNode]) -> Self {
        let node = |own: &QuotaNode| {
            let quota = quota(nodes, own);
            let limit = match (&own.cohort, own.borrowing_limit) {
                (None, _) => quota,
                (Some(_), Some(borrowed)) => quota + borrowed,
                (Some(_), None) => MOST,
            };
            let children = nodes.iter().filter(|child| child.cohort.as_ref() == Some(&own.account));
            let children = children.map(|child| child.account.clone()).collect();
            let kept = kept(nodes, own);
            (own.account.clone(), Node { own: own.clone(), kept, limit, children })
        };
        Self(nodes.iter().map(node).collect())
    }

    pub(super) fn paths(&self) -> impl Iterator<Item = &AccountPath> {
        self.0.keys()
    }

    pub(super) fn limit(&self, account: &AccountPath) -> Option<u64> {
        self.0.get(account).map(|node| node.limit)
    }

    pub(super) fn unit(&self, account: &AccountPath) -> Option<Unit> {
        self.0.get(account).map(|node| node.own.unit)
    }
}

/// What an account brings in, and what its members lend it.
fn quota(nodes: &[QuotaNode], own: &QuotaNode) -> u64 {
    let members = nodes.iter().filter(|child| child.cohort.as_ref() == Some(&own.account));
    let lent = members.map(|child| quota(nodes, child) - kept(nodes, child));
    own.nominal + lent.sum::<u64>()
}

fn kept(nodes: &[QuotaNode], own: &QuotaNode) -> u64 {
    own.lending_limit.map_or(0, |lent| quota(nodes, own).saturating_sub(lent))
}

/// What is held, and what is held besides for a question.
#[derive(Debug)]
pub(super) struct Books<'a> {
    pub(super) trees: &'a Trees,
    pub(super) now: u64,
    pub(super) live: Vec<Holding<'a>>,
    /// What ended reservations used of budgets.
    pub(super) used: &'a BTreeMap<AccountPath, (Unit, u64)>,
}

/// A live reservation, with those that have to make room for it while it is not confirmed.
#[derive(Debug)]
pub(super) struct Holding<'a> {
    pub(super) held: &'a Held,
    pub(super) victims: Vec<&'a Held>,
}

impl Holding<'_> {
    /// How much of an account it holds at a second, over all stretches of its time.
    pub(super) fn amount(&self, account: &AccountPath, second: u64) -> u64 {
        let until = self.held.until();
        let part = |(term, charge): (&Term, &Charge)| {
            amount(charge, [term.start, term.end.min(until)], &self.victims, second)
        };
        self.held.charges(account).map(part).sum()
    }

    /// Whether it holds anything of a level account from a second on.
    pub(super) fn holds(&self, account: &AccountPath, from: u64) -> bool {
        let ends = self.victims.iter().flat_map(|held| &held.terms).map(|term| term.end);
        let starts = self.held.terms.iter().map(|term| term.start);
        starts.chain(ends).any(|second| self.amount(account, second.max(from)) > 0)
    }
}

/// How much of a charge over an interval is held at a second: nothing that victims hold still.
fn amount(charge: &Charge, when: [u64; 2], victims: &[&Held], second: u64) -> u64 {
    if charge.kind == AccountKind::Budget {
        return charge.amount;
    }
    let is_inside = when[0] <= second && second < when[1];
    let needed = charge.amount.saturating_sub(rest(victims, &charge.account, second));
    if is_inside { needed } else { 0 }
}

/// What victims still hold of a level at a second at which they were to be gone.
fn rest(victims: &[&Held], account: &AccountPath, second: u64) -> u64 {
    let charges = victims.iter().flat_map(|held| held.charges(account));
    let still = charges.filter(|(term, charge)| {
        charge.kind == AccountKind::Level && term.start <= second && second < term.end
    });
    still.map(|(_, charge)| charge.amount).sum()
}

/// Charges over an interval.
#[derive(Debug, Clone)]
pub(super) struct Wanted<'a> {
    pub(super) charges: Vec<Charge>,
    pub(super) when: [u64; 2],
    /// Who is to make room.
    pub(super) victims: Vec<&'a Held>,
}

/// A charge for which there is no room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Obstacle {
    /// Which charge.
    pub(super) index: usize,
    /// The account, or the one above it that has no room.
    pub(super) binding: AccountPath,
    /// How much would fit.
    pub(super) free: u64,
    /// What the charged account itself may hold, if it is the one.
    pub(super) limit: Option<u64>,
}

/// What would be admitted instead: GPUs, seconds, start.
pub(super) type Fit = (Option<u32>, Option<u64>, Option<u64>);

impl Books<'_> {
    /// What is charged to an account itself at a second.
    fn direct(&self, besides: &Wanted<'_>, account: &AccountPath, second: u64) -> u64 {
        let live = self.live.iter().map(|one| one.amount(account, second));
        let used = self.used.get(account).map_or(0, |used| used.1);
        let charge = besides.charges.iter().find(|charge| charge.account == *account);
        let Wanted { when, victims, .. } = besides;
        let asked = charge.map_or(0, |charge| amount(charge, *when, victims, second));
        live.sum::<u64>() + used + asked
    }

    /// What an account holds at a second, with what flows up to it.
    fn level(&self, besides: &Wanted<'_>, account: &AccountPath, second: u64) -> u64 {
        let children = self.trees.0.get(account).map(|node| &*node.children).unwrap_or_default();
        let flow = |child: &AccountPath| {
            let kept = self.trees.0.get(child).map_or(0, |node| node.kept);
            self.level(besides, child, second).saturating_sub(kept)
        };
        self.direct(besides, account, second) + children.iter().map(flow).sum::<u64>()
    }

    /// Use of an account now.
    pub(super) fn usage(&self, account: &AccountPath) -> u64 {
        let nothing = Wanted { charges: Vec::new(), when: [0, 0], victims: Vec::new() };
        self.level(&nothing, account, self.now)
    }

    /// The seconds of an interval at which more may be held than the second before: its first,
    /// where a reservation starts or goes on, and where a victim ends, or goes on, that held what
    /// another needs.
    fn rises(&self, wanted: &Wanted<'_>) -> Vec<u64> {
        let [first, end] = wanted.when;
        let terms = self.live.iter().flat_map(|one| &one.held.terms);
        let starts = terms.map(|term| term.start);
        let waited = self.live.iter().flat_map(|one| &one.victims).chain(&wanted.victims);
        let turns = starts.chain(waited.flat_map(|held| &held.terms).map(|term| term.end));
        let inside = turns.filter(|second| first < *second && *second < end);
        let mut seconds: Vec<u64> = std::iter::once(first).chain(inside).collect();
        seconds.sort_unstable();
        seconds.dedup();
        seconds
    }

    /// Where one more charge has no room, by the first account on the way up that has none; and
    /// what may be held there, and is.
    fn obstacle(&self, held: &Wanted<'_>, charge: &Charge) -> Option<(AccountPath, u64, u64)> {
        let seconds = self.rises(held);
        let account = &charge.account;
        let node = self.trees.0.get(account);
        let limit = node.map_or(charge.limit, |node| node.limit.min(charge.limit));
        // When the victims are gone, if it has any.
        let others = |second: &u64| {
            let gone = if charge.kind == AccountKind::Level { &*held.victims } else { &[] };
            self.level(held, account, *second) - rest(gone, account, *second)
        };
        let levels = seconds.iter().map(others);
        let peak = levels.max().unwrap_or(0);
        if peak + charge.amount > limit {
            return Some((account.clone(), limit, peak));
        }
        let mut with = held.clone();
        with.charges.push(charge.clone());
        let mut above = node.and_then(|node| node.own.cohort.as_ref());
        while let Some(cohort) = above {
            let node = self.trees.0.get(cohort)?;
            let passes = |second: &u64| {
                let after = self.level(&with, cohort, *second);
                after > self.level(held, cohort, *second) && after > node.limit
            };
            if seconds.iter().any(passes) {
                return Some((cohort.clone(), node.limit, 0));
            }
            above = node.own.cohort.as_ref();
        }
        None
    }

    /// Every charge for which there is no room, each looked at after those before it are held.
    pub(super) fn obstacles(&self, wanted: &Wanted<'_>) -> Vec<Obstacle> {
        let mut held = Wanted { charges: Vec::new(), ..wanted.clone() };
        let mut obstacles = Vec::new();
        for (index, charge) in wanted.charges.iter().enumerate() {
            let Some((binding, limit, peak)) = self.obstacle(&held, charge) else {
                held.charges.push(charge.clone());
                continue;
            };
            let is_own = binding == charge.account;
            let free = if is_own { limit.saturating_sub(peak) } else { self.room(&held, charge) };
            obstacles.push(Obstacle { index, binding, free, limit: is_own.then_some(limit) });
        }
        obstacles
    }

    /// Most of a charge, up to what it asks for, for which there is room.
    fn room(&self, held: &Wanted<'_>, charge: &Charge) -> u64 {
        let fits =
            |amount: u64| self.obstacle(held, &Charge { amount, ..charge.clone() }).is_none();
        let (mut fine, mut beyond) = (0, charge.amount + 1);
        while beyond - fine > 1 {
            let middle = fine.midpoint(beyond);
            if fits(middle) { fine = middle } else { beyond = middle }
        }
        fine
    }

    /// The same while nothing else is asked for.
    pub(super) fn free(&self, charge: &Charge, when: [u64; 2]) -> u64 {
        self.room(&Wanted { charges: Vec::new(), when, victims: Vec::new() }, charge)
    }

    fn fits(&self, charges: Vec<Charge>, when: [u64; 2]) -> bool {
        self.is_room(&Wanted { charges, when, victims: Vec::new() })
    }

    /// Whether there is room for all of it.
    pub(super) fn is_room(&self, wanted: &Wanted<'_>) -> bool {
        let mut held = Wanted { charges: Vec::new(), ..wanted.clone() };
        wanted.charges.iter().all(|charge| {
            let fits = self.obstacle(&held, charge).is_none();
            held.charges.push(charge.clone());
            fits
        })
    }

    /// What would be admitted instead, each number tried one after the other.
    pub(super) fn fit(&self, wanted: &Wanted<'_>, gpus: u64) -> Fit {
        let Wanted { charges, when: [start, end], .. } = wanted;
        let length = end - start;
        let scaled = |by_time: bool, part: u64, whole: u64| -> Vec<Charge> {
            let scale = |charge: &Charge| {
                let grows = match charge.unit {
                    Unit::GpuSecond => true,
                    Unit::MilliGpu => !by_time,
                    Unit::Gbps | Unit::Byte | Unit::Count => false,
                };
                let amount = (charge.amount * part).div_ceil(whole);
                Charge { amount: if grows { amount } else { charge.amount }, ..charge.clone() }
            };
            charges.iter().map(scale).collect()
        };
        let fewer =
            (1..gpus).rev().find(|count| self.fits(scaled(false, *count, gpus), wanted.when));
        let shorter =
            |seconds: &u64| self.fits(scaled(true, *seconds, length), [*start, start + seconds]);
        let shorter = (1..length).rev().find(shorter);
        // Room comes only where something ends.
        let ends = self
            .live
            .iter()
            .flat_map(|one| one.held.terms.iter().map(|term| term.end.min(one.held.until())));
        let mut ends: Vec<u64> = ends.filter(|end| end > start).collect();
        ends.sort_unstable();
        ends.dedup();
        let later = |at: &u64| self.fits(charges.clone(), [*at, at + length]);
        let later = ends.into_iter().find(later).filter(|at| *at <= self.now + LEAD);
        (fewer.and_then(|gpus| u32::try_from(gpus).ok()), shorter, later)
    }
}
