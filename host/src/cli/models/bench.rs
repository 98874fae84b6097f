//! `wasmeter models bench`.

use std::collections::BTreeMap;
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context as _, Result};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Deserialize;
use serde_json::{Value, json};
use wasmeter_types::ModelName;

use super::{Model, Whose};
use crate::cli::output::{Output, Paint, harmless, table, talk, time};

#[derive(clap::Args)]
pub(crate) struct BenchArgs {
    /// The model
    model: ModelName,
    /// Version number [default: the one labelled stable, or the highest]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    version: Option<u32>,
    /// The largest batch, in rows
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..=1024))]
    max_batch: u32,
    /// Size of a free dimension, such as sequence=128, or input.axis=128 where it has no name; may be repeated
    #[arg(long, value_name = "NAME=SIZE", value_parser = pair::<u32>)]
    dimension: Vec<(String, u32)>,
    /// What to fill an input with, such as sr=16000 [default: 0.5, and 1 in integers]; may be repeated
    #[arg(long, value_name = "INPUT=NUMBER", value_parser = pair::<f64>)]
    value: Vec<(String, f64)>,
    /// Seconds after which it ends with what is known by then
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=60))]
    seconds: u64,
    #[command(flatten)]
    whose: Whose,
    #[command(flatten)]
    output: Output,
}

fn pair<T: FromStr>(text: &str) -> Result<(String, T), String>
where
    T::Err: std::fmt::Display,
{
    let (name, value) = text.split_once('=').ok_or("it is written as name=number")?;
    Ok((name.to_owned(), value.parse().map_err(|error| format!("{value:?}: {error}"))?))
}

#[derive(Deserialize)]
struct Report {
    device: String,
    inputs: Vec<String>,
    steps: Vec<Step>,
    stopped: Option<String>,
    recommended: Recommended,
}

#[derive(Deserialize)]
struct Step {
    rows: u32,
    runs: u64,
    busy_ns: Spread,
    latency_ns: Spread,
    rows_per_second: f64,
}

#[derive(Deserialize)]
struct Spread {
    min: u64,
    median: u64,
    max: u64,
}

#[derive(Deserialize)]
struct Recommended {
    max_batch: u32,
    max_queue_delay: String,
    reason: String,
}

pub(super) fn bench(args: &BenchArgs) -> Result<()> {
    let BenchArgs { model, max_batch, seconds, .. } = args;
    let (client, path) = args.whose.change()?;
    let version = match args.version {
        Some(version) => version,
        None => chosen(client.get(&format!("{path}/{model}"))?)?,
    };
    talk(&format!("measuring {model} version {version}: made-up inputs, nobody is charged, calls go first"));
    let dimensions: BTreeMap<_, _> = args.dimension.iter().cloned().collect();
    let values: BTreeMap<_, _> = args.value.iter().cloned().collect();
    let asked =
        json!({ "max_batch": max_batch, "dimensions": dimensions, "values": values, "seconds": seconds });
    let bar = bar(*seconds);
    let answer = client.post(&format!("{path}/{model}/versions/{version}/bench"), &asked);
    bar.finish_and_clear();
    args.output.show(answer?, |report: Report| text(&report, Paint::stdout()))
}

/// What the name alone stands for, as far as that can be seen from here.
fn chosen(answer: Value) -> Result<u32> {
    let known: Model = serde_json::from_value(answer).context("the server's list of versions")?;
    let highest = known.versions.iter().map(|v| v.version).max();
    known.labels.get("stable").copied().or(highest).context("the model has no versions")
}

/// Fills up within the longest time that the server may take; hidden where stderr is no terminal.
fn bar(seconds: u64) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(seconds), ProgressDrawTarget::stderr());
    let style = ProgressStyle::with_template("{spinner} {wide_bar} {elapsed} of at most {len}s");
    if let Ok(style) = style {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(120));
    let ticking = bar.clone();
    std::thread::spawn(move || {
        for second in 1..seconds {
            std::thread::sleep(Duration::from_secs(1));
            if ticking.is_finished() {
                return;
            }
            ticking.set_position(second);
        }
    });
    bar
}

fn text(report: &Report, paint: Paint) -> String {
    let best = report.recommended.max_batch;
    let row = |step: &Step| {
        vec![
            if step.rows == best { format!("{} *", step.rows) } else { format!("{}  ", step.rows) },
            step.runs.to_string(),
            time(step.busy_ns.median),
            time(step.latency_ns.min),
            time(step.latency_ns.median),
            time(step.latency_ns.max),
            format!("{:.1}", step.rows_per_second),
        ]
    };
    let head = ["batch>", "runs>", "busy>", "latency min>", "median>", "max>", "rows/s>"];
    let table = table(&head, &report.steps.iter().map(row).collect::<Vec<_>>());
    let mark = format!("{best} *");
    let lines = table.lines().map(|line| {
        let green = line.trim_start().starts_with(&mark);
        if green { paint.green(line) } else { line.to_owned() }
    });
    let mut text = format!("{} on {}\n", harmless(&report.inputs.join(", ")), harmless(&report.device));
    lines.for_each(|line| text.push_str(&format!("{line}\n")));
    if let Some(stopped) = &report.stopped {
        text.push_str(&format!("{}\n", paint.red(&format!("ended early: {}", harmless(stopped)))));
    }
    let Recommended { max_queue_delay, reason, .. } = &report.recommended;
    let card = format!("[batching]\nmax-batch = {best}\nmax-queue-delay = \"{}\"", harmless(max_queue_delay));
    text.push_str(&format!("{}\n# {}\n", paint.bold(&card), harmless(reason)));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_advice_is_a_part_of_a_card() {
        let spread = json!({ "min": 900, "median": 1000, "max": 1100 });
        let step = |rows: u32| json!({ "rows": rows, "runs": 5, "busy_ns": spread, "latency_ns": spread, "rows_per_second": 1e6 });
        let report = json!({
            "device": "cpu:0", "inputs": ["x f32 [1, 2]"], "steps": [step(1), step(12)], "stopped": "too long",
            "recommended": { "max_batch": 12, "max_queue_delay": "0ms", "reason": "faster" }
        });
        let text = text(&serde_json::from_value(report).unwrap(), Paint::stderr());
        for part in ["x f32 [1, 2] on cpu:0", "12 *", "1.000 us", "too long", "max-batch = 12", "# faster"] {
            assert!(text.contains(part), "{part:?} is not in {text}");
        }
        assert_eq!(pair::<u32>("sequence=128"), Ok(("sequence".to_owned(), 128)));
        assert!(pair::<u32>("sequence").is_err() && pair::<u32>("sequence=x").is_err());
    }

    #[test]
    fn a_name_alone_is_its_stable_version() {
        let version = |n: u32| {
            json!({ "model": "m", "version": n, "backend": "onnx", "devices": [], "size": 1, "files": {},
                "licence": "", "task": "", "public": false, "created": "", "state": "ready" })
        };
        let versions = [version(1), version(2)];
        assert_eq!(chosen(json!({ "versions": versions })).unwrap(), 2);
        assert_eq!(chosen(json!({ "versions": versions, "labels": { "stable": 1 } })).unwrap(), 1);
    }
}
