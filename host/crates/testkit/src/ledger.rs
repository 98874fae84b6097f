use std::time::{Duration, Instant};

use serde_json::Value;

use crate::{Answer, Host};

/// A receipt is visible so long after its answer (API.md).
const VISIBLE: Duration = Duration::from_secs(2);

impl Host {
    /// The receipts of a tenant, one for each invocation in the ledger.
    pub async fn receipts(&self, tenant: &str) -> Vec<Value> {
        let path = format!("/api/v1/tenants/{tenant}/receipts");
        let answer = self.operator().get(&path).send().await.expect(200);
        let lines = answer.text().lines().map(|l| serde_json::from_str::<Value>(l).expect("a line is JSON"));
        lines.filter(|l| l.get("invocation").is_some()).collect()
    }

    /// The receipts of a tenant as soon as there are `count`, which must be within two seconds.
    ///
    /// # Panics
    /// If there are fewer then, or more.
    pub async fn receipts_after(&self, tenant: &str, count: usize) -> Vec<Value> {
        let end = Instant::now() + VISIBLE;
        loop {
            let receipts = self.receipts(tenant).await;
            if receipts.len() >= count {
                assert_eq!(receipts.len(), count, "more receipts than invocations");
                return receipts;
            }
            assert!(Instant::now() < end, "{} of {count} receipts after {VISIBLE:?}", receipts.len());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// The receipt of an invocation, which must be there within two seconds.
    ///
    /// # Panics
    /// If it is not.
    pub async fn receipt(&self, tenant: &str, invocation: &str) -> Value {
        let end = Instant::now() + VISIBLE;
        let path = format!("/api/v1/tenants/{tenant}/receipts/{invocation}");
        loop {
            let answer = self.operator().get(&path).send().await;
            if answer.status == 200 {
                return answer.json();
            }
            assert!(Instant::now() < end, "no receipt of {invocation} after {VISIBLE:?}: {}", answer.text());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// What an answer's invocation is charged, by its receipt. Who was answered at a deadline before the guest could be
    /// stopped has no figures yet; figures that are there must say the same.
    ///
    /// # Panics
    /// If there is no receipt within two seconds, or it says another cost than the answer.
    pub async fn charged_pico(&self, tenant: &str, answer: &Answer) -> u128 {
        let receipt = self.receipt(tenant, &answer.invocation()).await;
        let charged = receipt["cost_pico"].as_str().and_then(|c| c.parse().ok());
        let charged = charged.unwrap_or_else(|| panic!("no cost: {receipt}"));
        assert!(answer.status == 504 || answer.cost_pico().is_some(), "no figures: {:?}", answer.headers);
        assert!(answer.cost_pico().is_none_or(|cost| cost == charged), "{:?} {receipt}", answer.headers);
        charged
    }

    /// The tenant's bill of this month.
    pub async fn bill(&self, tenant: &str) -> Value {
        self.operator().get(&format!("/api/v1/tenants/{tenant}/bill")).send().await.expect(200).json()
    }

    /// `list_total_pico` of the bill.
    ///
    /// # Panics
    /// If it is no number.
    pub async fn list_total_pico(&self, tenant: &str) -> u128 {
        let bill = self.bill(tenant).await;
        bill["list_total_pico"].as_str().and_then(|t| t.parse().ok()).expect("a number in a string")
    }

    /// The rows of the tenant's usage of this month, by `function`, `model`, `meter` or `hour`.
    ///
    /// # Panics
    /// If there are none.
    pub async fn usage(&self, tenant: &str, by: &str) -> Vec<Value> {
        let path = format!("/api/v1/tenants/{tenant}/usage?by={by}");
        let usage = self.operator().get(&path).send().await.expect(200).json();
        usage["rows"].as_array().expect("rows").clone()
    }
}
