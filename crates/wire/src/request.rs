//! The envelope of a request: method, arguments, context, and for a call the id that its reply bears.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::call::{Call, WireError, decode};
use crate::context::Context;

/// Names one call, and with it the reply: 32 hex digits.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct MessageId(String);

impl MessageId {
    /// Makes a fresh id, a random (version 4) UUID.
    pub fn random() -> Self {
        const VERSION: u128 = 0xf << 76;
        const VARIANT: u128 = 0x3 << 62;
        let bits = rand::random::<u128>() & !VERSION & !VARIANT;
        Self(format!("{:032x}", bits | 0x4 << 76 | 0x2 << 62))
    }
}

impl From<String> for MessageId {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One message with its envelope.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request<C> {
    /// What is asked.
    pub call: C,
    /// On whose behalf.
    pub context: Context,
    /// Set when the sender waits for a reply.
    pub id: Option<MessageId>,
}

impl<C: Call> Request<C> {
    /// A message that no reply is expected to.
    pub const fn cast(call: C, context: Context) -> Self {
        Self { call, context, id: None }
    }

    /// A message whose sender waits, with a fresh id.
    pub fn call(call: C, context: Context) -> Self {
        Self { call, context, id: Some(MessageId::random()) }
    }

    /// Writes the message as JSON.
    ///
    /// # Errors
    /// [`WireError::NotAnEnvelope`] for a time outside the years that can be written.
    pub fn encode(&self) -> Result<Vec<u8>, WireError> {
        #[derive(Serialize)]
        struct Wire<'a, C> {
            #[serde(flatten)]
            call: &'a C,
            #[serde(rename = "_msg_id", skip_serializing_if = "Option::is_none")]
            id: Option<&'a MessageId>,
            #[serde(flatten)]
            context: &'a Context,
        }
        let wire = Wire { call: &self.call, id: self.id.as_ref(), context: &self.context };
        serde_json::to_vec(&wire).map_err(WireError::NotAnEnvelope)
    }

    /// Reads a message. Keys that are not known are passed over, so that a newer sender is understood.
    ///
    /// # Errors
    /// All of [`WireError`]; nothing in a message makes this panic.
    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        #[derive(Deserialize)]
        struct Wire {
            method: Option<String>,
            args: Option<Value>,
            #[serde(rename = "_msg_id")]
            id: Option<MessageId>,
            #[serde(flatten)]
            context: Context,
        }
        let wire: Wire = serde_json::from_slice(bytes).map_err(WireError::NotAnEnvelope)?;
        let method = wire.method.ok_or(WireError::NoMethod)?;
        let call = decode(method, wire.args.unwrap_or_else(|| Value::Object(serde_json::Map::new())))?;
        Ok(Self { call, context: wire.context, id: wire.id })
    }
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};
    use time::macros::datetime;

    use super::{MessageId, Request};
    use crate::{ComputeCall, Context, SchedulerCall, WireError};

    fn asked_by_a_user() -> Context {
        Context {
            user: Some("u1".into()),
            project: Some("p1".into()),
            is_admin: false,
            read_deleted: false,
            remote_address: Some("1.2.3.4".into()),
            timestamp: Some(datetime!(2011-02-03 07:27:36 UTC)),
            request_id: Some("CB1Q7-NCFNI8KPF9JTZ4".into()),
        }
    }

    #[test]
    fn a_call_on_the_wire() {
        let request = Request {
            call: ComputeCall::GetConsoleOutput { instance_id: 7 },
            context: asked_by_a_user(),
            id: Some(MessageId::from("2f19020fe919457095ca59751267ed57".to_owned())),
        };
        let bytes = request.encode().unwrap();
        expect![[r#"{"method":"get_console_output","args":{"instance_id":7},"_msg_id":"2f19020fe919457095ca59751267ed57","_context_user":"u1","_context_project":"p1","_context_is_admin":false,"_context_read_deleted":false,"_context_remote_address":"1.2.3.4","_context_timestamp":"2011-02-03T07:27:36Z","_context_request_id":"CB1Q7-NCFNI8KPF9JTZ4"}"#]]
        .assert_eq(std::str::from_utf8(&bytes).unwrap());
        assert_eq!(request, Request::decode(&bytes).unwrap());
    }

    #[test]
    fn a_cast_of_a_daemon_on_the_wire() {
        let request = Request::cast(SchedulerCall::RunInstance { instance_ids: vec![1] }, Context::service());
        let bytes = request.encode().unwrap();
        expect![[r#"{"method":"run_instance","args":{"instance_ids":[1]},"_context_user":null,"_context_project":null,"_context_is_admin":true,"_context_read_deleted":false,"_context_remote_address":null,"_context_timestamp":null,"_context_request_id":null}"#]]
        .assert_eq(std::str::from_utf8(&bytes).unwrap());
        assert_eq!(request, Request::decode(&bytes).unwrap());
    }

    #[test]
    fn a_message_of_the_first_nova_is_understood() {
        let bytes =
            br#"{"method": "run_instance", "_context_timestamp": "2011-02-03T07:27:36Z", "_context_is_admin": true,
            "_context_from_tomorrow": 1, "args": {"topic": "compute", "instance_id": 3, "availability_zone": "nova"}}"#;
        let request = Request::<SchedulerCall>::decode(bytes).unwrap();
        assert_eq!(request.call, SchedulerCall::RunInstance { instance_ids: vec![3] });
        assert_eq!(request.context.timestamp, Some(datetime!(2011-02-03 07:27:36 UTC)));
    }

    #[track_caller]
    fn refused(bytes: &[u8], why: Expect) -> WireError {
        let error = Request::<ComputeCall>::decode(bytes).unwrap_err();
        why.assert_eq(&error.to_string());
        error
    }

    #[test]
    fn nonsense_is_a_typed_error() {
        refused(b"\xff\x00", expect!["the message is not an envelope"]);
        refused(b"[1]", expect!["the message is not an envelope"]);
        refused(br#"{"args": {}}"#, expect!["the message names no method"]);
        let error = refused(br#"{"method": "kill", "args": {}}"#, expect![[r#"compute has no method "kill""#]]);
        assert!(matches!(error, WireError::UnknownMethod { .. }), "{error:?}");
        let long = format!(r#"{{"method": "{}"}}"#, "x".repeat(10_000));
        assert!(Request::<ComputeCall>::decode(long.as_bytes()).unwrap_err().to_string().len() < 100);
        for args in ["{}", r#"{"instance_ids": "all"}"#, r#"{"instance_ids": [-1]}"#, "[]", "null", "3"] {
            let bytes = format!(r#"{{"method": "run_instance", "args": {args}}}"#);
            refused(bytes.as_bytes(), expect!["the arguments of run_instance do not fit"]);
        }
    }

    #[test]
    fn message_ids_are_random_version_4_uuids_in_hex() {
        let (one, two) = (MessageId::random().to_string(), MessageId::random().to_string());
        assert_ne!(one, two);
        assert_eq!((one.len(), &one[12..13]), (32, "4"));
        assert!("89ab".contains(&one[16..17]), "{one}");
    }
}
