//! The one wasmtime engine of a process, and the clockwork that interrupts a guest as the last
//! resort.

use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use wasmtime::component::Component;
use wasmtime::{Config, Enabled, Engine, PoolingAllocationConfig, Strategy};

use crate::LoadError;

use super::cache::{Cache, CacheActivity};
use super::{MAX_MEMORIES, MAX_MEMORY_BYTES, MAX_TABLE_ELEMENTS, MAX_TABLES, cost};

/// Evaluations at once, over all threads: a server has at most 192 that evaluate, and an activation
/// tries instances beside them.
const SLOTS: u32 = 256;
/// Core instances of one component: a Python guest has 38.
const MAX_CORE_INSTANCES: u32 = 64;
/// Native stack of a guest in bytes: a quarter of the smallest stack that Rust gives a thread.
const MAX_STACK_BYTES: usize = 512 << 10;
/// Bytes of a memory that stay mapped between evaluations: what a small guest touches, so that most
/// evaluations end without a system call.
const RESIDENT_BYTES: usize = 64 << 10;
/// Time between two epochs. Interruption is a backstop, so it may be coarse, and a coarse tick
/// costs nothing.
const TICK: Duration = Duration::from_millis(10);
/// Epochs after which a guest is interrupted: one second, over ten times what the largest budget of
/// fuel takes, so that only a stalled machine meets it.
pub(super) const BACKSTOP_TICKS: u64 = 100;

/// The WebAssembly engine that policies are compiled for: one for a process, shared by all bundles.
///
/// Guests get deterministic fuel and memory, no imports, and a backstop of one second. A thread
/// advances the epochs; it ends when the runtime and every policy compiled for it are gone. Clones
/// share everything.
///
/// # Example
/// ```
/// let runtime = placet_policy::WasmRuntime::new()?;
/// # let _ = runtime;
/// # Ok::<(), placet_policy::LoadError>(())
/// ```
#[derive(Debug, Clone)]
pub struct WasmRuntime {
    pub(super) engine: Engine,
    cache: Option<Arc<Cache>>,
    /// Held so that epochs advance as long as somebody can evaluate.
    pub(super) _ticker: Arc<Ticker>,
}

impl WasmRuntime {
    /// Sets the engine up and starts its ticker.
    ///
    /// # Errors
    /// [`LoadError::Engine`] if this machine cannot run it: an unsupported CPU, or no
    /// address space to reserve.
    pub fn new() -> Result<Self, LoadError> {
        Self::with_config(&config(&pool()))
    }

    /// The same, keeping compiled code in a directory: a component that was compiled once by this
    /// version of the engine, with these settings and on this CPU, is loaded in a hundredth of the
    /// time.
    ///
    /// The directory is created with mode 0700 if need be. It holds a key, made at random, and
    /// entries that are authenticated with it; nothing else is ever loaded. Its size is bounded.
    /// Several processes may share it. It is never needed: remove it, or what is in it, whenever
    /// you like.
    ///
    /// # Errors
    /// As [`WasmRuntime::new`]; [`LoadError::Invalid`] if the directory or its key is not private
    /// to this user, or not what it should be; [`LoadError::Read`] if the system refuses.
    pub fn with_cache(directory: &Path) -> Result<Self, LoadError> {
        let mut runtime = Self::new()?;
        runtime.cache = Some(Arc::new(Cache::open(directory, &runtime.engine)?));
        Ok(runtime)
    }

    /// What became of the components that it was given since this was last asked; nothing without
    /// a cache.
    #[must_use]
    pub fn take_cache_activity(&self) -> CacheActivity {
        self.cache.as_ref().map_or_else(CacheActivity::default, |cache| cache.take_activity())
    }

    pub(super) fn with_config(config: &Config) -> Result<Self, LoadError> {
        let engine = Engine::new(config).map_err(|error| failed(error.into()))?;
        let ticker = Ticker::start(engine.clone()).map_err(|error| failed(error.into()))?;
        Ok(Self { engine, cache: None, _ticker: Arc::new(ticker) })
    }

    /// A component ready to run: compiled, or from the cache.
    pub(super) fn component(&self, bytes: &[u8]) -> wasmtime::Result<Component> {
        match &self.cache {
            Some(cache) => cache.component(&self.engine, bytes),
            None => Component::from_binary(&self.engine, bytes),
        }
    }
}

fn failed(source: Box<dyn std::error::Error + Send + Sync>) -> LoadError {
    LoadError::Engine { engine: "the WebAssembly engine", source }
}

/// Where instances live: slots that are made once.
pub(super) fn pool() -> PoolingAllocationConfig {
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(SLOTS)
        .total_core_instances(SLOTS * MAX_CORE_INSTANCES)
        .total_memories(SLOTS * 2)
        .total_tables(SLOTS * 4)
        .max_core_instances_per_component(MAX_CORE_INSTANCES)
        .max_memories_per_module(u32::from(MAX_MEMORIES))
        .max_memories_per_component(u32::from(MAX_MEMORIES))
        .max_tables_per_module(u32::from(MAX_TABLES))
        .max_tables_per_component(u32::from(MAX_TABLES))
        .max_memory_size(usize::try_from(MAX_MEMORY_BYTES).unwrap_or(usize::MAX))
        .table_elements(MAX_TABLE_ELEMENTS)
        .linear_memory_keep_resident(RESIDENT_BYTES)
        .table_keep_resident(RESIDENT_BYTES)
        // Where the kernel can tell which pages were written (Linux 6.7), only they are cleared: a
        // third less for each evaluation.
        .pagemap_scan(Enabled::Auto);
    pool
}

/// How guests are compiled and run.
pub(super) fn config(pool: &PoolingAllocationConfig) -> Config {
    let mut config = Config::new();
    config
        .strategy(Strategy::Cranelift)
        .allocation_strategy(pool.clone())
        .consume_fuel(true)
        .operator_cost(cost::costs())
        .epoch_interruption(true)
        // Guests must not see how a CPU spells NaN or rounds a relaxed instruction.
        .cranelift_nan_canonicalization(true)
        .relaxed_simd_deterministic(true)
        .wasm_memory64(false)
        .max_wasm_stack(MAX_STACK_BYTES)
        .memory_init_cow(true)
        // Verdicts carry the kind of a trap only: frames would name addresses.
        .wasm_backtrace_max_frames(None);
    config
}

/// A thread that advances an engine's epoch until it is dropped.
#[derive(Debug)]
pub(super) struct Ticker {
    stop: Arc<Stop>,
    thread: Option<JoinHandle<()>>,
}

/// Guards the wish to end; the condition variable wakes the ticker at once.
#[derive(Debug, Default)]
struct Stop {
    wanted: Mutex<bool>,
    changed: Condvar,
}

impl Ticker {
    fn start(engine: Engine) -> std::io::Result<Self> {
        let stop = Arc::new(Stop::default());
        let seen = Arc::clone(&stop);
        let thread = std::thread::Builder::new()
            .name("placet-epochs".to_owned())
            .spawn(move || seen.tick_until_wanted(&engine))?;
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl Stop {
    /// The only waiting in this crate: it measures no time, and no verdict depends on it.
    fn tick_until_wanted(&self, engine: &Engine) {
        let mut wanted = self.wanted.lock().unwrap_or_else(PoisonError::into_inner);
        while !*wanted {
            let waited = self.changed.wait_timeout(wanted, TICK);
            wanted = waited.unwrap_or_else(PoisonError::into_inner).0;
            engine.increment_epoch();
        }
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        *self.stop.wanted.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.stop.changed.notify_all();
        if let Some(thread) = self.thread.take() {
            // The thread cannot panic, and there is nobody to tell if it did.
            drop(thread.join());
        }
    }
}
