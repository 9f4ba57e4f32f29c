//! How much of a level account is held, second by second.
//!
//! The changes of the level are kept in a radix tree over their seconds. Each fork knows the sum
//! of the changes below it and the highest and lowest level that they lead to, so that the peak of
//! any interval, and the next second at which the level passes a bound, are found in a number of
//! looks that the bits of a second bound, however many reservations there are. The tree's shape
//! follows from its seconds alone: timelines that hold the same are equal.

/// One change of a timeline, to be taken back: applied in reverse order these bring it to what it
/// was.
#[derive(Debug, Clone)]
pub(super) enum TimelineUndo {
    /// The level changed by this at this second.
    Change(u64, i64),
    /// The timeline began at this second with this level.
    Base(u64, u64),
}

/// A sum that would not fit, or a part that is not there to take away: the ledger's own books are
/// wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Broken;

/// A step function of time: `base` from second `from` on, then the changes. Changes at `from` or
/// before are folded in.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Timeline {
    from: u64,
    base: u64,
    changes: Tree,
}

/// A bound that a level passes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Bound {
    /// More than this.
    Above(u64),
    /// This or less.
    AtMost(u64),
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
enum Tree {
    #[default]
    Empty,
    /// By how much the level changes at a second: not 0.
    Leaf {
        at: u64,
        change: i64,
    },
    Fork(Box<Fork>),
}

/// Seconds that have the bits above `bit` in common: those without the bit, then those with it.
/// Neither side is empty.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Fork {
    /// The first second that there could be below.
    first: u64,
    bit: u32,
    sides: [Tree; 2],
    sum: Sum,
}

/// What some changes in a row do to a level.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Sum {
    /// From before the first to after the last.
    all: i64,
    /// From before the first to the highest of the levels after one of them.
    high: i64,
    /// The same for the lowest.
    low: i64,
}

impl Sum {
    fn one(change: i64) -> Self {
        Self { all: change, high: change, low: change }
    }

    /// Of these changes and then others.
    fn then(self, next: Self) -> Result<Self, Broken> {
        let after = |change: i64| self.all.checked_add(change).ok_or(Broken);
        Ok(Self {
            all: after(next.all)?,
            high: self.high.max(after(next.high)?),
            low: self.low.min(after(next.low)?),
        })
    }
}

impl Timeline {
    /// Highest level within `[start, end)`, which is not empty; seconds before `from` count as
    /// `from`.
    pub(super) fn peak(&self, start: u64, end: u64) -> Result<u64, Broken> {
        let mut peak = Peak { start, end, high: None };
        let after = self.changes.peak(signed(self.base)?, &mut peak)?;
        // Without a change later than the start, the level stays what it is there.
        u64::try_from(peak.high.unwrap_or(after)).map_err(|_negative| Broken)
    }

    /// The level at a second.
    pub(super) fn level(&self, at: u64) -> Result<u64, Broken> {
        self.peak(at, at.saturating_add(1))
    }

    /// First second after `after` at which the level changes to one beyond the bound; `None` if
    /// there is none.
    pub(super) fn next(&self, after: u64, bound: Bound) -> Result<Option<u64>, Broken> {
        self.changes.next(&mut signed(self.base)?, after, bound)
    }

    /// First second after `after` at which the level changes.
    pub(super) fn next_change(&self, after: u64) -> Option<u64> {
        self.changes.next_change(after)
    }

    /// Whether nothing is held now or later.
    pub(super) fn is_empty(&self) -> bool {
        self.base == 0 && self.changes == Tree::Empty
    }

    /// A timeline that began with a level at a second; its changes are still to come.
    pub(super) fn from(from: u64, base: u64) -> Self {
        Self { from, base, changes: Tree::Empty }
    }

    /// The second from which on it is known, and the level there.
    pub(super) fn begin(&self) -> (u64, u64) {
        (self.from, self.base)
    }

    /// Every change behind its beginning, in the order of time.
    pub(super) fn each_change<E>(
        &self,
        visit: &mut impl FnMut(u64, i64) -> Result<(), E>,
    ) -> Result<(), E> {
        self.changes.each(visit)
    }

    /// Puts a change back, which is not 0 and behind its beginning.
    pub(super) fn put_change(&mut self, at: u64, by: i64) -> Result<(), Broken> {
        if at <= self.from || by == 0 {
            return Err(Broken);
        }
        self.change(at, by, &mut |_| {})
    }

    /// The levels: the second where each begins, and the level.
    pub(super) fn levels(&self) -> Result<Vec<(u64, u64)>, Broken> {
        let mut levels = vec![(self.from, self.base)];
        let mut level = self.base;
        self.changes.each(&mut |at, change| {
            level = level.checked_add_signed(change).ok_or(Broken)?;
            levels.push((at, level));
            Ok::<(), Broken>(())
        })?;
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
        while let Some((at, change)) = self.changes.first().filter(|(at, _)| *at <= now) {
            level = level.checked_add_signed(change).ok_or(Broken)?;
            self.change(at, change.checked_neg().ok_or(Broken)?, undo)?;
        }
        undo(TimelineUndo::Base(self.from, self.base));
        (self.from, self.base) = (now, level);
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
        self.shift(start, end, signed(amount)?, undo)
    }

    /// Changes the level over `[start, end)`, which ends after `from`.
    pub(super) fn shift(
        &mut self,
        start: u64,
        end: u64,
        change: i64,
        undo: &mut impl FnMut(TimelineUndo),
    ) -> Result<(), Broken> {
        if start <= self.from {
            let base = self.base.checked_add_signed(change).ok_or(Broken)?;
            undo(TimelineUndo::Base(self.from, self.base));
            self.base = base;
        } else {
            self.change(start, change, undo)?;
        }
        self.change(end, change.checked_neg().ok_or(Broken)?, undo)
    }

    /// Takes one change back.
    pub(super) fn undo(&mut self, undo: TimelineUndo) -> Result<(), Broken> {
        match undo {
            TimelineUndo::Change(at, change) => {
                self.change(at, change.checked_neg().ok_or(Broken)?, &mut |_| {})
            }
            TimelineUndo::Base(from, base) => {
                (self.from, self.base) = (from, base);
                Ok(())
            }
        }
    }

    fn change(
        &mut self,
        at: u64,
        change: i64,
        undo: &mut impl FnMut(TimelineUndo),
    ) -> Result<(), Broken> {
        self.changes = std::mem::take(&mut self.changes).changed(at, change)?;
        undo(TimelineUndo::Change(at, change));
        Ok(())
    }
}

/// An interval, and the highest level found in it so far.
struct Peak {
    start: u64,
    end: u64,
    high: Option<i64>,
}

impl Peak {
    fn meet(&mut self, level: i64) {
        self.high = Some(self.high.map_or(level, |high| high.max(level)));
    }
}

impl Tree {
    /// First and last second that there could be in it.
    fn range(&self) -> Option<(u64, u64)> {
        match self {
            Self::Empty => None,
            Self::Leaf { at, .. } => Some((*at, *at)),
            Self::Fork(fork) => Some((fork.first, fork.first | below(fork.bit))),
        }
    }

    fn sum(&self) -> Option<Sum> {
        match self {
            Self::Empty => None,
            Self::Leaf { change, .. } => Some(Sum::one(*change)),
            Self::Fork(fork) => Some(fork.sum),
        }
    }

    /// The tree with one more change at a second. What adds up to nothing is not kept.
    fn changed(self, at: u64, change: i64) -> Result<Self, Broken> {
        if change == 0 {
            return Ok(self);
        }
        let leaf = Self::Leaf { at, change };
        let Some((first, last)) = self.range() else { return Ok(leaf) };
        if !(first..=last).contains(&at) {
            return fork(self, first, leaf, at);
        }
        match self {
            Self::Empty => Ok(leaf),
            Self::Leaf { change: before, .. } => {
                let change = before.checked_add(change).ok_or(Broken)?;
                Ok(if change == 0 { Self::Empty } else { Self::Leaf { at, change } })
            }
            Self::Fork(mut fork) => {
                let [left, right] = &mut fork.sides;
                let side = if at & (1 << fork.bit) == 0 { &mut *left } else { &mut *right };
                *side = std::mem::take(side).changed(at, change)?;
                match (left.sum(), right.sum()) {
                    (Some(first), Some(second)) => {
                        fork.sum = first.then(second)?;
                        Ok(Self::Fork(fork))
                    }
                    // A change came to nothing: what is left takes the place of both.
                    (Some(_), None) => Ok(std::mem::take(left)),
                    (None, _) => Ok(std::mem::take(right)),
                }
            }
        }
    }

    /// Meets every level within the interval; gives the level after the tree, as far as it was
    /// looked at.
    fn peak(&self, before: i64, peak: &mut Peak) -> Result<i64, Broken> {
        let (Some((first, last)), Some(sum)) = (self.range(), self.sum()) else {
            return Ok(before);
        };
        let after = |change: i64| before.checked_add(change).ok_or(Broken);
        if first >= peak.end {
            // The level before it reaches into the interval if nothing else did.
            if peak.high.is_none() {
                peak.meet(before);
            }
            return Ok(before);
        }
        if last <= peak.start {
            return after(sum.all);
        }
        if first > peak.start && peak.high.is_none() {
            // The level at the start of the interval is that from before its first change.
            peak.meet(before);
        }
        match self {
            Self::Fork(fork) if first <= peak.start || last >= peak.end => {
                let [left, right] = &fork.sides;
                let between = left.peak(before, peak)?;
                right.peak(between, peak)
            }
            Self::Empty | Self::Leaf { .. } | Self::Fork(_) => {
                peak.meet(after(sum.high)?);
                after(sum.all)
            }
        }
    }

    fn next(&self, level: &mut i64, after: u64, bound: Bound) -> Result<Option<u64>, Broken> {
        let (Some((_, last)), Some(sum)) = (self.range(), self.sum()) else { return Ok(None) };
        let passes = |level: i64| match bound {
            Bound::Above(bound) => signed(bound).map(|bound| level > bound),
            Bound::AtMost(bound) => signed(bound).map(|bound| level <= bound),
        };
        let extreme = if let Bound::Above(_) = bound { sum.high } else { sum.low };
        let extreme = level.checked_add(extreme).ok_or(Broken)?;
        if last <= after || !passes(extreme)? {
            *level = level.checked_add(sum.all).ok_or(Broken)?;
            return Ok(None);
        }
        match self {
            Self::Empty => Ok(None),
            Self::Leaf { at, .. } => Ok(Some(*at)),
            Self::Fork(fork) => {
                let [left, right] = &fork.sides;
                match left.next(level, after, bound)? {
                    Some(at) => Ok(Some(at)),
                    None => right.next(level, after, bound),
                }
            }
        }
    }

    fn next_change(&self, after: u64) -> Option<u64> {
        match self {
            Self::Empty => None,
            Self::Leaf { at, .. } => Some(*at).filter(|at| *at > after),
            Self::Fork(fork) => {
                let (_, last) = self.range()?;
                let [left, right] = &fork.sides;
                let found = (last > after).then(|| left.next_change(after)).flatten();
                found.or_else(|| if last > after { right.next_change(after) } else { None })
            }
        }
    }

    fn first(&self) -> Option<(u64, i64)> {
        match self {
            Self::Empty => None,
            Self::Leaf { at, change } => Some((*at, *change)),
            Self::Fork(fork) => fork.sides.iter().find_map(Self::first),
        }
    }

    /// Every change, in the order of time.
    fn each<E>(&self, visit: &mut impl FnMut(u64, i64) -> Result<(), E>) -> Result<(), E> {
        match self {
            Self::Empty => Ok(()),
            Self::Leaf { at, change } => visit(*at, *change),
            Self::Fork(fork) => fork.sides.iter().try_for_each(|side| side.each(visit)),
        }
    }
}

/// A tree of two that have no second in common.
fn fork(one: Tree, in_one: u64, other: Tree, in_other: u64) -> Result<Tree, Broken> {
    let highest = (in_one ^ in_other).checked_ilog2().ok_or(Broken)?;
    let sides = if in_one < in_other { [one, other] } else { [other, one] };
    let [Some(left), Some(right)] = sides.each_ref().map(Tree::sum) else { return Err(Broken) };
    let (first, sum) = (in_one & !below(highest), left.then(right)?);
    Ok(Tree::Fork(Box::new(Fork { first, bit: highest, sides, sum })))
}

/// The bit and all below it.
fn below(bit: u32) -> u64 {
    u64::MAX >> (u64::BITS.saturating_sub(1).saturating_sub(bit))
}

fn signed(amount: u64) -> Result<i64, Broken> {
    i64::try_from(amount).map_err(|_beyond| Broken)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Levels second by second, from 0 to 63.
    fn plain(holds: &[(u64, u64, u64)]) -> Vec<u64> {
        let at = |second: u64| {
            holds
                .iter()
                .filter(move |(start, end, _)| (*start..*end).contains(&second))
                .map(|hold| hold.2)
        };
        (0..64).map(|second| at(second).sum()).collect()
    }

    fn hold() -> impl Strategy<Value = (u64, u64, u64)> {
        (0..60_u64, 1..20_u64, 1..9_u64)
            .prop_map(|(start, length, amount)| (start, (start + length).min(63), amount))
    }

    proptest! {
        #[test]
        fn it_is_the_sum_of_its_holds(
            holds in proptest::collection::vec(hold(), 0..24),
            gone in proptest::collection::vec(any::<bool>(), 24),
            now in 0..40_u64,
            (start, length, bound) in (0..63_u64, 1..63_u64, 0..30_u64),
        ) {
            let mut undos = Vec::new();
            let mut timeline = Timeline::default();
            for (start, end, amount) in &holds {
                timeline.add(*start, *end, *amount, &mut |undo| undos.push(undo)).unwrap();
            }
            let all = plain(&holds);
            let kept: Vec<_> = holds.iter().zip(&gone).filter(|(_, gone)| !**gone).collect();
            let kept: Vec<_> = kept.into_iter().map(|(hold, _)| *hold).collect();
            let full = timeline.clone();
            let mark = undos.len();
            for ((start, end, amount), _) in holds.iter().zip(&gone).filter(|(_, gone)| **gone) {
                let less = -i64::try_from(*amount).unwrap();
                timeline.shift(*start, *end, less, &mut |undo| undos.push(undo)).unwrap();
            }
            let mut fresh = Timeline::default();
            for (start, end, amount) in kept.iter().rev() {
                fresh.add(*start, *end, *amount, &mut |_| {}).unwrap();
            }
            prop_assert_eq!(&timeline, &fresh, "the shape follows from what is held");
            for undo in undos.drain(mark..).rev() {
                timeline.undo(undo).unwrap();
            }
            prop_assert_eq!(&timeline, &full);
            timeline.advance(now, &mut |undo| undos.push(undo)).unwrap();
            let start = start.max(now);
            let end = (start + length).min(64);
            let index = |second: u64| usize::try_from(second).unwrap();
            if start < end {
                let peak = all[index(start)..index(end)].iter().max().copied();
                prop_assert_eq!(timeline.peak(start, end).ok(), peak);
            }
            prop_assert_eq!(timeline.level(start).unwrap(), all[index(start)]);
            let next = |passes: &dyn Fn(u64, u64) -> bool| {
                (start + 1..64).find(|second| passes(all[index(second - 1)], all[index(*second)]))
            };
            // A bound is passed where the level changes; between changes nothing is new.
            let above = next(&|before, level| level != before && level > bound);
            prop_assert_eq!(timeline.next(start, Bound::Above(bound)).unwrap(), above);
            let at_most = next(&|before, level| level != before && level <= bound);
            prop_assert_eq!(timeline.next(start, Bound::AtMost(bound)).unwrap(), at_most);
            prop_assert_eq!(timeline.next_change(start), next(&|before, level| level != before));
            for undo in undos.drain(..).rev() {
                timeline.undo(undo).unwrap();
            }
            prop_assert_eq!(timeline, Timeline::default());
        }
    }

    #[test]
    fn the_last_second_and_the_largest_amount_fit() {
        let mut timeline = Timeline::default();
        let most = (1 << 53) - 1;
        timeline.add(u64::MAX - 1, u64::MAX, most, &mut |_| {}).unwrap();
        timeline.add(0, u64::MAX, most, &mut |_| {}).unwrap();
        assert_eq!(timeline.peak(0, u64::MAX), Ok(2 * most));
        assert_eq!(timeline.peak(0, u64::MAX - 1), Ok(most));
        assert_eq!(timeline.next(0, Bound::Above(most)), Ok(Some(u64::MAX - 1)));
        assert_eq!(timeline.add(0, 5, u64::MAX, &mut |_| {}), Err(Broken));
    }
}
