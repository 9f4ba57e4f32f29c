//! What it takes to bring the ledger back to where it was.

use std::sync::Arc;

use placet_core::{AccountPath, Id};

use super::approved::{Freezes, WaiverUse};
use super::cohorts::Nodes;
use super::timeline::TimelineUndo;
use super::{Account, Budget, Defect, Ended, Ledger, Reservation};

/// One change, as it was before. Applied in reverse order these bring the ledger back.
#[derive(Debug)]
pub(super) enum Undo {
    /// The time was this.
    Now(u64),
    /// The account was this, or did not exist.
    Account(AccountPath, Option<Account>),
    /// The budget account's use was this.
    Budget(AccountPath, Budget),
    /// The level account's timeline had this.
    Timeline(AccountPath, TimelineUndo),
    /// The trees of quotas were these.
    Nodes(Nodes),
    /// What an account with children holds had this.
    Total(AccountPath, TimelineUndo),
    /// The reservation was held like this, or not held.
    Live(Id, Option<Box<Reservation>>),
    /// The ended reservation was remembered like this, or not remembered.
    Ended(Id, Option<Ended>),
    /// The waiver was used like this, or not used.
    Waiver(Id, Option<WaiverUse>),
    /// The freezes were these.
    Freezes(Arc<Freezes>),
    /// The tenant last lost work then, or never.
    Evicted(Id, Option<u64>),
}

/// The changes since the last [`Ledger::keep`].
#[derive(Debug, Default)]
pub(super) struct Journal(Vec<Undo>);

impl Journal {
    pub(super) fn push(&mut self, undo: Undo) {
        self.0.push(undo);
    }

    /// Takes the changes of one account's timeline.
    pub(super) fn changes_of(&mut self, account: &AccountPath) -> impl FnMut(TimelineUndo) {
        |undo| self.0.push(Undo::Timeline(account.clone(), undo))
    }
}

/// A point to which the ledger can be taken back, until it is kept.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Mark(usize);

impl Ledger {
    /// The point where the ledger stands.
    pub(crate) fn mark(&self) -> Mark {
        Mark(self.journal.0.len())
    }

    /// Makes every change final: none can be undone from here on.
    pub fn keep(&mut self) {
        self.journal.0.clear();
    }

    /// Undoes everything since the last [`Ledger::keep`].
    pub(crate) fn undo_all(&mut self) {
        self.undo(Mark(0));
    }

    /// Undoes everything since a mark.
    pub(crate) fn undo(&mut self, mark: Mark) {
        while self.journal.0.len() > mark.0 {
            let Some(undo) = self.journal.0.pop() else { break };
            self.undo_one(undo);
        }
    }

    fn undo_one(&mut self, undo: Undo) {
        match undo {
            Undo::Now(now) => self.now = now,
            Undo::Account(path, Some(account)) => {
                self.accounts.insert(path, account);
            }
            Undo::Account(path, None) => {
                self.accounts.remove(&path);
            }
            Undo::Budget(..) if self.breaks(Defect::UndoForgetsBudgets) => {}
            Undo::Budget(path, old) => {
                if let Some(Account::Budget(_, budget)) = self.accounts.get_mut(&path) {
                    *budget = old;
                }
            }
            Undo::Timeline(path, old) => {
                if let Some(Account::Level(_, timeline)) = self.accounts.get_mut(&path) {
                    timeline.undo(old).expect("what was done can be taken back");
                }
            }
            Undo::Nodes(nodes) => self.nodes = nodes,
            Undo::Total(..) if self.breaks(Defect::UndoForgetsCohorts) => {}
            Undo::Total(path, old) => {
                if let Some(node) = self.nodes.get_mut(&path) {
                    node.total.undo(old).expect("what was done can be taken back");
                }
            }
            Undo::Live(id, reservation) => {
                self.replace_live(id, reservation.map(|own| *own));
            }
            Undo::Ended(id, ended) => {
                self.replace_ended(id, ended);
            }
            Undo::Waiver(name, waiver) => {
                self.replace_waiver(name, waiver);
            }
            Undo::Freezes(freezes) => self.freezes = freezes,
            Undo::Evicted(..) if self.breaks(Defect::UndoForgetsEvictions) => {}
            Undo::Evicted(tenant, at) => {
                self.evicted.replace(tenant, at);
            }
        }
    }

    pub(super) fn set_now(&mut self, now: u64) {
        if now != self.now {
            self.journal.push(Undo::Now(self.now));
            self.now = now;
        }
    }

    pub(super) fn set_live(&mut self, id: Id, reservation: Option<Reservation>) {
        let old = self.replace_live(id.clone(), reservation);
        self.journal.push(Undo::Live(id, old.map(Box::new)));
    }

    pub(super) fn set_ended(&mut self, id: Id, ended: Option<Ended>) {
        let old = self.replace_ended(id.clone(), ended);
        self.journal.push(Undo::Ended(id, old));
    }

    pub(super) fn set_evicted(&mut self, tenant: Id, at: Option<u64>) {
        let old = self.evicted.replace(tenant.clone(), at);
        self.journal.push(Undo::Evicted(tenant, old));
    }

    // INVARIANT: a live reservation is due exactly once: both sets change here and nowhere else.
    fn replace_live(&mut self, id: Id, reservation: Option<Reservation>) -> Option<Reservation> {
        let due = reservation.as_ref().map(Reservation::due);
        let old = self.live.remove(&id);
        let was_due = old.as_ref().map(Reservation::due);
        let index = |held: &Reservation| (self.displaceable(held), held.extensions.len());
        let same = old.as_ref().map(index) == reservation.as_ref().map(index);
        if let Some(old) = old.as_ref().filter(|_| !same) {
            self.index(old, false);
        }
        if let Some(new) = reservation {
            if !same {
                self.index(&new, true);
            }
            self.live.insert(id.clone(), new);
        }
        if was_due != due {
            if let Some(at) = was_due {
                self.due.remove(&(at, id.clone()));
            }
            if let Some(at) = due {
                self.due.insert((at, id));
            }
        }
        old
    }

    /// Puts a reservation that others may displace into the index, or takes it out.
    /// A job inside a lease has its place in the lease's list.
    fn index(&mut self, held: &Reservation, there: bool) {
        self.index_inside(held, there);
        if !self.displaceable(held) {
            return;
        }
        let entry = (held.booking.start, held.booking.id.clone());
        for (charge, _) in held.holdings() {
            if there {
                let own = self.displaceable.entry(charge.account.clone()).or_default();
                own.insert(entry.clone());
            } else if let Some(own) = self.displaceable.get_mut(&charge.account) {
                own.remove(&entry);
                if own.is_empty() {
                    self.displaceable.remove(&charge.account);
                }
            }
        }
    }

    fn replace_ended(&mut self, id: Id, ended: Option<Ended>) -> Option<Ended> {
        if let Some(old) = self.ended.get(&id) {
            self.ended_order.remove(&old.number);
        }
        match ended {
            Some(ended) => {
                self.ended_order.insert(ended.number, id.clone());
                self.ended.insert(id, ended)
            }
            None => self.ended.remove(&id),
        }
    }
}
