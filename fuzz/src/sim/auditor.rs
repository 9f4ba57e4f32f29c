//! Holds what the engine says against what the model foretells, and the log against both.

use std::collections::BTreeMap;

use placet_core::{
    AccountKind, AccountPath, Decision, Digest, Event, EvictionOrder, Expect, ExpiryCause, Id,
    KeySet, LEAF_VERSION, Leaf, Reason, Verifier, canonical_json,
};
use placet_server::sequencer::{Decided, Proposal, Reply, SequencerError, Snapshot};
use placet_server::store::Reader;

use super::foretold::{Answer, Asked, Denial, Entry};
use super::model::{Model, Named};
use super::reservation::{Term, Work};
use super::world::{AUDIENCE, ISSUER, activation};

/// What is wrong, for a person to read.
pub(super) type Wrong = String;

/// Fails unless both are equal.
fn same<T: PartialEq + std::fmt::Debug>(what: &str, found: &T, expected: &T) -> Result<(), Wrong> {
    if found == expected {
        return Ok(());
    }
    Err(format!("{what}\n     found: {found:?}\n  expected: {expected:?}"))
}

#[derive(Debug)]
pub(super) struct Auditor {
    verifier: Verifier,
    /// Every leaf that was ever read.
    leaves: Vec<Vec<u8>>,
    hashes: Vec<Digest>,
    /// The ledger is the fold of the log: its digest belongs to the log's size.
    digests: BTreeMap<u64, Digest>,
    /// Every decision that was answered.
    answered: BTreeMap<(Id, Id), Decided>,
    /// How often what happened.
    pub(super) counts: BTreeMap<&'static str, u64>,
}

impl Auditor {
    pub(super) fn new(jwks: &str) -> Result<Self, Wrong> {
        let keys = KeySet::from_json(jwks.as_bytes()).map_err(|error| error.to_string())?;
        Ok(Self {
            verifier: Verifier::new(keys),
            leaves: Vec::new(),
            hashes: Vec::new(),
            digests: BTreeMap::new(),
            answered: BTreeMap::new(),
            counts: BTreeMap::new(),
        })
    }

    /// Leaves that were read, and their root.
    pub(super) fn log(&self) -> (u64, Digest) {
        (count(&self.leaves), root_of(&self.hashes))
    }

    pub(super) fn count(&mut self, what: &'static str) {
        *self.counts.entry(what).or_default() += 1;
    }

    /// Holds one answer against what was foretold.
    pub(super) fn check_answer(
        &mut self,
        model: &Model,
        expected: &Answer,
        found: &Result<Reply, SequencerError>,
    ) -> Result<(), Wrong> {
        match (expected, found) {
            (Answer::Decided(asked), Ok(Reply::Decided(decided))) => {
                same("how many are decided", &decided.len(), &asked.len())?;
                if asked.len() > 1 {
                    let is_denied = asked[0].verdict.grant.is_none();
                    self.count(if is_denied { "gang denied" } else { "gang permitted" });
                }
                let mut pairs = asked.iter().zip(decided);
                pairs.try_for_each(|(asked, decided)| self.check_decided(asked, decided))
            }
            (Answer::Probed(effect, denials), Ok(Reply::Probed(found, reasons))) => {
                self.count("probed");
                same("the probe's effect", found, effect)?;
                check_reasons(reasons, denials)
            }
            (Answer::Settled(expected), Ok(Reply::Settled(settled))) => {
                self.count("settled");
                if settled.refunded_gpu_seconds > 0 {
                    self.count("refunded");
                }
                same("the settlement", settled, expected)
            }
            (Answer::Activated, Ok(Reply::Activated)) => {
                self.count("activated");
                Ok(())
            }
            (Answer::Erased(expected), Ok(Reply::Erased(decisions))) => {
                if *decisions > 0 {
                    self.count("erased");
                }
                same("of how many decisions values were erased", decisions, expected)
            }
            (Answer::Frozen(claims), Ok(Reply::Frozen(freeze))) => {
                self.count("frozen or thawed");
                same("the freeze", &freeze.claims, claims)
            }
            (Answer::Inspected, Ok(Reply::Inspected(snapshot))) => {
                self.check_snapshot(model, snapshot)
            }
            (Answer::Failed(expected), Err(found)) => self.check_failure(expected, found),
            (expected, found) => Err(format!(
                "another kind of answer\n     found: {found:?}\n  expected: {expected:?}"
            )),
        }
    }

    pub(super) fn check_failure(
        &mut self,
        expected: &SequencerError,
        found: &SequencerError,
    ) -> Result<(), Wrong> {
        use SequencerError as E;
        self.count(match found {
            E::RequestIdReused { .. } => "request id reused",
            E::ClockWentBack { .. } => "clock went back",
            E::ClockJumped { .. } => "clock jumped",
            E::PositionAhead { .. } => "position ahead",
            E::TimeOutOfRange { .. } => "time out of range",
            E::Superseded => "superseded",
            E::Malformed(_) => "malformed",
            E::TooLong => "too long",
            E::Settle(error) => settle_name(error),
            E::Freeze(_) => "freeze refused",
            E::FreezeOverBroad { .. } => "freeze is not theirs to lift",
            E::Cosign(_) => "cosignature refused",
            E::Overloaded => "overloaded",
            E::Unavailable { .. } => "unavailable",
            E::OutcomeUnknown => "outcome unknown",
            E::Stopped => "stopped",
        });
        match (expected, found) {
            (E::Malformed(_), E::Malformed(_)) | (E::Unavailable { .. }, E::Unavailable { .. }) => {
                Ok(())
            }
            _ => same("the error", found, expected),
        }
    }

    fn check_decided(&mut self, asked: &Asked, decided: &Decided) -> Result<(), Wrong> {
        let verdict = &asked.verdict;
        let request = &asked.proposal.request.request_id;
        same(&format!("the effect on `{request}`"), &decided.effect, &verdict.effect())?;
        same(&format!("the position of `{request}`"), &decided.position, &asked.position)?;
        let key = (asked.proposal.caller.clone(), request.clone());
        if let Some(first) = self.answered.get(&key) {
            // A repeat uses no waiver, and is told of none.
            let waived = |of: &Decided| Decided { waived: Vec::new(), ..of.clone() };
            let (found, first) = (waived(decided), waived(first));
            same(&format!("the answer to `{request}` when it is repeated"), &found, &first)?;
            self.count("repeated");
            return Ok(());
        }
        let decision = self.verify(&decided.token)?;
        check_decision(&decision, asked)?;
        let denials = if verdict.is_open { &[] } else { &*verdict.denials };
        for denial in denials {
            match denial {
                Denial::Refused { limit: Some(_), .. } => self.count("refused: no room"),
                Denial::Refused { limit: None, .. } => self.count("refused: nothing to borrow"),
                Denial::Unknown { .. } => self.count("refused: unknown account"),
                Denial::Conflict { .. } => self.count("refused: a conflict of units"),
                Denial::Own { code, .. } => self.count(own_name(code.as_str())),
                Denial::Given(_) => {}
            }
        }
        let codes: Vec<_> = decision.reasons.iter().map(|reason| reason.code.clone()).collect();
        same("the codes", &decided.codes, &codes)?;
        // Whoever lost the first answer and asks again is told of no use.
        if !decided.waived.is_empty() {
            let mut own = asked.proposal.candidates.iter();
            let is_own = own.any(|one| {
                (&one.gpu_model, &one.outcome.waived) == (&verdict.gpu_model, &decided.waived)
            });
            same("whether that was lifted", &is_own, &verdict.grant.is_some())?;
            self.count("permitted: under a waiver");
        }
        let grace = verdict.preemption.as_ref().map_or(0, |rule| rule.grace_seconds.max(1));
        let at_once = asked.time + u64::from(grace);
        self.count(match &verdict.grant {
            Some(grant) if !verdict.evictions.is_empty() && grant.start > at_once => {
                "permitted: others make room after a longer notice"
            }
            Some(_) if !verdict.evictions.is_empty() => "permitted: others make room",
            Some(_) if asked.proposal.request.extends.is_some() => "permitted: to go on",
            Some(_) if asked.proposal.request.subject.workload().lease_id.is_some() => {
                "permitted: inside a lease"
            }
            Some(grant) if grant.start > asked.time => "permitted: in advance",
            Some(_) => "permitted",
            None if asks_for_room(&asked.proposal) => "denied: nobody makes room",
            None => "denied",
        });
        self.answered.insert(key, decided.clone());
        Ok(())
    }

    fn verify(&self, token: &str) -> Result<Decision, Wrong> {
        self.verifier.verify_issued(token, ISSUER).map_err(|error| format!("a token: {error}"))
    }

    fn check_snapshot(&mut self, model: &Model, snapshot: &Snapshot) -> Result<(), Wrong> {
        self.count("inspected");
        same("the time", &snapshot.high_water, &model.now)?;
        same("the size of the log", &snapshot.head.size, &model.size())?;
        let live = model.held.iter().filter(|held| held.is_live()).count();
        same("reservations that are held", &snapshot.live, &live)?;
        same("the use of the accounts", &snapshot.usage, &model.usage())?;
        let digest = *self.digests.entry(snapshot.head.size).or_insert(snapshot.ledger);
        same("the digest of the ledger", &snapshot.ledger, &digest)
    }

    /// Reads what is new in the log.
    pub(super) fn read_on(&mut self, reader: &Reader, model: &Model) -> Result<(), Wrong> {
        let size = reader.size().map_err(|error| error.to_string())?;
        same("the leaves that are stored", &size, &model.size())?;
        let from = u64::try_from(self.leaves.len()).expect("a log is far smaller than 2^64");
        let mut leaves = Vec::new();
        while from + count(&leaves) < size {
            let next = reader.leaves(from + count(&leaves), size);
            leaves.extend(next.map_err(|error| error.to_string())?);
        }
        for bytes in leaves {
            let position = self.leaves.len();
            self.check_leaf(&model.log[position], &bytes)
                .map_err(|wrong| format!("leaf {position}: {wrong}"))?;
            let leaf = [&[0_u8], &*bytes].concat();
            self.hashes.push(Digest::of(&leaf));
            self.leaves.push(bytes);
        }
        Ok(())
    }

    fn check_leaf(&mut self, entry: &Entry, bytes: &[u8]) -> Result<(), Wrong> {
        let leaf: Leaf = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        let written = canonical_json(&leaf).map_err(|error| error.to_string())?;
        same("it is not written in the one way", &bytes, &&*written)?;
        match (entry, &leaf.event) {
            (Entry::Leaf(expected), _) => {
                self.count(match &expected.event {
                    Event::Expiry { cause: ExpiryCause::Evicted, .. } => "evicted",
                    Event::Expiry { cause: ExpiryCause::LeaseEnded, .. } => "ended with its lease",
                    Event::Expiry { .. } => "expired",
                    Event::Quotas { .. } => "trees changed",
                    _ => "another leaf",
                });
                same("it says something else", &leaf, expected)
            }
            (Entry::Decision(asked), Event::Decision { caller, token }) => {
                same("its caller", caller, &asked.proposal.caller)?;
                same("its time", &(leaf.time, leaf.v), &(asked.time, LEAF_VERSION))?;
                let request = asked.proposal.request.request_id.clone();
                let key = (caller.clone(), request);
                match self.answered.get(&key) {
                    Some(decided) => same("it is not what was answered", token, &decided.token),
                    None => check_decision(&self.verify(token)?, asked),
                }
            }
            (Entry::Order(expected), Event::EvictionOrder { .. }) => {
                self.check_order(expected, &leaf)
            }
            (Entry::Order(_), event) => Err(format!("it is no order of eviction: {event:?}")),
            (Entry::Decision(_), event) => Err(format!("it is no decision: {event:?}")),
        }
    }

    fn check_order(&mut self, expected: &EvictionOrder, leaf: &Leaf) -> Result<(), Wrong> {
        self.count("told to make room");
        let Event::EvictionOrder { epoch, evict_by, preemptor, token, victim } = &leaf.event else {
            return Err("it is no order of eviction".to_owned());
        };
        for audience in AUDIENCE {
            let expect = Expect { issuer: ISSUER, audience, now: expected.iat };
            let order = self.verifier.verify_eviction(token, &expect);
            let order = order.map_err(|error| format!("the token of an order: {error}"))?;
            same("the order", &order, expected)?;
        }
        let found = (leaf.time, epoch, evict_by, preemptor, victim);
        let EvictionOrder { iat, reservation, .. } = expected;
        let names = (&expected.preemptor, reservation);
        same(
            "the leaf of the order",
            &found,
            &(*iat, &expected.epoch, &expected.evict_by, names.0, names.1),
        )
    }

    /// Whom the decisions of new leaves name as victims.
    pub(super) fn named(&self, reader: &Reader, from: u64, size: u64) -> Result<Named, Wrong> {
        let (mut named, mut at) = (Named::new(), from);
        while at < size {
            let leaves = reader.leaves(at, size).map_err(|error| error.to_string())?;
            at += count(&leaves);
            for bytes in leaves {
                let leaf = serde_json::from_slice(&bytes).map_err(|error| error.to_string())?;
                if let Leaf { event: Event::Decision { caller, token }, .. } = leaf {
                    let decision = self.verify(&token)?;
                    let victims = decision.evictions.into_iter().map(|one| one.reservation);
                    let start = decision.reservation.map_or(0, |grant| grant.start);
                    let victims = (start, victims.collect());
                    named.insert((caller, decision.request_id), victims);
                }
            }
        }
        Ok(named)
    }

    /// Reads the whole log again: nothing that was ever in it has changed, and the root over it is
    /// the one that is told (RFC 6962 section 2.1).
    pub(super) fn read_again(&mut self, reader: &Reader, root: Digest) -> Result<(), Wrong> {
        self.count("read again");
        let mut from = 0;
        for page in self.leaves.chunks(1_024) {
            let stored = reader.leaves(from, from + count(page));
            let stored = stored.map_err(|error| error.to_string())?;
            if stored != page {
                return Err(format!("a leaf from {from} on has changed"));
            }
            from += count(page);
        }
        same("the root of the log", &root, &root_of(&self.hashes))
    }

    /// Every decision that was ever answered is in the log, where it was said to be.
    pub(super) fn check_answered(&self) -> Result<(), Wrong> {
        let mut positions = BTreeMap::new();
        for ((caller, request), decided) in &self.answered {
            let event = Event::Decision { caller: caller.clone(), token: decided.token.clone() };
            let time = self.verify(&decided.token)?.iat;
            let leaf = canonical_json(&Leaf { event, time, v: LEAF_VERSION });
            let leaf = leaf.map_err(|error| error.to_string())?;
            let at = usize::try_from(decided.position).map_err(|error| error.to_string())?;
            if self.leaves.get(at) != Some(&leaf) {
                return Err(format!("the decision on `{request}` is not at {at}"));
            }
            if positions.insert(at, request).is_some() {
                return Err(format!("two requests were answered with the leaf at {at}"));
            }
        }
        Ok(())
    }
}

/// Whether it asks for others to make room, and a policy lets it.
fn asks_for_room(proposal: &Proposal) -> bool {
    let workload = proposal.request.subject.workload();
    let mut rules = proposal.candidates.iter().map(|one| &one.outcome.preemption);
    workload.may_preempt && workload.start.is_none() && rules.any(Option::is_some)
}

fn count<T>(list: &[T]) -> u64 {
    u64::try_from(list.len()).expect("a list is far smaller than 2^64")
}

fn own_name(code: &str) -> &'static str {
    match code {
        "START_IN_THE_PAST" => "refused: a start in the past",
        "START_TOO_FAR_AHEAD" => "refused: a start too far ahead",
        "UNKNOWN_RESERVATION" => "refused: nothing that could go on",
        "RESERVATION_ENDED" => "refused: to go on when it is over",
        "RESERVATION_NOT_CONFIRMED" => "refused: to go on unconfirmed",
        "RESERVATION_MAKES_ROOM" => "refused: to go on instead of going",
        "STALE_EPOCH" => "refused: to go on under a stale epoch",
        "EXTENSION_MISMATCH" => "refused: to go on as something else",
        "EXTENDED_TOO_OFTEN" => "refused: to go on once too often",
        "UNKNOWN_LEASE" => "refused: inside no lease",
        "LEASE_NOT_CONFIRMED" => "refused: inside an unconfirmed lease",
        "OUTSIDE_LEASE" => "refused: outside its lease",
        "LEASE_NOT_CLAIMED" => "refused: a lease that is not claimed",
        "GANG_INCOMPLETE" => "refused: the gang is not whole",
        "FROZEN" => "refused: frozen",
        "WAIVER_CHANGED" => "refused: another waiver of that name",
        "WAIVER_EXPIRED" => "refused: a waiver that has expired",
        "WAIVER_NOT_YET_VALID" => "refused: a waiver of a time to come",
        "WAIVER_USED_UP" => "refused: a waiver that is used up",
        _ => "refused: something else",
    }
}

fn settle_name(error: &placet_server::sequencer::SettleError) -> &'static str {
    use placet_server::sequencer::SettleError as E;
    match error {
        E::NotFound => "not found",
        E::NotYours => "not yours",
        E::StaleEpoch { .. } => "stale epoch",
        E::AlreadyEnded { .. } => "already ended",
        E::ConfirmDeadlinePassed => "confirm deadline passed",
        E::Frozen { .. } => "frozen",
        E::Broken => "broken books",
    }
}

/// The root of a tree over these leaves' hashes, as the definition reads.
fn root_of(hashes: &[Digest]) -> Digest {
    match hashes {
        [] => Digest::of(b""),
        [one] => *one,
        _ => {
            let half = hashes.len().next_power_of_two() / 2;
            let (left, right) = (root_of(&hashes[..half]), root_of(&hashes[half..]));
            Digest::of(&[&[1_u8], &left.as_bytes()[..], right.as_bytes()].concat())
        }
    }
}

fn check_decision(decision: &Decision, asked: &Asked) -> Result<(), Wrong> {
    let (verdict, proposal) = (&asked.verdict, &asked.proposal);
    let request = &proposal.request;
    same("the effect", &decision.effect, &verdict.effect())?;
    same("the reservation", &decision.reservation, &verdict.grant)?;
    if !verdict.is_open {
        check_reasons(&decision.reasons, &verdict.denials)?;
    }
    same("who has to make room", &decision.evictions, &verdict.evictions)?;
    same("the waivers", &decision.waivers, &verdict.waivers.0)?;
    let class = (&decision.preemption, decision.priority_class);
    same("the rule of preemption", &class, &(&verdict.preemption, request.priority_class))?;
    let terms = decision.terms.map(|terms| [terms.min_runtime_seconds, terms.notice_seconds]);
    same("what is promised", &terms, &verdict.promised)?;
    same("the time", &decision.iat, &asked.time)?;
    let end = verdict.grant.as_ref().map_or(asked.time + 300, |grant| grant.end);
    same("the time up to which it holds", &decision.exp, &end)?;
    let work = Work::new(proposal, &verdict.gpu_model);
    same("what is granted", &decision.workload, &work.grant)?;
    same("its lease", &decision.lease_id, &work.lease)?;
    let places = (&decision.extends, &decision.gang);
    same("what goes on, and its gang", &places, &(&request.extends, &request.gang))?;
    let names = (&decision.tenant_id, &decision.request_id, decision.kind);
    same(
        "what is decided",
        &names,
        &(&request.tenant_id, &request.request_id, request.subject.kind()),
    )?;
    let found = [decision.request_digest, decision.bundle_digest, decision.facts_digest];
    same("the digests", &found, &[proposal.request_digest, proposal.bundle, proposal.facts])?;
    let evidence = (decision.evaluation_digest, decision.input_digest);
    let input = proposal.input.as_deref().map(Digest::of);
    same("the evidence", &evidence, &(Digest::of(&proposal.evaluation), input))?;
    let kind = request.subject.kind().as_str();
    same("the subject", &decision.sub, &format!("{kind}/{}", decision.jti))
}

/// Holds reasons against what was foretold. Their words are for people; what they name is not.
fn check_reasons(reasons: &[Reason], expected: &[Denial]) -> Result<(), Wrong> {
    let mut found: Vec<Denial> = Vec::new();
    for reason in reasons {
        let denial = denial(reason).ok_or_else(|| format!("a reason reads {reason:?}"))?;
        same("whether it may be admitted later", &reason.retry, &denial.retry())?;
        if !found.contains(&denial) {
            found.push(denial);
        }
    }
    same("the reasons", &&*found, &expected)
}

/// What a reason names.
fn denial(reason: &Reason) -> Option<Denial> {
    let policy = reason.policy.clone();
    let account = || {
        let name = reason.message.split('`').nth(1)?;
        AccountPath::new(name).ok()
    };
    let is_ours = reason.policy.as_str() == "placet" && reason.counterfactual.is_none();
    if let Some(field) = reason.field.clone().filter(|_| is_ours) {
        return Some(Denial::Own { code: reason.code.clone(), field, retry: reason.retry });
    }
    if reason.message.contains("is not in the facts") {
        return Some(Denial::Unknown { policy, account: account()? });
    }
    if reason.message.contains("still holds amounts of another kind") {
        return Some(Denial::Conflict { policy, account: account()? });
    }
    let Some((_, rest)) = reason.message.split_once("`: asked ") else {
        return Some(Denial::Given(reason.clone()));
    };
    let mut numbers = rest.split(|letter: char| !letter.is_ascii_digit());
    let mut number = || numbers.find(|part| !part.is_empty())?.parse().ok();
    let (asked, free) = (number()?, number()?);
    let instead = reason.counterfactual.clone()?;
    let (code, account, binding) = (reason.code.clone(), account()?, instead.account);
    let limit = if binding == account { Some(number()?) } else { None };
    let fit = (instead.gpu_count, instead.duration_seconds, instead.start);
    Some(Denial::Refused { code, policy, account, binding, asked, free, limit, fit })
}

/// What holds of the model itself after every step: at every second, the use of every level account
/// is within the widest limit that one of its charges was admitted under. A budget has no such
/// measure: its use outlives what it was admitted under.
pub(super) fn check_limits(model: &Model) -> Result<(), Wrong> {
    let live = model.books().live;
    // A level rises only where a reservation begins or goes on: who waits for another to make room
    // needs more when that one ends, but not more than it held.
    let starts = live.iter().flat_map(|one| &one.held.terms).map(|term| term.start.max(model.now));
    let mut seconds: Vec<u64> = starts.collect();
    seconds.sort_unstable();
    seconds.dedup();
    for second in seconds {
        let mut uses: BTreeMap<&AccountPath, [u64; 2]> = BTreeMap::new();
        for one in live.iter().filter(|one| second < one.held.until()) {
            let now = |term: &&Term| term.start <= second && second < term.end;
            let charges = one.held.terms.iter().filter(now).flat_map(|term| &term.charges);
            for charge in charges.filter(|charge| charge.kind == AccountKind::Level) {
                let [used, limit] = uses.entry(&charge.account).or_default();
                *used += one.amount(&charge.account, second);
                *limit = charge.limit.max(*limit);
            }
        }
        for (account, [used, limit]) in uses {
            if used > limit {
                return Err(format!("`{account}` holds {used} of {limit} at {second}"));
            }
        }
    }
    Ok(())
}

/// What is active, by digest: for whoever asks once more.
pub(super) fn digests(model: &Model) -> (Digest, Digest) {
    let active = activation(model.active);
    (active.bundle.0, active.facts.0)
}
