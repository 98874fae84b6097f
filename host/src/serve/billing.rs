use std::path::PathBuf;
use std::process::Command;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use parking_lot::{Condvar, Mutex};

use super::child::{Program, Supervised, supervise};
use super::money::{Billing, Mode};

/// How long the stand-in may take until it listens.
const TWIN_START: Duration = Duration::from_secs(20);

/// Seconds after which the stand-in gets usage.
const FLUSH_AFTER: &str = "1";

/// `wasmeter-billing` beside this program.
pub(crate) fn program() -> anyhow::Result<PathBuf> {
    let own = std::env::current_exe().context("cannot find this program's own path")?;
    let program = own.with_file_name("wasmeter-billing");
    ensure!(
        program.is_file(),
        "{} is not there: wasmeter-billing is installed beside wasmeter (`make build` builds both)",
        program.display()
    );
    Ok(program)
}

/// How billing is started.
#[derive(Clone, Debug)]
pub(crate) struct BillingChild {
    program: PathBuf,
    data: PathBuf,
    socket: PathBuf,
    terms: Billing,
    twin: Option<TwinAddress>,
    /// Seconds that billing's clock is ahead, where the stand-in's is.
    clock: Option<PathBuf>,
}

/// The processes of a single machine that keep its money.
pub(crate) struct BillingProcesses {
    billing: Arc<OnceLock<Supervised>>,
    twin: Option<Supervised>,
}

/// Where the stand-in for Stripe is: known once it has said so, and kept over its restarts.
#[derive(Clone, Debug, Default)]
struct TwinAddress(Arc<(Mutex<Option<String>>, Condvar)>);

/// How the stand-in is started.
struct TwinChild {
    program: PathBuf,
    data: PathBuf,
    webhooks: String,
    address: TwinAddress,
    /// Starts without a word: the port may have been taken meanwhile.
    silent: u32,
    /// Billing has to learn of another address.
    billing: Arc<OnceLock<Supervised>>,
}

impl BillingProcesses {
    /// Starts billing, and the stand-in for Stripe before it where that is configured, in `twin`, sending its webhooks
    /// to `webhooks`. Blocking until the stand-in listens.
    pub(crate) fn start(
        terms: &Billing,
        data: PathBuf,
        socket: PathBuf,
        twin: PathBuf,
        webhooks: String,
    ) -> anyhow::Result<Self> {
        let program = program()?;
        let billing = Arc::new(OnceLock::new());
        let mut terms = terms.clone();
        let mut process = None;
        let mut address = None;
        if terms.mode == Mode::Twin {
            let known = TwinAddress::default();
            let child = TwinChild {
                program: program.clone(),
                data: twin.clone(),
                webhooks,
                address: known.clone(),
                silent: 0,
                billing: billing.clone(),
            };
            let supervised = supervise(child).context("the stand-in for Stripe")?;
            if !known.appears(TWIN_START) {
                supervised.end();
                bail!("the stand-in for Stripe in {} did not start; what it said is above", twin.display());
            }
            process = Some(supervised);
            terms.stripe_key_file = Some(twin.join("secret-key"));
            terms.webhook_secret_file = Some(twin.join("webhook-secret"));
            address = Some(known);
        }
        let clock = address.is_some().then(|| twin.join("ahead"));
        let child = BillingChild { program, data, socket, terms, twin: address, clock };
        let supervised = supervise(child).context("billing")?;
        let _ = billing.set(supervised);
        Ok(Self { billing, twin: process })
    }

    /// Ends billing, then what it talks to.
    pub(crate) fn end(&self) {
        self.billing.get().into_iter().chain(&self.twin).for_each(Supervised::end);
    }
}

impl Program for BillingChild {
    const NAME: &'static str = "billing";
    const MEANWHILE: &'static str = "usage waits in the spool";

    fn command(&mut self) -> Command {
        let mut command = Command::new(&self.program);
        command.arg("serve").arg("--data").arg(&self.data).arg("--socket").arg(&self.socket);
        let terms = &self.terms;
        let files = [
            ("--prices", &terms.prices),
            ("--stripe-key-file", &terms.stripe_key_file),
            ("--webhook-secret-file", &terms.webhook_secret_file),
            ("--smtp-password-file", &terms.alerts.smtp_password_file),
            ("--smtp-authorities", &terms.alerts.smtp_authorities),
        ];
        for (flag, file) in files {
            if let Some(file) = file {
                command.arg(flag).arg(file);
            }
        }
        for (flag, text) in [("--smtp", &terms.alerts.smtp), ("--smtp-from", &terms.alerts.smtp_from)] {
            if let Some(text) = text {
                command.arg(flag).arg(text);
            }
        }
        if terms.alerts.private {
            command.arg("--alert-private");
        }
        if let Some(stamp) = terms.mode.stamp() {
            command.args(["--stamp", stamp, "--stripe", stamp]);
        }
        if let Some(url) = self.twin.as_ref().and_then(TwinAddress::url) {
            // Usage goes to the stand-in at once, since who tries it out does not wait for the hour's end.
            command.arg("--stripe-url").arg(url).args(["--flush-after", FLUSH_AFTER]);
        }
        if let Some(clock) = &self.clock {
            command.arg("--clock-file").arg(clock);
        }
        if let Some(subscribe) = terms.subscribe {
            command.arg("--subscribe").arg(subscribe.as_str());
        }
        if let Some(days) = terms.grace_days {
            command.arg("--grace-days").arg(days.to_string());
        }
        command
    }
}

impl Program for TwinChild {
    const NAME: &'static str = "stripe-twin";
    const MEANWHILE: &'static str = "billing sends later";
    const SPEAKS: bool = true;

    fn command(&mut self) -> Command {
        let mut command = Command::new(&self.program);
        command.arg("twin").arg("--data").arg(&self.data).arg("--webhook-url").arg(&self.webhooks);
        // Pages that were handed out stay where they are.
        let before = self.address.url().or_else(|| std::fs::read_to_string(self.data.join("twin-url")).ok());
        let port = before.as_deref().and_then(port).filter(|_| self.silent < 3);
        self.silent += 1;
        command.arg("--listen").arg(format!("127.0.0.1:{}", port.unwrap_or(0)));
        command
    }

    fn said(&mut self, line: &str) {
        let Some(url) = line.strip_prefix("twin listening on ").map(str::trim) else {
            tracing::error!("the stand-in for Stripe did not say where it listens");
            return;
        };
        self.silent = 0;
        if self.address.set(url)
            && let Some(billing) = self.billing.get()
        {
            billing.renew();
        }
    }
}

fn port(url: &str) -> Option<u16> {
    url.trim().parse::<http::Uri>().ok()?.port_u16()
}

impl TwinAddress {
    /// The last that is known.
    fn url(&self) -> Option<String> {
        self.0.0.lock().clone()
    }

    /// Whether it is another than before. The first is none: billing starts with it, and may have started already.
    fn set(&self, url: &str) -> bool {
        let before = self.0.0.lock().replace(url.to_owned());
        self.0.1.notify_all();
        before.is_some_and(|before| before != url)
    }

    fn appears(&self, within: Duration) -> bool {
        let mut url = self.0.0.lock();
        self.0.1.wait_while_for(&mut url, |url| url.is_none(), within);
        url.is_some()
    }
}

/// Where the stand-in reaches the public listener from this machine.
pub(crate) fn webhook_url(listen: std::net::SocketAddr) -> String {
    let ip = match listen.ip() {
        std::net::IpAddr::V4(ip) if ip.is_unspecified() => std::net::Ipv4Addr::LOCALHOST.into(),
        std::net::IpAddr::V6(ip) if ip.is_unspecified() => std::net::Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    format!("http://{}/stripe/webhook", std::net::SocketAddr::new(ip, listen.port()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::serve::money::Subscribe;

    #[test]
    fn the_words_that_billing_gets() {
        let words = |command: Command| -> Vec<String> {
            command.get_args().map(|a| a.to_str().unwrap().to_owned()).collect()
        };
        let mut child = BillingChild {
            program: "b".into(),
            data: "d".into(),
            socket: "s".into(),
            terms: Billing::default(),
            twin: None,
            clock: None,
        };
        assert_eq!(words(child.command()), ["serve", "--data", "d", "--socket", "s"]);
        child.terms.mode = Mode::Twin;
        child.terms.subscribe = Some(Subscribe::Required);
        let address = TwinAddress::default();
        assert!(!address.appears(Duration::from_millis(1)));
        assert!(!address.set("http://127.0.0.1:9"), "billing is not there yet, or was started with it");
        assert!(address.set("http://127.0.0.1:7") && !address.set("http://127.0.0.1:7"));
        assert!(address.appears(Duration::ZERO));
        child.twin = Some(address);
        let said = words(child.command()).join(" ");
        assert!(
            said.contains("--stamp twin --stripe twin --stripe-url http://127.0.0.1:7 --flush-after 1"),
            "{said}"
        );
        assert!(said.ends_with("--subscribe required"), "{said}");
    }

    #[test]
    fn the_twin_keeps_its_port_unless_it_cannot() {
        let mut twin = TwinChild {
            program: "b".into(),
            data: "/nowhere".into(),
            webhooks: "http://127.0.0.1:1/stripe/webhook".into(),
            address: TwinAddress::default(),
            silent: 0,
            billing: Arc::default(),
        };
        let listen = |t: &mut TwinChild| t.command().get_args().last().unwrap().to_str().unwrap().to_owned();
        assert_eq!(listen(&mut twin), "127.0.0.1:0");
        twin.said("twin listening on http://127.0.0.1:4242\n");
        for _ in 0..3 {
            assert_eq!(listen(&mut twin), "127.0.0.1:4242");
        }
        assert_eq!(listen(&mut twin), "127.0.0.1:0");
    }

    #[test]
    fn webhooks_come_over_loopback() {
        let url = |listen: &str| webhook_url(listen.parse().unwrap());
        assert_eq!(url("0.0.0.0:80"), "http://127.0.0.1:80/stripe/webhook");
        assert_eq!(url("[::]:80"), "http://[::1]:80/stripe/webhook");
        assert_eq!(url("10.0.0.1:8080"), "http://10.0.0.1:8080/stripe/webhook");
    }
}
