use crate::Limits;
use crate::manifest::ManifestError;

/// What `[limits]` bounds beside the big ones, with the defaults in place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Core instances.
    pub instances: u32,
    /// Tables of all instances.
    pub tables: u32,
    /// Elements of all tables together.
    pub table_elements: u32,
    /// Resource handles at one time.
    pub handles: u32,
    /// Bytes that one call to the host may hand over.
    pub host_call_bytes: u64,
    /// Header fields of the request, and of the answer.
    pub headers: u32,
    /// Bytes of the header fields of the request, and of the answer: names, values, and four for each field.
    pub header_bytes: u64,
}

/// Header fields that any request may have, whatever it is for.
pub const HEADERS: u32 = 100;
/// Bytes of them.
pub const HEADER_BYTES: u64 = 64 << 10;

impl Limits {
    /// The bounds, with the defaults where the manifest says nothing.
    #[must_use]
    pub fn bounds(&self) -> Bounds {
        Bounds {
            instances: self.instances.unwrap_or(64),
            tables: self.tables.unwrap_or(32),
            table_elements: self.table_elements.unwrap_or(100_000),
            handles: self.handles.unwrap_or(10_000),
            host_call_bytes: self.host_call_bytes.unwrap_or(self.memory).0,
            headers: self.headers.unwrap_or(HEADERS),
            header_bytes: self.header_bytes.map_or(HEADER_BYTES, |bytes| bytes.0),
        }
    }
}

impl Bounds {
    /// Refuses what is outside the plan. What the pool of the engine holds is the ceiling of instances and tables.
    pub(crate) fn check(&self) -> Result<(), ManifestError> {
        let ranges = [
            ("instances", self.instances.into(), 64),
            ("tables", self.tables.into(), 32),
            ("table-elements", self.table_elements.into(), 1_000_000),
            ("handles", self.handles.into(), 100_000),
            ("host-call-bytes (bytes)", self.host_call_bytes, 1 << 30),
            ("headers", self.headers.into(), HEADERS.into()),
            ("header-bytes (bytes)", self.header_bytes, HEADER_BYTES),
        ];
        match ranges.into_iter().find(|(_, got, most)| *got == 0 || got > most) {
            Some((name, got, most)) => {
                Err(ManifestError::new(format!("limits.{name} is {got}; it must be 1 to {most}")))
            }
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::{ByteSize, FunctionManifest, HEADERS};

    #[test]
    fn bounds_have_defaults_and_ceilings() {
        let read = |limits: &str| {
            FunctionManifest::from_toml(&format!("[function]\nname = \"a\"\n[limits]\n{limits}"))
        };
        let plain = read("memory = \"4MiB\"").unwrap();
        let bounds = plain.limits.bounds();
        assert_eq!((bounds.handles, bounds.headers, bounds.host_call_bytes), (10_000, HEADERS, 4 << 20));
        // Revision ids are made of it: what is not written is not in it.
        assert!(!serde_json::to_string(&plain).unwrap().contains("handles"));
        let own = read("handles = 7\nheader-bytes = \"1KiB\"\nhost-call-bytes = \"2MiB\"").unwrap();
        assert_eq!(own.limits.header_bytes, Some(ByteSize(1024)));
        assert_eq!((own.limits.bounds().handles, own.limits.bounds().host_call_bytes), (7, 2 << 20));
        for (limit, name) in [
            ("instances = 65", "limits.instances is 65; it must be 1 to 64"),
            ("tables = 0", "limits.tables is 0"),
            ("table-elements = 1_000_001", "limits.table-elements"),
            ("handles = 100_001", "limits.handles"),
            ("host-call-bytes = \"2GiB\"", "limits.host-call-bytes"),
            ("headers = 101", "limits.headers"),
            ("header-bytes = \"65KiB\"", "limits.header-bytes"),
        ] {
            let error = read(limit).unwrap_err().to_string();
            assert!(error.contains(name), "{error}");
        }
    }
}
