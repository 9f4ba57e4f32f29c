//! The deterministic budget of the Rego interpreter.
//!
//! Built without `std`, the interpreter takes its time from one process-wide source. Ours counts:
//! each time it is asked, as many ticks have passed as the interpreter does units of work between
//! two questions. Its "time limit" is then a limit of work, reached at the same place in every run,
//! whatever the machine. Built-ins that can do much at once add to the same count, and refuse to
//! begin what the budget cannot pay. Each thread has its own.

use std::cell::Cell;
use std::num::NonZeroU32;
use std::sync::Once;
use std::time::Duration;

use regorus::utils::limits::{ExecutionTimerConfig, TimeSource, set_time_source};

/// Units of work between two looks at the count: looking takes a lock that all threads share.
const STEP: u32 = 16;

thread_local! {
    static TICKS: Cell<u64> = const { Cell::new(0) };
    /// Ticks of the evaluation that this thread is at.
    static BUDGET: Cell<u64> = const { Cell::new(u64::MAX) };
}

#[derive(Debug)]
struct Counter;

impl TimeSource for Counter {
    fn now(&self) -> Option<Duration> {
        let now = TICKS.get();
        TICKS.set(now.saturating_add(u64::from(STEP)));
        Some(Duration::from_nanos(now))
    }
}

static COUNTER: Counter = Counter;

/// The budget cannot pay what a built-in would do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the budget is spent")]
pub(super) struct Spent;

/// Makes the counter the interpreter's clock, once per process.
pub(super) fn install() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        // A source that was there before would not count: the budget test would fail. Nothing else
        // in the process links the interpreter.
        set_time_source(&COUNTER).expect("this crate alone gives the interpreter its clock");
    });
}

/// What makes the interpreter stop after so many ticks.
pub(super) fn limit(ticks: u64) -> ExecutionTimerConfig {
    let check_interval = NonZeroU32::new(STEP).expect("the step is not zero");
    ExecutionTimerConfig { limit: Duration::from_nanos(ticks), check_interval }
}

/// Starts to count towards a budget: another evaluation begins.
pub(super) fn start(budget: u64) {
    TICKS.set(0);
    BUDGET.set(budget);
    super::order::start();
}

/// Adds the work of a built-in, before it is done.
pub(super) fn charge(ticks: u64) -> Result<(), Spent> {
    TICKS.set(TICKS.get().saturating_add(ticks));
    if spent() > BUDGET.get() { Err(Spent) } else { Ok(()) }
}

/// Ticks since the start. The interpreter's own two looks at the clock, when it starts, are not
/// work.
pub(super) fn spent() -> u64 {
    TICKS.get().saturating_sub(2 * u64::from(STEP))
}
