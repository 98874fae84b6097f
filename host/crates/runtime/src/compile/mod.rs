mod child;
mod parent;
mod sandbox;
mod turns;

pub use child::compile_main;
pub use parent::{CompileError, CompileOptions, CompileStage, Compiler};

/// Exit status of the child for a component that does not compile; the reason is on its standard error.
const REFUSED: u8 = 3;
