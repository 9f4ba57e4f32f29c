//! The little world of a run: who asks, what is limited, and the real store in a directory of its
//! own.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use placet_core::{AccountKind, AccountPath, Code, Digest, Id, QuotaNode, SigningKey, Unit};
use placet_server::Clock;
use placet_server::sequencer::{Activation, OpenError, Options, Stepper};
use placet_server::signer::Signer;
use placet_server::store::{Faults, StoreOptions};

pub(super) const ISSUER: &str = "placet.simulation";
pub(super) const AUDIENCE: [&str; 2] = ["scheduler", "provisioner"];
pub(super) const TENANTS: [&str; 3] = ["acme", "globex", "initech"];
pub(super) const CALLERS: [&str; 2] = ["scheduler-a", "scheduler-b"];
pub(super) const MODELS: [&str; 3] = ["H100", "A100", "L40"];
/// The cohort of the tenants' GPUs.
const POOL: &str = "pool/gpu";
/// The largest limit.
const MOST: u64 = (1 << 53) - 1;
/// Revisions of bundle and facts that there are.
pub(super) const REVISIONS: u64 = 3;
/// Seconds of the window of a budget: short, so that budgets run out and come back all the time.
pub(super) const WINDOW: u64 = 150;
/// When a run begins, in seconds since 1970-01-01 UTC.
pub(super) const BEGIN: u64 = 1_000;
/// PKCS#8 (RFC 8410 section 7) up to the 32 bytes of the key, here of the digest of a word: the
/// same signatures in every run.
const KEY_PREFIX: [u8; 16] = [48, 46, 2, 1, 0, 48, 5, 6, 3, 43, 101, 112, 4, 34, 4, 32];
/// Leaves behind a snapshot of the ledger when the next one is made: few, so that every restart
/// begins with one.
const SNAPSHOT_EVERY: u64 = 7;
/// Where files stay in memory, on Linux: a sync that reaches a disk would take most of a run's
/// time, and nothing in a run cuts the power.
const MEMORY: &str = "/dev/shm";

pub(super) fn id(text: &str) -> Id {
    Id::new(text).expect("the names of the world follow the rule of names")
}

pub(super) fn code(text: &'static str) -> Code {
    Code::known(text)
}

pub(super) fn path(text: &str) -> AccountPath {
    AccountPath::new(text).expect("the accounts of the world follow the rule of paths")
}

/// An account with what the facts say of it.
#[derive(Debug, Clone)]
pub(super) struct Account {
    pub(super) path: AccountPath,
    pub(super) kind: AccountKind,
    pub(super) unit: Unit,
    pub(super) limit: u64,
}

/// The accounts that concern a lease, as a revision of the facts (from 0) has them.
pub(super) fn accounts(facts: u64, tenant: &str, model: &str, time: u64) -> [Account; 8] {
    use AccountKind::{Budget, Level};
    let account = |text: String, kind, unit, limits: [u64; 3]| {
        let at = usize::try_from(facts).expect("there are three revisions");
        Account { path: path(&text), kind, unit, limit: limits[at] }
    };
    let window = time / WINDOW;
    let own = |of: &str| format!("tenant/{tenant}/{of}");
    let seconds = own(&format!("gpu-seconds/w{window}"));
    let egress = own(&format!("egress/w{window}"));
    // The one account whose meaning changes with the facts.
    let burst = if facts == 1 { Unit::Byte } else { Unit::Count };
    // In a tree the others decide what an account may hold.
    [
        account(format!("cluster/c-1/gpu/{model}"), Level, Unit::MilliGpu, [8_000, 10_000, 5_000]),
        account(own("gpu"), Level, Unit::MilliGpu, [MOST, MOST, 9_000]),
        account(seconds, Budget, Unit::GpuSecond, [300, 200, 500]),
        account(own("gpu-seconds/all"), Budget, Unit::GpuSecond, [2_000, 3_000, 2_500]),
        account("cluster/c-1/fabric-gbps".to_owned(), Level, Unit::Gbps, [20, 30, 12]),
        account("pool/burst".to_owned(), Level, burst, [4, 5, 3]),
        account(egress, Budget, Unit::Byte, [1_000, 700, 1_300]),
        account(POOL.to_owned(), Level, Unit::MilliGpu, [MOST, MOST, 4_000]),
    ]
}

/// The trees of quotas of a revision of the facts: one pool, then a deep one, then none.
fn trees(facts: u64) -> Vec<QuotaNode> {
    let node = |account: &str, cohort: &str, nominal, borrowing_limit, lending_limit| QuotaNode {
        account: path(account),
        borrowing_limit,
        cohort: (!cohort.is_empty()).then(|| path(cohort)),
        lending_limit,
        nominal,
        unit: Unit::MilliGpu,
    };
    match facts {
        0 => vec![
            node(POOL, "", 1_000, None, None),
            node("tenant/acme/gpu", POOL, 4_000, Some(3_000), Some(2_000)),
            node("tenant/globex/gpu", POOL, 3_000, None, None),
            node("tenant/initech/gpu", POOL, 2_000, Some(1_000), Some(0)),
        ],
        1 => vec![
            node("org/gpu", "", 1_000, None, None),
            node(POOL, "org/gpu", 0, Some(2_000), Some(3_000)),
            node("tenant/acme/gpu", POOL, 3_000, None, Some(1_000)),
            node("tenant/globex/gpu", POOL, 4_000, Some(500), None),
            node("tenant/initech/gpu", "org/gpu", 2_000, Some(4_000), Some(1_500)),
        ],
        _ => Vec::new(),
    }
}

/// What is active, by the revisions of bundle and facts, each from 0.
pub(super) type Revisions = (u64, u64);

pub(super) fn activation((bundle, facts): Revisions) -> Activation {
    let named = |what: &str, revision: u64| {
        (Digest::of(format!("{what} {revision}").as_bytes()), revision.to_string())
    };
    Activation {
        bundle: named("bundle", bundle),
        facts: named("facts", facts),
        quotas: trees(facts).into(),
    }
}

/// What stays the same in a run.
#[derive(Debug, Clone)]
pub(super) struct Rules {
    pub(super) clock: Clock,
    pub(super) confirm_within: u64,
    /// Name of the store: 32 hexadecimal digits.
    pub(super) name: String,
}

/// The directory of a run, gone with it.
#[derive(Debug)]
pub(super) struct World {
    directory: PathBuf,
    /// Each kill leaves the file behind as it was, and goes on with a copy.
    generation: u64,
    /// Whether the last kill left a part of the snapshot only, which nobody has looked at yet.
    pub(super) is_torn: bool,
    pub(super) faults: Faults,
    pub(super) rules: Rules,
    signer: Signer,
}

/// The key of a word.
pub(super) fn key_of(word: &[u8]) -> SigningKey {
    let mut der = KEY_PREFIX.to_vec();
    der.extend_from_slice(Digest::of(word).as_bytes());
    SigningKey::from_pkcs8(&der).expect("32 bytes behind the prefix are a key")
}

impl World {
    pub(super) fn new(rules: Rules, faults: Faults) -> Result<Self, String> {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let memory = Path::new(MEMORY);
        let parent = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
        let directory = parent.join(format!("placet-simulation-{}-{number}", std::process::id()));
        fs::create_dir_all(&directory).map_err(|error| format!("{directory:?}: {error}"))?;
        let signer = Signer::new(key_of(b"simulation"));
        Ok(Self { directory, generation: 0, is_torn: false, faults, rules, signer })
    }

    pub(super) fn jwks(&self) -> String {
        self.signer.jwks()
    }

    fn file(&self, ending: &str) -> PathBuf {
        self.directory.join(format!("{}.db{ending}", self.generation))
    }

    pub(super) fn open(
        &self,
        active: Revisions,
        max_pages: Option<u32>,
        now: u64,
    ) -> Result<Stepper, OpenError> {
        let options = Options {
            audience: AUDIENCE.map(str::to_owned).to_vec(),
            clock: self.rules.clock,
            confirm_within_seconds: self.rules.confirm_within,
            issuer: ISSUER.to_owned(),
        };
        let faults = self.faults.clone();
        let snapshot_every = SNAPSHOT_EVERY;
        let store = StoreOptions { max_pages, faults, snapshot_every, ..StoreOptions::default() };
        let (signer, told) = (self.signer.clone(), (&*self.rules.name, now));
        Stepper::open(&self.file(""), options, store, signer, activation(active), told)
    }

    /// Pages of the file, once it is closed.
    pub(super) fn pages(&self) -> u32 {
        let bytes = fs::metadata(self.file("")).map_or(0, |file| file.len());
        u32::try_from(bytes / 4_096).unwrap_or(u32::MAX)
    }

    /// What a killed process leaves behind: the files as they are while it still has them open.
    /// Closing them properly would tidy them up.
    pub(super) fn kill(&mut self, stepper: Stepper) -> Result<(), String> {
        let files = |world: &Self| ["", "-wal", ".snapshot"].map(|ending| world.file(ending));
        let old = files(self);
        self.generation += 1;
        let new = files(self);
        for (old, new) in old.iter().zip(&new) {
            if old.exists() {
                fs::copy(old, new).map_err(|error| format!("{old:?}: {error}"))?;
            }
        }
        drop(stepper);
        let _gone = old.map(fs::remove_file);
        // A snapshot is renamed when it is whole; one that is not must do no harm all the same.
        let snapshot = &new[2];
        let bytes = fs::metadata(snapshot).map_or(0, |file| file.len());
        if bytes > 0 && self.generation % 4 == 3 {
            self.is_torn = true;
            let file = fs::File::options().write(true).open(snapshot);
            let cut = file.and_then(|file| file.set_len(bytes - bytes / 8));
            cut.map_err(|error| format!("{snapshot:?}: {error}"))?;
        }
        Ok(())
    }
}

impl Drop for World {
    fn drop(&mut self) {
        // What is left behind is left in a directory for temporary files.
        drop(fs::remove_dir_all(&self.directory));
    }
}
