use std::sync::mpsc;
use std::time::Duration;

use futures::FutureExt as _;

use super::super::threads::Threads;
use super::*;
use crate::metrics::Metrics;

#[test]
fn who_fills_its_room_waits_alone_and_all_together_are_bounded() {
    let rooms = Rooms::new();
    let mut inside = Vec::new();
    let full = WAITING / (TENANT_WAITING - RESERVED);
    for tenant in 0..full {
        for _ in 0..TENANT_WAITING {
            inside.push(rooms.try_enter(&tenant).expect("there is room"));
        }
        assert!(rooms.try_enter(&tenant).is_none(), "its own room is full");
    }
    // What is left of the room of all.
    while let Some(room) = rooms.try_enter(&full) {
        inside.push(room);
    }
    assert_eq!(inside.len(), WAITING + (full + 1) * RESERVED);
    let mut waits = Box::pin(rooms.enter(&full));
    assert!(waits.as_mut().now_or_never().is_none(), "all rooms together are full");
    for _ in 0..RESERVED {
        inside.push(rooms.try_enter(&(full + 1)).expect("another tenant is let in all the same"));
    }
    assert!(rooms.try_enter(&(full + 1)).is_none(), "but not with all that it has");
    inside.swap_remove(RESERVED);
    assert!(waits.now_or_never().expect("there is room again").is_some());
}

#[test]
fn closing_sends_those_away_that_wait() {
    let rooms = Rooms::new();
    let inside: Vec<_> = (0..TENANT_WAITING).map(|_| rooms.try_enter(&'a').unwrap()).collect();
    let mut waits = Box::pin(rooms.enter(&'a'));
    assert!(waits.as_mut().now_or_never().is_none());
    rooms.close();
    assert!(waits.now_or_never().expect("told at once").is_none());
    assert!(rooms.enter(&'b').now_or_never().expect("told at once").is_none());
    assert!(rooms.try_enter(&'b').is_none());
    drop(inside);
}

#[test]
fn tenants_that_wait_for_nothing_are_forgotten() {
    let rooms = Rooms::new();
    let busy = rooms.try_enter(&0).unwrap();
    for tenant in 1..10 * REMEMBERED {
        assert!(rooms.try_enter(&tenant).is_some());
    }
    let tenants = rooms.tenants.lock().unwrap();
    assert!(tenants.rooms.len() <= REMEMBERED, "{}", tenants.rooms.len());
    assert!(tenants.rooms[&0].strong_count() > 0, "a busy one is not");
    drop(busy);
}

/// A job says its number when it is done; the first ones are held up until that is allowed.
struct Job(usize, tokio::sync::mpsc::UnboundedSender<usize>);

#[tokio::test]
async fn callers_that_are_not_polled_keep_no_room() {
    const JOBS: usize = 3 * TENANT_WAITING;
    let (let_go, held) = mpsc::channel::<()>();
    let held = Arc::new(Mutex::new(held));
    let worker = move || {
        let held = Arc::clone(&held);
        move |seated: Seated<Job>, _lane| {
            let Job(number, done) = seated.stand_up();
            // Until the other end is gone.
            held.lock().unwrap().recv().ok();
            done.send(number).ok();
            Some(Duration::from_micros(10))
        }
    };
    let mut threads =
        Threads::start((2, 1), &Arc::new(Metrics::new("0")), worker).expect("threads can be had");
    let hall = Hall::new(threads.entrance());
    let (say_done, mut done) = tokio::sync::mpsc::unbounded_channel();
    let mut waiting = Vec::new();
    for number in 0..JOBS {
        // Nothing is polled here, as in a stream whose next event is held up.
        waiting.push(hall.enter("acme", Job(number, say_done.clone())));
    }
    assert!(waiting.iter().flatten().count() >= JOBS - TENANT_WAITING - 3, "most wait for room");
    // A thread that takes a job makes room while others are still handed in: who comes then is in.
    let late = waiting.iter().enumerate().skip(JOBS - TENANT_WAITING);
    let entered: Vec<_> =
        late.filter(|(_, waiting)| waiting.is_none()).map(|(number, _)| number).collect();
    // Given up: they take no room from the others.
    waiting.drain(JOBS - TENANT_WAITING..).for_each(drop);
    // The one that holds up the stream needs no room.
    hall.pass(&"acme", Job(JOBS, say_done.clone()));
    drop((let_go, say_done));
    let all = async {
        let mut numbers = Vec::new();
        while let Some(number) = done.recv().await {
            numbers.push(number);
        }
        numbers
    };
    let mut numbers = tokio::time::timeout(Duration::from_secs(60), all).await.expect("all end");
    numbers.sort_unstable();
    let expected: Vec<_> = (0..JOBS - TENANT_WAITING).chain(entered).chain([JOBS]).collect();
    assert_eq!(numbers, expected);
    drop(hall);
    threads.stop();
}
