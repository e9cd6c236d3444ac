//! VXLANs: what they lead to, how large frames may be in them, and who may speak to them.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::sync::Arc;

use nova_link::carrier::{Carrier, Wiring, remove_unused};
use nova_link::links::{Bridge, KernelLinks, LinkError, Links, Segment};
use nova_link::tunnels::{KernelTunnels, Tunnels, tunnels_contract};
use nova_run::Host;
use nova_types::Tag;
use nova_types::network::ManagerKind;

use super::namespace::{host_pings, in_namespace, sh};

/// This host is .1; the hosts `near` and `far` are .2 and .3, and have the VXLAN of 70000 with 10.70.0.2 and .3 in it.
const HOSTS: &str = r#"
mount -t tmpfs none /run; mkdir -p /run/netns
ip link add lan mtu 1400 type bridge; ip addr add 198.51.100.1/24 dev lan; ip link set lan up; ip link set lo up
number=2
for host in near far; do
  ip netns add $host; ip link add $host mtu 1400 type veth peer name eth0 mtu 1400 netns $host
  ip link set $host master lan up; ip -n $host addr add 198.51.100.$number/24 dev eth0; ip -n $host link set eth0 up
  ip -n $host link add vxlan type vxlan id 70000 local 198.51.100.$number dstport 4789
  ip -n $host addr add 10.70.0.$number/24 dev vxlan; ip -n $host link set vxlan mtu 1350 up
  bridge -n $host fdb append 00:00:00:00:00:00 dev vxlan dst 198.51.100.1
  number=$((number + 1))
done
"#;

fn tunnels() -> KernelTunnels {
    KernelTunnels::new(Arc::new(Host))
}

fn hosts(last: &[u8]) -> BTreeSet<Ipv4Addr> {
    last.iter().map(|last| Ipv4Addr::new(198, 51, 100, *last)).collect()
}

fn carrier() -> Carrier {
    let my_ip = Ipv4Addr::new(198, 51, 100, 1).into();
    let wiring = Wiring { manager: ManagerKind::Vxlan, flat_interface: None, vlan_interface: "eth0", my_ip };
    Carrier::of(wiring, Arc::new(tunnels())).unwrap()
}

async fn pings_inside(last: u8) -> bool {
    // Whom it just asked for in vain it would not ask for again at once.
    sh("ip neigh flush dev br70000").await;
    host_pings(Ipv4Addr::new(10, 70, 0, last)).await
}

/// Makes the network of the VXLAN 70000 on this host; false where the kernel has none.
async fn made(test: &str, carrier: &Carrier) -> bool {
    let address = Some("10.70.0.1/24".parse().unwrap());
    let bridge = Bridge { name: "br70000".into(), address, address6: None, mtu: None };
    match carrier.ensure(&KernelLinks, &bridge, Some(Tag::try_from(70_000).unwrap())).await {
        Err(missing @ LinkError::Unsupported { .. }) => {
            println!("skipped {test}: {missing}");
            false
        }
        changed => {
            assert!(changed.unwrap());
            assert!(!carrier.ensure(&KernelLinks, &bridge, Some(Tag::try_from(70_000).unwrap())).await.unwrap());
            true
        }
    }
}

#[test]
fn tunnels_keep_the_contract() {
    in_namespace("vxlan::tunnels_keep_the_contract", async || {
        sh("ip link add uplink type veth peer name other; ip addr add 10.8.0.5/24 dev uplink; ip link set uplink up")
            .await;
        match tunnels_contract(&KernelLinks, &tunnels()).await {
            Err(missing @ LinkError::Unsupported { .. }) => println!("skipped tunnels_keep_the_contract: {missing}"),
            kept => kept.unwrap(),
        }
    });
}

#[test]
fn a_network_leads_to_the_hosts_that_there_are_and_to_no_others() {
    const NAME: &str = "vxlan::a_network_leads_to_the_hosts_that_there_are_and_to_no_others";
    in_namespace(NAME, async || {
        sh(HOSTS).await;
        let carrier = carrier();
        let mesh = carrier.mesh().unwrap();
        mesh.learn(&KernelLinks, &hosts(&[1, 2])).await.unwrap();
        if !made(NAME, &carrier).await {
            return;
        }
        assert!(pings_inside(2).await && !pings_inside(3).await);
        mesh.learn(&KernelLinks, &hosts(&[1, 2, 3])).await.unwrap();
        assert!(pings_inside(2).await && pings_inside(3).await, "a new host");
        mesh.learn(&KernelLinks, &hosts(&[1, 3])).await.unwrap();
        assert!(!pings_inside(2).await && pings_inside(3).await, "a host that went, although its address was learned");
        let table = sh("bridge fdb show dev vxlan70000").await;
        assert!(!table.contains("198.51.100.2"), "{table}");
        sh("ip netns exec near ping -c1 -W1 198.51.100.1").await;

        let shown = sh("ip link show br70000; ip link show vxlan70000").await;
        assert_eq!(shown.matches("mtu 1350").count(), 2, "{shown}");
        assert_eq!(mesh.mtu().await.unwrap(), 1350);
        sh("ping -c1 -W1 -M do -s 1322 10.70.0.3; ! ping -c1 -W1 -M do -s 1323 10.70.0.3").await;

        let interface =
            |last| Segment::Vxlan { local: Ipv4Addr::new(198, 51, 100, last), vni: Tag::try_from(9).unwrap() };
        sh("ip link add elsewhere type vxlan id 9 dstport 4789").await;
        let taken = KernelLinks.ensure_segment(&interface(1)).await;
        assert!(matches!(taken, Err(LinkError::Taken(_))), "{taken:?}");

        assert!(remove_unused(&KernelLinks, "br70000").await.unwrap());
        let left = sh("ip -br link").await;
        assert!(!left.contains("70000") && left.contains("elsewhere"), "{left}");
    });
}

#[test]
fn only_hosts_speak_to_vxlans_and_guests_do_not_by_way_of_their_router() {
    const NAME: &str = "vxlan::only_hosts_speak_to_vxlans_and_guests_do_not_by_way_of_their_router";
    in_namespace(NAME, async || {
        sh(HOSTS).await;
        let carrier = carrier();
        let mesh = carrier.mesh().unwrap();
        mesh.learn(&KernelLinks, &hosts(&[1, 2, 3])).await.unwrap();
        if !made(NAME, &carrier).await {
            return;
        }
        assert!(pings_inside(2).await);
        // A stranger at .4 with the same VXLAN. Its frames would be heard: the kernel asks nobody where they are from.
        let speaks = "ip netns exec near ping -c2 -W1 10.70.0.1";
        sh("ip -n near addr add 198.51.100.4/24 dev eth0").await;
        let as_stranger = "ip -n near link del vxlan; ip -n near link add vxlan type vxlan id 70000 local 198.51.100.4 dstport 4789 \
            ; ip -n near addr add 10.70.0.2/24 dev vxlan; ip -n near link set vxlan mtu 1350 up \
            ; bridge -n near fdb append 00:00:00:00:00:00 dev vxlan dst 198.51.100.1";
        sh(&format!("{speaks}; {as_stranger}; ! {speaks}")).await;
        tunnels().guard(&hosts(&[2, 3, 4])).await.unwrap();
        sh(speaks).await;

        // A guest of this router, whose packets to other hosts get the router's address.
        sh("ip netns add guest; ip link add guest type veth peer name eth0 netns guest; ip addr add 10.9.0.1/24 dev guest
            ip link set guest up; ip -n guest addr add 10.9.0.2/24 dev eth0; ip -n guest link set eth0 up
            ip -n guest route add default via 10.9.0.1; sysctl -qw net.ipv4.ip_forward=1
            nft add table ip t; nft 'add chain ip t post { type nat hook postrouting priority 100; }'
            nft add rule ip t post ip saddr 10.9.0.0/24 oifname lan snat to 198.51.100.1
            ip netns exec far nft add table ip t; ip netns exec far nft 'add chain ip t in { type filter hook input priority 0; }'
            ip netns exec far nft add rule ip t in udp dport 4789 counter
            ip netns exec far nft add rule ip t in udp dport 4790 counter")
        .await;
        let counted = "ip netns exec far nft list chain ip t in | grep";
        let sends = |port: u16, to: &str| format!("ip netns exec guest bash -c 'echo x >/dev/udp/{to}/{port}'");
        sh(&format!("{}; {}; sleep 0.2", sends(4789, "198.51.100.3"), sends(4790, "198.51.100.3"))).await;
        sh(&format!("{counted} 'dport 4790 counter packets 1'; {counted} 'dport 4789 counter packets 0'")).await;
        // And not to its own.
        sh("nft insert rule inet nova_vxlan input udp dport 4789 ip saddr 10.9.0.2 counter").await;
        sh("nft add rule inet nova_vxlan input udp dport 4789 ip saddr 10.9.0.2 counter").await;
        sh(&format!("{}; sleep 0.2", sends(4789, "198.51.100.1"))).await;
        let counted = sh("nft list chain inet nova_vxlan input").await;
        assert_eq!(counted.matches("packets 1").count(), 1, "{counted}");
        assert_eq!(counted.matches("packets 0").count(), 1, "{counted}");
    });
}
