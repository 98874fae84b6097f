use time::format_description::well_known::Rfc3339;
use time::macros::format_description;
use time::{Date, OffsetDateTime, Time, UtcOffset};
use wasmeter_types::{Error, ErrorKind};

/// RFC 3339 in UTC, of nanoseconds since the Unix epoch.
#[must_use]
pub fn rfc3339(ns: u64) -> String {
    // 64 bits of nanoseconds end in the year 2554, which the format can write.
    OffsetDateTime::from_unix_timestamp_nanos(ns.into())
        .ok()
        .and_then(|t| t.format(&Rfc3339).ok())
        .unwrap_or_default()
}

/// Nanoseconds since the Unix epoch, of an RFC 3339 time or date (midnight UTC).
pub(crate) fn parse(name: &str, text: &str) -> Result<u64, Error> {
    let fail = || {
        let got: String = text.chars().take(64).collect();
        let message =
            format!("{name} is {got:?}: write RFC 3339, such as 2026-11-01 or 2026-11-01T00:00:00Z");
        Error::new(ErrorKind::Malformed, message)
    };
    // A plus that was not percent-encoded arrives as a space.
    let text = text.replace(' ', "+");
    let at = match OffsetDateTime::parse(&text, &Rfc3339) {
        Ok(at) => at,
        Err(_) => Date::parse(&text, format_description!("[year]-[month]-[day]"))
            .map_err(|_| fail())?
            .with_time(Time::MIDNIGHT)
            .assume_utc(),
    };
    u64::try_from(at.unix_timestamp_nanos()).map_err(|_| fail())
}

/// Start and end of the UTC month that holds the time.
pub(crate) fn month(ns: u64) -> (u64, u64) {
    let date = |at: OffsetDateTime| at.to_offset(UtcOffset::UTC).date();
    let now = OffsetDateTime::from_unix_timestamp_nanos(ns.into()).map_or(Date::MIN, date);
    let first = now.replace_day(1).unwrap_or(now);
    // The 1st and 31 days are always in the next month.
    let next = first.saturating_add(time::Duration::days(31));
    let next = next.replace_day(1).unwrap_or(next);
    let ns = |d: Date| u64::try_from(d.with_time(Time::MIDNIGHT).assume_utc().unix_timestamp_nanos());
    (ns(first).unwrap_or(0), ns(next).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_it_writes() {
        let ns = 1_795_000_000_123_456_789;
        assert_eq!(parse("from", &rfc3339(ns)).unwrap(), ns);
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00Z");
        assert!(rfc3339(u64::MAX).starts_with("2554-"));
        let day = parse("from", "2026-11-01").unwrap();
        assert_eq!(rfc3339(day), "2026-11-01T00:00:00Z");
        assert_eq!(parse("from", "2026-11-01T01:00:00 01:00").unwrap(), day);
        for bad in ["", "now", "2026-13-01", "1960-01-01", "9999-01-01T00:00:00Z", "2026-11-01T00:00:00"] {
            assert!(parse("from", bad).unwrap_err().message.starts_with("from is"), "{bad}");
        }
    }

    #[test]
    fn months_touch() {
        let (from, to) = month(parse("t", "2026-12-31T23:59:59Z").unwrap());
        assert_eq!(
            (rfc3339(from), rfc3339(to)),
            ("2026-12-01T00:00:00Z".into(), "2027-01-01T00:00:00Z".into())
        );
        assert_eq!(month(to).0, to);
        assert_eq!(rfc3339(month(parse("t", "2028-02-29").unwrap()).1), "2028-03-01T00:00:00Z");
    }
}
