use std::sync::mpsc::Receiver;

use rusqlite::{Connection, OptionalExtension, params};
use wasmeter_catalog::{KeyPage, KeyValueError, Space};

/// A question with its answer's way.
pub(super) type Read = Box<dyn FnOnce(&mut Connection) + Send>;

/// Keys of one page.
const PAGE: usize = 1000;

/// Answers until nobody asks any more.
pub(super) fn run(mut connection: Connection, questions: &Receiver<Read>) {
    while let Ok(question) = questions.recv() {
        question(&mut connection);
    }
}

/// The bucket's number, if it has ever had a pair.
pub(super) fn space_id(connection: &Connection, space: &Space) -> rusqlite::Result<Option<i64>> {
    connection
        .prepare_cached(
            "SELECT id FROM space WHERE tenant = ?1 AND function = ?2 AND bucket = ?3 AND doomed = 0",
        )?
        .query_row(params![space.tenant.as_str(), space.function.as_str(), space.bucket.as_str()], |row| {
            row.get(0)
        })
        .optional()
}

pub(super) fn get(
    connection: &mut Connection,
    space: &Space,
    keys: &[String],
    most: u64,
) -> rusqlite::Result<Result<Vec<Option<Vec<u8>>>, KeyValueError>> {
    // One transaction: all as they were at one time.
    let transaction = connection.transaction()?;
    let Some(id) = space_id(&transaction, space)? else { return Ok(Ok(vec![None; keys.len()])) };
    let mut select = transaction.prepare_cached("SELECT value FROM pair WHERE space = ?1 AND key = ?2")?;
    let (mut values, mut bytes) = (Vec::with_capacity(keys.len()), 0u64);
    for key in keys {
        let value: Option<Vec<u8>> = select.query_row(params![id, key], |row| row.get(0)).optional()?;
        bytes += value.as_ref().map_or(0, |v| v.len() as u64);
        if bytes > most {
            return Ok(Err(KeyValueError::Answer(most)));
        }
        values.push(value);
    }
    Ok(Ok(values))
}

pub(super) fn exists(connection: &Connection, space: &Space, key: &str) -> rusqlite::Result<bool> {
    let Some(id) = space_id(connection, space)? else { return Ok(false) };
    connection.prepare_cached("SELECT 1 FROM pair WHERE space = ?1 AND key = ?2")?.exists(params![id, key])
}

pub(super) fn keys(connection: &Connection, space: &Space, from: u64) -> rusqlite::Result<KeyPage> {
    let (Some(id), Ok(from)) = (space_id(connection, space)?, i64::try_from(from)) else {
        return Ok(KeyPage::default());
    };
    let mut select = connection
        .prepare_cached("SELECT id, key FROM pair WHERE space = ?1 AND id >= ?2 ORDER BY id LIMIT ?3")?;
    let rows = select.query_map(params![id, from, PAGE as i64 + 1], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let mut rows: Vec<(i64, String)> = rows.collect::<rusqlite::Result<_>>()?;
    let next = if rows.len() > PAGE { rows.pop() } else { None };
    Ok(KeyPage {
        keys: rows.into_iter().map(|(_, key)| key).collect(),
        next: next.and_then(|(id, _)| u64::try_from(id).ok()),
    })
}
