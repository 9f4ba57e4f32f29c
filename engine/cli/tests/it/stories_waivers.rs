//! Two stories from end to end: a waiver that is used once and expires, and a cluster that is
//! frozen and let go again.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;

use placet_core::{Decision, Effect};
use serde_json::{Value, json};

use crate::running::{Ran, run, run_with};
use crate::server::{Server, claims, root};

/// When the stories begin: 2026-11-21T12:00:00Z, in seconds since 1970.
const BEGIN: u64 = 1_795_262_400;

/// A time as the command line takes it.
fn text(time: u64) -> String {
    placet_core::utc(time).to_string()
}

/// A server with approvers, whose time is that of events.
struct Scene {
    folder: tempfile::TempDir,
    server: Option<Server>,
}

impl Scene {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut keys = Vec::new();
        for name in ["duty", "site", "stranger"] {
            let directory = folder.path().join(name);
            let made = run(["keys", "generate", "--keys", directory.to_str().unwrap()]);
            assert_eq!(made.code, 0, "{}", made.stderr);
            let jwks = run(["keys", "jwks", "--keys", directory.to_str().unwrap()]);
            let jwks: Value = serde_json::from_str(&jwks.stdout).unwrap();
            keys.push(jwks["keys"][0].clone());
        }
        let approvers = json!({
            "schema": "placet.approvers/v1",
            "approvers": [
                {
                    "name": "duty", "keys": [keys[0]], "callers": ["ops-console"],
                    "waive": {
                        "lifts": {"compliance": ["ATTESTATION_EXPIRED"]},
                        "max_seconds": 86_400, "max_uses": 3,
                    },
                },
                {"name": "site", "keys": [keys[1]], "freeze": {"clusters": ["de-fra-1"]}},
            ],
        });
        std::fs::write(folder.path().join("approvers.json"), approvers.to_string()).unwrap();
        let mut scene = Self { folder, server: None };
        scene.start();
        scene
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn path(&self, name: &str) -> String {
        self.file(name).to_str().unwrap().to_owned()
    }

    fn key(&self, who: &str) -> String {
        self.path(who) + "/signing-key.pkcs8"
    }

    fn start(&mut self) {
        let approvers = self.path("approvers.json");
        let more = ["--clock", "events", "--watch", "0", "--approvers", &approvers];
        self.server = Some(Server::start(self.folder.path(), &more));
    }

    /// Stops and starts the server.
    fn restart(&mut self) {
        let (code, words) = self.server.take().unwrap().stop();
        assert_eq!(code, 0, "{words}");
        self.start();
    }

    fn server(&self) -> &Server {
        self.server.as_ref().unwrap()
    }

    fn url(&self) -> String {
        self.server().grpc_url()
    }

    /// One event, and what it was answered.
    fn event(&self, event: &Value) -> Value {
        let args = ["admit", "--format", "json", "--server", &self.url(), "-"];
        let ran = run_with(args, &format!("{event}\n"));
        serde_json::from_str(ran.stdout.trim()).unwrap_or_else(|_| panic!("{}", ran.stderr))
    }

    /// A decision on a request at a time, `seconds` after the beginning.
    fn decide(&self, request: &Value, seconds: u64) -> Decision {
        let answer = self.event(&json!({"admit": request, "time": BEGIN + seconds}));
        claims(answer["token"].as_str().unwrap_or_else(|| panic!("{answer}")))
    }

    /// Signs a waiver; its file.
    fn waiver(&self, who: &str, name: &str, more: &[&str]) -> (Ran, PathBuf) {
        let key = self.key(who);
        let at = text(BEGIN);
        let args = [
            "waiver",
            "sign",
            "--key",
            &key,
            "--id",
            name,
            "--tenant",
            "tumble-games",
            "--lift",
            "compliance/ATTESTATION_EXPIRED",
            "--approved-by",
            "duty",
            "--reason",
            "CHG-1887: report is late",
            "--at",
            &at,
        ];
        let asked_by = ["--requested-by", "ops"];
        let asked_by = if more.contains(&asked_by[0]) { &[][..] } else { &asked_by };
        let ran = run(args.iter().chain(asked_by).chain(more));
        let file = self.file(&format!("{name}.waiver"));
        std::fs::write(&file, &ran.stdout).unwrap();
        (ran, file)
    }

    /// The token of a waiver that was signed.
    fn signed(&self, who: &str, name: &str, more: &[&str]) -> String {
        let (ran, _) = self.waiver(who, name, more);
        assert_eq!(ran.code, 0, "{}", ran.stderr);
        ran.stdout.trim().to_owned()
    }

    fn freeze(&self, more: &[&str]) -> Ran {
        let (url, key) = (self.url(), self.key("site"));
        let args = ["freeze", "--server", &url, "--key", &key, "--by", "site"];
        run(args.iter().chain(more))
    }

    fn metric(&self, line: &str) -> bool {
        let mut stream = TcpStream::connect(("127.0.0.1", self.server().http)).unwrap();
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
        let mut page = String::new();
        stream.read_to_string(&mut page).unwrap();
        page.lines().any(|own| own == line)
    }

    /// Events of the log of some kinds, by what they are about.
    fn logged(&self, kind: &str) -> Vec<String> {
        let url = self.url();
        let ran = run(["log", "list", "--kind", kind, "--format", "json", "--server", &url]);
        assert_eq!(ran.code, 0, "{}", ran.stderr);
        let subject = |line: &str| {
            let line: Value = serde_json::from_str(line).unwrap();
            line["subject"].as_str().unwrap().to_owned()
        };
        ran.stdout.lines().map(subject).collect()
    }

    /// Stops, and checks ledger and log from the first leaf on, the approvers' signatures too.
    fn end(mut self) {
        let (code, words) = self.server.take().unwrap().stop();
        assert_eq!(code, 0, "{words}");
        let (store, keys) = (self.path("placet.db"), self.path("keys"));
        let verified = run(["ledger", "verify", "--store", &store]);
        assert_eq!(verified.code, 0, "{}", verified.stderr);
        let log_key = run(["keys", "log", "--keys", &keys]).stdout;
        let jwks = run(["keys", "jwks", "--keys", &keys]).stdout;
        std::fs::write(self.file("jwks.json"), jwks).unwrap();
        let (jwks, log_key) = (self.path("jwks.json"), log_key.trim());
        let args = ["log", "verify", "--store", &store, "--jwks", &jwks, "--log-key", log_key];
        let approvers = self.path("approvers.json");
        let verified = run(args.iter().chain(&["--approvers", &approvers]));
        assert_eq!(verified.code, 0, "{}", verified.stderr);
        self.lies();
        // With the keys of others, what they approved is nobody's.
        let approvers = std::fs::read_to_string(approvers).unwrap();
        let stranger = self.path("stranger");
        let jwks = run(["keys", "jwks", "--keys", &stranger]).stdout;
        let mut other: Value = serde_json::from_str(&approvers).unwrap();
        let key = serde_json::from_str::<Value>(&jwks).unwrap()["keys"][0].clone();
        other["approvers"].as_array_mut().unwrap().truncate(1);
        other["approvers"][0]["keys"][0] = key;
        std::fs::write(self.file("others.json"), other.to_string()).unwrap();
        let others = self.path("others.json");
        let refused = run(args.iter().chain(&["--approvers", &others]));
        assert_eq!(refused.code, 1, "{}", refused.stdout);
        assert!(refused.stderr.contains("no approver"), "{}", refused.stderr);
    }
}

impl Scene {
    /// An auditor without any code of ours finds nothing wrong, and every lie that is told.
    fn lies(&self) {
        let interpreter = root().join("target/venv/bin/python");
        assert!(interpreter.exists(), "{} is missing: run `make setup`", interpreter.display());
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/python/approvals.py");
        let ran = Command::new(interpreter).arg("-B").arg(script).arg(self.folder.path()).output();
        let ran = Ran::of(ran.unwrap());
        assert_eq!(ran.code, 0, "{}{}", ran.stdout, ran.stderr);
        assert!(ran.stdout.lines().count() >= 5, "{}", ran.stdout);
    }
}

fn lease(name: &str, tenant: &str, cluster: &str, waivers: &[&str]) -> Value {
    json!({
        "request_id": name, "tenant_id": tenant, "priority_class": "EXTERNAL_COMMERCIAL",
        "lease": {
            "cluster_id": cluster, "gpu_count": 8, "duration_seconds": 3_600,
            "isolation_level": "PARTITIONED", "gpu_models": ["L40S"],
        },
        "waivers": waivers,
    })
}

fn tumble(name: &str, waivers: &[&str]) -> Value {
    lease(name, "tumble-games", "de-fra-1", waivers)
}

fn codes(decision: &Decision) -> Vec<&str> {
    decision.reasons.iter().map(|reason| reason.code.as_str()).collect()
}

#[test]
fn a_waiver_is_used_once_and_expires() {
    let mut scene = Scene::new();
    let denied = scene.decide(&tumble("r-1", &[]), 0);
    assert_eq!(codes(&denied), ["ATTESTATION_EXPIRED"]);

    let (ran, file) = scene.waiver("duty", "w-1", &["--for", "1h"]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let approvers = scene.path("approvers.json");
    let at = text(BEGIN + 60);
    let show = ["waiver", "show", file.to_str().unwrap(), "--at", &at];
    let shown = run(show.iter().chain(&["--approvers", &approvers]));
    assert_eq!(shown.code, 0, "{}", shown.stderr);
    assert!(shown.stdout.starts_with("waiver w-1, good\n"), "{}", shown.stdout);
    let once = ran.stdout.trim().to_owned();

    // Asking what would be decided uses nothing.
    let request = scene.file("request.json");
    std::fs::write(&request, tumble("explained", &[]).to_string()).unwrap();
    let (request, url) = (request.to_str().unwrap().to_owned(), scene.url());
    let explain = ["explain", &request, "--server", &url];
    assert_eq!(run(explain).code, 2, "denied without it");
    let waived = ["--waiver", file.to_str().unwrap()];
    let explained = run(explain.iter().chain(&waived));
    assert_eq!(explained.code, 0, "{}{}", explained.stdout, explained.stderr);

    let permitted = scene.decide(&tumble("r-2", &[&once]), 10);
    assert_eq!(permitted.effect, Effect::Permit, "{:?}", permitted.reasons);
    assert_eq!(permitted.waivers.iter().map(|id| id.as_str()).collect::<Vec<_>>(), ["w-1"]);
    assert_eq!(scene.logged("waiver"), ["w-1"]);
    let lifted = "placet_waivers_total{name=\"compliance/ATTESTATION_EXPIRED\"} 1";
    assert!(scene.metric(lifted));
    scene.restart();
    let repeated = scene.decide(&tumble("r-2", &[&once]), 10);
    assert_eq!(repeated, permitted, "a retry gets the first answer");
    assert_eq!(codes(&scene.decide(&tumble("r-3", &[&once]), 20)), ["WAIVER_USED_UP"]);

    let short = scene.signed("duty", "w-2", &["--for", "60s"]);
    assert_eq!(codes(&scene.decide(&tumble("r-4", &[&short]), 60)), ["WAIVER_EXPIRED"]);
    scene.restart();
    let later = text(BEGIN + 600);
    let early = scene.signed("duty", "w-3", &["--from", &later]);
    let refused = scene.decide(&tumble("r-5", &[&early]), 70);
    assert_eq!(codes(&refused), ["WAIVER_NOT_YET_VALID"]);
    assert!(refused.reasons[0].retry);
    refuse_what_is_not_good(&scene);

    // Given on the command line with a single request.
    std::fs::write(&request, tumble("r-8", &[]).to_string()).unwrap();
    let (_, file) = scene.waiver("duty", "w-8", &["--max-gpus", "8"]);
    let url = scene.url();
    let admit = ["admit", &request, "--server", &url, "--waiver", file.to_str().unwrap()];
    let admitted = run(admit);
    assert_eq!(admitted.code, 0, "{}{}", admitted.stdout, admitted.stderr);
    assert!(admitted.stdout.contains("waived by    w-8"), "{}", admitted.stdout);
    assert_eq!(scene.logged("waiver"), ["w-1", "w-8"]);
    let listed = run(["log", "list", "--kind", "waiver", "--server", &scene.url()]).stdout;
    let words = "w-1 by duty for ops: compliance/ATTESTATION_EXPIRED of tumble-games, 1 uses";
    assert!(listed.contains(words), "{listed}");
    scene.end();
}

/// Each waiver that is not good denies with a code of its own, and none is used.
fn refuse_what_is_not_good(scene: &Scene) {
    let approvers = scene.path("approvers.json");
    let cases: [(&str, &str, &[&str], &str); 6] = [
        ("stranger", "b-1", &[], "WAIVER_UNKNOWN_KEY"),
        ("duty", "b-2", &["--issuer", "elsewhere"], "WAIVER_FOREIGN"),
        ("duty", "b-3", &["--lift", "residency/RESIDENCY_TENANT"], "WAIVER_OVER_BROAD"),
        ("duty", "b-4", &["--uses", "4"], "WAIVER_OVER_BROAD"),
        ("duty", "b-5", &["--max-gpus", "7"], "WAIVER_TOO_SMALL"),
        ("duty", "b-6", &["--cluster", "se-sto-1"], "WAIVER_NOT_FOR_THIS"),
    ];
    for (who, name, more, code) in cases {
        let token = scene.signed(who, name, more);
        assert_eq!(codes(&scene.decide(&tumble(name, &[&token]), 80)), [code], "{name}");
        let sees = !matches!(code, "WAIVER_TOO_SMALL" | "WAIVER_NOT_FOR_THIS");
        let (checked, _) = scene.waiver(who, name, &[more, &["--approvers", &approvers]].concat());
        // What the command can see it refuses before anybody sends it.
        let own = sees && code != "WAIVER_FOREIGN";
        assert_eq!(checked.code, i32::from(own), "{name}: {}", checked.stderr);
        assert_eq!(checked.stderr.contains(code), own, "{}", checked.stderr);
    }
    let own = scene.signed("duty", "b-7", &["--requested-by", "ops-console"]);
    assert_eq!(codes(&scene.decide(&tumble("b-7", &[&own]), 80)), ["WAIVER_SELF_APPROVED"]);
    let (same, _) = scene.waiver("duty", "b-8", &["--requested-by", "duty"]);
    assert_eq!((same.code, same.stdout.as_str()), (64, ""), "{}", same.stderr);
    // It is good, but there is more that nobody waived.
    let good = scene.signed("duty", "b-9", &[]);
    let elsewhere = lease("b-9", "tumble-games", "no-such-cluster", &[&good]);
    assert_eq!(codes(&scene.decide(&elsewhere, 80)), ["UNKNOWN_CLUSTER"]);
    let other = lease("b-10", "acme", "de-fra-1", &[&good]);
    assert_eq!(codes(&scene.decide(&other, 80)), ["WAIVER_NOT_FOR_THIS"], "it needs none");
    let broken = good.replace('.', ".x");
    assert_eq!(codes(&scene.decide(&tumble("b-11", &[&broken]), 80)), ["WAIVER_UNREADABLE"]);
    let answer = scene.event(&json!({"admit": tumble("b-12", &["no waiver"]), "time": BEGIN + 80}));
    assert_eq!(answer["error"]["field"], "waivers[0]", "{answer}");
    assert_eq!(scene.logged("waiver"), ["w-1"], "none of them was used");
}

fn settle(kind: &str, of: &str, time: u64) -> Value {
    json!({
        kind: {
            "request_id": format!("{of}-{kind}"), "tenant_id": "acme",
            "reservation": {"admit_request_id": of, "epoch": 1},
        },
        "time": time,
    })
}

#[test]
fn a_cluster_is_frozen_and_let_go_again() {
    let mut scene = Scene::new();
    let acme = |name: &str| lease(name, "acme", "de-fra-1", &[]);
    for name in ["waits", "given-up"] {
        let decision = scene.decide(&acme(name), 0);
        assert_eq!(decision.effect, Effect::Permit, "{:?}", decision.reasons);
    }
    let at = text(BEGIN + 10);
    let order = ["--id", "f-1", "--reason", "INC-77: smoke in hall 2", "--at", &at];
    let frozen = scene.freeze(&[&order[..], &["--cluster", "de-fra-1"]].concat());
    assert_eq!(frozen.code, 0, "{}", frozen.stderr);
    assert!(frozen.stdout.contains("INC-77: smoke in hall 2"), "{}", frozen.stdout);

    let denied = scene.decide(&acme("r-1"), 20);
    assert_eq!(codes(&denied), ["FROZEN"]);
    assert!(denied.reasons[0].message.contains("INC-77"), "{:?}", denied.reasons);
    let elsewhere = scene.decide(&lease("r-2", "acme", "se-sto-1", &[]), 20);
    assert!(!codes(&elsewhere).contains(&"FROZEN"), "{:?}", elsewhere.reasons);
    let confirm = scene.event(&settle("confirm", "waits", BEGIN + 30));
    assert_eq!(confirm["error"]["code"], "FROZEN", "{confirm}");
    let released = scene.event(&settle("release", "given-up", BEGIN + 30));
    assert_eq!(released["state"], "RELEASED", "{released}");
    assert!(scene.metric("placet_freezes{name=\"f-1\"} 1"));

    scene.restart();
    assert_eq!(codes(&scene.decide(&acme("r-3"), 40)), ["FROZEN"], "a restart changes nothing");
    let url = scene.url();
    let list = run(["freeze", "--list", "--format", "json", "--server", &url]);
    let listed: Value = serde_json::from_str(list.stdout.trim()).unwrap();
    assert_eq!((&listed["name"], &listed["clusters"][0]), (&json!("f-1"), &json!("de-fra-1")));
    for (more, code) in [
        (["--id", "f-2", "--tenant", "acme"], "may not freeze"),
        (["--id", "f-1", "--cluster", "de-fra-1"], "there is a freeze"),
        (["--lift", "f-3", "--class", "external"], "cannot be used with"),
    ] {
        let at = text(BEGIN + 41);
        let refused = scene.freeze(&[&more[..], &["--reason", "x", "--at", &at]].concat());
        assert_ne!(refused.code, 0);
        assert!(refused.stderr.contains(code), "{}", refused.stderr);
    }

    let at = text(BEGIN + 50);
    let lift = ["--lift", "f-1", "--reason", "INC-77: cleared", "--at", &at];
    let lifted = scene.freeze(&lift);
    assert_eq!(lifted.code, 0, "{}", lifted.stderr);
    assert!(!scene.metric("placet_freezes{name=\"f-1\"} 1"));
    assert_eq!(codes(&scene.decide(&acme("r-1"), 60)), ["FROZEN"], "what was decided stays so");
    assert_eq!(scene.decide(&acme("r-4"), 60).effect, Effect::Permit, "asked anew");
    let confirm = scene.event(&settle("confirm", "waits", BEGIN + 70));
    assert_eq!(confirm["state"], "ACTIVE", "{confirm}");
    assert_eq!(scene.logged("freeze"), ["f-1"]);
    assert_eq!(scene.logged("thaw"), ["f-1"]);
    scene.end();
}

#[test]
fn a_wrong_list_of_approvers_keeps_the_server_from_starting() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("approvers.yaml");
    let serve = |text: &str| {
        std::fs::write(&file, text).unwrap();
        let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
        let (store, keys, approvers) = (path("placet.db"), path("keys"), path("approvers.yaml"));
        let args = [
            "serve",
            "--bundle",
            "policies/reference",
            "--facts",
            "policies/reference/facts.yaml",
            "--listen",
            "127.0.0.1:0",
            "--http",
            "127.0.0.1:0",
            "--store",
            &store,
            "--keys",
            &keys,
            "--approvers",
            &approvers,
        ];
        let ran = run(args);
        assert_ne!(ran.code, 0);
        assert!(!Path::new(&store).exists(), "nothing was made");
        ran.stderr
    };
    let said = serve("schema: placet.approvers/v1\napprovers:\n  - nam: duty\n");
    assert!(said.contains("approvers.yaml:3:5"), "{said}");
    assert!(said.contains("did you mean `name`?"), "{said}");
    let said = serve(
        "schema: placet.approvers/v1\napprovers:\n  - name: duty\n    keys: [{kty: OKP}]\n    \
         freeze: {}\n",
    );
    assert!(said.contains("approvers.yaml:4:") && said.contains("is no key"), "{said}");
}
