use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;
use wasmeter_types::Error;
use wasmeter_usage::{Budgeted, Pico, Rates};

use super::account::Account;
use super::{LeaseSource, Purse};

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
    pub fn new(source: Arc<dyn LeaseSource>, known: Vec<Budgeted>) -> Self {
        let inner = Inner { source, tenants: ArcSwap::default(), accounts: Mutex::default() };
        let budgets = Self { inner: Arc::new(inner) };
        budgets.adopt(known);
        budgets
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
        if let Ok(known) = self.inner.source.budgeted().await {
            self.adopt(known);
        }
        self.inner.accounts.lock().values().for_each(|account| account.ask_anew());
    }

    /// Prolongs leases, and gives back those that nobody uses, until `stop`.
    pub async fn keep(self, stop: CancellationToken) {
        let all = async {
            loop {
                tokio::time::sleep(TICK).await;
                if let Ok(known) = self.inner.source.budgeted().await {
                    self.adopt(known);
                }
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

    fn adopt(&self, known: Vec<Budgeted>) {
        let mut accounts = self.inner.accounts.lock();
        let mut account = |tenant: &str, key: Option<String>| {
            let new = || Arc::new(Account::new(tenant.to_owned(), key.clone()));
            accounts.entry((tenant.to_owned(), key.clone())).or_insert_with(new).clone()
        };
        let bounds = known.into_iter().map(|Budgeted { tenant, limited, keys }| {
            let all = limited.then(|| account(&tenant, None));
            let keys = keys.into_iter().map(|key| (key.clone(), account(&tenant, Some(key)))).collect();
            (tenant, Bounds { all, keys })
        });
        let bounds = bounds.collect();
        self.inner.tenants.store(Arc::new(bounds));
    }
}
