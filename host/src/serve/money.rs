use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use serde::Deserialize;

/// `[billing]`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub(crate) struct Billing {
    /// The price book; the built-in one if absent.
    pub(crate) prices: Option<PathBuf>,
    /// Who collects the money.
    pub(crate) mode: Mode,
    /// Stripe's secret key, mode 0600; read by billing alone.
    pub(crate) stripe_key_file: Option<PathBuf>,
    /// The webhook endpoint's secret, mode 0600; read by billing alone.
    pub(crate) webhook_secret_file: Option<PathBuf>,
    /// Whether a tenant without a subscription may work; `optional` if absent.
    pub(crate) subscribe: Option<Subscribe>,
    /// Days that a tenant goes on after a payment failed; 7 if absent.
    pub(crate) grace_days: Option<u32>,
    /// How alerts of budgets go out.
    pub(crate) alerts: Alerts,
}

/// `[billing.alerts]`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub(crate) struct Alerts {
    /// Whether they may be posted to private and loopback addresses, and in clear text.
    pub(crate) private: bool,
    /// The mail server: `smtps://[USER@]HOST[:PORT]`, `smtp://` (STARTTLS) or `smtp-plain://`.
    pub(crate) smtp: Option<String>,
    /// The sender of these mails.
    pub(crate) smtp_from: Option<String>,
    /// The password of the mail server's user, mode 0600; read by billing alone.
    pub(crate) smtp_password_file: Option<PathBuf>,
    /// Certificate authorities (PEM) that the mail server may have its certificate from, beside the web's.
    pub(crate) smtp_authorities: Option<PathBuf>,
}

/// Stripe gives up on a payment long before.
const MOST_GRACE_DAYS: u32 = 60;

/// Who collects the money.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Mode {
    /// Nobody: bills are shown and not sent.
    #[default]
    Off,
    /// The stand-in for Stripe, a process of this machine.
    Twin,
    /// Stripe in test mode.
    Test,
    /// Stripe.
    Live,
}

impl Mode {
    /// What the ledger is stamped with for ever.
    pub(crate) fn stamp(self) -> Option<&'static str> {
        match self {
            Self::Off => None,
            Self::Twin => Some("twin"),
            Self::Test => Some("test"),
            Self::Live => Some("live"),
        }
    }
}

/// Whether a subscription is needed.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Subscribe {
    /// Who has none works, and is not invoiced.
    Optional,
    /// Who has none gets 402.
    Required,
}

impl Subscribe {
    /// The word.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Optional => "optional",
            Self::Required => "required",
        }
    }
}

impl Billing {
    /// What can be told before anything is started. No key file is opened: the host has no key of money.
    pub(crate) fn check(&self, tls: bool) -> anyhow::Result<()> {
        if let Some(prices) = &self.prices {
            ensure!(prices.is_file(), "billing.prices {} is not a file", prices.display());
        }
        let files =
            [("stripe-key-file", &self.stripe_key_file), ("webhook-secret-file", &self.webhook_secret_file)];
        let real = matches!(self.mode, Mode::Test | Mode::Live);
        for (what, file) in files {
            match file {
                None => ensure!(
                    !real,
                    "billing.{what} is missing: with mode test or live it names a file of mode 0600"
                ),
                Some(_) if !real => anyhow::bail!(
                    "billing.{what} is for mode test or live: set billing.mode too, or leave the file out"
                ),
                Some(path) => check_key_file(what, path)?,
            }
        }
        let Alerts { smtp, smtp_from, smtp_password_file, smtp_authorities, .. } = &self.alerts;
        let alone = smtp_password_file.is_some() || smtp_authorities.is_some();
        ensure!(
            smtp.is_some() == smtp_from.is_some() && (smtp.is_some() || !alone),
            "billing.alerts.smtp and billing.alerts.smtp-from belong together, and smtp-password-file and smtp-authorities \
             go with them"
        );
        if let Some(path) = smtp_password_file {
            check_key_file("alerts.smtp-password-file", path)?;
        }
        if self.mode == Mode::Off {
            let set = self.subscribe.is_some() || self.grace_days.is_some();
            ensure!(!set, "billing.subscribe and billing.grace-days need a billing.mode other than off");
        }
        ensure!(
            !(tls && self.mode == Mode::Twin),
            "billing.mode twin sends its webhooks in clear text: it is for a listener without TLS"
        );
        let days = self.grace_days.unwrap_or(0);
        ensure!(days <= MOST_GRACE_DAYS, "billing.grace-days is {days}: it must be 0 to {MOST_GRACE_DAYS}");
        Ok(())
    }

    /// The same with paths that hold in other working directories.
    pub(crate) fn absolute(mut self) -> anyhow::Result<Self> {
        let paths = [
            &mut self.prices,
            &mut self.stripe_key_file,
            &mut self.webhook_secret_file,
            &mut self.alerts.smtp_password_file,
            &mut self.alerts.smtp_authorities,
        ];
        for path in paths.into_iter().flatten() {
            *path = std::path::absolute(&path)?;
        }
        Ok(self)
    }
}

/// Refuses a file of a key that others may read.
fn check_key_file(what: &str, path: &Path) -> anyhow::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    let shown = path.display();
    let meta = path.metadata().with_context(|| format!("billing.{what} {shown}"))?;
    ensure!(meta.is_file(), "billing.{what} {shown} is not a file");
    let mode = meta.permissions().mode() & 0o777;
    ensure!(
        mode & 0o077 == 0,
        "billing.{what} {shown} can be read by others (mode {mode:03o}): run chmod 600 on it"
    );
    Ok(())
}

/// Names that no environment of the host may have: the keys of money belong to billing alone.
const MONEY_NAMES: [&str; 4] = ["STRIPE_API_KEY", "STRIPE_SECRET_KEY", "STRIPE_KEY", "STRIPE_WEBHOOK_SECRET"];
/// Prefixes of Stripe's secret, restricted and webhook keys (Stripe docs, "API keys").
const MONEY_PREFIXES: [&str; 5] = ["sk_live_", "sk_test_", "rk_live_", "rk_test_", "whsec_"];

/// Refuses an environment that holds a key of money: a guest's way into this process must not be a way to it.
pub(crate) fn refuse_money(env: impl Iterator<Item = (String, String)>) -> anyhow::Result<()> {
    for (name, value) in env {
        ensure!(
            !MONEY_NAMES.contains(&name.as_str()) && !MONEY_PREFIXES.iter().any(|p| value.starts_with(p)),
            "the environment variable {name} holds a key of money: unset it, the host must never have one"
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_key_of_money_in_the_host() {
        let check = |k: &str, v: &str| refuse_money([(k.to_owned(), v.to_owned())].into_iter());
        for name in ["STRIPE_API_KEY", "STRIPE_SECRET_KEY", "STRIPE_WEBHOOK_SECRET"] {
            assert!(check(name, "x").is_err());
        }
        assert!(check("ANY", "sk_test_1").is_err());
        assert!(check("PATH", "/bin").is_ok());
    }

    #[test]
    fn modes_and_their_files() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str, mode: u32| {
            let path = dir.path().join(name);
            std::fs::write(&path, "never read").unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            path
        };
        let (key, open) = (file("key", 0o600), file("open", 0o640));
        let with = |mode, stripe_key_file: Option<&PathBuf>, webhook_secret_file: Option<&PathBuf>| {
            let (stripe_key_file, webhook_secret_file) =
                (stripe_key_file.cloned(), webhook_secret_file.cloned());
            Billing { mode, stripe_key_file, webhook_secret_file, ..Billing::default() }
        };
        let says = |billing: Billing, tls| {
            billing.check(tls).map_err(|e| format!("{e:#}")).err().unwrap_or_default()
        };
        assert_eq!(says(with(Mode::Live, Some(&key), Some(&key)), true), "");
        assert_eq!(says(with(Mode::Twin, None, None), false), "");
        assert!(says(with(Mode::Twin, None, None), true).contains("without TLS"));
        assert!(
            says(with(Mode::Twin, Some(&key), None), false)
                .contains("stripe-key-file is for mode test or live")
        );
        assert!(says(with(Mode::Off, None, Some(&key)), false).contains("webhook-secret-file is for"));
        assert!(says(with(Mode::Test, Some(&key), None), false).contains("webhook-secret-file is missing"));
        assert!(says(with(Mode::Test, Some(&open), Some(&key)), false).contains("mode 640): run chmod 600"));
        let absent = dir.path().join("absent");
        assert!(says(with(Mode::Live, Some(&key), Some(&absent)), false).contains("absent"));
        let mail = |smtp: Option<&str>, from: Option<&str>, smtp_password_file: Option<&PathBuf>| {
            let (smtp, smtp_from) = (smtp.map(str::to_owned), from.map(str::to_owned));
            let smtp_password_file = smtp_password_file.cloned();
            let alerts = Alerts { smtp, smtp_from, smtp_password_file, ..Alerts::default() };
            says(Billing { alerts, ..Billing::default() }, false)
        };
        assert_eq!(mail(Some("smtps://u@m"), Some("a@b"), Some(&key)), "");
        assert!(mail(Some("smtps://m"), None, None).contains("belong together"));
        assert!(mail(None, None, Some(&key)).contains("belong together"));
        assert!(mail(Some("smtps://u@m"), Some("a@b"), Some(&open)).contains("run chmod 600"));
        let subscribe = Some(Subscribe::Required);
        assert!(says(Billing { subscribe, ..Billing::default() }, false).contains("billing.mode"));
        let grace_days = Some(61);
        let late = Billing { grace_days, mode: Mode::Twin, ..Billing::default() };
        assert!(says(late, false).contains("billing.grace-days is 61"));
    }
}
