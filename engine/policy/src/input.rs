//! The one document that every policy sees, and its records.
//!
//! Field names, order, units and ranges are those of `placet/policy/v1/input.proto`; a test holds
//! proto, WIT, JSON Schema and these types equal. In JSON the fields stand in alphabetical order,
//! enums by name, absent optional fields are left out, and numbers are integers below 2^53.

use placet_core::{Id, IsolationLevel, MAX_AMOUNT, PriorityClass, canonical_json};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::value::{ToValue, named, record};

record! {
    /// Everything a policy may know about a request. Exactly one of `job` and `lease` is present.
    pub struct Input {
        /// The cluster that was asked for.
        pub cluster: Cluster,
        /// The datasets that it reads, in the request's order.
        pub datasets: Vec<Dataset>,
        /// The workload, if a job is asked for.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        pub job: Option<Workload>,
        /// The workload, if a lease is asked for.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        pub lease: Option<Workload>,
        /// The hosted models that it uses, in the request's order.
        pub models: Vec<Model>,
        /// Calendar month of the workload's `start` in UTC as YYYY-MM: the window of monthly
        /// budgets.
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
        /// First second, since 1970-01-01 UTC: `time`, or up to 31,622,400 seconds (366 days) after
        /// it if a later start is asked for; below 2^53. For an extension, the end of what it
        /// extends.
        #[schemars(range(max = MAX_AMOUNT))]
        pub start: u64,
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
        /// Id of the model, such as H100.
        pub model: Id,
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
        /// Ids of the hosted models that it may use.
        pub licensed_models: Vec<Id>,
        /// Least isolation that its contract promises.
        pub min_isolation: IsolationLevel,
        /// Classes in which it may ask.
        pub priority_classes: Vec<PriorityClass>,
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

    /// The published JSON Schema (draft 2020-12) of the document.
    #[must_use]
    pub fn json_schema() -> schemars::Schema {
        schemars::schema_for!(Input)
    }

    /// The document as the Rego interpreter reads it: equal to its reading of [`Input::canonical`].
    #[must_use]
    pub fn to_value(&self) -> regorus::Value {
        ToValue::to_value(self)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;
    use regorus::Value;

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
        let parts = (names, numbers, more, beyond);
        parts.prop_map(|(names, numbers, (milli_gpus, start), beyond)| Workload {
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
        })
    }

    fn extends() -> impl Strategy<Value = Extends> {
        let parts = (0..=MAX_AMOUNT, id(), 0..=MAX_AMOUNT);
        parts.prop_map(|(end, reservation_id, start)| Extends { end, reservation_id, start })
    }

    fn cluster() -> impl Strategy<Value = Cluster> {
        let pool = (any::<u32>(), id(), any::<u32>());
        let pool =
            pool.prop_map(|(count, model, safety_buffer)| GpuPool { count, model, safety_buffer });
        let pools = prop::collection::vec(pool, 0..3);
        let levels = prop::collection::vec(level(), 0..3);
        (attestations(), 0..=MAX_AMOUNT, pools, id(), levels, id()).prop_map(|parts| Cluster {
            attestations: parts.0,
            fabric_gbps: parts.1,
            gpus: parts.2,
            id: parts.3,
            isolation_levels: parts.4,
            jurisdiction: parts.5,
        })
    }

    fn tenant() -> impl Strategy<Value = Tenant> {
        let kind = prop::sample::select(vec![TenantKind::Own, TenantKind::Customer]);
        let classes = prop::collection::vec(class(), 0..3);
        (ids(), attestations(), id(), kind, ids(), level(), classes).prop_map(|parts| Tenant {
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
        let dataset = (classification(), id(), ids(), id(), any::<bool>());
        let dataset = dataset.prop_map(|parts| Dataset {
            classification: parts.0,
            id: parts.1,
            jurisdictions: parts.2,
            owner: parts.3,
            personal: parts.4,
        });
        let model = (classification(), id(), id());
        let model =
            model.prop_map(|(classification, id, owner)| Model { classification, id, owner });
        let principal = (ids(), ".{0,20}", "[0-9a-f]{64}");
        let principal = principal.prop_map(|(groups, issuer, subject_commitment)| Principal {
            groups,
            issuer,
            subject_commitment,
        });
        let lists = (prop::collection::vec(dataset, 0..3), prop::collection::vec(model, 0..3));
        let who = (prop::option::of(principal), class(), tenant());
        let subject = (any::<bool>(), workload());
        (cluster(), lists, subject, who, 0..=MAX_AMOUNT, "[0-9]{4}-[0-9]{2}").prop_map(|parts| {
            let (cluster, (datasets, models), (is_lease, workload), who, time, month) = parts;
            let (lease, job) =
                if is_lease { (Some(workload), None) } else { (None, Some(workload)) };
            let (principal, priority_class, tenant) = who;
            Input {
                cluster,
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
            prop_assert_eq!(&input.to_value(), &Value::from_json_str(&text).expect("it is JSON"));
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
