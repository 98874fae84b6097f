use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::rustls;
use tokio_rustls::rustls::pki_types::ServerName;
use wasmeter_types::Origin;
use wasmtime_wasi_http::Error;

use super::slots::Slot;
use super::{Failed, Shared, address};

/// Addresses of one name that are tried.
const TRIES: usize = 4;

/// Plain or TLS.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// A connection to the origin, agreed before `until`.
pub(super) async fn connect(
    shared: &Shared,
    origin: &Origin,
    slot: &Arc<Slot>,
    until: Instant,
) -> Result<Box<dyn Stream>, Failed> {
    let late = || {
        let why = format!("{origin} did not take a connection in time ([http] connect-timeout)");
        Failed::new(Error::ConnectionTimeout, why)
    };
    let addresses = match timeout_at(until, resolve(origin, slot.clone())).await {
        Ok(addresses) => addresses?,
        Err(_) => {
            let why = format!("the name of {origin} was not resolved in time ([http] connect-timeout)");
            return Err(Failed::new(Error::DnsTimeout, why));
        }
    };
    let allowed = check(shared, origin, &addresses)?;
    let stream = dial(origin, &allowed, until).await?;
    let _ = stream.set_nodelay(true);
    if !origin.secure {
        return Ok(Box::new(stream));
    }
    let name = match origin.host.parse::<IpAddr>() {
        Ok(address) => ServerName::from(address),
        Err(_) => ServerName::try_from(origin.host.clone())
            .map_err(|e| Failed::new(Error::HttpRequestUriInvalid, format!("{origin}: {e}")))?,
    };
    match timeout_at(until, shared.tls.connect(name, stream)).await {
        Err(_) => Err(late()),
        Ok(Ok(stream)) => Ok(Box::new(stream)),
        Ok(Err(error)) => {
            let why = format!("TLS with {origin} failed: {error}");
            Err(Failed::new(tls_error(&error), why))
        }
    }
}

/// By the system's resolver, once: what is checked is what is connected to. The slot is held until the resolver is
/// done, even if nobody waits for it any more, so that there are never more look-ups than connections.
async fn resolve(origin: &Origin, slot: Arc<Slot>) -> Result<Vec<IpAddr>, Failed> {
    if let Ok(address) = origin.host.parse() {
        return Ok(vec![address]);
    }
    let name = (origin.host.clone(), origin.port);
    let found = tokio::task::spawn_blocking(move || {
        let found = name.to_socket_addrs().map(|all| all.map(|a| a.ip()).collect::<Vec<_>>());
        drop(slot);
        found
    });
    let failed = |what: String| {
        let error = Error::DnsError { rcode: Some("name not resolved".to_owned()), info_code: None };
        Err(Failed::new(error, format!("the name of {origin} was not resolved: {what}")))
    };
    match found.await {
        Ok(Ok(addresses)) if addresses.is_empty() => failed("it has no address".to_owned()),
        Ok(Ok(addresses)) => Ok(addresses),
        Ok(Err(error)) => failed(error.to_string()),
        Err(error) => failed(error.to_string()),
    }
}

/// The addresses that may be connected to: public ones, and those that the operator names.
fn check(shared: &Shared, origin: &Origin, addresses: &[IpAddr]) -> Result<Vec<SocketAddr>, Failed> {
    let may = |address: &IpAddr| {
        address::is_public(*address) || shared.allow_private.iter().any(|n| n.holds(*address))
    };
    let canonical = addresses.iter().map(IpAddr::to_canonical);
    let mut allowed: Vec<SocketAddr> =
        canonical.filter(may).map(|address| SocketAddr::new(address, origin.port)).collect();
    if allowed.is_empty() {
        let why = format!(
            "{origin} is at {}, which is not a public address: only the operator can allow it ([outbound] allow-private)",
            addresses.first().map_or_else(String::new, IpAddr::to_string)
        );
        return Err(Failed::new(Error::DestinationIpProhibited, why));
    }
    allowed.truncate(TRIES);
    Ok(allowed)
}

/// One address after the other; each gets its share of the time that is left.
async fn dial(origin: &Origin, addresses: &[SocketAddr], until: Instant) -> Result<TcpStream, Failed> {
    let mut last = None;
    for (index, address) in addresses.iter().enumerate() {
        let left = until.saturating_duration_since(Instant::now());
        let share = left / u32::try_from(addresses.len() - index).unwrap_or(1);
        match timeout_at(Instant::now() + share, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => last = Some(error),
            Err(_) => last = Some(io::ErrorKind::TimedOut.into()),
        }
    }
    let error = last.unwrap_or_else(|| io::ErrorKind::NotFound.into());
    let shown = match error.kind() {
        io::ErrorKind::ConnectionRefused => Error::ConnectionRefused,
        io::ErrorKind::TimedOut => Error::ConnectionTimeout,
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => Error::DestinationIpUnroutable,
        _ => Error::DestinationUnavailable,
    };
    Err(Failed::new(shown, format!("{origin} took no connection: {error}")))
}

fn tls_error(error: &io::Error) -> Error {
    match error.get_ref().and_then(|e| e.downcast_ref::<rustls::Error>()) {
        Some(rustls::Error::InvalidCertificate(_) | rustls::Error::NoCertificatesPresented) => {
            Error::TlsCertificateError
        }
        Some(rustls::Error::AlertReceived(alert)) => Error::TlsAlertReceived {
            alert_id: Some(u8::from(*alert)),
            alert_message: Some(format!("{alert:?}")),
        },
        Some(_) => Error::TlsProtocolError,
        None => Error::ConnectionTerminated,
    }
}
