use serde_json::{Map, Value, json};

/// What goes wrong, and how often. Set under `/_twin/faults`, kept over restarts.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Faults {
    settings: Map<String, Value>,
}

/// What happens to one request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Fate {
    #[default]
    None,
    /// The connection ends before anything is done.
    DropBefore,
    /// All is done, and the connection ends instead of an answer.
    DropAfter,
    /// Nothing is done; the 500 is kept under the idempotency key.
    Error500,
    /// All is done, and the answer is a 500 that is kept under the idempotency key.
    Error500After,
    /// Nothing is done and nothing kept.
    Error429,
}

impl Fate {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Fate::None => "none",
            Fate::DropBefore => "drop_before",
            Fate::DropAfter => "drop_after",
            Fate::Error500 => "error_500",
            Fate::Error500After => "error_500_after",
            Fate::Error429 => "error_429",
        }
    }

    fn parse(name: &str) -> Option<Self> {
        let all = [
            Fate::None,
            Fate::DropBefore,
            Fate::DropAfter,
            Fate::Error500,
            Fate::Error500After,
            Fate::Error429,
        ];
        all.into_iter().find(|fate| fate.as_str() == name)
    }
}

/// Names, what they start as, and what they mean; the last is for `/`.
pub(crate) const SETTINGS: [(&str, Start, &str); 20] = [
    ("only", Start::Text, "requests whose path begins with this; all if empty"),
    ("drop_before", Start::Zero, "share of requests that are cut off before anything is done"),
    ("drop_after", Start::Zero, "share of requests that are done and not answered"),
    ("error_500", Start::Zero, "share answered by a 500 without being done; kept under the idempotency key"),
    (
        "error_500_after",
        Start::Zero,
        "share that is done and answered by a 500; kept under the idempotency key",
    ),
    ("error_429", Start::Zero, "share answered by a 429"),
    ("delay", Start::Zero, "share of requests that wait"),
    ("delay_ms", Start::Number(200), "how long they wait"),
    ("next", Start::List, "fates of the next requests, in order, such as [\"drop_after\", \"none\"]"),
    (
        "down_until",
        Start::Number(0),
        "every connection is closed unanswered until this time by the twin's clock",
    ),
    ("rate_per_second", Start::Number(100), "requests a second, but for meter events"),
    ("meter_rate_per_second", Start::Number(1000), "meter events a second"),
    ("summary_lag_s", Start::Number(0), "how long a meter event stays out of summaries and invoices"),
    ("draft_s", Start::Number(3600), "how long an invoice stays a draft"),
    ("portal_default", Start::Yes, "whether portal sessions may go without a configuration"),
    ("unpaid_after", Start::Number(4), "failed payments after which a subscription is unpaid"),
    ("webhook_duplicate", Start::Zero, "share of webhooks that are sent twice"),
    ("webhook_lost", Start::Zero, "share of webhooks whose answer is ignored, so that they come again"),
    ("webhook_reorder", Start::Zero, "share of webhooks that wait a while and are overtaken"),
    ("signature_skew_s", Start::Number(0), "added to the time that webhooks are signed with"),
];

#[derive(Clone, Copy, Debug)]
pub(crate) enum Start {
    Text,
    Zero,
    Number(i64),
    List,
    Yes,
}

impl Start {
    fn value(self) -> Value {
        match self {
            Start::Text => json!(""),
            Start::Zero => json!(0.0),
            Start::Number(number) => json!(number),
            Start::List => json!([]),
            Start::Yes => json!(true),
        }
    }

    fn fits(self, value: &Value) -> bool {
        match self {
            Start::Text => value.as_str().is_some_and(|text| text.len() <= 200),
            Start::Zero => value.as_f64().is_some_and(|share| (0.0..=1.0).contains(&share)),
            Start::Number(_) => value.as_i64().is_some_and(|number| number >= -1_000_000_000),
            Start::List => value.as_array().is_some_and(|list| {
                list.len() <= 10_000
                    && list.iter().all(|fate| fate.as_str().is_some_and(|name| Fate::parse(name).is_some()))
            }),
            Start::Yes => value.is_boolean(),
        }
    }
}

impl Default for Faults {
    fn default() -> Self {
        Self {
            settings: SETTINGS.iter().map(|(name, start, _)| ((*name).to_owned(), start.value())).collect(),
        }
    }
}

impl Faults {
    pub(crate) fn from_json(value: &Value) -> Self {
        let mut faults = Self::default();
        for (name, value) in value.as_object().into_iter().flatten() {
            let known = SETTINGS.iter().find(|(known, ..)| known == name);
            if known.is_some_and(|(_, start, _)| start.fits(value)) {
                faults.settings.insert(name.clone(), value.clone());
            }
        }
        faults
    }

    pub(crate) fn to_json(&self) -> Value {
        Value::Object(self.settings.clone())
    }

    /// Changes the settings that are named; all or none.
    pub(crate) fn set(&mut self, changes: &Map<String, Value>) -> Result<(), String> {
        for (name, value) in changes {
            let (_, start, _) = SETTINGS
                .iter()
                .find(|(known, ..)| known == name)
                .ok_or_else(|| format!("there is no fault {name:?}; GET shows those that there are"))?;
            if !start.fits(value) {
                return Err(format!("{name} cannot be {value}"));
            }
        }
        self.settings.extend(changes.clone());
        Ok(())
    }

    pub(crate) fn share(&self, name: &str) -> f64 {
        self.settings.get(name).and_then(Value::as_f64).unwrap_or(0.0)
    }

    pub(crate) fn number(&self, name: &str) -> i64 {
        self.settings.get(name).and_then(Value::as_i64).unwrap_or(0)
    }

    fn concerns(&self, path: &str) -> bool {
        path.starts_with(self.settings.get("only").and_then(Value::as_str).unwrap_or(""))
    }

    /// Draws the fate of a request, and how long it waits.
    pub(crate) fn draw(&mut self, path: &str, dice: &mut Dice) -> (Fate, u64) {
        if !self.concerns(path) {
            return (Fate::None, 0);
        }
        let delay = if dice.hits(self.share("delay")) { self.number("delay_ms") } else { 0 };
        let delay = u64::try_from(delay).unwrap_or(0).min(60_000);
        if let Some(Value::Array(next)) = self.settings.get_mut("next")
            && !next.is_empty()
        {
            let fate = next.remove(0);
            return (fate.as_str().and_then(Fate::parse).unwrap_or_default(), delay);
        }
        let fates = [Fate::DropBefore, Fate::DropAfter, Fate::Error500, Fate::Error500After, Fate::Error429];
        let fate = fates.into_iter().find(|fate| dice.hits(self.share(fate.as_str())));
        (fate.unwrap_or_default(), delay)
    }
}

/// Repeatable chance (SplitMix64).
#[derive(Clone, Debug)]
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn hits(&mut self, share: f64) -> bool {
        // Nothing is drawn where nothing can hit, so that a fault does not change the draws of another.
        share > 0.0 && ((self.next() >> 11) as f64 / (1u64 << 53) as f64) < share
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fates_are_seeded_and_settings_are_checked() {
        let mut faults = Faults::default();
        let set = |faults: &mut Faults, value: Value| faults.set(value.as_object().unwrap());
        set(&mut faults, json!({"drop_after": 0.25, "only": "/v1/billing", "next": ["error_500"]})).unwrap();
        assert!(set(&mut faults, json!({"drop_after": 2})).is_err());
        assert!(set(&mut faults, json!({"dorp": 0})).is_err());
        assert!(set(&mut faults, json!({"next": ["fire"]})).is_err());
        let draw = |seed| {
            let (mut faults, mut dice) = (faults.clone(), Dice::new(seed));
            (0..4000).map(|_| faults.draw("/v1/billing/x", &mut dice).0).collect::<Vec<_>>()
        };
        let fates = draw(7);
        assert_eq!(fates[0], Fate::Error500);
        let dropped = fates.iter().filter(|fate| **fate == Fate::DropAfter).count();
        assert!((900..1100).contains(&dropped), "{dropped}");
        assert_eq!(fates, draw(7));
        assert_ne!(fates, draw(8));
        assert_eq!(faults.draw("/v1/customers", &mut Dice::new(1)).0, Fate::None);
        assert_eq!(Faults::from_json(&faults.to_json()), faults);
    }
}
