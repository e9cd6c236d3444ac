//! The answer to a call: `{"result": …, "failure": null}`, or a failure of three parts.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Why a call was not done, told to the caller.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(from = "(String, String, Vec<String>)", into = "(String, String, Vec<String>)")]
#[error("{kind}: {message}")]
pub struct Failure {
    /// One word that a caller may act on, such as `NotFound`.
    pub kind: String,
    /// One sentence. Must hold no secret: it crosses the broker and ends in logs.
    pub message: String,
}

impl Failure {
    /// A failure of `kind`, told in one sentence.
    pub fn new(kind: impl Into<String>, message: impl Into<String>) -> Self {
        Self { kind: kind.into(), message: message.into() }
    }
}

impl From<(String, String, Vec<String>)> for Failure {
    fn from((kind, message, _traceback): (String, String, Vec<String>)) -> Self {
        Self { kind, message }
    }
}

impl From<Failure> for (String, String, Vec<String>) {
    fn from(failure: Failure) -> Self {
        (failure.kind, failure.message, Vec::new())
    }
}

/// What the callee sends back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reply {
    #[serde(default)]
    result: Value,
    #[serde(default)]
    failure: Option<Failure>,
}

/// Why a reply holds no answer.
#[derive(Debug, thiserror::Error)]
pub enum ReplyError {
    /// The callee could not, or would not.
    #[error("the callee refused")]
    Failed(#[source] Failure),
    /// The reply is no JSON, or its result is not what this call returns.
    #[error("the reply cannot be read")]
    Unreadable(#[source] serde_json::Error),
}

impl Reply {
    /// Wraps an answer.
    pub const fn success(result: Value) -> Self {
        Self { result, failure: None }
    }

    /// Wraps a failure.
    pub const fn failure(failure: Failure) -> Self {
        Self { result: Value::Null, failure: Some(failure) }
    }

    /// Writes the reply as JSON.
    pub fn encode(&self) -> Vec<u8> {
        serde_json::json!({ "result": self.result, "failure": self.failure }).to_string().into_bytes()
    }

    /// Reads a reply down to its answer.
    ///
    /// # Errors
    /// [`ReplyError::Failed`] when the callee says so, [`ReplyError::Unreadable`] for anything unexpected.
    pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ReplyError> {
        let reply: Self = serde_json::from_slice(bytes).map_err(ReplyError::Unreadable)?;
        match reply.failure {
            Some(failure) => Err(ReplyError::Failed(failure)),
            None => serde_json::from_value(reply.result).map_err(ReplyError::Unreadable),
        }
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use serde_json::json;

    use super::{Failure, Reply, ReplyError};

    #[test]
    fn replies_on_the_wire() {
        let success = Reply::success(json!(42)).encode();
        let failure = Reply::failure(Failure::new("NotFound", "no instance i-00000007")).encode();
        expect![[r#"
            {"failure":null,"result":42}
            {"failure":["NotFound","no instance i-00000007",[]],"result":null}
        "#]]
        .assert_eq(&format!("{}\n{}\n", String::from_utf8(success).unwrap(), String::from_utf8(failure).unwrap()));
    }

    #[test]
    fn a_reply_of_the_first_nova_is_understood() {
        assert_eq!(Reply::decode::<u32>(br#"{"result": 42, "failure": null}"#).unwrap(), 42);
        let failed =
            br#"{"result": null, "failure": ["NotFound", "boom 1", ["Traceback ...\n", "NotFound: boom 1\n"]]}"#;
        match Reply::decode::<u32>(failed) {
            Err(ReplyError::Failed(failure)) => assert_eq!(failure, Failure::new("NotFound", "boom 1")),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_result_of_another_shape_is_unreadable() {
        for bytes in [&b"{"[..], br#"{"result": "x"}"#, b"{}"] {
            assert!(matches!(Reply::decode::<u32>(bytes), Err(ReplyError::Unreadable(_))), "{bytes:?}");
        }
    }
}
