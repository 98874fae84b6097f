use parking_lot::Mutex;
use tokio::sync::Semaphore;
use wasmeter_ledger::{Ledger, LedgerError, Reader};

use std::sync::Arc;

/// Questions that run at once; further ones wait.
const READERS: usize = 4;

/// Connections for questions, each used by one at a time on a blocking thread.
pub(crate) struct Readers {
    free: Arc<Mutex<Vec<Reader>>>,
    permits: Semaphore,
}

/// Why a question has no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AskError {
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    #[error("the question's thread failed")]
    Lost,
}

impl Readers {
    pub(crate) fn open(ledger: &Ledger) -> Result<Self, LedgerError> {
        Ok(Self::of((0..READERS).map(|_| ledger.reader()).collect::<Result<_, _>>()?))
    }

    /// Of connections that are open already, of which there is at least one.
    pub(crate) fn of(readers: Vec<Reader>) -> Self {
        let permits = Semaphore::new(readers.len());
        Self { free: Arc::new(Mutex::new(readers)), permits }
    }

    /// Asks on a blocking thread.
    pub(crate) async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&Reader) -> Result<T, LedgerError> + Send + 'static,
    ) -> Result<T, AskError> {
        let permit = self.permits.acquire().await.map_err(|_| AskError::Lost)?;
        let free = Arc::clone(&self.free);
        let answer = tokio::task::spawn_blocking(move || {
            let reader = free.lock().pop().ok_or(AskError::Lost)?;
            let answer = question(&reader);
            free.lock().push(reader);
            answer.map_err(AskError::from)
        })
        .await
        .map_err(|_| AskError::Lost)?;
        drop(permit);
        answer
    }
}
