//! The format of `bundle.yaml`.

use placet_core::{Code, Id, Level, Mode, PriorityClass, SubjectKind};
use schemars::JsonSchema;
use serde::de::Deserializer;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::written::Written;
use crate::facts::MAX_REVISION_BYTES;
use crate::metadata::Metadata;
use crate::rego::{DEFAULT_TICKS, MAX_TICKS};
use crate::wasm::{DEFAULT_FUEL, DEFAULT_MEMORY_BYTES, MAX_FUEL, MAX_MEMORY_BYTES, WasmBudget};

/// Most policies of a bundle: each worker thread has its own engine for each that it was asked.
pub(super) const MAX_POLICIES: usize = 1_024;

/// Begins the codes that policies give when their params make no sense: never lifted, since such a
/// policy may not have looked at anything else.
pub(crate) const PARAMS_CODES: &str = "PARAMS_";
/// Most codes of a policy that can be lifted: more than any policy has.
pub(super) const MAX_WAIVABLE: usize = 256;

/// The manifest of a bundle of policies, `bundle.yaml`.
#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(title = "Bundle")]
#[serde(deny_unknown_fields)]
pub(crate) struct Manifest {
    /// Version of this format.
    #[serde(rename = "schema")]
    _schema: BundleSchema,
    /// Names this state of the bundle for people, such as a date or a version: 1 to 128 bytes.
    #[schemars(length(min = 1, max = MAX_REVISION_BYTES))]
    pub(crate) revision: String,
    /// Policies without which nothing is admitted.
    #[serde(default)]
    pub(crate) required: Required,
    /// The policies, each name once.
    #[schemars(length(min = 1, max = MAX_POLICIES))]
    pub(crate) policies: Vec<Entry>,
}

/// Version of the format.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
enum BundleSchema {
    /// The first.
    #[serde(rename = "placet.bundle/v1")]
    V1,
}

/// Policies without which nothing is admitted, by kind of subject: each must select the request, be
/// enforced, not be advisory, and have an opinion.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Required {
    /// Names of policies that every lease needs.
    #[serde(default)]
    pub(crate) lease: Vec<Id>,
    /// Names of policies that every job needs.
    #[serde(default)]
    pub(crate) job: Vec<Id>,
}

impl Required {
    pub(crate) fn of(&self, kind: SubjectKind) -> &[Id] {
        match kind {
            SubjectKind::Lease => &self.lease,
            SubjectKind::Job => &self.job,
        }
    }
}

/// One policy.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Entry {
    /// Names the policy in decisions, reasons and metrics. Not `placet`, which is the engine.
    pub(crate) name: Id,
    /// Path of its source in the bundle: a `.rego` file, or a `.wasm` component.
    pub(crate) source: String,
    /// Path of the same policy in the other language, which must give the same verdicts on all
    /// cases. Only tests evaluate it.
    #[serde(default)]
    pub(crate) twin: Option<String>,
    /// What the policy reads as `data.params`, exactly as written: nothing is filled in. Numbers
    /// are at most 2^53 - 1 in size.
    #[serde(default, deserialize_with = "written")]
    pub(crate) params: Map<String, Value>,
    /// Path in the bundle of a JSON Schema (2020-12, in JSON or YAML) that the params must keep to.
    #[serde(default)]
    pub(crate) params_schema: Option<String>,
    /// Which requests the policy is asked about.
    #[serde(default)]
    pub(crate) select: Selector,
    /// Whether its denial can be lifted.
    #[serde(default = "mandatory")]
    pub(crate) level: Level,
    /// Which of its denials a waiver can lift, by code, each once; all of them if absent. Only with
    /// level `overridable`.
    #[serde(default)]
    #[schemars(length(max = MAX_WAIVABLE))]
    pub(crate) waivable: Option<Vec<Code>>,
    /// Whether its verdict counts.
    #[serde(default = "enforce")]
    pub(crate) mode: Mode,
    /// What one evaluation of it may use.
    #[serde(default)]
    pub(crate) budget: Budget,
    /// What the policy says of itself. For a component; Rego says it in its annotations.
    #[serde(default)]
    pub(crate) metadata: Option<Metadata>,
}

fn mandatory() -> Level {
    Level::Mandatory
}

fn enforce() -> Mode {
    Mode::Enforce
}

fn written<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Map<String, Value>, D::Error> {
    match Written::deserialize(deserializer)?.0 {
        Value::Object(params) => Ok(params),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            Err(serde::de::Error::custom("params are not a mapping of names to values"))
        }
    }
}

/// Which requests a policy is asked about: those that every list names. An empty list is any.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Selector {
    /// Kinds of subject.
    #[serde(default)]
    pub kinds: Vec<SubjectKind>,
    /// Ids of tenants.
    #[serde(default)]
    pub tenants: Vec<Id>,
    /// Ids of clusters.
    #[serde(default)]
    pub clusters: Vec<Id>,
    /// Jurisdictions of the cluster: ISO 3166-1 alpha-2 codes, such as DE.
    #[serde(default)]
    pub jurisdictions: Vec<Id>,
    /// Priority classes.
    #[serde(default)]
    pub priority_classes: Vec<PriorityClass>,
}

/// What one evaluation may use; what is absent has its default.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Budget {
    /// Ticks of the Rego interpreter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = MAX_TICKS))]
    pub ticks: Option<u64>,
    /// Fuel of a Wasm guest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = MAX_FUEL))]
    pub fuel: Option<u64>,
    /// Bytes of a Wasm guest's memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = MAX_MEMORY_BYTES))]
    pub memory_bytes: Option<u64>,
}

impl Budget {
    pub(crate) fn ticks(self) -> u64 {
        self.ticks.unwrap_or(DEFAULT_TICKS)
    }

    pub(crate) fn wasm(self) -> WasmBudget {
        WasmBudget {
            fuel: self.fuel.unwrap_or(DEFAULT_FUEL),
            memory_bytes: self.memory_bytes.unwrap_or(DEFAULT_MEMORY_BYTES),
        }
    }

    /// The same with the defaults of a language written out.
    pub(super) fn resolved(self, language: Language) -> Self {
        let WasmBudget { fuel, memory_bytes } = self.wasm();
        match language {
            Language::Rego => Self { ticks: Some(self.ticks()), ..Self::default() },
            Language::Wasm => {
                Self { ticks: None, fuel: Some(fuel), memory_bytes: Some(memory_bytes) }
            }
        }
    }
}

/// The languages of policies, by the ending of the file's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Language {
    /// Rego, in `.rego` files.
    Rego,
    /// WebAssembly components, in `.wasm` files.
    Wasm,
}

impl Language {
    pub(crate) fn of(file: &str) -> Option<Self> {
        match file.rsplit_once('.')?.1 {
            "rego" => Some(Self::Rego),
            "wasm" => Some(Self::Wasm),
            _ => None,
        }
    }
}
