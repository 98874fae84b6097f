use std::collections::VecDeque;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{Method, Response, StatusCode, response};
use http_body::Frame;
use http_body_util::BodyExt;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use wasmeter_nn::NnCtx;
use wasmeter_types::{Error, Limits, unix_ns};
use wasmeter_usage::{ModelUse, Outcome, RECORD_VERSION, UsageRecord};
use wasmtime::Store;
use wasmtime_wasi::WasiCtxBuilder;
use wasmtime_wasi_http::WasiHttpView;
use wasmtime_wasi_http::p2::bindings::ProxyPre;
use wasmtime_wasi_http::p2::bindings::http::types::{ErrorCode, Scheme};
use wasmtime_wasi_http::p2::body::HyperOutgoingBody;

use super::body::{BodyError, Chunk, ReplyBody};
use super::command::Start;
use super::figures::{Figures, Timing};
use super::guest_body::{GuestBody, Seen};
use super::verdict::{End, Stop, Verdict};
use super::{Inner, Invocation, WEBSOCKET, allow_list};
use crate::capability::{Caller, Hooks, Used};
use crate::engine::FUEL_SCHEDULE;
use crate::guest::{Guest, Metered};
use crate::loader::Pre;
use crate::logs::LogStream;
use crate::stdio::{GuestOutput, budget};

/// What `invoke` gets: at the end of the guest, or earlier if the answer is streamed.
pub(super) struct Answer {
    pub(super) answer: Result<Response<ReplyBody>, Error>,
    pub(super) figures: Option<Figures>,
}

/// Chunks between the invocation and the connection.
const STREAM_CHUNKS: usize = 4;
/// How long a caller may take over the last chunk, after the guest has ended and the usage is recorded.
const LAST_CHUNK: Duration = Duration::from_secs(30);

pub(super) type HeadResult = Result<Response<HyperOutgoingBody>, ErrorCode>;

/// The life of one invocation: run the guest, carry its answer, record what it used, let go of the last byte.
pub(super) async fn run(
    host: Arc<Inner>,
    invocation: Invocation,
    cancel: CancellationToken,
    reply: oneshot::Sender<Answer>,
) {
    let (start_ns, started) = (unix_ns(), Instant::now());
    let Invocation { id, tenant, revision, request, permit, figures, accepted, depth } = invocation;
    let limits = &revision.manifest.limits;
    let deadline = accepted + limits.deadline.0;
    let log = host.logs.of(&tenant, &revision.manifest.function.name);
    let caller = Arc::new(Caller {
        id,
        tenant: tenant.clone(),
        revision: revision.clone(),
        log: log.clone(),
        depth,
        deadline,
        outbound: Used::default(),
    });
    let bodiless = *request.method() == Method::HEAD;
    let (request, seen) = {
        let (parts, body) = request.into_parts();
        let (body, seen) = GuestBody::new(body, limits.request_body.0);
        (http::Request::from_parts(parts, body), seen)
    };
    let mut carrier = Carrier::new(reply, limits.response_body.0, &host, bodiless, figures);
    let mut timing = Timing { queue: started - accepted, ..Timing::default() };
    let mut spent = Spent::default();
    let ended = match host.loader.load(tenant.as_str(), revision.digest).await {
        Err(error) => {
            tracing::error!(invocation = %id, %error, "a deployed component cannot be loaded");
            Ended { error: Some(Error::internal()), ..Ended::default() }
        }
        Ok(loaded) => {
            let mut wasi = WasiCtxBuilder::new();
            let left = budget();
            wasi.allow_tcp(false).allow_udp(false).max_random_size(64 << 10);
            wasi.stderr(GuestOutput::new(log.clone(), id, LogStream::Stderr, left.clone()));
            for (key, value) in &revision.manifest.env {
                wasi.env(key, value);
            }
            let nn = NnCtx::new(
                host.models.clone(),
                host.resolver.clone(),
                allow_list(&revision),
                tenant.to_string(),
                deadline,
                host.options.nn,
            );
            let run = Run { host: &host, limits, deadline, cancel: &cancel };
            match &loaded.pre {
                Pre::Component(pre) => {
                    wasi.stdout(GuestOutput::new(log.clone(), id, LogStream::Stdout, left));
                    let hooks = Hooks::new(host.outbound.clone(), caller.clone());
                    let guest = Guest::new(wasi.build(), nn, hooks, limits.memory.0);
                    run.guest(pre, guest, request, &mut carrier, &mut timing, &mut spent).await
                }
                Pre::Command(pre) => {
                    let start = Start { pre, wasi, nn, manifest: &revision.manifest, request };
                    run.command(start, &mut carrier, &mut timing, &mut spent).await
                }
            }
        }
    };
    let verdict = match ended.error {
        Some(error) => Verdict { outcome: Outcome::Platform, error: Some(error), note: None },
        None => Verdict::of(End {
            result: ended.result,
            stop: ended.stop,
            status: carrier.status(),
            fault: spent.fault.as_ref(),
            request_too_large: seen.over().then_some(limits.request_body.0),
            request_slow: seen.slow(),
            memory_refused: spent.memory_refused,
            limits,
        }),
    };
    if let Some(note) = &verdict.note {
        note.lines().take(64).for_each(|line| log.push(id, LogStream::Platform, line));
    }
    let prices = host.recorder.prices();
    let mut record = UsageRecord {
        v: RECORD_VERSION,
        invocation: id,
        tenant: tenant.to_string(),
        function: Some(revision.manifest.function.name.to_string()),
        revision: Some(revision.id.clone()),
        outcome: verdict.outcome,
        status: verdict.error.as_ref().map_or(carrier.status_code(), |e| e.kind.status()),
        fuel: spent.fuel,
        fuel_schedule: FUEL_SCHEDULE.to_owned(),
        models: std::mem::take(&mut spent.models),
        tokens_in: 0,
        tokens_out: 0,
        ingress_bytes: seen.bytes(),
        egress_bytes: carrier.bytes,
        start_ns,
        // Not a second reading of the wall clock, which may have been set back meanwhile.
        end_ns: start_ns.saturating_add(u64::try_from(started.elapsed().as_nanos()).unwrap_or(u64::MAX)),
        price_book: prices.as_ref().map_or_else(String::new, |p| p.hash.clone()),
    };
    if verdict.error.is_some() && !carrier.streaming() {
        record.egress_bytes = 0;
    }
    // What the guest sent elsewhere left the platform, however the invocation ended.
    record.egress_bytes = record.egress_bytes.saturating_add(caller.outbound.sent());
    let kept = host.recorder.record(&record).await;
    drop(permit);
    let shown = Figures::new(&record, prices.as_deref(), timing);
    access_line(&record, &seen, timing);
    let end = match (kept, verdict.error) {
        (Ok(()), None) => Ok(()),
        (Ok(()), Some(error)) => Err(error),
        (Err(error), _) => {
            // Not recorded, so not billed: the caller must not get the answer either.
            tracing::error!(invocation = %id, %error, "an answer was withheld");
            Err(Error::internal())
        }
    };
    carrier.release(end, shown).await;
}

/// One line of the access log, and the counts of it that have no tenant.
fn access_line(record: &UsageRecord, seen: &Seen, timing: Timing) {
    metrics::counter!("wasmeter_invocations_total", "outcome" => record.outcome.as_str()).increment(1);
    metrics::counter!("wasmeter_fuel_total").increment(record.fuel);
    let seconds = (timing.queue + timing.instantiate + timing.run).as_secs_f64();
    metrics::histogram!("wasmeter_invocation_seconds").record(seconds);
    tracing::info!(
        target: "wasmeter::access",
        invocation = %record.invocation,
        tenant = record.tenant,
        function = record.function,
        revision = record.revision,
        status = record.status,
        outcome = ?record.outcome,
        fuel = record.fuel,
        device_ns = record.device_ns(),
        bytes_in = seen.bytes(),
        bytes_out = record.egress_bytes,
        queue_us = u64::try_from(timing.queue.as_micros()).unwrap_or(u64::MAX),
        instantiate_us = u64::try_from(timing.instantiate.as_micros()).unwrap_or(u64::MAX),
        run_us = u64::try_from(timing.run.as_micros()).unwrap_or(u64::MAX),
    );
}

/// What the store says at its death.
#[derive(Default)]
pub(super) struct Spent {
    fuel: u64,
    models: Vec<ModelUse>,
    fault: Option<wasmeter_nn::Fault>,
    memory_refused: bool,
}

#[derive(Default)]
pub(super) struct Ended {
    pub(super) result: Option<Result<(), wasmtime::Error>>,
    pub(super) stop: Option<Stop>,
    /// A failure of the platform before the guest ran.
    pub(super) error: Option<Error>,
}

pub(super) struct Run<'a> {
    host: &'a Inner,
    pub(super) limits: &'a Limits,
    deadline: Instant,
    cancel: &'a CancellationToken,
}

impl Run<'_> {
    async fn guest(
        &self,
        pre: &ProxyPre<Guest>,
        guest: Guest,
        request: http::Request<GuestBody>,
        carrier: &mut Carrier,
        timing: &mut Timing,
        spent: &mut Spent,
    ) -> Ended {
        let mut store = Store::new(pre.engine(), guest);
        let ready = self.prepare(&mut store);
        let (head_tx, head) = oneshot::channel::<HeadResult>();
        let secure = request.uri().scheme() == Some(&http::uri::Scheme::HTTPS);
        let scheme = if secure { Scheme::Https } else { Scheme::Http };
        let resources = ready.and_then(|()| {
            let mut http = store.data_mut().http();
            Ok((http.new_incoming_request(scheme, request)?, http.new_response_outparam(head_tx)?))
        });
        let (request, outparam) = match resources {
            Ok(resources) => resources,
            Err(error) => {
                tracing::error!(%error, "an invocation cannot be prepared");
                return Ended { error: Some(Error::internal()), ..Ended::default() };
            }
        };
        let began = Instant::now();
        let mut instantiated = None;
        let mut ended = {
            let call = async {
                let proxy = pre.instantiate_async(&mut store).await?;
                instantiated = Some(Instant::now());
                proxy.wasi_http_incoming_handler().call_handle(&mut store, request, outparam).await
            };
            self.carry(pin!(call), head, carrier).await
        };
        timing.instantiate = instantiated.unwrap_or_else(Instant::now) - began;
        timing.run = began.elapsed() - timing.instantiate;
        self.close(store, spent);
        if ended.stop.is_none() {
            ended.stop = carrier.drain().await;
        }
        ended
    }

    /// The death of the store, and what it says of itself. It holds the sending end of the body: what is left in the
    /// channel then is all there will be.
    pub(super) fn close<T: Metered>(&self, mut store: Store<T>, spent: &mut Spent) {
        spent.fuel = self.limits.fuel.saturating_sub(store.get_fuel().unwrap_or(0));
        store.data_mut().nn().settle();
        spent.models = store.data_mut().nn().uses();
        spent.fault = store.data_mut().nn().fault().cloned();
        spent.memory_refused = store.data_mut().memory().refused;
    }

    pub(super) fn prepare<T: Metered>(&self, store: &mut Store<T>) -> wasmtime::Result<()> {
        store.limiter(|guest| guest.memory());
        store.set_fuel(self.limits.fuel)?;
        store.fuel_async_yield_interval(Some(self.host.options.yield_interval))?;
        store.set_hostcall_fuel(usize::try_from(self.limits.memory.0).unwrap_or(usize::MAX));
        store.set_max_component_handles(10_000);
        Ok(())
    }

    /// Polls the guest and carries what it says, in one task, until it ends or is stopped.
    pub(super) async fn carry(
        &self,
        mut call: Pin<&mut (dyn Future<Output = wasmtime::Result<()>> + Send)>,
        mut head: oneshot::Receiver<HeadResult>,
        carrier: &mut Carrier,
    ) -> Ended {
        let mut no_head = false;
        let stop = |stop| Ended { stop: Some(stop), ..Ended::default() };
        let mut cancelled = pin!(self.cancel.cancelled());
        let mut deadline = pin!(sleep_until(self.deadline));
        loop {
            tokio::select! {
                biased;
                () = &mut cancelled => {
                    // The host's own stop cancels all; what it cuts off is not the caller's to pay.
                    let host_stops = self.host.stop.is_cancelled();
                    return stop(if host_stops { Stop::Shutdown } else { Stop::Disconnect });
                }
                () = &mut deadline => return stop(Stop::Deadline),
                answer = &mut head, if !carrier.has_head() && !no_head => match answer {
                    Ok(Ok(response)) => carrier.head(response),
                    // An error code or no answer at all: the end of the guest tells which.
                    _ => no_head = true,
                },
                step = carrier.step() => if let Err(reason) = step {
                    return stop(reason);
                },
                result = &mut call => {
                    if !carrier.has_head()
                        && !no_head
                        && let Ok(Ok(response)) = head.try_recv()
                    {
                        carrier.head(response);
                    }
                    return Ended { result: Some(result), ..Ended::default() };
                }
            }
        }
    }
}

/// Carries the guest's answer to the caller: holds it until the guest ends, or streams it with the last chunk held.
pub(super) struct Carrier {
    reply: Option<oneshot::Sender<Answer>>,
    parts: Option<response::Parts>,
    status: Option<StatusCode>,
    body: Option<HyperOutgoingBody>,
    /// Not yet given to the connection.
    held: VecDeque<Bytes>,
    held_bytes: usize,
    trailers: Option<http::HeaderMap>,
    out: Option<mpsc::Sender<Chunk>>,
    /// Body bytes that the guest wrote.
    bytes: u64,
    most: u64,
    hold_bytes: usize,
    hold_time: Duration,
    hold_until: Option<Instant>,
    /// HEAD: the head is the last byte, so it is never sent before the end.
    bodiless: bool,
    figures: bool,
    broken: bool,
    /// Each chunk goes when it is there; the end of the body is what waits for the usage.
    live: bool,
}

impl Carrier {
    fn new(reply: oneshot::Sender<Answer>, most: u64, host: &Inner, bodiless: bool, figures: bool) -> Self {
        Self {
            reply: Some(reply),
            parts: None,
            status: None,
            body: None,
            held: VecDeque::new(),
            held_bytes: 0,
            trailers: None,
            out: None,
            bytes: 0,
            most,
            hold_bytes: host.options.hold_bytes,
            hold_time: host.options.hold_time,
            hold_until: None,
            bodiless,
            figures,
            broken: false,
            live: false,
        }
    }

    fn has_head(&self) -> bool {
        self.status.is_some()
    }

    fn status(&self) -> Option<StatusCode> {
        if self.broken { None } else { self.status }
    }

    fn status_code(&self) -> u16 {
        self.status().map_or(0, |s| s.as_u16())
    }

    fn streaming(&self) -> bool {
        self.out.is_some()
    }

    fn head(&mut self, response: Response<HyperOutgoingBody>) {
        let (parts, body) = response.into_parts();
        let none = parts.status == StatusCode::NO_CONTENT || parts.status == StatusCode::NOT_MODIFIED;
        self.bodiless |= none;
        self.status = Some(parts.status);
        let kind = parts.headers.get(http::header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or("");
        let socket = kind == WEBSOCKET;
        // An event that waits for the next one would be late by as much as that one takes to come.
        self.live = socket || kind.trim_start().to_ascii_lowercase().starts_with("text/event-stream");
        self.parts = Some(parts);
        self.body = Some(body);
        if socket && !self.bodiless {
            self.stream();
        }
    }

    /// One step: takes a chunk from the guest, or gives one to the connection. Pending while there is neither.
    async fn step(&mut self) -> Result<(), Stop> {
        // All but the last chunk may go; the last one waits for the usage.
        let keep = usize::from(!self.live);
        if let Some(out) = self.out.as_ref().filter(|_| self.held.len() > keep) {
            let Ok(slot) = out.reserve().await else { return Err(Stop::Disconnect) };
            if let Some(chunk) = self.held.pop_front() {
                self.held_bytes -= chunk.len();
                slot.send(Ok(Frame::data(chunk)));
            }
            return Ok(());
        }
        let hold_until = self.hold_until.filter(|_| self.out.is_none() && !self.bodiless);
        let Some(body) = &mut self.body else { return std::future::pending().await };
        let frame = tokio::select! {
            frame = body.frame() => frame,
            () = sleep_until(hold_until.unwrap_or_else(Instant::now)), if hold_until.is_some() => {
                self.stream();
                return Ok(());
            }
        };
        self.take(frame)
    }

    fn take(&mut self, frame: Option<Result<Frame<Bytes>, wasmtime_wasi_http::Error>>) -> Result<(), Stop> {
        match frame {
            None => self.body = None,
            Some(Err(_)) => {
                self.body = None;
                self.broken = true;
            }
            Some(Ok(frame)) => match frame.into_data() {
                Err(frame) => self.trailers = frame.into_trailers().ok(),
                Ok(data) => return self.data(data),
            },
        }
        Ok(())
    }

    fn data(&mut self, data: Bytes) -> Result<(), Stop> {
        self.bytes = self.bytes.saturating_add(data.len() as u64);
        if self.bytes > self.most {
            return Err(Stop::ResponseTooLarge(self.most));
        }
        if self.bodiless || data.is_empty() {
            return Ok(());
        }
        self.hold_until.get_or_insert_with(|| Instant::now() + self.hold_time);
        self.held_bytes += data.len();
        self.held.push_back(data);
        if self.out.is_none() && self.held_bytes > self.hold_bytes {
            self.stream();
        }
        Ok(())
    }

    /// Gives up holding: the head goes now, without the figures.
    fn stream(&mut self) {
        let (Some(mut parts), Some(reply)) = (self.parts.take(), self.reply.take()) else { return };
        let (out, chunks) = mpsc::channel(STREAM_CHUNKS);
        if self.figures {
            parts.headers.insert(http::header::TRAILER, http::HeaderValue::from_static(Figures::TRAILERS));
        }
        let answer = Ok(Response::from_parts(parts, ReplyBody::stream(chunks)));
        // If the caller has left, the cancel token says so.
        let _ = reply.send(Answer { answer, figures: None });
        self.out = Some(out);
    }

    /// After the store's death: the rest of the body, which the channel bounds.
    pub(super) async fn drain(&mut self) -> Option<Stop> {
        while let Some(body) = &mut self.body {
            let frame = body.frame().await;
            if let Err(stop) = self.take(frame) {
                return Some(stop);
            }
        }
        None
    }

    /// The usage is recorded: the caller may have the end.
    async fn release(mut self, end: Result<(), Error>, figures: Figures) {
        let Some(reply) = self.reply.take() else {
            let Some(out) = self.out.take() else { return };
            let give = self.finish_stream(&out, end, &figures);
            // A caller that does not read keeps its connection, not this task.
            let _ = tokio::time::timeout(LAST_CHUNK, give).await;
            return;
        };
        let answer = match (end, self.parts.take()) {
            (Err(error), _) => Err(error),
            (Ok(()), None) => Err(Error::internal()),
            (Ok(()), Some(mut parts)) => {
                // The whole body is here: its length is what was written.
                if !self.bodiless {
                    parts.headers.remove(http::header::CONTENT_LENGTH);
                }
                Ok(Response::from_parts(parts, ReplyBody::whole(self.joined())))
            }
        };
        let _ = reply.send(Answer { answer, figures: Some(figures) });
    }

    fn joined(&mut self) -> Bytes {
        if self.held.len() == 1 {
            return self.held.pop_front().unwrap_or_default();
        }
        let mut bytes = BytesMut::with_capacity(self.held_bytes);
        self.held.drain(..).for_each(|chunk| bytes.extend_from_slice(&chunk));
        bytes.freeze()
    }

    async fn finish_stream(&mut self, out: &mpsc::Sender<Chunk>, end: Result<(), Error>, figures: &Figures) {
        if let Err(error) = end {
            // The head is gone; only a body that breaks off can tell.
            let Error { kind, message, .. } = error;
            let _ = out.send(Err(BodyError::Failed { kind, message })).await;
            return;
        }
        while let Some(chunk) = self.held.pop_front() {
            if out.send(Ok(Frame::data(chunk))).await.is_err() {
                return;
            }
        }
        let mut trailers = self.trailers.take().unwrap_or_default();
        if self.figures {
            figures.write(&mut trailers);
        }
        if !trailers.is_empty() {
            let _ = out.send(Ok(Frame::trailers(trailers))).await;
        }
    }
}
