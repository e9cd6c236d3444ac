//! What the driver and its helper `nova-libvirt` say to each other: one JSON object a line.
//!
//! Public only because the helper is a program of its own; nobody else may lean on it.

use serde::{Deserialize, Serialize};

/// A line to the helper.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ask {
    /// Comes back in the answer.
    pub id: u64,
    /// What is to be done.
    #[serde(flatten)]
    pub verb: Verb,
}

/// What is to be done. Each may be done twice.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case")]
pub enum Verb {
    /// Lists every domain, ours or not.
    List,
    /// Defines a domain anew unless it runs, and starts it.
    Ensure {
        /// The domain's uuid, as in `xml`.
        uuid: String,
        /// The domain's description.
        xml: String,
    },
    /// Presses the power button.
    Press {
        /// The domain.
        uuid: String,
    },
    /// Pulls the plug.
    Unplug {
        /// The domain.
        uuid: String,
    },
    /// Pulls the plug and undefines.
    Remove {
        /// The domain.
        uuid: String,
    },
    /// Looks whether a domain runs.
    Look {
        /// The domain.
        uuid: String,
    },
}

/// A line from the helper.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "say", rename_all = "snake_case")]
pub enum Say {
    /// The answer to a question.
    Answer {
        /// The question's id.
        id: u64,
        /// What came of it.
        #[serde(flatten)]
        outcome: Outcome,
    },
    /// A domain was switched on or off.
    Changed {
        /// The domain as it is now.
        domain: Domain,
    },
}

/// What came of a question.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum Outcome {
    /// It is as was wanted.
    Done,
    /// Every domain there is.
    Domains {
        /// In no order.
        domains: Vec<Domain>,
    },
    /// The domain is there and runs, is there and is off (`false`), or is not there (`null`).
    Power {
        /// Whether it runs.
        on: Option<bool>,
    },
    /// libvirt could not be asked.
    CouldNotAsk {
        /// In libvirt's words.
        reason: String,
    },
    /// libvirt was asked, and refused or failed.
    Refused {
        /// In libvirt's words.
        reason: String,
    },
}

/// A domain.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Domain {
    /// Its name.
    pub name: String,
    /// Its uuid in lower case.
    pub uuid: String,
    /// Whether it runs.
    pub on: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lines_are_these() {
        let uuid = "u".to_owned();
        let asks = [
            Verb::List,
            Verb::Ensure { uuid: uuid.clone(), xml: "<domain/>".into() },
            Verb::Press { uuid: uuid.clone() },
            Verb::Unplug { uuid: uuid.clone() },
            Verb::Remove { uuid: uuid.clone() },
            Verb::Look { uuid: uuid.clone() },
        ]
        .map(|verb| serde_json::to_string(&Ask { id: 7, verb }).unwrap());
        let domain = Domain { name: "n".into(), uuid, on: true };
        let says = [
            Say::Answer { id: 7, outcome: Outcome::Done },
            Say::Answer { id: 7, outcome: Outcome::Domains { domains: vec![domain.clone()] } },
            Say::Answer { id: 7, outcome: Outcome::Power { on: None } },
            Say::Answer { id: 7, outcome: Outcome::Refused { reason: "no".into() } },
            Say::Changed { domain },
        ];
        for say in &says {
            assert_eq!(&serde_json::from_str::<Say>(&serde_json::to_string(say).unwrap()).unwrap(), say);
        }
        let says = says.map(|say| serde_json::to_string(&say).unwrap());
        let lines = asks.into_iter().chain(says).collect::<Vec<_>>().join("\n");
        expect_test::expect![[r#"
            {"id":7,"do":"list"}
            {"id":7,"do":"ensure","uuid":"u","xml":"<domain/>"}
            {"id":7,"do":"press","uuid":"u"}
            {"id":7,"do":"unplug","uuid":"u"}
            {"id":7,"do":"remove","uuid":"u"}
            {"id":7,"do":"look","uuid":"u"}
            {"say":"answer","id":7,"outcome":"done"}
            {"say":"answer","id":7,"outcome":"domains","domains":[{"name":"n","uuid":"u","on":true}]}
            {"say":"answer","id":7,"outcome":"power","on":null}
            {"say":"answer","id":7,"outcome":"refused","reason":"no"}
            {"say":"changed","domain":{"name":"n","uuid":"u","on":true}}"#]]
        .assert_eq(&lines);
    }
}
