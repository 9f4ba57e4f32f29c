//! Two customers share a cohort: who needs more borrows what the other leaves idle, and gives it
//! back.

use super::{Asked, HOUR, Story, charged, instead, lease};

/// Each has 64 GPUs of its own; acme may borrow 32 more.
const SHARED: [(&str, &str); 2] = [
    (
        "  - {account: tenant/acme/gpu, kind: level, unit: milli-gpu, limit: 2048000}",
        "  - {account: pool, kind: level, unit: milli-gpu, limit: 0}
  - {account: tenant/acme/gpu, kind: level, unit: milli-gpu, limit: 64000, cohort: pool, \
         borrowing_limit: 32000}",
    ),
    (
        "  - {account: tenant/polder-vision/gpu, kind: level, unit: milli-gpu, limit: 512000}",
        "  - {account: tenant/polder-vision/gpu, kind: level, unit: milli-gpu, limit: 64000, \
         cohort: pool}",
    ),
];

const ACME: &str = "tenant/acme/gpu";
const POLDER: &str = "tenant/polder-vision/gpu";

fn acme(name: &str, gpus: u32) -> Asked {
    lease(name, "acme").gpus(gpus)
}

fn polder(name: &str, gpus: u32) -> Asked {
    lease(name, "polder-vision").gpus(gpus)
}

#[test]
fn quota_is_borrowed_and_comes_back_to_whom_it_belongs() {
    let mut story = Story::begin(&SHARED);
    // Its own 64, and 32 that the other does not use. One more is beyond what it may borrow.
    story.started(&acme("own", 64));
    let denied = story.deny(&acme("too-many", 33), &["QUOTA_EXCEEDED"]);
    assert_eq!(instead(&denied, "QUOTA_EXCEEDED")["gpu_count"], 32);
    assert_eq!(instead(&denied, "QUOTA_EXCEEDED")["account"], ACME);
    let borrowed = story.started(&acme("borrowed", 32));
    assert_eq!(charged(&borrowed, ACME), (32_000, 96_000));

    // The other needs all of its own: half of it is lent, and it is told so.
    let denied = story.deny(&polder("all-of-ours", 64), &["QUOTA_EXCEEDED"]);
    let told = instead(&denied, "QUOTA_EXCEEDED");
    assert_eq!((&told["account"], &told["gpu_count"]), (&"pool".into(), &32.into()), "{told}");
    story.started(&polder("half-of-ours", 32));
    assert_eq!(story.used("pool"), 128_000);

    // A minute later the borrower is done with it. What is back is the other's.
    story.at(60);
    story.release(&borrowed);
    let ours = story.started(&polder("the-other-half", 32));
    assert_eq!((story.used(ACME), story.used(POLDER)), (64_000, 64_000));
    story.deny(&acme("nothing-idle", 1), &["QUOTA_EXCEEDED"]);

    // Half of it is idle again, and borrowed again. Then the other decides to lend no more: what is
    // lent stays until it ends, and nothing new is.
    story.at(120).release(&ours);
    let borrowed = story.started(&acme("borrowed-again", 16));
    let lending =
        |more: &str| format!("{POLDER}, kind: level, unit: milli-gpu, limit: 64000{more}");
    story.facts_become(&[(&lending(""), &lending(", lending_limit: 0"))]);
    assert_eq!(story.used(ACME), 80_000, "it was promised");
    let denied = story.deny(&acme("no-more-lent", 1), &["QUOTA_EXCEEDED"]);
    assert_eq!(instead(&denied, "QUOTA_EXCEEDED")["account"], "pool", "it has nothing to lend");
    story.release(&borrowed);
    story.deny(&acme("still-not", 1), &["QUOTA_EXCEEDED"]);
    story.started(&polder("ours-alone", 32));
    assert_eq!((story.used(ACME), story.used(POLDER)), (64_000, 64_000));
    story.end(&[
        ("cluster/de-fra-1/gpu/H100", 128_000),
        // What is never lent is none of the cohort's business.
        ("pool", 64_000),
        (ACME, 64_000),
        ("tenant/acme/gpu-seconds/2026-11", 64 * HOUR + 32 * 60),
        (POLDER, 64_000),
        ("tenant/polder-vision/gpu-seconds/2026-11", 32 * HOUR + 32 * 60 + 32 * HOUR),
    ]);
}
