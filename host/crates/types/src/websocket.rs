use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{ByteSize, ManifestError, WallTime};

/// `[websocket]`: limits of one WebSocket, which is one invocation. `limits.request-body` and `limits.response-body`
/// hold for all its messages together; `limits.fuel` and `limits.memory` for the whole of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct WebsocketSection {
    /// Wall time from admission to the end of the guest, instead of `limits.deadline`.
    pub deadline: WallTime,
    /// Without a message in either direction.
    pub idle: WallTime,
    /// The largest message in either direction.
    pub message: ByteSize,
}

impl Default for WebsocketSection {
    fn default() -> Self {
        Self {
            deadline: WallTime(Duration::from_secs(300)),
            idle: WallTime(Duration::from_secs(60)),
            message: ByteSize(1 << 20),
        }
    }
}

/// The plan's ceilings.
const MOST: WebsocketSection = WebsocketSection {
    deadline: WallTime(Duration::from_secs(3600)),
    idle: WallTime(Duration::from_secs(600)),
    message: ByteSize(16 << 20),
};

impl WebsocketSection {
    /// Refuses limits outside the plan.
    ///
    /// # Errors
    /// Names the entry, what it is and what it may be.
    pub fn check(&self) -> Result<(), ManifestError> {
        let times = [("deadline", self.deadline, MOST.deadline), ("idle", self.idle, MOST.idle)];
        for (name, got, most) in times {
            if got.0.is_zero() || got > most {
                return Err(ManifestError::new(format!(
                    "websocket.{name} is {got}; it must be 1ms to {most}"
                )));
            }
        }
        if self.message.0 == 0 || self.message > MOST.message {
            let (got, most) = (self.message, MOST.message);
            return Err(ManifestError::new(format!("websocket.message is {got}; it must be 1B to {most}")));
        }
        Ok(())
    }
}
