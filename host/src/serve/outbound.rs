use std::path::PathBuf;

use anyhow::{Context, ensure};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use serde::Deserialize;
use wasmeter_runtime::{Network, OutboundOptions};

/// `[outbound]`: what functions may reach, within what their manifests ask for.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub(crate) struct OutboundSection {
    /// Blocks of addresses that functions may call although they are not public, such as `["10.1.0.0/16"]`.
    pub(crate) allow_private: Vec<String>,
    /// Connections of all functions at one time.
    pub(crate) connections: usize,
    /// Connections of one tenant's functions at one time.
    pub(crate) tenant_connections: usize,
    /// PEM file of certificate authorities that count beside the web's.
    pub(crate) authorities: Option<PathBuf>,
}

impl Default for OutboundSection {
    fn default() -> Self {
        let options = OutboundOptions::default();
        Self {
            allow_private: Vec::new(),
            connections: options.connections,
            tenant_connections: options.tenant_connections,
            authorities: None,
        }
    }
}

impl OutboundSection {
    /// Everything that can be told before the first port opens.
    pub(crate) fn check(&self) -> anyhow::Result<()> {
        ensure!((1..=10_000).contains(&self.connections), "outbound.connections must be 1 to 10000");
        ensure!(
            (1..=self.connections).contains(&self.tenant_connections),
            "outbound.tenant-connections must be 1 to outbound.connections, which is {}",
            self.connections
        );
        self.options().map(drop)
    }

    /// As the runtime takes it.
    pub(crate) fn options(&self) -> anyhow::Result<OutboundOptions> {
        let network = |text: &String| text.parse::<Network>().context("outbound.allow-private");
        let authorities = match &self.authorities {
            None => Vec::new(),
            Some(path) => {
                let read = || CertificateDer::pem_file_iter(path)?.collect::<Result<Vec<_>, _>>();
                let read = read().map_err(|e| anyhow::anyhow!("{e}"));
                let read = read.with_context(|| format!("outbound.authorities {}", path.display()))?;
                ensure!(!read.is_empty(), "outbound.authorities {} holds no certificate", path.display());
                read
            }
        };
        Ok(OutboundOptions {
            allow_private: self.allow_private.iter().map(network).collect::<Result<_, _>>()?,
            connections: self.connections,
            tenant_connections: self.tenant_connections,
            authorities,
        })
    }
}
