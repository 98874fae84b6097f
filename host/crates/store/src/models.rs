use std::fs::File;
use std::io::{self, Read, Seek as _};
use std::sync::Arc;

use rustix::fs::{MemfdFlags, memfd_create};
use wasmeter_catalog::{BlobError, BlobKey, BlobKind, BlobStore, Catalog, FileRef, ModelVersion};
use wasmeter_inference::{BundlePart, IrBundle, ModelKey, ModelSource, Owner};
use wasmeter_types::Digest;

/// The owner of the operator's blobs; no tenant can have this name.
const OPERATOR: &str = "_operator";

/// The models of the operator and of the tenants: the catalog says which file, the blob store has it.
#[derive(Clone)]
pub struct StoredModels {
    catalog: Catalog,
    blobs: Arc<dyn BlobStore>,
}

impl StoredModels {
    /// Models of this catalog with these blobs.
    #[must_use]
    pub fn new(catalog: Catalog, blobs: Arc<dyn BlobStore>) -> Self {
        Self { catalog, blobs }
    }

    fn blob(&self, key: &ModelKey, id: Digest) -> io::Result<File> {
        let owner = tenant(key).unwrap_or(OPERATOR).to_owned();
        let blob = BlobKey { owner, kind: BlobKind::Model, id };
        self.blobs.open(&blob).map_err(|e| match e {
            BlobError::Io(e) => e,
            BlobError::Missing(_) => io::Error::new(io::ErrorKind::NotFound, e.to_string()),
            BlobError::Damaged(_) => io::Error::new(io::ErrorKind::InvalidData, e.to_string()),
        })
    }

    fn version(&self, key: &ModelKey) -> Option<Arc<ModelVersion>> {
        self.catalog.snapshot().model_version(tenant(key), &key.name, key.version).cloned()
    }
}

/// The tenant whose model it is; none for the operator's.
fn tenant(key: &ModelKey) -> Option<&str> {
    match &key.owner {
        Owner::Operator => None,
        Owner::Tenant(name) => Some(name),
    }
}

impl ModelSource for StoredModels {
    fn open(&self, key: &ModelKey) -> io::Result<File> {
        let missing = |what: &str| io::Error::new(io::ErrorKind::NotFound, format!("{what} of model {key}"));
        let version = self.version(key).ok_or_else(|| missing("the catalog has no entry"))?;
        let graph = version.graph().ok_or_else(|| missing("the card names no graph file"))?;
        let file = self.blob(key, graph.0)?;
        match version.weights() {
            None => Ok(file),
            Some(weights) => open_ir(&ir_bundle(graph, weights), file, self.blob(key, weights.0)?),
        }
    }

    fn size(&self, key: &ModelKey) -> Option<u64> {
        self.version(key).map(|version| version.graph_bytes())
    }
}

/// What vouches for an OpenVINO IR of these files: the XML and the weights.
#[must_use]
pub fn ir_bundle(xml: FileRef, weights: FileRef) -> IrBundle {
    let part = |(digest, bytes): FileRef| BundlePart { sha256: digest.bytes(), bytes };
    IrBundle { xml: part(xml), weights: part(weights) }
}

/// An OpenVINO IR as the one file that a device takes.
///
/// # Errors
/// Those of the files, and where one is not of the length that the bundle says.
pub fn open_ir(bundle: &IrBundle, xml: impl Read, weights: impl Read) -> io::Result<File> {
    let mut file = File::from(memfd_create("ir", MemfdFlags::CLOEXEC)?);
    bundle.write(&mut file, xml, weights)?;
    file.rewind()?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::io::Read;

    use wasmeter_types::{Digest, ModelCard};

    use super::*;
    use crate::{FsBlobStore, SqliteEventLog};

    #[tokio::test]
    async fn opens_the_graph_of_the_version() {
        let dir = tempfile::tempdir().unwrap();
        let log = SqliteEventLog::open(&dir.path().join("catalog.sqlite")).unwrap();
        let catalog = Catalog::open(Box::new(log)).await.unwrap();
        let blobs = Arc::new(FsBlobStore::open(&dir.path().join("blobs")).unwrap());
        let models = StoredModels::new(catalog.clone(), blobs.clone());
        let card = "[model]\nname = \"m\"\nbackend = \"onnx\"\nfiles = [\"m.onnx\", \"labels.txt\"]";
        let files = BTreeMap::from([
            ("labels.txt".to_owned(), (Digest::of(b"labels"), 6)),
            ("m.onnx".to_owned(), (Digest::of(b"graph"), 5)),
        ]);
        let version = ModelVersion {
            model: "m".parse().unwrap(),
            version: 1,
            card: ModelCard::from_toml(card).unwrap(),
            files,
            created_ns: 0,
        };
        catalog.put_tenant("dev".parse().unwrap()).await.unwrap();
        catalog.put_model(None, version.clone()).await.unwrap();
        catalog.put_model(Some("dev".parse().unwrap()), version).await.unwrap();
        let key = ModelKey::operator("m", 1);
        assert_eq!(models.open(&key).unwrap_err().kind(), io::ErrorKind::NotFound);
        let blob = BlobKey { owner: OPERATOR.into(), kind: BlobKind::Model, id: Digest::of(b"graph") };
        blobs.put(&blob, b"graph".to_vec()).await.unwrap();
        let mut text = String::new();
        models.open(&key).unwrap().read_to_string(&mut text).unwrap();
        assert_eq!(text, "graph");
        assert!(models.open(&ModelKey::operator("m", 2)).is_err());
        assert_eq!(models.size(&key), Some(5));
        // The tenant's version of the same name and content is another model with bytes of its own.
        let tenants = ModelKey { owner: Owner::Tenant("dev".into()), name: "m".into(), version: 1 };
        assert!(models.open(&tenants).is_err());
        let blob = BlobKey { owner: "dev".into(), kind: BlobKind::Model, id: Digest::of(b"graph") };
        blobs.put(&blob, b"graph".to_vec()).await.unwrap();
        assert!(models.open(&tenants).is_ok());
        let others = ModelKey { owner: Owner::Tenant("other".into()), name: "m".into(), version: 1 };
        assert!(models.open(&others).is_err() && models.size(&others).is_none());
    }
}
