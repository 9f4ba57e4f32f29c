//! What the model foretells: answers, the reasons of denials, and leaves of the log.

use std::rc::Rc;

use placet_core::{
    AccountPath, Code, Effect, Event, Eviction, EvictionOrder, FreezeClaims, Id, Leaf,
    PreemptionRule, Reason, ReservationGrant,
};
use placet_server::sequencer::{Proposal, SequencerError, Settled};

use super::books::Fit;

/// A reason of a denial, as far as it is foretold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Denial {
    /// A policy's or the resolver's own, word for word.
    Given(Reason),
    /// There is no room: how much was asked of which account, which one has no room, and what would
    /// be admitted instead.
    Refused {
        code: Code,
        policy: Id,
        account: AccountPath,
        binding: AccountPath,
        asked: u64,
        free: u64,
        limit: Option<u64>,
        fit: Fit,
    },
    /// The facts do not know the account.
    Unknown { policy: Id, account: AccountPath },
    /// The engine's own: the code, and the place in the request.
    Own { code: Code, field: String, retry: bool },
    /// The account holds amounts of another kind or unit.
    Conflict { policy: Id, account: AccountPath },
}

impl Denial {
    pub(super) fn own(code: &'static str, field: &str, retry: bool) -> Self {
        Self::Own { code: Code::known(code), field: field.to_owned(), retry }
    }

    /// Whether the same may be admitted later.
    pub(super) fn retry(&self) -> bool {
        match self {
            Self::Given(reason) => reason.retry,
            Self::Refused { asked, limit, .. } => limit.is_none_or(|limit| *asked <= limit),
            Self::Unknown { .. } => false,
            Self::Own { retry, .. } => *retry,
            Self::Conflict { .. } => true,
        }
    }
}

/// What deciding should come to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Verdict {
    pub(super) denials: Vec<Denial>,
    pub(super) grant: Option<ReservationGrant>,
    pub(super) gpu_model: Id,
    /// Who has to make room.
    pub(super) evictions: Vec<Eviction>,
    /// The waivers that are used, and what is logged of them before.
    pub(super) waivers: (Vec<Id>, Vec<Event>),
    /// The rule that the policies gave.
    pub(super) preemption: Option<PreemptionRule>,
    /// What is promised: run time and notice.
    pub(super) promised: Option<[u32; 2]>,
    /// Whether the decision is longer than a leaf can be.
    pub(super) too_long: bool,
    /// Whether the reasons cannot be foretold: they depend on who would have made room for another
    /// member of the gang, which nobody is told.
    pub(super) is_open: bool,
}

impl Verdict {
    pub(super) fn effect(&self) -> Effect {
        if self.grant.is_some() { Effect::Permit } else { Effect::Deny }
    }
}

/// A decided request.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) proposal: Box<Proposal>,
    pub(super) verdict: Verdict,
    pub(super) time: u64,
    pub(super) position: u64,
}

/// A leaf of the log.
#[derive(Debug, Clone)]
pub(super) enum Entry {
    /// Foretold to the byte.
    Leaf(Leaf),
    /// All but its signed bytes.
    Decision(Rc<Asked>),
    /// An order of eviction, all but its signed bytes.
    Order(EvictionOrder),
}

/// What a command should be answered with.
#[derive(Debug, Clone)]
pub(super) enum Answer {
    /// One request, or a gang.
    Decided(Vec<Rc<Asked>>),
    Probed(Effect, Vec<Denial>),
    Settled(Settled),
    Activated,
    Erased(u64),
    Frozen(FreezeClaims),
    Inspected,
    /// `Malformed` and `Unavailable` stand for all of their kind: their texts are for people.
    Failed(SequencerError),
}

/// An answer, and whether it holds even if the batch cannot be stored: because it says what is
/// stored already.
pub(super) type Predicted = (Answer, bool);
