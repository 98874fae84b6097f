/// The tables of the twin: one for each kind of object, and some of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Kind {
    Customer,
    PaymentMethod,
    Product,
    Price,
    Meter,
    MeterEvent,
    Adjustment,
    /// Meter events that could not be used, until they are reported.
    MeterError,
    Checkout,
    PortalConfiguration,
    PortalSession,
    Subscription,
    Invoice,
    InvoiceItem,
    CreditNote,
    CreditGrant,
    Event,
    ThinEvent,
    WebhookEndpoint,
    TestClock,
    /// Webhooks that wait for their receiver.
    Delivery,
    /// Answers that are kept by idempotency key.
    Answer,
    /// Seed, clock, faults.
    Setting,
}

impl Kind {
    pub(crate) const ALL: [Kind; 23] = [
        Kind::Customer,
        Kind::PaymentMethod,
        Kind::Product,
        Kind::Price,
        Kind::Meter,
        Kind::MeterEvent,
        Kind::Adjustment,
        Kind::MeterError,
        Kind::Checkout,
        Kind::PortalConfiguration,
        Kind::PortalSession,
        Kind::Subscription,
        Kind::Invoice,
        Kind::InvoiceItem,
        Kind::CreditNote,
        Kind::CreditGrant,
        Kind::Event,
        Kind::ThinEvent,
        Kind::WebhookEndpoint,
        Kind::TestClock,
        Kind::Delivery,
        Kind::Answer,
        Kind::Setting,
    ];

    /// The name in the journal and in `/_twin/state`: Stripe's, where it is an object of theirs.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Kind::Customer => "customer",
            Kind::PaymentMethod => "payment_method",
            Kind::Product => "product",
            Kind::Price => "price",
            Kind::Meter => "billing.meter",
            Kind::MeterEvent => "billing.meter_event",
            Kind::Adjustment => "billing.meter_event_adjustment",
            Kind::MeterError => "_meter_error",
            Kind::Checkout => "checkout.session",
            Kind::PortalConfiguration => "billing_portal.configuration",
            Kind::PortalSession => "billing_portal.session",
            Kind::Subscription => "subscription",
            Kind::Invoice => "invoice",
            Kind::InvoiceItem => "invoiceitem",
            Kind::CreditNote => "credit_note",
            Kind::CreditGrant => "billing.credit_grant",
            Kind::Event => "event",
            Kind::ThinEvent => "v2.core.event",
            Kind::WebhookEndpoint => "webhook_endpoint",
            Kind::TestClock => "test_helpers.test_clock",
            Kind::Delivery => "_delivery",
            Kind::Answer => "_answer",
            Kind::Setting => "_setting",
        }
    }

    pub(crate) fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == name)
    }

    /// What messages call it.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Kind::PaymentMethod => "PaymentMethod",
            Kind::Meter => "billing meter",
            Kind::PortalConfiguration => "configuration",
            Kind::CreditGrant => "credit grant",
            Kind::Checkout => "checkout.session",
            Kind::ThinEvent => "event",
            Kind::WebhookEndpoint => "webhook endpoint",
            Kind::TestClock => "test clock",
            other => other.as_str(),
        }
    }

    /// The start of its ids.
    pub(crate) fn prefix(self) -> &'static str {
        match self {
            Kind::Customer => "cus_",
            Kind::PaymentMethod => "pm_",
            Kind::Product => "prod_",
            Kind::Price => "price_",
            Kind::Meter => "mtr_test_",
            Kind::MeterEvent => "mevt_",
            Kind::Adjustment => "madj_",
            Kind::MeterError => "merr_",
            Kind::Checkout => "cs_test_",
            Kind::PortalConfiguration => "bpc_",
            Kind::PortalSession => "bps_",
            Kind::Subscription => "sub_",
            Kind::Invoice => "in_",
            Kind::InvoiceItem => "ii_",
            Kind::CreditNote => "cn_",
            Kind::CreditGrant => "credgr_test_",
            Kind::Event => "evt_",
            Kind::ThinEvent => "evt_test_",
            Kind::WebhookEndpoint => "we_",
            Kind::TestClock => "clock_",
            Kind::Delivery => "dlv_",
            Kind::Answer => "req_",
            Kind::Setting => "set_",
        }
    }

    /// Objects at most; more are refused with a 429 that says so.
    pub(crate) fn limit(self) -> usize {
        match self {
            Kind::MeterEvent => 400_000,
            Kind::Answer => 200_000,
            Kind::Event | Kind::Delivery => 100_000,
            Kind::Setting => 100,
            _ => 50_000,
        }
    }
}
