use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::log::Log;
use crate::{Client, LogLine, Process, descendants};

/// A start with recovery and models, on a busy machine.
const START: Duration = Duration::from_secs(60);
/// A drain, longer than the host's own limits.
const STOP: Duration = Duration::from_secs(45);
/// Time for children to notice the death of their parent.
const ORPHANS: Duration = Duration::from_secs(5);
/// What a child says that was just starting when its parent was killed.
const BEREFT: &str = "nobody is left to serve";

/// How a host is started.
#[derive(Clone, Debug)]
pub struct Builder {
    program: PathBuf,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
    config: Option<String>,
    allowed: Vec<String>,
}

impl Builder {
    /// `process` or `power`.
    #[must_use]
    pub fn durability(self, level: &str) -> Self {
        self.argument("--durability").argument(level)
    }

    /// One more argument of `wasmeter serve`.
    #[must_use]
    pub fn argument(mut self, argument: &str) -> Self {
        self.arguments.push(argument.to_owned());
        self
    }

    /// An environment variable of the host.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// The text of its configuration file. The tenant `dev`, which a host with a configuration does not make,
    /// is made through the API.
    #[must_use]
    pub fn config(mut self, toml: &str) -> Self {
        self.config = Some(toml.to_owned());
        self
    }

    /// Log lines of level WARN or ERROR that hold this text are expected.
    #[must_use]
    pub fn allow_log(mut self, part: &str) -> Self {
        self.allowed.push(part.to_owned());
        self
    }

    /// Starts it and waits until it is ready.
    ///
    /// # Panics
    /// If it does not become ready.
    pub async fn start(self) -> Host {
        let billing = self.program.with_file_name("wasmeter-billing");
        assert!(
            billing.is_file(),
            "{} is not there: run `make build`, or `cargo build --release -p wasmeter-billing`",
            billing.display()
        );
        let folder = tempfile::Builder::new().prefix("wasmeter-").tempdir().expect("a temporary folder");
        let log = Log::default();
        self.allowed.iter().for_each(|part| log.allow(part));
        if let Some(toml) = &self.config {
            std::fs::write(folder.path().join("server.toml"), toml).expect("the configuration is written");
        }
        let anonymous = Client::new("http://127.0.0.1:1");
        let (dev, operator) = (anonymous.clone(), anonymous.clone());
        let mut host =
            Host { builder: self, folder, log, child: None, anonymous, dev, operator, admin: String::new() };
        host.start().await;
        host
    }

    /// Starts `wasmeter serve` with these settings on this data directory, for one that shall refuse to start:
    /// its exit status and what it said.
    ///
    /// # Panics
    /// If it is still there after ten seconds.
    pub async fn refused(self) -> (ExitStatus, String) {
        let folder = tempfile::tempdir().expect("a temporary folder");
        if let Some(toml) = &self.config {
            std::fs::write(folder.path().join("server.toml"), toml).expect("the configuration is written");
        }
        let mut child = self.command(folder.path()).spawn().expect("the program starts");
        let log = Log::default();
        log.read(child.stderr.take().expect("standard error is a pipe"));
        let status = match wait(&mut child, Duration::from_secs(10)).await {
            Some(status) => status,
            None => {
                let _ = child.kill();
                panic!("the host started:\n{}", log.tail());
            }
        };
        assert!(log.ended(ORPHANS), "a child outlived the host");
        (status, log.tail())
    }

    fn command(&self, folder: &Path) -> Command {
        let mut command = Command::new(&self.program);
        command.arg("serve").arg("--data").arg(folder.join("data"));
        if self.config.is_some() {
            command.arg("--config").arg(folder.join("server.toml"));
        }
        for listener in ["--listen", "--admin-listen"] {
            if !self.arguments.iter().any(|a| a == listener) {
                command.arg(listener).arg("127.0.0.1:0");
            }
        }
        command.args(&self.arguments);
        for (name, _) in std::env::vars_os() {
            let text = name.to_string_lossy();
            if text.starts_with("WASMETER_") && text != "WASMETER_CACHE" {
                command.env_remove(name);
            }
        }
        command.env("WASMETER_LOG_FORMAT", "json").envs(self.environment.iter().cloned());
        // The folder is its own too: nothing of the checkout is found by accident.
        command.current_dir(folder);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        command
    }
}

/// A running host, with its data.
pub struct Host {
    builder: Builder,
    folder: TempDir,
    log: Log,
    child: Option<Child>,
    anonymous: Client,
    dev: Client,
    operator: Client,
    admin: String,
}

impl Host {
    /// `program` is `env!("CARGO_BIN_EXE_wasmeter")`, which cargo gives to integration tests alone.
    #[must_use]
    pub fn builder(program: impl Into<PathBuf>) -> Builder {
        Builder {
            program: program.into(),
            arguments: Vec::new(),
            environment: Vec::new(),
            config: None,
            allowed: Vec::new(),
        }
    }

    /// Starts it again on its data, after [`Host::kill9`] or [`Host::term`].
    ///
    /// # Panics
    /// If it runs, or does not become ready.
    pub async fn start(&mut self) {
        assert!(self.child.is_none(), "the host runs already");
        for name in ["url", "admin-url"] {
            let _ = std::fs::remove_file(self.data().join(name));
        }
        let mut child = self.builder.command(self.folder.path()).spawn().expect("the program starts");
        self.log.read(child.stderr.take().expect("standard error is a pipe"));
        self.child = Some(child);
        let end = Instant::now() + START;
        // The public address is written last.
        let url = self.appears("url", end).await;
        self.admin = self.appears("admin-url", end).await;
        self.anonymous = Client::new(&url);
        let token = self.appears("operator-token", end).await;
        self.operator = self.anonymous.with_token(&token);
        while !matches!(self.anonymous.get("/readyz").try_send().await, Ok(answer) if answer.status == 200) {
            self.pause(end, "/readyz").await;
        }
        let token = match &self.builder.config {
            None => self.appears("dev-token", end).await,
            Some(_) => {
                self.put_tenant("dev").await;
                self.mint("dev", &["deploy", "invoke", "read"], 3600).await
            }
        };
        self.dev = self.anonymous.with_token(&token);
    }

    /// Stops it in order, if it runs, and starts it again on its data.
    ///
    /// # Panics
    /// If it fails at one of them.
    pub async fn restart(&mut self) {
        if self.child.is_some() {
            let status = self.term().await;
            assert!(status.success(), "the host ended with {status}:\n{}", self.log.tail());
        }
        self.start().await;
    }

    /// Kills it at once; its children have gone too when this returns.
    ///
    /// # Panics
    /// If it does not run, or a child outlives it.
    pub fn kill9(&mut self) {
        let mut child = self.child.take().expect("the host runs");
        self.log.allow(BEREFT);
        child.kill().expect("the host can be killed");
        child.wait().expect("the host can be waited for");
        assert!(self.log.ended(ORPHANS), "a child outlived the host");
    }

    /// Asks it to end and waits for it.
    ///
    /// # Panics
    /// If it does not run, does not end, or a child outlives it.
    pub async fn term(&mut self) -> ExitStatus {
        self.signal(Signal::TERM);
        let mut child = self.child.take().expect("the host runs");
        let Some(status) = wait(&mut child, STOP).await else {
            let _ = child.kill();
            panic!("the host did not end:\n{}", self.log.tail());
        };
        assert!(self.log.ended(ORPHANS), "a child outlived the host");
        status
    }

    /// Sends it a signal.
    ///
    /// # Panics
    /// If it does not run.
    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.pid().cast_signed()).expect("a process number");
        kill_process(pid, signal).expect("the host takes a signal");
    }

    /// Its process number.
    ///
    /// # Panics
    /// If it does not run.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("the host runs").id()
    }

    /// Its children and theirs.
    #[must_use]
    pub fn children(&self) -> Vec<Process> {
        descendants(self.pid())
    }

    /// The one child whose command line has this text, such as `device-worker` or `wasmeter-billing`.
    ///
    /// # Panics
    /// If there is none or more than one.
    #[must_use]
    pub fn the_child(&self, part: &str) -> Process {
        let all = self.children();
        let mut found = all.iter().filter(|p| p.command.contains(part));
        match (found.next(), found.next()) {
            (Some(one), None) => one.clone(),
            _ => panic!("not one child with {part:?} in its command line: {all:?}"),
        }
    }

    /// Its data directory.
    #[must_use]
    pub fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// Its public URL, without a slash at the end.
    #[must_use]
    pub fn url(&self) -> String {
        self.anonymous.url()
    }

    /// The address of its public listener.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.anonymous.address()
    }

    /// A client without a token.
    #[must_use]
    pub fn anonymous(&self) -> &Client {
        &self.anonymous
    }

    /// A client with the token of the tenant `dev`.
    #[must_use]
    pub fn dev(&self) -> &Client {
        &self.dev
    }

    /// A client with the operator's token.
    #[must_use]
    pub fn operator(&self) -> &Client {
        &self.operator
    }

    /// A client of the admin listener.
    #[must_use]
    pub fn admin(&self) -> Client {
        Client::new(&self.admin)
    }

    /// Everything that it and its children wrote to standard error.
    #[must_use]
    pub fn log(&self) -> Vec<LogLine> {
        self.log.lines()
    }

    /// Log lines of level WARN or ERROR that hold this text are expected.
    pub fn allow_log(&self, part: &str) {
        self.log.allow(part);
    }

    async fn appears(&mut self, name: &str, end: Instant) -> String {
        loop {
            match std::fs::read_to_string(self.data().join(name)) {
                Ok(text) if !text.is_empty() => return text.trim().to_owned(),
                _ => self.pause(end, name).await,
            }
        }
    }

    async fn pause(&mut self, end: Instant, what: &str) {
        let ended = self.child.as_mut().and_then(|c| c.try_wait().ok().flatten());
        if let Some(status) = ended {
            self.log.ended(ORPHANS);
            panic!("the host ended with {status}:\n{}", self.log.tail());
        }
        assert!(Instant::now() < end, "the host did not start ({what}):\n{}", self.log.tail());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            self.log.allow(BEREFT);
            let _ = child.kill();
            let _ = child.wait();
        }
        let ended = self.log.ended(ORPHANS);
        if std::thread::panicking() {
            eprintln!("--- the host's log, its last lines\n{}", self.log.tail());
            return;
        }
        assert!(ended, "a child outlived the host");
        let unexpected = self.log.unexpected();
        assert!(unexpected.is_empty(), "the host's log has alarms:\n{}", unexpected.join("\n"));
    }
}

async fn wait(child: &mut Child, within: Duration) -> Option<ExitStatus> {
    let end = Instant::now() + within;
    loop {
        if let Ok(Some(status)) = child.try_wait() {
            return Some(status);
        }
        if Instant::now() > end {
            return None;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
