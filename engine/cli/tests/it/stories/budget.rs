//! A month's budget of GPU-seconds is used up, and what was paid and not used comes back.

use super::{BEGIN, DAY, HOUR, Story, charged, held, instead, lease};

const BUDGET: &str = "tenant/fjordholm-university/gpu-seconds/2026-11";
const NEXT: &str = "tenant/fjordholm-university/gpu-seconds/2026-12";

#[test]
fn a_budget_is_exhausted_refunded_and_another_months_is_its_own() {
    // Two GPU-hours a month.
    let account = r#"{account: "tenant/fjordholm-university/gpu-seconds/{month}", kind: budget, "#;
    let limit = |limit: u64| format!("{account}unit: gpu-second, limit: {limit}}}");
    let mut story = Story::begin(&[(&limit(82_944_000), &limit(2 * HOUR))]);
    let asked = |name: &str, seconds: u64| {
        let asked = lease(name, "fjordholm-university").on("de-fra-1", "L40S");
        asked.isolated("SHARED").seconds(seconds)
    };

    let everything = asked("everything", 2 * HOUR);
    let permit = story.started(&everything);
    assert_eq!(charged(&permit, BUDGET), (2 * HOUR, 2 * HOUR));
    let denied = story.deny(&asked("one-second", 1), &["QUOTA_EXCEEDED"]);
    // Nothing smaller would do, and nothing later in the month: only which account it is.
    assert_eq!(instead(&denied, "QUOTA_EXCEEDED"), serde_json::json!({"account": BUDGET}));
    insta::assert_snapshot!(story.shown(&["ledger", "usage", BUDGET]), @r"
    USED  LIMIT   FULL  UNIT         KIND    ACCOUNT
    7200   7200  100 %  GPU-seconds  budget  tenant/fjordholm-university/gpu-seconds/2026-11
    ");

    // An hour of it was enough.
    assert_eq!(story.at(HOUR).release(&permit), HOUR);
    assert_eq!(story.used(BUDGET), HOUR);
    // Who asks with the old name gets the old answer, and nothing for it.
    assert_eq!(story.permit(&everything), permit);
    assert_eq!(story.used(BUDGET), HOUR);

    let denied = story.deny(&asked("too-long", HOUR + 1), &["QUOTA_EXCEEDED"]);
    assert_eq!(instead(&denied, "QUOTA_EXCEEDED")["duration_seconds"], HOUR);
    story.started(&asked("the-rest", HOUR));
    assert_eq!(story.used(BUDGET), 2 * HOUR);
    story.deny(&asked("none-left", 1), &["QUOTA_EXCEEDED"]);

    // December pays for what starts in December, though it is booked today.
    let december = 10 * DAY - 12 * HOUR;
    let booked = story.started(&asked("december", 2 * HOUR).starting(december));
    assert_eq!(charged(&booked, NEXT), (2 * HOUR, 2 * HOUR));
    assert_eq!(held(&booked).start, BEGIN + december);
    story.deny(&asked("december-too", 1).starting(december), &["QUOTA_EXCEEDED"]);
    // Given back before it began: all of it.
    assert_eq!(story.release(&booked), 2 * HOUR);
    story.end(&[
        ("cluster/de-fra-1/gpu/L40S", 1_000),
        ("tenant/fjordholm-university/concurrent", 1),
        ("tenant/fjordholm-university/gpu", 1_000),
        (BUDGET, 2 * HOUR),
        (NEXT, 0),
    ]);
}
