//! Each way in which a header can lie, by hand; and what qemu-img makes, where it is installed.

use std::io::Cursor;
use std::path::Path;

use expect_test::expect;
use nova_types::image::DiskFormat;

use super::{Inspected, inspect};

/// A good version 3 header of a 1 GiB disk, with clusters of 64 KiB.
fn qcow2() -> Vec<u8> {
    let mut h = vec![0; 4 << 16];
    h[..4].copy_from_slice(b"QFI\xfb");
    put32(&mut h, 4, 3);
    put32(&mut h, 20, 16);
    put64(&mut h, 24, 1 << 30);
    put32(&mut h, 36, 2);
    put64(&mut h, 40, 3 << 16);
    put64(&mut h, 48, 1 << 16);
    put32(&mut h, 56, 1);
    put32(&mut h, 96, 4);
    put32(&mut h, 100, 104);
    h
}

fn put32(bytes: &mut [u8], at: usize, value: u32) {
    bytes[at..at + 4].copy_from_slice(&value.to_be_bytes());
}

fn put64(bytes: &mut [u8], at: usize, value: u64) {
    bytes[at..at + 8].copy_from_slice(&value.to_be_bytes());
}

fn check(bytes: &[u8], declared: DiskFormat) -> String {
    match inspect(&mut Cursor::new(bytes), declared) {
        Ok(Inspected { format, virtual_size_bytes }) => format!("{} {virtual_size_bytes}", format.as_str()),
        Err(e) => e.to_string(),
    }
}

fn spoiled(spoil: impl FnOnce(&mut Vec<u8>), answer: &str) {
    let mut bytes = qcow2();
    spoil(&mut bytes);
    assert_eq!(check(&bytes, DiskFormat::Qcow2), answer);
}

#[test]
fn a_good_header_is_read() {
    spoiled(|_| {}, "qcow2 1073741824");
    spoiled(|h| put32(h, 4, 2), "qcow2 1073741824");
    spoiled(|h| put64(h, 72, 1 << 3 | 1 << 4), "qcow2 1073741824");
    // An extension that may be skipped: the table of feature names.
    spoiled(
        |h| {
            put32(h, 104, 0x6803_f857);
            put32(h, 108, 5);
        },
        "qcow2 1073741824",
    );
}

#[test]
fn a_header_that_opens_more_than_its_file_is_refused() {
    let backing = "the qcow2 image has a backing file; flatten it with qemu-img convert";
    spoiled(|h| put64(h, 8, 0x210), backing);
    spoiled(|h| put32(h, 16, 11), backing);
    let data = "the qcow2 image has an external data file";
    spoiled(|h| put64(h, 72, 1 << 2), data);
    spoiled(|h| put64(h, 88, 1 << 1), data);
    spoiled(
        |h| {
            put32(h, 104, 0x4441_5441);
            put32(h, 108, 11);
        },
        data,
    );
    spoiled(
        |h| {
            put32(h, 104, 0x6803_f857);
            put32(h, 108, 5);
            put32(h, 120, 0x4441_5441);
        },
        data,
    );
    spoiled(
        |h| {
            put32(h, 104, 0xe279_2aca);
            put32(h, 108, 3);
        },
        "the qcow2 image names the format of a backing file",
    );
    let encrypted = "the qcow2 image is encrypted";
    spoiled(|h| put32(h, 32, 1), encrypted);
    spoiled(
        |h| {
            put32(h, 104, 0x0537_be77);
            put32(h, 108, 16);
        },
        encrypted,
    );
}

#[test]
fn a_header_that_makes_no_sense_is_refused() {
    spoiled(|h| put32(h, 4, 4), "the qcow2 image has the unknown version 4");
    spoiled(
        |h| put64(h, 72, 1),
        "the qcow2 image has incompatible features that we do not open (0x1); run qemu-img convert on it",
    );
    spoiled(
        |h| put64(h, 72, 1 << 63),
        "the qcow2 image has incompatible features that we do not open (0x8000000000000000); run qemu-img convert on it",
    );
    for bits in [0, 8, 22, 64, u32::MAX] {
        let mut bytes = qcow2();
        put32(&mut bytes, 20, bits);
        assert_eq!(check(&bytes, DiskFormat::Qcow2), format!("the qcow2 image has clusters of 2^{bits} bytes"));
    }
    spoiled(|h| put64(h, 24, 0), "the qcow2 image holds a disk of no bytes");
    spoiled(|h| put64(h, 24, u64::MAX), "the qcow2 image has a table that does not fit its size");
    spoiled(
        |h| {
            put64(h, 24, 17 << 40);
            put32(h, 36, 1 << 20);
        },
        "the qcow2 image says it is larger than 16 TiB",
    );
    spoiled(|h| put32(h, 36, u32::MAX), "the qcow2 image has a table that does not fit its size");
    spoiled(|h| put64(h, 40, 8), "the qcow2 image has a table where none can be");
    spoiled(|h| put64(h, 48, 0), "the qcow2 image has a table where none can be");
    spoiled(|h| put32(h, 60, 1), "the qcow2 image has internal snapshots; flatten it with qemu-img convert");
    spoiled(|h| put32(h, 96, 7), "the qcow2 image has reference counts wider than 64 bits");
    for length in [0, 96, 105, 520, u32::MAX] {
        let mut bytes = qcow2();
        put32(&mut bytes, 100, length);
        assert_eq!(check(&bytes, DiskFormat::Qcow2), format!("the qcow2 image has a header of {length} bytes"));
    }
    spoiled(
        |h| {
            put32(h, 104, 7);
            put32(h, 108, u32::MAX);
        },
        "the qcow2 image has a header extension that does not end",
    );
}

/// No prefix and no changed byte of a header may panic; what is accepted keeps its promises.
#[test]
fn any_cut_and_any_changed_byte_is_survived() {
    let good = qcow2();
    for length in 1..200 {
        check(&good[..length], DiskFormat::Qcow2);
    }
    for at in 0..160 {
        for value in [0, 1, 0x7f, 0x80, 0xff] {
            let mut bytes = good[..4096].to_vec();
            bytes[at] = value;
            check(&bytes, DiskFormat::Qcow2);
        }
    }
}

#[test]
fn what_is_declared_must_be_what_is_found() {
    assert_eq!(check(b"", DiskFormat::Raw), "the image is empty");
    assert_eq!(check(&[0; 700], DiskFormat::Raw), "raw 700");
    assert_eq!(check(b"MZ a kernel", DiskFormat::Raw), "raw 11");
    assert_eq!(check(&[0; 700], DiskFormat::Qcow2), "the image was declared qcow2 but looks like raw");
    assert_eq!(check(&qcow2(), DiskFormat::Raw), "the image was declared raw but looks like qcow2");
    let mut vdi = vec![0; 512];
    vdi[64..68].copy_from_slice(&[0x7f, 0x10, 0xda, 0xbe]);
    for (bytes, name) in [
        (&b"KDMV\0\0\0\0"[..], "VMDK"),
        (b"# Disk DescriptorFile\nversion=1", "a VMDK descriptor"),
        (b"vhdxfile", "VHDX"),
        (b"LUKS\xba\xbe\0\x01", "LUKS"),
        (&vdi, "VDI"),
    ] {
        for declared in [DiskFormat::Raw, DiskFormat::Qcow2] {
            let wanted = format!("the image was declared {} but looks like {name}", declared.as_str());
            assert_eq!(check(bytes, declared), wanted);
        }
    }
}

/// A parser that refused what qemu-img writes would be safe and useless.
#[test]
#[expect(clippy::disallowed_methods, reason = "a test asks qemu-img, which production code of this crate never runs")]
fn what_qemu_img_makes_is_judged_rightly() {
    let folder = tempfile::tempdir().unwrap();
    let make = |name: &str, arguments: &[&str]| {
        let mut all = vec!["create", "-q"];
        all.extend(arguments);
        all.extend([name, "64M"]);
        // For LUKS it measures the processor, and now and then fails: "Unable to get accurate CPU usage".
        let created = (0..20).any(|_| {
            let mut command = std::process::Command::new("qemu-img");
            command.args(&all).current_dir(folder.path()).status().unwrap().success()
        });
        assert!(created, "{arguments:?}");
        let mut file = std::fs::File::open(folder.path().join(name)).unwrap();
        match inspect(&mut file, DiskFormat::Qcow2) {
            Ok(found) => found.virtual_size_bytes.to_string(),
            Err(e) => e.to_string(),
        }
    };
    for options in [
        "compat=0.10",
        "compat=1.1",
        "compression_type=zstd",
        "extended_l2=on",
        "cluster_size=512",
        "cluster_size=2M",
        "lazy_refcounts=on",
        "preallocation=metadata",
    ] {
        assert_eq!(make("good.qcow2", &["-f", "qcow2", "-o", options]), "67108864", "{options}");
    }
    assert_eq!(make("base.raw", &["-f", "raw"]), "the image was declared qcow2 but looks like raw");
    assert!(Path::new(&folder.path().join("base.raw")).exists());
    expect!["the qcow2 image has a backing file; flatten it with qemu-img convert"]
        .assert_eq(&make("overlay.qcow2", &["-f", "qcow2", "-F", "raw", "-b", "base.raw"]));
    expect!["the qcow2 image has an external data file"]
        .assert_eq(&make("data.qcow2", &["-f", "qcow2", "-o", "data_file=base.raw,data_file_raw=on"]));
    expect!["the qcow2 image is encrypted"].assert_eq(&make(
        "luks.qcow2",
        &[
            "-f",
            "qcow2",
            "--object",
            "secret,id=s,data=x",
            "-o",
            "encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=200",
        ],
    ));
    expect!["the image was declared qcow2 but looks like VMDK"].assert_eq(&make("x.vmdk", &["-f", "vmdk"]));
    expect!["the image was declared qcow2 but looks like VDI"].assert_eq(&make("x.vdi", &["-f", "vdi"]));
    expect!["the image was declared qcow2 but looks like VHDX"].assert_eq(&make("x.vhdx", &["-f", "vhdx"]));
    expect!["the image was declared qcow2 but looks like VHD"].assert_eq(&make("x.vhd", &["-f", "vpc"]));
    expect!["the image was declared qcow2 but looks like QED"].assert_eq(&make("x.qed", &["-f", "qed"]));
}
