//! The threads of both lanes, and the desk at which they are given work.

use std::fmt::Debug;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use super::queue::{Lane, Queue, Turn};
use crate::metrics::Metrics;

/// By how much the threads of the slow lane are nicer than the process (nice(2), 0 to 19): whenever
/// both want a core, the fast lane, the network and the sequencer get it. Not 19: what is merely
/// expensive must go on too on a machine that is busy.
const SLOW_NICE: i32 = 5;

/// Threads that serve the two lanes until they are stopped.
pub(super) struct Threads<K, J> {
    desk: Arc<Desk<K, J>>,
    threads: Vec<JoinHandle<()>>,
    metrics: Arc<Metrics>,
}

impl<K, J> Debug for Threads<K, J> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Threads").field("threads", &self.threads.len()).finish_non_exhaustive()
    }
}

struct Desk<K, J> {
    state: Mutex<State<K, J>>,
    /// Rung when the lane has a turn, or all is over.
    fast: Condvar,
    slow: Condvar,
    metrics: Arc<Metrics>,
}

struct State<K, J> {
    queue: Queue<K, J>,
    stopping: bool,
}

impl<K: Ord + Clone + Debug, J> State<K, J> {
    fn is_over(&self) -> bool {
        self.stopping && self.queue.is_empty()
    }
}

impl<K, J> Threads<K, J>
where
    K: Ord + Clone + Debug + Send + 'static,
    J: Send + 'static,
{
    /// Starts `fast` and `slow` threads. Each gets a worker of its own, made on it, that does a job
    /// and says what it cost; none if there was nothing to do.
    pub(super) fn start<W: FnMut(J, Lane) -> Option<Duration>>(
        (fast, slow): (usize, usize),
        metrics: &Arc<Metrics>,
        worker: impl Fn() -> W + Clone + Send + 'static,
    ) -> std::io::Result<Self> {
        let desk = Desk {
            state: Mutex::new(State { queue: Queue::new(), stopping: false }),
            fast: Condvar::new(),
            slow: Condvar::new(),
            metrics: Arc::clone(metrics),
        };
        let mut threads =
            Self { desk: Arc::new(desk), threads: Vec::new(), metrics: Arc::clone(metrics) };
        for (lane, name, count) in [(Lane::Fast, "evaluate", fast), (Lane::Slow, "slow", slow)] {
            for number in 0..count {
                let (desk, worker) = (Arc::clone(&threads.desk), worker.clone());
                let thread = std::thread::Builder::new().name(format!("{name}-{number}")).spawn(
                    move || {
                        if lane == Lane::Slow {
                            stand_back(number == 0);
                        }
                        desk.serve(lane, worker());
                    },
                )?;
                threads.threads.push(thread);
            }
        }
        Ok(threads)
    }

    /// A way to the desk that may outlive the threads.
    pub(super) fn entrance(&self) -> Entrance<K, J> {
        Entrance(Arc::clone(&self.desk))
    }
}

/// Where jobs are handed in.
pub(super) struct Entrance<K, J>(Arc<Desk<K, J>>);

impl<K, J> Clone for Entrance<K, J> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<K, J> Debug for Entrance<K, J> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Entrance").finish_non_exhaustive()
    }
}

impl<K: Ord + Clone + Debug, J> Entrance<K, J> {
    /// Gives a job to the threads; drops it if they are stopping, since nobody may be left to do
    /// it.
    pub(super) fn push(&self, tenant: &K, job: J) {
        let mut state = self.0.lock();
        if state.stopping {
            return;
        }
        state.queue.push(tenant, job);
        self.0.leave(state);
    }
}

impl<K, J> Threads<K, J> {
    /// Lets the threads finish what waits, then ends them.
    pub(super) fn stop(&mut self) {
        self.desk.lock().stopping = true;
        self.desk.fast.notify_all();
        self.desk.slow.notify_all();
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a thread that evaluates had died");
                self.metrics.failed("WORKER_DIED");
            }
        }
    }
}

impl<K, J> Drop for Threads<K, J> {
    fn drop(&mut self) {
        self.stop();
    }
}

impl<K, J> Desk<K, J> {
    fn lock(&self) -> MutexGuard<'_, State<K, J>> {
        // A panic under the lock is a bug in the queue's own bookkeeping; others still get served.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn bell(&self, lane: Lane) -> &Condvar {
        match lane {
            Lane::Fast => &self.fast,
            Lane::Slow => &self.slow,
        }
    }
}

impl<K: Ord + Clone + Debug, J> Desk<K, J> {
    fn serve(&self, lane: Lane, mut work: impl FnMut(J, Lane) -> Option<Duration>) {
        let mut done = None;
        while let Some(turn) = self.next(lane, done.take()) {
            let (turn, job) = turn.split();
            let cost = work(job, lane);
            done = Some((turn, cost));
        }
    }

    /// Ends a turn and waits for the next one; none when all is over.
    fn next(
        &self,
        lane: Lane,
        done: Option<(Turn<K, ()>, Option<Duration>)>,
    ) -> Option<Turn<K, J>> {
        let mut state = self.lock();
        if let Some((turn, cost)) = done {
            state.queue.end(turn, cost);
        }
        loop {
            if let Some(turn) = state.queue.pop(lane) {
                self.leave(state);
                return Some(turn);
            }
            if state.is_over() {
                drop(state);
                self.fast.notify_all();
                self.slow.notify_all();
                return None;
            }
            // What ended may have given the other lane a turn.
            self.leave(state);
            let waits = |state: &mut State<K, J>| {
                let something = state.queue.has_turn(lane) || state.is_over();
                !something
            };
            let waited = self.bell(lane).wait_while(self.lock(), waits);
            state = waited.unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Gives the desk free, and wakes a thread for each lane that has a turn: it does the same when
    /// it has taken the turn, so that all that are needed wake up.
    fn leave(&self, state: MutexGuard<'_, State<K, J>>) {
        let queue = &state.queue;
        self.metrics.waiting(queue.waiting(Lane::Fast), queue.waiting(Lane::Slow));
        let turns = [Lane::Fast, Lane::Slow].map(|lane| (lane, queue.has_turn(lane)));
        drop(state);
        for (lane, has_turn) in turns {
            if has_turn {
                self.bell(lane).notify_one();
            }
        }
    }
}

/// Lowers the priority of this thread. On Linux it belongs to the thread, not to the process
/// (nice(2), "C library/kernel differences").
pub(crate) fn stand_back(say: bool) {
    let lowered = rustix::process::nice(SLOW_NICE);
    if let (Err(error), true) = (lowered, say) {
        tracing::warn!(%error, "what should stand back works at the priority of all others");
    }
}

#[cfg(test)]
mod tests;
