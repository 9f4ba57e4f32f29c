//! How much work a case may be, and whether it got anywhere.

use std::cell::Cell;
use std::fs;

/// Most time that a thread may compute on one case, in hundredths of a second. Cases take
/// milliseconds; this is far above what an unoptimised, instrumented build needs, and far below
/// what a reader would call stuck.
const MAX_HUNDREDTHS: u64 = 200;

/// What this thread has computed so far, in hundredths of a second, whatever else the machine does
/// (fields 14 and 15 of proc_pid_stat(5), whose unit is 1/100 s on every Linux that we build for).
fn computed() -> u64 {
    let stat = fs::read_to_string("/proc/thread-self/stat").expect("the targets run on Linux");
    // The second field is a name in parentheses, which may hold anything.
    let (_, fields) = stat.rsplit_once(") ").expect("the name ends with a parenthesis");
    let fields: Vec<&str> = fields.split(' ').collect();
    let number = |at: usize| fields.get(at).and_then(|field| field.parse::<u64>().ok());
    // The first field after the name is the third of all.
    number(11).zip(number(12)).map(|(user, system)| user + system).expect("the fields are numbers")
}

/// Does something, and holds it to the bound.
pub(super) fn bounded<T>(what: &str, work: impl FnOnce() -> T) -> T {
    let before = computed();
    let result = work();
    let spent = computed() - before;
    assert!(spent <= MAX_HUNDREDTHS, "{what} took {spent} hundredths of a second");
    result
}

thread_local! {
    static ACCEPTED: Cell<u64> = const { Cell::new(0) };
}

/// Notes that an input was not refused, so that what is held of good ones was held of it.
pub(super) fn accept() {
    ACCEPTED.set(ACCEPTED.get() + 1);
}

/// How many inputs on this thread were not refused by a target so far: a generator of inputs that
/// are all refused tests little.
#[must_use]
pub fn accepted() -> u64 {
    ACCEPTED.get()
}
