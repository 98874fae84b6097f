//! A WebSocket in front of a function: one invocation, whose request body is the client's messages and whose response
//! body is the guest's. The guest's head decides: with the type [`wasmeter_runtime::WEBSOCKET`] the connection is
//! upgraded, any other answer is an answer.

mod frame;
mod pump;
mod upgrade;

use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::uri::Scheme;
use http::{Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio::sync::{Semaphore, mpsc};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use wasmeter_runtime::{BodyError, Invocation, WEBSOCKET};
use wasmeter_types::{ByteSize, Error, ErrorKind, InvocationId, WebsocketSection};

use crate::answer::{self, Body};
use crate::budget::purse;
use crate::route::Target;
use crate::server::Deps;
use crate::trigger::{admit, for_guest};
use crate::walls;
use pump::Pump;

/// Messages between the connection and the guest.
const QUEUE: usize = 4;

/// The open WebSockets of the listener. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Sockets {
    slots: Arc<Semaphore>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Sockets {
    /// At most `most`; `stop` closes them with 1001.
    pub(crate) fn new(most: usize, stop: CancellationToken) -> Self {
        Self { slots: Arc::new(Semaphore::new(most)), tasks: TaskTracker::new(), stop }
    }

    /// Waits until all are closed.
    pub(crate) async fn drained(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// A request for a WebSocket, from its head to the answer; what follows runs in a task of its own.
    pub(crate) async fn open(
        &self,
        deps: &Deps,
        scheme: Scheme,
        target: Target,
        request: Request<Incoming>,
    ) -> Response<Body> {
        let id = InvocationId::new();
        let mut response = match self.invoke(deps, id, scheme, &target, request).await {
            Ok(response) => response,
            Err(error) => answer::error(&error, Some(id)),
        };
        answer::set_invocation(&mut response, id);
        response
    }

    async fn invoke(
        &self,
        deps: &Deps,
        id: InvocationId,
        scheme: Scheme,
        target: &Target,
        mut request: Request<Incoming>,
    ) -> Result<Response<Body>, Error> {
        let accepted = tokio::time::Instant::now();
        let accept = upgrade::accept_key(&request)?;
        let admitted = admit(deps, id, target, request.headers())?;
        let slot = self.slots.clone().try_acquire_owned().map_err(|_| {
            Error::new(ErrorKind::Overloaded, "the host is at its limit of WebSockets: retry later")
        })?;
        let tenant = &target.tenant;
        let purse = purse(deps, tenant, &admitted.revision, &admitted.caller, request.headers()).await?;
        let limits = admitted.revision.manifest.websocket.clone().unwrap_or_default();
        let figures = admitted.caller.is_tenant();
        // The deadline of a connection is not that of a call.
        let mut revision = (*admitted.revision).clone();
        let answer_within = std::mem::replace(&mut revision.manifest.limits.deadline, limits.deadline).0;
        let upgraded = hyper::upgrade::on(&mut request);
        let (input, messages) = mpsc::channel::<Bytes>(QUEUE);
        let messages = futures_util::stream::unfold(messages, |mut messages| async move {
            Some((messages.recv().await?, messages))
        });
        let body = StreamBody::new(messages.map(|bytes| Ok::<_, BodyError>(Frame::data(bytes))));
        let (mut parts, _) = request.into_parts();
        upgrade::strip(&mut parts.headers);
        parts.headers.insert(CONTENT_TYPE, HeaderValue::from_static(WEBSOCKET));
        let is_token = |value: &HeaderValue| deps.tokens.named_in(value);
        let request = for_guest(Request::from_parts(parts, body.boxed_unsync()), scheme, target, is_token)?;
        let invocation = Invocation {
            id,
            tenant: target.tenant.clone(),
            revision: Arc::new(revision),
            request,
            permit: admitted.permit,
            purse,
            figures,
            accepted,
            depth: admitted.depth,
            // Its messages come when they come.
            tape: None,
        };
        // A guest that reads before it answers would wait for messages that nobody can send yet.
        let invoked = tokio::time::timeout_at(accepted + answer_within, deps.invoker.invoke(invocation));
        let Ok(reply) = invoked.await else {
            let message = "the function did not take or refuse the WebSocket within its limits.deadline";
            return Err(Error::new(ErrorKind::Deadline, message));
        };
        let (mut parts, body) = reply.answer?.into_parts();
        walls::outbound(&mut parts.headers, &target.place);
        if parts.headers.get(CONTENT_TYPE).is_none_or(|t| t != WEBSOCKET) {
            let mut response = Response::from_parts(parts, answer::boxed(body));
            if let Some(shown) = reply.figures.filter(|_| figures) {
                shown.write(response.headers_mut());
            }
            return Ok(response);
        }
        let config = config(&limits);
        let stop = self.stop.clone();
        self.tasks.spawn(async move {
            // A client that leaves before it is switched over leaves the guest, too.
            let Ok(upgraded) = upgraded.await else { return };
            let io = TokioIo::new(upgraded);
            let socket = WebSocketStream::from_raw_socket(io, Role::Server, Some(config)).await;
            Pump::new(socket, body, input, limits).run(stop).await;
            drop(slot);
        });
        Ok(upgrade::switching(accept, parts.headers))
    }
}

fn config(limits: &WebsocketSection) -> WebSocketConfig {
    let ByteSize(most) = limits.message;
    let most = usize::try_from(most).unwrap_or(usize::MAX);
    WebSocketConfig::default()
        .max_message_size(Some(most))
        .max_frame_size(Some(most))
        .read_buffer_size(16 << 10)
        .write_buffer_size(0)
        .max_write_buffer_size(most.saturating_mul(2).saturating_add(64 << 10))
}
