use std::path::Path;

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use rusqlite::{Connection, OptionalExtension};
use wasmeter_receipt::{Hash, PublicKey, Signature};

use super::key_file;
use crate::LedgerError;

/// The private key, and its row among the public ones.
pub(crate) struct Signer {
    pair: Ed25519KeyPair,
    pub(crate) public: PublicKey,
    pub(crate) id: Hash,
    pub(crate) row: i64,
}

impl Signer {
    /// The key beside the ledger, made where it is missing, and entered into the ledger where it is new.
    pub(crate) fn open(conn: &Connection, ledger: &Path, now_ns: u64) -> Result<Self, LedgerError> {
        let path = key_file::path(ledger);
        let seed = key_file::load_or_make(&path)?;
        let fault = || LedgerError::Key { path: path.clone(), what: "is no Ed25519 key".to_owned() };
        let pair = Ed25519KeyPair::from_seed_unchecked(&seed).map_err(|_| fault())?;
        let public = PublicKey(pair.public_key().as_ref().try_into().map_err(|_| fault())?);
        let id = public.id();
        let find = || {
            conn.prepare("SELECT id FROM receipt_key WHERE key = ?1")?
                .query_row([id.to_string()], |row| row.get::<_, i64>(0))
                .optional()
        };
        let row = match find()? {
            Some(row) => row,
            None => {
                conn.execute(
                    "INSERT INTO receipt_key (key, public, added_ns) VALUES (?1, ?2, ?3)",
                    (id.to_string(), public.to_string(), now_ns.cast_signed()),
                )?;
                conn.last_insert_rowid()
            }
        };
        Ok(Self { pair, public, id, row })
    }

    pub(crate) fn sign(&self, text: &str) -> Result<Signature, LedgerError> {
        let signature = self.pair.sign(text.as_bytes());
        let bytes = signature.as_ref().try_into();
        bytes.map(Signature).map_err(|_| LedgerError::Damaged("a signature of another length".into()))
    }
}
