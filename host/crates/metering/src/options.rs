use std::sync::Arc;
use std::time::Duration;

use crate::{Disk, RealDisk};

/// What a record must survive before its answer is released.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// The death of every process of ours at any instant. A power cut can lose the last flush window.
    #[default]
    Process,
    /// A power cut: the answer waits for a flush.
    Power,
}

/// How a spool works.
#[derive(Clone, Debug)]
pub struct SpoolOptions {
    /// Name of the node, 1 to 64 of `a-z`, `0-9` and `-`; random if absent. A spool keeps its first name for ever.
    pub node: Option<String>,
    /// What [`crate::Spool::append_durably`] waits for.
    pub durability: Durability,
    /// A flush starts at most this long after the first unflushed write.
    pub flush_within: Duration,
    /// A segment that would grow beyond this is followed by a new one.
    pub segment_bytes: u64,
    /// The spool takes no record beyond this.
    pub max_bytes: u64,
    /// What it is kept on.
    pub disk: Arc<dyn Disk>,
}

impl Default for SpoolOptions {
    fn default() -> Self {
        Self {
            node: None,
            durability: Durability::Process,
            flush_within: Duration::from_millis(20),
            segment_bytes: 8 << 20,
            max_bytes: 1 << 30,
            disk: Arc::new(RealDisk),
        }
    }
}

impl SpoolOptions {
    /// Kept free for invocations that were admitted already, so that refusal happens at admission.
    pub(crate) fn headroom(&self) -> u64 {
        (self.max_bytes / 8).min(16 << 20)
    }
}
