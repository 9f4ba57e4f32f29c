//! The key and the decision that the vectors and the tests share.

use std::collections::BTreeMap;
use std::path::PathBuf;

use placet_core::{
    AccountKind, AccountPath, Charge, Decision, Digest, Effect, Grant, Id, IsolationLevel, KeySet,
    Obligation, PriorityClass, ReservationGrant, SigningKey, SubjectKind, Unit, Verifier,
};

/// Who issues the sample.
pub(crate) const ISSUER: &str = "https://placet.example";
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

/// The root of the workspace.
pub(crate) fn workspace() -> PathBuf {
    let root = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."));
    root.canonicalize().expect("the workspace is where this crate was built")
}

/// A file of `tests/vectors`.
pub(crate) fn vector_path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/vectors").join(name)
}
