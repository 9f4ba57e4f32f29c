//! Operating the ledger: what is held and becomes of it, checking a store, copying one under load,
//! and a full disk.

use std::io::{BufRead as _, BufReader, Read as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::fs::{FileExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU32, Ordering};

use placet_proto::admission::v1 as pb;
use placet_proto::json::from_json;
use placet_server::store::{Store, StoreOptions};
use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process, prlimit};
use serde_json::Value;

use crate::running::{Ran, run};
use crate::server::{Server, placet};

fn json(line: &str) -> Value {
    serde_json::from_str(line).unwrap()
}

fn ledger(args: &[&str]) -> Ran {
    run(["ledger"].iter().chain(args))
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn admit(request_id: &str) -> pb::AdmitRequest {
    let lease = r#"{"tenant_id": "platform-tools", "priority_class": "INTERNAL_RESEARCH",
        "lease": {"cluster_id": "de-fra-edge", "gpu_count": 1, "duration_seconds": 3600,
        "isolation_level": "SHARED", "gpu_models": ["A100"]}}"#;
    pb::AdmitRequest { request_id: request_id.to_owned(), ..from_json(lease).unwrap() }
}

/// Every leaf of a store that no server has open.
fn leaves(store: &Path) -> Vec<Vec<u8>> {
    let store = Store::open_read_only(store).unwrap();
    let mut leaves = Vec::new();
    let each = |leaf: &[u8]| {
        leaves.push(leaf.to_vec());
        Ok::<(), placet_server::store::ReadError>(())
    };
    store.for_each_leaf(0, each).unwrap();
    leaves
}

/// A store on which a server ran, in a folder.
fn used_store(folder: &Path) -> PathBuf {
    let server = Server::start(folder, &["--clock", "events"]);
    let day = ["admit", "policies/requests/day.jsonl", "--server", &server.grpc_url()];
    assert_eq!(run(day).code, 0);
    assert_eq!(server.stop().0, 0);
    folder.join("placet.db")
}

#[test]
fn use_and_reservations_of_a_server() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path(), &["--clock", "events"]);
    let url = server.grpc_url();
    let ask = |args: &[&str]| ledger(&[args, &["--server", &url]].concat());
    let admitted =
        run(["admit", "--format", "json", "--server", &url, "policies/requests/day.jsonl"]);
    assert_eq!(admitted.code, 0, "{}", admitted.stderr);
    insta::assert_snapshot!(ask(&["usage", "tenant/platform-tools"]).shown(&[]), @r"
    exit 0
    --- stdout
      USED       LIMIT  FULL  UNIT         KIND    ACCOUNT
     14400  1327104000   0 %  GPU-seconds  budget  tenant/platform-tools/gpu-seconds/2026-11
    --- stderr
    as of position 69 of the log, 2026-11-21T19:00:00Z
    ");
    insta::assert_snapshot!(ask(&["usage", "tenant/nobody"]).shown(&[]), @r"
    exit 0
    --- stdout
    --- stderr
    as of position 69 of the log, 2026-11-21T19:00:00Z
    ");
    insta::assert_snapshot!(ask(&["usage", "--at-least", "1000000"]).shown(&[]), @r"
    exit 1
    --- stdout
    --- stderr
    error: `at_least` is 1000000, but this log has 70 leaves
     hint: ask the server that gave the position; a store that was restored from a copy may have lost it
    ");
    insta::assert_snapshot!(ask(&["usage", "tenant//a"]).shown(&[]), @r"
    exit 1
    --- stdout
    --- stderr
    error: `prefix` is empty
     hint: give a path such as `tenant/acme/gpu`
    ");

    let lines = ask(&["usage", "--format", "json"]).stdout;
    let accounts: Vec<Value> = lines.lines().map(json).collect();
    assert!(accounts.iter().all(|it| it["position"].is_u64() && it["limit"].is_u64()), "{lines}");
    let held = ask(&["reservations", "--format", "json"]).stdout;
    let held: Vec<Value> = held.lines().map(json).collect();
    for state in ["reserved", "active"] {
        let some = ask(&["reservations", "--state", state, "--format", "json"]).stdout;
        let expected = held.iter().filter(|it| it["state"] == state.to_uppercase()).count();
        assert_eq!(some.lines().count(), expected, "{some}");
    }
    // What reservations that have begun hold of a level account is its use.
    for account in accounts.iter().filter(|it| it["kind"] == "LEVEL") {
        let path = account["account"].as_str().unwrap();
        let on = ask(&["reservations", "--account", path, "--format", "json"]).stdout;
        let charges = on.lines().flat_map(|line| json(line)["charges"].as_array().unwrap().clone());
        let of = charges.filter(|it| it["account"] == path);
        let sum: u64 = of.map(|it| it["amount"].as_u64().unwrap()).sum();
        assert_eq!(account["used"], sum, "{path}");
    }
    let first = held[0]["reservation_id"].as_str().unwrap();
    let shown = ask(&["reservations", "--tenant", held[0]["tenant_id"].as_str().unwrap()]);
    assert!(shown.stdout.contains(first) && shown.stderr.starts_with("as of position "));
}

/// A watch that runs until it is told to stop.
struct Watching {
    child: Child,
    lines: std::io::Lines<BufReader<ChildStdout>>,
}

impl Watching {
    fn start(url: &str, more: &[&str]) -> Self {
        let mut command = placet();
        command.args(["ledger", "watch", "--format", "json", "--server", url]).args(more);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines }
    }

    fn next(&mut self) -> Value {
        json(&self.lines.next().unwrap().unwrap())
    }

    /// What is left, the exit code and the last words.
    fn end(mut self) -> (usize, i32, String) {
        let (rest, mut said) = (self.lines.count(), String::new());
        self.child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        (rest, self.child.wait().unwrap().code().unwrap_or(-1), said)
    }

    fn interrupt(self) -> (usize, i32, String) {
        let id = Pid::from_raw(self.child.id().try_into().unwrap()).unwrap();
        kill_process(id, Signal::INT).unwrap();
        self.end()
    }
}

/// A port that leads to whatever port is the right one when a connection is made.
fn forwarded(to: Arc<AtomicU16>) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for near in listener.incoming().map(Result::unwrap) {
            let Ok(far) = TcpStream::connect(("127.0.0.1", to.load(Ordering::Acquire))) else {
                continue;
            };
            for (from, to) in [(&near, &far), (&far, &near)] {
                let (mut from, mut to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
                std::thread::spawn(move || {
                    // It ends when either side has gone, and takes the other with it.
                    drop(std::io::copy(&mut from, &mut to));
                    drop(to.shutdown(Shutdown::Both));
                });
            }
        }
    });
    port
}

/// Admits leases and confirms each.
fn confirm_some(server: &Server, names: std::ops::Range<u32>) {
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let mut client = server.client().await;
        for number in names {
            let id = format!("r-{number}");
            client.admit(admit(&id)).await.unwrap();
            let target = pb::reservation_ref::Target::AdmitRequestId(id.clone());
            let confirm = pb::ConfirmRequest {
                request_id: format!("c-{number}"),
                tenant_id: "platform-tools".to_owned(),
                reservation: Some(pb::ReservationRef { epoch: 1, target: Some(target) }),
            };
            client.confirm(confirm).await.unwrap();
        }
    });
}

#[test]
fn a_watch_goes_on_over_a_restart_until_it_is_interrupted() {
    let folder = tempfile::tempdir().unwrap();
    let mut server = Server::start(folder.path(), &[]);
    let port = Arc::new(AtomicU16::new(server.grpc));
    let url = format!("http://127.0.0.1:{}", forwarded(Arc::clone(&port)));
    confirm_some(&server, 0..3);
    let mut all = Watching::start(&url, &[]);
    let mut told: Vec<Value> = (0..3).map(|_| all.next()).collect();
    server.kill();
    let server = Server::start(folder.path(), &[]);
    port.store(server.grpc, Ordering::Release);
    confirm_some(&server, 3..5);
    told.extend((0..2).map(|_| all.next()));
    let positions: Vec<_> = told.iter().map(|it| it["position"].as_u64().unwrap()).collect();
    assert!(positions.is_sorted_by(|one, next| one < next), "{positions:?}");
    let ids: std::collections::BTreeSet<_> =
        told.iter().map(|it| it["confirmed"]["reservation_id"].as_str().unwrap()).collect();
    assert_eq!(ids.len(), 5);
    let (rest, code, said) = all.interrupt();
    assert_eq!((rest, code), (0, 0), "{said}");
    assert!(said.contains("; trying again in 0.5 s from position "), "{said}");
    assert!(said.contains("\nto go on: --from "), "{said}");

    let from = positions[3].to_string();
    let kinds = ["--kind", "expired", "--kind", "confirmed"];
    let more = ["--from", &from, "--no-reconnect"];
    let mut rest = Watching::start(&url, &[&more[..], &kinds].concat());
    assert_eq!([rest.next(), rest.next()], [told[3].clone(), told[4].clone()]);
    assert_eq!(server.stop().0, 0);
    let (rest, code, said) = rest.end();
    assert_eq!((rest, code), (0, 1), "{said}");
    assert!(said.starts_with("error: the server is stopping"), "{said}");
}

#[test]
fn a_watch_that_cannot_begin_says_why_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path(), &["--clock", "events"]);
    let url = server.grpc_url();
    let ahead = ledger(&["watch", "--from", "1000", "--server", &url]);
    insta::assert_snapshot!(ahead.shown(&[]), @r"
    exit 1
    --- stdout
    --- stderr
    error: `position` is 1000, but this log has 3 leaves
     hint: ask the server that gave the position; a store that was restored from a copy may have lost it
    ");
    assert_eq!(server.stop().0, 0);
    let gone = ledger(&["watch", "--server", &url]);
    assert_eq!((gone.code, gone.stdout.as_str()), (1, ""));
    assert!(gone.stderr.starts_with("error: cannot reach the server"), "{}", gone.stderr);
}

#[test]
fn a_store_is_verified_while_no_server_has_it() {
    let folder = tempfile::tempdir().unwrap();
    let store = used_store(folder.path());
    let whole = ledger(&["verify", "--store", text(&store)]);
    assert_eq!((whole.code, whole.stderr.as_str()), (0, "verified\n"), "{}", whole.stdout);
    let told = json(&ledger(&["verify", "--store", text(&store), "--format", "json"]).stdout);
    assert_eq!(told["size"].as_u64().unwrap(), leaves(&store).len() as u64);
    for words in [told["store"].as_str().unwrap(), told["root"].as_str().unwrap(), "held", "LEVEL"]
    {
        let words = words.to_lowercase();
        assert!(whole.stdout.contains(&words), "{words}: {}", whole.stdout);
    }

    let replace = [(text(folder.path()), "DIR")];
    assert!(told["snapshot"].is_null(), "{told}");
    let snapshot = folder.path().join("placet.db.snapshot");
    std::fs::write(&snapshot, "half a page").unwrap();
    let beside = ledger(&["verify", "--store", text(&store)]);
    insta::assert_snapshot!(beside.shown(&replace), @r"
    exit 1
    --- stdout
    --- stderr
    error: the store `DIR/placet.db` is whole, the file beside it is not: the snapshot `DIR/placet.db.snapshot` cannot be used: it is cut short
     hint: delete it: a start without it folds the whole log, and is right
    ");
    std::fs::remove_file(&snapshot).unwrap();

    let nothing = folder.path().join("nothing.db");
    let missing = ledger(&["verify", "--store", text(&nothing)]);
    insta::assert_snapshot!(missing.shown(&replace), @r"
    exit 1
    --- stdout
    --- stderr
    error: the store `DIR/nothing.db` cannot be read: No such file or directory (os error 2)
     hint: name the file of a store
    ");
    assert!(!nothing.exists());
    std::fs::write(&nothing, "").unwrap();
    let empty = ledger(&["verify", "--store", text(&nothing)]);
    insta::assert_snapshot!(empty.shown(&replace), @r"
    exit 1
    --- stdout
    --- stderr
    error: the store `DIR/nothing.db` is not a Placet store: it is empty
     hint: name another file, which is created if absent; if this was a store, it is damaged: restore it from a copy
    ");
    assert_eq!(std::fs::read(&nothing).unwrap(), b"");

    let server = Server::start(folder.path(), &["--clock", "events"]);
    let held = ledger(&["verify", "--store", text(&store)]);
    assert_eq!((held.code, held.stdout.as_str()), (1, ""));
    for words in ["is in use by process ", "hint: stop it; or make a copy"] {
        assert!(held.stderr.contains(words), "{}", held.stderr);
    }
    assert_eq!(server.stop().0, 0);
}

#[test]
fn a_store_that_was_never_closed_is_verified_and_copied() {
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().join("placet.db");
    let mut server = Server::start(folder.path(), &["--clock", "events"]);
    let day = ["admit", "policies/requests/day.jsonl", "--server", &server.grpc_url()];
    assert_eq!(run(day).code, 0);
    server.kill();
    let log = folder.path().join("placet.db-wal");
    assert!(std::fs::metadata(&log).unwrap().len() > 0, "all of it is still in there");
    let verify = |path: &Path| ledger(&["verify", "--store", text(path), "--format", "json"]);
    let told = verify(&store);
    assert_eq!(told.code, 0, "{}", told.stderr);
    let to = folder.path().join("copy.db");
    let copied = ledger(&["backup", "--store", text(&store), "--to", text(&to)]);
    assert_eq!(copied.code, 0, "{}", copied.stderr);
    std::fs::remove_file(&store).unwrap();
    std::fs::remove_file(&log).unwrap();
    let (told, copy) = (json(&told.stdout), json(&verify(&to).stdout));
    for name in ["root", "size", "decisions", "accounts", "store"] {
        assert_eq!(told[name], copy[name], "{name}");
    }
}

/// Admissions one after another until told to stop; how many were asked.
fn load(url: &str, stop: &AtomicBool, asked: &AtomicU32) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        type Client =
            pb::admission_service_client::AdmissionServiceClient<tonic::transport::Channel>;
        let mut client = Client::connect(url.to_owned()).await.unwrap();
        while !stop.load(Ordering::Acquire) {
            let number = asked.load(Ordering::Acquire);
            client.admit(admit(&format!("r-{number}"))).await.unwrap();
            asked.store(number + 1, Ordering::Release);
        }
    });
}

#[test]
fn a_copy_under_load_is_whole_and_a_server_goes_on_from_it() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path(), &[]);
    let store = folder.path().join("placet.db");
    let (stop, asked) = (AtomicBool::new(false), AtomicU32::new(0));
    let url = server.grpc_url();
    let copies: Vec<PathBuf> = std::thread::scope(|scope| {
        scope.spawn(|| load(&url, &stop, &asked));
        let copies = (1..=4_u32).map(|number| {
            while asked.load(Ordering::Acquire) < 30 * number {
                std::thread::yield_now();
            }
            let to = folder.path().join(format!("copy-{number}.db"));
            let args = ["backup", "--store", text(&store), "--to", text(&to), "--format", "json"];
            let (before, ran) = (asked.load(Ordering::Acquire), ledger(&args));
            assert_eq!(ran.code, 0, "{}", ran.stderr);
            assert!(json(&ran.stdout)["decisions"].as_u64().unwrap() >= u64::from(before));
            let again = ledger(&args);
            assert_eq!((again.code, again.stdout.as_str()), (1, ""));
            assert!(again.stderr.contains("a copy never replaces one"), "{}", again.stderr);
            to
        });
        let copies = copies.collect();
        stop.store(true, Ordering::Release);
        copies
    });
    assert_eq!(server.stop().0, 0);
    let all = leaves(&store);
    let mut before = 0;
    for copy in &copies {
        let mode = std::fs::metadata(copy).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600);
        let verified = ledger(&["verify", "--store", text(copy)]);
        assert_eq!(verified.code, 0, "{}", verified.stderr);
        let part = leaves(copy);
        assert!(before < part.len() && all.starts_with(&part), "a prefix, longer than the last");
        before = part.len();
    }
    let others = std::fs::read_dir(folder.path()).unwrap();
    let partial = others.filter(|it| text(&it.as_ref().unwrap().path()).contains(".partial"));
    assert_eq!(partial.count(), 0);

    // The copy is the same store: what it holds is answered again, byte for byte.
    let (first, last) = (&copies[0], all.len());
    std::fs::rename(first, &store).unwrap();
    let server = Server::start(folder.path(), &[]);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let mut client = server.client().await;
        let known = client.admit(admit("r-0")).await.unwrap().into_inner();
        assert!(String::from_utf8_lossy(&all[3]).contains(&known.token), "the first decision");
        let lost = client.admit(admit(&format!("r-{}", last - 4))).await.unwrap().into_inner();
        assert!(usize::try_from(lost.position).unwrap() < last - 1, "decided after the copy");
    });
    assert_eq!(server.stop().0, 0);
    assert_eq!(ledger(&["verify", "--store", text(&store)]).code, 0);
}

#[test]
fn a_copy_that_cannot_be_made_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let store = used_store(folder.path());
    let replace = [(text(folder.path()), "DIR")];
    let to = folder.path().join("copy.db");
    let away = folder.path().join("no/copy.db");
    let ran = ledger(&["backup", "--store", text(&store), "--to", text(&away)]);
    insta::assert_snapshot!(ran.shown(&replace), @r"
    exit 1
    --- stdout
    --- stderr
    error: no copy of `DIR/placet.db` was made: the copy cannot be written: No such file or directory (os error 2)
     hint: is there room, and may this user write there?
    ");
    let partial = folder.path().join("copy.db.partial");
    std::fs::write(&partial, "").unwrap();
    let ran = ledger(&["backup", "--store", text(&store), "--to", text(&to)]);
    insta::assert_snapshot!(ran.shown(&replace), @r"
    exit 1
    --- stdout
    --- stderr
    error: `DIR/copy.db.partial` exists: a copy is being made there, or was cut short
     hint: wait for it, or delete that file if nothing makes it
    ");
    std::fs::remove_file(&partial).unwrap();
    let nothing = folder.path().join("nothing.db");
    let ran = ledger(&["backup", "--store", text(&nothing), "--to", text(&to)]);
    insta::assert_snapshot!(ran.shown(&replace), @r"
    exit 1
    --- stdout
    --- stderr
    error: the store `DIR/nothing.db` cannot be read: No such file or directory (os error 2)
     hint: name the file of a store
    ");

    // A store that is damaged gives no copy that looks good.
    let connection = Store::open(&store, StoreOptions::default()).unwrap();
    drop(connection);
    let token = leaves(&store).iter().map(Vec::len).max().unwrap();
    assert!(token > 100, "the log holds decisions");
    flip_in(&store, b"\"effect\"").or_else(|| flip_in(&store, b"\"token\"")).unwrap();
    let ran = ledger(&["backup", "--store", text(&store), "--to", text(&to)]);
    assert_eq!((ran.code, ran.stdout.as_str()), (1, ""));
    assert!(ran.stderr.contains("the copy is not whole, and was deleted"), "{}", ran.stderr);
    assert!(!to.exists() && !partial.exists());
}

/// Flips a bit of the first byte of some text in a file.
fn flip_in(path: &Path, wanted: &[u8]) -> Option<u64> {
    let bytes = std::fs::read(path).unwrap();
    let at = bytes.windows(wanted.len()).position(|part| part == wanted)?;
    let file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
    file.write_all_at(&[bytes[at] ^ 1], at as u64).unwrap();
    Some(at as u64)
}

/// Lets the files of a process grow to so many bytes; `None` lifts the limit.
fn limit_files(server: &Server, bytes: Option<u64>) {
    let pid = Pid::from_raw(server.id().try_into().unwrap());
    // The upper bound, which only a privileged process may raise, stays what it is.
    let maximum = getrlimit(Resource::Fsize).maximum;
    prlimit(pid, Resource::Fsize, Rlimit { current: bytes.or(maximum), maximum }).unwrap();
}

#[test]
fn service_stops_on_a_full_disk_and_resumes_with_room() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start_unkillable_by_limits(folder.path());
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let mut answered = Vec::new();
    runtime.block_on(async {
        let mut client = server.client().await;
        client.admit(admit("r-first")).await.unwrap();
        let length = |name: &str| std::fs::metadata(folder.path().join(name)).unwrap().len();
        let nearly = length("placet.db").max(length("placet.db-wal")) + 65_536;
        // Once with room for some more, which tidying up may win back; once with none at all.
        for (round, bytes) in [nearly, 4_096].into_iter().enumerate() {
            limit_files(&server, Some(bytes));
            let refused = loop {
                let id = format!("r-{round}-{}", answered.len());
                match client.admit(admit(&id)).await {
                    Ok(answer) => answered.push((id, answer.into_inner())),
                    Err(refused) => break (id, refused),
                }
                assert!(answered.len() < 10_000, "the disk is never full");
            };
            let (id, refused) = refused;
            assert_eq!(refused.code(), tonic::Code::Unavailable, "{refused:?}");
            assert!(refused.message().contains("hint: repeat the request"), "{refused:?}");
            if bytes < nearly {
                for _ in 0..5 {
                    let again = client.admit(admit(&id)).await.unwrap_err();
                    assert_eq!(again.code(), tonic::Code::Unavailable, "{again:?}");
                }
            }
            limit_files(&server, None);
            let resumed = client.admit(admit(&id)).await.expect("service resumes by itself");
            answered.push((id, resumed.into_inner()));
        }
        for (id, first) in &answered {
            assert_eq!(client.admit(admit(id)).await.unwrap().into_inner(), *first, "{id}");
        }
    });
    assert_eq!(server.stop().0, 0);
    let store = folder.path().join("placet.db");
    let told = json(&ledger(&["verify", "--store", text(&store), "--format", "json"]).stdout);
    let least = answered.len() as u64 + 1;
    assert!(told["decisions"].as_u64().unwrap() >= least, "{told}");
}
