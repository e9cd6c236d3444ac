//! Times on the wire: UTC, whole seconds, `2011-02-03T07:27:36Z`.

use serde::{Deserialize, Deserializer, Serializer};
use time::format_description::BorrowedFormatItem;
use time::macros::format_description;
use time::{OffsetDateTime, PrimitiveDateTime, UtcOffset};

const FORM: &[BorrowedFormatItem<'static>] = format_description!("[year]-[month]-[day]T[hour]:[minute]:[second]Z");

fn to_text(at: OffsetDateTime) -> Result<String, time::error::Format> {
    at.to_offset(UtcOffset::UTC).format(FORM)
}

fn from_text(text: &str) -> Result<OffsetDateTime, time::error::Parse> {
    PrimitiveDateTime::parse(text, FORM).map(PrimitiveDateTime::assume_utc)
}

/// A time that is always there.
pub(crate) mod required {
    use super::{Deserialize, Deserializer, OffsetDateTime, Serializer, from_text, to_text};
    use super::{serde_de_error, serde_ser_error};

    pub(crate) fn serialize<S: Serializer>(at: &OffsetDateTime, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&to_text(*at).map_err(serde_ser_error)?)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<OffsetDateTime, D::Error> {
        from_text(&String::deserialize(from)?).map_err(serde_de_error)
    }
}

/// A time, or `null`.
pub(crate) mod optional {
    use super::{Deserialize, Deserializer, OffsetDateTime, Serializer, from_text, to_text};
    use super::{serde_de_error, serde_ser_error};

    #[expect(clippy::ref_option, reason = "the signature that serde's `with` asks for")]
    pub(crate) fn serialize<S: Serializer>(at: &Option<OffsetDateTime>, to: S) -> Result<S::Ok, S::Error> {
        match at {
            Some(at) => to.serialize_some(&to_text(*at).map_err(serde_ser_error)?),
            None => to.serialize_none(),
        }
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<OffsetDateTime>, D::Error> {
        let text = Option::<String>::deserialize(from)?;
        text.map(|text| from_text(&text).map_err(serde_de_error)).transpose()
    }
}

fn serde_de_error<E: serde::de::Error>(error: time::error::Parse) -> E {
    E::custom(error)
}

fn serde_ser_error<E: serde::ser::Error>(error: time::error::Format) -> E {
    E::custom(error)
}
