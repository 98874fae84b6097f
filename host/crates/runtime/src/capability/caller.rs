use std::sync::Arc;

use tokio::time::Instant;
use wasmeter_admission::Depth;
use wasmeter_catalog::Revision;
use wasmeter_types::{InvocationId, TenantName};

use super::outbound::Used;
use crate::logs::{FunctionLog, LogStream};

/// The invocation, as its capabilities see it: whose it is, what it may, and what it has used of that.
pub(crate) struct Caller {
    pub(crate) id: InvocationId,
    pub(crate) tenant: TenantName,
    pub(crate) revision: Arc<Revision>,
    pub(crate) log: Arc<FunctionLog>,
    /// Functions behind the request.
    pub(crate) depth: Depth,
    /// When everything ends.
    pub(crate) deadline: Instant,
    pub(crate) outbound: Used,
}

impl Caller {
    /// Tells the function's author, who cannot see why from an error code. The caller bounds how often.
    pub(crate) fn note(&self, text: &str) {
        self.log.push(self.id, LogStream::Platform, text);
    }
}
