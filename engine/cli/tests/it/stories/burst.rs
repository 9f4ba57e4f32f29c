//! An internal burst displaces external leases, with the grace that their contracts promise.

use placet_core::Decision;

use super::{Asked, BEGIN, HOUR, Story, charged, held, lease};

/// The terms of the reference policies, in seconds: a victim hears of it so long before, and has
/// run so long by then.
const GRACE: u64 = 300;
const LEAST_RUN: u64 = 1_800;

const POOL: &str = "cluster/de-fra-edge/gpu/A100";
const BUDGET: &str = "tenant/platform-tools/gpu-seconds/2026-11";

/// A site of eight GPUs, all of which are sold for two hours, one by one.
fn sold_out() -> (Story, Vec<Decision>) {
    let all = "{model: A100, count: 8, safety_buffer: ";
    let mut story = Story::begin(&[(&format!("{all}2"), &format!("{all}0"))]);
    let sold = |number: u32| {
        let sold = lease(&format!("sold-{number}"), "platform-tools");
        sold.on("de-fra-edge", "A100").seconds(2 * HOUR)
    };
    let sold = (0..8).map(|number| story.started(&sold(number))).collect();
    assert_eq!((story.used(POOL), story.used(BUDGET)), (8_000, 8 * 2 * HOUR));
    (story, sold)
}

/// Research asks for half of the site, at the expense of others if need be.
fn burst(name: &str) -> Asked {
    patient(name).gpus(4).with("may_preempt", true)
}

/// Research asks for a GPU, at nobody's expense.
fn patient(name: &str) -> Asked {
    lease(name, "research-foundation").own().on("de-fra-edge", "A100")
}

fn makes_room(permit: &Decision, one: &Decision) -> bool {
    permit.evictions.iter().any(|eviction| eviction.reservation == held(one).id)
}

#[test]
fn a_burst_displaces_sold_work_that_has_run_and_gives_it_notice() {
    let (mut story, sold) = sold_out();
    let now = 1_900;
    story.at(now).deny(&patient("at-nobodys-expense"), &["RESOURCE_UNAVAILABLE"]);
    let permit = story.permit(&burst("burst"));
    let evict_by = BEGIN + now + GRACE;
    assert_eq!(held(&permit).start, evict_by, "it starts when they are gone");
    assert_eq!(charged(&permit, POOL), (4_000, 8_000));
    let victims: Vec<_> = sold.iter().filter(|one| makes_room(&permit, one)).collect();
    assert_eq!((victims.len(), permit.evictions.len()), (4, 4), "no more than it needs");
    assert!(permit.evictions.iter().all(|one| one.evict_by == evict_by && one.epoch == 2));
    story.at(now + 10).confirm(&permit);

    // The order to each victim is in the log, signed, for the provisioner to act on.
    let orders = story.events("eviction_order");
    let ordered: Vec<_> = orders.iter().map(|order| order["victim"].as_str().unwrap()).collect();
    let evicted: Vec<_> = permit.evictions.iter().map(|one| one.reservation.as_str()).collect();
    assert_eq!(ordered, evicted);

    // Until then they run, and no GPU is held twice. All of it is in the store: the server may be
    // gone meanwhile.
    story.restart();
    story.at(now + GRACE - 1).deny(&patient("a-second-before"), &["RESOURCE_UNAVAILABLE"]);
    assert_eq!(story.used(POOL), 8_000);
    for victim in &victims {
        assert_eq!(story.not_confirmed(victim), "STALE_EPOCH", "its old decision is over");
    }

    // The notice is over. The burst has the GPUs of the four, whose tenant has paid for what it had
    // and gets the rest back.
    story.at(now + GRACE).deny(&patient("full"), &["RESOURCE_UNAVAILABLE"]);
    assert_eq!(story.used(POOL), 8_000);
    assert_eq!(story.used(BUDGET), 4 * 2 * HOUR + 4 * (now + GRACE));
    let left = story.rows(&["ledger", "reservations", "--tenant", "platform-tools"]);
    assert_eq!(left.len(), 4, "the others were left alone");

    // It needs ten minutes of its hour.
    assert_eq!(story.at(now + GRACE + 600).release(&permit), 4 * (HOUR - 600));
    assert_eq!(story.used(POOL), 4_000);
    story.end(&[
        (POOL, 4_000),
        ("tenant/platform-tools/gpu", 4_000),
        (BUDGET, 4 * 2 * HOUR + 4 * (now + GRACE)),
        ("tenant/research-foundation/gpu-seconds/2026-11", 4 * 600),
    ]);
}

#[test]
fn a_burst_comes_too_early_and_then_is_never_confirmed() {
    let (mut story, sold) = sold_out();
    // By the time they would have to go, they would lack one second of what they were promised.
    let early = LEAST_RUN - GRACE - 1;
    let denied = story.at(early).deny(&burst("too-early"), &["RESOURCE_UNAVAILABLE"]);
    assert!(denied.evictions.is_empty());
    let permit = story.at(early + 1).permit(&burst("in-time"));
    assert_eq!(permit.evictions.len(), 4);

    // Nobody confirms it, so it lapses, and nobody has to go: everybody runs to the end.
    let lapsed = held(&permit).confirm_by - BEGIN;
    assert_eq!(story.at(lapsed).not_confirmed(&permit), "CONFIRM_DEADLINE_PASSED");
    let left = story.rows(&["ledger", "reservations", "--state", "active"]);
    assert_eq!(left.len(), sold.len());
    assert!(left.iter().all(|row| row["end"] == BEGIN + 2 * HOUR && row["epoch"] == 1), "{left:?}");
    assert_eq!((story.used(POOL), story.used(BUDGET)), (8_000, 8 * 2 * HOUR));
    story.end(&[
        (POOL, 8_000),
        ("tenant/platform-tools/gpu", 8_000),
        (BUDGET, 8 * 2 * HOUR),
        ("tenant/research-foundation/gpu-seconds/2026-11", 0),
    ]);
}
