use wasmeter_ledger::{AdjustmentAsk, BudgetRefused, Ledger, LedgerError};
use wasmeter_usage::wire::{Call, Reply};

use crate::now::now_ns;
use crate::service::{Service, code, refused};

/// Answers what is about budgets, credits and leases, one after another with all that is booked.
pub(crate) async fn answer(service: &Service, call: Call) -> Reply {
    if let Call::SetBudget { terms, .. } = &call
        && let Err(refusal) = service.alerts.check(&terms.alerts)
    {
        return refused(code::BUDGET, refusal);
    }
    match service.writer.with(move |ledger| carry_out(ledger, call)).await {
        Ok(Ok(Ok(reply))) => reply,
        Ok(Ok(Err(error))) => refused(code::BUDGET, error),
        Ok(Err(error)) => {
            tracing::error!(%error, "a budget could not be read or written");
            refused(code::INTERNAL, "the ledger could not be written; see the log of wasmeter-billing")
        }
        Err(failed) => refused(code::INTERNAL, failed),
    }
}

fn carry_out(ledger: &mut Ledger, call: Call) -> Result<Result<Reply, BudgetRefused>, LedgerError> {
    let now = now_ns();
    let state = |state| Reply::Budget(Box::new(state));
    Ok(match call {
        Call::Budget { tenant } => Ok(state(ledger.budget(&tenant, now)?)),
        Call::SetBudget { tenant, terms } => ledger.set_budget(&tenant, &terms, now)?.map(state),
        Call::GrantCredit { tenant, id, amount, note } => {
            ledger.grant_credit(&tenant, &id, amount, &note, now)?.map(state)
        }
        Call::Adjust { tenant, id, invocation, amount, reason } => {
            let ask = AdjustmentAsk { tenant, id, invocation, amount, reason };
            ledger.adjust(&ask, now)?.map(Reply::Adjustment)
        }
        Call::Lease(ask) => ledger.lease(&ask, now)?.map(Reply::Lease),
        other => Ok(refused(code::MALFORMED, format!("{other:?} is not about budgets"))),
    })
}
