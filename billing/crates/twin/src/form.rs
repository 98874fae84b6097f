use serde_json::{Map, Value};

use crate::error::{ApiError, Result};

/// Parameters of one request at most.
const MAX_PARAMS: usize = 1000;
/// Names of a parameter within one another at most, as in `a[b][c]`.
const MAX_DEPTH: usize = 8;
/// Longest list of a parameter.
const MAX_INDEX: usize = 500;

/// Reads form-encoded text (`a=1&b[c]=2&d[0][e]=3&f[]=4`) into a tree whose leaves are texts.
pub(crate) fn parse(text: &str) -> Result<Map<String, Value>> {
    let mut root = Value::Object(Map::new());
    for (count, pair) in text.split('&').filter(|pair| !pair.is_empty()).enumerate() {
        if count == MAX_PARAMS {
            return Err(ApiError::invalid(format!("Too many parameters: at most {MAX_PARAMS}.")));
        }
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let (name, value) = (decode(name)?, decode(value)?);
        let path = split(&name)?;
        insert(&mut root, &path, &name, value)?;
    }
    lists(&mut root);
    match root {
        Value::Object(map) => Ok(map),
        _ => Ok(Map::new()),
    }
}

/// Percent-decoding with `+` for a space.
pub(crate) fn decode(text: &str) -> Result<String> {
    let bad = || ApiError::invalid("The request's parameters are not valid form encoding.");
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'+' => out.push(b' '),
            b'%' => {
                let pair = [bytes.next().ok_or_else(bad)?, bytes.next().ok_or_else(bad)?];
                out.push(hex::decode(pair).map_err(|_| bad())?[0]);
            }
            byte => out.push(byte),
        }
    }
    String::from_utf8(out).map_err(|_| bad())
}

/// `a[b][c]` as its names.
fn split(name: &str) -> Result<Vec<&str>> {
    let bad = || ApiError::invalid(format!("Invalid parameter name: {}", clip(name)));
    let (first, mut rest) = name.find('[').map_or((name, ""), |at| name.split_at(at));
    if first.is_empty() {
        return Err(bad());
    }
    let mut path = vec![first];
    while !rest.is_empty() {
        let inner = rest.strip_prefix('[').ok_or_else(bad)?;
        let end = inner.find(']').ok_or_else(bad)?;
        path.push(&inner[..end]);
        rest = &inner[end + 1..];
        if path.len() > MAX_DEPTH {
            return Err(bad());
        }
    }
    Ok(path)
}

fn insert(root: &mut Value, path: &[&str], name: &str, value: String) -> Result<()> {
    let clash = || ApiError::invalid(format!("Invalid parameter: {} is given in two ways.", clip(name)));
    let mut at = root;
    for key in path {
        if at.is_null() {
            *at = Value::Object(Map::new());
        }
        let map = at.as_object_mut().ok_or_else(clash)?;
        // `a[]=x` appends.
        let key = if key.is_empty() { map.len().to_string() } else { (*key).to_owned() };
        at = map.entry(key).or_insert(Value::Null);
    }
    if !at.is_null() {
        return Err(clash());
    }
    *at = Value::String(value);
    Ok(())
}

/// Makes lists of what has only indices.
fn lists(value: &mut Value) {
    let Value::Object(map) = value else { return };
    map.values_mut().for_each(lists);
    let count = map.len();
    let indexed = count > 0
        && count <= MAX_INDEX
        && map.keys().all(|key| key.parse::<usize>().is_ok_and(|n| n <= MAX_INDEX && n.to_string() == *key));
    if indexed {
        let mut items: Vec<(usize, Value)> = std::mem::take(map)
            .into_iter()
            .filter_map(|(key, value)| key.parse().ok().map(|index| (index, value)))
            .collect();
        items.sort_by_key(|(index, _)| *index);
        *value = Value::Array(items.into_iter().map(|(_, value)| value).collect());
    }
}

/// Text of a stranger for an error message.
pub(crate) fn clip(text: &str) -> String {
    text.chars().take(100).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn reads_what_is_nested() {
        let read = |text| Value::Object(parse(text).unwrap());
        assert_eq!(read(""), json!({}));
        assert_eq!(
            read("a=1+2&b%5Bc%5D=%C3%A4&d[0][e]=3&d[1][e]=4&f[]=5&f[]=6&g="),
            json!({"a": "1 2", "b": {"c": "ä"}, "d": [{"e": "3"}, {"e": "4"}], "f": ["5", "6"], "g": ""})
        );
    }

    #[test]
    fn refuses_what_is_malformed() {
        for bad in [
            "=1",
            "[a]=1",
            "a[=1",
            "a]b[c]=1",
            "a[b]c=1",
            "a=%",
            "a=%4",
            "a=%zz",
            "a=%ff",
            "a=1&a=2",
            "a=1&a[b]=2",
        ] {
            let refused = parse(bad);
            // `a]b[c]` has a name with a bracket: it is merely unknown.
            assert!(refused.is_err() || bad == "a]b[c]=1", "{bad}: {refused:?}");
        }
        assert!(parse(&"a[b]".repeat(20)).is_err());
        assert!(parse(&(0..1001).map(|n| format!("a{n}=1&")).collect::<String>()).is_err());
    }

    proptest::proptest! {
        #[test]
        fn never_panics(text in ".{0,300}") {
            let _ = parse(&text);
        }
    }
}
