use std::fs::File;
use std::io::{BufRead, BufReader, Read, stdin};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail, ensure};
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Deserialize;
use wasmeter_receipt::{Fault, MAX_LINE, PublicKey, Report, Verifier, Wrong};

use crate::Format;

/// No file of keys is longer.
const MAX_KEYS: u64 = 1 << 20;

#[derive(Args)]
pub(crate) struct Options {
    /// Receipts as `wasmeter receipts --format json` prints them, all or one; `-` reads standard input
    receipts: PathBuf,
    /// The operator's public key in hexadecimal, or a file of such keys or of `wasmeter receipts --keys --format json`.
    /// Without it the keys in the receipts are believed, which anybody can have made; the output says so
    #[arg(long, value_name = "FILE|HEX")]
    key: Vec<String>,
    /// How to print the result
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
}

pub(crate) fn run(options: &Options) -> anyhow::Result<ExitCode> {
    let mut pinned = Vec::new();
    for key in &options.key {
        pinned.extend(keys(key)?);
    }
    let pinned = (!options.key.is_empty()).then_some(pinned.as_slice());
    let (input, length): (Box<dyn Read>, u64) = if options.receipts == Path::new("-") {
        (Box::new(stdin()), 0)
    } else {
        let shown = options.receipts.display();
        let file = File::open(&options.receipts).with_context(|| format!("cannot read receipts {shown}"))?;
        let length = file.metadata().map_or(0, |meta| meta.len());
        (Box::new(file), length)
    };
    // Hidden by itself where stderr is no terminal.
    let bar = ProgressBar::new(length)
        .with_style(ProgressStyle::with_template("verifying {bar:40} {bytes}/{total_bytes} {eta}")?);
    let outcome = check(&mut BufReader::with_capacity(256 << 10, input), Verifier::new(pinned), &bar)?;
    let pinned = pinned.is_some();
    bar.finish_and_clear();
    match (&outcome, options.format) {
        (Ok(report), Format::Text) => print_text(report, pinned),
        (Err(fault), Format::Text) => println!("refused: {fault} [{}]", fault.wrong.as_str()),
        (Ok(report), Format::Json) => println!("{}", serde_json::to_string_pretty(&json(report, pinned))?),
        (Err(fault), Format::Json) => println!("{}", serde_json::to_string_pretty(&refusal(fault))?),
    }
    Ok(if outcome.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Line by line, none longer than [`MAX_LINE`] in memory. The outer error is the reader's.
fn check(
    input: &mut impl BufRead,
    mut verifier: Verifier,
    bar: &ProgressBar,
) -> anyhow::Result<Result<Report, Fault>> {
    let mut line = Vec::new();
    let mut number = 0u64;
    let mut done = 0u64;
    loop {
        line.clear();
        number += 1;
        let read = input.by_ref().take(MAX_LINE as u64 + 1).read_until(b'\n', &mut line)?;
        if read == 0 {
            return Ok(verifier.finish());
        }
        done += read as u64;
        if number.is_multiple_of(1024) {
            bar.set_position(done);
        }
        let refuse = |message: &str| {
            Ok(Err(Fault { line: number, invocation: None, wrong: Wrong::Shape, message: message.into() }))
        };
        if line.pop() != Some(b'\n') {
            return refuse(if read > MAX_LINE {
                "longer than any line of receipts"
            } else {
                "cut off in the line"
            });
        }
        let Ok(text) = std::str::from_utf8(&line) else { return refuse("not UTF-8") };
        if let Err(fault) = verifier.line(text) {
            return Ok(Err(fault));
        }
    }
}

#[derive(Deserialize)]
struct Published {
    keys: Vec<PublishedKey>,
}

#[derive(Deserialize)]
struct PublishedKey {
    public: PublicKey,
}

/// A key in hexadecimal, or those in a file.
fn keys(text: &str) -> anyhow::Result<Vec<PublicKey>> {
    if let Some(key) = PublicKey::parse(text) {
        return Ok(vec![key]);
    }
    let mut content = String::new();
    File::open(text)
        .with_context(|| format!("key {text:?} is neither 64 lower-case hexadecimal digits nor a file"))?
        .take(MAX_KEYS)
        .read_to_string(&mut content)
        .with_context(|| format!("cannot read keys {text}"))?;
    if let Ok(Published { keys }) = serde_json::from_str(&content) {
        return Ok(keys.into_iter().map(|key| key.public).collect());
    }
    let mut keys = Vec::new();
    for line in content.lines().map(str::trim).filter(|line| !line.is_empty()) {
        match PublicKey::parse(line) {
            Some(key) => keys.push(key),
            None => bail!("keys {text}: {line:?} is not a key of 64 lower-case hexadecimal digits"),
        }
    }
    ensure!(!keys.is_empty(), "keys {text}: there is none in it");
    Ok(keys)
}

fn print_text(report: &Report, pinned: bool) {
    println!("receipts    {}", report.receipts);
    println!("tenant      {}", report.tenant);
    println!("ledger      {} in {}", report.stamp, report.currency);
    println!("list total  {} {}", report.cost, report.currency);
    if report.adjustments > 0 {
        println!("corrections {} of {} {}", report.adjustments, report.adjusted, report.currency);
    }
    if let Some(statement) = &report.statement {
        println!("window      {} to {} ns", statement.from_ns, statement.to_ns);
        println!("chain       {} to {} of {}", statement.first, statement.last, statement.chain);
    }
    println!("skipped     {}", report.skipped);
    println!("commits     {}", report.commits);
    for key in &report.keys {
        println!("signed by   {key}");
    }
    if pinned {
        println!("all of it is in order, and signed by a key that was named");
    } else {
        println!(
            "all of it is in order, but WHOSE IT IS WAS NOT CHECKED: the keys are those in the file itself, and"
        );
        println!("whoever wrote the file can have made them. Name the operator's key with --key");
    }
    println!("what cannot be known from it:");
    for unknown in &report.unknown {
        println!("  {unknown}");
    }
}

fn json(report: &Report, pinned: bool) -> serde_json::Value {
    serde_json::json!({
        "ok": true,
        "receipts": report.receipts,
        "tenant": report.tenant,
        "stamp": report.stamp,
        "currency": report.currency,
        "cost_pico": report.cost,
        "adjustments": report.adjustments,
        "adjusted_pico": report.adjusted,
        "statement": report.statement,
        "skipped": report.skipped,
        "commits": report.commits,
        "keys": report.keys,
        "key_checked": pinned,
        "unknown": report.unknown,
    })
}

fn refusal(fault: &Fault) -> serde_json::Value {
    serde_json::json!({
        "ok": false,
        "line": fault.line,
        "invocation": fault.invocation,
        "wrong": fault.wrong.as_str(),
        "message": fault.message,
    })
}
