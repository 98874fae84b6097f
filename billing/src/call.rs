use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;
use wasmeter_ledger::Batch;
use wasmeter_usage::wire::Call;

/// A call as this side reads it: the records of an append stay the text that was sent, because the ledger keeps them
/// verbatim, and because one that this build cannot read must not stop the others.
pub(crate) enum Incoming {
    Append(Batch),
    Other(Call),
}

#[derive(Deserialize)]
struct Op<'a> {
    #[serde(borrow)]
    op: Cow<'a, str>,
}

#[derive(Deserialize)]
struct Append {
    node: String,
    epoch: u64,
    first_seq: u64,
    records: Vec<Box<RawValue>>,
}

/// What an append of ours begins with: it need not be read once to learn that it is one.
const APPEND: &[u8] = br#"{"op":"append","#;

pub(crate) fn parse(frame: &[u8]) -> serde_json::Result<Incoming> {
    if !frame.starts_with(APPEND) {
        let Op { op } = serde_json::from_slice(frame)?;
        if op != "append" {
            return serde_json::from_slice(frame).map(Incoming::Other);
        }
    }
    let Append { node, epoch, first_seq, records } = serde_json::from_slice(frame)?;
    Ok(Incoming::Append(Batch { node, epoch, first_seq, records }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_records_verbatim_even_unknown_ones() {
        let frame = br#"{"op":"append","node":"n","epoch":1,"first_seq":1,"records":[{"v":9, "x":1.0},3]}"#;
        let Ok(Incoming::Append(batch)) = parse(frame) else { panic!("not an append") };
        assert_eq!(batch.records[0].get(), r#"{"v":9, "x":1.0}"#);
        assert_eq!(batch.records.len(), 2);
        assert!(matches!(parse(br#"{"op":"hello","protocol":1,"node":"n"}"#), Ok(Incoming::Other(_))));
        assert!(parse(br#"{"op":"append"}"#).is_err());
        assert!(parse(br#"{"op":"explode"}"#).is_err());
        assert!(parse(b"\xff").is_err());
    }

    #[test]
    fn agrees_with_the_contract() {
        let call = Call::Append { node: "n".into(), epoch: 2, first_seq: 3, records: Vec::new() };
        let mut texts = Vec::new();
        wasmeter_usage::wire::encode_append(&mut texts, "n", 2, 3, true, br#"{"v":1}"#).unwrap();
        for (frame, count) in [(serde_json::to_vec(&call).unwrap(), 0), (texts[4..].to_vec(), 1)] {
            assert!(frame.starts_with(APPEND));
            let Ok(Incoming::Append(batch)) = parse(&frame) else { panic!("not an append") };
            assert_eq!((batch.node.as_str(), batch.epoch, batch.first_seq), ("n", 2, 3));
            assert_eq!(batch.records.len(), count);
        }
    }
}
