//! The isolation policy: hardware is shared only among those who may see each other's work.
//!
//! Twin of `policies/reference/isolation/isolation.rego`; shared cases and differential tests hold
//! the two equal.

use std::collections::BTreeSet;

use placet_guest::{
    Answer, Classification, Decided, Denial, FabricKind, GpuPool, Input, IsolationLevel,
    Obligation, PartitionMode, TenantKind, Workload,
};
use serde_json::{Map, Value};

placet_guest::policy!(evaluate);

/// Thousandths in a whole GPU.
const WHOLE_GPU: u32 = 1_000;
/// Age that the attestation of a host may have, in seconds, where the params do not say.
const ATTESTATION_SECONDS: i64 = 3_600;
/// As long as a param of an obligation may be.
const MOST_BYTES: usize = 256;

fn evaluate(input: Input, params: &str) -> Answer {
    match decide(&input, params) {
        Ok(decided) => decided.into(),
        Err(error) => Answer::failed(error),
    }
}

fn decide(input: &Input, params: &str) -> Result<Decided, String> {
    let params = Params::read(params, input.tenant.kind)?;
    let (kind, workload) =
        input.subject().ok_or("the input has not exactly one of lease and job")?;
    let asked = Asked {
        input,
        kind,
        workload,
        level: workload.isolation_level,
        pool: input.cluster.gpus.iter().find(|pool| pool.model == workload.gpu_model),
    };
    let mut decided = Decided::permit();
    asked.check_offer(&params, &mut decided);
    asked.check_hardware(&mut decided)?;
    asked.check_data(&mut decided);
    asked.oblige(&params, &mut decided);
    asked.choose_neighbours(&mut decided);
    Ok(decided)
}

/// What the bundle's author may set; the schema is `isolation.schema.json`.
struct Params {
    attestation_max_age_seconds: i64,
    /// For the tenant's kind.
    least_level: IsolationLevel,
    network_obligation_from: IsolationLevel,
}

impl Params {
    /// A param that names no level is an error, not a door left open.
    fn read(params: &str, kind: TenantKind) -> Result<Self, String> {
        let params: Map<String, Value> =
            serde_json::from_str(params).map_err(|_| "params are no object".to_owned())?;
        let age = match params.get("attestation_max_age_seconds") {
            Some(age) => age.as_i64().ok_or("attestation_max_age_seconds is no number")?,
            None => ATTESTATION_SECONDS,
        };
        let least = match params.get("least_level") {
            Some(levels) => levels.as_object().ok_or("least_level is no object")?.get(kind.name()),
            None => None,
        };
        Ok(Self {
            attestation_max_age_seconds: age,
            least_level: least.map_or(Ok(IsolationLevel::Shared), level_of)?,
            network_obligation_from: level_of(
                params.get("network_obligation_from").unwrap_or(&Value::Null),
            )?,
        })
    }
}

fn level_of(value: &Value) -> Result<IsolationLevel, String> {
    let level = value.as_str().and_then(IsolationLevel::from_name);
    level.ok_or_else(|| "a param is no isolation level".to_owned())
}

/// A request, and what is looked at again and again.
struct Asked<'a> {
    input: &'a Input,
    kind: &'static str,
    workload: &'a Workload,
    level: IsolationLevel,
    /// The GPUs under evaluation.
    pool: Option<&'a GpuPool>,
}

impl Asked<'_> {
    fn field(&self, name: &str) -> String {
        [self.kind, ".", name].concat()
    }

    fn deny_level(&self, decided: &mut Decided, code: &str, message: &[&str], hint: String) {
        let denial = Denial::new(code, message.concat()).field(self.field("isolation_level"));
        decided.deny(denial.hint(hint));
    }

    /// What the cluster offers, and what class and contract of the tenant ask for.
    fn check_offer(&self, params: &Params, decided: &mut Decided) {
        let (level, input) = (self.level, self.input);
        let levels = &input.cluster.isolation_levels;
        if !levels.contains(&level) {
            let in_order = IsolationLevel::ALL.iter().filter(|level| levels.contains(level));
            let offered: Vec<&str> = in_order.map(|level| level.name()).collect();
            let cluster = input.cluster.id.as_str();
            let message = ["cluster ", cluster, " does not offer isolation level ", level.name()];
            let hint = ["offered are ", &offered.join(", ")].concat();
            self.deny_level(decided, "ISOLATION_NOT_OFFERED", &message, hint);
        }
        let least = params.least_level;
        if level < least {
            let message = [
                "isolation level ",
                level.name(),
                " is below ",
                least.name(),
                ", the least for tenants of kind ",
                input.tenant.kind.name(),
            ];
            self.deny_level(decided, "ISOLATION_BELOW_CLASS", &message, ask_for(least));
        }
        let least = input.tenant.min_isolation;
        if level < least {
            let message = [
                "isolation level ",
                level.name(),
                " is below ",
                least.name(),
                ", the least that the contract of tenant ",
                &input.tenant.id,
                " promises",
            ];
            self.deny_level(decided, "ISOLATION_BELOW_CONTRACT", &message, ask_for(least));
        }
    }

    /// What a share of a GPU allows, and what whole hosts ask for.
    fn check_hardware(&self, decided: &mut Decided) -> Result<(), String> {
        let (level, workload) = (self.level, self.workload);
        let (cluster, model) = (self.input.cluster.id.as_str(), workload.gpu_model.as_str());
        let is_share = workload.gpu_milli < WHOLE_GPU;
        if is_share && level > IsolationLevel::Partitioned {
            let message = ["a share of a GPU cannot be had at isolation level ", level.name()];
            decided.deny(
                Denial::new("SHARE_OF_GPU_NEEDS_SHARING", message.concat())
                    .field(self.field("gpu_milli"))
                    .hint("ask for whole GPUs (gpu_milli 1000) or for PARTITIONED or below"),
            );
        }
        if is_share && level == IsolationLevel::Partitioned && self.way().is_none() {
            let message = [
                "GPUs of model ",
                model,
                " in cluster ",
                cluster,
                " cannot be cut into shares that are kept apart",
            ];
            decided.deny(
                Denial::new("PARTITION_NOT_OFFERED", message.concat())
                    .field(self.field("gpu_milli"))
                    .hint("ask for whole GPUs (gpu_milli 1000) or for another GPU model"),
            );
        }
        let Some(pool) = self.pool else { return Ok(()) };
        if level < IsolationLevel::Dedicated || workload.lease_id.is_some() {
            return Ok(());
        }
        let (count, host) = (workload.gpu_count, pool.gpus_per_host);
        let left = count.checked_rem(host).ok_or("a host has no GPUs")?;
        if left > 0 {
            let message = format!(
                "{count} GPUs are no whole hosts: model {model} in cluster {cluster} has {host} a \
                 host"
            );
            let hint = match count - left {
                0 => format!("ask for {host} GPUs"),
                below => format!("ask for {below} or {} GPUs", u64::from(below) + u64::from(host)),
            };
            let denial = Denial::new("WHOLE_HOSTS_ONLY", message);
            decided.deny(denial.field(self.field("gpu_count")).hint(hint));
        }
        Ok(())
    }

    /// What the classification of datasets and weights asks for.
    fn check_data(&self, decided: &mut Decided) {
        for dataset in &self.input.datasets {
            let class = dataset.classification;
            let need = least_isolation(class);
            if self.level < need {
                let message = [
                    "dataset ",
                    &dataset.id,
                    " is ",
                    class.name(),
                    " and needs isolation level ",
                    need.name(),
                    " or above",
                ];
                self.deny_level(decided, "ISOLATION_BELOW_DATA", &message, ask_for(need));
            }
            let tenant = &self.input.tenant.id;
            let may_read = dataset.owner == *tenant
                || class == Classification::Public
                || (class == Classification::Internal && dataset.readers.contains(tenant));
            if !may_read {
                let message = [
                    "dataset ",
                    &dataset.id,
                    " belongs to ",
                    &dataset.owner,
                    " and is ",
                    class.name(),
                ];
                let denial = Denial::new("DATASET_NOT_YOURS", message.concat());
                decided.deny(denial.field(self.field("dataset_ids")));
            }
        }
        for model in &self.input.models {
            let class = model.classification;
            let need = least_isolation(class);
            if self.level < need {
                let message = [
                    "weights of model ",
                    &model.id,
                    " are ",
                    class.name(),
                    " and need isolation level ",
                    need.name(),
                    " or above",
                ];
                self.deny_level(decided, "ISOLATION_BELOW_WEIGHTS", &message, ask_for(need));
            }
        }
    }

    /// How the GPUs under evaluation are cut, if they can be.
    fn way(&self) -> Option<PartitionMode> {
        self.pool.and_then(|pool| pool.partition_modes.first()).copied()
    }

    /// How the provisioner must keep the workload apart.
    fn oblige(&self, params: &Params, decided: &mut Decided) {
        let level = self.level;
        let mode = match (level, self.way()) {
            (IsolationLevel::Shared, _) => "time-slice",
            (IsolationLevel::Partitioned, Some(PartitionMode::Mig)) => "mig",
            (IsolationLevel::Partitioned, Some(PartitionMode::Sriov)) => "sr-iov",
            // Whole GPUs that cannot be cut are as far apart when each is handed over whole.
            (IsolationLevel::Partitioned, None) | (IsolationLevel::Passthrough, _) => {
                "pci-passthrough"
            }
            (IsolationLevel::Dedicated, _) => "whole-host",
            (IsolationLevel::Confidential, _) => "whole-host-attested",
        };
        decided
            .oblige(Obligation::new("isolation").param("level", level.name()).param("mode", mode));
        if level == IsolationLevel::Confidential {
            let age = params.attestation_max_age_seconds.to_string();
            decided.oblige(Obligation::new("host.attest").param("max_age_seconds", age));
        }
        if level >= params.network_obligation_from {
            let kind = match self.input.cluster.fabric_kind {
                FabricKind::Ethernet => "vxlan",
                FabricKind::Roce => "vlan",
                FabricKind::Infiniband => "pkey",
            };
            let tenant = self.input.tenant.id.as_str();
            let partition = Obligation::new("network.partition");
            decided.oblige(partition.param("kind", kind).param("tenant", tenant));
        }
    }

    /// Who may be on the same hosts, where hosts are shared.
    fn choose_neighbours(&self, decided: &mut Decided) {
        if self.level >= IsolationLevel::Dedicated {
            return;
        }
        let datasets =
            self.input.datasets.iter().map(|one| (one.classification, &one.owner, &one.readers));
        let models =
            self.input.models.iter().map(|one| (one.classification, &one.owner, &one.readers));
        let guarded = datasets.chain(models).filter(|(class, ..)| *class != Classification::Public);
        let circles = guarded.map(|(_, owner, readers)| -> BTreeSet<&str> {
            std::iter::once(owner).chain(readers).map(String::as_str).collect()
        });
        let Some(mut together) = circles.reduce(|one, other| &one & &other) else { return };
        let tenant = self.input.tenant.id.as_str();
        together.insert(tenant);
        let together: Vec<&str> = together.into_iter().collect();
        let together = together.join(",");
        let neighbours = if together.len() <= MOST_BYTES { together.as_str() } else { tenant };
        decided.oblige(Obligation::new("placement.co-residents").param("tenants", neighbours));
    }
}

/// The least isolation under which data or weights of a class may be worked on.
fn least_isolation(class: Classification) -> IsolationLevel {
    match class {
        Classification::Public => IsolationLevel::Shared,
        Classification::Internal => IsolationLevel::Partitioned,
        Classification::Confidential => IsolationLevel::Dedicated,
        Classification::Restricted => IsolationLevel::Confidential,
    }
}

fn ask_for(least: IsolationLevel) -> String {
    ["ask for ", least.name(), " or above"].concat()
}
