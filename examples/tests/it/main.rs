//! The independent check is itself checked: it passes a good run and refuses one above a limit. So
//! is the report that is drawn from a run.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use placet_core::{
    AccountPath, Charge, Decision, Effect, Eviction, Id, PreemptionRule, PriorityClass, Reason,
    ReservationGrant, SigningKey, sign_decision,
};
use serde_json::{Value, json};

const FACTS: &str = "\
clusters:
  - {id: c-042, fabric_gbps: 100, gpus: [{model: H100, count: 16}]}
quotas:
  - {account: \"tenant/acme/gpu-seconds/{month}\", limit: 40000}
  - {account: pool, limit: 0}
  - {account: tenant/acme/gpu, limit: 8000, cohort: pool, borrowing_limit: 4000}
  - {account: tenant/other/gpu, limit: 8000, cohort: pool, lending_limit: 6000}
";

/// The permit of the published vector: 8,000 milli-GPUs of cluster c-042, 28,800 GPU-seconds.
fn permit() -> Decision {
    let vector = include_str!("../../../engine/core/tests/vectors/token.json");
    let vector: Value = serde_json::from_str(vector).expect("JSON");
    serde_json::from_str(vector["claims"].as_str().expect("a text")).expect("claims")
}

fn grant(decision: &mut Decision) -> &mut ReservationGrant {
    decision.reservation.as_mut().expect("a permit")
}

/// A permit of its own name, `later` seconds after the vector's.
fn permit_at(name: &str, later: u64) -> Decision {
    let mut decision = permit();
    decision.request_id = Id::new(name).expect("an id");
    decision.iat += later;
    let grant = grant(&mut decision);
    grant.id = Id::new(format!("v-{name}")).expect("an id");
    (grant.start, grant.end) = (grant.start + later, grant.end + later);
    grant.confirm_by += later;
    decision
}

fn admitted(decision: &Decision) -> Value {
    let key = SigningKey::generate().expect("randomness");
    let token = sign_decision(&key, decision).expect("signs");
    json!({
        "line": 1, "request_id": decision.request_id, "time": decision.iat,
        "effect": decision.effect, "token": token, "position": 1,
    })
}

fn settled(name: &str, state: &str, later: u64) -> Value {
    json!({
        "line": 1, "request_id": format!("{name}-{state}"), "state": state,
        "time": permit().iat + later, "reservation_id": format!("v-{name}"), "epoch": 1,
    })
}

fn check(test: &str, answers: &[Value]) -> Output {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let python = root.join("../target/venv/bin/python");
    assert!(python.exists(), "{} is missing: run `make setup`", python.display());
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    let facts = folder.join(format!("{test}-facts.yaml"));
    std::fs::write(&facts, FACTS).expect("the target folder is writable");
    let lines: String = answers.iter().map(|answer| format!("{answer}\n")).collect();
    let run = folder.join(format!("{test}-run.jsonl"));
    std::fs::write(&run, lines).expect("the target folder is writable");
    let script = root.join("check_limits.py");
    Command::new(python).arg(script).arg(facts).arg(run).output().expect("the check runs")
}

fn passes(test: &str, answers: &[Value]) -> String {
    let output = check(test, answers);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("UTF-8")
}

fn refusal(test: &str, answers: &[Value]) -> String {
    let output = check(test, answers);
    assert_eq!(output.status.code(), Some(1), "{}", String::from_utf8_lossy(&output.stdout));
    String::from_utf8(output.stderr).expect("UTF-8")
}

fn denial_at(name: &str, later: u64) -> Decision {
    let mut denial = permit_at(name, later);
    denial.effect = Effect::Deny;
    denial.reservation = None;
    denial.reasons = vec![Reason {
        counterfactual: None,
        code: placet_core::Code::known("QUOTA_EXCEEDED"),
        field: None,
        hint: None,
        message: "too much".to_owned(),
        policy: Id::new("placet").expect("an id"),
        retry: true,
    }];
    denial
}

#[test]
fn a_run_within_the_limits_passes() {
    let denial = denial_at("c", 20);
    let first = admitted(&permit_at("a", 0));
    let report = passes(
        "good",
        &[
            first.clone(),
            settled("a", "ACTIVE", 0),
            // The same answer again: a retry takes nothing.
            first,
            settled("a", "RELEASED", 10),
            // After an early release most of the budget is there again.
            admitted(&permit_at("b", 10)),
            admitted(&denial),
            // Nobody confirmed the second in its 300 seconds.
            admitted(&permit_at("d", 310)),
        ],
    );
    assert!(report.contains("8000 of            16000   50.0%"), "{report}");
    assert!(report.contains("{'PERMIT': 3, 'ACTIVE': 1, 'RELEASED': 1, 'DENY': 1}"), "{report}");
    assert!(report.contains("{'QUOTA_EXCEEDED': 1}"), "{report}");
}

#[test]
fn a_budget_beyond_its_limit_is_found() {
    let answers = [admitted(&permit_at("a", 0)), admitted(&permit_at("b", 1))];
    let error = refusal("budget", &answers);
    assert!(error.contains("tenant/acme/gpu-seconds/2026-11: 57600 is above 40000"), "{error}");
}

#[test]
fn a_level_beyond_its_limit_is_found() {
    let small = |name: &str, later| {
        let mut decision = permit_at(name, later);
        grant(&mut decision).charges.truncate(1);
        decision
    };
    let answers = ["a", "b", "c"].map(|name| admitted(&small(name, 0)));
    let error = refusal("hard", &answers);
    assert!(error.starts_with("line 3: "), "{error}");
    assert!(error.contains("cluster/c-042/gpu/H100: 24000 is above 16000"), "{error}");

    // Its own limit may be tighter than the account's: that of external work, say.
    let mut tight = small("b", 1);
    grant(&mut tight).charges[0].limit = 12_000;
    let error = refusal("own", &[admitted(&small("a", 0)), admitted(&tight)]);
    assert!(error.contains("16000 is above 12000"), "{error}");

    // Ended reservations give back, confirmed or not.
    let ended = [admitted(&small("a", 0)), settled("a", "ACTIVE", 1), admitted(&small("b", 2))];
    let later = [settled("b", "ACTIVE", 3), admitted(&small("c", 3_602))];
    passes("ended", &[ended.as_slice(), later.as_slice()].concat());
}

#[test]
fn an_account_without_a_fact_is_found() {
    let mut decision = permit_at("a", 0);
    grant(&mut decision).charges[1].account =
        placet_core::AccountPath::new("tenant/nobody/gpu").expect("an account");
    let error = refusal("unknown", &[admitted(&decision)]);
    assert!(error.contains("no fact limits account tenant/nobody/gpu"), "{error}");
}

/// A permit of GPUs of the cluster and of a tenant, without a budget.
fn gpus(name: &str, tenant: &str, later: u64, milli_gpus: u64) -> Decision {
    let mut decision = permit_at(name, later);
    decision.tenant_id = Id::new(tenant).expect("an id");
    let cluster = grant(&mut decision).charges[0].clone();
    let charge = |account: String| Charge {
        account: AccountPath::new(account).expect("an account"),
        amount: milli_gpus,
        ..cluster.clone()
    };
    grant(&mut decision).charges =
        vec![charge("cluster/c-042/gpu/H100".to_owned()), charge(format!("tenant/{tenant}/gpu"))];
    decision
}

/// The same, to begin and end so many seconds after the vector's.
fn booked(decision: Decision, start: u64, end: u64) -> Decision {
    let mut decision = decision;
    let begin = permit().iat;
    let grant = grant(&mut decision);
    (grant.start, grant.end, grant.confirm_by) = (begin + start, begin + end, begin + start + 300);
    decision
}

#[test]
fn what_is_booked_ahead_is_held_from_its_start_on() {
    let ahead = booked(gpus("ahead", "acme", 0, 12_000), 7_200, 10_800);
    let before = |end| booked(gpus("before", "other", 10, 8_000), 10, end);
    let answers = [admitted(&ahead), settled("ahead", "ACTIVE", 0), admitted(&before(7_200))];
    let report = passes("ahead", &answers);
    assert!(report.contains("1 begin after their decision; 0 eviction orders"), "{report}");
    let error = refusal("over", &[admitted(&ahead), admitted(&before(7_201))]);
    assert!(error.contains("cluster/c-042/gpu/H100: 20000 is above 16000"), "{error}");
    // Given back before it begins, it is in nobody's way.
    let given_back = settled("ahead", "RELEASED", 5);
    passes("given-back", &[admitted(&ahead), given_back, admitted(&before(7_201))]);
}

#[test]
fn quotas_of_cohorts_are_held() {
    // 8 of its own, 4 borrowed: 12; not one more.
    passes("borrowed", &[admitted(&gpus("a", "acme", 0, 12_000))]);
    let error = refusal("borrowing", &[admitted(&gpus("a", "acme", 0, 12_001))]);
    assert!(error.contains("tenant/acme/gpu: 12001 is above 12000"), "{error}");
    // The other keeps 2 for itself and lends 6: of these, 4 are borrowed when it wants 5 of them.
    let lent = gpus("a", "acme", 0, 12_000);
    let own = |milli_gpus| {
        let mut decision = gpus("b", "other", 1, milli_gpus);
        grant(&mut decision).charges.remove(0);
        decision
    };
    passes("kept", &[admitted(&lent), admitted(&own(4_000))]);
    let error = refusal("lent", &[admitted(&lent), admitted(&own(4_001))]);
    assert!(error.contains("pool: 14001 is above 14000"), "{error}");
}

/// An order to make room for a preemptor, which begins 300 seconds after its decision.
fn displacing(name: &str, victim: &str, later: u64) -> Decision {
    let mut decision = booked(gpus(name, "other", later, 12_000), later + 300, later + 300 + 3_600);
    let start = permit().iat + later + 300;
    decision.priority_class = PriorityClass::InternalResearch;
    grant(&mut decision).confirm_by = start;
    grant(&mut decision).charges.truncate(1);
    decision.preemption = Some(PreemptionRule {
        grace_seconds: 300,
        max_victims: 1,
        min_runtime_seconds: 1_800,
        victim_classes: vec![PriorityClass::ExternalCommercial],
        ..PreemptionRule::default()
    });
    decision.evictions = vec![Eviction {
        epoch: 2,
        evict_by: start,
        reservation: Id::new(format!("v-{victim}")).expect("an id"),
        tenant_id: Id::new("acme").expect("an id"),
    }];
    decision
}

/// A victim that is confirmed, and a preemptor.
fn eviction(preemptor: &Decision) -> Vec<Value> {
    let victim = gpus("victim", "acme", 0, 8_000);
    vec![admitted(&victim), settled("victim", "ACTIVE", 0), admitted(preemptor)]
}

#[test]
fn evictions_keep_to_the_rule_that_allows_them() {
    let preemptor = displacing("p", "victim", 1_500);
    let mut answers = eviction(&preemptor);
    answers.push(settled("p", "ACTIVE", 1_510));
    let report = passes("evicted", &answers);
    assert!(report.contains("1 eviction orders, 1 evicted"), "{report}");
    // Until the preemptor is confirmed, both hold the room of the larger: 12 of 16.
    let beside = |milli_gpus| {
        let mut decision = booked(gpus("n", "other", 1_505, milli_gpus), 1_800, 3_600);
        grant(&mut decision).charges.truncate(1);
        admitted(&decision)
    };
    passes("beside", &[eviction(&preemptor), vec![beside(4_000)]].concat());
    let error = refusal("too-much", &[eviction(&preemptor), vec![beside(4_001)]].concat());
    assert!(error.contains("16001 is above 16000"), "{error}");
    // From then on the victim has another epoch.
    let mut late = answers.clone();
    late.push(settled("victim", "RELEASED", 1_600));
    let error = refusal("stale", &late);
    assert!(error.contains("released under an epoch that is over"), "{error}");

    let error = refusal("young", &eviction(&displacing("p", "victim", 1_499)));
    assert!(error.contains("victim v-victim is too young"), "{error}");
    let mut hasty = preemptor.clone();
    hasty.evictions[0].evict_by -= 1;
    let error = refusal("hasty", &eviction(&hasty));
    assert!(error.contains("not after its grace"), "{error}");
    let mut protected = preemptor.clone();
    protected.preemption.as_mut().expect("a rule").victim_classes.clear();
    let error = refusal("protected", &eviction(&protected));
    assert!(error.contains("a protected class"), "{error}");
    let mut unconfirmed = eviction(&preemptor);
    unconfirmed.remove(1);
    let error = refusal("unconfirmed", &unconfirmed);
    assert!(error.contains("v-victim") && !error.contains("Traceback"), "{error}");
}

#[test]
fn a_report_is_drawn_of_tenants_bookings_and_victims() {
    let training = booked(gpus("ahead-training", "other", 0, 10_000), 86_400, 90_000);
    let training = Decision { priority_class: PriorityClass::InternalResearch, ..training };
    let mut answers = vec![admitted(&training), settled("ahead-training", "ACTIVE", 0)];
    let preemptor = displacing("burst-1", "victim", 1_500);
    answers.extend(eviction(&preemptor));
    answers.extend([settled("burst-1", "ACTIVE", 1_500), admitted(&denial_at("d", 1_600))]);
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    let asked = |name: &str, tenant: &str, gpus: u32| {
        let lease = json!({"gpu_count": gpus, "duration_seconds": 3_600});
        let admit = json!({"request_id": name, "tenant_id": tenant, "lease": lease});
        json!({"admit": admit, "time": permit().iat})
    };
    let events = [("ahead-training", "other", 10), ("victim", "acme", 8), ("burst-1", "other", 12)];
    let lines: String =
        events.map(|(name, tenant, gpus)| format!("{}\n", asked(name, tenant, gpus))).concat();
    let events = folder.join("drawn-events.jsonl");
    std::fs::write(&events, lines).expect("the target folder is writable");
    passes("drawn", &answers);
    let draw = || {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut command = Command::new(root.join("../target/venv/bin/python"));
        command.arg(root.join("report_trace.py")).arg(folder.join("drawn-facts.yaml"));
        command.arg(&events).arg(folder.join("drawn-run.jsonl")).arg(&folder);
        let output = command.output().expect("the report runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        ["trace.svg", "tables.md"]
            .map(|name| std::fs::read_to_string(folder.join(name)).expect(name))
    };
    let [picture, tables] = draw();
    assert_eq!(draw(), [picture.clone(), tables.clone()], "the same bytes again");
    for part in ["<svg ", "A run of 10 GPUs", "1 leases evicted in 1 steps", "</svg>"] {
        assert!(picture.contains(part), "{part}");
    }
    // 8 GPUs ran for half an hour in vain, and would have run for another.
    let of_acme = "| acme | pool | 2 | 1 | 0 | 1 | 4 | 8 | 8.0 | 0.0 | 1 | 4.0 | 4.0 |";
    assert!(tables.contains(of_acme), "{tables}");
    assert!(
        tables.contains("| burst-1 | other | 0.000 | 0.021 | 12 | 1 | admitted | 12 | 1 | - |"),
        "{tables}"
    );
}
