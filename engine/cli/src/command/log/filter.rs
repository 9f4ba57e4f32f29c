//! Which events, and a line for each.

use std::collections::BTreeSet;

use clap::{Args, ValueEnum};
use placet_core::{
    Effect as CoreEffect, Event as Logged, FreezeClaims, Id, Leaf, ThawClaims, WaiverClaims,
    read_approval, utc,
};
use placet_proto::admission::v1::Effect as ProtoEffect;
use placet_proto::audit::v1::{Event, EventFilter, EventKind};
use placet_proto::json;

use crate::answer;
use crate::print::{Printer, plain};

/// Columns of the longest kind, `bundle_activation`.
const KIND_WIDTH: usize = 17;

/// Which events: those that all of the options fit.
#[derive(Debug, Args)]
#[command(next_help_heading = "Which events (options add up; repeat one for either of its values)")]
pub(super) struct FilterArgs {
    /// Only those of this tenant
    #[arg(long, value_name = "ID")]
    tenant: Vec<String>,
    /// Only those of this kind
    #[arg(long, value_enum, value_name = "KIND", hide_possible_values = true)]
    kind: Vec<Kind>,
    /// Only decisions with this effect
    #[arg(long, value_enum, value_name = "EFFECT")]
    effect: Vec<Effect>,
    /// Only decisions that this policy denied, or warned in
    #[arg(long, value_name = "ID")]
    policy: Vec<String>,
    /// Only decisions with this code among their reasons and warnings
    #[arg(long, value_name = "CODE")]
    code: Vec<String>,
    /// Only those that name this account, or one below it
    #[arg(long, value_name = "PATH")]
    account: Vec<String>,
}

impl FilterArgs {
    pub(super) fn filter(&self) -> EventFilter {
        EventFilter {
            kinds: self.kind.iter().map(|kind| EventKind::from(*kind).into()).collect(),
            tenants: self.tenant.clone(),
            effects: self.effect.iter().map(|effect| ProtoEffect::from(*effect).into()).collect(),
            policies: self.policy.clone(),
            codes: self.code.clone(),
            accounts: self.account.clone(),
        }
    }
}

/// An effect of a decision.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Effect {
    /// Admitted
    Permit,
    /// Refused
    Deny,
}

impl From<Effect> for ProtoEffect {
    fn from(effect: Effect) -> Self {
        match effect {
            Effect::Permit => Self::Permit,
            Effect::Deny => Self::Deny,
        }
    }
}

/// A kind of event, as leaves name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
enum Kind {
    Genesis,
    Decision,
    Confirmation,
    Release,
    Expiry,
    Revocation,
    EvictionOrder,
    BundleActivation,
    FactsActivation,
    Quotas,
    Waiver,
    Freeze,
    Thaw,
    Erasure,
}

impl From<Kind> for EventKind {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Genesis => Self::Genesis,
            Kind::Decision => Self::Decision,
            Kind::Confirmation => Self::Confirmation,
            Kind::Release => Self::Release,
            Kind::Expiry => Self::Expiry,
            Kind::Revocation => Self::Revocation,
            Kind::EvictionOrder => Self::EvictionOrder,
            Kind::BundleActivation => Self::BundleActivation,
            Kind::FactsActivation => Self::FactsActivation,
            Kind::Quotas => Self::Quotas,
            Kind::Waiver => Self::Waiver,
            Kind::Freeze => Self::Freeze,
            Kind::Thaw => Self::Thaw,
            Kind::Erasure => Self::Erasure,
        }
    }
}

/// One event in one line.
pub(super) fn line(printer: &Printer, event: &Event) -> String {
    if printer.json() {
        return json::to_json(event).to_string();
    }
    let kind = event.kind().as_str_name().to_lowercase();
    let effect = match event.effect() {
        ProtoEffect::Permit => Some(answer::effect(printer, CoreEffect::Permit)),
        ProtoEffect::Deny => Some(answer::effect(printer, CoreEffect::Deny)),
        ProtoEffect::Unspecified => None,
    };
    let parts = [
        effect.unwrap_or_default(),
        plain(&event.tenant_id),
        plain(&event.subject),
        plain(&event.codes.join(",")),
        approved(event).map(|text| plain(&text)).unwrap_or_default(),
    ];
    let parts: Vec<String> = parts.into_iter().filter(|part| !part.is_empty()).collect();
    let line = format!(
        "{:>9}  {}  {kind:KIND_WIDTH$}  {}",
        event.position,
        utc(event.time),
        parts.join(" ")
    );
    line.trim_end().to_owned()
}

/// What an approver signed, in a few words, as far as it can be read.
fn approved(event: &Event) -> Option<String> {
    let names = |ids: &BTreeSet<Id>| ids.iter().map(Id::as_str).collect::<Vec<_>>().join(",");
    let is_approved =
        matches!(event.kind(), EventKind::Waiver | EventKind::Freeze | EventKind::Thaw);
    let leaf: Leaf = serde_json::from_str(is_approved.then_some(event.leaf.as_str())?).ok()?;
    match leaf.event {
        Logged::Waiver { token, .. } => {
            let WaiverClaims { approved_by, lifts, requested_by, scope, uses, .. } =
                read_approval(&token).ok()?;
            let lifts = lifts.iter().map(|lift| format!("{}/{}", lift.policy, lift.code));
            let (lifts, tenants) = (lifts.collect::<Vec<_>>().join(","), names(&scope.tenants));
            Some(format!("by {approved_by} for {requested_by}: {lifts} of {tenants}, {uses} uses"))
        }
        Logged::Freeze { token, .. } => {
            let FreezeClaims { by, scope, .. } = read_approval(&token).ok()?;
            let kinds = scope.kinds.iter().map(|kind| kind.as_str().to_owned());
            let classes = scope.priority_classes.iter().map(answer::json_name);
            let lists = [names(&scope.clusters), names(&scope.tenants)];
            let what: Vec<String> = lists.into_iter().chain(kinds).chain(classes).collect();
            let what: Vec<_> = what.iter().filter(|part| !part.is_empty()).cloned().collect();
            let what = if scope.everything { "everything".to_owned() } else { what.join(" ") };
            Some(format!("by {by}: {what}"))
        }
        Logged::Thaw { token, .. } => {
            let ThawClaims { by, .. } = read_approval(&token).ok()?;
            Some(format!("by {by}"))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::print::Format;

    #[test]
    fn every_kind_is_named_as_in_the_leaves() {
        for kind in Kind::value_variants() {
            let name = EventKind::from(*kind).as_str_name().to_lowercase();
            assert_eq!(kind.to_possible_value().unwrap().get_name(), name);
            assert!(name.len() <= KIND_WIDTH);
        }
    }

    #[test]
    fn a_line_has_what_one_looks_for_and_obeys_nobody() {
        let mut event = Event {
            position: 1_042,
            time: 1_793_491_200,
            tenant_id: "acme\u{1b}[2J".to_owned(),
            codes: vec!["QUOTA_EXCEEDED".to_owned(), "LATE".to_owned()],
            subject: "lease/dec-1".to_owned(),
            ..Event::default()
        };
        event.set_kind(EventKind::Decision);
        event.set_effect(ProtoEffect::Deny);
        let expected = "     1042  2026-11-01T00:00:00Z  decision           DENY acme\\u{1b}[2J \
                        lease/dec-1 QUOTA_EXCEEDED,LATE";
        assert_eq!(line(&Printer::new(Format::Human), &event), expected);
    }
}
