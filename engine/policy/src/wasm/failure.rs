//! What a guest's failure means: an `INDETERMINATE` with the same words in every run, or no
//! decision at all.

use wasmtime::{Error, PoolConcurrencyLimitError, Trap};

/// Why an evaluation gave no answer.
#[derive(Debug)]
pub(super) enum Failure {
    /// The guest's own doing: the same for the same input, on every machine.
    Guest(String),
    /// The wall-clock backstop interrupted it.
    Backstop,
    /// The host had no room for another instance.
    NoRoom,
}

/// Where it failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// Making the instance. Guests that cannot be instantiated are refused at load.
    Instantiate,
    /// The call: handing the input over, running, reading the answer.
    Call,
}

/// A limit of the evaluation that the guest wanted to pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum OverLimit {
    #[error("needs more memory than the limit of {0} bytes")]
    Memory(u64),
    #[error("needs tables of more than {0} elements")]
    Table(usize),
}

/// Our own words for traps: the engine's may change with its version, and verdicts are compared
/// byte for byte.
const TRAPS: [(Trap, &str); 13] = [
    (Trap::StackOverflow, "its stack overflowed"),
    (Trap::MemoryOutOfBounds, "it accessed memory out of bounds"),
    (Trap::TableOutOfBounds, "it accessed a table out of bounds"),
    (Trap::IndirectCallToNull, "it called an empty element of a table"),
    (Trap::BadSignature, "it called a function by another type"),
    (Trap::IntegerOverflow, "an integer overflowed"),
    (Trap::IntegerDivisionByZero, "it divided an integer by zero"),
    (Trap::BadConversionToInteger, "it converted a float that is no integer"),
    (Trap::UnreachableCodeReached, "it panicked or executed `unreachable`"),
    (Trap::NullReference, "it used a null reference"),
    (Trap::AllocationTooLarge, "it allocated too much at once"),
    (Trap::CannotEnterComponent, "it called itself through the component model"),
    (Trap::CannotLeaveComponent, "it broke the rules of the component model"),
];

impl Failure {
    pub(super) fn new(error: &Error, step: Step, fuel: u64) -> Self {
        if let Some(limit) = error.downcast_ref::<OverLimit>() {
            return Self::Guest(format!("the policy {limit}"));
        }
        if let Some(trap) = error.downcast_ref::<Trap>() {
            return Self::trap(*trap, fuel);
        }
        if error.is::<PoolConcurrencyLimitError>() || step == Step::Instantiate {
            return Self::NoRoom;
        }
        // The engine gives these no type: should its words change, a test says so.
        if error.root_cause().to_string().starts_with("realloc return:") {
            let why = "its allocator gave an address that is not aligned or not in its memory";
            return Self::Guest(format!("the policy cannot take its input: {why}"));
        }
        let why = if error.is::<std::str::Utf8Error>() {
            "a text in it is not UTF-8"
        } else {
            "it is too large, or not of the contract's types"
        };
        Self::Guest(format!("the answer cannot be read: {why}"))
    }

    fn trap(trap: Trap, fuel: u64) -> Self {
        if trap == Trap::Interrupt {
            return Self::Backstop;
        }
        if trap == Trap::OutOfFuel {
            return Self::Guest(format!("the policy spent its fuel of {fuel}"));
        }
        let known = TRAPS.iter().find(|(known, _)| *known == trap);
        let why = known.map_or("it did what is not allowed", |(_, words)| *words);
        Self::Guest(format!("the policy trapped: {why}"))
    }
}
