use std::fmt;

/// What kind of thing a gate found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The bytes are not a model of this format.
    Broken,
    /// A file beside the model is asked for.
    External,
    /// An operator that no engine here has by itself.
    Operator,
    /// A size that the file does not hold or no device would.
    Size,
    /// Too many parts, or too deep.
    Limit,
    /// The graph does not say how its values come about.
    Graph,
}

/// A model that must not reach an engine: what was found, and what its owner can do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    kind: Kind,
    what: String,
    advice: &'static str,
}

/// The longest part of a model's own names that a message repeats.
const SHOWN: usize = 80;

impl Refused {
    /// A refusal. `what` names the part of the model, `advice` what to do.
    pub fn new(kind: Kind, what: impl Into<String>, advice: &'static str) -> Self {
        Self { kind, what: what.into(), advice }
    }

    /// What kind of finding it is.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.kind
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; {}", self.what, self.advice)
    }
}

impl std::error::Error for Refused {}

/// A name out of a model as it may stand in a message: quoted, cut, without control characters.
pub(crate) fn shown(name: &str) -> String {
    let end = name.floor_char_boundary(SHOWN);
    let dots = if end < name.len() { "..." } else { "" };
    format!("{:?}{dots}", &name[..end])
}
