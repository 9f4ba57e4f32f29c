//! A public cluster trace as events of Placet.
//!
//! The format is that of Alibaba's `cluster-trace-gpu-v2023`: one CSV of tasks, one of nodes.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Read;

use anyhow::{Context as _, Result, bail};
use placet_core::{MAX_DURATION_SECONDS, MAX_GPU_MODELS};
use serde::Deserialize;
use serde_json::{Value, json};

/// The one model of a pooled cluster.
pub const POOL_MODEL: &str = "POOL";
/// GPUs of each tenant's own quota: more than any trace asks for, so that capacity decides.
const TENANT_MILLI_GPUS: u64 = 1_000_000_000;
/// What the trace's QoS classes become.
const CLASSES: [Class; 4] = [
    Class { qos: "LS", tenant: "trace-ls", internal: true },
    Class { qos: "Guaranteed", tenant: "trace-guaranteed", internal: true },
    Class { qos: "BE", tenant: "trace-be", internal: false },
    Class { qos: "Burstable", tenant: "trace-burstable", internal: false },
];

#[derive(Debug, Clone, Copy)]
struct Class {
    qos: &'static str,
    tenant: &'static str,
    internal: bool,
}

impl Class {
    fn priority(self) -> &'static str {
        if self.internal { "INTERNAL_RESEARCH" } else { "EXTERNAL_COMMERCIAL" }
    }
}

/// How large the cluster is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Capacity {
    /// So many GPUs of one model, which every task then asks for.
    Pooled(u32),
    /// Half of the trace's own cluster, model by model.
    Half,
}

impl std::str::FromStr for Capacity {
    type Err = anyhow::Error;
    fn from_str(text: &str) -> Result<Self> {
        match text {
            "half" => Ok(Self::Half),
            number => match number.parse() {
                Ok(gpus) if gpus > 0 => Ok(Self::Pooled(gpus)),
                Ok(_) | Err(_) => bail!("is neither `half` nor a number of GPUs"),
            },
        }
    }
}

/// What the events and the facts are made for.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Added to the trace's seconds: seconds since 1970-01-01 UTC.
    pub base_time: u64,
    /// GPU-seconds of each tenant's month.
    pub budget: u64,
    /// How large the cluster is.
    pub capacity: Capacity,
    /// Id of the cluster.
    pub cluster: String,
    /// Seconds by which a task asks for more than it runs.
    pub margin: u64,
    /// Whether tasks end as in the trace, or all stay until its end.
    pub releases: bool,
    /// Percent of each model that external work may not touch: 0..=100.
    pub safety_buffer: u32,
}

/// GPUs of the trace's cluster by model.
pub type Fleet = BTreeMap<String, u32>;

#[derive(Debug, Deserialize)]
struct Node {
    gpu: u32,
    model: String,
}

/// Reads the nodes.
///
/// # Errors
/// It is no such CSV.
pub fn read_nodes(nodes: impl Read) -> Result<Fleet> {
    let mut fleet = Fleet::new();
    for (row, node) in csv::Reader::from_reader(nodes).deserialize().enumerate() {
        let node: Node = node.with_context(|| format!("row {} of the nodes", row + 1))?;
        let gpus = fleet.entry(node.model).or_default();
        *gpus = gpus.checked_add(node.gpu).context("the nodes have too many GPUs")?;
    }
    Ok(fleet)
}

#[derive(Debug, Deserialize)]
struct Task {
    name: String,
    num_gpu: u32,
    gpu_milli: u32,
    gpu_spec: String,
    qos: String,
    creation_time: u64,
    deletion_time: u64,
    scheduled_time: Option<u64>,
}

impl Task {
    /// Seconds that it ran.
    fn ran(&self) -> u64 {
        self.deletion_time.saturating_sub(self.scheduled_time.unwrap_or(self.creation_time))
    }
}

/// The events, and what became of the tasks.
#[derive(Debug, Default)]
pub struct Trace {
    /// One event a line, in time order.
    pub lines: Vec<String>,
    /// Tasks that became events.
    pub tasks: usize,
    /// Tasks that were left out: they ask for no GPU.
    pub without_gpu: usize,
    /// Tasks that were left out: they never ran.
    pub without_duration: usize,
}

/// In the order of one second: what ends makes room for what begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    End,
    Begin,
}

/// Turns the tasks into events.
///
/// # Errors
/// It is no such CSV, or a task does not fit the contract.
pub fn convert(tasks: impl Read, fleet: &Fleet, plan: &Plan) -> Result<Trace> {
    let mut trace = Trace::default();
    let mut kept = Vec::new();
    for (row, task) in csv::Reader::from_reader(tasks).deserialize().enumerate() {
        let task: Task = task.with_context(|| format!("row {} of the tasks", row + 1))?;
        if task.num_gpu == 0 {
            trace.without_gpu += 1;
        } else if task.ran() == 0 {
            trace.without_duration += 1;
        } else {
            kept.push(task);
        }
    }
    trace.tasks = kept.len();
    let end = kept.iter().map(|task| task.deletion_time).max().unwrap_or(0);
    let mut events = Vec::new();
    for (at, task) in kept.iter().enumerate() {
        let class = CLASSES.into_iter().find(|class| class.qos == task.qos);
        let class = class
            .with_context(|| format!("task `{}` is of unknown QoS `{}`", task.name, task.qos))?;
        for (seconds, phase, event) in task_events(task, class, end, fleet, plan)? {
            let time = seconds.checked_add(plan.base_time).context("the base time is too late")?;
            events.push(((time, phase, at), event));
        }
    }
    // Stable: the confirmation of a task stays behind its admission.
    events.sort_by_key(|(order, _)| *order);
    for ((time, _, _), mut event) in events {
        event["time"] = json!(time);
        trace.lines.push(event.to_string());
    }
    Ok(trace)
}

fn task_events(
    task: &Task,
    class: Class,
    end: u64,
    fleet: &Fleet,
    plan: &Plan,
) -> Result<Vec<(u64, Phase, Value)>> {
    let until = if plan.releases { task.deletion_time } else { end };
    let duration = until.saturating_sub(task.creation_time).saturating_add(plan.margin);
    if duration > MAX_DURATION_SECONDS {
        bail!("task `{}` asks for {duration} s: give a smaller --margin", task.name);
    }
    let whole = task.gpu_milli >= 1_000;
    let workload = json!({
        "cluster_id": plan.cluster,
        "duration_seconds": duration,
        "gpu_count": task.num_gpu,
        "gpu_milli": task.gpu_milli,
        "gpu_models": gpu_models(task, fleet, plan)?,
        "isolation_level": if whole { "PASSTHROUGH" } else { "PARTITIONED" },
    });
    // Services are leases, batch work is jobs.
    let subject = if class.internal { "lease" } else { "job" };
    let admit = json!({ "admit": {
        "request_id": task.name, "tenant_id": class.tenant,
        "priority_class": class.priority(), subject: workload,
    }});
    let reservation = json!({ "admit_request_id": task.name, "epoch": 1 });
    let settle = |verb: &str| {
        json!({ verb: {
            "request_id": format!("{}:{verb}", task.name), "tenant_id": class.tenant,
            "reservation": reservation.clone(),
        }})
    };
    let mut events = vec![
        (task.creation_time, Phase::Begin, admit),
        (task.creation_time, Phase::Begin, settle("confirm")),
    ];
    if plan.releases {
        events.push((task.deletion_time, Phase::End, settle("release")));
    }
    Ok(events)
}

/// The models that a task accepts, each once.
fn gpu_models(task: &Task, fleet: &Fleet, plan: &Plan) -> Result<Vec<String>> {
    if let Capacity::Pooled(_) = plan.capacity {
        return Ok(vec![POOL_MODEL.to_owned()]);
    }
    let mut models: Vec<String> = Vec::new();
    if task.gpu_spec.is_empty() {
        // Any will do: the most plentiful first.
        let mut all: Vec<_> = fleet.iter().collect();
        all.sort_by_key(|(model, gpus)| (std::cmp::Reverse(**gpus), (*model).clone()));
        models.extend(all.into_iter().map(|(model, _)| model.clone()));
    } else {
        for model in task.gpu_spec.split('|') {
            if !models.iter().any(|known| known == model) {
                models.push(model.to_owned());
            }
        }
    }
    if models.is_empty() || models.len() > MAX_GPU_MODELS {
        bail!("task `{}` accepts {} models, 1 to {MAX_GPU_MODELS} fit", task.name, models.len());
    }
    Ok(models)
}

/// The facts under which the events make sense, as YAML.
///
/// # Errors
/// The cluster would have no GPU at all.
pub fn facts(fleet: &Fleet, plan: &Plan) -> Result<String> {
    let pools: Vec<(String, u32)> = match plan.capacity {
        Capacity::Pooled(gpus) => vec![(POOL_MODEL.to_owned(), gpus)],
        Capacity::Half => fleet.iter().map(|(model, gpus)| (model.clone(), gpus / 2)).collect(),
    };
    let gpus: u64 = pools.iter().map(|(_, gpus)| u64::from(*gpus)).sum();
    if gpus == 0 {
        bail!("the cluster would have no GPUs");
    }
    // Valid from a year before the trace until ten years after it.
    let from = plan.base_time.saturating_sub(31_536_000);
    let until = plan.base_time.saturating_add(315_360_000);
    let valid = format!("valid_from: {from}, valid_until: {until}");
    let mut text = String::from("# Written by trace-convert.\nschema: placet.facts/v1\n");
    text.push_str("revision: \"trace\"\ntenants:\n");
    for class in CLASSES {
        let kind = if class.internal { "OWN" } else { "CUSTOMER" };
        writeln!(text, "  - id: {}\n    kind: {kind}\n    min_isolation: SHARED", class.tenant)?;
        writeln!(text, "    priority_classes: [{}]", class.priority())?;
        writeln!(text, "    allowed_jurisdictions: []\n    licensed_models: []")?;
        writeln!(text, "    attestations: [{{framework: ISO27001, {valid}}}]")?;
    }
    writeln!(text, "clusters:\n  - id: {}\n    jurisdiction: DE\n    gpus:", plan.cluster)?;
    for (model, count) in &pools {
        // A small pool would have no buffer if it were rounded down.
        let buffer = (u64::from(*count) * u64::from(plan.safety_buffer)).div_ceil(100);
        writeln!(text, "      - {{model: {model}, count: {count}, safety_buffer: {buffer}}}")?;
    }
    writeln!(text, "    fabric_gbps: {}", gpus * 100)?;
    writeln!(text, "    isolation_levels: [SHARED, PARTITIONED, PASSTHROUGH, DEDICATED]")?;
    writeln!(text, "    attestations:")?;
    writeln!(text, "      - {{framework: ISO27001, {valid}}}")?;
    writeln!(text, "      - {{framework: SOC2, {valid}}}")?;
    writeln!(text, "datasets: []\nmodels: []\nquotas:")?;
    for Class { tenant, .. } in CLASSES {
        let level = format!("kind: level, unit: milli-gpu, limit: {TENANT_MILLI_GPUS}");
        writeln!(text, "  - {{account: tenant/{tenant}/gpu, {level}}}")?;
        let budget = format!("kind: budget, unit: gpu-second, limit: {}", plan.budget);
        writeln!(text, "  - {{account: \"tenant/{tenant}/gpu-seconds/{{month}}\", {budget}}}")?;
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use placet_proto::admission::v1::{StreamRequest, admit_request, stream_request::Event};

    const NODES: &str = "sn,cpu_milli,memory_mib,gpu,model\n\
        a,1,1,2,T4\nb,1,1,8,H100\nc,1,1,3,H100\n";
    const TASKS: &str = "name,cpu_milli,memory_mib,num_gpu,gpu_milli,gpu_spec,qos,pod_phase,\
        creation_time,deletion_time,scheduled_time\n\
        long,1,1,2,1000,,LS,Running,0,100,5\n\
        none,1,1,0,0,,BE,Running,1,50,1\n\
        late,1,1,1,300,T4|H100|T4,BE,Running,100,160,\n\
        zero,1,1,1,1000,,Burstable,Failed,10,20,20\n";

    fn plan() -> Plan {
        Plan {
            base_time: 1_000,
            budget: 7,
            capacity: Capacity::Half,
            cluster: "c-1".to_owned(),
            margin: 60,
            releases: true,
            safety_buffer: 10,
        }
    }

    fn fleet() -> Fleet {
        read_nodes(NODES.as_bytes()).expect("nodes")
    }

    fn events(plan: &Plan) -> Vec<StreamRequest> {
        let trace = convert(TASKS.as_bytes(), &fleet(), plan).expect("tasks");
        assert_eq!((trace.tasks, trace.without_gpu, trace.without_duration), (2, 1, 1));
        let read =
            |line: &String| placet_proto::json::from_json(line).expect("the contract's JSON");
        trace.lines.iter().map(read).collect()
    }

    fn names(events: &[StreamRequest]) -> Vec<(u64, &str)> {
        let name = |event: &StreamRequest| match &event.event {
            Some(Event::Admit(_)) => "admit",
            Some(Event::Confirm(_)) => "confirm",
            Some(Event::Release(_)) => "release",
            None => "nothing",
        };
        events.iter().map(|event| (event.time.unwrap_or(0), name(event))).collect()
    }

    #[test]
    fn events_are_in_true_time_order_and_ends_come_first() {
        let events = events(&plan());
        let expected = [
            (1_000, "admit"),
            (1_000, "confirm"),
            (1_100, "release"),
            (1_100, "admit"),
            (1_100, "confirm"),
            (1_160, "release"),
        ];
        assert_eq!(names(&events), expected);
        let Some(Event::Admit(admit)) = &events[3].event else { panic!("the second admission") };
        let Some(admit_request::Subject::Job(job)) = &admit.subject else { panic!("a job") };
        assert_eq!(admit.tenant_id, "trace-be");
        assert_eq!((job.gpu_count, job.gpu_milli, job.duration_seconds), (1, 300, 120));
        assert_eq!(job.gpu_models, ["T4", "H100"]);
        let Some(Event::Admit(admit)) = &events[0].event else { panic!("the first admission") };
        let Some(admit_request::Subject::Lease(lease)) = &admit.subject else { panic!("a lease") };
        assert_eq!(lease.gpu_models, ["H100", "T4"], "the most plentiful first");
    }

    #[test]
    fn without_releases_all_stay_until_the_end() {
        let plan = Plan { releases: false, capacity: Capacity::Pooled(40), ..plan() };
        let events = events(&plan);
        assert_eq!(names(&events).len(), 4);
        let Some(Event::Admit(admit)) = &events[0].event else { panic!("an admission") };
        let Some(admit_request::Subject::Lease(lease)) = &admit.subject else { panic!("a lease") };
        assert_eq!(
            (lease.duration_seconds, lease.gpu_models.as_slice()),
            (220, &["POOL".into()][..])
        );
    }

    #[test]
    fn facts_match_the_capacity() {
        let half = facts(&fleet(), &plan()).expect("facts");
        assert!(half.contains("{model: H100, count: 5, safety_buffer: 1}"), "{half}");
        assert!(half.contains("{model: T4, count: 1, safety_buffer: 1}"), "{half}");
        let pooled = Plan { capacity: Capacity::Pooled(40), ..plan() };
        let pooled = facts(&fleet(), &pooled).expect("facts");
        assert!(pooled.contains("{model: POOL, count: 40, safety_buffer: 4}"), "{pooled}");
        assert!(facts(&Fleet::new(), &plan()).is_err());
    }

    #[test]
    fn what_is_no_trace_is_refused() {
        let error = convert("name\nx\n".as_bytes(), &fleet(), &plan()).expect_err("columns");
        assert!(error.to_string().contains("row 1 of the tasks"), "{error}");
        let odd = TASKS.replace(",LS,", ",XX,");
        let error = convert(odd.as_bytes(), &fleet(), &plan()).expect_err("QoS").to_string();
        assert_eq!(error, "task `long` is of unknown QoS `XX`");
        for text in ["0", "-1", "", "whole"] {
            assert!(text.parse::<Capacity>().is_err(), "{text}");
        }
    }
}
