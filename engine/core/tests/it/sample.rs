//! The key and the decision that the vectors and the tests share.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::path::PathBuf;

use placet_core::merkle::{self, ConsistencyProof, InclusionProof};
use placet_core::tile::{TileKind, TilePath, write_entries, write_hashes};
use placet_core::{
    AccountKind, AccountPath, Charge, Checkpoint, Decision, Digest, Effect, Event, Grant, Id,
    IsolationLevel, KeySet, Leaf, Obligation, PriorityClass, Receipt, ReservationGrant, SigningKey,
    SubjectKind, Unit, Verifier, Witness, canonical_json, sign_decision,
};

/// Who issues the sample.
pub(crate) const ISSUER: &str = "https://placet.example";
/// Name of the sample's log.
pub(crate) const ORIGIN: &str = "log.example.com/placet";
/// 2026-11-01T00:00:00Z.
pub(crate) const NOW: u64 = 1_793_491_200;

/// Private key of RFC 8037 appendix A.1, in the PKCS#8 form of RFC 8410 section 7.
pub(crate) const KEY_HEX: &str = "302e020100300506032b657004220420\
    9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60";

pub(crate) fn bytes(hex: &str) -> Vec<u8> {
    let digits = hex.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).expect("ASCII"));
    digits.map(|pair| u8::from_str_radix(pair, 16).expect("two hexadecimal digits")).collect()
}

pub(crate) fn key() -> SigningKey {
    SigningKey::from_pkcs8(&bytes(KEY_HEX)).expect("RFC 8037's key is a key")
}

pub(crate) fn verifier() -> Verifier {
    Verifier::new(KeySet::new([key().verifying_key().clone()]).expect("one key"))
}

pub(crate) fn id(text: &str) -> Id {
    Id::new(text).expect("an id")
}

fn charge(account: &str, amount: u64, limit: u64, kind: AccountKind, unit: Unit) -> Charge {
    let account = AccountPath::new(account).expect("an account path");
    Charge { account, amount, kind, limit, unit }
}

/// A permit: 8 whole H100 for an hour.
pub(crate) fn decision() -> Decision {
    let partition = BTreeMap::from([("tenant".to_owned(), "acme".to_owned())]);
    Decision {
        aud: vec!["provisioner".to_owned(), "scheduler".to_owned()],
        bundle_digest: Digest::of(b"bundle"),
        effect: Effect::Permit,
        evictions: Vec::new(),
        evaluation_digest: Digest::of(b"evaluation"),
        extends: None,
        gang: None,
        lease_id: None,
        exp: NOW + 300,
        facts_digest: Digest::of(b"facts"),
        iat: NOW,
        input_digest: Some(Digest::of(b"input")),
        iss: ISSUER.to_owned(),
        jti: id("d-1"),
        kind: SubjectKind::Lease,
        obligations: vec![Obligation { id: id("network.partition"), params: partition }],
        placet: 1,
        preemption: None,
        priority_class: PriorityClass::ExternalCommercial,
        reasons: vec![],
        request_digest: Digest::of(b"request"),
        request_id: id("r-1"),
        reservation: Some(ReservationGrant {
            charges: vec![
                charge("cluster/c-042/gpu/H100", 8_000, 56_000, AccountKind::Level, Unit::MilliGpu),
                charge(
                    "tenant/acme/gpu-seconds/2026-11",
                    28_800,
                    1_000_000,
                    AccountKind::Budget,
                    Unit::GpuSecond,
                ),
            ],
            confirm_by: NOW + 300,
            end: NOW + 3_600,
            epoch: 1,
            id: id("v-1"),
            start: NOW,
        }),
        sub: "lease/d-1".to_owned(),
        tenant_id: id("acme"),
        terms: None,
        waivers: vec![],
        warnings: vec![],
        workload: Grant {
            cluster_id: id("c-042"),
            fabric_gbps: 400,
            gpu_count: 8,
            gpu_milli: 1_000,
            gpu_model: id("H100"),
            isolation_level: IsolationLevel::Passthrough,
        },
    }
}

/// A witness and its key.
pub(crate) struct Sampled {
    pub(crate) name: &'static str,
    pub(crate) key_hex: &'static str,
    pub(crate) key: SigningKey,
}

impl Sampled {
    pub(crate) fn witness(&self) -> Witness {
        Witness::new(self.name, self.key.verifying_key().clone()).expect("a name")
    }
}

/// Two witnesses, with the private keys of RFC 8032 section 7.1, tests 2 and 3.
pub(crate) fn witnesses() -> [Sampled; 2] {
    let keys = [
        (
            "witness.example.com/w1",
            "302e020100300506032b6570042204204ccd089b28ff96da9db6c346ec114e0f\
             5b8a319f35aba624da8cf6ed4fb8a6fb",
        ),
        (
            "witness.example.org/w2",
            "302e020100300506032b657004220420c5aa8df43f9f837bedb7442f31dcb7b1\
             66d38535076f094b85ce3a2e0b4458f7",
        ),
    ];
    keys.map(|(name, key_hex)| {
        let key = SigningKey::from_pkcs8(&bytes(key_hex)).expect("RFC 8032's key is a key");
        Sampled { name, key_hex, key }
    })
}

/// The first leaf of the sample's log.
pub(crate) fn genesis() -> Vec<u8> {
    let event = Event::Genesis { origin: ORIGIN.to_owned(), store: "0".repeat(32) };
    canonical_json(&Leaf { event, time: NOW, v: 1 }).expect("canonical")
}

/// The second one, with the token of [`decision`].
pub(crate) fn decided() -> Vec<u8> {
    let token = sign_decision(&key(), &decision()).expect("signs");
    let event = Event::Decision { caller: id("scheduler-1"), token };
    canonical_json(&Leaf { event, time: NOW, v: 1 }).expect("canonical")
}

/// A log in memory.
pub(crate) struct Log {
    pub(crate) leaves: Vec<Vec<u8>>,
    pub(crate) row: Vec<Digest>,
}

impl Log {
    pub(crate) fn new(leaves: impl IntoIterator<Item = Vec<u8>>) -> Self {
        let mut log = Self { leaves: Vec::new(), row: Vec::new() };
        for (at, leaf) in (0..).zip(leaves) {
            let more = merkle::append(at, merkle::leaf_hash(&leaf), |numbers| log.read(numbers));
            log.row.extend(more.expect("appends"));
            log.leaves.push(leaf);
        }
        log
    }

    /// With so many leaves, each a line of text.
    pub(crate) fn of(size: u64) -> Self {
        Self::new((0..size).map(|at| format!("leaf {at}").into_bytes()))
    }

    pub(crate) fn read(&self, numbers: &[u64]) -> Result<Vec<Digest>, Infallible> {
        let at = |number: &u64| self.row[usize::try_from(*number).expect("a small number")];
        Ok(numbers.iter().map(at).collect())
    }

    pub(crate) fn leaf(&self, at: u64) -> &[u8] {
        &self.leaves[usize::try_from(at).expect("a small number")]
    }

    pub(crate) fn root(&self, size: u64) -> Digest {
        merkle::root(size, |numbers| self.read(numbers)).expect("a root")
    }

    pub(crate) fn inclusion(&self, at: u64, size: u64) -> InclusionProof {
        InclusionProof::new(at, size, |numbers| self.read(numbers)).expect("a proof")
    }

    pub(crate) fn consistency(&self, old: u64, new: u64) -> ConsistencyProof {
        ConsistencyProof::new(old, new, |numbers| self.read(numbers)).expect("a proof")
    }

    /// The bytes of a tile, as a server makes them.
    pub(crate) fn tile(&self, path: TilePath) -> Vec<u8> {
        match path.kind() {
            TileKind::Hashes(_) => {
                write_hashes(&self.read(&path.stored()).expect("all of them are there"))
            }
            TileKind::Entries => {
                let leaves: Vec<_> = path.range().map(|at| self.leaf(at)).collect();
                write_entries(&leaves).expect("short leaves")
            }
        }
    }

    /// The signed checkpoint of its first leaves.
    pub(crate) fn note(&self, size: u64) -> String {
        let checkpoint = Checkpoint { origin: ORIGIN.to_owned(), root: self.root(size), size };
        checkpoint.sign(&key()).expect("signs")
    }

    pub(crate) fn receipt(&self, at: u64, size: u64) -> Receipt {
        let leaf = self.leaf(at).to_vec();
        Receipt::new(leaf, at, self.inclusion(at, size), self.note(size)).expect("a receipt")
    }
}

/// The root of the workspace.
pub(crate) fn workspace() -> PathBuf {
    let root = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."));
    root.canonicalize().expect("the workspace is where this crate was built")
}

/// A file of `tests/vectors`.
pub(crate) fn vector_path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/vectors").join(name)
}
