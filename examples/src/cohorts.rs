//! Four tenants in two cohorts, who share one cluster: who they are, what each may hold, what is
//! booked in advance and what comes as a burst. All of it invented; the tasks come from a trace.

use serde_json::{Value, json};

use crate::trace::Class;

/// A tenant and its part of the trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tenant {
    /// Its name and its class.
    pub class: Class,
    /// Percent of the tasks that are its own: 1..=100, 100 in all.
    pub share: u64,
    /// The cohort that it is a member of.
    pub cohort: &'static str,
    /// GPUs that it may hold whatever others do.
    pub nominal: u64,
    /// Most GPUs beyond those.
    pub borrowing: Option<u64>,
    /// Most of its own GPUs that others may hold.
    pub lending: Option<u64>,
}

/// The four. The house's own laboratory has the largest quota, uses little of it most of the time,
/// and keeps most of it for its runs; the others are customers.
pub const TENANTS: [Tenant; 4] = [
    Tenant {
        class: Class { tenant: "a-lab", internal: true },
        share: 20,
        cohort: "pool-a",
        nominal: 32,
        borrowing: None,
        lending: Some(6),
    },
    Tenant {
        class: Class { tenant: "a-shop", internal: false },
        share: 30,
        cohort: "pool-a",
        nominal: 8,
        borrowing: Some(4),
        lending: None,
    },
    Tenant {
        class: Class { tenant: "b-studio", internal: false },
        share: 30,
        cohort: "pool-b",
        nominal: 8,
        borrowing: None,
        lending: None,
    },
    Tenant {
        class: Class { tenant: "b-works", internal: false },
        share: 20,
        cohort: "pool-b",
        nominal: 12,
        borrowing: None,
        lending: Some(4),
    },
];

/// A request that is no task of the trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extra {
    /// Its request id.
    pub name: &'static str,
    /// Whose it is.
    pub class: Class,
    /// When it is asked for, in seconds of the trace.
    pub asked: u64,
    /// When it begins if it is booked ahead, in seconds of the trace.
    pub start: Option<u64>,
    /// GPUs.
    pub gpus: u32,
    /// Its length.
    pub seconds: u64,
    /// Whether it may displace others.
    pub may_preempt: bool,
}

const HOUR: u64 = 3_600;
const DAY: u64 = 24 * HOUR;
/// When the burst begins.
const BURST: u64 = 144 * DAY + 10 * HOUR;

const fn burst(name: &'static str, minute: u64) -> Extra {
    Extra {
        name,
        class: TENANTS[0].class,
        asked: BURST + minute * 60,
        start: None,
        gpus: 5,
        seconds: 6 * HOUR,
        may_preempt: true,
    }
}

/// What is asked for beside the tasks. The trace is busy from its day 115 on.
pub const EXTRAS: [Extra; 6] = [
    Extra {
        name: "ahead-exhibition",
        class: TENANTS[2].class,
        asked: 128 * DAY,
        start: Some(130 * DAY + 9 * HOUR),
        gpus: 8,
        seconds: 8 * HOUR,
        may_preempt: false,
    },
    Extra {
        name: "ahead-training",
        class: TENANTS[0].class,
        asked: 136 * DAY + 6 * HOUR,
        start: Some(137 * DAY + 6 * HOUR),
        gpus: 30,
        seconds: 12 * HOUR,
        may_preempt: false,
    },
    burst("burst-1", 0),
    burst("burst-2", 10),
    burst("burst-3", 20),
    burst("burst-4", 30),
];

/// Whose a task is: always the same one's, whatever else is in the trace.
#[must_use]
pub fn owner(task: &str) -> Class {
    // FNV-1a, 64 bits: http://www.isthe.com/chongo/tech/comp/fnv/
    let hash = task.bytes().fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    // The upper half: the lower bits of names that end alike are alike.
    let mut left = (hash >> 32) % 100;
    for Tenant { class, share, .. } in TENANTS {
        match left.checked_sub(share) {
            Some(less) => left = less,
            None => return class,
        }
    }
    TENANTS[0].class
}

/// The quotas as entries of the facts, in YAML.
#[must_use]
pub fn quotas() -> Vec<String> {
    let level = "kind: level, unit: milli-gpu";
    let mut cohorts: Vec<&str> = TENANTS.iter().map(|tenant| tenant.cohort).collect();
    cohorts.dedup();
    let mut lines: Vec<String> =
        cohorts.iter().map(|cohort| format!("{{account: {cohort}, {level}, limit: 0}}")).collect();
    for Tenant { class, cohort, nominal, borrowing, lending, .. } in TENANTS {
        let limit = |name: &str, gpus: Option<u64>| {
            gpus.map(|gpus| format!(", {name}_limit: {}", gpus * 1_000)).unwrap_or_default()
        };
        let own = format!("limit: {}, cohort: {cohort}", nominal * 1_000);
        let limits = limit("borrowing", borrowing) + &limit("lending", lending);
        let account = format!("tenant/{}/gpu", class.tenant);
        lines.push(format!("{{account: {account}, {level}, {own}{limits}}}"));
    }
    lines
}

/// The workload of such a request, as the contract's JSON without start.
#[must_use]
pub fn workload(extra: &Extra, cluster: &str, model: &str) -> Value {
    let mut workload = json!({
        "cluster_id": cluster,
        "duration_seconds": extra.seconds,
        "gpu_count": extra.gpus,
        "gpu_models": [model],
        "isolation_level": "PASSTHROUGH",
    });
    if extra.may_preempt {
        workload["may_preempt"] = json!(true);
    }
    workload
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn tasks_are_shared_out_as_said() {
        assert_eq!(TENANTS.iter().map(|tenant| tenant.share).sum::<u64>(), 100);
        let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
        for number in 0..10_000 {
            let name = format!("task-{number:04}");
            assert_eq!(owner(&name), owner(&name));
            *counts.entry(owner(&name).tenant).or_default() += 1;
        }
        for Tenant { class, share, .. } in TENANTS {
            let of = counts[class.tenant];
            assert!(of.abs_diff(share * 100) < 200, "{counts:?}");
        }
    }

    #[test]
    fn each_cohort_has_two_members_and_names_its_limits() {
        let lines = quotas();
        assert_eq!(lines.len(), 6);
        for cohort in ["pool-a", "pool-b"] {
            let member = format!("cohort: {cohort}");
            assert_eq!(lines.iter().filter(|line| line.contains(&member)).count(), 2);
        }
        for limit in ["borrowing_limit: 4000", "lending_limit: 6000"] {
            assert_eq!(lines.iter().filter(|line| line.contains(limit)).count(), 1, "{lines:?}");
        }
    }
}
