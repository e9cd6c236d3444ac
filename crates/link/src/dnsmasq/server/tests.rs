//! When a dnsmasq is started, kept, replaced and stopped.

use std::net::Ipv4Addr;

use expect_test::expect;
use nova_run::fake::Script;
use nova_types::InstanceId;

use super::*;

fn network() -> DhcpNetwork {
    DhcpNetwork {
        bridge: "br100".into(),
        for_guests: false,
        gateway: Ipv4Addr::new(192, 168, 0, 1),
        cidr: "192.168.0.0/24".parse().unwrap(),
        prefix6: None,
        first: Ipv4Addr::new(192, 168, 0, 2),
        domain: "novalocal".into(),
        lease: Duration::from_secs(120),
        mtu: None,
        name_server: Some(Ipv4Addr::new(9, 9, 9, 9)),
        script: "/usr/bin/nova-dhcpbridge".into(),
        flag_file: Some("/etc/nova/nova.conf".into()),
    }
}

fn host(number: u8) -> DhcpHost {
    DhcpHost {
        instance: InstanceId::new(number.into()),
        mac: nova_types::Mac::of_guest([0, 0, number]),
        address: Ipv4Addr::new(192, 168, 0, number),
        hostname: format!("h{number}"),
        leased: true,
        updated_at: std::time::SystemTime::UNIX_EPOCH.into(),
    }
}

#[test]
fn the_arguments_are_those_of_the_first_nova_and_what_it_lacked() {
    let folder = tempfile::tempdir().unwrap();
    let arguments = arguments(folder.path(), &network()).unwrap().join("\n");
    expect![[r#"
        --strict-order
        --bind-interfaces
        --conf-file=
        --domain=novalocal
        --pid-file=FOLDER/nova-br100.pid
        --listen-address=192.168.0.1
        --except-interface=lo
        --dhcp-range=192.168.0.2,static,255.255.255.0,120s
        --dhcp-lease-max=256
        --dhcp-hostsdir=FOLDER/nova-br100.hosts
        --dhcp-script=/usr/bin/nova-dhcpbridge
        --leasefile-ro
        --no-hosts
        --local=/novalocal/
        --no-resolv
        --server=9.9.9.9"#]]
    .assert_eq(&arguments.replace(&folder.path().canonicalize().unwrap().display().to_string(), "FOLDER"));
}

#[test]
fn guests_are_told_an_mtu_that_is_not_ethernets() {
    let folder = tempfile::tempdir().unwrap();
    let told = |mtu| {
        let arguments = arguments(folder.path(), &DhcpNetwork { mtu, ..network() }).unwrap();
        arguments.into_iter().filter(|argument| argument.contains("mtu")).collect::<Vec<_>>()
    };
    assert!(told(None).is_empty());
    assert_eq!(told(Some(1450)), ["--dhcp-option=option:mtu,1450"]);
}

#[test]
fn only_on_a_bridge_for_guests_alone_the_whole_bridge_is_the_servers() {
    let folder = tempfile::tempdir().unwrap();
    let has_bridge = |for_guests| {
        let arguments = arguments(folder.path(), &DhcpNetwork { for_guests, ..network() }).unwrap();
        arguments.contains(&"--interface=br100".to_owned())
    };
    assert!(has_bridge(true) && !has_bridge(false));
}

#[test]
fn no_word_can_become_an_option_a_line_or_a_command() {
    let folder = tempfile::tempdir().unwrap();
    let refused = |change: fn(&mut DhcpNetwork)| {
        let mut network = network();
        change(&mut network);
        arguments(folder.path(), &network).is_err()
    };
    assert!(!refused(|_| ()));
    assert!(refused(|network| network.bridge = "../br".into()));
    assert!(refused(|network| network.domain = "nova,local".into()));
    assert!(refused(|network| network.script = "/bin/x; rm -rf /".into()));
    assert!(refused(|network| network.script = "dhcpbridge".into()));
}

#[tokio::test]
async fn a_server_that_says_why_it_cannot_start_is_quoted() {
    let folder = tempfile::tempdir().unwrap();
    let script = Script::new().fails("dnsmasq", 2, "dnsmasq: failed to create listening socket: Address in use\n");
    let servers = Dnsmasq::new(Arc::new(script), folder.path());
    let error = servers.ensure(&network()).await.unwrap_err();
    let source = std::error::Error::source(&error).unwrap().to_string();
    assert!(source.ends_with("status 2: dnsmasq: failed to create listening socket: Address in use"), "{source}");
    // One that claims to have started and is not there is not believed.
    let servers = Dnsmasq::new(Arc::new(Script::new().prints("dnsmasq", "")), folder.path());
    assert!(matches!(servers.ensure(&network()).await, Err(DhcpError::Gone(bridge)) if bridge == "br100"));
}

#[tokio::test]
async fn a_server_is_found_where_its_folder_is_behind_a_link() {
    let real = tempfile::tempdir().unwrap();
    let link = real.path().join("link");
    std::os::unix::fs::symlink(real.path(), &link).unwrap();
    let script = Script::new().prints("dnsmasq", "");
    let servers = Dnsmasq::new(Arc::new(script.clone()), &link);
    let process = script.detach(Command::new("dnsmasq").args(arguments(&link, &network()).unwrap())).await.unwrap();
    fs::write(pid_path(real.path(), "br100"), process.pid.to_string()).unwrap();
    assert_eq!(servers.ensure(&network()).await.unwrap(), Server::Running);
}

#[tokio::test]
async fn hosts_that_could_be_written_only_in_part_are_told_of_once_they_can_be() {
    let folder = tempfile::tempdir().unwrap();
    let servers = Dnsmasq::new(Arc::new(Script::new()), folder.path());
    let due = async || servers.known.lock().await["br100"].due;
    servers.set_hosts(&network(), &[host(3), host(4)]).await.unwrap();
    assert!(!due().await);
    let leases = crate::dnsmasq::leases_path(folder.path(), "br100");
    fs::remove_file(&leases).unwrap();
    fs::create_dir(&leases).unwrap();
    servers.set_hosts(&network(), &[host(4)]).await.unwrap_err();
    assert!(due().await, "one that is gone was removed, and nobody was told");
}

#[tokio::test]
async fn a_server_hears_of_who_is_gone_now_and_then_and_of_a_passed_on_address_soon() {
    let folder = tempfile::tempdir().unwrap();
    let script = Script::new().prints("dnsmasq", "");
    let servers = Dnsmasq::new(Arc::new(script.clone()), folder.path());
    let arguments = arguments(folder.path(), &network()).unwrap();
    let process = script.detach(Command::new("dnsmasq").args(arguments)).await.unwrap();
    fs::write(pid_path(folder.path(), "br100"), process.pid.to_string()).unwrap();
    let told = || script.signals().len();
    let change = async |set: Vec<DhcpHost>, gone: &[u32]| {
        let gone = gone.iter().map(|id| InstanceId::new(*id)).collect();
        servers.change_hosts(&network(), &DhcpChange { set, gone }).await.unwrap();
    };
    let rest = async |seconds| {
        let told = Instant::now().checked_sub(Duration::from_secs(seconds));
        servers.known.lock().await.get_mut("br100").unwrap().told = told;
    };
    servers.set_hosts(&network(), &[host(3), host(4), host(5)]).await.unwrap();
    assert_eq!(told(), 1, "what was written before is not known");
    rest(2).await;
    change(vec![host(6)], &[]).await;
    change(vec![], &[3]).await;
    assert_eq!(told(), 1, "neither who is new nor, at once, who is gone");
    change(vec![DhcpHost { address: host(3).address, ..host(7) }], &[]).await;
    assert_eq!(told(), 2, "the address of one that is gone");
    change(vec![], &[4]).await;
    rest(9).await;
    change(vec![], &[]).await;
    assert_eq!(told(), 2);
    rest(10).await;
    change(vec![], &[]).await;
    assert_eq!(told(), 3);
    rest(10).await;
    change(vec![], &[]).await;
    assert_eq!(told(), 3, "once is enough");
}

#[tokio::test]
async fn the_fake_keeps_the_contract() {
    crate::dnsmasq::dhcp_servers_contract(&crate::dnsmasq::FakeDhcpServers::default(), network()).await;
}
