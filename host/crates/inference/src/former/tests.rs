//! The former against a list of what came and went. Time stands still unless a step moves it.

use std::collections::HashMap;

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
struct Fake {
    id: u64,
    tenant: String,
    kind: u8,
    rows: u32,
    max: u32,
    cost: u64,
    calibrated: bool,
    deadline: Instant,
    due: Instant,
}

const ROW: Duration = Duration::from_millis(1);

impl Item for Fake {
    fn id(&self) -> u64 {
        self.id
    }
    fn tenant(&self) -> &str {
        &self.tenant
    }
    fn alike(&self, other: &Self) -> bool {
        self.kind == other.kind
    }
    fn rows(&self) -> u32 {
        self.rows
    }
    fn max_batch(&self) -> u32 {
        self.max
    }
    fn deadline(&self) -> Instant {
        self.deadline
    }
    fn due(&self) -> Instant {
        self.due
    }
    fn cost(&self) -> Cost {
        Cost { ns: self.cost, calibrated: self.calibrated }
    }
    fn expected(&self, rows: u32) -> Duration {
        ROW * rows
    }
    fn debited(&mut self, _: u64) {}
}

fn fake(now: Instant, id: u64, tenant: &str) -> Fake {
    Fake {
        id,
        tenant: tenant.to_owned(),
        kind: 0,
        rows: 1,
        max: 8,
        cost: 1_000,
        calibrated: true,
        deadline: now + Duration::from_secs(3600),
        due: now,
    }
}

fn ids(batch: &[Fake]) -> Vec<u64> {
    batch.iter().map(|entry| entry.id).collect()
}

#[derive(Clone, Debug)]
enum Step {
    /// Tenant, kind, rows, cost, calibrated, milliseconds to the deadline and until due.
    Push(u8, u8, u32, u64, bool, u64, u64),
    Form,
    TopUp,
    Remove(usize),
    Wait(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => (0..5u8, 0..3u8, 1..12u32, 1..10_000u64, prop::bool::weighted(0.8), 0..40u64, 0..10u64)
            .prop_map(|(t, k, r, c, b, d, w)| Step::Push(t, k, r, c, b, d, w)),
        2 => Just(Step::Form),
        1 => Just(Step::TopUp),
        1 => (0..20usize).prop_map(Step::Remove),
        1 => (0..10u64).prop_map(Step::Wait),
    ];
    prop::collection::vec(step, 1..120)
}

fn check_batch(batch: &[Fake], start: Instant) -> Result<(), TestCaseError> {
    prop_assert!(!batch.is_empty());
    if batch.len() == 1 {
        return Ok(());
    }
    let rows: u32 = batch.iter().map(|entry| entry.rows).sum();
    prop_assert!(rows <= 8, "over the limit: {} rows", rows);
    prop_assert!(batch.iter().all(|entry| entry.kind == batch[0].kind && entry.calibrated));
    prop_assert!(batch.iter().all(|entry| start + ROW * rows <= entry.deadline));
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// Whatever comes: nothing is lost or doubled, no batch is over its limits, what is due does not wait for a
    /// free device, and the queue stays within its bounds.
    #[test]
    fn nothing_is_lost_or_doubled(steps in steps()) {
        const CAPACITY: usize = 16;
        let mut now = Instant::now();
        let mut former = Former::new(CAPACITY);
        let mut waiting: HashMap<u64, Fake> = HashMap::new();
        let mut last: Vec<Fake> = Vec::new();
        let mut next = 0;
        let mut expired = Vec::new();
        for step in steps {
            match step {
                Step::Push(tenant, kind, rows, cost, calibrated, deadline, due) => {
                    next += 1;
                    let ms = Duration::from_millis;
                    let entry = Fake {
                        kind, rows, cost, calibrated,
                        deadline: now + ms(deadline), due: now + ms(due),
                        ..fake(now, next, &tenant.to_string())
                    };
                    let (own, all) = (|w: &HashMap<u64, Fake>, t: &str| w.values().filter(|e| e.tenant == t).count(), waiting.len());
                    match former.push(entry.clone(), 0) {
                        Pushed::Queued => { waiting.insert(next, entry); }
                        Pushed::Displaced(other) => {
                            prop_assert!(own(&waiting, &other.tenant) > own(&waiting, &entry.tenant) + 1);
                            prop_assert!(waiting.remove(&other.id).is_some());
                            waiting.insert(next, entry);
                        }
                        Pushed::Full => {
                            let own = own(&waiting, &entry.tenant);
                            prop_assert!(all == CAPACITY || (own >= CAPACITY / 2 && all > own));
                        }
                    }
                }
                Step::Form => match former.form(now, now, &mut expired) {
                    Ok(batch) => {
                        check_batch(&batch, now)?;
                        for entry in &batch {
                            prop_assert!(waiting.remove(&entry.id).is_some(), "{} came twice", entry.id);
                        }
                        last = batch;
                    }
                    Err(later) => {
                        let live = || waiting.values().filter(|entry| entry.deadline > now);
                        prop_assert!(live().all(|entry| entry.due > now && entry.calibrated));
                        prop_assert_eq!(later, live().map(|entry| entry.due).min());
                    }
                },
                Step::TopUp if !last.is_empty() && last.iter().all(|entry| entry.deadline > now) => {
                    let before = last.len();
                    former.top_up(&mut last, now, &mut expired);
                    if last.len() > before {
                        check_batch(&last, now)?;
                    }
                    for entry in &last[before..] {
                        prop_assert!(waiting.remove(&entry.id).is_some(), "{} came twice", entry.id);
                    }
                }
                Step::TopUp => {}
                Step::Remove(at) => {
                    let mut known: Vec<_> = waiting.keys().copied().collect();
                    known.sort_unstable();
                    if let Some(id) = known.get(at) {
                        prop_assert_eq!(former.remove(*id).map(|entry| entry.id), Some(*id));
                        waiting.remove(id);
                        prop_assert!(former.remove(*id).is_none());
                    }
                }
                Step::Wait(ms) => now += Duration::from_millis(ms),
            }
            for entry in expired.drain(..) {
                prop_assert!(entry.deadline <= now);
                prop_assert!(waiting.remove(&entry.id).is_some(), "{} came twice", entry.id);
            }
            prop_assert_eq!(former.len(), waiting.len());
            prop_assert!(former.len() <= CAPACITY);
        }
        let mut rest = ids(&former.drain());
        rest.sort_unstable();
        let mut known: Vec<_> = waiting.keys().copied().collect();
        known.sort_unstable();
        prop_assert_eq!(rest, known);
    }

    /// Tenants that always have something waiting get the same device time, whatever their entries cost, which
    /// models they call, and although one of them has fifty times as much waiting as the others. (What fills a
    /// gap that no other entry fits into is a gift, so entries of a kind cost the same a row here.)
    #[test]
    fn nobody_is_below_its_fair_share(
        tenants in prop::collection::vec((0..3u8, 1..3u32), 2..9),
        row_costs in prop::array::uniform3(1..50u64),
        max in 1..17u32,
    ) {
        let now = Instant::now();
        let depth = 2 * max as usize;
        let mut former = Former::new(100_000);
        let mut next = 0;
        let mut push = |former: &mut Former<Fake>, tenant: usize| {
            next += 1;
            let (kind, rows) = tenants[tenant];
            let rows = rows.min(max);
            let cost = row_costs[usize::from(kind)] * u64::from(rows);
            let entry = Fake { kind, cost, rows, max, ..fake(now, next, &tenant.to_string()) };
            assert!(matches!(former.push(entry, 0), Pushed::Queued));
        };
        for tenant in 0..tenants.len() {
            for _ in 0..if tenant == 0 { 50 * depth } else { depth } {
                push(&mut former, tenant);
            }
        }
        let mut served = vec![0u64; tenants.len()];
        let enough = 100 * 50 * u64::from(max) * tenants.len() as u64;
        let mut expired = Vec::new();
        while served.iter().sum::<u64>() < enough {
            let batch = former.form(now, now, &mut expired).unwrap();
            for entry in batch {
                let tenant: usize = entry.tenant.parse().unwrap();
                served[tenant] += entry.cost;
                push(&mut former, tenant);
            }
        }
        let fair = served.iter().sum::<u64>() / served.len() as u64;
        prop_assert!(served.iter().all(|served| *served * 10 >= fair * 8), "{:?} of {}", served, fair);
    }
}

/// One entry of another model waits beside a flood that always fills its batches.
#[test]
fn nobody_starves() {
    let now = Instant::now();
    let mut former = Former::new(1_000);
    let mut next = 0;
    let mut flood = |former: &mut Former<Fake>, count| {
        for _ in 0..count {
            next += 1;
            former.push(fake(now, next, "flood"), 0);
        }
    };
    flood(&mut former, 400);
    let mut expired = Vec::new();
    for _ in 0..10 {
        former.form(now, now, &mut expired).unwrap();
        flood(&mut former, 8);
    }
    former.push(Fake { kind: 1, ..fake(now, 9_999, "lone") }, 0);
    let waited = (0..20).position(|_| {
        let batch = former.form(now, now, &mut expired).unwrap();
        flood(&mut former, 8);
        ids(&batch) == [9_999]
    });
    assert!(waited.unwrap() <= 1, "{waited:?}");
}

#[test]
fn a_tenant_holds_half_unless_alone_and_makes_room_for_others() {
    let now = Instant::now();
    let mut former = Former::new(4);
    for id in 1..=4 {
        assert!(matches!(former.push(fake(now, id, "a"), 0), Pushed::Queued));
    }
    assert!(matches!(former.push(fake(now, 5, "a"), 0), Pushed::Full));
    assert!(matches!(former.push(fake(now, 6, "b"), 0), Pushed::Displaced(Fake { id: 4, .. })));
    assert!(matches!(former.push(fake(now, 7, "b"), 0), Pushed::Displaced(Fake { id: 3, .. })));
    assert!(matches!(former.push(fake(now, 8, "b"), 0), Pushed::Full));
    assert!(matches!(former.push(fake(now, 9, "c"), 0), Pushed::Displaced(_)));
    assert_eq!(former.len(), 4);
}

#[test]
fn the_nearest_deadline_bounds_the_batch() {
    let now = Instant::now();
    let mut former = Former::new(100);
    for id in 1..=8 {
        let deadline = now + if id == 3 { ROW * 4 } else { ROW * 1000 };
        former.push(Fake { deadline, ..fake(now, id, "a") }, 0);
    }
    let mut expired = Vec::new();
    assert_eq!(ids(&former.form(now, now, &mut expired).unwrap()), [1, 2, 3, 4]);
    assert_eq!(ids(&former.form(now, now, &mut expired).unwrap()), [5, 6, 7, 8]);
}

#[test]
fn a_delay_waits_for_a_full_batch_only_so_long() {
    let now = Instant::now();
    let mut former = Former::new(100);
    let mut expired = Vec::new();
    let due = now + Duration::from_millis(5);
    for id in 1..=7 {
        former.push(Fake { due, ..fake(now, id, "a") }, 0);
        assert_eq!(former.form(now, now, &mut expired).unwrap_err(), Some(due));
    }
    former.push(Fake { kind: 1, ..fake(now, 100, "a") }, 0);
    assert_eq!(ids(&former.form(now, now, &mut expired).unwrap()), [100], "another model need not wait");
    former.push(Fake { due, ..fake(now, 8, "b") }, 0);
    assert_eq!(former.form(now, now, &mut expired).unwrap().len(), 8, "a full batch need not wait");
    former.push(Fake { due, ..fake(now, 9, "b") }, 0);
    assert_eq!(ids(&former.form(due, due, &mut expired).unwrap()), [9]);
}
