//! What a bundle holds, for people and tools.

use placet_core::{Code, Digest, Id, Level, Mode};
use serde::Serialize;

use super::manifest::{Budget, Entry, Language, Selector};
use crate::metadata::Metadata;
use crate::rego;

/// One policy of a bundle, as its manifest has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PolicySummary {
    /// Its name.
    pub name: Id,
    /// Path of its source in the bundle.
    pub source: String,
    /// SHA-256 of its source.
    pub source_digest: Digest,
    /// What it is written in.
    pub language: Language,
    /// Path of the same policy in the other language.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub twin: Option<String>,
    /// Whether its denial can be lifted.
    pub level: Level,
    /// Which of its denials can be lifted, by code; all of them if absent and it is overridable.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub waivable: Option<Vec<Code>>,
    /// Whether its verdict counts.
    pub mode: Mode,
    /// Which requests it is asked about.
    pub select: Selector,
    /// What one evaluation of it may use, defaults written out.
    pub budget: Budget,
    /// Path in the bundle of the schema of its params.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub params_schema: Option<String>,
    /// What the policy says of itself: in its annotations, or for a component in the manifest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metadata: Option<Metadata>,
}

impl PolicySummary {
    pub(super) fn of(entry: &Entry, source: &[u8]) -> Self {
        // The manifest's check let nothing else pass.
        let language = Language::of(&entry.source).unwrap_or(Language::Rego);
        let metadata = match language {
            // What does not parse says nothing; compiling it will tell why.
            Language::Rego => std::str::from_utf8(source)
                .ok()
                .and_then(|text| rego::metadata(&entry.source, text).ok())
                .map(|metadata| metadata.policy),
            Language::Wasm => entry.metadata.clone(),
        };
        Self {
            name: entry.name.clone(),
            source: entry.source.clone(),
            source_digest: Digest::of(source),
            language,
            twin: entry.twin.clone(),
            level: entry.level,
            waivable: entry.waivable.clone(),
            mode: entry.mode,
            select: entry.select.clone(),
            budget: entry.budget.resolved(language),
            params_schema: entry.params_schema.clone(),
            metadata,
        }
    }
}
