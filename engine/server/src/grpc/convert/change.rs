//! What became of a reservation, as the contract tells it.

use placet_core::{Event, ExpiryCause, Leaf};
use placet_proto::ledger::v1 as proto;
use placet_proto::ledger::v1::watch_response::Change;

/// The change of a reservation that a leaf holds, with the leaf's position; `None` if it holds
/// something else.
#[must_use]
pub fn change(position: u64, leaf: Leaf) -> Option<proto::WatchResponse> {
    let change = match leaf.event {
        Event::EvictionOrder { epoch, evict_by, preemptor, token, victim } => {
            let (victim, preemptor) = (victim.into(), preemptor.into());
            let order = proto::EvictionOrdered { token, victim, preemptor, epoch, evict_by };
            Change::EvictionOrdered(order)
        }
        Event::Confirmation { epoch, reservation, .. } => {
            let reservation_id = reservation.into();
            Change::Confirmed(proto::Confirmed { reservation_id, epoch })
        }
        Event::Release { epoch, reservation, .. } => {
            let reservation_id = reservation.into();
            Change::Released(proto::Released { reservation_id, epoch })
        }
        Event::Expiry { cause, epoch, reservation, .. } => {
            let (reservation_id, cause) = (reservation.into(), expiry_cause(cause).into());
            Change::Expired(proto::Expired { reservation_id, epoch, cause })
        }
        // These say nothing of a reservation, or what its decision says.
        Event::Genesis { .. }
        | Event::Decision { .. }
        | Event::BundleActivation { .. }
        | Event::FactsActivation { .. }
        | Event::Quotas { .. }
        | Event::Erasure { .. }
        | Event::Waiver { .. }
        | Event::Freeze { .. }
        | Event::Thaw { .. } => return None,
        // Nobody writes these: a log that has one is refused when it is opened.
        Event::Revocation { .. } => return None,
    };
    Some(proto::WatchResponse { position, time: leaf.time, change: Some(change) })
}

/// The kind of a change.
#[must_use]
pub fn change_kind(change: &Change) -> proto::ChangeKind {
    match change {
        Change::EvictionOrdered(_) => proto::ChangeKind::EvictionOrdered,
        Change::Confirmed(_) => proto::ChangeKind::Confirmed,
        Change::Released(_) => proto::ChangeKind::Released,
        Change::Expired(_) => proto::ChangeKind::Expired,
    }
}

fn expiry_cause(cause: ExpiryCause) -> proto::ExpiryCause {
    match cause {
        ExpiryCause::Unconfirmed => proto::ExpiryCause::Unconfirmed,
        ExpiryCause::Ended => proto::ExpiryCause::Ended,
        ExpiryCause::Evicted => proto::ExpiryCause::Evicted,
        ExpiryCause::LeaseEnded => proto::ExpiryCause::LeaseEnded,
    }
}
