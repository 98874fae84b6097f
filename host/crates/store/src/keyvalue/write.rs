use std::collections::{HashMap, VecDeque};
use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::{Duration, Instant};

use rusqlite::{Connection, TransactionBehavior, params};
use tokio::sync::oneshot;
use wasmeter_catalog::{Author, Change, KeyValueError, Space};
use wasmeter_types::{FunctionName, TenantName};

use super::accounts::{Accounts, Sum};
use super::apply::{Applied, apply};
use super::room::Taken;

/// Commands of one transaction.
const BATCH: usize = 256;
/// Pairs of deleted functions that one transaction removes: others wait for no more.
const SWEEP: usize = 1000;

/// A command with its room, which it has until it is answered.
pub(super) struct Write {
    pub(super) work: Work,
    pub(super) taken: Taken,
}

pub(super) enum Work {
    Change {
        space: Space,
        author: Author,
        change: Change,
        answer: oneshot::Sender<Applied>,
    },
    Forget {
        tenant: TenantName,
        function: FunctionName,
        until_ns: u64,
        answer: oneshot::Sender<Result<(), KeyValueError>>,
    },
}

/// The answer to one command, once its transaction is on disk. Who asked may have ended.
enum Outcome {
    Change(oneshot::Sender<Applied>, Applied),
    Forget {
        answer: oneshot::Sender<Result<(), KeyValueError>>,
        name: (TenantName, FunctionName),
        /// What [`Gone`] said of it before.
        before: Option<u64>,
    },
}

/// Longer than any invocation lives: a WebSocket may an hour.
const REMEMBERED: Duration = Duration::from_secs(2 * 3600);

/// Deleted functions, with the age of the youngest revision that is gone, for as long as something of them may still run.
/// In memory is enough: that ends with this process.
#[derive(Default)]
struct Gone {
    until: HashMap<(TenantName, FunctionName), u64>,
    /// In the order of their deletion.
    order: VecDeque<(Instant, TenantName, FunctionName, u64)>,
}

impl Gone {
    fn add(
        &mut self,
        now: Instant,
        tenant: TenantName,
        function: FunctionName,
        until_ns: u64,
    ) -> Option<u64> {
        while self.order.front().is_some_and(|(at, ..)| now.duration_since(*at) > REMEMBERED) {
            let Some((_, tenant, function, until_ns)) = self.order.pop_front() else { break };
            let name = (tenant, function);
            // Unless it was deleted once more since.
            if self.until.get(&name) == Some(&until_ns) {
                self.until.remove(&name);
            }
        }
        self.order.push_back((now, tenant.clone(), function.clone(), until_ns));
        self.until.insert((tenant, function), until_ns)
    }

    /// It was not deleted after all.
    fn take_back(&mut self, name: (TenantName, FunctionName), before: Option<u64>) {
        match before {
            Some(until_ns) => self.until.insert(name, until_ns),
            None => self.until.remove(&name),
        };
    }

    fn has(&self, name: &(TenantName, FunctionName), author: &Author) -> bool {
        self.until.get(name).is_some_and(|until| author.revision_ns <= *until)
    }
}

/// The thread that changes pairs.
pub(super) struct Writer {
    connection: Connection,
    tenant_total: u64,
    accounts: Accounts,
    /// Spaces whose pairs are still to be removed.
    doomed: Vec<i64>,
    gone: Gone,
}

impl Writer {
    pub(super) fn new(
        connection: Connection,
        tenant_total: u64,
        is_there: impl Fn(&str, &str) -> bool,
    ) -> Result<Self, Box<dyn std::error::Error>> {
        let functions: Vec<(String, String)> = connection
            .prepare("SELECT DISTINCT tenant, function FROM space WHERE doomed = 0")?
            .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
            .collect::<rusqlite::Result<_>>()?;
        for (tenant, function) in functions.iter().filter(|(t, f)| !is_there(t, f)) {
            let doom = "UPDATE space SET doomed = 1 WHERE tenant = ?1 AND function = ?2";
            connection.execute(doom, params![tenant, function])?;
        }
        let accounts = Accounts::read(&connection)?;
        let doomed = connection
            .prepare("SELECT id FROM space WHERE doomed = 1")?
            .query_map([], |row| row.get(0))?
            .collect::<rusqlite::Result<_>>()?;
        Ok(Self { connection, tenant_total, accounts, doomed, gone: Gone::default() })
    }

    /// Works until nobody can send any more.
    pub(super) fn run(mut self, commands: &Receiver<Write>) {
        loop {
            let mut batch = Vec::new();
            if self.doomed.is_empty() {
                let Ok(first) = commands.recv() else { return };
                batch.push(first);
            }
            while batch.len() < BATCH {
                match commands.try_recv() {
                    Ok(next) => batch.push(next),
                    Err(TryRecvError::Empty) => break,
                    Err(TryRecvError::Disconnected) if batch.is_empty() => return,
                    Err(TryRecvError::Disconnected) => break,
                }
            }
            self.commit(batch);
        }
    }

    fn commit(&mut self, batch: Vec<Write>) {
        let (works, taken): (Vec<_>, Vec<_>) = batch.into_iter().map(|w| (w.work, w.taken)).unzip();
        let mut outcomes = Vec::new();
        let done = self.transact(works, &mut outcomes);
        if let Err(error) = &done {
            tracing::error!(%error, "pairs cannot be written");
            self.accounts.undo();
            // Nothing that could not be written is repeated at once, lest a full disk spins this thread.
            self.doomed.clear();
        } else {
            self.accounts.keep();
        }
        for outcome in outcomes {
            match outcome {
                Outcome::Change(answer, applied) => {
                    let _ = answer.send(if done.is_ok() { applied } else { Err(KeyValueError::Failed) });
                }
                Outcome::Forget { answer, name, before } => {
                    if done.is_err() {
                        self.gone.take_back(name, before);
                    }
                    let _ = answer.send(if done.is_ok() { Ok(()) } else { Err(KeyValueError::Failed) });
                }
            }
        }
        drop(taken);
    }

    /// All of it in one transaction; each work has its outcome, also when it fails.
    fn transact(&mut self, works: Vec<Work>, outcomes: &mut Vec<Outcome>) -> rusqlite::Result<()> {
        let Self { connection, tenant_total, accounts, doomed, gone } = self;
        let mut done = Ok(());
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate);
        for work in works {
            match work {
                Work::Change { space, author, change, answer } => {
                    let name = (space.tenant.clone(), space.function.clone());
                    let applied = match &transaction {
                        Ok(transaction) if done.is_ok() => {
                            if gone.has(&name, &author) {
                                Ok(Err(KeyValueError::Gone))
                            } else {
                                apply(transaction, accounts, *tenant_total, &space, &author, change)
                            }
                        }
                        _ => Ok(Err(KeyValueError::Failed)),
                    };
                    let applied = applied.unwrap_or_else(|error| {
                        done = Err(error);
                        Err(KeyValueError::Failed)
                    });
                    outcomes.push(Outcome::Change(answer, applied));
                }
                Work::Forget { tenant, function, until_ns, answer } => {
                    if let (Ok(transaction), Ok(())) = (&transaction, &done) {
                        match doom(transaction, &tenant, &function) {
                            Ok(ids) => doomed.extend(ids),
                            Err(error) => done = Err(error),
                        }
                    }
                    let had = accounts.of(&tenant, &function);
                    accounts.add(&tenant, &function, Sum { keys: -had.keys, bytes: -had.bytes });
                    let name = (tenant.clone(), function.clone());
                    let before = gone.add(Instant::now(), tenant, function, until_ns);
                    outcomes.push(Outcome::Forget { answer, name, before });
                }
            }
        }
        let transaction = transaction?;
        done?;
        if let Some(space) = doomed.last().copied()
            && sweep(&transaction, space)?
        {
            doomed.pop();
        }
        transaction.commit()
    }
}

/// The spaces of a deleted function, which are nobody's from now on.
fn doom(connection: &Connection, tenant: &TenantName, function: &FunctionName) -> rusqlite::Result<Vec<i64>> {
    connection
        .prepare_cached(
            "UPDATE space SET doomed = 1 WHERE tenant = ?1 AND function = ?2 AND doomed = 0 RETURNING id",
        )?
        .query_map(params![tenant.as_str(), function.as_str()], |row| row.get(0))?
        .collect()
}

/// Removes some pairs of a doomed space, and with the last of them the space; whether that was it.
fn sweep(connection: &Connection, space: i64) -> rusqlite::Result<bool> {
    let removed = connection
        .prepare_cached("DELETE FROM pair WHERE id IN (SELECT id FROM pair WHERE space = ?1 LIMIT ?2)")?
        .execute(params![space, SWEEP as i64])?;
    if removed == SWEEP {
        return Ok(false);
    }
    connection.execute("DELETE FROM space WHERE id = ?1", [space])?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use wasmeter_types::KeyValueLimits;

    use super::*;

    #[test]
    fn deleted_functions_are_remembered_while_something_of_them_may_run() {
        let (mut gone, start) = (Gone::default(), Instant::now());
        let limits = KeyValueLimits { keys: 1, value: 1, total: 1, calls: 1 };
        let old = Author { limits, revision_ns: 7 };
        let name = |n: usize| ("dev".parse().unwrap(), format!("f{n}").parse().unwrap());
        for n in 0..100 {
            let (tenant, function) = name(n);
            gone.add(start, tenant, function, 7);
        }
        // Deleted once more, later.
        let (tenant, function) = name(0);
        gone.add(start + REMEMBERED, tenant, function, 9);
        assert!(gone.has(&name(1), &old) && !gone.has(&name(1), &Author { limits, revision_ns: 8 }));
        let (tenant, function) = name(100);
        gone.add(start + REMEMBERED + Duration::from_secs(1), tenant, function, 7);
        assert!(!gone.has(&name(1), &old) && gone.has(&name(0), &old) && gone.has(&name(100), &old));
        assert_eq!((gone.until.len(), gone.order.len()), (2, 2));
    }
}
