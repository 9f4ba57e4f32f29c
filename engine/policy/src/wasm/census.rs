//! What a component holds, counted before anything compiles it: compiling must end soon, whatever
//! the component.
//!
//! Reading takes a tenth of a second for 20 MB; compiling a few kilobytes can take hours if they
//! are chosen for it. Where the compiler's work grows with the product of two counts, the product
//! is bounded ([`MAX_FLOWING`]).
//!
//! Each bound stands several times above the largest guests that we know, here called P (Python,
//! componentize-py 0.25: 18.4 MB) and J (JavaScript, componentize-js 0.23: 12.1 MB).

use wasmparser::{
    BlockType, CanonicalFunction, FunctionBody, Operator, Parser, Payload, TypeSectionReader,
};

use super::check::{self, Broken};

/// Functions, over all modules. P has 13,478, J 12,667.
const MAX_FUNCTIONS: u64 = 50_000;
/// Bytes of code over all functions. J has 9.2 MB, P 6.6 MB.
pub(super) const MAX_CODE_BYTES: u64 = 16 << 20;
/// Bytes of one function's body: its compilation cannot be shared out to threads. P's interpreter
/// loop has 426,843, J's 171,628.
pub(super) const MAX_BODY_BYTES: u64 = 768 << 10;
/// Locals of one function without its parameters. P has 271, J 118.
const MAX_LOCALS: u64 = 4_096;
/// Blocks inside one another in one function. P has 781, J 456.
const MAX_DEPTH: u64 = 4_096;
/// Loops inside one another in one function: the work grows with the cube of their number, so that
/// 2,000 of them in 16 KB took half a minute. P and J have 6.
const MAX_LOOP_DEPTH: u64 = 64;
/// Parameters of one function type: a call moves all of them. P has 18, J 17.
const MAX_PARAMS: u64 = 64;
/// Results of one function type. Compilers to Wasm return one value, or a few.
const MAX_RESULTS: u64 = 16;
/// What flows over the edges of a program: for each function its edges (blocks, branches and the
/// targets of their tables) times the values that an edge may carry, summed. The compiler may visit
/// every such pair, so that 100 KB can hold billions. J has 26 million, P 15 million.
pub(super) const MAX_FLOWING: u64 = 64_000_000;
/// The same of one function, which the compiler holds in memory at once: eight times as much took
/// 2 GB. J has 0.5 million, P 0.2 million.
const MAX_FLOWING_IN_ONE: u64 = 4_000_000;
/// Edges of each function squared, summed: the compiler's work on one function grows with the
/// square of its edges, and 16,000 conditions in a row took 2 GB. J has 840 million, P 495 million.
pub(super) const MAX_EDGES_SQUARED: u64 = 2_000_000_000;
/// Function types. P has 1,323.
const MAX_TYPES: u64 = 10_000;
/// Imports of modules from one another. P has 2,387.
const MAX_IMPORTS: u64 = 20_000;
/// Exports of modules to one another. P has 4,441.
const MAX_EXPORTS: u64 = 30_000;
/// Global variables. P has 871.
const MAX_GLOBALS: u64 = 10_000;
/// Data segments. J has 10,000.
const MAX_DATA_SEGMENTS: u64 = 50_000;
/// Element segments. P has 7.
const MAX_ELEMENT_SEGMENTS: u64 = 1_000;
/// Elements of all element segments: no more than tables can hold. J has 7,687.
const MAX_ELEMENTS: u64 = 1 << 16;
/// Modules. P has 38, one for each native library.
const MAX_MODULES: u64 = 64;
/// Components within it. P has 1; one that hides WASI from its inside has a few.
const MAX_COMPONENTS: u64 = 16;
/// Instances of modules and components, in its text. P has 108, most of them lists of exports.
const MAX_INSTANCES: u64 = 500;
/// Names given to parts of other parts. P has 1,435.
const MAX_ALIASES: u64 = 10_000;
/// Types of the component model. P has 89.
const MAX_COMPONENT_TYPES: u64 = 1_000;
/// Functions lifted, lowered or built in. P has 2.
const MAX_CANONICAL: u64 = 200;
/// Functions that one inner component takes from another: for each a pair of adapters is generated
/// that copies its types field by field.
const MAX_LOWERED: u64 = 50;
/// Imports and exports of components. P has 39, J 4.
const MAX_INTERFACE: u64 = 1_000;

const SMALLER: &str = "build it with optimisation for size, and leave out what it does not use";

/// Something that is counted over the whole component.
#[derive(Debug)]
struct Tally {
    seen: u64,
    most: u64,
    what: &'static str,
}

impl Tally {
    fn new(most: u64, what: &'static str) -> Self {
        Self { seen: 0, most, what }
    }

    fn add(&mut self, more: impl Into<u64>) -> Result<(), Broken> {
        self.seen = self.seen.saturating_add(more.into());
        within(self.seen, self.most, self.what)
    }
}

/// One function's count.
fn within(seen: u64, most: u64, what: &str) -> Result<(), Broken> {
    if seen <= most {
        return Ok(());
    }
    Err((format!("has more than {most} {what}"), SMALLER))
}

#[derive(Debug)]
struct Census {
    functions: Tally,
    code: Tally,
    flowing: Tally,
    squared: Tally,
    types: Tally,
    imports: Tally,
    exports: Tally,
    globals: Tally,
    data_segments: Tally,
    element_segments: Tally,
    elements: Tally,
    modules: Tally,
    components: Tally,
    instances: Tally,
    aliases: Tally,
    component_types: Tally,
    canonical: Tally,
    lowered: Tally,
    interface: Tally,
    /// Most parameters of any function type so far.
    params: u64,
    /// Most results of any function type so far.
    results: u64,
}

/// Refuses a component that holds too much to be compiled in bounded time.
///
/// # Errors
/// The first count that passes its bound; or that it cannot be read at all.
pub(super) fn bound(bytes: &[u8]) -> Result<(), Broken> {
    let mut census = Census::new();
    for payload in Parser::new(0).parse_all(bytes) {
        census.add(payload.map_err(|error| check::not_valid(&error))?)?;
    }
    Ok(())
}

impl Census {
    fn new() -> Self {
        Self {
            functions: Tally::new(MAX_FUNCTIONS, "functions"),
            code: Tally::new(MAX_CODE_BYTES, "bytes of code"),
            flowing: Tally::new(
                MAX_FLOWING,
                "values on the edges of its functions (branches times locals)",
            ),
            squared: Tally::new(MAX_EDGES_SQUARED, "branches in its functions, each squared"),
            types: Tally::new(MAX_TYPES, "function types"),
            imports: Tally::new(MAX_IMPORTS, "imports of modules"),
            exports: Tally::new(MAX_EXPORTS, "exports of modules"),
            globals: Tally::new(MAX_GLOBALS, "globals"),
            data_segments: Tally::new(MAX_DATA_SEGMENTS, "data segments"),
            element_segments: Tally::new(MAX_ELEMENT_SEGMENTS, "element segments"),
            elements: Tally::new(MAX_ELEMENTS, "elements in its segments"),
            modules: Tally::new(MAX_MODULES, "modules"),
            components: Tally::new(MAX_COMPONENTS, "components within it"),
            instances: Tally::new(MAX_INSTANCES, "instances"),
            aliases: Tally::new(MAX_ALIASES, "aliases"),
            component_types: Tally::new(MAX_COMPONENT_TYPES, "component types"),
            canonical: Tally::new(MAX_CANONICAL, "canonical functions"),
            lowered: Tally::new(MAX_LOWERED, "lowered functions"),
            interface: Tally::new(MAX_INTERFACE, "imports and exports"),
            params: 0,
            results: 0,
        }
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "the rest is a component's")]
    fn add(&mut self, payload: Payload<'_>) -> Result<(), Broken> {
        match payload {
            Payload::TypeSection(section) => self.types(section),
            Payload::ImportSection(section) => self.imports.add(section.count()),
            Payload::FunctionSection(section) => self.functions.add(section.count()),
            Payload::GlobalSection(section) => self.globals.add(section.count()),
            Payload::ExportSection(section) => self.exports.add(section.count()),
            Payload::ElementSection(section) => {
                self.element_segments.add(section.count())?;
                for element in section {
                    let items = element.map_err(|error| check::not_valid(&error))?.items;
                    self.elements.add(match items {
                        wasmparser::ElementItems::Functions(items) => items.count(),
                        wasmparser::ElementItems::Expressions(_, items) => items.count(),
                    })?;
                }
                Ok(())
            }
            Payload::DataSection(section) => self.data_segments.add(section.count()),
            Payload::CodeSectionEntry(body) => self.body(&body),
            other => self.add_of_component(other),
        }
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "the rest needs no bound of its own")]
    fn add_of_component(&mut self, payload: Payload<'_>) -> Result<(), Broken> {
        match payload {
            Payload::ModuleSection { .. } => self.modules.add(1_u32),
            Payload::ComponentSection { .. } => self.components.add(1_u32),
            Payload::InstanceSection(section) => self.instances.add(section.count()),
            Payload::ComponentInstanceSection(section) => self.instances.add(section.count()),
            Payload::ComponentAliasSection(section) => self.aliases.add(section.count()),
            Payload::CoreTypeSection(section) => self.component_types.add(section.count()),
            Payload::ComponentTypeSection(section) => self.component_types.add(section.count()),
            Payload::ComponentImportSection(section) => self.interface.add(section.count()),
            Payload::ComponentExportSection(section) => self.interface.add(section.count()),
            Payload::ComponentCanonicalSection(section) => {
                self.canonical.add(section.count())?;
                for function in section {
                    let function = function.map_err(|error| check::not_valid(&error))?;
                    if matches!(function, CanonicalFunction::Lower { .. }) {
                        self.lowered.add(1_u32)?;
                    }
                }
                Ok(())
            }
            // Tables and memories are bounded where they are instantiated; what is left is read by
            // nobody, or neither compiled nor generated from.
            _ => Ok(()),
        }
    }

    fn types(&mut self, section: TypeSectionReader<'_>) -> Result<(), Broken> {
        self.types.add(section.count())?;
        for ty in section.into_iter_err_on_gc_types() {
            let ty = ty.map_err(|error| check::not_valid(&error))?;
            let count =
                |values: &[wasmparser::ValType]| u64::try_from(values.len()).unwrap_or(u64::MAX);
            let (params, results) = (count(ty.params()), count(ty.results()));
            within(params, MAX_PARAMS, "parameters of a function")?;
            within(results, MAX_RESULTS, "results of a function")?;
            self.params = self.params.max(params);
            self.results = self.results.max(results);
        }
        Ok(())
    }

    fn body(&mut self, body: &FunctionBody<'_>) -> Result<(), Broken> {
        let bytes = u64::try_from(body.as_bytes().len()).unwrap_or(u64::MAX);
        within(bytes, MAX_BODY_BYTES, "bytes of code in one function")?;
        self.code.add(bytes)?;
        let mut shape = Shape::default();
        shape.read(body).map_err(|error| check::not_valid(&error))?;
        within(shape.locals, MAX_LOCALS, "locals in one function")?;
        within(shape.depth, MAX_DEPTH, "blocks inside one another")?;
        within(shape.loop_depth, MAX_LOOP_DEPTH, "loops inside one another")?;
        let values = shape.values(self.params, self.results);
        let flowing = shape.edges.saturating_mul(values);
        within(flowing, MAX_FLOWING_IN_ONE, "values on the edges of one function")?;
        self.flowing.add(flowing)?;
        self.squared.add(shape.edges.saturating_mul(shape.edges))?;
        // What a call moves stands nowhere in the text if another call gave it.
        self.flowing.add(shape.calls.saturating_mul(self.params + self.results))
    }
}

/// Edges that the compiler adds for both arms of an `if`, and where an instruction checks fuel,
/// epoch or a lazily filled table.
const CHECKED: u64 = 3;
/// Edges that stand for a loop: it checks fuel and epoch, and costs four times a block.
const REPEATED: u64 = 7;

/// What the work of compiling one function depends on.
#[derive(Debug, Default)]
struct Shape {
    locals: u64,
    /// Instructions that read or write a local.
    accesses: u64,
    /// Blocks, branches, the targets of their tables, and what the compiler adds.
    edges: u64,
    calls: u64,
    /// Whether a block takes parameters or gives several results.
    typed_blocks: bool,
    /// Blocks inside one another, at the deepest place.
    depth: u64,
    /// Loops inside one another, at the deepest place.
    loop_depth: u64,
}

impl Shape {
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "other instructions neither branch nor call"
    )]
    fn read(&mut self, body: &FunctionBody<'_>) -> wasmparser::Result<()> {
        for local in body.get_locals_reader()? {
            self.locals = self.locals.saturating_add(u64::from(local?.0));
        }
        // For each block around, whether it is a loop; and how many are.
        let mut open = Vec::new();
        let mut loops = 0_u64;
        let mut operators = body.get_operators_reader()?;
        while !operators.eof() {
            let operator = operators.read()?;
            match operator {
                Operator::LocalGet { .. }
                | Operator::LocalSet { .. }
                | Operator::LocalTee { .. } => self.accesses += 1,
                Operator::Block { blockty }
                | Operator::Loop { blockty }
                | Operator::If { blockty } => {
                    let looping = matches!(operator, Operator::Loop { .. });
                    let conditional = matches!(operator, Operator::If { .. });
                    self.edges += match (looping, conditional) {
                        (true, _) => REPEATED,
                        (_, true) => CHECKED,
                        _ => 1,
                    };
                    open.push(looping);
                    let depth = u64::try_from(open.len()).unwrap_or(u64::MAX);
                    self.depth = self.depth.max(depth);
                    loops += u64::from(looping);
                    self.loop_depth = self.loop_depth.max(loops);
                    self.typed_blocks |= matches!(blockty, BlockType::FuncType(_));
                }
                Operator::End => loops -= u64::from(open.pop().unwrap_or(false)),
                Operator::Br { .. } | Operator::BrIf { .. } | Operator::Return => self.edges += 1,
                Operator::BrTable { targets } => self.edges += u64::from(targets.len()) + 1,
                Operator::Call { .. } | Operator::ReturnCall { .. } => self.calls += 1,
                Operator::CallIndirect { .. } | Operator::ReturnCallIndirect { .. } => {
                    self.calls += 1;
                    self.edges += CHECKED;
                }
                Operator::MemoryGrow { .. }
                | Operator::RefFunc { .. }
                | Operator::DataDrop { .. }
                | Operator::ElemDrop { .. }
                | Operator::MemoryCopy { .. }
                | Operator::MemoryFill { .. }
                | Operator::MemoryInit { .. }
                | Operator::TableCopy { .. }
                | Operator::TableFill { .. }
                | Operator::TableInit { .. }
                | Operator::TableGrow { .. }
                | Operator::TableGet { .. }
                | Operator::TableSet { .. } => self.edges += CHECKED,
                _ => {}
            }
        }
        Ok(())
    }

    /// Values that an edge may carry: the locals in use, and what lies on the stack.
    fn values(&self, params: u64, results: u64) -> u64 {
        let stack = if self.typed_blocks { params + results } else { results };
        (self.locals + params).min(self.accesses) + stack
    }
}
