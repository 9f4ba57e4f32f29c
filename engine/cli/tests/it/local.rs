//! Deciding in this process, and what can be done with a decision offline.

use std::path::Path;

use serde_json::Value;

use crate::running::{Ran, flipped, run, run_with};
use crate::server::claims;

const LOCAL: [&str; 8] = [
    "admit",
    "--local",
    "--bundle",
    "policies/reference",
    "--facts",
    "policies/reference/facts.yaml",
    "--format",
    "json",
];

fn admit(state: &Path, more: &[&str]) -> Ran {
    let store = state.join("placet.db");
    let keys = state.join("keys");
    let state = ["--store", store.to_str().unwrap(), "--keys", keys.to_str().unwrap()];
    run(LOCAL.iter().chain(&state).chain(more))
}

fn json(line: &str) -> Value {
    serde_json::from_str(line).unwrap()
}

#[test]
fn one_request_ends_with_its_effect_as_exit_code() {
    let permitted = run(LOCAL.iter().chain(&["policies/requests/lease-permitted.json"]));
    assert_eq!((permitted.code, permitted.stderr.as_str()), (0, ""));
    let decision = json(&permitted.stdout);
    assert_eq!((&decision["effect"], &decision["line"]), (&"PERMIT".into(), &1.into()));
    assert_eq!(decision["codes"], serde_json::json!([]));

    let denied = run(LOCAL.iter().chain(&["policies/requests/lease-denied.json"]));
    assert_eq!((denied.code, denied.stderr.as_str()), (2, ""));
    assert_ne!(json(&denied.stdout)["codes"], serde_json::json!([]));
}

#[test]
fn for_a_person_a_denial_says_why() {
    let args = LOCAL.iter().filter(|arg| !["--format", "json"].contains(*arg));
    let ran = run(args.chain(&["policies/requests/lease-denied.json"]));
    assert_eq!(ran.code, 2);
    assert!(ran.stdout.starts_with("DENY  lease/"), "{}", ran.stdout);
    assert!(ran.stdout.contains("  because"), "{}", ran.stdout);
    assert!(ran.stdout.lines().all(|line| line.chars().count() <= 80), "{}", ran.stdout);
}

#[test]
fn a_broken_line_is_reported_and_the_run_goes_on() {
    let state = tempfile::tempdir().unwrap();
    let day = std::fs::read_to_string(crate::server::root().join("policies/requests/day.jsonl"));
    let mut lines: Vec<String> = day.unwrap().lines().map(str::to_owned).collect();
    let events = lines.len();
    lines.insert(4, "{\"admit\": {]}".to_owned());
    let path = state.path().join("day.jsonl");
    std::fs::write(&path, lines.join("\n")).unwrap();
    let ran = admit(state.path(), &["--clock", "events", path.to_str().unwrap()]);
    assert_eq!(ran.code, 1, "{}", ran.stderr);
    let rows: Vec<Value> = ran.stdout.lines().map(json).collect();
    assert_eq!(rows.len(), events + 1);
    let numbers: Vec<_> = rows.iter().map(|row| row["line"].as_u64().unwrap()).collect();
    assert_eq!(numbers, (1..=events as u64 + 1).collect::<Vec<_>>(), "in the order of the file");
    assert_eq!(rows[4]["error"]["code"], "MALFORMED_JSON");
    assert!(rows.iter().filter(|row| row.get("error").is_some()).count() == 1);
    let place = format!("error: {}:5:12: ", path.display());
    assert!(ran.stderr.starts_with(&place), "{}", ran.stderr);
    assert!(ran.stderr.contains("decisions per second"), "{}", ran.stderr);

    // What was decided is kept: the same file gives the same decisions again, byte for byte.
    let again = admit(state.path(), &["--clock", "events", path.to_str().unwrap()]);
    let tokens = |ran: &Ran| -> Vec<Value> {
        ran.stdout
            .lines()
            .map(|line| json(line)["token"].clone())
            .filter(Value::is_string)
            .collect()
    };
    assert_eq!(tokens(&again), tokens(&ran));
}

#[test]
fn a_break_in_line_5000_is_found_there() {
    let state = tempfile::tempdir().unwrap();
    let day = std::fs::read_to_string(crate::server::root().join("policies/requests/day.jsonl"));
    let event = day.unwrap().lines().next().unwrap().to_owned();
    // A retry is answered as the first attempt was: 5,000 answers from one decision.
    let mut lines = vec![event.as_str(); 5_001];
    lines[4_999] = "{\"admit\": {\"request_id\": \"torn";
    let path = state.path().join("long.jsonl");
    std::fs::write(&path, lines.join("\n")).unwrap();
    let more = ["--clock", "events", "--in-flight", "512", "--summary", "json"];
    let ran = admit(state.path(), &[&more[..], &[path.to_str().unwrap()]].concat());
    assert_eq!(ran.code, 1);
    assert!(
        ran.stderr.starts_with(&format!("error: {}:5000:30: ", path.display())),
        "{}",
        ran.stderr
    );
    let rows: Vec<Value> = ran.stdout.lines().map(json).collect();
    assert_eq!(rows.len(), 5_001);
    assert!(rows[4_999].get("error").is_some());
    assert_eq!(rows[5_000]["token"], rows[0]["token"]);
    let summary = json(ran.stderr.lines().last().unwrap());
    assert_eq!(
        (&summary["admitted"], &summary["errors"]["MALFORMED_JSON"]),
        (&5_000.into(), &1.into())
    );
}

/// Codes of the events of the example, in its order.
const AHEAD: [(&str, &str); 9] = [
    ("PERMIT", ""),
    ("DENY", "RESOURCE_UNAVAILABLE"),
    ("PERMIT", ""),
    ("ACTIVE", ""),
    ("PERMIT", ""),
    ("DENY", "START_IN_THE_PAST"),
    ("ACTIVE", ""),
    ("DENY", "RESOURCE_UNAVAILABLE"),
    ("PERMIT", ""),
];

#[test]
fn what_is_booked_in_advance_is_kept_free_and_shown() {
    let state = tempfile::tempdir().unwrap();
    let more = ["--clock", "events", "policies/requests/advance.jsonl"];
    let ran = admit(state.path(), &more);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let rows: Vec<Value> = ran.stdout.lines().map(json).collect();
    let told: Vec<_> = rows
        .iter()
        .map(|row| {
            let result = row.get("effect").unwrap_or(&row["state"]).as_str().unwrap();
            (result, row["codes"][0].as_str().unwrap_or(""))
        })
        .collect();
    assert_eq!(told, AHEAD);
    let starts: Vec<_> = rows.iter().filter_map(|row| row["start"].as_u64()).collect();
    assert_eq!(starts, [1_795_413_600, 1_796_018_400], "only of what was booked in advance");

    // The denial says until when it could run, and from when all of it would fit.
    let denied = claims(rows[1]["token"].as_str().unwrap());
    let instead = denied.reasons[0].counterfactual.as_ref().unwrap();
    assert_eq!(instead.duration_seconds, Some(150_900), "until Monday, 06:00");
    assert_eq!(instead.start, Some(1_796_018_400), "when the week is over");
    let words = "admitted with at most 1584 GPUs, or for at most 150900 seconds, or as asked from \
                 2026-11-30T06:00:00Z on";
    assert_eq!(denied.reasons[0].hint.as_deref(), Some(words));

    let words: Vec<&str> =
        LOCAL.into_iter().filter(|arg| !["--format", "json"].contains(arg)).collect();
    let shown = run(words.iter().chain(&more));
    let lines: Vec<&str> = shown.stdout.lines().collect();
    assert!(lines[0].ends_with(" from 2026-11-23T06:00:00Z"), "{}", shown.stdout);
    assert!(!lines[2].contains(" from "), "it starts with its decision: {}", shown.stdout);
}

#[test]
fn a_single_request_is_booked_for_tomorrow() {
    let state = tempfile::tempdir().unwrap();
    let path = crate::server::root().join("policies/requests/lease-permitted.json");
    let mut request = json(&std::fs::read_to_string(path).unwrap());
    let start = placet_server::Clock::now() + 86_400;
    request["lease"]["start"] = start.into();
    let file = state.path().join("ahead.json");
    std::fs::write(&file, request.to_string()).unwrap();
    let words = LOCAL.into_iter().filter(|arg| !["--format", "json"].contains(arg));
    let words: Vec<&str> = words.chain([file.to_str().unwrap()]).collect();
    let ran = run(&words);
    assert_eq!(ran.code, 0, "{}{}", ran.stdout, ran.stderr);
    let from = format!("{}, booked in advance", placet_core::utc(start));
    assert!(ran.stdout.contains(&from), "{}", ran.stdout);

    request["lease"]["start"] = 1.into();
    std::fs::write(&file, request.to_string()).unwrap();
    let ran = run(&words);
    assert_eq!(ran.code, 2, "{}{}", ran.stdout, ran.stderr);
    assert!(ran.stdout.contains("START_IN_THE_PAST (placet)"), "{}", ran.stdout);
}

#[test]
fn a_retry_gets_the_first_answer_and_another_content_is_refused() {
    let state = tempfile::tempdir().unwrap();
    let first = admit(state.path(), &["policies/requests/lease-permitted.json"]);
    let again = admit(state.path(), &["policies/requests/lease-permitted.json"]);
    assert_eq!(first.stdout, again.stdout);
    let path = crate::server::root().join("policies/requests/lease-permitted.json");
    let mut request = json(&std::fs::read_to_string(path).unwrap());
    request["lease"]["gpu_count"] = 4.into();
    let changed = state.path().join("changed.json");
    std::fs::write(&changed, request.to_string()).unwrap();
    let ran = admit(state.path(), &[changed.to_str().unwrap()]);
    assert_eq!(ran.code, 1);
    assert!(json(&ran.stdout).get("error").is_some(), "{}", ran.stdout);
}

#[test]
fn a_decision_is_verified_offline_and_every_fault_is_told() {
    let state = tempfile::tempdir().unwrap();
    let admitted = admit(state.path(), &["policies/requests/lease-permitted.json"]);
    let token = json(&admitted.stdout)["token"].as_str().unwrap().to_owned();
    let (keys, jwks) = (state.path().join("keys"), state.path().join("jwks.json"));
    let set = run(["keys", "jwks", "--keys", keys.to_str().unwrap()]);
    std::fs::write(&jwks, &set.stdout).unwrap();
    let jwks = jwks.to_str().unwrap();

    let good = run_with(["verify", "-", "--jwks", jwks, "--format", "json"], &admitted.stdout);
    assert_eq!((good.code, good.stderr.as_str()), (0, "verified\n"));
    let claims = json(&good.stdout);
    assert_eq!(claims["effect"], "PERMIT");
    let exp = claims["exp"].as_u64().unwrap().to_string();

    let other_keys = state.path().join("other");
    let made = run(["keys", "generate", "--keys", other_keys.to_str().unwrap()]);
    assert_eq!(made.code, 0, "{}", made.stderr);
    let other = state.path().join("other.json");
    let set = run(["keys", "jwks", "--keys", other_keys.to_str().unwrap()]);
    std::fs::write(&other, &set.stdout).unwrap();

    // {"alg":"none"}
    let claims_part = token.split('.').nth(1).unwrap();
    let unsigned = format!("eyJhbGciOiJub25lIn0.{claims_part}.");
    let cases: [(&str, &[&str], &str); 8] = [
        (&flipped(&token, 0), &[], "the token is"),
        (&flipped(&token, 1), &[], "the signature does not match"),
        (&flipped(&token, 2), &[], "the signature does not match"),
        (&unsigned, &[], "is signed with `none`"),
        (&token, &["--audience", "somebody"], "not `somebody`"),
        (&token, &["--issuer", "somebody"], "not `somebody`"),
        (&token, &["--at", &exp], "expired at"),
        (&token, &["--jwks", other.to_str().unwrap()], "which is not in the JWK set"),
    ];
    for (token, more, why) in cases {
        let own = ["--jwks", jwks];
        let keys = if more.first() == Some(&"--jwks") { &[][..] } else { &own[..] };
        let ran = run(["verify", token].iter().chain(keys).chain(more));
        assert_eq!((ran.code, ran.stdout.as_str()), (1, ""), "{why}: {}", ran.stderr);
        assert!(ran.stderr.starts_with("error: the token"), "{why}: {}", ran.stderr);
        assert!(ran.stderr.contains(why), "{why}: {}", ran.stderr);
    }
}

#[test]
fn a_key_is_never_replaced() {
    let state = tempfile::tempdir().unwrap();
    let keys = state.path().join("keys");
    let keys = keys.to_str().unwrap();
    assert_eq!(run(["keys", "generate", "--keys", keys]).code, 0);
    let before = run(["keys", "jwks", "--keys", keys]);
    let again = run(["keys", "generate", "--keys", keys]);
    assert_eq!(again.code, 1);
    assert!(again.stderr.contains("exists\n hint: "), "{}", again.stderr);
    assert_eq!(run(["keys", "jwks", "--keys", keys]).stdout, before.stdout);
}

#[test]
fn explain_has_no_consequences_and_says_why() {
    let args = [
        "explain",
        "--local",
        "--bundle",
        "policies/reference",
        "--facts",
        "policies/reference/facts.yaml",
        "policies/requests/lease-denied.json",
    ];
    let ran = run(args);
    assert_eq!(ran.code, 2, "{}", ran.stderr);
    assert!(ran.stdout.starts_with("DENY  if it were asked now"), "{}", ran.stdout);
    for policy in ["capacity", "isolation", "residency"] {
        assert!(ran.stdout.contains(policy), "{}", ran.stdout);
    }
    let ran = run(args.iter().chain(&["--format", "json"]));
    let explained = json(&ran.stdout);
    assert_eq!(explained["effect"], "DENY");
    assert!(explained["input"]["tenant"]["id"].is_string());
    assert!(explained["evaluation"]["candidates"].is_array());
    assert!(explained["reasons"][0]["code"].is_string());
}

#[test]
fn the_reference_bundle_passes_its_cases() {
    let ran = run(["test", "policies/reference"]);
    assert_eq!(ran.code, 0, "{}{}", ran.stdout, ran.stderr);
}

#[test]
fn a_bundle_that_is_none_is_3() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("bundle.yaml"), "schema: placet.bundle/v1\n").unwrap();
    let ran = run(["test", directory.path().to_str().unwrap()]);
    assert_eq!((ran.code, ran.stdout.as_str()), (3, ""), "{}", ran.stderr);
    assert!(ran.stderr.starts_with("error: "), "{}", ran.stderr);
}

#[test]
fn a_policy_with_a_syntax_error_has_its_place_and_nothing_is_stored() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).display().to_string();
    std::fs::create_dir(path("bundle")).unwrap();
    let manifest = "schema: placet.bundle/v1\nrevision: \"1\"\nrequired: {lease: [], job: []}\n\
                    policies:\n  - {name: p, source: p.rego}\n";
    std::fs::write(path("bundle/bundle.yaml"), manifest).unwrap();
    std::fs::write(path("bundle/p.rego"), "package placet.p\n\ndeny contains {\n").unwrap();
    let facts = crate::server::root().join("policies/reference/facts.yaml").display().to_string();
    let (bundle, store, keys) = (path("bundle"), path("placet.db"), path("keys"));
    let serve = ["serve", "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0"];
    let files = ["--bundle", &bundle, "--facts", &facts, "--store", &store, "--keys", &keys];
    let ran = run(serve.iter().chain(&files));
    assert_eq!((ran.code, ran.stdout.as_str()), (3, ""), "{}", ran.stderr);
    assert!(ran.stderr.contains("p.rego:4:1: "), "{}", ran.stderr);
    assert!(!std::path::Path::new(&store).exists());
}
