use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

/// The twin's time: the machine's, moved by an offset, or standing still.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Clock {
    offset: i64,
    frozen: Option<i64>,
}

/// Seconds since the Unix epoch by the machine's clock.
pub(crate) fn wall() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

/// The same in milliseconds.
pub(crate) fn wall_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

impl Clock {
    pub(crate) fn now(self) -> i64 {
        self.frozen.unwrap_or_else(|| wall().saturating_add(self.offset))
    }

    /// A clock that shows `to` now.
    pub(crate) fn set(self, to: i64) -> Self {
        if self.frozen.is_some() {
            return Self { frozen: Some(to), ..self };
        }
        Self { offset: to.saturating_sub(wall()), frozen: None }
    }

    /// A clock that stands still, or runs on from where it is.
    pub(crate) fn freeze(self, still: bool) -> Self {
        let now = self.now();
        if still {
            return Self { frozen: Some(now), ..self };
        }
        Self { offset: now.saturating_sub(wall()), frozen: None }
    }

    pub(crate) fn to_json(self) -> Value {
        json!({ "offset": self.offset, "frozen": self.frozen })
    }

    pub(crate) fn from_json(value: &Value) -> Self {
        Self { offset: value["offset"].as_i64().unwrap_or(0), frozen: value["frozen"].as_i64() }
    }
}
