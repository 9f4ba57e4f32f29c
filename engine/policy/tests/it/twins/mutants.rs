//! Twins that are wrong on purpose: whoever does not find them would not find a real one.

use serde_json::json;

use super::{
    BATCH, INPUTS, ISOLATION, LARGE, Machine, Met, Pair, RESIDENCY, SEED, Source, Twins, batch,
};

/// What is wrong, and the change to the Rego that makes it so.
type Mutant = (&'static str, &'static str, &'static str);

const OF_ISOLATION: [Mutant; 20] = [
    ("a level too low", "\"CONFIDENTIAL\": \"DEDICATED\"", "\"CONFIDENTIAL\": \"PASSTHROUGH\""),
    (
        "the contract's own level is refused",
        "rank[level] < rank[input.tenant.min_isolation]",
        "rank[level] <= rank[input.tenant.min_isolation]",
    ),
    (
        "confidential data has readers",
        "dataset.classification == \"INTERNAL\"",
        "dataset.classification in {\"CONFIDENTIAL\", \"INTERNAL\"}",
    ),
    ("internal data is for all", "input.tenant.id in dataset.readers", "is_array(dataset.readers)"),
    ("a network one level late", "rank[level] >= rank_of(", "rank[level] > rank_of("),
    ("a class one level low", "rank[level] < rank_of(least)", "rank[level] + 1 < rank_of(least)"),
    ("the last way counts", "ways[0]]", "ways[count(ways) - 1]]"),
    ("hosts are never whole", "rank[level] >= rank.DEDICATED", "rank[level] > rank.DEDICATED"),
    ("jobs in leases take hosts", "\tnot subject.lease_id\n\tleft :=", "\tleft :="),
    ("half a host is a whole one", "left > 0", "left > 4"),
    ("whoever sees one thing", "intersection({those |", "union({those |"),
    ("owners see nothing", "circle(one) := {one.owner} |", "circle(one) := {input.tenant.id} |"),
    (
        "no neighbours on hosts of one's own",
        "rank[level] < rank.DEDICATED\n\tcount(circles)",
        "count(circles)",
    ),
    ("too many are told", "most_bytes := 256", "most_bytes := 255"),
    ("proof at any age", "sprintf(\"%d\", [age])", "sprintf(\"%d\", [3600])"),
    ("a partition of another kind", "\"ROCE\": \"vlan\"", "\"ROCE\": \"vxlan\""),
    ("half a GPU is a whole one", "subject.gpu_milli < 1000", "subject.gpu_milli < 500"),
    ("partitions cannot be shared", "rank[level] > rank.PARTITIONED", "rank[level] > rank.SHARED"),
    ("weights as the first of them", "some model in input.models", "model := input.models[0]"),
    ("a typo in a word", "does not offer isolation level", "does not offer isolation  level"),
];

const OF_RESIDENCY: [Mutant; 15] = [
    (
        "checkpoints of data go anywhere",
        "not jurisdiction in dataset.jurisdictions]\n\tcount(strays) > 0",
        "not jurisdiction in dataset.jurisdictions]\n\tcount(strays) > 1",
    ),
    ("what is sent is what is written", "tenant_strays(sent)", "tenant_strays(written)"),
    ("strays as many as others", "most_strays := 1", "most_strays := 2"),
    (
        "personal data is sent anywhere",
        "some stray in few(personal_strays(sent))",
        "some stray in few(personal_strays([]))",
    ),
    ("no own place is protected", "\tnot jurisdiction in dataset.jurisdictions\n}", "}"),
    ("two are three", "count(parties) > 2", "count(parties) > 3"),
    (
        "a place that params add is none",
        "in object.get(params, \"more_jurisdictions\", [])",
        "in []",
    ),
    ("one more is listed", "most_listed := 12", "most_listed := 13"),
    ("one more is named", "most_named := 3", "most_named := 4"),
    ("a chunk is shorter", "codes_per_param := 64", "codes_per_param := 63"),
    ("nobody is obliged", "\"oblige_egress\", true", "\"oblige_egress\", false"),
    ("a short name is cut", "if count(name) <= 8", "if count(name) <= 7"),
    ("the tenant is no party", "array.concat(tenant_party, array", "array.concat([], array"),
    ("a bloc is a country", "|WS|YE|YT|", "|EU|WS|YE|YT|"),
    ("a cluster may be anywhere", "not known(place)", "not known(place)\n\tinput.job"),
];

#[track_caller]
fn are_found(pair: &Pair, mutants: &[Mutant]) {
    let (machine, right) = (Machine::new(), pair.rego());
    for (wrong, from, to) in mutants {
        assert!(right.contains(from), "{wrong}: {} does not say: {from}", pair.name);
        let rego = right.replacen(from, to, 1);
        let mut numbers = 0..INPUTS.div_ceil(BATCH);
        let found = numbers.any(|number| {
            let source = Source { seed: SEED, batch: number, inputs: BATCH, shrink: false };
            batch(pair, &rego, &source, &machine, &mut Met::default()).is_err()
        });
        assert!(found, "{}, {wrong}: nobody noticed", pair.name);
    }
}

#[test]
fn every_wrong_twin_of_isolation_is_found() {
    are_found(&ISOLATION, &OF_ISOLATION);
}

#[test]
fn every_wrong_twin_of_residency_is_found() {
    are_found(&RESIDENCY, &OF_RESIDENCY);
}

/// Policies that break a law: twins that were wrong alike would be found by it.
const UNLAWFUL: [(&Pair, Mutant); 5] = [
    (
        &ISOLATION,
        (
            "more isolation",
            "rank[level] < rank[need[dataset.classification]]",
            "rank[level] > rank[need[dataset.classification]]",
        ),
    ),
    (
        &ISOLATION,
        (
            "order",
            "some dataset in input.datasets\n\tdataset.owner",
            "dataset := input.datasets[0]\n\tdataset.owner",
        ),
    ),
    (
        &ISOLATION,
        ("names", "dataset.owner != input.tenant.id", "not startswith(dataset.owner, \"b\")"),
    ),
    (
        &RESIDENCY,
        (
            "one place more",
            "not place in input.tenant.allowed_jurisdictions",
            "count(input.tenant.allowed_jurisdictions) > 1",
        ),
    ),
    (
        &RESIDENCY,
        (
            "order",
            "some dataset in input.datasets\n\tdataset.personal\n\tunprotected",
            "dataset := input.datasets[0]\n\tdataset.personal\n\tunprotected",
        ),
    ),
];

#[test]
fn every_law_can_be_broken() {
    let machine = Machine::new();
    for (pair, (law, from, to)) in UNLAWFUL {
        let right = pair.rego();
        assert!(right.contains(from), "{law}: {} does not say: {from}", pair.name);
        let wrong = right.replacen(from, to, 1);
        let params = match pair.name {
            "isolation" => json!({"network_obligation_from": "SHARED"}),
            _ => json!({"adequate": ["DE", "SE"]}),
        };
        let mut twins = Twins::load(pair, &wrong, &params, &LARGE, &machine).expect("it loads");
        let source = Source { seed: SEED, batch: 0, inputs: INPUTS / 4, shrink: false };
        let kept = source.each(source.runner(), |input| (pair.laws)(&mut twins.rego, input));
        let broken = kept.expect_err(law);
        assert!(broken.contains(&format!("{law}: ")), "{law}: {broken}");
    }
}
