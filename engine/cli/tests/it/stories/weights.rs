//! Proprietary weights never share hardware with whom they are not for.

use serde_json::json;

use super::{Story, duty, hint, lease, reason, told};

#[test]
fn weights_and_the_data_of_others_are_kept_from_shared_hardware() {
    let mut story = Story::begin(&[]);
    let atlas = |name: &str, level: &str| {
        lease(name, "acme").isolated(level).with("model_ids", json!(["atlas-70b"]))
    };

    // The weights are licensed to it, and confidential: a partition of a GPU is no wall.
    let denied = story.deny(&atlas("shared-gpu", "PARTITIONED"), &["ISOLATION_BELOW_WEIGHTS"]);
    assert_eq!(hint(&denied, "ISOLATION_BELOW_WEIGHTS"), "ask for DEDICATED or above");
    let field = reason(&denied, "ISOLATION_BELOW_WEIGHTS").field.as_deref();
    assert_eq!(field, Some("lease.isolation_level"));
    story.deny(&atlas("whole-gpu", "PASSTHROUGH"), &["ISOLATION_BELOW_WEIGHTS"]);

    // On a host of its own it may, and the provisioner is told how to build it.
    let permit = story.started(&atlas("whole-host", "DEDICATED"));
    let isolation = duty(&permit, "isolation");
    assert_eq!((told(isolation, "level"), told(isolation, "mode")), ("DEDICATED", "whole-host"));
    assert_eq!(told(duty(&permit, "network.partition"), "tenant"), "acme");
    let encryption = duty(&permit, "encryption");
    assert_eq!(told(encryption, "at_rest"), "operator-keys");
    assert_eq!(told(encryption, "in_transit"), "tls");

    // Weights that were not licensed to it are not for it on any hardware, and the most guarded of
    // the house need hardware that attests itself even for the house.
    let aurora = lease("not-licensed", "acme").isolated("CONFIDENTIAL");
    let denied = story.ask(&aurora.with("model_ids", json!(["aurora-chat"])));
    assert_eq!(reason(&denied, "MODEL_NOT_LICENSED").policy.as_str(), "compliance");
    let next = |name: &str, level: &str| {
        let next = lease(name, "research-foundation").own().isolated(level);
        next.with("model_ids", json!(["atlas-next"]))
    };
    story.deny(&next("own-host", "DEDICATED"), &["ISOLATION_BELOW_WEIGHTS"]);
    let attested = story.started(&next("attested-host", "CONFIDENTIAL"));
    assert_eq!(told(duty(&attested, "isolation"), "mode"), "whole-host-attested");

    // Confidential data of another customer: not at all, wherever it is asked for.
    let others = lease("others-data", "acme").isolated("CONFIDENTIAL");
    let others = others.on("jp-tok-1", "H100").isolated("DEDICATED");
    let denied =
        story.deny(&others.with("dataset_ids", json!(["kazeha-motion"])), &["DATASET_NOT_YOURS"]);
    let message = &reason(&denied, "DATASET_NOT_YOURS").message;
    assert!(message.contains("kazeha-motion belongs to kazeha-robotics"), "{message}");
    let of_others = ["log", "list", "--policy", "isolation", "--code", "DATASET_NOT_YOURS"];
    let of_others = story.rows(&of_others);
    assert_eq!((of_others.len(), &of_others[0]["effect"]), (1, &json!("DENY")));
    story.end(&[
        ("cluster/de-fra-1/gpu/H100", 2_000),
        ("tenant/acme/gpu", 1_000),
        ("tenant/acme/gpu-seconds/2026-11", 3_600),
        ("tenant/research-foundation/gpu", 1_000),
        ("tenant/research-foundation/gpu-seconds/2026-11", 3_600),
    ]);
}
