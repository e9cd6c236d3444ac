//! Query parameters are taken from a cursor into typed fields, and what is left over is refused.

use std::{
    collections::BTreeMap,
    fmt,
    net::{IpAddr, Ipv4Addr},
};

use nova_types::{
    GroupName, ImageId, InstanceId, KeyName, KeyPairId, ProjectId, ReservationId, SecurityGroupId, VolumeId,
};

use crate::query::Pairs;

#[cfg(test)]
mod tests;

/// What some clients send with every call of a kind, though it changes nothing here. Everything else unknown is refused.
const SENT_FOR_NOTHING: &[&str] = &[
    "AddressingType", // euca2ools 1.x: of private addressing, which Nova never had
    "SecurityToken",  // boto with temporary credentials of another cloud in its configuration
];

/// The parameters of one request that nobody has taken yet.
///
/// ```
/// use nova_aws::{ParamError, Params};
///
/// let mut params = Params::new(vec![("KeyName.2".into(), "b".into()), ("KeyName.1".into(), "a".into())]);
/// assert_eq!(params.list::<String>("KeyName")?, ["a", "b"]);
/// params.finish()?;
/// # Ok::<(), ParamError>(())
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Params {
    /// What stood before the names here: empty, or `IpPermissions.1.` in a nested cursor. Errors print it.
    prefix: String,
    left: BTreeMap<String, String>,
}

/// Why parameters were refused. The message is for the user; [`Subject`] lets the API choose the code.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParamError {
    /// A parameter that the action cannot do without.
    #[error("the request must contain the parameter {0}")]
    Missing(String),
    /// A text that is not of the parameter's type.
    #[error("value ({value}) for parameter {name} is invalid: expected {expected}")]
    Malformed {
        /// What the parameter names.
        subject: Subject,
        /// The parameter as sent, with its index.
        name: String,
        /// The first 64 characters of what was sent.
        value: String,
        /// What a valid value looks like.
        expected: &'static str,
    },
    /// Both `X` and `X.1`.
    #[error("the parameter {0} is given both alone and as a list")]
    Twice(String),
    /// Parameters that this action does not have.
    #[error("the parameter {0} is not recognized")]
    Unknown(String),
    /// A filter that this action does not have.
    #[error("the filter '{0}' is invalid")]
    Filter(String),
    /// A token that no earlier answer to the same action contained.
    #[error("the token in NextToken is invalid")]
    NextToken,
}

/// What a parameter names: ids of different things have different error codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    /// A number, a flag, a text.
    Value,
    /// An instance (`i-…`).
    Instance,
    /// A machine, kernel or ramdisk image (`ami-…`, `aki-…`, `ari-…`).
    Image,
    /// A volume (`vol-…`).
    Volume,
    /// A snapshot (`snap-…`).
    Snapshot,
    /// A security group's id (`sg-…`).
    Group,
    /// A key pair's id (`key-…`).
    KeyPair,
}

/// A type that can stand as the value of a parameter.
pub trait Param: Sized {
    /// What the value names.
    const SUBJECT: Subject = Subject::Value;
    /// What a valid value looks like, to follow "expected".
    const EXPECTED: &'static str;

    /// Reads the text exactly as it was sent; `None` if it is not of this type.
    fn read(text: &str) -> Option<Self>;
}

impl Params {
    /// Takes over decoded pairs, whose names must be unique (as [`decode`](crate::decode) makes sure).
    #[must_use]
    pub fn new(pairs: Pairs) -> Self {
        Self { prefix: String::new(), left: pairs.into_iter().collect() }
    }

    /// Takes the parameter `name`, if it was sent.
    ///
    /// # Errors
    /// [`ParamError::Malformed`] when the text is not a `T`.
    pub fn take<T: Param>(&mut self, name: &str) -> Result<Option<T>, ParamError> {
        self.left.remove(name).map(|text| self.read(name, &text)).transpose()
    }

    /// Takes the parameter `name` unless it is absent or empty: clients of 2010 send both where nothing was chosen.
    ///
    /// # Errors
    /// [`ParamError::Malformed`] when the text is not a `T`.
    pub fn given<T: Param>(&mut self, name: &str) -> Result<Option<T>, ParamError> {
        self.left.remove(name).filter(|text| !text.is_empty()).map(|text| self.read(name, &text)).transpose()
    }

    /// Takes the parameter `name`, which must be there and not be empty.
    ///
    /// # Errors
    /// [`ParamError::Missing`] or [`ParamError::Malformed`].
    pub fn required<T: Param>(&mut self, name: &str) -> Result<T, ParamError> {
        match self.left.remove(name) {
            Some(text) if !text.is_empty() => self.read(name, &text),
            _ => Err(ParamError::Missing(self.full(name))),
        }
    }

    /// Takes a flag; absent is false.
    ///
    /// # Errors
    /// [`ParamError::Malformed`] unless it is `true` or `false` in any case.
    pub fn flag(&mut self, name: &str) -> Result<bool, ParamError> {
        Ok(self.take(name)?.unwrap_or(false))
    }

    /// Takes a list: `X.1`, `X.2`, … in numeric order, or a lone `X` as a list of one. Gaps are no error.
    ///
    /// # Errors
    /// [`ParamError::Twice`] for `X` beside `X.1`, [`ParamError::Malformed`] for the first bad item.
    pub fn list<T: Param>(&mut self, name: &str) -> Result<Vec<T>, ParamError> {
        let mut numbered = BTreeMap::new();
        for key in self.below(name) {
            if let Some(index) = index(&key[name.len() + 1..]) {
                numbered.insert(index, key);
            }
        }
        match self.left.remove(name) {
            Some(_) if !numbered.is_empty() => Err(ParamError::Twice(self.full(name))),
            Some(alone) => Ok(vec![self.read(name, &alone)?]),
            None => numbered.into_values().filter_map(|key| self.take(&key).transpose()).collect(),
        }
    }

    /// Takes a list of structures, `X.1.Field`, `X.2.Field`, … in numeric order; `parse` gets a cursor over each.
    ///
    /// What `parse` leaves untaken is refused, as by [`finish`](Self::finish).
    ///
    /// # Errors
    /// Whatever `parse` fails with, and [`ParamError::Unknown`].
    pub fn structs<T>(
        &mut self,
        name: &str,
        mut parse: impl FnMut(&mut Self) -> Result<T, ParamError>,
    ) -> Result<Vec<T>, ParamError> {
        let mut cursors = BTreeMap::<u32, Self>::new();
        for key in self.below(name) {
            let Some((number, field)) = key[name.len() + 1..].split_once('.') else { continue };
            let Some(index) = index(number) else { continue };
            if let Some(value) = self.left.remove(&key) {
                let prefix = || format!("{}{name}.{number}.", self.prefix);
                let cursor = cursors.entry(index).or_insert_with(|| Self { prefix: prefix(), left: BTreeMap::new() });
                cursor.left.insert(field.to_owned(), value);
            }
        }
        let parse_whole = |mut cursor: Self| {
            let parsed = parse(&mut cursor)?;
            cursor.finish()?;
            Ok(parsed)
        };
        cursors.into_values().map(parse_whole).collect()
    }

    /// Refuses what nobody took.
    ///
    /// # Errors
    /// [`ParamError::Unknown`] names the first such parameter.
    pub fn finish(&self) -> Result<(), ParamError> {
        let mut unknown = self.left.keys().filter(|name| !SENT_FOR_NOTHING.contains(&name.as_str()));
        unknown.next().map_or(Ok(()), |name| Err(ParamError::Unknown(self.full(name))))
    }

    /// Says that the parameter `name` should have been there: for rules that span several parameters.
    #[must_use]
    pub fn missing(&self, name: &str) -> ParamError {
        ParamError::Missing(self.full(name))
    }

    /// Says that `value` cannot stand for the parameter `name`: for rules beyond a type's own.
    #[must_use]
    pub fn malformed(&self, name: &str, value: impl fmt::Display, expected: &'static str) -> ParamError {
        let value = value.to_string().chars().take(64).collect();
        ParamError::Malformed { subject: Subject::Value, name: self.full(name), value, expected }
    }

    fn read<T: Param>(&self, name: &str, text: &str) -> Result<T, ParamError> {
        T::read(text).ok_or_else(|| ParamError::Malformed {
            subject: T::SUBJECT,
            name: self.full(name),
            value: text.chars().take(64).collect(),
            expected: T::EXPECTED,
        })
    }

    fn full(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    /// The names that begin with `name` and a dot.
    fn below(&self, name: &str) -> Vec<String> {
        let start = format!("{name}.");
        let range = self.left.range(start.clone()..);
        range.map(|(key, _)| key).take_while(|key| key.starts_with(&start)).cloned().collect()
    }
}

/// Prints names only: values may be a user's secrets.
impl fmt::Debug for Params {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Params").field(&self.prefix).field(&self.left.keys()).finish()
    }
}

impl Param for String {
    const EXPECTED: &'static str = "a text without control characters";

    fn read(text: &str) -> Option<Self> {
        let printable = |c: char| !c.is_control() || matches!(c, '\t' | '\n' | '\r');
        text.chars().all(printable).then(|| text.to_owned())
    }
}

impl Param for bool {
    const EXPECTED: &'static str = "true or false";

    fn read(text: &str) -> Option<Self> {
        [("true", true), ("false", false), ("1", true), ("0", false)]
            .into_iter()
            .find_map(|(word, value)| text.eq_ignore_ascii_case(word).then_some(value))
    }
}

/// Types whose `FromStr` reads exactly what we accept.
macro_rules! params {
    ($($type:ty, $subject:ident, $expected:literal;)*) => { $(
        impl Param for $type {
            const SUBJECT: Subject = Subject::$subject;
            const EXPECTED: &'static str = $expected;

            fn read(text: &str) -> Option<Self> {
                text.parse().ok()
            }
        }
    )* };
}

params! {
    u16,      Value, "a whole number, 0 to 65535";
    u32,      Value, "a whole number, 0 or more";
    u64,      Value, "a whole number, 0 or more";
    i32,      Value, "a whole number";
    i64,      Value, "a whole number";
    Ipv4Addr, Value, "an IPv4 address";
    IpAddr,   Value, "an IP address";

    InstanceId,      Instance, "an id such as i-0000000a";
    ImageId,         Image,    "an id such as ami-0000000a";
    VolumeId,        Volume,   "an id such as vol-0000000a";
    SecurityGroupId, Group,    "an id such as sg-0000000a";
    KeyPairId,       KeyPair,  "an id such as key-0000000a";
    ReservationId,   Value,    "an id such as r-0a1b2c3d";
    KeyName,         Value,    "1 to 255 letters, digits and characters of ._-:/()#,@[]+=&;{}!$* or spaces";
    GroupName,       Value,    "1 to 255 letters, digits and characters of ._-:/()#,@[]+=&;{}!$* or spaces";
    ProjectId,       Value,    "a project: letters, digits and characters of ._-";
}

/// Reads the number of a list item: decimal without leading zeros, so that no two texts are one index.
fn index(text: &str) -> Option<u32> {
    let canonical = text == "0" || !text.starts_with(['0', '+']);
    text.parse().ok().filter(|_| canonical)
}
