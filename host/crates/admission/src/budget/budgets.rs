use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;
use wasmeter_types::{Error, ErrorKind};
use wasmeter_usage::{Budgeted, Pico, Rates};

use super::account::Account;
use super::{Known, LeaseSource, Purse};

/// Between two looks at which tenants have budgets, and at leases that want prolonging.
const TICK: Duration = Duration::from_secs(5);

/// A lease that nobody drew on for so long is given back; half of it before its end, one is prolonged.
const TERM: Duration = Duration::from_secs(60);

/// What an invocation may need, before it begins.
pub struct Opening<'a> {
    /// Who pays.
    pub tenant: &'a str,
    /// The subject of the caller's token.
    pub key: Option<&'a str>,
    /// The caller's own bound.
    pub most: Option<Pico>,
    /// List prices.
    pub rates: Rates,
    /// The function's limit.
    pub fuel: u64,
    /// Bytes that its answer may have.
    pub egress: u64,
    /// Whether it may call models.
    pub models: bool,
}

/// The budgets of all tenants, on this host. Cheap to clone; a tenant without one costs a look into a small map.
#[derive(Clone)]
pub struct Budgets {
    inner: Arc<Inner>,
}

/// Tenant, and key where it is a key's.
type Of = (String, Option<String>);

struct Inner {
    source: Arc<dyn LeaseSource>,
    tenants: ArcSwap<HashMap<String, Bounds>>,
    /// Whom its subscription keeps out, with what is told to it.
    unpaid: ArcSwap<HashMap<String, String>>,
    /// Every account there ever was: what it has drawn counts as long as the process lives.
    accounts: Mutex<HashMap<Of, Arc<Account>>>,
}

/// What bounds one tenant.
#[derive(Default)]
struct Bounds {
    all: Option<Arc<Account>>,
    keys: HashMap<String, Arc<Account>>,
}

impl Bounds {
    /// The key that a subject is, or was made by: `ci` bounds `ci/nightly` too, or else who has a key could mint one
    /// without a cap.
    fn key(&self, subject: &str) -> Option<&Arc<Account>> {
        let ends = subject.match_indices('/').map(|(at, _)| at).chain([subject.len()]);
        ends.into_iter().find_map(|end| self.keys.get(&subject[..end]))
    }
}

impl Budgets {
    /// Over a source of leases; `known` is what was true when the last process ended.
    #[must_use]
    pub fn new(source: Arc<dyn LeaseSource>, known: Known) -> Self {
        let inner = Inner {
            source,
            tenants: ArcSwap::default(),
            unpaid: ArcSwap::default(),
            accounts: Mutex::default(),
        };
        let budgets = Self { inner: Arc::new(inner) };
        budgets.adopt(known);
        budgets
    }

    /// Whether the tenant's subscription lets it work. Nothing of a call was done before this was asked; `owner` says
    /// whether the caller holds the tenant's token, and so may know more.
    ///
    /// # Errors
    /// 402 `subscription`.
    pub fn subscribed(&self, tenant: &str, owner: bool) -> Result<(), Error> {
        let unpaid = self.inner.unpaid.load();
        let Some(reason) = unpaid.get(tenant) else { return Ok(()) };
        let message = if owner {
            format!(
                "{reason}: `wasmeter portal` is where tenant {tenant} pays what is open, `wasmeter checkout` where it subscribes"
            )
        } else {
            "the function's owner has no paid subscription: nothing runs until there is one".to_owned()
        };
        Err(Error::new(ErrorKind::PaymentRequired, message).coded("subscription"))
    }

    /// Whether a budget or a cap bounds the tenant or one of its keys.
    #[must_use]
    pub fn bounds(&self, tenant: &str) -> bool {
        self.inner.tenants.load().contains_key(tenant)
    }

    /// Money for one invocation; `None` if nothing bounds it.
    ///
    /// # Errors
    /// 402 if a budget, a cap or the caller's own bound does not pay for its beginning; 503 if the ledger is away and
    /// nothing is left of a lease.
    pub async fn open(&self, opening: &Opening<'_>) -> Result<Option<Purse>, Error> {
        let accounts = {
            let tenants = self.inner.tenants.load();
            match tenants.get(opening.tenant) {
                None => Vec::new(),
                Some(bounds) => {
                    let key = opening.key.and_then(|key| bounds.key(key));
                    bounds.all.iter().chain(key).cloned().collect::<Vec<_>>()
                }
            }
        };
        if accounts.is_empty() && opening.most.is_none() {
            return Ok(None);
        }
        let (_, _, want) = Purse::amounts(opening);
        for account in &accounts {
            if account.is_short(want) {
                account.ask(&*self.inner.source, want).await;
            }
        }
        Purse::open(accounts, opening).map(Some)
    }

    /// Looks anew at which tenants have budgets, for one that has changed: what it allows now holds at once.
    pub async fn refresh(&self) {
        self.look().await;
        self.inner.accounts.lock().values().for_each(|account| account.ask_anew());
    }

    /// Looks anew at which tenants have budgets and which have not paid.
    pub async fn look(&self) {
        if let Ok(known) = self.inner.source.known().await {
            self.adopt(known);
        }
    }

    /// Prolongs leases, and gives back those that nobody uses, until `stop`.
    pub async fn keep(self, stop: CancellationToken) {
        let all = async {
            loop {
                tokio::time::sleep(TICK).await;
                self.look().await;
                for account in self.accounts() {
                    account.keep(&*self.inner.source, TERM).await;
                }
            }
        };
        let _ = stop.run_until_cancelled(all).await;
    }

    /// Gives back all leases: for the end of the host.
    pub async fn close(&self) {
        for account in self.accounts() {
            account.close(&*self.inner.source).await;
        }
    }

    fn accounts(&self) -> Vec<Arc<Account>> {
        self.inner.accounts.lock().values().cloned().collect()
    }

    fn adopt(&self, Known { budgets, unpaid }: Known) {
        self.inner.unpaid.store(Arc::new(unpaid.into_iter().map(|u| (u.tenant, u.reason)).collect()));
        let mut accounts = self.inner.accounts.lock();
        let mut account = |tenant: &str, key: Option<String>| {
            let new = || Arc::new(Account::new(tenant.to_owned(), key.clone()));
            accounts.entry((tenant.to_owned(), key.clone())).or_insert_with(new).clone()
        };
        let bounds = budgets.into_iter().map(|Budgeted { tenant, limited, keys }| {
            let all = limited.then(|| account(&tenant, None));
            let keys = keys.into_iter().map(|key| (key.clone(), account(&tenant, Some(key)))).collect();
            (tenant, Bounds { all, keys })
        });
        let bounds = bounds.collect();
        self.inner.tenants.store(Arc::new(bounds));
    }
}

#[cfg(test)]
mod tests {
    use async_trait::async_trait;
    use wasmeter_usage::{Lease, Unpaid};

    use super::*;
    use crate::LeaseError;

    struct Says(Mutex<Result<Known, LeaseError>>);

    #[async_trait]
    impl LeaseSource for Says {
        async fn known(&self) -> Result<Known, LeaseError> {
            self.0.lock().clone()
        }

        async fn lease(&self, _: &str, _: Option<&str>, _: Pico, _: Pico) -> Result<Lease, LeaseError> {
            Err(LeaseError::Gone)
        }
    }

    fn unpaid(tenant: &str) -> Known {
        let unpaid = Unpaid { tenant: tenant.into(), since_ns: 1, reason: "a payment failed".into() };
        Known { budgets: Vec::new(), unpaid: vec![unpaid] }
    }

    #[tokio::test]
    async fn who_has_not_paid_stays_out_until_it_has() {
        let says = Arc::new(Says(Mutex::new(Err(LeaseError::Away))));
        // As the last process knew it; billing is not there yet.
        let budgets = Budgets::new(says.clone(), unpaid("late"));
        budgets.refresh().await;
        let refused = budgets.subscribed("late", true).unwrap_err();
        assert_eq!((refused.kind.status(), refused.code()), (402, "subscription"));
        assert!(refused.message.starts_with("a payment failed: `wasmeter portal`"), "{refused}");
        let told = budgets.subscribed("late", false).unwrap_err();
        assert!(!told.message.contains("late"), "{told}");
        assert!(budgets.subscribed("other", true).is_ok() && !budgets.bounds("late"));
        *says.0.lock() = Ok(unpaid("other"));
        budgets.look().await;
        assert!(budgets.subscribed("late", true).is_ok() && budgets.subscribed("other", true).is_err());
        // Silence of billing is no news.
        *says.0.lock() = Err(LeaseError::Away);
        budgets.look().await;
        assert!(budgets.subscribed("other", true).is_err());
    }
}
