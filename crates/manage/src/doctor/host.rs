//! The steps of a packet's way that are the same for every guest of this host.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};

use nova_types::Mac;
use nova_types::network::{ManagerKind, Network};

use super::facts::{Asked, Keys, Machine, Wire};
use super::finding::{Finding, Walk};

/// dnsmasq with a script is two processes: the server, and its helper that stays root.
const PROCESSES: usize = 2;
const RESTART_NETWORK: &str = "service nova-network restart";
const RESTART_COMPUTE: &str = "service nova-compute restart";

/// Everything about this host.
pub(crate) fn judge(machine: &Machine) -> Vec<Finding> {
    let mut walk = Walk::default();
    daemons(&mut walk, machine);
    if machine.networks.is_empty() {
        walk.broken("network", "there is no network for instances", "nova-manage network create RANGE 1 256");
    }
    for network in machine.networks.iter().filter(|n| n.host.is_none() && !n.multi_host && machine.dhcp()) {
        if network.vlan.is_none() || network.project.is_some() {
            walk.broken("network", format!("no host serves {}", network.cidr), "service nova-network start");
        }
    }
    for (network, answer) in &machine.abandoned {
        abandoned(&mut walk, network, answer);
    }
    if machine.simulated {
        walk.unknown("machine", "guests of this host are simulated, and its network is left alone", None);
    } else {
        for network in machine.served() {
            serving(&mut walk, machine, network);
        }
        if machine.computes() {
            computing(&mut walk, machine);
        }
        if machine.served().next().is_some() {
            routing(&mut walk, machine);
        }
    }
    metadata(&mut walk, machine);
    keys(&mut walk, &machine.keys);
    walk.0
}

fn daemons(walk: &mut Walk, machine: &Machine) {
    let here: Vec<_> = machine.daemons.iter().filter(|daemon| daemon.host == machine.host).collect();
    if here.is_empty() {
        let what = format!("no daemon ever reported from {}", machine.host);
        walk.broken("daemons", what, "start one (service nova-compute start), or give the --host it has");
    }
    for daemon in here {
        let name = &daemon.binary;
        if !machine.is_up(daemon) {
            let what = match daemon.gave_up {
                true => format!("{name} was stopped"),
                false => format!("{name} has not reported for {} s", daemon.silent_seconds.max(0)),
            };
            walk.broken("daemons", what, format!("service {name} restart (nova-combined where one process is all)"));
        } else if daemon.disabled {
            let mend = format!("nova-manage service enable {} {name}", machine.host);
            walk.unknown("daemons", format!("{name} runs and is disabled: it gets no new work"), Some(mend));
        } else {
            walk.ok("daemons", format!("{name} reports"));
        }
    }
}

/// A network whose host fell silent: this one takes it over if nobody answers for its gateway.
fn abandoned(walk: &mut Walk, network: &Network, answer: &Asked<Option<Mac>>) {
    const STEP: &str = "fail-over";
    let (cidr, gateway) = (network.cidr, network.gateway);
    let old = network.host.as_ref().map_or("nobody".to_owned(), ToString::to_string);
    match answer {
        Ok(None) => {
            walk.ok(
                STEP,
                format!("{old} has let go of {cidr} and nobody answers for {gateway}: a moment, and it has a host"),
            );
        }
        Ok(Some(mac)) => walk.broken(
            STEP,
            format!(
                "{old} no longer renews its lease of {cidr}, and {mac} answers for {gateway}: no host takes it over"
            ),
            format!("on {old}: {RESTART_NETWORK}; or switch {old} off, and another takes over"),
        ),
        Err(why) => walk.unknown(STEP, format!("{old} no longer renews its lease of {cidr}, and {why}"), None),
    }
}

/// What the network's host does for it: bridge, address, DHCP.
pub(super) fn serving(walk: &mut Walk, machine: &Machine, network: &Network) {
    if !machine.dhcp() {
        walk.ok("dnsmasq", "FlatManager runs none: guests read their address from a seed disk");
        return;
    }
    if let Some(other) = machine.crowded_out_by(network) {
        let what = format!("{} is not served: its bridge {} carries {}", network.cidr, network.bridge, other.cidr);
        return walk.broken("network", what, format!("nova-manage network delete {}", network.cidr));
    }
    wires(walk, machine, network);
    if let Ok(links) = &machine.links {
        let (bridge, gateway) = (&network.bridge, network.gateway);
        match links.iter().find(|wire| wire.has(gateway)) {
            Some(wire) if wire.name == *bridge => walk.ok("gateway", format!("{bridge} has {gateway}")),
            Some(wire) => walk.broken(
                "gateway",
                format!("{gateway} is on {}, and should be on {bridge}", wire.name),
                format!(
                    "ip address delete {gateway}/{} dev {}; {RESTART_NETWORK}",
                    network.cidr.prefix_len(),
                    wire.name
                ),
            ),
            None => walk.broken("gateway", format!("{bridge} does not have {gateway}"), RESTART_NETWORK),
        }
    }
    dnsmasq(walk, machine, network);
}

/// The guide's second common issue.
fn dnsmasq(walk: &mut Walk, machine: &Machine, network: &Network) {
    let mend = format!("killall dnsmasq; {RESTART_NETWORK}");
    match machine.dnsmasq.get(&network.bridge) {
        Some(Ok(PROCESSES)) => walk.ok("dnsmasq", format!("TWO dnsmasq processes serve {}", network.bridge)),
        Some(Ok(count)) => {
            let what = format!("dnsmasq processes for {}: {count}, and there must be TWO", network.bridge);
            walk.broken("dnsmasq", what, mend);
        }
        Some(Err(why)) => walk.unknown("dnsmasq", why, None),
        None => walk.unknown("dnsmasq", format!("nobody looked at {}", network.bridge), None),
    }
}

/// The bridge of a network on this host, and what joins it to those on other hosts.
pub(super) fn wires(walk: &mut Walk, machine: &Machine, network: &Network) {
    let links = match &machine.links {
        Ok(links) => links,
        Err(why) => return walk.unknown("bridge", why, None),
    };
    let bridge = &network.bridge;
    let find = |name: &str| links.iter().find(|wire| wire.name == name);
    let by_hand = machine.manager == ManagerKind::Flat;
    let restart = if network.host.as_ref() == Some(&machine.host) { RESTART_NETWORK } else { RESTART_COMPUTE };
    match find(bridge) {
        None if by_hand => {
            let mend = format!("put {bridge} into /etc/network/interfaces, then: ifup {bridge}");
            walk.broken("bridge", format!("there is no {bridge}, and FlatManager wants it made by hand"), mend);
        }
        None => walk.broken("bridge", format!("there is no bridge {bridge}"), restart),
        Some(Wire { up: false, .. }) => {
            walk.broken("bridge", format!("{bridge} is down"), format!("ip link set {bridge} up"));
        }
        Some(_) => walk.ok("bridge", format!("{bridge} is there and up")),
    }
    let Some((step, member)) = joint(machine, network) else { return };
    match find(&member) {
        None => {
            let (what, mend) = missing(machine, links, step, &member, restart);
            walk.broken(step, what, mend);
        }
        Some(wire) if wire.bridge.as_ref() != Some(bridge) => {
            walk.broken(step, format!("{member} is not on {bridge}"), restart);
        }
        Some(Wire { up: false, .. }) => {
            walk.broken(step, format!("{member} is down"), format!("ip link set {member} up"));
        }
        Some(_) => walk.ok(step, format!("{member} is on {bridge} and up")),
    }
    if find(&member).is_some() && machine.manager == ManagerKind::Vxlan {
        hosts(walk, machine, &member, restart);
    }
}

/// What joins a network's bridge to those on other hosts, if anything does.
fn joint(machine: &Machine, network: &Network) -> Option<(&'static str, String)> {
    let tag = network.vlan.map(nova_types::Tag::number);
    match (machine.manager, tag) {
        (ManagerKind::Vxlan, Some(vni)) => Some(("vlan", format!("vxlan{vni}"))),
        (_, Some(tag)) => Some(("vlan", format!("vlan{tag}"))),
        (ManagerKind::FlatDhcp, None) => machine.flat_interface.clone().map(|interface| ("interface", interface)),
        (ManagerKind::Flat | ManagerKind::Vlan | ManagerKind::Vxlan, None) => None,
    }
}

/// Why it is not there, and what mends that.
fn missing(machine: &Machine, links: &[Wire], step: &str, member: &str, restart: &str) -> (String, String) {
    let (under, my_ip) = (&machine.vlan_interface, machine.my_ip);
    let has = |wire: &Wire| wire.addresses.iter().any(|net| IpAddr::V4(net.addr()) == my_ip);
    match (step, machine.manager) {
        ("vlan", ManagerKind::Vxlan) if !links.iter().any(has) => (
            format!("no interface has the address {my_ip} that {member} would come from"),
            format!("set --my_ip to an address of this host, then: {restart}"),
        ),
        ("vlan", ManagerKind::Vlan) if !links.iter().any(|wire| wire.name == *under) => {
            (format!("there is no {under} that {member} could be on"), lost("vlan_interface", restart))
        }
        ("vlan", _) => (format!("there is no interface {member}"), restart.to_owned()),
        _ => (format!("there is no interface {member}"), lost("flat_interface", restart)),
    }
}

/// Where a VXLAN leads.
fn hosts(walk: &mut Walk, machine: &Machine, member: &str, restart: &str) {
    let found = match machine.peers.get(member) {
        Some(Ok(found)) => found,
        Some(Err(why)) => return walk.unknown("hosts", why, None),
        None => return walk.unknown("hosts", format!("nobody looked at {member}"), None),
    };
    let mut wanted = machine.hosts.clone();
    if let IpAddr::V4(own) = machine.my_ip {
        wanted.remove(&own);
    }
    let listed = |hosts: &BTreeSet<Ipv4Addr>| hosts.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let (lacks, strays) = (&wanted - found, found - &wanted);
    let mut faults = Vec::new();
    if !lacks.is_empty() {
        faults.push(format!("{member} does not lead to {}", listed(&lacks)));
    }
    if !strays.is_empty() {
        let verb = if strays.len() == 1 { "is no host" } else { "are no hosts" };
        let who = if faults.is_empty() { member } else { "it" };
        faults.push(format!("{who} leads to {}, which {verb}", listed(&strays)));
    }
    match faults.as_slice() {
        [] if wanted.is_empty() => walk.ok("hosts", format!("{member} leads nowhere: there are no other hosts")),
        [] => walk.ok("hosts", format!("{member} leads to {}", listed(&wanted))),
        _ => walk.broken("hosts", faults.join("; "), restart),
    }
}

fn lost(flag: &str, restart: &str) -> String {
    format!("set --{flag} to one of this host's interfaces (ip link), then: {restart}")
}

/// What a compute host needs so that groups hold.
pub(super) fn computing(walk: &mut Walk, machine: &Machine) {
    walk.judge(
        "br_netfilter",
        &machine.bridge_filter,
        "packets between guests of one bridge pass their groups' rules",
        "packets between guests of one bridge pass by their groups' rules",
        "modprobe br_netfilter; sysctl -w net.bridge.bridge-nf-call-iptables=1",
    );
    has_tables(walk, machine, "firewall", &["bridge nova_compute", "inet nova_compute"], RESTART_COMPUTE);
}

fn has_tables(walk: &mut Walk, machine: &Machine, step: &'static str, wanted: &[&str], mend: &str) {
    match &machine.tables {
        Err(why) => walk.unknown(step, why, None),
        Ok(tables) => match wanted.iter().find(|name| !tables.contains(**name)) {
            Some(name) => walk.broken(step, format!("there is no firewall table {name}"), mend),
            None => walk.ok(step, format!("the tables {} are there", wanted.join(" and "))),
        },
    }
}

/// The way between guests and the world, over this host.
pub(super) fn routing(walk: &mut Walk, machine: &Machine) {
    if !machine.dhcp() {
        return;
    }
    walk.judge(
        "forwarding",
        &machine.forwarding,
        "this host forwards packets",
        "this host forwards no packets",
        "sysctl -w net.ipv4.ip_forward=1, and for the next start a line in /etc/sysctl.conf",
    );
    has_tables(walk, machine, "nat", &["ip nova_network", "inet nova_network"], RESTART_NETWORK);
    walk.judge(
        "metadata rule",
        &machine.metadata_rule,
        "169.254.169.254:80 is translated to the metadata service",
        "nothing translates 169.254.169.254:80 to the metadata service",
        RESTART_NETWORK,
    );
    match &machine.foreign {
        Ok(chains) if chains.is_empty() => walk.ok("other firewalls", "none drops what is forwarded"),
        Ok(chains) => {
            let bridges: Vec<&str> = machine.served().map(|network| network.bridge.as_str()).collect();
            let allow = |bridge: &&str| {
                format!("iptables -I FORWARD -i {bridge} -j ACCEPT; iptables -I FORWARD -o {bridge} -j ACCEPT")
            };
            let what = format!("{} drops what none of its rules accepts; guests may be among it", chains.join(", "));
            let mend = bridges.iter().map(allow).collect::<Vec<_>>().join("; ");
            walk.unknown("other firewalls", what, Some(mend));
        }
        Err(why) => walk.unknown("other firewalls", why, None),
    }
    walk.judge(
        "default route",
        &machine.default_route,
        "this host has a default route",
        "this host has no default route, so guests do not reach the world",
        "ip route add default via ROUTER",
    );
}

pub(super) fn metadata(walk: &mut Walk, machine: &Machine) {
    let (place, answer) = &machine.metadata;
    match answer {
        Ok(None) => walk.ok("metadata", format!("the metadata service answers at {place}")),
        Ok(Some(why)) => walk.broken(
            "metadata",
            format!("the metadata service does not answer at {place}: {why}"),
            "service nova-api restart; if it runs, let --ec2_dmz_host and --ec2_port say where",
        ),
        Err(why) => walk.unknown("metadata", why, None),
    }
}

/// The guide's third common issue.
pub(super) fn keys(walk: &mut Walk, keys: &Keys) {
    const MEND: &str = ". /root/creds/novarc";
    const ANEW: &str =
        "nova-manage project zipfile PROJECT USER writes the keys anew; unzip it, then: . /root/creds/novarc";
    match keys {
        Keys::Unset => {
            walk.unknown("API key", "this shell has no EC2_ACCESS_KEY, which euca2ools need", Some(MEND.into()))
        }
        Keys::NoUser(access) => {
            walk.broken(
                "API key",
                format!("EC2_ACCESS_KEY is {access}, which is nobody's"),
                format!("{MEND}; else {ANEW}"),
            );
        }
        Keys::WrongSecret(user) => {
            walk.broken("API key", format!("EC2_SECRET_KEY is not that of {user}"), format!("{MEND}; else {ANEW}"));
        }
        Keys::Fit(user) => walk.ok("API key", format!("this shell has the key of {user}")),
        Keys::Unread(why) => walk.unknown("API key", why, None),
    }
}
