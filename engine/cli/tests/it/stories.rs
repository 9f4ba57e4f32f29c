//! Whole stories, from end to end: each starts a server of its own, asks it as schedulers and
//! provisioners do, looks at what operators are shown, and has all of it verified when the server
//! is gone.
//!
//! Time is that of the events: a story says what the hour is, and nothing waits. It begins on
//! Saturday, 2026-11-21 at 12:00:00 UTC.

use std::collections::BTreeSet;

use placet_core::{Decision, Effect, Obligation, Reason, ReservationGrant};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::running::{Ran, run, run_with};
use crate::server::{Server, claims, root};

mod borrowed;
mod budget;
mod burst;
mod gang;
mod inside;
mod residency;
mod trough;
mod weights;

/// 2026-11-21T12:00:00Z, when every story begins, in seconds since 1970.
const BEGIN: u64 = 1_795_262_400;
/// Seconds.
const HOUR: u64 = 3_600;
const DAY: u64 = 24 * HOUR;

/// What somebody asks for.
#[derive(Debug, Clone)]
struct Asked {
    request: Value,
    kind: &'static str,
}

/// A lease: one H100 of de-fra-1 for an hour, PARTITIONED, sold to a tenant.
fn lease(name: &str, tenant: &str) -> Asked {
    asked("lease", name, tenant)
}

/// A job, by itself the same.
fn job(name: &str, tenant: &str) -> Asked {
    asked("job", name, tenant)
}

fn asked(kind: &'static str, name: &str, tenant: &str) -> Asked {
    let what = json!({
        "cluster_id": "de-fra-1", "gpu_count": 1, "duration_seconds": HOUR,
        "isolation_level": "PARTITIONED", "gpu_models": ["H100"],
    });
    let request = json!({
        "request_id": name, "tenant_id": tenant, "priority_class": "EXTERNAL_COMMERCIAL",
        kind: what,
    });
    Asked { request, kind }
}

impl Asked {
    fn with(mut self, field: &str, value: impl Into<Value>) -> Self {
        self.request[self.kind][field] = value.into();
        self
    }

    /// The house asks for itself: nothing is sold.
    fn own(mut self) -> Self {
        self.request["priority_class"] = "INTERNAL_RESEARCH".into();
        self
    }

    fn on(self, cluster: &str, gpu_model: &str) -> Self {
        self.with("cluster_id", cluster).with("gpu_models", json!([gpu_model]))
    }

    fn gpus(self, count: u32) -> Self {
        self.with("gpu_count", count)
    }

    fn seconds(self, length: u64) -> Self {
        self.with("duration_seconds", length)
    }

    fn isolated(self, level: &str) -> Self {
        self.with("isolation_level", level)
    }

    /// Booked ahead, to start so many seconds after the story's beginning.
    fn starting(self, after: u64) -> Self {
        self.with("start", BEGIN + after)
    }

    /// Inside a lease that was admitted.
    fn inside(self, lease: &Decision) -> Self {
        self.with("lease_id", held(lease).id.as_str())
    }
}

/// What a permit holds.
fn held(permit: &Decision) -> &ReservationGrant {
    permit.reservation.as_ref().expect("a permit holds something")
}

/// What a permit takes of an account, and under which limit.
fn charged(permit: &Decision, account: &str) -> (u64, u64) {
    let charge = held(permit).charges.iter().find(|charge| charge.account.as_str() == account);
    let charge = charge.unwrap_or_else(|| panic!("nothing of {account}: {permit:?}"));
    (charge.amount, charge.limit)
}

/// The duty of this name that a decision lays on the provisioner.
fn duty<'a>(decision: &'a Decision, id: &str) -> &'a Obligation {
    let duty = decision.obligations.iter().find(|duty| duty.id.as_str() == id);
    duty.unwrap_or_else(|| panic!("no duty {id}: {decision:?}"))
}

/// A value that a duty is told with.
fn told<'a>(duty: &'a Obligation, param: &str) -> &'a str {
    let value = duty.params.iter().find(|(name, _)| *name == param);
    value.map(|(_, value)| value.as_ref()).unwrap_or_else(|| panic!("no {param}: {duty:?}"))
}

/// The reason with this code.
fn reason<'a>(denial: &'a Decision, code: &str) -> &'a Reason {
    let reason = denial.reasons.iter().find(|reason| reason.code.as_str() == code);
    reason.unwrap_or_else(|| panic!("not for {code}: {denial:?}"))
}

/// The hint beside a reason.
fn hint<'a>(denial: &'a Decision, code: &str) -> &'a str {
    reason(denial, code).hint.as_deref().expect("it has a hint")
}

/// What would have been admitted instead, as JSON without what is absent.
fn instead(denial: &Decision, code: &str) -> Value {
    let instead = reason(denial, code).counterfactual.as_ref().expect("something would be");
    serde_json::to_value(instead).expect("it is JSON")
}

/// The text of a file of facts with some of it replaced.
fn replaced(mut text: String, changes: &[(&str, &str)]) -> String {
    for (from, to) in changes {
        assert!(text.contains(from), "the facts do not say: {from}");
        text = text.replace(from, to);
    }
    text
}

/// A story under way: its server, its store, and the hour.
struct Story {
    folder: TempDir,
    server: Option<Server>,
    now: u64,
    /// Tokens of all decisions so far.
    tokens: BTreeSet<String>,
}

impl Story {
    /// With the reference policies and facts, some of which are different here.
    fn begin(changes: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let facts = std::fs::read_to_string(root().join("policies/reference/facts.yaml")).unwrap();
        std::fs::write(folder.path().join("facts.yaml"), replaced(facts, changes)).unwrap();
        let mut story = Self { folder, server: None, now: BEGIN, tokens: BTreeSet::new() };
        story.start();
        story
    }

    fn start(&mut self) {
        let arguments = ["--clock", "events", "--watch", "0"];
        self.server = Some(Server::start(self.folder.path(), &arguments));
    }

    fn stop(&mut self) {
        let server = self.server.take().expect("it runs");
        let (code, said) = server.stop();
        assert_eq!(code, 0, "{said}");
    }

    /// The server ends and comes back with what its store has.
    fn restart(&mut self) {
        self.stop();
        self.start();
    }

    /// So many seconds after the story's beginning.
    fn at(&mut self, after: u64) -> &mut Self {
        self.now = BEGIN + after;
        self
    }

    /// The facts change, and an operator makes them active.
    fn facts_become(&mut self, changes: &[(&str, &str)]) {
        let path = self.folder.path().join("facts.yaml");
        let facts = std::fs::read_to_string(&path).unwrap();
        std::fs::write(path, replaced(facts, changes)).unwrap();
        let ran = self.operate(&["facts", "activate"]);
        assert_eq!(ran.code, 0, "{}", ran.stderr);
    }

    fn url(&self) -> String {
        self.server.as_ref().expect("it runs").grpc_url()
    }

    /// A command of an operator to the server.
    fn operate(&self, arguments: &[&str]) -> Ran {
        run([arguments, &["--server", &self.url()]].concat())
    }

    /// What such a command prints.
    fn shown(&self, arguments: &[&str]) -> String {
        let ran = self.operate(arguments);
        assert_eq!(ran.code, 0, "{}", ran.stderr);
        ran.stdout
    }

    /// The same as JSON, one value a line.
    fn rows(&self, arguments: &[&str]) -> Vec<Value> {
        let text = self.shown(&[arguments, &["--format", "json"]].concat());
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// The answer to one event that happens now.
    fn answer(&self, kind: &str, what: &Value) -> Value {
        let event = json!({kind: what, "time": self.now}).to_string();
        let url = self.url();
        let ran = run_with(["admit", "--format", "json", "--server", &url, "-"], &event);
        serde_json::from_str(&ran.stdout).unwrap_or_else(|_| panic!("{}", ran.stderr))
    }

    /// Asks for something; the decision, whatever it is.
    fn ask(&mut self, asked: &Asked) -> Decision {
        let answer = self.answer("admit", &asked.request);
        self.decided(&answer)
    }

    /// The decision in an answer, which is kept to be verified at the end.
    fn decided(&mut self, answer: &Value) -> Decision {
        let token = answer["token"].as_str().unwrap_or_else(|| panic!("no decision: {answer}"));
        let decision = claims(token);
        self.tokens.insert(token.to_owned());
        decision
    }

    /// Asks for something that is admitted.
    fn permit(&mut self, asked: &Asked) -> Decision {
        let decision = self.ask(asked);
        assert_eq!(decision.effect, Effect::Permit, "{:?}", decision.reasons);
        decision
    }

    /// Asks for something that is refused, with exactly these codes.
    fn deny(&mut self, asked: &Asked, codes: &[&str]) -> Decision {
        let decision = self.ask(asked);
        assert_eq!(decision.effect, Effect::Deny, "{:?}", decision.reservation);
        let found: BTreeSet<_> = decision.reasons.iter().map(|one| one.code.as_str()).collect();
        assert_eq!(found, codes.iter().copied().collect(), "{:?}", decision.reasons);
        decision
    }

    /// Asks for something that is admitted, and confirms it: the work starts.
    fn started(&mut self, asked: &Asked) -> Decision {
        let decision = self.permit(asked);
        self.confirm(&decision);
        decision
    }

    /// One step in the life of a reservation.
    fn settle(&self, kind: &str, permit: &Decision) -> Value {
        let (seconds, name) = (self.now - BEGIN, permit.request_id.as_str());
        self.answer(
            kind,
            &json!({
                "request_id": format!("{kind}-{name}-{seconds}"), "tenant_id": permit.tenant_id,
                "reservation": {"admit_request_id": name, "epoch": held(permit).epoch},
            }),
        )
    }

    fn confirm(&self, permit: &Decision) {
        let answer = self.settle("confirm", permit);
        assert_eq!(answer["state"], "ACTIVE", "{answer}");
    }

    /// The code with which a confirmation is refused.
    fn not_confirmed(&self, permit: &Decision) -> String {
        let answer = self.settle("confirm", permit);
        answer["error"]["code"].as_str().unwrap_or_else(|| panic!("{answer}")).to_owned()
    }

    /// Gives back what is held; the GPU-seconds that are refunded.
    fn release(&self, permit: &Decision) -> u64 {
        let answer = self.settle("release", permit);
        assert_eq!(answer["state"], "RELEASED", "{answer}");
        answer["refunded_gpu_seconds"].as_u64().unwrap()
    }

    /// What an account holds now, as an operator is shown it.
    fn used(&self, account: &str) -> u64 {
        let rows = self.rows(&["ledger", "usage", account]);
        let row = rows.iter().find(|row| row["account"] == account);
        row.map_or(0, |row| row["used"].as_u64().unwrap())
    }

    /// The events of a kind in the decision log, as their leaves tell them.
    fn events(&self, kind: &str) -> Vec<Value> {
        let rows = self.rows(&["log", "list", "--kind", kind]);
        let leaf = |row: &Value| serde_json::from_str::<Value>(row["leaf"].as_str().unwrap());
        rows.iter().map(|row| leaf(row).unwrap()["event"].clone()).collect()
    }

    /// The end: the server is gone. What it left is checked with public keys alone, the store and
    /// the log as a whole and each decision by itself; and the books say what accounts hold.
    fn end(mut self, books: &[(&str, u64)]) {
        self.stop();
        let path = |name: &str| self.folder.path().join(name).to_str().unwrap().to_owned();
        let (store, keys) = (path("placet.db"), path("keys"));
        let published = |what: &str, file: &str| {
            let ran = run(["keys", what, "--keys", &keys]);
            assert_eq!(ran.code, 0, "{}", ran.stderr);
            std::fs::write(path(file), ran.stdout).unwrap();
            path(file)
        };
        let (jwks, log_key) = (published("jwks", "jwks.json"), published("log", "log.key"));

        let ledger = verified(&["ledger", "verify", "--store", &store]);
        let log = ["log", "verify", "--store", &store, "--jwks", &jwks, "--log-key", &log_key];
        let log = verified(&log);
        assert_eq!(ledger["root"], log["root"]);
        assert_eq!(log["published"], log["size"], "every leaf is under a signed checkpoint");
        // Every decision that was told is in the log once, and nothing else is.
        assert_eq!(ledger["decisions"], self.tokens.len());
        assert_eq!(log["decisions"], self.tokens.len());
        let evictions = self.tokens.iter().map(|token| claims(token).evictions.len());
        assert_eq!(log["orders"], evictions.sum::<usize>());
        let accounts = ledger["accounts"].as_array().unwrap().iter();
        let accounts: Vec<_> = accounts
            .map(|row| (row["account"].as_str().unwrap(), row["used"].as_u64().unwrap()))
            .collect();
        assert_eq!(accounts, books);
        for token in &self.tokens {
            let at = claims(token).iat.to_string();
            let read = verified(&["verify", token, "--jwks", &jwks, "--at", &at]);
            assert_eq!(read["jti"], claims(token).jti.as_str());
        }
    }
}

/// What a check says that finds all well.
fn verified(arguments: &[&str]) -> Value {
    let ran = run([arguments, &["--format", "json"]].concat());
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    serde_json::from_str(&ran.stdout).unwrap()
}
