//! Alerts of budgets: a task that looks which thresholds were passed, and one that tells them. What is to be told is in
//! the ledger before it is, and stays there until the other side has it: each is told at least once, with an id by which
//! a repetition is known.

mod address;
mod mail;
mod options;
mod webhook;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use wasmeter_ledger::{AlertMark, BudgetRefused, DueAlert, Reader, Told};
use wasmeter_usage::{AlertChannel, AlertTerms};

use crate::now::now_ns;
use crate::service::Service;

pub(crate) use options::Options;

/// How often both tasks look.
const TICK: Duration = Duration::from_secs(1);

/// Alerts that are told at one time.
const AT_ONCE: u32 = 8;

/// First and longest wait after an attempt that failed, and how long an alert is told at all.
const WAITS_NS: (u64, u64) = (5_000_000_000, 3_600_000_000_000);
const GIVEN_UP_NS: u64 = 3 * 86_400_000_000_000;

/// The longest reason that is kept.
const MAX_REASON: usize = 300;

/// The ways out.
pub(crate) struct Alerts {
    webhook: webhook::Sender,
    mail: Option<mail::Mailer>,
}

/// Starts the tasks.
pub(crate) fn start(service: &Arc<Service>, tasks: &tokio_util::task::TaskTracker, stop: &CancellationToken) {
    tasks.spawn(look(Arc::clone(service), stop.clone()));
    tasks.spawn(tell(Arc::clone(service), stop.clone()));
}

impl Alerts {
    /// Whether a tenant's wish can be fulfilled: what is wrong is told to who sets it, not found out at night.
    pub(crate) fn check(&self, terms: &AlertTerms) -> Result<(), BudgetRefused> {
        let refuse = |what: String| Err(BudgetRefused::new(what));
        if let Some(url) = &terms.webhook
            && let Err(what) = self.webhook.check(url)
        {
            return refuse(format!("alerts.webhook {what}"));
        }
        if let Some(email) = &terms.email {
            if let Err(what) = mail::check(email) {
                return refuse(format!("alerts.email {what}"));
            }
            if self.mail.is_none() {
                return refuse(
                    "alerts.email needs a mail server, and the operator has configured none ([billing.alerts] smtp): \
                     use alerts.webhook, or ask the operator"
                        .to_owned(),
                );
            }
        }
        Ok(())
    }
}

/// Finds thresholds that were passed. A tenant of whom nothing is new is not looked at.
async fn look(service: Arc<Service>, stop: CancellationToken) {
    let mut seen: HashMap<String, AlertMark> = HashMap::new();
    while stop.run_until_cancelled(tokio::time::sleep(TICK)).await.is_some() {
        let tenants = match service.readers.ask(|r| r.alerting(now_ns())).await {
            Ok(tenants) => tenants,
            Err(error) => {
                tracing::error!(%error, "budgets cannot be read: no alert is made");
                continue;
            }
        };
        let mut now_seen = HashMap::with_capacity(tenants.len());
        for (tenant, mark) in tenants {
            if seen.get(&tenant) != Some(&mark) {
                let name = tenant.clone();
                match service.writer.with(move |ledger| ledger.fire_alerts(&name, now_ns())).await {
                    Ok(Ok(0)) => {}
                    Ok(Ok(fired)) => tracing::info!(tenant, fired, "thresholds of a budget were passed"),
                    Ok(Err(error)) => {
                        tracing::error!(tenant, %error, "alerts cannot be made");
                        continue;
                    }
                    Err(_) => return,
                }
            }
            now_seen.insert(tenant, mark);
        }
        seen = now_seen;
    }
}

/// Tells what is due.
async fn tell(service: Arc<Service>, stop: CancellationToken) {
    while stop.run_until_cancelled(tokio::time::sleep(TICK)).await.is_some() {
        let due = match service.readers.ask(|r| r.due_alerts(AT_ONCE, now_ns())).await {
            Ok(due) => due,
            Err(error) => {
                tracing::error!(%error, "alerts cannot be read");
                continue;
            }
        };
        let mut all = JoinSet::new();
        for alert in due {
            let service = Arc::clone(&service);
            all.spawn(async move {
                let outcome = one(&service, &alert).await;
                settle(&service, alert, outcome).await;
            });
        }
        let told = async { while all.join_next().await.is_some() {} };
        if stop.run_until_cancelled(told).await.is_none() {
            return;
        }
    }
}

async fn one(service: &Service, alert: &DueAlert) -> Result<(), String> {
    let Some(target) = &alert.target else { return Err("the tenant wants it no more".to_owned()) };
    match alert.channel {
        AlertChannel::Webhook => {
            let body = webhook::body(alert, &service.currency, service.stamp);
            let (id, time) = (alert.id.clone(), crate::now::now_s());
            let signed = body.clone();
            let signature = service
                .readers
                .ask(move |r: &Reader| r.sign_alert(&id, time, &signed))
                .await
                .map_err(|e| e.to_string())?;
            service.alerts.webhook.send(target, &alert.id, time, &signature, body).await
        }
        AlertChannel::Email => match &service.alerts.mail {
            Some(mail) => mail.send(target, alert, &service.currency).await,
            None => Err("no mail server is configured any more ([billing.alerts] smtp)".to_owned()),
        },
    }
}

async fn settle(service: &Service, alert: DueAlert, outcome: Result<(), String>) {
    let (id, tenant, channel) = (alert.id.clone(), alert.tenant.clone(), alert.channel.as_str());
    let told = match outcome {
        Ok(()) => {
            tracing::info!(id, tenant, channel, "alert delivered");
            Told::Delivered
        }
        Err(reason) => {
            let reason: String = reason.chars().take(MAX_REASON).collect();
            let over = alert.target.is_none() || now_ns() >= alert.fired_ns.saturating_add(GIVEN_UP_NS);
            if over {
                tracing::warn!(id, tenant, channel, reason, "alert given up: nobody was told");
                Told::Failed { reason }
            } else {
                let wait_ns = (WAITS_NS.0 << alert.attempts.min(20)).min(WAITS_NS.1);
                tracing::info!(
                    id,
                    tenant,
                    channel,
                    reason,
                    wait_s = wait_ns / 1_000_000_000,
                    "alert is told later"
                );
                Told::Again { wait_ns, reason }
            }
        }
    };
    // Not written, it is told once more.
    let written = service.writer.with(move |ledger| ledger.settle_alert(&alert, &told, now_ns())).await;
    if let Ok(Err(error)) = written {
        tracing::error!(id, %error, "what became of an alert cannot be written");
    }
}
