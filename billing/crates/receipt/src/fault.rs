use wasmeter_usage::InvocationId;

/// What is wrong with a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wrong {
    /// Not JSON, or not a line of receipts.
    Shape,
    /// A line at a place where it cannot stand, or none where one must.
    Order,
    /// Not the next link of the tenant's chain.
    Chain,
    /// The record is not the one that was booked, or the line says something else than its record.
    Record,
    /// The cost is not that of the record under its price sheet.
    Cost,
    /// The price sheet is missing or not what its hash says.
    Sheet,
    /// An unknown key.
    Key,
    /// Not signed by the key that is named.
    Signature,
    /// The commit does not hold the entries, or does not follow the commit before.
    Commit,
    /// An entry on the wrong side of the window.
    Window,
    /// Entries or amounts that are more or less than the statement says.
    Sum,
}

impl Wrong {
    /// The stable word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Wrong::Shape => "shape",
            Wrong::Order => "order",
            Wrong::Chain => "chain",
            Wrong::Record => "record",
            Wrong::Cost => "cost",
            Wrong::Sheet => "sheet",
            Wrong::Key => "key",
            Wrong::Signature => "signature",
            Wrong::Commit => "commit",
            Wrong::Window => "window",
            Wrong::Sum => "sum",
        }
    }
}

/// Why receipts are refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}{}: {message}", invocation.map(|id| format!(" (invocation {id})")).unwrap_or_default())]
pub struct Fault {
    /// From 1; one past the last where the end is what is wrong.
    pub line: u64,
    /// Of that line, where it has one.
    pub invocation: Option<InvocationId>,
    /// The kind.
    pub wrong: Wrong,
    /// What is said and what should be.
    pub message: String,
}
