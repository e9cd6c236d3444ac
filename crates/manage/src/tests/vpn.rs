//! The VPN of a project, from the command to the rows that the scheduler finds.

use std::os::unix::fs::PermissionsExt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use expect_test::expect;
use nova_db::security_groups::{self, GroupRef};
use nova_db::{Db, check, fixed_ips, instances, key_pairs, transaction};
use nova_types::{InstanceId, ProjectId};

use super::{Done, Lab};

const MANAGER: &str = "--network_manager=nova.network.manager.VxlanManager";
const IMAGE: &str = "--vpn_image_id=ami-00000001";

fn moon() -> ProjectId {
    nova_db::dev::fixtures::name("moon")
}

/// A cloud with one network, a project and an image.
async fn cloud(lab: &Lab) -> Db {
    let image = lab.path().join("vpn.img");
    std::fs::write(&image, [7; 4096]).unwrap();
    assert_eq!(lab.run_with(&[MANAGER], "network create 10.0.0.0/28 1 16").await.code, Ok(0));
    lab.ok("user admin anne access secret").await;
    lab.ok("project create moon anne").await;
    assert_eq!(lab.ok(&format!("image register {} --public", image.display())).await, "ami-00000001\n");
    let url = lab.config(&[]).database.sql_connection;
    Db::open(url.expose(), &nova_db::Options::default()).await.unwrap()
}

async fn run(lab: &Lab) -> Done {
    lab.run_with(&[MANAGER, IMAGE], "vpn run moon").await
}

/// Every instance with its address.
async fn held(db: &Db) -> Vec<(InstanceId, String)> {
    let all = fixed_ips::list(&mut db.read().await.unwrap(), None).await.unwrap();
    all.into_iter().filter_map(|ip| Some((ip.holder?.instance, ip.address.to_string()))).collect()
}

#[tokio::test]
async fn a_vpn_is_an_instance_at_the_address_kept_for_it() {
    let lab = Lab::new();
    let db = cloud(&lab).await;
    let done = run(&lab).await;
    assert_eq!((done.code, done.out.as_str()), (Ok(0), "i-00000001\n"), "{}", done.note);
    expect![[r#"
        Wrote the private key of moon-vpn to STATE/keys/anne/moon-vpn.pem.
        i-00000001 becomes the VPN of moon at 10.0.0.2.
    "#]]
    .assert_eq(&done.note);
    let mode = |path: &str| std::fs::metadata(lab.path().join(path)).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode("keys/anne/moon-vpn.pem"), mode("keys/anne")), (0o600, 0o700));

    let mut conn = db.read().await.unwrap();
    let due = instances::due_scheduler(&mut conn, 9).await.unwrap().remove(0);
    assert!(due.has_address);
    let vpn = due.instance;
    let pair = key_pairs::get(&mut conn, &vpn.user, &"moon-vpn".parse().unwrap()).await.unwrap().unwrap();
    assert_eq!(vpn.key, Some((pair.name, pair.public_key)));
    assert_eq!(
        (vpn.user.as_str(), vpn.project.as_str(), &*vpn.image.to_string(), &*vpn.flavor),
        ("anne", "moon", "ami-00000001", "m1.tiny")
    );
    let zip = STANDARD.decode(vpn.user_data.unwrap()).unwrap();
    let text = String::from_utf8_lossy(&zip);
    assert!(text.starts_with("PK"));
    for name in ["autorun.sh", "crl.pem", "server.key", "ca.crt", "server.crt"] {
        assert!(text.contains(name), "{name}");
    }
    let certificate = std::fs::read_to_string(lab.path().join("CA/newcerts/10.pem")).unwrap();
    assert!(certificate.contains("CN=project-vpn-moon-2011-02-03T04:05:06Z"), "{certificate}");
    drop(conn);
    rules(&db).await;
    assert_eq!(held(&db).await, [(InstanceId::new(1), "10.0.0.2".to_owned())]);
    assert_eq!(check::run(&mut db.read().await.unwrap(), 600).await.unwrap(), []);
    let listed = lab.ok("vpn list moon").await;
    expect![[r#"
        project     	ip:port             	private_ip          	state	instance
        moon        	None:1000           	10.0.0.2            	down	i-00000001
    "#]]
    .assert_eq(&listed);
}

/// The group lets in what a VPN needs and nothing else.
async fn rules(db: &Db) {
    let name = GroupRef::Name("moon-vpn".parse().unwrap());
    let group = security_groups::get(&mut db.read().await.unwrap(), &moon(), &name).await.unwrap().unwrap();
    assert_eq!(group.description, "Group for vpn");
    let rules: Vec<String> = group.rules.iter().map(|granted| format!("{:?}", granted.rule)).collect();
    assert_eq!(rules.len(), 2, "{rules:?}");
    assert!(rules[0].contains("Udp(Ports { from: 1194, to: 1194 })") && rules[1].contains("Icmp(Any)"), "{rules:?}");
    assert!(rules.iter().all(|rule| rule.contains("0.0.0.0/0")), "{rules:?}");
}

#[tokio::test]
async fn a_second_run_says_which_it_is_and_changes_nothing() {
    let lab = Lab::new();
    let db = cloud(&lab).await;
    let (one, other) = tokio::join!(run(&lab), run(&lab));
    for done in [&one, &other] {
        assert_eq!((done.code.clone(), done.out.as_str()), (Ok(0), "i-00000001\n"), "{}", done.note);
    }
    let key = || std::fs::read(lab.path().join("keys/anne/moon-vpn.pem")).unwrap();
    let before = key();
    let again = run(&lab).await;
    assert_eq!((again.code, again.out.as_str()), (Ok(0), "i-00000001\n"));
    assert_eq!(again.note, "i-00000001 is the VPN of moon already, at 10.0.0.2; it is pending.\n");
    assert_eq!((held(&db).await.len(), key()), (1, before));
    rules(&db).await;
    let mut conn = db.read().await.unwrap();
    let pairs = key_pairs::list(&mut conn, &"anne".parse().unwrap()).await.unwrap();
    assert_eq!((pairs.len(), instances::due_scheduler(&mut conn, 9).await.unwrap().len()), (1, 1));
}

#[tokio::test]
async fn the_next_vpn_gets_the_address_when_it_has_rested() {
    let lab = Lab::new();
    let db = cloud(&lab).await;
    run(&lab).await;
    transaction!(db, |tx| { fixed_ips::release(tx, InstanceId::new(1), 120).await }).unwrap();
    expect!["10.0.0.2 is kept from others until the VPN that had it is forgotten; try again in some minutes"]
        .assert_eq(&run(&lab).await.code.unwrap_err());
    assert_eq!(held(&db).await, [], "nothing of the refused one is left");
    transaction!(db, |tx| { tx.execute("update fixed_ips set free_after = null", &[]).await }).unwrap();
    assert_eq!(run(&lab).await.out, "i-00000002\n", "the refused one took no number");
    assert_eq!(held(&db).await, [(InstanceId::new(2), "10.0.0.2".to_owned())]);
}

#[tokio::test]
async fn what_a_vpn_lacks_is_said_in_one_line() {
    let lab = Lab::new();
    let db = cloud(&lab).await;
    lab.ok("project create mars anne").await;
    for (flags, command, line) in [
        (
            vec!["--network_manager=nova.network.manager.FlatDHCPManager", IMAGE],
            "vpn run moon",
            expect!["only VlanManager and VxlanManager give projects networks that a VPN could lead into"],
        ),
        (
            vec![MANAGER],
            "vpn run moon",
            expect![
                "no image has a VPN server: register one of yours with nova-manage image register FILE --public, and set --vpn_image_id=ami-xxxxxxxx"
            ],
        ),
        (
            vec![MANAGER, "--vpn_image_id=ami-cloudpipe"],
            "vpn run moon",
            expect![
                "--vpn_image_id=ami-cloudpipe is no machine image; nova-manage image list shows the ids, as ami-00000001"
            ],
        ),
        (
            vec![MANAGER, "--vpn_image_id=ami-00000009"],
            "vpn run moon",
            expect!["there is no image ami-00000009 that moon may launch; nova-manage image list shows all"],
        ),
        (vec![MANAGER, IMAGE, "--quota_instances=0"], "vpn run moon", expect!["the quota of 0 instances is reached"]),
        (vec![MANAGER, IMAGE], "vpn run venus", expect!["no project venus; nova-manage project list shows all"]),
    ] {
        line.assert_eq(&lab.run_with(&flags, command).await.code.expect_err(command));
    }
    assert_eq!(held(&db).await, []);
    run(&lab).await;
    let without = lab.run_with(&[MANAGER, IMAGE], "vpn run mars").await.code.unwrap_err();
    expect!["there is no network left for mars; nova-manage network create makes more"].assert_eq(&without);
}

#[tokio::test]
async fn a_template_of_ones_own_is_taken() {
    let lab = Lab::new();
    cloud(&lab).await;
    let path = lab.path().join("boot.template");
    std::fs::write(&path, "echo $cc_host\n").unwrap();
    let flag = format!("--boot_script_template={}", path.display());
    let refused = lab.run_with(&[MANAGER, IMAGE, &flag], "vpn run moon").await.code.unwrap_err();
    assert!(refused.contains("is no template: there is no $cc_host; there are cc_dmz, cc_port"), "{refused}");
    std::fs::write(&path, "echo $cc_dmz $num_vpn\n").unwrap();
    assert_eq!(lab.run_with(&[MANAGER, IMAGE, &flag], "vpn run moon").await.code, Ok(0));
}
