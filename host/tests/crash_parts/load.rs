//! A bounded load of many kinds of calls, and what came back whole.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::task::JoinSet;
use wasmeter_testkit::{Answer, Client, Host};

/// The functions of [`MIX`], with the models that they may use.
pub const FUNCTIONS: [(&str, &[&str]); 4] =
    [("echo", &[]), ("burn", &[]), ("slow-body", &[]), ("nn-raw", &["mlp", "slow"])];

/// What a busy host does: small answers, computing, models, and answers that are streamed because they are large or
/// slow, whose cost comes in a trailer.
pub const MIX: [&str; 8] = [
    "/fn/dev/echo/hello",
    "/fn/dev/burn?n=200000",
    "/fn/dev/nn-raw?case=ok",
    "/fn/dev/echo/some/path?status=404",
    "/fn/dev/slow-body?chunks=150",
    "/fn/dev/nn-raw?case=ok&repeat=3",
    "/fn/dev/slow-body?chunks=8&delay_ms=15",
    "/fn/dev/burn?n=5000000",
];

/// An answer that was received to its last byte, trailers included.
#[derive(Clone, Debug)]
pub struct Done {
    pub path: String,
    pub status: u16,
    pub invocation: String,
    /// As the caller was shown it.
    pub cost_pico: Option<u128>,
    /// Whether the cost came after the body.
    pub streamed: bool,
    /// The error body, where the platform wrote one.
    pub error: Option<String>,
}

impl Done {
    pub fn of(path: &str, answer: &Answer) -> Self {
        Self {
            path: path.to_owned(),
            status: answer.status,
            invocation: answer.invocation(),
            cost_pico: answer.cost_pico(),
            streamed: answer.trailers.contains_key("x-wasmeter-cost"),
            error: answer.header("x-wasmeter-error-source").map(|_| answer.text().to_owned()),
        }
    }
}

/// One call, whose trailers are asked for.
pub async fn call(client: &Client, path: &str) -> std::io::Result<Done> {
    let answer = client.post(path, "a body of some bytes").header("te", "trailers").try_send().await?;
    Ok(Done::of(path, &answer))
}

/// A load in progress.
pub struct Load {
    state: Arc<State>,
    tasks: JoinSet<()>,
}

struct State {
    client: Client,
    most: usize,
    started: AtomicUsize,
    whole: Mutex<Vec<Done>>,
    broken: AtomicUsize,
}

/// What became of a load.
pub struct Ended {
    pub whole: Vec<Done>,
    /// Calls whose answer broke off or never came.
    pub broken: usize,
}

impl Load {
    /// At most `most` calls of [`MIX`], so many at a time; a call that breaks ends its part.
    pub fn start(host: &Host, at_a_time: usize, most: usize) -> Self {
        let state = Arc::new(State {
            client: host.dev().clone(),
            most,
            started: AtomicUsize::new(0),
            whole: Mutex::default(),
            broken: AtomicUsize::new(0),
        });
        let mut tasks = JoinSet::new();
        for _ in 0..at_a_time {
            tasks.spawn(state.clone().run());
        }
        Self { state, tasks }
    }

    /// Answers received so far.
    pub fn received(&self) -> usize {
        self.state.whole.lock().len()
    }

    /// Waits until so many answers are there.
    pub async fn wait_for(&self, answers: usize) {
        let until = Instant::now() + Duration::from_secs(60);
        while self.received() < answers {
            assert!(Instant::now() < until, "only {} of {answers} answers in a minute", self.received());
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// Takes up no more calls, and waits for those that run.
    pub async fn stop(self) -> Ended {
        self.state.started.fetch_add(self.state.most, Ordering::Relaxed);
        self.join().await
    }

    /// Waits for the end.
    pub async fn join(self) -> Ended {
        self.tasks.join_all().await;
        let whole = std::mem::take(&mut *self.state.whole.lock());
        Ended { whole, broken: self.state.broken.load(Ordering::Relaxed) }
    }
}

impl State {
    async fn run(self: Arc<Self>) {
        loop {
            let index = self.started.fetch_add(1, Ordering::Relaxed);
            if index >= self.most {
                return;
            }
            let Ok(done) = call(&self.client, MIX[index % MIX.len()]).await else {
                self.broken.fetch_add(1, Ordering::Relaxed);
                return;
            };
            self.whole.lock().push(done);
        }
    }
}
