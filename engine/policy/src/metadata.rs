//! What a policy says of itself: for people and auditors, never for a decision.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Title, owner and controls of a policy: from its annotations in Rego, from the manifest for a
/// component.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Metadata {
    /// One line, for a heading.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// What it is for, in sentences.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Who answers for it: a team.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// Controls that it implements, `<framework>:<control>` such as `SOC2:CC6.1`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub controls: Vec<String>,
}

/// What a policy says of itself and of its rules.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PolicyMetadata {
    /// Of the policy as a whole.
    pub policy: Metadata,
    /// Of each annotated rule, in the order of the text; empty for a component.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<RuleMetadata>,
}

/// What the annotations above one rule say.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RuleMetadata {
    /// Name of the rule, such as `deny`. A policy may have many of one name.
    pub rule: String,
    /// Line from 1 on which the rule begins.
    pub line: u32,
    /// One line, for a heading.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// What it is for, in sentences.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Code of the denials or warnings that it gives, or of a refusal of its claim.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// Id of the obligation that it gives.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub obligation: Option<String>,
    /// Account that it claims from, with what varies in angle brackets: `tenant/<tenant>/gpu`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account: Option<String>,
    /// Controls that it implements, `<framework>:<control>`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub controls: Vec<String>,
}
