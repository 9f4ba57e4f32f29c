//! The commands against a running server.

use serde_json::Value;

use crate::running::run;
use crate::server::Server;

fn json(line: &str) -> Value {
    serde_json::from_str(line).unwrap()
}

#[test]
fn a_lease_from_admission_to_release() {
    let state = tempfile::tempdir().unwrap();
    let server = Server::start(state.path(), &[]);
    let decision = state.path().join("decision.json");
    let at = ["--server", &server.grpc_url()];
    let admitted = run(["admit", "--format", "json", "policies/requests/lease-permitted.json"]
        .iter()
        .chain(&at));
    assert_eq!(admitted.code, 0, "{}", admitted.stderr);
    std::fs::write(&decision, &admitted.stdout).unwrap();
    let decision = decision.to_str().unwrap();

    // The keys come from the server itself, over HTTP, at its usual path.
    let verified = run(["verify", decision, "--jwks", &server.http_url()]);
    assert_eq!(verified.code, 0, "{}", verified.stderr);
    assert!(verified.stdout.starts_with("PERMIT  lease/"), "{}", verified.stdout);

    let confirm = |more: &[&str]| run(["confirm", decision].iter().chain(&at).chain(more));
    let stale = confirm(&["--epoch", "7"]);
    assert_eq!((stale.code, stale.stdout.as_str()), (1, ""), "{}", stale.stderr);
    let confirmed = confirm(&["--format", "json"]);
    assert_eq!(confirmed.code, 0, "{}", confirmed.stderr);
    assert_eq!(json(&confirmed.stdout)["state"], "ACTIVE");
    assert_eq!(confirm(&["--format", "json"]).stdout, confirmed.stdout, "again is the same");
    let released = run(["release", decision, "--format", "json"].iter().chain(&at));
    assert_eq!(json(&released.stdout)["state"], "RELEASED", "{}", released.stderr);

    let explained = run(["explain", "policies/requests/lease-permitted.json"].iter().chain(&at));
    assert_eq!(explained.code, 0, "{}", explained.stderr);
    let (code, words) = server.stop();
    assert_eq!((code, words.ends_with("stopped\n")), (0, true), "{words}");
}

#[test]
fn events_come_back_in_order_with_one_or_many_on_their_way() {
    let mut outputs = Vec::new();
    for in_flight in ["1", "64"] {
        let state = tempfile::tempdir().unwrap();
        let server = Server::start(state.path(), &["--clock", "events"]);
        let args = ["admit", "--format", "json", "--in-flight", in_flight, "--summary", "json"];
        let file = ["--server", &server.grpc_url(), "policies/requests/day.jsonl"];
        let ran = run(args.iter().chain(&file));
        assert_eq!(ran.code, 0, "{}", ran.stderr);
        let summary = json(ran.stderr.trim());
        assert!(summary["admitted"].as_u64().unwrap() > 0, "{summary}");
        assert!(summary["denied"].as_u64().unwrap() > 0, "{summary}");
        let rows: Vec<Value> = ran.stdout.lines().map(json).collect();
        assert!(rows.windows(2).all(|two| two[0]["line"].as_u64() < two[1]["line"].as_u64()));
        let plain: Vec<Value> = rows
            .into_iter()
            .map(|row| {
                serde_json::json!([
                    row["line"],
                    row["request_id"],
                    row["effect"],
                    row["state"],
                    row["codes"],
                    row["time"]
                ])
            })
            .collect();
        outputs.push(plain);
        assert_eq!(server.stop().0, 0);
    }
    assert_eq!(outputs[0], outputs[1]);
}

#[test]
fn two_servers_cannot_share_a_store() {
    let state = tempfile::tempdir().unwrap();
    let server = Server::start(state.path(), &[]);
    let (store, keys) = (state.path().join("placet.db"), state.path().join("keys"));
    let args =
        ["serve", "--bundle", "policies/reference", "--facts", "policies/reference/facts.yaml"];
    let free = ["--listen", "127.0.0.1:0", "--http", "127.0.0.1:0"];
    let own = ["--store", store.to_str().unwrap(), "--keys", keys.to_str().unwrap()];
    let second = run(args.iter().chain(&free).chain(&own));
    assert_eq!((second.code, second.stdout.as_str()), (1, ""), "{}", second.stderr);
    assert!(second.stderr.contains("placet.db"), "{}", second.stderr);
    assert_eq!(server.stop().0, 0);
}

#[test]
fn the_two_suggested_commands_are_printed() {
    let state = tempfile::tempdir().unwrap();
    let requests =
        ["policies/requests/lease-permitted.json", "policies/requests/lease-denied.json"];
    let suggest = ["--try", requests[0], "--try", requests[1]];
    let server = Server::start(state.path(), &suggest);
    let grpc = server.grpc_url();
    for (request, code) in requests.into_iter().zip([0, 2]) {
        assert_eq!(run(["admit", "--server", &grpc, request]).code, code);
    }
    let (_, words) = server.stop();
    for request in requests {
        assert!(words.contains(&format!(" admit --server {grpc} {request}\n")), "{words}");
    }
}
