//! Placet's vocabulary, signed bytes and proofs.
//!
//! Pure: no I/O, no clock, no threads. An auditor or a PEP links this crate alone to verify what
//! Placet issued.
#![forbid(unsafe_code)]
#![deny(clippy::indexing_slicing, clippy::wildcard_enum_match_arm)]

mod approval;
mod bundle_signature;
mod checkpoint;
mod combine;
mod cosignature;
mod decision;
mod digest;
mod event;
mod eviction;
mod freeze;
mod id;
mod jwks;
mod jws;
mod log_check;
pub mod merkle;
mod note;
mod receipt;
mod request;
mod resource;
mod signature;
mod snapshot;
pub mod tile;
mod token;
mod utc;
mod verdict;
mod waiver;

pub use approval::{
    APPROVAL_VERSION, Approval, ApprovalError, MAX_APPROVAL_BYTES, MAX_APPROVAL_REASON_BYTES,
    MAX_SCOPE_NAMES, approval_signer, read_approval, sign_approval, verify_approval,
    verify_approval_issued,
};
pub use bundle_signature::{
    BUNDLE_TYP, BundleClaims, MAX_BUNDLE_SIGNATURE_BYTES, SignatureError, bundle_signer,
    sign_bundle, verify_bundle,
};
pub use checkpoint::{
    Checkpoint, CheckpointError, MAX_CHECKPOINT_BYTES, MAX_ORIGIN_BYTES, note_verifier_key,
    read_note_verifier_key,
};
pub use combine::{combine, combine_waived};
pub use cosignature::{
    Cosignature, CosignatureError, MAX_WITNESSES, Witness, WitnessError, Witnesses, cosign,
};
pub use decision::{
    DECISION_TYP, DECISION_VERSION, Decision, Eviction, Grant, ReservationGrant, ReservationState,
};
pub use digest::{CanonicalError, Digest, DigestError, canonical_json};
pub use event::{Event, ExpiryCause, LEAF_VERSION, Leaf, MAX_LEAF_BYTES, QuotaNode, Refund};
pub use eviction::{EVICTION_TYP, EvictionOrder, MAX_EVICTION_BYTES, sign_eviction};
pub use freeze::{
    FREEZE_FRESH_SECONDS, FREEZE_TYP, FreezeClaims, FreezeScope, THAW_TYP, ThawClaims,
};
pub use id::{
    AccountPath, Code, Id, MAX_ACCOUNT_PATH_BYTES, MAX_ACCOUNT_SEGMENTS, MAX_ID_BYTES, NameError,
};
pub use jwks::{
    JwksError, KeySet, KeyValidity, MAX_JWKS_BYTES, MAX_KEYS, MAX_REASON_CHARS, Revocation,
};
pub use log_check::{CheckedLeaf, LeafChecker, LeafError, LogWalk, WalkError, Walked};
pub use receipt::{Logged, MAX_RECEIPT_BYTES, Receipt, ReceiptError};
pub use request::{
    AdmissionRequest, Extends, GangPlace, IsolationLevel, MAX_DURATION_SECONDS, MAX_FABRIC_GBPS,
    MAX_GANG, MAX_GPU_COUNT, MAX_GPU_MODELS, MAX_GROUPS, MAX_LEAD_SECONDS, MAX_PRINCIPAL_BYTES,
    MAX_REFERENCES, MAX_WAIVERS, MILLI_PER_GPU, ModelUse, Principal, PriorityClass, StartError,
    Subject, SubjectKind, Workload,
};
pub use resource::{AccountKind, Charge, Claim, MAX_AMOUNT, Unit};
pub use signature::{KeyError, KeyId, PrivateKeyDer, SigningKey, VerifyingKey};
pub use snapshot::{
    MAX_SNAPSHOT_CLAIMS_BYTES, SNAPSHOT_TYP, SnapshotClaims, SnapshotClaimsError,
    read_snapshot_claims, sign_snapshot, verify_snapshot,
};
pub use token::{
    CLOCK_LEEWAY_SECONDS, Expect, MAX_TOKEN_BYTES, SignError, Verifier, VerifyError, sign_decision,
};
pub use utc::utc;
pub use verdict::{
    Cost, Counterfactual, Effect, Level, Mode, Obligation, Outcome, PolicyClaim, PolicyVerdict,
    PreemptionRule, Reason, SlaTerms, Verdict, Warning,
};
pub use waiver::{
    Lift, MAX_LIFTS, MAX_WAIVER_SECONDS, MAX_WAIVER_USES, WAIVER_TYP, Waived, WaiverClaims,
    WaiverScope,
};
