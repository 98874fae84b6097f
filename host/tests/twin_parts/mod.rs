//! The stand-in for Stripe of a running host, as its API and a browser see it.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    reason = "helpers of tests; each program uses a part"
)]

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use wasmeter_testkit::{Answer, Client, Host};

/// How long usage may take to the stand-in, and what time does there.
const SETTLED: Duration = Duration::from_secs(60);

/// The stand-in, with its key.
pub struct Twin {
    client: Client,
}

impl Twin {
    pub fn of(host: &Host) -> Self {
        let read = |name: &str| {
            let path = host.data().join("twin").join(name);
            std::fs::read_to_string(&path)
                .unwrap_or_else(|e| panic!("{}: {e}", path.display()))
                .trim()
                .to_owned()
        };
        Self { client: Client::new(&read("twin-url")).with_token(&read("secret-key")) }
    }

    /// The signature of a webhook that says this, made at this time.
    pub async fn sign(&self, body: &str, time: i64) -> String {
        text(&self.control("/_twin/sign", &json!({ "body": body, "time": time })).await["signature"])
            .to_owned()
    }

    /// Waits while it is being started again.
    async fn ask(&self, method: http::Method, path: &str, body: &str, kind: &str) -> Answer {
        let until = Instant::now() + Duration::from_secs(20);
        loop {
            let mut call = self.client.call(method.clone(), path);
            if !body.is_empty() {
                call = call.header("content-type", kind).body(body.to_owned());
            }
            match call.try_send().await {
                Ok(answer) => return answer,
                Err(error) => assert!(Instant::now() < until, "the twin does not answer {path}: {error}"),
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    pub async fn get(&self, path: &str) -> Value {
        self.ask(http::Method::GET, path, "", "").await.expect(200).json()
    }

    /// A call of Stripe's API, its parameters as a form.
    pub async fn post(&self, path: &str, form: &str) -> Value {
        self.ask(http::Method::POST, path, form, "application/x-www-form-urlencoded").await.expect(200).json()
    }

    /// A call of the twin's own control plane.
    pub async fn control(&self, path: &str, body: &Value) -> Value {
        self.ask(http::Method::POST, path, &body.to_string(), "application/json").await.expect(200).json()
    }

    /// All objects of a list.
    pub async fn list(&self, path: &str) -> Vec<Value> {
        let separator = if path.contains('?') { '&' } else { '?' };
        let mut all: Vec<Value> = Vec::new();
        loop {
            let after = all.last().map(|o| format!("&starting_after={}", text(&o["id"]))).unwrap_or_default();
            let page = self.get(&format!("{path}{separator}limit=100{after}")).await;
            all.extend(page["data"].as_array().unwrap().iter().cloned());
            if page["has_more"] != true {
                return all;
            }
        }
    }

    /// The tenant `dev` subscribes as a person in a browser does.
    pub async fn subscribe(&self, host: &Host) {
        let page =
            host.dev().post("/api/v1/tenants/dev/billing/checkout", "").send().await.expect(200).json();
        let answer = browse(text(&page["url"])).await;
        assert!(matches!(answer.status, 200 | 302 | 303), "{}", answer.text());
        self.stands(host, "active").await;
    }

    /// Waits until the tenant `dev` stands so.
    pub async fn stands(&self, host: &Host, state: &str) -> Value {
        let until = Instant::now() + SETTLED;
        loop {
            let standing = standing(host).await;
            if standing["state"] == state {
                return standing;
            }
            assert!(Instant::now() < until, "it is not {state}: {standing}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// What the twin has counted for the tenant `dev`, by our meter, in Stripe's units.
    pub async fn counted(&self, host: &Host) -> BTreeMap<String, u64> {
        let customer = text(&standing(host).await["customer"]).to_owned();
        let now = i64::try_from(std::time::UNIX_EPOCH.elapsed().unwrap().as_secs()).unwrap();
        let (from, to) = (now / 3600 * 3600 - 86_400, now / 3600 * 3600 + 7200);
        let mut counted = BTreeMap::new();
        for meter in self.list("/v1/billing/meters").await {
            let id = text(&meter["id"]);
            let window =
                format!("customer={customer}&start_time={from}&end_time={to}&value_grouping_window=hour");
            let rows = self.list(&format!("/v1/billing/meters/{id}/event_summaries?{window}")).await;
            let sum = rows.iter().map(|row| row["aggregated_value"].as_f64().unwrap()).sum::<f64>();
            let name = text(&meter["event_name"]).strip_prefix("wasmeter_").unwrap().to_owned();
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "whole and small")]
            counted.insert(name, sum as u64);
        }
        counted
    }

    /// Meter events that the twin has taken, none of them twice.
    pub async fn events(&self) -> usize {
        let taken = self.get("/_twin/meter-events").await;
        let events = taken["events"].as_array().unwrap();
        let identifiers: HashSet<&str> = events.iter().map(|e| text(&e["identifier"])).collect();
        assert_eq!(identifiers.len(), events.len(), "a meter event was taken twice");
        events.len()
    }

    /// Waits until what the twin has counted is the ledger's usage: no less, and never more.
    pub async fn counts_the_ledger(&self, host: &Host) -> BTreeMap<String, u64> {
        let until = Instant::now() + SETTLED;
        loop {
            let bill = host.bill("dev").await;
            let counted = self.counted(host).await;
            let expected: BTreeMap<String, u64> =
                lines(&bill).map(|l| (l.meter, l.quantity / l.divisor)).collect();
            let short = |(meter, quantity): (&String, &u64)| {
                let seen = counted.get(meter).copied().unwrap_or(0);
                assert!(seen <= *quantity, "the twin has counted {seen} of {meter}, the ledger {quantity}");
                seen < *quantity
            };
            if !expected.iter().any(short) {
                return counted;
            }
            assert!(Instant::now() < until, "the twin has counted {counted:?} of {expected:?}");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
}

impl Twin {
    /// The period of the tenant `dev` ends with something to pay, the payment fails, and Stripe gives up on it.
    pub async fn make_unpaid(&self, host: &Host) {
        let standing = standing(host).await;
        let (customer, subscription) = (text(&standing["customer"]), text(&standing["subscription"]));
        self.card(customer, subscription, "pm_card_chargeCustomerFail").await;
        self.control("/_twin/faults", &json!({ "unpaid_after": 1 })).await;
        let item = format!("customer={customer}&subscription={subscription}&amount=500&currency=usd");
        self.post("/v1/invoiceitems", &item).await;
        let found = self.get(&format!("/v1/subscriptions/{subscription}")).await;
        let end = found["items"]["data"][0]["current_period_end"].as_i64().expect("the end of the period");
        self.pass(host, end).await;
    }

    /// The customer pays what is open, with a card that works.
    pub async fn pay(&self, host: &Host) {
        let standing = standing(host).await;
        let (customer, subscription) = (text(&standing["customer"]), text(&standing["subscription"]));
        self.card(customer, subscription, "pm_card_visa").await;
        for invoice in self.list(&format!("/v1/invoices?customer={customer}&status=open")).await {
            self.post(&format!("/v1/invoices/{}/pay", text(&invoice["id"])), "").await;
        }
    }

    async fn card(&self, customer: &str, subscription: &str, card: &str) {
        let attach = format!("/v1/payment_methods/{card}/attach");
        let method = self.post(&attach, &format!("customer={customer}")).await;
        let default = format!("default_payment_method={}", text(&method["id"]));
        self.post(&format!("/v1/subscriptions/{subscription}"), &default).await;
    }

    /// Lets the time of the stand-in and of billing pass beyond the period, and waits for the invoice of it.
    pub async fn invoice_of_the_period(&self, host: &Host) -> Invoice {
        self.counts_the_ledger(host).await;
        let subscription = text(&standing(host).await["subscription"]).to_owned();
        let found = self.get(&format!("/v1/subscriptions/{subscription}")).await;
        let end = found["items"]["data"][0]["current_period_end"].as_i64().expect("the end of the period");
        self.pass(host, end).await;
        let until = Instant::now() + SETTLED;
        loop {
            let all = self.list(&format!("/v1/invoices?subscription={subscription}")).await;
            let ours =
                all.iter().find(|i| i["period_end"] == end && i["billing_reason"] == "subscription_cycle");
            if let Some(invoice) = ours.filter(|i| i["status"] == "paid") {
                return self.read(invoice).await;
            }
            assert!(Instant::now() < until, "no invoice of the period that is paid: {all:?}");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// An hour and some minutes beyond this time, so that drafts and late usage had theirs; billing's clock goes along.
    async fn pass(&self, host: &Host, end: i64) {
        let to = end + 4000;
        let ahead = to - i64::try_from(std::time::UNIX_EPOCH.elapsed().unwrap().as_secs()).unwrap();
        self.control("/_twin/faults", &json!({ "signature_skew_s": ahead })).await;
        std::fs::write(host.data().join("twin/ahead"), ahead.to_string()).unwrap();
        self.control("/_twin/clock", &json!({ "set": to })).await;
    }

    async fn read(&self, invoice: &Value) -> Invoice {
        let mut rows = BTreeMap::new();
        let mut meters = BTreeMap::new();
        for meter in self.list("/v1/billing/meters").await {
            let name = text(&meter["event_name"]).strip_prefix("wasmeter_").unwrap().to_owned();
            meters.insert(text(&meter["id"]).to_owned(), name);
        }
        for line in self.list(&format!("/v1/invoices/{}/lines", text(&invoice["id"]))).await {
            let price = text(&line["pricing"]["price_details"]["price"]);
            let price = self.get(&format!("/v1/prices/{price}")).await;
            let meter = meters[text(&price["recurring"]["meter"])].clone();
            let row = (line["quantity"].as_u64().unwrap(), line["amount"].as_i64().unwrap());
            assert!(rows.insert(meter, row).is_none(), "two lines of one meter: {invoice}");
        }
        Invoice {
            rows,
            total: invoice["total"].as_i64().unwrap(),
            number: text(&invoice["number"]).to_owned(),
        }
    }
}

/// An invoice of the stand-in: quantity in Stripe's units and amount by meter.
pub struct Invoice {
    rows: BTreeMap<String, (u64, i64)>,
    total: i64,
    number: String,
}

impl Invoice {
    /// Each line is the ledger's quantity at the price book's rate, rounded once; the total is the lines'.
    pub fn is_the_price_book_applied(&self, ledger: impl Iterator<Item = Line>) {
        let expected: BTreeMap<_, _> =
            ledger.map(|l| (l.meter.clone(), (l.quantity / l.divisor, l.minor()))).collect();
        for (meter, row) in &expected {
            assert_eq!(self.rows.get(meter), Some(row), "{meter}: {self}");
        }
        for (meter, row) in &self.rows {
            assert!(expected.contains_key(meter) || *row == (0, 0), "{meter} is not in the ledger: {self}");
        }
        assert_eq!(self.total, self.rows.values().map(|(_, amount)| amount).sum::<i64>(), "{self}");
    }
}

impl fmt::Display for Invoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "invoice {}, {} cents:", self.number, self.total)?;
        self.rows
            .iter()
            .try_for_each(|(meter, (quantity, amount))| write!(f, " {meter} {quantity} = {amount};"))
    }
}

/// A line of the ledger's bill.
pub struct Line {
    pub meter: String,
    pub quantity: u64,
    rate_pico: u128,
    /// Units that the rate buys.
    per: u128,
    /// Units that are one of Stripe's.
    pub divisor: u64,
}

impl Line {
    /// What Stripe asks for the quantity: whole units of its own at the price book's rate, rounded once, halves up.
    pub fn minor(&self) -> i64 {
        let units = u128::from(self.quantity / self.divisor);
        let exact = units * self.rate_pico * 100 * u128::from(self.divisor) / self.per;
        i64::try_from((exact + 500_000_000_000) / 1_000_000_000_000).unwrap()
    }
}

/// The lines of a bill that cost something.
pub fn lines(bill: &Value) -> impl Iterator<Item = Line> {
    let line = |line: &Value| {
        let meter = text(&line["meter"]).to_owned();
        let (per, divisor) = match meter.as_str() {
            "fuel" => (1_000_000, 1_000_000),
            "cpu_time" | "gpu_time" => (1_000_000_000, 1000),
            "egress_bytes" => (1_000_000_000, 1),
            _ => (1, 1),
        };
        let rate_pico = text(&line["rate_pico"]).parse().unwrap();
        Line { meter, quantity: line["quantity"].as_u64().unwrap(), rate_pico, per, divisor }
    };
    bill["lines"].as_array().unwrap().iter().map(line).filter(|l| l.rate_pico > 0)
}

pub async fn standing(host: &Host) -> Value {
    host.dev().get("/api/v1/tenants/dev/billing").send().await.expect(200).json()
}

pub fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("{value} is no text"))
}

/// Opens the page of a checkout and clicks on its first button, as a person who agrees to all does.
pub async fn browse(url: &str) -> Answer {
    let (client, path) = open(url);
    let page = client.get(&path).send().await.expect(200);
    assert!(
        page.text().contains("<form method=post><button name=card value=pm_card_visa>"),
        "{}",
        page.text()
    );
    let click = client.post(&path, "card=pm_card_visa");
    click.header("content-type", "application/x-www-form-urlencoded").send().await
}

/// The server and the path of an address.
pub fn open(url: &str) -> (Client, String) {
    let (server, path) = url.split_at(url[8..].find('/').map_or(url.len(), |at| at + 8));
    (Client::new(server), if path.is_empty() { "/".to_owned() } else { path.to_owned() })
}
