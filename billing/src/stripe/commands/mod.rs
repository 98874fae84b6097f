//! Commands about Stripe. Each opens the ledger for reading only, beside a running `serve`.

pub(crate) mod outbox;
pub(crate) mod reconcile;
pub(crate) mod selftest;
pub(crate) mod setup;

use std::future::Future;
use std::path::Path;

use anyhow::{Context, ensure};
use wasmeter_ledger::{Reader, Stamp};
use wasmeter_receipt::UNSTAMPED;
use wasmeter_stripe::Client;

use super::Access;
use crate::data_dir::ledger_path;

/// A ledger that exists.
fn open(data: &Path) -> anyhow::Result<Reader> {
    let path = ledger_path(data);
    Reader::open(&path).with_context(|| format!("cannot open ledger {}", path.display()))
}

/// The client that the options describe, for the ledger of `data` where there is one.
fn client(access: &Access, data: Option<&Path>) -> anyhow::Result<(Client, Stamp)> {
    let stamp = access.stripe.context("name which Stripe: --stripe twin, test or live")?;
    if let Some(data) = data.filter(|data| ledger_path(data).exists()) {
        let found = open(data)?.stamp().to_owned();
        ensure!(
            found == stamp.as_str() || found == UNSTAMPED,
            "the ledger is stamped `{found}` for ever and --stripe says `{stamp}`; name a data directory of its own"
        );
    }
    let (client, _) =
        access.client(Some(stamp))?.context("name which Stripe: --stripe twin, test or live")?;
    Ok((client, stamp))
}

/// Runs a command's future to its end.
fn block_on<T>(future: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?
        .block_on(future)
}
