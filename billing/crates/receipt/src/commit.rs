use serde::{Deserialize, Serialize};

use crate::Hash;

/// No commit has more entries; a transaction with more makes several.
pub const MAX_COMMIT: usize = 1 << 16;

/// The stamp of what was signed before the ledger was stamped.
pub const UNSTAMPED: &str = "unstamped";

/// How entries came into a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Made {
    /// In the transaction that booked them.
    Booked,
    /// Later, when a ledger from before there were commits was migrated.
    Adopted,
}

impl Made {
    /// The word in JSON and in the signed text.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Made::Booked => "booked",
            Made::Adopted => "adopted",
        }
    }

    /// The other way round.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        [Made::Booked, Made::Adopted].into_iter().find(|made| made.as_str() == word)
    }
}

/// What is signed once for all entries of a transaction.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Commit {
    /// From 1, without gaps.
    pub number: u64,
    /// How.
    pub made: Made,
    /// What the ledger was stamped with: `twin`, `test` or `live`; [`UNSTAMPED`] before it was.
    pub stamp: String,
    /// ISO 4217.
    pub currency: String,
    /// Ledger position of the first entry.
    pub first_entry: u64,
    /// How many there are.
    pub entries: u64,
    /// Root of the tree over their links.
    pub root: Hash,
    /// [`Commit::hash`] of the commit before; [`Hash::ZERO`] of the first.
    pub previous: Hash,
    /// When, nanoseconds since the Unix epoch, by the clock of billing.
    pub committed_ns: u64,
    /// Which key signed: [`PublicKey::id`](crate::PublicKey::id).
    pub key: Hash,
}

impl Commit {
    /// What is signed: a line with the form's name, then one a field, in the order above.
    #[must_use]
    pub fn text(&self) -> String {
        let Self { number, made, stamp, currency, first_entry, entries, root, previous, committed_ns, key } =
            self;
        format!(
            "wasmeter-commit/1\nnumber {number}\nmade {}\nstamp {stamp}\ncurrency {currency}\n\
             first_entry {first_entry}\nentries {entries}\nroot {root}\nprevious {previous}\n\
             committed_ns {committed_ns}\nkey {key}\n",
            made.as_str()
        )
    }

    /// SHA-256 of [`Commit::text`].
    #[must_use]
    pub fn hash(&self) -> Hash {
        Hash::of(&[self.text().as_bytes()])
    }
}
