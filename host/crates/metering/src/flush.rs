//! Group commit: one thread flushes what was written, for all who wait.

use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Instant;

use crate::shared::Shared;

/// How far the medium has got.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Flushed {
    /// Last sequence on the medium.
    pub(crate) seq: u64,
    /// Flushes so far.
    pub(crate) count: u64,
    /// A flush failed; `seq` stays for ever.
    pub(crate) failed: bool,
}

/// The thread. Dropping it flushes and joins.
pub(crate) struct Flusher {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Flusher {
    pub(crate) fn start(shared: Arc<Shared>) -> io::Result<Self> {
        let worker = shared.clone();
        let thread =
            thread::Builder::new().name("spool-flush".into()).spawn(move || while flush(&worker) {})?;
        Ok(Self { shared, thread: Some(thread) })
    }
}

impl Drop for Flusher {
    fn drop(&mut self) {
        self.shared.state.lock().stop = true;
        self.shared.wake.notify_one();
        if self.thread.take().is_some_and(|t| t.join().is_err()) {
            tracing::error!("the spool's flusher panicked");
        }
    }
}

/// One flush; false at the end.
fn flush(shared: &Shared) -> bool {
    let mut state = shared.state.lock();
    let since = loop {
        match state.dirty_since {
            Some(since) => break since,
            None if state.stop => return false,
            None => shared.wake.wait(&mut state),
        }
    };
    // Without anybody waiting, writes of the window share a flush; with somebody, it starts at once, and those that
    // come meanwhile share the next one.
    let until = since + shared.options.flush_within;
    while !state.stop && state.wanted <= shared.flushed.borrow().seq && Instant::now() < until {
        shared.wake.wait_until(&mut state, until);
    }
    let upto = state.last_seq();
    let mut files = std::mem::take(&mut state.unsynced);
    files.push(state.active.clone());
    let dir_dirty = std::mem::take(&mut state.dir_dirty);
    state.dirty_since = None;
    drop(state);

    let begun = Instant::now();
    let disk = &*shared.options.disk;
    let synced = files.iter().try_for_each(|f| disk.sync_file(f));
    let synced = synced.and_then(|()| if dir_dirty { disk.sync_dir(&shared.dir) } else { Ok(()) });
    metrics::histogram!("wasmeter_spool_flush_seconds").record(begun.elapsed());
    match synced {
        Ok(()) => {
            shared.flushed.send_modify(|f| (f.seq, f.count) = (upto, f.count + 1));
            shared.gauge();
            true
        }
        Err(error) => {
            // After a failed flush the kernel may have dropped the pages: a later success would prove nothing.
            tracing::error!(dir = %shared.dir.display(), %error, "the usage spool cannot be flushed: check the disk");
            shared.fail(&mut shared.state.lock(), error.to_string());
            false
        }
    }
}
