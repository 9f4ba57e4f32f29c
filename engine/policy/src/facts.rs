//! What is known of tenants, clusters, datasets, models and quotas: versioned and digested apart
//! from the policies.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use placet_core::{
    AccountKind, AccountPath, Digest, Id, MAX_AMOUNT, MILLI_PER_GPU, QuotaNode, Unit,
    canonical_json,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::bundle::place;
use crate::document;
use crate::error::{Fault, LoadError};
use crate::input::{Attestation, Classification, Cluster, Dataset, Licence, Model, Tenant};
use crate::jurisdiction;

mod validity;

pub use validity::Validity;

/// Largest facts file in bytes: tens of thousands of tenants, and read in a second.
pub(crate) const MAX_FACTS_BYTES: u64 = 64 << 20;
/// Longest revision in bytes.
pub(crate) const MAX_REVISION_BYTES: usize = 128;
/// Most levels of a tree of cohorts: each is work for every claim at its leaves.
const MAX_COHORT_LEVELS: usize = 8;
/// First segment of the accounts of leases, which the ledger gives their limits.
const LEASES: &str = "lease";
/// What stands for any window of that length in the path of a quota's account, and one such window.
const WINDOWS: [(&str, &str); 3] =
    [("{day}", "2000-01-01"), ("{month}", "2000-01"), ("{year}", "2000")];

/// The format of the facts file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(title = "Facts")]
#[serde(deny_unknown_fields)]
pub(crate) struct FactsDocument {
    /// Every cluster, each id once.
    pub(crate) clusters: Vec<Cluster>,
    /// Every dataset, each id once.
    pub(crate) datasets: Vec<Dataset>,
    /// Every hosted model, each id once.
    pub(crate) models: Vec<Model>,
    /// Jurisdictions beside those of ISO 3166-1, out of those that it leaves to its users, such as
    /// XK; each once. A cluster, a tenant or a dataset that names any other is refused.
    #[schemars(with = "Vec<ForUsers>", length(max = 64))]
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub(crate) more_jurisdictions: Vec<Id>,
    /// Every account that policies may claim on, but for those of clusters: each of their GPU
    /// models has an account `cluster/<id>/gpu/<model>` in thousandths of a GPU, and their fabric
    /// `cluster/<id>/fabric-gbps` in Gbit/s.
    pub(crate) quotas: Vec<Quota>,
    /// Names this state of the facts for people, 1 to 128 characters.
    #[schemars(length(min = 1, max = MAX_REVISION_BYTES))]
    pub(crate) revision: String,
    /// Version of this format.
    pub(crate) schema: FactsSchema,
    /// Every tenant, each id once.
    pub(crate) tenants: Vec<Tenant>,
}

/// A code that ISO 3166-1 leaves to its users, in the published schema.
struct ForUsers;

impl JsonSchema for ForUsers {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "JurisdictionForUsers".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "string", "pattern": "^(AA|Q[M-Z]|X[A-Z]|ZZ)$" })
    }
}

/// Version of the format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub(crate) enum FactsSchema {
    /// The first.
    #[serde(rename = "placet.facts/v1")]
    V1,
}

/// The hard limit of an account. A claim can only tighten it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Quota {
    /// Path of the account, such as `tenant/acme/gpu`; one segment may be `{day}`, `{month}` or
    /// `{year}`, which stand for any YYYY-MM-DD, YYYY-MM and YYYY.
    #[schemars(length(min = 1, max = 512))]
    pub(crate) account: String,
    /// Most that may be in use above `limit`, out of what others in the cohort do not use, in
    /// `unit`; no bound if absent. Only with `cohort`.
    #[schemars(range(max = MAX_AMOUNT))]
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) borrowing_limit: Option<u64>,
    /// Path of the account whose quota it shares with others: another entry of this list, which may
    /// have a cohort itself, up to 8 levels. Its `limit` may be 0: then it has what its members
    /// lend. Only for level accounts of one unit, and without a window.
    #[schemars(length(min = 1, max = 512))]
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) cohort: Option<String>,
    /// How use behaves over time.
    pub(crate) kind: AccountKind,
    /// Most of `limit` that others in the cohort may use while it does not, in `unit`; all of it if
    /// absent. Only with `cohort`.
    #[schemars(range(max = MAX_AMOUNT))]
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) lending_limit: Option<u64>,
    /// Most that may be in use at once (level), or be used in the window (budget), in `unit`. In a
    /// cohort: its own part (Kueue's nominal quota).
    #[schemars(range(max = MAX_AMOUNT))]
    pub(crate) limit: u64,
    /// What is counted.
    pub(crate) unit: Unit,
}

/// What the ledger holds a claim against.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AccountLimit {
    /// How use behaves over time.
    pub kind: AccountKind,
    /// Hard limit in `unit`: 0..=2^53-1.
    pub limit: u64,
    /// What is counted.
    pub unit: Unit,
}

/// Facts, checked and indexed.
#[derive(Debug)]
pub struct Facts {
    digest: Digest,
    revision: String,
    clusters: BTreeMap<Id, Cluster>,
    datasets: BTreeMap<Id, Dataset>,
    models: BTreeMap<Id, Model>,
    tenants: BTreeMap<Id, Tenant>,
    /// By path as it is written in the file, `{month}` and the like included.
    accounts: BTreeMap<String, AccountLimit>,
    quotas: Arc<[QuotaNode]>,
}

impl Facts {
    /// Reads facts from a YAML or JSON file of at most 64 MiB.
    ///
    /// # Errors
    /// [`LoadError`] with the place and a remedy: the file cannot be read, is no such document,
    /// breaks the published JSON Schema, or contradicts itself.
    pub fn load(path: &Path) -> Result<Self, LoadError> {
        let name = path.display().to_string();
        Self::from_bytes(&name, &document::read(path, &name, MAX_FACTS_BYTES)?)
    }

    /// Reads facts from the bytes of such a file; `name` is what errors call it.
    ///
    /// # Errors
    /// [`LoadError::Invalid`] with the place and a remedy.
    pub fn from_bytes(name: &str, bytes: &[u8]) -> Result<Self, LoadError> {
        Ok(Self::parse(document::text(bytes, name)?, name)?)
    }

    /// Reads facts from text; `name` is what errors call it.
    pub(crate) fn parse(text: &str, name: &str) -> Result<Self, Fault> {
        let facts: FactsDocument = document::parse(text, name)?;
        validate(text, name)?;
        check(&facts).map_err(|(path, message, hint)| {
            let fault = Fault::new(name, format!("`{path}` {message}")).hint(hint);
            match place::locate(text, &place::steps(&path)) {
                Some((line, column)) => fault.at(line, Some(column)),
                None => fault,
            }
        })?;
        let canonical =
            canonical_json(&facts).expect("facts hold only names, texts, flags, numbers and lists");
        let (accounts, quotas) = (accounts(&facts), nodes(&facts));
        Ok(Self {
            digest: Digest::of(&canonical),
            accounts,
            quotas,
            clusters: facts.clusters.into_iter().map(|one| (one.id.clone(), one)).collect(),
            datasets: facts.datasets.into_iter().map(|one| (one.id.clone(), one)).collect(),
            models: facts.models.into_iter().map(|one| (one.id.clone(), one)).collect(),
            revision: facts.revision,
            tenants: facts.tenants.into_iter().map(|one| (one.id.clone(), one)).collect(),
        })
    }

    /// The published JSON Schema (draft 2020-12) of the facts file.
    #[must_use]
    pub fn json_schema() -> schemars::Schema {
        schemars::schema_for!(FactsDocument)
    }

    /// SHA-256 over the canonical JSON of the facts: the same for YAML and JSON, whatever the
    /// layout.
    #[must_use]
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// What the file calls this state of the facts.
    #[must_use]
    pub fn revision(&self) -> &str {
        &self.revision
    }

    /// The hard limit of an account, if there is such an account. An account named in full goes
    /// before a pattern.
    #[must_use]
    pub fn limit(&self, account: &AccountPath) -> Option<AccountLimit> {
        let path = account.as_str();
        let exact = self.accounts.get(path);
        exact.or_else(|| patterns(path).find_map(|pattern| self.accounts.get(&pattern))).copied()
    }

    /// The accounts that stand in trees, in the order of their paths.
    #[must_use]
    pub fn quotas(&self) -> Arc<[QuotaNode]> {
        Arc::clone(&self.quotas)
    }

    pub(crate) fn cluster(&self, id: &Id) -> Option<&Cluster> {
        self.clusters.get(id)
    }

    pub(crate) fn cluster_ids(&self) -> impl Iterator<Item = &str> {
        self.clusters.keys().map(Id::as_str)
    }

    pub(crate) fn dataset(&self, id: &Id) -> Option<&Dataset> {
        self.datasets.get(id)
    }

    pub(crate) fn model(&self, id: &Id) -> Option<&Model> {
        self.models.get(id)
    }

    /// Whether there is such a tenant.
    #[must_use]
    pub fn has_tenant(&self, id: &Id) -> bool {
        self.tenants.contains_key(id)
    }

    pub(crate) fn tenant(&self, id: &Id) -> Option<&Tenant> {
        self.tenants.get(id)
    }
}

/// The path with each of its windows in turn replaced by the pattern.
fn patterns(path: &str) -> impl Iterator<Item = String> {
    let segments = path.split('/').enumerate();
    let windows = segments.filter_map(|(at, segment)| Some((at, window(segment)?)));
    windows.map(move |(at, pattern)| {
        let segments = path.split('/').enumerate();
        let replaced = segments.map(|(i, segment)| if i == at { pattern } else { segment });
        replaced.collect::<Vec<_>>().join("/")
    })
}

/// The pattern of a day, a month or a year. Days go to 31 in every month: what names a day that is
/// not there is never claimed on.
fn window(segment: &str) -> Option<&'static str> {
    let number = |text: &str, digits: usize, most: u16| {
        let is_number = text.len() == digits && text.bytes().all(|byte| byte.is_ascii_digit());
        is_number && text.parse().is_ok_and(|number: u16| most == 0 || (1..=most).contains(&number))
    };
    let mut parts = segment.split('-');
    let is_year = parts.next().is_some_and(|year| number(year, 4, 0));
    let month = parts.next().map(|month| number(month, 2, 12));
    let day = parts.next().map(|day| number(day, 2, 31));
    match (is_year, month, day, parts.next()) {
        (true, None, None, None) => Some("{year}"),
        (true, Some(true), None, None) => Some("{month}"),
        (true, Some(true), Some(true), None) => Some("{day}"),
        _ => None,
    }
}

/// Checks the text against the published JSON Schema; serde has already checked that it has the
/// types.
fn validate(text: &str, name: &str) -> Result<(), Fault> {
    let document: serde_json::Value = document::parse(text, name)?;
    let schema = Facts::json_schema();
    let validator = jsonschema::validator_for(schema.as_value())
        .expect("the schema derived from our own types is a valid schema");
    match validator.iter_errors(&document).next() {
        Some(error) => {
            let path = error.instance_path().to_string();
            let message = format!("`{path}`: {error}");
            let hint = format!("see `{}` in facts.schema.json", error.schema_path());
            Err(Fault::new(name, message).hint(hint))
        }
        None => Ok(()),
    }
}

/// A contradiction: path, what is wrong, what would help.
type Contradiction = (String, String, String);

fn wrong(path: String, message: impl Into<String>, hint: impl Into<String>) -> Contradiction {
    (path, message.into(), hint.into())
}

fn check(facts: &FactsDocument) -> Result<(), Contradiction> {
    let tenants = unique("tenants", facts.tenants.iter().map(|one| &one.id))?;
    unique("clusters", facts.clusters.iter().map(|one| &one.id))?;
    unique("datasets", facts.datasets.iter().map(|one| &one.id))?;
    let models = unique("models", facts.models.iter().map(|one| &one.id))?;
    let places = Places::new(&facts.more_jurisdictions)?;
    for (i, cluster) in facts.clusters.iter().enumerate() {
        let path = format!("clusters[{i}]");
        check_cluster(&path, cluster)?;
        places.has(format!("{path}.jurisdiction"), &cluster.jurisdiction)?;
    }
    for (i, tenant) in facts.tenants.iter().enumerate() {
        let path = format!("tenants[{i}]");
        check_tenant(&path, tenant, &models)?;
        places.have(&path, "allowed_jurisdictions", &tenant.allowed_jurisdictions)?;
        if let Some(seat) = &tenant.seat {
            places.has(format!("{path}.seat"), seat)?;
        }
    }
    for (i, dataset) in facts.datasets.iter().enumerate() {
        let path = format!("datasets[{i}]");
        places.have(&path, "jurisdictions", &dataset.jurisdictions)?;
        check_owned(&path, dataset.classification, (&dataset.owner, &dataset.readers), &tenants)?;
    }
    for (i, model) in facts.models.iter().enumerate() {
        let path = format!("models[{i}]");
        check_owned(&path, model.classification, (&model.owner, &model.readers), &tenants)?;
    }
    check_quotas(facts)?;
    check_cohorts(facts)
}

fn unique<'a>(
    list: &str,
    ids: impl Iterator<Item = &'a Id>,
) -> Result<BTreeSet<&'a Id>, Contradiction> {
    let mut seen = BTreeSet::new();
    for (i, id) in ids.enumerate() {
        if !seen.insert(id) {
            let path = format!("{list}[{i}].id");
            return Err(wrong(path, format!("names `{id}` a second time"), "give each id once"));
        }
    }
    Ok(seen)
}

fn each_once<T: PartialEq>(path: &str, field: &str, items: &[T]) -> Result<(), Contradiction> {
    let twice =
        items.iter().enumerate().find(|(i, item)| items.iter().take(*i).any(|o| o == *item));
    match twice {
        Some((i, _)) => {
            let dot = if path.is_empty() { "" } else { "." };
            let path = format!("{path}{dot}{field}[{i}]");
            Err(wrong(path, "stands there a second time", "give each entry once"))
        }
        None => Ok(()),
    }
}

fn known(path: String, id: &Id, ids: &BTreeSet<&Id>, list: &str) -> Result<(), Contradiction> {
    if ids.contains(id) {
        return Ok(());
    }
    let hint = match document::nearest(id.as_str(), ids.iter().map(|id| id.as_str())) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("add it to `{list}`"),
    };
    Err(wrong(path, format!("names `{id}`, which is not in `{list}`"), hint))
}

/// The jurisdictions that facts may name.
struct Places<'a>(&'a [Id]);

impl<'a> Places<'a> {
    fn new(more: &'a [Id]) -> Result<Self, Contradiction> {
        if let Some(i) = more.iter().position(|code| !jurisdiction::is_for_users(code.as_str())) {
            let path = format!("more_jurisdictions[{i}]");
            let hint = "take AA, QM to QZ, XA to XZ or ZZ; the others need no mention";
            return Err(wrong(path, "is no code that ISO 3166-1 leaves to its users", hint));
        }
        each_once("", "more_jurisdictions", more)?;
        Ok(Self(more))
    }

    fn has(&self, path: String, code: &Id) -> Result<(), Contradiction> {
        if jurisdiction::is_assigned(code.as_str()) || self.0.contains(code) {
            return Ok(());
        }
        let hint = match (code.as_str(), jurisdiction::is_for_users(code.as_str())) {
            // What the European Union writes in place of two assigned codes, and for itself.
            ("UK", _) => "the United Kingdom is `GB`",
            ("EL", _) => "Greece is `GR`",
            ("EU", _) => "name its member states one by one",
            (_, true) => "add it to `more_jurisdictions` if there is such a place",
            (_, false) => "take a code that ISO 3166-1 alpha-2 assigns, such as DE",
        };
        Err(wrong(path, format!("names `{code}`, which is no jurisdiction"), hint))
    }

    fn have(&self, path: &str, field: &str, codes: &[Id]) -> Result<(), Contradiction> {
        each_once(path, field, codes)?;
        let mut codes = codes.iter().enumerate();
        codes.try_for_each(|(i, code)| self.has(format!("{path}.{field}[{i}]"), code))
    }
}

/// Whom something belongs to, and who may see it.
fn check_owned(
    path: &str,
    class: Classification,
    (owner, readers): (&Id, &[Id]),
    tenants: &BTreeSet<&Id>,
) -> Result<(), Contradiction> {
    known(format!("{path}.owner"), owner, tenants, "tenants")?;
    if class >= Classification::Confidential && !readers.is_empty() {
        let hint = "leave the readers out, or classify it INTERNAL";
        return Err(wrong(
            format!("{path}.readers"),
            "names some of what its owner alone sees",
            hint,
        ));
    }
    each_once(path, "readers", readers)?;
    let mut readers = readers.iter().enumerate();
    readers.try_for_each(|(i, reader)| {
        known(format!("{path}.readers[{i}]"), reader, tenants, "tenants")
    })
}

fn check_tenant(path: &str, tenant: &Tenant, models: &BTreeSet<&Id>) -> Result<(), Contradiction> {
    check_attestations(path, &tenant.attestations)?;
    each_once(path, "licensed_models", &tenant.licensed_models)?;
    each_once(path, "priority_classes", &tenant.priority_classes)?;
    for (i, model) in tenant.licensed_models.iter().enumerate() {
        known(format!("{path}.licensed_models[{i}]"), model, models, "models")?;
    }
    for (i, licence) in tenant.licences.iter().enumerate() {
        check_licence(&format!("{path}.licences[{i}]"), licence, models)?;
    }
    Ok(())
}

fn check_licence(
    path: &str,
    licence: &Licence,
    models: &BTreeSet<&Id>,
) -> Result<(), Contradiction> {
    known(format!("{path}.model"), &licence.model, models, "models")?;
    each_once(path, "uses", &licence.uses)?;
    if licence.valid_from >= licence.valid_until {
        let hint = "it is the first second after the licence's validity";
        return Err(wrong(format!("{path}.valid_until"), "is not after `valid_from`", hint));
    }
    Ok(())
}

fn check_cluster(path: &str, cluster: &Cluster) -> Result<(), Contradiction> {
    check_attestations(path, &cluster.attestations)?;
    each_once(path, "isolation_levels", &cluster.isolation_levels)?;
    let mut seen = BTreeSet::new();
    for (i, pool) in cluster.gpus.iter().enumerate() {
        let path = format!("{path}.gpus[{i}]");
        if !seen.insert(&pool.model) {
            let message = format!("names `{}` a second time", pool.model);
            return Err(wrong(format!("{path}.model"), message, "add up the counts in one entry"));
        }
        if pool.safety_buffer > pool.count {
            let message = format!("is {}, above `count`, {}", pool.safety_buffer, pool.count);
            let hint = "keep the buffer within the pool";
            return Err(wrong(format!("{path}.safety_buffer"), message, hint));
        }
        each_once(&path, "partition_modes", &pool.partition_modes)?;
    }
    Ok(())
}

fn check_attestations(path: &str, attestations: &[Attestation]) -> Result<(), Contradiction> {
    for (i, one) in attestations.iter().enumerate() {
        if one.valid_from >= one.valid_until {
            let path = format!("{path}.attestations[{i}].valid_until");
            let hint = "it is the first second after the attestation's validity";
            return Err(wrong(path, "is not after `valid_from`", hint));
        }
    }
    Ok(())
}

/// A window that the pattern stands for.
fn pattern(segment: &str) -> Option<&'static str> {
    WINDOWS.into_iter().find_map(|(pattern, some)| (segment == pattern).then_some(some))
}

fn check_quotas(facts: &FactsDocument) -> Result<(), Contradiction> {
    let mut seen: BTreeSet<String> =
        facts.clusters.iter().flat_map(cluster_accounts).map(|(path, _)| path).collect();
    for (i, quota) in facts.quotas.iter().enumerate() {
        let path = format!("quotas[{i}].account");
        let account = &quota.account;
        // A pattern is checked as the account that it would be in some window; only a whole segment
        // is one.
        let windows = account.split('/').filter_map(|segment| pattern(segment)).count();
        let in_some_window: Vec<&str> =
            account.split('/').map(|segment| pattern(segment).unwrap_or(segment)).collect();
        if let Err(error) = AccountPath::new(in_some_window.join("/")) {
            let hint = "write ids joined by `/`, such as `tenant/acme/gpu`";
            return Err(wrong(path, error.to_string(), hint));
        }
        if account.split('/').next() == Some(LEASES) {
            let hint = format!("give it another name: `{LEASES}/<id>` is what a lease holds");
            return Err(wrong(path, format!("is below `{LEASES}`, the accounts of leases"), hint));
        }
        if windows > 1 || (windows == 1 && quota.kind != AccountKind::Budget) {
            let hint = "give one of `{day}`, `{month}` and `{year}`, once, in a budget's account";
            return Err(wrong(path, "misuses a window", hint));
        }
        if !seen.insert(account.clone()) {
            let message = format!("names `{account}` a second time");
            let hint = "give each account once; those of clusters follow from `clusters`";
            return Err(wrong(path, message, hint));
        }
        let fits = match quota.unit {
            Unit::MilliGpu | Unit::Gbps => quota.kind == AccountKind::Level,
            Unit::GpuSecond => quota.kind == AccountKind::Budget,
            Unit::Byte | Unit::Count => true,
        };
        if !fits {
            let hint = "milli-gpu and gbps are held (level), gpu-second is used up (budget)";
            return Err(wrong(format!("quotas[{i}].unit"), "does not fit its `kind`", hint));
        }
    }
    Ok(())
}

/// Cohorts: that they are there, and of one kind and unit, and end in a root.
fn check_cohorts(facts: &FactsDocument) -> Result<(), Contradiction> {
    let quotas: BTreeMap<&str, &Quota> =
        facts.quotas.iter().map(|quota| (quota.account.as_str(), quota)).collect();
    for (i, quota) in facts.quotas.iter().enumerate() {
        let Some(cohort) = &quota.cohort else {
            if quota.borrowing_limit.is_some() || quota.lending_limit.is_some() {
                let message = "lends or borrows, and has no `cohort`";
                let hint = "name the account that it shares with others";
                return Err(wrong(format!("quotas[{i}]"), message, hint));
            }
            continue;
        };
        let at = || format!("quotas[{i}].cohort");
        let Some(parent) = quotas.get(cohort.as_str()) else {
            let message = format!("names `{cohort}`, which is not in `quotas`");
            return Err(wrong(at(), message, "add it, with what it brings in, which may be 0"));
        };
        let levels = [*parent, quota].iter().all(|one| one.kind == AccountKind::Level);
        if !levels || parent.unit != quota.unit {
            let message = "is for accounts of kind level and of one unit";
            return Err(wrong(at(), message, "give both the same `kind: level` and `unit`"));
        }
        let above = std::iter::successors(Some(*parent), |one| {
            one.cohort.as_deref().and_then(|cohort| quotas.get(cohort)).copied()
        });
        let above: Vec<&str> =
            above.take(MAX_COHORT_LEVELS).map(|one| one.account.as_str()).collect();
        if above.contains(&quota.account.as_str()) || above.len() == MAX_COHORT_LEVELS {
            return Err(endless(at(), &quota.account, &above));
        }
    }
    Ok(())
}

/// A way up that comes back, or is too long. A circle above an account is told at one of its own.
fn endless(path: String, account: &str, above: &[&str]) -> Contradiction {
    let hint = "end it in an account without a `cohort`";
    let upwards = |length: usize| -> String {
        let members = above.iter().take(length).copied();
        let members: Vec<_> = std::iter::once(account).chain(members).collect();
        members.join(" -> ")
    };
    match above.iter().position(|one| *one == account) {
        Some(last) => wrong(path, format!("runs in a circle: {}", upwards(last + 1)), hint),
        None => {
            let way = upwards(above.len());
            wrong(path, format!("has more than {MAX_COHORT_LEVELS} levels: {way}"), hint)
        }
    }
}

/// The accounts that stand in trees.
fn nodes(facts: &FactsDocument) -> Arc<[QuotaNode]> {
    let path = |path: &String| AccountPath::new(path.clone()).expect("paths were checked");
    let cohorts: BTreeSet<&String> =
        facts.quotas.iter().filter_map(|quota| quota.cohort.as_ref()).collect();
    let shares = |quota: &&Quota| quota.cohort.is_some() || cohorts.contains(&quota.account);
    let nodes = facts.quotas.iter().filter(shares).map(|quota| QuotaNode {
        account: path(&quota.account),
        borrowing_limit: quota.borrowing_limit,
        cohort: quota.cohort.as_ref().map(path),
        lending_limit: quota.lending_limit,
        nominal: quota.limit,
        unit: quota.unit,
    });
    let nodes: BTreeMap<AccountPath, QuotaNode> =
        nodes.map(|node| (node.account.clone(), node)).collect();
    nodes.into_values().collect()
}

/// The accounts that a cluster implies.
fn cluster_accounts(cluster: &Cluster) -> impl Iterator<Item = (String, AccountLimit)> {
    let kind = AccountKind::Level;
    let gpus = cluster.gpus.iter().map(move |pool| {
        let limit = u64::from(pool.count) * u64::from(MILLI_PER_GPU);
        let path = format!("cluster/{}/gpu/{}", cluster.id, pool.model);
        (path, AccountLimit { kind, limit, unit: Unit::MilliGpu })
    });
    let fabric = AccountLimit { kind, limit: cluster.fabric_gbps, unit: Unit::Gbps };
    gpus.chain([(format!("cluster/{}/fabric-gbps", cluster.id), fabric)])
}

fn accounts(facts: &FactsDocument) -> BTreeMap<String, AccountLimit> {
    let cohorts: BTreeSet<&str> =
        facts.quotas.iter().filter_map(|quota| quota.cohort.as_deref()).collect();
    let quotas = facts.quotas.iter().map(|quota| {
        let Quota { account, kind, unit, .. } = quota.clone();
        // What an account in a tree may hold depends on the others: the ledger knows.
        let shares = quota.cohort.is_some() || cohorts.contains(account.as_str());
        let limit = if shares { MAX_AMOUNT } else { quota.limit };
        (account, AccountLimit { kind, limit, unit })
    });
    quotas.chain(facts.clusters.iter().flat_map(cluster_accounts)).collect()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Small facts, right in every respect.
    pub(crate) const FACTS: &str = "\
schema: placet.facts/v1
revision: r1
tenants:
  - id: acme
    kind: CUSTOMER
    allowed_jurisdictions: [DE]
    attestations: [{framework: SOC2, valid_from: 0, valid_until: 2000000000}]
    licensed_models: [llm]
    min_isolation: SHARED
    priority_classes: [EXTERNAL_COMMERCIAL]
  - id: lab
    kind: OWN
    allowed_jurisdictions: []
    attestations: []
    licensed_models: []
    min_isolation: SHARED
    priority_classes: [INTERNAL_RESEARCH]
clusters:
  - id: c-1
    jurisdiction: DE
    fabric_gbps: 100
    attestations: []
    isolation_levels: [SHARED, DEDICATED]
    gpus:
      - {model: H100, count: 8, safety_buffer: 2}
      - {model: A100, count: 4, safety_buffer: 0}
datasets:
  - {id: logs, owner: acme, classification: INTERNAL, jurisdictions: [DE], personal: true}
models:
  - {id: llm, owner: lab, classification: RESTRICTED}
quotas:
  - {account: tenant/acme/gpu, kind: level, unit: milli-gpu, limit: 4000}
  - {account: 'tenant/acme/gpu-seconds/{month}', kind: budget, unit: gpu-second, limit: 100}
  - {account: tenant/acme/gpu-seconds/2026-02, kind: budget, unit: gpu-second, limit: 7}
";

    pub(crate) fn facts() -> Facts {
        Facts::parse(FACTS, "facts.yaml").expect("the facts are right")
    }

    fn fault(from: &str, to: &str) -> String {
        let text = FACTS.replace(from, to);
        assert_ne!(text, FACTS, "the test changes something");
        Facts::parse(&text, "facts.yaml").expect_err("the facts are wrong").to_string()
    }

    fn limit(account: &str) -> Option<u64> {
        let account = AccountPath::new(account).expect("an account");
        facts().limit(&account).map(|limit| limit.limit)
    }

    #[test]
    fn accounts_are_found_by_name_pattern_and_cluster() {
        assert_eq!(limit("tenant/acme/gpu"), Some(4_000));
        assert_eq!(limit("tenant/acme/gpu-seconds/2026-11"), Some(100));
        assert_eq!(limit("tenant/acme/gpu-seconds/2026-02"), Some(7), "the full name goes first");
        assert_eq!(limit("tenant/acme/gpu-seconds/2026-13"), None, "there is no such month");
        assert_eq!(limit("cluster/c-1/gpu/H100"), Some(8_000));
        assert_eq!(limit("cluster/c-1/fabric-gbps"), Some(100));
        assert_eq!(limit("tenant/lab/gpu"), None);
    }

    #[test]
    fn the_digest_does_not_depend_on_the_layout() {
        let document: FactsDocument = document::parse(FACTS, "facts.yaml").expect("it parses");
        let json = serde_json::to_string_pretty(&document).expect("it is JSON");
        let other = Facts::parse(&json, "facts.json").expect("the same facts");
        assert_eq!(other.digest(), facts().digest());
        assert_eq!(other.revision(), "r1");
    }

    #[test]
    fn accounts_that_share_stand_in_trees() {
        let plain = "{account: tenant/acme/gpu, kind: level, unit: milli-gpu, limit: 4000}";
        let quotas = |cohort: &str| {
            let own = plain.replace("4000}", "4000, cohort: pool, lending_limit: 1000}");
            let pool = "{account: pool, kind: level, unit: milli-gpu, limit: 0";
            let text = FACTS.replace(plain, &format!("{own}\n  - {pool}{cohort}}}"));
            Facts::parse(&text, "facts.yaml")
        };
        let facts = quotas("").expect("the facts are right");
        let nodes: Vec<_> = facts.quotas().iter().map(|node| node.account.to_string()).collect();
        assert_eq!(nodes, ["pool", "tenant/acme/gpu"]);
        let account = AccountPath::new("tenant/acme/gpu").expect("an account");
        let limit = facts.limit(&account).map(|limit| limit.limit);
        assert_eq!(limit, Some(MAX_AMOUNT), "what it may hold depends on the others");
        assert!(facts.quotas()[1].cohort.is_some() && facts.quotas()[1].nominal == 4_000);
        for (cohort, says) in [
            (", cohort: pool", "more than 8 levels: tenant/acme/gpu -> pool -> pool"),
            (", cohort: tenant/acme/gpu", ": tenant/acme/gpu -> pool -> tenant/acme/gpu"),
            (", cohort: none", "names `none`, which is not in `quotas`"),
            (", cohort: tenant/acme/gpu-seconds/2026-02", "of kind level and of one unit"),
            (", borrowing_limit: 5", "`quotas[1]` lends or borrows, and has no `cohort`"),
        ] {
            let fault = quotas(cohort).expect_err("the facts are wrong").to_string();
            assert!(fault.contains(says), "{cohort}: {fault}");
        }
    }

    #[test]
    fn contradictions_are_refused_with_path_and_remedy() {
        for (from, to, expected) in [
            ("id: lab", "id: acme", "`tenants[1].id` names `acme` a second time"),
            ("safety_buffer: 2", "safety_buffer: 9", "`clusters[0].gpus[0].safety_buffer` is 9"),
            ("model: A100", "model: H100", "`clusters[0].gpus[1].model` names `H100`"),
            ("{id: logs, owner: acme", "{id: logs, owner: amce", "did you mean `acme`?"),
            ("licensed_models: [llm]", "licensed_models: [lllm]", "did you mean `llm`?"),
            ("valid_until: 2000000000", "valid_until: 0", "is not after `valid_from`"),
            ("tenant/acme/gpu,", "cluster/c-1/fabric-gbps,", "names `cluster/c-1/fabric-gbps`"),
            ("tenant/acme/gpu,", "tenant//gpu,", "`quotas[0].account` is empty"),
            ("kind: level, unit: milli-gpu", "kind: budget, unit: milli-gpu", "does not fit"),
            ("tenant/acme/gpu,", "'tenant/{month}/gpu',", "misuses a window"),
            ("gpu-seconds/{month}", "gpu-seconds-{month}", "`quotas[1].account` "),
            ("limit: 4000", "limit: 9007199254740992", "`/quotas/0/limit`"),
            ("jurisdiction: DE", "jurisdiction: Germany", "`/clusters/0/jurisdiction`"),
            ("jurisdictions: [DE], personal", "jurisdictions: [de], personal", "`/datasets/0/"),
            ("safety_buffer: 2", "saftey_buffer: 2", "did you mean `safety_buffer`?"),
            ("kind: OWN", "kind: OWNN", "did you mean `OWN`?"),
            ("id: lab", "id: acme", "facts.yaml:11:9: "),
            ("jurisdiction: DE", "jurisdiction: UK", "the United Kingdom is `GB`"),
            ("jurisdiction: DE", "jurisdiction: XK", "add it to `more_jurisdictions`"),
            (
                "tions: [DE], personal",
                "tions: [DE, EU], personal",
                "`datasets[0].jurisdictions[1]`",
            ),
            ("tions: [DE]\n", "tions: [DE, UE]\n", "`tenants[0].allowed_jurisdictions[1]` "),
            ("kind: OWN", "kind: OWN\n    seat: ZZ", "`tenants[1].seat` names `ZZ`"),
            ("tenants:\n", "more_jurisdictions: [DE]\ntenants:\n", "`/more_jurisdictions/0`"),
            ("tenants:\n", "more_jurisdictions: [XK, XK]\ntenants:\n", "`more_jurisdictions[1]`"),
            ("personal: true", "personal: true, readers: [lba]", "did you mean `lab`?"),
            ("RESTRICTED}", "INTERNAL, readers: [lab, lab]}", "`models[0].readers[1]` stands"),
            ("RESTRICTED}", "RESTRICTED, readers: [lab]}", "`models[0].readers` names some"),
            ("count: 4,", "count: 4, partition_modes: [MIG, MIG],", "gpus[1].partition_modes[1]`"),
            ("count: 4,", "count: 4, gpus_per_host: 0,", "`/clusters/0/gpus/1/gpus_per_host`"),
            ("count: 8", "count: -8", "facts.yaml:25:"),
            ("schema: placet.facts/v1", "schema: placet.facts/v9", "placet.facts/v1"),
            ("revision: r1", "revision: ''", "`/revision`"),
        ] {
            let fault = fault(from, to);
            assert!(fault.contains(expected), "`{to}` gave: {fault}");
        }
    }
}
