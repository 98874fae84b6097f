use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream};
use http::{HeaderValue, header};
use serde::{Deserialize, Serialize};
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use wasmeter_types::unix_ns;

use crate::error::{Answer, ErrorBody};
use crate::extract::{Asked, Caller, Segments};
use crate::functions::list::find;
use crate::shared::Shared;
use crate::{LogLine, LogStream};

pub(crate) fn routes() -> OpenApiRouter<Shared> {
    OpenApiRouter::new().routes(routes!(logs))
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct LogQuery {
    /// Go on with every new line until the client leaves.
    #[serde(default)]
    follow: bool,
}

/// What the function wrote lately, as NDJSON: `{time, invocation, stream, level?, text}` a line.
#[utoipa::path(get, path = "/api/v1/tenants/{tenant}/functions/{function}/logs", tag = "functions",
    params(("tenant" = String, Path, description = "tenant"), ("function" = String, Path, description = "function"),
        LogQuery),
    responses((status = 200, body = String, content_type = "application/x-ndjson"),
        (status = "default", body = ErrorBody)))]
async fn logs(
    State(shared): State<Shared>,
    caller: Caller,
    Segments((tenant, function)): Segments<(String, String)>,
    Asked(query): Asked<LogQuery>,
) -> Answer<Response> {
    let (tenant, function, _) = find(&shared, &caller, &tenant, &function)?;
    if !query.follow {
        let lines = shared.deps.logs.tail(&tenant, &function);
        let mut body = Vec::new();
        lines.iter().for_each(|l| body.extend_from_slice(&line(l)));
        return Ok(ndjson(Body::from(body)));
    }
    let permit = shared.follower()?;
    let (lines, receiver) = shared.deps.logs.follow(&tenant, &function);
    let kept = stream::iter(lines).map(|l| line(&l));
    let lines = kept.chain(new_lines(receiver)).map(move |bytes| {
        let _ = &permit;
        Ok::<_, std::convert::Infallible>(bytes)
    });
    Ok(ndjson(Body::from_stream(lines)))
}

fn new_lines(receiver: Receiver<LogLine>) -> impl Stream<Item = Bytes> + Send {
    stream::unfold(receiver, |mut receiver| async move {
        let next = match receiver.recv().await {
            Ok(next) => next,
            Err(RecvError::Lagged(n)) => LogLine {
                time_ns: unix_ns(),
                invocation: None,
                stream: LogStream::Platform,
                level: None,
                text: format!("{n} lines were skipped: the reader of this log is too slow"),
            },
            Err(RecvError::Closed) => return None,
        };
        Some((line(&next), receiver))
    })
}

/// One line of NDJSON.
pub(crate) fn line<T: Serialize>(value: &T) -> Bytes {
    let mut bytes = serde_json::to_vec(value).unwrap_or_default();
    bytes.push(b'\n');
    bytes.into()
}

/// An answer of NDJSON.
pub(crate) fn ndjson(body: Body) -> Response {
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
