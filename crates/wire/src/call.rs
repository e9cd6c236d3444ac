//! What the enums of all topics have in common, and how reading one can fail.

use serde::Serialize;
use serde::de::{Deserialize, DeserializeOwned, Deserializer, Error as _};
use serde_json::Value;

use crate::address::Topic;

/// The messages that one topic understands.
pub trait Call: Serialize + DeserializeOwned + Send + Sync + 'static {
    /// The topic whose daemons take these messages.
    const TOPIC: Topic;
    /// Every method that is accepted, as written on the wire. Whatever is not listed is refused.
    const METHODS: &'static [&'static str];
}

/// Why bytes are not a message.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// The bytes are no JSON object with the keys of an envelope.
    #[error("the message is not an envelope")]
    NotAnEnvelope(#[source] serde_json::Error),
    /// There is no `method` key.
    #[error("the message names no method")]
    NoMethod,
    /// The method is not one of the topic's.
    #[error("{topic} has no method {method:?}")]
    UnknownMethod {
        /// The topic that was asked.
        topic: Topic,
        /// What was asked of it, cut to 64 characters.
        method: String,
    },
    /// The method exists, its arguments do not fit.
    #[error("the arguments of {method} do not fit")]
    BadArguments {
        /// The method that was named.
        method: String,
        /// What does not fit.
        #[source]
        source: serde_json::Error,
    },
}

/// Reads `method` with `args` as one of the calls of `C`.
pub(crate) fn decode<C: Call>(method: String, args: Value) -> Result<C, WireError> {
    if !C::METHODS.contains(&method.as_str()) {
        let method = method.chars().take(64).collect();
        return Err(WireError::UnknownMethod { topic: C::TOPIC, method });
    }
    let tagged = serde_json::json!({ "method": method, "args": args });
    serde_json::from_value(tagged).map_err(|source| WireError::BadArguments { method, source })
}

/// Takes `[1, 2]`, and `1` for `[1]`: the first Nova sent one id at a time, under the singular name.
pub(crate) fn one_or_many<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<u32>, D::Error> {
    let value = Value::deserialize(from)?;
    let list = match value {
        Value::Array(list) => list,
        one => vec![one],
    };
    list.into_iter().map(|id| u32::deserialize(id).map_err(D::Error::custom)).collect()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::Call;

    /// Holds `METHODS` to what serde accepts, by the list that serde prints.
    #[track_caller]
    pub(crate) fn methods_are_exactly_the_variants<C: Call + std::fmt::Debug>() {
        let refused = serde_json::from_str::<C>(r#"{"method": "no_such_method", "args": {}}"#).unwrap_err();
        let text = refused.to_string();
        let (_, expected) = text.split_once("expected ").unwrap();
        let known: Vec<&str> = expected.split('`').skip(1).step_by(2).collect();
        assert_eq!(known, C::METHODS);
    }
}
