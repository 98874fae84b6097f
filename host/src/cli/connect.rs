use std::fs;
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde::Deserialize;
use wasmeter_types::TenantName;

use super::client::Client;
use super::output::talk;

const DEFAULT_URL: &str = "http://127.0.0.1:8080";

/// Where the server is and who asks.
#[derive(clap::Args)]
pub(crate) struct Connect {
    /// The server [default: what <data-dir>/url says, else http://127.0.0.1:8080]
    #[arg(long, help_heading = "Server", env = "WASMETER_URL", hide_env_values = true)]
    url: Option<String>,
    /// The token [default: the dev or operator token in <data-dir>]; other users of the machine can read a command
    /// line, so prefer the environment
    #[arg(long, help_heading = "Server", env = "WASMETER_TOKEN", hide_env_values = true)]
    token: Option<String>,
    /// Data directory of a server on this machine [default: .wasmeter here or in a folder above]
    #[arg(long, help_heading = "Server", env = "WASMETER_DATA", hide_env_values = true, value_name = "DIR")]
    data_dir: Option<PathBuf>,
}

/// [`Connect`] for commands about one tenant.
#[derive(clap::Args)]
pub(crate) struct TenantConnect {
    #[command(flatten)]
    connect: Connect,
    /// The tenant [default: the token's]
    #[arg(long, help_heading = "Server", env = "WASMETER_TENANT", hide_env_values = true)]
    tenant: Option<TenantName>,
}

impl Connect {
    /// A client with a tenant's token.
    pub(crate) fn any(&self) -> Result<Client> {
        self.client(&["dev-token", "operator-token"])
    }

    /// A client with an operator's token.
    pub(crate) fn operator(&self) -> Result<Client> {
        self.client(&["operator-token"])
    }

    fn client(&self, files: &[&str]) -> Result<Client> {
        let data = self.data();
        let url = self.url(data.as_deref())?;
        let token = match &self.token {
            Some(token) => token.trim().to_owned(),
            None => find_token(&url, data.as_deref(), files)?,
        };
        Client::new(url, token)
    }

    fn data(&self) -> Option<PathBuf> {
        self.data_dir.clone().or_else(|| find_data(&std::env::current_dir().ok()?))
    }

    fn url(&self, data: Option<&Path>) -> Result<String> {
        let written = data.and_then(|d| fs::read_to_string(d.join("url")).ok());
        let url = self.url.clone().or(written).unwrap_or_else(|| DEFAULT_URL.to_owned());
        check_url(&url)
    }
}

impl TenantConnect {
    pub(crate) fn connect(&self) -> &Connect {
        &self.connect
    }

    /// A client and the tenant that it is about.
    pub(crate) fn client(&self) -> Result<(Client, TenantName)> {
        let mut client = self.connect.any()?;
        let own = claims(&client.token).and_then(|c| c.tenant);
        match (&self.tenant, own) {
            (Some(named), own) => {
                if self.connect.token.is_none() && own.as_ref() != Some(named) {
                    // The dev token cannot; the operator's, if it is there, can.
                    client = self.connect.operator()?;
                }
                Ok((client, named.clone()))
            }
            (None, Some(own)) => Ok((client, own)),
            (None, None) => {
                bail!("the token belongs to no tenant: name one with --tenant or WASMETER_TENANT")
            }
        }
    }
}

/// The nearest `.wasmeter` that is ours. Another user's would name a server and hand it our uploads.
fn find_data(from: &Path) -> Option<PathBuf> {
    let me = rustix::process::geteuid().as_raw();
    let ours = |dir: &PathBuf| dir.symlink_metadata().is_ok_and(|m| m.is_dir() && m.uid() == me);
    from.ancestors().map(|dir| dir.join(".wasmeter")).find(ours)
}

/// Tokens of a data directory go to its own server, or stay on this machine.
fn find_token(url: &str, data: Option<&Path>, files: &[&str]) -> Result<String> {
    let advice = "set WASMETER_TOKEN, or start `wasmeter serve` here and name its --data-dir";
    let Some(data) = data else { bail!("no token: {advice}") };
    let written = fs::read_to_string(data.join("url")).ok().and_then(|u| check_url(&u).ok());
    if written.as_deref() != Some(url) && !is_loopback(url) {
        bail!("no token for {url}: those in {} are for another server; set WASMETER_TOKEN", data.display());
    }
    for file in files {
        match fs::read_to_string(data.join(file)) {
            Ok(token) => return Ok(token.trim().to_owned()),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
            Err(e) => return Err(e).with_context(|| format!("token file {}", data.join(file).display())),
        }
    }
    bail!("no {} in {}: {advice}", files.join(" or "), data.display())
}

/// The form that paths are added to.
fn check_url(text: &str) -> Result<String> {
    let text = text.trim().trim_end_matches('/');
    let uri: http::Uri = text.parse().with_context(|| format!("url {text:?} is not a URL"))?;
    match uri.scheme_str() {
        Some("http") => {}
        Some("https") => bail!(
            "url {text}: this build has no TLS. Put a TLS proxy in front of the server for others, and reach it by \
             http:// from its own machine or through a tunnel such as `ssh -L 8080:127.0.0.1:8080`"
        ),
        _ => bail!("url {text:?} does not begin with http://"),
    }
    if uri.host().unwrap_or_default().is_empty() || uri.path() != "/" || uri.query().is_some() {
        bail!("url {text:?} is not of the form http://host:port");
    }
    if text.contains('@') {
        bail!("url has a user name: give the token with WASMETER_TOKEN");
    }
    Ok(text.to_owned())
}

pub(crate) fn is_loopback(url: &str) -> bool {
    let uri: Option<http::Uri> = url.parse().ok();
    let host = uri.as_ref().and_then(|u| u.host()).unwrap_or_default();
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// Says once that a token goes over the network in the clear.
pub(crate) fn warn_about_clear_text(url: &str) {
    if !is_loopback(url) {
        talk(&format!("warning: the token goes to {url} unencrypted"));
    }
}

#[derive(Deserialize)]
struct Claims {
    tenant: Option<TenantName>,
}

/// What the token says of itself. Only the server can tell whether that is true.
fn claims(token: &str) -> Option<Claims> {
    let payload = BASE64_URL_SAFE_NO_PAD.decode(token.split('.').nth(1)?).ok()?;
    serde_json::from_slice(&payload).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls() {
        assert_eq!(check_url("http://127.0.0.1:8080/\n").unwrap(), "http://127.0.0.1:8080");
        for bad in ["", "127.0.0.1:8080", "ftp://x", "http://x/path", "http://x?y", "http://me:pw@x"] {
            assert!(check_url(bad).is_err(), "{bad}");
        }
        assert!(check_url("https://x").unwrap_err().to_string().contains("TLS proxy"));
        assert!(is_loopback("http://[::1]:8080") && is_loopback("http://localhost"));
        assert!(!is_loopback("http://127.0.0.1.example.com") && !is_loopback("http://10.0.0.1"));
    }

    #[test]
    fn a_data_directorys_token_stays_with_its_server() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("dev-token"), "t\n").unwrap();
        fs::write(dir.path().join("url"), "http://10.0.0.1:8080\n").unwrap();
        let find = |url: &str| find_token(url, Some(dir.path()), &["operator-token", "dev-token"]);
        assert_eq!(find("http://10.0.0.1:8080").unwrap(), "t");
        assert_eq!(find("http://127.0.0.1:9").unwrap(), "t");
        assert!(find("http://10.0.0.2:8080").unwrap_err().to_string().contains("another server"));
        assert!(find_token("http://127.0.0.1:9", Some(dir.path()), &["operator-token"]).is_err());
    }

    #[test]
    fn finds_data_above() {
        let dir = tempfile::tempdir().unwrap();
        let deep = dir.path().join("a/b");
        fs::create_dir_all(&deep).unwrap();
        fs::create_dir(dir.path().join(".wasmeter")).unwrap();
        assert_eq!(find_data(&deep), Some(dir.path().join(".wasmeter")));
    }

    #[test]
    fn reads_the_tenant_of_a_token() {
        let payload = BASE64_URL_SAFE_NO_PAD.encode(r#"{"sub":"x","tenant":"acme"}"#);
        let tenant = claims(&format!("h.{payload}.s")).unwrap().tenant.unwrap();
        assert_eq!(tenant.as_str(), "acme");
        assert!(claims("nonsense").is_none());
    }
}
