use serde_json::{Value, json};

use crate::error::{ApiError, Result};
use crate::params::Params;
use crate::state::shown;

/// What every list takes.
pub(crate) const PAGING: [&str; 3] = ["limit", "starting_after", "ending_before"];

/// A page of what `wanted` lets through, the newest first (Stripe documentation, "Pagination").
pub(crate) fn page<'a>(
    params: &Params,
    url: &str,
    rows: impl Iterator<Item = &'a Value>,
    what: &str,
) -> Result<Value> {
    let limit = params.int("limit")?.unwrap_or(10);
    if !(1..=100).contains(&limit) {
        return Err(ApiError::invalid("Invalid limit: it must be between 1 and 100.").param("limit"));
    }
    let limit = usize::try_from(limit).unwrap_or(100);
    let (after, before) = (params.text("starting_after")?, params.text("ending_before")?);
    if after.is_some() && before.is_some() {
        return Err(ApiError::invalid("You may only specify one of starting_after and ending_before.")
            .code("parameters_exclusive"));
    }
    let lost = |id: &str, param: &str| ApiError::no_such(what, id, param);
    let mut data: Vec<&Value> = Vec::new();
    let has_more = match (after, before) {
        (_, Some(before)) => {
            let newer: Vec<&Value> = rows.take_while(|row| row["id"] != before).collect();
            let more = newer.len() > limit;
            data.extend(&newer[newer.len().saturating_sub(limit)..]);
            more
        }
        (after, None) => {
            let mut rows = rows.peekable();
            if let Some(after) = after {
                rows.by_ref().find(|row| row["id"] == after).ok_or_else(|| lost(after, "starting_after"))?;
            }
            data.extend(rows.by_ref().take(limit));
            rows.peek().is_some()
        }
    };
    let data: Vec<Value> = data.into_iter().map(shown).collect();
    Ok(json!({ "object": "list", "data": data, "has_more": has_more, "url": url }))
}

/// Whether an object was created in the window that `created[gte]` and its like name.
pub(crate) fn created_within(params: &Params, object: &Value) -> Result<bool> {
    let at = object["created"].as_i64().unwrap_or_default();
    let fits = |name: &str, fits: fn(i64, i64) -> bool| -> Result<bool> {
        Ok(params.int(&format!("created.{name}"))?.is_none_or(|bound| fits(at, bound)))
    };
    Ok(fits("gt", |a, b| a > b)?
        && fits("gte", |a, b| a >= b)?
        && fits("lt", |a, b| a < b)?
        && fits("lte", |a, b| a <= b)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_meet_without_gap_or_overlap() {
        let rows: Vec<Value> = (0..23).map(|n| json!({ "id": format!("x_{n}"), "_own": 1 })).collect();
        let read = |query: &str| {
            let params = Params(crate::form::parse(query).unwrap());
            page(&params, "/v1/xs", rows.iter().rev(), "x")
        };
        let mut seen = Vec::new();
        let mut query = "limit=5".to_owned();
        loop {
            let page = read(&query).unwrap();
            seen.extend(page["data"].as_array().unwrap().iter().map(|row| row["id"].clone()));
            if page["has_more"] == false {
                break;
            }
            query = format!("limit=5&starting_after={}", seen.last().unwrap().as_str().unwrap());
        }
        assert_eq!(seen, (0..23).rev().map(|n| json!(format!("x_{n}"))).collect::<Vec<_>>());
        let back = read("limit=2&ending_before=x_3").unwrap();
        assert_eq!(back["data"], json!([{"id": "x_5"}, {"id": "x_4"}]));
        assert!(read("limit=101").is_err() && read("starting_after=y").is_err());
    }
}
