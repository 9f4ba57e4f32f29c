//! The ledger as a row of items, and back: what a snapshot holds of it.
//!
//! The items of a ledger are a function of what it holds: every list is in the order of its keys.
//! What follows from other items is left out and worked out again: what is due, what may be
//! displaced, what accounts in trees hold of one another. The levels of accounts follow too, but
//! are written down: so [`Ledger::audit`], which works them out from the reservations, has
//! something to compare.
//!
//! This is the one place that knows the form. Every struct of the ledger is taken apart here field
//! by field, so that one that gets another field does not compile until this is told; and a test
//! knows the bytes, so that the form does not change without [`FORMAT`].

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use placet_core::{
    APPROVAL_VERSION, AccountKind, AccountPath, Charge, Digest, ExpiryCause, FreezeClaims,
    FreezeScope, Grant, Id, IsolationLevel, MAX_AMOUNT, PriorityClass, QuotaNode, ReservationState,
    SlaTerms, SubjectKind, Unit,
};
use serde::{Deserialize, Serialize};

use super::approved::{Freeze, Freezes, MAX_FREEZES, MAX_WAIVERS_IN_USE, WaiverUse};
use super::cohorts::forest;
use super::preempt::{Order, Part, Parts, Plan};
use super::spared::MAX_TENANTS_EVICTED;
use super::timeline::Timeline;
use super::{
    Account, Booking, Budget, Defect, Ended, Ledger, MAX_CHARGES, MAX_ENDED, MAX_TERMS,
    Reservation, Term, Work,
};

/// Version of the form: raised with every change of it. What has another is not read.
pub(crate) const FORMAT: u32 = 2;
/// Longest item in bytes: a reservation that was made longer 63 times, each time with as many
/// charges as a leaf can hold, is half as long.
pub(crate) const MAX_ITEM_BYTES: usize = 8 << 20;

/// Why items are no ledger.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ItemError {
    /// An item is none, or stands at the wrong place.
    #[error("item {number} {what}")]
    Item {
        /// Its number, from 0.
        number: u64,
        /// What is wrong with it.
        what: &'static str,
    },
    /// They contradict one another.
    #[error("its items {0}")]
    Sum(&'static str),
}

/// One part of a ledger. The order of the kinds is that in which they come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
enum Item<'a> {
    /// A node of the trees of quotas; by path.
    Node(NodeRow<'a>),
    /// A level account, and its level at second `from`; accounts of both kinds by path.
    Level { account: Cow<'a, AccountPath>, unit: Unit, from: u64, base: u64 },
    /// A change of the level account before it; by second.
    Change { at: u64, by: i64 },
    /// A budget account.
    Budget(BudgetRow<'a>),
    /// A reservation that is held; by name.
    Live(Box<LiveRow<'a>>),
    /// A reservation that ended; in the order of ending.
    Ended(Box<EndedRow<'a>>),
    /// A waiver that was used; by name.
    Waiver(WaiverRow<'a>),
    /// A freeze that stands; by name.
    Freeze(Box<FreezeRow<'a>>),
    /// A name that was lifted, and until when it is remembered; by name.
    Lifted { name: Cow<'a, Id>, until: u64 },
    /// When a tenant last lost work by an eviction; by tenant.
    Evicted { tenant: Cow<'a, Id>, at: u64 },
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct NodeRow<'a> {
    account: Cow<'a, AccountPath>,
    borrowing_limit: Option<u64>,
    cohort: Option<Cow<'a, AccountPath>>,
    lending_limit: Option<u64>,
    nominal: u64,
    unit: Unit,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct BudgetRow<'a> {
    account: Cow<'a, AccountPath>,
    unit: Unit,
    held: u64,
    used: u64,
    limit: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct LiveRow<'a> {
    id: Cow<'a, Id>,
    tenant: Cow<'a, Id>,
    caller: Cow<'a, Id>,
    class: PriorityClass,
    work: WorkRow<'a>,
    start: u64,
    end: u64,
    confirm_by: u64,
    charges: Vec<ChargeRow<'a>>,
    /// Least run time and notice.
    terms: Option<(u32, u32)>,
    extensions: Vec<TermRow<'a>>,
    epoch: u64,
    state: ReservationState,
    since: u64,
    order: Option<OrderRow<'a>>,
    plan: Option<PlanRow<'a>>,
    cut: Option<u64>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct WorkRow<'a> {
    kind: SubjectKind,
    cluster: Cow<'a, Id>,
    fabric_gbps: u32,
    gpu_count: u32,
    gpu_milli: u32,
    gpu_model: Cow<'a, Id>,
    isolation: IsolationLevel,
    lease: Option<Cow<'a, Id>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct TermRow<'a> {
    start: u64,
    end: u64,
    charges: Vec<ChargeRow<'a>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct ChargeRow<'a> {
    account: Cow<'a, AccountPath>,
    amount: u64,
    kind: AccountKind,
    limit: u64,
    unit: Unit,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct OrderRow<'a> {
    preemptor: Cow<'a, Id>,
    at: u64,
    effective: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct PlanRow<'a> {
    victims: Vec<Cow<'a, Id>>,
    parts: Vec<(Cow<'a, AccountPath>, Vec<PartRow>)>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct PartRow {
    start: u64,
    end: u64,
    needed: u64,
    left: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct EndedRow<'a> {
    id: Cow<'a, Id>,
    number: u64,
    tenant: Cow<'a, Id>,
    caller: Cow<'a, Id>,
    epoch: u64,
    state: ReservationState,
    since: u64,
    cause: Option<ExpiryCause>,
    refunded_gpu_seconds: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct WaiverRow<'a> {
    name: Cow<'a, Id>,
    digest: Digest,
    exp: u64,
    uses: u32,
    used: u32,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct FreezeRow<'a> {
    name: Cow<'a, Id>,
    aud: Cow<'a, str>,
    by: Cow<'a, Id>,
    iat: u64,
    reason: Cow<'a, str>,
    everything: bool,
    clusters: Cow<'a, BTreeSet<Id>>,
    kinds: Cow<'a, BTreeSet<SubjectKind>>,
    classes: Cow<'a, BTreeSet<PriorityClass>>,
    tenants: Cow<'a, BTreeSet<Id>>,
    digest: Digest,
    since: u64,
}

impl<'a> Item<'a> {
    fn waiver(name: &'a Id, waiver: &WaiverUse) -> Self {
        let WaiverUse { digest, exp, uses, used } = *waiver;
        Self::Waiver(WaiverRow { name: Cow::Borrowed(name), digest, exp, uses, used })
    }

    fn freeze(freeze: &'a Freeze) -> Self {
        let Freeze { claims, digest, since } = freeze;
        // INVARIANT: the version of the claims is the only one that is known.
        let FreezeClaims { aud, by, iat, jti, placet: _, reason, scope } = claims;
        let FreezeScope { clusters, everything, kinds, priority_classes, tenants } = scope;
        Self::Freeze(Box::new(FreezeRow {
            name: Cow::Borrowed(jti),
            aud: Cow::Borrowed(aud),
            by: Cow::Borrowed(by),
            iat: *iat,
            reason: Cow::Borrowed(reason),
            everything: *everything,
            clusters: Cow::Borrowed(clusters),
            kinds: Cow::Borrowed(kinds),
            classes: Cow::Borrowed(priority_classes),
            tenants: Cow::Borrowed(tenants),
            digest: *digest,
            since: *since,
        }))
    }

    fn node(node: &'a QuotaNode) -> Self {
        let QuotaNode { account, borrowing_limit, cohort, lending_limit, nominal, unit } = node;
        Self::Node(NodeRow {
            account: Cow::Borrowed(account),
            borrowing_limit: *borrowing_limit,
            cohort: cohort.as_ref().map(Cow::Borrowed),
            lending_limit: *lending_limit,
            nominal: *nominal,
            unit: *unit,
        })
    }

    fn budget(account: &'a AccountPath, unit: Unit, budget: Budget) -> Self {
        let Budget { held, used, limit } = budget;
        Self::Budget(BudgetRow { account: Cow::Borrowed(account), unit, held, used, limit })
    }

    fn live(reservation: &'a Reservation) -> Self {
        let Reservation { booking, extensions, epoch, state, since, order, plan, cut } =
            reservation;
        let Booking { id, tenant, caller, class, work, start, end, confirm_by, charges, terms } =
            booking;
        let terms = terms.map(|terms| {
            let SlaTerms { min_runtime_seconds, notice_seconds } = terms;
            (min_runtime_seconds, notice_seconds)
        });
        Self::Live(Box::new(LiveRow {
            id: Cow::Borrowed(id),
            tenant: Cow::Borrowed(tenant),
            caller: Cow::Borrowed(caller),
            class: *class,
            work: WorkRow::of(work),
            start: *start,
            end: *end,
            confirm_by: *confirm_by,
            charges: charges.iter().map(ChargeRow::of).collect(),
            terms,
            extensions: extensions.iter().map(TermRow::of).collect(),
            epoch: *epoch,
            state: *state,
            since: *since,
            order: order.as_ref().map(OrderRow::of),
            plan: plan.as_ref().map(PlanRow::of),
            cut: *cut,
        }))
    }

    fn ended(id: &'a Id, ended: &'a Ended) -> Self {
        let Ended { number, tenant, caller, epoch, state, since, cause, refunded_gpu_seconds } =
            ended;
        Self::Ended(Box::new(EndedRow {
            id: Cow::Borrowed(id),
            number: *number,
            tenant: Cow::Borrowed(tenant),
            caller: Cow::Borrowed(caller),
            epoch: *epoch,
            state: *state,
            since: *since,
            cause: *cause,
            refunded_gpu_seconds: *refunded_gpu_seconds,
        }))
    }
}

impl FreezeRow<'_> {
    fn freeze(self) -> Freeze {
        let scope = FreezeScope {
            clusters: self.clusters.into_owned(),
            everything: self.everything,
            kinds: self.kinds.into_owned(),
            priority_classes: self.classes.into_owned(),
            tenants: self.tenants.into_owned(),
        };
        let claims = FreezeClaims {
            aud: self.aud.into_owned(),
            by: self.by.into_owned(),
            iat: self.iat,
            jti: self.name.into_owned(),
            placet: APPROVAL_VERSION,
            reason: self.reason.into_owned(),
            scope,
        };
        Freeze { claims, digest: self.digest, since: self.since }
    }
}

impl<'a> ChargeRow<'a> {
    fn of(charge: &'a Charge) -> Self {
        let Charge { account, amount, kind, limit, unit } = charge;
        let account = Cow::Borrowed(account);
        Self { account, amount: *amount, kind: *kind, limit: *limit, unit: *unit }
    }

    fn charge(self) -> Charge {
        let Self { account, amount, kind, limit, unit } = self;
        Charge { account: account.into_owned(), amount, kind, limit, unit }
    }
}

impl<'a> WorkRow<'a> {
    fn of(work: &'a Work) -> Self {
        let Work { kind, grant, lease_id } = work;
        let Grant { cluster_id, fabric_gbps, gpu_count, gpu_milli, gpu_model, isolation_level } =
            grant;
        Self {
            kind: *kind,
            cluster: Cow::Borrowed(cluster_id),
            fabric_gbps: *fabric_gbps,
            gpu_count: *gpu_count,
            gpu_milli: *gpu_milli,
            gpu_model: Cow::Borrowed(gpu_model),
            isolation: *isolation_level,
            lease: lease_id.as_ref().map(Cow::Borrowed),
        }
    }

    fn work(self) -> Work {
        let grant = Grant {
            cluster_id: self.cluster.into_owned(),
            fabric_gbps: self.fabric_gbps,
            gpu_count: self.gpu_count,
            gpu_milli: self.gpu_milli,
            gpu_model: self.gpu_model.into_owned(),
            isolation_level: self.isolation,
        };
        Work { kind: self.kind, grant, lease_id: self.lease.map(Cow::into_owned) }
    }
}

impl<'a> TermRow<'a> {
    fn of(term: &'a Term) -> Self {
        let Term { start, end, charges } = term;
        let charges = charges.iter().map(ChargeRow::of).collect();
        Self { start: *start, end: *end, charges }
    }

    fn term(self) -> Term {
        let Self { start, end, charges } = self;
        Term { start, end, charges: charges.into_iter().map(ChargeRow::charge).collect() }
    }
}

impl<'a> OrderRow<'a> {
    fn of(order: &'a Order) -> Self {
        let Order { preemptor, at, effective } = order;
        Self { preemptor: Cow::Borrowed(preemptor), at: *at, effective: *effective }
    }

    fn order(self) -> Order {
        let Self { preemptor, at, effective } = self;
        Order { preemptor: preemptor.into_owned(), at, effective }
    }
}

impl<'a> PlanRow<'a> {
    fn of(plan: &'a Plan) -> Self {
        let Plan { victims, parts } = plan;
        let part = |part: &Part| {
            let Part { start, end, needed, left } = *part;
            PartRow { start, end, needed, left }
        };
        let own = |(account, own): (&'a AccountPath, &'a Vec<Part>)| {
            (Cow::Borrowed(account), own.iter().map(part).collect())
        };
        Self {
            victims: victims.iter().map(Cow::Borrowed).collect(),
            parts: parts.iter().map(own).collect(),
        }
    }

    fn plan(self) -> Plan {
        let part = |part: PartRow| {
            let PartRow { start, end, needed, left } = part;
            Part { start, end, needed, left }
        };
        let own = |(account, own): (Cow<'a, AccountPath>, Vec<PartRow>)| {
            (account.into_owned(), own.into_iter().map(part).collect())
        };
        let parts: Parts = self.parts.into_iter().map(own).collect();
        Plan { victims: self.victims.into_iter().map(Cow::into_owned).collect(), parts }
    }
}

impl LiveRow<'_> {
    fn reservation(self) -> Reservation {
        let booking = Booking {
            id: self.id.into_owned(),
            tenant: self.tenant.into_owned(),
            caller: self.caller.into_owned(),
            class: self.class,
            work: Arc::new(self.work.work()),
            start: self.start,
            end: self.end,
            confirm_by: self.confirm_by,
            charges: self.charges.into_iter().map(ChargeRow::charge).collect(),
            terms: self.terms.map(|(min_runtime_seconds, notice_seconds)| SlaTerms {
                min_runtime_seconds,
                notice_seconds,
            }),
        };
        Reservation {
            booking,
            extensions: self.extensions.into_iter().map(TermRow::term).collect(),
            epoch: self.epoch,
            state: self.state,
            since: self.since,
            order: self.order.map(OrderRow::order),
            plan: self.plan.map(PlanRow::plan),
            cut: self.cut,
        }
    }
}

impl EndedRow<'_> {
    fn ended(self) -> (Id, Ended) {
        let ended = Ended {
            number: self.number,
            tenant: self.tenant.into_owned(),
            caller: self.caller.into_owned(),
            epoch: self.epoch,
            state: self.state,
            since: self.since,
            cause: self.cause,
            refunded_gpu_seconds: self.refunded_gpu_seconds,
        };
        (self.id.into_owned(), ended)
    }
}

/// What an item is about, for a message.
pub(crate) fn subject(bytes: &[u8]) -> String {
    match postcard::from_bytes::<Item<'_>>(bytes) {
        Ok(Item::Node(node)) => format!("the quota of `{}`", node.account),
        Ok(Item::Level { account, .. }) => format!("the account `{account}`"),
        Ok(Item::Change { at, .. }) => format!("what an account holds from second {at} on"),
        Ok(Item::Budget(budget)) => format!("the account `{}`", budget.account),
        Ok(Item::Live(live)) => format!("the reservation `{}`", live.id),
        Ok(Item::Ended(ended)) => format!("the reservation `{}`, which ended", ended.id),
        Ok(Item::Waiver(waiver)) => format!("the waiver `{}`", waiver.name),
        Ok(Item::Freeze(freeze)) => format!("the freeze `{}`", freeze.name),
        Ok(Item::Lifted { name, .. }) => format!("the freeze `{name}`, which was lifted"),
        Ok(Item::Evicted { tenant, .. }) => format!("what the tenant `{tenant}` lost"),
        Err(_) => "what is no item".to_owned(),
    }
}

/// Why the items of a ledger were not all visited.
#[derive(Debug)]
pub(crate) enum VisitError<E> {
    /// One of them is longer than an item may be, or cannot be written down.
    Form,
    /// The visitor said so.
    Visitor(E),
}

/// Writes each item into the same memory.
struct Rows<'v, V> {
    bytes: Vec<u8>,
    visit: &'v mut V,
}

impl<E, V: FnMut(&[u8]) -> Result<(), E>> Rows<'_, V> {
    fn put(&mut self, item: &Item<'_>) -> Result<(), VisitError<E>> {
        self.bytes.clear();
        let bytes = std::mem::take(&mut self.bytes);
        self.bytes = postcard::to_extend(item, bytes).map_err(|_form| VisitError::Form)?;
        if self.bytes.len() > MAX_ITEM_BYTES {
            return Err(VisitError::Form);
        }
        (self.visit)(&self.bytes).map_err(VisitError::Visitor)
    }
}

impl Ledger {
    /// Visits the items that make up the ledger: 1 to [`MAX_ITEM_BYTES`] bytes each. Everything has
    /// been kept, and nothing is due up to now.
    ///
    /// # Errors
    /// The first of the visitor's, or an item too long.
    pub(crate) fn each_item<E>(
        &self,
        mut visit: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), VisitError<E>> {
        let mut rows = Rows { bytes: Vec::new(), visit: &mut visit };
        for node in self.nodes.values() {
            rows.put(&Item::node(&node.own))?;
        }
        let accounts: BTreeMap<_, _> = self.accounts.iter().collect();
        for (path, account) in accounts {
            let (unit, timeline) = match account {
                Account::Budget(unit, budget) => {
                    rows.put(&Item::budget(path, *unit, *budget))?;
                    continue;
                }
                Account::Level(unit, timeline) => (*unit, timeline),
            };
            let (from, base) = timeline.begin();
            rows.put(&Item::Level { account: Cow::Borrowed(path), unit, from, base })?;
            timeline.each_change(&mut |at, by| rows.put(&Item::Change { at, by }))?;
        }
        let mut live: Vec<(&Id, &Reservation)> = self.live.iter().collect();
        live.sort_unstable_by_key(|(id, _)| *id);
        for (_, reservation) in live {
            rows.put(&Item::live(reservation))?;
        }
        for id in self.ended_order.values() {
            if let Some(ended) = self.ended.get(id) {
                rows.put(&Item::ended(id, ended))?;
            }
        }
        for (name, waiver) in &self.waivers {
            rows.put(&Item::waiver(name, waiver))?;
        }
        for freeze in self.freezes.standing.values() {
            rows.put(&Item::freeze(freeze))?;
        }
        for (name, until) in &self.freezes.lifted {
            rows.put(&Item::Lifted { name: Cow::Borrowed(name), until: *until })?;
        }
        for (tenant, at) in self.evicted.iter() {
            rows.put(&Item::Evicted { tenant: Cow::Borrowed(tenant), at })?;
        }
        Ok(())
    }
}

/// The place of an item: whether one may come behind another.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Place {
    Node(AccountPath),
    Account(AccountPath, Option<u64>),
    Live(Id),
    Ended(u64),
    Waiver(Id),
    Freeze(Id),
    Lifted(Id),
    Evicted(Id),
}

/// A ledger that is put together from its items.
#[derive(Debug)]
pub(crate) struct Restoring {
    ledger: Ledger,
    /// Items so far.
    count: u64,
    last: Option<Place>,
    nodes: Vec<QuotaNode>,
    /// The level account whose changes come.
    level: Option<(AccountPath, Unit, Timeline)>,
    due: Vec<(u64, Id)>,
    displaceable: HashMap<AccountPath, Vec<(u64, Id)>>,
    freezes: Freezes,
}

impl Restoring {
    /// Into a ledger that holds nothing.
    pub(crate) fn new(ledger: Ledger) -> Self {
        Self {
            ledger,
            count: 0,
            last: None,
            nodes: Vec::new(),
            level: None,
            due: Vec::new(),
            displaceable: HashMap::new(),
            freezes: Freezes::default(),
        }
    }

    /// Takes the next item. Its bytes may be anything.
    ///
    /// # Errors
    /// If it is none, or cannot stand there. The ledger is of no use then.
    pub(crate) fn put(&mut self, bytes: &[u8]) -> Result<(), ItemError> {
        let number = self.count;
        let wrong = |what| ItemError::Item { number, what };
        let (item, rest) =
            postcard::take_from_bytes::<Item<'_>>(bytes).map_err(|_form| wrong("is no item"))?;
        if !rest.is_empty() {
            return Err(wrong("is longer than it should be"));
        }
        let place = self.place_of(&item).ok_or_else(|| wrong("changes no level"))?;
        if self.last.as_ref().is_some_and(|last| *last >= place) {
            return Err(wrong("is out of order"));
        }
        self.last = Some(place);
        self.take(item).map_err(wrong)?;
        self.count = self.count.saturating_add(1);
        Ok(())
    }

    fn place_of(&self, item: &Item<'_>) -> Option<Place> {
        Some(match item {
            Item::Node(node) => Place::Node(node.account.clone().into_owned()),
            Item::Level { account, .. } => Place::Account(account.clone().into_owned(), None),
            Item::Change { at, .. } => {
                let (account, ..) = self.level.as_ref()?;
                Place::Account(account.clone(), Some(*at))
            }
            Item::Budget(budget) => Place::Account(budget.account.clone().into_owned(), None),
            Item::Live(live) => Place::Live(live.id.clone().into_owned()),
            Item::Ended(ended) => Place::Ended(ended.number),
            Item::Waiver(waiver) => Place::Waiver(waiver.name.clone().into_owned()),
            Item::Freeze(freeze) => Place::Freeze(freeze.name.clone().into_owned()),
            Item::Lifted { name, .. } => Place::Lifted(name.clone().into_owned()),
            Item::Evicted { tenant, .. } => Place::Evicted(tenant.clone().into_owned()),
        })
    }

    fn take(&mut self, item: Item<'_>) -> Result<(), &'static str> {
        if self.level.is_some() && !matches!(item, Item::Change { .. }) {
            self.close_level();
        }
        match item {
            Item::Node(node) => {
                let NodeRow { account, borrowing_limit, cohort, lending_limit, nominal, unit } =
                    node;
                self.nodes.push(QuotaNode {
                    account: account.into_owned(),
                    borrowing_limit,
                    cohort: cohort.map(Cow::into_owned),
                    lending_limit,
                    nominal,
                    unit,
                });
            }
            Item::Level { account, unit, from, base } => {
                self.level = Some((account.into_owned(), unit, Timeline::from(from, base)));
            }
            Item::Change { at, by } => {
                let (_, _, timeline) = self.level.as_mut().ok_or("changes no level")?;
                timeline.put_change(at, by).map_err(|_broken| "changes a level by too much")?;
            }
            Item::Budget(row) => {
                let BudgetRow { account, unit, held, used, limit } = row;
                let budget = Account::Budget(unit, Budget { held, used, limit });
                self.ledger.accounts.insert(account.into_owned(), budget);
            }
            Item::Live(live) => self.take_live(live.reservation())?,
            Item::Ended(ended) => {
                let (id, ended) = ended.ended();
                if self.ledger.knows(&id) || self.ledger.ended.len() >= MAX_ENDED {
                    return Err("is one too many of those that ended");
                }
                self.ledger.ended_order.insert(ended.number, id.clone());
                self.ledger.ended.insert(id, ended);
            }
            Item::Waiver(WaiverRow { name, digest, exp, uses, used }) => {
                if self.ledger.waivers.len() >= MAX_WAIVERS_IN_USE {
                    return Err("is one too many of the waivers");
                }
                let waiver = WaiverUse { digest, exp, uses, used };
                self.ledger.replace_waiver(name.into_owned(), Some(waiver));
            }
            Item::Freeze(row) => {
                let freeze = row.freeze();
                self.freezes.standing.insert(freeze.claims.jti.clone(), freeze);
                if self.freezes.standing.len() > MAX_FREEZES {
                    return Err("is one too many of the freezes");
                }
            }
            Item::Lifted { name, until } => {
                self.freezes.lifted.insert(name.into_owned(), until);
            }
            Item::Evicted { tenant, at } => {
                if self.ledger.evicted.len() >= MAX_TENANTS_EVICTED {
                    return Err("is one tenant too many");
                }
                self.ledger.evicted.replace(tenant.into_owned(), Some(at));
            }
        }
        Ok(())
    }

    fn close_level(&mut self) {
        if let Some((path, unit, timeline)) = self.level.take() {
            self.ledger.accounts.insert(path, Account::Level(unit, timeline));
        }
    }

    fn take_live(&mut self, held: Reservation) -> Result<(), &'static str> {
        let booking = &held.booking;
        if !matches!(held.state, ReservationState::Reserved | ReservationState::Active) {
            return Err("is a reservation that is not held");
        }
        let fits = |charge: &Charge| {
            (1..=MAX_AMOUNT).contains(&charge.amount) && charge.limit <= MAX_AMOUNT
        };
        let mut from = booking.start;
        for (start, end, charges) in held.terms() {
            let accounts: BTreeSet<_> = charges.iter().map(|one| &one.account).collect();
            if start != from
                || end <= start
                || charges.len() > MAX_CHARGES
                || accounts.len() != charges.len()
                || !charges.iter().all(fits)
            {
                return Err("is a reservation that cannot be");
            }
            from = end;
        }
        if held.extensions.len() >= MAX_TERMS || (held.plan.is_some() && from != booking.end) {
            return Err("is a reservation that cannot go on");
        }
        self.due.push((held.due(), booking.id.clone()));
        self.ledger.index_inside(&held, true);
        if self.ledger.displaceable(&held) {
            let charges = held.terms().flat_map(|(_, _, charges)| charges);
            for charge in charges.filter(|one| one.kind == AccountKind::Level) {
                let place = (booking.start, booking.id.clone());
                match self.displaceable.get_mut(&charge.account) {
                    Some(own) => own.push(place),
                    None => {
                        self.displaceable.insert(charge.account.clone(), vec![place]);
                    }
                }
            }
        }
        self.ledger.live.insert(booking.id.clone(), held);
        Ok(())
    }

    /// The ledger at a time, with what follows from its items. Not audited.
    ///
    /// # Errors
    /// If the items contradict one another.
    pub(crate) fn finish(mut self, now: u64) -> Result<Ledger, ItemError> {
        self.close_level();
        let Self { mut ledger, nodes, due, displaceable, freezes, .. } = self;
        ledger.now = now;
        ledger.freezes = Arc::new(freezes);
        // In one piece: much faster than one at a time.
        ledger.due = due.into_iter().collect();
        ledger.displaceable = displaceable
            .into_iter()
            .map(|(account, places)| (account, places.into_iter().collect()))
            .collect();
        let lends_all = ledger.breaks(Defect::LendingLimitIgnored);
        let mut nodes = forest(nodes, lends_all)
            .map_err(|_no_forest| ItemError::Sum("have quotas that are no trees"))?;
        ledger.fill(&mut nodes).map_err(|_broken| ItemError::Sum("have a negative level"))?;
        ledger.nodes = nodes;
        Ok(ledger)
    }
}

#[cfg(test)]
mod tests;
