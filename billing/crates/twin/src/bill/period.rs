use time::{Date, Month, OffsetDateTime};

/// The end of the `n`th period after `anchor`: the same time of day, months later on the same day or the last that the
/// month has (Stripe documentation, "Billing cycle").
pub(crate) fn boundary(anchor: i64, interval: &str, every: i64, n: i64) -> i64 {
    let steps = every.max(1).saturating_mul(n);
    match interval {
        "day" => anchor.saturating_add(steps.saturating_mul(86_400)),
        "week" => anchor.saturating_add(steps.saturating_mul(7 * 86_400)),
        "year" => months_after(anchor, steps.saturating_mul(12)),
        _ => months_after(anchor, steps),
    }
}

/// The first boundary after `at`.
pub(crate) fn next(anchor: i64, interval: &str, every: i64, at: i64) -> i64 {
    (1..100_000).map(|n| boundary(anchor, interval, every, n)).find(|end| *end > at).unwrap_or(i64::MAX)
}

fn months_after(anchor: i64, months: i64) -> i64 {
    let moved = || {
        let start = OffsetDateTime::from_unix_timestamp(anchor).ok()?;
        let month = i64::from(u8::from(start.month())) - 1 + months;
        let year = start.year() + i32::try_from(month.div_euclid(12)).ok()?;
        let month = Month::try_from(u8::try_from(month.rem_euclid(12) + 1).ok()?).ok()?;
        let day = start.day().min(month.length(year));
        Some(start.replace_date(Date::from_calendar_date(year, month, day).ok()?).unix_timestamp())
    };
    moved().unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn months_keep_the_day_where_they_can() {
        // 2026-01-31T12:00:00Z
        let anchor = 1_769_860_800;
        let day = |n| {
            let date = OffsetDateTime::from_unix_timestamp(boundary(anchor, "month", 1, n)).unwrap();
            (u8::from(date.month()), date.day(), date.hour())
        };
        assert_eq!((day(1), day(2), day(3), day(13)), ((2, 28, 12), (3, 31, 12), (4, 30, 12), (2, 28, 12)));
        assert_eq!(boundary(0, "day", 2, 3), 6 * 86_400);
        assert_eq!(next(anchor, "month", 1, anchor), boundary(anchor, "month", 1, 1));
        assert_eq!(
            next(anchor, "month", 1, boundary(anchor, "month", 1, 1)),
            boundary(anchor, "month", 1, 2)
        );
    }
}
