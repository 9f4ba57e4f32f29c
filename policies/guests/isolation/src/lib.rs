//! The isolation policy: hardware is shared only among those who may see each other's work.
//!
//! Twin of `policies/reference/isolation/isolation.rego`; the shared cases hold the two equal.
//!
//! Parameters: `{"network_obligation_from": LEVEL}`, the level from which the tenant gets a network
//! partition.

use placet_guest::{
    Answer, Classification, Decided, Denial, Input, IsolationLevel, Obligation, Workload,
};

placet_guest::policy!(evaluate);

/// Thousandths in a whole GPU.
const WHOLE_GPU: u32 = 1_000;

fn evaluate(input: Input, params: &str) -> Answer {
    let network_from = match network_obligation_from(params) {
        Ok(level) => level,
        Err(error) => return Answer::failed(error),
    };
    let Some((kind, workload)) = input.subject() else {
        return Answer::failed("the input has not exactly one of lease and job");
    };
    let mut decided = Decided::permit();
    check_offer(&input, kind, workload, &mut decided);
    check_data(&input, kind, workload.isolation_level, &mut decided);
    oblige(&input, workload.isolation_level, network_from, &mut decided);
    decided.into()
}

/// The only parameter, from the canonical JSON object that the host hands over.
fn network_obligation_from(params: &str) -> Result<IsolationLevel, String> {
    const PREFIX: &str = "{\"network_obligation_from\":\"";
    let name = params.strip_prefix(PREFIX).and_then(|rest| rest.strip_suffix("\"}"));
    name.and_then(IsolationLevel::from_name).ok_or_else(|| {
        "params are not {\"network_obligation_from\": an isolation level}".to_owned()
    })
}

/// What the cluster offers, what the contract promises, and what a share of a GPU allows.
fn check_offer(input: &Input, kind: &str, workload: &Workload, decided: &mut Decided) {
    let level = workload.isolation_level;
    let field = || [kind, ".isolation_level"].concat();
    if !input.cluster.isolation_levels.contains(&level) {
        let levels = &input.cluster.isolation_levels;
        let in_order = IsolationLevel::ALL.iter().filter(|level| levels.contains(level));
        let offered: Vec<&str> = in_order.map(|level| level.name()).collect();
        let id = &input.cluster.id;
        decided.deny(
            Denial::new(
                "ISOLATION_NOT_OFFERED",
                ["cluster ", id, " does not offer isolation level ", level.name()].concat(),
            )
            .field(field())
            .hint(["offered are ", &offered.join(", ")].concat()),
        );
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
        decided.deny(
            Denial::new("ISOLATION_BELOW_CONTRACT", message.concat())
                .field(field())
                .hint(ask_for(least)),
        );
    }
    if workload.gpu_milli < WHOLE_GPU && level > IsolationLevel::Partitioned {
        decided.deny(
            Denial::new(
                "SHARE_OF_GPU_NEEDS_SHARING",
                ["a share of a GPU cannot be had at isolation level ", level.name()].concat(),
            )
            .field([kind, ".gpu_milli"].concat())
            .hint("ask for whole GPUs (gpu_milli 1000) or for PARTITIONED or below"),
        );
    }
}

/// What the classification of datasets and weights asks for.
fn check_data(input: &Input, kind: &str, level: IsolationLevel, decided: &mut Decided) {
    let field = || [kind, ".isolation_level"].concat();
    for dataset in &input.datasets {
        let class = dataset.classification;
        let need = least_isolation(class);
        if level < need {
            let message = [
                "dataset ",
                &dataset.id,
                " is ",
                class.name(),
                " and needs isolation level ",
                need.name(),
                " or above",
            ];
            decided.deny(
                Denial::new("ISOLATION_BELOW_DATA", message.concat())
                    .field(field())
                    .hint(ask_for(need)),
            );
        }
        if class >= Classification::Confidential && dataset.owner != input.tenant.id {
            let message =
                ["dataset ", &dataset.id, " belongs to ", &dataset.owner, " and is ", class.name()];
            decided.deny(
                Denial::new("DATASET_NOT_YOURS", message.concat())
                    .field([kind, ".dataset_ids"].concat()),
            );
        }
    }
    for model in &input.models {
        let class = model.classification;
        let need = least_isolation(class);
        if level < need {
            let message = [
                "weights of model ",
                &model.id,
                " are ",
                class.name(),
                " and need isolation level ",
                need.name(),
                " or above",
            ];
            decided.deny(
                Denial::new("ISOLATION_BELOW_WEIGHTS", message.concat())
                    .field(field())
                    .hint(ask_for(need)),
            );
        }
    }
}

/// How the provisioner must keep the workload apart.
fn oblige(
    input: &Input,
    level: IsolationLevel,
    network_from: IsolationLevel,
    decided: &mut Decided,
) {
    let mode = match level {
        IsolationLevel::Shared => "time-slice",
        IsolationLevel::Partitioned => "mig-or-sriov",
        IsolationLevel::Passthrough => "pci-passthrough",
        IsolationLevel::Dedicated => "whole-host",
        IsolationLevel::Confidential => "whole-host-attested",
    };
    decided.oblige(Obligation::new("isolation").param("level", level.name()).param("mode", mode));
    if level >= network_from {
        let tenant = input.tenant.id.as_str();
        decided.oblige(Obligation::new("network.partition").param("tenant", tenant));
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
