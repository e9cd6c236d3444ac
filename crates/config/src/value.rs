//! How the text of a flag becomes a value.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::time::Duration;

use ipnet::{Ipv4Net, Ipv6Net};
use nova_types::network::ManagerKind;
use nova_types::{HostName, Tag, net};

use crate::{
    Brokers, ConnectionType, DatabaseUrl, HypervisorChoice, LibvirtType, Placement, QuorumQueues, Region,
    SchedulerDriver, choices,
};

/// How a flag is written on a command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// `--name` and `--noname`.
    Switch,
    /// `--name=VALUE`, with what the help calls the value.
    Value(&'static str),
    /// The same as often as one likes: all values count.
    Many(&'static str),
}

/// A type that a flag can have.
pub(crate) trait FromFlag: Sized {
    /// How it is written.
    const KIND: Kind;
    /// Whether errors hide the value.
    const SECRET: bool = false;
    /// Whether `$name` is replaced in it.
    const EXPANDS: bool = true;
    /// Reads it, or says what is expected.
    fn from_flag(text: &str) -> Result<Self, String>;
    /// Says how an odd text was understood.
    fn remark(&self, _text: &str) -> Option<String> {
        None
    }
}

impl FromFlag for bool {
    const KIND: Kind = Kind::Switch;

    fn from_flag(text: &str) -> Result<Self, String> {
        match text.to_ascii_lowercase().as_str() {
            "true" | "t" | "1" => Ok(true),
            "false" | "f" | "0" => Ok(false),
            _ => Err("expected true, t, 1, false, f or 0".to_owned()),
        }
    }
}

/// Whole numbers, also as `0x` and hexadecimal digits.
macro_rules! number {
    ($($type:ty),+) => { $(
        impl FromFlag for $type {
            const KIND: Kind = Kind::Value("NUMBER");

            fn from_flag(text: &str) -> Result<Self, String> {
                let number = match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
                    Some(digits) => <$type>::from_str_radix(digits, 16),
                    None => text.parse(),
                };
                number.map_err(|_| format!("expected a number from 0 to {}", <$type>::MAX))
            }
        }
    )+ };
}
number!(u16, u32, u64);

impl FromFlag for f64 {
    const KIND: Kind = Kind::Value("RATIO");

    fn from_flag(text: &str) -> Result<Self, String> {
        let ratio = text.parse().ok().filter(|ratio: &f64| ratio.is_finite() && *ratio > 0.0);
        ratio.ok_or_else(|| "expected a number greater than 0".to_owned())
    }
}

impl FromFlag for Duration {
    const KIND: Kind = Kind::Value("SECONDS");

    fn from_flag(text: &str) -> Result<Self, String> {
        let seconds = text.parse().ok().filter(|seconds: &f64| (0.0..1e9).contains(seconds));
        seconds.map(Self::from_secs_f64).ok_or_else(|| "expected a number of seconds".to_owned())
    }
}

impl FromFlag for String {
    const KIND: Kind = Kind::Value("TEXT");

    fn from_flag(text: &str) -> Result<Self, String> {
        Ok(text.to_owned())
    }
}

impl FromFlag for PathBuf {
    const KIND: Kind = Kind::Value("PATH");

    fn from_flag(text: &str) -> Result<Self, String> {
        if text.is_empty() { Err("expected a path".to_owned()) } else { Ok(Self::from(text)) }
    }
}

/// A list with commas: blanks around its items do not count, and an empty text is an empty list.
impl FromFlag for Vec<String> {
    const KIND: Kind = Kind::Value("LIST");
    const EXPANDS: bool = false;

    fn from_flag(text: &str) -> Result<Self, String> {
        Ok(items(text).map(str::to_owned).collect())
    }
}

impl FromFlag for Vec<IpAddr> {
    const KIND: Kind = Kind::Value("LIST");
    const EXPANDS: bool = false;

    fn from_flag(text: &str) -> Result<Self, String> {
        items(text).map(|item| item.parse().map_err(|_| format!("{item:?} is not an IP address"))).collect()
    }
}

impl FromFlag for Vec<Region> {
    const KIND: Kind = Kind::Value("LIST");
    const EXPANDS: bool = false;

    fn from_flag(text: &str) -> Result<Self, String> {
        items(text).map(str::parse).collect()
    }
}

fn items(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim).filter(|item| !item.is_empty())
}

impl<T: FromFlag> FromFlag for Option<T> {
    const KIND: Kind = T::KIND;
    const SECRET: bool = T::SECRET;
    const EXPANDS: bool = T::EXPANDS;

    fn from_flag(text: &str) -> Result<Self, String> {
        if text.is_empty() { Ok(None) } else { T::from_flag(text).map(Some) }
    }
}

/// Types that know how to be read, with what the help calls them.
macro_rules! parsed {
    ($($type:ty, $shown:literal, $expected:literal;)+) => { $(
        impl FromFlag for $type {
            const KIND: Kind = Kind::Value($shown);

            fn from_flag(text: &str) -> Result<Self, String> {
                text.parse().map_err(|_| $expected.to_owned())
            }
        }
    )+ };
}
parsed! {
    IpAddr, "ADDRESS", "expected an IP address";
    Ipv4Addr, "ADDRESS", "expected an IPv4 address";
}

/// The same for types whose own error says what is expected.
macro_rules! explained {
    ($($type:ty, $shown:literal, $read:expr;)+) => { $(
        impl FromFlag for $type {
            const KIND: Kind = Kind::Value($shown);

            fn from_flag(text: &str) -> Result<Self, String> {
                $read(text).map_err(|error: _| error.to_string())
            }
        }
    )+ };
}
explained! {
    HostName, "NAME", str::parse::<HostName>;
    ManagerKind, "CLASS", choices::manager;
    ConnectionType, "NAME", str::parse::<ConnectionType>;
    HypervisorChoice, "NAME", str::parse::<HypervisorChoice>;
    LibvirtType, "NAME", str::parse::<LibvirtType>;
    Brokers, "HOSTS", str::parse::<Brokers>;
    QuorumQueues, "CHOICE", str::parse::<QuorumQueues>;
    SchedulerDriver, "CLASS", str::parse::<SchedulerDriver>;
    Placement, "NAME", str::parse::<Placement>;
}

impl FromFlag for DatabaseUrl {
    const KIND: Kind = Kind::Value("URL");
    const SECRET: bool = true;

    fn from_flag(text: &str) -> Result<Self, String> {
        text.parse().map_err(|error: crate::DatabaseUrlError| error.to_string())
    }
}

/// Each in its own `--name=URL`.
impl FromFlag for Vec<DatabaseUrl> {
    const KIND: Kind = Kind::Many("URL");
    const SECRET: bool = true;

    fn from_flag(text: &str) -> Result<Self, String> {
        text.split_whitespace().map(DatabaseUrl::from_flag).collect()
    }
}

impl FromFlag for Tag {
    const KIND: Kind = Kind::Value("TAG");

    fn from_flag(text: &str) -> Result<Self, String> {
        let tag = text.parse::<i64>().ok().and_then(|number| Self::try_from(number).ok());
        tag.ok_or_else(|| "expected a VLAN tag, 1 to 4094, or a VNI, 1 to 16777215".to_owned())
    }
}

impl FromFlag for Ipv4Net {
    const KIND: Kind = Kind::Value("RANGE");

    fn from_flag(text: &str) -> Result<Self, String> {
        net::parse_range(text).map_err(|_| "expected an IPv4 range such as 10.0.0.0/8".to_owned())
    }

    fn remark(&self, text: &str) -> Option<String> {
        (self.to_string() != text.trim()).then(|| format!("understood as {self}"))
    }
}

impl FromFlag for Ipv6Net {
    const KIND: Kind = Kind::Value("RANGE");

    fn from_flag(text: &str) -> Result<Self, String> {
        let range = text.trim().parse::<Self>().map_err(|_| "expected an IPv6 range such as fd00::/48".to_owned())?;
        Ok(range.trunc())
    }

    fn remark(&self, text: &str) -> Option<String> {
        (self.to_string() != text.trim()).then(|| format!("understood as {self}"))
    }
}

/// A secret that logs do not show.
#[derive(Clone, PartialEq, Eq)]
pub struct Password(String);

impl Password {
    /// The secret itself.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(***)")
    }
}

impl FromFlag for Password {
    const KIND: Kind = Kind::Value("PASSWORD");
    const SECRET: bool = true;

    fn from_flag(text: &str) -> Result<Self, String> {
        Ok(Self(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_may_be_hexadecimal_and_must_fit() {
        assert_eq!(u32::from_flag("0x10"), Ok(16));
        assert_eq!(u16::from_flag("65536"), Err("expected a number from 0 to 65535".to_owned()));
        for text in ["", "abc", "-1", "1.5", "0x"] {
            assert!(u32::from_flag(text).is_err(), "{text}");
        }
    }

    #[test]
    fn switches_take_six_words_in_any_case() {
        for (text, value) in [("True", true), ("T", true), ("1", true), ("FALSE", false), ("f", false), ("0", false)] {
            assert_eq!(bool::from_flag(text), Ok(value));
        }
        assert!(bool::from_flag("yes").is_err());
    }

    #[test]
    fn a_list_drops_blanks_and_empty_items() {
        assert_eq!(Vec::from_flag(" a, b ,,c"), Ok(vec!["a".to_owned(), "b".to_owned(), "c".to_owned()]));
        assert_eq!(Vec::<String>::from_flag(""), Ok(Vec::new()));
    }

    #[test]
    fn a_password_is_not_shown() {
        assert_eq!(format!("{:?}", Password::from_flag("hush")), "Ok(Password(***))");
    }
}
