//! What approvers allow and forbid, as far as the ledger keeps count of it: how often each waiver
//! was used, and which freezes stand.

use std::collections::BTreeMap;
use std::sync::Arc;

use placet_core::{
    Digest, FREEZE_FRESH_SECONDS, FreezeClaims, FreezeScope, Id, PriorityClass, SubjectKind,
    ThawClaims,
};

use super::journal::Undo;
use super::{Booking, Defect, Ledger};

/// Waivers that were used and can still be used: some 200 bytes each. Past it none is used for the
/// first time until another one's time is over.
pub const MAX_WAIVERS_IN_USE: usize = 65_536;
/// Freezes that stand at a time: each is looked at for every decision.
pub const MAX_FREEZES: usize = 256;

/// A waiver that was used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct WaiverUse {
    /// SHA-256 of its text.
    pub(super) digest: Digest,
    /// First second at which it can no longer be used: it counts for nothing from then on, and is
    /// forgotten when the next one is logged.
    pub(super) exp: u64,
    /// How many permits it may lift denials of.
    pub(super) uses: u32,
    /// How many it has.
    pub(super) used: u32,
}

/// Why a waiver is not used. Nothing has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WaiverError {
    /// Its time is over.
    #[error("its time is over")]
    Expired,
    /// Its time has not begun.
    #[error("its time has not begun")]
    NotYetValid,
    /// Another waiver was used under its name.
    #[error("another waiver was used under its name")]
    Changed,
    /// It was used as often as it may be.
    #[error("it was used as often as it may be")]
    UsedUp,
    /// As many as can be are in use.
    #[error("{MAX_WAIVERS_IN_USE} waivers are in use")]
    Full,
    /// Nothing says what it is.
    #[error("it was not logged")]
    Unknown,
}

/// A freeze that stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Freeze {
    /// What was signed.
    pub claims: FreezeClaims,
    /// SHA-256 of its text.
    pub digest: Digest,
    /// Since when it stands, in seconds since 1970-01-01 UTC.
    pub since: u64,
}

/// Why nothing was frozen or thawed. Nothing has changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FreezeError {
    /// It was signed too long ago, or its clock or this server's is wrong.
    #[error("it was signed at {iat}, and it is {now}: more than {FREEZE_FRESH_SECONDS} s apart")]
    Stale {
        /// When it was signed.
        iat: u64,
        /// The ledger's time.
        now: u64,
    },
    /// There is a freeze of that name, or was one just now.
    #[error("there is a freeze `{name}`, or was one just now")]
    Exists {
        /// The name.
        name: Id,
    },
    /// No freeze of that name stands.
    #[error("no freeze `{name}` stands")]
    Unknown {
        /// The name.
        name: Id,
    },
    /// As many as can be stand.
    #[error("{MAX_FREEZES} freezes stand")]
    Full,
}

/// The freezes, as one value: shared with whoever shows them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Freezes {
    /// Those that stand, by name.
    pub standing: BTreeMap<Id, Freeze>,
    /// Names that were lifted, and the last second at which the same freeze could be sent again.
    pub(super) lifted: BTreeMap<Id, u64>,
}

impl Freezes {
    /// The first, by name, that covers work of a tenant on a cluster.
    #[must_use]
    pub fn covering(
        &self,
        (tenant, cluster): (&Id, &Id),
        kind: SubjectKind,
        class: PriorityClass,
    ) -> Option<&Freeze> {
        let covers = |scope: &FreezeScope| scope.covers(tenant, cluster, kind, class);
        self.standing.values().find(|freeze| covers(&freeze.claims.scope))
    }
}

impl Ledger {
    /// Whether a waiver can be used now, from `nbf` up to `exp`, and would be for the first time.
    ///
    /// # Errors
    /// [`WaiverError`].
    pub fn check_waiver(
        &self,
        name: &Id,
        digest: Digest,
        (nbf, exp): (u64, u64),
    ) -> Result<bool, WaiverError> {
        if exp <= self.now && !self.breaks(Defect::WaiverOutlivesItself) {
            return Err(WaiverError::Expired);
        }
        if nbf > self.now {
            return Err(WaiverError::NotYetValid);
        }
        let Some(known) = self.waivers.get(name).filter(|known| known.exp > self.now) else {
            let has_lapsed = self.waivers_due.first().is_some_and(|(exp, _)| *exp <= self.now);
            let is_full = self.waivers.len() >= MAX_WAIVERS_IN_USE && !has_lapsed;
            return if is_full { Err(WaiverError::Full) } else { Ok(true) };
        };
        if known.digest != digest {
            return Err(WaiverError::Changed);
        }
        if self.is_used_up(known) { Err(WaiverError::UsedUp) } else { Ok(false) }
    }

    fn is_used_up(&self, known: &WaiverUse) -> bool {
        let more = u32::from(self.breaks(Defect::WaiverUsedOnceMore));
        known.used >= known.uses.saturating_add(more)
    }

    /// A waiver is logged: it has not been used yet.
    ///
    /// # Errors
    /// [`WaiverError`].
    pub fn begin_waiver(
        &mut self,
        name: &Id,
        (digest, exp, uses): (Digest, u64, u32),
    ) -> Result<(), WaiverError> {
        if !self.check_waiver(name, digest, (0, exp))? {
            return Err(WaiverError::Changed);
        }
        self.forget_lapsed();
        self.set_waiver(name.clone(), Some(WaiverUse { digest, exp, uses, used: 0 }));
        Ok(())
    }

    /// A permit uses a waiver that was logged.
    ///
    /// # Errors
    /// [`WaiverError`].
    pub fn use_waiver(&mut self, name: &Id) -> Result<(), WaiverError> {
        let known = self.waivers.get(name).ok_or(WaiverError::Unknown)?;
        if self.is_used_up(known) {
            return Err(WaiverError::UsedUp);
        }
        let used = known.used.saturating_add(1);
        self.set_waiver(name.clone(), Some(WaiverUse { used, ..known.clone() }));
        Ok(())
    }

    /// Freezes what a scope covers; gives whether anything changed: the same freeze, sent again,
    /// changes nothing.
    ///
    /// # Errors
    /// [`FreezeError`].
    pub fn freeze(&mut self, claims: FreezeClaims, digest: Digest) -> Result<bool, FreezeError> {
        let name = claims.jti.clone();
        if self.freezes.standing.get(&name).is_some_and(|freeze| freeze.digest == digest) {
            return Ok(false);
        }
        self.check_fresh(claims.iat)?;
        let freezes = &self.freezes;
        let just_now = freezes.lifted.get(&name).is_some_and(|until| *until >= self.now);
        if freezes.standing.contains_key(&name) || just_now {
            return Err(FreezeError::Exists { name });
        }
        if freezes.standing.len() >= MAX_FREEZES {
            return Err(FreezeError::Full);
        }
        let mut next = self.remembered();
        next.standing.insert(name, Freeze { claims, digest, since: self.now });
        self.set_freezes(next);
        Ok(true)
    }

    /// Lifts a freeze; gives what it was.
    ///
    /// # Errors
    /// [`FreezeError`].
    pub fn thaw(&mut self, claims: &ThawClaims) -> Result<Freeze, FreezeError> {
        self.check_fresh(claims.iat)?;
        let name = &claims.jti;
        let standing = self.freezes.standing.get(name);
        // One of an earlier freeze of that name is not for this one.
        let freeze = standing.filter(|freeze| freeze.claims.iat <= claims.iat);
        let freeze = freeze.ok_or_else(|| FreezeError::Unknown { name: name.clone() })?.clone();
        let mut next = self.remembered();
        next.standing.remove(name);
        let until = freeze.claims.iat.saturating_add(FREEZE_FRESH_SECONDS);
        if until >= self.now {
            next.lifted.insert(name.clone(), until);
        }
        self.set_freezes(next);
        Ok(freeze)
    }

    fn check_fresh(&self, iat: u64) -> Result<(), FreezeError> {
        if iat.abs_diff(self.now) <= FREEZE_FRESH_SECONDS {
            return Ok(());
        }
        Err(FreezeError::Stale { iat, now: self.now })
    }

    /// The freezes, as they are now.
    #[must_use]
    pub fn freezes(&self) -> &Arc<Freezes> {
        &self.freezes
    }

    /// What keeps work from beginning, if anything does.
    #[must_use]
    pub fn frozen(&self, booking: &Booking) -> Option<&Freeze> {
        let work = &booking.work;
        let place = (&booking.tenant, &work.grant.cluster_id);
        self.freezes.covering(place, work.kind, booking.class)
    }

    /// Forgets waivers whose time is over. Only where another one is logged: so what is known
    /// follows from the leaves alone, and a clock that ticks changes nothing.
    fn forget_lapsed(&mut self) {
        while let Some((_, name)) = self.waivers_due.first().filter(|(exp, _)| *exp <= self.now) {
            let name = name.clone();
            self.set_waiver(name, None);
        }
    }

    /// The freezes without what need not be remembered any more.
    fn remembered(&self) -> Freezes {
        let mut next = Freezes::clone(&self.freezes);
        next.lifted.retain(|_, until| *until >= self.now);
        next
    }

    fn set_waiver(&mut self, name: Id, waiver: Option<WaiverUse>) {
        let old = self.replace_waiver(name.clone(), waiver);
        self.journal.push(Undo::Waiver(name, old));
    }

    // INVARIANT: each waiver that was used is due exactly once: both change here and nowhere else.
    pub(super) fn replace_waiver(
        &mut self,
        name: Id,
        waiver: Option<WaiverUse>,
    ) -> Option<WaiverUse> {
        let old = self.waivers.remove(&name);
        if let Some(old) = &old {
            self.waivers_due.remove(&(old.exp, name.clone()));
        }
        if let Some(waiver) = waiver {
            self.waivers_due.insert((waiver.exp, name.clone()));
            self.waivers.insert(name, waiver);
        }
        old
    }

    fn set_freezes(&mut self, freezes: Freezes) {
        let old = std::mem::replace(&mut self.freezes, Arc::new(freezes));
        self.journal.push(Undo::Freezes(old));
    }

    /// What is wrong with the count of waivers and freezes, if anything is.
    pub(super) fn audit_approved(&self) -> Option<String> {
        let due = self.waivers.iter().map(|(name, waiver)| (waiver.exp, name.clone()));
        if due.collect::<std::collections::BTreeSet<_>>() != self.waivers_due {
            return Some("what is due of waivers is not what is in use".to_owned());
        }
        for (name, waiver) in &self.waivers {
            // INVARIANT: a waiver is known from its first use on, and was used at most as often as
            // it may be.
            if waiver.used == 0 || waiver.used > waiver.uses {
                let WaiverUse { used, uses, .. } = waiver;
                return Some(format!("waiver `{name}` was used {used} of {uses} times"));
            }
        }
        let Freezes { standing, lifted } = &*self.freezes;
        if standing.iter().any(|(name, freeze)| freeze.claims.jti != *name) {
            return Some("a freeze stands under another name".to_owned());
        }
        // INVARIANT: a name that could be sent again is lifted or stands, not both.
        let both = |(name, until): (&Id, &u64)| *until >= self.now && standing.contains_key(name);
        lifted.iter().any(both).then(|| "a freeze is lifted and stands".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(text: &str) -> Id {
        Id::new(text).unwrap()
    }

    fn at(now: u64) -> Ledger {
        let mut ledger = Ledger::default();
        ledger.advance(now).unwrap();
        ledger.keep();
        ledger
    }

    fn freeze(name: &str, iat: u64) -> FreezeClaims {
        let scope = FreezeScope { everything: true, ..FreezeScope::default() };
        FreezeClaims {
            aud: "placet".to_owned(),
            by: id("duty"),
            iat,
            jti: id(name),
            placet: 1,
            reason: "x".to_owned(),
            scope,
        }
    }

    fn thaw(name: &str, iat: u64) -> ThawClaims {
        let FreezeClaims { aud, by, iat, jti, placet, reason, .. } = freeze(name, iat);
        ThawClaims { aud, by, iat, jti, placet, reason }
    }

    #[test]
    fn a_waiver_is_used_as_often_as_it_may_be_and_forgotten_after_its_time() {
        let (mut ledger, name, digest) = (at(1_000), id("w-1"), Digest::of(b"w-1"));
        assert_eq!(ledger.check_waiver(&name, digest, (900, 1_100)), Ok(true));
        let early = ledger.check_waiver(&name, digest, (1_001, 1_100));
        assert_eq!(early, Err(WaiverError::NotYetValid));
        assert_eq!(ledger.use_waiver(&name), Err(WaiverError::Unknown));
        ledger.begin_waiver(&name, (digest, 1_100, 2)).unwrap();
        assert!(ledger.audit().is_err(), "it is logged where it is used");
        ledger.use_waiver(&name).unwrap();
        let other = Digest::of(b"other");
        assert_eq!(ledger.check_waiver(&name, other, (900, 1_100)), Err(WaiverError::Changed));
        assert_eq!(ledger.check_waiver(&name, digest, (900, 1_100)), Ok(false));
        ledger.keep();
        let before = ledger.state_digest();
        let mark = ledger.mark();
        ledger.use_waiver(&name).unwrap();
        assert_eq!(ledger.use_waiver(&name), Err(WaiverError::UsedUp));
        assert_eq!(ledger.check_waiver(&name, digest, (900, 1_100)), Err(WaiverError::UsedUp));
        ledger.undo(mark);
        assert_eq!(ledger.state_digest(), before, "what is undone was not used");
        assert_eq!(ledger.check_waiver(&name, digest, (900, 1_100)), Ok(false));

        ledger.advance(1_100).unwrap();
        assert_eq!(ledger.check_waiver(&name, digest, (900, 1_100)), Err(WaiverError::Expired));
        assert_eq!(ledger.state_digest(), before, "time alone changes nothing");
        assert_eq!(
            ledger.check_waiver(&name, other, (900, 1_200)),
            Ok(true),
            "nothing is known of it"
        );
        ledger.begin_waiver(&id("w-2"), (digest, 1_200, 1)).unwrap();
        ledger.use_waiver(&id("w-2")).unwrap();
        assert_eq!((ledger.waivers.len(), ledger.waivers_due.len()), (1, 1), "it is forgotten");
        assert_eq!(ledger.audit(), Ok(()));
        ledger.undo_all();
        assert_eq!((ledger.now(), ledger.waivers.len()), (1_000, 1), "and known again");
        assert_eq!((ledger.audit(), ledger.state_digest()), (Ok(()), before));
    }

    #[test]
    fn as_many_waivers_are_in_use_as_can_be() {
        let mut ledger = at(1_000);
        for number in 0..MAX_WAIVERS_IN_USE {
            let name = id(&format!("w-{number}"));
            let exp = if number == 7 { 1_001 } else { 2_000 };
            ledger.replace_waiver(
                name.clone(),
                Some(WaiverUse { digest: Digest::of(b""), exp, uses: 1, used: 1 }),
            );
        }
        let digest = Digest::of(b"");
        assert_eq!(ledger.check_waiver(&id("more"), digest, (900, 1_500)), Err(WaiverError::Full));
        assert_eq!(ledger.check_waiver(&id("w-1"), digest, (900, 2_000)), Err(WaiverError::UsedUp));
        ledger.advance(1_001).unwrap();
        assert_eq!(ledger.check_waiver(&id("more"), digest, (900, 1_500)), Ok(true));
        ledger.begin_waiver(&id("more"), (digest, 1_500, 1)).unwrap();
        assert_eq!(ledger.waivers.len(), MAX_WAIVERS_IN_USE);
    }

    #[test]
    fn a_freeze_stands_until_it_is_lifted_and_is_not_sent_again() {
        let (mut ledger, digest) = (at(10_000), Digest::of(b"f-1"));
        let stale = FreezeError::Stale { iat: 9_699, now: 10_000 };
        assert_eq!(ledger.freeze(freeze("f-1", 9_699), digest), Err(stale));
        assert!(ledger.freeze(freeze("f-1", 10_301), digest).is_err(), "nor of a time to come");
        assert_eq!(ledger.freeze(freeze("f-1", 9_900), digest), Ok(true));
        assert_eq!(ledger.freeze(freeze("f-1", 9_900), digest), Ok(false), "sent again");
        let exists = || Err(FreezeError::Exists { name: id("f-1") });
        assert_eq!(ledger.freeze(freeze("f-1", 9_901), Digest::of(b"other")), exists());
        ledger.advance(20_000).unwrap();
        assert_eq!(ledger.freezes().standing.len(), 1, "it stands, however long");
        assert_eq!(ledger.freeze(freeze("f-1", 9_900), digest), Ok(false), "it still stands");

        let unknown = |name: &str| Err(FreezeError::Unknown { name: id(name) });
        assert_eq!(ledger.thaw(&thaw("f-2", 20_000)), unknown("f-2"));
        assert!(ledger.thaw(&thaw("f-1", 19_000)).is_err(), "kept for later");
        assert_eq!(ledger.thaw(&thaw("f-1", 20_000)).unwrap().since, 10_000);
        assert_eq!(ledger.thaw(&thaw("f-1", 20_000)), unknown("f-1"));
        assert!(ledger.freezes().lifted.is_empty(), "it is stale by now");
        assert!(ledger.freeze(freeze("f-1", 9_900), digest).is_err(), "and so not taken");

        // One that is lifted at once could be sent again by whoever has seen it.
        assert_eq!(ledger.freeze(freeze("f-1", 20_010), digest), Ok(true));
        assert_eq!(ledger.thaw(&thaw("f-1", 20_009)), unknown("f-1"), "of the one before");
        ledger.thaw(&thaw("f-1", 20_010)).unwrap();
        assert_eq!(ledger.freeze(freeze("f-1", 20_010), digest), exists());
        assert_eq!(ledger.audit(), Ok(()));
        ledger.keep();
        ledger.advance(20_310).unwrap();
        assert_eq!(
            ledger.freeze(freeze("f-1", 20_010), digest),
            exists(),
            "as long as it could be"
        );
        ledger.advance(20_311).unwrap();
        let again = ledger.freeze(freeze("f-1", 20_010), digest);
        assert!(matches!(again, Err(FreezeError::Stale { .. })));
        assert_eq!(ledger.freeze(freeze("f-1", 20_300), Digest::of(b"new")), Ok(true));
        assert!(ledger.freezes().lifted.is_empty());
        ledger.undo_all();
        assert_eq!(ledger.freezes().lifted.len(), 1);
    }

    #[test]
    fn so_many_freezes_stand() {
        let mut ledger = at(1_000);
        for number in 0..MAX_FREEZES {
            let name = format!("f-{number}");
            assert_eq!(ledger.freeze(freeze(&name, 1_000), Digest::of(b"")), Ok(true));
        }
        let one_more = ledger.freeze(freeze("more", 1_000), Digest::of(b""));
        assert_eq!(one_more, Err(FreezeError::Full));
    }
}
