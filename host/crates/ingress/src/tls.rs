use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::server::{ClientHello, ResolvesServerCert};
use tokio_rustls::rustls::sign::CertifiedKey;
use tokio_rustls::rustls::{self, ServerConfig};
use tokio_util::sync::CancellationToken;

/// Between two looks at the files.
const LOOK: Duration = Duration::from_secs(5);
/// A larger file is no certificate chain.
const MAX_FILE: u64 = 1 << 20;

/// Why TLS cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Others can read the key.
    #[error("the TLS key {} can be read by others: chmod 600 it, or replace the key", .0.display())]
    Open(PathBuf),
    /// A file does not hold what it should.
    #[error("{} holds no {what} in PEM form", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What is missing.
        what: &'static str,
    },
    /// Key and certificate do not fit each other, or are of a kind that is not served.
    #[error("the TLS key and certificate cannot be used: {0}")]
    Unfit(#[from] rustls::Error),
}

/// TLS 1.2 and 1.3 of the public listener, HTTP/2 and HTTP/1.1 by ALPN (RFC 7301). Cheap to clone.
#[derive(Clone)]
pub struct Tls {
    files: Arc<Files>,
    current: Arc<Current>,
    acceptor: TlsAcceptor,
}

#[derive(Debug)]
struct Files {
    certificate: PathBuf,
    key: PathBuf,
}

/// The certificate of the next handshake.
#[derive(Debug)]
struct Current(ArcSwap<CertifiedKey>);

impl ResolvesServerCert for Current {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.load_full())
    }
}

impl Tls {
    /// From PEM files: the chain, its own certificate first, and the key, which only the owner may read. Blocking.
    ///
    /// # Errors
    /// Names the file and what is wrong with it.
    pub fn open(certificate: &Path, key: &Path) -> Result<Self, TlsError> {
        let files = Files { certificate: certificate.to_owned(), key: key.to_owned() };
        let current = Arc::new(Current(ArcSwap::from_pointee(files.load()?)));
        let provider = Arc::new(aws_lc_rs::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_cert_resolver(current.clone());
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Self { files: Arc::new(files), current, acceptor: TlsAcceptor::from(Arc::new(config)) })
    }

    /// Reads the files again; connections that are open keep what they have. Blocking.
    ///
    /// # Errors
    /// As [`Self::open`]; what was served before is served on.
    pub fn reload(&self) -> Result<(), TlsError> {
        self.current.0.store(Arc::new(self.files.load()?));
        Ok(())
    }

    /// Reloads whenever the files change, until `stop`, and at each `hint`.
    pub async fn watch(self, mut hint: impl AsyncFnMut(), stop: CancellationToken) {
        let mut seen = self.files.marks();
        loop {
            let asked = tokio::select! {
                () = stop.cancelled() => return,
                () = hint() => true,
                () = tokio::time::sleep(LOOK) => false,
            };
            let this = self.clone();
            let Ok((marks, loaded)) = tokio::task::spawn_blocking(move || {
                let marks = this.files.marks();
                let changed = asked || marks != seen;
                (marks, changed.then(|| this.reload()))
            })
            .await
            else {
                return;
            };
            seen = marks;
            match loaded {
                None => {}
                Some(Ok(())) => tracing::info!("the TLS certificate was loaded again"),
                Some(Err(error)) => tracing::warn!(%error, "the old TLS certificate is served on"),
            }
        }
    }

    pub(crate) fn acceptor(&self) -> &TlsAcceptor {
        &self.acceptor
    }
}

/// What tells one content of a file from the next.
type Marks = [Option<(u64, u64, i64, i64)>; 2];

impl Files {
    fn load(&self) -> Result<CertifiedKey, TlsError> {
        let chain = read(&self.certificate, false)?;
        let chain: Vec<CertificateDer<'static>> =
            CertificateDer::pem_slice_iter(&chain).collect::<Result<_, _>>().unwrap_or_default();
        if chain.is_empty() {
            return Err(TlsError::Content { path: self.certificate.clone(), what: "certificate" });
        }
        let key = PrivateKeyDer::from_pem_slice(&read(&self.key, true)?)
            .map_err(|_| TlsError::Content { path: self.key.clone(), what: "private key" })?;
        Ok(CertifiedKey::from_der(chain, key, &aws_lc_rs::default_provider())?)
    }

    fn marks(&self) -> Marks {
        [&self.certificate, &self.key].map(|path| {
            let m = fs::metadata(path).ok()?;
            Some((m.ino(), m.size(), m.mtime(), m.mtime_nsec()))
        })
    }
}

fn read(path: &Path, private: bool) -> Result<Vec<u8>, TlsError> {
    let fail = |source| TlsError::Read { path: path.to_owned(), source };
    let file = File::open(path).map_err(fail)?;
    if private && file.metadata().map_err(fail)?.permissions().mode() & 0o077 != 0 {
        return Err(TlsError::Open(path.to_owned()));
    }
    let mut bytes = Vec::new();
    file.take(MAX_FILE).read_to_end(&mut bytes).map_err(fail)?;
    Ok(bytes)
}
