use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{ManifestError, WallTime};

/// `[idempotency]`: what a repeated `Idempotency-Key` is answered. Without the section it is 409.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct IdempotencySection {
    /// How long answers of at most 64 KiB are kept and given again.
    pub keep_answers: WallTime,
}

/// Keys live this long, so no answer is kept longer.
const MOST: Duration = Duration::from_secs(24 * 3600);

impl IdempotencySection {
    /// Refuses a time that is none or longer than a key lives.
    ///
    /// # Errors
    /// Names the entry and what it may be.
    pub fn check(&self) -> Result<(), ManifestError> {
        let time = self.keep_answers;
        if time.0.is_zero() || time.0 > MOST {
            let message = format!("idempotency.keep-answers is {time}; it must be more than 0s, up to 24h");
            return Err(ManifestError::new(message));
        }
        Ok(())
    }
}
