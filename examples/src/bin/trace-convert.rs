//! Turns a public cluster trace into events of Placet, and writes the facts that go with them.

use std::fs::File;
use std::io::{BufWriter, Write as _, stderr, stdout};
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use clap::Parser;
use placet_core::MAX_DURATION_SECONDS;
use placet_examples::trace::{Capacity, Plan, Tenancy, convert, facts, read_nodes};

/// Turns the tasks of Alibaba's cluster-trace-gpu-v2023 into JSONL events
///
/// Every task is admitted when it was created, confirmed at once, and released when it was deleted.
/// Tasks without GPUs and tasks that never ran are left out and counted on standard error.
#[derive(Debug, Parser)]
#[command(after_help = "Example:\n  trace-convert pods.csv --nodes nodes.csv --capacity 40 \
    --facts-out facts.yaml > events.jsonl")]
struct Args {
    /// CSV of the tasks
    pods: PathBuf,
    /// CSV of the nodes; by default nodes.csv beside the tasks
    #[arg(long)]
    nodes: Option<PathBuf>,
    /// Second 0 of the trace, in seconds since 1970; by default 2026-11-01T00:00:00Z
    #[arg(long, default_value_t = 1_793_491_200)]
    base_time: u64,
    /// Id of the cluster
    #[arg(long, default_value = "trace")]
    cluster: String,
    /// `half` of the trace's cluster by model, or a number of GPUs of one model
    #[arg(long, default_value = "half")]
    capacity: Capacity,
    /// Leaves the releases out: every task stays until the trace ends
    #[arg(long)]
    no_releases: bool,
    /// Longest that is asked for at once: a task that runs longer asks again then
    #[arg(long, value_name = "SECONDS",
          value_parser = clap::value_parser!(u64).range(1..=MAX_DURATION_SECONDS))]
    longest: Option<u64>,
    /// Seconds by which a task asks for more than it runs
    #[arg(long, default_value_t = 3_600)]
    margin: u64,
    /// Percent of each model that external work may not touch
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(0..=100))]
    safety_buffer: u32,
    /// GPU-seconds of each tenant's month; the default is never reached
    #[arg(long, default_value_t = 1_000_000_000_000)]
    budget: u64,
    /// Whose the tasks are
    #[arg(long, value_enum, default_value_t)]
    tenancy: Tenancy,
    /// Writes the matching facts here
    #[arg(long)]
    facts_out: Option<PathBuf>,
}

fn main() -> Result<()> {
    let args = Args::parse();
    let open = |path: &PathBuf| {
        File::open(path).with_context(|| format!("cannot open `{}`", path.display()))
    };
    let nodes = args.nodes.clone().unwrap_or_else(|| args.pods.with_file_name("nodes.csv"));
    let fleet = read_nodes(open(&nodes)?)?;
    let plan = Plan {
        base_time: args.base_time,
        budget: args.budget,
        capacity: args.capacity,
        cluster: args.cluster,
        longest: args.longest,
        margin: args.margin,
        releases: !args.no_releases,
        safety_buffer: args.safety_buffer,
        tenancy: args.tenancy,
    };
    let trace = convert(open(&args.pods)?, &fleet, &plan)?;
    if let Some(path) = &args.facts_out {
        std::fs::write(path, facts(&fleet, &plan)?)
            .with_context(|| format!("cannot write `{}`", path.display()))?;
    }
    let mut out = BufWriter::new(stdout().lock());
    for line in &trace.lines {
        writeln!(out, "{line}")?;
    }
    out.flush()?;
    writeln!(
        stderr(),
        "{} tasks became {} events; left out: {} without GPUs, {} that never ran",
        trace.tasks,
        trace.lines.len(),
        trace.without_gpu,
        trace.without_duration
    )?;
    Ok(())
}
