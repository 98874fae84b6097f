//! MiniLM through a function on a whole host, 32 connections, against bare ONNX Runtime's best in the same run.
//! Started by `deploy/bench/minilm.sh`; needs `wasmeter`, `wasmeter-billing` and wasmeter-device's example
//! `bare_minilm` built beside it, the model of `deploy/setup.sh` and the components `bench-nn` and `similar`.

#[path = "bench_parts/figures.rs"]
mod figures;
#[path = "bench_parts/load.rs"]
mod load;

use std::io::{BufRead, BufReader, Lines, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use bytes::Bytes;
use figures::Figure;
use load::{Caller, Load};
use wasmeter_testkit::{Host, manifest, model};

const CONNECTIONS: usize = 32;
const TOKENS: usize = 128;
const ROUNDS: usize = 9;
/// Without counting, until batches are full.
const WARM: Duration = Duration::from_millis(1500);
const MEASURE: Duration = Duration::from_secs(8);

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let examples = std::env::current_exe()?.parent().context("a folder of examples")?.to_owned();
    let mut bare = Bare::start(&examples.join("bare_minilm"))?;
    let host = Host::builder(examples.with_file_name("wasmeter")).start().await;
    host.push_model(&model("minilm")).await;
    for name in ["bench-nn", "similar"] {
        host.deploy(name, &manifest(name).models(&["minilm"])).await;
    }
    let token = host.dev().token().map(ToOwned::to_owned);
    let vector = Arc::new(std::mem::take(&mut bare.vector));
    let embed = || {
        let vector = Arc::clone(&vector);
        Caller {
            path: "/fn/dev/bench-nn/embed".to_owned(),
            token: token.clone(),
            body: ids().iter().flat_map(|id| id.to_le_bytes()).collect(),
            right: Arc::new(move |answer| near(answer, &vector)),
        }
    };
    // Words that are a token each: with the marks of begin and end, texts of the same length.
    let text = "cat ".repeat(TOKENS - 2);
    let question = Bytes::from(format!("{{\"a\":\"{text}\",\"b\":\"{text}\"}}"));
    let similar = || Caller {
        path: "/fn/dev/similar".to_owned(),
        token: token.clone(),
        body: question.clone(),
        right: Arc::new(|answer| answer.starts_with(b"{\"similarity\":")),
    };

    let mut rounds = Vec::new();
    for _ in 0..ROUNDS {
        let bare = bare.rate()?;
        let before = Device::of(&host).await?;
        let embed = measure(&host, embed).await?;
        let device = Device::of(&host).await?;
        let similar = measure(&host, similar).await?;
        rounds.push(Round {
            bare,
            embed: embed.rate,
            cpu: embed.cpu,
            batch: device.since(&before),
            similar: 2. * similar.rate,
        });
    }
    println!(
        "MiniLM, {TOKENS} tokens a text; median (smallest to largest) of {ROUNDS} rounds, each in turn\n"
    );
    println!("bare ONNX Runtime, a Rust loop, its best: {}", bare.best);
    let line = |what: &str, digits, of: fn(&Round) -> f64| {
        println!("  {what:<34} {}", Figure::of(rounds.iter().map(of), digits));
    };
    line("texts a second", 2, |r| r.bare);
    println!("\nthrough a function, {CONNECTIONS} connections, one text a call");
    line("texts a second", 2, |r| r.embed);
    line("mean batch", 2, |r| r.batch);
    line("host's CPU, ms a call", 2, |r| r.cpu * 1e3);
    line("over bare (at least 0.95 is asked)", 3, |r| r.embed / r.bare);
    println!("\nfunction `similar`, {CONNECTIONS} connections, two texts a call, tokenised by the guest");
    line("texts a second", 2, |r| r.similar);
    line("over bare", 3, |r| r.similar / r.bare);
    println!("\nwhat bare tried: batch, threads, spinning -> texts a second");
    bare.tried.iter().for_each(|tried| println!("  {tried}"));
    Ok(())
}

struct Round {
    bare: f64,
    embed: f64,
    cpu: f64,
    batch: f64,
    similar: f64,
}

/// As `bare_minilm` makes them.
fn ids() -> Vec<i64> {
    let middle = |i: i64| 2000 + i * 137 % 20_000;
    let last = i64::try_from(TOKENS).unwrap_or(i64::MAX) - 1;
    (0..=last)
        .map(|i| {
            if i == 0 {
                101
            } else if i == last {
                102
            } else {
                middle(i)
            }
        })
        .collect()
}

fn near(answer: &[u8], vector: &[f32]) -> bool {
    let values = answer.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]));
    answer.len() == vector.len() * 4 && values.zip(vector).all(|(a, b)| (a - b).abs() < 1e-3)
}

struct Measured {
    rate: f64,
    cpu: f64,
}

/// Calls a second, and the processor seconds of the host, its workers not counted, for each.
async fn measure(host: &Host, caller: impl Fn() -> Caller) -> anyhow::Result<Measured> {
    let load = Load::start(host.address(), (0..CONNECTIONS).map(|_| caller()).collect());
    tokio::time::sleep(WARM).await;
    let sum = |load: &Load| load.counts().iter().sum::<u64>();
    let (began, calls, cpu) = (Instant::now(), sum(&load), seconds_of(host.pid())?);
    tokio::time::sleep(MEASURE).await;
    let calls = (sum(&load) - calls) as f64;
    let (took, cpu) = (began.elapsed().as_secs_f64(), seconds_of(host.pid())? - cpu);
    load.stop().await?;
    ensure!(calls > 0., "no call came back");
    Ok(Measured { rate: calls / took, cpu: cpu / calls })
}

/// Processor seconds of a process, all its threads.
fn seconds_of(pid: u32) -> anyhow::Result<f64> {
    let mut ns = 0u64;
    for task in std::fs::read_dir(format!("/proc/{pid}/task"))? {
        let text = std::fs::read_to_string(task?.path().join("schedstat")).unwrap_or_default();
        ns += text.split(' ').next().and_then(|ns| ns.parse::<u64>().ok()).unwrap_or(0);
    }
    Ok(ns as f64 / 1e9)
}

/// Counters of `cpu:0`.
struct Device {
    computes: f64,
    batches: f64,
}

impl Device {
    async fn of(host: &Host) -> anyhow::Result<Self> {
        let answer = host.admin().get("/metrics").send().await;
        let of = |name: &str| {
            let line = answer.text().lines().find(|l| l.starts_with(name) && l.contains("device=\"cpu:0\""));
            line.and_then(|l| l.rsplit(' ').next()?.parse::<f64>().ok())
                .with_context(|| format!("no {name} in /metrics"))
        };
        Ok(Self {
            computes: of("wasmeter_device_computes_total")?,
            batches: of("wasmeter_device_batches_total")?,
        })
    }

    /// The mean batch since then.
    fn since(&self, before: &Self) -> f64 {
        (self.computes - before.computes) / (self.batches - before.batches)
    }
}

/// The baseline, a process of its own that waits between its turns.
struct Bare {
    child: Child,
    ask: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
    tried: Vec<String>,
    best: String,
    vector: Vec<f32>,
}

impl Bare {
    fn start(program: &std::path::Path) -> anyhow::Result<Self> {
        let mut child = Command::new(program)
            .arg(model("minilm").join("model.onnx"))
            .arg(TOKENS.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("{}", program.display()))?;
        let ask = child.stdin.take().context("a pipe")?;
        let answers = BufReader::new(child.stdout.take().context("a pipe")?).lines();
        let mut bare =
            Self { child, ask, answers, tried: Vec::new(), best: String::new(), vector: Vec::new() };
        loop {
            match bare.next()? {
                (word, text) if word == "tried" => bare.tried.push(text),
                (word, text) if word == "best" => {
                    let parts: Vec<&str> = text.split(' ').collect();
                    let [batch, threads, spin] = parts[..] else { bail!("{text:?}") };
                    bare.best = format!("batch {batch}, {threads} threads, spinning {spin}");
                }
                (word, text) if word == "vector" => {
                    bare.vector = text.split(' ').map(str::parse).collect::<Result<_, _>>()?;
                    return Ok(bare);
                }
                (word, _) => bail!("the baseline said {word:?}"),
            }
        }
    }

    fn next(&mut self) -> anyhow::Result<(String, String)> {
        let line = self.answers.next().context("the baseline ended")??;
        let (word, text) = line.split_once(' ').with_context(|| format!("the baseline said {line:?}"))?;
        Ok((word.to_owned(), text.to_owned()))
    }

    fn rate(&mut self) -> anyhow::Result<f64> {
        writeln!(self.ask, "measure")?;
        Ok(self.next()?.1.parse()?)
    }
}

impl Drop for Bare {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
