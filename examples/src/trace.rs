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

use crate::cohorts::{self, Extra};

/// The one model of a pooled cluster.
pub const POOL_MODEL: &str = "POOL";
/// GPUs of each tenant's own quota: more than any trace asks for, so that capacity decides.
const TENANT_MILLI_GPUS: u64 = 1_000_000_000;
/// What the trace's QoS classes become.
const CLASSES: [(&str, Class); 4] = [
    ("LS", Class { tenant: "trace-ls", internal: true }),
    ("Guaranteed", Class { tenant: "trace-guaranteed", internal: true }),
    ("BE", Class { tenant: "trace-be", internal: false }),
    ("Burstable", Class { tenant: "trace-burstable", internal: false }),
];

/// Who asks, and in which class.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Class {
    /// Id of the tenant.
    pub tenant: &'static str,
    /// Whether it is the owner's own, or a customer.
    pub internal: bool,
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

/// Whose the tasks are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Tenancy {
    /// One tenant for each QoS class, with quotas that are never reached
    #[default]
    Qos,
    /// Four tenants in two cohorts, with bookings in advance and a burst that preempts
    Cohorts,
}

impl Tenancy {
    fn classes(self) -> Vec<Class> {
        match self {
            Self::Qos => CLASSES.iter().map(|(_, class)| *class).collect(),
            Self::Cohorts => cohorts::TENANTS.iter().map(|tenant| tenant.class).collect(),
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
    /// Longest that is asked for at once, in seconds: a task that runs longer asks again then.
    pub longest: Option<u64>,
    /// Seconds by which a task asks for more than it runs.
    pub margin: u64,
    /// Whether tasks end as in the trace, or all stay until its end.
    pub releases: bool,
    /// Percent of each model that external work may not touch: 0..=100.
    pub safety_buffer: u32,
    /// Whose the tasks are.
    pub tenancy: Tenancy,
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
        for (seconds, phase, event) in task_events(task, end, fleet, plan)? {
            events.push(((plan.at(seconds)?, phase, at), event));
        }
    }
    if plan.tenancy == Tenancy::Cohorts {
        if plan.capacity == Capacity::Half {
            bail!("what the cohorts book is of one model: give --capacity a number of GPUs");
        }
        for (at, extra) in cohorts::EXTRAS.iter().enumerate() {
            for (seconds, phase, event) in extra_events(extra, plan)? {
                events.push(((plan.at(seconds)?, phase, kept.len() + at), event));
            }
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

impl Plan {
    fn at(&self, seconds: u64) -> Result<u64> {
        seconds.checked_add(self.base_time).context("the base time is too late")
    }
}

/// One request of a task.
#[derive(Debug, Clone, Copy)]
struct Piece {
    begin: u64,
    duration: u64,
    /// When it is given back, if that is before its end.
    release: Option<u64>,
}

/// The requests of a task, one after another.
fn pieces(task: &Task, end: u64, plan: &Plan) -> Vec<Piece> {
    let until = if plan.releases { task.deletion_time } else { end };
    let mut begin = task.creation_time;
    let mut pieces = Vec::new();
    loop {
        let wanted = until.saturating_sub(begin).saturating_add(plan.margin);
        let duration = plan.longest.map_or(wanted, |longest| wanted.min(longest));
        let over = begin.saturating_add(duration);
        let release = Some(until).filter(|until| plan.releases && *until < over);
        pieces.push(Piece { begin, duration, release });
        if over >= until {
            return pieces;
        }
        begin = over;
    }
}

fn task_events(
    task: &Task,
    end: u64,
    fleet: &Fleet,
    plan: &Plan,
) -> Result<Vec<(u64, Phase, Value)>> {
    let class = CLASSES.iter().find(|(qos, _)| *qos == task.qos).map(|(_, class)| *class);
    let by_qos =
        class.with_context(|| format!("task `{}` is of unknown QoS `{}`", task.name, task.qos))?;
    let class = match plan.tenancy {
        Tenancy::Qos => by_qos,
        Tenancy::Cohorts => cohorts::owner(&task.name),
    };
    // Services are leases, batch work is jobs.
    let subject = if by_qos.internal { "lease" } else { "job" };
    let whole = task.gpu_milli >= 1_000;
    let models = gpu_models(task, fleet, plan)?;
    let mut events = Vec::new();
    for (number, piece) in pieces(task, end, plan).into_iter().enumerate() {
        let Piece { begin, duration, release } = piece;
        if duration > MAX_DURATION_SECONDS {
            bail!("task `{}` asks for {duration} s: give a smaller --margin", task.name);
        }
        let name = match number {
            0 => task.name.clone(),
            later => format!("{}.{later}", task.name),
        };
        let workload = json!({
            "cluster_id": plan.cluster,
            "duration_seconds": duration,
            "gpu_count": task.num_gpu,
            "gpu_milli": task.gpu_milli,
            "gpu_models": models,
            "isolation_level": if whole { "PASSTHROUGH" } else { "PARTITIONED" },
        });
        events.push((begin, Phase::Begin, admit(&name, class, subject, workload)));
        events.push((begin, Phase::Begin, settle("confirm", &name, class)));
        if let Some(time) = release {
            events.push((time, Phase::End, settle("release", &name, class)));
        }
    }
    Ok(events)
}

fn admit(name: &str, class: Class, subject: &str, workload: Value) -> Value {
    json!({ "admit": {
        "request_id": name, "tenant_id": class.tenant,
        "priority_class": class.priority(), subject: workload,
    }})
}

fn settle(verb: &str, name: &str, class: Class) -> Value {
    json!({ verb: {
        "request_id": format!("{name}:{verb}"), "tenant_id": class.tenant,
        "reservation": {"admit_request_id": name, "epoch": 1},
    }})
}

/// What is asked for beside the tasks: confirmed at once, and held to its end.
fn extra_events(extra: &Extra, plan: &Plan) -> Result<[(u64, Phase, Value); 2]> {
    let mut workload = cohorts::workload(extra, &plan.cluster, POOL_MODEL);
    if let Some(start) = extra.start {
        workload["start"] = json!(plan.at(start)?);
    }
    let (at, begin) = (extra.asked, Phase::Begin);
    Ok([
        (at, begin, admit(extra.name, extra.class, "job", workload)),
        (at, begin, settle("confirm", extra.name, extra.class)),
    ])
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
    let classes = plan.tenancy.classes();
    for class in &classes {
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
    if plan.tenancy == Tenancy::Cohorts {
        for quota in cohorts::quotas() {
            writeln!(text, "  - {quota}")?;
        }
    }
    for Class { tenant, .. } in classes {
        if plan.tenancy == Tenancy::Qos {
            let level = format!("kind: level, unit: milli-gpu, limit: {TENANT_MILLI_GPUS}");
            writeln!(text, "  - {{account: tenant/{tenant}/gpu, {level}}}")?;
        }
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
            longest: None,
            margin: 60,
            releases: true,
            safety_buffer: 10,
            tenancy: Tenancy::Qos,
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
    fn a_task_that_runs_for_long_asks_again_and_again() {
        let plan = Plan { longest: Some(40), ..plan() };
        let events = events(&plan);
        let admitted = |event: &StreamRequest| match &event.event {
            Some(Event::Admit(admit)) => match &admit.subject {
                Some(admit_request::Subject::Lease(lease)) => {
                    Some((admit.request_id.clone(), event.time?, lease.duration_seconds))
                }
                _ => None,
            },
            _ => None,
        };
        let leases: Vec<_> = events.iter().filter_map(admitted).collect();
        let lease = |name: &str, time, seconds| (name.to_owned(), time, seconds);
        // The margin is that of the last alone.
        let expected =
            [lease("long", 1_000, 40), lease("long.1", 1_040, 40), lease("long.2", 1_080, 40)];
        assert_eq!(leases, expected);
        let released: Vec<_> = names(&events).into_iter().filter(|it| it.1 == "release").collect();
        assert_eq!(
            released,
            [(1_100, "release"), (1_160, "release")],
            "the rest end by themselves"
        );
    }

    #[test]
    fn tenants_in_cohorts_book_ahead_and_preempt() {
        let plan = Plan { tenancy: Tenancy::Cohorts, capacity: Capacity::Pooled(40), ..plan() };
        let events = events(&plan);
        let times: Vec<_> = events.iter().map(|event| event.time).collect();
        assert!(times.is_sorted(), "{times:?}");
        let mut seen = std::collections::BTreeSet::new();
        let (mut ahead, mut preempting) = (0, 0);
        for event in &events {
            let Some(Event::Admit(admit)) = &event.event else { continue };
            seen.insert(admit.request_id.as_str());
            assert!(cohorts::TENANTS.iter().any(|it| it.class.tenant == admit.tenant_id));
            let Some(admit_request::Subject::Job(job)) = &admit.subject else { continue };
            ahead += u32::from(job.start > event.time.unwrap_or(0));
            preempting += u32::from(job.may_preempt);
        }
        assert_eq!((seen.len(), ahead, preempting), (8, 2, 4), "{seen:?}");
        let facts = facts(&fleet(), &plan).expect("facts");
        assert!(facts.contains("account: tenant/a-lab/gpu, kind: level"), "{facts}");
        assert!(facts.contains("cohort: pool-b"), "{facts}");
        assert!(!facts.contains("trace-ls"), "{facts}");
        placet_facts(&facts);
    }

    /// Whether an account of the facts is told twice.
    fn placet_facts(facts: &str) {
        let accounts = facts.lines().filter_map(|line| line.split("account: ").nth(1));
        let mut names: Vec<_> = accounts.filter_map(|rest| rest.split(',').next()).collect();
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!((names.len(), count), (10, 10), "{names:?}");
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
