//! What is asked of the scheduler.

use serde::{Deserialize, Serialize};

use crate::address::Topic;
use crate::call::{Call, one_or_many};

/// What other daemons ask of the scheduler.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "method", content = "args", rename_all = "snake_case")]
pub enum SchedulerCall {
    /// These instances wait for a host.
    RunInstance {
        /// Rows of `instances`.
        #[serde(alias = "instance_id", deserialize_with = "one_or_many")]
        instance_ids: Vec<u32>,
    },
}

impl Call for SchedulerCall {
    const TOPIC: Topic = Topic::Scheduler;
    const METHODS: &'static [&'static str] = &["run_instance"];
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::SchedulerCall;
    use crate::call::tests::methods_are_exactly_the_variants;

    #[test]
    fn the_methods_listed_are_the_methods_read() {
        methods_are_exactly_the_variants::<SchedulerCall>();
    }

    #[test]
    fn run_instance_on_the_wire() {
        let call = SchedulerCall::RunInstance { instance_ids: vec![10, 11] };
        expect![[r#"{"method":"run_instance","args":{"instance_ids":[10,11]}}"#]]
            .assert_eq(&serde_json::to_string(&call).unwrap());
    }
}
