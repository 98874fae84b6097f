use http::StatusCode;
use wasmeter_admission::Purse;
use wasmeter_nn::Fault;
use wasmeter_types::{Error, ErrorKind};
use wasmeter_usage::Outcome;
use wasmtime::Trap;
use wasmtime_wasi::I32Exit;

use super::bound::bound_met;
use crate::guest::Refused;
use crate::guests::Told;

/// Why the guest was stopped from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    Deadline,
    Disconnect,
    /// The host ends and does not wait any longer.
    Shutdown,
    ResponseTooLarge(u64),
}

/// How an invocation ended: what is billed, and what the caller is told if not the guest's own answer.
pub(super) struct Verdict {
    pub(super) outcome: Outcome,
    pub(super) error: Option<Error>,
    /// For the function's log.
    pub(super) note: Option<String>,
}

/// What is known of the end of the guest.
pub(super) struct End<'a> {
    pub(super) result: Option<Result<(), wasmtime::Error>>,
    pub(super) stop: Option<Stop>,
    /// The status of the guest's answer, if it set one.
    pub(super) status: Option<StatusCode>,
    /// Whether the body of its answer came to no end, or not to the right one.
    pub(super) unfinished: bool,
    pub(super) fault: Option<&'a Fault>,
    pub(super) request_too_large: Option<u64>,
    pub(super) request_slow: bool,
    pub(super) refused: Refused,
    /// Header fields of the answer.
    pub(super) headers: usize,
    pub(super) limits: &'a wasmeter_types::Limits,
    /// What bounds its cost.
    pub(super) purse: Option<&'a Purse>,
}

/// Whether a status ends a request (RFC 9110, section 15): 101 would hand the connection over, and beyond 599 there is none.
pub(super) fn is_final(status: StatusCode) -> bool {
    (200..600).contains(&status.as_u16())
}

impl Verdict {
    fn failed(outcome: Outcome, kind: ErrorKind, message: impl Into<String>) -> Self {
        let error = Error::new(kind, message);
        Self { outcome, note: Some(error.message.clone()), error: Some(error) }
    }

    /// What a caller is told at the deadline.
    pub(super) fn told(what: Told, limits: &wasmeter_types::Limits) -> Error {
        let deadline = limits.deadline;
        match what {
            Told::Late => Error::new(
                ErrorKind::Deadline,
                format!("the function did not end within its limits.deadline of {deadline}"),
            ),
            Told::Unready => Error::new(
                ErrorKind::Overloaded,
                format!(
                    "the function was still being made ready at its limits.deadline of {deadline}, which goes on: \
                     call again"
                ),
            ),
        }
    }

    pub(super) fn of(end: End<'_>) -> Self {
        let limits = end.limits;
        let guest_failed =
            !matches!(end.result, Some(Ok(()))) || end.status.is_none_or(|s| s.is_server_error());
        let refused = end.status.is_some_and(|s| s.is_client_error());
        match (end.stop, end.result) {
            (Some(Stop::Disconnect), _) => Self { outcome: Outcome::Disconnect, error: None, note: None },
            (Some(Stop::Shutdown), _) => Self::failed(
                Outcome::Platform,
                ErrorKind::Overloaded,
                "the host shut down before the function ended: call again",
            ),
            (Some(Stop::Deadline), _) => {
                let error = Self::told(Told::Late, limits);
                Self { outcome: Outcome::Deadline, note: Some(error.message.clone()), error: Some(error) }
            }
            // A guest that could not read the body and says so knows no better than "malformed".
            _ if end.request_too_large.is_some() && (guest_failed || refused) => {
                let most = end.request_too_large.unwrap_or_default();
                Self::failed(
                    Outcome::Refused,
                    ErrorKind::TooLarge,
                    format!(
                        "the request body is larger than the function's limits.request-body of {most} bytes"
                    ),
                )
            }
            _ if end.request_slow && (guest_failed || refused) => Self::failed(
                Outcome::Refused,
                ErrorKind::SlowRequest,
                "the request body fell silent: send it without long pauses",
            ),
            _ if end.fault.is_some() && guest_failed => Self::ours(end.fault),
            (Some(Stop::ResponseTooLarge(most)), _) => Self::failed(
                Outcome::Trap,
                ErrorKind::GuestFailed,
                format!("the function's answer is larger than its limits.response-body of {most} bytes"),
            ),
            (None, Some(Err(error))) => Self::trap(&error, limits, end.refused, end.purse),
            (None, Some(Ok(())) | None) if end.unfinished => Self::failed(
                Outcome::Trap,
                ErrorKind::GuestFailed,
                "the function ended without finishing its response body: it must call outgoing-body.finish, with as many bytes written as its content-length says",
            ),
            (None, Some(Ok(())) | None) if end.status.is_none() => Self::failed(
                Outcome::Trap,
                ErrorKind::GuestFailed,
                "the function ended without an answer: it must set the response outparam",
            ),
            (None, _) if end.headers > limits.bounds().headers as usize => Self::failed(
                Outcome::Trap,
                ErrorKind::GuestFailed,
                format!(
                    "the function answered with {} header fields; its limits.headers is {}",
                    end.headers,
                    limits.bounds().headers
                ),
            ),
            (None, _) => match end.status.filter(|s| !is_final(*s)) {
                Some(status) => Self::failed(
                    Outcome::Trap,
                    ErrorKind::GuestFailed,
                    format!("the function answered with status {}: set one of 200 to 599", status.as_u16()),
                ),
                None => Self { outcome: Outcome::Ok, error: None, note: None },
            },
        }
    }

    /// A fault of ours that the guest met and did not get over: nothing is charged, unless it was the budget's end.
    fn ours(fault: Option<&Fault>) -> Self {
        let Some(fault) = fault else { return Self::failed(Outcome::Platform, ErrorKind::Internal, "") };
        let outcome = match fault.kind {
            ErrorKind::DeviceLost => Outcome::DeviceLost,
            ErrorKind::PaymentRequired => Outcome::Budget,
            _ => Outcome::Platform,
        };
        Self::failed(outcome, fault.kind, fault.message.clone())
    }

    fn trap(
        error: &wasmtime::Error,
        limits: &wasmeter_types::Limits,
        refused: Refused,
        purse: Option<&Purse>,
    ) -> Self {
        if let Some(exit) = error.downcast_ref::<I32Exit>() {
            return Self::failed(
                Outcome::Trap,
                ErrorKind::GuestFailed,
                format!("the function exited with status {} instead of answering", exit.0),
            );
        }
        let short = purse.filter(|purse| purse.fuel() < limits.fuel);
        let mut verdict = match error.downcast_ref::<Trap>() {
            Some(Trap::OutOfFuel) if short.is_some() => {
                let why = short.map(Purse::why).unwrap_or_default();
                Self::failed(Outcome::Budget, ErrorKind::PaymentRequired, why)
            }
            Some(Trap::OutOfFuel) => Self::failed(
                Outcome::OutOfFuel,
                ErrorKind::GuestFailed,
                format!("the function used up its limits.fuel of {}", limits.fuel),
            ),
            Some(trap) => {
                Self::failed(Outcome::Trap, ErrorKind::GuestFailed, format!("the function trapped: {trap}"))
            }
            None => {
                let message = match bound_met(error, &limits.bounds()) {
                    Some(bound) => {
                        format!("the function failed in a call to the host or at its start: {bound}")
                    }
                    None => "the function failed in a call to the host".to_owned(),
                };
                Self::failed(Outcome::Trap, ErrorKind::GuestFailed, message)
            }
        };
        if let Some(shown) = verdict.error.as_mut() {
            if refused.memory {
                shown
                    .message
                    .push_str(&format!(" (it was refused memory: limits.memory is {})", limits.memory));
            }
            if refused.elements {
                let most = limits.bounds().table_elements;
                let text = format!(" (it was refused table elements: limits.table-elements is {most})");
                shown.message.push_str(&text);
            }
        }
        // The backtrace is the author's, not the caller's.
        verdict.note = Some(format!("{error:?}"));
        verdict
    }
}
