//! A tenant whose contract keeps its work in the European Union asks in the US.

use super::{Story, duty, hint, lease, reason, told};

#[test]
fn a_tenant_bound_to_europe_is_refused_in_the_us_and_told_where_it_could_go() {
    let mut story = Story::begin(&[]);
    let asked = |name: &str, cluster: &str| {
        let asked = lease(name, "polder-vision").on(cluster, "H100");
        asked
            .with("dataset_ids", serde_json::json!(["polder-footage"]))
            .with("checkpoint_jurisdictions", serde_json::json!(["SE"]))
    };

    // Its contract, its data, and the law on the persons who are in the data: each by itself.
    let codes = ["RESIDENCY_DATA", "RESIDENCY_PERSONAL", "RESIDENCY_TENANT"];
    let denied = story.deny(&asked("overseas", "us-ash-1"), &codes);
    for code in codes {
        assert_eq!(hint(&denied, code), "it could run in DE, NL, SE");
        assert_eq!(reason(&denied, code).field.as_deref(), Some("lease.cluster_id"));
        assert!(!reason(&denied, code).retry, "it will not be otherwise later");
    }
    let card = story.shown(&["log", "show", denied.jti.as_str()]);
    insta::assert_snapshot!(because(&card), @r"
    because  RESIDENCY_DATA (residency): cluster us-ash-1 is in US, but dataset
             polder-footage may only be processed in DE, NL, SE
             [lease.cluster_id]
             hint: it could run in DE, NL, SE
    because  RESIDENCY_PERSONAL (residency): dataset polder-footage is personal,
             and protection in US, where cluster us-ash-1 stands, is not
             adequate [lease.cluster_id]
             hint: it could run in DE, NL, SE
    because  RESIDENCY_TENANT (residency): cluster us-ash-1 is in US, but work
             of tenant polder-vision may only run in DE, FI, FR, NL, SE
             [lease.cluster_id]
             hint: it could run in DE, NL, SE
    ");

    // It goes where it was told, and what it makes is kept there.
    let permit = story.started(&asked("at-home", "se-sto-1"));
    assert_eq!(told(duty(&permit, "residency.egress"), "allow"), "DE,NL,SE");

    // Results that would leave are refused there too.
    let abroad = asked("results-abroad", "se-sto-1")
        .with("checkpoint_jurisdictions", serde_json::json!(["SE", "US"]));
    let codes = ["RESIDENCY_CHECKPOINT", "RESIDENCY_PERSONAL"];
    let denied = story.deny(&abroad, &codes);
    assert_eq!(hint(&denied, "RESIDENCY_CHECKPOINT"), "it could be written to DE, NL, SE");
    story.end(&[
        ("cluster/se-sto-1/gpu/H100", 1_000),
        ("tenant/polder-vision/gpu", 1_000),
        ("tenant/polder-vision/gpu-seconds/2026-11", 3_600),
    ]);
}

/// The lines of a card that say why.
fn because(card: &str) -> String {
    let lines = card.lines().skip_while(|line| !line.trim_start().starts_with("because"));
    let lines = lines.take_while(|line| !line.trim_start().starts_with("decided"));
    lines.collect::<Vec<_>>().join("\n")
}
