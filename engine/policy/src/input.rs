//! The one document that every policy sees, and its records.
//!
//! Field names, order, units and ranges are those of `placet/policy/v1/input.proto`; a test holds
//! proto, WIT, JSON Schema and these types equal. In JSON the fields stand in alphabetical order,
//! enums by name, absent optional fields are left out, and numbers are integers below 2^53. What
//! came after the first version has a default, so that facts and inputs written before are read.

use placet_core::{Id, IsolationLevel, MAX_AMOUNT, ModelUse, PriorityClass, canonical_json};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::value::{ToValue, named, record};

/// Most GPUs of one host: several times the largest there is.
const MAX_GPUS_PER_HOST: u32 = 1_024;
/// Most readers of a dataset or a model: they cross into every policy with each request.
const MAX_READERS: usize = 64;
/// Most licences of a tenant, for the same reason.
const MAX_LICENCES: usize = 256;

/// GPUs of one host where the facts do not say: none is held for the sake of another.
fn one() -> u32 {
    1
}

record! {
    /// Everything a policy may know about a request. Exactly one of `job` and `lease` is present.
    pub struct Input {
        /// The cluster that was asked for.
        pub cluster: Cluster,
        /// The datasets that it reads, in the request's order.
        pub datasets: Vec<Dataset>,
        /// Calendar day of the workload's `start` in UTC as YYYY-MM-DD: the window of daily
        /// budgets.
        #[schemars(regex(pattern = "^[0-9]{4}-[0-9]{2}-[0-9]{2}$"))]
        #[serde(default)]
        pub day: String,
        /// The workload, if a job is asked for.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        pub job: Option<Workload>,
        /// The workload, if a lease is asked for.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        pub lease: Option<Workload>,
        /// The hosted models that it uses, in the request's order.
        pub models: Vec<Model>,
        /// Calendar month of the workload's `start` in UTC as YYYY-MM: the window of monthly
        /// budgets. Yearly ones take its first four digits.
        #[schemars(regex(pattern = "^[0-9]{4}-[0-9]{2}$"))]
        pub month: String,
        /// Who acts; absent if the request names nobody.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        pub principal: Option<Principal>,
        /// The order in which it may displace others.
        pub priority_class: PriorityClass,
        /// The tenant that pays.
        pub tenant: Tenant,
        /// When the request is decided, in seconds since 1970-01-01 UTC, below 2^53.
        #[schemars(range(max = MAX_AMOUNT))]
        pub time: u64,
    }
}

record! {
    /// What is asked for, with the amounts worked out.
    pub struct Workload {
        /// Jurisdictions to which results are written.
        pub checkpoint_jurisdictions: Vec<Id>,
        /// Longest run time in seconds, 1 to 31,622,400.
        pub duration_seconds: u64,
        /// Bytes that leave the cluster, over the whole duration; below 2^53.
        #[schemars(range(max = MAX_AMOUNT))]
        #[serde(default)]
        pub egress_bytes: u64,
        /// Jurisdictions to which its results are read out or sent.
        #[serde(default)]
        pub egress_jurisdictions: Vec<Id>,
        /// The reservation that is to go on, if more time is asked for one: all else is what is
        /// asked for in addition.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        pub extends: Option<Extends>,
        /// Gbit/s over all GPUs together.
        pub fabric_gbps: u32,
        /// GPUs, 1 to 1,000,000.
        pub gpu_count: u32,
        /// Share of each GPU in thousandths, 1 to 1,000.
        pub gpu_milli: u32,
        /// The model under evaluation: each of `gpu_models` in turn.
        pub gpu_model: Id,
        /// Acceptable models that the cluster has, the preferred first.
        pub gpu_models: Vec<Id>,
        /// GPU-seconds over the whole duration, rounded up.
        pub gpu_seconds: u64,
        /// How far it is kept apart.
        pub isolation_level: IsolationLevel,
        /// The reservation of the lease inside which a job runs; absent for other jobs and for
        /// leases. What it may hold of that lease is claimed on the accounts `lease/<id>`
        /// in thousandths of a GPU and `lease/<id>/fabric-gbps`.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        pub lease_id: Option<Id>,
        /// Asks to displace others.
        pub may_preempt: bool,
        /// Thousandths of a GPU, in all.
        pub milli_gpus: u64,
        /// What it does with the models that it names; absent if it does not say.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        pub model_use: Option<ModelUse>,
        /// First second, since 1970-01-01 UTC: `time`, or up to 31,622,400 seconds (366 days) after
        /// it if a later start is asked for; below 2^53. For an extension, the end of what it
        /// extends.
        #[schemars(range(max = MAX_AMOUNT))]
        pub start: u64,
        /// Bytes that it reads from and writes to storage, over the whole duration; below 2^53.
        #[schemars(range(max = MAX_AMOUNT))]
        #[serde(default)]
        pub storage_io_bytes: u64,
    }
}

record! {
    /// A reservation that is to go on. The ledger admits nothing if it is not as told here.
    pub struct Extends {
        /// First second after it as it is, since 1970-01-01 UTC; below 2^53.
        #[schemars(range(max = MAX_AMOUNT))]
        pub end: u64,
        /// Its name.
        pub reservation_id: Id,
        /// Its first second, since 1970-01-01 UTC, of all its time; below 2^53.
        #[schemars(range(max = MAX_AMOUNT))]
        pub start: u64,
    }
}

record! {
    /// Who acts for the tenant.
    pub struct Principal {
        /// Groups that the issuer vouches for.
        pub groups: Vec<Id>,
        /// Issuer of the identity.
        pub issuer: String,
        /// Salted SHA-256 commitment to the subject, 64 hexadecimal digits. The value itself is
        /// kept apart.
        #[schemars(regex(pattern = "^[0-9a-f]{64}$"))]
        pub subject_commitment: String,
    }
}

record! {
    /// A cluster, as the facts describe it.
    pub struct Cluster {
        /// What an auditor attested for it.
        pub attestations: Vec<Attestation>,
        /// Gbit/s of its fabric, below 2^53.
        #[schemars(range(max = MAX_AMOUNT))]
        pub fabric_gbps: u64,
        /// What its fabric is made of, and so how tenants are kept apart on it.
        #[serde(default)]
        pub fabric_kind: FabricKind,
        /// Its GPUs by model, each model once.
        pub gpus: Vec<GpuPool>,
        /// Its name.
        pub id: Id,
        /// Levels that it can provide.
        pub isolation_levels: Vec<IsolationLevel>,
        /// Where it stands: an ISO 3166-1 alpha-2 code, such as DE.
        #[schemars(with = "Jurisdiction")]
        pub jurisdiction: Id,
    }
}

record! {
    /// The GPUs of one model in a cluster.
    pub struct GpuPool {
        /// GPUs in all.
        pub count: u32,
        /// GPUs of one host, 1 to 1,024: whole hosts are had in multiples of it.
        #[schemars(range(min = 1, max = MAX_GPUS_PER_HOST))]
        #[serde(default = "one")]
        pub gpus_per_host: u32,
        /// Id of the model, such as H100.
        pub model: Id,
        /// How its GPUs can be cut into shares, the preferred way first, each once. Empty: not at
        /// all.
        #[serde(default)]
        pub partition_modes: Vec<PartitionMode>,
        /// GPUs that external work may not touch; at most `count`.
        pub safety_buffer: u32,
    }
}

record! {
    /// An auditor's attestation of a tenant or a cluster.
    pub struct Attestation {
        /// Such as SOC2 or ISO27001.
        pub framework: Id,
        /// First second of its validity, since 1970-01-01 UTC.
        #[schemars(range(max = MAX_AMOUNT))]
        pub valid_from: u64,
        /// First second after its validity, since 1970-01-01 UTC.
        #[schemars(range(max = MAX_AMOUNT))]
        pub valid_until: u64,
    }
}

record! {
    /// A dataset, as the facts describe it.
    pub struct Dataset {
        /// How far it may spread.
        pub classification: Classification,
        /// Its name.
        pub id: Id,
        /// Where it may be processed: ISO 3166-1 alpha-2 codes. Empty means anywhere.
        #[schemars(with = "Vec<Jurisdiction>")]
        pub jurisdictions: Vec<Id>,
        /// Id of the tenant that owns it.
        pub owner: Id,
        /// Holds personal data.
        pub personal: bool,
        /// Ids of the tenants beside its owner that may see it, each once.
        #[schemars(length(max = MAX_READERS))]
        #[serde(default)]
        pub readers: Vec<Id>,
    }
}

record! {
    /// A hosted model, as the facts describe it.
    pub struct Model {
        /// How far its weights may spread.
        pub classification: Classification,
        /// Its name.
        pub id: Id,
        /// Id of the tenant that owns it.
        pub owner: Id,
        /// Ids of the tenants beside its owner that may see its weights, each once. A licence is
        /// for use, not for this.
        #[schemars(length(max = MAX_READERS))]
        #[serde(default)]
        pub readers: Vec<Id>,
    }
}

record! {
    /// That a tenant may use a hosted model, for some uses and some time.
    pub struct Licence {
        /// Id of the model.
        pub model: Id,
        /// For what, 1 to 4, each once.
        #[schemars(length(min = 1, max = 4))]
        pub uses: Vec<ModelUse>,
        /// First second of its validity, since 1970-01-01 UTC.
        #[schemars(range(max = MAX_AMOUNT))]
        pub valid_from: u64,
        /// First second after its validity, since 1970-01-01 UTC.
        #[schemars(range(max = MAX_AMOUNT))]
        pub valid_until: u64,
    }
}

record! {
    /// A tenant, as the facts describe it.
    pub struct Tenant {
        /// Where its work may run: ISO 3166-1 alpha-2 codes. Empty means anywhere.
        #[schemars(with = "Vec<Jurisdiction>")]
        pub allowed_jurisdictions: Vec<Id>,
        /// What an auditor attested for it.
        pub attestations: Vec<Attestation>,
        /// Its name.
        pub id: Id,
        /// Whether it belongs to the house.
        pub kind: TenantKind,
        /// Hosted models that it may use for some uses and some time.
        #[schemars(length(max = MAX_LICENCES))]
        #[serde(default)]
        pub licences: Vec<Licence>,
        /// Ids of the hosted models that it may use for everything, without end.
        pub licensed_models: Vec<Id>,
        /// Least isolation that its contract promises.
        pub min_isolation: IsolationLevel,
        /// Classes in which it may ask.
        pub priority_classes: Vec<PriorityClass>,
        /// Where it has its seat: an ISO 3166-1 alpha-2 code. Absent if that is not known.
        #[schemars(with = "Option<Jurisdiction>")]
        #[serde(skip_serializing_if = "Option::is_none", default)]
        pub seat: Option<Id>,
        /// Id of the service level that its contract promises, such as gold. Absent: none.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        pub sla: Option<Id>,
    }
}

/// How far data or model weights may spread: a chain, from free to guarded.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Classification {
    /// Anybody.
    Public,
    /// The owner and those it works with.
    Internal,
    /// The owner alone; hardware not shared with others at the same time.
    Confidential,
    /// The owner alone, on hardware that attests itself.
    Restricted,
}

named!(Classification {
    Public = "PUBLIC",
    Internal = "INTERNAL",
    Confidential = "CONFIDENTIAL",
    Restricted = "RESTRICTED",
});

/// What a fabric is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum FabricKind {
    /// Parted by VLAN or VXLAN.
    #[default]
    Ethernet,
    /// RDMA over converged Ethernet: parted by VLAN, and needs congestion control.
    Roce,
    /// Parted by partition key.
    Infiniband,
}

named!(FabricKind { Ethernet = "ETHERNET", Roce = "ROCE", Infiniband = "INFINIBAND" });

/// How a GPU can be cut into shares that do not see one another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum PartitionMode {
    /// Slices of the GPU with memory of their own.
    Mig,
    /// Virtual functions of the device.
    Sriov,
}

named!(PartitionMode { Mig = "MIG", Sriov = "SRIOV" });

/// Whether a tenant belongs to the house.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum TenantKind {
    /// A team of the operator.
    Own,
    /// A buyer of capacity.
    Customer,
}

named!(TenantKind { Own = "OWN", Customer = "CUSTOMER" });

/// A country in the published schemas: an ISO 3166-1 alpha-2 code.
struct Jurisdiction;

impl JsonSchema for Jurisdiction {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Jurisdiction".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "string", "pattern": "^[A-Z]{2}$" })
    }
}

impl Input {
    /// The document as it is stored and digested: canonical JSON (RFC 8785).
    ///
    /// # Panics
    /// Never: every field has a canonical form.
    #[must_use]
    pub fn canonical(&self) -> Vec<u8> {
        canonical_json(self).expect("an input holds only names, texts, flags, numbers and lists")
    }

    /// The workload, of a lease or a job.
    #[must_use]
    pub fn workload(&self) -> Option<&Workload> {
        self.lease.as_ref().or(self.job.as_ref())
    }

    /// The published JSON Schema (draft 2020-12) of the document as policies see it: every field
    /// is there, but for the optional ones.
    #[must_use]
    pub fn json_schema() -> schemars::Schema {
        let mut schema = schemars::schema_for!(Input);
        let root = schema.ensure_object();
        for record in root.get_mut("$defs").and_then(Value::as_object_mut).into_iter().flatten() {
            if let Some(record) = record.1.as_object_mut() {
                require_defaults(record);
            }
        }
        require_defaults(root);
        schema
    }

    /// The document as the Rego interpreter reads it: equal to its reading of [`Input::canonical`].
    #[must_use]
    pub fn to_value(&self) -> regorus::Value {
        ToValue::to_value(self)
    }
}

/// What facts may leave out is in the input with its default, so it is required there.
fn require_defaults(record: &mut Map<String, Value>) {
    let Some(properties) = record.get_mut("properties").and_then(Value::as_object_mut) else {
        return;
    };
    let mut there = Vec::new();
    for (name, property) in properties {
        let default = property.as_object_mut().and_then(|property| property.remove("default"));
        if default.is_some_and(|default| !default.is_null()) {
            there.push(Value::from(name.as_str()));
        }
    }
    if let Some(required) = record.get_mut("required").and_then(Value::as_array_mut) {
        required.extend(there);
        required.sort_by(|one, other| one.as_str().cmp(&other.as_str()));
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;
    use regorus::Value as Document;

    fn id() -> impl Strategy<Value = Id> {
        "[A-Za-z0-9][A-Za-z0-9._:@-]{0,8}".prop_map(|text| Id::new(text).expect("an id"))
    }

    fn ids() -> impl Strategy<Value = Vec<Id>> {
        prop::collection::vec(id(), 0..3)
    }

    fn level() -> impl Strategy<Value = IsolationLevel> {
        use IsolationLevel::{Confidential, Dedicated, Partitioned, Passthrough, Shared};
        prop::sample::select(vec![Shared, Partitioned, Passthrough, Dedicated, Confidential])
    }

    fn class() -> impl Strategy<Value = PriorityClass> {
        use PriorityClass::{ExternalCommercial, InternalResearch};
        prop::sample::select(vec![InternalResearch, ExternalCommercial])
    }

    fn classification() -> impl Strategy<Value = Classification> {
        use Classification::{Confidential, Internal, Public, Restricted};
        prop::sample::select(vec![Public, Internal, Confidential, Restricted])
    }

    fn model_use() -> impl Strategy<Value = ModelUse> {
        use ModelUse::{Evaluation, FineTuning, Inference, Training};
        prop::sample::select(vec![Training, FineTuning, Inference, Evaluation])
    }

    fn attestations() -> impl Strategy<Value = Vec<Attestation>> {
        let one = (id(), 0..=MAX_AMOUNT, 0..=MAX_AMOUNT);
        let one = one.prop_map(|(framework, valid_from, valid_until)| Attestation {
            framework,
            valid_from,
            valid_until,
        });
        prop::collection::vec(one, 0..3)
    }

    fn workload() -> impl Strategy<Value = Workload> {
        let names = (ids(), id(), ids(), level(), any::<bool>());
        let numbers = (0..=MAX_AMOUNT, any::<u32>(), any::<u32>(), any::<u32>(), 0..=MAX_AMOUNT);
        let more = (0..=MAX_AMOUNT, 0..=MAX_AMOUNT);
        let beyond = (prop::option::of(extends()), prop::option::of(id()));
        let traffic = (0..=MAX_AMOUNT, 0..=MAX_AMOUNT, ids(), prop::option::of(model_use()));
        let parts = (names, numbers, more, beyond, traffic);
        parts.prop_map(|(names, numbers, (milli_gpus, start), beyond, traffic)| Workload {
            checkpoint_jurisdictions: names.0,
            duration_seconds: numbers.0,
            fabric_gbps: numbers.1,
            gpu_count: numbers.2,
            gpu_milli: numbers.3,
            gpu_model: names.1,
            gpu_models: names.2,
            gpu_seconds: numbers.4,
            isolation_level: names.3,
            may_preempt: names.4,
            milli_gpus,
            start,
            extends: beyond.0,
            lease_id: beyond.1,
            egress_bytes: traffic.0,
            storage_io_bytes: traffic.1,
            egress_jurisdictions: traffic.2,
            model_use: traffic.3,
        })
    }

    fn extends() -> impl Strategy<Value = Extends> {
        let parts = (0..=MAX_AMOUNT, id(), 0..=MAX_AMOUNT);
        parts.prop_map(|(end, reservation_id, start)| Extends { end, reservation_id, start })
    }

    fn cluster() -> impl Strategy<Value = Cluster> {
        let modes = prop::sample::subsequence(vec![PartitionMode::Mig, PartitionMode::Sriov], 0..3);
        let pool = (any::<u32>(), id(), any::<u32>(), 1..=MAX_GPUS_PER_HOST, modes);
        let pool = pool.prop_map(|parts| GpuPool {
            count: parts.0,
            gpus_per_host: parts.3,
            model: parts.1,
            partition_modes: parts.4,
            safety_buffer: parts.2,
        });
        let pools = prop::collection::vec(pool, 0..3);
        let levels = prop::collection::vec(level(), 0..3);
        let kinds = vec![FabricKind::Ethernet, FabricKind::Roce, FabricKind::Infiniband];
        let kind = prop::sample::select(kinds);
        let parts = (attestations(), 0..=MAX_AMOUNT, pools, id(), levels, id(), kind);
        parts.prop_map(|parts| Cluster {
            fabric_kind: parts.6,
            attestations: parts.0,
            fabric_gbps: parts.1,
            gpus: parts.2,
            id: parts.3,
            isolation_levels: parts.4,
            jurisdiction: parts.5,
        })
    }

    fn licences() -> impl Strategy<Value = Vec<Licence>> {
        let uses = prop::collection::vec(model_use(), 0..3);
        let one = (id(), uses, 0..=MAX_AMOUNT, 0..=MAX_AMOUNT);
        let one = one.prop_map(|(model, uses, valid_from, valid_until)| Licence {
            model,
            uses,
            valid_from,
            valid_until,
        });
        prop::collection::vec(one, 0..3)
    }

    fn tenant() -> impl Strategy<Value = Tenant> {
        let kind = prop::sample::select(vec![TenantKind::Own, TenantKind::Customer]);
        let classes = prop::collection::vec(class(), 0..3);
        let contract = (licences(), prop::option::of(id()), prop::option::of(id()));
        let parts = (ids(), attestations(), id(), kind, ids(), level(), classes, contract);
        parts.prop_map(|parts| Tenant {
            licences: parts.7.0,
            seat: parts.7.1,
            sla: parts.7.2,
            allowed_jurisdictions: parts.0,
            attestations: parts.1,
            id: parts.2,
            kind: parts.3,
            licensed_models: parts.4,
            min_isolation: parts.5,
            priority_classes: parts.6,
        })
    }

    /// Any input that has the types, sensible or not.
    pub(crate) fn input() -> impl Strategy<Value = Input> {
        let dataset = (classification(), id(), ids(), id(), any::<bool>(), ids());
        let dataset = dataset.prop_map(|parts| Dataset {
            classification: parts.0,
            id: parts.1,
            jurisdictions: parts.2,
            owner: parts.3,
            personal: parts.4,
            readers: parts.5,
        });
        let model = (classification(), id(), id(), ids());
        let model = model.prop_map(|(classification, id, owner, readers)| Model {
            classification,
            id,
            owner,
            readers,
        });
        let principal = (ids(), ".{0,20}", "[0-9a-f]{64}");
        let principal = principal.prop_map(|(groups, issuer, subject_commitment)| Principal {
            groups,
            issuer,
            subject_commitment,
        });
        let lists = (prop::collection::vec(dataset, 0..3), prop::collection::vec(model, 0..3));
        let who = (prop::option::of(principal), class(), tenant());
        let subject = (any::<bool>(), workload());
        let when = (0..=MAX_AMOUNT, "[0-9]{4}-[0-9]{2}", "[0-9]{4}-[0-9]{2}-[0-9]{2}");
        (cluster(), lists, subject, who, when).prop_map(|parts| {
            let (cluster, (datasets, models), (is_lease, workload), who, when) = parts;
            let (time, month, day) = when;
            let (lease, job) =
                if is_lease { (Some(workload), None) } else { (None, Some(workload)) };
            let (principal, priority_class, tenant) = who;
            Input {
                cluster,
                day,
                datasets,
                job,
                lease,
                models,
                month,
                principal,
                priority_class,
                tenant,
                time,
            }
        })
    }

    proptest! {
        #[test]
        fn the_value_is_what_the_interpreter_reads_from_the_canonical_json(input in input()) {
            let text = String::from_utf8(input.canonical()).expect("JSON is UTF-8");
            let read = Document::from_json_str(&text).expect("it is JSON");
            prop_assert_eq!(&input.to_value(), &read);
            let back: Input = serde_json::from_str(&text).expect("reads back");
            prop_assert_eq!(back, input);
        }
    }

    #[test]
    fn unknown_fields_are_refused() {
        let error = serde_json::from_str::<GpuPool>(
            r#"{"count": 1, "model": "H100", "safety_buffer": 0, "saftey": 1}"#,
        );
        assert!(error.is_err());
    }
}
