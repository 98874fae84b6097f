use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::{Context, bail, ensure};
use clap::{Args, ValueEnum};
use wasmeter_ledger::{Admission, Stamp, Subscribe};
use wasmeter_rating::PriceBook;
use wasmeter_stripe::{Client, Endpoint, Money, Patience, STRIPE, Secret};

use super::items::Booked;
use super::{Buckets, Stripe, catalogue};

const SECOND_NS: u64 = 1_000_000_000;

/// Which Stripe, and with which key.
#[derive(Args, Clone)]
pub(crate) struct Access {
    /// Charge through the twin, or through Stripe in test or live mode; the same word that the ledger is stamped with
    #[arg(long, value_name = "twin|test|live")]
    pub(crate) stripe: Option<Stamp>,
    /// Address of the twin, such as http://127.0.0.1:12111
    #[arg(long, value_name = "URL")]
    pub(crate) stripe_url: Option<String>,
    /// File of mode 0600 with the secret or restricted key
    #[arg(long, value_name = "FILE")]
    pub(crate) stripe_key_file: Option<PathBuf>,
}

/// How `serve` charges.
#[derive(Args, Clone)]
pub(crate) struct Options {
    #[command(flatten)]
    pub(crate) access: Access,
    /// File of mode 0600 with the signing secret of the webhook endpoint; without it webhooks are refused
    #[arg(long, value_name = "FILE")]
    pub(crate) webhook_secret_file: Option<PathBuf>,
    /// Own listener for webhooks, POST /stripe/webhook, behind TLS of a proxy
    #[arg(long, value_name = "ADDR")]
    pub(crate) webhook_listen: Option<SocketAddr>,
    /// Whether a tenant without a subscription may go on once it used something that costs
    #[arg(long, value_enum, default_value = "optional")]
    subscribe: SubscribeWord,
    /// Days that a tenant goes on after a payment failed
    #[arg(long, value_name = "DAYS", default_value_t = 7)]
    grace_days: u32,
    /// Seconds after an hour's end in which its usage is awaited; what comes later is sent apart
    #[arg(long, value_name = "SECONDS", default_value_t = 300)]
    bucket_grace: u32,
    /// Send usage so many seconds after it was first seen, and not when its hour is over
    #[arg(long, value_name = "SECONDS")]
    flush_after: Option<u32>,
    /// Meter events a second, at most
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1000))]
    stripe_rate: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum SubscribeWord {
    Optional,
    Required,
}

impl Access {
    /// A client, if one is asked for; all that does not fit together is refused before the first byte is sent.
    pub(crate) fn client(&self, stamp: Option<Stamp>) -> anyhow::Result<Option<(Client, String)>> {
        let Some(stripe) = self.stripe else {
            ensure!(
                self.stripe_url.is_none() && self.stripe_key_file.is_none(),
                "--stripe-url and --stripe-key-file need --stripe twin, test or live"
            );
            return Ok(None);
        };
        ensure!(
            stamp.is_none_or(|stamp| stamp == stripe),
            "the ledger is stamped `{}` for ever and --stripe says `{stripe}`; name a data directory of its own",
            stamp.unwrap_or(stripe)
        );
        let key_file = self
            .stripe_key_file
            .as_deref()
            .context("--stripe needs --stripe-key-file, a file of mode 0600 with the secret key")?;
        let key = Secret::read(key_file)?;
        let (money, address) = match (stripe, &self.stripe_url) {
            (Stamp::Twin, Some(url)) => (Money::Twin, url.as_str()),
            (Stamp::Twin, None) => bail!("--stripe twin needs --stripe-url; see `wasmeter-billing twin`"),
            (_, Some(url)) if url != STRIPE => bail!("--stripe-url is for the twin alone; leave it out"),
            (Stamp::Test, _) => (Money::Test, STRIPE),
            (Stamp::Live, _) => (Money::Live, STRIPE),
        };
        let endpoint = Endpoint::new(address, money, &key)?;
        let client = Client::new(endpoint, &key, Patience::default())?;
        Ok(Some((client, address.to_owned())))
    }
}

impl Options {
    /// What `serve` needs, if it charges at all.
    pub(crate) fn open(&self, stamp: Option<Stamp>, book: PriceBook) -> anyhow::Result<Option<Stripe>> {
        let Some((client, address)) = self.access.client(stamp)? else {
            ensure!(
                self.webhook_secret_file.is_none() && self.webhook_listen.is_none(),
                "--webhook-secret-file and --webhook-listen need --stripe twin, test or live"
            );
            return Ok(None);
        };
        let secret = self.webhook_secret_file.as_deref().map(Secret::read).transpose()?;
        ensure!(
            secret.is_some() || self.webhook_listen.is_none(),
            "--webhook-listen needs --webhook-secret-file: without it no webhook can be believed"
        );
        let subscribe = match self.subscribe {
            SubscribeWord::Optional => Subscribe::Optional,
            SubscribeWord::Required => Subscribe::Required,
        };
        let grace_ns = u64::from(self.grace_days) * 86_400 * SECOND_NS;
        Ok(Some(Stripe {
            client,
            address,
            live: stamp == Some(Stamp::Live),
            secret,
            admission: Admission { subscribe, grace_ns },
            buckets: Buckets {
                grace_ns: u64::from(self.bucket_grace) * SECOND_NS,
                flush_ns: self.flush_after.map(|s| u64::from(s) * SECOND_NS),
                rate: self.stripe_rate,
            },
            catalogue: catalogue::Kept::default(),
            booked: Booked::default(),
            book,
            rung: tokio::sync::Notify::new(),
        }))
    }
}
