//! What dnsmasq's files hold.

use std::net::Ipv4Addr;
use std::time::Duration;

use expect_test::expect;
use nova_types::{InstanceId, Mac};

use super::*;

fn network() -> DhcpNetwork {
    DhcpNetwork {
        bridge: "br100".into(),
        gateway: Ipv4Addr::new(10, 0, 0, 1),
        cidr: "10.0.0.0/24".parse().unwrap(),
        prefix6: None,
        first: Ipv4Addr::new(10, 0, 0, 2),
        domain: "novalocal".into(),
        lease: Duration::from_secs(120),
        name_server: None,
        script: "/usr/bin/nova-dhcpbridge".into(),
        flag_file: None,
    }
}

fn host(number: u8, hostname: &str, leased: bool) -> DhcpHost {
    DhcpHost {
        instance: InstanceId::new(number.into()),
        mac: Mac::of_guest([0, 0, number]),
        address: Ipv4Addr::new(10, 0, 0, number),
        hostname: hostname.into(),
        leased,
        updated_at: std::time::SystemTime::UNIX_EPOCH.into(),
    }
}

fn tree(folder: &Path) -> String {
    let hosts = hosts_path(folder, "br100");
    let files = names(&hosts).unwrap().into_iter();
    let mut text: String =
        files.map(|name| format!("{name}: {}", fs::read_to_string(hosts.join(&name)).unwrap())).collect();
    text.push_str(&fs::read_to_string(leases_path(folder, "br100")).unwrap());
    text
}

#[test]
fn each_host_is_a_file_and_those_that_asked_are_leases() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("networks");
    let hosts = [host(3, "i-00000003", true), host(4, "web\n1", false)];
    assert_eq!(
        write_hosts(&path, &network(), &hosts, &mut Written::new()).unwrap(),
        HostsChange { files: 2, tell: false }
    );
    // A name that is not plain gives way to the id: nothing that a user chose gets between the commas.
    expect![[r#"
        i-00000003: 02:16:3e:00:00:03,i-00000003.novalocal,10.0.0.3
        i-00000004: 02:16:3e:00:00:04,i-00000004.novalocal,10.0.0.4
        120 02:16:3e:00:00:03 10.0.0.3 i-00000003 *
    "#]]
    .assert_eq(&tree(&path));
}

#[test]
fn dnsmasq_is_told_of_what_changed_or_went_and_not_of_what_is_new() {
    let folder = tempfile::tempdir().unwrap();
    let mut written = Written::new();
    let mut change = |hosts: &[DhcpHost]| write_hosts(folder.path(), &network(), hosts, &mut written).unwrap();
    assert_eq!(change(&[host(3, "a", true)]), HostsChange { files: 1, tell: false });
    assert_eq!(change(&[host(3, "a", true)]), HostsChange { files: 0, tell: false });
    assert_eq!(change(&[host(3, "b", true)]), HostsChange { files: 1, tell: true });
    assert_eq!(change(&[host(4, "b", true)]), HostsChange { files: 2, tell: true });
    fs::write(hosts_path(folder.path(), "br100").join(".i-00000009.new"), "half of it").unwrap();
    assert_eq!(change(&[host(4, "b", true)]), HostsChange { files: 1, tell: false });
}

#[test]
fn after_a_restart_of_ours_files_are_compared_by_what_they_hold() {
    let folder = tempfile::tempdir().unwrap();
    let change = |hosts: &[DhcpHost]| write_hosts(folder.path(), &network(), hosts, &mut Written::new()).unwrap();
    change(&[host(3, "a", true), host(4, "b", true)]);
    assert_eq!(change(&[host(3, "a", true), host(4, "b", true)]), HostsChange { files: 0, tell: false });
    fs::write(hosts_path(folder.path(), "br100").join("i-00000003"), "something else").unwrap();
    assert_eq!(change(&[host(3, "a", true), host(4, "b", true)]), HostsChange { files: 1, tell: true });
}

#[test]
fn a_servers_files_name_its_bridge_and_go_with_it() {
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(bridges(&folder.path().join("none")).unwrap(), Vec::<String>::new());
    write_hosts(folder.path(), &network(), &[host(3, "a", true)], &mut Written::new()).unwrap();
    fs::write(folder.path().join("nova-br7.pid"), "1").unwrap();
    fs::write(folder.path().join("something-else"), "").unwrap();
    assert_eq!(bridges(folder.path()).unwrap(), ["br100", "br7"]);
    remove_all(folder.path(), "br100").unwrap();
    assert_eq!(bridges(folder.path()).unwrap(), ["br7"]);
}
