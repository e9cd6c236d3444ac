//! What libvirt is told, word for word.

use std::path::Path;

use super::xml;
use crate::contract::spec;
use crate::{Accel, CloudId, GuestSpec, HypervisorError, KernelBoot};

fn shown(spec: &GuestSpec, accel: Accel) -> String {
    let text = xml(spec, accel, CloudId::new("a"), Path::new("/i/instance-00000001/console.log")).unwrap();
    text.replace("><", ">\n<")
}

#[test]
fn a_guest_with_a_kernel_is_described_so() {
    let mut spec = spec(1, Path::new("/i"));
    spec.seed = Some("/i/seed <1> & \"2\"".into());
    spec.boot = Some(KernelBoot {
        kernel: "/i/kernel".into(),
        ramdisk: Some("/i/ramdisk".into()),
        cmdline: "root=/dev/vda console=ttyS0".into(),
    });
    expect_test::expect_file!["kernel.xml"].assert_eq(&shown(&spec, Accel::Emulation));
}

#[test]
fn a_guest_that_boots_from_its_disk_under_kvm_is_described_so() {
    expect_test::expect_file!["disk.xml"].assert_eq(&shown(&spec(1, Path::new("/i")), Accel::Kvm));
}

#[test]
fn what_xml_cannot_carry_is_refused() {
    let mut broken = spec(1, Path::new("/i"));
    broken.nic.bridge = "br\u{1}".into();
    let error = xml(&broken, Accel::Kvm, CloudId::new("a"), Path::new("/c")).unwrap_err();
    assert!(matches!(error, HypervisorError::Spec { field: "the bridge's name", .. }), "{error}");
    let error = xml(&spec(1, Path::new("/i")), Accel::Kvm, CloudId::new("a"), Path::new("/c\n")).unwrap_err();
    assert_eq!(error.to_string(), "the console's path of i-00000001 cannot be described to the hypervisor");
}
