//! The values that statements take.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use nova_types::{
    AllocationId, GroupName, HostName, ImageId, InstanceId, KeyName, KeyPairId, Mac, NetworkId, ProjectId,
    ReservationId, SecurityGroupId, Tag, UserId,
};
use time::{OffsetDateTime, PrimitiveDateTime, UtcOffset};

/// One argument of a statement. `None` is NULL of that type (PostgreSQL wants to know which).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Value {
    /// INTEGER.
    Int(Option<i32>),
    /// BIGINT.
    Big(Option<i64>),
    /// VARCHAR or TEXT.
    Text(Option<String>),
    /// BOOLEAN.
    Bool(Option<bool>),
    /// DATETIME, UTC, to the microsecond.
    Time(Option<OffsetDateTime>),
    /// As many INTEGERs as there are, for a placeholder written `?..` (`where id in (?..)`).
    Ints(Vec<i32>),
    /// As many texts as there are, for `?..`.
    Texts(Vec<String>),
}

impl Value {
    /// How many placeholders the value fills: for a list the next power of two, its last item again and again.
    pub(crate) fn width(&self) -> usize {
        match self {
            Self::Ints(many) => padded(many).count(),
            Self::Texts(many) => padded(many).count(),
            Self::Int(_) | Self::Big(_) | Self::Text(_) | Self::Bool(_) | Self::Time(_) => 1,
        }
    }
}

/// The items of a list as they are bound: repeated at the end, which changes nothing for `in (…)`.
pub(crate) fn padded<T>(many: &[T]) -> impl ExactSizeIterator<Item = &T> {
    let last = many.len().saturating_sub(1);
    let width = if many.is_empty() { 0 } else { many.len().next_power_of_two() };
    (0..width).map(move |n| &many[n.min(last)])
}

/// Cuts `many` into pieces of at most `most` whose lengths are powers of two, so that statements made of them have few
/// texts.
pub(crate) fn pieces<T>(mut many: &[T], most: usize) -> impl Iterator<Item = &[T]> {
    std::iter::from_fn(move || {
        let length = 1 << many.len().min(most).checked_ilog2()?;
        let (piece, rest) = many.split_at(length);
        many = rest;
        Some(piece)
    })
}

/// An instant as a DATETIME column holds it.
pub(crate) fn to_datetime(at: OffsetDateTime) -> PrimitiveDateTime {
    let utc = at.to_offset(UtcOffset::UTC);
    let micro = utc.replace_nanosecond(utc.microsecond() * 1000).unwrap_or(utc);
    PrimitiveDateTime::new(micro.date(), micro.time())
}

macro_rules! from {
    ($($from:ty => $variant:ident, $convert:expr;)*) => {$(
        impl From<$from> for Value {
            fn from(value: $from) -> Self {
                Self::$variant(Some($convert(value)))
            }
        }
        impl From<Option<$from>> for Value {
            fn from(value: Option<$from>) -> Self {
                Self::$variant(value.map($convert))
            }
        }
    )*};
}

from! {
    i32            => Int,  |v| v;
    u8             => Int,  i32::from;
    u16            => Int,  i32::from;
    i64            => Big,  |v| v;
    u32            => Big,  i64::from;
    &str           => Text, str::to_owned;
    String         => Text, |v| v;
    &String        => Text, String::clone;
    Ipv4Addr       => Text, |v: Ipv4Addr| v.to_string();
    Ipv4Net        => Text, |v: Ipv4Net| v.to_string();
    Mac            => Text, |v: Mac| v.to_string();
    ImageId        => Text, |v: ImageId| v.to_string();
    &ReservationId => Text, |v: &ReservationId| v.as_str().to_owned();
    &ProjectId     => Text, |v: &ProjectId| v.as_str().to_owned();
    &UserId        => Text, |v: &UserId| v.as_str().to_owned();
    &HostName      => Text, |v: &HostName| v.as_str().to_owned();
    &KeyName       => Text, |v: &KeyName| v.as_str().to_owned();
    &GroupName     => Text, |v: &GroupName| v.as_str().to_owned();
    InstanceId     => Int,  InstanceId::row;
    NetworkId      => Int,  NetworkId::row;
    SecurityGroupId => Int, SecurityGroupId::row;
    AllocationId => Int, AllocationId::row;
    KeyPairId      => Int,  KeyPairId::row;
    Tag            => Int,  |v: Tag| v.number().cast_signed();
    bool           => Bool, |v| v;
    OffsetDateTime => Time, |v| v;
}

macro_rules! from_ids {
    ($($id:ty),*) => {$(
        impl From<&[$id]> for Value {
            fn from(many: &[$id]) -> Self {
                Self::Ints(many.iter().map(|id| id.row()).collect())
            }
        }
    )*};
}
from_ids!(InstanceId, NetworkId, SecurityGroupId);

impl From<Vec<i32>> for Value {
    fn from(many: Vec<i32>) -> Self {
        Self::Ints(many)
    }
}

impl From<&[i32]> for Value {
    fn from(many: &[i32]) -> Self {
        Self::Ints(many.to_vec())
    }
}

impl From<Vec<String>> for Value {
    fn from(many: Vec<String>) -> Self {
        Self::Texts(many)
    }
}

impl From<&[String]> for Value {
    fn from(many: &[String]) -> Self {
        Self::Texts(many.to_vec())
    }
}

#[cfg(test)]
mod tests {
    use super::pieces;

    #[test]
    fn pieces_are_powers_of_two_and_lose_nothing() {
        for (many, most, lengths) in
            [(0, 8, vec![]), (1, 8, vec![1]), (7, 8, vec![4, 2, 1]), (30, 9, vec![8, 8, 8, 4, 2])]
        {
            let all: Vec<i32> = (0..many).collect();
            assert_eq!(pieces(&all, most).map(<[i32]>::len).collect::<Vec<_>>(), lengths);
            assert_eq!(pieces(&all, most).flatten().copied().collect::<Vec<_>>(), all);
        }
    }
}
