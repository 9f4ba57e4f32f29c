//! What is asked together: all of it or nothing.

use std::rc::Rc;

use placet_server::sequencer::{Proposal, SequencerError};

use super::foretold::{Answer, Asked, Denial, Predicted, Verdict};
use super::model::{Model, Refused, first_model};

impl Model {
    /// The answer if any of them was decided before.
    pub(super) fn repeated(&self, members: &[&Proposal], first: u64) -> Option<Predicted> {
        let reused = |proposal: &Proposal| {
            let request_id = proposal.request.request_id.clone();
            Answer::Failed(SequencerError::RequestIdReused { request_id })
        };
        let mut found: Vec<Rc<Asked>> = Vec::new();
        for proposal in members {
            let key = (proposal.caller.clone(), proposal.request.request_id.clone());
            let Some(asked) = self.asked.get(&key) else { continue };
            let kept = |value: &placet_server::sequencer::Personal| {
                proposal.personal.iter().any(|own| own.value == value.value)
            };
            // What is erased in this very batch can still be compared.
            let is_gone = self.erased.get(&asked.position).is_some_and(|at| *at < first);
            let is_same = asked.proposal.request_digest == proposal.request_digest
                && (is_gone || asked.proposal.personal.iter().all(kept));
            if !is_same {
                return Some((reused(proposal), asked.position < first));
            }
            found.push(Rc::clone(asked));
        }
        let last = found.last()?;
        let stored = found.iter().filter(|asked| asked.position < first).count();
        let is_whole = found.len() == members.len();
        if is_whole && (stored == 0 || stored == found.len()) {
            Some((Answer::Decided(found), stored > 0))
        } else {
            Some((reused(&last.proposal), false))
        }
    }

    pub(super) fn judge(&mut self, members: &[&Proposal]) -> Refused<Vec<Verdict>> {
        if let [proposal] = members {
            return Ok(vec![self.decide(proposal)?]);
        }
        let before = self.clone();
        let (mut verdicts, mut is_open) = (Vec::new(), false);
        self.is_open.set(false);
        for proposal in members {
            // What comes behind one whose victims nobody knows.
            is_open |= self.is_open.get();
            match self.decide(proposal) {
                Ok(verdict) => verdicts.push(verdict),
                Err(error) => {
                    *self = before;
                    return Err(error);
                }
            }
        }
        let denied = verdicts.iter().position(|verdict| verdict.grant.is_none());
        if denied.is_none() && !is_open {
            return Ok(verdicts);
        }
        *self = before;
        let field = format!("members[{}]", denied.unwrap_or(0));
        let retry = verdicts.iter().flat_map(|verdict| &verdict.denials).all(Denial::retry);
        for (verdict, proposal) in verdicts.iter_mut().zip(members) {
            verdict.is_open = is_open;
            if verdict.grant.is_some() {
                *verdict = Verdict {
                    denials: vec![Denial::own("GANG_INCOMPLETE", &field, retry)],
                    grant: None,
                    // Nothing was granted: the first that was asked for.
                    gpu_model: first_model(proposal)?,
                    evictions: Vec::new(),
                    waivers: (Vec::new(), Vec::new()),
                    preemption: None,
                    promised: None,
                    ..verdict.clone()
                };
            }
        }
        Ok(verdicts)
    }
}
