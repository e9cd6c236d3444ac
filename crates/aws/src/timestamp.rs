//! Moments as clients write them and as answers print them.

use serde::{Serialize, Serializer};
use time::{Duration, OffsetDateTime, PrimitiveDateTime, UtcOffset, macros::format_description};

/// A moment in an answer, printed as AWS does: `2011-02-03T04:05:06.000Z`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timestamp(pub OffsetDateTime);

impl std::fmt::Display for Timestamp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let at = self.0.to_offset(UtcOffset::UTC);
        let (date, time) = (at.date(), at.time());
        write!(f, "{date}T{:02}:{:02}:{:02}.{:03}Z", time.hour(), time.minute(), time.second(), time.millisecond())
    }
}

impl From<OffsetDateTime> for Timestamp {
    fn from(at: OffsetDateTime) -> Self {
        Self(at)
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Reads `2011-02-03T04:05:06`, with or without a fraction and a zone; without a zone it is UTC, as boto 1.x means it.
#[must_use]
pub fn parse_timestamp(text: &str) -> Option<OffsetDateTime> {
    const SECONDS: &[time::format_description::BorrowedFormatItem<'_>] =
        format_description!("[year]-[month]-[day]T[hour]:[minute]:[second]");
    let (seconds, rest) = text.split_at_checked(19)?;
    let at = PrimitiveDateTime::parse(seconds, SECONDS).ok()?.assume_utc();
    let zone = match rest.strip_prefix('.') {
        None => rest,
        Some(fraction) => {
            let zone = fraction.trim_start_matches(|c: char| c.is_ascii_digit());
            if zone.len() == fraction.len() {
                return None;
            }
            zone
        }
    };
    Some(at - parse_zone(zone)?)
}

/// Reads the compact form of signature v4, `20110203T040506Z`.
pub(crate) fn parse_basic(text: &str) -> Option<OffsetDateTime> {
    const BASIC: &[time::format_description::BorrowedFormatItem<'_>] =
        format_description!("[year][month][day]T[hour][minute][second]Z");
    PrimitiveDateTime::parse(text, BASIC).ok().map(PrimitiveDateTime::assume_utc)
}

/// Returns how far the zone is east of UTC.
fn parse_zone(text: &str) -> Option<Duration> {
    if matches!(text, "" | "Z" | "z") {
        return Some(Duration::ZERO);
    }
    let (sign, rest) = match text.split_at_checked(1)? {
        ("+", rest) => (1, rest),
        ("-", rest) => (-1, rest),
        _ => return None,
    };
    let digits: String = rest.chars().filter(|c| *c != ':').collect();
    if digits.len() != 4 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let (hours, minutes): (i64, i64) = (digits[..2].parse().ok()?, digits[2..].parse().ok()?);
    (hours < 24 && minutes < 60).then(|| Duration::minutes(sign * (hours * 60 + minutes)))
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::{Timestamp, parse_basic, parse_timestamp};

    #[test]
    fn every_form_clients_send_is_the_same_moment() {
        for text in [
            "2011-02-03T04:05:06",
            "2011-02-03T04:05:06Z",
            "2011-02-03T04:05:06.000Z",
            "2011-02-03T04:05:06.123456",
            "2011-02-03T04:05:06+00:00",
            "2011-02-03T05:05:06+0100",
            "2011-02-03T02:35:06-01:30",
        ] {
            assert_eq!(parse_timestamp(text), Some(datetime!(2011-02-03 04:05:06 UTC)), "{text}");
        }
        assert_eq!(parse_basic("20110203T040506Z"), Some(datetime!(2011-02-03 04:05:06 UTC)));
    }

    #[test]
    fn what_is_no_moment_is_none() {
        for text in [
            "",
            "now",
            "2011-02-03",
            "2011-02-03 04:05:06",
            "2011-02-30T04:05:06",
            "2011-02-03T04:05:06.Z",
            "2011-02-03T04:05:06+1",
            "2011-02-03T04:05:0é",
        ] {
            assert_eq!(parse_timestamp(text), None, "{text}");
        }
        for text in ["", "2011-02-03T04:05:06Z", "20110203T040506", "20110203T250000Z"] {
            assert_eq!(parse_basic(text), None, "{text}");
        }
    }

    #[test]
    fn a_moment_prints_in_utc_with_milliseconds() {
        assert_eq!(Timestamp(datetime!(2011-02-03 04:05:06.789 +2)).to_string(), "2011-02-03T02:05:06.789Z");
    }
}
