//! The twin, driven by our own client over real sockets.
#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod support;

use std::time::Duration;

use serde_json::{Value, json};
use support::{Home, event, http, now, receiver, sheet, wait};
use wasmeter_stripe::{About, Delivery, Event, Move, NewItem, SignatureError, verify};
use wasmeter_usage::{Meter, Rates};

/// The twin in a process of its own; see `Home::spawn`.
#[test]
fn child() {
    support::be_the_child();
}

fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

#[test]
fn set_up_twice_changes_nothing_and_our_requests_are_on_record() {
    let home = Home::new();
    home.start(None);
    let client = home.client(1);
    run(async {
        let first = client.set_up(&sheet()).await.unwrap();
        assert!(first.created.len() > 2 && first.prices.len() == first.meters.len(), "{first:?}");
        let second = client.set_up(&sheet()).await.unwrap();
        assert!(second.created.is_empty(), "{:?}", second.created);
        assert_eq!((first.meters, first.prices.clone()), (second.meters, second.prices));

        let customer = client.create_customer("t1", "ledger-1", "make t1").await.unwrap();
        assert!(client.customer_exists(&customer).await.unwrap());
        assert!(!client.customer_exists("cus_none").await.unwrap());
        let url = client
            .checkout("t1", &customer, &first.prices, "http://127.0.0.1:9/done", "http://127.0.0.1:9/back")
            .await
            .unwrap();
        let path = url.split_once("/c/pay").map(|(_, rest)| format!("/c/pay{rest}")).unwrap();
        assert_eq!(http(home.address(), "GET", &path, "").0, 200);
        assert_eq!(http(home.address(), "POST", &path, "card=pm_card_visa").0, 303);
        assert_eq!(http(home.address(), "POST", &path, "card=pm_card_visa").0, 400);
        let url = client.portal(&customer, "http://127.0.0.1:9/").await.unwrap();
        let path = url.split_once("/p/session").map(|(_, rest)| format!("/p/session{rest}")).unwrap();
        assert!(http(home.address(), "GET", &path, "").1.contains("Subscription (active)"));

        let found = &home.rows("subscription")[0];
        let subscription = client.subscription(found["id"].as_str().unwrap()).await.unwrap().unwrap();
        assert_eq!(
            (subscription.status.as_str(), subscription.customer.clone()),
            ("active", customer.clone())
        );
        assert!(client.subscription("sub_none").await.unwrap().is_none());
        let (start, end) = subscription.period().unwrap();
        assert!((27..32).contains(&((end - start) / 86_400)));
        assert!(matches!(client.send_event(&event(&customer, "r1", 3, now())).await, Delivery::Delivered));
        home.control("POST", "clock", &json!({"advance": end - now() + 1}));
        let draft = home.rows("invoice").into_iter().rfind(|i| i["status"] == "draft").unwrap();
        let draft = draft["id"].as_str().unwrap();
        let total = client.invoice(draft).await.unwrap().total;
        let item = |amount, key: &str| NewItem {
            invoice: draft,
            customer: &customer,
            kind: "adjustments",
            amount,
            currency: "USD",
            description: "Refunds and corrections (2)".into(),
            key: key.to_owned(),
        };
        let made = client.add_item(&item(-5, "once")).await.unwrap();
        assert_eq!(client.add_item(&item(-5, "once")).await.unwrap().id, made.id);
        let found = client.items(draft).await.unwrap();
        assert_eq!(
            found.iter().map(|i| (i.kind(), i.amount)).collect::<Vec<_>>(),
            [(Some("adjustments"), -5)]
        );
        assert_eq!(client.invoice(draft).await.unwrap().total, total - 5);
        assert_eq!(client.change_item(&made.id, 0).await.unwrap().amount, 0);
        assert_eq!(client.invoice(draft).await.unwrap().subtotal, total);
        let draft = home.rows("invoice").into_iter().find(|i| i["status"] == "draft").unwrap();
        let id = draft["id"].as_str().unwrap();
        assert!(!client.hold(id).await.unwrap().auto_advance);
        // Another price book: its plan changes nothing, and done twice it is done once.
        let dearer = {
            let old = sheet();
            wasmeter_rating::sheet(
                "USD",
                Rates { request: old.rates.request * 2, gpu_second: 0, ..old.rates },
            )
        };
        let prices = home.rows("price").len();
        let plan = client.survey(&dearer).await.unwrap();
        assert!(
            !plan.created.is_empty() && plan.former.iter().any(|(m, _)| *m == Meter::GpuTime),
            "{plan:?}"
        );
        assert_eq!(home.rows("price").len(), prices);
        let catalogue = client.set_up(&dearer).await.unwrap();
        assert_eq!((catalogue.created.len(), catalogue.meters), (plan.created.len(), plan.meters));
        let catalogue = client.set_up(&dearer).await.unwrap();
        let all = client.subscriptions().await.unwrap();
        let [one] = &all[..] else { panic!("{all:?}") };
        let changes = catalogue.moves(one).changes;
        assert_eq!(changes.len(), first.prices.len(), "{changes:?}");
        home.faults(&json!({"only": "/v1/subscriptions", "next": ["error_500", "none", "error_500_after"]}));
        assert!(client.move_to(&catalogue, one).await.unwrap());
        let moved = client.subscription(&one.id).await.unwrap().unwrap();
        assert_eq!(catalogue.moves(&moved), Move::default());
        assert!(!client.move_to(&catalogue, &moved).await.unwrap());
        // The draft is of the month before, at the prices of then.
        let used = client.prices_of(id).await.unwrap();
        assert!(used.iter().all(|price| first.prices.contains(price)) && !used.is_empty(), "{used:?}");
        assert!(client.is_of_a_book(&catalogue.prices[0]).await.unwrap());
        // Held, it stays a draft whatever time passes.
        home.control("POST", "clock", &json!({"advance": 5 * 86_400}));
        assert_eq!(client.invoice(id).await.unwrap().status.as_deref(), Some("draft"));
        assert_eq!(client.finalise(id).await.unwrap().status.as_deref(), Some("paid"));
    });
    // deploy/billing/check_stripe.py holds these against the parameter types of Stripe's own library.
    let requests = home.control("GET", "requests", &json!({}));
    let path = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("twin-client-requests.json");
    std::fs::write(path, requests.to_string()).unwrap();
}

/// What Stripe refuses of a change of items, and what becomes of usage until then.
#[test]
fn items_of_subscriptions_change_as_stripe_documents() {
    let home = Home::new();
    home.start(None);
    let client = home.client(1);
    run(async {
        let catalogue = client.set_up(&sheet()).await.unwrap();
        let customer = client.create_customer("t1", "ledger-1", "make t1").await.unwrap();
        let call = |method: &str, path: &str, form: &str| {
            let (status, text) = home.stripe(method, path, form);
            (status, serde_json::from_str::<Value>(&text).unwrap())
        };
        let requests = catalogue.meters.iter().position(|(m, _)| *m == Meter::Requests).unwrap();
        let (meter, price) = (&catalogue.meters[requests].1, &catalogue.prices[requests]);
        let form = format!("customer={customer}&items[0][price]={price}");
        let (status, subscription) = call("POST", "/v1/subscriptions", &form);
        assert_eq!(status, 200, "{subscription}");
        let path = format!("/v1/subscriptions/{}", subscription["id"].as_str().unwrap());
        let item = subscription["items"]["data"][0]["id"].as_str().unwrap();
        let made = |more: &str| {
            let form = format!(
                "product=wasmeter_usage&unit_amount=2&recurring[usage_type]=metered&recurring[meter]={meter}&{more}"
            );
            let (status, price) = call("POST", "/v1/prices", &form);
            assert_eq!(status, 200, "{price}");
            price["id"].as_str().unwrap().to_owned()
        };
        let two = made("currency=usd&recurring[interval]=month");
        let euro = made("currency=eur&recurring[interval]=month");
        let year = made("currency=usd&recurring[interval]=year");
        let named = format!("items[0][id]={item}");
        for (form, word) in [
            (format!("{named}&items[0][price]={euro}"), "same currency"),
            (format!("{named}&items[0][price]={year}"), "interval"),
            (format!("{named}&items[0][price]=price_none"), "No such price"),
            (format!("{named}&items[0][price]={two}&items[0][quantity]=1"), "Quantity should not"),
            (format!("items[0][id]=si_none&items[0][price]={two}"), "No such subscription item"),
            (format!("items[0][price]={price}"), "one item only"),
            (
                format!("{named}&items[0][price]={two}&items[1][id]={item}&items[1][price]={price}"),
                "named once",
            ),
            (format!("{named}&items[0][deleted]=true&items[1][price]={two}"), "clear_usage"),
            (format!("{named}&items[0][deleted]=true&items[0][clear_usage]=true"), "1 to 20 items"),
            (format!("{named}&items[0][price]={two}&proration_behavior=never"), "proration_behavior"),
        ] {
            let (status, said) = call("POST", &path, &form);
            assert!(status == 400 || status == 404, "{form}: {said}");
            assert!(said["error"]["message"].as_str().unwrap().contains(word), "{form}: {said}");
        }
        assert_eq!(call("GET", &path, "").1["items"]["data"][0]["price"]["id"], price.as_str());

        // Until then at the old price on the next invoice, unless prorations are off: then on none.
        let start = now();
        let send = async |id: &str, at| client.send_event(&event(&customer, id, 100_000, at)).await;
        assert!(matches!(send("a", start).await, Delivery::Delivered));
        home.control("POST", "clock", &json!({"advance": 86_400}));
        let (status, said) = call("POST", &path, &format!("{named}&items[0][price]={two}"));
        assert_eq!(status, 200, "{said}");
        let pending = home.rows("invoiceitem");
        // 100,000 at 0.00002 cents.
        assert_eq!(
            (pending.len(), &pending[0]["amount"], &pending[0]["quantity"]),
            (1, &json!(2), &json!(100_000))
        );
        assert!(matches!(send("b", start + 86_400 + 60).await, Delivery::Delivered));
        home.control("POST", "clock", &json!({"advance": 86_400}));
        let (status, said) =
            call("POST", &path, &format!("{named}&items[0][price]={price}&proration_behavior=none"));
        assert_eq!((status, home.rows("invoiceitem").len()), (200, 1), "{said}");
        home.control("POST", "clock", &json!({"advance": 32 * 86_400}));
        let invoice =
            home.rows("invoice").into_iter().find(|i| i["billing_reason"] == "subscription_cycle").unwrap();
        assert_eq!(invoice["subtotal"], 2, "{invoice}");
        let period = invoice["period_end"].as_i64().unwrap() - invoice["period_start"].as_i64().unwrap();
        assert!(period >= 28 * 86_400, "{invoice}");
    });
}

#[test]
fn an_event_counts_once_whatever_happens_to_its_answers() {
    let home = Home::new();
    home.start(None);
    let client = home.client(4);
    run(async {
        let catalogue = client.set_up(&sheet()).await.unwrap();
        let meter = catalogue.meters.iter().find(|(m, _)| *m == Meter::Requests).unwrap().1.clone();
        let customer = client.create_customer("t1", "ledger-1", "make t1").await.unwrap();
        let hour = now() / 3600 * 3600;
        let send = async |id: &str, value| client.send_event(&event(&customer, id, value, hour)).await;
        home.faults(&json!({"only": "/v1/billing/meter_events",
            "next": ["none", "none", "drop_after", "none", "drop_before", "none", "error_500", "none", "error_500_after", "error_429"]}));
        assert!(matches!(send("a", 5).await, Delivery::Delivered));
        // The same once more is delivered, not counted.
        assert!(matches!(send("a", 5).await, Delivery::Delivered));
        // Done and not answered.
        assert!(matches!(send("b", 7).await, Delivery::Unknown(_)));
        assert!(matches!(send("b", 7).await, Delivery::Delivered));
        // Not done and not answered: to us the same.
        assert!(matches!(send("c", 11).await, Delivery::Unknown(_)));
        assert!(matches!(send("c", 11).await, Delivery::Delivered));
        assert!(matches!(send("d", 13).await, Delivery::Unknown(_)));
        assert!(matches!(send("d", 13).await, Delivery::Delivered));
        assert!(matches!(send("e", 17).await, Delivery::Unknown(_)));
        assert!(matches!(send("f", 19).await, Delivery::Later { .. }));
        assert_eq!(
            client.counted(&meter, &customer, hour, hour + 3600).await.unwrap(),
            [(hour, 5 + 7 + 11 + 13 + 17)]
        );

        // A day later the identifier is forgotten, and only then does it count twice.
        home.control("POST", "clock", &json!({"advance": 24 * 3600 - 60}));
        assert!(matches!(send("a", 5).await, Delivery::Delivered));
        home.control("POST", "clock", &json!({"advance": 60}));
        assert!(matches!(send("a", 5).await, Delivery::Delivered));
        assert_eq!(client.counted(&meter, &customer, hour, hour + 3600).await.unwrap(), [(hour, 53 + 5)]);

        let now = now() + 24 * 3600;
        let refused = [
            event(&customer, "old", 1, now - 35 * 86_400 - 60),
            event(&customer, "ahead", 1, now + 5 * 60 + 60),
            event(&customer, &"x".repeat(101), 1, now),
        ];
        for event in refused {
            assert!(matches!(client.send_event(&event).await, Delivery::Refused(_)), "{event:?}");
        }
        // What comes late to the sums is not there yet.
        home.faults(&json!({"summary_lag_s": 600}));
        assert!(matches!(send("late", 1).await, Delivery::Delivered));
        assert_eq!(client.counted(&meter, &customer, hour, hour + 3600).await.unwrap(), [(hour, 53)]);
        home.control("POST", "clock", &json!({"advance": 601}));
        assert_eq!(client.counted(&meter, &customer, hour, hour + 3600).await.unwrap(), [(hour, 53 + 5 + 1)]);
    });
}

#[test]
fn one_call_in_flight_for_a_customer_and_a_meter() {
    let home = Home::new();
    home.start(None);
    let client = home.client(1);
    run(async {
        client.set_up(&sheet()).await.unwrap();
        let customer = client.create_customer("t1", "ledger-1", "make t1").await.unwrap();
        let other = client.create_customer("t2", "ledger-1", "make t2").await.unwrap();
        home.faults(&json!({"delay": 1.0, "delay_ms": 300, "only": "/v1/billing/meter_events"}));
        let (a, b, c) =
            (event(&customer, "a", 1, now()), event(&customer, "b", 1, now()), event(&other, "c", 1, now()));
        let (a, b, c) = tokio::join!(client.send_event(&a), client.send_event(&b), client.send_event(&c));
        let taken = [&a, &b].iter().filter(|d| matches!(d, Delivery::Delivered)).count();
        let later = [&a, &b].iter().filter(|d| matches!(d, Delivery::Later { .. })).count();
        assert_eq!((taken, later), (1, 1), "{a:?} {b:?}");
        assert!(matches!(c, Delivery::Delivered));
        // Down, nothing is answered; up again, all is as it was.
        home.faults(&json!({"delay": 0.0, "down_until": now() + 3600}));
        assert!(matches!(client.send_event(&event(&customer, "d", 1, now())).await, Delivery::Unknown(_)));
        home.control("POST", "clock", &json!({"advance": 3601}));
        assert!(matches!(client.send_event(&event(&customer, "d", 1, now())).await, Delivery::Delivered));
    });
    assert_eq!(home.counted().len(), 3);
}

#[test]
fn webhooks_are_signed_and_come_through_faults_at_least_once() {
    let home = Home::new();
    let (url, taken) = receiver();
    home.start(Some(url));
    home.faults(&json!({"webhook_duplicate": 0.3, "webhook_reorder": 0.3, "webhook_lost": 0.3}));
    let client = home.client(1);
    let customer = run(async {
        client.set_up(&sheet()).await.unwrap();
        let customer = client.create_customer("t1", "ledger-1", "make t1").await.unwrap();
        let mut none = event("cus_none", "lost", 1, now());
        assert!(matches!(client.send_event(&none).await, Delivery::Delivered));
        none.meter = Meter::TokensIn; // priced by nobody: there is no such meter
        none.identifier = "none".into();
        assert!(matches!(client.send_event(&none).await, Delivery::Delivered));
        customer
    });
    assert_eq!(home.counted(), []);
    let secret = home.secret("webhook-secret");
    let (mut thin, mut created, mut count) = (Vec::new(), 0, 0);
    wait("all webhooks", || {
        while let Ok((signature, body)) = taken.recv_timeout(Duration::from_millis(50)) {
            assert_eq!(verify(&signature, &body, &secret, now()), Ok(()));
            assert_eq!(verify(&signature, b"{}", &secret, now()), Err(SignatureError::Wrong));
            let event = Event::parse(&body).unwrap();
            assert!(!event.live);
            count += 1;
            created += usize::from(
                event.kind == "customer.created" && String::from_utf8_lossy(&body).contains(&customer),
            );
            if let About::MeterErrors { thin: true, .. } = event.about {
                thin.push((event.kind, event.id));
            }
        }
        home.control("GET", "state", &json!({}))["waiting_webhooks"] == 0
    });
    assert!(created >= 1 && count > 5, "{created} {count}");
    thin.sort();
    thin.dedup();
    let kinds: Vec<&str> = thin.iter().map(|(kind, _)| kind.as_str()).collect();
    assert_eq!(kinds, ["v1.billing.meter.error_report_triggered", "v1.billing.meter.no_meter_found"]);
    let data = run(client.thin_event(&thin[0].1)).unwrap().to_string();
    assert!(data.contains("meter_event_customer_not_found"), "{data}");

    // Stale and far-future signatures of the right secret are refused by ours.
    let body = r#"{"id":"evt_1","object":"event","type":"x"}"#;
    let sign = |time: i64| {
        home.control("POST", "sign", &json!({"body": body, "time": time}))["signature"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    assert_eq!(verify(&sign(now()), body.as_bytes(), &secret, now()), Ok(()));
    assert_eq!(verify(&sign(now() - 400), body.as_bytes(), &secret, now()), Err(SignatureError::Old));
    assert_eq!(verify(&sign(now() + 400), body.as_bytes(), &secret, now()), Err(SignatureError::Early));
}

#[test]
fn what_was_acknowledged_survives_the_death_of_the_twin() {
    let home = Home::new();
    let mut twin = home.spawn();
    let (customer, meter) = run(async {
        let client = home.client(4);
        let catalogue = client.set_up(&sheet()).await.unwrap();
        let meter = catalogue.meters.iter().find(|(m, _)| *m == Meter::Requests).unwrap().1.clone();
        (client.create_customer("t1", "ledger-1", "make t1").await.unwrap(), meter)
    });
    let hour = now() / 3600 * 3600;
    let (mut acknowledged, mut sum) = (0u64, 0u64);
    for round in 0..12u64 {
        run(async {
            let client = home.client(1);
            let sending = async {
                let mut n = 0;
                loop {
                    let bucket = event(&customer, &format!("r{round}-{n}"), n + 1, hour);
                    match client.send_event(&bucket).await {
                        Delivery::Delivered => {
                            acknowledged += 1;
                            n += 1;
                        }
                        // It died: what it did with the last one shows below.
                        Delivery::Unknown(_) | Delivery::Later { .. } => return n,
                        Delivery::Refused(why) => panic!("{why}"),
                    }
                }
            };
            let killing = async {
                // Another instant in each round.
                tokio::time::sleep(Duration::from_millis(40 + round * 7)).await;
                twin.kill();
            };
            let (sent, ()) = tokio::join!(sending, killing);
            twin = home.spawn();
            // The one without an answer, sent again, is there once.
            let last = event(&customer, &format!("r{round}-{sent}"), sent + 1, hour);
            assert!(matches!(home.client(1).send_event(&last).await, Delivery::Delivered));
            acknowledged += 1;
            sum += (0..=sent).map(|n| n + 1).sum::<u64>();
        });
    }
    let counted = home.counted();
    assert_eq!(counted.len() as u64, acknowledged);
    assert_eq!(counted.iter().map(|(_, value)| value).sum::<u64>(), sum);
    let summed = run(home.client(1).counted(&meter, &customer, hour, hour + 3600)).unwrap();
    assert_eq!(summed, [(hour, sum)]);
    assert!(acknowledged > 12, "{acknowledged}");
    assert!(run(home.client(1).set_up(&sheet())).unwrap().created.is_empty());
    drop(twin);
}
