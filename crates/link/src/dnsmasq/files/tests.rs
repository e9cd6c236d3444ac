//! What dnsmasq's files hold.

use std::net::Ipv4Addr;
use std::time::Duration;

use expect_test::expect;
use nova_types::{InstanceId, Mac};

use super::*;

fn network() -> DhcpNetwork {
    DhcpNetwork {
        bridge: "br100".into(),
        for_guests: false,
        gateway: Ipv4Addr::new(10, 0, 0, 1),
        cidr: "10.0.0.0/24".parse().unwrap(),
        prefix6: None,
        first: Ipv4Addr::new(10, 0, 0, 2),
        domain: "novalocal".into(),
        lease: Duration::from_secs(120),
        mtu: None,
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
    files.map(|name| format!("{name}: {}", fs::read_to_string(hosts.join(&name)).unwrap())).collect()
}

#[test]
fn each_host_is_a_file() {
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
    "#]]
    .assert_eq(&tree(&path));
}

#[test]
fn a_change_touches_the_files_it_names_and_no_other_however_many_there_are() {
    let folder = tempfile::tempdir().unwrap();
    let mut written = Written::new();
    let hosts: Vec<DhcpHost> = (2..=254).map(|number| host(number, "a", true)).collect();
    write_hosts(folder.path(), &network(), &hosts, &mut written).unwrap();
    // What somebody else did to other files is not looked at, and mended by the next comparison of all.
    let path = hosts_path(folder.path(), "br100");
    fs::remove_file(path.join("i-00000009")).unwrap();
    fs::write(path.join("stranger"), "").unwrap();
    let mut change = |set: &[DhcpHost], gone: &[u32]| {
        let gone = gone.iter().map(|id| InstanceId::new(*id)).collect();
        let change = DhcpChange { set: set.to_vec(), gone };
        change_hosts(folder.path(), &network(), &change, &mut written, &mut BTreeSet::new()).unwrap()
    };
    assert_eq!(change(&[host(255, "new", false)], &[]), HostsChange { files: 1, tell: false });
    assert_eq!(change(&[host(3, "a", false)], &[]), HostsChange { files: 0, tell: false }, "a lease is no host's");
    assert_eq!(change(&[host(3, "b", false)], &[]), HostsChange { files: 1, tell: true });
    assert_eq!(change(&[], &[4, 1000]), HostsChange { files: 1, tell: false });
    assert_eq!(change(&[], &[]), HostsChange::default());
    let found = names(&path).unwrap();
    let is_there =
        ["i-00000003", "i-00000004", "i-00000009", "i-000000ff", "stranger"].map(|name| found.contains(name));
    assert_eq!(is_there, [true, false, false, true, true]);
    let mut hosts: Vec<DhcpHost> = hosts.into_iter().filter(|host| host.instance != InstanceId::new(4)).collect();
    hosts[1].hostname = "b".into();
    hosts.push(host(255, "new", false));
    let mended = write_hosts(folder.path(), &network(), &hosts, &mut written).unwrap();
    assert_eq!(mended, HostsChange { files: 2, tell: true });
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
fn dnsmasq_is_told_of_who_went_before_another_has_the_address() {
    let folder = tempfile::tempdir().unwrap();
    let (mut written, mut stale) = (Written::new(), BTreeSet::new());
    write_hosts(folder.path(), &network(), &[host(3, "a", true), host(4, "b", true)], &mut written).unwrap();
    let heir = DhcpHost { address: Ipv4Addr::new(10, 0, 0, 3), ..host(5, "c", false) };
    for (set, gone, files, tell) in [
        (vec![], vec![3], 1, false),
        (vec![host(6, "d", false)], vec![], 1, false),
        (vec![heir.clone()], vec![], 1, true),
        // At once.
        (vec![DhcpHost { address: Ipv4Addr::new(10, 0, 0, 4), ..host(7, "e", false) }], vec![4], 2, true),
    ] {
        let change = DhcpChange { set, gone: gone.into_iter().map(InstanceId::new).collect() };
        let done = change_hosts(folder.path(), &network(), &change, &mut written, &mut stale).unwrap();
        assert_eq!(done, HostsChange { files, tell }, "{change:?}");
    }
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
