use std::collections::BTreeSet;

use rusqlite::{Connection, OptionalExtension};
use wasmeter_usage::{BudgetTerms, Standing, StandingState, Unpaid};

use super::FreeUse;
use crate::LedgerError;

const SECOND_NS: u64 = 1_000_000_000;

/// Whether a tenant without a subscription may go on beyond what is free.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subscribe {
    /// It may: its usage waits, and is its operator's.
    Optional,
    /// It may not once it used more than the price book includes, unless it pays from credits.
    Required,
}

/// What decides on admission.
#[derive(Clone, Copy, Debug)]
pub struct Admission {
    /// Whether a subscription is needed.
    pub subscribe: Subscribe,
    /// How long a tenant goes on after a payment failed, nanoseconds.
    pub grace_ns: u64,
}

/// A subscription, for the judgement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Known {
    /// `sub_…`.
    pub subscription: String,
    /// Stripe's word, as it was last read.
    pub status: String,
    /// Since when it is in this standing, seconds since the Unix epoch.
    pub since_s: i64,
}

/// What Stripe's words mean here (documentation, "How subscriptions work"). `None`: never begun.
pub(super) fn class(status: &str) -> Option<StandingState> {
    match status {
        "active" | "trialing" => Some(StandingState::Active),
        "past_due" => Some(StandingState::Grace),
        // `paused`: a trial ended without a way to pay.
        "unpaid" | "paused" => Some(StandingState::Unpaid),
        "canceled" => Some(StandingState::Canceled),
        _ => None,
    }
}

/// Since when a subscription stands as it was read: the first of the last unbroken run of what events said of it, in
/// the order in which Stripe made them. `read_s` is when it was first read so, for want of an event that says it.
pub(super) fn since(status: &str, seen: &[(i64, String)], read_s: i64) -> i64 {
    let now = class(status);
    let run = seen.iter().rev().take_while(|(_, status)| class(status) == now).last();
    run.map_or(read_s, |(created_s, _)| *created_s)
}

/// The standing that the best of a tenant's subscriptions gives: its state, its subscription, since when, and when
/// the grace ends.
#[must_use]
pub(super) fn judge(
    known: &[Known],
    grace_ns: u64,
    now_ns: u64,
) -> (StandingState, Option<&str>, u64, Option<u64>) {
    let judged = known.iter().filter_map(|one| {
        let since = u64::try_from(one.since_s).unwrap_or(0).saturating_mul(SECOND_NS);
        let ends = since.saturating_add(grace_ns);
        let id = Some(one.subscription.as_str());
        Some(match class(&one.status)? {
            StandingState::Grace if now_ns < ends => (StandingState::Grace, id, since, Some(ends)),
            StandingState::Grace => (StandingState::Unpaid, id, ends, None),
            other => (other, id, since, None),
        })
    });
    let rank = |state: StandingState| match state {
        StandingState::None => 0,
        StandingState::Canceled => 1,
        StandingState::Unpaid => 2,
        StandingState::Grace => 3,
        StandingState::Active => 4,
    };
    judged.max_by_key(|(state, id, since, _)| (rank(*state), *since, *id)).unwrap_or((
        StandingState::None,
        None,
        0,
        None,
    ))
}

/// Questions to the tables.
pub(super) struct Standings<'a> {
    pub(super) conn: &'a Connection,
}

impl Standings<'_> {
    pub(super) fn of(
        &self,
        tenant: &str,
        admission: &Admission,
        now_ns: u64,
    ) -> Result<Standing, LedgerError> {
        let customer = self
            .conn
            .prepare_cached("SELECT customer FROM stripe_customer WHERE tenant = ?1 AND gone_ns IS NULL")?
            .query_row([tenant], |row| row.get(0))
            .optional()?;
        let known = self.known(tenant)?;
        let (state, subscription, since_ns, grace_ends_ns) = judge(&known, admission.grace_ns, now_ns);
        Ok(Standing {
            tenant: tenant.to_owned(),
            state,
            customer,
            subscription: subscription.map(str::to_owned),
            since_ns,
            grace_ends_ns,
        })
    }

    fn known(&self, tenant: &str) -> Result<Vec<Known>, LedgerError> {
        let rows: Vec<(String, String, i64)> = self
            .conn
            .prepare_cached(
                "SELECT s.subscription, s.status, s.changed_s FROM stripe_customer c
                 JOIN stripe_subscription s ON s.customer = c.customer WHERE c.tenant = ?1",
            )?
            .query_map([tenant], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?
            .collect::<Result<_, _>>()?;
        rows.into_iter()
            .map(|(subscription, status, changed_s)| {
                let seen: Vec<(i64, String)> = self
                    .conn
                    .prepare_cached(
                        "SELECT created_s, status FROM stripe_seen WHERE subscription = ?1 ORDER BY created_s, event",
                    )?
                    .query_map([&subscription], |row| Ok((row.get(0)?, row.get(1)?)))?
                    .collect::<Result<_, _>>()?;
                let since_s = since(&status, &seen, changed_s);
                Ok(Known { subscription, status, since_s })
            })
            .collect()
    }

    pub(super) fn unpaid(
        &self,
        admission: &Admission,
        free: &mut FreeUse,
        now_ns: u64,
    ) -> Result<Vec<Unpaid>, LedgerError> {
        // Whoever has nothing but subscriptions in order is not looked at.
        let mut doubtful: BTreeSet<String> = self
            .conn
            .prepare_cached(
                "SELECT DISTINCT c.tenant FROM stripe_customer c JOIN stripe_subscription s ON s.customer = c.customer
                 WHERE s.status NOT IN ('active', 'trialing')",
            )?
            .query_map([], |row| row.get(0))?
            .collect::<Result<_, _>>()?;
        if admission.subscribe == Subscribe::Required {
            let mut statement = self.conn.prepare_cached(
                "SELECT tenant FROM balance_cost WHERE cost_pico <> '0' AND tenant NOT IN (
                   SELECT c.tenant FROM stripe_customer c JOIN stripe_subscription s ON s.customer = c.customer
                   WHERE s.status IN ('active', 'trialing'))",
            )?;
            for tenant in statement.query_map([], |row| row.get(0))? {
                doubtful.insert(tenant?);
            }
        }
        let mut unpaid = Vec::new();
        for tenant in doubtful {
            let standing = self.of(&tenant, admission, now_ns)?;
            let reason = match standing.state {
                StandingState::Active | StandingState::Grace => continue,
                StandingState::Unpaid => {
                    "a payment failed and the time to mend it is over; pay the open invoice in the portal"
                }
                StandingState::Canceled => "the subscription was cancelled; subscribe again",
                StandingState::None if admission.subscribe == Subscribe::Optional => continue,
                StandingState::None => "there is no subscription; subscribe to go on",
            };
            if standing.state == StandingState::None && !free.is_over(self.conn, &tenant)? {
                continue;
            }
            // Credits are paid beforehand, whatever became of a subscription.
            if standing.state != StandingState::Unpaid && self.is_prepaid(&tenant)? {
                continue;
            }
            unpaid.push(Unpaid { tenant, since_ns: standing.since_ns, reason: reason.to_owned() });
        }
        Ok(unpaid)
    }

    fn is_prepaid(&self, tenant: &str) -> Result<bool, LedgerError> {
        let terms: Option<String> = self
            .conn
            .prepare_cached("SELECT terms FROM budget WHERE tenant = ?1 ORDER BY id DESC LIMIT 1")?
            .query_row([tenant], |row| row.get(0))
            .optional()?;
        let Some(terms) = terms else { return Ok(false) };
        let terms: BudgetTerms = serde_json::from_str(&terms)
            .map_err(|e| LedgerError::Damaged(format!("the budget of {tenant:?} does not parse: {e}")))?;
        Ok(terms.prepaid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: u64 = 86_400 * SECOND_NS;

    fn known(id: &str, status: &str, since_s: i64) -> Known {
        Known { subscription: id.into(), status: status.into(), since_s }
    }

    #[test]
    fn grace_runs_out() {
        let failed = [known("sub_1", "past_due", 1_000)];
        let at = |now| judge(&failed, 7 * DAY, now);
        let began = 1_000 * SECOND_NS;
        assert_eq!(at(began), (StandingState::Grace, Some("sub_1"), began, Some(began + 7 * DAY)));
        assert_eq!(at(began + 7 * DAY - 1).0, StandingState::Grace);
        let over = at(began + 7 * DAY);
        assert_eq!((over.0, over.2), (StandingState::Unpaid, began + 7 * DAY));
    }

    #[test]
    fn the_best_subscription_decides() {
        let all = [known("a", "canceled", 9), known("b", "active", 3), known("c", "unpaid", 5)];
        assert_eq!(judge(&all, DAY, DAY).1, Some("b"));
        assert_eq!(judge(&all[..1], DAY, DAY).0, StandingState::Canceled);
        assert_eq!(judge(&[known("d", "incomplete", 1)], DAY, DAY), (StandingState::None, None, 0, None));
    }

    #[test]
    fn since_is_the_last_unbroken_run() {
        let seen: Vec<(i64, String)> =
            [(1, "active"), (4, "past_due"), (6, "past_due"), (8, "active"), (9, "trialing")]
                .map(|(at, status)| (at, status.to_owned()))
                .into();
        assert_eq!(since("active", &seen, 99), 8);
        assert_eq!(since("past_due", &seen[..3], 99), 4);
        assert_eq!(since("unpaid", &seen, 99), 99);
        assert_eq!(since("active", &[], 99), 99);
    }
}
