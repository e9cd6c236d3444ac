//! The decision, on scripted machines and on this one.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use nova_run::fake::Script;
use nova_run::{Command, Host, Runner};

use super::{Choice, GuestKind, Options, Want, choose};
use crate::{CloudId, simulated};

const NO_LIBVIRT: &str = r#"{"say":"answer","id":ID,"outcome":"could_not_ask","reason":"no socket"}"#;
const NO_GUESTS: &str = r#"{"say":"answer","id":ID,"outcome":"domains","domains":[]}"#;

fn helper(answer: &'static str) -> impl Fn(&str) -> Vec<String> {
    move |line| {
        let id = line.trim_start_matches(r#"{"id":"#).split(',').next().unwrap_or_default();
        vec![answer.replace("ID", id)]
    }
}

fn options(want: Want, guests: GuestKind, folder: &Path) -> Options {
    let helper = folder.join("nova-libvirt");
    std::fs::write(&helper, "").unwrap();
    Options {
        want,
        guests,
        uri: "test:///default".to_owned(),
        helper: Some(helper),
        instances_path: folder.to_owned(),
        cloud: CloudId::new("a"),
        simulated: simulated::Options::default(),
    }
}

async fn told(options: Options, script: Script) -> String {
    let Choice { kind, reason, .. } = choose(options, Arc::new(script)).await.unwrap();
    format!("{kind}: {reason}")
}

#[tokio::test(start_paused = true)]
async fn the_choice_and_its_reason_follow_from_what_works() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let start = path.join("nova-libvirt").display().to_string();
    let kvm_works = || Script::new().fails("qemu-system-x86_64", 99, "");
    let kvm_refuses = || Script::new().fails("qemu-system-x86_64", 1, "failed to initialize kvm: Permission denied");
    for (want, guests, script, expected) in [
        (Want::Simulated, GuestKind::Kvm, Script::new(), "simulated: it was asked for, or there are such guests"),
        (Want::Auto, GuestKind::Kvm, kvm_works().talks(&start, helper(NO_GUESTS)), "libvirt (kvm): KVM runs code"),
        (
            Want::Auto,
            GuestKind::Kvm,
            kvm_refuses().talks(&start, helper(NO_GUESTS)),
            "libvirt (qemu): KVM does not work here (failed to initialize kvm: Permission denied)",
        ),
        (
            Want::Auto,
            GuestKind::Qemu,
            Script::new().talks(&start, helper(NO_GUESTS)),
            "libvirt (qemu): emulation was asked for",
        ),
        (
            Want::Auto,
            GuestKind::Qemu,
            Script::new().talks(&start, helper(NO_LIBVIRT)),
            "simulated: could not ask the hypervisor: no socket",
        ),
        (Want::Libvirt, GuestKind::Qemu, Script::new(), "libvirt (qemu): emulation was asked for"),
    ] {
        assert_eq!(told(options(want, guests, path), script).await, expected, "{want:?} {guests:?}");
        std::fs::remove_file(path.join(".hypervisor")).unwrap();
    }
    let left: Vec<_> = std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["nova-libvirt"]);
}

#[tokio::test]
async fn without_the_helper_nothing_is_asked_of_libvirt() {
    let folder = tempfile::tempdir().unwrap();
    let mut options = options(Want::Auto, GuestKind::Kvm, folder.path());
    options.helper = Some("/nowhere/nova-libvirt".into());
    assert_eq!(told(options.clone(), Script::new()).await, "simulated: /nowhere/nova-libvirt does not exist");
    options.want = Want::Libvirt;
    let refused = choose(options.clone(), Arc::new(Script::new())).await.unwrap_err();
    assert_eq!(refused.to_string(), "libvirt was asked for, and /nowhere/nova-libvirt does not exist");

    // Where there are guests, they are waited for.
    std::fs::write(folder.path().join(".hypervisor"), "libvirt").unwrap();
    std::fs::create_dir(folder.path().join("instance-0000000a")).unwrap();
    (options.want, options.guests) = (Want::Auto, GuestKind::Qemu);
    assert_eq!(told(options, Script::new()).await, "libvirt (qemu): emulation was asked for");
}

#[tokio::test(start_paused = true)]
async fn guests_stay_on_what_they_were_made_on() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let start = path.join("nova-libvirt").display().to_string();
    let there = || Script::new().talks(&start, helper(NO_GUESTS));
    let away = || Script::new().talks(&start, helper(NO_LIBVIRT));
    let mut auto = options(Want::Auto, GuestKind::Qemu, path);
    auto.simulated.state_file = Some(path.join("guests"));

    let libvirt = "libvirt (qemu): emulation was asked for";
    assert_eq!(told(auto.clone(), away()).await, "simulated: could not ask the hypervisor: no socket");
    assert_eq!(told(auto.clone(), there()).await, libvirt, "nothing was simulated yet");
    assert!(told(auto.clone(), away()).await.starts_with("simulated"), "there is no guest to wait for");
    assert_eq!(told(auto.clone(), there()).await, libvirt);
    std::fs::create_dir(path.join("instance-0000000a")).unwrap();
    assert_eq!(told(auto.clone(), away()).await, libvirt, "it is only down");

    std::fs::write(path.join("guests"), "i-00000001 on\n").unwrap();
    std::fs::write(path.join(".hypervisor"), "simulated").unwrap();
    assert!(told(auto, there()).await.starts_with("simulated"));
}

/// The same boot sector under emulation: if it could not end QEMU, no KVM would ever pass.
#[tokio::test]
async fn the_boot_sector_is_one_that_can_pass() {
    let folder = tempfile::tempdir().unwrap();
    let disk = folder.path().join("disk");
    std::fs::write(&disk, super::kvm::boot_sector()).unwrap();
    let mut command = Command::new("qemu-system-x86_64").deadline(Duration::from_secs(60));
    for arg in super::kvm::command(&disk).arguments() {
        command = command.arg(arg.replace("accel=kvm", "accel=tcg"));
    }
    match Host.run(command).await {
        Err(nova_run::RunError::NotInstalled { .. }) => {}
        ended => assert_eq!(ended.unwrap_err().status(), Some(99)),
    }
}
