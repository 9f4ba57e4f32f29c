//! A set of policies with other params than the manifest's: for cases.

use std::collections::BTreeMap;

use placet_core::Id;
use serde::Serialize;
use serde_json::{Map, Value};

use super::{PolicySet, Program, params, rego_program};
use crate::bundle::{Bundle, Entry};
use crate::cases::merge;
use crate::error::{Fault, LoadError};

/// What lies over the params of a bundle's policies.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Overrides {
    /// By policy: laid over its params, mapping by mapping; `null` removes, all else replaces.
    pub(crate) params: BTreeMap<Id, Map<String, Value>>,
    /// Whether the policy gets them even if loading would refuse them.
    pub(crate) unchecked: bool,
}

impl PolicySet {
    /// The same policies, some of them with other params.
    ///
    /// # Errors
    /// [`LoadError`] as loading and compiling the bundle with these params would give.
    pub(crate) fn with_params(
        &self,
        bundle: &Bundle,
        overrides: &Overrides,
    ) -> Result<Self, LoadError> {
        let mut set = self.clone();
        for (name, over) in &overrides.params {
            let entries = &bundle.manifest().policies;
            let entry = entries.iter().find(|entry| entry.name == *name);
            let policy = set.policies.iter_mut().find(|policy| policy.name == *name);
            let (Some(entry), Some(policy)) = (entry, policy) else {
                return Err(Fault::new(name.as_str(), "is no policy of the bundle").into());
            };
            let mut laid = Value::Object(entry.params.clone());
            merge(&mut laid, &Value::Object(over.clone()));
            let laid = laid.as_object().cloned().unwrap_or_default();
            let entry = Entry { params: laid, ..entry.clone() };
            if !overrides.unchecked {
                bundle.check_params(&entry)?;
            }
            policy.program = match &policy.program {
                Program::Wasm(program) => {
                    Program::Wasm(Box::new(program.with_params(params(&entry)?)))
                }
                Program::Rego(_) => rego_program(&entry, &set.how, bundle, !overrides.unchecked)?,
            };
        }
        Ok(set)
    }
}
