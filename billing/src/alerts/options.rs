use std::path::PathBuf;

use anyhow::{Context, bail};
use clap::Args;
use wasmeter_stripe::Secret;

use super::{Alerts, mail, webhook};

/// How alerts of budgets go out.
#[derive(Args, Clone)]
pub(crate) struct Options {
    /// Alerts may be posted to private and loopback addresses, and in clear text
    #[arg(long)]
    alert_private: bool,
    /// Mail server for alerts: smtps://[USER@]HOST[:PORT] (TLS), smtp:// (STARTTLS) or smtp-plain:// (neither)
    #[arg(long, value_name = "URL")]
    smtp: Option<String>,
    /// Sender of these mails, such as billing@example.com
    #[arg(long, value_name = "ADDRESS")]
    smtp_from: Option<String>,
    /// File of mode 0600 with the password of the mail server's user
    #[arg(long, value_name = "FILE")]
    smtp_password_file: Option<PathBuf>,
    /// Certificate authorities (PEM) that the mail server may have its certificate from, beside the web's
    #[arg(long, value_name = "FILE")]
    smtp_authorities: Option<PathBuf>,
}

impl Options {
    /// The ways out, checked as far as can be without a connection.
    pub(crate) fn open(&self) -> anyhow::Result<Alerts> {
        let mail = match (&self.smtp, &self.smtp_from) {
            (Some(url), Some(from)) => {
                let password = self.smtp_password_file.as_deref().map(Secret::read).transpose()?;
                let read = |path: &PathBuf| {
                    std::fs::read(path).with_context(|| format!("--smtp-authorities {}", path.display()))
                };
                let authorities = self.smtp_authorities.as_ref().map(read).transpose()?;
                Some(mail::Mailer::new(url, from, password.as_ref(), authorities.as_deref())?)
            }
            (None, None) if self.smtp_password_file.is_none() && self.smtp_authorities.is_none() => None,
            (Some(_), None) => bail!("--smtp needs --smtp-from, the sender's address"),
            (None, _) => {
                bail!("--smtp-from, --smtp-password-file and --smtp-authorities need --smtp, the mail server")
            }
        };
        let webhook = webhook::Sender::new(self.alert_private).context("TLS for alerts")?;
        Ok(Alerts { webhook, mail })
    }
}
