//! The policies with the params that a case asks for.

use std::collections::BTreeMap;

use placet_core::{AdmissionRequest, Digest, Effect, canonical_json};
use serde_json::Value;

use super::{Case, Told, differences};
use crate::bundle::Bundle;
use crate::document::nearest;
use crate::error::{Fault, LoadError};
use crate::evaluate::{Evaluation, Evaluator, Overrides};
use crate::facts::Facts;
use crate::resolve::resolve;

/// Most different params that the cases of a bundle lay over those of the manifest: each compiles
/// policies, and a server runs all cases before it activates a bundle.
const MAX_VARIANTS: usize = 64;

/// What a case is evaluated by.
#[derive(Debug)]
pub(super) struct Sets {
    pub(super) policies: Evaluator,
    pub(super) twins: Option<Evaluator>,
    /// The policies with what is reached of them in a record.
    pub(super) recorded: Option<Evaluator>,
}

impl Sets {
    fn with_params(&self, bundle: &Bundle, overrides: &Overrides) -> Result<Self, LoadError> {
        let vary = |evaluator: &Evaluator| {
            let set = evaluator.set().with_params(bundle, overrides)?;
            Ok::<_, LoadError>(Evaluator::new(set.into()))
        };
        Ok(Self {
            policies: vary(&self.policies)?,
            twins: self.twins.as_ref().map(vary).transpose()?,
            recorded: self.recorded.as_ref().map(vary).transpose()?,
        })
    }

    /// Evaluates a request, and holds what comes out against what the case expects.
    pub(super) fn run(
        &mut self,
        case: &Case,
        facts: &Facts,
        request: &AdmissionRequest,
    ) -> (Vec<String>, Option<Evaluation>) {
        // The salt hides who acts from readers of the log; a case has no log.
        let input = match resolve(facts, request, case.time, &[0; 32]) {
            Ok((input, _)) => input,
            Err(reasons) => {
                let codes = reasons.into_iter().map(|reason| reason.code).collect();
                let told = Told { effect: Effect::Deny, codes, candidate: None };
                return (case.expect.compare(&told), None);
            }
        };
        let evaluation = match self.policies.evaluate(&input) {
            Ok(evaluation) => evaluation,
            Err(error) => return (vec![error.to_string()], None),
        };
        if let Some(recorded) = &mut self.recorded {
            // Only what it reaches counts; what it says costs more, and is the same else.
            if let Err(error) = recorded.evaluate(&input) {
                return (vec![error.to_string()], None);
            }
        }
        // As the sequencer does: the first candidate that is permitted, else the first.
        let candidate = evaluation.permitted().or(evaluation.candidates.first());
        let told = Told {
            effect: candidate.map_or(Effect::Deny, |candidate| candidate.outcome.effect),
            codes: candidate
                .map(|c| c.outcome.reasons.iter().map(|reason| reason.code.clone()).collect())
                .unwrap_or_default(),
            candidate,
        };
        let mut failures = case.expect.compare(&told);
        if let Some(twins) = &mut self.twins {
            match twins.evaluate(&input) {
                Ok(other) => failures.extend(differences(&evaluation, &other)),
                Err(error) => failures.push(format!("twin: {error}")),
            }
        }
        (failures, Some(evaluation))
    }
}

/// Sets with other params, by the digest of what lies over the manifest's; or why there is none.
#[derive(Debug, Default)]
pub(super) struct Variants(BTreeMap<Digest, Result<Sets, String>>);

impl Variants {
    /// The sets that a case asks for, or why its params are refused.
    ///
    /// # Errors
    /// [`Fault`] if the case names what is no policy, or the bundle's cases have more than
    /// [`MAX_VARIANTS`] different params.
    pub(super) fn of<'s>(
        &'s mut self,
        base: &'s mut Sets,
        bundle: &Bundle,
        file: &str,
        case: &Case,
    ) -> Result<Result<&'s mut Sets, &'s str>, Fault> {
        if case.params.is_empty() {
            return Ok(Ok(base));
        }
        let overrides = overrides(bundle, file, case)?;
        let bytes = canonical_json(&overrides)
            .map_err(|error| wrong(file, case, &format!("has params that no JSON has: {error}")))?;
        let digest = Digest::of(&bytes);
        if !self.0.contains_key(&digest) && self.0.len() >= MAX_VARIANTS {
            let message = format!("is the one after {MAX_VARIANTS} different params");
            return Err(wrong(file, case, &message).hint("use the same params in more cases"));
        }
        let variant = self.0.entry(digest).or_insert_with(|| {
            base.with_params(bundle, &overrides).map_err(|error| error.to_string())
        });
        Ok(variant.as_mut().map_err(|error| error.as_str()))
    }
}

fn wrong(file: &str, case: &Case, message: &str) -> Fault {
    Fault::new(file, format!("case `{}` {message}", case.name))
}

fn overrides(bundle: &Bundle, file: &str, case: &Case) -> Result<Overrides, Fault> {
    let mut params = BTreeMap::new();
    for (name, over) in &case.params {
        let names = || bundle.manifest().policies.iter().map(|entry| entry.name.as_str());
        if !names().any(|known| known == name.as_str()) {
            let fault = wrong(file, case, &format!("has params of `{name}`, which is no policy"));
            return Err(match nearest(name.as_str(), names()) {
                Some(near) => fault.hint(format!("did you mean `{near}`?")),
                None => fault.hint("name a policy of the manifest"),
            });
        }
        let Value::Object(over) = over else {
            let fault = wrong(file, case, &format!("has params of `{name}` that are no mapping"));
            return Err(fault.hint("write names and values, which lie over those of the manifest"));
        };
        params.insert(name.clone(), over.clone());
    }
    Ok(Overrides { params, unchecked: case.unchecked })
}
