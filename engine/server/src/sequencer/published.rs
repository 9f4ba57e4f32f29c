//! What may be shown to everybody of the log's head: the newest checkpoint, and behind it the
//! newest one of each higher number of witnesses.

use std::sync::Arc;

use super::Head;

/// A checkpoint, durable, that may be shown to everybody.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Published {
    /// How many were made before it.
    pub number: u64,
    /// What it says.
    pub head: Head,
    /// The signed note (C2SP tlog-checkpoint), cosignatures and all.
    pub note: String,
    /// Witnesses that are known and cosigned it.
    pub cosigned: usize,
}

/// Checkpoints, the newest first, each with more cosignatures than all before it: so there is one
/// more than there are witnesses at most.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Shown(Vec<Arc<Published>>);

impl Shown {
    /// All of them, the newest first.
    pub(super) fn all(&self) -> &[Arc<Published>] {
        &self.0
    }

    /// The newest one.
    pub(crate) fn newest(&self) -> Option<Arc<Published>> {
        self.at_least(0)
    }

    /// The newest one that at least so many witnesses cosigned.
    pub(crate) fn at_least(&self, witnesses: usize) -> Option<Arc<Published>> {
        self.0.iter().find(|one| one.cosigned >= witnesses).cloned()
    }

    /// Most witnesses that cosigned one of them.
    pub(super) fn most(&self) -> usize {
        self.0.last().map_or(0, |last| last.cosigned)
    }

    /// Adds one, in place of what was known of it before.
    pub(super) fn put(&mut self, new: Arc<Published>) {
        self.0.retain(|one| one.number != new.number);
        let at = self.0.partition_point(|one| one.number > new.number);
        self.0.insert(at, new);
        let mut most = None;
        self.0.retain(|one| {
            let is_more = most.is_none_or(|most| one.cosigned > most);
            most = most.max(Some(one.cosigned));
            is_more
        });
    }
}

#[cfg(test)]
mod tests {
    use placet_core::merkle;
    use proptest::prelude::*;

    use super::*;

    fn one(number: u64, cosigned: usize) -> Arc<Published> {
        let head = Head { size: number + 1, root: merkle::empty_root() };
        Arc::new(Published { number, head, note: format!("{number} {cosigned}"), cosigned })
    }

    proptest! {
        /// Whatever comes when, the answer is that of a search of all of them.
        #[test]
        fn the_newest_of_enough_witnesses_is_found(
            steps in prop::collection::vec((any::<prop::sample::Index>(), 0_u8..3), 1..60),
        ) {
            let (mut shown, mut all) = (Shown::default(), Vec::<usize>::new());
            for (at, kind) in steps {
                if kind == 0 || all.is_empty() {
                    all.push(0);
                    shown.put(one(all.len() as u64 - 1, 0));
                } else {
                    let number = at.index(all.len());
                    all[number] += usize::from(kind);
                    shown.put(one(number as u64, all[number]));
                }
                for least in 0..10 {
                    let found = all.iter().rposition(|cosigned| *cosigned >= least);
                    let found = found.map(|number| one(number as u64, all[number]));
                    prop_assert_eq!(shown.at_least(least), found);
                }
                prop_assert!(shown.0.len() <= all.iter().max().unwrap() + 1);
                prop_assert_eq!(Some(&shown.most()), all.iter().max());
            }
        }
    }
}
