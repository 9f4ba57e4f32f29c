//! The checked-in generated code is what the contracts generate, and the strict decoder keeps its
//! word.

mod generated;
