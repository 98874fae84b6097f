use wasmeter_types::KeyValueLimits;

use super::*;

const LIMITS: KeyValueLimits = KeyValueLimits { keys: 10, value: 100, total: 1000, calls: 1 };
const AUTHOR: Author = Author { limits: LIMITS, revision_ns: 5 };

fn space(tenant: &str, function: &str, bucket: &str) -> Space {
    Space {
        tenant: tenant.parse().unwrap(),
        function: function.parse().unwrap(),
        bucket: bucket.parse().unwrap(),
    }
}

fn set(key: &str, value: impl Into<Vec<u8>>) -> Change {
    Change::Set(vec![(key.to_owned(), value.into())])
}

async fn value(store: &SqliteKeyValueStore, space: &Space, key: &str) -> Option<Vec<u8>> {
    store.get(space, vec![key.to_owned()], 1 << 20).await.unwrap().remove(0)
}

fn open(dir: &Path) -> SqliteKeyValueStore {
    open_with(dir, |_, _| true)
}

fn open_with(dir: &Path, is_there: impl Fn(&str, &str) -> bool) -> SqliteKeyValueStore {
    let options = KeyValueOptions { tenant_total: 1500, power: false };
    SqliteKeyValueStore::open(&dir.join("kv.sqlite"), options, is_there).unwrap()
}

#[tokio::test]
async fn pairs_are_kept_apart_and_survive() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let mine = space("dev", "f", "default");
    for odd in ["a", "", "ä\u{0}b", "' OR 1=1 --", "../x", "%", "\u{202e}"] {
        store.change(&mine, AUTHOR, set(odd, odd.as_bytes())).await.unwrap();
        assert_eq!(value(&store, &mine, odd).await.as_deref(), Some(odd.as_bytes()), "{odd:?}");
    }
    for other in [space("dev", "f", "b"), space("dev", "g", "default"), space("other", "f", "default")] {
        assert_eq!(value(&store, &other, "a").await, None);
        assert!(!store.exists(&other, "a".into()).await.unwrap());
        assert_eq!(store.keys(&other, 0).await.unwrap(), KeyPage::default());
    }
    store.change(&mine, AUTHOR, Change::Delete(vec!["".into(), "absent".into()])).await.unwrap();
    drop(store);
    let store = open(dir.path());
    assert_eq!(store.keys(&mine, 0).await.unwrap().keys.len(), 6);
    assert_eq!(value(&store, &mine, "%").await.as_deref(), Some(b"%".as_slice()));
    assert_eq!(store.keys(&mine, u64::MAX).await.unwrap(), KeyPage::default());
}

#[tokio::test]
async fn quotas_hold_and_a_refused_change_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let mine = space("dev", "f", "default");
    let many = (0..11).map(|n| (format!("k{n}"), vec![0; 1])).collect();
    assert_eq!(store.change(&mine, AUTHOR, Change::Set(many)).await, Err(KeyValueError::Keys(10)));
    assert!(!store.exists(&mine, "k0".into()).await.unwrap());
    let full: Vec<_> = (0..10).map(|n| (format!("k{n}"), vec![0; 98])).collect();
    store.change(&mine, AUTHOR, Change::Set(full)).await.unwrap();
    assert_eq!(store.change(&mine, AUTHOR, set("k0", vec![0; 99])).await, Err(KeyValueError::Bytes(1000)));
    assert_eq!(store.change(&mine, AUTHOR, set("k10", "")).await, Err(KeyValueError::Keys(10)));
    // Other buckets are of the same function, other functions of the same tenant.
    let beside = space("dev", "f", "b");
    assert_eq!(store.change(&beside, AUTHOR, set("k", "")).await, Err(KeyValueError::Keys(10)));
    let next = space("dev", "g", "default");
    let half: Vec<_> = (0..5).map(|n| (format!("k{n}"), vec![0; 98])).collect();
    store.change(&next, AUTHOR, Change::Set(half)).await.unwrap();
    assert_eq!(store.change(&next, AUTHOR, set("k5", "")).await, Err(KeyValueError::TenantBytes(1500)));
    // Also after a restart, and until something goes.
    drop(store);
    let store = open(dir.path());
    assert_eq!(store.change(&mine, AUTHOR, set("k0", vec![0; 99])).await, Err(KeyValueError::Bytes(1000)));
    store.change(&mine, AUTHOR, Change::Delete(vec!["k0".into()])).await.unwrap();
    store.change(&mine, AUTHOR, set("new", vec![0; 50])).await.unwrap();
    let keys = (0..10).map(|n| format!("k{n}")).collect();
    assert_eq!(store.get(&mine, keys, 500).await, Err(KeyValueError::Answer(500)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn increments_are_atomic() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let mine = space("dev", "f", "default");
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..200 {
        let (store, mine) = (store.clone(), mine.clone());
        tasks.spawn(
            async move { store.change(&mine, AUTHOR, Change::Increment("n".into(), 3)).await.unwrap() },
        );
    }
    let mut seen: Vec<u64> = tasks.join_all().await.into_iter().flatten().collect();
    seen.sort_unstable();
    assert_eq!(seen, (1..=200).map(|n| 3 * n).collect::<Vec<_>>());
    let by_one = |key: &str| Change::Increment(key.to_owned(), 1);
    for (bad, error) in [
        ("x", KeyValueError::NotANumber),
        ("", KeyValueError::NotANumber),
        ("+1", KeyValueError::NotANumber),
        ("18446744073709551615", KeyValueError::Overflow),
        ("18446744073709551616", KeyValueError::NotANumber),
    ] {
        store.change(&mine, AUTHOR, set("m", bad)).await.unwrap();
        assert_eq!(store.change(&mine, AUTHOR, by_one("m")).await, Err(error), "{bad:?}");
    }
}

#[tokio::test]
async fn pages_come_to_an_end() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let mine = space("dev", "f", "default");
    let author = Author { limits: KeyValueLimits { keys: 5000, total: 1 << 20, ..LIMITS }, revision_ns: 1 };
    let options = KeyValueOptions::default();
    drop(store);
    let store = SqliteKeyValueStore::open(&dir.path().join("kv.sqlite"), options, |_, _| true).unwrap();
    let all: Vec<_> = (0..2500).map(|n| (format!("k{n}"), Vec::new())).collect();
    store.change(&mine, author, Change::Set(all)).await.unwrap();
    let (mut from, mut pages, mut keys) = (0, 0, std::collections::BTreeSet::new());
    loop {
        let page = store.keys(&mine, from).await.unwrap();
        pages += 1;
        keys.extend(page.keys);
        match page.next {
            Some(next) => from = next,
            None => break,
        }
    }
    assert_eq!((pages, keys.len()), (3, 2500));
}

#[tokio::test]
async fn a_deleted_function_leaves_nothing_and_adds_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let (mine, other) = (space("dev", "f", "default"), space("dev", "g", "default"));
    for space in [&mine, &other] {
        store.change(space, AUTHOR, set("k", vec![0; 700])).await.unwrap();
    }
    store.forget(&mine.tenant, &mine.function, 5).await.unwrap();
    assert_eq!(value(&store, &mine, "k").await, None);
    assert!(value(&store, &other, "k").await.is_some());
    // An invocation of the deleted function that still runs, then one of a new function of the same name.
    assert_eq!(store.change(&mine, AUTHOR, set("k", "late")).await, Err(KeyValueError::Gone));
    let anew = Author { revision_ns: 6, ..AUTHOR };
    store.change(&mine, anew, set("k", vec![0; 700])).await.unwrap();
    drop(store);
    // What a crash left of a function that is not in the catalog goes at the next start.
    let store = open_with(dir.path(), |_, function| function == "f");
    assert_eq!(value(&store, &other, "k").await, None);
    assert!(value(&store, &mine, "k").await.is_some());
    store.change(&other, anew, set("k", vec![0; 700])).await.unwrap();
}
