//! Ways to forge an export, by somebody who can compute every hash but has no key.

use serde_json::Value;
use wasmeter_receipt::{Hash, Link, record_hash};

/// An export, and that of another tenant over the same window.
pub struct Source {
    pub own: String,
    pub other: String,
}

/// SplitMix64 (Steele, Lea, Flood 2014).
pub struct Dice(u64);

impl Dice {
    pub fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % bound as u64) as usize
    }
}

type Edit = fn(&mut Vec<String>, &Source, &mut Dice) -> bool;

const WAYS: [(&str, Edit); 20] = [
    ("a byte", |lines, _, dice| byte(lines, dice)),
    ("a digit", |lines, _, dice| digit(lines, dice)),
    ("a line dropped", |lines, _, dice| {
        let at = dice.below(lines.len());
        lines.remove(at);
        true
    }),
    ("a line twice", |lines, _, dice| {
        let line = lines[dice.below(lines.len())].clone();
        let at = dice.below(lines.len() + 1);
        lines.insert(at, line);
        true
    }),
    ("two lines swapped", |lines, _, dice| {
        let (a, b) = (dice.below(lines.len()), dice.below(lines.len()));
        lines.swap(a, b);
        a != b
    }),
    ("two neighbours swapped", |lines, _, dice| {
        let at = dice.below(lines.len() - 1);
        lines.swap(at, at + 1);
        true
    }),
    ("a span reversed", |lines, _, dice| {
        let at = dice.below(lines.len() - 2);
        lines[at..at + 3].reverse();
        true
    }),
    ("the end cut off", |lines, _, dice| {
        lines.truncate(dice.below(lines.len()));
        true
    }),
    ("the head cut off", |lines, _, dice| {
        lines.drain(..1 + dice.below(lines.len() - 1));
        true
    }),
    ("another cost", |lines, _, dice| on(lines, dice, "invocation", cheaper)),
    ("another record, costed and linked anew", |lines, _, dice| {
        let sheets: Vec<wasmeter_usage::PriceSheet> = of_kind(lines, "sheet")
            .iter()
            .map(|at| serde_json::from_value(parse(&lines[*at])["sheet"].clone()).unwrap())
            .collect();
        on(lines, dice, "invocation", |line, dice| {
            line["record"]["fuel"] = Value::from(dice.below(1 << 40));
            let record = serde_json::from_value(line["record"].clone()).unwrap();
            let sheet = sheets.iter().find(|sheet| line["record"]["price_book"] == sheet.hash).unwrap();
            cost(line, sheet.cost(&record).unwrap());
            relink(line);
        })
    }),
    ("two signatures swapped", |lines, _, dice| {
        let signed: Vec<_> = of_kind(lines, "signature");
        let (a, b) = (signed[dice.below(signed.len())], signed[dice.below(signed.len())]);
        let take = |line: &str| parse(line)["signature"].clone();
        let (of_a, of_b) = (take(&lines[a]), take(&lines[b]));
        set(lines, a, "signature", of_b);
        set(lines, b, "signature", of_a);
        a != b
    }),
    ("a price", |lines, _, dice| {
        on(lines, dice, "sheet", |line, _| line["sheet"]["rates"]["fuel_million"] = Value::from(1))
    }),
    ("a price with its hash", |lines, _, dice| {
        on(lines, dice, "sheet", |line, dice| {
            let mut sheet: wasmeter_usage::PriceSheet =
                serde_json::from_value(line["sheet"].clone()).unwrap();
            sheet.rates.fuel_million = 1 + dice.below(1000) as u64;
            sheet = wasmeter_rating::sheet("USD", sheet.rates);
            line["sheet"] = serde_json::to_value(sheet).unwrap();
        })
    }),
    ("a line of another tenant instead", |lines, source, dice| {
        let other = pick(&source.other, dice);
        let at = dice.below(lines.len());
        let differs = lines[at] != other;
        lines[at] = other;
        differs
    }),
    ("a line of another tenant put in", |lines, source, dice| {
        let other = pick(&source.other, dice);
        let at = dice.below(lines.len() + 1);
        lines.insert(at, other);
        true
    }),
    ("a receipt hidden as one outside the window", |lines, _, dice| {
        on(lines, dice, "invocation", |line, _| {
            let record = line["record"].to_string();
            *line = serde_json::json!({"skipped": {
                "entry": line["entry"], "end_ns": line["record"]["end_ns"], "cost_pico": line["cost_pico"],
                "record": record_hash(&record), "sheet": line["record"]["price_book"], "chain": line["chain"],
            }});
        })
    }),
    ("a receipt taken out of the chain", |lines, _, dice| {
        let receipts = of_kind(lines, "invocation");
        let at = receipts[dice.below(receipts.len())];
        let mut chain = parse(&lines.remove(at))["chain"].clone();
        for line in lines.iter_mut().skip(at) {
            let mut value = parse(line);
            if value.get("invocation").is_none() {
                continue;
            }
            value["chain"]["index"] = chain["index"].clone();
            value["chain"]["previous"] = chain["previous"].clone();
            relink(&mut value);
            let next = value["chain"]["index"].as_u64().unwrap() + 1;
            chain = serde_json::json!({"index": next, "previous": value["chain"]["link"]});
            *line = value.to_string();
        }
        true
    }),
    ("another statement", |lines, _, dice| {
        let field =
            ["from_ns", "to_ns", "entries", "first", "last", "chain", "commit", "made_ns"][dice.below(8)];
        on(lines, dice, "statement", |line, _| {
            line["statement"][field] = Value::from(line["statement"][field].as_u64().unwrap() ^ 1);
        })
    }),
    ("a key of one's own", |lines, _, dice| {
        on(lines, dice, "key", |line, dice| {
            line["key"] = Value::from(Hash::of(&[&dice.below(1 << 30).to_be_bytes()]).to_string());
        })
    }),
];

/// The export after one forgery, and which.
pub fn tamper(source: &Source, seed: u64) -> (&'static str, String) {
    let mut dice = Dice(seed);
    loop {
        let (what, edit) = WAYS[dice.below(WAYS.len())];
        let mut lines: Vec<String> = source.own.lines().map(str::to_owned).collect();
        // Where a way does not apply, another is taken.
        if edit(&mut lines, source, &mut dice) {
            return (what, lines.into_iter().map(|line| line + "\n").collect());
        }
    }
}

fn parse(line: &str) -> Value {
    serde_json::from_str(line).unwrap()
}

fn of_kind(lines: &[String], key: &str) -> Vec<usize> {
    (0..lines.len()).filter(|at| parse(&lines[*at]).get(key).is_some()).collect()
}

fn set(lines: &mut [String], at: usize, key: &str, value: Value) {
    let mut line = parse(&lines[at]);
    line[key] = value;
    lines[at] = line.to_string();
}

fn pick(text: &str, dice: &mut Dice) -> String {
    let lines: Vec<_> = text.lines().collect();
    lines[dice.below(lines.len())].to_owned()
}

/// Edits a random line with a key; tells whether it is another then.
fn on(lines: &mut [String], dice: &mut Dice, key: &str, edit: impl FnOnce(&mut Value, &mut Dice)) -> bool {
    let at = of_kind(lines, key);
    if at.is_empty() {
        return false;
    }
    let at = at[dice.below(at.len())];
    let mut line = parse(&lines[at]);
    let before = line.clone();
    edit(&mut line, dice);
    lines[at] = line.to_string();
    line != before
}

fn byte(lines: &mut [String], dice: &mut Dice) -> bool {
    let at = dice.below(lines.len());
    let mut bytes = lines[at].clone().into_bytes();
    let place = dice.below(bytes.len());
    let new = b'!' + dice.below(94) as u8;
    let other = bytes[place] != new;
    bytes[place] = new;
    lines[at] = String::from_utf8(bytes).unwrap();
    other
}

fn digit(lines: &mut [String], dice: &mut Dice) -> bool {
    let at = dice.below(lines.len());
    let mut bytes = lines[at].clone().into_bytes();
    let digits: Vec<_> = (0..bytes.len()).filter(|place| bytes[*place].is_ascii_digit()).collect();
    if digits.is_empty() {
        return false;
    }
    let place = digits[dice.below(digits.len())];
    bytes[place] = b'0' + (bytes[place] - b'0' + 1 + dice.below(9) as u8) % 10;
    lines[at] = String::from_utf8(bytes).unwrap();
    true
}

/// Another cost, the same in all its forms.
fn cheaper(line: &mut Value, dice: &mut Dice) {
    cost(line, wasmeter_usage::Pico(dice.below(1 << 40) as i128));
}

fn cost(line: &mut Value, cost: wasmeter_usage::Pico) {
    line["cost_pico"] = serde_json::to_value(cost).unwrap();
    line["cost"] = Value::from(format!("{cost} USD"));
}

/// The link of what the line says now.
fn relink(line: &mut Value) {
    let record = line["record"].to_string();
    let hash = Link {
        previous: serde_json::from_value(line["chain"]["previous"].clone()).unwrap(),
        index: line["chain"]["index"].as_u64().unwrap(),
        end_ns: line["record"]["end_ns"].as_u64().unwrap(),
        cost_pico: line["cost_pico"].as_str().unwrap().parse().unwrap(),
        record: record_hash(&record),
        sheet: line["record"]["price_book"].as_str().unwrap(),
        tenant: line["record"]["tenant"].as_str().unwrap(),
    }
    .hash();
    line["chain"]["link"] = Value::from(hash.to_string());
}
