//! What the clients of the crash test ask, and the small world that they ask it in.

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use placet_core::{Decision, ReservationGrant};
use placet_proto::admission::v1 as pb;
use placet_proto::admission::v1::admit_request::Subject;
use placet_proto::admission::v1::stream_request::Event;
use serde_json::{Value, json};

use crate::server::root;

/// Seconds within which a reservation must be confirmed: short, so that some expire in every run.
pub(super) const CONFIRM_WITHIN: u64 = 2;
/// Shortest and longest lease or job in seconds: both end within a run.
const SECONDS: (u64, u64) = (3, 8);
/// Seconds by which the farthest of those that are booked ahead are.
const LEAD: u64 = 4;
/// An epoch that no reservation comes to, as none is asked to go on so often.
const WRONG_EPOCH: u64 = 90;
/// Most seconds by which a reservation is to go on at a time, and by which a job inside a lease is
/// to run.
const MORE_SECONDS: u64 = 4;
/// Most members of a gang: few, so that all of them fit now and then.
const MOST_MEMBERS: u64 = 4;
/// Who asks, of which class; the house's own sell as well.
const ASKERS: [(&str, pb::PriorityClass); 6] = [
    ("research", pb::PriorityClass::InternalResearch),
    ("research", pb::PriorityClass::InternalResearch),
    ("laboratory", pb::PriorityClass::InternalResearch),
    ("laboratory", pb::PriorityClass::ExternalCommercial),
    ("customer", pb::PriorityClass::ExternalCommercial),
    ("partner", pb::PriorityClass::ExternalCommercial),
];
/// Tenants, and whether they belong to the house.
const TENANTS: [(&str, bool); 4] =
    [("research", true), ("laboratory", true), ("customer", false), ("partner", false)];
/// For each of the house's own, the terms on which it displaces others: seconds of grace, least
/// seconds of run time, most victims. All of it short and small, so that it happens often.
const RULES: [(&str, u64, u64, u64); 2] = [("research", 1, 1, 3), ("laboratory", 2, 2, 2)];
/// What tenants to whom is sold are promised should they be displaced: service level, least run
/// time and notice in seconds. Longer than some of the rules above, so that it counts.
const PROMISES: [(&str, &str, u64, u64); 2] = [("customer", "gold", 1, 3), ("partner", "", 2, 1)];
/// Says what its own params promise, and nothing else.
const PROMISE: &str = "# METADATA
# title: Service levels
# description: What sold work is promised should it be displaced.
package placet.promise

import rego.v1

terms := data.params[object.get(input.tenant, \"sla\", \"none\")]
";

/// GPUs of one model in a cluster: model, how many, and how many of them are the safety buffer.
type Pool = (&'static str, u64, u64);
/// A cluster: its name, its GPUs, and Gbit/s of fabric.
type Cluster = (&'static str, &'static [Pool], u64);

/// Tight for most of a run.
const CLUSTERS: [Cluster; 2] =
    [("c1", &[("H100", 80, 16), ("A100", 60, 10)], 600), ("c2", &[("H100", 40, 8)], 200)];
/// Share of the fabric, in percent, that sold work may have.
const EXTERNAL_FABRIC: u64 = 80;
/// Limits of the tenants' budgets in GPU-seconds; two are tight towards the end of a run.
const BUDGETS: [(&str, u64); 4] = [
    ("tenant/research/gpu-seconds/{month}", 10_000_000),
    ("tenant/laboratory/gpu-seconds/{month}", 700),
    ("tenant/customer/gpu-seconds/{month}", 10_000_000),
    ("tenant/partner/gpu-seconds/{month}", 220),
];

/// A level account of thousandths of a GPU: its name, what it brings in, its cohort, what it may
/// borrow and what it lends.
type Quota = (&'static str, u64, Option<&'static str>, Option<u64>, Option<u64>);

/// Two cohorts below a third: tight, so that who borrows meets every kind of limit.
const QUOTAS: [Quota; 7] = [
    ("pool/all", 0, None, None, None),
    ("pool/own", 0, Some("pool/all"), Some(20_000), Some(40_000)),
    ("pool/sold", 10_000, Some("pool/all"), Some(30_000), None),
    ("tenant/customer/gpu", 25_000, Some("pool/sold"), Some(30_000), Some(15_000)),
    ("tenant/laboratory/gpu", 25_000, Some("pool/own"), Some(20_000), None),
    ("tenant/partner/gpu", 15_000, Some("pool/sold"), None, None),
    ("tenant/research/gpu", 110_000, Some("pool/own"), None, Some(50_000)),
];

/// How many states of the facts there are: the first, and those that differ in one account.
const STATES: u64 = 6;

/// The trees in a state of the facts: an account lends less, moves to another cohort, leaves the
/// trees, or more comes in and may be borrowed.
fn quotas(state: u64) -> [Quota; 7] {
    let mut quotas = QUOTAS;
    let all = |quota: &mut Quota| quota.1 = 30_000;
    match state {
        0 => {}
        1 => change(&mut quotas, "tenant/research/gpu", |quota| quota.4 = Some(10_000)),
        2 => change(&mut quotas, "tenant/laboratory/gpu", |quota| quota.2 = Some("pool/sold")),
        3 => change(&mut quotas, "tenant/partner/gpu", |quota| quota.2 = None),
        4 => change(&mut quotas, "pool/all", all),
        _ => change(&mut quotas, "tenant/customer/gpu", |quota| quota.3 = Some(5_000)),
    }
    quotas
}

fn change(quotas: &mut [Quota], account: &str, how: impl Fn(&mut Quota)) {
    how(quotas.iter_mut().find(|quota| quota.0 == account).expect("it is one of them"));
}

/// Whether an account stands in a tree: it has a cohort or is one.
fn shares(quota: &Quota, all: &[Quota]) -> bool {
    quota.2.is_some() || all.iter().any(|other| other.2 == Some(quota.0))
}

/// Three policies of the reference bundle: those that claim, and the one that lets displace. The
/// others would only make starting slower, and with it every cycle.
const POLICIES: [&str; 3] = ["capacity", "preemption", "quota"];

/// Writes bundle and facts into a folder.
pub(super) fn write_world(folder: &Path) {
    let (shipped, bundle) = (root().join("policies/reference"), folder.join("bundle"));
    for policy in POLICIES {
        std::fs::create_dir_all(bundle.join(policy)).unwrap();
        for file in [format!("{policy}.rego"), format!("{policy}.schema.json")] {
            let path = Path::new(policy).join(file);
            std::fs::copy(shipped.join(&path), bundle.join(&path)).unwrap();
        }
    }
    std::fs::write(bundle.join("promise.rego"), PROMISE).unwrap();
    // JSON is YAML.
    std::fs::write(bundle.join("bundle.yaml"), manifest().to_string()).unwrap();
}

/// Writes a state of the facts into a folder, in one step.
pub(super) fn write_facts(folder: &Path, number: u64) {
    let beside = folder.join("facts.new");
    std::fs::write(&beside, facts(number).to_string()).unwrap();
    std::fs::rename(beside, folder.join("facts.yaml")).unwrap();
}

/// What a state of the facts calls itself.
fn revision(number: u64) -> String {
    format!("soak-{number}")
}

/// The bundle's manifest: each of the house's own displaces others on terms of its own.
fn manifest() -> Value {
    let policy = |name: &str, source: &str, params: Value| {
        json!({
            "name": name, "source": format!("{source}/{source}.rego"),
            "params_schema": format!("{source}/{source}.schema.json"), "params": params,
        })
    };
    let seconds = json!({"INTERNAL_RESEARCH": 3600, "EXTERNAL_COMMERCIAL": 3600});
    let mut policies = vec![
        policy("capacity", "capacity", json!({"external_fabric_percent": EXTERNAL_FABRIC})),
        policy("quota", "quota", json!({"max_duration_seconds": seconds})),
    ];
    for (tenant, rule) in rules() {
        let mut own = policy(&format!("preemption-of-{tenant}"), "preemption", rule);
        own["select"] = json!({"tenants": [tenant]});
        policies.push(own);
    }
    let promised = |(_, sla, least, notice): (&str, &str, u64, u64)| {
        let sla = if sla.is_empty() { "none" } else { sla };
        (sla.to_owned(), promise(least, notice))
    };
    let params: serde_json::Map<String, Value> = PROMISES.map(promised).into_iter().collect();
    let tenants = PROMISES.map(|(tenant, ..)| tenant);
    policies.push(json!({
        "name": "promise", "source": "promise.rego", "params": params,
        "select": {"tenants": tenants},
    }));
    json!({
        "schema": "placet.bundle/v1", "revision": "soak", "policies": policies,
        "required": {"lease": ["capacity", "quota"], "job": ["capacity", "quota"]},
    })
}

fn promise(least: u64, notice: u64) -> Value {
    json!({"min_runtime_seconds": least, "notice_seconds": notice})
}

fn rules() -> serde_json::Map<String, Value> {
    let rule = |(tenant, grace, least, most): (&str, u64, u64, u64)| {
        let mut rule = json!({
            "grace_seconds": grace, "min_runtime_seconds": least, "max_victims": most,
            "victim_classes": ["EXTERNAL_COMMERCIAL"], "cool_down_seconds": grace,
        });
        if tenant == "research" {
            rule["max_victims_per_tenant"] = 2.into();
        } else {
            rule["protected_tenants"] = json!(["partner"]);
        }
        (tenant.to_owned(), rule)
    };
    RULES.map(rule).into_iter().collect()
}

fn facts(number: u64) -> Value {
    let tenant = |(id, own): &(&str, bool)| {
        let class = |(_, class): &&(&str, pb::PriorityClass)| class.as_str_name();
        let mut classes: Vec<&str> =
            ASKERS.iter().filter(|(asker, _)| asker == id).map(|asker| class(&asker)).collect();
        classes.dedup();
        let mut tenant = json!({
            "id": id, "kind": if *own { "OWN" } else { "CUSTOMER" },
            "allowed_jurisdictions": [], "attestations": [], "licensed_models": [],
            "min_isolation": "SHARED", "priority_classes": classes,
        });
        let sla = PROMISES.iter().find(|one| one.0 == *id).map_or("", |one| one.1);
        if !sla.is_empty() {
            tenant["sla"] = sla.into();
        }
        tenant
    };
    let pool = |pool: &Pool| {
        let (model, count, buffer) = pool;
        json!({"model": model, "count": count, "safety_buffer": buffer})
    };
    let cluster = |(id, pools, fabric): &Cluster| {
        json!({
            "id": id, "jurisdiction": "DE", "attestations": [], "isolation_levels": ["SHARED"],
            "fabric_gbps": fabric, "gpus": pools.iter().map(pool).collect::<Vec<_>>(),
        })
    };
    let levels = quotas(number % STATES);
    let quotas: Vec<Value> =
        BUDGETS.iter().map(budget_entry).chain(levels.iter().map(level_entry)).collect();
    json!({
        "schema": "placet.facts/v1", "revision": revision(number), "datasets": [], "models": [],
        "tenants": TENANTS.iter().map(tenant).collect::<Vec<_>>(),
        "clusters": CLUSTERS.iter().map(cluster).collect::<Vec<_>>(),
        "quotas": quotas,
    })
}

fn budget_entry((account, limit): &(&str, u64)) -> Value {
    json!({"account": account, "kind": "budget", "unit": "gpu-second", "limit": limit})
}

fn level_entry(quota: &Quota) -> Value {
    let mut entry = node(quota);
    entry["kind"] = "level".into();
    entry["limit"] = entry["nominal"].take();
    entry.as_object_mut().expect("an object").remove("nominal");
    entry
}

/// An account in a tree, as the log has it.
fn node((account, nominal, cohort, borrowing, lending): &Quota) -> Value {
    let mut node = json!({"account": account, "nominal": nominal, "unit": "milli-gpu"});
    if let Some(cohort) = cohort {
        node["cohort"] = (*cohort).into();
    }
    for (name, limit) in [("borrowing_limit", borrowing), ("lending_limit", lending)] {
        if let Some(limit) = limit {
            node[name] = (*limit).into();
        }
    }
    node
}

/// What the facts say, for the auditor: the trees, and the limit of every account beside them.
pub(super) fn told_facts(number: u64) -> Value {
    let mut limits = serde_json::Map::new();
    for (id, pools, fabric) in CLUSTERS {
        limits.insert(format!("cluster/{id}/fabric-gbps"), fabric.into());
        for (model, count, _) in pools {
            limits.insert(format!("cluster/{id}/gpu/{model}"), (count * 1_000).into());
        }
    }
    limits.extend(BUDGETS.map(|(account, limit)| (account.to_owned(), limit.into())));
    let quotas = quotas(number % STATES);
    let (shared, alone): (Vec<&Quota>, Vec<&Quota>) =
        quotas.iter().partition(|quota| shares(quota, &quotas));
    limits.extend(alone.iter().map(|quota| (quota.0.to_owned(), quota.1.into())));
    let trees: Vec<Value> = shared.into_iter().map(node).collect();
    json!({"event": "facts", "revision": revision(number), "limits": limits, "trees": trees})
}

/// What the policies say, for the auditor: limits by class that are tighter than the facts', and
/// who may displace others on which terms.
pub(super) fn terms() -> Value {
    let mut limits = serde_json::Map::new();
    for (id, pools, fabric) in CLUSTERS {
        let share = fabric * EXTERNAL_FABRIC / 100;
        limits.insert(format!("cluster/{id}/fabric-gbps"), share.into());
        for (model, count, buffer) in pools {
            limits.insert(format!("cluster/{id}/gpu/{model}"), ((count - buffer) * 1_000).into());
        }
    }
    let promised = |(tenant, _, least, notice): (&str, &str, u64, u64)| {
        (tenant.to_owned(), promise(least, notice))
    };
    let promises: serde_json::Map<String, Value> = PROMISES.map(promised).into_iter().collect();
    json!({
        "promises": promises,
        "event": "terms", "confirm_within": CONFIRM_WITHIN, "rules": rules(),
        "limits": {"EXTERNAL_COMMERCIAL": limits},
    })
}

/// Something to ask, as often as it takes to be answered.
#[derive(Debug, Clone)]
pub(super) struct Ask {
    pub(super) request_id: String,
    pub(super) event: Event,
    /// The same for the record.
    pub(super) what: Value,
    /// The members, if this is a gang: then `event` is that of the first, and `request_id` names
    /// the gang.
    pub(super) members: Vec<Ask>,
}

impl Ask {
    /// `admit`, `confirm` or `release`.
    pub(super) fn verb(&self) -> &'static str {
        match self.event {
            Event::Admit(_) => "admit",
            Event::Confirm(_) => "confirm",
            Event::Release(_) => "release",
        }
    }

    /// The requests that it consists of: the members of a gang, or itself.
    pub(super) fn each(&self) -> Vec<Self> {
        if self.members.is_empty() { vec![self.clone()] } else { self.members.clone() }
    }

    fn admission(&self) -> &pb::AdmitRequest {
        let Event::Admit(admission) = &self.event else { panic!("it is no admission") };
        admission
    }
}

/// What a client knows of a reservation that it holds, or held.
#[derive(Debug, Clone)]
pub(super) struct Held {
    /// The admission that made it.
    ask: Ask,
    pub(super) id: String,
    epoch: u64,
    start: u64,
    end: u64,
    gpu_model: String,
    pub(super) confirmed: bool,
}

impl Held {
    /// `None` for a denial, and where what is there already goes on.
    pub(super) fn new(ask: &Ask, decision: &Decision) -> Option<Self> {
        let grant = decision.reservation.as_ref().filter(|_| decision.extends.is_none())?;
        Some(Self {
            ask: ask.clone(),
            id: grant.id.to_string(),
            epoch: grant.epoch,
            start: grant.start,
            end: grant.end,
            gpu_model: decision.workload.gpu_model.to_string(),
            confirmed: false,
        })
    }

    /// Takes note of how it goes on.
    pub(super) fn go_on(&mut self, grant: &ReservationGrant) {
        (self.epoch, self.end) = (grant.epoch, grant.end);
    }

    /// Its terms as a lease, whatever it is.
    fn work(&self) -> pb::Lease {
        match self.ask.admission().subject.clone().expect("it was asked for") {
            Subject::Lease(lease) => lease,
            Subject::Job(job) => lease_like(job),
        }
    }

    /// Whether it is confirmed, and by the clock not at its end: others may have ended it.
    pub(super) fn runs(&self) -> bool {
        self.confirmed && self.end > now()
    }

    /// Whether jobs may run inside.
    pub(super) fn is_lease(&self) -> bool {
        matches!(self.ask.admission().subject, Some(Subject::Lease(_)))
    }

    fn payer(&self) -> (&str, pb::PriorityClass) {
        let admission = self.ask.admission();
        (&admission.tenant_id, admission.priority_class())
    }
}

/// A lease or a job, drawn: one in five is booked ahead, one in forty for a second that has passed,
/// half of the house's own may displace others.
pub(super) fn admit(request_id: String, dice: &mut Dice) -> Ask {
    let (tenant, class) = *dice.one(&ASKERS);
    let (cluster, pools, _) = if dice.once_in(3) { CLUSTERS[1] } else { CLUSTERS[0] };
    // The first is preferred; another one is tried where there is no room.
    let models: Vec<String> = pools.iter().rev().map(|(model, _, _)| (*model).to_owned()).collect();
    let start = match dice.below(40) {
        0 => now() - 1,
        1..=8 => now() + 1 + dice.below(LEAD),
        _ => 0,
    };
    let internal = class == pb::PriorityClass::InternalResearch;
    let lease = pb::Lease {
        cluster_id: cluster.to_owned(),
        gpu_count: u32::try_from(1 + dice.below(8)).unwrap(),
        duration_seconds: SECONDS.0 + dice.below(SECONDS.1 - SECONDS.0 + 1),
        isolation_level: pb::IsolationLevel::Shared.into(),
        gpu_models: models,
        gpu_milli: *dice.one(&[1_000, 1_000, 1_000, 250]),
        fabric_gbps: u32::try_from(dice.below(3) * 10).unwrap(),
        may_preempt: dice.once_in(if internal { 2 } else { 50 }),
        start,
        ..pb::Lease::default()
    };
    let kind = if dice.once_in(4) { Kind::Job(String::new()) } else { Kind::Lease };
    admission(request_id, (tenant, class), lease, kind)
}

/// More time for a reservation: one in six is not asked for as it is held.
pub(super) fn longer(request_id: String, held: &Held, dice: &mut Dice) -> Ask {
    let mut extends = pb::Extends {
        reservation_id: held.id.clone(),
        epoch: held.epoch,
        start: held.start,
        end: held.end,
    };
    let mut lease = held.work();
    lease.gpu_models = vec![held.gpu_model.clone()];
    lease.duration_seconds = 1 + dice.below(MORE_SECONDS);
    (lease.may_preempt, lease.start) = (false, 0);
    let (mut tenant, class) = held.payer();
    match dice.below(36) {
        0 if extends.epoch > 1 => extends.epoch -= 1,
        0 | 1 => extends.epoch += 1,
        2 => extends.end += 1,
        3 => extends.start -= 1,
        4 => lease.gpu_count += 1,
        5 => tenant = another(tenant, class),
        _ => {}
    }
    let job = held.ask.admission().subject.as_ref().and_then(|subject| match subject {
        Subject::Lease(_) => None,
        Subject::Job(job) => Some(job.lease_id.clone()),
    });
    let kind = job.map_or(Kind::Lease, Kind::Job);
    let mut ask = admission(request_id, (tenant, class), lease, kind);
    ask.what["extends"] = json!({
        "reservation_id": extends.reservation_id, "epoch": extends.epoch,
        "start": extends.start, "end": extends.end,
    });
    // What is added begins there, and what is asked for says so.
    ask.what["start"] = extends.end.into();
    let Event::Admit(request) = &mut ask.event else { panic!("it is an admission") };
    request.extends = Some(extends);
    ask
}

/// A job inside a lease: several of them often ask for more GPUs than it has, one in eight runs on
/// beyond its end, one in ten would take another model, and one in forty is of another tenant.
pub(super) fn inside(request_id: String, held: &Held, dice: &mut Dice) -> Ask {
    let mut lease = held.work();
    lease.gpu_count = 1 + u32::try_from(dice.below(u64::from(lease.gpu_count))).unwrap();
    lease.gpu_milli = *dice.one(&[lease.gpu_milli, lease.gpu_milli, 1_000, 250]);
    lease.fabric_gbps = *dice.one(&[0, lease.fabric_gbps, 10]);
    lease.gpu_models = vec![held.gpu_model.clone()];
    if dice.once_in(10) {
        lease.gpu_models = held.work().gpu_models;
    }
    lease.may_preempt = lease.may_preempt && dice.once_in(4);
    let left = held.end.saturating_sub(now()).max(1);
    lease.start = if dice.once_in(6) { now() + 1 + dice.below(2) } else { 0 };
    lease.duration_seconds = match dice.below(8) {
        0 => left + 1 + dice.below(MORE_SECONDS),
        1..=4 => left,
        _ => 1 + dice.below(left.min(MORE_SECONDS)),
    };
    let (mut tenant, class) = held.payer();
    if dice.once_in(40) {
        tenant = another(tenant, class);
    }
    admission(request_id, (tenant, class), lease, Kind::Job(held.id.clone()))
}

/// Another tenant that may ask in a class.
fn another(tenant: &str, class: pb::PriorityClass) -> &'static str {
    let other = ASKERS.iter().find(|(other, theirs)| *theirs == class && *other != tenant);
    other.expect("every class has several tenants").0
}

/// Requests that are to be admitted together: 2 to 4, most of the gangs of small ones, so that all
/// of them fit; `of` are members that are drawn already.
pub(super) fn gang(request_id: String, of: Vec<Ask>, dice: &mut Dice) -> Ask {
    let mut members = of;
    let (size, small) = (2 + dice.below(MOST_MEMBERS - 1), !dice.once_in(4));
    while u64::try_from(members.len()).unwrap() < size {
        let name = format!("{request_id}-{}", members.len());
        let mut member = admit(name.clone(), dice);
        while small && !is_small(&member) {
            member = admit(name.clone(), dice);
        }
        members.push(member);
    }
    for (index, member) in members.iter_mut().enumerate() {
        member.what["gang"] = json!({"id": request_id, "index": index, "size": size});
    }
    let first = members.first().expect("there are two at least").clone();
    Ask { request_id, members, ..first }
}

fn is_small(ask: &Ask) -> bool {
    ask.what["gpu_count"].as_u64() <= Some(2)
}

/// A gang, as it is asked for.
pub(super) fn gang_request(ask: &Ask) -> pb::AdmitGangRequest {
    let members = ask.members.iter().map(|member| member.admission().clone()).collect();
    pb::AdmitGangRequest { gang_id: ask.request_id.clone(), members }
}

/// The system's time, in seconds since 1970-01-01 UTC: the server's too.
fn now() -> u64 {
    #[expect(clippy::disallowed_methods, reason = "what is booked ahead is so by the clock")]
    let now = SystemTime::now();
    now.duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// A lease of a tenant that nobody knows: denied, and so a decision that holds nothing.
pub(super) fn probe(request_id: String) -> Ask {
    let lease = pb::Lease {
        cluster_id: "c1".to_owned(),
        gpu_count: 1,
        duration_seconds: 1,
        isolation_level: pb::IsolationLevel::Shared.into(),
        gpu_models: vec!["H100".to_owned()],
        gpu_milli: 1_000,
        ..pb::Lease::default()
    };
    admission(request_id, ("nobody", pb::PriorityClass::InternalResearch), lease, Kind::Lease)
}

/// What is asked for; a job with the lease inside which it is to run, or an empty name.
enum Kind {
    Lease,
    Job(String),
}

fn admission(
    request_id: String,
    (tenant, class): (&str, pb::PriorityClass),
    lease: pb::Lease,
    kind: Kind,
) -> Ask {
    let as_job = matches!(kind, Kind::Job(_));
    let mut what = json!({
        "tenant_id": tenant, "priority_class": class.as_str_name(),
        "kind": if as_job { "job" } else { "lease" },
        "cluster_id": lease.cluster_id, "gpu_count": lease.gpu_count,
        "gpu_milli": lease.gpu_milli, "gpu_models": lease.gpu_models,
        "duration_seconds": lease.duration_seconds, "fabric_gbps": lease.fabric_gbps,
        "may_preempt": lease.may_preempt, "start": lease.start,
    });
    let subject = match kind {
        Kind::Lease => Subject::Lease(lease),
        Kind::Job(lease_id) => {
            if !lease_id.is_empty() {
                what["lease_id"] = lease_id.clone().into();
            }
            Subject::Job(pb::Job { lease_id, ..job_like(lease) })
        }
    };
    let request = pb::AdmitRequest {
        request_id: request_id.clone(),
        tenant_id: tenant.to_owned(),
        principal: Some(pb::Principal {
            issuer: "https://idp.example".into(),
            subject: format!("person of {request_id}"),
            groups: vec![],
        }),
        extends: None,
        waivers: Vec::new(),
        priority_class: class.into(),
        subject: Some(subject),
    };
    Ask { request_id, event: Event::Admit(request), what, members: vec![] }
}

fn job_like(lease: pb::Lease) -> pb::Job {
    pb::Job {
        cluster_id: lease.cluster_id,
        gpu_count: lease.gpu_count,
        duration_seconds: lease.duration_seconds,
        isolation_level: lease.isolation_level,
        gpu_models: lease.gpu_models,
        gpu_milli: lease.gpu_milli,
        fabric_gbps: lease.fabric_gbps,
        may_preempt: lease.may_preempt,
        start: lease.start,
        ..pb::Job::default()
    }
}

fn lease_like(job: pb::Job) -> pb::Lease {
    pb::Lease {
        cluster_id: job.cluster_id,
        gpu_count: job.gpu_count,
        duration_seconds: job.duration_seconds,
        isolation_level: job.isolation_level,
        gpu_models: job.gpu_models,
        gpu_milli: job.gpu_milli,
        fabric_gbps: job.fabric_gbps,
        may_preempt: job.may_preempt,
        start: job.start,
        ..pb::Lease::default()
    }
}

/// Whether what is asked for is best kept: it is sold, or runs inside a lease.
pub(super) fn stays(ask: &Ask) -> bool {
    sells(ask) || ask.what["lease_id"].is_string()
}

/// Whether what is asked for is sold.
fn sells(ask: &Ask) -> bool {
    let sold = i32::from(pb::PriorityClass::ExternalCommercial);
    matches!(&ask.event, Event::Admit(admit) if admit.priority_class == sold)
}

/// How a reservation is named: by itself, or by the admission that made it.
#[derive(Debug, Clone)]
pub(super) enum Named {
    Itself(String),
    Admission(String),
}

/// A confirm or a release of a tenant's reservation. A wrong one names another epoch.
pub(super) fn settle(confirm: bool, number: u64, of: &Ask, named: Named, wrong: bool) -> Ask {
    let verb = if confirm { "confirm" } else { "release" };
    let request_id = format!("{verb}-{}-{number}", of.request_id);
    let Event::Admit(admission) = &of.event else { panic!("only what was admitted is settled") };
    let tenant_id = admission.tenant_id.clone();
    settle_in(if wrong { WRONG_EPOCH } else { 1 }, confirm, request_id, tenant_id, named)
}

/// A release once more, in the next epoch, which an eviction or an extension has brought about;
/// `None` if no reservation comes to that, or it is no release.
pub(super) fn in_next_epoch(ask: &Ask) -> Option<Ask> {
    let Event::Release(release) = &ask.event else { return None };
    let reservation = release.reservation.as_ref().filter(|of| of.epoch < WRONG_EPOCH)?;
    let named = match reservation.target.clone()? {
        pb::reservation_ref::Target::ReservationId(id) => Named::Itself(id),
        pb::reservation_ref::Target::AdmitRequestId(id) => Named::Admission(id),
    };
    let (first, epoch) = (ask.request_id.split('@').next()?, reservation.epoch + 1);
    let request_id = format!("{first}@{epoch}");
    Some(settle_in(epoch, false, request_id, release.tenant_id.clone(), named))
}

fn settle_in(
    epoch: u64,
    confirm: bool,
    request_id: String,
    tenant_id: String,
    named: Named,
) -> Ask {
    let mut what = json!({"tenant_id": tenant_id, "epoch": epoch});
    let target = match named {
        Named::Itself(id) => {
            what["reservation_id"] = id.clone().into();
            pb::reservation_ref::Target::ReservationId(id)
        }
        Named::Admission(id) => {
            what["admit_request_id"] = id.clone().into();
            pb::reservation_ref::Target::AdmitRequestId(id)
        }
    };
    let reservation = Some(pb::ReservationRef { epoch, target: Some(target) });
    let event = if confirm {
        let request_id = request_id.clone();
        Event::Confirm(pb::ConfirmRequest { request_id, tenant_id, reservation })
    } else {
        let request_id = request_id.clone();
        Event::Release(pb::ReleaseRequest { request_id, tenant_id, reservation })
    };
    Ask { request_id, event, what, members: vec![] }
}

/// A small generator of our own, so that a seed gives the same load on every machine (Knuth's MMIX
/// constants).
#[derive(Debug, Clone)]
pub(super) struct Dice(u64);

impl Dice {
    /// One of many that share a seed and are drawn from apart.
    pub(super) fn new(seed: u64, number: u64) -> Self {
        let mut dice = Self(seed ^ number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        // The first draws of seeds that lie close together do so too.
        for _ in 0..4 {
            dice.below(2);
        }
        dice
    }

    /// 0 up to, not including, `bound`.
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }

    /// Whether something happens that does once in `of` times.
    pub(super) fn once_in(&mut self, of: u64) -> bool {
        self.below(of) == 0
    }

    pub(super) fn one<'a, T>(&mut self, list: &'a [T]) -> &'a T {
        let at = usize::try_from(self.below(u64::try_from(list.len()).unwrap())).unwrap();
        &list[at]
    }
}
