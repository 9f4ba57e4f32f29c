//! A sequencer on a real store in a directory of its own, and requests for it.

use std::path::PathBuf;
use std::sync::Arc;

use placet_core::{
    AccountKind, AccountPath, AdmissionRequest, Claim, Digest, Effect, Id, IsolationLevel, Outcome,
    PolicyClaim, PriorityClass, Reason, SigningKey, Subject, Unit, Workload,
};
use placet_server::Clock;
use placet_server::sequencer::{
    Activation, Candidate, Decided, OpenError, Options, Personal, Proposal, SequencerError,
    SequencerHandle, Settle, SettleKind, Settled, Target,
};
use placet_server::signer::Signer;
use placet_server::store::{Faults, StoreOptions};

/// GPUs of the tenant, in thousandths.
pub(crate) const LIMIT: u64 = 40_000;
/// GPU-seconds of the tenant.
pub(crate) const BUDGET: u64 = 1_000_000;
pub(crate) const ISSUER: &str = "placet.test";

pub(crate) fn id(text: &str) -> Id {
    Id::new(text).unwrap()
}

pub(crate) fn path(text: &str) -> AccountPath {
    AccountPath::new(text).unwrap()
}

pub(crate) fn activation() -> Activation {
    let (bundle, facts) = (Digest::of(b"bundle"), Digest::of(b"facts"));
    Activation {
        bundle: (bundle, "1".to_owned()),
        facts: (facts, "1".to_owned()),
        quotas: Arc::default(),
    }
}

pub(crate) fn options() -> Options {
    Options {
        audience: vec!["scheduler".to_owned()],
        clock: Clock::Events,
        confirm_within_seconds: 300,
        issuer: ISSUER.to_owned(),
    }
}

/// Runs a future to its end on a small runtime of its own.
pub(crate) fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

/// A directory with a store and a key that survive the sequencer.
pub(crate) struct World {
    directory: tempfile::TempDir,
    pub(crate) signer: Signer,
    /// Signs waivers and freezes.
    pub(crate) approver: SigningKey,
    pub(crate) faults: Faults,
}

impl World {
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let signer = Signer::new(SigningKey::generate().unwrap());
        let approver = SigningKey::generate().unwrap();
        Self { directory, signer, approver, faults: Faults::default() }
    }

    pub(crate) fn store(&self) -> PathBuf {
        self.directory.path().join("placet.db")
    }

    pub(crate) fn start(&self) -> SequencerHandle {
        self.start_with(options(), None).unwrap()
    }

    pub(crate) fn start_active(&self, activation: Activation) -> SequencerHandle {
        let store = StoreOptions { faults: self.faults.clone(), ..StoreOptions::default() };
        let signer = self.signer.clone();
        SequencerHandle::start_with(&self.store(), options(), store, signer, activation).unwrap()
    }

    pub(crate) fn start_with(
        &self,
        options: Options,
        max_pages: Option<u32>,
    ) -> Result<SequencerHandle, OpenError> {
        let store =
            StoreOptions { max_pages, faults: self.faults.clone(), ..StoreOptions::default() };
        let signer = self.signer.clone();
        SequencerHandle::start_with(&self.store(), options, store, signer, activation())
    }
}

fn claim(account: &str, amount: u64) -> PolicyClaim {
    let claim = Claim { account: path(account), amount, code: None, limit: None };
    PolicyClaim { claim, policy: id("quota") }
}

/// A lease of whole GPUs that the policies permit, claiming the tenant's GPUs and its GPU-seconds.
pub(crate) fn proposal(request_id: &str, gpus: u32, seconds: u64, time: u64) -> Box<Proposal> {
    let workload = Workload {
        checkpoint_jurisdictions: Vec::new(),
        cluster_id: id("c-1"),
        dataset_ids: Vec::new(),
        duration_seconds: seconds,
        egress_bytes: 0,
        egress_jurisdictions: Vec::new(),
        fabric_gbps: 0,
        gpu_count: gpus,
        gpu_milli: 1_000,
        gpu_models: vec![id("H100")],
        isolation_level: IsolationLevel::Dedicated,
        lease_id: None,
        may_preempt: false,
        model_ids: Vec::new(),
        model_use: None,
        storage_io_bytes: 0,
        start: None,
    };
    let (milli, gpu_seconds) = (workload.milli_gpus(), workload.gpu_seconds());
    let request = AdmissionRequest {
        extends: None,
        gang: None,
        principal: None,
        priority_class: PriorityClass::InternalResearch,
        request_id: id(request_id),
        subject: Subject::Lease(workload),
        tenant_id: id("acme"),
        waivers: Vec::new(),
    };
    let outcome = Outcome {
        claims: vec![
            claim("tenant/acme/gpu", milli),
            claim("tenant/acme/gpu-seconds", gpu_seconds),
        ],
        effect: Effect::Permit,
        obligations: Vec::new(),
        preemption: None,
        terms: None,
        reasons: Vec::new(),
        waived: Vec::new(),
        warnings: Vec::new(),
    };
    let limits = vec![
        Some((AccountKind::Level, Unit::MilliGpu, LIMIT)),
        Some((AccountKind::Budget, Unit::GpuSecond, BUDGET)),
    ];
    let request_digest = Digest::of(&placet_core::canonical_json(&request).unwrap());
    Box::new(Proposal {
        bundle: activation().bundle.0,
        caller: id("scheduler"),
        candidates: vec![Candidate { gpu_model: id("H100"), limits, outcome }],
        evaluation: br#"{"evaluation":true}"#.to_vec(),
        facts: activation().facts.0,
        input: Some(br#"{"input":true}"#.to_vec()),
        personal: vec![Personal {
            path: "principal.subject".to_owned(),
            salt: vec![7; 32],
            value: "ada@example.org".to_owned(),
        }],
        rejected: Vec::<Reason>::new(),
        request,
        request_digest,
        time,
        waivers: Vec::new(),
        approvers: Digest::of(b""),
    })
}

/// The same, booked for a start.
pub(crate) fn starting(mut proposal: Box<Proposal>, start: u64) -> Box<Proposal> {
    let (Subject::Lease(workload) | Subject::Job(workload)) = &mut proposal.request.subject;
    workload.start = Some(start);
    proposal.request_digest = Digest::of(&placet_core::canonical_json(&proposal.request).unwrap());
    proposal
}

pub(crate) async fn decide(
    sequencer: &SequencerHandle,
    proposal: Box<Proposal>,
) -> Result<Decided, SequencerError> {
    sequencer.propose(proposal).await?.await
}

pub(crate) fn settle(kind: SettleKind, request_id: &str, time: u64) -> Settle {
    let target = Target::ByRequest(id(request_id));
    let (caller, tenant) = (id("scheduler"), id("acme"));
    Settle { kind, caller, tenant, target, epoch: 1, time }
}

pub(crate) async fn settled(
    sequencer: &SequencerHandle,
    settle: Settle,
) -> Result<Settled, SequencerError> {
    sequencer.settle(settle).await?.await
}
