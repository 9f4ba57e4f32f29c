//! Booking capacity from the command line: ahead, and at the expense of others; capacity that
//! shrinks below its use.

use std::path::Path;

use serde_json::{Value, json};

use crate::running::{Ran, run, run_with};
use crate::server::{Server, claims, root};

/// When the tests begin: 2026-11-22T00:00:00Z, in seconds since 1970.
const BEGIN: u64 = 1_795_305_600;
/// Terms of the reference policies: notice and least run time of a victim, in seconds.
const GRACE: u64 = 300;
const MIN_RUNTIME: u64 = 1_800;

fn lines(ran: &Ran) -> Vec<Value> {
    ran.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// A server whose time is that of events, with so many GPUs of model A100 in its smallest cluster,
/// all of which may be sold.
fn server(folder: &Path, gpus: u32) -> Server {
    let facts = std::fs::read_to_string(root().join("policies/reference/facts.yaml")).unwrap();
    std::fs::write(folder.join("facts.yaml"), facts).unwrap();
    resize(folder, "{model: A100, count: 8, safety_buffer: 2", gpus);
    Server::start(folder, &["--clock", "events", "--watch", "0"])
}

fn resize(folder: &Path, from: &str, gpus: u32) {
    let path = folder.join("facts.yaml");
    let facts = std::fs::read_to_string(&path).unwrap();
    assert!(facts.contains(from), "{from}");
    let to = format!("{{model: A100, count: {gpus}, safety_buffer: 0");
    std::fs::write(path, facts.replace(from, &to)).unwrap();
}

/// Sells and confirms leases of one GPU each, at a time and for so long; the answers.
fn sell(server: &Server, names: &[String], time: u64, seconds: u64) -> Vec<Value> {
    let mut events = String::new();
    for name in names {
        let admit = json!({"admit": {
            "request_id": name, "tenant_id": "platform-tools",
            "priority_class": "EXTERNAL_COMMERCIAL", "lease": {
                "cluster_id": "de-fra-edge", "gpu_count": 1, "duration_seconds": seconds,
                "isolation_level": "PASSTHROUGH", "gpu_models": ["A100"],
            }}, "time": time});
        let confirm = json!({"confirm": {
            "request_id": format!("{name}-confirm"), "tenant_id": "platform-tools",
            "reservation": {"admit_request_id": name, "epoch": 1}}, "time": time});
        events.push_str(&format!("{admit}\n{confirm}\n"));
    }
    let url = server.grpc_url();
    let ran = run_with(["admit", "--format", "json", "--server", &url, "-"], &events);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    lines(&ran)
}

fn names(count: u32) -> Vec<String> {
    (0..count).map(|number| format!("sold-{number:02}")).collect()
}

/// `placet ledger reserve` of GPUs of the smallest cluster.
fn reserve(server: &Server, gpus: &str, more: &[&str]) -> Ran {
    let url = server.grpc_url();
    let args = ["ledger", "reserve", "--tenant", "platform-tools", "--cluster", "de-fra-edge"];
    let what = ["--gpu-model", "A100", "--gpus", gpus, "--server", &url];
    run([&args[..], &what, more].concat())
}

/// Thousandths of a GPU in use, and the limit of the facts.
fn in_use(server: &Server) -> (u64, u64) {
    let path = "cluster/de-fra-edge/gpu/A100";
    let url = server.grpc_url();
    let ran = run(["ledger", "usage", path, "--format", "json", "--server", &url]);
    let row = &lines(&ran)[0];
    (row["used"].as_u64().unwrap(), row["limit"].as_u64().unwrap())
}

#[test]
fn what_is_booked_ahead_is_kept_from_others() {
    let folder = tempfile::tempdir().unwrap();
    let server = server(folder.path(), 8);
    // Time begins with the first event.
    sell(&server, &names(1), BEGIN, 600);
    let ahead = ["--start", "2026-11-23T00:00:00Z", "--for", "7d", "--request-id", "training"];
    let ran = reserve(&server, "8", &ahead);
    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""), "{}", ran.stdout);
    let id = ran.stdout.split("reservation").nth(1).unwrap().trim_start();
    let (id, _) = id.split_once(',').unwrap();
    let decision = ran.stdout.split_whitespace().nth(1).unwrap();
    insta::assert_snapshot!(ran.shown(&[(id, "ID"), (decision, "lease/DECISION")]), @r"
    exit 0
    --- stdout
    PERMIT  lease/DECISION
       request      training
       tenant       platform-tools, INTERNAL_RESEARCH
       asked        8 x A100 on de-fra-edge, PASSTHROUGH
       reservation  ID, epoch 1
       from         2026-11-23T00:00:00Z, booked in advance
       until        2026-11-30T00:00:00Z
       confirm by   2026-11-23T00:05:00Z
       holds        8000 of 8000 milli-GPU on cluster/de-fra-edge/gpu/A100
       holds        8000 of 512000 milli-GPU on tenant/platform-tools/gpu
       holds        4838400 of 1327104000 GPU-seconds on
                    tenant/platform-tools/gpu-seconds/2026-11
       obligation   isolation level=PASSTHROUGH mode=pci-passthrough
       obligation   network.partition kind=vxlan tenant=platform-tools
       decided      2026-11-22T00:00:00Z
       expires      2026-11-30T00:00:00Z
    ACTIVE
       reservation  ID
       epoch        1
       since        2026-11-22T00:00:00Z
    --- stderr
    ");
    let again = reserve(&server, "8", &ahead);
    assert_eq!(again.stdout, ran.stdout, "the same attempt");

    // Another lease of all GPUs has to end before it.
    let over = reserve(&server, "7", &["--for", "25h", "--class", "external"]);
    assert_eq!(over.code, 2, "{}", over.stderr);
    insta::assert_snapshot!(over.stdout.lines().skip(4).collect::<Vec<_>>().join("\n"), @r"
    because  RESOURCE_UNAVAILABLE (capacity): account
             `cluster/de-fra-edge/gpu/A100`: asked 7000, free 0 of 8000
             thousandths of a GPU [lease.gpu_count]
             hint: admitted for at most 86400 seconds, or as asked from
             2026-11-30T00:00:00Z on
             the same request may be admitted later
    decided  2026-11-22T00:00:00Z
    expires  2026-11-22T00:05:00Z
    ");
    let fits = reserve(&server, "7", &["--for", "24h", "--no-confirm", "--format", "json"]);
    assert_eq!((fits.code, lines(&fits).len()), (0, 1), "{}", fits.stderr);
    let url = server.grpc_url();
    let state = ["--state", "reserved", "--format", "json", "--server", &url];
    let held = run([&["ledger", "reservations"], &state[..]].concat());
    assert_eq!(lines(&held).len(), 1, "left to be confirmed: {}", held.stdout);
}

#[test]
fn what_makes_no_sense_is_a_wrong_command_line() {
    let folder = tempfile::tempdir().unwrap();
    let server = server(folder.path(), 8);
    sell(&server, &names(1), BEGIN, 600);
    let both = ["--for", "1h", "--may-preempt", "--start", "2026-11-23T00:00:00Z"];
    insta::assert_snapshot!(reserve(&server, "1", &both).shown(&[]), @r"
    exit 64
    --- stdout
    --- stderr
    error: --may-preempt has no effect on what is booked with --start
     hint: what is booked ahead waits for its turn: leave out --start and it begins when those it displaces are gone, or leave out --may-preempt and nobody is displaced
    ");
    for (more, said) in [
        (&["--for", "1M"][..], "months and years differ in length"),
        (&["--for", "367d"], "from 1 s to 366 days"),
        (&["--for", "1h", "--start", "tomorrow"], "such as 2026-11-23T06:00:00Z"),
        (&["--for", "1h", "--isolation", "some"], "passthrough"),
        (&[], "--for <DURATION>"),
    ] {
        let ran = reserve(&server, "1", more);
        assert_eq!((ran.code, ran.stdout.as_str()), (64, ""), "{more:?}");
        assert!(ran.stderr.contains(said), "{more:?}: {}", ran.stderr);
    }
    let past = reserve(&server, "1", &["--for", "1h", "--start", "1999-11-23T00:00:00Z"]);
    assert_eq!(past.code, 2, "a denial: {}", past.stderr);
    assert!(past.stdout.contains("START_IN_THE_PAST"), "{}", past.stdout);
    let unreadable = reserve(&server, "1", &["--for", "1h", "--request-id", "a b"]);
    assert_eq!(unreadable.code, 1);
    assert!(!unreadable.stderr.contains("all the same"), "{}", unreadable.stderr);
}

/// Ids of the victims that a booking of so many GPUs makes, each of which holds one GPU.
fn evicted(ran: &Ran, time: u64) -> Vec<String> {
    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""), "{}", ran.stdout);
    let [decided, confirmed] = &lines(ran)[..] else { panic!("two lines: {}", ran.stdout) };
    assert_eq!(confirmed["state"], "ACTIVE");
    let claims = claims(decided["token"].as_str().unwrap());
    assert_eq!(claims.reservation.unwrap().start, time + GRACE);
    assert!(claims.evictions.iter().all(|one| one.evict_by == time + GRACE));
    claims.evictions.iter().map(|one| one.reservation.to_string()).collect()
}

/// Lets time pass by asking for something, and releases a booking.
fn release(server: &Server, booking: &Ran, time: u64) {
    let claims = claims(lines(booking)[0]["token"].as_str().unwrap());
    let event = json!({"release": {
        "request_id": "given-back", "tenant_id": "platform-tools", "reservation": {
            "reservation_id": claims.reservation.unwrap().id, "epoch": 1}}, "time": time});
    let url = server.grpc_url();
    let ran = run_with(["admit", "--format", "json", "--server", &url, "-"], &event.to_string());
    assert_eq!(lines(&ran)[0]["state"], "RELEASED", "{}", ran.stderr);
}

fn activate(server: &Server) {
    let ran = run(["facts", "activate", "--server", &server.grpc_url()]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
}

#[test]
fn room_for_maintenance_is_made_first_and_the_limit_lowered_then() {
    let folder = tempfile::tempdir().unwrap();
    let server = server(folder.path(), 40);
    sell(&server, &names(40), BEGIN, 864_000);
    let preempting = ["--for", "7d", "--may-preempt", "--format", "json"];
    let early = reserve(&server, "10", &preempting);
    assert_eq!(early.code, 2, "nobody has had the least run time: {}", early.stdout);
    assert_eq!(in_use(&server), (40_000, 40_000));
    let now = BEGIN + MIN_RUNTIME;
    // Full: one more is refused, and that is what time goes on with.
    let refused = sell(&server, &["more".to_owned()], now, 3_600);
    assert_eq!(refused[0]["codes"], json!(["RESOURCE_UNAVAILABLE"]));
    let booking = reserve(&server, "10", &preempting);
    assert_eq!(evicted(&booking, now).len(), 10);
    assert_eq!(in_use(&server), (40_000, 40_000), "victims still have their grace");

    resize(folder.path(), "{model: A100, count: 40, safety_buffer: 0", 30);
    activate(&server);
    let refused = sell(&server, &["between".to_owned()], now + GRACE, 3_600);
    assert_eq!(refused[0]["codes"], json!(["RESOURCE_UNAVAILABLE"]));
    assert_eq!(in_use(&server), (40_000, 30_000), "what is booked still counts");
    release(&server, &booking, now + GRACE);
    assert_eq!(in_use(&server), (30_000, 30_000));
}

#[test]
fn a_limit_lowered_below_use_evicts_nobody_until_somebody_preempts() {
    let folder = tempfile::tempdir().unwrap();
    let server = server(folder.path(), 40);
    sell(&server, &names(40), BEGIN, 864_000);
    resize(folder.path(), "{model: A100, count: 40, safety_buffer: 0", 30);
    activate(&server);
    let now = BEGIN + MIN_RUNTIME;
    let refused = sell(&server, &["more".to_owned()], now, 3_600);
    assert_eq!(refused[0]["codes"], json!(["RESOURCE_UNAVAILABLE"]));
    let token = claims(refused[0]["token"].as_str().unwrap());
    let said = "asked 1000, free 0 of 30000 thousandths of a GPU: 40000 in use, above this limit";
    assert!(token.reasons[0].message.ends_with(said), "{}", token.reasons[0].message);
    let own = reserve(&server, "1", &["--for", "1h"]);
    assert_eq!(own.code, 2, "own work neither: {}", own.stdout);
    assert_eq!(in_use(&server), (40_000, 30_000), "what is held stays");

    // Room for one GPU is room under the limit: eleven have to go.
    let booking = reserve(&server, "1", &["--for", "1h", "--may-preempt", "--format", "json"]);
    assert_eq!(evicted(&booking, now).len(), 11);
    assert_eq!(in_use(&server), (40_000, 30_000), "until then they stay");
    release(&server, &booking, now + GRACE);
    assert_eq!(in_use(&server), (29_000, 30_000));
    let sold = sell(&server, &["another".to_owned(), "beyond".to_owned()], now + GRACE, 3_600);
    assert_eq!(sold[0]["effect"], "PERMIT");
    assert_eq!(sold[2]["codes"], json!(["RESOURCE_UNAVAILABLE"]));
}

/// One request of the platform's own, with what it is about.
fn own(name: &str, kind: &str, what: Value) -> Value {
    let mut subject = json!({
        "cluster_id": "de-fra-edge", "gpu_count": 4, "duration_seconds": 3_600,
        "isolation_level": "PASSTHROUGH", "gpu_models": ["A100"],
    });
    for (key, value) in what.as_object().unwrap() {
        subject[key] = value.clone();
    }
    json!({"request_id": name, "tenant_id": "platform-tools",
        "priority_class": "INTERNAL_RESEARCH", kind: subject})
}

fn inside(lease: &str, gpus: u64, length: u64) -> Value {
    json!({"gpu_count": gpus, "duration_seconds": length, "lease_id": lease})
}

#[test]
fn a_lease_goes_on_has_jobs_inside_and_takes_them_along_when_it_ends() {
    let folder = tempfile::tempdir().unwrap();
    let server = server(folder.path(), 8);
    let url = server.grpc_url();
    let ask = |events: &[Value]| {
        let events: String = events.iter().map(|event| format!("{event}\n")).collect();
        let ran = run_with(["admit", "--format", "json", "--server", &url, "-"], &events);
        assert_eq!(ran.code, 0, "{}", ran.stderr);
        lines(&ran)
    };
    let settle = |kind: &str, name: &str, epoch: u64, time: u64| {
        json!({kind: {
            "request_id": format!("{name}-{kind}"), "tenant_id": "platform-tools",
            "reservation": {"admit_request_id": name, "epoch": epoch}}, "time": time})
    };
    let at = |request: Value, time: u64| json!({"admit": request, "time": time});
    let answers =
        ask(&[at(own("lease", "lease", json!({})), BEGIN), settle("confirm", "lease", 1, BEGIN)]);
    let id = answers[1]["reservation_id"].as_str().unwrap().to_owned();
    let inside = |gpus: u64, length: u64| inside(&id, gpus, length);
    let answers = ask(&[
        at(own("j-1", "job", inside(3, 3_600)), BEGIN),
        at(own("j-2", "job", inside(2, 600)), BEGIN),
        settle("confirm", "j-1", 1, BEGIN + 10),
        at(own("j-3", "job", inside(1, 7_200)), BEGIN + 10),
    ]);
    assert_eq!(answers[1]["codes"], json!(["RESOURCE_UNAVAILABLE"]), "the lease has 4");
    assert_eq!(answers[3]["codes"], json!(["OUTSIDE_LEASE"]));
    let usage = run(["ledger", "usage", &format!("lease/{id}"), "--server", &url]);
    assert!(usage.stdout.contains("3000"), "{}", usage.stdout);

    let mut longer = own("more", "lease", json!({"duration_seconds": 7_200}));
    longer["extends"] = json!({
        "reservation_id": id, "epoch": 1, "start": BEGIN, "end": BEGIN + 3_600,
    });
    let answers =
        ask(&[at(longer, BEGIN + 20), at(own("j-4", "job", inside(1, 7_200)), BEGIN + 20)]);
    assert!(answers.iter().all(|answer| answer["effect"] == "PERMIT"), "{answers:?}");
    let over = ask(&[settle("release", "lease", 2, BEGIN + 40)]);
    // 10,800 seconds of 4 GPUs were paid, 40 of them used.
    assert_eq!(over[0]["refunded_gpu_seconds"], json!(10_760 * 4));
    let held = run(["ledger", "reservations", "--format", "json", "--server", &url]);
    assert_eq!(held.stdout, "", "the jobs ended with it");
}

#[test]
fn a_gang_is_asked_for_with_one_command() {
    let folder = tempfile::tempdir().unwrap();
    let server = server(folder.path(), 8);
    let url = server.grpc_url();
    sell(&server, &names(1), BEGIN, 60);
    let gang = |name: &str, gpus: [u64; 2]| {
        let members = gpus.iter().enumerate().map(|(at, gpus)| {
            let admit = own(&format!("{name}-{at}"), "job", json!({"gpu_count": gpus}));
            format!("{}\n", json!({"admit": admit}))
        });
        let members: String = members.collect();
        run_with(["admit", "--gang", name, "--format", "json", "--server", &url, "-"], &members)
    };
    let whole = gang("run-1", [4, 2]);
    assert_eq!((whole.code, lines(&whole).len()), (0, 2), "{}", whole.stderr);
    let more = gang("run-2", [1, 1]);
    assert_eq!(more.code, 2, "{}", more.stderr);
    let codes: Vec<Value> = lines(&more).iter().map(|line| line["codes"].clone()).collect();
    assert_eq!(codes, [json!(["GANG_INCOMPLETE"]), json!(["RESOURCE_UNAVAILABLE"])]);
    assert_eq!(in_use(&server).0, 7_000, "nothing of it is held");
    let confirm = json!({"confirm": {"request_id": "c", "tenant_id": "platform-tools",
        "reservation": {"admit_request_id": "run-1-0", "epoch": 1}}});
    let ran = run_with(["admit", "--gang", "g", "--server", &url, "-"], &format!("{confirm}\n"));
    assert_eq!(ran.code, 1);
    assert!(ran.stderr.contains("confirm and release each member apart"), "{}", ran.stderr);
}
