use rusqlite::Connection;
use wasmeter_receipt::PublicKey;
use wasmeter_usage::wire::ReceiptKey;

use crate::{LedgerError, Reader};

impl Reader {
    /// All public keys that ever signed, the oldest first.
    ///
    /// # Errors
    /// SQLite's.
    pub fn receipt_keys(&self) -> Result<Vec<ReceiptKey>, LedgerError> {
        let current = self.signer.as_ref().map(|signer| signer.row);
        let rows = load(&self.conn)?.into_iter().map(|(row, public, added_ns)| ReceiptKey {
            id: public.id().to_string(),
            public: public.to_string(),
            added_ns,
            current: Some(row) == current,
        });
        Ok(rows.collect())
    }
}

/// Rows, keys and when they came, in order.
pub(super) fn load(conn: &Connection) -> Result<Vec<(i64, PublicKey, u64)>, LedgerError> {
    let mut statement = conn.prepare_cached("SELECT id, public, added_ns FROM receipt_key ORDER BY id")?;
    let rows = statement.query_map([], |row| {
        Ok((row.get::<_, i64>(0)?, row.get::<_, String>(1)?, row.get::<_, i64>(2)?.cast_unsigned()))
    })?;
    rows.map(|row| {
        let (id, public, added_ns) = row?;
        let public = PublicKey::parse(&public)
            .ok_or_else(|| LedgerError::Damaged(format!("receipt key {id} is {public:?}")))?;
        Ok((id, public, added_ns))
    })
    .collect()
}
