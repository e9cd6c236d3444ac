//! What the doctor says of interfaces, settings, tables and routes.

use expect_test::expect;
use nova_types::Tag;
use nova_types::network::ManagerKind;

use super::well::wire;
use super::{links, told, told_of_host};
use crate::doctor::facts::{Guest, Machine, Wire};

#[test]
fn wires_are_missing_down_or_elsewhere() {
    told(
        |machine, _| drop(links(machine).remove(0)),
        expect![[r#"
        bridge [broken] there is no bridge br100
          service nova-network restart
        gateway [broken] br100 does not have 192.168.0.1
          service nova-network restart"#]],
    );
    told(
        |machine, _| links(machine)[0].up = false,
        expect![[r#"
        bridge [broken] br100 is down
          ip link set br100 up"#]],
    );
    told(
        |machine, _| links(machine)[0].addresses.clear(),
        expect![[r#"
        gateway [broken] br100 does not have 192.168.0.1
          service nova-network restart"#]],
    );
    let moved = |machine: &mut Machine, _: &mut Guest| {
        let addresses = std::mem::take(&mut links(machine)[0].addresses);
        links(machine).push(Wire { addresses, ..wire("eth1", None) });
    };
    told(
        moved,
        expect![[r#"
        gateway [broken] 192.168.0.1 is on eth1, and should be on br100
          ip address delete 192.168.0.1/24 dev eth1; service nova-network restart"#]],
    );
    told(
        |machine, _| drop(links(machine).remove(1)),
        expect![[r#"
        tap [broken] there is no tap0000000a: the guest does not run, whatever its row says
          euca-reboot-instances i-0000000a; if that does not help: service nova-compute restart"#]],
    );
    told(
        |machine, _| links(machine)[1].bridge = None,
        expect![[r#"
        tap [broken] tap0000000a is not on br100
          ip link set tap0000000a master br100"#]],
    );
    told(
        |machine, _| links(machine)[1].up = false,
        expect![[r#"
        tap [broken] tap0000000a is down
          ip link set tap0000000a up"#]],
    );
    told(
        |_, guest| guest.guarded = Ok(false),
        expect![[r#"
        rules [broken] the firewall lets tap0000000a send nothing: it has no rules
          service nova-compute restart"#]],
    );
}

#[test]
fn what_joins_the_bridges_of_hosts_is_looked_at() {
    let flat = |machine: &mut Machine| machine.flat_interface = Some("eth1".to_owned());
    told_of_host(
        flat,
        expect![[r#"
        interface [broken] there is no interface eth1
          set --flat_interface to one of this host's interfaces (ip link), then: service nova-network restart"#]],
    );
    let off = |machine: &mut Machine| {
        flat(machine);
        links(machine).push(wire("eth1", None));
    };
    told_of_host(
        off,
        expect![[r#"
        interface [broken] eth1 is not on br100
          service nova-network restart"#]],
    );
    let tagged = |machine: &mut Machine| {
        machine.manager = ManagerKind::Vlan;
        machine.networks[0].vlan = Some(Tag::try_from(100_i64).unwrap());
        machine.networks[0].project = Some("moon".parse().unwrap());
    };
    told_of_host(
        tagged,
        expect![[r#"
            vlan [broken] there is no eth0 that vlan100 could be on
              set --vlan_interface to one of this host's interfaces (ip link), then: service nova-network restart"#]],
    );
    let tagged = |machine: &mut Machine| {
        tagged(machine);
        links(machine).push(wire("eth0", None));
    };
    told_of_host(
        tagged,
        expect![[r#"
        vlan [broken] there is no interface vlan100
          service nova-network restart"#]],
    );
    let down = |machine: &mut Machine| {
        tagged(machine);
        links(machine).push(Wire { up: false, ..wire("vlan100", Some("br100")) });
    };
    told_of_host(
        down,
        expect![[r#"
        vlan [broken] vlan100 is down
          ip link set vlan100 up"#]],
    );
    let well = |machine: &mut Machine| {
        tagged(machine);
        links(machine).push(wire("vlan100", Some("br100")));
    };
    told_of_host(well, expect![""]);
}

#[test]
fn a_vxlan_and_the_hosts_that_it_leads_to_are_looked_at() {
    let host = |last| std::net::Ipv4Addr::new(172, 16, 0, last);
    let vxlan = |machine: &mut Machine| {
        machine.manager = ManagerKind::Vxlan;
        machine.networks[0].vlan = Some(Tag::try_from(70_000_i64).unwrap());
        machine.networks[0].project = Some("moon".parse().unwrap());
        machine.hosts = [host(7), host(8), host(9)].into();
    };
    told_of_host(
        vxlan,
        expect![[r#"
            vlan [broken] no interface has the address 172.16.0.9 that vxlan70000 would come from
              set --my_ip to an address of this host, then: service nova-network restart"#]],
    );
    let addressed = |machine: &mut Machine| {
        vxlan(machine);
        links(machine).push(Wire { addresses: vec!["172.16.0.9/24".parse().unwrap()], ..wire("eth0", None) });
    };
    told_of_host(
        addressed,
        expect![[r#"
            vlan [broken] there is no interface vxlan70000
              service nova-network restart"#]],
    );
    let leads_to = |machine: &mut Machine, hosts: &[u8]| {
        addressed(machine);
        links(machine).push(wire("vxlan70000", Some("br100")));
        machine.peers = [("vxlan70000".to_owned(), Ok(hosts.iter().map(|last| host(*last)).collect()))].into();
    };
    told_of_host(
        |machine| leads_to(machine, &[8, 6]),
        expect![[r#"
            hosts [broken] vxlan70000 does not lead to 172.16.0.7; it leads to 172.16.0.6, which is no host
              service nova-network restart"#]],
    );
    told_of_host(|machine| leads_to(machine, &[7, 8]), expect![""]);
}

#[test]
fn under_flat_manager_the_bridge_is_made_by_hand_and_nothing_else_is_asked() {
    let flat = |machine: &mut Machine, guest: &mut Guest| {
        machine.manager = ManagerKind::Flat;
        machine.dnsmasq.clear();
        machine.forwarding = Ok(false);
        guest.leased = false;
    };
    told(flat, expect![""]);
    let no_bridge = |machine: &mut Machine, guest: &mut Guest| {
        flat(machine, guest);
        links(machine).remove(0);
    };
    told(
        no_bridge,
        expect![[r#"
        bridge [broken] there is no br100, and FlatManager wants it made by hand
          put br100 into /etc/network/interfaces, then: ifup br100"#]],
    );
}

#[test]
fn settings_tables_and_routes_of_the_host_are_looked_at() {
    told(
        |machine, _| machine.bridge_filter = Ok(false),
        expect![[r#"
        br_netfilter [broken] packets between guests of one bridge pass by their groups' rules
          modprobe br_netfilter; sysctl -w net.bridge.bridge-nf-call-iptables=1"#]],
    );
    told(
        |machine, _| machine.forwarding = Ok(false),
        expect![[r#"
        forwarding [broken] this host forwards no packets
          sysctl -w net.ipv4.ip_forward=1, and for the next start a line in /etc/sysctl.conf"#]],
    );
    told(
        |machine, _| assert!(machine.tables.as_mut().unwrap().remove("inet nova_compute")),
        expect![[r#"
        firewall [broken] there is no firewall table inet nova_compute
          service nova-compute restart"#]],
    );
    told(
        |machine, _| assert!(machine.tables.as_mut().unwrap().remove("ip nova_network")),
        expect![[r#"
        nat [broken] there is no firewall table ip nova_network
          service nova-network restart"#]],
    );
    told(
        |machine, _| machine.metadata_rule = Ok(false),
        expect![[r#"
        metadata rule [broken] nothing translates 169.254.169.254:80 to the metadata service
          service nova-network restart"#]],
    );
    told(
        |machine, _| machine.foreign = Ok(vec!["the chain FORWARD of table ip filter".to_owned()]),
        expect![[r#"
        other firewalls [not checked] the chain FORWARD of table ip filter drops what none of its rules accepts; guests may be among it
          iptables -I FORWARD -i br100 -j ACCEPT; iptables -I FORWARD -o br100 -j ACCEPT"#]],
    );
    told(
        |machine, _| machine.default_route = Ok(false),
        expect![[r#"
        default route [broken] this host has no default route, so guests do not reach the world
          ip route add default via ROUTER"#]],
    );
    told(
        |machine, _| machine.metadata.1 = Ok(Some("Connection refused".to_owned())),
        expect![[r#"
        metadata [broken] the metadata service does not answer at 172.16.0.9:8773: Connection refused
          service nova-api restart; if it runs, let --ec2_dmz_host and --ec2_port say where"#]],
    );
    told(
        |_, guest| guest.view.floating_ip = Some("4.4.4.4".parse().unwrap()),
        expect![[r#"
        public address [broken] no interface of this host has 4.4.4.4
          service nova-network restart"#]],
    );
}

#[test]
fn of_the_vlans_that_were_made_those_without_a_project_wait() {
    let waiting = |machine: &mut Machine| {
        machine.manager = ManagerKind::Vlan;
        machine.networks[0].vlan = Some(Tag::try_from(100_i64).unwrap());
        links(machine).clear();
        machine.default_route = Ok(false);
    };
    told_of_host(waiting, expect![""]);
}

#[test]
fn a_bridge_carries_one_network() {
    let crowded = |machine: &mut Machine| {
        let mut second = machine.networks[0].clone();
        second.id = nova_types::NetworkId::new(2);
        second.cidr = "192.168.1.0/24".parse().unwrap();
        machine.networks.push(second);
    };
    told_of_host(
        crowded,
        expect![[r#"
            network [broken] 192.168.1.0/24 is not served: its bridge br100 carries 192.168.0.0/24
              nova-manage network delete 192.168.1.0/24"#]],
    );
}
