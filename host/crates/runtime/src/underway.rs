use std::collections::HashMap;
use std::sync::Arc;

use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, Shared};
use parking_lot::Mutex;
use wasmeter_types::Digest;

/// Work of which one result serves all who wait for it, each in a task of its own: who waits may leave, and what was
/// waited for is there for the next one all the same. Cheap to clone.
pub(crate) struct Underway<T> {
    all: Arc<Mutex<HashMap<Digest, Shared<BoxFuture<'static, T>>>>>,
}

impl<T> Clone for Underway<T> {
    fn clone(&self) -> Self {
        Self { all: self.all.clone() }
    }
}

impl<T> Default for Underway<T> {
    fn default() -> Self {
        Self { all: Arc::default() }
    }
}

impl<T: Clone + Send + Sync + 'static> Underway<T> {
    /// Waits for the work under way, or begins it unless its result is there by now. `broken` is the result of work
    /// that panicked.
    pub(crate) async fn join<W>(
        &self,
        digest: Digest,
        there: impl FnOnce() -> Option<T>,
        work: impl FnOnce() -> W,
        broken: impl FnOnce(String) -> T + Send + 'static,
    ) -> T
    where
        W: Future<Output = T> + Send + 'static,
    {
        let shared = {
            let mut all = self.all.lock();
            match all.get(&digest) {
                Some(shared) => shared.clone(),
                // A result is where `there` looks before its work is no longer under way.
                None => match there() {
                    Some(result) => return result,
                    None => {
                        let (work, end) = (work(), End { all: self.clone(), digest });
                        let task = tokio::spawn(async move {
                            let _end = end;
                            work.await
                        });
                        let result = task.map(|r| r.unwrap_or_else(|panic| broken(panic.to_string())));
                        let shared = result.boxed().shared();
                        all.insert(digest, shared.clone());
                        shared
                    }
                },
            }
        };
        shared.await
    }
}

/// The end of work, also by a panic.
struct End<T> {
    all: Underway<T>,
    digest: Digest,
}

impl<T> Drop for End<T> {
    fn drop(&mut self) {
        let gone = self.all.all.lock().remove(&self.digest);
        // Not under the lock: it may be the last that holds the result.
        drop(gone);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::time::Duration;

    use tokio::time::{sleep, timeout};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn who_leaves_does_not_end_it_and_it_is_done_once() {
        let (underway, count) = (Underway::<u32>::default(), Arc::new(AtomicU32::new(0)));
        let work = || {
            let count = count.clone();
            async move {
                sleep(Duration::from_secs(10)).await;
                count.fetch_add(1, Ordering::Relaxed) + 1
            }
        };
        let digest = Digest::of(b"a");
        let join = || underway.join(digest, || None, work, |_| 0);
        let second = Duration::from_secs(1);
        assert!(timeout(second, join()).await.is_err(), "it left");
        let (left, waited, third) = tokio::join!(timeout(second, join()), join(), join());
        assert!(left.is_err());
        assert_eq!((waited, third), (1, 1));
        assert!(underway.all.lock().is_empty());
        assert_eq!(underway.join(digest, || Some(7), work, |_| 0).await, 7);
        assert_eq!(join().await, 2, "what has ended is begun again");
    }

    #[tokio::test]
    async fn a_panic_is_a_result_too() {
        async fn panics() -> String {
            panic!("as asked")
        }
        let underway = Underway::default();
        let told = underway.join(Digest::of(b"a"), || None, panics, |panic| panic).await;
        assert!(told.contains("panicked"), "{told}");
        assert!(underway.all.lock().is_empty());
    }
}
