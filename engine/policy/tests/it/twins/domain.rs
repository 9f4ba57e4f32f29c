//! Inputs and params as facts, requests and manifests can make them, close to where policies turn.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use placet_core::{Id, IsolationLevel, MAX_REFERENCES};
use placet_policy::Input;
use placet_policy::input::{
    Classification, Dataset, FabricKind, GpuPool, Model, PartitionMode, TenantKind,
};
use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use serde_json::{Value, json};

use super::laws::LEVELS;

/// Places that most lists are made of, so that they meet.
const USUAL: [&str; 6] = ["DE", "SE", "US", "JP", "IN", "NO"];
/// Places that there are not, or only where params add them: nearly codes, and names of the length
/// at which a text is cut.
const UNKNOWN: [&str; 9] =
    ["XK", "ZZ", "EU", "de", "D", "DEU", "8-bytes-", "9-bytes-x", "Atlantis-by-the-sea"];
/// Countries of ISO 3166-1 as the residency policy has them, between bars.
const REGO: &str = include_str!("../../../../../policies/reference/residency/residency.rego");
/// A made-up input that no facts know: what is not drawn is as it is there.
const SAMPLE: &str = include_str!("../sample.json");
fn id(text: &str) -> Id {
    Id::new(text).unwrap_or_else(|error| panic!("{text}: {error}"))
}

/// Every country.
static COUNTRIES: LazyLock<Vec<&str>> = LazyLock::new(|| {
    let rows = REGO.lines().filter(|line| line.starts_with('|'));
    let all: Vec<_> = rows.flat_map(|row| row.split('|')).filter(|one| !one.is_empty()).collect();
    assert_eq!(all.len(), 249);
    all
});

fn place() -> impl Strategy<Value = &'static str> {
    prop_oneof![
        93 => select(&USUAL[..]),
        5 => select(&COUNTRIES[..]),
        2 => select(&UNKNOWN[..]),
    ]
}

/// A list of so many at most, each once: most are short.
fn places(most: usize) -> impl Strategy<Value = Vec<Id>> {
    let few = prop::collection::vec(place(), 0..6);
    // What is listed is cut from 13 on, and what is obliged from 65 on.
    let many = subsequence(COUNTRIES.clone(), 13..=most.min(70));
    let most = subsequence(COUNTRIES.clone(), most.min(71)..=most);
    let places = prop_oneof![40 => Just(Vec::new()), 100 => few, 4 => many, 1 => most];
    places.prop_map(|places| {
        let mut each_once: Vec<Id> = Vec::new();
        for place in places.into_iter().map(id) {
            if !each_once.contains(&place) {
                each_once.push(place);
            }
        }
        each_once
    })
}

/// Names are short, middling, or as long as a name may be.
fn length() -> impl Strategy<Value = usize> {
    prop_oneof![6 => Just(1_usize), 6 => Just(20), 1 => Just(128)]
}

/// The name of the number-th of its kind: it begins as no other one does.
fn named(number: usize, length: usize) -> Id {
    const LETTERS: &[u8] = b"abcdefghijklmnopqrstuvwxyz012345";
    id(&char::from(LETTERS[number]).to_string().repeat(length))
}

/// Three tenants: work on what is one's own is frequent.
fn tenant() -> impl Strategy<Value = Id> {
    let number = prop_oneof![4 => Just(0_usize), 1 => Just(1), 1 => Just(2)];
    // A tenant has one name.
    (number, Just([1, 20, 128])).prop_map(|(number, lengths)| named(number, lengths[number]))
}

/// Beside tenants that ask, some of names so long that not all of them can be told.
fn readers() -> impl Strategy<Value = Vec<Id>> {
    let all: Vec<Id> = [(0, 1), (1, 20), (2, 128), (5, 104), (6, 128)]
        .map(|(number, length)| named(number, length))
        .to_vec();
    prop_oneof![1 => Just(Vec::new()), 3 => subsequence(all, 0..=5).prop_shuffle()]
}

fn level() -> impl Strategy<Value = IsolationLevel> {
    select(&LEVELS[..])
}

fn classification() -> impl Strategy<Value = Classification> {
    use Classification::{Confidential, Internal, Public, Restricted};
    prop_oneof![3 => Just(Public), 2 => Just(Internal), 1 => Just(Confidential),
        1 => Just(Restricted)]
}

/// A list of a request: most are short.
fn some_of<T: Strategy + Clone>(one: T) -> impl Strategy<Value = Vec<T::Value>>
where
    T::Value: Clone,
{
    use prop::collection::vec;
    prop_oneof![
        60 => vec(one.clone(), 0..=2),
        20 => vec(one.clone(), 3..=4),
        1 => vec(one, 5..=MAX_REFERENCES),
    ]
}

fn datasets(template: Dataset) -> impl Strategy<Value = Vec<Dataset>> {
    let places = places(COUNTRIES.len());
    let one = (length(), tenant(), classification(), places, any::<bool>(), readers());
    some_of(one.boxed()).prop_map(move |drawn| {
        let dataset = |(number, drawn)| {
            let mut one = template.clone();
            let length;
            (length, one.owner, one.classification, one.jurisdictions, one.personal, one.readers) =
                drawn;
            one.id = named(number, length);
            one
        };
        drawn.into_iter().enumerate().map(dataset).collect()
    })
}

fn models(template: Model) -> impl Strategy<Value = Vec<Model>> {
    some_of((length(), tenant(), classification(), readers()).boxed()).prop_map(move |drawn| {
        let model = |(number, drawn)| {
            let mut one = template.clone();
            let length;
            (length, one.owner, one.classification, one.readers) = drawn;
            one.id = named(number, length);
            one
        };
        drawn.into_iter().enumerate().map(model).collect()
    })
}

/// What the GPUs are like, and how many of them are asked for.
fn hardware() -> impl Strategy<Value = (FabricKind, Vec<PartitionMode>, u32, u32)> {
    let fabrics = [FabricKind::Ethernet, FabricKind::Roce, FabricKind::Infiniband];
    let ways = vec![PartitionMode::Mig, PartitionMode::Sriov];
    let per_host = select(&[1_u32, 4, 8, 1_024][..]);
    let count = select(&[1_u32, 4, 7, 8, 9, 16, 1_000_000][..]);
    (select(fabrics.to_vec()), subsequence(ways, 0..=2).prop_shuffle(), per_host, count)
}

/// An input of one GPU model, which is what a policy is asked about at a time.
pub(super) fn input() -> impl Strategy<Value = Input> {
    let sample: Input = serde_json::from_str(SAMPLE).expect("an input");
    let (dataset, model) = (sample.datasets[0].clone(), sample.models[0].clone());
    let offered = prop_oneof![2 => Just(LEVELS.to_vec()), 1 => subsequence(LEVELS.to_vec(), 0..=5)];
    let cluster = (length(), place().prop_map(id), offered.prop_shuffle());
    let kinds = select(&[TenantKind::Own, TenantKind::Customer][..]);
    let least = prop_oneof![2 => Just(IsolationLevel::Shared), 1 => level()];
    let who = (tenant(), kinds, least, places(COUNTRIES.len()));
    let asked = prop_oneof![1 => Just(IsolationLevel::Confidential), 2 => level()];
    let share = prop_oneof![1 => select(&[1_u32, 499, 500, 999][..]), 3 => Just(1_000)];
    let lease_id = prop::option::of(length().prop_map(|length| named(4, length)));
    let ways = (places(MAX_REFERENCES), places(MAX_REFERENCES));
    let work = (any::<bool>(), asked, share, ways, lease_id);
    let lists = (datasets(dataset), models(model));
    let drawn = (cluster, who, work, lists, hardware());
    drawn.prop_map(move |(cluster, who, work, lists, hardware)| {
        let mut input = sample.clone();
        let (length, place, offered) = cluster;
        input.cluster.id = named(2, length);
        (input.cluster.jurisdiction, input.cluster.isolation_levels) = (place, offered);
        let tenant = &mut input.tenant;
        (tenant.id, tenant.kind, tenant.min_isolation, tenant.allowed_jurisdictions) = who;
        let mut asked = input.lease.take().expect("the sample is a lease");
        let (is_job, level, share, ways, lease_id) = work;
        (asked.isolation_level, asked.gpu_milli) = (level, share);
        (asked.checkpoint_jurisdictions, asked.egress_jurisdictions) = ways;
        asked.lease_id = lease_id.filter(|_| is_job);
        asked.gpu_models.truncate(1);
        let (fabric, ways, per_host, count) = hardware;
        (input.cluster.fabric_kind, asked.gpu_count) = (fabric, count);
        let is_asked = |pool: &&mut GpuPool| pool.model == asked.gpu_model;
        if let Some(pool) = input.cluster.gpus.iter_mut().find(is_asked) {
            (pool.partition_modes, pool.gpus_per_host) = (ways, per_host);
        }
        let subject = if is_job { &mut input.job } else { &mut input.lease };
        *subject = Some(asked);
        (input.datasets, input.models) = lists;
        input
    })
}

/// As much as a request may read and write, at home in so many countries, each of which is in every
/// list.
pub(super) fn largest(countries: usize) -> Input {
    let mut input: Input = serde_json::from_str(SAMPLE).expect("an input");
    let template = input.datasets[0].clone();
    let everywhere: Vec<Id> = COUNTRIES.iter().take(countries).map(|code| id(code)).collect();
    let dataset = |number| {
        let mut one = template.clone();
        (one.id, one.personal) = (named(number, 128), true);
        one.jurisdictions.clone_from(&everywhere);
        one
    };
    input.datasets = (0..MAX_REFERENCES).map(dataset).collect();
    input.tenant.allowed_jurisdictions.clone_from(&everywhere);
    input.cluster.jurisdiction = everywhere[0].clone();
    let asked = input.lease.as_mut().expect("the sample is a lease");
    asked.gpu_models.truncate(1);
    asked.checkpoint_jurisdictions.clone_from(&everywhere);
    asked.egress_jurisdictions = everywhere;
    input
}

/// Any that the schema of isolation admits.
pub(super) fn isolation_params() -> BoxedStrategy<Value> {
    let least = (prop::option::of(level()), prop::option::of(level()));
    let age = prop::option::of(60..=86_400_u32);
    let drawn = (level(), prop::option::of(least), age);
    drawn
        .prop_map(|(level, least, age)| {
            let mut params = json!({"network_obligation_from": level});
            if let Some((own, customer)) = least {
                let named = [("OWN", own), ("CUSTOMER", customer)];
                let named = named.into_iter().filter_map(|(kind, level)| Some((kind, level?)));
                params["least_level"] = json!(named.collect::<BTreeMap<_, _>>());
            }
            if let Some(age) = age {
                params["attestation_max_age_seconds"] = json!(age);
            }
            params
        })
        .boxed()
}

/// Any that the schema of residency admits.
pub(super) fn residency_params() -> BoxedStrategy<Value> {
    let usual = subsequence(USUAL.to_vec(), 0..=USUAL.len());
    let adequate =
        prop_oneof![3 => usual, 2 => subsequence(COUNTRIES.clone(), 0..=COUNTRIES.len())];
    let more = subsequence(vec!["XK", "XA", "ZZ"], 0..=3);
    let absent = (any::<bool>(), prop::option::of(any::<bool>()));
    (adequate, more, absent)
        .prop_map(|(adequate, more, (has_more, oblige))| {
            let mut params = json!({"adequate": adequate});
            if has_more {
                params["more_jurisdictions"] = json!(more);
            }
            if let Some(oblige) = oblige {
                params["oblige_egress"] = json!(oblige);
            }
            params
        })
        .boxed()
}

pub(super) fn hostile_isolation_params() -> Vec<Value> {
    let level = |level: Value| json!({"network_obligation_from": level});
    let with = |name: &str, value: Value| {
        let mut params = json!({"network_obligation_from": "SHARED"});
        params[name] = value;
        params
    };
    vec![
        json!({}),
        json!({"network_obligation_from": "SHARED", "more": 1}),
        json!({"Network_Obligation_From": "SHARED"}),
        level(json!("")),
        level(json!("shared")),
        level(json!("SHARED\",\"x\":\"")),
        level(json!("NONE")),
        level(json!(0)),
        level(json!(null)),
        level(json!(["SHARED"])),
        level(json!({"SHARED": 0})),
        with("least_level", json!({"OWN": "NONE", "CUSTOMER": "NONE"})),
        with("least_level", json!({"OWN": 0, "CUSTOMER": null})),
        with("least_level", json!({"OTHERS": "SHARED"})),
        with("least_level", json!("SHARED")),
        with("least_level", json!(["SHARED"])),
        with("least_level", json!(null)),
        with("attestation_max_age_seconds", json!(0)),
        with("attestation_max_age_seconds", json!(90_000)),
        with("attestation_max_age_seconds", json!("60")),
        with("attestation_max_age_seconds", json!(null)),
        with("attestation_max_age_seconds", json!([60])),
    ]
}

pub(super) fn hostile_residency_params() -> Vec<Value> {
    let with = |name: &str, value: Value| {
        let mut params = json!({"adequate": ["DE"]});
        params[name] = value;
        params
    };
    vec![
        json!({}),
        with("more", json!(1)),
        with("adequate", json!("DE")),
        with("adequate", json!(null)),
        with("adequate", json!(5)),
        with("adequate", json!([["DE"]])),
        with("adequate", json!(["DE", 5])),
        with("adequate", json!(["DE", "DE"])),
        with("adequate", json!(["de"])),
        with("adequate", json!(["Atlantis"])),
        with("adequate", json!({"0": "DE"})),
        with("more_jurisdictions", json!(["DEU"])),
        with("more_jurisdictions", json!("XK")),
        with("more_jurisdictions", json!(null)),
        with("more_jurisdictions", json!({"0": "XK"})),
        with("oblige_egress", json!("false")),
        with("oblige_egress", json!(0)),
        with("oblige_egress", json!(null)),
        with("oblige_egress", json!([])),
    ]
}
