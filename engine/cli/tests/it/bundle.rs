//! Bundles as files: built, inspected, signed, verified, and used.

use std::fs;
use std::path::Path;

use serde_json::Value;
use tempfile::TempDir;

use crate::running::{Ran, run};

const MANIFEST: &str = "\
schema: placet.bundle/v1
revision: \"7\"
required: {lease: [limit]}
policies:
  - name: limit
    source: limit.rego
    params: {most: 8}
    params_schema: limit.schema.json
    select: {kinds: [lease], jurisdictions: [DE, FR]}
";
const POLICY: &str = "\
package placet.limit

deny contains {\"code\": \"TOO_MANY\", \"message\": \"too many\"} if {
\tinput.lease.gpu_count > data.params.most
}
";
const SCHEMA: &str = "\
{
  \"type\": \"object\",
  \"properties\": {
    \"most\": {
      \"description\": \"GPUs, 1 to 64.\", \"type\": \"integer\", \"minimum\": 1, \"maximum\": 64
    }
  },
  \"required\": [\"most\"],
  \"additionalProperties\": false
}
";

fn write(directory: &Path, path: &str, text: &str) {
    let path = directory.join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

/// A small bundle in the directory `b` of a fresh directory.
fn small() -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    let bundle = directory.path().join("b");
    write(&bundle, "bundle.yaml", MANIFEST);
    write(&bundle, "limit.rego", POLICY);
    write(&bundle, "limit.schema.json", SCHEMA);
    directory
}

/// Runs `placet bundle` with paths that begin with `@/` taken from a directory.
fn bundle(directory: &Path, args: &[&str]) -> Ran {
    let root = format!("{}/", directory.display());
    let args = args.iter().map(|arg| arg.replace("@/", &root));
    run(["bundle".to_owned()].into_iter().chain(args))
}

/// A key in `keys`, and its JWK set in `jwks.json`; its id.
fn key(directory: &Path) -> String {
    let keys = directory.join("keys");
    let keys = keys.to_str().unwrap();
    let made = run(["keys", "generate", "--keys", keys, "--format", "json"]);
    assert_eq!(made.code, 0, "{}", made.stderr);
    let jwks = run(["keys", "jwks", "--keys", keys]);
    fs::write(directory.join("jwks.json"), jwks.stdout).unwrap();
    json(&made.stdout)["kid"].as_str().unwrap().to_owned()
}

fn json(line: &str) -> Value {
    serde_json::from_str(line).unwrap()
}

const KEY: &str = "@/keys/signing-key.pkcs8";

#[test]
fn a_bundle_is_built_inspected_signed_and_verified() {
    let directory = small();
    let at = directory.path();
    let root = at.to_str().unwrap().to_owned();
    let replace = [(root.as_str(), "DIR")];
    let built = bundle(at, &["build", "@/b", "--output", "@/b.tar.gz"]);
    insta::assert_snapshot!(built.shown(&replace), @r"
    exit 0
    --- stdout
    sha256:07ca53a6f5be6189f6454e253a98ce0c08fea562f6682f7564b61095e36e2994
    --- stderr
    wrote DIR/b.tar.gz: 3 files in 485 bytes, it has no cases
    ");
    let inspected = bundle(at, &["inspect", "@/b.tar.gz"]);
    insta::assert_snapshot!(inspected.shown(&replace), @r"
    exit 0
    --- stdout
    digest sha256:07ca53a6f5be6189f6454e253a98ce0c08fea562f6682f7564b61095e36e2994
     revision              7
     signature             none
     required for a lease  limit
     required for a job    none
     files                 3, 0 of them of cases, 566 bytes in all

    limit
      sha256:7f9d0359c740cda5dfef3ba16cf8a0a4f218ea13fc9113b94cc9849638fd8d18
       source   limit.rego, Rego
       level    mandatory, mode enforce
       selects  jurisdictions DE, FR; kinds lease
       budget   100000 ticks
       params   as limit.schema.json says
    --- stderr
    ");
    assert_eq!(bundle(at, &["inspect", "@/b"]).stdout, inspected.stdout);

    let kid = key(at);
    let replace = [(root.as_str(), "DIR"), (kid.as_str(), "KID")];
    let unsigned = bundle(at, &["verify", "@/b.tar.gz", "--keys", "@/jwks.json"]);
    insta::assert_snapshot!(unsigned.shown(&replace), @r"
    exit 3
    --- stdout
    --- stderr
    error: `DIR/b.tar.gz` has no signature
     hint: sign it with `placet bundle sign`, or ask for the signed bundle
    ");
    let signed = bundle(at, &["sign", "@/b.tar.gz", "--key", KEY, "--at", "1795262400"]);
    insta::assert_snapshot!(signed.shown(&replace), @r"
    exit 0
    --- stdout
    sha256:07ca53a6f5be6189f6454e253a98ce0c08fea562f6682f7564b61095e36e2994
    --- stderr
    signed by KID
    ");
    let verified = bundle(at, &["verify", "@/b.tar.gz", "--keys", "@/jwks.json"]);
    insta::assert_snapshot!(verified.shown(&replace), @r"
    exit 0
    --- stdout
    digest sha256:07ca53a6f5be6189f6454e253a98ce0c08fea562f6682f7564b61095e36e2994
     revision   7
     signed by  KID
     at         2026-11-21T12:00:00Z
    --- stderr
    verified
    ");
    assert!(
        fs::read_dir(at)
            .unwrap()
            .all(|entry| { !entry.unwrap().file_name().to_str().unwrap().starts_with(".placet-") })
    );
}

#[test]
fn the_same_directory_gives_the_same_bytes() {
    let directory = small();
    let at = directory.path();
    for output in ["@/one", "@/two"] {
        let built = bundle(at, &["build", "@/b", "-o", output]);
        assert_eq!(built.code, 0, "{}", built.stderr);
    }
    assert_eq!(fs::read(at.join("one")).unwrap(), fs::read(at.join("two")).unwrap());
    // Signing is as repeatable, of a directory and of an archive.
    key(at);
    for path in ["@/one", "@/two", "@/b", "@/b"] {
        let signed = bundle(at, &["sign", path, "--key", KEY]);
        assert_eq!(signed.code, 0, "{}", signed.stderr);
    }
    assert_eq!(fs::read(at.join("one")).unwrap(), fs::read(at.join("two")).unwrap());
    let built = bundle(at, &["build", "@/b", "-o", "@/three", "--format", "json"]);
    assert_eq!(json(&built.stdout)["signed"], true);
    assert_eq!(fs::read(at.join("one")).unwrap(), fs::read(at.join("three")).unwrap());
}

#[test]
fn what_was_changed_after_signing_is_found() {
    let directory = small();
    let at = directory.path();
    let kid = key(at);
    let signed = bundle(at, &["sign", "@/b", "--key", KEY, "--format", "json"]);
    assert_eq!(json(&signed.stdout)["kid"], kid.as_str());
    let inspect = |more: &[&str]| {
        let args = [&["inspect", "@/b", "--format", "json"], more].concat();
        json(&bundle(at, &args).stdout)["signature"].clone()
    };
    assert_eq!(inspect(&[]), serde_json::json!({"state": "unchecked", "kid": kid}));
    assert_eq!(inspect(&["--keys", "@/jwks.json"])["state"], "valid");
    write(&at.join("b"), "limit.rego", &POLICY.replace(" > ", " >= "));
    assert_eq!(inspect(&["--keys", "@/jwks.json"])["state"], "invalid");
    let verified = bundle(at, &["verify", "@/b", "--keys", "@/jwks.json"]);
    let (root, kid) = (at.to_str().unwrap(), kid.as_str());
    insta::assert_snapshot!(verified.shown(&[(root, "DIR"), (kid, "KID")]), @r"
    exit 3
    --- stdout
    --- stderr
    error: the signature of `DIR/b` is of the bundle sha256:07ca53a6f5be6189f6454e253a98ce0c08fea562f6682f7564b61095e36e2994, this one is sha256:94ea2bfa126bb932a3b79d241b968b091b71d488045ea9f2af6c2706a139895c
     hint: a file was changed after signing; ask for the signed files, or sign again
    ");

    // Signed again, but by somebody whom nobody trusts.
    let other = small();
    key(other.path());
    let stranger = other.path().join("keys/signing-key.pkcs8");
    let signed = bundle(at, &["sign", "@/b", "--key", stranger.to_str().unwrap()]);
    assert_eq!(signed.code, 0, "{}", signed.stderr);
    let verified = bundle(at, &["verify", "@/b", "--keys", "@/jwks.json"]);
    assert_eq!((verified.code, verified.stdout.as_str()), (3, ""));
    assert!(verified.stderr.contains("which is not in the JWK set"), "{}", verified.stderr);
}

#[test]
fn wrong_params_are_refused_at_their_place() {
    let directory = small();
    let at = directory.path();
    let manifest = MANIFEST.replace("most: 8", "most: 65");
    write(&at.join("b"), "bundle.yaml", &manifest);
    let built = bundle(at, &["build", "@/b", "-o", "@/b.tar.gz"]);
    insta::assert_snapshot!(built.shown(&[]), @r"
    exit 3
    --- stdout
    --- stderr
    error: bundle.yaml:7:20: `params.most` of policy `limit` does not fit: 65 is greater than the maximum of 64
     hint: `limit.schema.json` says: GPUs, 1 to 64
    ");
    assert!(!at.join("b.tar.gz").exists());
}

#[test]
fn a_case_that_fails_keeps_the_archive_from_being_written() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    let shipped = crate::server::root().join("policies/reference");
    for (from, to) in [("quota/quota.rego", "quota.rego"), ("facts.yaml", "facts.yaml")] {
        write(&at.join("b"), to, &fs::read_to_string(shipped.join(from)).unwrap());
    }
    let manifest = "schema: placet.bundle/v1\nrevision: \"1\"\n\
        policies: [{name: quota, source: quota.rego}]\n";
    write(&at.join("b"), "bundle.yaml", manifest);
    let cases = "facts: ../facts.yaml\ncases:\n  - name: no class is listed\n    \
        time: 1795262400\n    request: {request_id: r, tenant_id: polder-vision, \
        priority_class: EXTERNAL_COMMERCIAL, lease: {cluster_id: de-fra-1, gpu_count: 8, \
        duration_seconds: 3600, isolation_level: PARTITIONED, gpu_models: [H100]}}\n    \
        expect: {effect: PERMIT}\n";
    write(&at.join("b"), "cases/quota.yaml", cases);
    let built = bundle(at, &["build", "@/b", "-o", "@/b.tar.gz"]);
    insta::assert_snapshot!(built.shown(&[(at.to_str().unwrap(), "DIR")]), @r"
    exit 1
    --- stdout
    --- stderr
    FAIL  cases/quota.yaml: no class is listed
          effect: Deny, not Permit
    error: 1 of 1 cases failed; nothing was written
     hint: mend the policies or the cases, see `placet test DIR/b`
    ");
    assert!(!at.join("b.tar.gz").exists());
    let untested = bundle(at, &["build", "@/b", "-o", "@/b.tar.gz", "--no-cases"]);
    assert_eq!(untested.code, 0, "{}", untested.stderr);
    assert!(untested.stderr.contains("no case was run"), "{}", untested.stderr);
    // The facts of cases are in the bundle, or the bundle is wrong.
    write(&at.join("b"), "cases/quota.yaml", &cases.replace("../facts", "../../facts"));
    let outside = bundle(at, &["build", "@/b", "-o", "@/c.tar.gz"]);
    insta::assert_snapshot!(outside.shown(&[]), @r"
    exit 3
    --- stdout
    --- stderr
    error: cases/quota.yaml:1:8: facts `../../facts.yaml` leave the bundle
     hint: give a path from the directory of the cases on, inside the bundle
    ");
}

#[test]
fn misuse_is_told_with_a_remedy() {
    let directory = small();
    let at = directory.path();
    let replace = [(at.to_str().unwrap(), "DIR")];
    let inside = bundle(at, &["build", "@/b", "-o", "@/b/b.tar.gz"]);
    insta::assert_snapshot!(inside.shown(&replace), @r"
    exit 64
    --- stdout
    --- stderr
    error: `DIR/b/b.tar.gz` would become a part of the bundle itself
     hint: write the archive outside of the bundle's directory
    ");
    let nowhere = bundle(at, &["build", "@/b", "-o", "@/no/b.tar.gz"]);
    assert_eq!(nowhere.code, 1, "{}", nowhere.stderr);
    assert!(nowhere.stderr.contains(" hint: "), "{}", nowhere.stderr);
    let manifest = bundle(at, &["inspect", "@/b/bundle.yaml"]);
    insta::assert_snapshot!(manifest.shown(&replace), @r"
    exit 3
    --- stdout
    --- stderr
    error: DIR/b/bundle.yaml: is neither a directory nor an archive of a bundle
     hint: name the directory that holds `bundle.yaml`, or what `placet bundle build` wrote
    ");
    let absent = bundle(at, &["inspect", "@/none"]);
    assert_eq!((absent.code, absent.stdout.as_str()), (1, ""), "{}", absent.stderr);
    let no_key = bundle(at, &["sign", "@/b", "--key", "@/b"]);
    insta::assert_snapshot!(no_key.shown(&replace), @r"
    exit 64
    --- stdout
    --- stderr
    error: `DIR/b` is not a file
     hint: name the file of the key, such as DIR/b/signing-key.pkcs8
    ");
    key(at);
    let file = at.join("keys/signing-key.pkcs8");
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o644);
    fs::set_permissions(&file, open).unwrap();
    let exposed = bundle(at, &["sign", "@/b", "--key", KEY]);
    insta::assert_snapshot!(exposed.shown(&replace), @r"
    exit 1
    --- stdout
    --- stderr
    error: `DIR/keys/signing-key.pkcs8` is open to others (mode 644)
     hint: chmod 600 DIR/keys/signing-key.pkcs8
    ");
    fs::write(at.join("broken"), b"\x1f\x8b\x08 broken").unwrap();
    let broken = bundle(at, &["inspect", "@/broken"]);
    assert_eq!(broken.code, 3, "{}", broken.stderr);
}

#[test]
fn an_archive_serves_wherever_a_directory_does() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    let built = bundle(at, &["build", "policies/reference", "-o", "@/r.tar.gz"]);
    assert_eq!(built.code, 0, "{}", built.stderr);
    let archive = at.join("r.tar.gz");
    let archive = archive.to_str().unwrap();
    let tested = [run(["test", "policies/reference"]), run(["test", archive])];
    assert_eq!(tested[0].code, 0, "{}", tested[0].stderr);
    assert_eq!(tested[0].stdout, tested[1].stdout);
    let facts = ["--facts", "policies/reference/facts.yaml"];
    let request = "policies/requests/lease-permitted.json";
    let explained: Vec<_> = ["policies/reference", archive]
        .into_iter()
        .map(|bundle| {
            let args = ["explain", "--local", "--format", "json", "--bundle", bundle, request];
            let ran = run(args.into_iter().chain(facts));
            assert_eq!(ran.code, 0, "{}", ran.stderr);
            json(&ran.stdout)["evaluation"].clone()
        })
        .collect();
    // The same digest, the same verdicts, the same cost.
    assert_eq!(explained[0], explained[1]);
    let digest = built.stdout.trim();
    assert_eq!(explained[0]["bundle"], digest);
    let args = ["admit", "--local", "--bundle", archive, request];
    assert_eq!(run(args.into_iter().chain(facts)).code, 0);
}

const CATALOGUE: [&str; 4] =
    ["catalogue", "policies/reference", "--output", "policies/catalogue.md"];

#[test]
fn the_catalogue_is_current() {
    let page = fs::read_to_string(crate::server::root().join("policies/catalogue.md"));
    let made = run(["bundle", "catalogue", "policies/reference"]);
    assert_eq!((made.code, made.stderr.as_str()), (0, ""));
    let command = format!("placet bundle {}", CATALOGUE.join(" "));
    assert!(page.is_ok_and(|page| page == made.stdout), "it is stale: run `{command}`");
}

#[test]
fn the_catalogue_of_a_small_bundle() {
    let directory = small();
    let at = directory.path();
    let policy = "\
# METADATA
# title: Limits
# description: At most so many | <now>.
# custom:
#   owner: quota-team
#   controls: [\"SOC2:A1.1\"]
package placet.limit

# METADATA
# title: Too many
# custom:
#   code: TOO_MANY
#   controls: [\"ISO27001:A.8.6\"]
deny contains {\"code\": \"TOO_MANY\", \"message\": \"too many\"} if {
\tinput.lease.gpu_count > data.params.most
}

# METADATA
# title: What is held
# custom:
#   account: tenant/<tenant>/gpu
#   code: NO_ROOM
claims contains {\"account\": sprintf(\"tenant/%s/gpu\", [input.tenant.id]), \"amount\": 1}
";
    write(&at.join("b"), "limit.rego", policy);
    let made = bundle(at, &["catalogue", "@/b"]);
    insta::assert_snapshot!(made.shown(&[]), @r"
    exit 0
    --- stdout
    # Catalogue of policies

    Made by `placet bundle catalogue`; not to be edited.

    | policy | what | owner | level | mode | needed by | written in |
    |---|---|---|---|---|---|---|
    | [limit](#limit) | Limits | quota-team | mandatory | enforce | lease | Rego |

    ## limit

    **Limits.**

    At most so many \| &lt;now>.

    |  |  |
    |---|---|
    | owner | quota-team |
    | controls | SOC2:A1.1 |
    | level, mode | mandatory, enforce |
    | needed by | lease |
    | asked about | jurisdictions DE, FR; kinds lease |
    | source | `limit.rego`, Rego |
    | twin | none |
    | displaces others | never |

    | param | is | in this bundle | meaning |
    |---|---|---|---|
    | `most` | integer, 1 to 64 | `8` | GPUs, 1 to 64. |

    | code | is a | when | controls |
    |---|---|---|---|
    | `NO_ROOM` | denial, by the ledger | What is held. |  |
    | `TOO_MANY` | denial | Too many. | ISO27001:A.8.6 |

    | claims from | what | controls |
    |---|---|---|
    | `tenant/<tenant>/gpu` | What is held. |  |
    --- stderr
    ");
    let written = bundle(at, &["catalogue", "@/b", "-o", "@/page.md"]);
    assert_eq!((written.code, written.stdout.as_str()), (0, ""));
    assert_eq!(fs::read_to_string(at.join("page.md")).unwrap(), made.stdout);
    let told = json(&bundle(at, &["catalogue", "@/b", "--format", "json"]).stdout);
    let policy = &told["policies"][0];
    assert_eq!(policy["params"][0]["shape"]["maximum"], 64);
    assert_eq!(policy["params"][0]["value"], 8);
    assert_eq!(policy["codes"][0]["says"], "NO_ROOM");
    assert_eq!(policy["codes"][0]["kind"], "claim");
    assert_eq!(policy["claims"][0]["says"], "tenant/<tenant>/gpu");
    assert_eq!(policy["preemption"], false);
    let inside = bundle(at, &["catalogue", "@/b", "-o", "@/b/page.md"]);
    assert_eq!(inside.code, 64, "{}", inside.stderr);
}
