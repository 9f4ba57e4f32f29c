//! The events of the log that a filter fits, as an auditor is shown them.

use std::ops::Range;

use placet_core::{AccountPath, Code, Decision, Event, Id, Leaf, QuotaNode, Refund};
use placet_proto::FieldError;
use placet_proto::admission::v1::Effect;
use placet_proto::audit::v1 as proto;
use placet_proto::audit::v1::EventKind;

use super::convert;
use super::follow::Question;
use crate::log::read_claims;
use crate::name::decision_meant;
use crate::store::{ReadError, Reader};

/// Most values of one list of a filter: more than a person names, and few enough to compare each
/// leaf with all of them.
const MAX_FILTER_VALUES: usize = 64;

/// What a filter lets through: of each list one value, unless it is empty.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Filter {
    kinds: Vec<EventKind>,
    tenants: Vec<Id>,
    effects: Vec<Effect>,
    policies: Vec<Id>,
    codes: Vec<Code>,
    accounts: Vec<AccountPath>,
}

impl Filter {
    /// Reads a filter.
    ///
    /// # Errors
    /// A value is none, is named twice, or is one too many.
    pub(super) fn read(filter: &proto::EventFilter) -> Result<Self, FieldError> {
        let id = |text: &String| Id::new(text.as_str()).map_err(|error| bad_name(&error));
        let read = || {
            Ok(Self {
                kinds: values("kinds", filter.kinds().collect(), |kind: &EventKind| match kind {
                    EventKind::Unspecified => Err(wrong("is no kind", "name a kind of event")),
                    kind => Ok(*kind),
                })?,
                tenants: values("tenants", filter.tenants.iter().collect(), |text| id(text))?,
                effects: values("effects", filter.effects().collect(), |effect: &Effect| {
                    match effect {
                        Effect::Unspecified => Err(wrong("is no effect", "give PERMIT or DENY")),
                        effect => Ok(*effect),
                    }
                })?,
                policies: values("policies", filter.policies.iter().collect(), |text| id(text))?,
                codes: values("codes", filter.codes.iter().collect(), |text: &&String| {
                    Code::new(text.as_str()).map_err(|error| bad_name(&error))
                })?,
                accounts: values(
                    "accounts",
                    filter.accounts.iter().collect(),
                    |text: &&String| {
                        AccountPath::new(text.as_str()).map_err(|error| bad_name(&error))
                    },
                )?,
            })
        };
        read().map_err(|error: FieldError| error.inside("filter"))
    }

    /// Whether only decisions can fit.
    fn is_of_decisions(&self) -> bool {
        !(self.effects.is_empty() && self.policies.is_empty() && self.codes.is_empty())
    }

    fn fits_decision(&self, decision: &Decision) -> bool {
        let Self { effects, policies, codes, tenants, .. } = self;
        let (reasons, warnings) = (&decision.reasons, &decision.warnings);
        let of_policy = |policy: &Id| {
            reasons.iter().any(|it| it.policy == *policy)
                || warnings.iter().any(|it| it.policy == *policy)
        };
        let of_code = |code: &Code| {
            reasons.iter().any(|it| it.code == *code) || warnings.iter().any(|it| it.code == *code)
        };
        (effects.is_empty() || effects.contains(&convert::effect(decision.effect)))
            && (policies.is_empty() || policies.iter().any(of_policy))
            && (codes.is_empty() || codes.iter().any(of_code))
            && (tenants.is_empty() || tenants.contains(&decision.tenant_id))
    }

    /// Whether one of some accounts is wanted.
    fn fits_accounts<'a>(&self, mut named: impl Iterator<Item = &'a AccountPath>) -> bool {
        self.accounts.is_empty()
            || named.any(|account| self.accounts.iter().any(|wanted| is_under(account, wanted)))
    }
}

/// Whether a path is another one, or begins with it, segment by segment.
fn is_under(account: &AccountPath, prefix: &AccountPath) -> bool {
    let rest = account.as_str().strip_prefix(prefix.as_str());
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

fn wrong(message: impl Into<String>, hint: &str) -> FieldError {
    FieldError::new("OUT_OF_BOUNDS", message, hint)
}

fn bad_name(error: &placet_core::NameError) -> FieldError {
    FieldError::new("BAD_NAME", error.to_string(), "give it as the log has it")
}

/// The values of one list: each once, and not too many.
fn values<T, U: PartialEq>(
    field: &str,
    given: Vec<T>,
    read: impl Fn(&T) -> Result<U, FieldError>,
) -> Result<Vec<U>, FieldError> {
    if given.len() > MAX_FILTER_VALUES {
        let message = format!("has {} values, at most {MAX_FILTER_VALUES}", given.len());
        return Err(wrong(message, "ask several times").inside(field));
    }
    let mut values = Vec::with_capacity(given.len());
    for (at, given) in given.iter().enumerate() {
        let inside = |error: FieldError| error.inside(&format!("[{at}]")).inside(field);
        let value = read(given).map_err(inside)?;
        if values.contains(&value) {
            return Err(inside(wrong("is named twice", "name each value once")));
        }
        values.push(value);
    }
    Ok(values)
}

/// A filter, and in which order it is asked.
#[derive(Debug)]
pub(super) struct Events {
    pub(super) filter: Filter,
    pub(super) newest_first: bool,
}

impl Question for Events {
    type Answer = proto::EventsResponse;

    fn find(
        &self,
        reader: &Reader,
        range: Range<u64>,
    ) -> Result<Vec<(u64, proto::EventsResponse)>, ReadError> {
        let leaves = reader.leaves(range.start, range.end)?;
        let mut found = Vec::new();
        let mut position = range.start;
        for bytes in leaves {
            if let Some(event) = shown(reader, &self.filter, position, bytes)? {
                let next = if self.newest_first {
                    position.checked_sub(1)
                } else {
                    Some(position.saturating_add(1))
                };
                found.push((position, proto::EventsResponse { event: Some(event), next }));
            }
            position = position.saturating_add(1);
        }
        if position < range.end {
            return Err(ReadError::Damaged("a leaf is missing"));
        }
        Ok(found)
    }

    fn progress(&self, place: u64) -> proto::EventsResponse {
        let next = if self.newest_first { place.checked_sub(1) } else { Some(place) };
        proto::EventsResponse { event: None, next }
    }
}

/// What a leaf says, if a filter lets it through.
fn shown(
    reader: &Reader,
    filter: &Filter,
    position: u64,
    bytes: Vec<u8>,
) -> Result<Option<proto::Event>, ReadError> {
    let leaf: Leaf = serde_json::from_slice(&bytes)
        .map_err(|_malformed| ReadError::Damaged("a leaf is no leaf"))?;
    let kind = convert::event_kind(&leaf.event);
    let excluded = !filter.kinds.is_empty() && !filter.kinds.contains(&kind);
    if excluded || (filter.is_of_decisions() && kind != EventKind::Decision) {
        return Ok(None);
    }
    let mut event = proto::Event { position, time: leaf.time, ..proto::Event::default() };
    event.set_kind(kind);
    let fits = match leaf.event {
        Event::Decision { token, .. } => of_decision(filter, &token, &mut event)?,
        Event::Confirmation { reservation, .. } => {
            of_reservation(reader, filter, reservation, &[], &mut event)?
        }
        Event::EvictionOrder { victim, .. } => {
            of_reservation(reader, filter, victim, &[], &mut event)?
        }
        Event::Release { refunds, reservation, .. }
        | Event::Expiry { refunds, reservation, .. }
        | Event::Revocation { refunds, reservation, .. } => {
            of_reservation(reader, filter, reservation, &refunds, &mut event)?
        }
        Event::Quotas { changed, removed, .. } => {
            let changed = changed.iter().map(|node: &QuotaNode| &node.account);
            filter.tenants.is_empty() && filter.fits_accounts(changed.chain(&removed))
        }
        other => {
            event.subject = convert::event_subject(other);
            filter.tenants.is_empty() && filter.accounts.is_empty()
        }
    };
    if !fits {
        return Ok(None);
    }
    event.leaf =
        String::from_utf8(bytes).map_err(|_other| ReadError::Damaged("a leaf is no leaf"))?;
    Ok(Some(event))
}

fn of_decision(filter: &Filter, token: &str, event: &mut proto::Event) -> Result<bool, ReadError> {
    let decision = read_claims(token)
        .map_err(|_malformed| ReadError::Damaged("the claims of a decision cannot be read"))?;
    let charged = decision.reservation.iter().flat_map(|held| &held.charges);
    let denied = decision.reasons.iter().filter_map(|reason| reason.counterfactual.as_ref());
    let accounts = charged.map(|charge| &charge.account).chain(denied.map(|it| &it.account));
    if !filter.fits_accounts(accounts) || !filter.fits_decision(&decision) {
        return Ok(false);
    }
    event.set_effect(convert::effect(decision.effect));
    for reason in &decision.reasons {
        if !event.codes.iter().any(|code| code == reason.code.as_str()) {
            event.codes.push(reason.code.as_str().to_owned());
        }
    }
    event.decision_id = decision.jti.into();
    event.tenant_id = decision.tenant_id.into();
    event.subject = decision.sub;
    Ok(true)
}

fn of_reservation(
    reader: &Reader,
    filter: &Filter,
    reservation: Id,
    refunds: &[Refund],
    event: &mut proto::Event,
) -> Result<bool, ReadError> {
    if !filter.fits_accounts(refunds.iter().map(|refund| &refund.account)) {
        return Ok(false);
    }
    let nobodys = ReadError::Damaged("a reservation in the log is that of no decision");
    let Some(made_by) = decision_meant(reservation.as_str()) else { return Err(nobodys) };
    let Some(stored) = reader.decision(&made_by)? else { return Err(nobodys) };
    let decision = read_claims(&stored.token)
        .map_err(|_malformed| ReadError::Damaged("the claims of a decision cannot be read"))?;
    let tenant = decision.tenant_id;
    if !filter.tenants.is_empty() && !filter.tenants.contains(&tenant) {
        return Ok(false);
    }
    event.decision_id = made_by.into();
    event.tenant_id = tenant.into();
    event.subject = reservation.into();
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_is_read_strictly() {
        let ask = |change: fn(&mut proto::EventFilter)| {
            let mut filter = proto::EventFilter::default();
            change(&mut filter);
            Filter::read(&filter)
        };
        assert_eq!(ask(|_| {}), Ok(Filter::default()));
        let expired = ask(|it| it.kinds = vec![EventKind::Expiry.into()]).unwrap();
        assert_eq!(expired.kinds, [EventKind::Expiry]);
        type Wrong = (fn(&mut proto::EventFilter), &'static str);
        let cases: [Wrong; 9] = [
            (|it| it.kinds = vec![EventKind::Unspecified.into()], "filter.kinds[0]"),
            (|it| it.kinds = vec![EventKind::Expiry.into(); 2], "filter.kinds[1]"),
            (|it| it.effects = vec![Effect::Unspecified.into()], "filter.effects[0]"),
            (|it| it.tenants = vec!["a".to_owned(), "a b".to_owned()], "filter.tenants[1]"),
            (|it| it.policies = vec![String::new()], "filter.policies[0]"),
            (|it| it.codes = vec!["quota".to_owned()], "filter.codes[0]"),
            (|it| it.accounts = vec!["/".to_owned()], "filter.accounts[0]"),
            (|it| it.accounts = vec!["a/b".to_owned(), "a/b".to_owned()], "filter.accounts[1]"),
            (|it| it.tenants = (0..65).map(|n| format!("t-{n}")).collect(), "filter.tenants"),
        ];
        for (change, field) in cases {
            let error = ask(change).unwrap_err();
            assert_eq!(error.field, field);
            assert!(!error.hint.is_empty());
        }
    }

    #[test]
    fn an_account_is_under_another_segment_by_segment() {
        let path = |text: &str| AccountPath::new(text).unwrap();
        for (account, prefix, is_one) in [
            ("tenant/acme/gpu", "tenant/acme", true),
            ("tenant/acme", "tenant/acme", true),
            ("tenant/acme-eu/gpu", "tenant/acme", false),
            ("tenant", "tenant/acme", false),
        ] {
            assert_eq!(is_under(&path(account), &path(prefix)), is_one, "{account} {prefix}");
        }
    }
}
