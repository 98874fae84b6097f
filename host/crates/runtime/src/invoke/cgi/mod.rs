//! How a command, be it a core module or a component, meets HTTP: the common gateway interface. The request is its environment and standard input, its
//! standard output the answer.

mod env;
mod head;
mod input;
mod output;

pub(super) use env::variables;
pub(super) use input::Input;
pub(super) use output::Output;
