//! Names, limits, manifests and the error taxonomy of the host. No tokio, no I/O.

mod digest;
mod error;
mod idempotency;
mod manifest;
mod manifest_bounds;
mod manifest_http;
mod manifest_keyvalue;
mod manifest_models;
mod manifest_secrets;
mod model_card;
mod name;
mod origin;
mod time;
mod units;
mod websocket;

pub use digest::{Digest, ParseDigestError};
pub use error::{ClientError, Error, ErrorKind, Source};
pub use idempotency::IdempotencySection;
pub use manifest::{BuildSection, FunctionManifest, FunctionSection, Limits, ManifestError};
pub use manifest_bounds::{Bounds, HEADER_BYTES, HEADERS};
pub use manifest_http::{HttpLimits, HttpSection};
pub use manifest_keyvalue::{KeyValueLimits, KeyValueSection};
pub use manifest_models::{ModelsLimits, ModelsSection};
pub use manifest_secrets::SecretsSection;
pub use model_card::{BatchingSection, CardSection, ModelCard, ModelSection, PadSection};
pub use name::{
    AliasName, BucketName, FunctionName, LabelName, ModelName, NameError, SecretName, TenantName,
};
pub use origin::{Origin, ParseOriginError};
pub use time::unix_ns;
pub use units::{ByteSize, ParseUnitError, WallTime};
pub use wasmeter_usage::InvocationId;
pub use websocket::WebsocketSection;
