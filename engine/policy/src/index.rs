//! Which policies may select an input: an index, so that cost follows the policies that match and
//! not those installed.

use std::collections::{BTreeMap, BTreeSet};

use placet_core::{Id, PriorityClass, SubjectKind};

use crate::bundle::Selector;
use crate::input::Input;

/// Positions of policies, each filed once for every value of one dimension of its selector: the
/// dimension in which it shares its values with the fewest other policies.
///
/// A lookup reads the lists of one input's values, and so meets a policy at most once. What it
/// meets is no more than filed there: the other dimensions are still to be compared.
#[derive(Debug, Clone, Default)]
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use proptest::sample::{select, subsequence};

    fn input() -> Input {
        serde_json::from_str(include_str!("../tests/it/sample.json")).expect("it is an input")
    }

    fn names(prefix: &str) -> Vec<Id> {
        (0..5).map(|at| Id::new(format!("{prefix}-{at}")).expect("an id")).collect()
    }

    const KINDS: [SubjectKind; 2] = [SubjectKind::Lease, SubjectKind::Job];
    const CLASSES: [PriorityClass; 2] =
        [PriorityClass::InternalResearch, PriorityClass::ExternalCommercial];

    fn selector() -> impl Strategy<Value = Selector> {
        let some = |prefix| {
            // Some lists name a value twice: that must not count twice.
            let listed = subsequence(names(prefix), 0..=3);
            prop_oneof![Just(vec![]), listed, select(names(prefix)).prop_map(|id| vec![id; 2])]
        };
        let kinds = subsequence(KINDS.to_vec(), 0..=2);
        let classes = subsequence(CLASSES.to_vec(), 0..=2);
        (kinds, some("t"), some("c"), some("j"), classes).prop_map(
            |(kinds, tenants, clusters, jurisdictions, priority_classes)| Selector {
                kinds,
                tenants,
                clusters,
                jurisdictions,
                priority_classes,
            },
        )
    }

    proptest! {
        #[test]
        fn the_index_finds_what_a_linear_search_finds(
            selectors in proptest::collection::vec(selector(), 0..40),
            tenant in select(names("t")),
            cluster in select(names("c")),
            jurisdiction in select(names("j")),
            kind in select(KINDS.to_vec()),
            class in select(CLASSES.to_vec()),
        ) {
            let mut input = input();
            input.tenant.id = tenant;
            input.cluster.id = cluster;
            input.cluster.jurisdiction = jurisdiction;
            input.priority_class = class;
            let index = Index::of(selectors.iter());
            let filed: Vec<usize> = index.filed(&input, kind).collect();
            let once: BTreeSet<usize> = filed.iter().copied().collect();
            prop_assert_eq!(once.len(), filed.len(), "each at most once");
            let found: Vec<usize> =
                once.into_iter().filter(|at| selectors[*at].matches(&input, kind)).collect();
            let linear: Vec<usize> =
                (0..selectors.len()).filter(|at| selectors[*at].matches(&input, kind)).collect();
            prop_assert_eq!(found, linear);
        }
    }

    #[test]
    fn cost_follows_what_matches_whatever_the_rest_selects_by() {
        let id = |text: String| Id::new(text).expect("an id");
        let input = input();
        // Every other policy shares one value with the input, but differs in another.
        let others = (0..1_000).map(|at| {
            let own = |shared: &Id, wanted| {
                if at % 4 == wanted {
                    vec![id(format!("other-{at}"))]
                } else {
                    vec![shared.clone()]
                }
            };
            let kinds = if at % 4 == 3 { vec![SubjectKind::Job] } else { vec![] };
            Selector {
                tenants: if at % 4 == 3 { vec![] } else { own(&input.tenant.id, 0) },
                clusters: if at % 4 == 3 { vec![] } else { own(&input.cluster.id, 1) },
                jurisdictions: own(&input.cluster.jurisdiction, 2)
                    .into_iter()
                    .filter(|_| at % 4 != 3)
                    .collect(),
                kinds,
                priority_classes: vec![],
            }
        });
        let matching = Selector { tenants: vec![input.tenant.id.clone()], ..Selector::default() };
        let selectors: Vec<_> = others.chain([matching]).collect();
        let index = Index::of(selectors.iter());
        assert_eq!(index.filed(&input, SubjectKind::Lease).collect::<Vec<_>>(), [1_000]);
    }
}
