//! Who is served next: the pure rules, without threads or clocks.
//!
//! There are two lanes, each with threads of its own. A tenant is in one of them at a time: in the
//! slow one if its evaluations turned out to be expensive, else in the fast one. Within a lane the
//! tenant comes first that was served least (start-time fair queueing): a tenant's tag is the time
//! that the lane's threads have spent on it, and one that comes back from idling starts at the
//! lane's clock, so that it saves nothing up. What an evaluation costs is known only after it: the
//! mean of the tenant is charged when it starts, and set right when it ends.
//!
//! A tenant of which nothing is known yet has one evaluation at a time, so that an expensive one
//! takes one thread from the others, once.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt::Debug;
use std::time::Duration;

/// How many times what is typical an evaluation may take on the mean before its tenant goes to the
/// slow lane. What is typical differs by machine and bundle: it is the median of the tenants'
/// means, the lower one of two, so that of a good tenant and an expensive one the good one counts.
const TIMES_TYPICAL: u32 = 4;
/// Nobody is expensive up to this, however cheap the others are: it is about what the system lets a
/// thread run before another has its turn.
pub(super) const NEVER_EXPENSIVE: Duration = Duration::from_millis(2);
/// Everybody is above this, whatever the others take: what a request of another tenant may have to
/// wait for its turn.
pub(super) const ALWAYS_EXPENSIVE: Duration = Duration::from_millis(10);
/// What is typical is worked out anew when one in so many tenants may have changed: its cost for
/// each evaluation does not grow with the tenants.
const LOOKED_AT_PER_END: usize = 16;
/// The newest evaluation counts as much as all before it together: one of twice the threshold is
/// enough, since it may be followed by others at once.
const NEWEST_IN_MEAN: u32 = 2;
/// Evaluations after which a tenant in the fast lane may have several at a time.
const TRIAL: u32 = 8;
/// Cheap evaluations in a row that lead back to the fast lane, for the first time.
const FIRST_PENANCE: u32 = 64;
/// The same for one that keeps coming back: it doubles each time up to this, or mixing an expensive
/// evaluation into every few cheap ones would win the fast lane again and again.
const MAX_PENANCE: u32 = 65_536;
/// So many times that many cheap ones in a row in the fast lane halve it again: on a busy machine
/// every evaluation takes long now and then, and nobody is to be held to that for ever.
const FORGIVEN_AFTER: u32 = 4;
/// The least that a turn is charged: what handing a job over costs.
const LEAST: Duration = Duration::from_micros(10);
/// Tenants that are remembered, busy ones apart. Past it the idle ones are forgotten, and tried
/// anew.
const REMEMBERED: usize = 4_096;

/// Which threads serve a tenant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lane {
    /// For most.
    Fast,
    /// For tenants whose evaluations are expensive.
    Slow,
}

/// Jobs that wait, by tenant.
#[derive(Debug)]
pub(super) struct Queue<K, J> {
    tenants: BTreeMap<K, Tenant<J>>,
    fast: Turns<K>,
    slow: Turns<K>,
    /// Mean evaluation time above which a tenant goes to the slow lane.
    expensive: Duration,
    /// Evaluations that ended since it was worked out.
    ended: usize,
    /// Where the next sweep of idle tenants is due.
    sweep_at: usize,
}

/// A lane: the tenants that may be served, by tag.
#[derive(Debug)]
struct Turns<K> {
    order: BTreeSet<(Duration, K)>,
    /// Tag of the tenant that was served last.
    clock: Duration,
    /// Jobs of the lane's tenants.
    waiting: usize,
}

#[derive(Debug)]
struct Tenant<J> {
    jobs: VecDeque<J>,
    lane: Lane,
    /// Time spent on it, or charged to it, on the lane's clock.
    tag: Duration,
    /// Whether the tag stands in the lane's order.
    in_order: bool,
    running: u32,
    mean: Duration,
    /// Evaluations since it came into its lane.
    seen: u32,
    /// Cheap evaluations in a row.
    cheap: u32,
    penance: u32,
}

/// A job to do, and what was charged for it.
#[derive(Debug)]
#[must_use = "a turn that is not ended keeps its tenant on trial for ever"]
pub(super) struct Turn<K, J> {
    pub(super) tenant: K,
    pub(super) job: J,
    charged: Duration,
}

impl<K, J> Turn<K, J> {
    /// What is needed to end the turn, apart from the job.
    pub(super) fn split(self) -> (Turn<K, ()>, J) {
        (Turn { tenant: self.tenant, job: (), charged: self.charged }, self.job)
    }
}

impl<J> Tenant<J> {
    fn new(tag: Duration) -> Self {
        Self {
            jobs: VecDeque::new(),
            lane: Lane::Fast,
            tag,
            in_order: false,
            running: 0,
            mean: Duration::ZERO,
            seen: 0,
            cheap: 0,
            penance: FIRST_PENANCE,
        }
    }

    fn is_idle(&self) -> bool {
        self.jobs.is_empty() && self.running == 0
    }

    fn may_run(&self) -> bool {
        let on_trial = self.lane == Lane::Fast && self.seen < TRIAL;
        let one_is_enough = on_trial && self.running > 0;
        !self.jobs.is_empty() && !one_is_enough
    }

    /// Takes note of what an evaluation cost, and says in which lane the tenant is to be.
    fn judge(&mut self, cost: Duration, expensive: Duration) -> Lane {
        self.seen = self.seen.saturating_add(1);
        self.mean = self.mean.saturating_add(cost) / NEWEST_IN_MEAN;
        self.cheap = if cost > expensive { 0 } else { self.cheap.saturating_add(1) };
        if self.lane == Lane::Fast && self.cheap >= self.penance.saturating_mul(FORGIVEN_AFTER) {
            self.cheap = 0;
            self.penance = (self.penance / 2).max(FIRST_PENANCE);
        }
        match self.lane {
            Lane::Fast if self.mean > expensive => Lane::Slow,
            Lane::Slow if self.cheap >= self.penance && self.mean <= expensive => Lane::Fast,
            stays => stays,
        }
    }
}

impl<K: Ord> Turns<K> {
    fn new() -> Self {
        Self { order: BTreeSet::new(), clock: Duration::ZERO, waiting: 0 }
    }
}

impl<K: Ord + Clone + Debug, J> Queue<K, J> {
    pub(super) fn new() -> Self {
        Self {
            tenants: BTreeMap::new(),
            fast: Turns::new(),
            slow: Turns::new(),
            expensive: ALWAYS_EXPENSIVE,
            ended: 0,
            sweep_at: REMEMBERED,
        }
    }

    /// Queues a job behind those of its tenant. Bounded by the room that its caller was given.
    pub(super) fn push(&mut self, tenant: &K, job: J) {
        self.sweep();
        let start = self.fast.clock;
        let entry = self.tenants.entry(tenant.clone()).or_insert_with(|| Tenant::new(start));
        let (lane, had_none) = (entry.lane, entry.jobs.is_empty());
        entry.jobs.push_back(job);
        let turns = self.lane(lane);
        turns.waiting += 1;
        let clock = turns.clock;
        if had_none {
            // Whoever asked for nothing meanwhile has saved nothing up.
            let entry = self.tenants.get_mut(tenant).expect("it was just put there");
            entry.tag = entry.tag.max(clock);
        }
        self.put_in_order(tenant);
    }

    /// The next job of a lane; [`Queue::end`] must be told when it is done.
    pub(super) fn pop(&mut self, lane: Lane) -> Option<Turn<K, J>> {
        let turns = self.lane(lane);
        let (tag, tenant) = turns.order.pop_first()?;
        turns.clock = turns.clock.max(tag);
        turns.waiting -= 1;
        let entry = self.tenants.get_mut(&tenant).expect("a tenant in a lane's order is known");
        entry.in_order = false;
        let job = entry.jobs.pop_front().expect("a tenant in a lane's order has a job");
        entry.running += 1;
        let charged = entry.mean.max(LEAST);
        entry.tag = entry.tag.saturating_add(charged);
        self.put_in_order(&tenant);
        Some(Turn { tenant, job, charged })
    }

    /// A job is done and took so long; none if it was not begun, which costs its tenant nothing.
    pub(super) fn end(&mut self, turn: Turn<K, ()>, cost: Option<Duration>) {
        let Turn { tenant, job: (), charged } = turn;
        self.take_out_of_order(&tenant);
        let expensive = self.expensive;
        let entry = self.tenants.get_mut(&tenant).expect("a tenant with a job under way is known");
        entry.running -= 1;
        let spent = cost.map_or(LEAST, |cost| cost.max(LEAST));
        entry.tag = entry.tag.saturating_add(spent).saturating_sub(charged);
        let (from, to) = (entry.lane, cost.map_or(entry.lane, |cost| entry.judge(cost, expensive)));
        if from != to {
            self.change_lane(&tenant, to);
        }
        self.put_in_order(&tenant);
        self.ended = self.ended.saturating_add(1);
        if self.ended.saturating_mul(LOOKED_AT_PER_END) >= self.tenants.len() {
            self.ended = 0;
            self.expensive = self.threshold();
        }
    }

    /// From what on an evaluation is expensive, by what is typical of the tenants that are known.
    fn threshold(&self) -> Duration {
        let known = self.tenants.values().filter(|tenant| !tenant.mean.is_zero());
        let mut means: Vec<Duration> = known.map(|tenant| tenant.mean).collect();
        let Some(middle) = means.len().checked_sub(1).map(|last| last / 2) else {
            return ALWAYS_EXPENSIVE;
        };
        let (_, typical, _) = means.select_nth_unstable(middle);
        typical.saturating_mul(TIMES_TYPICAL).clamp(NEVER_EXPENSIVE, ALWAYS_EXPENSIVE)
    }

    /// Jobs that wait in a lane.
    pub(super) fn waiting(&self, lane: Lane) -> usize {
        match lane {
            Lane::Fast => self.fast.waiting,
            Lane::Slow => self.slow.waiting,
        }
    }

    /// Whether no job waits.
    pub(super) fn is_empty(&self) -> bool {
        self.fast.waiting + self.slow.waiting == 0
    }

    /// Whether a thread of a lane would find a job now.
    pub(super) fn has_turn(&self, lane: Lane) -> bool {
        let turns = match lane {
            Lane::Fast => &self.fast,
            Lane::Slow => &self.slow,
        };
        !turns.order.is_empty()
    }

    fn lane(&mut self, lane: Lane) -> &mut Turns<K> {
        match lane {
            Lane::Fast => &mut self.fast,
            Lane::Slow => &mut self.slow,
        }
    }

    /// A tenant's jobs go with it, in their order.
    fn change_lane(&mut self, tenant: &K, to: Lane) {
        let entry = self.tenants.get_mut(tenant).expect("a tenant that changes lanes is known");
        let (from, jobs) = (std::mem::replace(&mut entry.lane, to), entry.jobs.len());
        (entry.seen, entry.cheap) = (0, 0);
        if to == Lane::Slow {
            tracing::info!(?tenant, mean = ?entry.mean, "its evaluations are expensive");
        } else {
            entry.penance = entry.penance.saturating_mul(2).min(MAX_PENANCE);
        }
        self.lane(from).waiting -= jobs;
        let turns = self.lane(to);
        turns.waiting += jobs;
        let clock = turns.clock;
        let entry = self.tenants.get_mut(tenant).expect("a tenant that changes lanes is known");
        // The clocks of the lanes have nothing in common.
        entry.tag = clock;
    }

    fn put_in_order(&mut self, tenant: &K) {
        let entry = self.tenants.get_mut(tenant).expect("a tenant that is put in order is known");
        if entry.in_order || !entry.may_run() {
            return;
        }
        let turns = match entry.lane {
            Lane::Fast => &mut self.fast,
            Lane::Slow => &mut self.slow,
        };
        entry.in_order = true;
        turns.order.insert((entry.tag, tenant.clone()));
    }

    fn take_out_of_order(&mut self, tenant: &K) {
        let entry = self.tenants.get_mut(tenant).expect("a tenant with a job under way is known");
        if std::mem::take(&mut entry.in_order) {
            let (key, lane) = ((entry.tag, tenant.clone()), entry.lane);
            self.lane(lane).order.remove(&key);
        }
    }

    /// Forgets idle tenants when there are many. Amortised: what is left is busy, and the next
    /// sweep is due when there are twice as many.
    fn sweep(&mut self) {
        if self.tenants.len() >= self.sweep_at {
            self.tenants.retain(|_, tenant| !tenant.is_idle());
            self.sweep_at = REMEMBERED.max(self.tenants.len().saturating_mul(2));
        }
    }
}

#[cfg(test)]
mod tests;
