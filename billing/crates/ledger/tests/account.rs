//! Subscriptions, by webhooks in any order.
#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod support;

use proptest::prelude::*;
use support::{Fixture, NOW, record};
use wasmeter_ledger::{About, Admission, FreeUse, Observed, Subscribe, SubscriptionSeen, Webhook};
use wasmeter_rating::sheet_with;
use wasmeter_usage::{Band, BudgetTerms, Meter, MeterTerms, Rates, Standing, StandingState, Terms, TierMode};

const SECOND: u64 = 1_000_000_000;
const DAY: u64 = 86_400 * SECOND;
const NOW_S: i64 = (NOW / SECOND) as i64;

const OPTIONAL: Admission = Admission { subscribe: Subscribe::Optional, grace_ns: 7 * DAY };
const REQUIRED: Admission = Admission { subscribe: Subscribe::Required, grace_ns: 7 * DAY };

fn read(f: &mut Fixture, status: &str, now: u64) {
    let seen = SubscriptionSeen {
        subscription: "sub_1".into(),
        customer: "cus_1".into(),
        status: status.into(),
        start_s: NOW_S,
        ended_s: (status == "canceled").then_some(NOW_S + 9),
    };
    f.ledger.keep_subscription(&seen, now).unwrap();
}

fn event(id: usize, created_s: i64, status: &str) -> Webhook {
    Webhook {
        id: format!("evt_{id}"),
        kind: "customer.subscription.updated".into(),
        about: vec![(About::Subscription, "sub_1".into())],
        observed: Some(Observed { subscription: "sub_1".into(), created_s, status: status.into() }),
    }
}

fn unpaid(f: &Fixture, admission: &Admission, now: u64) -> Vec<String> {
    f.reader.unpaid(admission, &mut FreeUse::default(), now).unwrap().into_iter().map(|u| u.tenant).collect()
}

#[test]
fn a_failed_payment_ends_admission_after_the_grace() {
    let mut f = Fixture::new();
    assert_eq!(f.ledger.keep_customer("dev", "cus_1", NOW).unwrap(), "cus_1");
    assert_eq!(f.ledger.keep_customer("dev", "cus_2", NOW).unwrap(), "cus_1", "the first one stays");
    assert_eq!(f.reader.standing("dev", &OPTIONAL, NOW).unwrap().state, StandingState::None);
    read(&mut f, "active", NOW);
    assert!(unpaid(&f, &OPTIONAL, NOW).is_empty());
    read(&mut f, "past_due", NOW + DAY);
    let standing = f.reader.standing("dev", &OPTIONAL, NOW + 2 * DAY).unwrap();
    assert_eq!((standing.state, standing.grace_ends_ns), (StandingState::Grace, Some(NOW + 8 * DAY)));
    assert!(unpaid(&f, &OPTIONAL, NOW + 8 * DAY - 1).is_empty());
    assert_eq!(unpaid(&f, &OPTIONAL, NOW + 8 * DAY), ["dev"]);
    // Credits do not pay an open invoice.
    let prepaid = BudgetTerms { prepaid: true, ..BudgetTerms::default() };
    f.ledger.set_budget("dev", &prepaid, NOW).unwrap().unwrap();
    assert_eq!(unpaid(&f, &OPTIONAL, NOW + 8 * DAY), ["dev"]);
    read(&mut f, "active", NOW + 9 * DAY);
    assert!(unpaid(&f, &OPTIONAL, NOW + 9 * DAY).is_empty());
    // But they go on without a subscription.
    assert!(f.ledger.lose_customer("cus_1", NOW + 10 * DAY).unwrap());
    assert!(!f.ledger.lose_customer("cus_1", NOW + 10 * DAY).unwrap());
    let standing = f.reader.standing("dev", &OPTIONAL, NOW + 10 * DAY).unwrap();
    assert_eq!((standing.state, standing.customer), (StandingState::Canceled, None));
    assert!(unpaid(&f, &OPTIONAL, NOW + 10 * DAY).is_empty());
    f.ledger.set_budget("dev", &BudgetTerms::default(), NOW).unwrap().unwrap();
    assert_eq!(unpaid(&f, &OPTIONAL, NOW + 10 * DAY), ["dev"]);
    assert_eq!(f.ledger.keep_customer("dev", "cus_3", NOW + 11 * DAY).unwrap(), "cus_3");
}

#[test]
fn who_must_subscribe_may_try_first() {
    let mut f = Fixture::new();
    assert!(unpaid(&f, &REQUIRED, NOW).is_empty());
    f.append(1, &[record("dev", "f", 7_000_000), record("other", "f", 1)]).unwrap();
    assert!(unpaid(&f, &OPTIONAL, NOW).is_empty());
    assert_eq!(unpaid(&f, &REQUIRED, NOW), ["dev", "other"]);
    f.ledger.keep_customer("dev", "cus_1", NOW).unwrap();
    read(&mut f, "trialing", NOW);
    assert_eq!(unpaid(&f, &REQUIRED, NOW), ["other"]);
}

/// What the price book includes is free, month by month, and each entry is looked at once.
#[test]
fn who_must_subscribe_may_use_what_is_included() {
    let mut f = Fixture::new();
    let included = Terms {
        meters: [(
            Meter::Requests,
            MeterTerms {
                mode: TierMode::Graduated,
                included: 3,
                bands: vec![Band { up_to: None, rate: 200_000 }],
            },
        )]
        .into_iter()
        .collect(),
        minimum_minor: 500,
    };
    let book = sheet_with("USD", Rates { request: 200_000, ..Rates::default() }, included);
    f.ledger.add_sheet(&book, NOW).unwrap();
    let call = |end_ns: u64| {
        let mut one = record("dev", "f", 5_000_000);
        (one.start_ns, one.end_ns) = (end_ns - 5, end_ns);
        one.price_book.clone_from(&book.hash);
        one
    };
    let mut free = FreeUse::default();
    // Two in one month and three in the next.
    f.append(1, &[call(NOW - 25 * DAY), call(NOW - 25 * DAY), call(NOW), call(NOW), call(NOW)]).unwrap();
    assert!(f.reader.unpaid(&REQUIRED, &mut free, NOW).unwrap().is_empty());
    assert!(unpaid(&f, &REQUIRED, NOW).is_empty());
    f.append(6, &[call(NOW)]).unwrap();
    assert_eq!(f.reader.unpaid(&REQUIRED, &mut free, NOW).unwrap().len(), 1);
    assert_eq!(unpaid(&f, &REQUIRED, NOW), ["dev"]);
    // Another month does not make it good.
    assert_eq!(f.reader.unpaid(&REQUIRED, &mut free, NOW + 20 * DAY).unwrap().len(), 1);
}

#[test]
fn a_webhook_is_taken_once() {
    let mut f = Fixture::new();
    let webhook = event(1, NOW_S, "active");
    assert!(f.ledger.take_webhook(&webhook, NOW).unwrap());
    assert!(!f.ledger.take_webhook(&webhook, NOW).unwrap());
    let first = f.reader.due_refresh(NOW).unwrap().unwrap();
    assert_eq!((first.about, first.object.as_str(), first.wanted), (About::Subscription, "sub_1", 1));
    // Asked for again while it is read: it is read again.
    assert!(f.ledger.take_webhook(&event(2, NOW_S, "active"), NOW).unwrap());
    f.ledger.refreshed(&first).unwrap();
    let second = f.reader.due_refresh(NOW).unwrap().unwrap();
    f.ledger.refresh_failed(&second, SECOND, NOW).unwrap();
    assert_eq!(f.reader.due_refresh(NOW).unwrap(), None);
    assert_eq!(f.reader.due_refresh(NOW + SECOND).unwrap().unwrap().attempts, 1);
    f.ledger.refreshed(&second).unwrap();
    assert_eq!(f.reader.due_refresh(NOW + SECOND).unwrap(), None);
    assert_eq!(f.ledger.forget_webhooks(NOW + 59 * DAY).unwrap(), 0);
    assert_eq!(f.ledger.forget_webhooks(NOW + 61 * DAY).unwrap(), 2);
}

const WORDS: [&str; 6] = ["active", "past_due", "past_due", "unpaid", "canceled", "trialing"];

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]
    /// A subscription goes through states, each told by an event. However the events come, once or often, late or in
    /// another order, the standing is that of the order in which Stripe made them.
    #[test]
    fn any_order_and_repetition_gives_one_standing(
        history in prop::collection::vec((0usize..WORDS.len(), 1i64..100_000), 1..8),
        order in prop::collection::vec(0usize..8, 0..24),
    ) {
        let mut at = NOW_S;
        let events: Vec<_> = history.iter().enumerate().map(|(n, (word, wait))| {
            at += wait;
            event(n, at, WORDS[*word])
        }).collect();
        let last = WORDS[history[history.len() - 1].0];
        let now = (at + 10).cast_unsigned() * SECOND;
        let standing = |order: &[usize]| -> Standing {
            let mut f = Fixture::new();
            f.ledger.keep_customer("dev", "cus_1", NOW).unwrap();
            for n in order {
                f.ledger.take_webhook(&events[n % events.len()], now).unwrap();
                // What is read is what Stripe has now, whatever the event said.
                while let Some(refresh) = f.reader.due_refresh(now).unwrap() {
                    read(&mut f, last, now);
                    f.ledger.refreshed(&refresh).unwrap();
                }
            }
            f.reader.standing("dev", &OPTIONAL, now).unwrap()
        };
        let straight: Vec<usize> = (0..events.len()).collect();
        // Some order, with repetitions, in which each comes at least once.
        let shuffled: Vec<usize> = order.iter().copied().chain(straight.iter().rev().copied()).collect();
        prop_assert_eq!(standing(&straight), standing(&shuffled));
    }
}
