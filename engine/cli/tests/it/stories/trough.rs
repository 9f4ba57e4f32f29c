//! Capacity is sold in the trough: what is sold must end before the next training begins.

use super::{BEGIN, DAY, Story, charged, held, instead, lease};

const POOL: &str = "cluster/jp-tok-1/gpu/L40S";

#[test]
fn a_lease_is_fitted_into_the_days_before_a_training() {
    let mut story = Story::begin(&[]);
    // From tomorrow noon on, for a day, the house needs every GPU of the site.
    let training = lease("training", "research-foundation").own().on("jp-tok-1", "L40S");
    let training = story.started(&training.gpus(256).starting(DAY).seconds(DAY));
    assert_eq!(held(&training).start, BEGIN + DAY);
    assert_eq!(story.used(POOL), 0, "until then they are idle");

    // Whoever wants a quarter of them for two days would be in its way, and is told what would not:
    // a day from now, or all of it after the training.
    let sold = |name: &str, seconds: u64| {
        lease(name, "tamarind-labs").on("jp-tok-1", "L40S").gpus(64).seconds(seconds)
    };
    let denied = story.deny(&sold("two-days", 2 * DAY), &["RESOURCE_UNAVAILABLE"]);
    assert_eq!(
        instead(&denied, "RESOURCE_UNAVAILABLE"),
        serde_json::json!({
            "account": POOL, "duration_seconds": DAY, "start": BEGIN + 2 * DAY,
        })
    );
    story.deny(&sold("a-second-too-long", DAY + 1), &["RESOURCE_UNAVAILABLE"]);
    let trough = story.started(&sold("trough", DAY));
    assert_eq!(held(&trough).end, held(&training).start);
    // A quarter of the site is kept from what is sold and touches the busy hours of the night.
    assert_eq!(charged(&trough, POOL), (64_000, 192_000));
    let after = story.permit(&sold("after", 2 * DAY).starting(2 * DAY));
    story.confirm(&after);
    insta::assert_snapshot!(story.shown(&["ledger", "usage", "cluster"]), @r"
     USED   LIMIT  FULL  UNIT       KIND   ACCOUNT
    64000  256000  25 %  milli-GPU  level  cluster/jp-tok-1/gpu/L40S
    ");

    // The next noon: what was sold has ended by itself, and the training has the whole site.
    story.at(DAY).deny(&sold("now", 60), &["RESOURCE_UNAVAILABLE"]);
    assert_eq!(story.used(POOL), 256_000);
    let here = story.rows(&["ledger", "reservations", "--account", POOL]);
    let ids: Vec<_> = here.iter().map(|row| row["reservation_id"].as_str().unwrap()).collect();
    assert_eq!(ids, [held(&training).id.as_str(), held(&after).id.as_str()]);

    // And the noon after that, the one that was sold after it.
    story.at(2 * DAY).permit(&sold("one-more", 60));
    assert_eq!(story.used(POOL), 128_000);
    story.end(&[
        (POOL, 128_000),
        ("tenant/research-foundation/gpu-seconds/2026-11", 256 * DAY),
        ("tenant/tamarind-labs/gpu", 128_000),
        ("tenant/tamarind-labs/gpu-seconds/2026-11", 64 * (3 * DAY + 60)),
    ]);
}
