//! The files of each scaffold.
//!
//! All of them hold one small policy that is worth reading: how long work may run, by params.

use placet_proto::schema;

use super::name::Name;
use super::write::Files;

const ENTRY: &str = include_str!("template/entry.yaml");
const PARAMS: &str = include_str!("template/params.yaml");
/// Where a bundle's editors find the schemas of its files.
pub(super) const SCHEMAS: &str = ".schemas";
/// What a policy of the scaffolds is called where only the bundle has a name.
const FIRST: &str = "duration";
/// The lock file of the shipped guests: a new one builds from the same versions.
const LOCK: &str = include_str!("../../../../../policies/guests/residency/Cargo.lock");
const LOCKED: &str = "placet-policy-residency";

/// What the cases of a policy hold on to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Setting {
    /// The facts of the bundle, and nobody else has a say.
    Shared,
    /// Facts of their own, and nobody else has a say.
    OwnFacts,
    /// Facts of their own, and only the policy's own verdict counts: other policies deny, too.
    OwnVerdict,
}

/// The policy of a new bundle.
pub(super) fn first() -> Name {
    Name::known(FIRST)
}

/// A bundle with one policy in Rego.
pub(super) fn bundle(name: &Name) -> Files {
    let policy = first();
    let mut files = surroundings(&policy, &manifest(&policy, "rego", ""));
    files.insert("README.md".into(), fill(include_str!("template/README.md"), name));
    files.insert("requests/lease.json".into(), include_str!("template/lease.json").into());
    let folder = policy.as_str();
    for (path, text) in rego(&policy, Setting::Shared, true) {
        files.insert(format!("{folder}/{path}"), text);
    }
    files
}

/// The folder of a policy in Rego.
pub(super) fn rego(name: &Name, setting: Setting, schemas: bool) -> Files {
    let at = name.as_str();
    let mut files = checked(name, setting, schemas);
    files.insert(format!("{at}.rego"), fill(include_str!("template/policy.rego"), name));
    files.insert(format!("{at}_test.rego"), fill(include_str!("template/policy_test.rego"), name));
    files
}

/// The entry of a policy in the manifest.
pub(super) fn entry(name: &Name, ending: &str, metadata: &str) -> String {
    let path = |ending: &str| name.yaml(&format!("/{}.{ending}", name.as_str()));
    let entry = fill(ENTRY, name);
    let entry = entry.replace("@source@", &path(ending)).replace("@schema@", &path("schema.json"));
    format!("{entry}{metadata}{PARAMS}")
}

/// A crate with a policy in Rust, and the bundle that tests it. `sdk` is the path of the crate that
/// it links.
pub(super) fn wasm(name: &Name, sdk: &str) -> Files {
    let krate = name.package_of_cargo();
    let metadata = include_str!("template/wasm/metadata.yaml");
    let mut files = Files::new();
    let manifest = fill(include_str!("template/wasm/crate.toml"), name);
    files.insert("Cargo.toml".into(), manifest.replace("@sdk@", sdk));
    let lock = LOCK.replace(LOCKED, &format!("placet-policy-{krate}"));
    files.insert("Cargo.lock".into(), lock);
    files.insert(".gitignore".into(), "/target/\n".into());
    files.insert("src/lib.rs".into(), include_str!("template/wasm/lib.rs").into());
    files.insert("README.md".into(), fill(include_str!("template/wasm/README.md"), name));
    for (path, text) in surroundings(name, &self::manifest(name, "wasm", metadata)) {
        files.insert(format!("bundle/{path}"), text);
    }
    for (path, text) in checked(name, Setting::Shared, true) {
        files.insert(format!("bundle/{}/{path}", name.as_str()), text);
    }
    files
}

fn manifest(policy: &Name, ending: &str, metadata: &str) -> String {
    let head = fill(include_str!("template/bundle.yaml"), policy);
    format!("{head}{}", entry(policy, ending, metadata))
}

/// What a bundle has beside its policies.
fn surroundings(policy: &Name, manifest: &str) -> Files {
    let mut files = Files::new();
    for (what, text) in
        [("bundle", schema::BUNDLE), ("cases", schema::CASES), ("facts", schema::FACTS)]
    {
        files.insert(format!("{SCHEMAS}/{what}.schema.json"), text.into());
    }
    let facts = fill(include_str!("template/facts.yaml"), policy);
    files.insert("facts.yaml".into(), for_editors("", "facts", &facts));
    files.insert("bundle.yaml".into(), for_editors("", "bundle", manifest));
    files
}

/// What a policy has beside its source, in whichever language.
fn checked(name: &Name, setting: Setting, schemas: bool) -> Files {
    let at = name.as_str();
    let (permit, deny) = match setting {
        Setting::Shared | Setting::OwnFacts => (
            "{effect: PERMIT, codes: []}".to_owned(),
            "{effect: DENY, codes: [DURATION_ABOVE_MAXIMUM]}".to_owned(),
        ),
        Setting::OwnVerdict => {
            let verdict = |verdict| format!("{{verdicts: {{{}: {verdict}}}}}", name.yaml(""));
            (verdict("PERMIT"), verdict("DENY"))
        }
    };
    let facts = if setting == Setting::Shared { "../../facts.yaml" } else { "../facts.yaml" };
    let cases = fill(include_str!("template/cases.yaml"), name)
        .replace("@facts@", facts)
        .replace("@permit@", &permit)
        .replace("@deny@", &deny);
    let cases = if schemas { for_editors("../../", "cases", &cases) } else { cases };
    let mut files = Files::new();
    files.insert(format!("cases/{at}.yaml"), cases);
    let params = fill(include_str!("template/policy.schema.json"), name);
    files.insert(format!("{at}.schema.json"), params);
    if setting != Setting::Shared {
        let facts = fill(include_str!("template/facts.yaml"), name);
        let facts = if schemas { for_editors("../", "facts", &facts) } else { facts };
        files.insert("facts.yaml".into(), facts);
    }
    files
}

/// A YAML file with the line that names its schema to editors.
fn for_editors(up: &str, what: &str, text: &str) -> String {
    format!("# yaml-language-server: $schema={up}{SCHEMAS}/{what}.schema.json\n{text}")
}

fn fill(template: &str, name: &Name) -> String {
    template
        .replace("@name@", name.as_str())
        .replace("@key@", &name.yaml(""))
        .replace("@package@", &name.package())
        .replace("@crate@", &name.package_of_cargo())
}
