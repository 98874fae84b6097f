//! Batches of several entries.

use super::*;

async fn start() -> Bench {
    start_with(BatchingOptions { max_batch: 4, ..BatchingOptions::default() }, |_| ()).await
}

async fn start_with(batching: BatchingOptions, change: impl FnOnce(&mut Options)) -> Bench {
    let bench = Bench::start(change).await;
    *bench.script.batching.lock() = Batching::Rows;
    bench.handle.load(ModelSpec { batching, ..spec("m") }).await.unwrap();
    for _ in 0..3 {
        bench.next(Step::Ok(1_000));
        assert_eq!(bench.handle.compute(bench.request()).await.unwrap().charged_ns, 1_000);
    }
    bench
}

/// So many computes that wait while another one runs, and what lets that one end.
async fn behind_a_run(
    bench: &Bench,
    count: usize,
) -> (Vec<JoinHandle<Result<Computed, ComputeError>>>, mpsc::Sender<Step>) {
    let free = bench.block();
    let first = bench.spawn_running(bench.request()).await;
    let mut tasks = vec![first];
    for tenant in 0..count {
        tasks.push(bench.spawn(ComputeRequest { tenant: format!("t{tenant}"), ..bench.request() }));
        until(|| bench.queued() == tenant + 1).await;
    }
    (tasks, free)
}

async fn charges(tasks: Vec<JoinHandle<Result<Computed, ComputeError>>>) -> Vec<Result<u64, &'static str>> {
    let mut charges = Vec::new();
    for task in tasks {
        charges.push(task.await.unwrap().map(|computed| computed.charged_ns).map_err(|error| error.code()));
    }
    charges
}

#[tokio::test(start_paused = true)]
async fn a_batch_is_split_by_cost_and_never_dearer_than_alone() {
    let bench = start().await;
    for (busy, each) in [(2_002, [500, 500, 501, 501]), (10_000, [1_000; 4])] {
        let before = bench.account();
        let (tasks, free) = behind_a_run(&bench, 4).await;
        bench.next(Step::Ok(busy));
        free.send(Step::Ok(1_000)).unwrap();
        let mut charges: Vec<u64> = charges(tasks).await.into_iter().map(Result::unwrap).collect();
        assert_eq!(charges.remove(0), 1_000);
        charges.sort_unstable();
        assert_eq!(charges, each);
        let after = bench.account();
        assert_eq!((after.batches - before.batches, after.computes - before.computes), (2, 5));
        assert_eq!(after.busy_ns() - before.busy_ns(), busy + 1_000);
        assert_eq!(after.charged_ns - before.charged_ns, each.iter().sum::<u64>() + 1_000);
        assert_eq!(after.busy_ns(), after.measured_ns);
    }
    bench.stop().await;
}

#[tokio::test(start_paused = true)]
async fn who_leaves_a_batch_pays_its_part_and_stops_nobody() {
    let bench = start().await;
    let (mut tasks, free) = behind_a_run(&bench, 4).await;
    let batch = bench.block();
    let first = bench.script.current.load(Ordering::SeqCst);
    free.send(Step::Ok(1_000)).unwrap();
    until(|| bench.script.current.load(Ordering::SeqCst) > first).await;
    bench.script.shown_ns.store(400, Ordering::SeqCst);
    // The first run may be on its way to be booked.
    until(|| bench.account().busy_ns() == bench.account().measured_ns).await;
    let before = bench.account();
    tasks.remove(1).abort();
    yield_now().await;
    advance(Duration::from_secs(30)).await;
    batch.send(Step::Ok(2_000)).unwrap();
    assert_eq!(charges(tasks).await, [Ok(1_000), Ok(500), Ok(500), Ok(500)]);
    assert_eq!(bench.script.interrupted.load(Ordering::SeqCst), 0);
    let after = bench.account();
    assert_eq!(after.charged_ns - before.charged_ns, 100 + 3 * 500);
    assert_eq!(after.busy_ns() - before.busy_ns(), 2_000);
    bench.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_batch_that_fails_runs_again_entry_by_entry() {
    let bench = start().await;
    let before = bench.account();
    let (tasks, free) = behind_a_run(&bench, 3).await;
    for step in [Step::Fail(300), Step::Ok(990), Step::Fail(70), Step::Ok(1_010)] {
        bench.next(step);
    }
    free.send(Step::Ok(1_000)).unwrap();
    assert_eq!(charges(tasks).await, [Ok(1_000), Ok(990), Err("engine"), Ok(1_010)]);
    let after = bench.account();
    assert_eq!(after.retries - before.retries, 1);
    assert_eq!(after.platform_ns - before.platform_ns, 300 + 70);
    assert_eq!(after.charged_ns - before.charged_ns, 1_000 + 990 + 1_010);
    bench.stop().await;
}

#[tokio::test(start_paused = true)]
async fn who_kills_the_device_answers_for_it_and_its_neighbours_do_not() {
    let bench = start().await;
    for _ in 0..2 {
        let before = bench.account();
        let (tasks, free) = behind_a_run(&bench, 3).await;
        for step in [Step::Lost(300), Step::Ok(1_000), Step::Lost(70), Step::Ok(1_000)] {
            bench.next(step);
        }
        free.send(Step::Ok(1_000)).unwrap();
        assert_eq!(charges(tasks).await, [Ok(1_000), Ok(1_000), Err("device-lost"), Ok(1_000)]);
        let after = bench.account();
        assert_eq!((after.losses - before.losses, after.reloads - before.reloads), (2, 2));
        assert_eq!(after.platform_ns - before.platform_ns, 300 + 70 + 2 * LOAD_NS);
        advance(Duration::from_secs(601)).await;
    }
    assert_eq!(bench.handle.batching_off(&key()), None);
    // Two deaths under batches within the window: the entries run alone from now on.
    for _ in 0..2 {
        let (tasks, free) = behind_a_run(&bench, 2).await;
        for step in [Step::Lost(1), Step::Ok(1_000), Step::Ok(1_000)] {
            bench.next(step);
        }
        free.send(Step::Ok(1_000)).unwrap();
        assert_eq!(charges(tasks).await, [Ok(1_000); 3]);
    }
    assert!(bench.handle.batching_off(&key()).unwrap().contains("failed"));
    let before = bench.account();
    let (tasks, free) = behind_a_run(&bench, 3).await;
    free.send(Step::Ok(1_000)).unwrap();
    charges(tasks).await;
    assert_eq!(bench.account().batches - before.batches, 4);
    bench.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_full_batch_does_not_wait_for_the_delay() {
    let delay = Duration::from_secs(3600);
    let batching = BatchingOptions { max_batch: 2, max_queue_delay: delay, pad: None };
    // The first runs of a shape do not wait either: they run alone.
    let bench = Bench::start(|_| ()).await;
    *bench.script.batching.lock() = Batching::Rows;
    bench.handle.load(ModelSpec { batching, ..spec("m") }).await.unwrap();
    for _ in 0..2 {
        bench.handle.compute(bench.request()).await.unwrap();
    }
    let before = bench.account().batches;
    let first = bench.spawn(bench.request());
    until(|| bench.queued() == 1).await;
    bench.next(Step::Ok(2));
    bench.handle.compute(bench.request()).await.unwrap();
    first.await.unwrap().unwrap();
    assert_eq!(bench.account().batches - before, 1);
    bench.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_new_shape_runs_alone_first() {
    let bench = start().await;
    let (mut tasks, free) = behind_a_run(&bench, 1).await;
    let two = Tensor::new(DType::U8, vec![2], vec![7, 8]).unwrap();
    for waiting in 2..=3 {
        let inputs = vec![NamedTensor { name: "x".into(), tensor: two.clone() }];
        tasks.push(bench.spawn(ComputeRequest { inputs, ..bench.request() }));
        until(|| bench.queued() == waiting).await;
    }
    let before = bench.account();
    for busy in [1_000, 1_900, 2_100] {
        bench.next(Step::Ok(busy));
    }
    free.send(Step::Ok(1_000)).unwrap();
    assert_eq!(charges(tasks).await, [Ok(1_000), Ok(1_000), Ok(1_900), Ok(2_100)]);
    assert_eq!(bench.account().batches - before.batches, 4);
    bench.stop().await;
}
