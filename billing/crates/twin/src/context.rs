use serde_json::{Value, json};

use crate::error::{ApiError, Result};
use crate::kind::Kind;
use crate::params::Params;
use crate::state::State;

/// What a handler works with: the objects, the time, the request.
pub(crate) struct Context<'a> {
    pub(crate) state: &'a mut State,
    /// The twin's time, seconds since the Unix epoch.
    pub(crate) now: i64,
    pub(crate) params: &'a Params,
    /// What stands in the path for `{}`.
    pub(crate) path: &'a [&'a str],
    /// Address of the twin, for the pages that it names.
    pub(crate) base: &'a str,
    /// Id and idempotency key of the request, for the events that it causes.
    pub(crate) request: (&'a str, Option<&'a str>),
}

impl<'a> Context<'a> {
    /// The id in the path.
    pub(crate) fn id(&self) -> &'a str {
        self.path.first().copied().unwrap_or_default()
    }

    /// A customer that a parameter names and that is not deleted.
    pub(crate) fn customer(&self, param: &str) -> Result<&Value> {
        let id = self.params.need(param)?;
        let customer = self.state.find_param(Kind::Customer, id, param)?;
        if customer["deleted"] == true {
            return Err(ApiError::no_such("customer", id, param));
        }
        Ok(customer)
    }

    /// The time by which a customer lives.
    pub(crate) fn now_of(&self, object: &Value) -> i64 {
        object["_clock"].as_str().map_or(self.now, |clock| self.state.now(clock))
    }

    /// Tells who listens that something happened to an object.
    pub(crate) fn emit(&mut self, kind: &str, object: &Value) {
        let (id, key) = self.request;
        let request = json!({ "id": id, "idempotency_key": key });
        crate::event::emit(self.state, kind, object, Value::Null, &request);
    }

    /// The same for an update, with the former values of what changed.
    pub(crate) fn emit_update(&mut self, kind: &str, before: &Value, after: &Value) {
        let (id, key) = self.request;
        let request = json!({ "id": id, "idempotency_key": key });
        crate::event::emit(self.state, kind, after, crate::event::changed(before, after), &request);
    }
}
