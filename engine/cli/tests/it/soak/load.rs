//! What the clients of the crash test ask, and the small world that they ask it in.

use std::path::Path;

use placet_proto::admission::v1 as pb;
use placet_proto::admission::v1::stream_request::Event;
use serde_json::{Value, json};

use crate::server::root;

/// Seconds within which a reservation must be confirmed: short, so that some expire in every run.
pub(super) const CONFIRM_WITHIN: u64 = 2;
/// Shortest and longest lease in seconds: both end within a run.
const SECONDS: (u64, u64) = (3, 8);
/// Who asks, of which class.
const TENANTS: [(&str, pb::PriorityClass); 3] = [
    ("research", pb::PriorityClass::InternalResearch),
    ("laboratory", pb::PriorityClass::InternalResearch),
    ("customer", pb::PriorityClass::ExternalCommercial),
];

/// GPUs of one model in a cluster: model, how many, and how many of them are the safety buffer.
type Pool = (&'static str, u64, u64);
/// A cluster: its name, its GPUs, and Gbit/s of fabric.
type Cluster = (&'static str, &'static [Pool], u64);

/// Tight for most of a run.
const CLUSTERS: [Cluster; 2] =
    [("c1", &[("H100", 400, 80), ("A100", 60, 10)], 900), ("c2", &[("H100", 40, 8)], 200)];
/// Kind, unit and limit of the tenants' accounts. Some levels are tight for most of a run, two of
/// the budgets towards its end.
const QUOTAS: [(&str, &str, &str, u64); 6] = [
    ("tenant/research/gpu", "level", "milli-gpu", 300_000),
    ("tenant/laboratory/gpu", "level", "milli-gpu", 60_000),
    ("tenant/customer/gpu", "level", "milli-gpu", 120_000),
    ("tenant/research/gpu-seconds/{month}", "budget", "gpu-second", 10_000_000),
    ("tenant/laboratory/gpu-seconds/{month}", "budget", "gpu-second", 300),
    ("tenant/customer/gpu-seconds/{month}", "budget", "gpu-second", 600),
];
/// Two policies of the reference bundle: those that claim. The others would only make starting
/// slower, and with it every cycle.
const BUNDLE: &str = "\
schema: placet.bundle/v1
revision: soak
required:
  lease: [capacity, quota]
policies:
  - name: capacity
    source: capacity/capacity.rego
    params_schema: capacity/capacity.schema.json
    params: {external_fabric_percent: 80}
  - name: quota
    source: quota/quota.rego
    params_schema: quota/quota.schema.json
    params:
      max_duration_seconds: {INTERNAL_RESEARCH: 3600, EXTERNAL_COMMERCIAL: 3600}
";

/// Writes bundle and facts into a folder.
pub(super) fn write_world(folder: &Path) {
    let (shipped, bundle) = (root().join("policies/reference"), folder.join("bundle"));
    for policy in ["capacity", "quota"] {
        std::fs::create_dir_all(bundle.join(policy)).unwrap();
        for file in [format!("{policy}.rego"), format!("{policy}.schema.json")] {
            let path = Path::new(policy).join(file);
            std::fs::copy(shipped.join(&path), bundle.join(&path)).unwrap();
        }
    }
    std::fs::write(bundle.join("bundle.yaml"), BUNDLE).unwrap();
    // JSON is YAML.
    std::fs::write(folder.join("facts.yaml"), facts().to_string()).unwrap();
}

fn facts() -> Value {
    let tenant = |(id, class): &(&str, pb::PriorityClass)| {
        let internal = *class == pb::PriorityClass::InternalResearch;
        json!({
            "id": id, "kind": if internal { "OWN" } else { "CUSTOMER" },
            "allowed_jurisdictions": [], "attestations": [], "licensed_models": [],
            "min_isolation": "SHARED", "priority_classes": [class.as_str_name()],
        })
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
    let quota = |quota: &(&str, &str, &str, u64)| {
        let (account, kind, unit, limit) = quota;
        json!({"account": account, "kind": kind, "unit": unit, "limit": limit})
    };
    json!({
        "schema": "placet.facts/v1", "revision": "soak", "datasets": [], "models": [],
        "tenants": TENANTS.iter().map(tenant).collect::<Vec<_>>(),
        "clusters": CLUSTERS.iter().map(cluster).collect::<Vec<_>>(),
        "quotas": QUOTAS.iter().map(quota).collect::<Vec<_>>(),
    })
}

/// The hard limit of every account, for the auditor.
pub(super) fn limits() -> Value {
    let mut limits = serde_json::Map::new();
    for (id, pools, fabric) in CLUSTERS {
        limits.insert(format!("cluster/{id}/fabric-gbps"), fabric.into());
        for (model, count, _) in pools {
            limits.insert(format!("cluster/{id}/gpu/{model}"), (count * 1_000).into());
        }
    }
    limits.extend(QUOTAS.map(|(account, _, _, limit)| (account.to_owned(), limit.into())));
    limits.into()
}

/// Something to ask, as often as it takes to be answered.
#[derive(Debug, Clone)]
pub(super) struct Ask {
    pub(super) request_id: String,
    pub(super) event: Event,
    /// The same for the record.
    pub(super) what: Value,
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
}

/// A lease, drawn.
pub(super) fn admit(request_id: String, dice: &mut Dice) -> Ask {
    let (tenant, class) = *dice.one(&TENANTS);
    let (cluster, pools, _) = if dice.once_in(4) { CLUSTERS[1] } else { CLUSTERS[0] };
    // The first is preferred; another one is tried where there is no room.
    let models: Vec<String> = pools.iter().rev().map(|(model, _, _)| (*model).to_owned()).collect();
    let lease = pb::Lease {
        cluster_id: cluster.to_owned(),
        gpu_count: u32::try_from(1 + dice.below(8)).unwrap(),
        duration_seconds: SECONDS.0 + dice.below(SECONDS.1 - SECONDS.0 + 1),
        isolation_level: pb::IsolationLevel::Shared.into(),
        gpu_models: models,
        gpu_milli: *dice.one(&[1_000, 1_000, 1_000, 250]),
        fabric_gbps: u32::try_from(dice.below(3) * 10).unwrap(),
        ..pb::Lease::default()
    };
    admission(request_id, tenant, class, lease)
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
    admission(request_id, "nobody", pb::PriorityClass::InternalResearch, lease)
}

fn admission(request_id: String, tenant: &str, class: pb::PriorityClass, lease: pb::Lease) -> Ask {
    let what = json!({
        "tenant_id": tenant, "cluster_id": lease.cluster_id, "gpu_count": lease.gpu_count,
        "gpu_milli": lease.gpu_milli, "duration_seconds": lease.duration_seconds,
        "fabric_gbps": lease.fabric_gbps,
    });
    let request = pb::AdmitRequest {
        request_id: request_id.clone(),
        tenant_id: tenant.to_owned(),
        principal: Some(pb::Principal {
            issuer: "https://idp.example".into(),
            subject: format!("person of {request_id}"),
            groups: vec![],
        }),
        extends: None,
        priority_class: class.into(),
        subject: Some(pb::admit_request::Subject::Lease(lease)),
    };
    Ask { request_id, event: Event::Admit(request), what }
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
    let epoch = if wrong { 2 } else { 1 };
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
    Ask { request_id, event, what }
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

    fn one<'a, T>(&mut self, list: &'a [T]) -> &'a T {
        let at = usize::try_from(self.below(u64::try_from(list.len()).unwrap())).unwrap();
        &list[at]
    }
}
