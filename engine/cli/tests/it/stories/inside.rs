//! Jobs run inside a lease: of its GPUs, within its time, and no longer than it.

use super::{HOUR, Story, charged, held, hint, instead, job, lease};

#[test]
fn jobs_live_inside_their_lease_and_end_with_it() {
    let mut story = Story::begin(&[]);
    let leased = story.started(&lease("lease", "acme").gpus(8).seconds(2 * HOUR));
    let inside = format!("lease/{}", held(&leased).id);

    // What the job takes is the lease's: nothing of tenant or cluster is paid twice.
    story.at(10);
    let first = story.started(&job("first", "acme").gpus(4).inside(&leased));
    assert_eq!(held(&first).charges.len(), 1);
    assert_eq!(charged(&first, &inside), (4_000, 8_000));
    assert_eq!(story.used("cluster/de-fra-1/gpu/H100"), 8_000);
    assert_eq!(story.used(&inside), 4_000);

    // Four are left in it, and two hours less ten seconds.
    let denied =
        story.deny(&job("too-many", "acme").gpus(5).inside(&leased), &["RESOURCE_UNAVAILABLE"]);
    let expected = serde_json::json!({"account": inside, "gpu_count": 4});
    assert_eq!(instead(&denied, "RESOURCE_UNAVAILABLE"), expected);
    let second =
        |name: &str, seconds: u64| job(name, "acme").gpus(4).seconds(seconds).inside(&leased);
    let denied = story.deny(&second("too-long", 2 * HOUR - 9), &["OUTSIDE_LEASE"]);
    assert_eq!(hint(&denied, "OUTSIDE_LEASE"), "end with the lease, or make the lease longer");
    let second = story.started(&second("to-the-end", 2 * HOUR - 10));
    assert_eq!(held(&second).end, held(&leased).end);

    // Nor can anybody else work in it, nor at another place.
    story.deny(&job("stranger", "polder-vision").inside(&leased), &["UNKNOWN_LEASE"]);

    // A job ends early: its GPUs are the lease's again. It paid nothing, so nothing comes back.
    assert_eq!(story.at(500).release(&first), 0);
    assert_eq!(story.used(&inside), 4_000);

    // The lease ends early, and takes what still runs along. Of 8 times two hours, 1,000 seconds
    // were used.
    assert_eq!(story.at(1_000).release(&leased), 8 * (2 * HOUR - 1_000));
    assert_eq!(story.at(1_001).not_confirmed(&second), "RESERVATION_ENDED");
    story.deny(&job("afterwards", "acme").inside(&leased), &["UNKNOWN_LEASE"]);
    assert_eq!(story.shown(&["ledger", "reservations"]), "");
    story.end(&[("tenant/acme/gpu-seconds/2026-11", 8_000)]);
}
