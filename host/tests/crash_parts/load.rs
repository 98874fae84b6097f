//! A bounded load of many kinds of calls, and what came back whole.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::http::{Answer, Connection};

/// One kind of call.
#[derive(Clone, Copy, Debug)]
pub struct Call {
    pub path: &'static str,
    pub body: &'static [u8],
}

/// The functions of [`MIX`], with the models that they may use.
pub const FUNCTIONS: [(&str, &[&str]); 4] =
    [("echo", &[]), ("burn", &[]), ("slow-body", &[]), ("nn-raw", &["mlp"])];

/// What a busy host does: small answers, computing, models, answers that are streamed, and failures of the guest. In a
/// stream the cost comes as a trailer.
pub const MIX: [Call; 8] = [
    Call { path: "/fn/dev/echo/hello", body: b"" },
    Call { path: "/fn/dev/burn?n=200000", body: b"" },
    Call { path: "/fn/dev/nn-raw?case=ok", body: b"" },
    Call { path: "/fn/dev/echo/some/path?status=404", body: b"a body of some bytes" },
    Call { path: "/fn/dev/slow-body?chunks=150", body: b"" },
    Call { path: "/fn/dev/nn-raw?case=ok&repeat=3", body: b"" },
    Call { path: "/fn/dev/slow-body?chunks=8&delay_ms=15", body: b"" },
    Call { path: "/fn/dev/burn?n=5000000", body: b"" },
];

/// An answer that was received to its last byte.
#[derive(Clone, Debug)]
pub struct Done {
    pub path: &'static str,
    pub status: u16,
    pub invocation: String,
    /// Absent where nothing was invoked.
    pub cost: Option<String>,
    /// The error body, where there is one.
    pub error: Option<String>,
}

/// A load in progress.
pub struct Load {
    state: Arc<State>,
    threads: Vec<JoinHandle<()>>,
}

struct State {
    host: SocketAddr,
    token: String,
    most: usize,
    started: AtomicUsize,
    whole: Mutex<Vec<Done>>,
    broken: AtomicUsize,
}

/// What became of a load.
pub struct Outcome {
    pub whole: Vec<Done>,
    /// Calls whose answer broke off or never came.
    pub broken: usize,
}

impl Load {
    /// At most `most` calls of [`MIX`] over so many connections; a connection that breaks ends its part.
    pub fn start(host: SocketAddr, token: &str, connections: usize, most: usize) -> Self {
        let state = Arc::new(State {
            host,
            token: token.to_owned(),
            most,
            started: AtomicUsize::new(0),
            whole: Mutex::default(),
            broken: AtomicUsize::new(0),
        });
        let threads = (0..connections)
            .map(|_| {
                let state = state.clone();
                std::thread::spawn(move || state.run())
            })
            .collect();
        Self { state, threads }
    }

    /// Answers received so far.
    pub fn received(&self) -> usize {
        self.state.whole.lock().unwrap().len()
    }

    /// Waits until so many answers are there.
    pub fn wait_for(&self, answers: usize) {
        let until = Instant::now() + Duration::from_secs(60);
        while self.received() < answers {
            assert!(!self.threads.iter().all(JoinHandle::is_finished), "the load ended early");
            assert!(Instant::now() < until, "only {} of {answers} answers in a minute", self.received());
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Takes up no more calls, and waits for those that run.
    pub fn stop(self) -> Outcome {
        self.state.started.fetch_add(self.state.most, Ordering::Relaxed);
        self.join()
    }

    /// Waits for the end.
    pub fn join(self) -> Outcome {
        for thread in self.threads {
            thread.join().unwrap();
        }
        let whole = std::mem::take(&mut *self.state.whole.lock().unwrap());
        Outcome { whole, broken: self.state.broken.load(Ordering::Relaxed) }
    }
}

impl State {
    fn run(&self) {
        let Ok(mut connection) = Connection::open(self.host) else { return };
        loop {
            let index = self.started.fetch_add(1, Ordering::Relaxed);
            if index >= self.most {
                return;
            }
            let call = MIX[index % MIX.len()];
            let Ok(answer) = connection.call("POST", call.path, &self.token, call.body) else {
                self.broken.fetch_add(1, Ordering::Relaxed);
                return;
            };
            let closing = answer.header("connection") == Some("close");
            self.whole.lock().unwrap().push(done(call.path, &answer));
            if closing {
                return;
            }
        }
    }
}

pub fn done(path: &'static str, answer: &Answer) -> Done {
    let invocation = answer.header("x-wasmeter-invocation").unwrap_or_default().to_owned();
    let cost = answer.header("x-wasmeter-cost").map(str::to_owned);
    let error = answer.header("x-wasmeter-error-source").map(|_| answer.text());
    Done { path, status: answer.status, invocation, cost, error }
}
