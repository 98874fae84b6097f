use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

/// Longer inputs find nothing that shorter ones do not.
const MOST: usize = 4096;
/// Mutated inputs that are kept.
const POOL: usize = 256;
/// Executions where `WASMETER_FUZZ_RUNS` says nothing: a second or two.
const RUNS: u64 = 20_000;

/// Calls `target` with mutations of a corpus, the same ones at each call of the test. `WASMETER_FUZZ_RUNS` says how
/// many, `WASMETER_FUZZ_SEED` which. `words` are what a mutation may insert. `target` says whether the input got through
/// to the last of what is tested: such inputs are mutated again.
///
/// # Panics
/// If `target` does, after having shown the input; if less than a tenth got through, since then next to nothing was tested.
pub fn fuzz(corpus: &[&[u8]], words: &[&[u8]], target: impl Fn(&[u8]) -> bool) {
    let number = |name: &str| std::env::var(name).ok().and_then(|v| v.parse::<u64>().ok());
    let runs = number("WASMETER_FUZZ_RUNS").unwrap_or(RUNS);
    let mut chance =
        Chance(number("WASMETER_FUZZ_SEED").unwrap_or(1).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let mut through = 0;
    let mut pool: Vec<Vec<u8>> = corpus.iter().map(|c| c.to_vec()).collect();
    for run in 0..runs {
        let mut input = pool[chance.below(pool.len())].clone();
        for _ in 0..=chance.below(3) {
            let other = &pool[chance.below(pool.len())];
            mutate(&mut input, other, words, &mut chance);
        }
        input.truncate(MOST);
        match catch_unwind(AssertUnwindSafe(|| target(&input))) {
            Ok(false) => {}
            Ok(true) if pool.len() < corpus.len() + POOL => {
                through += 1;
                pool.push(input);
            }
            Ok(true) => {
                through += 1;
                // The corpus itself stays.
                let place = corpus.len() + chance.below(POOL);
                pool[place] = input;
            }
            Err(panic) => {
                eprintln!("execution {run} panicked on: {}", input.escape_ascii());
                resume_unwind(panic);
            }
        }
    }
    println!("{runs} executions, {through} of them to the end");
    assert!(through >= runs / 10, "only {through} of {runs} inputs got through");
}

/// xorshift64* (Vigna 2016): the same numbers everywhere.
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, most: usize) -> usize {
        let most = u64::try_from(most.max(1)).unwrap_or(1);
        usize::try_from((self.next() >> 11) % most).unwrap_or(0)
    }
}

fn mutate(input: &mut Vec<u8>, other: &[u8], words: &[&[u8]], chance: &mut Chance) {
    let place = chance.below(input.len() + 1);
    let end = (place + chance.below(32)).min(input.len());
    match chance.below(8) {
        0 => {
            if let Some(byte) = input.get_mut(place) {
                *byte ^= 1 << chance.below(8);
            }
        }
        1 => input.insert(place, u8::try_from(chance.below(256)).unwrap_or(0)),
        2 => drop(input.drain(place..end)),
        3 => {
            let piece = input[place..end].to_vec();
            input.splice(place..place, piece);
        }
        4 => {
            let from = chance.below(other.len() + 1);
            input.truncate(place);
            input.extend_from_slice(&other[from..]);
        }
        5 => {
            let count = 1 << chance.below(9);
            let byte = input.get(place).copied().unwrap_or(b'a');
            input.splice(place..place, std::iter::repeat_n(byte, count));
        }
        _ => {
            let word = words.get(chance.below(words.len())).copied().unwrap_or_default();
            input.splice(
                place..end.min(place + chance.below(2) * word.len()).max(place),
                word.iter().copied(),
            );
        }
    }
}
