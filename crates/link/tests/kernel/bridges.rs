//! Bridges of ours: what they are like, and that they are known as ours from the moment they are there.

use nova_link::links::{Bridge, KernelLinks, Links};

use crate::bridge;
use crate::namespace::{in_namespace, sh};

#[test]
fn a_bridge_of_ours_is_quiet_and_keeps_its_hardware_address() {
    in_namespace("a_bridge_of_ours_is_quiet_and_keeps_its_hardware_address", async || {
        bridge().await;
        let shown = sh("ip -d link show br9; cat /proc/sys/net/ipv6/conf/br9/disable_ipv6").await;
        for part in ["forward_delay 0 ", "stp_state 0 ", "link/ether 06:6e:0a:09:00:01 ", "alias nova\n1"] {
            assert!(shown.replace("    ", "").contains(part), "{part} in {shown}");
        }
        sh("ip link add port type veth peer name other; ip link set port address 00:00:00:00:00:05 master br9 up")
            .await;
        assert!(sh("ip link show br9").await.contains("06:6e:0a:09:00:01"));
    });
}

#[test]
fn a_bridge_that_was_made_by_a_process_that_died_at_once_is_ours() {
    in_namespace("a_bridge_that_was_made_by_a_process_that_died_at_once_is_ours", async || {
        let bridge = |name: &str| Bridge { name: name.to_owned(), address: None, address6: None, mtu: None };
        KernelLinks.ensure_bridge(&bridge("br8")).await.unwrap();
        let shown = sh("cat /sys/class/net/br8/netdev_group").await;
        let group = shown.trim();
        assert_eq!(group, u32::from_be_bytes(*b"nova").to_string());
        // As it is between making and marking.
        sh(&format!("ip link add br9 group {group} type bridge; ip link add br10 type bridge")).await;
        let ours = async |name: &str| KernelLinks.list().await.unwrap().into_iter().any(|l| l.name == name && l.ours);
        assert!(ours("br9").await && !ours("br10").await);
        for name in ["br9", "br10"] {
            KernelLinks.ensure_bridge(&bridge(name)).await.unwrap();
        }
        assert!(sh("ip link show br9").await.contains("alias nova"), "what was missing is made good");
        assert!(!sh("ip link show br10").await.contains("alias"), "somebody else's stays his");
        assert!(KernelLinks.delete_bridge("br9").await.unwrap() && !KernelLinks.delete_bridge("br10").await.unwrap());
    });
}
