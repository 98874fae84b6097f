//! Leases from billing.

use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;
use serde::Deserialize;
use tokio::time::{Instant, sleep, timeout};
use wasmeter_admission::{Known, LeaseError, LeaseSource};
use wasmeter_metering::{BillingClient, BillingError, Spool};
use wasmeter_usage::wire::{Call, Reply};
use wasmeter_usage::{Budgeted, Lease, LeaseAsk, Pico};

/// A caller waits for a lease no longer.
const WAIT: Duration = Duration::from_secs(2);

/// A lease waits no longer than this for the usage of a host that died.
const BACKLOG: Duration = Duration::from_millis(500);

/// Asks billing, and remembers which tenants have budgets and which have not paid: a host that starts before billing
/// must not let them spend freely.
pub(crate) struct BillingLeases {
    pub(crate) billing: BillingClient,
    pub(crate) spool: Spool,
    pub(crate) kept: PathBuf,
}

impl BillingLeases {
    /// What the last process knew.
    pub(crate) fn kept(&self) -> anyhow::Result<Known> {
        match std::fs::read(&self.kept) {
            Ok(bytes) => parse(&bytes)
                .map_err(|e| anyhow::anyhow!("{} is damaged ({e}): delete it", self.kept.display())),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Known::default()),
            Err(error) => Err(error.into()),
        }
    }

    async fn ask(&self, call: Call) -> Result<Reply, LeaseError> {
        match timeout(WAIT, self.billing.call(call)).await {
            Ok(Ok(reply)) => Ok(reply),
            Ok(Err(BillingError::Refused { code, .. })) if code == "budget" => Err(LeaseError::Gone),
            Ok(Err(BillingError::Unavailable(_))) | Err(_) => Err(LeaseError::Away),
            Ok(Err(error)) => {
                tracing::error!(%error, "billing gives no lease");
                Err(LeaseError::Away)
            }
        }
    }

    async fn keep(&self, known: &Known) {
        let Ok(bytes) = serde_json::to_vec(known) else { return };
        let path = self.kept.clone();
        let kept = tokio::task::spawn_blocking(move || {
            if std::fs::read(&path).is_ok_and(|old| old == bytes) {
                return Ok(());
            }
            wasmeter_store::write_private(&path, &bytes)
        });
        if let Err(error) = kept.await.map_err(std::io::Error::other).flatten() {
            tracing::warn!(%error, "cannot keep which tenants have budgets: a restart without billing does not know");
        }
    }
}

/// The first form of the file was the list of budgets alone.
#[derive(Deserialize)]
#[serde(untagged)]
enum Kept {
    First(Vec<Budgeted>),
    Now(Known),
}

fn parse(bytes: &[u8]) -> serde_json::Result<Known> {
    Ok(match serde_json::from_slice(bytes)? {
        Kept::First(budgets) => Known { budgets, unpaid: Vec::new() },
        Kept::Now(known) => known,
    })
}

#[async_trait]
impl LeaseSource for BillingLeases {
    async fn known(&self) -> Result<Known, LeaseError> {
        match self.ask(Call::Budgets).await? {
            Reply::Budgets { budgets, unpaid } => {
                let known = Known { budgets, unpaid };
                self.keep(&known).await;
                Ok(known)
            }
            _ => Err(LeaseError::Away),
        }
    }

    async fn lease(
        &self,
        tenant: &str,
        key: Option<&str>,
        drawn: Pico,
        want: Pico,
    ) -> Result<Lease, LeaseError> {
        // What leases of a host that died hold is free once its usage is booked; before, a budget could seem used up.
        let until = Instant::now() + BACKLOG;
        while self.spool.backlog() > 0 && Instant::now() < until {
            sleep(Duration::from_millis(2)).await;
        }
        let ask = LeaseAsk {
            node: self.spool.node().to_owned(),
            epoch: self.spool.epoch(),
            settled: self.spool.backlog() == 0,
            tenant: tenant.to_owned(),
            key: key.map(str::to_owned),
            drawn,
            want,
        };
        match self.ask(Call::Lease(ask)).await? {
            Reply::Lease(lease) => Ok(lease),
            _ => Err(LeaseError::Away),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_of_the_file() {
        let first = parse(br#"[{"tenant":"dev","limited":true}]"#).unwrap();
        assert_eq!((first.budgets.len(), first.unpaid.len()), (1, 0));
        let now = parse(&serde_json::to_vec(&first).unwrap()).unwrap();
        assert_eq!(now, first);
        assert!(parse(b"{}").is_err() && parse(b"[1]").is_err());
    }
}
