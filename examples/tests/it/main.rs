//! The independent check is itself checked: it passes a good run and refuses one above a limit.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use placet_core::{Decision, Effect, Id, Reason, ReservationGrant, SigningKey, sign_decision};
use serde_json::{Value, json};

const FACTS: &str = "\
clusters:
  - {id: c-042, fabric_gbps: 100, gpus: [{model: H100, count: 16}]}
quotas:
  - {account: \"tenant/acme/gpu-seconds/{month}\", limit: 40000}
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

#[test]
fn a_run_within_the_limits_passes() {
    let mut denial = permit_at("c", 20);
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
