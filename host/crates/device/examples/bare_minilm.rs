//! MiniLM in ONNX Runtime and nothing around it: a loop over one session. It looks for its best batch and threads, and
//! then measures that at each line on standard input, until that ends. Started by the host's example `minilm_bench`.
//!
//! Arguments: the model's file, tokens of a text. Output, a line each: `tried BATCH THREADS SPIN RATE`…,
//! `best BATCH THREADS SPIN`, `vector NUMBERS…` (of the text that [`ids`] makes), and for each line of input `rate RATE`.
#![allow(clippy::unwrap_used, clippy::cast_precision_loss, reason = "a bench ends where something is wrong")]

use std::{
    env,
    io::{self, BufRead, Write},
    thread,
    time::{Duration, Instant},
};

use ort::{environment::Environment, session::Session, value::TensorRef};
use wasmeter_device::find_onnxruntime;

const BATCHES: [usize; 5] = [1, 2, 4, 8, 16];
const TRY: Duration = Duration::from_millis(1500);
const MEASURE: Duration = Duration::from_secs(6);
const WIDTH: usize = 384;

#[derive(Clone, Copy)]
struct Setting {
    batch: usize,
    threads: usize,
    spin: bool,
}

fn main() {
    let mut arguments = env::args().skip(1);
    let model = std::fs::read(arguments.next().expect("the path of model.onnx")).unwrap();
    let tokens: usize = arguments.next().expect("the tokens of a text").parse().unwrap();
    let library = find_onnxruntime(None).unwrap();
    let engine = ort::init_from(library).unwrap().with_telemetry(false).build().unwrap();
    let mut out = io::stdout().lock();
    let cores = thread::available_parallelism().unwrap().get();
    let mut best: Option<(f64, Setting)> = None;
    // One thread, and all cores with and without spinning between operators.
    let ways = [(1, false), (cores, false), (cores, true)];
    for (threads, spin) in if cores == 1 { &ways[..1] } else { &ways[..] }.iter().copied() {
        let mut session = session(&engine, &model, threads, spin);
        for batch in BATCHES {
            let setting = Setting { batch, threads, spin };
            let rate = rate(&mut session, batch, tokens, TRY);
            writeln!(out, "tried {batch} {threads} {spin} {rate:.2}").unwrap();
            if best.is_none_or(|(most, _)| rate > most) {
                best = Some((rate, setting));
            }
        }
    }
    let (_, Setting { batch, threads, spin }) = best.unwrap();
    let mut session = session(&engine, &model, threads, spin);
    writeln!(out, "best {batch} {threads} {spin}").unwrap();
    let vector: Vec<String> = vector(&mut session, tokens).iter().map(f32::to_string).collect();
    writeln!(out, "vector {}", vector.join(" ")).unwrap();
    out.flush().unwrap();
    for line in io::stdin().lock().lines() {
        line.unwrap();
        writeln!(out, "rate {:.3}", rate(&mut session, batch, tokens, MEASURE)).unwrap();
        out.flush().unwrap();
    }
}

fn session(engine: &Environment, model: &[u8], threads: usize, spin: bool) -> Session {
    Session::builder(engine)
        .unwrap()
        .with_intra_threads(threads)
        .unwrap()
        .with_intra_op_spinning(spin)
        .unwrap()
        .commit_from_memory(model)
        .unwrap()
}

/// Numbers of tokens in the middle of the vocabulary, begin and end mark around them.
fn ids(tokens: usize) -> Vec<i64> {
    (0..tokens)
        .map(|i| match i {
            0 => 101,
            _ if i + 1 == tokens => 102,
            _ => 2000 + i64::try_from(i * 137 % 20_000).unwrap(),
        })
        .collect()
}

fn run<T>(session: &mut Session, batch: usize, tokens: usize, take: impl FnOnce(&[f32]) -> T) -> T {
    let (rows, ones, zeros) =
        (ids(tokens).repeat(batch), vec![1i64; batch * tokens], vec![0i64; batch * tokens]);
    let tensor = |data| TensorRef::from_array_view(([batch, tokens], data)).unwrap();
    let outputs = session
        .run(ort::inputs![
            "input_ids" => tensor(&rows[..]),
            "attention_mask" => tensor(&ones[..]),
            "token_type_ids" => tensor(&zeros[..]),
        ])
        .unwrap();
    let (_, states) = outputs["last_hidden_state"].try_extract_tensor::<f32>().unwrap();
    assert_eq!(states.len(), batch * tokens * WIDTH);
    take(states)
}

/// Texts a second.
fn rate(session: &mut Session, batch: usize, tokens: usize, time: Duration) -> f64 {
    run(session, batch, tokens, |_| ());
    let began = Instant::now();
    let mut texts = 0;
    while began.elapsed() < time {
        run(session, batch, tokens, |_| ());
        texts += batch;
    }
    texts as f64 / began.elapsed().as_secs_f64()
}

/// The mean over the tokens, scaled to length 1: what the function answers.
fn vector(session: &mut Session, tokens: usize) -> Vec<f32> {
    run(session, 1, tokens, |states| {
        let mut sum = vec![0f32; WIDTH];
        for state in states.chunks_exact(WIDTH) {
            sum.iter_mut().zip(state).for_each(|(sum, value)| *sum += value);
        }
        let length = sum.iter().map(|value| value * value).sum::<f32>().sqrt();
        sum.iter().map(|value| value / length).collect()
    })
}
