use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Wake, Waker};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::Pace;
use super::threads::{Shared, cpu_time};

/// The life of one invocation, from its guest's start to its last byte.
pub(crate) type Life = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A life, and who polls it: first its caller, on the connection's thread; from the first long turn on, or when the
/// caller lets go of it, the guest threads. Never both.
pub(super) struct Task {
    life: Mutex<Option<Life>>,
    state: Mutex<State>,
    pub(super) tenant: Arc<str>,
    pub(super) deadline: Instant,
    /// Of its component and tenant; none if the component was not in memory.
    pace: Option<Arc<Pace>>,
    shared: Arc<Shared>,
}

struct State {
    now: Now,
    owner: Owner,
    /// Time in polls, of one clock only.
    spent: Duration,
    clock: Clock,
    /// Its first poll was on a guest thread.
    began_there: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Now {
    /// Waits to be woken.
    Idle,
    /// Was woken and waits to be polled.
    Ready,
    Polled,
    /// Was woken while it is polled: it yielded, or has news.
    PolledAndWoken,
    Done,
}

/// What its polls on the caller's thread are timed by.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Clock {
    /// The clock on the wall, until a first turn is over by it.
    Wall,
    /// The processor from then on: the thread may have waited for it.
    Processor,
    /// The processor, from the start.
    Timed,
}

enum Owner {
    Caller(Option<Waker>),
    Guests,
}

/// The time of a poll, by the clock on the wall or by the processor.
enum Stopwatch {
    Wall(Instant),
    Processor(Duration),
}

impl Stopwatch {
    fn start(clock: Clock) -> Self {
        if clock == Clock::Wall { Self::Wall(Instant::now()) } else { Self::Processor(cpu_time()) }
    }

    fn elapsed(&self) -> Duration {
        match self {
            Self::Wall(began) => began.elapsed(),
            Self::Processor(before) => cpu_time().saturating_sub(*before),
        }
    }
}

/// How a caller's poll left it.
#[derive(PartialEq, Eq)]
pub(super) enum Left {
    /// It waits; the caller will be woken.
    Waiting,
    /// It is over, or with the guest threads: the caller need not poll it again.
    Gone,
}

impl Task {
    pub(super) fn new(
        shared: Arc<Shared>,
        tenant: Arc<str>,
        deadline: Instant,
        pace: Option<Arc<Pace>>,
        life: Life,
    ) -> Arc<Self> {
        let timed = pace.as_ref().is_some_and(|pace| pace.times_next());
        let state = State {
            now: Now::Ready,
            owner: Owner::Caller(None),
            spent: Duration::ZERO,
            clock: if timed { Clock::Timed } else { Clock::Wall },
            began_there: false,
        };
        Arc::new(Self {
            life: Mutex::new(Some(life)),
            state: Mutex::new(state),
            tenant,
            deadline,
            pace,
            shared,
        })
    }

    /// One poll; true when it is over. A panic ends it as a drop does: whoever waits for its answer is told.
    fn poll_life(self: &Arc<Self>) -> bool {
        let waker = Waker::from(self.clone());
        let mut life = self.life.lock();
        let Some(future) = life.as_mut() else { return true };
        let poll = catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(&mut Context::from_waker(&waker))));
        let over = match poll {
            Ok(poll) => poll.is_ready(),
            Err(_) => {
                tracing::error!("an invocation panicked; see the message above it");
                true
            }
        };
        if over {
            *life = None;
        }
        over
    }

    /// Polls on the caller's thread, for as long as a first turn may be. One that is over by the clock on the wall may
    /// have been spent waiting for the processor, and then guest threads, which are below this one, would only make it
    /// wait more: such a life gets a turn by the processor's clock.
    pub(super) fn poll_by_caller(self: &Arc<Self>, cx: &mut Context<'_>) -> Left {
        let mut clock;
        {
            let mut state = self.state.lock();
            match &mut state.owner {
                Owner::Guests => return Left::Gone,
                Owner::Caller(Some(known)) if known.will_wake(cx.waker()) => {}
                Owner::Caller(known) => *known = Some(cx.waker().clone()),
            }
            match state.now {
                Now::Ready => state.now = Now::Polled,
                Now::Done => return Left::Gone,
                Now::Idle | Now::Polled | Now::PolledAndWoken => return Left::Waiting,
            }
            clock = state.clock;
        }
        loop {
            let stopwatch = Stopwatch::start(clock);
            let over = self.poll_life();
            let mut state = self.state.lock();
            state.spent += stopwatch.elapsed();
            let soon = state.spent < self.shared.first_turn();
            if over {
                state.now = Now::Done;
                match &self.pace {
                    Some(pace) if clock == Clock::Timed => pace.ended(soon),
                    Some(pace) if !soon => pace.seemed_long(),
                    _ => {}
                }
                return Left::Gone;
            }
            if !soon && clock == Clock::Wall {
                if let Some(pace) = &self.pace {
                    pace.seemed_long();
                }
                clock = Clock::Processor;
                (state.clock, state.spent) = (clock, Duration::ZERO);
            } else if !soon && state.now == Now::PolledAndWoken {
                if let Some(pace) = &self.pace {
                    pace.was_long();
                }
                self.give_to_guests(&mut state);
                return Left::Gone;
            }
            if state.now == Now::Polled {
                state.now = Now::Idle;
                return Left::Waiting;
            }
            state.now = Now::Polled;
        }
    }

    /// The caller polls no more; what is left is for the guest threads.
    pub(super) fn leave(self: &Arc<Self>) {
        let mut state = self.state.lock();
        match (&state.owner, state.now) {
            (Owner::Guests, _) | (_, Now::Done) => {}
            (Owner::Caller(_), now) => {
                state.began_there = now != Now::Idle && state.spent.is_zero();
                if state.clock == Clock::Wall {
                    state.spent = Duration::ZERO;
                }
                if now == Now::Idle {
                    state.owner = Owner::Guests;
                } else {
                    self.give_to_guests(&mut state);
                }
            }
        }
    }

    fn give_to_guests(self: &Arc<Self>, state: &mut State) {
        state.owner = Owner::Guests;
        state.now = Now::Ready;
        self.shared.push(self.clone());
    }

    /// One turn on a guest thread: until it waits, is over, or has had its time while others wait. Returns the time of
    /// the processor that it took: what a busy neighbour of the machine takes is not the tenant's.
    pub(super) fn turn(self: &Arc<Self>) -> Duration {
        self.state.lock().now = Now::Polled;
        let (began, before) = (Instant::now(), cpu_time());
        loop {
            let over = self.poll_life();
            let mut state = self.state.lock();
            let waits = state.now == Now::Polled;
            if !over && !waits && !self.shared.must_yield(began.elapsed()) {
                state.now = Now::Polled;
                continue;
            }
            let used = cpu_time().saturating_sub(before);
            state.spent += used;
            if over {
                state.now = Now::Done;
                let soon = state.spent < self.shared.first_turn();
                if let Some(pace) = &self.pace {
                    if state.began_there {
                        pace.ended_there(soon);
                    } else if !soon {
                        pace.was_long();
                    }
                }
            } else if waits {
                state.now = Now::Idle;
            } else {
                self.give_to_guests(&mut state);
            }
            return used;
        }
    }
}

impl Wake for Task {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let mut state = self.state.lock();
        match state.now {
            Now::Polled => state.now = Now::PolledAndWoken,
            Now::Idle => {
                state.now = Now::Ready;
                match &state.owner {
                    Owner::Guests => self.shared.push(self.clone()),
                    Owner::Caller(waker) => {
                        let waker = waker.clone();
                        // Not under the lock: it is foreign code.
                        drop(state);
                        if let Some(waker) = waker {
                            waker.wake();
                        }
                    }
                }
            }
            Now::Ready | Now::PolledAndWoken | Now::Done => {}
        }
    }
}
