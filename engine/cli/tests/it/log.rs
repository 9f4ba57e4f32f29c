//! The decision log asked of a server: shown, listed, proved and followed.

use std::io::{BufRead as _, BufReader};
use std::process::Stdio;

use placet_core::{Receipt, SigningKey};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::running::{Ran, run};
use crate::server::{Server, placet};

fn json(line: &str) -> Value {
    serde_json::from_str(line).unwrap()
}

fn lines(ran: &Ran) -> Vec<Value> {
    assert_eq!(ran.code, 0, "{ran:?}");
    ran.stdout.lines().map(json).collect()
}

/// A server that has decided a day's requests.
fn used_server(folder: &std::path::Path) -> Server {
    let server = Server::start(folder, &["--clock", "events", "--checkpoint-every", "1"]);
    let day = ["admit", "policies/requests/day.jsonl", "--server", &server.grpc_url()];
    assert_eq!(run(day).code, 0);
    server
}

#[test]
fn events_are_listed_by_what_they_say() {
    let folder = tempfile::tempdir().unwrap();
    let server = used_server(folder.path());
    let url = server.grpc_url();
    let list = |args: &[&str]| run([&["log", "list", "--server", &url], args].concat());
    let json_list = |args: &[&str]| lines(&list(&[args, &["--format", "json"]].concat()));
    let all = json_list(&[]);
    assert!(all.len() > 60, "{}", all.len());
    for (position, event) in all.iter().enumerate() {
        assert_eq!(event["position"], position);
        let leaf = json(event["leaf"].as_str().unwrap());
        assert_eq!(leaf["event"]["kind"], event["kind"].as_str().unwrap().to_lowercase());
    }
    let count = |wanted: &dyn Fn(&&Value) -> bool| all.iter().filter(wanted).count();
    let denied = json_list(&["--effect", "deny"]);
    assert_eq!(denied.len(), count(&|event| event["effect"] == "DENY"));
    assert!(!denied.is_empty() && denied.iter().all(|it| !it["codes"][0].is_null()));
    let code = denied[0]["codes"][0].as_str().unwrap();
    let coded = json_list(&["--effect", "deny", "--code", code]);
    let has = |event: &&Value| {
        event["codes"].as_array().is_some_and(|codes| codes.contains(&denied[0]["codes"][0]))
    };
    assert_eq!(coded.len(), count(&has));
    let settled = json_list(&["--kind", "release", "--kind", "confirmation"]);
    let wanted = |event: &&Value| event["kind"] == "RELEASE" || event["kind"] == "CONFIRMATION";
    assert_eq!(settled.len(), count(&wanted));
    assert!(settled.iter().all(|event| event["tenant_id"].is_string()), "{settled:?}");

    let newest = list(&["--newest-first", "--most", "2"]);
    let positions: Vec<&str> =
        newest.stdout.lines().filter_map(|line| line.split_whitespace().next()).collect();
    let last = all.len() - 1;
    assert_eq!(positions, [last.to_string(), (last - 1).to_string()]);
    assert_eq!(newest.stderr, format!("2 events; to go on: --from {}\n", last - 2));
    let rest = json_list(&["--newest-first", "--from", &(last - 2).to_string()]);
    assert_eq!(rest.len(), last - 1);

    let nobody = list(&["--tenant", "nobody"]);
    assert_eq!((nobody.code, nobody.stdout.as_str()), (0, ""));
    let wrong = list(&["--tenant", "no body"]);
    assert_eq!(wrong.code, 1);
    assert!(wrong.stderr.contains("`filter.tenants[0]`") && wrong.stderr.contains("hint: "));
    assert_eq!(list(&["--since", "yesterday"]).code, 64);
    assert_eq!(list(&["--kind", "party"]).code, 64);
    assert_eq!(server.stop().0, 0);
}

#[test]
fn a_decision_is_shown_and_proved() {
    let folder = tempfile::tempdir().unwrap();
    let server = used_server(folder.path());
    let url = server.grpc_url();
    let log = |args: &[&str]| run([&["log"], args, &["--server", &url]].concat());
    let decisions = lines(&log(&["list", "--kind", "decision", "--format", "json"]));
    let first = &decisions[0];
    let (id, position) = (first["decision_id"].as_str().unwrap(), first["position"].to_string());
    let shown = lines(&log(&["show", id, "--format", "json"])).remove(0);
    assert_eq!(shown["leaf"], first["leaf"]);
    for named in [&["show", &position][..], &["show", &id.replace("dec-", "rsv-")]] {
        let again = lines(&log(&[named, &["--format", "json"]].concat()));
        assert_eq!(again.first(), Some(&shown));
    }
    let (caller, request) =
        (shown["caller"].as_str().unwrap(), shown["request_id"].as_str().unwrap());
    let card = log(&["show", "--caller", caller, "--request-id", request, "--evidence"]);
    for part in [id, request, "input:\n{", "evaluation:\n{", &format!("position {position}")] {
        assert!(card.stdout.contains(part), "{part}: {}", card.stdout);
    }
    assert_eq!(log(&["show"]).code, 64);
    let wrong = log(&["show", "r-1"]);
    assert!(wrong.code == 1 && wrong.stderr.contains("`id` is no id"), "{wrong:?}");

    let receipt = folder.path().join("receipt.txt");
    let proved = log(&["prove", id, "--wait", "--output", receipt.to_str().unwrap()]);
    assert_eq!((proved.code, proved.stdout.as_str()), (0, ""), "{proved:?}");
    let read = Receipt::from_text(&std::fs::read(&receipt).unwrap()).unwrap();
    assert_eq!(read.leaf(), first["leaf"].as_str().unwrap().as_bytes());
    assert_eq!(read.index().to_string(), position);
    let printed = log(&["prove", &position, "--wait=30"]);
    assert_eq!(printed.code, 0, "{printed:?}");
    assert!(Receipt::from_text(printed.stdout.as_bytes()).is_ok());
    let der = std::fs::read(folder.path().join("keys/checkpoint-key.pkcs8")).unwrap();
    let key = SigningKey::from_pkcs8(&der).unwrap();
    let origin = read.note().lines().next().unwrap();
    let logged = read.verify(origin, key.verifying_key()).unwrap();
    assert_eq!(logged.index.to_string(), position);
    assert_eq!(server.stop().0, 0);
}

#[test]
fn a_receipt_is_verified_when_the_server_is_gone() {
    let folder = tempfile::tempdir().unwrap();
    let server = used_server(folder.path());
    let url = server.grpc_url();
    let log = |args: &[&str]| run([&["log"], args, &["--server", &url]].concat());
    let first = lines(&log(&["list", "--kind", "decision", "--format", "json"])).remove(0);
    let (id, position) = (first["decision_id"].as_str().unwrap(), first["position"].to_string());
    let receipt = folder.path().join("receipt.txt");
    let proved = log(&["prove", id, "--wait", "--output", receipt.to_str().unwrap()]);
    assert_eq!(proved.code, 0, "{proved:?}");
    assert_eq!(server.stop().0, 0);

    let keys = folder.path().join("keys");
    let kept = |action: &str, file: &str| {
        let printed = run(["keys", action, "--keys", keys.to_str().unwrap()]).stdout;
        let path = folder.path().join(file);
        std::fs::write(&path, printed).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let (jwks, key) = (kept("jwks", "jwks.json"), kept("log", "log.key"));
    let verify = |receipt: &str, more: &[&str]| {
        let own = ["verify", "--receipt", receipt, "--jwks", &jwks, "--log-key", &key];
        run([&own, more].concat())
    };
    let receipt = receipt.to_str().unwrap();
    let verified = lines(&verify(receipt, &["--format", "json"])).remove(0);
    assert_eq!(
        (&verified["decision"]["jti"], &verified["position"]),
        (&first["decision_id"], &first["position"])
    );
    let card = verify(receipt, &[]);
    assert!(card.stdout.contains(id) && card.stdout.contains("\nroot sha256:"), "{card:?}");
    let other = verify(receipt, &["--issuer", "another"]);
    assert!(other.code == 1 && other.stderr.contains("error: the receipt "), "{other:?}");
    let text = std::fs::read_to_string(receipt).unwrap();
    let moved = text.replace(&format!("\nindex {position}\n"), "\nindex 0\n");
    std::fs::write(receipt, moved).unwrap();
    let moved = verify(receipt, &[]);
    assert!(moved.code == 1 && moved.stdout.is_empty(), "{moved:?}");
    assert_eq!(run(["verify"]).code, 64);
    assert_eq!(run(["verify", "--receipt", receipt]).code, 64);
}

#[test]
fn what_is_kept_of_a_person_is_erased_here_and_in_a_copy() {
    let folder = tempfile::tempdir().unwrap();
    let server = used_server(folder.path());
    let url = server.grpc_url();
    let log = |args: &[&str]| run([&["log"], args, &["--server", &url]].concat());
    let all = lines(&log(&["list", "--kind", "decision", "--format", "json"]));
    let subject_of = |position: &Value| {
        let shown = lines(&log(&["show", &position.to_string(), "--format", "json"])).remove(0);
        shown["personal"][0]["value"].as_str().map(str::to_owned)
    };
    let (first, who) = all
        .iter()
        .find_map(|event| Some((event, subject_of(&event["position"])?)))
        .expect("some of a day's requests name who asked");
    let (store, copy) = (folder.path().join("placet.db"), folder.path().join("copy.db"));
    let (store, copy) = (store.to_str().unwrap(), copy.to_str().unwrap());
    assert_eq!(run(["ledger", "backup", "--store", store, "--to", copy]).code, 0);

    let erase = |args: &[&str]| log(&[&["erase"], args].concat());
    let would = lines(&erase(&["--subject", &who, "--dry-run", "--format", "json"])).remove(0);
    let count = would["decisions"].as_u64().unwrap();
    assert!(count > 0 && subject_of(&first["position"]).is_some(), "{would}");
    let nobody = erase(&["--subject", "nobody"]);
    assert_eq!((nobody.code, nobody.stderr.as_str()), (0, "nothing is kept of that subject\n"));
    let done = erase(&["--subject", &who]);
    let noun = if count == 1 { "decision" } else { "decisions" };
    assert!(done.stdout.starts_with(&format!("values of {count} {noun} erased, ")), "{done:?}");
    let card = log(&["show", first["decision_id"].as_str().unwrap()]);
    assert!(card.stdout.contains("principal.subject was erased"), "{card:?}");
    let told = lines(&log(&["list", "--kind", "erasure", "--format", "json"])).remove(0);
    assert!(told["leaf"].as_str().unwrap().contains(&format!("\"decisions\":{count}")), "{told}");
    let wrong = erase(&["--subject", ""]);
    assert!(wrong.code == 1 && wrong.stderr.contains("`subject`"), "{wrong:?}");
    let in_use = run(["log", "erase", "--subject", &who, "--store", store]);
    assert!(in_use.code == 1 && in_use.stderr.contains("leave out --store"), "{in_use:?}");

    let of_copy = |args: &[&str]| {
        lines(&run([args, &["--store", copy, "--format", "json"]].concat())).remove(0)
    };
    let before = of_copy(&["ledger", "verify"]);
    let erased = of_copy(&["log", "erase", "--subject", &who]);
    assert_eq!((&erased["decisions"], &erased["pending"]), (&would["decisions"], &false.into()));
    assert_eq!(of_copy(&["log", "erase", "--subject", &who])["decisions"], 0);
    assert_eq!(of_copy(&["ledger", "verify"])["root"], before["root"], "its log stays a copy's");
    assert_eq!(server.stop().0, 0);
}

#[test]
fn a_tail_tells_what_happens_until_it_is_told_to_stop() {
    let folder = tempfile::tempdir().unwrap();
    let server = used_server(folder.path());
    let url = server.grpc_url();
    let all = lines(&run(["log", "list", "--format", "json", "--server", &url]));
    let mut command = placet();
    let args = ["log", "tail", "--from", "0", "--format", "json", "--server", &url];
    let mut tail =
        command.args(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut told = BufReader::new(tail.stdout.take().unwrap()).lines();
    for event in &all {
        assert_eq!(json(&told.next().unwrap().unwrap()), *event);
    }
    let again = ["admit", "policies/requests/lease-permitted.json", "--server", &url];
    run(again);
    let next = json(&told.next().unwrap().unwrap());
    assert_eq!(next["position"], all.len());
    let pid = Pid::from_raw(i32::try_from(tail.id()).unwrap()).unwrap();
    kill_process(pid, Signal::INT).unwrap();
    let ended = tail.wait_with_output().unwrap();
    assert_eq!(ended.status.code(), Some(0));
    let note = String::from_utf8(ended.stderr).unwrap();
    assert!(note.starts_with("to go on: --from "), "{note}");
    assert_eq!(server.stop().0, 0);
}
