use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;

use super::*;

const CHEAP: Duration = Duration::from_micros(200);
const DEAR: Duration = Duration::from_millis(30);

/// A job that says when it begins, waits until it may end, and claims a cost.
struct Job {
    begun: mpsc::Sender<()>,
    may_end: Option<mpsc::Receiver<()>>,
    cost: Duration,
    ended: mpsc::Sender<Lane>,
}

fn worker() -> impl FnMut(Job, Lane) -> Option<Duration> {
    |job, lane| {
        // The test may have seen enough, and a job whose release is gone may end.
        job.begun.send(()).ok();
        if let Some(may_end) = job.may_end {
            may_end.recv().ok();
        }
        job.ended.send(lane).ok();
        Some(job.cost)
    }
}

fn start(fast: usize, slow: usize) -> (Threads<&'static str, Job>, Arc<Metrics>) {
    let metrics = Arc::new(Metrics::new("0"));
    let threads = Threads::start((fast, slow), &metrics, worker).expect("threads can be had");
    (threads, metrics)
}

/// A tenant whose jobs never end by themselves.
struct Flood {
    release: Vec<mpsc::Sender<()>>,
    begun: mpsc::Receiver<()>,
    ended: mpsc::Receiver<Lane>,
}

fn flood(threads: &Threads<&'static str, Job>, tenant: &'static str, jobs: usize) -> Flood {
    let (say_begun, begun) = mpsc::channel();
    let (say_ended, ended) = mpsc::channel();
    let mut release = Vec::new();
    for _ in 0..jobs {
        let (let_end, may_end) = mpsc::channel();
        release.push(let_end);
        let (begun, ended) = (say_begun.clone(), say_ended.clone());
        threads.entrance().push(&tenant, Job { begun, may_end: Some(may_end), cost: DEAR, ended });
    }
    Flood { release, begun, ended }
}

/// One cheap job, waited for.
fn cheap(threads: &Threads<&'static str, Job>, tenant: &'static str) -> Lane {
    let ((begun, _begun), (ended, done)) = (mpsc::channel(), mpsc::channel());
    threads.entrance().push(&tenant, Job { begun, may_end: None, cost: CHEAP, ended });
    done.recv().expect("it is done")
}

#[test]
fn endless_jobs_of_one_tenant_hold_up_nobody_else() {
    let (mut threads, metrics) = start(2, 1);
    let flood = flood(&threads, "hostile", 100);
    flood.begun.recv().expect("the first is under way, and will not end");
    for _ in 0..200 {
        // Not one of the flood has ended: 0 others come before each of these.
        assert_eq!(cheap(&threads, "good"), Lane::Fast);
    }
    assert!(flood.ended.try_recv().is_err());

    // Once the first one's cost is known, the others block the slow lane and nothing else.
    flood.release[0].send(()).unwrap();
    assert_eq!(flood.ended.recv().unwrap(), Lane::Fast);
    flood.begun.recv().expect("the second is under way, and will not end");
    for _ in 0..200 {
        assert_eq!(cheap(&threads, "good"), Lane::Fast);
    }
    assert!(flood.ended.try_recv().is_err());
    assert!(metrics.text().contains("placet_waiting{name=\"slow\"} 98"), "{}", metrics.text());

    drop(flood.release);
    threads.stop();
    assert_eq!(flood.ended.iter().count(), 99, "stopping finishes what waits");
    assert!(metrics.text().contains("placet_waiting{name=\"slow\"} 0"), "{}", metrics.text());
}

#[test]
fn even_a_single_thread_comes_free_after_one_job() {
    let (mut threads, _) = start(1, 1);
    let flood = flood(&threads, "hostile", 50);
    flood.begun.recv().expect("the first is under way");
    flood.release[0].send(()).unwrap();
    for _ in 0..100 {
        assert_eq!(cheap(&threads, "good"), Lane::Fast);
    }
    let lanes: Vec<_> = flood.ended.try_iter().collect();
    assert_eq!(lanes, [Lane::Fast], "one came before the good ones, none between them");
    drop(flood.release);
    threads.stop();
}

#[test]
fn many_callers_and_threads_lose_nothing() {
    let (mut threads, metrics) = start(3, 2);
    let done = AtomicUsize::new(0);
    let tenants = ["a", "b", "c", "d"];
    std::thread::scope(|scope| {
        for caller in 0..8 {
            let (threads, done) = (&threads, &done);
            scope.spawn(move || {
                for job in 0..500 {
                    let ((begun, _begun), (ended, end)) = (mpsc::channel(), mpsc::channel());
                    // The odd callers' tenants go to the slow lane and come back.
                    let cost = if caller % 2 == 1 && job % 100 == 0 { DEAR } else { CHEAP };
                    let tenant = tenants[caller % 4];
                    threads.entrance().push(&tenant, Job { begun, may_end: None, cost, ended });
                    end.recv().expect("each job is done");
                    done.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
    });
    threads.stop();
    assert_eq!(done.into_inner(), 8 * 500);
    assert!(metrics.text().contains("placet_waiting{name=\"fast\"} 0"), "{}", metrics.text());
}
