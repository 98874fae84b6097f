//! Outbound HTTP: `wasi:http/outgoing-handler` over connections of our own.
//!
//! Each call is checked by itself, redirects too, since the guest follows them: the origin must be listed in the
//! revision's manifest; its name is resolved here, once, and only an address that was checked is connected to. A
//! connection carries one call, so nothing of one call or tenant is seen by another.

mod address;
mod body;
mod connect;
mod head;
mod send;
mod slots;
mod used;

use std::sync::Arc;

use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::client::Resumption;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};
use wasmeter_admission::{HopKey, TokenKeys};
use wasmtime_wasi_http::p2::bindings::http::types::ErrorCode;
use wasmtime_wasi_http::{Error, RequestOptions, WasiBody, WasiHttpHooks};

pub use address::{Network, ParseNetworkError};
use slots::Slots;
pub(crate) use used::Used;

use super::Caller;

/// Bytes of one chunk of a body that a guest writes.
const CHUNK: usize = 64 << 10;

/// What the operator decides about calls of functions to elsewhere.
#[derive(Clone, Debug)]
pub struct OutboundOptions {
    /// Addresses that functions may reach although they are not of the public internet.
    pub allow_private: Vec<Network>,
    /// Connections of all functions at one time.
    pub connections: usize,
    /// Connections of one tenant's functions at one time.
    pub tenant_connections: usize,
    /// Certificate authorities beside those of the web.
    pub authorities: Vec<CertificateDer<'static>>,
}

impl Default for OutboundOptions {
    fn default() -> Self {
        Self { allow_private: Vec::new(), connections: 256, tenant_connections: 64, authorities: Vec::new() }
    }
}

/// Outbound calls cannot be offered.
#[derive(Debug, thiserror::Error)]
pub enum OutboundError {
    /// A certificate of the operator's is none.
    #[error("a certificate authority of outbound calls cannot be used: {0}")]
    Authority(tokio_rustls::rustls::Error),
    /// TLS cannot be set up.
    #[error("TLS of outbound calls: {0}")]
    Tls(tokio_rustls::rustls::Error),
}

/// The way out, for all functions of the host. Cheap to clone.
#[derive(Clone)]
pub struct Outbound {
    shared: Arc<Shared>,
}

struct Shared {
    allow_private: Vec<Network>,
    slots: Slots,
    tls: TlsConnector,
    tokens: TokenKeys,
    hops: HopKey,
}

impl Outbound {
    /// The way out. `tokens` tells what must never leave, `hops` signs how deep a chain of functions is.
    ///
    /// # Errors
    /// If a certificate authority is none.
    pub fn new(options: OutboundOptions, tokens: TokenKeys, hops: HopKey) -> Result<Self, OutboundError> {
        let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.into() };
        for authority in options.authorities {
            roots.add(authority).map_err(OutboundError::Authority)?;
        }
        let provider = Arc::new(aws_lc_rs::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(OutboundError::Tls)?
            .with_root_certificates(roots)
            .with_no_client_auth();
        // A ticket would let a server link the calls of two tenants.
        config.resumption = Resumption::disabled();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        let shared = Shared {
            allow_private: options.allow_private,
            slots: Slots::new(options.connections, options.tenant_connections),
            tls: TlsConnector::from(Arc::new(config)),
            tokens,
            hops,
        };
        Ok(Self { shared: Arc::new(shared) })
    }
}

/// `wasi:http` of one invocation.
pub(crate) struct Hooks {
    outbound: Outbound,
    caller: Arc<Caller>,
}

impl Hooks {
    pub(crate) fn new(outbound: Outbound, caller: Arc<Caller>) -> Self {
        Self { outbound, caller }
    }
}

type Done = Box<dyn Future<Output = Result<(), Error>> + Send>;
type Sent = (http::Response<WasiBody>, Done);

impl WasiHttpHooks for Hooks {
    fn send_request(
        &mut self,
        request: http::Request<WasiBody>,
        options: Option<RequestOptions>,
        _done: Done,
    ) -> Box<dyn Future<Output = Result<Sent, Error>> + Send> {
        self.caller.beyond("wasi:http/outgoing-handler");
        let (outbound, caller) = (self.outbound.clone(), self.caller.clone());
        Box::new(async move { send::send(&outbound.shared, caller, request, options).await })
    }

    fn set_host_header(&mut self) -> bool {
        false
    }

    fn p2_outgoing_body_chunk_size(&mut self) -> usize {
        CHUNK
    }

    fn p3_outgoing_body_chunk_size(&mut self) -> usize {
        CHUNK
    }

    // What breaks between a guest and its peers is their matter and no alarm of ours.
    fn p2_error_from_hyper(&mut self, _: &hyper::Error) -> ErrorCode {
        ErrorCode::HttpProtocolError
    }

    fn p2_error_from_connect(&mut self, _: &std::io::Error) -> ErrorCode {
        ErrorCode::ConnectionRefused
    }

    fn p2_error_from_tls(&mut self, _: &std::io::Error) -> ErrorCode {
        ErrorCode::TlsProtocolError
    }
}

/// A call that was not made or did not succeed: what the guest gets, and what its author reads in the log.
struct Failed {
    error: Error,
    why: String,
}

impl Failed {
    fn new(error: Error, why: impl Into<String>) -> Self {
        Self { error, why: why.into() }
    }
}
