//! What the doctor sees of a machine, from one that is not there.

use std::fs;
use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use nova_config::ClientKeys;
use nova_link::carrier::Carrier;
use nova_link::dnsmasq::pid_path;
use nova_link::links::FakeLinks;
use nova_link::neighbours::{FakeNeighbours, NeighbourError, Neighbours};
use nova_run::fake::Script;
use nova_types::network::Network;
use nova_types::{Mac, NetworkId};
use tokio::sync::Barrier;

use super::{Eyes, answers, foreign, has_default_route};

fn eyes(script: Script, proc: &Path) -> Eyes {
    let links = FakeLinks::default();
    links.plug("br100", vec!["10.0.0.1/24".parse().unwrap()]);
    let links = Arc::new(links);
    let (tunnels, keys) = (Arc::<FakeLinks>::clone(&links), ClientKeys::default());
    let neighbours = Arc::new(FakeNeighbours::default());
    Eyes { links, tunnels, neighbours, runner: Arc::new(script), proc: proc.to_owned(), keys }
}

fn process(proc: &Path, pid: u32, arguments: &[&str]) {
    let folder = proc.join(pid.to_string());
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("cmdline"), arguments.join("\0")).unwrap();
}

#[test]
fn the_processes_of_one_bridge_are_counted() {
    let (proc, networks) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let eyes = eyes(Script::new(), proc.path());
    let folder = fs::canonicalize(networks.path()).unwrap();
    let argument = |bridge: &str| format!("--pid-file={}", pid_path(&folder, bridge).display());
    let hidden = eyes.dnsmasq(networks.path(), "br100");
    assert!(hidden.as_ref().is_err_and(|why| why.starts_with("processes cannot be counted")), "{hidden:?}");
    process(proc.path(), 1, &["init"]);
    assert_eq!(eyes.dnsmasq(networks.path(), "br100"), Ok(0));
    process(proc.path(), 7, &["dnsmasq", &argument("br100"), ""]);
    process(proc.path(), 8, &["dnsmasq", "--bind-interfaces", &argument("br100")]);
    process(proc.path(), 9, &["dnsmasq", &argument("br101")]);
    process(proc.path(), 10, &["grep", "dnsmasq"]);
    assert_eq!((eyes.dnsmasq(networks.path(), "br100"), eyes.dnsmasq(networks.path(), "br101")), (Ok(2), Ok(1)));
    assert_eq!(eyes.dnsmasq(Path::new("/nowhere/at/all"), "br100"), Ok(0));
}

#[test]
fn a_setting_that_is_not_there_is_off() {
    let proc = tempfile::tempdir().unwrap();
    let eyes = eyes(Script::new(), proc.path());
    assert_eq!(eyes.setting("ip_forward"), Ok(false));
    for (text, on) in [("1\n", true), ("0\n", false)] {
        fs::write(proc.path().join("ip_forward"), text).unwrap();
        assert_eq!(eyes.setting("ip_forward"), Ok(on));
    }
    fs::create_dir(proc.path().join("folder")).unwrap();
    assert!(eyes.setting("folder").is_err());
}

#[tokio::test]
async fn tables_are_searched_only_where_they_are() {
    let proc = tempfile::tempdir().unwrap();
    let text = "table ip nova_network {\n\tip daddr 169.254.169.254 tcp dport 80 dnat to 172.16.0.9:8773\n}\n";
    let script = Script::new()
        .prints("nft list tables", "table ip nova_network\ntable inet filter\n")
        .prints("nft list table ip nova_network", text);
    let there = eyes(script, proc.path());
    let tables = there.tables().await;
    assert_eq!(tables, Ok(["ip nova_network".to_owned(), "inet filter".to_owned()].into()));
    assert_eq!(there.mentions(&tables, "ip nova_network", "169.254.169.254").await, Ok(true));
    assert_eq!(there.mentions(&tables, "ip nova_network", "tap0000000a").await, Ok(false));
    assert_eq!(there.mentions(&tables, "bridge nova_compute", "tap0000000a").await, Ok(false));
    let absent = eyes(Script::new(), proc.path());
    let tables = absent.tables().await;
    assert!(tables.as_ref().is_err_and(|why| why.contains("nft is not installed")), "{tables:?}");
    assert_eq!(absent.mentions(&tables, "ip nova_network", "x").await, tables.map(|_| true));
    assert_eq!(absent.links().await.unwrap()[0].name, "br100");
}

#[test]
fn routes_and_chains_are_read_as_the_kernel_writes_them() {
    let heading = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n";
    let own = "eth0\t000010AC\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0\n";
    let default = "eth0\t00000000\t010010AC\t0003\t0\t0\t0\t00000000\t0\t0\t0\n";
    assert!(has_default_route(&format!("{heading}{own}{default}")));
    assert!(!has_default_route(&format!("{heading}{own}")) && !has_default_route(""));
    let chains = "table ip filter {\n\tchain FORWARD {\n\t\ttype filter hook forward priority filter; policy drop;\n\t}\n}\n\
        table inet nova_compute {\n\tchain forward {\n\t\ttype filter hook forward priority filter; policy drop;\n\t}\n}\n\
        table inet x {\n\tchain y {\n\t\ttype filter hook forward priority filter; policy accept;\n\t}\n}\n";
    assert_eq!(foreign(chains), ["the chain FORWARD of table ip filter"]);
}

#[tokio::test]
async fn a_metadata_service_answers_in_http_or_not_at_all() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    for (answer, wanted) in
        [("HTTP/1.1 200 OK\r\n\r\n", Ok(())), ("SSH-2.0\r\n", Err("what answers there does not speak HTTP".to_owned()))]
    {
        let server = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = server.local_addr().unwrap().port();
        let serve = async {
            let (mut stream, _) = server.accept().await.unwrap();
            let mut request = [0; 1024];
            let _ = stream.read(&mut request).await.unwrap();
            stream.write_all(answer.as_bytes()).await.unwrap();
        };
        assert_eq!(tokio::join!(answers("127.0.0.1", port), serve).0, wanted);
        drop(server);
        assert!(answers("127.0.0.1", port).await.unwrap_err().contains("refused"));
    }
}

/// Answers only when all were asked.
#[derive(Debug)]
struct Waiting(Barrier);

#[async_trait]
impl Neighbours for Waiting {
    async fn who_has(&self, _: &str, _: Option<&str>, address: Ipv4Addr) -> Result<Option<Mac>, NeighbourError> {
        self.0.wait().await;
        Ok((address.octets()[3] == 1).then(|| Mac::from([6, 0x6e, 10, 0, 0, 1])))
    }

    async fn announce(&self, _: &str, _: Ipv4Addr) -> Result<(), NeighbourError> {
        Ok(())
    }
}

fn network(number: u8) -> Network {
    Network {
        id: NetworkId::new(number.into()),
        label: None,
        cidr: "10.0.0.0/24".parse().unwrap(),
        prefix6: None,
        router6: None,
        bridge: format!("br{number}"),
        gateway: Ipv4Addr::new(10, 0, 0, number),
        dhcp_start: Ipv4Addr::new(10, 0, 0, 2),
        dns: None,
        vlan: None,
        vpn_private_address: None,
        vpn_public_address: None,
        vpn_public_port: None,
        project: None,
        host: None,
        multi_host: false,
        vpn_host: None,
        epoch: 0,
    }
}

#[tokio::test]
async fn the_gateways_of_several_networks_are_asked_for_at_once() {
    let proc = tempfile::tempdir().unwrap();
    let neighbours = Arc::new(Waiting(Barrier::new(2)));
    let eyes = Eyes { neighbours, ..eyes(Script::new(), proc.path()) };
    let (carrier, networks) = (Carrier::Port(None), vec![network(1), network(2)]);
    let asked = tokio::time::timeout(Duration::from_secs(30), eyes.gateways(&carrier, networks)).await;
    let told: Vec<_> = asked.unwrap().into_iter().map(|(network, answer)| (network.bridge, answer)).collect();
    let first = Mac::from([6, 0x6e, 10, 0, 0, 1]);
    assert_eq!(told, [("br1".to_owned(), Ok(Some(first))), ("br2".to_owned(), Ok(None))]);
}
