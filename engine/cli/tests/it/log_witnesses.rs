//! Witnesses on the command line: checkpoints are had cosigned, and receipts and logs hold only
//! with enough of them.

use std::fs;
use std::path::Path;

use placet_core::merkle::ConsistencyProof;
use placet_core::{Checkpoint, Digest, SigningKey, Witness, cosign, read_note_verifier_key};
use serde_json::Value;

use crate::running::{Ran, run};
use crate::server::Server;

/// A witness as C2SP tlog-witness describes one, without its HTTP.
struct Cosigner {
    name: &'static str,
    key: SigningKey,
    /// The key of the log, and the checkpoint that it cosigned last.
    log_key: String,
    last: Option<Checkpoint>,
}

/// What it answers: signature lines, or why not.
type Answered = Result<String, (u16, String)>;

impl Cosigner {
    fn new(name: &'static str, log_key: &str) -> Self {
        let key = SigningKey::generate().unwrap();
        Self { name, key, log_key: log_key.trim().to_owned(), last: None }
    }

    fn verifier_key(&self) -> String {
        Witness::new(self.name, self.key.verifying_key().clone()).unwrap().to_string()
    }

    /// Answers `add-checkpoint`.
    fn asked(&mut self, request: &str, time: u64) -> Answered {
        let (proof, note) = request.split_once("\n\n").unwrap();
        let mut lines = proof.lines();
        let old: u64 = lines.next().unwrap().strip_prefix("old ").unwrap().parse().unwrap();
        let (origin, key) = read_note_verifier_key(&self.log_key).unwrap();
        let new =
            Checkpoint::verify(note, &origin, &key).map_err(|_refused| (403, String::new()))?;
        let last = self.last.as_ref().map_or(0, |last| last.size);
        if old != last {
            return Err((409, format!("{last}\n")));
        }
        let hashes = lines.map(|line| {
            use base64::Engine as _;
            let bytes = base64::engine::general_purpose::STANDARD.decode(line).unwrap();
            Digest::from_bytes(bytes.try_into().unwrap())
        });
        let proof = ConsistencyProof { hashes: hashes.collect() };
        match &self.last {
            None => assert!(proof.hashes.is_empty(), "nothing is proved of no leaves"),
            Some(last) => proof
                .verify((last.size, last.root), (new.size, new.root))
                .map_err(|_refused| (422, String::new()))?,
        }
        self.last = Some(new);
        Ok(cosign(note, self.name, &self.key, time).unwrap())
    }
}

/// A folder with a server on it, and what a command is told beside its own arguments.
struct Witnessed {
    folder: tempfile::TempDir,
}

impl Witnessed {
    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).to_str().unwrap().to_owned()
    }

    fn write(&self, name: &str, text: &str) -> String {
        let path = self.path(name);
        fs::write(&path, text).unwrap();
        path
    }

    fn start(&self, witnesses: &[&Cosigner]) -> Server {
        let keys: Vec<String> = witnesses.iter().map(|one| one.verifier_key()).collect();
        let mut more = vec!["--clock", "events", "--checkpoint-every", "1"];
        keys.iter().for_each(|key| more.extend(["--witness", key]));
        Server::start(self.folder.path(), &more)
    }
}

/// The key of the log of a folder, made by a first start.
fn log_key(folder: &Path) -> String {
    assert_eq!(Server::start(folder, &["--clock", "events"]).stop().0, 0);
    let keys = folder.join("keys");
    run(["keys", "log", "--keys", keys.to_str().unwrap()]).stdout
}

fn log(server: &Server, args: &[&str]) -> Ran {
    let url = server.grpc_url();
    run([&["log"], args, &["--server", &url]].concat())
}

fn done(ran: Ran) -> Ran {
    assert_eq!(ran.code, 0, "{ran:?}");
    ran
}

fn json(ran: Ran) -> Value {
    serde_json::from_str(&done(ran).stdout).unwrap()
}

#[test]
fn a_log_is_witnessed_and_proved_to_be() {
    let own = Witnessed { folder: tempfile::tempdir().unwrap() };
    let key = log_key(own.folder.path());
    let mut w1 = Cosigner::new("witness.example.com/w1", &key);
    let mut w2 = Cosigner::new("witness.example.org/w2", &key);
    let server = own.start(&[&w1, &w2]);
    let (request, answer) = (own.path("request"), own.path("answer"));
    let ask = |old: u64| {
        let old = old.to_string();
        done(log(&server, &["checkpoint", "--old", &old, "--output", &request]));
        fs::read_to_string(&request).unwrap()
    };
    fs::write(&answer, w1.asked(&ask(0), 1_800_000_000).unwrap_or_default()).unwrap();
    let first = w1.last.clone().unwrap().size;
    let early = log(&server, &["cosign", &request, &answer]);
    assert_eq!(early.code, 1, "{early:?}");
    assert!(early.stderr.contains("was cosigned by `witness.example.com/w1`"), "{early:?}");
    let now = placet_server::Clock::now();
    w1.last = None;
    own.write("answer", &w1.asked(&ask(0), now).unwrap());
    let told = done(log(&server, &["cosign", &request, &answer]));
    let line = format!("{}, added\n", placet_core::utc(now));
    assert_eq!(told.stdout, format!("witness.example.com/w1 at {line}"));
    let again = done(log(&server, &["cosign", &request, &answer]));
    assert!(again.stdout.ends_with(", there already\n"), "{again:?}");

    let day = ["admit", "policies/requests/day.jsonl", "--server", &server.grpc_url()];
    done(run(day));
    let listed = log(&server, &["list", "--kind", "decision", "--most", "1", "--format", "json"]);
    let id = json(listed)["decision_id"].as_str().unwrap().to_owned();
    // Once a checkpoint reaches the last leaf, there is no other one until something happens.
    let last = json(log(&server, &["list", "--newest-first", "--most", "1", "--format", "json"]));
    done(log(&server, &["prove", &last["position"].to_string(), "--wait"]));
    // It reaches the decision; the one that was witnessed does not.
    done(log(&server, &["prove", &id, "--output", &own.path("plain.txt")]));
    let early = log(&server, &["prove", &id, "--witnesses", "1"]);
    assert!(early.stderr.contains("is of 3 leaves"), "{early:?}");
    // One that is asked from where it is not says where it is.
    assert_eq!(w2.asked(&ask(first), now), Err((409, "0\n".to_owned())));
    let elsewhere = log(&server, &["cosign", &request, &own.write("size", "0\n")]);
    assert!(elsewhere.code == 1 && elsewhere.stderr.contains("--old 0"), "{elsewhere:?}");
    let answers = [w1.asked(&ask(first), now).unwrap(), w2.asked(&ask(0), now).unwrap()];
    let [a1, a2] = [own.write("a1", &answers[0]), own.write("a2", answers[1].trim_end())];
    let told = json(log(&server, &["cosign", &request, &a1, &a2, "--format", "json"]));
    assert_eq!(told["cosignatures"].as_array().unwrap().len(), 2, "{told}");
    let receipt = own.path("receipt.txt");
    done(log(&server, &["prove", &id, "--witnesses", "2", "--wait", "--output", &receipt]));
    let cosigned = done(log(&server, &["checkpoint", "--witnesses", "2"])).stdout;
    let cosigned = own.write("cosigned", &cosigned);
    let url = server.grpc_url();
    done(run(["admit", "policies/requests/lease-permitted.json", "--server", &url]));
    assert_eq!(server.stop().0, 0);
    holds_with_enough_of_them(&own, &key, [&w1, &w2], &cosigned);
}

/// The same files, checked when the server is gone.
fn holds_with_enough_of_them(own: &Witnessed, key: &str, known: [&Cosigner; 2], cosigned: &str) {
    let keys = own.path("keys");
    let jwks = own.write("jwks.json", &run(["keys", "jwks", "--keys", &keys]).stdout);
    let [k1, k2] = known.map(Cosigner::verifier_key);
    let stranger = Cosigner::new("witness.example.net/w3", key).verifier_key();
    let (store, key) = (own.path("placet.db"), own.write("log.key", key));
    let verify = |receipt: &str, more: &[&str]| {
        let receipt = own.path(receipt);
        let args = ["verify", "--receipt", &receipt, "--jwks", &jwks, "--log-key", &key];
        run([&args, more].concat())
    };
    let both = ["--witness", &k1, "--witness", &k2];
    let told = json(verify("receipt.txt", &[&both[..], &["--format", "json"]].concat()));
    let names: Vec<_> = told["cosignatures"].as_array().unwrap().iter().collect();
    assert_eq!(names.len(), 2, "{told}");
    assert_eq!(names[1]["witness"], "witness.example.org/w2");
    let card = done(verify("receipt.txt", &both));
    assert!(card.stdout.contains(" cosigned  witness.example.com/w1 at 20"), "{card:?}");
    let three = ["--witness", &k1, "--witness", &k2, "--witness", &stranger];
    done(verify("receipt.txt", &[&three[..], &["--quorum", "2"]].concat()));
    let missing = verify("receipt.txt", &three);
    assert_eq!((missing.code, missing.stdout.as_str()), (1, ""));
    for says in [
        "is cosigned by 2 of the witnesses, not by 3",
        "signed by: witness.example.com/w1, witness.example.org/w2\n",
        "not by: witness.example.net/w3\n",
        "hint: ",
    ] {
        assert!(missing.stderr.contains(says), "{says}: {}", missing.stderr);
    }
    assert_eq!(verify("plain.txt", &both).code, 1, "the newest one was not witnessed then");
    done(verify("plain.txt", &[]));

    let log = |more: &[&str]| {
        let args = ["log", "verify", "--store", &store, "--jwks", &jwks, "--log-key", &key];
        run([&args, more].concat())
    };
    done(log(&[]));
    let told = done(log(&[&both[..], &["--seen", cosigned]].concat()));
    assert!(told.stdout.contains(" of the leaves\n"), "{told:?}");
    let told = json(log(&[&both[..], &["--seen", cosigned, "--format", "json"]].concat()));
    let size = fs::read_to_string(cosigned).unwrap().lines().nth(1).unwrap().to_owned();
    assert_eq!(told["cosigned"].to_string(), size, "{told}");
    assert!(told["cosigned"].as_u64() < told["size"].as_u64(), "{told}");
    let missing = log(&three);
    assert_eq!(missing.code, 1);
    assert!(missing.stderr.contains("give one that has them with --seen"), "{missing:?}");
    for (bad, says) in [
        (vec!["--witness", "w1"], "`--witness` `w1` is not the verifier key of a witness"),
        (vec!["--witness", &k1, "--witness", &k1], "has the name or the key of another"),
        (
            vec!["--witness", &k1, "--quorum", "2"],
            "`--quorum` is 2, more than the witnesses that are given: 1",
        ),
        (vec!["--quorum", "1"], "--witness"),
    ] {
        for ran in [log(&bad), verify("receipt.txt", &bad)] {
            assert_eq!((ran.code, ran.stdout.as_str()), (64, ""), "{bad:?}: {ran:?}");
            assert!(ran.stderr.contains(says), "{says}: {}", ran.stderr);
        }
    }
    let of_token = run(["verify", "eyJh.eyJi.c2ln", "--witness", &k1]);
    assert_eq!(of_token.code, 64, "{of_token:?}");
}

#[test]
fn a_server_says_what_is_wrong_with_its_witnesses() {
    let folder = tempfile::tempdir().unwrap();
    let key = log_key(folder.path());
    let good = Cosigner::new("witness.example.com/w1", &key).verifier_key();
    let serve = |more: &[&str]| {
        let (store, keys) = (folder.path().join("placet.db"), folder.path().join("keys"));
        let mut args = vec!["serve", "--bundle", "policies/reference", "--store"];
        args.extend([store.to_str().unwrap(), "--keys", keys.to_str().unwrap()]);
        args.extend(["--facts", "policies/reference/facts.yaml", "--listen", "127.0.0.1:0"]);
        args.extend(["--http", "127.0.0.1:0"].iter().chain(more));
        run(args)
    };
    let log_key = key.trim();
    for (more, says) in [
        (vec!["--witness", "w1"], "`--witness` `w1` is not the verifier key of a witness"),
        (vec!["--witness", log_key], "it is the key of a log (type 1)"),
        (vec!["--witness", &good, "--witness", &good], "has the name or the key of another"),
        (vec!["--witness", &good, "--checkpoint-every", "0"], "no checkpoints are made"),
    ] {
        let ran = serve(&more);
        assert_eq!((ran.code, ran.stdout.as_str()), (64, ""), "{more:?}: {ran:?}");
        assert!(ran.stderr.contains(says) && ran.stderr.contains("hint: "), "{}", ran.stderr);
    }
    let own = fs::read(folder.path().join("keys/checkpoint-key.pkcs8")).unwrap();
    let own = SigningKey::from_pkcs8(&own).unwrap();
    let own = Witness::new("own", own.verifying_key().clone()).unwrap().to_string();
    let ran = serve(&["--witness", &own]);
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(ran.stderr.contains("the witness `own` is one of this server's own"), "{ran:?}");
}
