//! Facts, requests as JSON, and tokens: documents that people and programs write.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use placet_proto::json;
use proptest::prelude::*;

use super::damage::{damaged, spoiled};
use super::request::admit_request;
use crate::oracles::sample;

/// Small facts, right in every respect.
pub(crate) const FACTS: &str = include_str!("../../corpus/facts/small.yaml");

/// What YAML, JSON and the facts give a meaning to, and numbers at the edges.
const WORDS: [&str; 58] = [
    "0",
    "-1",
    "1",
    "1000",
    "4294967295",
    "4294967296",
    "9007199254740991",
    "9007199254740992",
    "18446744073709551616",
    "1e3",
    "0.5",
    "0x10",
    "0o17",
    "1_000",
    ".nan",
    ".inf",
    "~",
    "null",
    "true",
    "NO",
    "{}",
    "[]",
    "[[[[[[[[[[[[[[[[",
    "{a: ",
    "&a ",
    "*a",
    "<<: ",
    "!!str ",
    "!!int ",
    "!x ",
    "? ",
    "- ",
    ": ",
    "| ",
    "> ",
    "# ",
    "--- ",
    "...",
    "\n",
    "\t",
    "\"",
    "'",
    "\\u0000",
    "\\ud800",
    "{month}",
    "2026-11",
    "tenant/acme/gpu",
    "tenant/{month}/{month}",
    "cluster/c-1/gpu/H100",
    "cluster/c-1/fabric-gbps",
    "nobody/has/this",
    "acme",
    "lab",
    "c-1",
    "H100",
    "level",
    "budget",
    "gpu-second",
];

/// Facts, in YAML or JSON.
#[expect(clippy::missing_panics_doc, reason = "the sample is YAML, whoever asks")]
pub fn facts() -> impl Strategy<Value = Vec<u8>> {
    let json = || {
        let value: serde_json::Value = yaml_serde::from_str(FACTS).expect("the sample is YAML");
        format!("{value:#}")
    };
    let either = prop_oneof![3 => Just(FACTS.to_owned()), 1 => Just(json())];
    let text = spoiled(either, &WORDS).prop_map(String::into_bytes).boxed();
    prop_oneof![6 => text.clone(), 1 => damaged(text)]
}

/// Requests in their JSON form.
pub fn request_json() -> impl Strategy<Value = Vec<u8>> {
    let text = admit_request().prop_map(|request| json::to_json(&request).to_string());
    let text = spoiled(text, &WORDS).prop_map(String::into_bytes).boxed();
    prop_oneof![2 => text.clone(), 1 => damaged(text)]
}

/// Tokens: the genuine one with wounds in one of its parts, claims, and what only looks like one.
#[expect(clippy::missing_panics_doc, reason = "the claims are text, whoever asks")]
pub fn token() -> impl Strategy<Value = Vec<u8>> {
    let (genuine, claims) = sample();
    let parts: Vec<String> = genuine.split('.').map(str::to_owned).collect();
    let inside = (0..parts.len()).prop_flat_map(move |at| {
        let encoded = parts.get(at).cloned().unwrap_or_default();
        let part = URL_SAFE_NO_PAD.decode(encoded).expect("the genuine token is base64url");
        let parts = parts.clone();
        damaged(Just(part)).prop_map(move |part| {
            let mut parts = parts.clone();
            if let Some(place) = parts.get_mut(at) {
                *place = URL_SAFE_NO_PAD.encode(part);
            }
            parts.join(".").into_bytes()
        })
    });
    let claims = String::from_utf8(claims).expect("claims are JSON");
    let claims = spoiled(Just(claims), &WORDS).prop_map(String::into_bytes).boxed();
    prop_oneof![
        3 => inside,
        2 => damaged(Just(genuine.into_bytes())),
        3 => claims.clone(),
        1 => damaged(claims),
        1 => "(eyJ[A-Za-z0-9_-]{0,80}\\.){0,3}[A-Za-z0-9_-]{0,90}|.{0,60}"
            .prop_map(String::into_bytes),
    ]
}
