//! The `Version` a client asks for: a date, compared to know which elements its parser can bear.

use std::{fmt, str::FromStr};

/// A version of the EC2 API, such as `2009-11-30`. Later dates compare greater.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ApiVersion {
    year: u16,
    month: u8,
    day: u8,
}

/// The text asked for as `Version` is not a date.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the requested version ({0}) of service AmazonEC2 does not exist")]
pub struct NoSuchVersion(pub String);

impl ApiVersion {
    /// The version of clients today; errors that precede the reading of `Version` have none, and answers to them are the same.
    pub const CURRENT: Self = Self { year: 2016, month: 11, day: 15 };

    /// First version whose clients know lists nested in an instance (`tagSet`, `groupSet`, `networkInterfaceSet`).
    ///
    /// boto 1.x takes every `<item>` below `instancesSet` for another instance, so earlier versions get flat instances.
    pub const NESTED_LISTS: Self = Self { year: 2010, month: 11, day: 15 };

    /// First version in which a floating address has an id of its own (`allocationId`, `associationId`).
    pub const ADDRESS_IDS: Self = Self { year: 2011, month: 7, day: 15 };

    /// Whether a client of this version knows the ids of floating addresses.
    #[must_use]
    pub fn knows_address_ids(self) -> bool {
        self >= Self::ADDRESS_IDS
    }

    /// Whether a client of this version reads lists nested in an instance.
    #[must_use]
    pub fn knows_nested_lists(self) -> bool {
        self >= Self::NESTED_LISTS
    }
}

impl fmt::Display for ApiVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04}-{:02}-{:02}", self.year, self.month, self.day)
    }
}

impl FromStr for ApiVersion {
    type Err = NoSuchVersion;

    fn from_str(text: &str) -> Result<Self, NoSuchVersion> {
        let parse = || {
            let shaped = text.bytes().enumerate().all(|(at, byte)| match at {
                4 | 7 => byte == b'-',
                _ => byte.is_ascii_digit(),
            });
            if text.len() != 10 || !shaped {
                return None;
            }
            let (year, month, day) = (text[..4].parse().ok()?, text[5..7].parse().ok()?, text[8..].parse().ok()?);
            ((1..=12).contains(&month) && (1..=31).contains(&day)).then_some(Self { year, month, day })
        };
        parse().ok_or_else(|| NoSuchVersion(text.chars().take(64).collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::ApiVersion;

    #[test]
    fn a_version_prints_as_it_was_sent() {
        for text in ["2009-04-04", "2009-11-30", "2010-08-31", "2016-11-15"] {
            assert_eq!(text.parse::<ApiVersion>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn what_is_no_date_is_no_version() {
        for text in
            ["", "nova", "2009-4-4", "2009-13-01", "2009-00-10", "2009-01-32", "2009/04/04", "2009-04-04 ", "é009-04-0"]
        {
            assert!(text.parse::<ApiVersion>().is_err(), "{text}");
        }
    }

    #[test]
    fn only_clients_after_boto_1_get_nested_lists() {
        let cases = [
            ("2009-04-04", false),
            ("2009-11-30", false),
            ("2010-08-31", false),
            ("2011-01-01", true),
            ("2016-11-15", true),
        ];
        for (text, wanted) in cases {
            assert_eq!(text.parse::<ApiVersion>().unwrap().knows_nested_lists(), wanted, "{text}");
        }
    }
}
