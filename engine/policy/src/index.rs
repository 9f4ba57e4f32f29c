//! Which policies may select an input: an index, so that cost follows the policies that match and
//! not those installed.

use std::collections::{BTreeMap, BTreeSet};

use placet_core::{Id, PriorityClass, SubjectKind};

use crate::bundle::Selector;
use crate::input::Input;

/// Positions of policies, each filed once for every value of one dimension of its selector: the
/// dimension in which it shares its values with the fewest other policies.
///
/// A lookup reads the lists of one input's values, and so meets a policy at most once. What it meets is
/// no more than filed there: the other dimensions are still to be compared.
#[derive(Debug, Default)]
pub(crate) struct Index {
    by_tenant: BTreeMap<Id, Vec<usize>>,
    by_cluster: BTreeMap<Id, Vec<usize>>,
    by_jurisdiction: BTreeMap<Id, Vec<usize>>,
    /// By kind and class, or any: the policies that select by none of the above.
    by_kind: BTreeMap<(Option<SubjectKind>, Option<PriorityClass>), Vec<usize>>,
}

impl Index {
    /// Files every selector under its position.
    pub(crate) fn of<'a>(selectors: impl Iterator<Item = &'a Selector> + Clone) -> Self {
        let mut tenants = BTreeMap::new();
        let mut clusters = BTreeMap::new();
        let mut jurisdictions = BTreeMap::new();
        for select in selectors.clone() {
            count(&select.tenants, &mut tenants);
            count(&select.clusters, &mut clusters);
            count(&select.jurisdictions, &mut jurisdictions);
        }
        let mut index = Self::default();
        for (at, select) in selectors.enumerate() {
            // Of equally shared dimensions the first: the order is fixed, so is the index.
            let dimensions = [
                (shared(&select.tenants, &tenants), &mut index.by_tenant, &select.tenants),
                (shared(&select.clusters, &clusters), &mut index.by_cluster, &select.clusters),
                (
                    shared(&select.jurisdictions, &jurisdictions),
                    &mut index.by_jurisdiction,
                    &select.jurisdictions,
                ),
            ];
            let listed = dimensions.into_iter().filter(|(_, _, values)| !values.is_empty());
            match listed.min_by_key(|(shared, _, _)| *shared) {
                Some((_, by_value, values)) => {
                    for value in values.iter().collect::<BTreeSet<_>>() {
                        by_value.entry(value.clone()).or_default().push(at);
                    }
                }
                None => index.file_by_kind(at, select),
            }
        }
        index
    }

    fn file_by_kind(&mut self, at: usize, select: &Selector) {
        for kind in one_or_each(&select.kinds) {
            for class in one_or_each(&select.priority_classes) {
                self.by_kind.entry((kind, class)).or_default().push(at);
            }
        }
    }

    /// Positions of the policies that may select an input, each once, in no order.
    pub(crate) fn filed(&self, input: &Input, kind: SubjectKind) -> impl Iterator<Item = usize> {
        let lists = [
            self.by_tenant.get(&input.tenant.id),
            self.by_cluster.get(&input.cluster.id),
            self.by_jurisdiction.get(&input.cluster.jurisdiction),
            self.by_kind.get(&(Some(kind), Some(input.priority_class))),
            self.by_kind.get(&(Some(kind), None)),
            self.by_kind.get(&(None, Some(input.priority_class))),
            self.by_kind.get(&(None, None)),
        ];
        lists.into_iter().flatten().flatten().copied()
    }
}

fn count<'a>(values: &'a [Id], counts: &mut BTreeMap<&'a Id, usize>) {
    for value in values.iter().collect::<BTreeSet<_>>() {
        let count: &mut usize = counts.entry(value).or_default();
        *count = count.saturating_add(1);
    }
}

/// Most policies that list one of the values.
fn shared(values: &[Id], counts: &BTreeMap<&Id, usize>) -> usize {
    values.iter().filter_map(|value| counts.get(value)).max().copied().unwrap_or_default()
}

/// Each value once; `None`, which is any, if there are none.
fn one_or_each<T: Copy + Ord>(values: &[T]) -> BTreeSet<Option<T>> {
    let each: BTreeSet<_> = values.iter().copied().map(Some).collect();
    if each.is_empty() { BTreeSet::from([None]) } else { each }
}

fn any_or<T: PartialEq>(list: &[T], one: &T) -> bool {
    list.is_empty() || list.contains(one)
}

impl Selector {
    /// Whether a policy with this selector is asked about an input.
    pub(crate) fn matches(&self, input: &Input, kind: SubjectKind) -> bool {
        any_or(&self.kinds, &kind)
            && any_or(&self.tenants, &input.tenant.id)
            && any_or(&self.clusters, &input.cluster.id)
            && any_or(&self.jurisdictions, &input.cluster.jurisdiction)
            && any_or(&self.priority_classes, &input.priority_class)
    }
}
