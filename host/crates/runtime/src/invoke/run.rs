use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;

use http::{Method, Response};
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use wasmeter_admission::Purse;
use wasmeter_nn::NnCtx;
use wasmeter_types::{Digest, Error, ErrorKind, InvocationId, Limits, unix_ns};
use wasmeter_usage::{ModelUse, Outcome, RECORD_VERSION, UsageRecord};
use wasmtime::Store;
use wasmtime_wasi::WasiCtxBuilder;
use wasmtime_wasi_http::p2::bindings::http::types::ErrorCode;
use wasmtime_wasi_http::p2::body::HyperOutgoingBody;

use super::access::access_line;
use super::body::ReplyBody;
use super::carrier::Carrier;
use super::command::Answering;
use super::figures::{Figures, Timing};
use super::guest_body::GuestBody;
use super::verdict::{End, Stop, Verdict};
use super::{Inner, Invocation, allow_list, nn_limits};
use crate::capability::{Caller, KeyValueUsed, Used};
use crate::engine::FUEL_SCHEDULE;
use crate::guest::{Guest, Metered, Refused, size};
use crate::guest_core::CoreGuest;
use crate::guests::{Fate, Told};
use crate::loader::{LoadError, Loaded, Pre};
use crate::logs::LogStream;
use crate::random::random;
use crate::stdio::{GuestOutput, LogBudget};
use crate::tape::TapedClock;
use crate::toll::{Collector, Toll};

/// What `invoke` gets: at the end of the guest, or earlier if the answer is streamed.
pub(super) struct Answer {
    pub(super) answer: Result<Response<ReplyBody>, Error>,
    pub(super) figures: Option<Figures>,
}

pub(super) type HeadResult = Result<Response<HyperOutgoingBody>, ErrorCode>;

/// The life of one invocation: run the guest, carry its answer, record what it used, let go of the last byte.
pub(super) async fn run(
    host: Arc<Inner>,
    invocation: Invocation,
    loaded: Option<Arc<Loaded>>,
    fate: Arc<Fate>,
    cancel: CancellationToken,
    reply: oneshot::Sender<Answer>,
) {
    let (start_ns, started) = (unix_ns(), Instant::now());
    let Invocation { id, tenant, revision, request, permit, purse, figures, accepted, depth, tape } =
        invocation;
    let purse = purse.map(Arc::new);
    let limits = &revision.manifest.limits;
    let deadline = accepted + limits.deadline.0;
    let log = host.logs.of(&tenant, &revision.manifest.function.name);
    let fuel = purse.as_ref().map_or(limits.fuel, |purse| purse.fuel());
    let caller = Arc::new(Caller {
        id,
        tenant: tenant.clone(),
        revision: revision.clone(),
        log: log.clone(),
        depth,
        deadline,
        fuel,
        prices: host.recorder.prices(),
        log_budget: LogBudget::default(),
        outbound: Used::default(),
        keyvalue: KeyValueUsed::default(),
        toll: Toll::default(),
        tape,
    });
    let bodiless = *request.method() == Method::HEAD;
    let (request, seen) = {
        let (parts, body) = request.into_parts();
        if let Some(tape) = &caller.tape {
            tape.asked(&parts);
        }
        let (body, seen) = GuestBody::new(body, limits.request_body.0);
        (http::Request::from_parts(parts, body), seen)
    };
    let mut carrier = Carrier::new(reply, limits, &host, bodiless, figures);
    let mut timing = Timing { queue: started - accepted, ..Timing::default() };
    let mut spent = Spent::default();
    let run = Run { host: &host, limits, fuel, deadline, cancel: &cancel };
    let loaded = match loaded {
        Some(loaded) => Ok(loaded),
        None => match run.load(id, tenant.as_str(), revision.digest).await {
            Ok(_) if !fate.begin() => {
                Err(Ended { error: Some(Verdict::told(Told::Unready, limits)), ..Ended::default() })
            }
            loaded => loaded,
        },
    };
    let mut ended = match loaded {
        Err(ended) => ended,
        Ok(loaded) => {
            let mut wasi = WasiCtxBuilder::new();
            let left = caller.log_budget.clone();
            wasi.allow_tcp(false).allow_udp(false);
            random(&mut wasi, &caller);
            if let Some(tape) = &caller.tape {
                wasi.wall_clock(TapedClock(tape.clone())).monotonic_clock(TapedClock(tape.clone()));
                loaded.pre.judge(tape);
            }
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
                nn_limits(revision.manifest.models.limits()),
                host.quotas.clone(),
            )
            .paid_by(purse.clone());
            let mut books = Books { carrier: &mut carrier, timing: &mut timing, spent: &mut spent };
            match &loaded.pre {
                Pre::Component(pre) => {
                    wasi.stdout(GuestOutput::new(log.clone(), id, LogStream::Stdout, left));
                    let guest = Guest::new(wasi.build(), nn, host.capabilities.clone(), caller.clone());
                    run.component(pre, guest, request, &mut books).await
                }
                Pre::Service(pre) => {
                    wasi.stdout(GuestOutput::new(log.clone(), id, LogStream::Stdout, left));
                    let guest = Guest::new(wasi.build(), nn, host.capabilities.clone(), caller.clone());
                    run.service(pre, guest, request, &mut books).await
                }
                Pre::Command(pre) => {
                    let answering = Answering::to(request, &revision.manifest, &mut wasi);
                    let guest = Guest::new(wasi.build(), nn, host.capabilities.clone(), caller.clone());
                    run.command(pre, guest, answering, &mut books).await
                }
                Pre::CoreCommand(pre) => {
                    let answering = Answering::to(request, &revision.manifest, &mut wasi);
                    let guest = CoreGuest::new(wasi, nn, caller.clone());
                    run.core_command(pre, guest, answering, &mut books).await
                }
            }
        }
    };
    // Past its deadline, or told so already: what the guest still did makes no answer.
    match (fate.end(), &mut ended.error) {
        (Some(told), Some(error)) => *error = Verdict::told(told, limits),
        (Some(Told::Late), None) if ended.stop != Some(Stop::Shutdown) => ended.stop = Some(Stop::Deadline),
        _ => {}
    }
    let verdict = match ended.error {
        Some(error) => Verdict { outcome: Outcome::Platform, error: Some(error), note: None },
        None => Verdict::of(End {
            result: ended.result,
            stop: ended.stop,
            status: carrier.status(),
            unfinished: carrier.unfinished(),
            fault: spent.fault.as_ref(),
            request_too_large: seen.over().then_some(limits.request_body.0),
            request_slow: seen.slow(),
            refused: spent.refused,
            headers: carrier.headers(),
            limits,
            purse: purse.as_deref(),
        }),
    };
    if let Some(note) = &verdict.note {
        note.lines().take(64).for_each(|line| log.push(id, LogStream::Platform, line));
    }
    let prices = caller.prices.clone();
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
        draw: purse.as_deref().and_then(Purse::draw),
    };
    if verdict.error.is_some() && !carrier.streaming() {
        record.egress_bytes = 0;
    }
    // What the guest sent elsewhere left the platform, however the invocation ended.
    record.egress_bytes = record.egress_bytes.saturating_add(caller.outbound.sent());
    let kept = host.recorder.record(&record).await;
    if let (Some(tape), Ok(())) = (&caller.tape, &kept) {
        if carrier.streaming() {
            tape.doubt("its answer was streamed while it ran");
        }
        let recording = tape.recording(&record, &revision, fuel, prices.as_deref());
        recording.into_iter().for_each(|recording| host.recorder.keep(recording));
    }
    if let (Some(purse), Ok(())) = (&purse, &kept) {
        purse.settle(prices.as_ref().and_then(|p| p.cost(&record)).unwrap_or_default());
    }
    drop((permit, purse));
    timing.host_calls = caller.toll.calls();
    let shown = carrier.shows_figures().then(|| Figures::new(&record, prices.as_deref(), timing));
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

/// What is written down while the guest runs.
pub(super) struct Books<'a> {
    pub(super) carrier: &'a mut Carrier,
    pub(super) timing: &'a mut Timing,
    pub(super) spent: &'a mut Spent,
}

/// What the store says at its death.
#[derive(Default)]
pub(super) struct Spent {
    fuel: u64,
    models: Vec<ModelUse>,
    fault: Option<wasmeter_nn::Fault>,
    refused: Refused,
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
    /// The limit, or what is paid for.
    fuel: u64,
    deadline: Instant,
    cancel: &'a CancellationToken,
}

/// What the end of an answer's body is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum BodyEnd {
    /// A call of the guest's: what has none when the guest ends is not whole.
    Said,
    /// The death of the store at the latest, or of what the body came from.
    Store,
}

/// A guest's call, from its instantiation to its end; the mark is when it was instantiated.
pub(super) type Call<'a> = Pin<Box<dyn Future<Output = wasmtime::Result<()>> + Send + 'a>>;

impl Run<'_> {
    /// The component, if it is there before the deadline. Nobody is charged for waiting.
    async fn load(&self, id: InvocationId, tenant: &str, digest: Digest) -> Result<Arc<Loaded>, Ended> {
        let error = |error| Err(Ended { error: Some(error), ..Ended::default() });
        let loaded = tokio::select! {
            biased;
            () = sleep_until(self.deadline) => {
                return error(Verdict::told(Told::Unready, self.limits));
            }
            () = self.cancel.cancelled() => {
                return Err(Ended { stop: Some(self.cancelled()), ..Ended::default() });
            }
            loaded = self.host.loader.load(tenant, digest) => loaded,
        };
        match loaded {
            Ok(loaded) => Ok(loaded),
            // Its artifact had gone, and it waits behind uploads to be compiled again.
            Err(LoadError::Busy(reason) | LoadError::Share(reason)) => {
                error(Error::new(ErrorKind::Overloaded, reason))
            }
            Err(broken) => {
                tracing::error!(invocation = %id, error = %broken, "a deployed component cannot be loaded");
                error(Error::internal())
            }
        }
    }

    /// Runs a guest under the limits, whatever its kind, to the death of its store.
    pub(super) async fn drive<T: Metered, P: Sync>(
        &self,
        mut store: Store<T>,
        pre: &P,
        head: oneshot::Receiver<HeadResult>,
        end: BodyEnd,
        books: &mut Books<'_>,
        call: impl for<'s> FnOnce(&'s mut Store<T>, &'s P, &'s mut Option<Instant>) -> Call<'s>,
    ) -> Ended {
        let began = Instant::now();
        let mut instantiated = None;
        let mut ended = {
            let call = call(&mut store, pre, &mut instantiated);
            self.carry(call, head, books.carrier).await
        };
        books.timing.instantiate = instantiated.unwrap_or_else(Instant::now) - began;
        books.timing.run = began.elapsed() - books.timing.instantiate;
        if end == BodyEnd::Said && ended.stop.is_none() {
            ended.stop = books.carrier.guest_ended();
        }
        // The store holds the sending end of the body: what is left in the channel then is all there will be.
        self.close(store, books.spent);
        if ended.stop.is_none() {
            // Of WASI 0.3, a body may be the request's own, and as slow as its caller.
            ended.stop = tokio::select! {
                biased;
                stop = books.carrier.drain() => stop,
                () = self.cancel.cancelled() => Some(self.cancelled()),
                () = sleep_until(self.deadline) => Some(Stop::Deadline),
            };
        }
        ended
    }

    /// Why the token was cancelled: the host's own stop cancels all, and what it cuts off is not the caller's to pay.
    fn cancelled(&self) -> Stop {
        if self.host.stop.is_cancelled() { Stop::Shutdown } else { Stop::Disconnect }
    }

    /// The death of the store, and what it says of itself.
    fn close<T: Metered>(&self, mut store: Store<T>, spent: &mut Spent) {
        let (toll, gate) = store.data_mut().toll();
        let owed = gate.owed(toll);
        let left = store.get_fuel().unwrap_or(0).saturating_sub(owed);
        spent.fuel = self.fuel.saturating_sub(left);
        store.data_mut().nn().settle();
        spent.models = store.data_mut().nn().uses();
        spent.fault = store.data_mut().nn().fault().cloned();
        spent.refused = store.data_mut().room().refused;
    }

    pub(super) fn prepare<T: Metered>(&self, store: &mut Store<T>) -> wasmtime::Result<()> {
        let bounds = self.limits.bounds();
        store.limiter(|guest| guest.room());
        store.set_fuel(self.fuel)?;
        store.fuel_async_yield_interval(Some(self.host.options.yield_interval))?;
        store.call_hook_async(Collector);
        store.set_hostcall_fuel(size(bounds.host_call_bytes));
        store.set_max_component_handles(size(bounds.handles.into()));
        Ok(())
    }

    /// Polls the guest and carries what it says, in one task, until it ends or is stopped.
    ///
    /// The guest comes first, so that a short one registers no timer; it yields often enough for the rest.
    async fn carry(
        &self,
        mut call: Call<'_>,
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
                // By the clock, since the timer may be late on a busy machine; and before the guest gets another turn.
                () = poll_fn(|_| if Instant::now() < self.deadline { Poll::Pending } else { Poll::Ready(()) }) => {
                    return stop(Stop::Deadline);
                }
                result = &mut call => {
                    if !carrier.has_head()
                        && !no_head
                        && let Ok(Ok(response)) = head.try_recv()
                    {
                        carrier.head(response);
                    }
                    return Ended { result: Some(result), ..Ended::default() };
                }
                () = &mut cancelled => return stop(self.cancelled()),
                () = &mut deadline => return stop(Stop::Deadline),
                answer = &mut head, if !carrier.has_head() && !no_head => match answer {
                    Ok(Ok(response)) => carrier.head(response),
                    // An error code or no answer at all: the end of the guest tells which.
                    _ => no_head = true,
                },
                step = carrier.step() => if let Err(reason) = step {
                    return stop(reason);
                },
            }
        }
    }
}
