use std::convert::Infallible;
use std::pin::Pin;
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use futures_util::stream;
use http::{HeaderMap, StatusCode, header};
use serde::Serialize;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use utoipa::ToSchema;

use super::deploy::DeployAnswer;
use crate::deps::DeployStage;
use crate::error::{Answer, ErrorBody};
use crate::logs::{line, ndjson};

/// Between two lines of a stage that lasts.
const PAUSE: Duration = Duration::from_secs(1);

/// One line about a deployment under way; `done` or `failed` is the last.
#[derive(Serialize, ToSchema)]
#[serde(tag = "state", rename_all = "snake_case")]
#[schema(as = DeployProgress)]
pub(crate) enum ProgressLine {
    /// It is read.
    Checking,
    /// It waits for its turn at the compiler.
    Queued {
        /// Turns until its own, 1 is the next.
        place: usize,
    },
    /// It is compiled.
    Compiling {
        /// Since when.
        seconds: u64,
    },
    /// It is deployed.
    Done {
        /// What the status would have been: 201, or 200 for a revision that was there.
        status: u16,
        /// What the answer would have been.
        revision: Box<DeployAnswer>,
    },
    /// It is refused.
    Failed {
        /// What the status would have been.
        status: u16,
        /// What the answer would have been.
        error: ErrorBody,
    },
}

/// What a deployment ends with.
pub(super) type Deployed = Answer<(StatusCode, DeployAnswer)>;

/// Whether the client asks for lines instead of one answer at the end.
pub(super) fn wanted(headers: &HeaderMap) -> bool {
    let accepted = headers.get_all(header::ACCEPT).iter().filter_map(|v| v.to_str().ok());
    let mut types = accepted.flat_map(|v| v.split(',')).filter_map(|t| t.split(';').next());
    types.any(|t| t.trim().eq_ignore_ascii_case("application/x-ndjson"))
}

/// The deployment's lines. It goes on only while somebody reads them, as it would without them.
pub(super) fn answer(
    work: impl Future<Output = Deployed> + Send + 'static,
    stage: watch::Receiver<DeployStage>,
) -> Response {
    let progress = Progress { work: Box::pin(work), stage, compiling: None };
    ndjson(Body::from_stream(stream::unfold(Some(progress), next)))
}

struct Progress {
    work: Pin<Box<dyn Future<Output = Deployed> + Send>>,
    stage: watch::Receiver<DeployStage>,
    /// Since when.
    compiling: Option<Instant>,
}

async fn next(progress: Option<Progress>) -> Option<(Result<Bytes, Infallible>, Option<Progress>)> {
    let mut progress = progress?;
    tokio::select! {
        biased;
        done = &mut progress.work => return Some((Ok(line(&last(done))), None)),
        // The sender lives as long as the work.
        _ = progress.stage.changed() => {}
        () = sleep(PAUSE) => {}
    }
    let now = match *progress.stage.borrow_and_update() {
        DeployStage::Checking => ProgressLine::Checking,
        DeployStage::Queued { place } => ProgressLine::Queued { place },
        DeployStage::Compiling => {
            let since = *progress.compiling.get_or_insert_with(Instant::now);
            ProgressLine::Compiling { seconds: since.elapsed().as_secs() }
        }
    };
    Some((Ok(line(&now)), Some(progress)))
}

fn last(done: Deployed) -> ProgressLine {
    match done {
        Ok((status, revision)) => {
            ProgressLine::Done { status: status.as_u16(), revision: Box::new(revision) }
        }
        Err(failure) => {
            ProgressLine::Failed { status: failure.0.kind.status(), error: ErrorBody::of(&failure.0) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_asked_for() {
        let asked = |accept: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT, accept.parse().unwrap());
            wanted(&headers)
        };
        assert!(asked("application/x-ndjson") && asked("text/html, Application/X-NDJSON;q=0.9"));
        assert!(!asked("*/*") && !asked("application/json") && !wanted(&HeaderMap::new()));
    }
}
