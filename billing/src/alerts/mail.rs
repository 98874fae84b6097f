use std::time::Duration;

use anyhow::{Context, bail, ensure};
use lettre::message::header::{HeaderName, HeaderValue};
use lettre::message::{Mailbox, SinglePart};
use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::client::{Certificate, Tls, TlsParameters};
use lettre::transport::smtp::extension::ClientId;
use lettre::{Address, Message, SmtpTransport, Transport};
use wasmeter_ledger::DueAlert;
use wasmeter_stripe::Secret;
use wasmeter_usage::{AlertOf, Pico};

/// Longest wait for one answer of the mail server.
const PATIENCE: Duration = Duration::from_secs(20);

/// Sends alerts by mail (RFC 5321), through one server of the operator's.
pub(super) struct Mailer {
    transport: SmtpTransport,
    from: Mailbox,
}

/// How a connection to the mail server is kept private.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Privacy {
    /// TLS from the first byte (RFC 8314).
    Tls,
    /// STARTTLS, or nothing is sent.
    Upgrade,
    /// Clear text.
    Plain,
}

/// What is wrong with a mail address.
pub(super) fn check(address: &str) -> Result<(), String> {
    let shown: String = address.chars().take(80).collect();
    match address.parse::<Address>() {
        Ok(_) => Ok(()),
        Err(_) => Err(format!("{shown:?} is not a mail address: write name@example.com")),
    }
}

impl Mailer {
    /// `url` is `smtps://`, `smtp://` or `smtp-plain://`, then `[USER@]HOST[:PORT]`; `authorities` are certificates (PEM) that are
    /// believed beside the web's.
    pub(super) fn new(
        url: &str,
        from: &str,
        password: Option<&Secret>,
        authorities: Option<&[u8]>,
    ) -> anyhow::Result<Self> {
        let malformed = || {
            format!("--smtp {url:?} is not like smtps://user@mail.example.com or smtp://mail.example.com:587")
        };
        let (scheme, rest) = url.split_once("://").with_context(malformed)?;
        let (privacy, port) = match scheme {
            "smtps" => (Privacy::Tls, 465),
            "smtp" => (Privacy::Upgrade, 587),
            "smtp-plain" => (Privacy::Plain, 25),
            _ => bail!(malformed()),
        };
        let (user, rest) = match rest.rsplit_once('@') {
            Some((user, rest)) => (Some(user), rest),
            None => (None, rest),
        };
        let authority: hyper::http::uri::Authority = rest.parse().with_context(malformed)?;
        let host = authority.host().trim_start_matches('[').trim_end_matches(']');
        ensure!(!host.is_empty(), malformed());
        ensure!(
            user.is_none_or(|user| !user.contains(':')),
            "--smtp holds a password: name a file, --smtp-password-file"
        );
        ensure!(
            user.is_some() == password.is_some(),
            "--smtp with a user and --smtp-password-file belong together: give both or neither"
        );
        let loopback = host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback());
        ensure!(
            privacy != Privacy::Plain || password.is_none() || loopback,
            "--smtp smtp-plain:// would send the password in clear text: use smtps:// or smtp://"
        );
        let from: Mailbox = from.parse().with_context(|| {
            format!("--smtp-from {from:?} is not a mail address such as billing@example.com")
        })?;
        let mut builder = SmtpTransport::builder_dangerous(host)
            .port(authority.port_u16().unwrap_or(port))
            .timeout(Some(PATIENCE))
            .hello_name(ClientId::Domain(from.email.domain().to_owned()));
        if privacy != Privacy::Plain {
            let mut tls = TlsParameters::builder(host.to_owned());
            if let Some(pem) = authorities {
                let found = Certificate::from_pem(pem).context("--smtp-authorities holds no certificates")?;
                tls = tls.add_root_certificate(found);
            }
            let tls = tls.build().context("TLS for --smtp")?;
            builder =
                builder.tls(if privacy == Privacy::Tls { Tls::Wrapper(tls) } else { Tls::Required(tls) });
        }
        if let (Some(user), Some(password)) = (user, password) {
            builder = builder.credentials(Credentials::new(user.to_owned(), password.expose().to_owned()));
        }
        Ok(Self { transport: builder.build(), from })
    }

    /// Hands one mail to the server.
    pub(super) async fn send(&self, to: &str, alert: &DueAlert, currency: &str) -> Result<(), String> {
        let to: Address = to.parse().map_err(|_| format!("{to:?} is not a mail address"))?;
        let message = self.message(to, alert, currency).map_err(|e| e.to_string())?;
        let transport = self.transport.clone();
        // A conversation of a few lines, on a thread that may wait.
        let sent = tokio::task::spawn_blocking(move || transport.send(&message)).await;
        match sent {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(chain(&error)),
            Err(error) => Err(error.to_string()),
        }
    }

    fn message(
        &self,
        to: Address,
        alert: &DueAlert,
        currency: &str,
    ) -> Result<Message, lettre::error::Error> {
        let DueAlert { tenant, percent, .. } = alert;
        let what = match alert.of {
            AlertOf::Monthly => format!("the budget of {}", alert.month.as_deref().unwrap_or("the month")),
            AlertOf::Credits => "the credits".to_owned(),
        };
        let units = |pico: Pico| format!("{pico} {currency}");
        let text = format!(
            "Tenant {tenant} has spent {} of {}, which is {percent} % of {what} or more.\r\n\r\n\
             Show it:   wasmeter budget show --tenant {tenant}\r\n\
             Change it: wasmeter budget set --tenant {tenant} --monthly AMOUNT\r\n\r\n\
             Alert {}. The same id is the same alert.\r\n",
            units(alert.spent),
            units(alert.bound),
            alert.id
        );
        let id = format!("<{}@{}>", alert.id, self.from.email.domain());
        let mut message = Message::builder()
            .from(self.from.clone())
            .to(Mailbox::new(None, to))
            .subject(format!("wasmeter: {tenant} has spent {percent} % of {what}"))
            .message_id(Some(id))
            .singlepart(SinglePart::plain(text))?;
        // Nobody answers a machine (RFC 3834).
        message.headers_mut().insert_raw(HeaderValue::new(
            HeaderName::new_from_ascii_str("Auto-Submitted"),
            "auto-generated".to_owned(),
        ));
        Ok(message)
    }
}

/// An error with what caused it.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        text.push_str(": ");
        text.push_str(&error.to_string());
        next = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_mail_server_may_be() {
        let from = "billing@example.com";
        let secret = Secret::parse("pw").unwrap();
        for good in ["smtps://mail.example.com", "smtp://mail.example.com:2525", "smtp-plain://127.0.0.1:25"]
        {
            assert!(Mailer::new(good, from, None, None).is_ok(), "{good}");
        }
        assert!(Mailer::new("smtps://u@example.com@mail.example.com", from, Some(&secret), None).is_ok());
        assert!(Mailer::new("smtp-plain://u@127.0.0.1", from, Some(&secret), None).is_ok());
        for (bad, password, word) in [
            ("mail.example.com", None, "is not like"),
            ("imap://mail.example.com", None, "is not like"),
            ("smtps://", None, "is not like"),
            ("smtps://u@mail.example.com", None, "belong together"),
            ("smtps://mail.example.com", Some(&secret), "belong together"),
            ("smtps://u:p@mail.example.com", Some(&secret), "password"),
            ("smtp-plain://u@mail.example.com", Some(&secret), "clear text"),
        ] {
            let why = Mailer::new(bad, from, password, None).err().unwrap().to_string();
            assert!(why.contains(word), "{bad}: {why}");
        }
        assert!(Mailer::new("smtps://mail.example.com", "nobody", None, None).is_err());
    }

    #[test]
    fn mail_addresses() {
        assert!(check("ops@example.com").is_ok());
        for bad in ["", "ops", "a@b\r\nTo: c@d", "a@b, c@d", "@example.com"] {
            assert!(check(bad).unwrap_err().contains("name@example.com"), "{bad}");
        }
    }
}
