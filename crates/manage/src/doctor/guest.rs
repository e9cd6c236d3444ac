//! The way of a packet to one guest, step by step.

use std::net::Ipv4Addr;

use nova_types::HostName;
use nova_types::instance::{Instance, InstanceView};
use nova_types::network::Network;
use nova_types::rule::{Icmp, Source, Traffic};
use nova_types::security_group::SecurityGroup;
use nova_types::state::{State, VmState};

use super::facts::{Guest, Machine, Wire};
use super::finding::{Finding, Walk};
use super::host;

/// What people try first.
#[derive(Clone, Copy, Debug)]
enum Want {
    Ping,
    Ssh,
}

impl Want {
    const fn step(self) -> &'static str {
        match self {
            Self::Ping => "ping",
            Self::Ssh => "ssh",
        }
    }

    /// The guide's words.
    const fn authorize(self) -> &'static str {
        match self {
            Self::Ping => "euca-authorize -P icmp -t -1:-1",
            Self::Ssh => "euca-authorize -P tcp -p 22",
        }
    }

    const fn is(self, traffic: Traffic) -> bool {
        match (self, traffic) {
            (_, Traffic::All) => true,
            (Self::Ping, Traffic::Icmp(icmp)) => matches!(icmp, Icmp::Any | Icmp::Type(8) | Icmp::TypeAndCode(8, 0)),
            (Self::Ssh, Traffic::Tcp(ports)) => ports.from <= 22 && 22 <= ports.to,
            _ => false,
        }
    }
}

/// Everything that a packet to `guest` passes, as far as this host knows.
pub(crate) fn judge(machine: &Machine, guest: &Guest) -> Vec<Finding> {
    let mut walk = Walk::default();
    let runs = instance(&mut walk, machine, &guest.view);
    groups(&mut walk, guest);
    if runs {
        if guest.simulated {
            let what = format!("{} is simulated: there is no guest that could answer", guest.view.instance.id);
            walk.broken("guest", what, "nova-compute with --hypervisor=libvirt runs real ones");
        }
        if let Some(network) = address(&mut walk, machine, guest) {
            wired(&mut walk, machine, guest, network);
        }
    }
    host::metadata(&mut walk, machine);
    host::keys(&mut walk, &machine.keys);
    walk.0
}

/// Says whether there is a guest that packets could reach.
fn instance(walk: &mut Walk, machine: &Machine, view: &InstanceView) -> bool {
    let Instance { id, state, host, reason, image, .. } = &view.instance;
    let again = format!("euca-run-instances {image}");
    let why = reason.as_ref().map_or(String::new(), |reason| format!(": {}", reason.message));
    match state.vm {
        VmState::Running if state.task.is_none() => walk.ok("instance", format!("{id} runs")),
        VmState::Running => walk.broken("instance", format!("{id} is being rebooted"), "wait a moment"),
        VmState::Pending => walk.broken("instance", format!("{id} does not run yet"), pending(machine, *state, view)),
        VmState::Stopping | VmState::Stopped => {
            walk.broken("instance", format!("{id} is switched off{why}"), format!("euca-start-instances {id}"));
        }
        VmState::ShuttingDown => walk.broken("instance", format!("{id} is being destroyed{why}"), again),
        VmState::Terminated | VmState::Error => walk.broken("instance", format!("{id} is over{why}"), again),
    }
    let Some(host) = host else { return false };
    match machine.daemon("nova-compute", host) {
        Some(daemon) if machine.is_up(daemon) => walk.ok("compute", format!("nova-compute on {host} reports")),
        _ => walk.broken(
            "compute",
            format!("nova-compute on {host} does not report: nothing that is asked of {id} happens"),
            format!("on {host}: service nova-compute start; if the host is lost: nova-manage host evacuate {host}"),
        ),
    }
    state.vm == VmState::Running
}

fn pending(machine: &Machine, state: State, view: &InstanceView) -> String {
    let id = view.instance.id;
    let schedules = machine.daemons.iter().any(|d| d.binary == "nova-scheduler" && machine.is_up(d));
    match (&view.instance.host, schedules) {
        (None, false) => "no nova-scheduler reports: service nova-scheduler start".to_owned(),
        _ => format!("wait ({}); euca-describe-instances {id}", state.task.map_or("pending", |task| task.as_str())),
    }
}

/// The guide's first common issue.
fn groups(walk: &mut Walk, guest: &Guest) {
    let names: Vec<&str> = guest.groups.iter().map(|group| group.name.as_str()).collect();
    let mine = names.first().copied().unwrap_or("default");
    for want in [Want::Ping, Want::Ssh] {
        let (step, mend) = (want.step(), format!("{} {mine}", want.authorize()));
        let sources: Vec<(&SecurityGroup, Source)> = guest
            .groups
            .iter()
            .flat_map(|group| group.rules.iter().map(move |granted| (group, granted.rule)))
            .filter(|(_, rule)| want.is(rule.traffic))
            .map(|(group, rule)| (group, rule.source))
            .collect();
        let ranges: Vec<String> = sources
            .iter()
            .filter_map(|(_, source)| match source {
                Source::Range(range) if range.addr().is_ipv4() => Some(range.to_string()),
                _ => None,
            })
            .collect();
        let anybody =
            sources.iter().find(|(_, s)| matches!(s, Source::Range(r) if r.addr().is_ipv4() && r.prefix_len() == 0));
        if let Some((group, _)) = anybody {
            walk.ok(step, format!("the group {} lets {step} in from anywhere", group.name));
        } else if !ranges.is_empty() {
            walk.ok(step, format!("groups let {step} in, but only from {}", ranges.join(", ")));
        } else if sources.is_empty() {
            walk.broken(
                step,
                format!("not authorized: no rule of its groups ({}) lets {step} in", names.join(", ")),
                mend,
            );
        } else {
            walk.broken(step, format!("not authorized: {step} is let in from members of groups only"), mend);
        }
    }
}

/// Its address and who serves it; returns the network.
fn address<'a>(walk: &mut Walk, machine: &'a Machine, guest: &Guest) -> Option<&'a Network> {
    let id = guest.view.instance.id;
    let Some((address, network)) = guest.view.fixed_ip else {
        let mend = if machine.networks.is_empty() {
            "nova-manage network create RANGE 1 256, then launch again".to_owned()
        } else {
            format!(
                "nova-manage fixed list shows whether any is free; then euca-terminate-instances {id}, launch again"
            )
        };
        walk.broken("address", format!("{id} has no fixed address"), mend);
        return None;
    };
    let Some(network) = machine.networks.iter().find(|known| known.id == network) else {
        walk.broken("address", format!("the network of {address} is gone"), format!("euca-terminate-instances {id}"));
        return None;
    };
    walk.ok("address", format!("{id} has {address} of {}", network.cidr));
    if !machine.dhcp() {
        walk.ok("lease", "FlatManager lends none: the guest reads its address from a seed disk");
        return Some(network);
    }
    match router(guest, network) {
        None => walk.broken("network host", format!("no host serves {}", network.cidr), "service nova-network start"),
        Some(host) => match machine.daemon("nova-network", host) {
            // As it is seen from there, it has a gateway.
            Some(daemon) if machine.is_up(daemon) && network.host.is_none() && *host == machine.host => {
                let what = format!("{host} has no address of its own in {} yet", network.cidr);
                walk.broken("network host", what, "a moment; then: service nova-network restart");
            }
            Some(daemon) if machine.is_up(daemon) => {
                walk.ok("network host", format!("nova-network on {host} serves {}", network.cidr));
            }
            _ => walk.broken(
                "network host",
                format!("nova-network on {host} serves {} and does not report", network.cidr),
                format!("on {host}: service nova-network restart"),
            ),
        },
    }
    // A simulated guest asks nobody for anything.
    if guest.leased {
        walk.ok("lease", format!("the guest was lent {address} by DHCP"));
    } else if !guest.simulated {
        walk.broken(
            "lease",
            format!("the guest has no lease of {address}: it did not ask, or its question or the answer was lost"),
            format!(
                "euca-get-console-output {id} shows whether it asks; if it does, the steps below say where it is lost"
            ),
        );
    }
    Some(network)
}

/// The host that serves the guest's network to it.
fn router<'a>(guest: &'a Guest, network: &'a Network) -> Option<&'a HostName> {
    if network.multi_host { guest.view.instance.host.as_ref() } else { network.host.as_ref() }
}

/// What carries its packets: on the network's host, on its own host.
fn wired(walk: &mut Walk, machine: &Machine, guest: &Guest, network: &Network) {
    let id = guest.view.instance.id;
    let command = format!("doctor instance {id}");
    let here = guest.view.instance.host.as_ref() == Some(&machine.host);
    let router = router(guest, network);
    let served_here = router == Some(&machine.host) && (network.host.is_some() || !network.multi_host);
    if machine.simulated && (here || served_here) {
        return walk.unknown("machine", "guests of this host are simulated, and its network is left alone", None);
    }
    if served_here {
        host::serving(walk, machine, network);
        if machine.dhcp() {
            let (yes, no) = (format!("dnsmasq was told of {id}"), format!("dnsmasq was not told of {id}"));
            walk.judge("dhcp entry", &guest.told, &yes, &no, "service nova-network restart");
        }
    } else if let (Some(host), true) = (router.filter(|host| **host != machine.host), machine.dhcp()) {
        walk.elsewhere("dnsmasq", "dnsmasq and the gateway are on another host", host, &command);
    }
    match &guest.view.instance.host {
        Some(_) if here => {
            if !served_here || !machine.dhcp() {
                host::wires(walk, machine, network);
            }
            tap(walk, machine, guest, network);
            host::computing(walk, machine);
        }
        Some(host) => walk.elsewhere("guest", "the guest, its tap and its rules are on another host", host, &command),
        None => {}
    }
    if served_here {
        host::routing(walk, machine);
        if let Some(floating) = guest.view.floating_ip {
            public(walk, machine, floating);
        }
    } else if let (Some(host), true) = (router.filter(|host| **host != machine.host), machine.dhcp()) {
        walk.elsewhere("routing", "forwarding, translation and routes are on another host", host, &command);
    }
}

/// The guest's own end of the wire, and the rules about it.
fn tap(walk: &mut Walk, machine: &Machine, guest: &Guest, network: &Network) {
    let id = guest.view.instance.id;
    let (tap, bridge) = (Instance::tap_name(id), &network.bridge);
    match machine.links.as_ref().map(|links| links.iter().find(|wire| wire.name == tap)) {
        // The bridge has said why.
        Err(_) => {}
        Ok(None) => {
            let mend = format!("euca-reboot-instances {id}; if that does not help: service nova-compute restart");
            walk.broken("tap", format!("there is no {tap}: the guest does not run, whatever its row says"), mend);
        }
        Ok(Some(wire)) if wire.bridge.as_ref() != Some(bridge) => {
            walk.broken("tap", format!("{tap} is not on {bridge}"), format!("ip link set {tap} master {bridge}"));
        }
        Ok(Some(Wire { up: false, .. })) => {
            walk.broken("tap", format!("{tap} is down"), format!("ip link set {tap} up"));
        }
        Ok(Some(_)) => walk.ok("tap", format!("{tap} is on {bridge} and up")),
    }
    let (yes, no) =
        (format!("the firewall knows {tap}"), format!("the firewall lets {tap} send nothing: it has no rules"));
    walk.judge("rules", &guest.guarded, &yes, &no, "service nova-compute restart");
}

fn public(walk: &mut Walk, machine: &Machine, floating: Ipv4Addr) {
    let bound = match &machine.links {
        Ok(links) => Ok(links.iter().any(|wire| wire.has(floating))),
        Err(why) => Err(why.clone()),
    };
    let (yes, no) = (format!("this host has {floating}"), format!("no interface of this host has {floating}"));
    walk.judge("public address", &bound, &yes, &no, "service nova-network restart");
}
