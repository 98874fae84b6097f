use std::collections::BTreeMap;

use rusqlite::{Connection, OptionalExtension, params};
use wasmeter_catalog::{Author, Change, KeyValueError, Space};

use super::accounts::{Accounts, Sum};
use super::read::space_id;

/// What a change comes to: refused, or done.
pub(super) type Applied = Result<Option<u64>, KeyValueError>;

/// Makes a change within the open transaction. A refused one has written nothing.
pub(super) fn apply(
    connection: &Connection,
    accounts: &mut Accounts,
    tenant_total: u64,
    space: &Space,
    author: &Author,
    change: Change,
) -> rusqlite::Result<Applied> {
    match change {
        Change::Set(pairs) => {
            // Of a key that is there twice, the last value counts.
            let pairs = pairs.into_iter().collect();
            set(connection, accounts, tenant_total, space, author, &pairs).map(|done| done.map(|()| None))
        }
        Change::Delete(keys) => delete(connection, accounts, space, &keys).map(|()| Ok(None)),
        Change::Increment(key, delta) => {
            let number = match number(connection, space, &key)? {
                Ok(number) => number,
                Err(error) => return Ok(Err(error)),
            };
            let Some(sum) = number.checked_add(delta) else { return Ok(Err(KeyValueError::Overflow)) };
            let pairs = BTreeMap::from([(key, sum.to_string().into_bytes())]);
            let done = set(connection, accounts, tenant_total, space, author, &pairs)?;
            Ok(done.map(|()| Some(sum)))
        }
    }
}

fn number(connection: &Connection, space: &Space, key: &str) -> rusqlite::Result<Result<u64, KeyValueError>> {
    let Some(id) = space_id(connection, space)? else { return Ok(Ok(0)) };
    let value: Option<Vec<u8>> = connection
        .prepare_cached("SELECT value FROM pair WHERE space = ?1 AND key = ?2")?
        .query_row(params![id, key], |row| row.get(0))
        .optional()?;
    let Some(value) = value else { return Ok(Ok(0)) };
    let digits = str::from_utf8(&value).ok().filter(|text| text.bytes().all(|b| b.is_ascii_digit()));
    Ok(digits.and_then(|text| text.parse().ok()).ok_or(KeyValueError::NotANumber))
}

fn set(
    connection: &Connection,
    accounts: &mut Accounts,
    tenant_total: u64,
    space: &Space,
    author: &Author,
    pairs: &BTreeMap<String, Vec<u8>>,
) -> rusqlite::Result<Result<(), KeyValueError>> {
    let known = space_id(connection, space)?;
    let mut more = Sum::default();
    for (key, value) in pairs {
        let old = match known {
            Some(id) => value_bytes(connection, id, key)?,
            None => None,
        };
        let new = signed(value.len());
        match old {
            Some(old) => more.bytes += new - old,
            None => more = Sum { keys: more.keys + 1, bytes: more.bytes + new + signed(key.len()) },
        }
    }
    if let Err(error) = accounts.admit(&space.tenant, &space.function, author, more, tenant_total) {
        return Ok(Err(error));
    }
    let id = match known {
        Some(id) => id,
        None => new_space(connection, space)?,
    };
    let mut upsert = connection.prepare_cached(
        "INSERT INTO pair (space, key, value) VALUES (?1, ?2, ?3)
         ON CONFLICT (space, key) DO UPDATE SET value = excluded.value",
    )?;
    for (key, value) in pairs {
        upsert.execute(params![id, key, value])?;
    }
    accounts.add(&space.tenant, &space.function, more);
    Ok(Ok(()))
}

fn delete(
    connection: &Connection,
    accounts: &mut Accounts,
    space: &Space,
    keys: &[String],
) -> rusqlite::Result<()> {
    let Some(id) = space_id(connection, space)? else { return Ok(()) };
    let mut delete = connection
        .prepare_cached("DELETE FROM pair WHERE space = ?1 AND key = ?2 RETURNING length(value)")?;
    let mut less = Sum::default();
    for key in keys {
        let gone: Option<i64> = delete.query_row(params![id, key], |row| row.get(0)).optional()?;
        if let Some(value) = gone {
            less.keys -= 1;
            less.bytes -= value + signed(key.len());
        }
    }
    accounts.add(&space.tenant, &space.function, less);
    Ok(())
}

fn value_bytes(connection: &Connection, space: i64, key: &str) -> rusqlite::Result<Option<i64>> {
    connection
        .prepare_cached("SELECT length(value) FROM pair WHERE space = ?1 AND key = ?2")?
        .query_row(params![space, key], |row| row.get(0))
        .optional()
}

fn new_space(connection: &Connection, space: &Space) -> rusqlite::Result<i64> {
    connection
        .prepare_cached("INSERT INTO space (tenant, function, bucket) VALUES (?1, ?2, ?3)")?
        .insert(params![space.tenant.as_str(), space.function.as_str(), space.bucket.as_str()])
}

/// Lengths in memory are far below the difference.
fn signed(length: usize) -> i64 {
    i64::try_from(length).unwrap_or(i64::MAX)
}
