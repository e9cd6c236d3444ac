//! What is decided before the daemons run; the daemons together are tested by `tests/`.

use expect_test::expect;
use nova_config::{Config, Surroundings};
use nova_run::fake::Script;
use nova_service::chain;
use nova_types::network::ManagerKind;

use super::*;

fn config(flags: &[&str]) -> CombinedConfig {
    let args = [CombinedConfig::BINARY].iter().chain(flags).map(Into::into);
    CombinedConfig::load_in(args, &Surroundings::bare()).unwrap().config
}

#[test]
fn without_root_auto_means_simulated() {
    for (flags, root, choice) in [
        (&[][..], true, HypervisorChoice::Auto),
        (&[], false, HypervisorChoice::Simulated),
        (&["--hypervisor=libvirt"], false, HypervisorChoice::Libvirt),
        (&["--connection_type=fake"], true, HypervisorChoice::Simulated),
    ] {
        assert_eq!(settle(config(flags), root).compute.hypervisor, choice, "{flags:?} {root}");
    }
}

#[tokio::test]
async fn a_missing_program_is_named_with_its_package() {
    let told = async |script: &Script, manager| match parts::check_programs(script, manager).await {
        Ok(()) => "fine".to_owned(),
        Err(error) => chain(&error).to_string(),
    };
    let both = Script::new().prints("nft", "v1").fails("dnsmasq", 1, "odd");
    assert_eq!(told(&both, ManagerKind::FlatDhcp).await, "fine");
    let nft = Script::new().prints("nft", "v1");
    assert_eq!(told(&nft, ManagerKind::Flat).await, "fine");
    expect!["dnsmasq-base is needed for real guests (apt-get install dnsmasq-base): dnsmasq is not installed (looked in PATH)"]
        .assert_eq(&told(&nft, ManagerKind::FlatDhcp).await);
    expect!["nftables is needed for real guests (apt-get install nftables): nft is not installed (looked in PATH)"]
        .assert_eq(&told(&Script::new(), ManagerKind::FlatDhcp).await);
}

#[tokio::test]
async fn a_database_that_cannot_be_opened_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let flag = format!("--sql_connection=sqlite:///{}/none/nova.sqlite", folder.path().display());
    let error = parts::database(&config(&[&flag]).database).await.unwrap_err();
    let told = chain(&error).to_string();
    assert!(told.starts_with("cannot use the database sqlite:////"), "{told}");
    assert!(told.contains("/none/nova.sqlite (--sql_connection): the database is not available"), "{told}");
}
