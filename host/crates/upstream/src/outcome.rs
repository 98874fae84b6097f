use std::any::Any;

use tokio::task::JoinError;

/// How a call of a guest ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The body of its answer.
    Body(Vec<u8>),
    /// It trapped, or upstream ended it with an error.
    Trap(String),
    /// Upstream's own code panicked: in a server, that is the death of the request's task or of more.
    Panic(String),
}

impl Outcome {
    pub(crate) fn of(ended: Result<wasmtime::Result<Vec<u8>>, JoinError>) -> Self {
        match ended {
            Ok(Ok(body)) => Self::Body(body),
            Ok(Err(error)) => Self::Trap(format!("{error:#}")),
            Err(error) => match error.try_into_panic() {
                Ok(panic) => Self::Panic(text(panic.as_ref())),
                Err(error) => Self::Trap(error.to_string()),
            },
        }
    }
}

fn text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no text").to_owned()
}
