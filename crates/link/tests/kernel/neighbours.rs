//! Who else has an address, asked of a real kernel across a wire.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use nova_link::links::{Bridge, KernelLinks, Links};
use nova_link::neighbours::{KernelNeighbours, NeighbourError, Neighbours};

use crate::namespace::{in_namespace, sh};

const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 1);
/// Another host, whose bridge has a wire to `eth1` here.
const FAR: &str = "mount -t tmpfs none /run; mkdir -p /run/netns; ip netns add far
    ip link add eth1 type veth peer name eth1 netns far; ip link set eth1 up
    ip -n far link add br9 type bridge; ip -n far link set eth1 master br9 up; ip -n far link set br9 up
    ip -n far link set br9 address 06:6e:0a:09:00:01; ip -n far addr add 10.9.0.1/24 dev br9
    until ip -n far link show br9 | grep -q 'state UP'; do sleep 0.05; done";

fn bare() -> Bridge {
    Bridge { name: "br9".to_owned(), address: None, address6: None, mtu: None }
}

async fn asked(uplink: Option<&str>) -> Result<Option<String>, NeighbourError> {
    let answer = KernelNeighbours.who_has("br9", uplink, GATEWAY).await?;
    Ok(answer.map(|mac| mac.to_string()))
}

#[test]
fn whoever_has_an_address_answers_and_silence_takes_a_second() {
    in_namespace("neighbours::whoever_has_an_address_answers_and_silence_takes_a_second", async || {
        sh(FAR).await;
        KernelLinks.ensure_bridge(&bare()).await.unwrap();
        KernelLinks.attach("eth1", "br9").await.unwrap();
        assert_eq!(asked(Some("eth1")).await.unwrap().as_deref(), Some("06:6e:0a:09:00:01"));
        let known = sh("ip -n far neigh show dev br9").await;
        assert!(!known.contains("10.9."), "whoever asks does not pretend to have an address: {known}");
        sh("ip -n far addr del 10.9.0.1/24 dev br9").await;
        let begun = Instant::now();
        assert_eq!(asked(Some("eth1")).await.unwrap(), None);
        assert!(begun.elapsed() >= Duration::from_secs(1), "{:?}", begun.elapsed());
    });
}

#[test]
fn a_wire_that_is_cut_answers_nothing_that_could_be_believed() {
    in_namespace("neighbours::a_wire_that_is_cut_answers_nothing_that_could_be_believed", async || {
        sh(FAR).await;
        KernelLinks.ensure_bridge(&bare()).await.unwrap();
        KernelLinks.attach("eth1", "br9").await.unwrap();
        sh("ip link add tap1 type veth peer name guest; ip link set tap1 master br9 up; ip link set guest up").await;
        for cut in
            ["ip -n far link set eth1 down", "ip -n far link set eth1 up; ip link set eth1 down", "ip link del eth1"]
        {
            sh(cut).await;
            let answer = asked(Some("eth1")).await;
            assert!(matches!(&answer, Err(NeighbourError::Unplugged(port)) if port == "eth1"), "{cut}: {answer:?}");
        }
        assert_eq!(asked(None).await.unwrap(), None, "of a bridge that leads nowhere all are asked");
        sh("ip link set br9 down").await;
        assert!(asked(None).await.is_err());
    });
}

#[test]
fn a_gateway_that_moves_takes_its_hardware_address_along() {
    in_namespace("neighbours::a_gateway_that_moves_takes_its_hardware_address_along", async || {
        sh(FAR).await;
        let bridge = Bridge { address: Some("10.9.0.1/24".parse().unwrap()), ..bare() };
        sh("ip -n far addr del 10.9.0.1/24 dev br9; ip -n far link set br9 address 06:6f:00:00:00:07").await;
        KernelLinks.ensure_bridge(&bridge).await.unwrap();
        KernelLinks.attach("eth1", "br9").await.unwrap();
        sh("ip -n far addr add 10.9.0.5/24 dev br9; ip netns exec far ping -c 1 -W 2 10.9.0.1").await;

        // It moves to the far host, which says so; the near one gives it up, and its own guests reach the far one.
        sh("ip -n far link set br9 address 06:6e:0a:09:00:01; ip -n far addr add 10.9.0.1/24 dev br9").await;
        KernelLinks.remove_address("br9", GATEWAY).await.unwrap();
        let shown = sh("ip link show br9").await;
        assert!(shown.contains("link/ether 06:6f:"), "{shown}");
        assert_eq!(asked(Some("eth1")).await.unwrap().as_deref(), Some("06:6e:0a:09:00:01"));
        sh("ip addr add 10.9.0.6/24 dev br9; ping -c 1 -W 2 10.9.0.1").await;
        KernelNeighbours.announce("br9", Ipv4Addr::new(10, 9, 0, 6)).await.unwrap();
    });
}
