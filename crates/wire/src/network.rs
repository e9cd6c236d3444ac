//! What is asked of the network daemon of one host.

use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

use crate::address::Topic;
use crate::call::{Call, one_or_many};

/// What other daemons ask of a network host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "method", content = "args", rename_all = "snake_case")]
pub enum NetworkCall {
    /// Rows of these networks changed (addresses taken or freed, floating addresses moved): compare and repair.
    RefreshNetwork {
        /// Rows of `networks`.
        #[serde(alias = "network_id", deserialize_with = "one_or_many")]
        network_ids: Vec<u32>,
    },
    /// A guest was leased its address.
    LeaseFixedIp {
        /// The guest's MAC address.
        mac: String,
        /// The address it now uses.
        address: Ipv4Addr,
    },
    /// A guest's lease ended.
    ReleaseFixedIp {
        /// The guest's MAC address.
        mac: String,
        /// The address it used.
        address: Ipv4Addr,
    },
}

impl Call for NetworkCall {
    const TOPIC: Topic = Topic::Network;
    const METHODS: &'static [&'static str] = &["refresh_network", "lease_fixed_ip", "release_fixed_ip"];
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use expect_test::expect;

    use super::NetworkCall;
    use crate::call::tests::methods_are_exactly_the_variants;

    #[test]
    fn the_methods_listed_are_the_methods_read() {
        methods_are_exactly_the_variants::<NetworkCall>();
    }

    #[test]
    fn every_call_on_the_wire() {
        let mac = "02:16:3e:00:00:0a".to_owned();
        let address = Ipv4Addr::new(192, 168, 0, 3);
        let calls = [
            NetworkCall::RefreshNetwork { network_ids: vec![1] },
            NetworkCall::LeaseFixedIp { mac: mac.clone(), address },
            NetworkCall::ReleaseFixedIp { mac, address },
        ];
        let mut text = String::new();
        for call in &calls {
            let line = serde_json::to_string(call).unwrap();
            assert_eq!(*call, serde_json::from_str(&line).unwrap());
            text.push_str(&line);
            text.push('\n');
        }
        expect![[r#"
            {"method":"refresh_network","args":{"network_ids":[1]}}
            {"method":"lease_fixed_ip","args":{"mac":"02:16:3e:00:00:0a","address":"192.168.0.3"}}
            {"method":"release_fixed_ip","args":{"mac":"02:16:3e:00:00:0a","address":"192.168.0.3"}}
        "#]]
        .assert_eq(&text);
    }
}
