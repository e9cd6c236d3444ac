//! What the seed disk says: who the guest is, and where there is no DHCP, what its address is.

use std::net::Ipv4Addr;

use nova_types::instance::Instance;
use nova_types::network::Network;
use serde_json::json;

/// The files of the seed disk. JSON throughout: cloud-init reads YAML, of which JSON is a part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Content {
    pub(crate) meta_data: Vec<u8>,
    pub(crate) user_data: Vec<u8>,
    pub(crate) network_config: Option<Vec<u8>>,
}

/// Writes the content for an instance; with its address, if it is to learn that here. That of IPv6 it makes of what the
/// network's router says.
pub(crate) fn content(instance: &Instance, address: Option<(Ipv4Addr, &Network)>, ipv6: bool) -> Content {
    let keys: Vec<&str> = instance.key.iter().map(|(_, public)| public.trim()).collect();
    let meta_data = json!({
        "instance-id": instance.id.to_string(),
        "local-hostname": instance.hostname,
        "public-keys": keys,
    });
    let network_config = address.map(|(address, network)| {
        let dns = network.dns.unwrap_or(network.gateway);
        let mut subnets = vec![json!({
            "type": "static",
            "address": format!("{address}/{}", network.cidr.prefix_len()),
            "gateway": network.gateway.to_string(),
            "dns_nameservers": [dns.to_string()],
        })];
        if ipv6 && network.prefix6.is_some() {
            subnets.push(json!({ "type": "ipv6_slaac" }));
        }
        json!({
            "version": 1,
            "config": [{
                "type": "physical",
                "name": "eth0",
                "mac_address": instance.mac.to_string(),
                "subnets": subnets,
            }],
        })
    });
    Content {
        meta_data: line(&meta_data),
        user_data: instance.user_data.clone().unwrap_or_default(),
        network_config: network_config.as_ref().map(line),
    }
}

fn line(value: &serde_json::Value) -> Vec<u8> {
    format!("{value}\n").into_bytes()
}
