//! Who may waive and freeze: a file that the server's operator writes, read with the bundle.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use placet_core::{
    Code, Digest, FreezeScope, Id, KeySet, MAX_DURATION_SECONDS, MAX_GPU_COUNT, MAX_WAIVER_SECONDS,
    MAX_WAIVER_USES,
};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::bundle::place::{Shown, Step, locate};
use crate::document;
use crate::error::{Fault, LoadError};

/// Largest file of approvers in bytes.
const MAX_APPROVERS_BYTES: u64 = 1 << 20;
/// Most approvers: with their keys as many as a set of keys can have.
const MAX_APPROVERS: usize = 64;
/// Most keys of an approver: the one that signs, the next, and two that did.
const MAX_KEYS_EACH: usize = 4;
/// Most names of one list of an approver.
const MAX_NAMES: usize = 1_024;
/// Most waivers that are withdrawn by name: those that are over can be taken from the list.
const MAX_WITHDRAWN: usize = 16_384;
/// Longest name of an identity provider in bytes, as in requests.
const MAX_ISSUER_BYTES: usize = 256;
/// Name of the engine, whose denials are never lifted.
const ENGINE: &str = "placet";

/// The approvers of a deployment: who may waive denials and freeze clusters, with which keys.
#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(title = "Approvers")]
#[serde(deny_unknown_fields)]
struct Document {
    /// Version of this format.
    #[serde(rename = "schema")]
    _schema: ApproversSchema,
    /// The approvers, each name and each key once.
    #[schemars(length(max = MAX_APPROVERS))]
    approvers: Vec<Entry>,
    /// Names of waivers that are good no longer, whoever signed them.
    #[serde(default)]
    #[schemars(length(max = MAX_WITHDRAWN))]
    withdrawn: Vec<Id>,
}

/// Version of the format.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
enum ApproversSchema {
    /// The first.
    #[serde(rename = "placet.approvers/v1")]
    V1,
}

/// One approver: a person's duty, or a service, with keys of its own.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Entry {
    /// Its name: `approved_by` of its waivers, `by` of its freezes. Names no person.
    name: Id,
    /// Its public keys as JWKs (RFC 8037), each with `kty` OKP, `crv` Ed25519 and `x`; `nbf`, `exp`
    /// and `revoked` say when it signs, as in the server's own JWK set.
    #[schemars(length(min = 1, max = MAX_KEYS_EACH))]
    keys: Vec<Map<String, Value>>,
    /// Callers that are this approver: they cannot use its waivers.
    #[serde(default)]
    #[schemars(length(max = MAX_NAMES))]
    callers: Vec<Id>,
    /// Principals that are this approver: what they ask for cannot use its waivers.
    #[serde(default)]
    #[schemars(length(max = MAX_NAMES))]
    principals: Vec<Person>,
    /// What it may waive; absent if nothing.
    #[serde(default)]
    waive: Option<WaiveGrant>,
    /// What it may freeze, and thaw; absent if nothing.
    #[serde(default)]
    freeze: Option<FreezeGrant>,
}

/// Somebody, without the name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Person {
    /// Issuer of the identity: 1 to 256 bytes, as `principal.issuer` of requests.
    #[schemars(length(min = 1, max = MAX_ISSUER_BYTES))]
    issuer: String,
    /// SHA-256 of the bytes of `principal.subject`: `sha256:` and 64 hexadecimal digits.
    #[schemars(with = "String")]
    subject_digest: Digest,
}

/// What an approver may waive: a waiver beyond any of it is refused.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct WaiveGrant {
    /// Codes that it may lift, by policy: there is no way to say all of them.
    #[schemars(length(min = 1))]
    pub(crate) lifts: BTreeMap<Id, Vec<Code>>,
    /// For which tenants; empty means every tenant.
    #[serde(default)]
    pub(crate) tenants: BTreeSet<Id>,
    /// On which clusters; empty means every cluster.
    #[serde(default)]
    pub(crate) clusters: BTreeSet<Id>,
    /// Longest time for which one may be used, in seconds: at most 90 days.
    #[schemars(range(min = 1, max = MAX_WAIVER_SECONDS))]
    pub(crate) max_seconds: u64,
    /// Most permits of one.
    #[schemars(range(min = 1, max = MAX_WAIVER_USES))]
    pub(crate) max_uses: u32,
    /// Most GPUs of a request; no bound if absent.
    #[serde(default)]
    #[schemars(range(min = 1, max = MAX_GPU_COUNT))]
    pub(crate) max_gpu_count: Option<u32>,
    /// Longest duration of a request in seconds; no bound if absent.
    #[serde(default)]
    #[schemars(range(min = 1, max = MAX_DURATION_SECONDS))]
    pub(crate) max_duration_seconds: Option<u64>,
}

/// What an approver may freeze, and thaw. Both lists empty: everything.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FreezeGrant {
    /// Whose work; empty means everybody's.
    #[serde(default)]
    pub tenants: BTreeSet<Id>,
    /// Where; empty means every cluster.
    #[serde(default)]
    pub clusters: BTreeSet<Id>,
}

impl FreezeGrant {
    /// Whether it allows to freeze and to thaw all of a scope.
    #[must_use]
    pub fn covers(&self, scope: &FreezeScope) -> bool {
        within(&scope.tenants, &self.tenants) && within(&scope.clusters, &self.clusters)
    }
}

/// Whether a list, of which none means all, lies within another such list.
pub(crate) fn within(asked: &BTreeSet<Id>, granted: &BTreeSet<Id>) -> bool {
    granted.is_empty() || (!asked.is_empty() && asked.is_subset(granted))
}

/// An approver as it is known.
#[derive(Debug)]
pub(crate) struct Approver {
    pub(crate) name: Id,
    callers: BTreeSet<Id>,
    principals: BTreeSet<Person>,
    pub(crate) waive: Option<WaiveGrant>,
    pub(crate) freeze: Option<FreezeGrant>,
}

impl Approver {
    /// Whether a caller, or whoever asked for a waiver, is this approver.
    pub(crate) fn is_named(&self, name: &Id) -> bool {
        self.name == *name || self.callers.contains(name)
    }

    /// Whether a principal is this approver.
    pub(crate) fn is_principal(&self, issuer: &str, subject: &str) -> bool {
        let subject_digest = Digest::of(subject.as_bytes());
        self.principals.contains(&Person { issuer: issuer.to_owned(), subject_digest })
    }
}

/// The approvers of a deployment, checked: who may approve what, for whom, and for how long.
#[derive(Debug)]
pub struct Approvers {
    /// Of the file's bytes and the deployment.
    digest: Digest,
    /// The deployment: the issuer of its decisions, `aud` of what is for it.
    issuer: String,
    /// Absent if there are none.
    keys: Option<KeySet>,
    /// By the name of their keys.
    approvers: BTreeMap<String, usize>,
    known: Vec<Approver>,
    withdrawn: BTreeSet<Id>,
}

/// A contradiction: where, what is wrong, what would help.
type Wrong = (Vec<Step>, String, &'static str);

impl Approvers {
    /// Nobody: every waiver and every freeze is by an unknown key.
    #[must_use]
    pub fn none(issuer: &str) -> Self {
        Self {
            digest: Digest::of(issuer.as_bytes()),
            issuer: issuer.to_owned(),
            keys: None,
            approvers: BTreeMap::new(),
            known: Vec::new(),
            withdrawn: BTreeSet::new(),
        }
    }

    /// Reads the approvers of the deployment whose decisions have that issuer, from a YAML or JSON
    /// file of at most 1 MiB.
    ///
    /// # Errors
    /// [`LoadError`] with file, line, column and a remedy: the file cannot be read, is no such
    /// document, or contradicts itself.
    pub fn load(path: &Path, issuer: &str) -> Result<Self, LoadError> {
        let name = path.display().to_string();
        Self::from_bytes(&name, &document::read(path, &name, MAX_APPROVERS_BYTES)?, issuer)
    }

    /// Reads them from the bytes of such a file; `name` is what errors call it.
    ///
    /// # Errors
    /// [`LoadError::Invalid`] with the place and a remedy.
    pub fn from_bytes(name: &str, bytes: &[u8], issuer: &str) -> Result<Self, LoadError> {
        let text = document::text(bytes, name)?;
        let document: Document = document::parse(text, name).map_err(|fault| {
            let hint = "its format is that of `approvers.schema.json`";
            if fault.hint.is_some() { fault } else { fault.hint(hint) }
        })?;
        let digest = Digest::of_parts(&[bytes, issuer.as_bytes()]);
        Self::checked(document, digest, issuer).map_err(|(path, message, hint)| {
            let fault = Fault::new(name, format!("`{}` {message}", Shown(&path))).hint(hint);
            let fault = match locate(text, &path) {
                Some((line, column)) => fault.at(line, Some(column)),
                None => fault,
            };
            fault.into()
        })
    }

    fn checked(document: Document, digest: Digest, issuer: &str) -> Result<Self, Wrong> {
        let too_many = |path: &'static str, most: usize| -> Wrong {
            (vec![path.into()], format!("has more than {most} entries"), "leave out what is over")
        };
        if document.approvers.len() > MAX_APPROVERS {
            return Err(too_many("approvers", MAX_APPROVERS));
        }
        if document.withdrawn.len() > MAX_WITHDRAWN {
            return Err(too_many("withdrawn", MAX_WITHDRAWN));
        }
        let (mut keys, mut approvers, mut known) = (Vec::new(), BTreeMap::new(), Vec::new());
        let mut names = BTreeSet::new();
        for (at, entry) in document.approvers.into_iter().enumerate() {
            let inside = |(mut path, message, hint): Wrong| {
                path.splice(0..0, [Step::from("approvers"), at.into()]);
                (path, message, hint)
            };
            check(&entry).map_err(inside)?;
            if !names.insert(entry.name.clone()) {
                let message = format!("is `{}` for the second time", entry.name);
                return Err(inside((vec!["name".into()], message, "give each a name of its own")));
            }
            for (key, jwk) in entry.keys.iter().enumerate() {
                let wrong = |message: String, hint: &'static str| {
                    inside((vec![Step::from("keys"), key.into()], message, hint))
                };
                let set = serde_json::json!({ "keys": [jwk] }).to_string();
                let set = KeySet::from_json(set.as_bytes()).map_err(|error| {
                    let hint = "give the public half as a JWK: `placet keys jwks` prints one";
                    let error = error.to_string();
                    wrong(format!("is no key: {}", error.lines().next().unwrap_or_default()), hint)
                })?;
                for own in set.keys() {
                    if approvers.insert(own.id().to_string(), at).is_some() {
                        let hint = "nobody approves in the name of another: give each its own key";
                        return Err(wrong(format!("`{}` stands there before", own.id()), hint));
                    }
                    keys.push((own.clone(), set.validity(own.id()).cloned().unwrap_or_default()));
                }
            }
            let Entry { name, callers, principals, waive, freeze, .. } = entry;
            let (callers, principals) =
                (callers.into_iter().collect(), principals.into_iter().collect());
            known.push(Approver { name, callers, principals, waive, freeze });
        }
        let keys = if keys.is_empty() {
            None
        } else {
            // Each stands there once, and they are bounded above.
            let set = KeySet::with_validity(keys);
            let hint = "leave out approvers that are no longer";
            Some(set.map_err(|error| (vec!["approvers".into()], error.to_string(), hint))?)
        };
        let withdrawn = document.withdrawn.into_iter().collect();
        Ok(Self { digest, issuer: issuer.to_owned(), keys, approvers, known, withdrawn })
    }

    /// The published JSON Schema (draft 2020-12) of the file.
    #[must_use]
    pub fn json_schema() -> schemars::Schema {
        schemars::schema_for!(Document)
    }

    /// Tells two states of the approvers apart.
    #[must_use]
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// The deployment that they approve for: the issuer of its decisions.
    #[must_use]
    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    /// Their keys; `None` if there are none.
    #[must_use]
    pub fn keys(&self) -> Option<&KeySet> {
        self.keys.as_ref()
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.known.len()
    }

    pub(crate) fn of_key(&self, kid: &str) -> Option<&Approver> {
        self.known.get(*self.approvers.get(kid)?)
    }

    pub(crate) fn has_withdrawn(&self, waiver: &Id) -> bool {
        self.withdrawn.contains(waiver)
    }
}

/// What the types leave open of one approver.
fn check(entry: &Entry) -> Result<(), Wrong> {
    let wrong = |path: Vec<Step>, message: &str, hint| Err((path, message.to_owned(), hint));
    if entry.name.as_str() == ENGINE {
        return wrong(vec!["name".into()], "is the name of the engine itself", "choose another");
    }
    if !(1..=MAX_KEYS_EACH).contains(&entry.keys.len()) {
        let hint = "give its public key as a JWK; two while it is being replaced";
        return wrong(vec!["keys".into()], "does not have 1 to 4 keys", hint);
    }
    for (list, length) in [("callers", entry.callers.len()), ("principals", entry.principals.len())]
    {
        if length > MAX_NAMES {
            return wrong(vec![list.into()], "has more than 1024 entries", "leave some out");
        }
    }
    for (at, person) in entry.principals.iter().enumerate() {
        if !(1..=MAX_ISSUER_BYTES).contains(&person.issuer.len()) {
            let path = vec![Step::from("principals"), at.into(), "issuer".into()];
            return wrong(path, "is not 1 to 256 bytes", "give it as requests have it");
        }
    }
    if entry.waive.is_none() && entry.freeze.is_none() {
        let hint = "add `waive`, `freeze` or both, or leave the approver out";
        return wrong(vec!["name".into()], "is of an approver that may do nothing", hint);
    }
    entry.waive.as_ref().map_or(Ok(()), check_grant)
}

fn check_grant(grant: &WaiveGrant) -> Result<(), Wrong> {
    let at = |field: &str| vec![Step::from("waive"), field.into()];
    let wrong = |path: Vec<Step>, message: &str, hint| Err((path, message.to_owned(), hint));
    if grant.lifts.is_empty() {
        let hint = "name the codes that it may lift, by policy";
        return wrong(at("lifts"), "is empty", hint);
    }
    for (policy, codes) in &grant.lifts {
        let mut path = at("lifts");
        path.push(policy.as_str().into());
        if policy.as_str() == ENGINE {
            let hint = "name policies: what the engine itself denies is never lifted";
            return wrong(path, "is the engine", hint);
        }
        if codes.is_empty() || codes.len() > MAX_NAMES {
            return wrong(path, "does not name 1 to 1024 codes", "name the codes one by one");
        }
    }
    if !(1..=MAX_WAIVER_SECONDS).contains(&grant.max_seconds) {
        let hint = "give 1 to 7776000 seconds, 90 days; for longer, change the policy";
        return wrong(at("max_seconds"), "is out of range", hint);
    }
    if !(1..=MAX_WAIVER_USES).contains(&grant.max_uses) {
        return wrong(at("max_uses"), "is out of range", "give 1 to 1000");
    }
    if grant.max_gpu_count == Some(0) {
        return wrong(at("max_gpu_count"), "is 0", "leave it out, or give 1 or more");
    }
    if grant.max_duration_seconds == Some(0) {
        return wrong(at("max_duration_seconds"), "is 0", "leave it out, or give 1 or more");
    }
    Ok(())
}
