//! What is deployed: tenants, functions with immutable revisions, aliases, models with versions.
//!
//! Every change is a sequence-numbered [`Event`] in an [`EventLog`] (SQLite on one machine); state is the fold of
//! the events. Readers take a [`Snapshot`], which costs no lock and no I/O. Bytes live in a [`BlobStore`],
//! what tenants hide in a [`SecretStore`], what functions keep in a [`KeyValueStore`], what a call
//! was like in a [`RecordingStore`].

mod alias;
mod blob;
mod catalog;
mod deploy;
mod event;
mod keyvalue;
mod labels;
mod log;
mod model;
mod provisioned;
mod recording;
mod resolve;
mod secret;
mod snapshot;

pub use alias::{Alias, Part, Weights};
pub use blob::{BlobError, BlobKey, BlobKind, BlobStore};
pub use catalog::{Catalog, CatalogError};
pub use deploy::{Deployed, Deployment, revision_id};
pub use event::Event;
pub use keyvalue::{Author, Change, KeyPage, KeyValueError, KeyValueStore, Space};
pub use log::{EventLog, LogError};
pub use model::{FileRef, Granted, ModelEntry, ModelPut, ModelVersion};
pub use provisioned::Provisionable;
pub use recording::{Recorded, RecordingError, RecordingStore};
pub use resolve::{ModelRef, Which};
pub use secret::{SecretEntry, SecretError, SecretStore, SecretValue};
pub use snapshot::{Function, Models, Revision, Snapshot, Tenant};
