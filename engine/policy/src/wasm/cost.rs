//! What an instruction costs in fuel: one for about a nanosecond, so that fuel ends a guest long
//! before the backstop does.
//!
//! The engine's own costs are one for nearly everything, and one for each byte or element that a
//! bulk instruction moves. That lets a guest stretch its fuel a hundredfold: by calls into the
//! engine that do nothing (`memory.grow` by no page took 50 ns), by square roots, and by loads that
//! miss every cache. A cost is part of every verdict's record, so a change here changes records.

use wasmtime::{OperatorCost, VariableOperatorCost};

/// Instructions that call into the engine and may take a lock there.
pub(super) const GROW: u8 = 200;
/// Instructions that call into the engine.
const HOST: u8 = 120;
/// Bulk instructions, whatever they move; each byte or element costs one more.
const BULK: u8 = 20;
/// Loads: the next instruction waits for them, up to 100 ns where a guest sees to it that no cache
/// helps.
const LOAD: u8 = 8;
/// Stores: they wait in a queue, but each may touch a page for the first time.
const STORE: u8 = 3;
/// Calls: they move arguments, and save and check the fuel.
const CALL: u8 = 4;
/// Calls through a table: they load the function and compare its type.
const CALL_INDIRECT: u8 = 8;
/// Divisions, of integers and floats.
const DIVIDE: u8 = 8;
/// Square roots.
const ROOT: u8 = 12;
/// Rounding, and conversions from floats: several instructions of the CPU each.
const ROUND: u8 = 4;

/// The cost of every instruction.
pub(super) fn costs() -> OperatorCost {
    let variable = VariableOperatorCost {
        // Each page is sixteen of the system's to map and to clear.
        memory_grow_per_page: GROW,
        table_copy_per_element: 4,
        table_fill_per_element: 4,
        table_init_per_element: 4,
        table_grow_per_element: 4,
        ..VariableOperatorCost::new()
    };
    let costs = OperatorCost {
        MemoryGrow: GROW,
        TableGrow: GROW,
        RefFunc: HOST,
        ElemDrop: HOST,
        DataDrop: HOST,
        TableGet: LOAD,
        TableSet: LOAD,
        MemoryInit: BULK,
        MemoryCopy: BULK,
        MemoryFill: BULK,
        TableInit: BULK,
        TableCopy: BULK,
        TableFill: BULK,
        Call: CALL,
        ReturnCall: CALL,
        CallIndirect: CALL_INDIRECT,
        ReturnCallIndirect: CALL_INDIRECT,
        variable,
        ..OperatorCost::new()
    };
    vectors(arithmetic(memory(costs)))
}

fn memory(costs: OperatorCost) -> OperatorCost {
    OperatorCost {
        I32Load: LOAD,
        I64Load: LOAD,
        F32Load: LOAD,
        F64Load: LOAD,
        I32Load8S: LOAD,
        I32Load8U: LOAD,
        I32Load16S: LOAD,
        I32Load16U: LOAD,
        I64Load8S: LOAD,
        I64Load8U: LOAD,
        I64Load16S: LOAD,
        I64Load16U: LOAD,
        I64Load32S: LOAD,
        I64Load32U: LOAD,
        V128Load: LOAD,
        V128Load8x8S: LOAD,
        V128Load8x8U: LOAD,
        V128Load16x4S: LOAD,
        V128Load16x4U: LOAD,
        V128Load32x2S: LOAD,
        V128Load32x2U: LOAD,
        V128Load8Splat: LOAD,
        V128Load16Splat: LOAD,
        V128Load32Splat: LOAD,
        V128Load64Splat: LOAD,
        V128Load32Zero: LOAD,
        V128Load64Zero: LOAD,
        V128Load8Lane: LOAD,
        V128Load16Lane: LOAD,
        V128Load32Lane: LOAD,
        V128Load64Lane: LOAD,
        I32Store: STORE,
        I64Store: STORE,
        F32Store: STORE,
        F64Store: STORE,
        I32Store8: STORE,
        I32Store16: STORE,
        I64Store8: STORE,
        I64Store16: STORE,
        I64Store32: STORE,
        V128Store: STORE,
        V128Store8Lane: STORE,
        V128Store16Lane: STORE,
        V128Store32Lane: STORE,
        V128Store64Lane: STORE,
        ..costs
    }
}

fn arithmetic(costs: OperatorCost) -> OperatorCost {
    OperatorCost {
        I32DivS: DIVIDE,
        I32DivU: DIVIDE,
        I32RemS: DIVIDE,
        I32RemU: DIVIDE,
        I64DivS: DIVIDE,
        I64DivU: DIVIDE,
        I64RemS: DIVIDE,
        I64RemU: DIVIDE,
        F32Div: DIVIDE,
        F64Div: DIVIDE,
        F32Sqrt: ROOT,
        F64Sqrt: ROOT,
        F32Ceil: ROUND,
        F32Floor: ROUND,
        F32Trunc: ROUND,
        F32Nearest: ROUND,
        F64Ceil: ROUND,
        F64Floor: ROUND,
        F64Trunc: ROUND,
        F64Nearest: ROUND,
        I32TruncF32S: ROUND,
        I32TruncF32U: ROUND,
        I32TruncF64S: ROUND,
        I32TruncF64U: ROUND,
        I64TruncF32S: ROUND,
        I64TruncF32U: ROUND,
        I64TruncF64S: ROUND,
        I64TruncF64U: ROUND,
        I32TruncSatF32S: ROUND,
        I32TruncSatF32U: ROUND,
        I32TruncSatF64S: ROUND,
        I32TruncSatF64U: ROUND,
        I64TruncSatF32S: ROUND,
        I64TruncSatF32U: ROUND,
        I64TruncSatF64S: ROUND,
        I64TruncSatF64U: ROUND,
        ..costs
    }
}

fn vectors(costs: OperatorCost) -> OperatorCost {
    OperatorCost {
        F32x4Div: DIVIDE,
        F64x2Div: DIVIDE,
        F32x4Sqrt: ROOT,
        F64x2Sqrt: ROOT,
        I64x2Mul: ROUND,
        I8x16Popcnt: ROUND,
        F32x4Ceil: ROUND,
        F32x4Floor: ROUND,
        F32x4Trunc: ROUND,
        F32x4Nearest: ROUND,
        F64x2Ceil: ROUND,
        F64x2Floor: ROUND,
        F64x2Trunc: ROUND,
        F64x2Nearest: ROUND,
        F32x4Min: ROUND,
        F32x4Max: ROUND,
        F64x2Min: ROUND,
        F64x2Max: ROUND,
        I32x4TruncSatF32x4S: ROUND,
        I32x4TruncSatF32x4U: ROUND,
        I32x4TruncSatF64x2SZero: ROUND,
        I32x4TruncSatF64x2UZero: ROUND,
        F32x4ConvertI32x4U: ROUND,
        ..costs
    }
}
