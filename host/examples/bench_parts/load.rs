//! Connections that are kept and call without a pause.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use anyhow::{Context, ensure};
use bytes::Bytes;
use http::{Request, header};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

/// Whether an answer is right.
pub(crate) type Check = dyn Fn(&[u8]) -> bool + Send + Sync;

/// What one connection sends again and again, and how a right answer is told.
pub(crate) struct Caller {
    pub(crate) path: String,
    pub(crate) token: Option<String>,
    pub(crate) body: Bytes,
    pub(crate) right: Arc<Check>,
}

/// A load in progress.
pub(crate) struct Load {
    counts: Vec<Arc<AtomicU64>>,
    going: Arc<AtomicBool>,
    tasks: JoinSet<anyhow::Result<()>>,
}

impl Load {
    /// A connection for each caller.
    pub(crate) fn start(address: SocketAddr, callers: Vec<Caller>) -> Self {
        let going = Arc::new(AtomicBool::new(true));
        let mut tasks = JoinSet::new();
        let counts = callers.into_iter().map(|caller| {
            let count = Arc::new(AtomicU64::new(0));
            tasks.spawn(call(address, caller, Arc::clone(&going), Arc::clone(&count)));
            count
        });
        Self { counts: counts.collect(), going, tasks }
    }

    /// Right answers so far, by caller.
    pub(crate) fn counts(&self) -> Vec<u64> {
        self.counts.iter().map(|count| count.load(Ordering::Relaxed)).collect()
    }

    /// Lets each connection finish its call; an error of any of them.
    pub(crate) async fn stop(self) -> anyhow::Result<()> {
        self.going.store(false, Ordering::Relaxed);
        self.tasks.join_all().await.into_iter().collect()
    }
}

async fn call(
    address: SocketAddr,
    caller: Caller,
    going: Arc<AtomicBool>,
    count: Arc<AtomicU64>,
) -> anyhow::Result<()> {
    let stream = TcpStream::connect(address).await.with_context(|| format!("connecting to {address}"))?;
    stream.set_nodelay(true)?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let connection = tokio::spawn(connection);
    while going.load(Ordering::Relaxed) {
        let mut request = Request::post(&caller.path).header(header::HOST, address.to_string());
        if let Some(token) = &caller.token {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        sender.ready().await?;
        let answer = sender.send_request(request.body(Full::new(caller.body.clone()))?).await?;
        let status = answer.status();
        let body = answer.into_body().collect().await?.to_bytes();
        ensure!(status.is_success(), "{}: {status} {}", caller.path, String::from_utf8_lossy(&body));
        ensure!((caller.right)(&body), "{}: a wrong answer", caller.path);
        count.fetch_add(1, Ordering::Relaxed);
    }
    drop(sender);
    connection.await??;
    Ok(())
}
