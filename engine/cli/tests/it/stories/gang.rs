//! Work that needs all of its parts starts with all of them or not at all.

use placet_core::Effect;
use serde_json::json;

use super::{Asked, Story, charged, job, reason};
use crate::running::{Ran, run_with};

const POOL: &str = "cluster/de-fra-edge/gpu/A100";

/// `placet admit --gang`: all members at once.
fn together(story: &Story, name: &str, members: &[Asked]) -> Ran {
    let lines = members.iter().map(|one| format!("{}\n", json!({"admit": one.request})));
    let lines: String = lines.collect();
    let url = story.url();
    run_with(["admit", "--gang", name, "--format", "json", "--server", &url, "-"], &lines)
}

fn decided(story: &mut Story, ran: &Ran) -> Vec<placet_core::Decision> {
    let lines = ran.stdout.lines().map(|line| serde_json::from_str(line).unwrap());
    lines.map(|line: serde_json::Value| story.decided(&line)).collect()
}

#[test]
fn a_gang_is_admitted_as_a_whole_or_not_at_all() {
    let mut story = Story::begin(&[]);
    let member = |name: &str, gpus: u32| {
        job(name, "platform-tools").own().on("de-fra-edge", "A100").gpus(gpus)
    };
    // One of eight GPUs is at work.
    story.started(&member("before", 1));

    // Nine would be needed in all. Nobody gets anything, and each is told on whose account.
    let large = [member("a-0", 4), member("a-1", 2), member("a-2", 2)];
    let ran = together(&story, "run-a", &large);
    assert_eq!(ran.code, 2, "{}", ran.stderr);
    let denied = decided(&mut story, &ran);
    assert!(denied.iter().all(|one| one.effect == Effect::Deny), "{denied:?}");
    for one in &denied[..2] {
        let message = &reason(one, "GANG_INCOMPLETE").message;
        assert_eq!(message, "member 2, `a-2`, is denied, and none is admitted without it");
    }
    reason(&denied[2], "RESOURCE_UNAVAILABLE");
    assert_eq!(story.used(POOL), 1_000, "nothing of it is held");

    // With a smaller third all of them fit, and they are decided side by side.
    let small = [member("b-0", 4), member("b-1", 2), member("b-2", 1)];
    let ran = together(&story, "run-b", &small);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let admitted = decided(&mut story, &ran);
    for (place, one) in (0_u32..).zip(&admitted) {
        assert_eq!(one.effect, Effect::Permit, "{one:?}");
        let gang = serde_json::to_value(one.gang.as_ref().unwrap()).unwrap();
        assert_eq!(gang["id"], "run-b", "{gang}");
        assert_eq!((&gang["index"], &gang["size"]), (&json!(place), &json!(3)), "{gang}");
    }
    let taken: Vec<_> = admitted.iter().map(|one| charged(one, POOL).0).collect();
    assert_eq!(taken, [4_000, 2_000, 1_000]);
    let positions: Vec<u64> = ran
        .stdout
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap())
        .map(|line| line["position"].as_u64().unwrap())
        .collect();
    assert!(positions.windows(2).all(|two| two[1] == two[0] + 1), "{positions:?}");
    assert_eq!(story.used(POOL), 8_000);

    // The scheduler did not hear, and asks once more: it gets the same bytes, and nothing twice.
    let again = together(&story, "run-b", &small);
    assert_eq!((again.code, &again.stdout), (0, &ran.stdout));
    assert_eq!(story.used(POOL), 8_000);

    // From here on each is confirmed and released by itself.
    for one in &admitted {
        story.confirm(one);
    }
    let refunded: Vec<u64> = admitted.iter().map(|one| story.at(600).release(one)).collect();
    assert_eq!(refunded, [4 * 3_000, 2 * 3_000, 3_000]);
    story.end(&[
        (POOL, 1_000),
        ("tenant/platform-tools/gpu", 1_000),
        ("tenant/platform-tools/gpu-seconds/2026-11", 3_600 + 7 * 600),
    ]);
}
