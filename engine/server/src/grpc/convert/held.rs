//! What is held, as the contract tells it.

use placet_core::{AccountKind, Charge, Unit};
use placet_proto::ledger::v1 as proto;

use crate::quota::{AccountUse, Reservation};

fn kind(kind: AccountKind) -> proto::AccountKind {
    match kind {
        AccountKind::Level => proto::AccountKind::Level,
        AccountKind::Budget => proto::AccountKind::Budget,
    }
}

fn unit(unit: Unit) -> proto::Unit {
    match unit {
        Unit::MilliGpu => proto::Unit::MilliGpu,
        Unit::GpuSecond => proto::Unit::GpuSecond,
        Unit::Gbps => proto::Unit::Gbps,
        Unit::Byte => proto::Unit::Byte,
        Unit::Count => proto::Unit::Count,
    }
}

/// Use of an account, with its limit if that is known.
#[must_use]
pub fn account_use(account: AccountUse, limit: Option<u64>) -> proto::AccountUse {
    proto::AccountUse {
        account: account.account.into(),
        kind: kind(account.kind).into(),
        unit: unit(account.unit).into(),
        used: account.used,
        limit,
    }
}

fn charge(charge: &Charge) -> proto::Charge {
    proto::Charge {
        account: charge.account.clone().into(),
        amount: charge.amount,
        kind: kind(charge.kind).into(),
        unit: unit(charge.unit).into(),
        limit: charge.limit,
    }
}

/// A reservation that is held, as things stand at `now`.
#[must_use]
pub fn reservation(reservation: Reservation, now: u64) -> proto::Reservation {
    let end = reservation.until();
    let charges: Vec<_> = reservation.charges_at(now).iter().map(charge).collect();
    let Reservation { booking, epoch, state, since, .. } = reservation;
    proto::Reservation {
        reservation_id: booking.id.into(),
        tenant_id: booking.tenant.into(),
        caller: booking.caller.into(),
        state: super::state(Some(state)).into(),
        epoch,
        since,
        start: booking.start,
        end,
        confirm_by: booking.confirm_by,
        charges,
    }
}
