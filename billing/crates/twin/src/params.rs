use serde_json::{Map, Value, json};

use crate::error::{ApiError, Result};
use crate::form::clip;

/// The parameters of a request: a tree whose leaves are texts, and getters that say what is wrong.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Params(pub(crate) Map<String, Value>);

impl Params {
    /// Refuses a parameter that no pattern names. Patterns are paths such as `items.#.price`; `#` is any index and
    /// `*` any name. `expand` is known everywhere.
    pub(crate) fn check(&self, known: &[&str]) -> Result<()> {
        for (name, value) in &self.0 {
            if name != "expand" {
                check(value, &mut vec![name.clone()], known)?;
            }
        }
        Ok(())
    }

    fn at(&self, path: &str) -> Option<&Value> {
        let mut parts = path.split('.');
        let mut value = self.0.get(parts.next()?)?;
        for part in parts {
            value = match value {
                Value::Array(list) => list.get(part.parse::<usize>().ok()?)?,
                other => other.get(part)?,
            };
        }
        Some(value)
    }

    pub(crate) fn has(&self, path: &str) -> bool {
        self.at(path).is_some()
    }

    /// A text, also an empty one, which unsets.
    pub(crate) fn raw(&self, path: &str) -> Result<Option<&str>> {
        match self.at(path) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => {
                Err(ApiError::invalid(format!("Invalid string: {}", bracketed(path))).param(bracketed(path)))
            }
        }
    }

    /// A text that is not empty.
    pub(crate) fn text(&self, path: &str) -> Result<Option<&str>> {
        Ok(self.raw(path)?.filter(|text| !text.is_empty()))
    }

    /// A text of at most `longest` characters.
    pub(crate) fn short(&self, path: &str, longest: usize) -> Result<Option<&str>> {
        let text = self.text(path)?;
        if text.is_some_and(|text| text.chars().count() > longest) {
            let path = bracketed(path);
            return Err(ApiError::invalid(format!(
                "Invalid string: {path} must be at most {longest} characters"
            ))
            .param(path));
        }
        Ok(text)
    }

    pub(crate) fn need(&self, path: &str) -> Result<&str> {
        match self.raw(path)? {
            Some("") => Err(ApiError::invalid(format!(
                "You passed an empty string for '{}'. We assume empty values are an attempt to unset a parameter; however '{}' cannot be unset.",
                bracketed(path),
                bracketed(path)
            ))
            .code("parameter_invalid_empty")
            .param(bracketed(path))),
            Some(text) => Ok(text),
            None => Err(ApiError::needed(&bracketed(path))),
        }
    }

    pub(crate) fn int(&self, path: &str) -> Result<Option<i64>> {
        self.text(path)?
            .map(|text| {
                text.parse().map_err(|_| {
                    ApiError::invalid(format!("Invalid integer: {}", clip(text)))
                        .code("parameter_invalid_integer")
                        .param(bracketed(path))
                })
            })
            .transpose()
    }

    pub(crate) fn need_int(&self, path: &str) -> Result<i64> {
        self.int(path)?.ok_or_else(|| ApiError::needed(&bracketed(path)))
    }

    pub(crate) fn bool(&self, path: &str) -> Result<Option<bool>> {
        match self.text(path)? {
            None => Ok(None),
            Some("true") => Ok(Some(true)),
            Some("false") => Ok(Some(false)),
            Some(other) => {
                Err(ApiError::invalid(format!("Invalid boolean: {}", clip(other))).param(bracketed(path)))
            }
        }
    }

    /// One of some words.
    pub(crate) fn word<'a>(&'a self, path: &str, words: &[&str]) -> Result<Option<&'a str>> {
        let text = self.text(path)?;
        match text {
            Some(text) if !words.contains(&text) => Err(ApiError::invalid(format!(
                "Invalid {}: must be one of {}",
                bracketed(path),
                words.join(", ")
            ))
            .param(bracketed(path))),
            _ => Ok(text),
        }
    }

    /// How many entries a list has.
    pub(crate) fn len(&self, path: &str) -> usize {
        self.at(path).and_then(Value::as_array).map_or(0, Vec::len)
    }

    /// A list of texts.
    pub(crate) fn texts(&self, path: &str) -> Vec<&str> {
        let list = self.at(path).and_then(Value::as_array);
        list.into_iter().flatten().filter_map(Value::as_str).collect()
    }

    /// The entries of a map of texts, as they are.
    pub(crate) fn map(&self, path: &str) -> Result<Map<String, Value>> {
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let entries: Option<Map<String, Value>> = match self.at(path) {
            None => Some(Map::new()),
            Some(Value::String(empty)) if empty.is_empty() => Some(Map::new()),
            Some(Value::Object(map)) => {
                map.iter().map(|(name, value)| Some((name.clone(), json!(text(value)?)))).collect()
            }
            // Names that are all numbers look like a list.
            Some(Value::Array(list)) => {
                list.iter().enumerate().map(|(n, value)| Some((n.to_string(), json!(text(value)?)))).collect()
            }
            Some(_) => None,
        };
        entries.ok_or_else(|| {
            ApiError::invalid(format!("Invalid object: {}", bracketed(path))).param(bracketed(path))
        })
    }

    /// `metadata` laid over what was there: an empty value takes a key away. At most 50 keys of 40 characters with
    /// values of 500 (Stripe documentation, "Metadata").
    pub(crate) fn metadata(&self, path: &str, before: &Value) -> Result<Value> {
        let mut all = before.as_object().cloned().unwrap_or_default();
        if self.raw(path).ok().flatten() == Some("") {
            all.clear();
        }
        for (name, value) in self.map(path)? {
            let long = name.chars().count() > 40 || value.as_str().is_some_and(|v| v.chars().count() > 500);
            if long {
                return Err(ApiError::invalid(
                    "Metadata keys have at most 40 characters and values at most 500.",
                )
                .param(bracketed(path)));
            }
            if value == "" {
                all.remove(&name);
            } else {
                all.insert(name, value);
            }
        }
        if all.len() > 50 {
            return Err(ApiError::invalid("Metadata has at most 50 keys.").param(bracketed(path)));
        }
        Ok(Value::Object(all))
    }
}

fn check(value: &Value, path: &mut Vec<String>, known: &[&str]) -> Result<()> {
    match value {
        Value::Object(map) => {
            for (name, value) in map {
                path.push(name.clone());
                check(value, path, known)?;
                path.pop();
            }
            Ok(())
        }
        Value::Array(list) => {
            for (index, value) in list.iter().enumerate() {
                path.push(index.to_string());
                check(value, path, known)?;
                path.pop();
            }
            Ok(())
        }
        leaf => {
            let unset = leaf == "";
            if known.iter().any(|pattern| fits(pattern, path, unset)) {
                return Ok(());
            }
            let name = bracketed(&clip(&path.join(".")));
            Err(ApiError::invalid(format!("Received unknown parameter: {name}"))
                .code("parameter_unknown")
                .param(name))
        }
    }
}

/// Whether a pattern names a path; with `unset` also where it goes deeper, since an empty text unsets a whole.
fn fits(pattern: &str, path: &[String], unset: bool) -> bool {
    let parts: Vec<&str> = pattern.split('.').collect();
    let deep_enough = parts.len() == path.len() || (unset && parts.len() > path.len());
    deep_enough
        && parts.iter().zip(path).all(|(part, name)| match *part {
            "*" => true,
            "#" => name.bytes().all(|b| b.is_ascii_digit()),
            part => part == name,
        })
}

/// `a.b.0` as `a[b][0]`.
fn bracketed(path: &str) -> String {
    let mut parts = path.split('.');
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        text.push('[');
        text.push_str(part);
        text.push(']');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn params(text: &str) -> Params {
        Params(crate::form::parse(text).unwrap())
    }

    #[test]
    fn unknown_parameters_are_refused_by_name() {
        let known = ["name", "metadata.*", "items.#.price", "settings.method"];
        let check = |text: &str| params(text).check(&known).map_err(|e| e.param.unwrap());
        assert_eq!(check("name=x&metadata[a]=1&metadata[0]=2&items[0][price]=p&expand[]=x"), Ok(()));
        assert_eq!(check("metadata=&settings="), Ok(()));
        assert_eq!(check("nam=x"), Err("nam".into()));
        assert_eq!(check("items[0][quantity]=1"), Err("items[0][quantity]".into()));
        assert_eq!(check("items[x][price]=1"), Err("items[x][price]".into()));
        assert_eq!(check("metadata=1"), Err("metadata".into()));
        assert_eq!(check("name[a]=1"), Err("name[a]".into()));
    }

    #[test]
    fn values_are_read_strictly() {
        let p = params("n=12&x=1.5&yes=true&no=maybe&e=&m[a]=1&m[b]=&w=day");
        assert_eq!(p.int("n").unwrap(), Some(12));
        assert_eq!(p.int("x").unwrap_err().code, Some("parameter_invalid_integer"));
        assert_eq!((p.bool("yes").unwrap(), p.bool("no").is_err()), (Some(true), true));
        assert_eq!(p.need("e").unwrap_err().code, Some("parameter_invalid_empty"));
        assert_eq!(p.need("none").unwrap_err().code, Some("parameter_missing"));
        assert_eq!(p.metadata("m", &json!({"b": "2", "c": "3"})).unwrap(), json!({"a": "1", "c": "3"}));
        assert!(p.word("w", &["hour"]).is_err() && p.word("w", &["day"]).unwrap() == Some("day"));
        assert!(p.short("n", 1).is_err());
    }
}
