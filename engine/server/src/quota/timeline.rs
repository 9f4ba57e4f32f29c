//! How much of a level account is held, second by second.

use std::collections::{BTreeMap, BTreeSet};

/// What changes at one instant. Both parts are kept, so that taking one reservation out leaves the
/// others' steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Step {
    /// Amounts of the reservations that begin here.
    up: u64,
    /// Amounts of the reservations that end here.
    down: u64,
}

/// One change of a timeline, as it was before: applied in reverse order these bring it back.
#[derive(Debug, Clone)]
pub(super) enum TimelineUndo {
    /// The step at this second was this one.
    Step(u64, Step),
    /// The timeline began at this second with this level.
    Base(u64, u64),
}

/// A sum that would not fit, or a part that is not there to take away: the ledger's own books are
/// wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Broken;

/// A step function of time: `base` from second `from` on, then the steps. Steps at `from` or before
/// are folded in.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Timeline {
    from: u64,
    base: u64,
    steps: BTreeMap<u64, Step>,
    /// The seconds of steps with `up > 0`: only there can the level rise. As long as every
    /// reservation starts when it is decided there are none ahead, and the peak of an interval is
    /// the level at its first second.
    rises: BTreeSet<u64>,
}

impl Timeline {
    /// Highest level within `[start, end)`; seconds before `from` count as `from`.
    pub(super) fn peak(&self, start: u64, end: u64) -> Result<u64, Broken> {
        if start <= self.from && self.rises.range(..end).next().is_none() {
            return Ok(self.base);
        }
        let (mut level, mut peak) = (self.base, 0);
        for (at, step) in self.steps.range(..end) {
            if *at > start {
                // The level that held up to here touches the interval.
                peak = peak.max(level);
            }
            level = step.apply(level)?;
        }
        Ok(peak.max(level))
    }

    /// Whether nothing is held now or later.
    pub(super) fn is_empty(&self) -> bool {
        self.base == 0 && self.steps.is_empty()
    }

    /// The levels: the second where each begins, and the level.
    pub(super) fn levels(&self) -> Result<Vec<(u64, u64)>, Broken> {
        let mut level = self.base;
        let mut levels = vec![(self.from, level)];
        for (at, step) in &self.steps {
            level = step.apply(level)?;
            levels.push((*at, level));
        }
        Ok(levels)
    }

    /// Drops what lies before `now`.
    pub(super) fn advance(
        &mut self,
        now: u64,
        undo: &mut impl FnMut(TimelineUndo),
    ) -> Result<(), Broken> {
        if now <= self.from {
            return Ok(());
        }
        let mut level = self.base;
        while let Some((at, step)) = self.steps.first_key_value().map(|(at, step)| (*at, *step)) {
            if at > now {
                break;
            }
            level = step.apply(level)?;
            self.set_step(at, Step::default(), undo);
        }
        self.set_base(now, level, undo);
        Ok(())
    }

    /// Holds `amount` more over `[start, end)`. The caller has advanced the timeline to now, and
    /// `end` is later.
    pub(super) fn add(
        &mut self,
        start: u64,
        end: u64,
        amount: u64,
        undo: &mut impl FnMut(TimelineUndo),
    ) -> Result<(), Broken> {
        if start <= self.from {
            let base = self.base.checked_add(amount).ok_or(Broken)?;
            self.set_base(self.from, base, undo);
        } else {
            let mut step = self.step(start);
            step.up = step.up.checked_add(amount).ok_or(Broken)?;
            self.set_step(start, step, undo);
        }
        let mut step = self.step(end);
        step.down = step.down.checked_add(amount).ok_or(Broken)?;
        self.set_step(end, step, undo);
        Ok(())
    }

    /// Takes out what is left of a hold that was added with the same interval and amount.
    pub(super) fn remove(
        &mut self,
        start: u64,
        end: u64,
        amount: u64,
        undo: &mut impl FnMut(TimelineUndo),
    ) -> Result<(), Broken> {
        if end <= self.from {
            // It has ended by itself: its steps are folded in, up and down.
            return Ok(());
        }
        if start <= self.from {
            let base = self.base.checked_sub(amount).ok_or(Broken)?;
            self.set_base(self.from, base, undo);
        } else {
            let mut step = self.step(start);
            step.up = step.up.checked_sub(amount).ok_or(Broken)?;
            self.set_step(start, step, undo);
        }
        let mut step = self.step(end);
        step.down = step.down.checked_sub(amount).ok_or(Broken)?;
        self.set_step(end, step, undo);
        Ok(())
    }

    /// Takes one change back.
    pub(super) fn undo(&mut self, undo: TimelineUndo) {
        let ignore = &mut |_: TimelineUndo| {};
        match undo {
            TimelineUndo::Step(at, step) => self.set_step(at, step, ignore),
            TimelineUndo::Base(from, base) => self.set_base(from, base, ignore),
        }
    }

    fn step(&self, at: u64) -> Step {
        self.steps.get(&at).copied().unwrap_or_default()
    }

    fn set_step(&mut self, at: u64, step: Step, undo: &mut impl FnMut(TimelineUndo)) {
        let old = if step == Step::default() {
            self.steps.remove(&at)
        } else {
            self.steps.insert(at, step)
        };
        if step.up > 0 {
            self.rises.insert(at);
        } else if old.is_some_and(|old| old.up > 0) {
            self.rises.remove(&at);
        }
        undo(TimelineUndo::Step(at, old.unwrap_or_default()));
    }

    fn set_base(&mut self, from: u64, base: u64, undo: &mut impl FnMut(TimelineUndo)) {
        undo(TimelineUndo::Base(self.from, self.base));
        self.from = from;
        self.base = base;
    }
}

impl Step {
    /// The level after this step. Those that end leave before those that begin take their place.
    fn apply(self, level: u64) -> Result<u64, Broken> {
        level.checked_sub(self.down).and_then(|level| level.checked_add(self.up)).ok_or(Broken)
    }
}
