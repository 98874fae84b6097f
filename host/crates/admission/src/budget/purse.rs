use std::sync::Arc;

use parking_lot::Mutex;
use wasmeter_types::{Error, ErrorKind};
use wasmeter_usage::{DeviceClass, Draw, Pico, Rates};

use super::account::Account;
use super::budgets::Opening;

/// No guest begins with less fuel, unless its function's own limit is less: it would not get to its first line.
const LEAST_FUEL: u64 = 1_000_000;

/// What one invocation may cost. It holds that much of each account that pays, and gives the rest back when the usage is
/// recorded; dropped before that, it gives back all.
pub struct Purse {
    accounts: Vec<Arc<Account>>,
    rates: Rates,
    fuel: u64,
    key: Option<String>,
    held: Mutex<Held>,
}

struct Held {
    amount: i128,
    /// What the caller allows, all in all.
    most: Option<i128>,
    /// Who refused.
    refused: Option<usize>,
    ended: bool,
}

/// Money for `quantity` at `rate` a `per`, rounded up.
fn cost(quantity: u64, rate: u64, per: u64) -> i128 {
    let product = i128::from(quantity) * i128::from(rate);
    (product + i128::from(per) - 1) / i128::from(per)
}

/// How much an amount buys.
fn quantity(amount: i128, rate: u64, per: u64) -> u64 {
    if rate == 0 {
        return u64::MAX;
    }
    u64::try_from(amount.max(0).saturating_mul(i128::from(per)) / i128::from(rate)).unwrap_or(u64::MAX)
}

const MILLION: u64 = 1_000_000;
const GIGA: u64 = 1_000_000_000;

impl Purse {
    /// The least that the invocation holds to begin, and all that it may want for its fuel.
    pub(super) fn amounts(opening: &Opening<'_>) -> (i128, i128, i128) {
        let Rates { fuel_million, request, egress_gb, .. } = opening.rates;
        let base = i128::from(request) + cost(opening.egress, egress_gb, GIGA);
        let least = base + cost(opening.fuel.min(LEAST_FUEL), fuel_million, MILLION);
        let want = base + cost(opening.fuel, fuel_million, MILLION);
        (base, least, want)
    }

    /// Holds what the invocation needs of all that pay, or of none.
    pub(super) fn open(accounts: Vec<Arc<Account>>, opening: &Opening<'_>) -> Result<Self, Error> {
        let (base, least, mut want) = Self::amounts(opening);
        if let Some(Pico(most)) = opening.most {
            if most < least {
                let message = format!(
                    "x-wasmeter-max-cost {} does not pay for the call: it needs {} to begin",
                    Pico(most),
                    Pico(least)
                );
                return Err(Error::new(ErrorKind::PaymentRequired, message));
            }
            // Something has to be left for the device.
            let for_fuel = if opening.models { least.max((base + most) / 2) } else { most };
            want = want.min(for_fuel);
        }
        let amount = hold(&accounts, least, want).map_err(|by| accounts[by].refusal())?;
        let fuel = opening.fuel.min(quantity(amount - base, opening.rates.fuel_million, MILLION));
        let held = Held { amount, most: opening.most.map(|most| most.0), refused: None, ended: false };
        let key = accounts.iter().find_map(|a| a.key.clone());
        Ok(Self { accounts, rates: opening.rates, fuel, key, held: Mutex::new(held) })
    }

    /// Fuel that is paid for; never more than the function's limit.
    #[must_use]
    pub fn fuel(&self) -> u64 {
        self.fuel
    }

    /// Holds money for `want_ns` more of device time, or less, but for `least_ns`; `None` if there is none.
    #[must_use]
    pub fn device(&self, class: DeviceClass, least_ns: u64, want_ns: u64) -> Option<u64> {
        let rate = match class {
            DeviceClass::Cpu => self.rates.cpu_second,
            DeviceClass::Gpu => self.rates.gpu_second,
        };
        if rate == 0 {
            return Some(want_ns);
        }
        let (least, mut want) = (cost(least_ns, rate, GIGA), cost(want_ns, rate, GIGA));
        let mut held = self.held.lock();
        if let Some(most) = held.most {
            want = want.min(most - held.amount);
        }
        if want < least {
            return None;
        }
        match hold(&self.accounts, least, want) {
            Ok(amount) => {
                held.amount += amount;
                Some(quantity(amount, rate, GIGA).min(want_ns))
            }
            Err(by) => {
                held.refused = Some(by);
                None
            }
        }
    }

    /// Why there was no more.
    #[must_use]
    pub fn why(&self) -> String {
        let held = self.held.lock();
        let short = self.accounts.get(held.refused.unwrap_or(0));
        match (held.most, short) {
            (Some(most), _) if held.refused.is_none() => format!(
                "the call was stopped at its x-wasmeter-max-cost of {}; what it used is charged",
                Pico(most)
            ),
            (_, Some(account)) => format!("{}; what the call used is charged", account.why()),
            _ => "the budget is used up".to_owned(),
        }
    }

    /// The usage is recorded: so much is spent, the rest goes back.
    pub fn settle(&self, cost: Pico) {
        self.end(cost.0);
    }

    /// What the record says of it: nothing if only the caller's own bound was at work.
    #[must_use]
    pub fn draw(&self) -> Option<Draw> {
        (!self.accounts.is_empty()).then(|| Draw { key: self.key.clone() })
    }

    fn end(&self, cost: i128) {
        let mut held = self.held.lock();
        if !std::mem::replace(&mut held.ended, true) {
            self.accounts.iter().for_each(|account| account.end(held.amount, cost));
        }
    }
}

impl Drop for Purse {
    fn drop(&mut self) {
        self.end(0);
    }
}

/// Holds the same of all accounts: as much of `want` as each can give.
fn hold(accounts: &[Arc<Account>], least: i128, want: i128) -> Result<i128, usize> {
    let mut amount = want;
    for (index, account) in accounts.iter().enumerate() {
        match account.hold(least, amount) {
            Some(held) => {
                accounts[..index].iter().for_each(|before| before.end(amount - held, 0));
                amount = held;
            }
            None => {
                accounts[..index].iter().for_each(|before| before.end(amount, 0));
                return Err(index);
            }
        }
    }
    Ok(amount)
}
