//! What is asked of the compute daemon of one host, and what it answers.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use time::OffsetDateTime;

use crate::address::Topic;
use crate::call::{Call, one_or_many};
use crate::timestamp;

/// What other daemons ask of a compute host. All but `GetConsoleOutput` are casts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "method", content = "args", rename_all = "snake_case")]
pub enum ComputeCall {
    /// These instances were placed here and wait to be built.
    RunInstance {
        /// Rows of `instances`.
        #[serde(alias = "instance_id", deserialize_with = "one_or_many")]
        instance_ids: Vec<u32>,
    },
    /// These instances are to end.
    TerminateInstance {
        /// Rows of `instances`.
        #[serde(alias = "instance_id", deserialize_with = "one_or_many")]
        instance_ids: Vec<u32>,
    },
    /// These instances are to be restarted.
    RebootInstance {
        /// Rows of `instances`.
        #[serde(alias = "instance_id", deserialize_with = "one_or_many")]
        instance_ids: Vec<u32>,
    },
    /// These instances are to be switched off and kept.
    StopInstance {
        /// Rows of `instances`.
        #[serde(alias = "instance_id", deserialize_with = "one_or_many")]
        instance_ids: Vec<u32>,
    },
    /// These stopped instances are to be switched on.
    StartInstance {
        /// Rows of `instances`.
        #[serde(alias = "instance_id", deserialize_with = "one_or_many")]
        instance_ids: Vec<u32>,
    },
    /// The rules of these groups changed.
    RefreshSecurityGroupRules {
        /// Rows of `security_groups`.
        #[serde(alias = "security_group_id", deserialize_with = "one_or_many")]
        security_group_ids: Vec<u32>,
    },
    /// Instances entered or left these groups, which other groups may name as a source.
    RefreshSecurityGroupMembers {
        /// Rows of `security_groups`.
        #[serde(alias = "security_group_id", deserialize_with = "one_or_many")]
        security_group_ids: Vec<u32>,
    },
    /// Call: what the guest has written to its console; the answer is a [`ConsoleOutput`].
    GetConsoleOutput {
        /// Row of `instances`.
        instance_id: u32,
    },
}

impl Call for ComputeCall {
    const TOPIC: Topic = Topic::Compute;
    const METHODS: &'static [&'static str] = &[
        "run_instance",
        "terminate_instance",
        "reboot_instance",
        "stop_instance",
        "start_instance",
        "refresh_security_group_rules",
        "refresh_security_group_members",
        "get_console_output",
    ];
}

/// The answer to [`ComputeCall::GetConsoleOutput`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConsoleOutput {
    /// The end of the console log, as the guest wrote it; base64 on the wire, for a guest may write any byte.
    #[serde(serialize_with = "to_base64", deserialize_with = "from_base64")]
    pub output: Vec<u8>,
    /// When the log was read, to the second.
    #[serde(with = "timestamp::required")]
    pub timestamp: OffsetDateTime,
}

fn to_base64<S: Serializer>(bytes: &[u8], to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(&STANDARD.encode(bytes))
}

fn from_base64<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<u8>, D::Error> {
    STANDARD.decode(String::deserialize(from)?).map_err(D::Error::custom)
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use time::macros::datetime;

    use super::{ComputeCall, ConsoleOutput};
    use crate::call::tests::methods_are_exactly_the_variants;

    #[test]
    fn the_methods_listed_are_the_methods_read() {
        methods_are_exactly_the_variants::<ComputeCall>();
    }

    #[test]
    fn every_call_on_the_wire() {
        let instance_ids = vec![10, 11];
        let security_group_ids = vec![3];
        let calls = [
            ComputeCall::RunInstance { instance_ids: instance_ids.clone() },
            ComputeCall::TerminateInstance { instance_ids: instance_ids.clone() },
            ComputeCall::RebootInstance { instance_ids: instance_ids.clone() },
            ComputeCall::StopInstance { instance_ids: instance_ids.clone() },
            ComputeCall::StartInstance { instance_ids },
            ComputeCall::RefreshSecurityGroupRules { security_group_ids: security_group_ids.clone() },
            ComputeCall::RefreshSecurityGroupMembers { security_group_ids },
            ComputeCall::GetConsoleOutput { instance_id: 10 },
        ];
        let mut text = String::new();
        for call in &calls {
            let line = serde_json::to_string(call).unwrap();
            assert_eq!(*call, serde_json::from_str(&line).unwrap());
            text.push_str(&line);
            text.push('\n');
        }
        expect![[r#"
            {"method":"run_instance","args":{"instance_ids":[10,11]}}
            {"method":"terminate_instance","args":{"instance_ids":[10,11]}}
            {"method":"reboot_instance","args":{"instance_ids":[10,11]}}
            {"method":"stop_instance","args":{"instance_ids":[10,11]}}
            {"method":"start_instance","args":{"instance_ids":[10,11]}}
            {"method":"refresh_security_group_rules","args":{"security_group_ids":[3]}}
            {"method":"refresh_security_group_members","args":{"security_group_ids":[3]}}
            {"method":"get_console_output","args":{"instance_id":10}}
        "#]]
        .assert_eq(&text);
    }

    #[test]
    fn console_output_on_the_wire_survives_any_byte() {
        let answer =
            ConsoleOutput { output: b"boot\x00\xff\n".to_vec(), timestamp: datetime!(2011-02-03 07:27:36 UTC) };
        let text = serde_json::to_string(&answer).unwrap();
        expect![[r#"{"output":"Ym9vdAD/Cg==","timestamp":"2011-02-03T07:27:36Z"}"#]].assert_eq(&text);
        assert_eq!(answer, serde_json::from_str(&text).unwrap());
    }
}
