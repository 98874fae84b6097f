//! Where things are kept on one machine: the data directory, the catalog's events in SQLite, blobs in files.
//!
//! Each is an adapter of a trait that its consumer owns; a cluster has others.

mod blob;
mod data_dir;
mod event_log;
mod keyvalue;
mod migrate;
mod models;
mod once;
mod private;
mod recordings;
mod secrets;
mod socket;

pub use blob::FsBlobStore;
pub use data_dir::{DataDir, DataDirError};
pub use event_log::{OpenError, SqliteEventLog};
pub use keyvalue::{KeyValueOptions, SqliteKeyValueStore};
pub use models::{StoredModels, ir_bundle, open_ir};
pub use once::SqliteOnceStore;
pub use private::{read_or_create_secret, write_private};
pub use recordings::{RecordingOptions, SqliteRecordingStore};
pub use secrets::SqliteSecretStore;
