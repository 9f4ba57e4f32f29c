//! Archives of bundles: right ones, ones with hostile entries, and ones with wounds.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use super::damage::{damaged, spoiled};
use crate::tar::{compressed, entry, tar};

const MANIFEST: &str = "schema: placet.bundle/v1\nrevision: \"1\"\nrequired: {lease: [p]}\n\
    policies:\n  - name: p\n    source: p.rego\n    params: {limit: 8}\n    \
    select: {kinds: [lease], tenants: [acme]}\n    level: mandatory\n    mode: enforce\n    \
    budget: {ticks: 1000}\n";
const POLICY: &str = "package placet.p\n\ndeny contains {\"code\": \"NO\", \"message\": \"no\"} if \
    input.lease.gpu_count > 8\n";

/// What a manifest gives a meaning to, and what none should have.
const WORDS: [&str; 24] = [
    "p",
    "q",
    "placet",
    "p.rego",
    "p.wasm",
    "../p.rego",
    "/p.rego",
    "bundle.yaml",
    "cases/p.yaml",
    "0",
    "-1",
    "2000001",
    "1e3",
    "9007199254740992",
    "null",
    "[]",
    "{}",
    "&a ",
    "*a",
    "lease",
    "job",
    "shadow",
    "advisory",
    "\n",
];

/// Kinds of entries: a file in two spellings, links, devices, directories, a fifo, and the
/// extensions of pax and GNU.
const KINDS: &[u8] = b"0\x00000001234567gxLKSZ";

/// Names that lead out of a bundle, are not plain, or are too long or too deep.
const NAMES: [&str; 18] = [
    "bundle.yaml",
    "./bundle.yaml",
    "p.rego",
    "p.rego/x",
    "bundle.sig",
    "cases/a.yaml",
    "../p.rego",
    "/etc/passwd",
    "a/../p.rego",
    "a//b",
    "a/./b",
    "a\\b",
    "a\nb",
    "",
    ".",
    "a/",
    "1/2/3/4/5/6/7/8/9/10/11/12/13/14/15/16/17/18/19",
    "x\u{e9}",
];

/// A right bundle, as a tar archive that is not compressed.
pub(crate) fn plain() -> Vec<u8> {
    tar(&[
        entry("bundle.yaml", b'0', MANIFEST.as_bytes()),
        entry("p.rego", b'0', POLICY.as_bytes()),
    ])
}

/// Archives, compressed or not.
pub fn archive() -> impl Strategy<Value = Vec<u8>> {
    let manifest = prop_oneof![
        2 => Just(MANIFEST.to_owned()).boxed(),
        1 => spoiled(Just(MANIFEST.to_owned()), &WORDS).boxed(),
    ];
    let name = prop_oneof![
        8 => select(NAMES.to_vec()).prop_map(str::to_owned),
        2 => "[a-z]{1,8}(/[a-z]{1,8}){0,3}\\.(rego|yaml)",
        1 => "[a-z]{99,101}",
    ];
    let content = prop_oneof![4 => ".{0,40}", 1 => "[0-9]{1,2} path=[a-z./]{1,20}\n"];
    let others = vec((name, select(KINDS.to_vec()), content), 0..4);
    let entries = (manifest, others, any::<bool>()).prop_map(|(manifest, others, last)| {
        let mut entries = vec![
            entry("bundle.yaml", b'0', manifest.as_bytes()),
            entry("p.rego", b'0', POLICY.as_bytes()),
        ];
        for (name, kind, content) in others {
            let one = entry(&name, kind, content.as_bytes());
            entries.insert(if last { entries.len() } else { 0 }, one);
        }
        tar(&entries)
    });
    let entries = entries.boxed();
    prop_oneof![
        4 => entries.clone(),
        4 => damaged(entries.clone()),
        2 => entries.clone().prop_map(|bytes| compressed(&bytes)),
        1 => damaged(entries.prop_map(|bytes| compressed(&bytes))),
    ]
}
