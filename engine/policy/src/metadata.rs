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
