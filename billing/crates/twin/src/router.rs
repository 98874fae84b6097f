use hyper::Method;
use serde_json::Value;

use crate::context::Context;
use crate::error::Result;
use crate::list::PAGING;
use crate::object::{
    checkout, credit_grant, credit_note, customer, event, invoice, invoice_item, meter, meter_event,
    payment_method, portal, price, product, subscription, summary, test_clock, webhook_endpoint,
};

/// One thing that can be asked for.
pub(crate) struct Route {
    method: Method,
    pattern: &'static str,
    pub(crate) known: &'static [&'static str],
    pub(crate) handler: fn(&mut Context<'_>) -> Result<Value>,
}

const NONE: &[&str] = &[];

macro_rules! routes {
    ($($method:ident $pattern:literal $known:expr, $handler:path;)*) => {
        /// All that the twin answers; `{}` is an id.
        static ROUTES: &[Route] = &[
            $(Route { method: Method::$method, pattern: $pattern, known: $known, handler: $handler },)*
        ];
    };
}

routes! {
    POST "/v1/customers" customer::CREATE, customer::create;
    GET "/v1/customers" customer::LIST, customer::list;
    GET "/v1/customers/{}" NONE, customer::retrieve;
    POST "/v1/customers/{}" customer::UPDATE, customer::update;
    DELETE "/v1/customers/{}" NONE, customer::delete;
    GET "/v1/customers/{}/payment_methods" payment_method::LIST, customer::payment_methods;
    GET "/v1/payment_methods" payment_method::LIST, payment_method::list;
    GET "/v1/payment_methods/{}" NONE, payment_method::retrieve;
    POST "/v1/payment_methods/{}/attach" payment_method::ATTACH, payment_method::attach;
    POST "/v1/payment_methods/{}/detach" NONE, payment_method::detach;
    POST "/v1/products" product::CREATE, product::create;
    GET "/v1/products" product::LIST, product::list;
    GET "/v1/products/{}" NONE, product::retrieve;
    POST "/v1/products/{}" product::UPDATE, product::update;
    DELETE "/v1/products/{}" NONE, product::delete;
    POST "/v1/prices" price::CREATE, price::create;
    GET "/v1/prices" price::LIST, price::list;
    GET "/v1/prices/{}" NONE, price::retrieve;
    POST "/v1/prices/{}" price::UPDATE, price::update;
    POST "/v1/billing/meters" meter::CREATE, meter::create;
    GET "/v1/billing/meters" meter::LIST, meter::list;
    GET "/v1/billing/meters/{}" NONE, meter::retrieve;
    POST "/v1/billing/meters/{}" meter::UPDATE, meter::update;
    POST "/v1/billing/meters/{}/deactivate" NONE, meter::deactivate;
    POST "/v1/billing/meters/{}/reactivate" NONE, meter::reactivate;
    GET "/v1/billing/meters/{}/event_summaries" summary::LIST, summary::list;
    POST "/v1/billing/meter_events" meter_event::CREATE, meter_event::create;
    POST "/v1/billing/meter_event_adjustments" meter_event::ADJUST, meter_event::adjust;
    POST "/v1/billing/credit_grants" credit_grant::CREATE, credit_grant::create;
    GET "/v1/billing/credit_grants" credit_grant::LIST, credit_grant::list;
    GET "/v1/billing/credit_grants/{}" NONE, credit_grant::retrieve;
    POST "/v1/billing/credit_grants/{}" credit_grant::UPDATE, credit_grant::update;
    POST "/v1/billing/credit_grants/{}/expire" NONE, credit_grant::expire;
    POST "/v1/billing/credit_grants/{}/void" NONE, credit_grant::void;
    GET "/v1/billing/credit_balance_summary" credit_grant::BALANCE, credit_grant::balance;
    POST "/v1/checkout/sessions" checkout::CREATE, checkout::create;
    GET "/v1/checkout/sessions" checkout::LIST, checkout::list;
    GET "/v1/checkout/sessions/{}" NONE, checkout::retrieve;
    GET "/v1/checkout/sessions/{}/line_items" &PAGING, checkout::line_items;
    POST "/v1/checkout/sessions/{}/expire" NONE, checkout::expire;
    POST "/v1/billing_portal/configurations" portal::CONFIGURE, portal::configure;
    GET "/v1/billing_portal/configurations" portal::LIST, portal::list;
    GET "/v1/billing_portal/configurations/{}" NONE, portal::retrieve;
    POST "/v1/billing_portal/configurations/{}" portal::CONFIGURE, portal::reconfigure;
    POST "/v1/billing_portal/sessions" portal::CREATE, portal::create;
    POST "/v1/subscriptions" subscription::CREATE, subscription::create;
    GET "/v1/subscriptions" subscription::LIST, subscription::list;
    GET "/v1/subscriptions/{}" NONE, subscription::retrieve;
    POST "/v1/subscriptions/{}" subscription::UPDATE, subscription::update;
    DELETE "/v1/subscriptions/{}" subscription::CANCEL, subscription::cancel;
    POST "/v1/invoices" invoice::CREATE, invoice::create;
    GET "/v1/invoices" invoice::LIST, invoice::list;
    POST "/v1/invoices/create_preview" invoice::PREVIEW, invoice::preview;
    GET "/v1/invoices/{}" NONE, invoice::retrieve;
    POST "/v1/invoices/{}" invoice::UPDATE, invoice::update;
    DELETE "/v1/invoices/{}" NONE, invoice::delete;
    GET "/v1/invoices/{}/lines" invoice::LINES, invoice::lines;
    POST "/v1/invoices/{}/finalize" invoice::FINALIZE, invoice::finalize;
    POST "/v1/invoices/{}/pay" invoice::PAY, invoice::pay;
    POST "/v1/invoices/{}/void" NONE, invoice::void;
    POST "/v1/invoices/{}/mark_uncollectible" NONE, invoice::uncollectible;
    POST "/v1/invoiceitems" invoice_item::CREATE, invoice_item::create;
    GET "/v1/invoiceitems" invoice_item::LIST, invoice_item::list;
    GET "/v1/invoiceitems/{}" NONE, invoice_item::retrieve;
    POST "/v1/invoiceitems/{}" invoice_item::UPDATE, invoice_item::update;
    DELETE "/v1/invoiceitems/{}" NONE, invoice_item::delete;
    POST "/v1/credit_notes" credit_note::CREATE, credit_note::create;
    GET "/v1/credit_notes" credit_note::LIST, credit_note::list;
    GET "/v1/credit_notes/{}" NONE, credit_note::retrieve;
    GET "/v1/events" event::LIST, event::list;
    GET "/v1/events/{}" NONE, event::retrieve;
    GET "/v2/core/events/{}" NONE, event::retrieve_thin;
    POST "/v1/webhook_endpoints" webhook_endpoint::CREATE, webhook_endpoint::create;
    GET "/v1/webhook_endpoints" &PAGING, webhook_endpoint::list;
    GET "/v1/webhook_endpoints/{}" NONE, webhook_endpoint::retrieve;
    POST "/v1/webhook_endpoints/{}" webhook_endpoint::UPDATE, webhook_endpoint::update;
    DELETE "/v1/webhook_endpoints/{}" NONE, webhook_endpoint::delete;
    POST "/v1/test_helpers/test_clocks" test_clock::CREATE, test_clock::create;
    GET "/v1/test_helpers/test_clocks" &PAGING, test_clock::list;
    GET "/v1/test_helpers/test_clocks/{}" NONE, test_clock::retrieve;
    POST "/v1/test_helpers/test_clocks/{}/advance" test_clock::ADVANCE, test_clock::advance;
    DELETE "/v1/test_helpers/test_clocks/{}" NONE, test_clock::delete;
}

/// Finds who answers a request, and what stands in its path for `{}`.
pub(crate) fn find<'p>(method: &Method, path: &'p str) -> Option<(&'static Route, Vec<&'p str>)> {
    ROUTES.iter().filter(|route| route.method == *method).find_map(|route| {
        let (mut wanted, mut given) = (route.pattern.split('/'), path.split('/'));
        let mut ids = Vec::new();
        loop {
            match (wanted.next(), given.next()) {
                (None, None) => return Some((route, ids)),
                (Some("{}"), Some(id)) if !id.is_empty() => ids.push(id),
                (Some(a), Some(b)) if a == b => {}
                _ => return None,
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fixed_words_win_over_ids() {
        let of =
            |method: Method, path: &'static str| find(&method, path).map(|(route, ids)| (route.pattern, ids));
        assert_eq!(
            of(Method::POST, "/v1/invoices/create_preview"),
            Some(("/v1/invoices/create_preview", vec![]))
        );
        assert_eq!(of(Method::GET, "/v1/customers/cus_1"), Some(("/v1/customers/{}", vec!["cus_1"])));
        assert_eq!(of(Method::PUT, "/v1/customers/cus_1"), None);
        assert_eq!(of(Method::GET, "/v1/customers/"), None);
        assert_eq!(of(Method::GET, "/v1/charges"), None);
    }
}
