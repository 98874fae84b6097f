use crate::Hash;

/// The hash of a record's text: SHA-256 over `wasmeter-record/1\n` and the text as the host wrote it, to the byte.
///
/// That text is the canonical form of a record. The spool holds it, the ledger keeps it, a receipt carries it: nobody on
/// the way writes it anew.
#[must_use]
pub fn record_hash(text: &str) -> Hash {
    Hash::of(&[b"wasmeter-record/1\n", text.as_bytes()])
}

/// One entry in the chain of its tenant.
#[derive(Clone, Copy, Debug)]
pub struct Link<'a> {
    /// The link before; of the first, 32 random bytes.
    pub previous: Hash,
    /// Place in the tenant's chain, from 1.
    pub index: u64,
    /// When the invocation ended, nanoseconds since the Unix epoch. Here so that an export of a window can prove what lies
    /// outside without showing it.
    pub end_ns: u64,
    /// What was booked.
    pub cost_pico: i64,
    /// [`record_hash`].
    pub record: Hash,
    /// The hash of the price sheet, as text.
    pub sheet: &'a str,
    /// Tenant.
    pub tenant: &'a str,
}

impl Link<'_> {
    /// SHA-256 over `wasmeter-link/1\n`, then the fields in the order above: hashes as 32 bytes, numbers as 8 bytes, the
    /// highest first, texts as their length in 4 bytes, the highest first, and their UTF-8 bytes.
    #[must_use]
    pub fn hash(&self) -> Hash {
        // No text of a record is longer than a frame, which fits 32 bits by far.
        let length = |text: &str| u32::try_from(text.len()).unwrap_or(u32::MAX).to_be_bytes();
        Hash::of(&[
            b"wasmeter-link/1\n",
            &self.previous.0,
            &self.index.to_be_bytes(),
            &self.end_ns.to_be_bytes(),
            &self.cost_pico.to_be_bytes(),
            &self.record.0,
            &length(self.sheet),
            self.sheet.as_bytes(),
            &length(self.tenant),
            self.tenant.as_bytes(),
        ])
    }
}
