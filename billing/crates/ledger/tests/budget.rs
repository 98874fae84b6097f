//! Budgets, credits and leases: what nodes may draw never passes what a tenant may spend.
#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod support;

use proptest::prelude::*;
use support::{Fixture, NOW, batch, prices, record};
use wasmeter_usage::{BudgetTerms, Draw, LeaseAsk, Pico, UsageRecord};

const CENT: i128 = 10_000_000_000;
const SECOND: u64 = 1_000_000_000;
const DAY: u64 = 86_400 * SECOND;

fn monthly(pico: i128) -> BudgetTerms {
    BudgetTerms { monthly: Some(Pico(pico)), ..BudgetTerms::default() }
}

fn ask(node: &str, epoch: u64, drawn: i128, want: i128) -> LeaseAsk {
    LeaseAsk {
        node: node.into(),
        epoch,
        settled: false,
        tenant: "dev".into(),
        key: None,
        drawn: Pico(drawn),
        want: Pico(want),
    }
}

fn leased(f: &mut Fixture, ask: &LeaseAsk, now: u64) -> i128 {
    f.ledger.lease(ask, now).unwrap().unwrap().granted.0
}

/// A record that drew on a lease, and its cost.
fn drawn(fuel: u64, key: Option<&str>) -> (UsageRecord, i128) {
    let draw = Some(Draw { key: key.map(str::to_owned) });
    let record = UsageRecord { models: Vec::new(), draw, ..record("dev", "f", fuel) };
    let cost = prices().cost(&record).unwrap().0;
    (record, cost)
}

#[test]
fn leases_are_bounded_given_back_and_repeatable() {
    let mut f = Fixture::new();
    let refused = f.ledger.lease(&ask("n1", 1, 0, CENT), NOW).unwrap().unwrap_err();
    assert!(refused.to_string().contains("no budget"), "{refused}");
    f.ledger.set_budget("dev", &monthly(10 * CENT), NOW).unwrap().unwrap();
    // Half of what there is, beyond a cent.
    assert_eq!(leased(&mut f, &ask("n1", 1, 0, 20 * CENT), NOW), 5 * CENT);
    assert_eq!(leased(&mut f, &ask("n1", 1, 0, 5 * CENT), NOW), 5 * CENT);
    assert_eq!(leased(&mut f, &ask("n2", 1, 0, CENT), NOW), CENT);
    assert_eq!(f.ledger.budget("dev", NOW).unwrap().reserved, Pico(6 * CENT));
    // Given back, and lent to another.
    assert_eq!(leased(&mut f, &ask("n1", 1, CENT, CENT), NOW), 2 * CENT);
    assert_eq!(leased(&mut f, &ask("n2", 1, 0, 100 * CENT), NOW), CENT + 7 * CENT / 2);
    // What ran out is not reserved any more; what the node drew of it is, once it comes back.
    let later = NOW + 121 * SECOND;
    assert_eq!(f.ledger.budget("dev", later).unwrap().reserved, Pico(0));
    assert_eq!(leased(&mut f, &ask("n1", 1, CENT, 0), later), CENT);
    assert_eq!(f.ledger.budget("dev", later).unwrap().reserved, Pico(CENT));
}

#[test]
fn what_is_booked_is_spent_and_no_longer_reserved() {
    let mut f = Fixture::new();
    f.ledger.set_budget("dev", &monthly(CENT), NOW).unwrap().unwrap();
    assert_eq!(leased(&mut f, &ask("n1", 1, 0, CENT), NOW), CENT);
    let (first, cost) = drawn(1_000_000_000, None);
    f.append(1, std::slice::from_ref(&first)).unwrap();
    let state = f.ledger.budget("dev", NOW).unwrap();
    assert_eq!((state.spent, state.reserved), (Pico(cost), Pico(CENT - cost)));
    // The node drew it, so it has nothing more to ask for.
    assert_eq!(leased(&mut f, &ask("n1", 1, cost, CENT), NOW), CENT);
    // What did not draw on the lease is spent beside it.
    let other = UsageRecord { draw: None, ..drawn(1_000_000_000, None).0 };
    f.append(2, &[other]).unwrap();
    let state = f.ledger.budget("dev", NOW).unwrap();
    assert_eq!((state.spent, state.reserved), (Pico(2 * cost), Pico(CENT - cost)));
}

#[test]
fn a_month_turns() {
    let mut f = Fixture::new();
    f.ledger.set_budget("dev", &monthly(CENT), NOW).unwrap().unwrap();
    assert_eq!(leased(&mut f, &ask("n1", 1, 0, CENT), NOW), CENT);
    let (first, cost) = drawn(4_000_000_000, None);
    f.append(1, &[first]).unwrap();
    // What is leased may yet be spent: it counts against the new month as well, and so never both months pass.
    let december = NOW + 8 * DAY;
    assert_eq!(leased(&mut f, &ask("n1", 1, cost, CENT), december), CENT + cost);
    let state = f.ledger.budget("dev", december).unwrap();
    assert_eq!((state.month.as_str(), state.spent, state.reserved), ("2026-12", Pico(0), Pico(CENT)));
}

#[test]
fn credits_pay_from_the_first_grant_on() {
    let mut f = Fixture::new();
    f.append(1, &[record("dev", "f", 1_000_000)]).unwrap();
    let state = f.ledger.grant_credit("dev", "g1", Pico(CENT), "test", NOW).unwrap().unwrap();
    assert_eq!((state.granted, state.credit_left), (Pico(CENT), Pico(CENT)));
    assert!(state.terms.unwrap().prepaid);
    f.ledger.grant_credit("dev", "g1", Pico(CENT), "again", NOW).unwrap().unwrap();
    let other = f.ledger.grant_credit("dev", "g1", Pico(2 * CENT), "", NOW).unwrap().unwrap_err();
    assert!(other.to_string().contains("another amount"), "{other}");
    assert!(f.ledger.grant_credit("dev", "g2", Pico(0), "", NOW).unwrap().is_err());
    assert_eq!(leased(&mut f, &ask("n1", 1, 0, 5 * CENT), NOW), CENT);
    let (one, cost) = drawn(1_000_000_000, None);
    f.append(2, &[one]).unwrap();
    let state = f.ledger.budget("dev", NOW).unwrap();
    assert_eq!((state.granted, state.credit_left), (Pico(CENT), Pico(CENT - cost)));
    // A monthly budget on top bounds as well.
    f.ledger.set_budget("dev", &BudgetTerms { prepaid: true, ..monthly(CENT / 2) }, NOW).unwrap().unwrap();
    assert_eq!(leased(&mut f, &ask("n2", 1, 0, CENT), NOW), 0);
}

#[test]
fn keys_have_caps_of_their_own() {
    let mut f = Fixture::new();
    let keys = [("ci".to_owned(), Pico(CENT / 2))].into_iter().collect();
    f.ledger.set_budget("dev", &BudgetTerms { keys, ..BudgetTerms::default() }, NOW).unwrap().unwrap();
    assert!(f.ledger.lease(&ask("n1", 1, 0, CENT), NOW).unwrap().is_err());
    let ci = LeaseAsk { key: Some("ci".into()), ..ask("n1", 1, 0, CENT) };
    assert_eq!(leased(&mut f, &ci, NOW), CENT / 2);
    let (one, cost) = drawn(1_000_000_000, Some("ci"));
    f.append(1, &[one]).unwrap();
    assert_eq!(f.ledger.budget("dev", NOW).unwrap().keys_spent["ci"], Pico(cost));
    let all = f.reader.budgets().unwrap();
    assert_eq!((all.len(), all[0].limited, all[0].keys.as_slice()), (1, false, &["ci".to_owned()][..]));
}

#[test]
fn impossible_terms_change_nothing() {
    let mut f = Fixture::new();
    for terms in [
        monthly(-1),
        monthly(i128::MAX),
        BudgetTerms { keys: [(String::new(), Pico(1))].into_iter().collect(), ..BudgetTerms::default() },
    ] {
        assert!(f.ledger.set_budget("dev", &terms, NOW).unwrap().is_err());
    }
    assert_eq!(f.ledger.budget("dev", NOW).unwrap().terms, None);
    assert!(f.reader.budgets().unwrap().is_empty());
}

#[derive(Clone, Debug)]
enum Step {
    Ask {
        node: usize,
        want: i128,
    },
    Call {
        node: usize,
        fuel: u64,
    },
    Ship {
        node: usize,
    },
    /// The host dies; its next epoch ships first what the last one left.
    Kill {
        node: usize,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let node = || 0..3usize;
    prop_oneof![
        (node(), 0..2 * CENT).prop_map(|(node, want)| Step::Ask { node, want }),
        (node(), 0..2_000_000_000u64).prop_map(|(node, fuel)| Step::Call { node, fuel }),
        node().prop_map(|node| Step::Ship { node }),
        node().prop_map(|node| Step::Kill { node }),
    ]
}

#[derive(Default)]
struct Node {
    epoch: u64,
    granted: i128,
    drawn: i128,
    seq: u64,
    unshipped: Vec<UsageRecord>,
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn nodes_never_spend_more_than_the_budget(steps in prop::collection::vec(step(), 1..120)) {
        let mut f = Fixture::new();
        let budget = CENT;
        f.ledger.set_budget("dev", &monthly(budget), NOW).unwrap().unwrap();
        let mut nodes: Vec<Node> = (0..3).map(|_| Node { epoch: 1, ..Node::default() }).collect();
        let mut spent = 0;
        let ship = |f: &mut Fixture, name: &str, node: &mut Node| {
            let records = std::mem::take(&mut node.unshipped);
            let first = node.seq + 1;
            node.seq += records.len() as u64;
            f.append_raw(batch(name, node.epoch, first, &records)).unwrap();
        };
        for step in steps {
            match step {
                Step::Ask { node, want } => {
                    let name = format!("n{node}");
                    let at = &mut nodes[node];
                    let question = LeaseAsk { settled: true, ..ask(&name, at.epoch, at.drawn, want) };
                    at.granted = f.ledger.lease(&question, NOW).unwrap().unwrap().granted.0;
                    prop_assert!(at.granted >= at.drawn);
                }
                Step::Call { node, fuel } => {
                    let at = &mut nodes[node];
                    let (record, cost) = drawn(fuel, None);
                    if at.drawn + cost <= at.granted {
                        at.drawn += cost;
                        spent += cost;
                        at.unshipped.push(record);
                    }
                }
                Step::Ship { node } => ship(&mut f, &format!("n{node}"), &mut nodes[node]),
                Step::Kill { node } => {
                    let at = &mut nodes[node];
                    ship(&mut f, &format!("n{node}"), at);
                    *at = Node { epoch: at.epoch + 1, ..Node::default() };
                }
            }
            prop_assert!(spent <= budget, "{spent}");
            let state = f.ledger.budget("dev", NOW).unwrap();
            prop_assert!(state.spent.0 + state.reserved.0 <= budget, "{state:?}");
            let unshipped: i128 =
                nodes.iter().flat_map(|n| &n.unshipped).map(|r| prices().cost(r).unwrap().0).sum();
            prop_assert_eq!(state.spent.0 + unshipped, spent);
        }
    }
}
