use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::manifest::ManifestError;
use crate::{ByteSize, Origin, WallTime};

/// `[http]`: outbound HTTP, all of it denied unless an origin is listed. What is not written here is not part of the
/// manifest's content, so that a later default makes no new revision of an old one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct HttpSection {
    /// Origins that the guest may call, such as `https://api.example.com`; exactly these.
    pub allow: Vec<String>,
    /// Calls of one invocation, refused ones counted; 32 if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub calls: Option<u32>,
    /// Connections of one invocation at one time; 8 if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connections: Option<u32>,
    /// Bytes of all request bodies of one invocation; 8 MiB if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub send: Option<ByteSize>,
    /// Bytes of all response bodies of one invocation; 64 MiB if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub receive: Option<ByteSize>,
    /// For a name to be resolved, a connection to be made and TLS to be agreed; 5 s if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connect_timeout: Option<WallTime>,
    /// From the request to the head of its response; 30 s if absent. The invocation's deadline ends all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_byte_timeout: Option<WallTime>,
}

/// What `[http]` limits, with the defaults in place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HttpLimits {
    /// Calls of one invocation.
    pub calls: u32,
    /// Connections of one invocation at one time.
    pub connections: u32,
    /// Bytes of request bodies.
    pub send: u64,
    /// Bytes of response bodies.
    pub receive: u64,
    /// For a connection.
    pub connect_timeout: Duration,
    /// From the request to the head of its response.
    pub first_byte_timeout: Duration,
}

/// The plan's ceilings.
const MOST: HttpLimits = HttpLimits {
    calls: 1000,
    connections: 64,
    send: 1 << 30,
    receive: 1 << 30,
    connect_timeout: Duration::from_secs(60),
    first_byte_timeout: Duration::from_secs(300),
};
/// Entries of the allow-list.
const ORIGINS: usize = 100;

impl HttpSection {
    /// The limits, with the defaults where the manifest says nothing.
    #[must_use]
    pub fn limits(&self) -> HttpLimits {
        let size = |size: Option<ByteSize>, default| size.map_or(default, |s| s.0);
        let time = |time: Option<WallTime>, seconds| time.map_or(Duration::from_secs(seconds), |t| t.0);
        HttpLimits {
            calls: self.calls.unwrap_or(32),
            connections: self.connections.unwrap_or(8),
            send: size(self.send, 8 << 20),
            receive: size(self.receive, 64 << 20),
            connect_timeout: time(self.connect_timeout, 5),
            first_byte_timeout: time(self.first_byte_timeout, 30),
        }
    }

    /// Whether the origin is listed.
    #[must_use]
    pub fn allows(&self, origin: &Origin) -> bool {
        self.allow.iter().any(|entry| entry.parse().is_ok_and(|allowed: Origin| allowed == *origin))
    }

    pub(crate) fn check(&self) -> Result<(), ManifestError> {
        if self.allow.len() > ORIGINS {
            return Err(ManifestError::new(format!("http.allow has more than {ORIGINS} entries")));
        }
        for entry in &self.allow {
            entry.parse::<Origin>().map_err(|e| ManifestError::new(format!("http.allow: {e}")))?;
        }
        let limits = self.limits();
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        for (name, got, most) in [
            ("calls", limits.calls.into(), MOST.calls.into()),
            ("connections", limits.connections.into(), MOST.connections.into()),
            ("send (bytes)", limits.send, MOST.send),
            ("receive (bytes)", limits.receive, MOST.receive),
            ("connect-timeout (ms)", millis(limits.connect_timeout), millis(MOST.connect_timeout)),
            ("first-byte-timeout (ms)", millis(limits.first_byte_timeout), millis(MOST.first_byte_timeout)),
        ] {
            if got == 0 || got > most {
                return Err(ManifestError::new(format!("http.{name} is {got}; it must be 1 to {most}")));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::FunctionManifest;

    fn manifest(http: &str) -> Result<FunctionManifest, ManifestError> {
        FunctionManifest::from_toml(&format!("[function]\nname = \"a\"\n[http]\n{http}"))
    }

    #[test]
    fn lists_origins_and_nothing_else() {
        let allow = "allow = [\"https://API.example.com/\", \"http://127.0.0.1:8000\"]";
        let http = manifest(allow).unwrap().http;
        let allows = |origin: &str| http.allows(&origin.parse().unwrap());
        assert!(allows("https://api.example.com:443") && allows("http://127.0.0.1:8000"));
        for other in ["http://api.example.com", "https://api.example.com:444", "https://b.api.example.com"] {
            assert!(!allows(other), "{other}");
        }
        assert!(!HttpSection::default().allows(&"https://api.example.com".parse().unwrap()));
    }

    #[test]
    fn refuses_what_is_no_origin_or_beyond_the_plan() {
        let error = |http: &str| manifest(http).unwrap_err().to_string();
        assert!(error("allow = [\"api.example.com\"]").contains("http.allow: \"api.example.com\""));
        assert!(error("allow = [\"https://*\"]").contains("no name"));
        assert!(error("calls = 0").contains("http.calls is 0"));
        assert!(error("receive = \"2GiB\"").contains("http.receive"));
        assert!(error("connect-timeout = \"61s\"").contains("http.connect-timeout"));
    }

    #[test]
    fn an_unwritten_limit_is_not_content() {
        let json = serde_json::to_string(&HttpSection::default()).unwrap();
        assert_eq!(json, r#"{"allow":[]}"#);
    }
}
