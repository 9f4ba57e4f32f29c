//! What a leaf records, as the contract for auditors names it.

use placet_core::Event;
use placet_proto::audit::v1::EventKind;

/// The kind of an event.
#[must_use]
pub fn event_kind(event: &Event) -> EventKind {
    match event {
        Event::Genesis { .. } => EventKind::Genesis,
        Event::Decision { .. } => EventKind::Decision,
        Event::Confirmation { .. } => EventKind::Confirmation,
        Event::Release { .. } => EventKind::Release,
        Event::Expiry { .. } => EventKind::Expiry,
        Event::Revocation { .. } => EventKind::Revocation,
        Event::EvictionOrder { .. } => EventKind::EvictionOrder,
        Event::BundleActivation { .. } => EventKind::BundleActivation,
        Event::FactsActivation { .. } => EventKind::FactsActivation,
        Event::Quotas { .. } => EventKind::Quotas,
        Event::Erasure { .. } => EventKind::Erasure,
        Event::Waiver { .. } => EventKind::Waiver,
        Event::Freeze { .. } => EventKind::Freeze,
        Event::Thaw { .. } => EventKind::Thaw,
    }
}

/// What an event is about, in one word; empty where no one thing is. That of a decision is in its
/// token.
#[must_use]
pub fn event_subject(event: Event) -> String {
    match event {
        Event::Genesis { origin, .. } => origin,
        Event::Confirmation { reservation, .. }
        | Event::Release { reservation, .. }
        | Event::Expiry { reservation, .. }
        | Event::Revocation { reservation, .. } => reservation.into(),
        Event::EvictionOrder { victim, .. } => victim.into(),
        Event::BundleActivation { digest, .. } | Event::FactsActivation { digest, .. } => {
            digest.to_string()
        }
        Event::Waiver { id, .. } | Event::Freeze { id, .. } | Event::Thaw { id, .. } => id.into(),
        Event::Decision { .. } | Event::Quotas { .. } | Event::Erasure { .. } => String::new(),
    }
}
