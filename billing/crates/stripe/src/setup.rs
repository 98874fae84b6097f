use std::collections::HashMap;
use std::str::FromStr;

use stripe_billing::billing_meter::{
    CreateBillingMeter, CreateBillingMeterCustomerMapping, CreateBillingMeterCustomerMappingType,
    CreateBillingMeterDefaultAggregation, CreateBillingMeterDefaultAggregationFormula,
    CreateBillingMeterValueSettings, ListBillingMeter,
};
use stripe_client_core::StripeRequest;
use stripe_product::price::{
    CreatePrice, CreatePriceRecurring, CreatePriceRecurringInterval, CreatePriceRecurringUsageType,
    CreatePriceTiers, CreatePriceTiersUpTo, ListPrice,
};
use stripe_product::product::{CreateProduct, RetrieveProduct};
use stripe_shared::{PriceBillingScheme, PriceTiersMode};
use stripe_types::Currency;
use wasmeter_usage::{Meter, PriceSheet, TierMode};

use crate::object::{MeterObject, Page, Price, Product};
use crate::sku::{FineRate, Pricing, Sku, divisor, event_name, skus, unit};
use crate::{Client, StripeError};

/// The one product that all prices belong to. It is named by us, so that a second one cannot come to be.
const PRODUCT: &str = "wasmeter_usage";

/// Objects of a page: the most that Stripe gives.
pub(crate) const PAGE: i64 = 100;

/// The key of a price's metadata that holds the hash of its sheet.
pub(crate) const SHEET_KEY: &str = "price_sheet";

/// The key of a meter event that names the customer.
pub(crate) const CUSTOMER_KEY: &str = "stripe_customer_id";
/// The key of a meter event that holds the quantity.
pub(crate) const VALUE_KEY: &str = "value";

/// What the price book became at Stripe.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Catalogue {
    /// Meters by ours, each with Stripe's id.
    pub meters: Vec<(Meter, String)>,
    /// Prices in the order of the meters.
    pub prices: Vec<String>,
    /// Meters that the sheet does not price, and an earlier one did.
    pub former: Vec<(Meter, String)>,
    /// What this run created, or would, in words; empty if all was there.
    pub created: Vec<String>,
}

impl Catalogue {
    /// All of our meters at Stripe.
    pub fn all_meters(&self) -> impl Iterator<Item = &(Meter, String)> {
        self.meters.iter().chain(&self.former)
    }
}

/// Whether what is not there is made.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Missing {
    Make,
    /// It is named, and nothing is changed: in a catalogue, its name stands where its id would.
    Name,
}

/// Why the price book is not at Stripe.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// A call failed.
    #[error(transparent)]
    Stripe(#[from] StripeError),
    /// A rate does not fit.
    #[error(transparent)]
    Rate(#[from] FineRate),
    /// Something of ours by name is not as we made it.
    #[error("{what} at stripe is not as wasmeter makes it ({why}); {remedy}")]
    Other {
        /// Which object.
        what: String,
        /// What differs.
        why: String,
        /// What to do.
        remedy: &'static str,
    },
}

impl Client {
    /// Makes the product, a meter and a price for each thing that the sheet prices, or finds them as they are; run
    /// twice, it changes nothing. A price is named by the hash of its sheet and never changed.
    ///
    /// # Errors
    /// [`SetupError`].
    pub async fn set_up(&self, sheet: &PriceSheet) -> Result<Catalogue, SetupError> {
        self.catalogue(sheet, Missing::Make).await
    }

    /// What [`Client::set_up`] would make and find. It changes nothing.
    ///
    /// # Errors
    /// [`SetupError`].
    pub async fn survey(&self, sheet: &PriceSheet) -> Result<Catalogue, SetupError> {
        self.catalogue(sheet, Missing::Name).await
    }

    async fn catalogue(&self, sheet: &PriceSheet, missing: Missing) -> Result<Catalogue, SetupError> {
        let skus = skus(sheet)?;
        let mut done = Catalogue::default();
        self.product(missing, &mut done.created).await?;
        let known = self.meters().await?;
        for sku in &skus {
            let name = event_name(sku.meter);
            let id = match known.iter().find(|m| m.event_name == name) {
                Some(meter) => same_meter(meter)?.to_owned(),
                None if missing == Missing::Name => {
                    done.created.push(format!("meter {name}"));
                    name
                }
                None => self.create_meter(sku.meter, &mut done.created).await?,
            };
            done.meters.push((sku.meter, id));
        }
        for (sku, (_, meter)) in skus.iter().zip(&done.meters) {
            done.prices.push(self.price(sku, meter, sheet, missing, &mut done.created).await?);
        }
        for meter in Meter::ALL.into_iter().filter(|meter| skus.iter().all(|sku| sku.meter != *meter)) {
            if let Some(found) = known.iter().find(|m| m.event_name == event_name(meter)) {
                done.former.push((meter, same_meter(found)?.to_owned()));
            }
        }
        Ok(done)
    }

    async fn product(&self, missing: Missing, created: &mut Vec<String>) -> Result<(), SetupError> {
        let found = self.call::<Product>(RetrieveProduct::new(PRODUCT).build()).await;
        let other = |why: &str| SetupError::Other {
            what: format!("product {PRODUCT}"),
            why: why.to_owned(),
            remedy: "make it active in the dashboard",
        };
        match found {
            Ok(Product { active: true, deleted: false, .. }) => Ok(()),
            Ok(_) => Err(other("it is not active")),
            Err(error) if error.is_missing() && missing == Missing::Name => {
                created.push(format!("product {PRODUCT}"));
                Ok(())
            }
            Err(error) if error.is_missing() => {
                let request = CreateProduct::new("wasmeter usage")
                    .id(PRODUCT)
                    .description("WebAssembly functions and models, by what each invocation used")
                    .build();
                let product: Product = self.call(request).await?;
                created.push(format!("product {}", product.id));
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }

    /// All active meters.
    pub(crate) async fn meters(&self) -> Result<Vec<MeterObject>, StripeError> {
        let mut all: Vec<MeterObject> = Vec::new();
        loop {
            let mut list =
                ListBillingMeter::new().limit(PAGE).status(stripe_billing::BillingMeterStatus::Active);
            if let Some(last) = all.last() {
                list = list.starting_after(last.id.clone());
            }
            let page: Page<MeterObject> = self.call(list.build()).await?;
            let more = page.has_more && !page.data.is_empty();
            all.extend(page.data);
            if !more {
                return Ok(all);
            }
        }
    }

    async fn create_meter(&self, meter: Meter, created: &mut Vec<String>) -> Result<String, SetupError> {
        let sum = CreateBillingMeterDefaultAggregation::new(CreateBillingMeterDefaultAggregationFormula::Sum);
        let by_id =
            CreateBillingMeterCustomerMapping::new(CUSTOMER_KEY, CreateBillingMeterCustomerMappingType::ById);
        let request = CreateBillingMeter::new(sum, display_name(meter), event_name(meter))
            .customer_mapping(by_id)
            .value_settings(CreateBillingMeterValueSettings::new(VALUE_KEY))
            .build();
        let made: MeterObject = self.call(request).await?;
        created.push(format!("meter {} ({})", made.event_name, made.id));
        Ok(made.id)
    }

    async fn price(
        &self,
        sku: &Sku,
        meter: &str,
        sheet: &PriceSheet,
        missing: Missing,
        created: &mut Vec<String>,
    ) -> Result<String, SetupError> {
        let lookup_key = lookup_key(sku.meter, sheet);
        let list = ListPrice::new().lookup_keys(vec![lookup_key.clone()]).limit(1).build();
        let page: Page<Price> = self.call(list).await?;
        if let Some(price) = page.data.into_iter().next() {
            let same = price.active
                && price.currency.eq_ignore_ascii_case(&sheet.currency)
                && price.meter() == Some(meter)
                && match &sku.pricing {
                    Pricing::Unit(amount) => {
                        price.unit_amount_decimal.as_deref().is_some_and(|d| same_decimal(d, amount))
                    }
                    // Tiers are not shown here. The key names them by the hash of their sheet, and no price changes.
                    Pricing::Tiers(..) => price.unit_amount_decimal.is_none(),
                };
            if same {
                return Ok(price.id);
            }
            return Err(SetupError::Other {
                what: format!("price {} ({lookup_key})", price.id),
                why: "another amount, currency or meter, or not active".to_owned(),
                remedy: "move its lookup key away in the dashboard",
            });
        }
        if missing == Missing::Name {
            created.push(format!("price {lookup_key}"));
            return Ok(lookup_key);
        }
        // Every text is a currency to this type: one that Stripe does not know, Stripe refuses.
        let Ok(currency) = Currency::from_str(&sheet.currency.to_ascii_lowercase());
        let mut recurring = CreatePriceRecurring::new(CreatePriceRecurringInterval::Month);
        recurring.meter = Some(meter.to_owned());
        recurring.usage_type = Some(CreatePriceRecurringUsageType::Metered);
        let request = match &sku.pricing {
            Pricing::Unit(amount) => CreatePrice::new(currency).unit_amount_decimal(amount.clone()),
            Pricing::Tiers(mode, tiers) => CreatePrice::new(currency)
                .billing_scheme(PriceBillingScheme::Tiered)
                .tiers_mode(match mode {
                    TierMode::Graduated => PriceTiersMode::Graduated,
                    TierMode::Volume => PriceTiersMode::Volume,
                })
                .tiers(tiers.iter().map(tier).collect::<Vec<_>>()),
        };
        let request = request
            .product(PRODUCT)
            .recurring(recurring)
            .lookup_key(lookup_key.clone())
            .nickname(format!("{} by the {}", display_name(sku.meter), unit(sku.meter)))
            .metadata(HashMap::from([
                (SHEET_KEY.to_owned(), sheet.hash.clone()),
                ("units".to_owned(), divisor(sku.meter).to_string()),
            ]))
            .build();
        let made: Price = self.call(request).await?;
        created.push(format!("price {lookup_key} ({})", made.id));
        Ok(made.id)
    }
}

fn tier((up_to, amount): &(Option<u64>, String)) -> CreatePriceTiers {
    // A bound is below 2^63: the price book refuses others.
    let up_to = up_to.and_then(|units| i64::try_from(units).ok());
    let mut tier = CreatePriceTiers::new(up_to.map_or(CreatePriceTiersUpTo::Inf, CreatePriceTiersUpTo::I64));
    tier.unit_amount_decimal = Some(amount.clone());
    tier
}

fn same_meter(meter: &MeterObject) -> Result<&str, SetupError> {
    let same = meter.default_aggregation.formula == "sum"
        && meter.customer_mapping.event_payload_key == CUSTOMER_KEY
        && meter.value_settings.event_payload_key == VALUE_KEY;
    if same {
        return Ok(&meter.id);
    }
    Err(SetupError::Other {
        what: format!("meter {} ({})", meter.event_name, meter.id),
        why: "another formula or other payload keys".to_owned(),
        remedy: "deactivate it in the dashboard",
    })
}

fn lookup_key(meter: Meter, sheet: &PriceSheet) -> String {
    format!("wasmeter_{}_{}", meter.as_str(), sheet.hash.get(..16).unwrap_or(&sheet.hash))
}

fn display_name(meter: Meter) -> &'static str {
    match meter {
        Meter::Fuel => "Fuel",
        Meter::GpuTime => "Accelerator time",
        Meter::CpuTime => "CPU time of models",
        Meter::Requests => "Requests",
        Meter::TokensIn => "Tokens read",
        Meter::TokensOut => "Tokens written",
        Meter::EgressBytes => "Bytes sent",
    }
}

/// Whether two decimal texts are one number.
fn same_decimal(a: &str, b: &str) -> bool {
    let strip = |text: &str| match text.split_once('.') {
        Some((whole, fraction)) => (whole.to_owned(), fraction.trim_end_matches('0').to_owned()),
        None => (text.to_owned(), String::new()),
    };
    strip(a) == strip(b)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_are_compared_as_numbers() {
        assert!(same_decimal("0.10", "0.1") && same_decimal("1.000", "1"));
        assert!(!same_decimal("0.1", "0.01") && !same_decimal("10", "1"));
    }
}
