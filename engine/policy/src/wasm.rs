//! Policies as WebAssembly components of the world `placet:policy/policy`.
//!
//! A component is compiled and type-checked once. Each evaluation gets a fresh store and instance,
//! so that nothing leaks from one decision into another, with deterministic limits: fuel, memory,
//! size of the answer. The wall clock is only a backstop, and hitting it is no decision.
//!
//! Deterministic means: for one component, one engine version and one CPU architecture the verdict
//! and the fuel are a function of the input. A guest that recurses until its stack overflows is
//! Indeterminate everywhere, but how deep it gets may differ between CPUs.

mod cache;
mod census;
mod check;
mod cost;
mod failure;
mod records;
mod runtime;

use placet_core::{Cost, Id};
use wasmtime::component::{ComponentExportIndex, InstancePre, Linker};
use wasmtime::{ResourceLimiter, Store};

pub use cache::CacheActivity;
pub use runtime::WasmRuntime;

use crate::answer::Answer;
use crate::error::Fault;
use crate::input::Input;
use crate::{EvaluateError, LoadError};
use failure::{Failure, OverLimit, Step};
use runtime::BACKSTOP_TICKS;

/// Largest component in bytes: a Python guest with its interpreter has 19 MB, and compiling grows
/// with it.
pub(crate) const MAX_COMPONENT_BYTES: usize = 32 << 20;
/// Fuel of a policy that sets none: one to eight for most instructions, several hundred times what
/// a Rust guest needs. To answer at all, Python takes 340,000 and JavaScript 2.8 million.
pub(crate) const DEFAULT_FUEL: u64 = 20_000_000;
/// Most fuel that a policy may set: some tenths of a second of whatever costs the CPU most for its
/// fuel, below the backstop.
pub(crate) const MAX_FUEL: u64 = 50_000_000;
/// Memory of a policy that sets none, in bytes, over all its linear memories.
pub(crate) const DEFAULT_MEMORY_BYTES: u64 = 32 << 20;
/// Most memory that a policy may set, in bytes: every worker thread may need as much at once.
pub(crate) const MAX_MEMORY_BYTES: u64 = 256 << 20;
/// Bytes that an answer may hand over, as records: eight times the text that is read.
const MAX_LIFTED_BYTES: usize = 64 << 10;
/// Linear memories of one component: language runtimes have up to two.
const MAX_MEMORIES: u8 = 4;
/// Tables of one component.
const MAX_TABLES: u8 = 16;
/// Elements of all tables of one component: a Python guest has some ten thousand.
const MAX_TABLE_ELEMENTS: usize = 1 << 16;

/// What `evaluate` takes: the input and the parameters.
type Params<'a> = (&'a records::Input<'a>, &'a str);
/// What `evaluate` gives.
type Results = (records::Answer,);

/// What one evaluation may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct WasmBudget {
    /// Fuel, 1..=[`MAX_FUEL`].
    pub(crate) fuel: u64,
    /// Bytes over all linear memories, 1..=[`MAX_MEMORY_BYTES`].
    pub(crate) memory_bytes: u64,
}

impl Default for WasmBudget {
    fn default() -> Self {
        Self { fuel: DEFAULT_FUEL, memory_bytes: DEFAULT_MEMORY_BYTES }
    }
}

/// A compiled component with its parameters and budget.
#[derive(Clone)]
pub(crate) struct WasmPolicy {
    name: Id,
    params: String,
    budget: WasmBudget,
    instance: InstancePre<Bounds>,
    evaluate: ComponentExportIndex,
    runtime: WasmRuntime,
}

impl std::fmt::Debug for WasmPolicy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { name, params, budget, .. } = self;
        f.debug_struct("WasmPolicy")
            .field("name", name)
            .field("params", params)
            .field("budget", budget)
            .finish_non_exhaustive()
    }
}

/// Whether bytes are a component that can be a policy: the same checks as when a bundle loads it,
/// with the default budget.
///
/// `file` names it in the error.
///
/// # Errors
/// [`LoadError::Invalid`] names the first rule that it breaks, and the remedy.
#[expect(clippy::missing_panics_doc, reason = "the name is a constant that is an id")]
pub fn check_component(runtime: &WasmRuntime, file: &str, bytes: &[u8]) -> Result<(), LoadError> {
    let name = Id::new("component").expect("a word is an id");
    WasmPolicy::compile(runtime, name, file, bytes, "{}".to_owned(), WasmBudget::default())?;
    Ok(())
}

impl WasmPolicy {
    /// Compiles a component, checks that it imports nothing and exports the world, and makes one
    /// instance on trial.
    ///
    /// `file` names it in errors; `params` is the policy's parameters as canonical JSON.
    ///
    /// # Errors
    /// [`LoadError::Invalid`] names the first rule that it breaks, and the remedy.
    pub(crate) fn compile(
        runtime: &WasmRuntime,
        name: Id,
        file: &str,
        bytes: &[u8],
        params: String,
        budget: WasmBudget,
    ) -> Result<Self, LoadError> {
        let fault = |(message, hint): (String, &str)| Fault::new(file, message).hint(hint);
        check::form(bytes).map_err(fault)?;
        census::bound(bytes).map_err(fault)?;
        let component = runtime
            .component(bytes)
            .map_err(|error| fault(check::not_valid(&error.root_cause())))?;
        let evaluate = check::interface(&runtime.engine, &component).map_err(fault)?;
        let instance = Linker::new(&runtime.engine)
            .instantiate_pre(&component)
            .map_err(|error| fault(check::not_our_world(&error)))?;
        let policy = Self { name, params, budget, instance, evaluate, runtime: runtime.clone() };
        policy.try_instance().map_err(fault)?;
        Ok(policy)
    }

    /// The same component with other params, as canonical JSON.
    pub(crate) fn with_params(&self, params: String) -> Self {
        Self { params, ..self.clone() }
    }

    /// Evaluates the input with `gpu_model` as the model under evaluation, in a fresh instance.
    ///
    /// # Errors
    /// [`EvaluateError`] if nothing is decided: interrupted by the backstop, or no room
    /// for another instance. Whatever the guest does wrong is an answer.
    pub(crate) fn evaluate(&self, input: &Input, gpu_model: &Id) -> Result<Answer, EvaluateError> {
        let mut store = self.store();
        let record = records::Input::new(input, gpu_model);
        let answered = self.call(&mut store, &record);
        let left = store.get_fuel().expect("the engine's configuration counts fuel");
        let cost = Cost { fuel: self.budget.fuel.saturating_sub(left), ..Cost::default() };
        let policy = || self.name.to_string();
        match answered {
            Ok(records::Answer::Decided(decided)) => Ok(Answer::decided(decided.into(), cost)),
            Ok(records::Answer::NotApplicable) => Ok(Answer::not_applicable(cost)),
            Ok(records::Answer::Failed(error)) => Ok(Answer::indeterminate(&error, cost)),
            Err(Failure::Guest(error)) => Ok(Answer::indeterminate(&error, cost)),
            Err(Failure::Backstop) => Err(EvaluateError::Backstop { policy: policy() }),
            Err(Failure::NoRoom) => Err(EvaluateError::NoRoom { policy: policy() }),
        }
    }

    fn call(
        &self,
        store: &mut Store<Bounds>,
        record: &records::Input<'_>,
    ) -> Result<records::Answer, Failure> {
        let at = |step| move |error| Failure::new(&error, step, self.budget.fuel);
        let instance = self.instance.instantiate(&mut *store).map_err(at(Step::Instantiate))?;
        let evaluate = instance
            .get_typed_func::<Params<'_>, Results>(&mut *store, &self.evaluate)
            .map_err(at(Step::Instantiate))?;
        let (answer,) = evaluate.call(store, (record, &self.params)).map_err(at(Step::Call))?;
        Ok(answer)
    }

    /// A component whose instances cannot be made is refused at load, not at each decision.
    fn try_instance(&self) -> Result<(), (String, &'static str)> {
        let mut store = self.store();
        let instance = match self.instance.instantiate(&mut store) {
            Ok(instance) => instance,
            Err(error) => {
                return Err(match Failure::new(&error, Step::Instantiate, self.budget.fuel) {
                    Failure::Guest(why) => check::no_instance(&why),
                    Failure::Backstop => check::no_instance("it was interrupted after one second"),
                    Failure::NoRoom => check::no_instance(&error.root_cause().to_string()),
                });
            }
        };
        match instance.get_typed_func::<Params<'_>, Results>(&mut store, &self.evaluate) {
            Ok(_) => Ok(()),
            Err(error) => Err(check::not_our_world(&error)),
        }
    }

    fn store(&self) -> Store<Bounds> {
        let mut store = Store::new(&self.runtime.engine, Bounds::new(self.budget));
        store.limiter(|bounds| bounds);
        store.set_fuel(self.budget.fuel).expect("the engine's configuration counts fuel");
        store.set_epoch_deadline(BACKSTOP_TICKS);
        store.set_hostcall_fuel(MAX_LIFTED_BYTES);
        store
    }
}

/// What an instance may still take of the host's memory. A wish beyond it traps: a guest that went
/// on with a failed allocation could answer without having looked.
#[derive(Debug)]
struct Bounds {
    budget: WasmBudget,
    memory_left: u64,
    elements_left: usize,
}

impl Bounds {
    fn new(budget: WasmBudget) -> Self {
        Self { budget, memory_left: budget.memory_bytes, elements_left: MAX_TABLE_ELEMENTS }
    }
}

impl ResourceLimiter for Bounds {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let over = OverLimit::Memory(self.budget.memory_bytes);
        let more = u64::try_from(desired.saturating_sub(current)).unwrap_or(u64::MAX);
        let left = self.memory_left.checked_sub(more).ok_or(over)?;
        if maximum.is_some_and(|maximum| desired > maximum) {
            return Err(over.into());
        }
        self.memory_left = left;
        Ok(true)
    }

    fn table_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let over = OverLimit::Table(MAX_TABLE_ELEMENTS);
        let left = self.elements_left.checked_sub(desired.saturating_sub(current)).ok_or(over)?;
        if maximum.is_some_and(|maximum| desired > maximum) {
            return Err(over.into());
        }
        self.elements_left = left;
        Ok(true)
    }

    fn memory_grow_failed(&mut self, error: wasmtime::Error) -> wasmtime::Result<()> {
        Err(error)
    }

    fn table_grow_failed(&mut self, error: wasmtime::Error) -> wasmtime::Result<()> {
        Err(error)
    }

    fn memories(&self) -> usize {
        usize::from(MAX_MEMORIES)
    }

    fn tables(&self) -> usize {
        usize::from(MAX_TABLES)
    }
}

#[cfg(test)]
mod tests;
