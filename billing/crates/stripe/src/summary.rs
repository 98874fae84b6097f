use stripe_billing::billing_meter_event_summary::{
    ListIdBillingMeterEventSummary, ListIdBillingMeterEventSummaryValueGroupingWindow,
};
use stripe_client_core::StripeRequest;

use crate::object::{Page, Summary};
use crate::setup::PAGE;
use crate::{Client, StripeError};

impl Client {
    /// What Stripe counted for a customer, by UTC hour (seconds since the Unix epoch) within `from .. to`, which lie
    /// on full hours. Hours without usage are left out.
    ///
    /// # Errors
    /// [`StripeError`].
    pub async fn counted(
        &self,
        meter: &str,
        customer: &str,
        from: i64,
        to: i64,
    ) -> Result<Vec<(i64, u64)>, StripeError> {
        let mut all: Vec<(i64, u64)> = Vec::new();
        let mut last: Option<String> = None;
        loop {
            let mut list = ListIdBillingMeterEventSummary::new(meter, customer, to, from)
                .limit(PAGE)
                .value_grouping_window(ListIdBillingMeterEventSummaryValueGroupingWindow::Hour);
            if let Some(last) = &last {
                list = list.starting_after(last.clone());
            }
            let request = list.build();
            let what = crate::client::describe(&request);
            let page: Page<Summary> = self.call(request).await?;
            last = page.data.last().map(|summary| summary.id.clone());
            for Summary { aggregated_value, start_time, .. } in page.data {
                let value = whole(&aggregated_value).ok_or_else(|| StripeError::Shape {
                    what: what.clone(),
                    reason: format!("{aggregated_value} is no whole number"),
                })?;
                if value > 0 {
                    all.push((start_time, value));
                }
            }
            if !page.has_more || last.is_none() {
                return Ok(all);
            }
        }
    }
}

/// Stripe writes sums as floats; those that we send stay below 2^53 in an hour or are refused here.
fn whole(number: &serde_json::Number) -> Option<u64> {
    number.as_u64().or_else(|| {
        let float = number.as_f64()?;
        let exact = (0.0..=9_007_199_254_740_992.0).contains(&float) && float.fract() == 0.0;
        exact.then_some(float as u64)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_whole_numbers_only() {
        let read = |text: &str| whole(&serde_json::from_str(text).unwrap());
        assert_eq!(
            (read("7"), read("7.0"), read("999999999999999.0")),
            (Some(7), Some(7), Some(999_999_999_999_999))
        );
        assert_eq!((read("7.5"), read("-1"), read("1e17")), (None, None, None));
    }
}
